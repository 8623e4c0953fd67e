"""The input of a fan-out: what may be given, how far it is read ahead, and that it is closed."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fan_fakes import Shelf, batches_over, check_key, fan_over, until_raised

from capillary_async import EventQuery, EventType, Identifier, InvalidRequestError, LedgerQuery
from capillary_async._fanout.keys import AHEAD, KeySource, compact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


async def keys_of(fan: Any) -> list[Any]:
    """The keys of all outcomes, in the order of the input."""
    return [outcome.key async for outcome in fan.ordered()]


class Again:
    """An iterable that can be read as often as wanted."""

    def __iter__(self) -> Iterator[int]:
        yield from (1, 2, 3)


class Index:
    """A number as numpy has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize(
    "source",
    [
        [1, 2, 3],
        (1, 2, 3),
        {1, 2, 3},
        frozenset({1, 2, 3}),
        {1: "a", 2: "b", 3: "c"},
        {1: "a", 2: "b", 3: "c"}.keys(),
        range(1, 4),
        Again(),
        ["1", "2", "3"],
        [Index(1), Index(2), Index(3)],
    ],
    ids=lambda source: type(source).__name__,
)
async def test_what_can_be_read_again_can_be_looped_over_twice(source: Any) -> None:
    """Lists, sets, dicts, ranges and iterables of one's own give the same keys each time."""
    fan = fan_over(source, Shelf())
    assert await keys_of(fan) == [1, 2, 3]
    assert await keys_of(fan) == [1, 2, 3]


async def _stream() -> AsyncIterator[int]:
    for key in (1, 2, 3):
        yield key


@pytest.mark.parametrize(
    "make",
    [lambda: (key for key in (1, 2, 3)), _stream, lambda: iter([1, 2, 3]), lambda: map(int, "123")],
    ids=["generator", "async generator", "iterator", "map"],
)
async def test_an_iterator_is_read_once(make: Any) -> None:
    """The second loop over a spent iterator is an error, not an empty list."""
    fan = fan_over(make(), Shelf())
    assert await keys_of(fan) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="keys is an iterator that was read before: give a list"):
        await keys_of(fan)
    with pytest.raises(RuntimeError, match="read before"):
        await fan.options(concurrency=1).collect()


async def test_a_generator_spent_elsewhere_is_refused() -> None:
    """A generator that ended in another loop would look like an empty input."""
    spent = (key for key in [1])
    assert list(spent) == [1]
    with pytest.raises(RuntimeError, match="read before"):
        await fan_over(spent, Shelf()).collect()
    stream = _stream()
    assert [key async for key in stream] == [1, 2, 3]
    with pytest.raises(RuntimeError, match="read before"):
        await fan_over(stream, Shelf()).collect()


@pytest.mark.parametrize("source", ["123", b"123", bytearray(b"1"), 7, None, 3.5, object()], ids=range(7))
def test_what_is_no_list_is_refused_at_the_call(source: object) -> None:
    """A bare text or number is a slip, and a text would be read letter by letter."""
    with pytest.raises(InvalidRequestError, match=f"keys takes an iterable .* got {type(source).__name__}") as caught:
        fan_over(source, Shelf())
    assert caught.value.argument == "keys"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "source", [[1, "12x"], (1, True), {1: 0, -5: 0}, [1, 2.0], range(3), range(5, -2, -1)], ids=repr
)
def test_an_input_with_a_length_is_checked_whole_at_the_call(source: Any) -> None:
    """One bad id anywhere in a list, and nothing is asked."""
    with pytest.raises(InvalidRequestError, match="keys takes a positive whole number"):
        fan_over(source, Shelf())


def test_a_huge_range_costs_nothing() -> None:
    """Its ends say all, so it is neither copied nor looked at one by one."""
    keys = KeySource(range(1, 2**63), check_key, "keys")
    assert keys.length == 2**63 - 1
    with pytest.raises(InvalidRequestError):
        KeySource(range(1, 10**30), check_key, "keys")
    assert KeySource(range(0), check_key, "keys").length == 0


