"""`Session`, `Pager` and `FanOut` for code without `await`.

Invariant: each call is a method of the asynchronous class, wrapped: it has the same arguments, result and errors.
Called by users; it calls `AsyncSession` in a `LoopThread`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import tzinfo
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar, cast, overload

from capillary_async import AsyncSession, Limits, Outcome, Paging, RetryPolicy, Stats, Timeouts
from capillary_async import FanOut as AsyncFanOut
from capillary_async import Pager as AsyncPager
from capillary_async._priority import Priority
from capillary_async.blocking._loop import LoopThread
from capillary_async.endpoints import (
    LoyaltyEventsResource,
    PointsAllocationResource,
    PointsAwardedResource,
    PointsLedgerResource,
)

__all__ = ["FanOut", "Pager", "Session"]

P = ParamSpec("P")
K = TypeVar("K")
R = TypeVar("R")
S = TypeVar("S")
K_co = TypeVar("K_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


class _Wrapped:
    """Something asynchronous, and the loop in which it lives."""

    def __init__(self, inner: Any, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def _with(self, inner: Any) -> Self:
        other = object.__new__(type(self))
        own = {name: value for name, value in vars(self).items() if not isinstance(value, _Wrapped)}
        vars(other).update(own, _inner=inner)  # a subclass may have attributes of its own
        return other

    def __repr__(self) -> str:
        return f"<blocking {getattr(self, '_inner', ...)!r}>"  # half made in tracebacks

    def _repr_html_(self) -> str:
        html: str = self._inner._repr_html_()
        return html

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not pickled: make one in each process, e.g. with Session.from_env()")


# The order of the overloads is for pyright, which otherwise reads `Pager` while it infers `Pager.options`.
@overload
def _plain(method: Callable[Concatenate[S, P], AsyncFanOut[K, R]]) -> Callable[Concatenate[Any, P], FanOut[K, R]]: ...
@overload
def _plain(method: Callable[Concatenate[S, P], AsyncIterator[R]]) -> Callable[Concatenate[Any, P], Iterator[R]]: ...
@overload
def _plain(method: Callable[Concatenate[S, P], AsyncPager[R]]) -> Callable[Concatenate[Any, P], Pager[R]]: ...
@overload
def _plain(method: Callable[Concatenate[S, P], Awaitable[R]]) -> Callable[Concatenate[Any, P], R]: ...
def _plain(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method for callers without a loop: what it returns is awaited, iterated or wrapped."""
    returns = str(method.__annotations__["return"]).partition("[")[0]

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        loop: LoopThread = self._loop
        if returns in _RECIPES:
            return _RECIPES[returns](method(self._inner, *args, **kwargs), loop)
        wait: Callable[..., Any] = loop.run if iscoroutinefunction(method) else loop.iterate
        return wait(lambda: method(self._inner, *args, **kwargs))

    return call


def _viewing(method: Callable[Concatenate[Any, P], AsyncSession]) -> Callable[Concatenate[S, P], S]:
    """The method for callers without a loop: the view has the thread of its session."""

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            inner = method(self._inner, *args, **kwargs)
        finally:
            del args, kwargs  # tracebacks with locals end in log files
        return self._with(inner)

    return call


