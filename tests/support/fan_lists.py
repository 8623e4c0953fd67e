"""Lists for a fan-out in virtual time: each key has so many rows, each page takes its time and may fail.

Invariant: what was asked, and how much at once, is remembered with its time; no real second passes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from capillary_async._paging.pager import FetchedPage
from support.fan_fakes import Shelf, fan_over
from support.virtual_time import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import FanOut

LATENCY = 0.05


class Lists(Shelf):
    """Key `k` has `count(k)` rows, `(k, 0)` and on; a page takes `LATENCY` seconds."""

    def __init__(self, count: Callable[[Any], int], size: int = 2) -> None:
        super().__init__(size=size)
        self.count = count
        self.before = self.slow
        self.began = clock()
        self.at: list[float] = []
        self.under_way: Counter[Any] = Counter()
        self.most_of: Counter[Any] = Counter()

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return clock() - self.began

    async def slow(self, key: Any, number: int) -> None:
        """The time that a page takes."""
        await asyncio.sleep(LATENCY)

    async def fetch(self, key: Any, number: int, size: int) -> FetchedPage[Any]:
        self.at.append(self.now)
        self.under_way[key] += 1
        self.most_of[key] = max(self.most_of[key], self.under_way[key])
        try:
            return await super().fetch(key, number, size)
        finally:
            self.under_way[key] -= 1

    def _page(self, key: Any, number: int, size: int) -> FetchedPage[Any]:
        rows = [(key, index) for index in range(self.count(key))[(number - 1) * size : number * size]]
        return FetchedPage(rows, len(rows))

    def rows_of(self, key: Any) -> list[tuple[Any, int]]:
        """What a sequential reading gives."""
        return [(key, index) for index in range(self.count(key))]

    def needed(self, keys: Any) -> int:
        """The requests of a sequential reading: an empty page after a full one is asked for twice."""
        return sum(self._pages(key) + (self.count(key) > 0 == self.count(key) % self.size) for key in keys)

    def _pages(self, key: Any) -> int:
        return self.count(key) // self.size + 1

    def beyond(self) -> int:
        """How many pages were asked for behind the one that ends its list."""
        return sum(number > self._pages(key) for key, number in self.asked)


def reading(source: Any, lists: Lists, *, concurrency: int = 32, prefetch: int = 4) -> FanOut[Any, Any]:
    """A fan-out over lists."""
    return fan_over(source, lists, concurrency=concurrency, prefetch=prefetch)