async def test_a_huge_range_is_read_as_far_as_it_is_used() -> None:
    """Three outcomes of a range of a billion come at once, and little more is asked."""
    shelf = Shelf(rows=1)
    iterator = aiter(fan_over(range(1, 10**9), shelf, concurrency=2))
    assert sorted([(await anext(iterator)).key for _ in range(3)]) == [1, 2, 3]
    await iterator.aclose()
    assert len(shelf.keys_asked) < 12


async def test_an_empty_input_has_no_outcome() -> None:
    """Neither an outcome nor a request, whatever kind of nothing it is."""

    async def nothing() -> AsyncIterator[int]:
        for key in ():
            yield key

    shelf = Shelf()
    for source in ([], (), {}, range(0), iter(()), nothing()):
        fan = fan_over(source, shelf)
        assert await fan.collect() == {}
    assert shelf.asked == []


async def test_a_bad_id_of_an_iterator_is_an_outcome() -> None:
    """The rest is answered, in its place."""

    def ids() -> Iterator[Any]:
        yield from (1, "12x", 2, True, 3.5, [4], 5)

    outcomes = [outcome async for outcome in fan_over(ids(), Shelf()).ordered()]
    assert [outcome.key for outcome in outcomes] == [1, "12x", 2, True, 3.5, [4], 5]
    assert [outcome.ok for outcome in outcomes] == [True, False, True, False, False, False, True]
    for outcome in outcomes:
        if not outcome.ok:
            assert isinstance(outcome.error, InvalidRequestError)
            assert outcome.error.key == outcome.key
            assert outcome.items == ()


async def test_a_bad_id_never_takes_the_place_of_a_good_one() -> None:
    """`True` equals 1 and a list has no hash: in the dict of `collect` they stand under their text."""
    collected = await fan_over(iter([True, 1, [4], "12x", 1.0]), Shelf()).collect()
    assert collected[1].ok
    assert collected[1].items == ((1, 0),)
    assert {key for key, outcome in collected.items() if not outcome.ok} == {"True", "[4]", "12x", "1.0"}


async def test_bad_ids_are_held_back_like_good_ones() -> None:
    """A slow first key and a thousand bad ones behind it: the bad ones wait with the input."""
    shelf, release = Shelf(), asyncio.Event()
    read: list[int] = []

    async def wait(key: int, number: int) -> None:
        await release.wait()

    def ids() -> Iterator[Any]:
        yield 1
        for n in range(1000):
            read.append(n)
            yield f"bad {n}"

    shelf.before = wait
    iterator = fan_over(ids(), shelf, concurrency=2).ordered()
    first = asyncio.ensure_future(anext(iterator))
    for _ in range(2000):
        await asyncio.sleep(0)
    assert len(iterator._buffered) <= 4
    assert len(read) <= AHEAD + 10
    release.set()
    assert (await first).key == 1
    assert [outcome.key async for outcome in iterator] == [f"bad {n}" for n in range(1000)]


async def test_repeated_keys_are_asked_once() -> None:
    """The same id as text and number is one key; a bad one is told once too."""
    shelf = Shelf()
    outcomes = [o async for o in fan_over(iter([1, "1", 2, "x", 1, "x", Index(2)]), shelf).ordered()]
    assert [outcome.key for outcome in outcomes] == [1, 2, "x"]
    assert shelf.keys_asked == [1, 2]


async def test_repeated_keys_are_asked_again_where_that_is_wanted() -> None:
    """`unique=False` remembers nothing."""
    shelf = Shelf()
    fan = fan_over([1, 1, 2, 1], shelf).options(unique=False)
    assert await keys_of(fan) == [1, 1, 2, 1]
    assert [key for key, _ in shelf.asked].count(1) == 3


