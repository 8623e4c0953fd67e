"""How the keys of a fan-out are read: `PagedReader`, a list per key, and `BatchReader`, several keys per request.

Invariant: no request outlives the reading that sent it. Knows no HTTP.
Called by the endpoints, which make the readers, and by `WorkerPool`, whose workers read with them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from attrs import evolve, frozen

from capillary_async._paging.page import Position
from capillary_async._paging.reader import is_whole_list
from capillary_async._paging.requests import fetch_page
from capillary_async._paging.verified import open_reader
from capillary_async.errors import CapillaryError
from capillary_async.telemetry._events import PageRead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capillary_async._config import Paging
    from capillary_async._paging.page import Page
    from capillary_async._paging.source import FetchedPage, ListSource, PrefetchBudget, SessionHooks
    from capillary_async.tables._doors import TableSource

__all__ = ["BatchReader", "Emit", "PagedReader", "Reader"]

K = TypeVar("K")
T = TypeVar("T")


class Emit(Protocol):
    """Receives the pages and errors of the keys of one unit."""

    @property
    def whole(self) -> bool:
        """Whether the pages of a key become one outcome, which needs neither their positions nor which is the last."""
        ...

    async def page(self, key: Any, page: Page[Any] | FetchedPage[Any]) -> None:
        """One more page of a key."""
        ...

    async def done(self, key: Any) -> None:
        """The key was read to its end."""
        ...

    async def failed(self, key: Any, error: CapillaryError) -> None:
        """The key failed."""
        ...


class Reader(Protocol[K]):
    """How an endpoint reads keys, and how many of them make one unit of work."""

    @property
    def batch(self) -> int:
        """Maximum keys per unit."""
        ...

    def weigh(self, key: K) -> int:
        """The bytes that a key adds to a request."""
        ...

    def fits(self, count: int, weight: int) -> bool:
        """Whether `count` keys of `weight` bytes in all make one unit."""
        ...

    @property
    def check(self) -> Callable[[Any], K]:
        """Returns a key as the endpoint understands it, or raises InvalidRequestError."""
        ...

    async def read(self, keys: tuple[K, ...], emit: Emit, paging: Paging, budget: PrefetchBudget) -> None:
        """Read the keys of one unit; an error of all of them is raised."""
        ...

    @property
    def check_paging(self) -> Callable[[Paging], None]:
        """Raises for a page size that the endpoint does not take."""
        ...

    @property
    def table(self) -> TableSource | None:
        """What a table of it has; None where there is none."""
        ...

    def raw_rows(self) -> Reader[K]:
        """The same reader for a table, with raw rows where it can give them."""
        ...


@frozen(eq=False, repr=False)
class PagedReader(Generic[K, T]):
    """Reads each key's list, page after page."""

    check: Callable[[Any], K]
    source: Callable[[K], ListSource[T]]
    owner: SessionHooks
    check_paging: Callable[[Paging], None]
    batch: int = 1
    table: TableSource | None = None

    def raw_rows(self) -> PagedReader[K, Any]:
        """The same lists for a table."""
        return evolve(self, source=partial(_raw_rows, self.source))

    def weigh(self, key: K) -> int:  # noqa: ARG002 - one key is always a whole unit
        """0: a unit is one key, whatever its length."""
        return 0

    def fits(self, count: int, weight: int) -> bool:  # noqa: ARG002
        """Whether the unit has one key."""
        return count == 1

    async def read(self, keys: tuple[K, ...], emit: Emit, paging: Paging, budget: PrefetchBudget) -> None:
        """Read the list of one key."""
        (key,) = keys
        source = self.source(key)
        first = None
        if emit.whole and source.pages is None and not paging.verify:
            first = await _first_page(source, paging, budget)
            if is_whole_list(first, source, paging, self.owner):
                if self.owner.observers is not None:
                    read = PageRead(source.endpoint, 1, len(first.items), request_id=first.request_id)
                    self.owner.observers.notify(read)
                await emit.page(key, first)
                await emit.done(key)
                return
        reader = open_reader(source, paging, self.owner, budget=budget, first=first)
        try:
            while (page := await reader.next_page()) is not None:
                await emit.page(key, page)
                if page.last:
                    break
        finally:
            await reader.aclose()
        await emit.done(key)


async def _first_page(source: ListSource[T], paging: Paging, budget: PrefetchBudget) -> FetchedPage[T]:
    try:
        return await fetch_page(source, 1, paging.page_size, budget)
    except CapillaryError as error:
        error.position = Position(1)
        raise


def _raw_rows(source: Callable[[Any], ListSource[Any]], key: Any) -> ListSource[Any]:
    return source(key).raw_rows()


def _any_paging(paging: Paging) -> None:
    """Accept any paging: batches have no pages."""


@frozen(eq=False, repr=False)
class BatchReader(Generic[K, T]):
    """Reads keys in batches, bounded by their number and by the bytes they add to a request."""

    check: Callable[[Any], K]
    ask: Callable[[tuple[K, ...]], Awaitable[dict[K, Page[T] | CapillaryError]]]
    batch: int
    room: int
    weight: Callable[[K], int]
    check_paging: Callable[[Paging], None] = _any_paging
    table: TableSource | None = None
    ask_raw: Callable[[tuple[K, ...]], Awaitable[dict[K, Any]]] | None = None

    def raw_rows(self) -> BatchReader[K, Any]:
        """The same keys for a table."""
        return self if self.ask_raw is None else evolve(self, ask=self.ask_raw)

    def weigh(self, key: K) -> int:
        """The bytes that a key adds to a request."""
        return self.weight(key)

    def fits(self, count: int, weight: int) -> bool:
        """Whether the batch is within the limits of number and length; a single key always is."""
        return count == 1 or (count <= self.batch and weight <= self.room)

    async def read(self, keys: tuple[K, ...], emit: Emit, paging: Paging, budget: PrefetchBudget) -> None:  # noqa: ARG002 - no pages
        """Read the keys with one request; each of them has one page or one error."""
        answers = await self.ask(keys)
        for key in keys:
            answer = answers[key]
            if isinstance(answer, CapillaryError):
                await emit.failed(key, answer)
            else:
                await emit.page(key, answer)
                await emit.done(key)
