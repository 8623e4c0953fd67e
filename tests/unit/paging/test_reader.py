"""`Walk`: the rules of paging, one reading at a time: what is asked, what is given, when it ends, where it stands."""

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable
from itertools import accumulate
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from support import virtual_time
from support.fake_list import (
    FakeIds,
    FakeList,
    FakePages,
    Row,
    all_pages,
    failing,
    fault,
    given,
    quiet,
    resumed,
    rows,
    ticks,
)

from capillary_async import Paging, PointsAllocation
from capillary_async._paging import seen as _seen
from capillary_async._paging.cursor import LIKELY_CAPS
from capillary_async._paging.pager import Pager, Position
from capillary_async._paging.seen import Seen
from capillary_async._transport.messages import ResponseSpec
from capillary_async.endpoints._resource import IDENTITY, _Redecode
from capillary_async.errors import (
    CapillaryError,
    CustomerNotFoundError,
    DecodeError,
    LedgerRequestError,
    NotFoundError,
    PageLoopError,
    RecordConflictError,
)


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Every test here leaves no task and no complaint of the loop."""
    async with quiet():
        yield


async def failed_loop(pager: Pager[Row]) -> tuple[list[Row], CapillaryError]:
    """What a loop gave before its error."""
    got: list[Row] = []

    async def loop() -> None:
        async for row in pager:
            got.append(row)  # noqa: PERF401 - what came before the error stays

    return got, await failing(loop(), CapillaryError)


# What is asked, and when.


async def test_a_list_of_one_page_costs_one_request() -> None:
    """Page 1 is read alone: most customers have no second one."""
    fake = FakeList(rows(7))
    assert await fake.pager().collect() == rows(7)
    assert fake.asked == [(1, 10)]


async def test_the_window_grows_with_full_pages() -> None:
    """One page in flight, then two, then four, and never more than `prefetch` in flight or waiting."""
    fake = FakeList(rows(200))
    pages = fake.pager().pages()
    asked = []
    for _ in range(5):
        await anext(pages)
        await ticks()
        asked.append(fake.numbers[-1])
    assert asked == [3, 6, 7, 8, 9]
    await pages.aclose()


@pytest.mark.parametrize(("prefetch", "asked"), [(0, [1, 2, 3]), (1, [2, 3, 4]), (2, [3, 4, 5]), (3, [3, 5, 6])])
async def test_prefetch_bounds_the_window(prefetch: int, asked: list[int]) -> None:
    """A slow consumer bounds what is fetched; 0 asks only when a page is wanted."""
    fake = FakeList(rows(200))
    pages = fake.pager(prefetch=prefetch).pages()
    seen = []
    for _ in range(3):
        await anext(pages)
        await ticks()
        seen.append(fake.numbers[-1])
    assert seen == asked
    assert fake.most_flying <= max(prefetch, 1)
    await pages.aclose()


async def test_what_waits_counts_in_the_window() -> None:
    """Pages behind a slow one are read no further than the window."""
    fake = FakeList(rows(300))
    fake.gates[4] = asyncio.Event()
    pages = fake.pager().pages()
    for _ in range(3):
        await anext(pages)
    waiting = asyncio.create_task(anext(pages))
    await ticks()
    assert fake.numbers == [1, 2, 3, 4, 5, 6, 7]
    assert fake.flying == 1
    fake.gates[4].set()
    assert (await waiting).number == 4
    await pages.aclose()


async def test_a_likely_capped_page_is_no_reason_to_widen() -> None:
    """It may just as well be the whole list: one page is looked at, not two; nothing there is asked for twice."""
    fake = FakeList(rows(10))
    assert await fake.pager(100).collect() == rows(10)
    assert fake.asked == [(1, 100), (2, 10), (2, 10)]


def test_order_holds_whatever_the_delays() -> None:
    """Pages come back in any order and are given in theirs."""

    async def main() -> None:
        fake = FakeList(rows(495))
        chance = random.Random(7)
        fake.delay = lambda _: chance.random()
        assert await fake.pager(prefetch=8).collect() == rows(495)
        assert fake.most_flying == 8

    virtual_time.run(main)


# Caps and ends.


@pytest.mark.parametrize("cap", sorted(LIKELY_CAPS))
@pytest.mark.parametrize("past_end", ["empty", "404"])
async def test_a_capping_server_loses_no_row(cap: int, past_end: str) -> None:
    """Page 1 tells the cap, and from page 2 on it is what is asked; full last pages included."""
    for count in (cap, cap + 1, 3 * cap, 3 * cap + 1):
        fake = FakeList(rows(count), cap=cap, past_end=past_end)
        assert await fake.pager(1000).collect() == rows(count)
        assert fake.asked[0] == (1, 1000)
        assert {size for _, size in fake.asked[1:]} == {cap}


async def test_a_size_is_settled_by_page_1_alone() -> None:
    """A later page of 10 rows is short, whatever its length."""
    fake = FakeList(rows(30))
    assert len(await fake.pager(20).collect()) == 30
    assert fake.asked[:2] == [(1, 20), (2, 20)]


@pytest.mark.parametrize("count", [1, 9, 11, 30, 99])
async def test_another_short_page_1_is_the_end(count: int) -> None:
    """Only lengths at which servers cap are taken for a cap."""
    fake = FakeList(rows(count))
    assert await fake.pager(100).collect() == rows(count)
    assert fake.asked == [(1, 100)]


async def test_ends_at_an_empty_page() -> None:
    """Where the last page was full; the empty one is not given."""
    fake = FakeList(rows(20))
    assert [len(page) for page in await all_pages(fake.pager())] == [10, 10]


async def test_an_empty_list_is_one_empty_page() -> None:
    """It carries the request id and the warnings; no size is settled by it."""
    [page] = await all_pages(FakeList([]).pager())
    assert (len(page), page.number, page.request_id, page.last) == (0, 1, "request-1", True)
    assert page.position == Position(1, 0, None)


async def test_a_page_is_short_by_its_rows_as_received() -> None:
    """Duplicates and null entries count: a page of ten with five to give is no end."""
    held = [*rows(10), *rows(5), *rows(5, 11), *[None] * 5, *rows(5, 16), *rows(3, 21)]
    fake = FakeList(held)
    assert await fake.pager().collect() == rows(23)
    assert fake.owner.duplicates == 5


async def test_a_page_of_nulls_alone_is_no_end() -> None:
    """And is given, empty."""
    held = [*rows(10), *[None] * 10, *rows(4, 11)]
    pages = await all_pages(FakeList(held).pager())
    assert [len(page) for page in pages] == [10, 0, 4]
    assert await FakeList(held).pager(max_items=12).collect() == rows(12)


async def test_more_rows_than_asked_lose_nothing() -> None:
    """A server that does not heed `count` gives full pages."""
    fake = FakePages(rows(15), rows(15, 16), rows(15, 31))
    assert await fake.pager().collect() == rows(45)


async def test_404_behind_a_full_page_is_the_end() -> None:
    """Some servers say so instead of giving an empty page."""
    fake = FakeList(rows(40), past_end="404")
    assert await fake.pager().collect() == rows(40)


async def test_an_html_404_twice_is_an_end_with_a_warning() -> None:
    """It was something before the API that spoke: the last page, which is empty, says so."""
    fake = FakeList(rows(20), past_end="html")
    pages = await all_pages(fake.pager(prefetch=0))
    assert [len(page) for page in pages] == [10, 10, 0]
    assert fake.numbers == [1, 2, 3, 3]
    assert "HTML" in pages[-1].warnings[0].message
    assert pages[-1].last


async def test_a_customer_that_is_gone_is_no_end() -> None:
    """The body's code says more than its 404."""
    fake = FakePages(rows(10), CustomerNotFoundError("customer gone", status=404, code=8015))
    _, error = await failed_loop(fake.pager())
    assert isinstance(error, CustomerNotFoundError)


