"""`verify`: nothing is given before two readings agree."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from support.fake_list import FakeList, FakePages, Row, all_pages, failing, fault, quiet, rows, ticks

from capillary_async._paging.pager import Position
from capillary_async.errors import InvalidRequestError, PageDriftError, PageLoopError, ServerError


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Every test here leaves no task and no complaint of the loop."""
    async with quiet():
        yield


class MovingList(FakeList):
    """A list that changes before chosen passes; a pass begins with its page 1.

    Attributes:
        changes: What to do to the rows before pass n, from 1.
    """

    def __init__(self, held: list[Row | None], changes: dict[int, Callable[[list[Row | None]], object]]) -> None:
        super().__init__(held)
        self.changes = changes
        self.passes = 0
        self.before = self._before

    def _before(self, number: int) -> None:
        if number == 1:
            self.passes += 1
            self.changes.get(self.passes, lambda _: None)(self.rows)

    @property
    def sizes(self) -> list[int]:
        """The sizes of the passes."""
        return [size for number, size in self.asked if number == 1]


@pytest.mark.parametrize("count", [0, 1, 9])
async def test_a_list_of_one_request_is_its_own_snapshot(count: int) -> None:
    """There is no page border over which a row could slip; whether the server caps is looked at."""
    fake = FakeList(rows(count))
    assert await fake.pager(verify=True).collect() == rows(count)
    assert fake.asked == [(1, 10), (2, count)][: 1 + (count > 0)]


@pytest.mark.parametrize("cap", [1, 2, 3, 5, 6, 7, 10, 15, 30, 37, 99])
@pytest.mark.parametrize("count", [1, 2, 150, 222])
async def test_a_capping_server_is_verified(cap: int, count: int) -> None:
    """No pass asks for more than the server gives."""
    fake = FakeList(rows(count), cap=cap)
    assert await fake.pager(100, verify=True).collect() == rows(count)


@pytest.mark.parametrize(
    ("size", "again", "last"), [(100, 97, 94), (10, 7, 4), (7, 4, 1), (6, 7, 8), (2, 3, 4), (1, 2, 3)]
)
async def test_the_passes_have_other_page_borders(size: int, again: int, last: int) -> None:
    """s, then s-3 and s-6, or s+1 and s+2 where s is 6 or less; the third only where the first two differ."""
    fake = MovingList(rows(250), {})
    assert await fake.pager(size, verify=True).collect() == rows(250)
    assert fake.sizes == [size, again]
    moved = MovingList(rows(250), {2: lambda held: held.append(Row(900))})
    assert await moved.pager(size, verify=True).collect() == [*rows(250), Row(900)]
    assert moved.sizes == [size, again, last]


async def test_the_passes_read_in_the_settled_size() -> None:
    """A cap that page 1 of the first reading told is not asked for again and again."""
    fake = MovingList(rows(57), {})
    fake.cap = 20
    assert await fake.pager(100, verify=True).collect() == rows(57)
    assert fake.sizes == [100, 17]


async def test_a_later_pass_settles_nothing() -> None:
    """Its size is known: a list that shrank to ten rows meanwhile is ten rows long."""
    fake = MovingList(rows(40), {2: lambda held: held.__delitem__(slice(10, None))})
    assert await fake.pager(20, verify=True).collect() == rows(10)
    assert fake.asked[-2:] == [(1, 17), (1, 14)]


async def test_a_conflict_on_page_1_settles_the_size_all_the_same() -> None:
    """Or the passes behind it would take the cap for the end."""
    fake = MovingList([*rows(5), Row(5, "changed"), *rows(50, 6)], {2: lambda held: held.pop(5)})
    fake.cap = 10
    assert await fake.pager(100, verify=True).collect() == rows(55)
    assert fake.sizes == [100, 7, 4]


@pytest.mark.parametrize("agreeing", [(1, 2), (1, 3), (2, 3)])
async def test_any_two_of_three_passes_may_agree(agreeing: tuple[int, int]) -> None:
    """The odd one out was disturbed."""
    held = rows(40)

    def stray(held: list[Row | None]) -> None:
        held[3] = Row(700)

    def back(held: list[Row | None]) -> None:
        held[3] = Row(4)

    odd = ({1, 2, 3} - set(agreeing)).pop()
    fake = MovingList(held, {odd: stray, odd + 1: back})
    assert await fake.pager(verify=True).collect() == rows(40)
    assert fake.passes == (2 if odd == 3 else 3)


async def test_order_does_not_matter() -> None:
    """Sets are compared: a server that sorts otherwise holds the same list."""
    fake = MovingList(rows(40), {2: lambda held: held.reverse()})
    assert sorted(row.id or 0 for row in await fake.pager(verify=True).collect()) == list(range(1, 41))
    assert fake.passes == 2


async def test_a_row_that_slips_over_a_border_is_found() -> None:
    """The row that a plain read loses without a word."""
    fake = FakeList(rows(30))

    def lose(number: int) -> None:
        if number == 2 and len(fake.rows) == 30:
            del fake.rows[0]  # rows 12, 13, ... are now 11, 12, ...: row 11 slips onto page 1, read already

    fake.before = lose
    assert await fake.pager(prefetch=0).collect() == [*rows(10), *rows(19, 12)]
    fake.rows = rows(30)
    assert await fake.pager(prefetch=0, verify=True).collect() == rows(29, 2)


def changing(held: list[Row | None]) -> None:
    """Another content, one row more, one less, at each pass."""
    version = int(held[0].text or 0) + 1 if held[0] else 1
    held[0] = Row(1, str(version))
    del held[1]
    held.append(Row(1000 + version))


