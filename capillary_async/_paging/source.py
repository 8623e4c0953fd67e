"""What an endpoint and a session give to paging: `ListSource`, `FetchedPage`, `SessionHooks` and the options.

Invariant: data and callables only; nothing here sends a request by itself. Endpoints make `ListSource` and
`FetchedPage`; `Pager`, `ListReader`, `VerifiedReader` and the fan-out read them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import field, frozen

from capillary_async._paging.lengths import Lengths
from capillary_async._paging.page import Page, Position
from capillary_async._paging.seen import Past
from capillary_async._repr import brief_repr
from capillary_async._validation import whole
from capillary_async.errors import ApiMessage, CapillaryError

__all__ = ["ALONE", "FetchedPage", "ListSource", "PagerOptions", "PrefetchBudget", "SessionHooks"]

T = TypeVar("T")


@frozen(eq=False)
class FetchedPage(Generic[T]):
    """One page as the endpoint got it.

    Attributes:
        items: The records, without null entries.
        received: Rows as received, null entries included.
        nulls: The indexes of the null entries among them.
        error: Raised behind the items: a part of the page that was refused.
        redecode: Decodes the items again, so that they need not be kept; None where they must be kept.
        total: The rows of the whole list, where the answer says so.
        decode: Decodes a page that was read ahead, whose items are empty; None where it is decoded.
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

    def redecoder(self) -> Callable[[], Sequence[T]]:
        """A function that returns the items later, without keeping them where that is possible."""
        return self.redecode or _Held(self.items)

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
        """What of it is given out."""
        given = tuple(items)
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
class _Held(Generic[T]):
    """Items held, since nothing gives them again."""

    items: Sequence[T]

    def __call__(self) -> Sequence[T]:
        return self.items


class SessionHooks(Protocol):
    """What a pager needs of its session."""

    def track(self, iterator: Any) -> None:
        """Remember a live iterator weakly, to close it with the session."""

    def count_duplicates(self, number: int) -> None:
        """Count records that came twice."""

    @property
    def lengths(self) -> Lengths:
        """How long pages come, for all readings of the session."""
        ...


@frozen(eq=False)
class ListSource(Generic[T]):
    """How one list is read.

    Attributes:
        name: For messages and reprs, e.g. `points_allocation.by_expiry(entity_id=1)`.
        fetch: Page number and size to a page.
        key: The identity of a record; None where a part of it is null.
        pages: How many pages there are, where that is known beforehand: a walk over ids. The rules of lists do not
            apply to it then.
        largest: The largest page size the endpoint takes.
        ahead: As `fetch`, for pages that will wait: they may come undecoded (`FetchedPage.decode`). None for `fetch`.
    """

    name: str
    fetch: Callable[[int, int], Awaitable[FetchedPage[T]]]
    key: Callable[[T], Hashable | None]
    pages: int | None = None
    largest: int | None = None
    ahead: Callable[[int, int], Awaitable[FetchedPage[T]]] | None = None

    __repr__ = brief_repr

    @property
    def endpoint(self) -> str:
        """Which call it is, whoever's list: its name without arguments."""
        return self.name.partition("(")[0]

    def check_size(self, size: int) -> None:
        """Refuse a page size that the endpoint does not take."""
        if self.pages is None:
            whole("page_size", size, 1, self.largest)


@frozen
class PagerOptions:
    """What `Pager.options` sets; None where it was not said."""

    page_size: int | None = None
    max_items: int | None = None
    start: Position | None = None

    __repr__ = brief_repr


@frozen(eq=False)
class PrefetchBudget:
    """How fast a list is read beside others.

    Attributes:
        spare: Pages that may be under way ahead just now; None for no bound but `Paging.prefetch`.
        turn: Waits until a page may be decoded, where others have decoded ones to give first; None not to wait.
    """

    spare: Callable[[], int] | None = None
    turn: Callable[[], Awaitable[None]] | None = None

    __repr__ = brief_repr


ALONE = PrefetchBudget()