async def test_404_on_page_1_is_an_error() -> None:
    """There is no list at all."""
    _, error = await failed_loop(FakeList([], past_end="404").pager())
    assert isinstance(error, NotFoundError)
    assert error.position == Position(1, 0, None)


async def test_404_behind_a_resumed_full_page_is_the_end() -> None:
    """A position at the head of a page was made because the one before was full; within a page, it was no end."""
    fake = FakeList(rows(20), past_end="404")
    assert await resumed(fake, Position(3, 0, 10)) == []
    error = await failing(resumed(fake, Position(3, 4, 10)), NotFoundError)
    assert error.position == Position(3, 4, 10)
    await failing(resumed(FakeList([], past_end="404"), Position(1, 0, 10)), NotFoundError)


async def test_what_lies_beyond_the_end_is_dropped() -> None:
    """Errors of pages read ahead behind the end are nobody's; those before it are raised."""
    fake = FakeList(rows(45))
    fake.faults = {number: [fault()] for number in (6, 7, 8, 9)}
    assert await fake.pager().collect() == rows(45)
    assert {6, 7} < set(fake.numbers)


async def test_pages_beyond_the_end_are_waited_for() -> None:
    """Rows on one of them would contradict it; when the last page is given, they are gone."""
    fake = FakeList(rows(25))
    fake.gates = {number: asyncio.Event() for number in (4, 5, 6, 7)}
    pages = fake.pager().pages()
    for number in (1, 2):
        await ticks()
        assert (await anext(pages)).number == number
    last = asyncio.create_task(anext(pages))
    await ticks()
    assert fake.flying
    assert not last.done()
    for gate in fake.gates.values():
        gate.set()
    page = await last
    assert (page.number, page.last, len(page)) == (3, True, 5)
    assert fake.flying == 0
    assert fake.numbers.count(3) == 1
    await pages.aclose()


