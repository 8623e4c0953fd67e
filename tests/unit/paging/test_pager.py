"""`Pager` and the iterators it gives: the face, the refusals, the clean-up; and a few readings over real sockets."""

import asyncio
import gc
import json
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.fake_list import FakeIds, FakeList, Row, all_pages, failing, fault, quiet, resumed, rows, ticks
from support.paths import TESTS

from capillary_async import AsyncSession, Paging, Position
from capillary_async._paging.pager import FetchedPage, ItemIterator, ListSource, Page, PageIterator, Pager
from capillary_async.errors import (
    InvalidRequestError,
    LedgerRequestError,
    NotFoundError,
    ServerError,
)


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Every test here leaves no task and no complaint of the loop."""
    async with quiet():
        yield


def stuck(page: int = 3, count: int = 100) -> FakeList:
    """A list that holds back a page and those behind it."""
    fake = FakeList(rows(count))
    fake.gates = {number: asyncio.Event() for number in range(page, page + 10)}
    return fake


# A recipe.


async def test_looping_twice_reads_twice() -> None:
    """A pager holds no place; two loops at once do not disturb each other."""
    fake = FakeList(rows(25))
    pager = fake.pager()
    assert [row async for row in pager] == rows(25)
    assert [row async for row in pager] == rows(25)
    first, second = aiter(pager), aiter(pager)
    assert await anext(first) == await anext(second) == Row(1)
    assert await anext(first) == Row(2)
    await first.aclose()
    await second.aclose()


async def test_options_make_a_copy() -> None:
    """What is not given stays; the pager itself does not change."""
    pager = FakeList(rows(50)).pager(10, prefetch=2)
    fewer = pager.options(max_items=15).options(page_size=5)
    assert len(await fewer.collect()) == 15
    assert len(await pager.collect()) == 50
    assert repr(pager) == "<Pager fake.list()>"
    assert repr(fewer) == "<Pager fake.list() page_size=5 max_items=15>"
    assert "start=Position(page=2, index=3, page_size=None)" in repr(pager.options(start=Position(2, 3)))


async def test_first_is_the_first_record_or_none() -> None:
    """In one request, of the usual page size."""
    fake = FakeList(rows(50))
    assert await fake.pager().first() == Row(1)
    assert fake.asked == [(1, 10)]
    assert await FakeList([]).pager().first() is None
    assert await FakeList([*[None] * 10, Row(7)]).pager().first() == Row(7)
    assert await fake.pager(start=Position(2, 5)).first() == Row(16)
    assert await fake.pager(max_items=3).first() == Row(1)


async def test_collect_gives_a_list() -> None:
    """And closes what it opened where it fails."""
    fake = FakeList(rows(100))
    assert await fake.pager().collect() == rows(100)
    fake.faults[4] = [fault()]
    error = await failing(fake.pager().collect(), ServerError)
    assert error.position == Position(4, 0, 10)
    assert fake.flying == 0


# Pages.


async def test_a_page_tells_where_it_came_from() -> None:
    """Number, request id, status, warnings; length, iteration, indexing."""
    pages = await all_pages(FakeList(rows(25)).pager())
    assert [page.number for page in pages] == [1, 2, 3]
    assert [page.request_id for page in pages] == ["request-1", "request-2", "request-3"]
    assert [page.last for page in pages] == [False, False, True]
    page = pages[2]
    assert (len(page), page.status, page.warnings, page.elapsed) == (5, 200, (), 0.0)
    assert list(page) == list(page.items) == rows(5, 21)
    assert page[0] == Row(21)
    assert page[-2:] == (Row(24), Row(25))
    assert repr(page) == "<Page 3: 5 items, request_id='request-3'>"


async def test_pages_are_values() -> None:
    """They stay as they are, pickle, and keep nothing of their pager alive."""
    fake = FakeList([*rows(10), None, *rows(8, 11), Row(3)])
    pages = fake.pager().pages()
    kept = [await anext(pages), await anext(pages)]
    again = pickle.loads(pickle.dumps(kept[1]))  # noqa: S301
    assert (again.items, again.position, again.position_behind(1)) == (
        kept[1].items,
        Position(3, 0, 10),
        Position(2, 2, 10),
    )
    gone = weakref.ref(pages)
    del pages
    assert gone() is None
    assert list(kept[0]) == rows(10)


async def test_each_page_knows_where_reading_goes_on() -> None:
    """From every one of them the rest is the rest."""
    held = [*rows(13), None, *rows(20, 14), Row(3), *rows(9, 34)]
    fake = FakeList(held)
    got: list[Row] = []
    for page in await all_pages(fake.pager(7)):
        got += page
        assert page.position is not None
        assert got + [row for row in await resumed(fake, page.position, 7) if row not in got] == rows(42)


def test_a_page_made_by_hand_knows_its_rows() -> None:
    """As batches make them: row n is item n."""
    page: Page[int] = Page((7, 8, 9), 4)
    assert page.position_behind(3) == Position(5)
    assert page.position_behind(1) == Position(4, 1)


async def test_one_page_by_its_number() -> None:
    """No other page is asked; nothing of other pages is known."""
    fake = FakeList([*rows(10), *rows(10), *rows(5, 11)])
    page = await fake.pager().page(2)
    assert list(page) == rows(10)
    assert fake.asked == [(2, 10)]
    assert page.position == Position(3, 0, 10)
    assert not page.last
    assert (await fake.pager().page(3)).last
    assert fake.owner.duplicates == 0


async def test_one_page_goes_on_without_loss() -> None:
    """Page 1 tells a cap as it does in a loop; an empty page is where later rows would stand."""
    fake = FakeList(rows(57), cap=20)
    page = await fake.pager(100).page(1)
    assert (page.position, page.last) == (Position(2, 0, 20), False)
    assert await resumed(fake, page.position or Position(1), 100) == rows(37, 21)
    fake.cap = None
    empty = await fake.pager(10).page(9)
    assert (empty.position, empty.last) == (Position(9), True)
    assert (await fake.pager(10, start=Position(3, 0, 20)).page(2)).position == Position(3, 0, 20)
    assert not (await FakeList(rows(110)).pager(100).page(2)).last  # ten rows may be a cap


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "2", None])
async def test_no_page_has_such_a_number(number: Any) -> None:
    """Nothing is asked."""
    fake = FakeList(rows(10))
    error = await failing(fake.pager().page(number), InvalidRequestError)
    assert error.argument == "number"
    assert fake.asked == []


async def test_one_page_of_ids() -> None:
    """There are as many as there are; a refused id gives nothing, and the position is the page's own."""
    fake = FakeIds(rows(3), rows(3, 4))
    fake.refusals[2] = LedgerRequestError("id 5 refused", code=9021)
    page = await fake.pager().page(1)
    assert (list(page), page.position, page.last) == (rows(3), Position(2), False)
    assert (await failing(fake.pager().page(2), LedgerRequestError)).position == Position(2)
    await failing(fake.pager().page(3), InvalidRequestError)
    await failing(FakeIds().pager().page(1), InvalidRequestError)


