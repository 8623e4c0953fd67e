"""`VerifiedReader`: a list read again, with other page borders, until two readings agree.

Invariant: nothing is given before two readings agree; a list that came in one request is its own snapshot. Stands in
for a `ListReader` where `Paging.verify` is set; made by the pager and the fan-out, through `open_reader`.
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
    from capillary_async._paging.source import ListSource, PrefetchBudget, SessionHooks

__all__ = ["VerifiedReader", "open_reader"]

T = TypeVar("T")

PASSES = 3
# The page size changes from pass to pass: a row that slips over a page border in one slips over none in another.
STEP, SMALL_STEP = -3, 1
SMALL = 6
_SHOWN = 5
_NOTHING_GIVEN = Position(1)
WHOLE = PagerOptions()


@frozen(eq=False)
class _Pass(Generic[T]):
    """One whole reading: its pages, and what they hold without regard to order."""

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
        pace: PrefetchBudget = ALONE,
    ) -> None:
        self._source = source
        self._paging = paging
        self._options = options
        self._owner = owner
        self._pace = evolve(pace, turn=None)  # nothing is given before the end, so nothing has a turn
        self._walk = self._new_walk(None)
        self._pages: Iterator[Page[T]] | None = None
        self._behind = _NOTHING_GIVEN

    @property
    def position(self) -> Position:
        """Where reading goes on behind the last page given."""
        return self._behind

    async def next_page(self) -> Page[T] | None:
        """The next page of the agreed reading; None at the end.

        Raises:
            PageDriftError: Three passes saw three lists.
            CapillaryError: A pass failed; `.position` is the list's beginning, since nothing was given.
        """
        if self._pages is None:
            try:
                self._pages = iter(await self._agreed())
            except CapillaryError as error:
                error.position = _NOTHING_GIVEN
                raise
        page = next(self._pages, None)
        self._behind = self._behind if page is None else page.position or self._behind
        return page

    async def _agreed(self) -> list[Page[T]]:
        walk = self._walk = self._new_walk(None)
        first = await self._pass(walk)
        if walk.requested - walk.looks == 1 and first is not None:
            return first.pages
        passes = [first]
        for size in self._other_sizes(walk.size):
            self._walk = self._new_walk(size)
            read = await self._pass(self._walk)
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

    def _new_walk(self, size: int | None) -> ListReader[T]:
        options = self._options if size is None else evolve(self._options, page_size=size)
        return ListReader(self._source, self._paging, options, self._owner, fixed=size is not None, pace=self._pace)

    @staticmethod
    async def _pass(walk: ListReader[T]) -> _Pass[T] | None:
        """All pages of one reading; None where a record changed under it."""
        pages: list[Page[T]] = []
        try:
            while (page := await walk.next_page()) is not None:
                pages.append(page)
        except RecordConflictError:
            return None
        return _Pass(pages, Counter(item for page in pages for item in page.items))

    def _drift(self, whole: list[Counter[T]]) -> PageDriftError:
        told = "records changed within a reading"
        if len(whole) > 1:
            told = _difference(whole[-2], whole[-1], self._source.key)
        return PageDriftError(
            f"{self._source.name}: {PASSES} readings gave {PASSES} lists: {told}; nothing was given. "
            "Read again when the list is quiet"
        )

    async def aclose(self) -> None:
        """Drop what was read ahead, and wait until it is gone."""
        await self._walk.aclose()

    def cancel(self) -> None:
        """The same where nothing can be awaited."""
        self._walk.cancel()


def open_reader(
    source: ListSource[T],
    paging: Paging,
    owner: SessionHooks,
    options: PagerOptions = WHOLE,
    pace: PrefetchBudget = ALONE,
) -> ListReader[T] | VerifiedReader[T]:
    """A reading of a list as `paging` wants it: once, or until two agree.

    A walk over ids has no borders between its pages that records could slip over, so it is read once.
    """
    if paging.verify and source.pages is None:
        return VerifiedReader(source, paging, options, owner, pace)
    return ListReader(source, paging, options, owner, pace=pace)


def _difference(before: Counter[T], after: Counter[T], key: Callable[[T], Hashable | None]) -> str:
    gone = {key(record) for record in before - after}
    come = {key(record) for record in after - before}
    parts = (("gone", gone - come), ("new", come - gone), ("changed", gone & come))
    return ", ".join(f"{len(keys)} {word} ({_some(keys)})" for word, keys in parts if keys)


def _some(keys: set[Any]) -> str:
    shown = ", ".join(sorted(map(repr, keys))[:_SHOWN])
    return shown + (", ..." if len(keys) > _SHOWN else "")
