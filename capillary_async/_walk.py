"""One reading of a list: `Walk` keeps the rules of paging, `Verified` reads until two walks agree; and the values they deal in.

The rule kept here: every record of the list is given once, in order, or an error says where reading stood; only the walk ends a list.
Knows no HTTP: an endpoint hands in a `Source`; the pager's iterators and the fan-out walk it.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from attrs import evolve, field, frozen

from capillary_async._readahead import ReadAhead
from capillary_async.errors import (
    ApiMessage,
    CapillaryError,
    InvalidRequestError,
    NotFoundError,
    PageDriftError,
    PageLoopError,
    RecordConflictError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence

    from capillary_async._config import Paging

__all__ = ["Fetched", "Owner", "Page", "Position", "ReadOptions", "Source", "Verified", "Walk"]

T = TypeVar("T")

# Lengths at which servers cap a page. A page 1 shorter than asked and exactly so long is likely capped, not the end.
LIKELY_CAPS = frozenset({10, 20, 25, 50, 100, 200, 250, 500})
CONFLICT_PAGES = 16
PASSES = 3
VERIFY_STEP = 3
_SMALL = 6
_SHOWN = 5


def _counted(owner: Any, attribute: Any, value: Any) -> None:
    least = 0 if attribute.name == "index" else 1
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidRequestError(
            f"Position.{attribute.name} takes a whole number of at least {least}, got {value!r}",
            argument=attribute.name,
        )


def _counted_or_none(owner: Any, attribute: Any, value: Any) -> None:
    if value is not None:
        _counted(owner, attribute, value)


@frozen
class Position:
    """Where reading goes on. A value: store it as three numbers.

    Attributes:
        page: The page, from 1.
        index: Rows of that page, as received, that were given already.
        page_size: The page size that the two are counted in; None for the pager's own.
    """

    page: int = field(validator=_counted)
    index: int = field(default=0, validator=_counted)
    page_size: int | None = field(default=None, validator=_counted_or_none)


@frozen(eq=False)
class Page(Generic[T]):
    """One page of a list, as given out: duplicates dropped, `max_items` kept.

    Attributes:
        items: The records.
        number: Of the page, from 1.
        request_id: The server's id of the request that brought it.
        warnings: Of the answer, and of the SDK where it dropped null entries.
        status: The HTTP status.
        elapsed: Seconds of the attempt that brought it.
        position: Where reading goes on behind this page.
        last: True where this page is known to end the list.
    """

    items: tuple[T, ...]
    number: int
    request_id: str | None = None
    warnings: tuple[ApiMessage, ...] = ()
    status: int = 200
    elapsed: float = 0.0
    position: Position | None = None
    last: bool = False
    # The row, as received, of each item; None where item n is row n.
    _rows: tuple[int, ...] | None = field(default=None, repr=False)

    def position_behind(self, count: int) -> Position:
        """Where reading goes on when only the first `count` items were used."""
        behind = self.position or Position(self.number + 1)
        if count >= len(self.items):
            return behind
        return Position(self.number, self._rows[count] if self._rows else count, behind.page_size)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def __repr__(self) -> str:
        return f"<Page {self.number}: {len(self.items)} items, request_id={self.request_id!r}>"


@frozen(eq=False)
class Fetched(Generic[T]):
    """One page as the endpoint got it.

    Attributes:
        items: The records, without null entries.
        received: Rows as received, null entries included.
        nulls: The indexes of the null entries among them.
        error: Raised behind the items: a part of the page that was refused.
    """

    items: Sequence[T]
    received: int
    request_id: str | None = None
    warnings: tuple[ApiMessage, ...] = ()
    status: int = 200
    elapsed: float = 0.0
    nulls: tuple[int, ...] = ()
    error: CapillaryError | None = None


class Owner(Protocol):
    """What a pager needs of its session."""

    def track(self, iterator: Any) -> None:
        """Remember a live iterator weakly, to close it with the session."""

    def count_duplicates(self, number: int) -> None:
        """Count records that came twice."""


@frozen(eq=False)
class Source(Generic[T]):
    """How one list is read.

    Attributes:
        name: For messages and reprs, e.g. `points_allocation.by_expiry(entity_id=1)`.
        fetch: Page number and size to a page.
        key: The identity of a record; None where a part of it is null.
        pages: How many pages there are, where that is known beforehand: a walk over ids. The rules of lists do not apply to it then.
        largest: The largest page size the endpoint takes.
    """

    name: str
    fetch: Callable[[int, int], Awaitable[Fetched[T]]]
    key: Callable[[T], Hashable | None]
    pages: int | None = None
    largest: int | None = None

    def check_size(self, size: int) -> None:
        """Refuse a page size that the endpoint does not take."""
        right = isinstance(size, int) and not isinstance(size, bool) and size >= 1
        if self.pages is None and (not right or (self.largest is not None and size > self.largest)):
            span = f"from 1 to {self.largest}" if self.largest else "of at least 1"
            raise InvalidRequestError(f"page_size takes a whole number {span} here, got {size!r}", argument="page_size")


@frozen
class ReadOptions:
    """What `Pager.options` sets; None where it was not said."""

    page_size: int | None = None
    max_items: int | None = None
    start: Position | None = None


class Walk(Generic[T]):
    """One reading of a list, page after page. After an error it may be asked again, and goes on where it stood."""

    def __init__(
        self, source: Source[T], paging: Paging, options: ReadOptions, owner: Owner, *, fixed: bool = False
    ) -> None:
        start = options.start
        self._source = source
        self._owner = owner
        self._prefetch = paging.prefetch
        self._left = options.max_items
        self._number = start.page if start else 1
        self._skip = start.index if start else 0
        self.size = (start.page_size if start else None) or options.page_size or paging.page_size
        # A position that names its size was settled by the walk that made it.
        self._settled = fixed or bool(start and start.page_size)
        self._started_late = bool(start and start.page > 1)
        self._full_before = self._started_late and self._skip == 0
        self._width = 1
        self._done = options.max_items == 0 or (source.pages is not None and self._number > source.pages)
        self._ahead: ReadAhead[Fetched[T]] = ReadAhead()
        self._refused: CapillaryError | None = None
        self._seen: set[Any] = set()
        self._recent: deque[Sequence[T]] = deque(maxlen=CONFLICT_PAGES)
        self._digests: set[int] = set()
        self.requested = 0

    @property
    def position(self) -> Position:
        """Where reading goes on: behind the last page given. An unsettled size is left to the next walk to settle."""
        sized = self._source.pages is None and (self._settled or self._number > 1)
        return Position(self._number, self._skip, self.size if sized else None)

    @property
    def done(self) -> bool:
        """Whether the end was seen."""
        return self._done and self._refused is None

    async def next_page(self) -> Page[T] | None:
        """The next page; None at the end.

        Raises:
            CapillaryError: With `.position`; what was read ahead is dropped, and the walk may be asked again.
        """
        if self._refused is not None:
            error, self._refused = self._refused, None
            error.position = self.position
            raise error
        if self._done:
            return None
        try:
            fetched = await self._take()
            if fetched is None:
                return None
            page = self._accept(fetched)
        except CapillaryError as error:
            await self._ahead.aclose()
            error.position = self.position
            raise
        except BaseException:
            await self._ahead.aclose()
            raise
        if self._done:
            # Beyond the end there is nothing; what was asked for there is dropped, whatever it answers.
            await self._ahead.aclose()
        else:
            self._fill()
        return page

    async def _take(self) -> Fetched[T] | None:
        try:
            if len(self._ahead):
                return await self._ahead.take()
            self.requested += 1
            return await self._source.fetch(self._number, self.size)
        except NotFoundError as error:
            if error.html or not self._full_before or self._source.pages is not None:
                raise
        self._done = True
        await self._ahead.aclose()
        return None

    def _fill(self) -> None:
        """Read ahead: twice as far after each full page, never further than can be needed."""
        self._width = min(self._prefetch, self._width * 2)
        fetch, size = self._source.fetch, self.size
        while len(self._ahead) < self._width and self._needed(len(self._ahead)):
            number = self._number + len(self._ahead)
            self.requested += 1
            self._ahead.start(lambda number=number: _started(fetch, number, size))

    def _needed(self, under_way: int) -> bool:
        pages = self._source.pages
        if pages is not None:
            return self._number + under_way <= pages
        return self._left is None or under_way * self.size < self._left

    def _accept(self, fetched: Fetched[T]) -> Page[T] | None:
        number = self._number
        self._settle(fetched.received)
        fresh = self._fresh(fetched)
        kept = self._within(fetched, fresh)
        rows = None if kept is fetched.items and not fetched.nulls else _rows_of(fetched, kept)
        self._advance(fetched, cut=kept is not fresh)
        self._refused = None if self._left == 0 else fetched.error
        first = number == 1 or self._started_late
        if self._source.pages is None and not fetched.received and not first:
            return None
        self._started_late = False
        return Page(
            tuple(kept), number, fetched.request_id, fetched.warnings, fetched.status, fetched.elapsed, self.position,
            self._done, rows,
        )  # fmt: skip

    def _settle(self, received: int) -> None:
        if self._source.pages is None and not self._settled:
            self._settled = True
            if received < self.size and received in LIKELY_CAPS:
                self.size = received

    def _advance(self, fetched: Fetched[T], *, cut: bool) -> None:
        """Step behind the page, and know whether it was the last."""
        if not cut:
            self._number += 1
            self._skip = 0
        if self._source.pages is not None:
            self._done = cut or self._number > self._source.pages or self._left == 0
            return
        # Rows as received: a page of duplicates is no short page.
        self._full_before = fetched.received >= self.size
        self._done = cut or not self._full_before or not fetched.received or self._left == 0

    def _within(self, fetched: Fetched[T], fresh: Sequence[T]) -> Sequence[T]:
        """As many as `max_items` leaves; where that cuts the page, the position stands within it."""
        if self._left is None:
            return fresh
        if len(fresh) <= self._left:
            self._left -= len(fresh)
            return fresh
        kept = fresh[: self._left]
        self._left = 0
        self._skip = self._row_behind(fetched, kept[-1])
        return kept

    @staticmethod
    def _row_behind(fetched: Fetched[T], record: T) -> int:
        rows = _rows(fetched)
        return next(index for index, row in rows if row is record) + 1

    def _fresh(self, fetched: Fetched[T]) -> Sequence[T]:
        """The records not given before by this walk."""
        items = fetched.items
        keys = [self._source.key(item) for item in items]
        new = set(keys)
        plain = len(new) == len(keys) and None not in new and not self._skip
        if plain and new.isdisjoint(self._seen):
            fresh: Sequence[T] = items
            self._seen |= new
        else:
            fresh = self._sift(fetched, keys)
        self._guard(items, keys)
        self._recent.append(items)
        return fresh

    def _sift(self, fetched: Fetched[T], keys: list[Hashable | None]) -> list[T]:
        fresh: list[T] = []
        duplicates = 0
        for (row, item), key in zip(_rows(fetched), keys, strict=True):
            if key is not None and key in self._seen:
                self._refuse_conflict(fetched.items, keys, item, key)
                duplicates += 1
                continue
            if key is not None:
                self._seen.add(key)
            if row >= self._skip:
                fresh.append(item)
        self._owner.count_duplicates(duplicates)
        return fresh

    def _refuse_conflict(self, items: Sequence[T], keys: list[Hashable | None], item: T, key: Hashable) -> None:
        here = (known for known, its in zip(items, keys, strict=True) if its == key)
        before = (known for page in self._recent for known in page if self._source.key(known) == key)
        if any(known != item for known in (*here, *before)):
            raise RecordConflictError(
                f"{self._source.name}: record {key!r} came twice with other content by page {self._number}: "
                "it changed while the list was being read; read the list again"
            )

    def _guard(self, items: Sequence[T], keys: list[Hashable | None]) -> None:
        """Refuse a page given before: the server would go on so for ever. Digests are kept, not pages."""
        if self._source.pages is not None or not items:
            return
        digest = hash((tuple(keys), tuple(items))) if None in keys else hash(tuple(keys))
        if digest in self._digests:
            raise PageLoopError(
                f"{self._source.name}: page {self._number} is equal to an earlier one: the server does not seem to heed "
                "the page parameters, or the list moved by a whole page; nothing of this page was given"
            )
        self._digests.add(digest)

    async def aclose(self) -> None:
        """Drop what was read ahead."""
        await self._ahead.aclose()

    def cancel(self) -> None:
        """The same where nothing can be awaited."""
        self._ahead.cancel()


async def _started(fetch: Callable[[int, int], Awaitable[Fetched[T]]], number: int, size: int) -> Fetched[T]:
    """A coroutine of its own for a task, that holds the endpoint and nothing of the walk."""
    return await fetch(number, size)


def _rows(fetched: Fetched[T]) -> list[tuple[int, T]]:
    """Each record with its index among the rows as received."""
    nulls = set(fetched.nulls)
    indexes = (index for index in range(fetched.received) if index not in nulls)
    return list(zip(indexes, fetched.items, strict=False))


def _rows_of(fetched: Fetched[T], kept: Sequence[T]) -> tuple[int, ...]:
    """The index, as received, of each record kept."""
    chosen = {id(record) for record in kept}
    return tuple(index for index, record in _rows(fetched) if id(record) in chosen)


class Verified(Generic[T]):
    """The pages of a list that two readings agree on."""

    def __init__(self, source: Source[T], paging: Paging, options: ReadOptions, owner: Owner) -> None:
        self._source = source
        self._paging = paging
        self._options = options
        self._owner = owner
        self._pages: Iterator[Page[T]] | None = None
        self._walk = self._fresh_walk(None)
        self._behind: Position | None = None

    @property
    def position(self) -> Position:
        return self._behind or Position(1, 0, None)

    @property
    def done(self) -> bool:
        return False

    async def next_page(self) -> Page[T] | None:
        if self._pages is None:
            self._pages = iter(await self._agreed())
        page = next(self._pages, None)
        if page is not None:
            self._behind = page.position
        return page

    async def _agreed(self) -> list[Page[T]]:
        """Read until two passes agree.

        Raises:
            PageDriftError: Three passes saw three lists.
        """
        walk = self._walk = self._fresh_walk(None)
        first = await self._pass(walk)
        if walk.requested == 1 and first is not None:
            return first  # one request is its own snapshot
        step = -VERIFY_STEP if walk.size > _SMALL else 1
        passes = [first]
        for again in range(1, PASSES):
            self._walk = self._fresh_walk(walk.size + again * step)
            pages = await self._pass(self._walk)
            if pages is not None and any(_same(pages, known) for known in passes):
                return pages
            passes.append(pages)
        raise self._drift(passes)

    def _fresh_walk(self, size: int | None) -> Walk[T]:
        options = self._options if size is None else evolve(self._options, page_size=size)
        return Walk(self._source, self._paging, options, self._owner, fixed=size is not None)

    @staticmethod
    async def _pass(walk: Walk[T]) -> list[Page[T]] | None:
        """All pages of one reading; None where records changed under it."""
        pages: list[Page[T]] = []
        try:
            while (page := await walk.next_page()) is not None:
                pages.append(page)
        except RecordConflictError:
            return None
        except CapillaryError as error:
            error.position = Position(1, 0, None)  # nothing was given
            raise
        return pages

    def _drift(self, passes: list[list[Page[T]] | None]) -> PageDriftError:
        whole = [_content(pages) for pages in passes if pages is not None]
        told = (
            _difference(whole[-2], whole[-1], self._source.key)
            if len(whole) > 1
            else "records changed within a reading"
        )
        error = PageDriftError(
            f"{self._source.name}: {PASSES} readings gave {PASSES} lists: {told}; nothing was given. Read again when the list is quiet"
        )
        error.position = Position(1, 0, None)
        return error

    async def aclose(self) -> None:
        await self._walk.aclose()

    def cancel(self) -> None:
        self._walk.cancel()


def _content(pages: list[Page[T]]) -> Counter[T]:
    return Counter(item for page in pages for item in page.items)


def _same(pages: list[Page[T]], known: list[Page[T]] | None) -> bool:
    return known is not None and _content(pages) == _content(known)


def _difference(before: Counter[T], after: Counter[T], key: Callable[[T], Hashable | None]) -> str:
    gone = {key(record) for record in before - after}
    come = {key(record) for record in after - before}
    parts = (("gone", gone - come), ("new", come - gone), ("changed", gone & come))
    return ", ".join(f"{len(keys)} {word} ({_some(keys)})" for word, keys in parts if keys)


def _some(keys: set[Any]) -> str:
    shown = ", ".join(sorted(map(repr, keys))[:_SHOWN])
    return shown + (", ..." if len(keys) > _SHOWN else "")
