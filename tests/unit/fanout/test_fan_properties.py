"""Whatever keys do and however a loop is left: one outcome a key, the items of a sequential reading, nothing left over.

In virtual time, so that a slow page may take an hour.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from attrs import frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fan_lists import Lists, reading
from support.gated_client import Client, gated, virtual_calls
from support.virtual_time import run

from capillary_async import BadRequestError, CapillaryError, ServerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capillary_async import FanOut


@pytest.fixture(autouse=True, scope="module")
def _virtual_calls() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        virtual_calls(patch)
        yield


MODES = ["outcomes", "ordered", "pages", "items"]


@frozen
class Way:
    """What one key does.

    Attributes:
        rows: How many it has.
        slow: Seconds a page takes; the service may answer at once.
        fault: `refused` for good at page `at`, `down` there so many `times` before it answers, or `cancelled` there.
    """

    rows: int
    slow: float
    fault: str = ""
    at: int = 1
    times: int = 1


def ways(*faults: str) -> st.SearchStrategy[list[Way]]:
    """Any mix of keys."""
    seconds = st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.4, 3600.0])
    way = st.builds(
        Way, st.integers(0, 12), seconds, st.sampled_from(["", *faults]), st.integers(1, 4), st.integers(1, 2)
    )
    return st.lists(way, max_size=25)


class Mixed(Lists):
    """The lists of such keys; key `n` goes the nth way, from 1."""

    def __init__(self, mix: list[Way], size: int) -> None:
        super().__init__(lambda key: mix[key - 1].rows, size)
        self.mix = mix
        self.met: Counter[int] = Counter()
        self.before = self.behave
        gated(self, Client(None, call=1e9))

    async def behave(self, key: int, number: int) -> None:
        """Wait, then fail or not."""
        way = self.mix[key - 1]
        await asyncio.sleep(way.slow)
        if number != way.at:
            return
        if way.fault == "refused":
            raise BadRequestError("no", status=400)
        if way.fault == "cancelled":
            raise asyncio.CancelledError
        self.met[key] += 1
        if way.fault == "down" and self.met[key] <= way.times:
            raise ServerError("down", status=500)

    def fails(self, key: int) -> bool:
        """Whether a sequential reading comes to the page that is refused or cancelled."""
        way = self.mix[key - 1]
        return way.fault in ("refused", "cancelled") and way.at <= way.rows // self.size + 1


def keys_of(lists: Mixed, kind: str) -> Any:
    """The input as users give it."""
    keys = range(1, len(lists.mix) + 1)

    def one_by_one() -> Iterator[int]:
        yield from keys

    async def slowly() -> AsyncIterator[int]:
        for key in keys:
            await asyncio.sleep(0.3 if key % 7 == 3 else 0)
            yield key

    return {"list": list(keys), "generator": one_by_one(), "async": slowly()}[kind]


def loop(fan: FanOut[Any, Any], mode: str) -> Any:
    """The iterator of a mode."""
    return aiter(fan) if mode == "outcomes" else getattr(fan, mode)()


def nothing_left(lists: Lists) -> None:
    """No task, and no request under way."""
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert lists.running == 0


options = st.fixed_dictionaries({"concurrency": st.integers(1, 8), "prefetch": st.integers(0, 6)})
inputs = st.sampled_from(["list", "generator", "async"])


@settings(max_examples=150, deadline=None)
@given(ways("refused", "down"), st.integers(1, 4), options, inputs, st.booleans())
def test_every_key_has_one_outcome_with_the_items_of_a_sequential_reading(
    mix: list[Way], size: int, given_: dict[str, int], kind: str, ordered: bool
) -> None:
    """Slow, fast, refused and interrupted ones beside each other; in the order of the input where that is wanted."""

    async def main() -> None:
        lists = Mixed(mix, size)
        fan = reading(keys_of(lists, kind), lists, **given_)
        outcomes = [outcome async for outcome in loop(fan, "ordered" if ordered else "outcomes")]
        keys = [outcome.key for outcome in outcomes]
        assert (keys if ordered else sorted(keys)) == list(range(1, len(mix) + 1))
        for outcome in outcomes:
            assert outcome.ok is not lists.fails(outcome.key)
            assert outcome.items == (() if lists.fails(outcome.key) else tuple(lists.rows_of(outcome.key)))
            assert outcome.error is None or outcome.error.key == outcome.key
        # Pages read ahead while nobody had a key to take, beside the keys taken since.
        assert lists.most <= given_["concurrency"] * 2
        nothing_left(lists)

    run(main)


@settings(max_examples=150, deadline=None)
@given(ways("refused", "down"), st.integers(1, 4), options, inputs, st.booleans())
def test_pages_and_items_are_those_of_a_sequential_reading(
    mix: list[Way], size: int, given_: dict[str, int], kind: str, whole: bool
) -> None:
    """Each key's in order and once; an error raised has its key, and behind it each key has a part without gaps."""

    async def main() -> None:
        lists = Mixed(mix, size)
        iterator = loop(reading(keys_of(lists, kind), lists, **given_), "pages" if whole else "items")
        got: dict[int, list[Any]] = {key: [] for key in range(1, len(mix) + 1)}
        ended: Counter[int] = Counter()
        error: CapillaryError | None = None
        try:
            async for one in iterator:
                got[one[0]].extend(one[1].items if whole else [one])
                ended[one[0]] += whole and one[1].last
        except BadRequestError as refused:
            error = refused
        if error is not None:
            assert lists.fails(error.key)
        else:
            assert not any(lists.fails(key) for key in got)
            assert not whole or ended == Counter(got.keys())
        for key, rows in got.items():
            due = lists.rows_of(key)
            assert rows == (due if error is None or ended[key] else due[: len(rows)])
        nothing_left(lists)

    run(main)