@pytest.mark.parametrize("moment", range(8))
async def test_a_cancellation_at_the_end_does_not_lose_the_last_page(moment: int) -> None:
    """Nothing is awaited between taking a page in and giving it."""
    fake = FakeList(rows(25))
    fake.gates = {number: asyncio.Event() for number in (3, 4, 5)}
    pages = fake.pager().pages()
    await anext(pages)
    await anext(pages)
    last = asyncio.create_task(anext(pages))
    await ticks()
    for gate in fake.gates.values():
        gate.set()
    await ticks(moment)
    last.cancel()
    await asyncio.wait([last])
    assert pages.position == Position(3 if last.cancelled() else 4, 0, 10)
    assert last.cancelled() or moment > 1
    assert not last.cancelled() or moment < 7


# max_items.


async def test_max_items_gives_so_many_and_asks_for_no_more() -> None:
    """Fifteen of a hundred are fifteen, of two pages of the usual size."""
    fake = FakeList(rows(100))
    assert await fake.pager(max_items=15).collect() == rows(15)
    assert fake.asked == [(1, 10), (2, 10)]


@pytest.mark.parametrize(("wanted", "asked"), [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (41, 5), (500, 11)])
async def test_max_items_asks_for_no_page_that_cannot_be_needed(wanted: int, asked: int) -> None:
    """Counted by full pages; an end that is not known beforehand may cost pages beyond it."""
    fake = FakeList(rows(100))
    assert await fake.pager(max_items=wanted, prefetch=2).collect() == rows(min(wanted, 100))
    assert fake.numbers[:asked] == list(range(1, asked + 1))
    if wanted <= 100:
        assert len(fake.numbers) == asked


async def test_max_items_does_not_count_duplicates() -> None:
    """Dropped ones are made good by further pages."""
    fake = FakeList([*rows(10), *rows(8), *rows(12, 11)])
    assert await fake.pager(max_items=15).collect() == rows(15)
    assert fake.numbers == [1, 2, 3]


async def test_max_items_zero_asks_nothing() -> None:
    """And gives nothing."""
    fake = FakeList(rows(100))
    assert await fake.pager(max_items=0).collect() == []
    assert await fake.pager(max_items=0).first() is None
    assert fake.asked == []


async def test_max_items_stops_within_a_page() -> None:
    """The position stands at the first row that was not given."""
    held = [*rows(12), None, *rows(2), *rows(30, 13)]
    fake = FakeList(held)
    pages = await all_pages(fake.pager(max_items=12))
    assert pages[-1].last
    assert pages[-1].position == Position(2, 5, 10)
    assert await resumed(fake, Position(2, 5, 10)) == rows(30, 13)


async def test_max_items_at_a_border_stands_behind_the_page() -> None:
    """The next page is where reading goes on."""
    pages = await all_pages(FakeList(rows(50)).pager(max_items=20))
    assert pages[-1].position == Position(3, 0, 10)
    assert pages[-1].last


# Duplicates, conflicts, loops.


async def test_a_record_seen_twice_is_given_once_and_counted() -> None:
    """Within a page and over page borders."""
    fake = FakeList([Row(1), Row(2), Row(1), Row(3), Row(2), Row(4), Row(4)])
    assert await fake.pager(3).collect() == rows(4)
    assert fake.owner.duplicates == 3


