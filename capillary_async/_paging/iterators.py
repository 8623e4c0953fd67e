"""Iterators for `async for`: `ClosableIterator`, their base, and those of a pager: `PageIterator` and `ItemIterator`.

Invariant: an iterator never takes a failure for the end, and always knows its position; closed or cancelled at any
moment it leaves no request in flight. Classes, not async generators, whose clean-up waits for the garbage collector.
Called by `Pager`, which makes them; closed by loops, users and the session.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterator
from operator import length_hint
from typing import Generic, Self, TypeVar

from capillary_async._interrupt import CancelScope
from capillary_async._loops import call_in
from capillary_async._paging.misuse import AsyncOnly
from capillary_async._paging.page import Page, Position
from capillary_async._paging.reader import ListReader
from capillary_async._paging.verified import VerifiedReader
from capillary_async._progress import Bar

__all__ = ["ClosableIterator", "ItemIterator", "PageIterator"]

T_co = TypeVar("T_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)

_END = "end"


class ClosableIterator(AsyncOnly, Generic[V_co]):
    """An iterator on which one task at a time waits, and which users and the session close from outside.

    Subclasses receive values, cancel the work for them, and wait until that work is gone.
    """

    _RESTART: str  # how to continue after the iterator ended early

    def __init__(self, bar: Bar | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()  # locked while a task waits for a value
        self._ended: str | None = None  # `_END`, or the reason why no more values come
        self._bar = bar  # counts what is read; None for most

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> V_co:
        """The next value, from what was received before or from `_next_value`."""

    @abstractmethod
    async def _receive(self) -> V_co:
        """The next value; raises StopAsyncIteration after the last one, and RuntimeError where `_cancel` ended it."""

    @abstractmethod
    def _cancel(self) -> None:
        """Cancel the work for the values to come, `_receive` included, without waiting."""

    @abstractmethod
    async def _released(self) -> None:
        """Wait until the cancelled work is gone."""

    async def _next_value(self) -> V_co:
        """Wait for the next value; an error ends the iterator, once its work is gone."""
        self._check()
        async with self._lock:
            try:
                return await self._receive()
            except BaseException as error:
                self._stop(_reason(error))
                await self._released()
                raise

    def _check(self) -> None:
        """Raise where the iterator has ended, or where another task waits on it."""
        if self._ended == _END:
            raise StopAsyncIteration
        if self._ended is not None:
            raise self._ended_early()
        if self._lock.locked():
            raise RuntimeError(
                "this iterator is already waiting in another task; give each task an iterator of its own"
            )

    def _ended_early(self) -> RuntimeError:
        return RuntimeError(f"this iterator {self._ended}; {self._RESTART}")

    async def aclose(self) -> None:
        """End the reading; no request stays in flight. Closing twice is fine."""
        await self._close("was closed while it waited" if self._lock.locked() else _END)

    async def _end(self, why: str) -> None:
        """End the iterator for its session, from any loop."""
        if asyncio.get_running_loop() is self._loop:
            await self._close(why)
        elif not call_in(self._loop, self._stop, why):
            self._ended = self._ended or why

    async def _close(self, why: str) -> None:
        self._stop(why)
        async with self._lock:
            await self._released()

    def _stop(self, why: str) -> None:
        if self._ended is None:
            self._ended = why
            self._cancel()
            if self._bar is not None:
                self._bar.close()


class _ReaderIterator(ClosableIterator[V_co], Generic[V_co, T_co]):
    """An iterator over one reading of a list of `T_co`, which gives `V_co`: pages or records."""

    _RESTART = "go on with .options(start=iterator.position)"

    def __init__(self, reader: ListReader[T_co] | VerifiedReader[T_co], bar: Bar | None = None) -> None:
        super().__init__(bar)
        self._reader = reader
        self._scope: CancelScope | None = None  # of the task that waits for a page

    async def _receive_page(self) -> Page[T_co]:
        if self._bar is not None:
            self._bar.show()
        self._scope = scope = CancelScope()
        page: Page[T_co] | None = None
        try:
            with scope:
                page = await self._reader.next_page()
        finally:
            self._scope = None
        if scope.cancelled_caught:
            raise RuntimeError(f"this iterator {self._ended}")
        if page is None:
            raise StopAsyncIteration
        if self._bar is not None:
            self._bar.add(len(page))
        return page

    def _cancel(self) -> None:
        self._reader.cancel()
        if self._scope is not None:
            self._scope.cancel()

    async def _released(self) -> None:
        await self._reader.aclose()


class PageIterator(_ReaderIterator[Page[T_co], T_co]):
    """The pages of one reading. `aclose()` ends it early; being dropped does too."""

    @property
    def position(self) -> Position:
        """Where reading continues after the last page given."""
        return self._reader.position

    async def __anext__(self) -> Page[T_co]:
        return await self._next_value()

    async def _receive(self) -> Page[T_co]:
        return await self._receive_page()


class ItemIterator(_ReaderIterator[T_co, T_co]):
    """The records of one reading, page after page. `aclose()` ends it early; being dropped does too."""

    def __init__(self, reader: ListReader[T_co] | VerifiedReader[T_co], bar: Bar | None = None) -> None:
        super().__init__(reader, bar)
        self._page: Page[T_co] | None = None
        self._items: Iterator[T_co] = iter(())
        self._stopped_at: Position | None = None

    @property
    def position(self) -> Position:
        """Where reading continues after the last record given."""
        if self._stopped_at is not None:
            return self._stopped_at
        if self._page is None:
            return self._reader.position
        return self._page.position_behind(len(self._page) - length_hint(self._items))

    async def __anext__(self) -> T_co:
        # The path of nearly every record: one coroutine, nothing awaited.
        for item in self._items:
            return item
        return await self._next_value()

    async def _receive(self) -> T_co:
        """The first record of the next page that has any."""
        while True:
            self._page = None  # its memory, still in the processor's cache, is the next page's
            self._page = page = await self._receive_page()
            self._items = iter(page.items)
            for item in self._items:
                return item

    def _cancel(self) -> None:
        """Give nothing more of the current page, and remember the position in it."""
        self._stopped_at, self._page, self._items = self.position, None, iter(())
        super()._cancel()


def _reason(error: BaseException) -> str:
    if isinstance(error, StopAsyncIteration):
        return _END
    if isinstance(error, asyncio.CancelledError):
        return "was cancelled while it waited"
    return f"ended with {type(error).__name__}"