async def test_one_page_behind_the_end() -> None:
    """As the server answers."""
    fake = FakeList(rows(10), past_end="404")
    await failing(fake.pager().page(3), NotFoundError)


# Refusals.


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"page_size": 0}, "page_size"),
        ({"page_size": 101}, "page_size"),
        ({"page_size": True}, "page_size"),
        ({"page_size": "10"}, "page_size"),
        ({"prefetch": -1}, "prefetch"),
        ({"prefetch": 1.0}, "prefetch"),
        ({"prefetch": True}, "prefetch"),
        ({"max_items": -1}, "max_items"),
        ({"max_items": "3"}, "max_items"),
        ({"start": (2, 0)}, "start"),
        ({"start": Position(2, 0, 101)}, "page_size"),
        ({"start": Position(2, 0, 10), "page_size": 20}, "page_size"),
    ],
)
async def test_options_that_cannot_be(options: dict[str, Any], argument: str) -> None:
    """Named, before anything is asked."""
    fake = FakeList(rows(10))
    pager = Pager(fake.source(largest=100), Paging(), fake.owner)
    with pytest.raises(InvalidRequestError) as refused:
        pager.options(**options)
    assert refused.value.argument == argument
    assert isinstance(refused.value, ValueError)
    assert fake.asked == []


