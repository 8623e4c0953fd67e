"""Units of work of a fan-out, `PagedWork` and `BatchWork`, and the readers with which endpoints make them.

Invariant: a unit that failed may be run again and continues where it stopped. Knows no HTTP.
Called by the endpoints (readers) and `WorkerPool` (units).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from attrs import evolve, frozen

from capillary_async._paging.verified import open_reader
from capillary_async.errors import CapillaryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capillary_async._config import Paging
    from capillary_async._paging.page import Page
    from capillary_async._paging.reader import ListReader
    from capillary_async._paging.source import ListSource, PrefetchBudget, SessionHooks
    from capillary_async._paging.verified import VerifiedReader
    from capillary_async.tables._doors import TableSource

__all__ = ["BatchReader", "Emit", "PagedReader", "Reader", "WorkItem"]

K = TypeVar("K")
T = TypeVar("T")


class Emit(Protocol):
    """Receives the pages and errors that a unit reads."""

    async def page(self, key: Any, page: Page[Any]) -> None:
        """One more page of a key."""
        ...

    async def done(self, key: Any) -> None:
        """The key was read to its end."""
        ...

    async def failed(self, key: Any, error: CapillaryError) -> None:
        """The key failed."""
        ...


class WorkItem(Protocol):
    """Work for one worker."""

    keys: tuple[Any, ...]

    async def run(self, emit: Emit) -> None:
        """Read the keys. Run again after an error, it continues where it stopped."""
        ...

    async def aclose(self) -> None:
        """Cancel the requests in flight."""
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

    def unit(self, keys: tuple[K, ...], paging: Paging, budget: PrefetchBudget) -> WorkItem:
        """The unit that reads these keys."""
        ...

    @property
    def check_paging(self) -> Callable[[Paging], None]:
        """Raises for a page size that the endpoint does not take."""
        ...

    @property
    def table(self) -> TableSource | None:
        """What a table of it has; None where there is none."""
        ...

    def for_columns(self, fields: tuple[str, ...]) -> Reader[K]:
        """The same reader for a table of these fields."""
        ...


class PagedWork(Generic[K]):
    """Reads the list of one key; a second run continues with the same list reader."""

    def __init__(self, keys: tuple[K, ...], reader: ListReader[Any] | VerifiedReader[Any]) -> None:
        self.keys = keys
        self._reader = reader

    async def run(self, emit: Emit) -> None:
        key = self.keys[0]
        while (page := await self._reader.next_page()) is not None:
            await emit.page(key, page)
        await emit.done(key)

    async def aclose(self) -> None:
        await self._reader.aclose()


@frozen(eq=False, repr=False)
class PagedReader(Generic[K, T]):
    """Reads each key's list, page after page."""

    check: Callable[[Any], K]
    source: Callable[[K], ListSource[T]]
    owner: SessionHooks
    check_paging: Callable[[Paging], None]
    batch: int = 1
    table: TableSource | None = None

    def for_columns(self, fields: tuple[str, ...]) -> PagedReader[K, Any]:
        """The same lists for a table of these fields."""
        return evolve(self, source=partial(_for_columns, self.source, fields))

    def weigh(self, key: K) -> int:  # noqa: ARG002 - one key is always a whole unit
        """0: a unit is one key, whatever its length."""
        return 0

    def fits(self, count: int, weight: int) -> bool:  # noqa: ARG002
        """Whether the unit has one key."""
        return count == 1

    def unit(self, keys: tuple[K, ...], paging: Paging, budget: PrefetchBudget) -> WorkItem:
        """The unit that reads the list of one key."""
        return PagedWork(keys, open_reader(self.source(keys[0]), paging, self.owner, budget=budget))


def _for_columns(source: Callable[[Any], ListSource[Any]], fields: tuple[str, ...], key: Any) -> ListSource[Any]:
    return source(key).for_columns(fields)


class BatchWork(Generic[K, T]):
    """Reads several keys in one request; each of them gets one page or one error."""

    def __init__(
        self, keys: tuple[K, ...], ask: Callable[[tuple[K, ...]], Awaitable[dict[K, Page[T] | CapillaryError]]]
    ) -> None:
        self.keys = keys
        self._ask = ask

    async def run(self, emit: Emit) -> None:
        answers = await self._ask(self.keys)
        for key in self.keys:
            answer = answers[key]
            if isinstance(answer, CapillaryError):
                await emit.failed(key, answer)
                continue
            await emit.page(key, answer)
            await emit.done(key)

    async def aclose(self) -> None:
        """Do nothing: no request outlives `run`."""


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

    def for_columns(self, fields: tuple[str, ...]) -> BatchReader[K, T]:  # noqa: ARG002 - its columns are made of records
        """The same keys for a table."""
        return self

    def weigh(self, key: K) -> int:
        """The bytes that a key adds to a request."""
        return self.weight(key)

    def fits(self, count: int, weight: int) -> bool:
        """Whether the batch is within the limits of number and length; a single key always is."""
        return count == 1 or (count <= self.batch and weight <= self.room)

    def unit(self, keys: tuple[K, ...], paging: Paging, budget: PrefetchBudget) -> WorkItem:  # noqa: ARG002 - no pages
        """The unit that reads these keys with one request."""
        return BatchWork(keys, self.ask)
