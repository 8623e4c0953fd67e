"""`VerifiedReader`: a list read again, with other page borders, until two readings agree.

Invariant: nothing is given before two readings agree; a list that came in one request is its own snapshot. Replaces
`ListReader` where `Paging.verify` is set. `Pager` and `PagedReader` call `open_reader`, which makes either.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import evolve, frozen

from capillary_async._paging.page import Position
from capillary_async._paging.reader import ListReader
from capillary_async._paging.source import ALONE, PagerOptions
from capillary_async.errors import CapillaryError, PageDriftError, RecordConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from capillary_async._config import Paging
    from capillary_async._paging.page import Page
    from capillary_async._paging.source import FetchedPage, ListSource, PrefetchBudget, SessionHooks

__all__ = ["VerifiedReader", "open_reader"]

T = TypeVar("T")

PASSES = 3
# The page size changes from pass to pass: a row that moves over a page border in one moves over none in another.
STEP, SMALL_STEP = -3, 1
SMALL = 6
_SHOWN = 5
_NOTHING_GIVEN = Position(1)
WHOLE = PagerOptions()


@frozen(eq=False)
class _Pass(Generic[T]):
    """One whole reading: its pages, and their records without regard to order."""

    pages: list[Page[T]]
    content: Counter[T]


class VerifiedReader(Generic[T]):
    """The pages of a list that two readings agree on."""

    def __init__(
        self,
        source: ListSource[T],
        paging: Paging,
        options: PagerOptions,
        owner: SessionHooks,
        budget: PrefetchBudget = ALONE,
    ) -> None:
        self._source = source
        self._paging = paging
        self._options = options
        self._owner = owner
        self._budget = evolve(budget, turn=None)  # all pages are decoded before the first one is given
        self._reader = self._new_reader(None)
        self._pages: Iterator[Page[T]] | None = None
        self._position = _NOTHING_GIVEN

    @property
    def position(self) -> Position:
        """Where reading continues after the last page given."""
        return self._position

    async def next_page(self) -> Page[T] | None:
        """The next page of the agreed reading; None at the end.

        Raises:
            PageDriftError: Three passes read three different lists.
            CapillaryError: A pass failed; `.position` is the list's beginning, since nothing was given.
        """
        if self._pages is None:
            try:
                self._pages = iter(await self._agreed())
            except CapillaryError as error:
                error.position = _NOTHING_GIVEN
                raise
        page = next(self._pages, None)
        self._position = self._position if page is None else page.position or self._position
        return page

    async def _agreed(self) -> list[Page[T]]:
        reader = self._reader = self._new_reader(None)
        first = await self._pass(reader)
        if reader.came_in_one and first is not None:
            return first.pages
        passes = [first]
        for size in self._other_sizes(reader.size):
            self._reader = self._new_reader(size)
            read = await self._pass(self._reader)
            if read is not None and any(known and known.content == read.content for known in passes):
                return read.pages
            passes.append(read)
        raise self._drift([read.content for read in passes if read])

    def _other_sizes(self, size: int) -> list[int]:
        """Page sizes for the passes after the first, never more than a server's cap gives."""
        if size > SMALL:
            return [size + again * STEP for again in range(1, PASSES)]
        if size < (self._options.page_size or self._paging.page_size):
            return [max(size - again, 1) for again in range(1, PASSES)]
        return [size + again * SMALL_STEP for again in range(1, PASSES)]

    def _new_reader(self, size: int | None) -> ListReader[T]:
        options = self._options if size is None else evolve(self._options, page_size=size)
        return ListReader(self._source, self._paging, options, self._owner, fixed=size is not None, budget=self._budget)

    @staticmethod
    async def _pass(reader: ListReader[T]) -> _Pass[T] | None:
        """All pages of one reading; None where a record changed meanwhile."""
        pages: list[Page[T]] = []
        try:
            while (page := await reader.next_page()) is not None:
                pages.append(page)
        except RecordConflictError:
            return None
        return _Pass(pages, Counter(item for page in pages for item in page.items))

    def _drift(self, whole: list[Counter[T]]) -> PageDriftError:
        change = "records changed within a reading"
        if len(whole) > 1:
            change = _difference(whole[-2], whole[-1], self._source.key)
        return PageDriftError(
            f"{self._source.name}: {PASSES} readings gave {PASSES} lists: {change}; nothing was given. "
            "Read again when the list is quiet"
        )

    async def aclose(self) -> None:
        """Cancel the requests ahead, and wait until they have ended."""
        await self._reader.aclose()

    def cancel(self) -> None:
        """Cancel the requests ahead without waiting."""
        self._reader.cancel()


def open_reader(
    source: ListSource[T],
    paging: Paging,
    owner: SessionHooks,
    options: PagerOptions = WHOLE,
    budget: PrefetchBudget = ALONE,
    *,
    first: FetchedPage[T] | None = None,
) -> ListReader[T] | VerifiedReader[T]:
    """A reader for a list: read once, or with `paging.verify` until two readings agree.

    Batches of ids are read once: no record can move from one to another. `first` is page 1, where it was fetched.
    """
    if paging.verify and source.pages is None:
        return VerifiedReader(source, paging, options, owner, budget)
    return ListReader(source, paging, options, owner, budget=budget, first=first)


def _difference(before: Counter[T], after: Counter[T], key: Callable[[T], Hashable | None]) -> str:
    gone = {key(record) for record in before - after}
    come = {key(record) for record in after - before}
    parts = (("gone", gone - come), ("new", come - gone), ("changed", gone & come))
    return ", ".join(f"{len(keys)} {word} ({_some(keys)})" for word, keys in parts if keys)


def _some(keys: set[Any]) -> str:
    shown = ", ".join(sorted(map(repr, keys))[:_SHOWN])
    return shown + (", ..." if len(keys) > _SHOWN else "")