async def test_a_key_with_a_null_part_is_never_a_duplicate() -> None:
    """Two records that cannot be told apart may be two all the same."""
    fake = FakeList([Row(None), Row(1), Row(None), Row(None, "other"), Row(None), Row(2)])
    assert len(await fake.pager(3).collect()) == 6
    assert fake.owner.duplicates == 0


def far_apart(distance: int) -> FakeList:
    """A list of pages of three, where the first record comes again with other content so many pages later."""
    held = rows(3 * distance)
    return FakeList([*held, Row(1, "other"), Row(8000), Row(8001), Row(8002)])


@pytest.mark.parametrize("distance", [1, 2, 15, 16, 17, 18, 65, 130])
async def test_other_content_under_a_known_key_is_refused(distance: int) -> None:
    """The record changed while it was read: neither of the two may be trusted."""
    got, error = await failed_loop(far_apart(distance).pager(3))
    assert isinstance(error, RecordConflictError)
    assert "1" in error.message
    assert got == rows(3 * distance)
    assert error.position == Position(distance + 1, 0, 3)


@pytest.mark.parametrize("distance", [1, 16, 17, 40])
async def test_equal_content_at_any_distance_is_a_duplicate(distance: int) -> None:
    """The record moved, and did not change."""
    fake = FakeList([*rows(3 * distance), Row(1), Row(8000), Row(8001), Row(8002)])
    assert len(await fake.pager(3).collect()) == 3 * distance + 3
    assert fake.owner.duplicates == 1


@pytest.mark.parametrize("kept", [1, 0])
@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        ("-1", "-2", True),
        ("-2", "-1", True),
        ("-1.0", "-1", False),
        ("-1", "1", True),
        ("1.0", "1.00", False),
        ("null", "-1", True),
        ("-2", "-2", False),
    ],
)
def test_content_far_behind_is_compared_as_content_near_is(
    monkeypatch: pytest.MonkeyPatch, before: str, after: str, differs: bool, kept: int
) -> None:
    """Behind the bodies there is a digest alone, and Python's hash of -1 is that of -2."""
    monkeypatch.setattr(_seen, "BODIES", kept)
    seen: Seen[Any] = Seen(IDENTITY)
    body = f'[{{"id":1,"points_value":{before}}},{{"id":2,"points_value":-1}}]'.encode()
    again = _Redecode(body, ResponseSpec(PointsAllocation))
    items = again()
    seen.add([1, 2], items, loose=(), redecode=again, decoded=False)
    (changed,) = _Redecode(f'[{{"id":1,"points_value":{after}}}]'.encode(), ResponseSpec(PointsAllocation))()
    assert seen.differing([(2, items[1]), (1, changed)]) == (1 if differs else None)
    assert seen.differing([(2, evolve(items[1], returned_value=-1))]) == 2


async def test_other_content_within_one_page_is_refused() -> None:
    """Nothing of the page was given, and nothing of it is remembered: asked again, it is given whole."""
    fake = FakeList([Row(1), Row(2), Row(1, "other")])
    walk = fake.pager(3)._reader()
    error = await failing(walk.next_page(), RecordConflictError)
    assert error.position.page == 1
    fake.rows[2] = Row(3)
    page = await walk.next_page()
    assert page is not None
    assert list(page) == rows(3)
    await walk.aclose()


async def test_a_page_equal_to_an_earlier_one_is_refused() -> None:
    """A server that does not heed `page` would go on for ever."""
    fake = FakePages(rows(10), rows(10, 11), rows(10, 21), rows(10, 11))
    got, error = await failed_loop(fake.pager())
    assert isinstance(error, PageLoopError)
    assert got == rows(30)
    assert error.position == Position(4, 0, 10)
    assert fake.owner.duplicates == 0


@pytest.mark.parametrize("page", [[Row(None, "a"), Row(1)], [None, None], [Row(None), None]])
async def test_loops_of_nulls_are_seen_too(page: list[Row | None]) -> None:
    """Records without a key, and rows without a record, would loop as well."""
    _, error = await failed_loop(FakePages(page, page).pager(2))
    assert isinstance(error, PageLoopError)


