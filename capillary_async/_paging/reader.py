"""One reading of a list: `ListReader` reads page after page and applies the rules of paging.

Invariant: every record of the list is given once, in order, or an error has the position of what is missing; only the
reader ends a list, and only where nothing contradicts the end. Knows no HTTP: an endpoint passes a `ListSource`.
Called by `PageIterator`, `ItemIterator`, `VerifiedReader` and `PagedReader`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import evolve

from capillary_async._config import CarefulPaging
from capillary_async._paging.cursor import Cursor, detect_page_size
from capillary_async._paging.duplicates import DuplicateFilter
from capillary_async._paging.page import Position, past_of, placed
from capillary_async._paging.requests import PageRequests
from capillary_async._paging.row_count import RowCount
from capillary_async._paging.source import ALONE, FetchedPage
from capillary_async.errors import (
    ApiMessage,
    CapillaryError,
    CustomerNotFoundError,
    DecodeError,
    NotFoundError,
    PagingError,
)
from capillary_async.telemetry._events import PageRead

if TYPE_CHECKING:
    from capillary_async._config import Paging
    from capillary_async._paging.page import Page
    from capillary_async._paging.source import ListSource, PagerOptions, PrefetchBudget, SessionHooks

__all__ = ["ListReader", "is_whole_list"]

T = TypeVar("T")

_BEGINNING = placed(1, 0, None, None)


class ListReader(Generic[T]):
    """One reading of a list, page after page. After an error, the next call continues from there."""

    def __init__(
        self,
        source: ListSource[T],
        paging: Paging,
        options: PagerOptions,
        owner: SessionHooks,
        *,
        fixed: bool = False,
        budget: PrefetchBudget = ALONE,
        first: FetchedPage[T] | None = None,
    ) -> None:
        start = options.start or _BEGINNING
        size = options.page_size or paging.page_size
        cursor = Cursor.at(start, size, fixed=fixed, pages=source.pages)
        self._source = source
        self._endpoint = source.endpoint
        self._owner = owner
        self._exports = isinstance(paging, CarefulPaging)
        self._careful = paging.verify or self._exports
        self._left = options.max_items
        self._cursor = cursor.ended() if self._left == 0 else cursor
        self._requests = PageRequests(source, paging.prefetch, budget, first)
        self._duplicates = DuplicateFilter(source, past_of(start))
        self._count = RowCount((start.page - 1) * cursor.size)
        self._refused: CapillaryError | None = None  # raised instead of the next page
        self._looks = 0  # pages requested only to detect a server's cap, where there was none

    @property
    def position(self) -> Position:
        """Where reading continues after the last page given."""
        return self._cursor.position(self._duplicates.past)

    @property
    def size(self) -> int:
        """The page size in use."""
        return self._cursor.size

    @property
    def came_in_one(self) -> bool:
        """Whether one request brought the whole list."""
        return self._requests.sent - self._looks == 1

    async def next_page(self) -> Page[T] | None:
        """The next page; None at the end.

        Raises:
            CapillaryError: With `.position`; pages read ahead are dropped, and the next call continues from there.
        """
        if self._refused is not None:
            await self.aclose()
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
                await self.aclose()
        if self._cursor.done or self._refused is not None:
            # Nothing is awaited here, or a cancellation could lose the page in hand; the next call waits for the end.
            self.cancel()
        else:
            self._requests.read_ahead(self._cursor, self._left)
        return page

    async def aclose(self) -> None:
        """Cancel the requests ahead, and wait until they have ended."""
        await self._requests.ahead.aclose()

    def cancel(self) -> None:
        """Cancel the requests ahead without waiting."""
        self._requests.ahead.cancel()

    # What ends a list.

    async def _take(self) -> FetchedPage[T] | None:
        """The next page; None at the end."""
        page = await self._fetched()
        if self._source.pages is not None:
            return page
        if page is not None and (self._cursor.is_full(page.received) or await self._is_capped(page)):
            return page
        page = await self._confirmed_end(page)
        if page is None and self._count.missing:
            return FetchedPage((), 0)
        if page is None:
            self._cursor = self._cursor.ended()
        return page

    async def _fetched(self, *, again: bool = False) -> FetchedPage[T] | None:
        """The page, decoded; None for a 404, 204, `null` or `{}` that may be the end of the list."""
        try:
            fetched = await self._requests.page(self._cursor, again=again)
        except (DecodeError, NotFoundError) as error:
            if not self._may_end(error):
                raise
            if isinstance(error, NotFoundError) and error.html:
                return FetchedPage.gone(error, self._cursor.number)
            return None
        if self._source.pages is None:
            self._owner.lengths.note(self._endpoint, self.size, fetched.received)
        return fetched

    def _may_end(self, error: DecodeError | NotFoundError) -> bool:
        """True if the error may mean "past the last page"; False for an unknown customer or an unexpected answer."""
        empty = error.empty if isinstance(error, DecodeError) else not isinstance(error, CustomerNotFoundError)
        return empty and self._cursor.full_before and self._source.pages is None

    async def _confirmed_end(self, page: FetchedPage[T] | None) -> FetchedPage[T] | None:
        """The page or 404 that would end the list; where something contradicts that, what a second request brings.

        Raises:
            PagingError: The second answer ends the list too, and a page after it has rows.
        """
        ahead = self._requests.ahead
        contradicted = len(ahead) > 0 and await ahead.any(partial(self._duplicates.has_more, page))
        empty = page is None or not page.received
        incomplete = page is not None and bool(self._count.missing_after(page))
        if not contradicted and not incomplete and not (empty and self._cursor.full_before):
            return page
        page = await self._fetched(again=True)
        if contradicted and (page is None or not self._cursor.is_full(page.received)):
            raise PagingError(
                f"{self._source.name}: page {self._cursor.number} came twice with "
                f"{0 if page is None else page.received} of {self.size} rows, as the last page of a list does, but a "
                "page after it has rows; nothing of it was given. Continue at .position later; if it comes again, "
                "report it to Capillary"
            )
        return page

    async def _is_capped(self, page: FetchedPage[T]) -> bool:
        """Whether a server's cap shortened a page 1, as far as is known or a request for page 2 shows."""
        length, lengths, endpoint = page.received, self._owner.lengths, self._endpoint
        if not self._cursor.may_be_capped(length) or (self._left is not None and self._left <= length):
            return False
        if self._careful:
            verdict = await lengths.verdict(endpoint, self.size, length)
        else:
            verdict = "end" if lengths.ends(endpoint, self.size, length, careful=False) else "cap"
        if verdict == "end" and self._count.missing_after(page):
            lengths.begin(endpoint, self.size, length)
            verdict = "look"
        if verdict == "cap" or (verdict == "look" and await self._look(page)):
            self._cursor = self._cursor.capped_at(length)
        return self._cursor.cap is not None

    async def _look(self, page: FetchedPage[T]) -> bool:
        """Look for rows after a short page 1; a page found is the next one, and a failure is that page's error."""
        found = None
        try:
            self._requests.start(self._cursor.number + 1, page.received)
            found = await self._finds(page)
        finally:
            self._owner.lengths.looked(self._endpoint, self.size, page.received, found=found)
        if found is False:
            self._looks += 1
            await self.aclose()
        return found is not False

    async def _finds(self, page: FetchedPage[T]) -> bool | None:
        """Whether the page after it has rows that this one has not; None where it failed."""
        try:
            following = await self._requests.ahead.peek()
        except CapillaryError as error:
            return False if isinstance(error, NotFoundError) and not isinstance(error, CustomerNotFoundError) else None
        return await self._duplicates.has_more(page, following)

    # What is given.

    def _accept(self, fetched: FetchedPage[T]) -> Page[T] | None:
        """Take a page in; None for the empty one that ends a list and has neither warnings nor an error."""
        begun, number, duplicates = self._cursor.begun, self._cursor.number, self._duplicates
        if self._cursor.fills(fetched.received):
            self._requests.widen()
        self._cursor = self._cursor.detect(fetched.received)
        fresh = duplicates.filter(fetched, self._cursor)
        before = duplicates.remember(fetched, fresh)
        if fresh.duplicates:
            self._owner.count_duplicates(fresh.duplicates)
        items, cut_at = fresh.first(self._left)
        if self._left is not None:
            self._left -= len(items)
        if cut_at is not None:
            duplicates.past = before.after(items)
        self._cursor = self._cursor.after(fetched.received, cut_at=cut_at, enough=self._left == 0)
        fetched = self._counted(fetched)
        self._refused = None if self._left == 0 else fetched.error
        quiet = not fetched.warnings and self._refused is None
        if begun and not fetched.received and self._source.pages is None and quiet:
            return None
        if (observers := self._owner.observers) is not None:
            read = PageRead(self._source.endpoint, number, len(items), fresh.duplicates, fetched.request_id)
            observers.notify(read)
        last = self._cursor.done and self._refused is None
        return fetched.page(number, items, fresh.rows, position=self.position, last=last, before=before)

    def _counted(self, fetched: FetchedPage[T]) -> FetchedPage[T]:
        """The page; where the list ends before its total, with a warning, in an export with an error."""
        if self._source.pages is not None:
            return fetched
        self._count = self._count.after(fetched)
        if not (self._cursor.done and self._count.missing) or self._left == 0:
            return fetched
        text = self._count.warning(self._source.name)
        if self._exports:
            return evolve(fetched, error=fetched.error or PagingError(text))
        return evolve(fetched, warnings=(*fetched.warnings, ApiMessage(None, text)))


def is_whole_list(page: FetchedPage[T], source: ListSource[T], paging: Paging, owner: SessionHooks) -> bool:
    """Whether page 1 surely is all of a list, as a `ListReader` would find too: most lists of a fan-out are that short.

    False where anything has to be looked up, left out, warned of or raised. Not for lists of a known number of pages.
    """
    size, received = paging.page_size, page.received
    if received >= detect_page_size(size, received) or page.error is not None or (page.total or 0) > received:
        return False
    endpoint = source.endpoint
    owner.lengths.note(endpoint, size, received)
    ends = owner.lengths.ends(endpoint, size, received, careful=isinstance(paging, CarefulPaging))
    return ends and len(set(map(source.key, page.items))) == len(page.items)
