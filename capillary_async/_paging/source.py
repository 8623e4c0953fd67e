"""What endpoints and sessions pass to paging: `ListSource`, `FetchedPage`, `SessionHooks` and the options.

Invariant: data and callables only, which nothing changes; nothing here sends a request by itself. Endpoints make
`ListSource` and `FetchedPage`; `Pager`, `ListReader`, `VerifiedReader` and the fan-out read them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field, frozen

from capillary_async._paging.lengths import Lengths
from capillary_async._paging.page import Page, Position
from capillary_async._paging.seen import Past
from capillary_async._repr import brief_repr
from capillary_async._validation import whole
from capillary_async.errors import ApiMessage, CapillaryError, NotFoundError
from capillary_async.telemetry._observers import Observers

__all__ = ["ALONE", "FetchedPage", "ListSource", "PagerOptions", "PrefetchBudget", "SessionHooks"]

T = TypeVar("T")


@define(eq=False)
class FetchedPage(Generic[T]):
    """One page as the endpoint received it.

    Attributes:
        items: The records, without null entries.
        received: Rows as received, null entries included.
        nulls: The indexes of the null entries among them.
        error: Raised after the items were given: a part of the page that was refused.
        redecode: Decodes the items again, so that they need not be kept; None where they must be kept.
        total: Rows of the whole list, where the answer reports it.
        decode: Decodes a deferred page, whose items are empty until then; None where the page is decoded.
    """

    items: Sequence[T]
    received: int
    request_id: str | None = None
    warnings: tuple[ApiMessage, ...] = ()
    status: int = 200
    elapsed: float = 0.0
    nulls: tuple[int, ...] = ()
    error: CapillaryError | None = None
    redecode: Callable[[], Sequence[T]] | None = None
    decode: Callable[[], Awaitable[FetchedPage[T]]] | None = None
    total: int | None = None
    _drift: Any = field(default=None, repr=False, eq=False, alias="drift")

    __repr__ = brief_repr

    @classmethod
    def gone(cls, error: NotFoundError, number: int) -> FetchedPage[Any]:
        """The end of a list that was reported by an HTML page."""
        text = f"the list was taken to end before page {number}, which came twice as HTTP 404 with an HTML page"
        return cls((), 0, error.request_id, (ApiMessage(None, text),), error.status, error.elapsed)

    def redecoder(self) -> Callable[[], Sequence[T]]:
        """A function that returns the items later, without keeping them where that is possible."""
        return self.redecode or _Kept(self.items)

    @property
    def rows(self) -> Sequence[int]:
        """The row, as received, of each item."""
        if not self.nulls:
            return range(len(self.items))
        nulls = frozenset(self.nulls)
        return [row for row in range(self.received) if row not in nulls]

    def page(
        self,
        number: int,
        items: Sequence[T],
        rows: Sequence[int],
        *,
        position: Position,
        last: bool,
        before: Past | None = None,
    ) -> Page[T]:
        """The page that users receive, with these of its items."""
        given = items if isinstance(items, tuple) else tuple(items)  # raw rows keep their columns
        return Page(
            given,
            number,
            self.request_id,
            self.warnings,
            self.status,
            self.elapsed,
            position,
            last,
            rows,
            before,
            self._drift,
        )


@frozen(eq=False)
class _Kept(Generic[T]):
    """Items that are kept, since nothing can decode them again."""

    items: Sequence[T]

    def __call__(self) -> Sequence[T]:
        return self.items


class SessionHooks(Protocol):
    """The session, as pagers and fan-outs use it."""

    def track(self, iterator: Any) -> None:
        """Remember a live iterator by a weak reference, to close it with the session."""

    def count_duplicates(self, number: int) -> None:
        """Count records that came twice, in the session's statistics."""

    @property
    def observers(self) -> Observers | None:
        """The observers of the session, None where a user gave none."""
        ...

    @property
    def lengths(self) -> Lengths:
        """The lengths of pages received, shared by all readings of the session."""
        ...


@define(eq=False)
class ListSource(Generic[T]):
    """How one list is read.

    Attributes:
        name: For messages and reprs, e.g. `points_allocation.by_expiry(entity_id=1)`.
        fetch: Requests the page of a number and size.
        key: The identity of a record; None where a part of it is null.
        pages: Number of pages, where it is known beforehand since the pages are batches of ids. The rules of lists do
            not apply then.
        largest: The largest page size that the endpoint takes.
        ahead: As `fetch`, for pages read ahead, which may be deferred (`FetchedPage.decode`). None for `fetch`.
        model: The class of the records, for tables; None where there is none.
        make_raw: Gives the same list with raw rows; None where only records can be read.
    """

    name: str
    fetch: Callable[[int, int], Awaitable[FetchedPage[T]]]
    key: Callable[[T], Hashable | None]
    pages: int | None = None
    largest: int | None = None
    ahead: Callable[[int, int], Awaitable[FetchedPage[T]]] | None = None
    model: Any = None
    make_raw: Callable[[], ListSource[Any]] | None = None

    __repr__ = brief_repr

    def raw_rows(self) -> ListSource[Any]:
        """The same list for a table, with raw rows where it can give them."""
        return self if self.make_raw is None else self.make_raw()

    @property
    def endpoint(self) -> str:
        """The name of the call without its arguments, which is the same for the lists of all customers."""
        return self.name.partition("(")[0]

    def check_size(self, size: int) -> None:
        """Raise InvalidRequestError for a page size that the endpoint does not take."""
        if self.pages is None:
            whole("page_size", size, 1, self.largest)


@frozen
class PagerOptions:
    """The options that `Pager.options` sets; None for a page size, a limit or a start that was not given."""

    page_size: int | None = None
    max_items: int | None = None
    start: Position | None = None
    progress: bool = False

    __repr__ = brief_repr


@frozen(eq=False)
class PrefetchBudget:
    """Limits for a list that is read beside others.

    Attributes:
        pages_ahead: Returns the maximum pages in flight ahead now; None for no limit but `Paging.prefetch`.
        turn: Waits until a page may be decoded: until the pages decoded before it are taken. None not to wait.
    """

    pages_ahead: Callable[[], int] | None = None
    turn: Callable[[], Awaitable[None]] | None = None

    __repr__ = brief_repr


ALONE = PrefetchBudget()
