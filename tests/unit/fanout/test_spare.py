"""How idle workers are shared among those who read long lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from capillary_async._fanout.spare import Spare


@given(st.sets(st.integers(0, 39)), st.integers(1, 40))
def test_no_more_under_way_than_workers_and_even_shares(idle: set[int], concurrency: int) -> None:
    """Each busy worker has its own permit and its part of the idle ones'; none is left over, none is given twice."""
    spare = Spare(concurrency, concurrency)
    for worker in idle:
        if worker < concurrency:
            spare.rests(worker)
    busy = [worker for worker in range(concurrency) if worker not in idle]
    shares = [max(spare.share(worker), 1) for worker in busy]
    assert bool(spare) == (len(busy) < concurrency)
    if busy:
        assert sum(shares) == concurrency
        assert max(shares) - min(shares) <= 1


@given(st.integers(1, 10), st.integers(1, 40))
def test_workers_that_were_never_needed_are_idle(workers: int, more: int) -> None:
    """One key among 32 permits has them all."""
    spare = Spare(workers, workers + more)
    assert sum(max(spare.share(worker), 1) for worker in range(workers)) == workers + more


def test_a_worker_that_goes_on_takes_its_permit_back() -> None:
    """And one that nobody can help asks for page after page."""
    spare = Spare(2, 2)
    assert (bool(spare), spare.share(0), spare.share(1)) == (False, 0, 0)
    spare.rests(1)
    assert (bool(spare), spare.share(0)) == (True, 2)
    spare.works(1)
    assert (bool(spare), spare.share(0)) == (False, 0)
