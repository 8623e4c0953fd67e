"""`Session`, `Pager` and `FanOut` without `await`.

Invariant: each call is a method of the asynchronous class, wrapped: it has the same arguments, result and errors.
Called by users; it calls `AsyncSession` in a `LoopThread`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from capillary_async._fanout.fanout import FanOut as AsyncFanOut
from capillary_async._paging.pager import Pager as AsyncPager
from capillary_async._session import AsyncSession
from capillary_async.blocking._loop import LoopThread
from capillary_async.endpoints import (
    LoyaltyEventsResource,
    PointsAllocationResource,
    PointsAwardedResource,
    PointsLedgerResource,
)

if TYPE_CHECKING:
    from capillary_async._fanout.outcome import Outcome
    from capillary_async._paging.page import Page

__all__ = ["FanOut", "Pager", "Session"]

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")
T = TypeVar("T")


class _Wrapped:
    """Something of a session, and the loop in which it lives."""

    def __init__(self, inner: Any, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>"


def _awaits(method: Callable[Concatenate[Any, P], Awaitable[R]]) -> Callable[Concatenate[Any, P], R]:
    """The method, awaited in the loop."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        loop: LoopThread = self._loop
        return loop.run(lambda: method(self._inner, *args, **kwargs))

    return _like(method, call)


def _lists(method: Callable[Concatenate[Any, P], AsyncPager[T]]) -> Callable[Concatenate[Any, P], Pager[T]]:
    """The method, whose list is read without `await`."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Pager[T]:
        return Pager(method(self._inner, *args, **kwargs), self._loop)

    return _like(method, call)


def _fans(method: Callable[Concatenate[Any, P], AsyncFanOut[K, T]]) -> Callable[Concatenate[Any, P], FanOut[K, T]]:
    """The method, whose fan-out is read without `await`."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> FanOut[K, T]:
        return FanOut(method(self._inner, *args, **kwargs), self._loop)

    return _like(method, call)


def _like(method: Any, call: R) -> R:
    """The function with the name, the documentation and the signature of the method."""
    for name in ("__name__", "__qualname__", "__doc__"):
        setattr(call, name, getattr(method, name))
    call.__wrapped__ = method  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] - read by inspect
    return call


class _Tables(_Wrapped):
    to_arrow = _awaits(AsyncPager[Any].to_arrow)
    to_polars = _awaits(AsyncPager[Any].to_polars)
    to_pandas = _awaits(AsyncPager[Any].to_pandas)
    to_parquet = _awaits(AsyncPager[Any].to_parquet)

    def batches(self, rows: int = 65_536, *, columns: Iterable[str] | None = None) -> Iterator[Any]:
        """The rows as `pyarrow.RecordBatch`es; see `capillary_async.Pager.batches`."""
        return self._loop.iterate(lambda: self._inner.batches(rows, columns=columns))


class Pager(_Tables, Generic[T]):
    """A list of the API: `for record in pager`. Its methods are those of `capillary_async.Pager`."""

    options = _lists(AsyncPager[T].options)
    page = _awaits(AsyncPager[T].page)

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.items

    def pages(self) -> Iterator[Page[T]]:
        """Whole pages."""
        return self._loop.iterate(self._inner.pages)

    def first(self) -> T | None:
        """The first record, or None for an empty list."""
        inner: AsyncPager[T] = self._inner
        return self._loop.run(inner.first)

    def collect(self, *, verify: bool | None = None) -> list[T]:
        """All records as a list."""
        return self._loop.run(lambda: self._inner.collect(verify=verify))


class FanOut(_Tables, Generic[K, T]):
    """The same question for many keys: `for outcome in fan`. Its methods are those of `capillary_async.FanOut`."""

    options = _fans(AsyncFanOut[K, T].options)
    to_arrow = _awaits(AsyncFanOut[K, T].to_arrow)

    def __iter__(self) -> Iterator[Outcome[K, T]]:
        return self._loop.iterate(lambda: self._inner)

    def ordered(self) -> Iterator[Outcome[K, T]]:
        """One outcome per key, in the order of the input."""
        return self._loop.iterate(self._inner.ordered)

    def items(self) -> Iterator[T]:
        """The records of all keys, as they come."""
        return self._loop.iterate(self._inner.items)

    def pages(self) -> Iterator[tuple[K, Page[T]]]:
        """`(key, page)`, as they come."""
        return self._loop.iterate(self._inner.pages)

    def collect(self) -> dict[K, Outcome[K, T]]:
        """All outcomes by key, errors included."""
        return self._loop.run(self._inner.collect)


class _PointsAllocation(_Wrapped):
    by_event = _lists(PointsAllocationResource.by_event)
    by_event_many = _fans(PointsAllocationResource.by_event_many)
    by_expiry = _lists(PointsAllocationResource.by_expiry)
    by_expiry_many = _fans(PointsAllocationResource.by_expiry_many)


class _PointsAwarded(_Wrapped):
    ids = _fans(PointsAwardedResource.ids)


class _LoyaltyEvents(_Wrapped):
    list = _lists(LoyaltyEventsResource.list)
    list_many = _fans(LoyaltyEventsResource.list_many)


class _PointsLedger(_Wrapped):
    explode = _lists(PointsLedgerResource.explode)
    explode_many = _fans(PointsLedgerResource.explode_many)


def _session(method: Callable[Concatenate[Any, P], AsyncSession]) -> Callable[Concatenate[Any, P], Session]:
    """The method, whose session shares the loop of this one."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Session:
        loop: LoopThread = self._loop
        made: Session = Session._over(method(self._inner, *args, **kwargs), loop)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this file
        return made

    return _like(method, call)


def _init(make: Callable[P, AsyncSession]) -> Callable[Concatenate[Any, P], None]:
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self._wrap(make(*args, **kwargs), LoopThread())

    return _like(make.__init__, call)


class Session:
    """A client for one cluster, for code without an event loop: `with blocking.Session(url, auth=...) as session`.

    The arguments, calls and errors are those of `capillary_async.AsyncSession`. It may be used from several threads,
    inside a running event loop, and in notebooks. A loop that is left early, an exception and Ctrl-C leave no request;
    `close()`, or the end of the `with` block, ends its thread.
    """

    __init__ = _init(AsyncSession)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType] - its own signature
    with_options = _session(AsyncSession.with_options)
    request = _awaits(AsyncSession.request)
    history = _awaits(AsyncSession.history)

    def _wrap(self, inner: AsyncSession, loop: LoopThread) -> None:
        self._inner, self._loop = inner, loop
        self.points_allocation = _PointsAllocation(inner.points_allocation, loop)
        self.points_awarded = _PointsAwarded(inner.points_awarded, loop)
        self.loyalty_events = _LoyaltyEvents(inner.loyalty_events, loop)
        self.points_ledger = _PointsLedger(inner.points_ledger, loop)

    @classmethod
    def _over(cls, inner: AsyncSession, loop: LoopThread) -> Self:
        session = cls.__new__(cls)
        session._wrap(inner, loop)  # noqa: SLF001 - of this class
        return session

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """A session with the settings of the environment; see `AsyncSession.from_env`."""
        return cls._over(AsyncSession.from_env(**overrides), LoopThread())

    @property
    def stats(self) -> Any:
        """Counters of the session's calls."""
        return self._inner.stats

    def close(self) -> None:
        """End all readings, close the connections and end the thread. Closing twice is fine."""
        self._loop.close(self._inner.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>"
