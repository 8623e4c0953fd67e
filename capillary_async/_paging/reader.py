"""One reading of a list: `ListReader` asks for page after page and keeps the rules of paging.

Invariant: every record of the list is given once, in order, or an error has the position of what is missing; only the
walk ends a list, and only as far as nothing contradicts the end. Knows no HTTP: an endpoint hands in a `ListSource`;
the pager's iterators and the fan-out walk it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import evolve

from capillary_async._config import CarefulPaging
from capillary_async._paging.cursor import Cursor
from capillary_async._paging.duplicates import DuplicateFilter
from capillary_async._paging.page import Position, past_of
from capillary_async._paging.prefetch import PrefetchQueue
from capillary_async._paging.source import ALONE, FetchedPage
from capillary_async.errors import (
    ApiMessage,
    CapillaryError,
    CustomerNotFoundError,
    DecodeError,
    NotFoundError,
    PagingError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from capillary_async._config import Paging
    from capillary_async._paging.duplicates import FreshRecords
    from capillary_async._paging.page import Page
    from capillary_async._paging.source import ListSource, PagerOptions, PrefetchBudget, SessionHooks

__all__ = ["ListReader"]

T = TypeVar("T")

_BEGINNING = Position(1)


class ListReader(Generic[T]):
    """One reading of a list, page after page. After an error it may be asked again, and goes on from there.

    Attributes:
        requested: Pages asked for.
        looks: Those of them that only looked for a cap and found none.
    """

    def __init__(
        self,
        source: ListSource[T],
        paging: Paging,
        options: PagerOptions,
        owner: SessionHooks,
        *,
        fixed: bool = False,
        pace: PrefetchBudget = ALONE,
    ) -> None:
        start = options.start or _BEGINNING
        self._source = source
        self._owner = owner
        self._prefetch = paging.prefetch
        self._careful = paging.verify or isinstance(paging, CarefulPaging)
        self._pace = pace
        self._left = options.max_items
        size = options.page_size or paging.page_size
        cursor = Cursor.at(start, size, fixed=fixed, pages=source.pages)
        self._cursor = cursor.ended() if self._left == 0 else cursor
        self._width = 1
        self._ahead: PrefetchQueue[FetchedPage[T]] = PrefetchQueue()
        self._refused: CapillaryError | None = None
        self._duplicates = DuplicateFilter(source, past_of(start))
        self._exports = isinstance(paging, CarefulPaging)
        self._rows = (start.page - 1) * cursor.size  # received up to the last page given
        self._total: int | None = None  # rows of the list, as its last answer with rows says
        self.requested = 0
        self.looks = 0

    @property
    def position(self) -> Position:
        """Where reading continues after the last page given."""
        return self._cursor.position(self._duplicates.past)

    @property
    def size(self) -> int:
        """The page size in use."""
        return self._cursor.size

    async def next_page(self) -> Page[T] | None:
        """The next page; None at the end.

        Raises:
            CapillaryError: With `.position`; what was read ahead is dropped, and the walk may be asked again.
        """
        if self._refused is not None:
            await self._ahead.aclose()
            error, self._refused = self._refused, None
            error.position = self.position
            raise error
        page = None
        try:
            fetched = None if self._cursor.done else await self._take()
            page = None if fetched is None else self._accept(fetched)
        except CapillaryError as error:
            error.position = self.position
            raise
        finally:
            if page is None:
                await self._ahead.aclose()
        self._look_ahead()
        return page

    # What is asked.

    async def _take(self) -> FetchedPage[T] | None:
        """The page whose turn it is; None at the end."""
        page = await self._ask(again=False)
        if self._source.pages is not None:
            return page
        if page is not None and (self._cursor.is_full(page.received) or await self._is_capped(page)):
            return page
        page = await self._believed(page)
        if page is None and self._lacking(self._rows, self._total):
            return FetchedPage((), 0)
        if page is None:
            self._cursor = self._cursor.ended()
        return page

    async def _ask(self, *, again: bool) -> FetchedPage[T] | None:
        """The page, decoded; None for a 404, 204, `null` or `{}` that may be the end of the list."""
        try:
            fetched = await self._next(again=again)
            if fetched.decode is not None:
                if self._pace.turn is not None:
                    await self._pace.turn()
                fetched = await fetched.decode()
        except (DecodeError, NotFoundError) as error:
            if not self._may_end(error):
                raise
            return _gone(error, self._cursor.number) if isinstance(error, NotFoundError) and error.html else None
        if self._source.pages is None:
            self._owner.lengths.note(self._source.endpoint, self.size, fetched.received)
        return fetched

    def _next(self, *, again: bool) -> Awaitable[FetchedPage[T]]:
        if len(self._ahead) and not again:
            return self._ahead.take()
        self.requested += 1
        deferred = None if self._pace.turn is None else self._source.ahead
        return (deferred or self._source.fetch)(self._cursor.number, self.size)

    def _may_end(self, error: DecodeError | NotFoundError) -> bool:
        """Whether there may just be no such page; not where the customer is unknown or the answer has another shape."""
        empty = error.empty if isinstance(error, DecodeError) else not isinstance(error, CustomerNotFoundError)
        return empty and self._cursor.full_before and self._source.pages is None

    def _look_ahead(self) -> None:
        """Ask for the pages to come, never further than can be needed."""
        if self._cursor.done or self._refused is not None:
            # Nothing is awaited here, or a cancellation could lose the page in hand; the next call waits for the end.
            self._ahead.cancel()
            return
        most = min(self._width, self._prefetch)
        if self._pace.spare is not None:
            most = min(most, self._pace.spare())
        while len(self._ahead) < most and self._needed(len(self._ahead)):
            self._start(self._cursor.number + len(self._ahead), self.size)

    def _start(self, number: int, size: int) -> None:
        self.requested += 1
        self._ahead.start(_fetch(self._source.ahead or self._source.fetch, number, size))

    def _needed(self, under_way: int) -> bool:
        pages = self._source.pages
        if pages is not None:
            return self._cursor.number + under_way <= pages
        return self._left is None or under_way * self.size < self._left

    # What ends a list.

    async def _believed(self, page: FetchedPage[T] | None) -> FetchedPage[T] | None:
        """The page or 404 that would end the list, unless something contradicts it: then what comes when asked again.

        Raises:
            PagingError: Asked again it still ends the list, and a page behind it has rows.
        """
        contradicted = len(self._ahead) > 0 and await self._ahead.any(partial(self._has_more, page))
        empty = page is None or not page.received
        doubted = page is not None and bool(self._lacking(self._rows + page.received, page.total))
        if not contradicted and not doubted and not (empty and self._cursor.full_before):
            return page
        page = await self._ask(again=True)
        if contradicted and (page is None or not self._cursor.is_full(page.received)):
            raise PagingError(
                f"{self._source.name}: page {self._cursor.number} came twice with "
                f"{0 if page is None else page.received} of {self.size} rows, as the last page of a list does, but a "
                "page after it has rows; nothing of it was given. Go on at .position later; if "
                "it comes again, report it to Capillary"
            )
        return page

    async def _is_capped(self, page: FetchedPage[T]) -> bool:
        """Whether a page 1 shorter than asked is a server's cap, as far as is known or worth a look."""
        length, lengths, endpoint = page.received, self._owner.lengths, self._source.endpoint
        if not self._cursor.may_be_capped(length) or (self._left is not None and self._left <= length):
            return False
        if self._careful:
            verdict = await lengths.verdict(endpoint, self.size, length)
        else:
            verdict = "cap" if lengths.is_cap(endpoint, self.size, length) else "end"
        if verdict == "end" and self._lacking(self._rows + length, page.total):
            lengths.begin(endpoint, self.size, length)
            verdict = "look"
        if verdict == "cap" or (verdict == "look" and await self._look(page)):
            self._cursor = self._cursor.capped_at(length)
        return self._cursor.cap is not None

    async def _look(self, page: FetchedPage[T]) -> bool:
        """Look behind a short page 1; what is there stays the next page. A failed look is an error of that page."""
        found = None
        try:
            self._start(self._cursor.number + 1, page.received)
            found = await self._finds(page)
        finally:
            self._owner.lengths.looked(self._source.endpoint, self.size, page.received, found=found)
        if found is False:
            self.looks += 1
            await self._ahead.aclose()
        return found is not False

    async def _finds(self, page: FetchedPage[T]) -> bool | None:
        """Whether the page behind has rows that this one has not; None where it failed."""
        try:
            behind = await self._ahead.peek()
        except CapillaryError as error:
            return False if isinstance(error, NotFoundError) and not isinstance(error, CustomerNotFoundError) else None
        return await self._has_more(page, behind)

    async def _has_more(self, page: FetchedPage[T] | None, behind: FetchedPage[T]) -> bool:
        """Whether a page behind this one has rows that were not seen; one that cannot be decoded says nothing.

        A server that gives its last page for ever has nothing more.
        """
        try:
            behind = behind if behind.decode is None else await behind.decode()
        except CapillaryError:
            return False
        here = set(map(self._duplicates.token, page.items if page else ()))
        return bool(behind.nulls) or any(self._duplicates.is_new(item, here) for item in behind.items)

    # What is given.

    def _accept(self, fetched: FetchedPage[T]) -> Page[T] | None:
        """Take a page in; None for the empty one that ends a list and has neither warnings nor an error."""
        begun, number, duplicates = self._cursor.begun, self._cursor.number, self._duplicates
        if self._cursor.fills(fetched.received):
            self._width = min(self._prefetch, self._width * 2)
        self._cursor = self._cursor.detect(fetched.received)
        fresh = duplicates.filter(fetched, self._cursor)
        before = duplicates.remember(fetched, fresh)
        if fresh.duplicates:
            self._owner.count_duplicates(fresh.duplicates)
        items, cut_at = self._within(fresh)
        if cut_at is not None:
            duplicates.past = before.after(items)
        self._cursor = self._cursor.after(fetched.received, cut_at=cut_at, enough=self._left == 0)
        fetched = self._counted(fetched)
        self._refused = None if self._left == 0 else fetched.error
        quiet = not fetched.warnings and self._refused is None
        if begun and not fetched.received and self._source.pages is None and quiet:
            return None
        last = self._cursor.done and self._refused is None
        return fetched.page(number, items, fresh.rows, position=self.position, last=last, before=before)

    def _counted(self, fetched: FetchedPage[T]) -> FetchedPage[T]:
        """The page, with a warning where it ends the list and a total says more; in an export with an error."""
        if self._source.pages is not None:
            return fetched
        self._rows += fetched.received
        if fetched.received or self._total is None:
            self._total = fetched.total
        lacking = self._lacking(self._rows, self._total)
        if not (self._cursor.done and lacking) or self._left == 0:
            return fetched
        text = (
            f"{self._source.name}: the server says that the list has {self._total} rows, and it ended after "
            f"{self._rows}: {lacking} may be missing. Read it again, and report it to Capillary if it comes again"
        )
        if self._exports:
            return evolve(fetched, error=fetched.error or PagingError(text))
        return evolve(fetched, warnings=(*fetched.warnings, ApiMessage(None, text)))

    @staticmethod
    def _lacking(rows: int, total: int | None) -> int:
        """How many rows a total says beyond those that were received; a smaller one means something else."""
        return 0 if total is None else max(0, total - rows)

    def _within(self, fresh: FreshRecords[T]) -> tuple[Sequence[T], int | None]:
        """As many records as `max_items` leaves, and the row of the first one left over; None where none is."""
        if self._left is None:
            return fresh.items, None
        items = fresh.items[: self._left]
        self._left -= len(items)
        return items, fresh.rows[len(items)] if len(items) < len(fresh.items) else None

    async def aclose(self) -> None:
        """Drop what was read ahead, and wait until it is gone."""
        await self._ahead.aclose()

    def cancel(self) -> None:
        """The same where nothing can be awaited."""
        self._ahead.cancel()


def _gone(error: NotFoundError, number: int) -> FetchedPage[Any]:
    """The end of a list, where it was an HTML page that said so."""
    text = f"the list was taken to end before page {number}, which came twice as HTTP 404 with an HTML page"
    return FetchedPage((), 0, error.request_id, (ApiMessage(None, text),), error.status, error.elapsed)


async def _fetch(fetch: Callable[[int, int], Awaitable[FetchedPage[Any]]], number: int, size: int) -> FetchedPage[Any]:
    """A coroutine for a task, that holds the endpoint and nothing of the walk."""
    return await fetch(number, size)
