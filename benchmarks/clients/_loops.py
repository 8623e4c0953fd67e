"""The loops that a careful user would write around a client that does not page by itself.

Invariant: this is what an SDK would save its user: page after page until a short one, and workers over one input.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from benchmarks.pages import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["AsyncLoop", "ThreadLoop", "by_member"]


class AsyncLoop(ABC):
    """A client that gives a page; rows have attributes."""

    @abstractmethod
    async def page(self, entity_id: int, number: int) -> Sequence[Any]:
        """One page of a customer."""

    async def read_list(self, entity_id: int, take: Callable[[int], object]) -> None:
        """Read a list to its end and use each record."""
        number = 1
        while True:
            rows = await self.page(entity_id, number)
            for row in rows:
                take(row.id)
            if len(rows) < SIZE:
                return
            number += 1

    async def customer(self, entity_id: int) -> list[Any]:
        """All records of a customer."""
        records: list[Any] = []
        number = 1
        while True:
            rows = await self.page(entity_id, number)
            records.extend(rows)
            if len(rows) < SIZE:
                return records
            number += 1

    async def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Read many customers by as many workers; gives the number of records."""
        waiting = iter(ids)

        async def work() -> int:
            records = 0
            for entity_id in waiting:
                records += len(await self.customer(entity_id))
            return records

        return sum(await asyncio.gather(*(work() for _ in range(concurrency))))


def by_member(loop: type[AsyncLoop]) -> type[AsyncLoop]:
    """The same client where rows are dicts."""

    async def read_list(self: AsyncLoop, entity_id: int, take: Callable[[int], object]) -> None:
        number = 1
        while True:
            rows = await self.page(entity_id, number)
            for row in rows:
                take(row["id"])
            if len(rows) < SIZE:
                return
            number += 1

    loop.read_list = read_list  # type: ignore[method-assign]
    return loop


class ThreadLoop(ABC):
    """A client that blocks: a list in one thread, customers in a pool of them that is kept."""

    _pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    @abstractmethod
    def read_list(self, entity_id: int, take: Callable[[int], object]) -> None:
        """Read a list to its end and use each record."""

    @abstractmethod
    def customer(self, entity_id: int) -> list[Any]:
        """All records of a customer."""

    def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Read many customers by as many threads; gives the number of records."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(concurrency)
        return sum(map(len, self._pool.map(self.customer, ids)))