async def test_a_page_size_beside_a_position_of_another_is_refused() -> None:
    """Whichever comes first; the same size is fine, and a position without one takes any."""
    fake = FakeList(rows(50))
    with pytest.raises(InvalidRequestError, match="own page_size 10"):
        fake.pager(start=Position(2, 0, 10)).options(page_size=20)
    with pytest.raises(InvalidRequestError, match="own page_size 10"):
        fake.pager().options(page_size=20).options(start=Position(2, 0, 10))
    assert await fake.pager(20).options(start=Position(2, 0, 10), page_size=10).collect() == rows(40, 11)
    assert await fake.pager(20, start=Position(2, 0, 10)).collect() == rows(40, 11)
    assert await fake.pager(10).options(start=Position(2), page_size=20).collect() == rows(30, 21)


def test_the_sizes_that_an_endpoint_takes() -> None:
    """The session's own page size is checked as well; ids take any."""
    fake = FakeList(())
    with pytest.raises(InvalidRequestError, match="from 1 to 100"):
        Pager(fake.source(largest=100), Paging(page_size=101), fake.owner)
    with pytest.raises(InvalidRequestError, match="at least 1"):
        fake.pager().options(page_size=0)
    FakeIds().pager(1000)


@pytest.mark.parametrize("bad", [(0,), (1, -1), (1, 0, 0), (True,), (1, 0, "5"), (1.0,)])
def test_positions_that_cannot_be(bad: tuple[Any, ...]) -> None:
    """Page and size from 1, index from 0."""
    with pytest.raises(InvalidRequestError, match="Position"):
        Position(*bad)


def test_a_position_is_three_numbers() -> None:
    """It compares, hashes and pickles."""
    position = Position(3, 7, 50)
    assert (position.page, position.index, position.page_size) == (3, 7, 50)
    assert pickle.loads(pickle.dumps(position)) == position  # noqa: S301
    assert {position: 1}[Position(3, 7, 50)] == 1
    assert Position(3) == Position(3, 0, None)


# Where an iterator stands.


@pytest.mark.parametrize("count", [0, 1, 5, 9, 10, 11, 12, 23, 24, 25])
async def test_an_iterator_knows_its_position(count: int) -> None:
    """After a break anywhere: from there on comes exactly the rest, over nulls, duplicates and capped sizes."""
    held = [*rows(5), None, *rows(2), *rows(15, 6), None, None, *rows(6, 21)]
    fake = FakeList(held, cap=10)
    records = aiter(fake.pager(100))
    got = [await anext(records) for _ in range(count)]
    position = records.position
    await records.aclose()
    assert records.position == position
    assert got == rows(count)
    assert position.page_size == (None if not count else 10)
    rest = await resumed(fake, position, 100)
    assert [row for row in rest if row not in got] == rows(26 - count, count + 1)
    assert rest == rows(26 - count, count + 1)


async def test_positions_of_a_page_iterator() -> None:
    """Behind the last page given."""
    pages = FakeList(rows(25)).pager(start=Position(1, 4)).pages()
    assert pages.position == Position(1, 4)
    assert list(await anext(pages)) == rows(6, 5)
    assert pages.position == Position(2, 0, 10)
    assert [page.number async for page in pages] == [2, 3]
    assert pages.position == Position(4, 0, 10)


# Never a failure for the end.


@pytest.mark.parametrize("kind", ["records", "pages"])
async def test_an_iterator_that_failed_does_not_end(kind: str) -> None:
    """Asked again it says so, closed or not."""
    fake = FakeList(rows(50))
    fake.faults[2] = [fault()]
    iterator: Any = aiter(fake.pager()) if kind == "records" else fake.pager().pages()

    async def loop() -> None:
        async for _ in iterator:
            pass

    await failing(loop(), ServerError)
    for _ in range(2):
        error = await failing(anext(iterator), RuntimeError)
        assert "ended with ServerError" in str(error)
        assert iterator.position == Position(2, 0, 10)
        await iterator.aclose()


async def test_an_iterator_that_was_cancelled_does_not_end() -> None:
    """Nor one that ran into a timeout; its position holds."""
    fake = stuck()
    records = aiter(fake.pager())
    got: list[Row] = []

    async def loop() -> None:
        async with asyncio.timeout(0.1):
            async for row in records:
                got.append(row)  # noqa: PERF401 - what came before stays

    await failing(loop(), TimeoutError)
    assert got == rows(20)
    assert fake.flying == 0
    assert "was cancelled" in str(await failing(anext(records), RuntimeError))
    fake.gates.clear()
    assert got + await resumed(fake, records.position) == rows(100)


