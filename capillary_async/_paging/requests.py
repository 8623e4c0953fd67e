"""The requests of one reading of a list: `PageRequests` requests the next page and those after it.

Invariant: pages come in the order of their numbers; no page is requested that cannot be needed. Called by `ListReader`,
which decides what a page means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from capillary_async._paging.prefetch import PrefetchQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capillary_async._paging.cursor import Cursor
    from capillary_async._paging.source import FetchedPage, ListSource, PrefetchBudget

__all__ = ["PageRequests", "fetch_page"]

T = TypeVar("T")


class PageRequests(Generic[T]):
    """Requests pages, some of them before they are needed.

    Attributes:
        ahead: Pages requested before they are needed, in order.
        sent: Number of pages requested.
    """

    def __init__(
        self, source: ListSource[T], prefetch: int, budget: PrefetchBudget, first: FetchedPage[T] | None = None
    ) -> None:
        self._source = source
        self._prefetch = prefetch
        self._first = first
        self._budget = budget
        self._width = 1  # pages ahead; doubled by each full page, so that a short list costs few requests
        self.ahead: PrefetchQueue[FetchedPage[T]] = PrefetchQueue()
        self.sent = 0 if first is None else 1

    async def page(self, cursor: Cursor, *, again: bool = False) -> FetchedPage[T]:
        """The page at the cursor, decoded; `again` requests it although it came before."""
        first, self._first = self._first, None
        if first is not None:
            return first
        if len(self.ahead) and not again:
            return await _decoded(await self.ahead.take(), self._budget)
        self.sent += 1
        return await fetch_page(self._source, cursor.number, cursor.size, self._budget)

    def widen(self) -> None:
        """Request twice as many pages ahead from now on: a full page came."""
        self._width = min(self._prefetch, self._width * 2)

    def read_ahead(self, cursor: Cursor, left: int | None) -> None:
        """Request the pages from the cursor on, as many as are allowed and can be needed for `left` records."""
        most = min(self._width, self._prefetch)
        if self._budget.pages_ahead is not None:
            most = min(most, self._budget.pages_ahead())
        while len(self.ahead) < most and cursor.may_need(len(self.ahead), left):
            self.start(cursor.number + len(self.ahead), cursor.size)

    def start(self, number: int, size: int) -> None:
        """Request a page ahead."""
        self.sent += 1
        self.ahead.start(_fetch(self._source.ahead or self._source.fetch, number, size))


async def fetch_page(source: ListSource[T], number: int, size: int, budget: PrefetchBudget) -> FetchedPage[T]:
    """A page, decoded when its turn comes."""
    deferred = None if budget.turn is None else source.ahead
    fetched = await (deferred or source.fetch)(number, size)
    return fetched if fetched.decode is None else await _decoded(fetched, budget)


async def _decoded(fetched: FetchedPage[T], budget: PrefetchBudget) -> FetchedPage[T]:
    if fetched.decode is None:
        return fetched
    if budget.turn is not None:
        await budget.turn()
    return await fetched.decode()


async def _fetch(fetch: Callable[[int, int], Awaitable[FetchedPage[Any]]], number: int, size: int) -> FetchedPage[Any]:
    """A coroutine for a task: it refers to the endpoint and not to the reading, which ends its tasks when dropped."""
    return await fetch(number, size)
