"""The gate as a value: open, shut until a time, half open with one probe; nothing waits and nothing is sent."""

import pytest

from capillary_async import RateLimitedError, RetryPolicy
from capillary_async._transport.gate import GATE_JITTER, IN_A_ROW, Gate
from capillary_async._transport.retry_decision import NotSentError


class Timed:
    """A gate and the clock that it reads."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.gate = Gate(RetryPolicy(), clock=lambda: self.now, uniform=lambda low, high: high)

    def refuse(self, after: float | None = None, *, probe: bool = False) -> None:
        """A request is refused with 429."""
        self.gate.failed(RateLimitedError("later", status=429, retry_after=after), None, probe=probe)


def test_an_open_gate_delays_nothing_and_needs_no_probe() -> None:
    """No wait, no probe, no refusal."""
    gate = Timed().gate
    assert (gate.wait(), gate.probe_granted("a"), gate.refusal_for(None, 0.0)) == (None, False, None)


def test_a_shut_gate_becomes_half_open_at_its_time_and_opens_after_a_good_answer() -> None:
    """One probe goes; a good answer to another request changes nothing."""
    timed = Timed()
    timed.refuse(10.0)
    assert timed.gate.wait() == pytest.approx(10 * (1 + GATE_JITTER))
    timed.now += 10.3
    assert timed.gate.wait() is None
    assert timed.gate.probe_granted("a")
    assert timed.gate.wait() == 0.0
    timed.gate.succeeded(probe=False)
    assert timed.gate.state is not None
    timed.gate.succeeded(probe=True)
    assert timed.gate.state is None


def test_a_dropped_probe_leaves_its_part_to_the_next() -> None:
    """The permit of another request drops nothing."""
    timed = Timed()
    timed.refuse(10.0)
    timed.now += 11
    timed.gate.probe_granted("a")
    timed.gate.probe_dropped("b")
    assert timed.gate.wait() == 0.0
    timed.gate.probe_dropped("a")
    assert timed.gate.wait() is None


def test_refusals_without_a_time_shut_it_only_in_a_row_and_for_longer_each_time() -> None:
    """A good answer between them starts the count again; refused probes double the pause."""
    timed = Timed()
    for _ in range(IN_A_ROW - 1):
        timed.refuse()
    timed.gate.succeeded(probe=False)
    assert timed.gate.state is None
    for _ in range(IN_A_ROW):
        timed.refuse()
    pauses: list[float | None] = []
    for _ in range(3):
        pauses.append(timed.gate.wait())
        timed.now += pauses[-1] or 0.0
        assert timed.gate.probe_granted("a")
        timed.refuse(probe=True)
    assert pauses == pytest.approx([1.0, 2.0, 4.0])


def test_a_shorter_time_never_moves_a_longer_one() -> None:
    """It stays shut for what was asked first, and `since` is that of the first refusal."""
    timed = Timed()
    timed.refuse(60.0)
    timed.now += 1
    timed.refuse(5.0)
    assert timed.gate.state is not None
    assert (timed.gate.state.since, timed.gate.state.retry_at) == (1_000.0, 1_060.0)
    timed.refuse(100.0)
    assert (timed.gate.state.since, timed.gate.state.retry_at) == (1_000.0, 1_101.0)


def test_a_wait_beyond_the_longest_is_refused_at_once_until_a_probe_may_check_it() -> None:
    """Unsent, with the time that is left."""
    timed = Timed()
    timed.refuse(3_600.0)
    timed.now += 100
    refusal = timed.gate.refusal_for(None, timed.now)
    assert isinstance(refusal, NotSentError)
    assert isinstance(refusal.error, RateLimitedError)
    assert (refusal.error.sent, refusal.error.retry_after) == (False, 3_500.0)
    timed.now += 20
    assert timed.gate.refusal_for(None, timed.now) is None
    assert timed.gate.wait() is None