async def test_a_short_page_of_nulls_behind_a_full_one_is_another_page() -> None:
    """Rows as received tell them apart."""
    assert await FakePages([None, None], [None]).pager(2).collect() == []


async def test_pages_that_differ_in_records_without_a_key_are_two() -> None:
    """Their content tells them apart."""
    fake = FakeList([Row(None, "a"), Row(None, "b"), Row(None, "c"), Row(None, "d")])
    assert len(await fake.pager(2).collect()) == 4


def test_a_long_list_holds_keys_not_records() -> None:
    """What a walk remembers of a page far behind are its keys and a digest."""

    async def main() -> int:
        fake = FakeList([])
        size, count = 100, 400

        async def fetch(number: int, _: int) -> Any:
            from support.fake_list import fetched

            page = [Row(number * 1000 + index, "x" * 1000) for index in range(size)]
            return fetched(page if number <= count else [])

        pager = Pager(fake.source(), Paging(), fake.owner)
        object.__setattr__(pager._source, "fetch", fetch)
        tracemalloc.start()
        got = 0
        async for _ in pager:
            got += 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert got == size * count
        return peak

    # 40,000 records of a kilobyte are 40 MB; some twenty pages of them and all keys are a tenth of that.
    assert asyncio.run(main()) < 8_000_000


# Positions.


@pytest.mark.parametrize("bad", [(1, 1), (4, 1), (4, 7), (9, 3)])
async def test_an_error_stands_where_reading_goes_on(bad: tuple[int, int]) -> None:
    """And what was given and what comes from there on are the list, whole."""
    page, size = bad
    fake = FakeList(rows(size * 10 + 2))
    fake.faults[page] = [fault()]
    got, error = await failed_loop(fake.pager(size))
    assert error.position == Position(page, 0, size if page > 1 else None)
    assert got + await fake.pager(size, start=error.position).collect() == rows(size * 10 + 2)


async def test_an_error_on_page_1_leaves_the_size_open() -> None:
    """Who goes on there settles it: a capping server loses no row."""
    fake = FakeList(rows(57), cap=10)
    fake.faults[1] = [DecodeError("half a page")]
    _, error = await failed_loop(fake.pager(100))
    assert error.position == Position(1, 0, None)
    assert await resumed(fake, error.position, 100) == rows(57)


async def test_a_settled_size_goes_with_the_position() -> None:
    """And is not settled again: a position of the capped size reads on in that size."""
    fake = FakeList(rows(57), cap=10)
    fake.faults[3] = [fault()]
    got, error = await failed_loop(fake.pager(100))
    assert error.position == Position(3, 0, 10)
    fake.asked.clear()
    assert got + await resumed(fake, error.position, 100) == rows(57)
    assert {size for _, size in fake.asked} == {10}


async def test_a_position_without_a_size_settles_on_page_1_alone() -> None:
    """Behind page 1 it means the pager's own size; a page as long as a cap only puts the end off by one request."""
    fake = FakeList(rows(210))
    pages = await all_pages(fake.pager(100, start=Position(3)))
    assert [list(page) for page in pages] == [rows(10, 201)]
    assert fake.asked == [(3, 100), (4, 100), (4, 100)]
    assert await fake.pager(100, start=Position(1, 3)).collect() == rows(207, 4)


async def test_rows_before_a_position_are_known_and_not_given() -> None:
    """A duplicate of a row of the same page is one still; those before the position were counted before."""
    fake = FakeList([Row(1), Row(1), Row(2), None, Row(1), Row(3), Row(2), Row(4)])
    assert await fake.pager(8, start=Position(1, 4, 8)).collect() == [Row(3), Row(4)]
    assert fake.owner.duplicates == 2


async def test_a_position_behind_the_end_gives_nothing() -> None:
    """Reading goes on where the list ended."""
    fake = FakeList(rows(10))
    assert await resumed(fake, Position(2, 0, 10)) == []
    assert await resumed(fake, Position(1, 50, 10)) == []


async def test_a_list_that_ended_goes_on_where_it_grew() -> None:
    """The empty page behind the end is not stepped over."""
    fake = FakeList(rows(20))
    pages = fake.pager().pages()
    async for _ in pages:
        pass
    fake.rows += rows(4, 21)
    assert await resumed(fake, pages.position) == rows(4, 21)


