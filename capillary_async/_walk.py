"""One reading of a list: `Walk` asks for page after page and keeps the rules of paging.

The rule kept here: every record of the list is given once, in order, or an error says where reading stood; only the
walk ends a list. Knows no HTTP: an endpoint hands in a `Source`; the pager's iterators and the fan-out walk it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from capillary_async._page import ALONE, Position
from capillary_async._readahead import ReadAhead
from capillary_async.errors import (
    CapillaryError,
    CustomerNotFoundError,
    NotFoundError,
    PageLoopError,
    RecordConflictError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence

    from capillary_async._config import Paging
    from capillary_async._page import Fetched, Owner, Pace, Page, ReadOptions, Source

__all__ = ["LIKELY_CAPS", "Walk", "settled_size"]

T = TypeVar("T")

# Lengths at which servers cap a page. A page 1 shorter than asked and exactly so long is likely capped, not the end.
LIKELY_CAPS = frozenset({10, 20, 25, 50, 100, 200, 250, 500})
# How many pages back the same record must not have other content; further back only its key is remembered.
CONFLICT_PAGES = 16


class Walk(Generic[T]):
    """One reading of a list, page after page. After an error it may be asked again, and goes on where it stood."""

    def __init__(
        self,
        source: Source[T],
        paging: Paging,
        options: ReadOptions,
        owner: Owner,
        *,
        fixed: bool = False,
        pace: Pace = ALONE,
    ) -> None:
        start = options.start or Position(1)
        self._source = source
        self._owner = owner
        self._prefetch = paging.prefetch
        self._pace = pace
        self._left = options.max_items
        self._number = start.page
        self._skip = start.index
        self.size = start.page_size or options.page_size or paging.page_size
        # A position that names its size was settled by the walk that made it.
        self._settled = fixed or start.page_size is not None
        self._from_first = start.page == 1
        self._full = self.size  # rows of a page that another may follow
        # A position behind page 1 was made where the page before had been full.
        self._full_before = start.page > 1 and not start.index
        self._begun = False
        self._width = 1
        self._done = self._left == 0 or (source.pages is not None and self._number > source.pages)
        self._ahead: ReadAhead[Fetched[T]] = ReadAhead()
        self._refused: CapillaryError | None = None
        self._seen: set[Hashable | None] = set()
        # Not the records: a megabyte of them, used once and kept for 16 pages, makes every page slower.
        self._recent: deque[Callable[[], Sequence[T]]] = deque(maxlen=CONFLICT_PAGES)
        self._digests: set[int] = set()
        self.requested = 0

    @property
    def position(self) -> Position:
        """Where reading goes on: behind the last page given. An unsettled size is left to the next walk to settle."""
        sized = self._source.pages is None and self._settled
        return Position(self._number, self._skip, self.size if sized else None)

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
            fetched = None if self._done else await self._take()
            page = None if fetched is None else self._accept(fetched)
        except CapillaryError as error:
            error.position = self.position
            raise
        finally:
            if page is None:
                await self._ahead.aclose()
        self._look_ahead()
        return page

    async def _take(self) -> Fetched[T] | None:
        try:
            fetched = await self._next()
            if fetched.later is None:
                return fetched
            if self._pace.turn is not None:
                await self._pace.turn()
            return await fetched.later()
        except NotFoundError as error:
            if not self._ends(error):
                raise
        self._done = True
        return None

    def _next(self) -> Awaitable[Fetched[T]]:
        if len(self._ahead):
            return self._ahead.take()
        self.requested += 1
        late = None if self._pace.turn is None else self._source.ahead
        return (late or self._source.fetch)(self._number, self.size)

    def _ends(self, error: NotFoundError) -> bool:
        """Whether there just is no such page; not where the customer is unknown, or something before the API spoke."""
        plain = not error.html and not isinstance(error, CustomerNotFoundError)
        return plain and self._full_before and self._source.pages is None

    def _look_ahead(self) -> None:
        """Ask for the pages to come, never further than can be needed."""
        if self._done or self._refused is not None:
            # Nothing is awaited here, or a cancellation could lose the page in hand; the next call waits for the end.
            self._ahead.cancel()
            return
        most = min(self._width, self._prefetch)
        if self._pace.spare is not None:
            most = min(most, self._pace.spare())
        while len(self._ahead) < most and self._needed(len(self._ahead)):
            self.requested += 1
            self._ahead.start(
                _fetch(self._source.ahead or self._source.fetch, self._number + len(self._ahead), self.size)
            )

    def _needed(self, under_way: int) -> bool:
        pages = self._source.pages
        if pages is not None:
            return self._number + under_way <= pages
        return self._left is None or under_way * self.size < self._left

    def _accept(self, fetched: Fetched[T]) -> Page[T] | None:
        """Take a page in; None for the empty one that ends a list."""
        number, begun = self._number, self._begun
        self._settle(fetched.received)
        rows, fresh = self._fresh(fetched)
        items = self._within(rows, fresh)
        self._step(fetched.received, cut=len(items) < len(fresh))
        self._refused = None if self._left == 0 else fetched.error
        if begun and not fetched.received and self._source.pages is None:
            return None
        last = self._done and self._refused is None
        return fetched.page(number, items, rows, position=self.position, last=last)

    def _within(self, rows: Sequence[int], fresh: Sequence[T]) -> Sequence[T]:
        """As many as `max_items` leaves; where that cuts the page, the position stays within it."""
        if self._left is None:
            return fresh
        items = fresh[: self._left]
        if len(items) < len(fresh):
            self._skip = rows[len(items)]
        self._left -= len(items)
        return items

    def _settle(self, received: int) -> None:
        """Know the size that the server really gives, and widen the window while it gives as much as was asked."""
        if self._source.pages is not None or received >= self.size:
            self._width = min(self._prefetch, self._width * 2)
            self._settled, self._full = True, self.size
        elif not self._settled:
            self._full = settled_size(self.size, received)
            if self._from_first and received:
                # An empty list shows no cap: who goes on here later settles it.
                self._settled, self.size = True, self._full
            # Further back a short page may as well be the last one: the size asked stays, and only the end is put off.

    def _step(self, received: int, *, cut: bool) -> None:
        """Step behind the page, and know whether it was the last. Rows count as received, with duplicates and nulls."""
        pages = self._source.pages
        # The empty page behind a list is where later rows would stand: it is not stepped over.
        if not cut and (received or pages is not None):
            self._number += 1
            self._skip = 0
        self._begun = True
        self._full_before = received >= self._full
        ended = self._number > pages if pages is not None else not self._full_before
        self._done = ended or cut or self._left == 0

    def _fresh(self, fetched: Fetched[T]) -> tuple[Sequence[int], Sequence[T]]:
        """The records not given before by this walk, with their rows. A page that is refused changes nothing."""
        rows, items, duplicates = fetched.rows, fetched.items, 0
        keys = list(map(self._source.key, items))
        page = set(keys)
        named = None not in page
        plain = not self._skip and named and len(page) == len(keys)
        if not plain or not self._seen.isdisjoint(page):
            fresh, duplicates = self._sift(rows, keys, items)
            rows, items = [row for row, _ in fresh], [item for _, item in fresh]
            page.discard(None)
        self._refuse_loop(fetched, tuple(keys), () if named else tuple(fetched.items))
        self._seen |= page
        self._recent.append(fetched.items_again())
        if duplicates:
            self._owner.count_duplicates(duplicates)
        return rows, items

    def _sift(
        self, rows: Sequence[int], keys: list[Hashable | None], items: Sequence[T]
    ) -> tuple[list[tuple[int, T]], int]:
        """Row by row: the records to give with their rows, and the number of duplicates."""
        page: dict[Hashable, T] = {}
        before = self._before() if not self._seen.isdisjoint(keys) else ()
        fresh: list[tuple[int, T]] = []
        duplicates = 0
        for row, key, item in zip(rows, keys, items, strict=True):
            known = key is not None and (key in page or key in self._seen)
            if known:
                self._refuse_conflict((page, *before), key, item)
            if key is not None:
                page.setdefault(key, item)
            if row < self._skip:  # given before, and counted then
                continue
            duplicates += known
            if not known:
                fresh.append((row, item))
        return fresh, duplicates

    def _before(self) -> tuple[dict[Hashable | None, T], ...]:
        """The records of the last pages by key."""
        key = self._source.key
        return tuple({key(item): item for item in again()} for again in self._recent)

    def _refuse_conflict(self, pages: Iterable[dict[Any, T]], key: Hashable | None, item: T) -> None:
        if any(known[key] != item for known in pages if key in known):
            raise RecordConflictError(
                f"{self._source.name}: record {key!r} came twice with other content by page {self._number}: "
                "it changed while the list was being read; read the list again"
            )

    def _refuse_loop(self, fetched: Fetched[T], keys: tuple[Hashable | None, ...], content: tuple[T, ...]) -> None:
        """Refuse a page given before: the server would go on so for ever. Digests are kept, not pages."""
        if self._source.pages is not None or not fetched.received:
            return
        digest = hash((keys, content, fetched.nulls, fetched.received))
        if digest in self._digests:
            raise PageLoopError(
                f"{self._source.name}: page {self._number} is equal to an earlier one: the server does not seem to "
                "heed the page parameters, or the list moved by a whole page; nothing of this page was given"
            )
        self._digests.add(digest)

    async def aclose(self) -> None:
        """Drop what was read ahead, and wait until it is gone."""
        await self._ahead.aclose()

    def cancel(self) -> None:
        """The same where nothing can be awaited."""
        self._ahead.cancel()


def settled_size(asked: int, received: int) -> int:
    """The page size after page 1: what was asked, or the server's cap where page 1 looks like one."""
    return received if received < asked and received in LIKELY_CAPS else asked


async def _fetch(fetch: Callable[[int, int], Awaitable[Fetched[Any]]], number: int, size: int) -> Fetched[Any]:
    """A coroutine for a task, that holds the endpoint and nothing of the walk."""
    return await fetch(number, size)
