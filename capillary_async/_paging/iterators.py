"""What a loop over a pager holds: `PageIterator` and `ItemIterator`.

Invariant: an iterator never takes a failure for the end, and always knows its position; closed or cancelled at any
moment it leaves no request behind. Classes, not async generators, whose clean-up waits for the garbage collector. Made
by the pager, closed by loops, users and the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from operator import length_hint
from typing import Generic, TypeVar

from capillary_async._interrupt import CancelScope
from capillary_async._loops import call_in
from capillary_async._paging.misuse import AsyncOnly
from capillary_async._paging.page import Page, Position
from capillary_async._paging.reader import ListReader
from capillary_async._paging.verified import VerifiedReader

__all__ = ["ItemIterator", "PageIterator"]

T_co = TypeVar("T_co", covariant=True)

_END = "end"


class PageIterator(AsyncOnly, Generic[T_co]):
    """The pages of one walk. `aclose()` ends it early; being dropped does too."""

    def __init__(self, walk: ListReader[T_co] | VerifiedReader[T_co]) -> None:
        self._loop = asyncio.get_running_loop()
        self._walk = walk
        self._ended: str | None = None  # `_END`, or why nothing more can come
        self._lock = asyncio.Lock()
        self._waiting: CancelScope | None = None

    def __aiter__(self) -> PageIterator[T_co]:
        return self

    @property
    def position(self) -> Position:
        """Where reading goes on behind what was given."""
        return self._walk.position

    async def __anext__(self) -> Page[T_co]:
        self._refuse()
        async with self._lock:
            page = await self._next()
        if page is None:
            self._ended = _END
            raise StopAsyncIteration
        return page

    def _refuse(self) -> None:
        if self._ended == _END:
            raise StopAsyncIteration
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; go on with .options(start=iterator.position)")
        if self._lock.locked():
            raise RuntimeError(
                "this iterator is already waiting in another task; give each task an iterator of its own"
            )

    async def _next(self) -> Page[T_co] | None:
        self._waiting = waiting = CancelScope()
        try:
            with waiting:
                return await self._walk.next_page()
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            self._ended = "was cancelled while it waited" if cancelled else f"ended with {type(error).__name__}"
            raise
        finally:
            self._waiting = None
        raise RuntimeError(f"this iterator {self._ended}")

    async def aclose(self) -> None:
        """End the reading; no request stays under way. Closing twice is fine."""
        await self._close(_END if self._waiting is None else "was closed while it waited")

    async def _end(self, why: str) -> None:
        """End it for the session."""
        if asyncio.get_running_loop() is self._loop:
            await self._close(why)
        else:
            call_in(self._loop, self._stop, why)

    async def _close(self, why: str) -> None:
        self._stop(why)
        async with self._lock:
            await self._walk.aclose()

    def _stop(self, why: str) -> None:
        self._ended = self._ended or why
        self._walk.cancel()
        if self._waiting is not None:
            self._waiting.cancel()


class ItemIterator(AsyncOnly, Generic[T_co]):
    """The records of one walk, page after page."""

    def __init__(self, pages: PageIterator[T_co]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pages = pages
        self._page: Page[T_co] | None = None
        self._items: Iterator[T_co] = iter(())
        self._stopped_at: Position | None = None

    def __aiter__(self) -> ItemIterator[T_co]:
        return self

    @property
    def position(self) -> Position:
        """Where reading goes on behind the last record given."""
        if self._stopped_at is not None:
            return self._stopped_at
        if self._page is None:
            return self._pages.position
        return self._page.position_behind(len(self._page) - length_hint(self._items))

    async def __anext__(self) -> T_co:
        # The way of nearly every record: one coroutine, nothing awaited.
        for item in self._items:
            return item
        return await self._next()

    async def _next(self) -> T_co:
        """The first record of the next page that has any."""
        while True:
            self._page = None  # its memory, still in the processor's cache, is the next page's
            page = await anext(self._pages)
            if self._stopped_at is not None:
                raise RuntimeError("this iterator was closed while it waited")
            self._page, self._items = page, iter(page.items)
            for item in self._items:
                return item

    async def aclose(self) -> None:
        """End the reading; no request stays under way. Closing twice is fine."""
        self._stop()
        await self._pages.aclose()

    async def _end(self, why: str) -> None:
        """End it for the session."""
        if asyncio.get_running_loop() is self._loop:
            self._stop()
        else:
            call_in(self._loop, self._stop)
        await self._pages._end(why)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    def _stop(self) -> None:
        """Give nothing more of the page in hand, and remember where that was."""
        self._stopped_at, self._page = self.position, None
        self._items = iter(())