@settings(max_examples=100, deadline=None)
@given(ways("cancelled", "refused", "down"), st.sampled_from(MODES), options, inputs)
@example([Way(1, 0.0), Way(1, 0.0, "cancelled")], "outcomes", {"concurrency": 2, "prefetch": 4}, "list")
def test_a_key_that_is_cancelled_from_within_is_never_taken_for_the_end(
    mix: list[Way], mode: str, given_: dict[str, int], kind: str
) -> None:
    """No key has two outcomes, and a loop that ends without an error has them all."""

    async def main() -> None:
        lists = Mixed(mix, 2)
        iterator = loop(reading(keys_of(lists, kind), lists, **given_), mode)
        got: list[Any] = []
        error: Exception | None = None
        try:
            async for one in iterator:
                got.append(one)  # noqa: PERF401 - what came before the error is wanted
        except (RuntimeError, BadRequestError) as ended:
            error = ended
        if mode in ("outcomes", "ordered"):
            keys = [outcome.key for outcome in got]
            assert len(set(keys)) == len(keys)
            assert (error is None) == (len(keys) == len(mix))
            assert all(outcome.items == tuple(lists.rows_of(outcome.key)) for outcome in got if outcome.ok)
        else:
            assert (error is None) is not any(lists.fails(key) for key in range(1, len(mix) + 1))
        if isinstance(error, RuntimeError):
            assert "cancelled from elsewhere" in str(error)
        nothing_left(lists)

    run(main)


async def _left(iterator: Any, how: str, taken: int, steps: int) -> None:
    """Leave a loop: behind so many things taken, or after so many steps of the event loop."""

    async def read() -> None:
        count = 0
        async for _ in iterator:
            count += 1
            if count > taken and how == "break":
                return
            if count > taken and how == "raise":
                raise ZeroDivisionError

    if how in ("break", "raise"):
        with suppress(ZeroDivisionError):
            await read()
        await iterator.aclose()
        return
    if how == "timeout":
        with suppress(TimeoutError):
            async with asyncio.timeout(steps / 50):
                await read()
        return
    task = asyncio.ensure_future(read())
    for _ in range(steps):
        await asyncio.sleep(0)
    if how == "close":
        await iterator.aclose()
    else:
        task.cancel()
    with suppress(asyncio.CancelledError, RuntimeError):
        await task


@settings(max_examples=250, deadline=None)
@given(
    ways("down"),
    st.sampled_from(MODES),
    st.sampled_from(["break", "raise", "timeout", "cancel", "close"]),
    st.tuples(st.integers(0, 30), st.integers(0, 150)),
    st.tuples(options, inputs),
)
def test_a_loop_left_at_any_point_leaves_nothing(
    mix: list[Way], mode: str, how: str, when: tuple[int, int], setting: tuple[dict[str, int], str]
) -> None:
    """Not one task or request, as soon as whoever left it goes on; and asking on is never an end that looks clean."""
    problems: list[Any] = []
    given_, kind = setting

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        lists = Mixed(mix, 2)
        iterator = loop(reading(keys_of(lists, kind), lists, **given_), mode)
        await _left(iterator, how, *when)
        nothing_left(lists)
        if iterator._run is None and iterator._ended is None:
            return  # cancelled before the loop over it had begun: it is as new
        with suppress(StopAsyncIteration), pytest.raises(RuntimeError, match="loop over the fan-out again"):
            await anext(iterator)
        nothing_left(lists)

    run(main)
    assert not problems