async def test_an_input_of_repeated_keys_does_not_hold_up_the_loop() -> None:
    """The loop gets its turn although nothing comes of thousands of keys."""
    turns = 0

    def ids() -> Iterator[int]:
        for n in range(10_000):
            seen.append(turns)
            yield 1 if n < 9_999 else 2

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    seen: list[int] = []
    counter = asyncio.ensure_future(count())
    assert len(await fan_over(ids(), Shelf()).collect()) == 2
    counter.cancel()
    assert len(set(seen)) > 10


async def test_the_input_is_read_a_few_hundred_keys_ahead() -> None:
    """And no further, however slowly the outcomes are taken."""
    read: list[int] = []

    def ids() -> Iterator[int]:
        for key in range(1, 100_000):
            read.append(key)
            yield key

    iterator = aiter(fan_over(ids(), Shelf(rows=1), concurrency=4))
    await anext(iterator)
    for _ in range(2000):
        await asyncio.sleep(0)
    assert len(read) <= AHEAD + 20
    await iterator.aclose()


class Closing:
    """What the two kinds of generators below tell."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def plain(self) -> Iterator[int]:
        try:
            for key in range(1, 10_000):
                self.tasks.append(asyncio.current_task())
                yield key
        finally:
            self.tasks.append(asyncio.current_task())

    async def stream(self) -> AsyncIterator[int]:
        try:
            for key in range(1, 10_000):
                self.tasks.append(asyncio.current_task())
                await asyncio.sleep(0)
                yield key
        finally:
            await asyncio.sleep(0)  # a cursor is closed by a request of its own
            await asyncio.sleep(0)
            self.tasks.append("closed")


@pytest.mark.parametrize("kind", ["plain", "stream"])
@pytest.mark.parametrize("end", ["break", "aclose", "error"])
async def test_the_input_is_closed_by_the_task_that_read_it(kind: str, end: str) -> None:
    """Also on `break`, and the `finally` of an async generator may wait."""
    told = Closing()
    shelf = Shelf()
    fan = fan_over(getattr(told, kind)(), shelf)
    if end == "error":
        await _loop_into_an_error(fan)
    else:
        iterator = aiter(fan)
        async for _ in iterator:
            break
        if end == "aclose":
            await iterator.aclose()
        del iterator
    for _ in range(20):
        await asyncio.sleep(0)
    assert told.tasks[-1] == ("closed" if kind == "stream" else told.tasks[0])
    assert len({task for task in told.tasks if task != "closed"}) == 1


async def _loop_into_an_error(fan: Any) -> None:
    with suppress(ZeroDivisionError):
        async for outcome in fan:
            1 / (outcome.key - outcome.key)


async def test_an_input_that_waits_when_the_loop_ends_closes_in_order() -> None:
    """Cancelled once, in the middle of its own waiting, its `finally` still runs to its end."""
    log: list[str] = []

    async def ids() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            log.append("closing")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            log.append("closed")

    iterator = aiter(fan_over(ids(), Shelf()))
    assert (await anext(iterator)).key == 1
    await iterator.aclose()
    assert log == ["closing", "closed"]


class Cursor:
    """An async iterable whose iterator is closed by hand, as those of database drivers."""

    def __init__(self, rows: int = 1000) -> None:
        self.rows = rows
        self.closed = 0

    def __aiter__(self) -> CursorRows:
        return CursorRows(self)


class CursorRows:
    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.place = 0

    def __aiter__(self) -> CursorRows:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        self.place += 1
        if self.place > self.cursor.rows:
            raise StopAsyncIteration
        return self.place

    async def aclose(self) -> None:
        self.cursor.closed += 1


async def test_an_iterator_of_our_making_is_closed_and_one_of_the_callers_is_not() -> None:
    """What the caller opened, the caller closes; generators are the exception."""
    cursor = Cursor()
    async for _ in fan_over(cursor, Shelf()):
        break
    for _ in range(20):
        await asyncio.sleep(0)
    assert cursor.closed == 1
    rows = aiter(cursor)
    async for _ in fan_over(rows, Shelf()):
        break
    for _ in range(20):
        await asyncio.sleep(0)
    assert cursor.closed == 1


async def test_an_async_iterable_without_aclose_is_fine() -> None:
    """Nothing more than `__anext__` is needed."""

    class Bare:
        def __init__(self) -> None:
            self.left = [3, 2, 1]

        def __aiter__(self) -> Bare:
            return Bare()

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert await keys_of(fan_over(Bare(), Shelf())) == [1, 2, 3]


async def test_the_inputs_own_error_comes_behind_the_outcomes_in_flight() -> None:
    """What was read is answered; then the error is raised as itself."""

    def ids() -> Iterator[int]:
        yield from range(1, 8)
        raise OSError("the file ended badly")

    given, error = await until_raised(OSError, fan_over(ids(), Shelf(), concurrency=2))
    assert str(error) == "the file ended badly"
    assert sorted(outcome.key for outcome in given) == [1, 2, 3, 4, 5, 6, 7]


async def test_an_input_that_is_cancelled_by_itself_does_not_look_like_its_end() -> None:
    """Nothing lost: a reading cut off from elsewhere is an error."""

    async def ids() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    given, error = await until_raised(RuntimeError, fan_over(ids(), Shelf()))
    assert "cancelled from elsewhere; keys without an outcome were not answered" in str(error)
    assert [outcome.key for outcome in given] == [1]


async def test_batches_wait_for_a_slow_input_for_a_moment() -> None:
    """Keys that come one by one still make whole batches, where they come fast enough."""

    async def ids() -> AsyncIterator[int]:
        for key in range(1, 11):
            await asyncio.sleep(0)
            yield key

    shelf = Shelf()
    assert len(await batches_over(ids(), shelf, batch=5).collect()) == 10
    assert shelf.keys_asked == [(1, 2, 3, 4, 5), (6, 7, 8, 9, 10)]


async def test_a_batch_does_not_wait_for_ever() -> None:
    """Two keys and then nothing for long: they are asked."""
    go_on = asyncio.Event()

    async def ids() -> AsyncIterator[int]:
        yield 1
        yield 2
        await go_on.wait()
        yield 3

    shelf = Shelf()
    iterator = aiter(batches_over(ids(), shelf, batch=50))
    assert {(await anext(iterator)).key, (await anext(iterator)).key} == {1, 2}
    go_on.set()
    assert [outcome.key async for outcome in iterator] == [3]


async def test_batches_are_bounded_by_number_and_weight() -> None:
    """Whichever comes first; a single key always fits."""
    shelf = Shelf()
    await batches_over(range(101, 111), shelf, batch=4, concurrency=1).collect()
    assert [len(keys) for keys in shelf.keys_asked] == [4, 4, 2]
    shelf = Shelf()
    await batches_over(range(101, 111), shelf, batch=50, room=13, concurrency=1).collect()
    assert [len(keys) for keys in shelf.keys_asked] == [3, 3, 3, 1]
    shelf = Shelf()
    await batches_over(range(101, 104), shelf, batch=50, room=1, concurrency=1).collect()
    assert [len(keys) for keys in shelf.keys_asked] == [1, 1, 1]


async def test_a_batch_larger_than_the_reading_ahead_is_whole() -> None:
    """The input is then read a batch ahead."""
    shelf = Shelf()
    await batches_over(iter(range(1, 1001)), shelf, batch=500, concurrency=2).collect()
    assert [len(keys) for keys in shelf.keys_asked] == [500, 500]


async def test_a_repeated_key_is_never_twice_in_one_batch() -> None:
    """With `unique=False` it goes into the next."""
    shelf = Shelf()
    outcomes = [o.key async for o in batches_over([1, 2, 1, 3], shelf, batch=10, concurrency=1).options(unique=False)]
    assert shelf.keys_asked == [(1, 2), (1, 3)]
    assert sorted(outcomes) == [1, 1, 2, 3]


async def test_a_bad_key_divides_no_outcome_from_its_batch() -> None:
    """It stands between two batches."""
    shelf = Shelf()
    outcomes = [o async for o in batches_over(iter([1, 2, "x", 3]), shelf, batch=10, concurrency=1).ordered()]
    assert [(o.key, o.ok) for o in outcomes] == [(1, True), (2, True), ("x", False), (3, True)]
    assert shelf.keys_asked == [(1, 2), (3,)]


class Counted:
    """An input without a length that counts what was taken from it."""

    def __init__(self, count: int, first: int) -> None:
        self.taken = 0
        self.numbers = range(first, first + count)

    def __iter__(self) -> Iterator[int]:
        for number in self.numbers:
            self.taken += 1
            yield number


@pytest.mark.parametrize("mode", ["outcomes", "ordered", "items"])
@pytest.mark.parametrize(
    ("batch", "concurrency", "most"), [(50, 32, 600), (1, 32, 320), (200, 32, 720), (3000, 1, 960), (3000, 32, 960)]
)
async def test_the_input_is_bounded_in_keys_whatever_a_batch_takes(
    mode: str, batch: int, concurrency: int, most: int
) -> None:
    """After the first outcome: what is in the first requests and 256 keys; a URL holds 700 ids of nine digits."""
    source = Counted(100_000, 600_000_001)
    fan = batches_over(source, Shelf(), batch=batch, room=7_000, concurrency=concurrency)
    iterator = aiter(fan) if mode == "outcomes" else getattr(fan, mode)()
    await anext(iterator)
    assert source.taken <= most
    await iterator.aclose()


async def test_batches_reach_their_concurrency_and_are_whole() -> None:
    """All workers are at work soon, each with as many keys as a batch takes; no key is lost at the end."""
    shelf = Shelf()

    async def slow(_key: Any, _number: int) -> None:
        await asyncio.sleep(0.1)

    shelf.before = slow
    fan = batches_over(Counted(10_010, 1), shelf, batch=50, concurrency=16)
    assert len(await fan.collect()) == 10_010
    assert shelf.most == 16
    assert sorted(map(len, shelf.keys_asked)) == [10, *[50] * 200]


EQUAL = [
    [EventQuery(7, 1, 2), EventQuery("7", "1", EventType(2))],  # type: ignore[arg-type]
    [EventQuery("x", 1, EventType.SCAN), EventQuery("x", 1, int(EventType.SCAN))],
    [Identifier.mobile("91"), Identifier.mobile(91), Identifier("mobile", "91")],
    [
        LedgerQuery(identifier=Identifier.mobile("91"), source="ALL", event_ids=[1, 2]),
        LedgerQuery(identifier=Identifier.mobile(91), source="ALL", event_ids=("1", 2, 1)),
    ],
]


@pytest.mark.parametrize("equal", EQUAL)
def test_equal_keys_are_remembered_as_one(equal: list[Any]) -> None:
    """In whatever spelling they were given."""
    assert len(set(equal)) == 1
    assert len({compact(key) for key in equal}) == 1


queries = st.builds(
    EventQuery,
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=4) | st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 3) | st.sampled_from(list(EventType)[:3]),
)


@given(st.lists(queries, max_size=30))
def test_keys_are_remembered_as_one_where_they_are_equal_and_only_there(keys: list[EventQuery]) -> None:
    """No question is dropped wrongly, and none is asked twice."""
    marks = [compact(key) for key in keys]
    assert [[one == other for other in keys] for one in keys] == [[one == other for other in marks] for one in marks]
    assert all(type(mark) is bytes and len(mark) == 16 for mark in marks)


@pytest.mark.parametrize(
    ("key", "most"), [(lambda number: number, 85), (lambda number: EventQuery(f"e{number}", 600_000_000, 15), 110)]
)
def test_memory_of_a_remembered_key(key: Callable[[int], Any], most: int) -> None:
    """About 70 bytes for a number, 90 for a query, as `FanOut.options` says."""
    count = 50_000
    tracemalloc.start()
    try:
        seen = {compact(key(number)) for number in range(600_000_000, 600_000_000 + count)}
        held = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert len(seen) == count
    assert held <= most