async def test_a_walk_may_be_asked_again_after_an_error() -> None:
    """As the fan-out does when the service is back."""
    fake = FakeList(rows(55))
    fake.faults = {1: [fault()], 3: [fault(), fault()], 6: [fault()]}
    walk = fake.pager()._reader()
    got: list[Row] = []
    errors = 0
    while True:
        try:
            page = await walk.next_page()
        except CapillaryError:
            errors += 1
            continue
        if page is None:
            break
        got += page
    assert got == rows(55)
    assert errors >= 4
    await walk.aclose()
    walk.cancel()


# Walks over ids.


async def test_a_walk_over_ids_ends_with_them() -> None:
    """Empty and short pages are legitimate, and no page behind the last is asked."""
    fake = FakeIds(rows(3), [], [], rows(3, 4), [])
    pages = await all_pages(fake.pager())
    assert [len(page) for page in pages] == [3, 0, 0, 3, 0]
    assert sorted(fake.numbers) == [1, 2, 3, 4, 5]
    assert [page.last for page in pages] == [False] * 4 + [True]
    assert [page.position for page in pages] == [Position(number) for number in (2, 3, 4, 5, 6)]


async def test_equal_pages_of_ids_are_legitimate() -> None:
    """Two ids may come to the same record: it is given once."""
    fake = FakeIds(rows(3), rows(3), rows(3))
    assert await fake.pager().collect() == rows(3)
    assert fake.owner.duplicates == 6


async def test_no_ids_are_no_request() -> None:
    """And no page."""
    fake = FakeIds()
    assert await all_pages(fake.pager()) == []
    assert fake.asked == []


async def test_a_404_of_ids_is_an_error() -> None:
    """It cannot mean the end."""
    fake = FakeIds(rows(10), NotFoundError("gone", status=404))
    _, error = await failed_loop(fake.pager())
    assert isinstance(error, NotFoundError)
    assert error.position == Position(2)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_refused_id_is_raised_behind_the_good_rows_of_its_page(at: int) -> None:
    """With a position behind them; nothing is read ahead in vain."""
    fake = FakeIds(rows(3), rows(3, 4), rows(3, 7), rows(3, 10))
    fake.refusals[at] = LedgerRequestError("id 5 refused", code=9021, status=400)
    fake.gates = {number: asyncio.Event() for number in range(at + 1, 5)}
    records = aiter(fake.pager())
    got = [await anext(records) for _ in range(3 * at)]
    await ticks()
    assert fake.flying == 0
    assert at > 1 or fake.numbers == [1]
    error = await failing(anext(records), LedgerRequestError)
    assert error is fake.refusals[at]
    assert records.position == error.position
    assert error.position == Position(at + 1)
    assert fake.flying == 0
    fake.refusals.clear()
    fake.gates.clear()
    assert got + await resumed(fake, error.position) == rows(12)


async def test_the_last_page_with_a_refusal_is_not_the_end() -> None:
    """An error comes behind it."""
    fake = FakeIds(rows(3))
    fake.refusals[1] = LedgerRequestError("id 5 refused", code=9021, status=400)
    walk = fake.pager()._reader()
    page = await walk.next_page()
    assert page is not None
    assert not page.last
    await failing(walk.next_page(), LedgerRequestError)
    assert await walk.next_page() is None


async def test_max_items_of_ids() -> None:
    """A refusal behind what was wanted is nobody's; pages go on being asked while rows are wanted."""
    fake = FakeIds(rows(3), [], rows(3, 4), rows(3, 7))
    fake.refusals[3] = LedgerRequestError("id 5 refused", code=9021, status=400)
    assert await fake.pager(max_items=5, prefetch=1).collect() == rows(5)
    assert fake.numbers == [1, 2, 3]
    assert await fake.pager(max_items=6, prefetch=1).collect() == rows(6)


async def test_page_size_and_verify_do_not_apply_to_ids() -> None:
    """No size is in its positions, and one reading is enough."""
    fake = FakeIds(rows(3), rows(3, 4))
    assert await fake.pager(5, verify=True).collect() == rows(6)
    assert await fake.pager(page_size=7).collect() == rows(6)
    assert await fake.pager(5, verify=True, max_items=4).collect() == rows(4)
    assert sorted(fake.numbers[:2]) == [1, 2]


