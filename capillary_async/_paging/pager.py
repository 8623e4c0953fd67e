"""Lists that page by themselves: `Pager`, a recipe for reading one.

Invariant: a pager has no position, so that looping twice reads twice; invalid arguments raise before the first
request. Knows no HTTP. Endpoints make it; called by users.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

from attrs import evolve

from capillary_async._config import Paging
from capillary_async._html import card
from capillary_async._paging.cursor import after_single_page
from capillary_async._paging.iterators import ItemIterator, PageIterator
from capillary_async._paging.misuse import AsyncOnly
from capillary_async._paging.page import Page, Position
from capillary_async._paging.reader import ListReader
from capillary_async._paging.source import FetchedPage, ListSource, PagerOptions, SessionHooks
from capillary_async._paging.verified import VerifiedReader, open_reader
from capillary_async._progress import Bar, asked_bar
from capillary_async._repr import cut
from capillary_async._validation import refuse, whole
from capillary_async.errors import InvalidRequestError
from capillary_async.tables._doors import Part, Parts, TableSource, Tabular

__all__ = ["FetchedPage", "ItemIterator", "ListSource", "Page", "PageIterator", "Pager", "Position", "SessionHooks"]

T_co = TypeVar("T_co", covariant=True)


class Pager(Tabular, AsyncOnly, Generic[T_co]):
    """A list of the API: a recipe, not a cursor. Looping twice reads twice.

    `async for record in pager` gives every record, page after page; a record that comes twice is given once. The
    server's paging does not promise a whole list while its data change; `verify` checks that by a second reading.

    Raises (while looping):
        CapillaryError: With `.position`, where `.options(start=...)` continues.
        RuntimeError: The session is closed.
    """

    __slots__ = ("__weakref__", "_options", "_owner", "_paging", "_source")

    def __init__(
        self, source: ListSource[T_co], paging: Paging, owner: SessionHooks, options: PagerOptions | None = None
    ) -> None:
        self._source = source
        self._paging = paging
        self._owner = owner
        self._options = options or PagerOptions()
        self._check()

    def _check(self) -> None:
        options, start = self._options, self._options.start
        self._source.check_size(options.page_size or self._paging.page_size)
        if start is not None and start.page_size is not None:
            self._source.check_size(start.page_size)
            if options.page_size not in (None, start.page_size):
                raise InvalidRequestError(
                    f"start continues with its own page_size {start.page_size}; "
                    f"do not give page_size={options.page_size} with it",
                    argument="page_size",
                )
        if self._verifies and (start is not None or options.max_items is not None):
            raise InvalidRequestError(
                "verify compares whole lists: do not give start or max_items with it", argument="verify"
            )

    @property
    def _verifies(self) -> bool:
        """Whether the list is read until two readings agree; batches of ids are read once."""
        return self._paging.verify and self._source.pages is None

    def options(
        self,
        *,
        page_size: int | None = None,
        prefetch: int | None = None,
        max_items: int | None = None,
        start: Position | None = None,
        progress: bool | None = None,
    ) -> Pager[T_co]:
        """A copy with other options; an option that is not given stays as it is.

        Args:
            page_size: Records per page.
            prefetch: Maximum pages requested ahead; 0 to request each page only when it is needed.
            max_items: Maximum records; no page is requested that cannot be needed for them.
            start: Where reading starts: the `.position` of a page or of an error.
            progress: True to count records on a tqdm bar, in terminals and notebooks. Needs the extra `notebook`.

        Raises:
            ModuleNotFoundError: tqdm is not installed; the message names the pip command.
            InvalidRequestError: A value is invalid, `page_size` differs from that of `start`, or `start` or
                `max_items` is given with verify.
        """
        paging = self._paging
        if prefetch is not None:
            paging = evolve(paging, prefetch=whole("prefetch", prefetch, 0))
        if max_items is not None:
            whole("max_items", max_items, 0)
        if page_size is not None:
            self._source.check_size(page_size)
        if start is not None and not isinstance(cast("object", start), Position):
            raise refuse("start", "a Position, e.g. error.position", start)
        given = {"page_size": page_size, "max_items": max_items, "start": start, "progress": asked_bar(progress)}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return Pager(self._source, paging, self._owner, evolve(self._options, **changed))

    def _reader(self) -> ListReader[T_co] | VerifiedReader[T_co]:
        return open_reader(self._source, self._paging, self._owner, self._options)

    def __aiter__(self) -> ItemIterator[T_co]:
        """Every record, page after page."""
        iterator = ItemIterator(self._reader(), self._bar())
        self._owner.track(iterator)
        return iterator

    def pages(self) -> PageIterator[T_co]:
        """Whole pages. An empty list yields one empty page.

        Another page is empty only if all its rows were duplicates or nulls, or if it ended the list and has warnings.
        """
        iterator = PageIterator(self._reader(), self._bar())
        self._owner.track(iterator)
        return iterator

    def _bar(self) -> Bar | None:
        return Bar(cut(self._source.name, 100), "records") if self._options.progress else None

    async def page(self, number: int) -> Page[T_co]:
        """One page by its number from 1, alone: no other page is read, so duplicates stay.

        Raises:
            InvalidRequestError: The number is invalid.
            NotFoundError: The page is after the last one; most servers give an empty page instead.
            LedgerRequestError: An id was refused; `.position` is this page's, since nothing of it was given.
        """
        pages, start = self._source.pages, self._options.start
        whole("number", number, 1, pages)
        detected = start.page_size if start else None
        size = detected or self._options.page_size or self._paging.page_size
        fetched = await self._source.fetch(number, size)
        if fetched.error is not None:
            fetched.error.position = Position(number)
            raise fetched.error
        if pages is not None:
            position, last = Position(number + 1), number == pages
        else:
            position, last = after_single_page(number, fetched.received, size, detected)
        return fetched.page(number, fetched.items, fetched.rows, position=position, last=last)

    async def first(self) -> T_co | None:
        """The first record, or None for an empty list."""
        pager = self if self._verifies or self._options.max_items == 0 else self.options(max_items=1)
        iterator = aiter(pager)
        try:
            return await anext(iterator, None)
        finally:
            await iterator.aclose()

    async def collect(self, *, verify: bool | None = None) -> list[T_co]:
        """All records as a list.

        Args:
            verify: Read a list of several pages at least twice and compare; None for the session's `Paging.verify`.

        Raises:
            PageDriftError: With verify, three readings gave three lists.
        """
        pager = self
        if verify is not None and verify != self._paging.verify:
            pager = Pager(self._source, evolve(self._paging, verify=verify), self._owner, self._options)
        records: list[T_co] = []
        pages = pager.pages()
        try:
            async for page in pages:
                records.extend(page.items)
        finally:
            await pages.aclose()
        return records

    def _table_source(self) -> TableSource:
        return TableSource(self._source.name, self._source.model)

    def _parts(self, *, ordered: bool, failures: Any) -> Parts:  # noqa: ARG002 - of one list
        raw = Pager(self._source.raw_rows(), self._paging, self._owner, self._options)
        return _PageParts(raw.pages())

    def _repr_html_(self) -> str:
        facts = {"list": self._source.name, **dict(_given(self._options)), "read": "by a loop, collect(), to_arrow()"}
        return card("Pager", facts)

    def __repr__(self) -> str:
        given = (f" {name}={value!r}" for name, value in _given(self._options))
        return f"<Pager {cut(''.join((self._source.name, *given)))}>"


class _PageParts:
    """The pages of a list as the parts of a table."""

    def __init__(self, pages: PageIterator[Any]) -> None:
        self._pages = pages

    async def __anext__(self) -> Part:
        page = await anext(self._pages)
        return Part(None, page.items, page.last, page.number)

    async def aclose(self) -> None:
        await self._pages.aclose()


def _given(options: PagerOptions) -> list[tuple[str, Any]]:
    named = (("page_size", options.page_size), ("max_items", options.max_items), ("start", options.start))
    return [(name, value) for name, value in named if value is not None]
