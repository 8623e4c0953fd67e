"""`Resource`: the base of the four resource classes; it makes pages, pagers and fan-outs of an endpoint's requests.

Invariant: an endpoint builds values (paths, queries, sources) and never waits, connects or retries itself. Called by
the resource classes; `Calls` is the `Caller`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import tzinfo
from functools import partial
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from attrs import define, evolve

from capillary_async._codec.drift import carried
from capillary_async._config import Limits, Paging, Timeouts
from capillary_async._fanout.fanout import FanOut, PagedReader, fan_over
from capillary_async._fanout.work import Reader
from capillary_async._paging.lengths import Lengths
from capillary_async._paging.pager import FetchedPage, ListSource, Pager
from capillary_async._transport.classify import judge
from capillary_async._transport.messages import DEFERRED, Headers, Request, Response, ResponseSpec, decoded_of
from capillary_async._transport.totals import total_in
from capillary_async.tables._doors import TableSource
from capillary_async.telemetry._observers import Observers

__all__ = ["Caller", "Endpoint", "Resource"]

K = TypeVar("K")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

NEO_LARGEST_PAGE = 100
OK = 200
IDENTITY: Callable[[Any], int | None] = attrgetter("id")  # written in C, since every record is asked


class Caller(Protocol):
    """What a resource needs of its session."""

    @property
    def base_url(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def timeouts(self) -> Timeouts: ...
    @property
    def paging(self) -> Paging: ...
    @property
    def server_timezone(self) -> tzinfo | None: ...
    @property
    def neo_headers(self) -> Headers: ...

    async def call(self, request: Request) -> Response:
        """Send one request through the chain."""
        ...

    async def read(self, request: Request, response: Response) -> Response:
        """Decode an answer that was left undecoded."""
        ...

    def track(self, iterator: Any) -> None:
        """Remember a live iterator weakly, to close it with the session."""

    def count_duplicates(self, number: int) -> None:
        """Count records that came twice."""

    @property
    def lengths(self) -> Lengths: ...
    @property
    def observers(self) -> Observers | None: ...


class Resource:
    """A group of calls of a session."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def _shape(
        self, model: type[Any], member: str | None = None, owners: Collection[int] = (), *, raw: bool = False
    ) -> ResponseSpec:
        zone = self._caller.server_timezone
        return ResponseSpec(model, member, timezone=zone, owners=frozenset(owners), raw=raw)

    async def _get(self, path: str, query: str, shape: ResponseSpec, headers: Headers | None = None) -> Response:
        return await self._caller.call(Request("GET", path, query, headers or Headers(), shape=shape))

    async def _page(self, request: Request) -> FetchedPage[Any]:
        """One page; of a late request it may be one to be decoded later."""
        response = await self._caller.call(request)
        if decoded_of(response) is DEFERRED:
            return FetchedPage((), 0, decode=partial(self._read, request, response))
        return fetched(response, cast("ResponseSpec", request.shape))

    async def _read(self, request: Request, response: Response) -> FetchedPage[Any]:
        return fetched(await self._caller.read(request, response), cast("ResponseSpec", request.shape))

    def _pager(self, source: ListSource[T], paging: Paging | None = None) -> Pager[T]:
        return Pager(source, paging or self._caller.paging, self._caller)

    def _fan(
        self,
        keys: Any,
        *,
        argument: str,
        name: str,
        check: Callable[[Any], K],
        source: Callable[[K], ListSource[T]],
        largest: int | None,
        model: type[T],
        key: type[K] | Any = int,
    ) -> FanOut[K, T]:
        """A fan-out that reads each key's list."""
        nothing: Any = None  # this source is never read, it only checks sizes
        probe: ListSource[Any] = ListSource(name, nothing, nothing, largest=largest)

        def check_paging(paging: Paging) -> None:
            probe.check_size(paging.page_size)

        check_paging(self._caller.paging)
        reader = PagedReader(check, source, self._caller, check_paging, table=TableSource(name, model, key))
        return self._fan_over(keys, reader, argument=argument, name=name)

    def _fan_over(self, keys: Any, reader: Reader[Any], *, argument: str, name: str) -> FanOut[Any, Any]:
        caller = self._caller
        return fan_over(
            keys,
            reader,
            argument=argument,
            name=name,
            concurrency=caller.limits.concurrency,
            paging=caller.paging,
            owner=caller,
        )


class Endpoint(Generic[R_co]):
    """A resource as an attribute of a session; of the class it is the resource's class, for `create_autospec`.

    The session puts the resource itself into its `__dict__`, which is found before this.
    """

    def __init__(self, resource: Callable[[Caller], R_co]) -> None:
        self.resource = resource

    @overload
    def __get__(self, session: None, owner: type[Any]) -> type[R_co]: ...
    @overload
    def __get__(self, session: object, owner: type[Any]) -> R_co: ...
    def __get__(self, session: object, owner: type[Any]) -> Any:
        if session is None:
            return self.resource
        raise AttributeError(f"the {owner.__name__} is incomplete: its __init__ has not run to its end")


def fetched(response: Response, shape: ResponseSpec) -> FetchedPage[Any]:
    """An answer as a page."""
    decoded = decoded_of(response)
    return FetchedPage(
        decoded.items,
        decoded.received,
        response.request_id,
        decoded.warnings,
        response.status,
        response.elapsed,
        decoded.nulls,
        total=total_in(response.headers) if decoded.total is None else decoded.total,
        drift=carried(decoded) or None,
        redecode=_Redecode(response.body, shape),
    )


@define(eq=False)
class _Redecode:
    """The records of a body, decoded once more: a body is held much more cheaply than its records."""

    body: bytes
    shape: ResponseSpec

    def __call__(self) -> tuple[Any, ...]:
        shape = evolve(self.shape, raw=False)  # what a page had is compared as records
        return cast("tuple[Any, ...]", judge(Response(OK, body=self.body), shape).items)

    @property
    def signed(self) -> bool:
        """Whether a number in it may be negative."""
        return b"-" in self.body or b"\\" in self.body
