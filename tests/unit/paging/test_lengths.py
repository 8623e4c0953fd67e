"""`Lengths`: which short page 1 is looked behind, how often, and by whom while others look."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from support.fake_list import FakeList, FakePages, Row, failing, fault, quiet, rows, ticks

from capillary_async import Paging
from capillary_async._config import CarefulPaging
from capillary_async._paging.lengths import LOOKS, Lengths
from capillary_async._paging.pager import Pager, Position
from capillary_async.errors import NotFoundError, ServerError

ODD_CAPS = (1, 5, 7, 15, 30, 37, 40, 60, 75, 80, 90, 99)


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Every test here leaves no task and no complaint of the loop."""
    async with quiet():
        yield


def careful(fake: FakeList, lengths: Lengths | None = None, *, prefetch: int = 4) -> Pager[Row]:
    """A pager that reads as the jobs do."""
    fake.owner.lengths = lengths or fake.owner.lengths
    return Pager(fake.source(), CarefulPaging(page_size=100, prefetch=prefetch), fake.owner)


@pytest.mark.parametrize("cap", ODD_CAPS)
@pytest.mark.parametrize("past_end", ["empty", "404"])
async def test_a_server_that_caps_anywhere_loses_no_row(cap: int, past_end: str) -> None:
    """Customer after customer of one session, some of whom end exactly at the cap."""
    lengths = Lengths()
    for count in (cap, 3 * cap, cap + 1, 1, 3 * cap + 1, cap, 2 * cap):
        fake = FakeList(rows(count), cap=cap, past_end=past_end)
        assert await careful(fake, lengths).collect() == rows(count)


async def test_a_population_of_short_lists_costs_three_requests_more() -> None:
    """Three looks that found nothing are enough for a length."""
    lengths = Lengths()
    asked = 0
    for _ in range(50):
        fake = FakeList(rows(1))
        await careful(fake, lengths).collect()
        asked += len(fake.asked)
    assert asked == 50 + LOOKS


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_three_looks_are_enough_however_many_read_at_once(prefetch: int) -> None:
    """Who comes while others look waits for what they find."""
    lengths = Lengths()
    fakes = [FakeList(rows(1)) for _ in range(32)]
    for fake in fakes:
        fake.gates[2] = asyncio.Event()
    reading = [asyncio.create_task(careful(fake, lengths, prefetch=prefetch).collect()) for fake in fakes]
    await ticks()
    assert sum(len(fake.asked) for fake in fakes) == 32 + LOOKS
    for fake in fakes:
        fake.gates[2].set()
    assert await asyncio.gather(*reading) == [rows(1)] * 32
    assert sum(len(fake.asked) for fake in fakes) == 32 + LOOKS


async def test_who_waits_learns_of_a_cap() -> None:
    """One look that finds rows settles the size for all."""
    lengths = Lengths()
    fakes = [FakeList(rows(90), cap=37) for _ in range(8)]
    for fake in fakes:
        fake.gates[2] = asyncio.Event()
    reading = [asyncio.create_task(careful(fake, lengths).collect()) for fake in fakes]
    await ticks()
    for fake in fakes:
        fake.gates[2].set()
    assert await asyncio.gather(*reading) == [rows(90)] * 8


async def test_a_longer_page_ends_the_doubt() -> None:
    """A page as long as asked shows that there is no cap; a longer one that it is not there."""
    lengths = Lengths()
    await careful(FakeList(rows(60)), lengths).collect()
    shorter = FakeList(rows(40))
    await careful(shorter, lengths).collect()
    assert shorter.asked == [(1, 100)]
    await careful(FakeList(rows(130)), lengths).collect()
    longer = FakeList(rows(60))
    await careful(longer, lengths).collect()
    assert longer.asked == [(1, 100)]


async def test_a_cap_that_was_found_holds_for_every_reading() -> None:
    """What is known is used without verify, too; nothing is looked for without it."""
    lengths = Lengths()
    plain = FakeList(rows(90), cap=37)
    plain.owner.lengths = lengths
    assert len(await plain.pager(100).collect()) == 37
    await careful(FakeList(rows(90), cap=37), lengths).collect()
    assert await plain.pager(100).collect() == rows(90)


async def test_a_failed_look_is_an_error_of_that_page() -> None:
    """Not the end: page 1 is given, and the error comes behind it, with a position that goes on there."""
    fake = FakeList(rows(60), cap=37)
    fake.faults[2] = [fault(), fault()]
    pager = careful(fake)
    records = aiter(pager)
    got = [await anext(records) for _ in range(37)]
    error = await failing(anext(records), ServerError)
    assert error.position == Position(2, 0, 37)
    fake.faults.clear()
    assert got + await pager.options(start=error.position).collect() == rows(60)


async def test_a_look_that_is_cancelled_lets_others_look() -> None:
    """Else they would wait for it for ever."""
    lengths = Lengths()
    fakes = [FakeList(rows(1)) for _ in range(4)]
    for fake in fakes[:3]:
        fake.gates[2] = asyncio.Event()
    reading = [asyncio.create_task(careful(fake, lengths).collect()) for fake in fakes]
    await ticks()
    assert fakes[3].numbers == [1]
    reading[0].cancel()
    assert await reading[3] == rows(1)
    assert fakes[3].numbers == [1, 2]
    for fake in fakes[:3]:
        fake.gates[2].set()
    await asyncio.wait(reading)


async def test_a_server_that_ignores_page_has_nothing_behind() -> None:
    """The same records once more show no cap."""
    fake = FakePages(rows(7), [*reversed(rows(7))])
    assert await careful(fake).collect() == rows(7)
    keyless: list[Row | None] = [Row(None, "a"), Row(None, "b"), Row(None, "c")]
    assert await careful(FakePages(keyless, keyless[::-1])).collect() == keyless


async def test_a_404_behind_a_short_page_is_nothing() -> None:
    """As an empty page is."""
    fake = FakePages(rows(7), NotFoundError("no page", status=404))
    assert await careful(fake).collect() == rows(7)


def test_a_look_of_a_loop_that_was_stopped_holds_nobody() -> None:
    """Its loop will not run again; another one looks instead."""
    lengths = Lengths()

    async def take(looks: int) -> list[str]:
        return [await lengths.verdict("list", 100, 1) for _ in range(looks)]

    lengths.note("list", 100, 1)
    stopped = asyncio.new_event_loop()
    assert stopped.run_until_complete(take(3)) == ["look"] * 3
    assert asyncio.run(asyncio.wait_for(take(1), 5)) == ["look"]
    stopped.close()


def test_loops_of_several_threads_share_three_looks() -> None:
    """Who waits in another loop is woken there."""
    lengths = Lengths()
    asked: list[int] = []

    def read() -> None:
        async def main() -> None:
            for _ in range(20):
                fake = FakeList(rows(1))
                assert await careful(fake, lengths).collect() == rows(1)
                asked.append(len(fake.asked))

        asyncio.run(main())

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(asked) == 80 + LOOKS


async def test_verify_and_jobs_look_and_others_do_not() -> None:
    """A one-page list whose length is no likely cap costs one request."""
    for paging, cost in ((Paging(), 1), (Paging(verify=True), 2), (CarefulPaging(), 2)):
        fake = FakeList(rows(37))
        assert await Pager(fake.source(), paging, fake.owner).collect() == rows(37)
        assert len(fake.asked) == cost