def _made_as(kind: Callable[P, Any]) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Give an `__init__` the arguments of the asynchronous class."""
    alike: Any = wraps(cast("Any", kind).__init__)
    return cast("Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]", alike)


class _Tables(_Wrapped):
    batches = _plain(AsyncPager[Any].batches)
    to_arrow = _plain(AsyncPager[Any].to_arrow)
    to_polars = _plain(AsyncPager[Any].to_polars)
    to_pandas = _plain(AsyncPager[Any].to_pandas)
    to_parquet = _plain(AsyncPager[Any].to_parquet)


class Pager(_Tables, Generic[T_co]):
    """A list of the API: `for record in pager`. Its methods are those of `capillary_async.Pager`."""

    options = _plain(AsyncPager[T_co].options)
    pages = _plain(AsyncPager[T_co].pages)
    page = _plain(AsyncPager[T_co].page)
    first = _plain(AsyncPager[T_co].first)
    collect = _plain(AsyncPager[T_co].collect)

    def __iter__(self) -> Iterator[T_co]:
        return (record for page in self.pages() for record in page.items)  # whole pages cross threads


class FanOut(_Tables, Generic[K_co, T_co]):
    """One query for many keys: `for outcome in fan`. Its methods are those of `capillary_async.FanOut`."""

    options = _plain(AsyncFanOut[K_co, T_co].options)
    ordered = _plain(AsyncFanOut[K_co, T_co].ordered)
    pages = _plain(AsyncFanOut[K_co, T_co].pages)
    collect = _plain(AsyncFanOut[K_co, T_co].collect)
    to_arrow = _plain(AsyncFanOut[K_co, T_co].to_arrow)

    def __iter__(self) -> Iterator[Outcome[K_co, T_co]]:
        return self._loop.iterate(lambda: aiter(self._inner))

    def items(self) -> Iterator[T_co]:
        """The records of all keys, as they come; see `capillary_async.FanOut.items`."""
        return (record for _, page in self.pages() for record in page.items)


class _PointsAllocation(_Wrapped):
    by_event = _plain(PointsAllocationResource.by_event)
    by_event_many = _plain(PointsAllocationResource.by_event_many)
    by_expiry = _plain(PointsAllocationResource.by_expiry)
    by_expiry_many = _plain(PointsAllocationResource.by_expiry_many)


class _PointsAwarded(_Wrapped):
    ids = _plain(PointsAwardedResource.ids)


class _LoyaltyEvents(_Wrapped):
    list = _plain(LoyaltyEventsResource.list)
    list_many = _plain(LoyaltyEventsResource.list_many)


class _PointsLedger(_Wrapped):
    explode = _plain(PointsLedgerResource.explode)
    explode_many = _plain(PointsLedgerResource.explode_many)


_RECIPES: dict[str, Callable[[Any, LoopThread], Any]] = {"Pager": Pager, "FanOut": FanOut}


class _Member(Generic[R]):
    """An attribute of the asynchronous session, in its wrapper where it has one."""

    def __init__(self, wrapper: Callable[[Any, LoopThread], R] | None = None) -> None:
        self._wrapper = wrapper

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = getattr(AsyncSession, name).__doc__

    def __get__(self, session: Any, owner: type | None = None) -> R:
        if session is None:
            return cast("R", self._wrapper or self)  # for `create_autospec`
        value: Any = getattr(session._inner, self._name)  # noqa: SLF001 - of this file
        if self._wrapper is not None:
            value = vars(session)[self._name] = self._wrapper(value, session._loop)  # noqa: SLF001 - found there next
        return cast("R", value)


class Session(_Wrapped):
    """A client for one cluster, for code without an event loop: `with blocking.Session(url, auth=...) as session`.

    The arguments, calls and errors are those of `capillary_async.AsyncSession`. It may be used in scripts, notebooks
    and several threads at once, and in a coroutine, whose event loop it blocks. A `for` that is left early, an
    exception and Ctrl-C leave no request; `close()`, or the end of the `with` block, ends its thread. The input of a
    fan-out, e.g. a database cursor or a list of the same session, is read in the thread that loops over the fan-out.
    """

    points_awarded = _Member(_PointsAwarded)
    points_allocation = _Member(_PointsAllocation)
    loyalty_events = _Member(_LoyaltyEvents)
    points_ledger = _Member(_PointsLedger)
    request = _plain(AsyncSession.request)
    history = _plain(AsyncSession.history)
    ping = _plain(AsyncSession.ping)
    closed = _Member[bool]()
    base_url = _Member[str]()
    stats = _Member[Stats]()
    timeouts = _Member[Timeouts]()
    retry = _Member[RetryPolicy]()
    paging = _Member[Paging]()
    priority = _Member[Priority | None]()
    limits = _Member[Limits]()
    server_timezone = _Member[tzinfo | None]()

    @_made_as(AsyncSession)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            inner = AsyncSession(*args, **kwargs)
        finally:
            del args, kwargs  # tracebacks with locals end in log files
        super().__init__(inner, LoopThread(inner))

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """Make a session from environment variables; see `capillary_async.AsyncSession.from_env`."""
        try:
            inner = AsyncSession.from_env(**overrides)
        finally:
            del overrides
        session = cls.__new__(cls)
        _Wrapped.__init__(session, inner, LoopThread(inner))
        return session

    with_options = _viewing(AsyncSession.with_options)

    def close(self) -> None:
        """End all iterators and calls, close the pools, end the thread; a view ends only its own iterators and calls.

        Closing twice does nothing.
        """
        self._loop.close(self._inner)

    def __enter__(self) -> Self:
        self._inner.with_options()  # raises where it is closed
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