async def test_the_end_stays_the_end() -> None:
    """And closing is the end as well, as with generators."""
    pages = FakeList(rows(5)).pager().pages()
    assert [len(page) async for page in pages] == [5]
    assert [len(page) async for page in pages] == []
    records = aiter(FakeList(rows(5)).pager())
    assert await anext(records) == Row(1)
    await records.aclose()
    await records.aclose()
    assert [row async for row in records] == []


@pytest.mark.parametrize("kind", ["records", "pages"])
async def test_two_tasks_on_one_iterator_are_refused(kind: str) -> None:
    """The second one is; the first goes on undisturbed."""
    fake = stuck(1)
    iterator: Any = aiter(fake.pager()) if kind == "records" else fake.pager().pages()
    first = asyncio.create_task(anext(iterator))
    await ticks()
    assert "another task" in str(await failing(anext(iterator), RuntimeError))
    first.cancel()
    await asyncio.wait([first])


async def test_a_refused_second_task_harms_nothing() -> None:
    """The first one's page comes."""
    fake = stuck(1)
    pages = fake.pager().pages()
    first = asyncio.create_task(anext(pages))
    await ticks()
    await failing(anext(pages), RuntimeError)
    for gate in fake.gates.values():
        gate.set()
    assert (await first).number == 1
    assert (await anext(pages)).number == 2
    await pages.aclose()


# Closing from elsewhere.


@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize("kind", ["records", "pages"])
async def test_closing_interrupts_who_waits(kind: str, page: int) -> None:
    """It learns that this was no end; the request it waited for is gone when closing is done."""
    fake = stuck(page)
    iterator: Any = aiter(fake.pager()) if kind == "records" else fake.pager().pages()

    async def loop() -> None:
        async for _ in iterator:
            pass

    task = asyncio.create_task(loop())
    await ticks(60)
    assert fake.flying
    await iterator.aclose()
    assert fake.flying == 0
    assert "was closed while it waited" in str(await failing(task, RuntimeError))
    assert task.cancelling() == 0
    await failing(anext(iterator), RuntimeError)
    assert iterator.position == Position(page, 0, 10 if page > 1 else None)


async def test_closing_at_the_moment_a_page_comes_loses_nothing() -> None:
    """Position and records agree, whichever was first."""
    for moment in range(8):
        fake = stuck(2)
        records = aiter(fake.pager())
        got: list[Row] = []

        async def loop(records: ItemIterator[Row] = records, got: list[Row] = got) -> None:
            async for row in records:
                got.append(row)  # noqa: PERF401 - what came before stays

        task = asyncio.create_task(loop())
        await ticks()
        for gate in fake.gates.values():
            gate.set()
        await ticks(moment)
        await records.aclose()
        await asyncio.wait([task])
        assert fake.flying == 0
        fake.gates.clear()
        assert got + await resumed(fake, records.position) == rows(100)
        # Closed while it waited it learns so; between two records there is none to tell.
        assert not task.cancelled()
        if task.exception() is not None:
            assert "was closed" in str(task.exception())


async def test_closing_twice_at_once_is_fine() -> None:
    """All wait for the same end, also where the request takes its time to go."""
    fake = stuck(1)
    fake.slow_to_go = 10
    pages = fake.pager().pages()
    task = asyncio.create_task(anext(pages))
    await ticks()
    closing = asyncio.create_task(pages.aclose())
    await ticks(5)
    await asyncio.gather(pages.aclose(), pages._end("was closed with its session"))
    assert fake.flying == 0
    await closing
    assert "was closed while it waited" in str(await failing(task, RuntimeError))


async def test_the_session_ends_its_iterators() -> None:
    """Also between two records of a page in hand: what comes after closing is an error, not the end."""
    fake = stuck()
    records, pages = aiter(fake.pager()), fake.pager().pages()
    assert set(fake.owner.live) == {records, pages}
    assert await anext(records) == Row(1)
    await anext(pages)
    for iterator in list(fake.owner.live):
        await iterator._end("was closed with its session")
    assert fake.flying == 0
    for iterator in (records, pages):
        assert "was closed with its session" in str(await failing(anext(iterator), RuntimeError))
        await iterator.aclose()
    assert records.position == Position(1, 1, 10)
    assert pages.position == Position(2, 0, 10)


async def test_the_session_interrupts_who_waits() -> None:
    """With the reason."""
    fake = stuck(1)
    pages = fake.pager().pages()
    task = asyncio.create_task(anext(pages))
    await ticks()
    await pages._end("was closed with its session")
    assert "was closed with its session" in str(await failing(task, RuntimeError))


