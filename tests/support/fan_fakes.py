"""Doubles for tests of the fan-out: shelves of records for a service."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve

from capillary_async import ApiMessage, Paging, ServerError
from capillary_async._fanout.fanout import BatchReader, FanOut, PagedReader
from capillary_async._fanout.fanout import fan_over as over
from capillary_async._paging.lengths import Lengths
from capillary_async._paging.pager import FetchedPage, ListSource, Page
from capillary_async.endpoints._arguments import positive

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable
_E = TypeVar("_E", bound=BaseException)


class Owner:
    """What a fan-out needs of a session."""

    def __init__(self) -> None:
        self.tracked: weakref.WeakSet[Any] = weakref.WeakSet()
        self.duplicates = 0
        self.lengths = Lengths()
        self.observers: Any = None

    def track(self, iterator: Any) -> None:
        self.tracked.add(iterator)

    def count_duplicates(self, number: int) -> None:
        self.duplicates += number


class Shelf:
    """Lists by key: key 7 has 7 records, `(7, 0)` to `(7, 6)`, or all keys have `rows`; remembers what was asked."""

    def __init__(self, size: int = 3, rows: int | None = None) -> None:
        self.size = size
        self.rows = rows
        self.asked: list[tuple[Any, int]] = []
        self.running = 0
        self.most = 0
        # Run before an answer is given: may wait or raise.
        self.before: Callable[[Any, int], Awaitable[None]] | None = None

    async def fetch(self, key: Any, number: int, size: int) -> FetchedPage[Any]:
        self.asked.append((key, number))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            if self.before is not None:
                await self.before(key, number)
        finally:
            self.running -= 1
        return self._page(key, number, size)

    def _page(self, key: Any, number: int, size: int) -> FetchedPage[Any]:
        count = key if self.rows is None else self.rows
        rows = [(key, index) for index in range((number - 1) * size, min(count, number * size))]
        return FetchedPage(rows, len(rows), warnings=(ApiMessage(None, f"page {number}"),))

    def source(self, key: Any) -> ListSource[Any]:
        async def fetch(number: int, size: int) -> FetchedPage[Any]:
            return await self.fetch(key, number, size)

        return ListSource(f"shelf({key})", fetch, lambda row: row)

    @property
    def keys_asked(self) -> list[Any]:
        """Each key once, in the order of first asking."""
        return list(dict.fromkeys(key for key, _ in self.asked))


def check_key(value: Any) -> int:
    """The check of most endpoints."""
    return positive("keys", value)


def fan_over(
    source: Any,
    shelf: Shelf,
    *,
    concurrency: int = 4,
    owner: Owner | None = None,
    prefetch: int = 0,
) -> FanOut[Any, Any]:
    """A fan-out over a shelf."""
    reader: PagedReader[int, Any] = PagedReader(check_key, shelf.source, Owner(), lambda paging: None)
    fan = _made(source, reader, Paging(page_size=shelf.size, prefetch=prefetch), owner or Owner())
    options = evolve(fan._plan.options, concurrency=concurrency)
    fan._plan = evolve(fan._plan, options=options)
    return fan


def batches_over(source: Any, shelf: Shelf, *, batch: int, room: int = 10**6, concurrency: int = 2) -> FanOut[Any, Any]:
    """The same in batches; what a batch asks for is remembered as a tuple of keys."""

    async def ask(keys: tuple[int, ...]) -> dict[int, Any]:
        await shelf.fetch(keys, 1, 0)
        return {key: Page(tuple((key, n) for n in range(key % 1000)), 1, last=True) for key in keys}

    shelf._page = lambda key, number, size: FetchedPage([], 0)  # type: ignore[method-assign]
    reader: BatchReader[int, Any] = BatchReader(check_key, ask, batch, room, lambda key: len(str(key)) + 1)
    return _made(source, reader, Paging(), Owner()).options(concurrency=concurrency)


def _made(source: Any, reader: Any, paging: Paging, owner: Any) -> FanOut[Any, Any]:
    return over(
        source,
        reader,
        argument="keys",
        name="shelf",
        concurrency=4,
        paging=paging,
        owner=owner,
    )


async def until_raised(kind: type[_E], iterator: AsyncIterable[Any]) -> tuple[list[Any], _E]:
    """What a loop gave, and the error that ended it."""
    given: list[Any] = []
    try:
        async for one in iterator:
            given.append(one)  # noqa: PERF401 - what came before the error is wanted
    except kind as error:
        return given, error
    raise AssertionError(f"the loop ended without {kind.__name__}, after {given}")


def failure() -> ServerError:
    """A 500 at the end of a call's attempts."""
    error = ServerError("the server refused with HTTP 500", status=500)
    error.attempts = 1
    return error
