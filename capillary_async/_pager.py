"""Lists that page by themselves: `Pager` the recipe, and the iterators that give out what its walks read.

The rule kept here: a pager holds no place, so that looping twice reads twice; an iterator never takes a failure for the end.
Knows no HTTP; made by the endpoints, looped over by users.
"""

from __future__ import annotations

import asyncio
from operator import length_hint
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import evolve

from capillary_async._walk import Fetched, Owner, Page, Position, ReadOptions, Source, Verified, Walk
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capillary_async._config import Paging

__all__ = ["Fetched", "Owner", "Page", "PageIterator", "Pager", "Position", "RecordIterator", "Source"]

T = TypeVar("T")


class _Live:
    """An iterator that the session can close, and that never takes a failure for the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self._ended: str | None = None  # 'end', or why nothing more can come

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError(
                "this iterator is already waiting in another task; give each task an iterator of its own"
            )
        if self._ended == "end":
            raise StopAsyncIteration
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; go on with .options(start=iterator.position)")
        self._busy = True

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it belongs to."""
        return self._loop


class PageIterator(_Live, Generic[T]):
    """The pages of one walk. `aclose()` ends it early; being dropped does too."""

    def __init__(self, pager: Pager[T]) -> None:
        super().__init__()
        self._walk: Walk[T] | Verified[T] = pager.walk()

    def __aiter__(self) -> PageIterator[T]:
        return self

    @property
    def position(self) -> Position:
        """Where reading goes on behind what was given."""
        return self._walk.position

    async def __anext__(self) -> Page[T]:
        self._enter()
        try:
            page = await self._walk.next_page()
        except asyncio.CancelledError:
            self._ended = "was cancelled while it waited for a page"
            raise
        except BaseException as error:
            self._ended = f"ended with {type(error).__name__}"
            raise
        finally:
            self._busy = False
        if page is None:
            self._ended = "end"
            raise StopAsyncIteration
        return page

    async def aclose(self) -> None:
        """End the reading; no request stays under way. Closing twice is fine."""
        self._ended = self._ended or "end"
        await self._walk.aclose()

    async def end(self, why: str) -> None:
        """End it for the session."""
        self._ended = self._ended or why
        if asyncio.get_running_loop() is self._loop:
            await self._walk.aclose()
        else:
            _cancel_elsewhere(self._loop, self._walk.cancel)