async def test_the_session_ends_iterators_of_another_loop() -> None:
    """A session serves threads with a loop each, and may be closed in any of them."""
    ready, ended = threading.Event(), list[str]()
    iterators: list[ItemIterator[Row]] = []

    async def main() -> None:
        async with quiet():
            fake = stuck()
            iterators.append(aiter(fake.pager()))

            async def loop() -> None:
                async for row in iterators[0]:
                    if row.id == 20:
                        ready.set()

            ended.append(str(await failing(loop(), RuntimeError)))
            assert fake.flying == 0
            assert iterators[0].position == Position(3, 0, 10)

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, main()))
    await asyncio.to_thread(ready.wait)
    await iterators[0]._end("was closed with its session")
    await thread
    assert ended == ["this iterator was closed with its session"]
    # That loop is closed now: nothing is left to end.
    await iterators[0]._end("was closed with its session")


async def test_the_session_ends_idle_iterators_of_another_loop() -> None:
    """Nobody waits there, but pages fly ahead."""
    ready, ended = threading.Event(), threading.Event()
    iterators: list[PageIterator[Row]] = []

    async def main() -> None:
        async with quiet():
            fake = stuck(2)
            iterators.append(fake.pager().pages())
            await anext(iterators[0])
            await ticks()
            assert fake.flying == 2
            ready.set()
            await asyncio.to_thread(ended.wait)
            await ticks()
            assert fake.flying == 0
            await failing(anext(iterators[0]), RuntimeError)

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, main()))
    await asyncio.to_thread(ready.wait)
    await iterators[0]._end("was closed with its session")
    ended.set()
    await thread


async def test_an_interruption_and_a_cancellation_at_once() -> None:
    """The task's own cancellation wins."""
    fake = stuck(1)
    pages = fake.pager().pages()
    task = asyncio.create_task(anext(pages))
    await ticks()
    closing = asyncio.create_task(pages.aclose())
    task.cancel()
    await asyncio.wait([task, closing])
    assert task.cancelled()
    await failing(anext(pages), RuntimeError)


async def test_a_closed_session_gives_no_iterator() -> None:
    """The owner refuses to track it."""
    fake = FakeList(rows(5))

    def closed(_: Any) -> None:
        raise RuntimeError("the AsyncSession is closed")

    fake.owner.track = closed  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="closed"):
        aiter(fake.pager())
    with pytest.raises(RuntimeError, match="closed"):
        fake.pager().pages()


# Clean-up.


async def test_a_break_leaves_nothing() -> None:
    """The iterator is dropped in the middle: its requests end by themselves."""
    fake = stuck()
    async for row in fake.pager():
        if row.id == 12:
            break
    await ticks(5)
    assert fake.flying == 0


async def test_an_exception_in_the_loop_leaves_nothing() -> None:
    """Once the error is gone, and with it the frames that held the iterator."""
    fake = stuck()

    async def loop() -> None:
        async for row in fake.pager():
            if row.id == 12:
                raise ZeroDivisionError

    await failing(loop(), ZeroDivisionError)
    await ticks(5)
    assert fake.flying == 0


async def test_an_anyio_scope_around_a_loop() -> None:
    """Cancelled in the middle and entered again: scopes and iterators do not know of each other."""
    fake = stuck()
    with anyio.move_on_after(0.02) as scope:
        async for _ in fake.pager():
            pass
    assert scope.cancelled_caught
    await ticks(5)
    assert fake.flying == 0
    async with anyio.create_task_group() as group:
        async for row in fake.pager():
            if row.id == 20:
                group.cancel_scope.cancel()
    assert fake.flying == 0


async def test_garbage_of_another_thread_ends_its_requests() -> None:
    """An iterator in a cycle is collected in whatever thread comes first."""
    fake = stuck()
    records = aiter(fake.pager())
    assert await anext(records) == Row(1)
    await ticks()
    cycle: dict[str, Any] = {"records": records}
    cycle["cycle"] = cycle
    gc.collect()
    del records, cycle
    assert fake.flying
    await asyncio.to_thread(gc.collect)
    await ticks(10)
    assert fake.flying == 0


async def breaks(fake: FakeList, stop: int) -> None:
    async for row in fake.pager():
        if (row.id or 0) >= stop:
            break


async def raises(fake: FakeList, stop: int) -> None:
    with suppress(ZeroDivisionError):
        async for row in fake.pager():
            if (row.id or 0) >= stop:
                raise ZeroDivisionError


