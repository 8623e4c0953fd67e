"""Big and small customers side by side: nobody holds the others up, and nobody idles while there is a page to read.

In virtual time: a page takes 50 ms, so that seconds count requests behind one another.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from support.fan_lists import LATENCY, Lists, reading
from support.gated_client import gated
from support.virtual_time import run

from capillary_async import ServerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WHALE = 5_000
PAGES = 2_000


def whale_among(size: int = 1) -> Lists:
    """One key of 2,000 pages, all others of a single one."""
    return Lists(lambda key: PAGES * size - 1 if key == WHALE else size - 1, size)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["outcomes", "pages", "items"])
def test_a_whale_among_ten_thousand_holds_nobody_up(mode: str) -> None:
    """The others end as if it were not there; then idle workers read its pages ahead."""

    async def main() -> None:
        asyncio.get_running_loop().set_debug(False)  # it would note a traceback for each of 12,000 requests
        lists = whale_among(2)
        fan = reading(range(1, 10_001), lists, prefetch=8)
        others_ended, rows = 0.0, 0
        async for one in fan if mode == "outcomes" else getattr(fan, mode)():
            key = one.key if mode == "outcomes" else one[0]
            rows += {"outcomes": lambda o: len(o.unwrap()), "pages": lambda p: len(p[1]), "items": lambda _: 1}[mode](
                one
            )
            if key != WHALE:
                others_ended = lists.now
        asked = [at for (key, _), at in zip(lists.asked, lists.at, strict=True) if key == WHALE]
        whale_began = asked[0]
        assert rows == 10_000 - 1 + PAGES * 2 - 1
        # 9,999 requests by the 31 workers that the whale leaves, half of the time by 32.
        assert 10_000 / 32 * LATENCY <= others_ended <= 10_000 / 31 * LATENCY * 1.02
        assert lists.most == 32
        assert lists.beyond() <= 7
        # Page after page while there are keys, then eight at a time.
        alone = (others_ended - whale_began) / LATENCY
        assert (lists.now - others_ended) / LATENCY == pytest.approx((PAGES - alone) / 8, rel=0.05)
        assert lists.most_of[WHALE] == 8

    run(main)


def test_a_whale_holds_back_a_window_of_an_ordered_loop_and_is_read_by_all_its_workers() -> None:
    """2 x concurrency outcomes wait behind it at most; workers that may take no key read it ahead."""

    async def main() -> None:
        lists = Lists(lambda key: 401 if key == 1 else 1)
        iterator = reading(range(1, 201), lists, concurrency=4, prefetch=8).ordered()
        assert (await anext(iterator)).key == 1
        assert len(lists.keys_asked) == 8
        # A page is read alone before it is known that more are worth it.
        assert lists.now == pytest.approx((201 / 4 + 4) * LATENCY, rel=0.05)
        assert lists.most == 4
        assert [outcome.key async for outcome in iterator] == list(range(2, 201))

    run(main)


def test_whales_share_the_idle_workers_evenly() -> None:
    """Three of them and eight workers: none is more than a page or two ahead of the others' share."""

    async def main() -> None:
        lists = Lists(lambda key: 599)
        seen: list[int] = []
        shares: list[int] = []
        async for key, page in reading([1, 2, 3], lists, concurrency=8, prefetch=8).pages():
            seen.append(key)
            assert not page.last or page.number == 300
            shares = shares or (sorted(lists.most_of.values()) if page.last else [])
        assert lists.most == 8
        assert shares == [2, 3, 3]
        # The shorter share ends later, with all workers to itself.
        assert lists.now == pytest.approx(900 / 8 * LATENCY, rel=0.06)
        middle = seen[: len(seen) // 2]
        assert min(middle.count(key) for key in (1, 2, 3)) >= len(middle) / 3 * 0.7

    run(main)


def test_nothing_is_asked_behind_short_lists_while_there_are_keys() -> None:
    """Customers of one to three pages cost the requests that they need, but for a few at the very end."""

    async def main() -> None:
        lists = Lists(lambda key: key % 6)
        assert all([outcome.ok async for outcome in reading(range(1, 601), lists, concurrency=8)])
        assert len(lists.asked) - lists.needed(range(1, 601)) == lists.beyond() <= 8
        single = Lists(lambda key: key % 6)
        async for _ in reading(range(1, 601), single, concurrency=8, prefetch=0):
            pass
        assert len(single.asked) == single.needed(range(1, 601))

    run(main)


def test_a_single_big_list_is_read_ahead_from_its_second_page() -> None:
    """As a pager reads it: the fan-out's permits are all its own."""

    async def main() -> None:
        lists = Lists(lambda key: 199)
        assert (await reading([1], lists, prefetch=4).collect())[1].pages == 100
        assert lists.most == 4
        assert lists.now == pytest.approx((1 + 99 / 4) * LATENCY, rel=0.1)
        assert lists.beyond() <= 3

    run(main)


def test_a_fan_out_of_one_worker_asks_one_page_at_a_time() -> None:
    """Its single permit is what the caller allowed."""

    async def main() -> None:
        lists = Lists(lambda key: 19)
        await reading([1, 2], lists, concurrency=1, prefetch=8).collect()
        assert lists.most == 1

    run(main)


def test_a_slow_input_leaves_its_workers_to_the_lists_under_way() -> None:
    """And has them back when keys come."""

    async def ids() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(1)
        for key in range(2, 40):
            yield key

    async def main() -> None:
        lists = Lists(lambda key: 10_000 if key == 1 else 1)
        fan = reading(ids(), lists, concurrency=4, prefetch=8).pages()
        ended = 0
        async for key, page in fan:
            ended += key != 1 and page.last
            if ended == 38:
                break
        # One second of four at a time; then three workers have 38 keys, while the whale is read page after page.
        before = sum(at < 1 for at in lists.at)
        assert before == pytest.approx(4 / LATENCY, rel=0.1)
        assert 1 + 38 / 4 * LATENCY <= lists.now <= 1 + 38 / 3 * LATENCY + 4 * LATENCY
        await fan.aclose()
        assert lists.running == 0

    run(main)


def test_nothing_is_read_ahead_in_an_outage() -> None:
    """One probe goes out, and no page behind it."""

    async def main() -> None:
        lists = Lists(lambda key: 99)
        gated(lists)
        down: list[tuple[float, Any]] = []

        async def fail(key: Any, number: int) -> None:
            await asyncio.sleep(LATENCY)
            if 0.5 <= lists.now < 8:
                down.append((lists.now, key))
                raise ServerError("down", status=500)

        lists.before = fail
        collected = await reading([1, 2], lists, concurrency=8, prefetch=8).collect()
        assert [outcome.items for outcome in collected.values()] == [tuple(lists.rows_of(key)) for key in (1, 2)]
        probes = [at for at in lists.at if 0.5 + 2 * LATENCY < at < 8]
        assert probes == sorted(set(probes))
        assert 2 <= len(probes) <= 3

    run(main)


def test_the_first_of_a_hundred_thousand_comes_within_a_request() -> None:
    """Nothing waits for the input to be read or for the other workers."""

    async def main() -> None:
        lists = Lists(lambda key: 1)
        iterator = aiter(reading(list(range(1, 100_001)), lists))
        assert (await anext(iterator)).ok
        assert lists.now == pytest.approx(LATENCY)
        assert len(lists.asked) <= 64
        await iterator.aclose()

    run(main)


@pytest.mark.parametrize("mode", ["outcomes", "ordered", "pages", "items"])
def test_an_endless_input_is_read_a_few_hundred_ahead(mode: str) -> None:
    """However slow the loop is, and with what it takes, no more is asked than a few for each worker."""

    async def main() -> None:
        read: list[int] = []
        lists = Lists(lambda key: 3)
        fan = reading((read.append(key) or key for key in itertools.count(1)), lists, concurrency=8)
        iterator = aiter(fan) if mode == "outcomes" else getattr(fan, mode)()
        for taken in range(1, 41):
            await anext(iterator)
            await asyncio.sleep(10)
            assert read[-1] <= 256 + taken + 2 * 8 + 2
            assert len(lists.keys_asked) <= taken + 2 * 8 + 2
            assert lists.running == 0
        await iterator.aclose()

    run(main)


def test_a_slow_loop_bounds_what_is_read_of_a_whale() -> None:
    """At most the channel, the page in hand, and `prefetch` pages."""

    async def main() -> None:
        lists = Lists(lambda key: 10**6)
        iterator = reading([1], lists, concurrency=4, prefetch=8).pages()
        for taken in range(1, 30):
            await anext(iterator)
            await asyncio.sleep(10)
            assert len(lists.asked) <= taken + 4 + 1 + 8
        await iterator.aclose()

    run(main)