async def test_three_passes_that_differ_are_drift() -> None:
    """The error names what was gone, new and changed between the last two, and nothing was given."""
    fake = MovingList(rows(40), {1: changing, 2: changing, 3: changing})
    pages = fake.pager(verify=True).pages()
    error = await failing(anext(pages), PageDriftError)
    assert fake.passes == 3
    assert "1 gone (4), 1 new (1003), 1 changed (1)" in error.message
    assert "fake.list()" in error.message
    assert error.position == pages.position == Position(1)


async def test_drift_names_a_few_of_many() -> None:
    """Not thousands."""
    fake = MovingList(rows(40), {turn: lambda held, turn=turn: held.extend(rows(9, 1000 * turn)) for turn in (1, 2, 3)})
    error = await failing(fake.pager(verify=True).collect(), PageDriftError)
    assert "9 new (3000, 3001, 3002, 3003, 3004, ...)" in error.message


async def test_records_that_change_within_each_pass_are_drift() -> None:
    """A pass with a conflict agrees with none."""
    pages = [rows(10), [Row(1, "changed"), *rows(5, 11)]]
    error = await failing(FakePages(*pages).pager(verify=True).collect(), PageDriftError)
    assert "records changed within a reading" in error.message


async def test_a_pass_with_a_conflict_counts_as_one() -> None:
    """Two good ones behind it agree."""
    fake = MovingList([*rows(30), Row(1, "changed")], {2: lambda held: held.pop()})
    assert await fake.pager(verify=True).collect() == rows(30)
    assert fake.passes == 3


@pytest.mark.parametrize("at", [1, 3])
async def test_an_error_within_a_pass_is_raised_from_the_beginning(at: int) -> None:
    """Nothing was given, so reading goes on at the list's head."""
    fake = FakeList(rows(30))
    fake.faults[at] = [fault()]
    error = await failing(fake.pager(verify=True).collect(), ServerError)
    assert error.position == Position(1)
    second = FakeList(rows(30))
    second.before = lambda number: second.faults.setdefault(1, [fault()]) if number > 1 else None
    assert (await failing(second.pager(verify=True).collect(), ServerError)).position == Position(1)


async def test_a_loop_within_a_pass_is_raised() -> None:
    """Reading again would not help."""
    error = await failing(FakePages(rows(10), rows(10)).pager(verify=True).collect(), PageLoopError)
    assert error.position == Position(1)


async def test_nothing_is_given_before_two_passes_agree() -> None:
    """Then the pages of the agreed one come, with their numbers, sizes and positions."""
    fake = MovingList(rows(40), {})
    pages = fake.pager(verify=True).pages()
    first = await anext(pages)
    assert fake.passes == 2
    assert [first, *[page async for page in pages]][-1].number == 6
    assert first.position == Position(2, 0, 7)
    assert pages.position == Position(7, 0, 7)
    again = await all_pages(FakeList(rows(40)).pager(start=first.position))
    assert again[0].items[0] == Row(8)


async def test_keyless_records_are_counted_not_merged() -> None:
    """Two equal records without a key are two; one of them missing is a difference."""
    held = [*rows(20), Row(None, "twin"), Row(None, "twin")]
    fake = MovingList(held, {2: lambda held: held.pop()})
    assert len(await fake.pager(verify=True).collect()) == 21
    assert fake.passes == 3


async def test_verify_of_one_call() -> None:
    """`collect` may ask for it, or do without it."""
    fake = MovingList(rows(40), {})
    assert await fake.pager().collect(verify=True) == rows(40)
    assert fake.passes == 2
    assert await fake.pager(verify=True).collect(verify=False) == rows(40)
    assert fake.passes == 3
    assert await fake.pager(verify=True).collect(verify=True) == rows(40)
    assert fake.passes == 5


async def test_start_and_max_items_beside_verify_are_refused() -> None:
    """A part of a list cannot be compared with another part."""
    fake = FakeList(rows(40))
    for options in ({"start": Position(2)}, {"max_items": 3}, {"max_items": 0}):
        with pytest.raises(InvalidRequestError, match="verify") as refused:
            fake.pager(verify=True, **options)
        assert refused.value.argument == "verify"
        await failing(fake.pager(**options).collect(verify=True), InvalidRequestError)
    assert fake.asked == []


async def test_first_is_verified_too() -> None:
    """The first record of the agreed reading."""
    fake = MovingList(rows(40), {})
    assert await fake.pager(verify=True).first() == Row(1)
    assert fake.passes == 2


async def test_closing_and_cancelling_within_a_pass() -> None:
    """Whatever pass it is in, no request stays behind."""
    for at in range(1, 12):
        fake = FakeList(rows(40))
        pages = fake.pager(verify=True).pages()
        waiting = asyncio.create_task(anext(pages))
        fake.gates = {number: asyncio.Event() for number in (at, at + 1)}
        await ticks(8)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert fake.flying == 0
        if waiting.cancelled():
            assert pages.position == Position(1)
        await pages.aclose()


async def test_a_failed_verified_reading_begins_anew() -> None:
    """As the fan-out asks it again when the service is back."""
    fake = FakeList(rows(40))
    fake.faults[3] = [fault()]
    walk = fake.pager(verify=True)._reader()
    await failing(walk.next_page(), ServerError)
    page = await walk.next_page()
    assert page is not None
    assert list(page) == rows(7)
    walk.cancel()
    await walk.aclose()