async def times_out(fake: FakeList, stop: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(stop / 20_000):
            async for _ in fake.pager():
                await asyncio.sleep(0)


async def is_cancelled(fake: FakeList, stop: int) -> None:
    task = asyncio.create_task(fake.pager().collect())
    await ticks(stop % 40)
    task.cancel()
    await asyncio.wait([task])


async def is_closed(fake: FakeList, stop: int) -> None:
    records = aiter(fake.pager())

    async def loop() -> None:
        with suppress(RuntimeError):
            async for _ in records:
                await asyncio.sleep(0)

    task = asyncio.create_task(loop())
    await ticks(stop)
    await records.aclose()
    await task


async def takes_some_pages(fake: FakeList, stop: int) -> None:
    pages = fake.pager().pages()
    for _ in range(stop % 7):
        await anext(pages, None)


async def test_two_hundred_random_ends_leave_nothing() -> None:
    """Breaks, raises, cancellations, timeouts, closings and drops, at random moments, with failing pages."""
    chance = random.Random(2282)
    ways: list[Callable[[FakeList, int], Awaitable[None]]] = [
        breaks, raises, times_out, is_cancelled, is_closed, takes_some_pages,
    ]  # fmt: skip
    async with quiet():
        for _ in range(200):
            fake = FakeList(rows(chance.randrange(1, 120)))
            fake.delay = lambda _: chance.choice([0, 0, 0, 0.0005])
            if chance.random() < 0.3:
                fake.faults[chance.randrange(2, 10)] = [fault()]
            with suppress(ServerError):
                await chance.choice(ways)(fake, chance.randrange(1, 100))
            await ticks(6)
            assert fake.flying == 0
            del fake


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 and later")
async def test_tasks_that_start_at_once() -> None:
    """A loop with eager tasks reads the same."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    try:
        fake = FakeList(rows(100))
        assert await fake.pager().collect() == rows(100)
        await breaks(stuck(), 12)
    finally:
        loop.set_task_factory(None)


def test_nothing_is_said_at_the_end_of_a_program() -> None:
    """In development mode, with warnings as errors: iterators dropped, failed and left open as the loop closes."""
    script = """
        import asyncio
        from support.fake_list import FakeList, fault, rows

        async def main():
            kept = []
            for page in range(1, 9):
                fake = FakeList(rows(100))
                fake.faults[page] = [fault()]
                fake.delay = lambda number: 0.001 * number
                async for row in fake.pager():
                    if row.id == 12:
                        break
                    if page == 1:
                        raise AssertionError
                pages = FakeList(rows(100)).pager().pages()
                await anext(pages)
                kept.append(pages)

        async def careful():
            try:
                await main()
            except Exception:
                pass
            fake = FakeList(rows(100))
            fake.gates[4] = asyncio.Event()
            pages = fake.pager().pages()
            for _ in range(3):
                await anext(pages)
            return pages

        left = asyncio.run(careful())
        del left
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Over sockets.


class Events:
    """A loopback server of `loyaltyEvents`.

    Attributes:
        count: Events of the customer.
        cap: The largest page it gives.
        asked: The queries it saw.
        slow: Pages that it holds back, until they are released.
    """

    def __init__(self, count: int, cap: int | None = None) -> None:
        self.count = count
        self.cap = cap
        self.asked: list[dict[str, str]] = []
        self.slow: dict[int, asyncio.Event] = {}
        self.came = asyncio.Condition()

    async def seen(self, count: int) -> None:
        """Wait until so many requests came."""
        async with self.came:
            await self.came.wait_for(lambda: len(self.asked) >= count)

    async def answer(self, request: web.Request) -> web.Response:
        """One page, in Capillary's envelope."""
        self.asked.append(dict(request.query))
        async with self.came:
            self.came.notify_all()
        number, limit = int(request.query["page"]), int(request.query["limit"])
        if number in self.slow:
            await self.slow[number].wait()
        size = min(limit, self.cap or limit)
        ids = range((number - 1) * size + 1, min(number * size, self.count) + 1)
        body = {"data": [{"id": each, "eventName": "TransactionAdd"} for each in ids], "warnings": [], "errors": []}
        return web.Response(text=json.dumps(body), content_type="application/json")


@pytest.fixture
async def served() -> AsyncIterator[Callable[..., Awaitable[tuple[Events, str]]]]:
    """Servers on loopback, closed at the end."""
    servers: list[TestServer] = []

    async def serve(count: int, cap: int | None = None) -> tuple[Events, str]:
        events = Events(count, cap)
        app = web.Application()
        app.router.add_get("/v2/customers/{id}/loyaltyEvents", events.answer)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return events, str(server.make_url("/"))

    yield serve
    for server in servers:
        await server.close()


Serve = Callable[..., Awaitable[tuple[Events, str]]]
At = Callable[..., AsyncSession]


async def test_a_list_over_sockets(served: Serve, session_at: At) -> None:
    """Every event once, through a capping server, and nothing left behind."""
    events, url = await served(95, cap=20)
    session = session_at(url)
    pager = session.loyalty_events.list(1)
    async with quiet():
        assert [event.id async for event in pager] == list(range(1, 96))
    assert events.asked[0] == {"limit": "100", "page": "1", "offset": "0"}
    assert {"limit": "20", "page": "5", "offset": "80"} in events.asked
    assert [len(page) async for page in pager.pages()] == [20, 20, 20, 20, 15]
    assert len(await pager.collect(verify=True)) == 95
    assert session.stats.duplicates == 0


async def test_a_break_over_sockets(served: Serve, session_at: At) -> None:
    """The server sees its connections go; the session goes on."""
    events, url = await served(1000)
    session = session_at(url, paging=Paging(page_size=10))
    events.slow = {number: asyncio.Event() for number in range(3, 10)}
    records = aiter(session.loyalty_events.list(1))
    async with quiet():
        async for event in records:
            if event.id == 15:
                break
        position = records.position
        del records
        await ticks()
    events.slow.clear()
    rest = await session.loyalty_events.list(1).options(start=position).collect()
    assert [event.id for event in rest] == list(range(16, 1001))


@pytest.mark.parametrize("page", [1, 3])
async def test_closing_a_session_over_sockets(served: Serve, session_at: At, page: int) -> None:
    """Who waits for a page learns it at once; views end their own iterators only."""
    events, url = await served(1000)
    session = session_at(url, paging=Paging(page_size=10))
    events.slow = {number: asyncio.Event() for number in range(page, 20)}
    view = session.with_options()
    ours = asyncio.create_task(session.loyalty_events.list(1).collect())
    theirs = asyncio.create_task(view.loyalty_events.list(1).collect())
    await events.seen(2 if page == 1 else 8)
    await view.aclose()
    assert "closed with its session" in str(await failing(theirs, RuntimeError))
    assert not ours.done()
    records = aiter(session.loyalty_events.list(1))
    await session.aclose()
    assert "closed with its session" in str(await failing(ours, RuntimeError))
    await failing(anext(records), RuntimeError)


async def test_a_timeout_over_sockets(served: Serve, session_at: At) -> None:
    """The connection is given back, and the position holds."""
    events, url = await served(100)
    session = session_at(url, paging=Paging(page_size=10))
    events.slow[4] = asyncio.Event()
    got: list[int | None] = []
    records = aiter(session.loyalty_events.list(1))

    async def loop() -> None:
        async with asyncio.timeout(0.3):
            async for event in records:
                got.append(event.id)  # noqa: PERF401 - what came before stays

    async with quiet():
        await failing(loop(), TimeoutError)
    events.slow.clear()
    rest = await session.loyalty_events.list(1).options(start=records.position).collect()
    assert got + [event.id for event in rest] == list(range(1, 101))


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize("cap", [10, 1000])
async def test_going_on_behind_a_lone_page_loses_nothing_on_a_capping_server(cap: int, prefetch: int) -> None:
    """A page read by its number cannot tell a cap from the end, so the walk behind it reads on until the list ends."""

    async def fetch(number: int, size: int) -> FetchedPage[int]:
        real = min(size, cap)
        rows = range((number - 1) * real + 1, min(number * real, 45) + 1)
        return FetchedPage(tuple(rows), len(rows))

    source = ListSource("rows", fetch, lambda row: row)
    pager = Pager(source, Paging(page_size=100 if cap == 10 else 15, prefetch=prefetch), Mock())
    page = await pager.page(2)
    rest = await pager.options(start=page.position).collect()
    assert rest == list(range(page.items[-1] + 1, 46))
    again = await pager.options(start=Position(2)).collect()
    assert again == list(range(page.items[0], 46))