async def test_ids_from_a_position() -> None:
    """Within a page as well."""
    fake = FakeIds(rows(3), rows(3, 4), rows(3, 7))
    assert await resumed(fake, Position(2, 1)) == rows(5, 5)
    assert await resumed(fake, Position(4)) == []


# The whole range.


def lists() -> st.SearchStrategy[list[Row | None]]:
    """Rows with distinct keys, some of them null entries, without a key, or repeated nearby."""
    kinds = st.lists(st.sampled_from(["row", "row", "row", "row", "null", "keyless", "again"]), max_size=60)

    def build(kinds: list[str]) -> list[Row | None]:
        held: list[Row | None] = []
        last = Row(0)
        for number, kind in enumerate(kinds, 1):
            if kind == "again":
                held.append(last)
            else:
                held.append({"row": Row(number), "null": None, "keyless": Row(None, str(number))}[kind])
            last = Row(number) if kind == "row" else last
        return held

    return kinds.map(build)


def loops(held: list[Row | None], size: int) -> bool:
    """Whether two pages of this size are equal in whatever order, which is refused."""
    cuts = [held[start : start + size] for start in range(0, len(held), size)]
    pages = [(frozenset(cut), cut.count(None), len(cut)) for cut in cuts]
    return len(set(pages)) < len(pages)


async def in_pieces(pager: Callable[[Position | None], Pager[Row]], chance: random.Random) -> list[Row]:
    """Read to the end through every error and over breaks in the middle, from position to position."""
    got: list[Row] = []
    start: Position | None = None
    while True:
        records = aiter(pager(start))
        stop = chance.randrange(1, 30)
        try:
            async for row in records:
                got.append(row)
                stop -= 1
                if not stop:
                    break
            else:
                return got
        except CapillaryError as error:
            assert error.position == records.position  # noqa: PT017 - most readings go well
        start = records.position
        await records.aclose()
        assert records.position == start


@settings(max_examples=150, deadline=None)
@drawn(
    held=lists(),
    size=st.integers(1, 12),
    prefetch=st.integers(0, 6),
    cap=st.sampled_from([None, 10]),
    past_end=st.sampled_from(["empty", "404"]),
    faults=st.dictionaries(st.integers(1, 12), st.integers(1, 2), max_size=4),
    seed=st.integers(0, 10_000),
)
def test_any_list_is_given_whole(  # noqa: PLR0917 - hypothesis names them all
    held: list[Row | None],
    size: int,
    prefetch: int,
    cap: int | None,
    past_end: str,
    faults: dict[int, int],
    seed: int,
) -> None:
    """Whatever the sizes, delays and failures: the sequential read in order; in pieces, nothing is lost or repeated."""
    if loops(held, min(size, cap or size)) or (past_end == "404" and not held):
        return

    async def main() -> None:
        chance = random.Random(seed)
        fake = FakeList(held, cap=cap, past_end=past_end)
        fake.delay = lambda _: chance.random()
        assert await fake.pager(size, prefetch=prefetch).collect() == given(held)
        assert fake.most_flying <= max(prefetch, 1)
        fake.faults = {page: [fault() for _ in range(times)] for page, times in faults.items()}
        got = await in_pieces(lambda start: fake.pager(size, prefetch=prefetch, start=start), chance)
        # Duplicates are known within one walk: a record of another walk's page may come again.
        assert [row for row in got if row.id is None] == [row for row in held if row is not None and row.id is None]
        assert given(got) == given(held)
        distances = repeated_rows(held)
        assert len(got) <= len(given(held)) + distances

    virtual_time.run(main)


def repeated_rows(held: list[Row | None]) -> int:
    """How many rows repeat an earlier one."""
    return sum(row is not None for row in held) - len(given(held))


@settings(max_examples=100, deadline=None)
@drawn(count=st.integers(0, 60), size=st.integers(1, 20), wanted=st.lists(st.integers(0, 15), max_size=8))
def test_a_list_read_in_portions(count: int, size: int, wanted: list[int]) -> None:
    """Portion by portion from page positions: each as long as asked, and together the list."""

    async def main() -> None:
        fake = FakeList(rows(count))
        got: list[Row] = []
        start: Position | None = None
        for portion in wanted:
            pages = fake.pager(size, max_items=portion, start=start).pages()
            async for page in pages:
                got += page
            start = pages.position
        ends = list(accumulate(wanted, initial=0))
        assert got == rows(count)[: ends[-1]]

    asyncio.run(main())
