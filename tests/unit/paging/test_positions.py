"""`Position`: three numbers, and what a reading that goes on knows of the records before it."""

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from support.fake_list import FakeList, Row, all_pages, failing, fault, quiet, rows

from capillary_async._paging.pager import Position
from capillary_async.errors import CapillaryError, RecordConflictError


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Every test here leaves no task and no complaint of the loop."""
    async with quiet():
        yield


def carried(position: Position, how: str) -> Position:
    """The position as it comes elsewhere."""
    if how == "pickled":
        return pickle.loads(pickle.dumps(position))  # type: ignore[no-any-return]  # noqa: S301
    return copy.deepcopy(position) if how == "copied" else position


async def broken_off(fake: FakeList, count: int, size: int = 10) -> tuple[list[Row], Position]:
    """The first records, and where a loop that stopped there goes on."""
    records = aiter(fake.pager(size))
    got = [await anext(records) for _ in range(count)]
    position = records.position
    await records.aclose()
    return got, position


@pytest.mark.parametrize("how", ["kept", "pickled", "copied"])
@pytest.mark.parametrize("count", [1, 9, 10, 11, 25, 30])
@pytest.mark.parametrize("moved", [1, 3, 10, 17])
async def test_no_record_is_given_again(how: str, count: int, moved: int) -> None:
    """Rows that were inserted pushed records over the seam, within a page or a border."""
    fake = FakeList(rows(60))
    got, position = await broken_off(fake, count)
    fake.rows[:0] = rows(moved, 1_000)
    rest = await fake.pager(10, start=carried(position, how)).collect()
    given = [row.id for row in [*got, *rest]]
    assert len(given) == len(set(given))
    assert set(range(1, 61)) <= set(given)


@pytest.mark.parametrize("how", ["kept", "pickled"])
@pytest.mark.parametrize("count", [20, 25])
async def test_conflicts_are_seen_over_the_seam(how: str, count: int) -> None:
    """A record that was given and changed before it came again."""
    fake = FakeList(rows(60))
    _, position = await broken_off(fake, count)
    fake.rows.insert(0, Row(1_000))
    fake.rows[20] = Row(20, "changed")
    await failing(fake.pager(10, start=carried(position, how)).collect(), RecordConflictError)


async def test_a_resumed_reading_hands_on_what_it_knows() -> None:
    """Over several pieces, pickled in between, also where no piece gave much."""
    fake = FakeList(rows(100))
    position: Position | None = None
    got: list[Row] = []
    for piece in range(12):
        records = aiter(fake.pager(10, start=position))
        async for row in records:
            got.append(row)
            if len(got) % 9 == 0:
                break
        position = carried(records.position, "pickled" if piece % 2 else "kept")
        await records.aclose()
        fake.rows.insert(0, Row(1_000 + piece))
    given = [row.id for row in got]
    assert len(given) == len(set(given))
    assert [number for number in given if number and number < 1_000] == list(range(1, 101))


async def test_a_position_made_by_hand_knows_nothing() -> None:
    """Three numbers: the row that moved behind it comes a second time."""
    fake = FakeList(rows(30))
    _, position = await broken_off(fake, 20)
    fake.rows.insert(0, Row(1_000))
    by_hand = Position(position.page, position.index, position.page_size)
    assert by_hand == position
    assert (await fake.pager(10, start=by_hand).collect())[0] == Row(20)
    assert (await fake.pager(10, start=position).collect())[0] == Row(21)


async def test_a_position_is_short_however_much_it_knows() -> None:
    """Its repr, and its pickle: of 20,000 records 4,096 keys of 8 bytes."""
    pages = await all_pages(FakeList(rows(20_000)).pager(1_000))
    position = pages[-2].position
    assert position is not None
    assert repr(position) == "Position(page=20, index=0, page_size=1000)"
    assert len(pickle.dumps(position)) < 36_000
    assert hash(position) == hash(Position(20, 0, 1000))
    assert len(pickle.dumps(pages[0].position)) < 10_000


async def test_errors_carry_it_through_a_pickle() -> None:
    """As they cross processes."""
    fake = FakeList(rows(40))
    fake.faults[3] = [fault()]
    error = await failing(fake.pager(prefetch=0).collect(), CapillaryError)
    fake.rows.insert(0, Row(1_000))
    again: CapillaryError = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert [row.id for row in await fake.pager(start=again.position).collect()] == list(range(21, 41))


def test_digests_are_the_same_in_another_process() -> None:
    """Hashes of texts are not."""
    fake = FakeList(rows(40))
    _, position = asyncio.run(broken_off(fake, 20))
    program = "import pickle,sys;sys.stdout.buffer.write(pickle.dumps(pickle.loads(sys.stdin.buffer.read())))"
    ran = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(position), capture_output=True, check=True)
    there = pickle.loads(ran.stdout)  # noqa: S301
    fake.rows.insert(0, Row(1_000))
    assert [row.id for row in asyncio.run(fake.pager(10, start=there).collect())] == list(range(21, 41))


@settings(max_examples=80, deadline=None)
@drawn(
    held=st.lists(st.one_of(st.integers(1, 40), st.none()), max_size=60),
    count=st.integers(0, 60),
    size=st.integers(1, 12),
    inserted=st.integers(0, 15),
    how=st.sampled_from(["kept", "pickled"]),
)
def test_any_list_in_two_pieces(held: list[int | None], count: int, size: int, inserted: int, how: str) -> None:
    """With records that repeat, nulls, and rows inserted between the pieces: none twice, none lost."""
    numbers = [None if number is None else Row(number) for number in dict.fromkeys(held)]

    async def main() -> None:
        fake = FakeList(numbers)
        wanted = [row for row in numbers if row is not None]
        got, position = await broken_off(fake, min(count, len(wanted)), size)
        fake.rows[:0] = rows(inserted, 1_000)
        rest = await fake.pager(size, start=carried(position, how)).collect()
        given = [row.id for row in [*got, *rest]]
        assert len(given) == len(set(given))
        assert {row.id for row in wanted} <= set(given)

    asyncio.run(main())