def _cancel_elsewhere(loop: asyncio.AbstractEventLoop, cancel: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(cancel)
    except RuntimeError:  # that loop is closed, and its tasks with it
        return


class RecordIterator(Generic[T]):
    """The records of one walk, page after page."""

    def __init__(self, pages: PageIterator[T]) -> None:
        self._pages = pages
        self._page: Page[T] | None = None
        self._items: Iterator[T] = iter(())
        self._ended = False

    def __aiter__(self) -> RecordIterator[T]:
        return self

    @property
    def position(self) -> Position:
        """Where reading goes on behind the last record given."""
        if self._page is None:
            return self._pages.position
        left = length_hint(self._items)
        return self._page.position_behind(len(self._page) - left)

    async def __anext__(self) -> T:
        while True:
            if not self._ended:
                for item in self._items:
                    return item
            self._page = await anext(self._pages)
            self._items = iter(self._page.items)

    async def aclose(self) -> None:
        """End the reading; no request stays under way. Closing twice is fine."""
        self._ended = True
        await self._pages.aclose()


class Pager(Generic[T]):
    """A list of the API: a recipe, not a cursor. Looping twice reads twice.

    `async for record in pager` gives every record, page after page; a record that comes twice is given once. What the server's paging
    over moving data cannot promise, `verify` checks by reading again.

    Raises (while looping):
        CapillaryError: With `.position`, from where `.options(start=...)` goes on.
        RuntimeError: The session is closed.
    """

    __slots__ = ("__weakref__", "_options", "_owner", "_paging", "_source")

    def __init__(self, source: Source[T], paging: Paging, owner: Owner, options: ReadOptions | None = None) -> None:
        self._source = source
        self._paging = paging
        self._owner = owner
        self._options = options or ReadOptions()
        self._check()

    def _check(self) -> None:
        options, start = self._options, self._options.start
        self._source.check_size(options.page_size or self._paging.page_size)
        if start is not None and start.page_size is not None:
            self._source.check_size(start.page_size)
            if options.page_size not in (None, start.page_size):
                raise InvalidRequestError(
                    f"start goes on with its own page_size {start.page_size}; page_size={options.page_size} cannot stand beside it",
                    argument="page_size",
                )
        if self._paging.verify:
            self._check_verify()

    def _check_verify(self) -> None:
        if self._source.pages is None and (self._options.start is not None or self._options.max_items is not None):
            raise InvalidRequestError(
                "verify compares whole lists: start and max_items cannot stand beside it", argument="verify"
            )

    def options(
        self,
        *,
        page_size: int | None = None,
        prefetch: int | None = None,
        max_items: int | None = None,
        start: Position | None = None,
    ) -> Pager[T]:
        """A copy that reads otherwise; what is not given stays.

        Args:
            page_size: Records asked for a page.
            prefetch: Pages in flight or waiting at most; 0 asks only when a page is wanted.
            max_items: Give so many records at most, and ask for no page that cannot be needed.
            start: Where to go on: the `.position` of a page or of an error.

        Raises:
            InvalidRequestError: A value that cannot be, `page_size` beside a `start` of another size, or `start` or `max_items` beside verify.
        """
        paging = self._paging
        if prefetch is not None:
            self._refuse_unless(
                isinstance(prefetch, int) and not isinstance(prefetch, bool) and prefetch >= 0, "prefetch", prefetch
            )
            paging = evolve(paging, prefetch=prefetch)
        if max_items is not None:
            self._refuse_unless(
                isinstance(max_items, int) and not isinstance(max_items, bool) and max_items >= 0,
                "max_items",
                max_items,
            )
        if page_size is not None:
            self._source.check_size(page_size)
        if start is not None and not isinstance(cast("object", start), Position):
            raise InvalidRequestError(f"start takes a Position, e.g. error.position, got {start!r}", argument="start")
        given = {"page_size": page_size, "max_items": max_items, "start": start}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return Pager(self._source, paging, self._owner, evolve(self._options, **changed))

    @staticmethod
    def _refuse_unless(right: bool, name: str, value: object) -> None:  # noqa: FBT001
        if not right:
            raise InvalidRequestError(f"{name} takes a whole number of at least 0, got {value!r}", argument=name)

    def walk(self) -> Walk[T] | Verified[T]:
        """A new reading. For the iterators and the fan-out."""
        if self._paging.verify and self._source.pages is None:
            return Verified(self._source, self._paging, self._options, self._owner)
        return Walk(self._source, self._paging, self._options, self._owner)

    def __aiter__(self) -> RecordIterator[T]:
        """Every record, page after page."""
        return RecordIterator(self.pages())

    def pages(self) -> PageIterator[T]:
        """Whole pages. Of an empty list one empty page; otherwise none is empty but for dropped duplicates."""
        iterator = PageIterator(self)
        self._owner.track(iterator)
        return iterator

    async def page(self, number: int) -> Page[T]:
        """One page by its number from 1, as it is: no other page is read, so duplicates of other pages stay.

        Raises:
            InvalidRequestError: The number is none.
            NotFoundError: The server answers so behind the end; most give an empty page.
        """
        start = self._options.start
        known = Position(number, 0, start.page_size if start else None)
        if self._source.pages is not None and number > self._source.pages:
            raise InvalidRequestError(f"page takes 1 to {self._source.pages} here, got {number}", argument="page")
        size = known.page_size or self._options.page_size or self._paging.page_size
        fetched = await self._source.fetch(number, size)
        behind = Position(number + 1, 0, size if self._source.pages is None else None)
        page = Page(
            tuple(fetched.items), number, fetched.request_id, fetched.warnings, fetched.status, fetched.elapsed, behind,
            not fetched.received,
        )  # fmt: skip
        if fetched.error is not None:
            fetched.error.position = behind
            raise fetched.error
        return page

    async def first(self) -> T | None:
        """The first record, or None for an empty list."""
        verified = self._paging.verify and self._source.pages is None
        pager = self if verified or self._options.max_items == 0 else self.options(max_items=1)
        iterator = aiter(pager)
        try:
            return await anext(iterator, None)
        finally:
            await iterator.aclose()

    async def collect(self, *, verify: bool | None = None) -> list[T]:
        """All records as a list.

        Args:
            verify: Read a list of several pages at least twice and compare; None for the session's `Paging.verify`.

        Raises:
            PageDriftError: With verify, three readings gave three lists.
        """
        pager = self
        if verify is not None and verify != self._paging.verify:
            pager = Pager(self._source, evolve(self._paging, verify=verify), self._owner, self._options)
        records: list[T] = []
        pages = pager.pages()
        try:
            async for page in pages:
                records.extend(page.items)
        finally:
            await pages.aclose()
        return records

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in _said(self._options)]
        return f"<Pager {self._source.name}{''.join(' ' + text for text in said)}>"


def _said(options: ReadOptions) -> list[tuple[str, Any]]:
    named = (("page_size", options.page_size), ("max_items", options.max_items), ("start", options.start))
    return [(name, value) for name, value in named if value is not None]
