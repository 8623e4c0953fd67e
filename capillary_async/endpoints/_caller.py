"""`Calls`: the part of a session that endpoints, pagers and fan-outs call.

Invariant: nothing is sent once the session is closed, and every iterator and call in flight ends with it. Called by the
endpoints, their pagers and fan-outs; made by the session, one for itself and one per view.
"""

from __future__ import annotations

import threading
import weakref
from platform import python_version
from typing import TYPE_CHECKING, Any, cast

from capillary_async._config import merged_headers
from capillary_async._interrupt import InFlightCalls
from capillary_async._loops import bury, renew_in_child
from capillary_async._transport.advice import with_next_step
from capillary_async._transport.chain import build
from capillary_async._transport.classify import judge
from capillary_async._transport.messages import DEFERRED, Headers, after, decoded_of, set_decoded
from capillary_async._transport.stats import count
from capillary_async._version import __version__
from capillary_async.errors import CapillaryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from capillary_async._codec.decode import Decoded
    from capillary_async._config import Limits, Paging, Settings, Timeouts
    from capillary_async._paging.lengths import Lengths
    from capillary_async._transport.chain import Shared
    from capillary_async._transport.messages import Handler, Middleware, Request, Response, ResponseSpec
    from capillary_async._transport.retry import Quota
    from capillary_async.telemetry._observers import Observers

__all__ = ["Calls"]

DAG_SCOPE = "x-cap-neo-dag-scope"


class Calls:
    """The calls and iterators of one session or view."""

    def __init__(
        self, shared: Shared, settings: Settings, quota: Quota, root: Calls | None, around: Sequence[Middleware] = ()
    ) -> None:
        self._closed = False
        self._root = root
        self._shared = shared
        self._settings = settings
        self._lock = threading.Lock()
        self._under_way = InFlightCalls()
        self._iterators: weakref.WeakSet[Any] = weakref.WeakSet()
        self._views: weakref.WeakSet[Calls] = weakref.WeakSet()
        self.neo_headers = _scope(settings)
        base = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"capillary-async/{__version__} python/{python_version()}",
        }
        sent, own = merged_headers(base, settings.headers), settings.priority
        self._handler: Handler = build(
            shared, settings.retry, settings.timeouts, quota, sent, priority=own, around=around
        )
        renew_in_child(self, Calls.renew)

    def renew(self) -> None:
        """In a forked child: calls and iterators in flight are the parent's."""
        bury(self._under_way, list(self._iterators))
        self._lock = threading.Lock()
        self._under_way = InFlightCalls()
        self._iterators = weakref.WeakSet()

    def view(self, settings: Settings, quota: Quota, around: Sequence[Middleware] = ()) -> Calls:
        """Make the calls of a view, which are closed with the session; `around` are steps of its own."""
        root = self._root or self
        view = Calls(self._shared, settings, quota, root, around)
        with root._lock:  # noqa: SLF001 - of this class
            root._views.add(view)  # noqa: SLF001
        return view

    async def call(self, request: Request) -> Response:
        """Send a request through the chain.

        Raises:
            RuntimeError: The session is closed.
            CapillaryError: As the request came out.
        """
        self.check_open()
        if request.late and self._shared.middlewares:
            request = after(request, None)  # users' middlewares see answers that were judged, and may keep them
        response = await self._under_way.run(self._handler(request))
        shape = cast("ResponseSpec", request.shape)
        if decoded_of(response) is None:
            set_decoded(response, _judged(request, response, shape))
        if not shape.free and decoded_of(response) is not DEFERRED:
            self._count(response)
        return response

    async def read(self, request: Request, response: Response) -> Response:
        """Decode an answer that was left undecoded.

        If it cannot be decoded, that counts as a failed attempt: the request goes through the chain again.

        Raises:
            CapillaryError: As the request came out.
        """
        try:
            set_decoded(response, judge(response, cast("ResponseSpec", request.shape)))
        except CapillaryError as error:
            fault = self._shared.credentials.scrub(error.with_traceback(None))
        else:
            self._count(response)
            return response
        return await self.call(after(request, fault))

    def _count(self, response: Response) -> None:
        count(self._shared.stats, records=len(cast("Decoded[Any]", decoded_of(response)).items))

    def track(self, iterator: Any) -> None:
        """Remember a live iterator weakly, to end it with the session."""
        self.check_open()
        with self._lock:
            self._iterators.add(iterator)

    @property
    def observers(self) -> Observers | None:
        """The observers of the session, None where a user gave none."""
        return self._shared.observers if self._shared.observers.given else None

    @property
    def lengths(self) -> Lengths:
        """The lengths of the pages that each endpoint gave."""
        return self._shared.lengths

    def count_duplicates(self, number: int) -> None:
        """Count records that came twice."""
        count(self._shared.stats, duplicates=number)

    async def aclose(self) -> None:
        """End all iterators and calls and close the pools; a view ends only its own iterators and calls."""
        self._closed = True
        with self._lock:
            iterators, views = list(self._iterators), list(self._views)
        for iterator in iterators:
            await iterator._end("was closed with its session")  # noqa: SLF001 - of any of ours
        self._under_way.end()
        if self._root is not None:
            return
        for view in views:
            await view.aclose()
        await self._shared.credentials.aclose()
        self._shared.throttle.close()
        await self._shared.pools.aclose()

    def check_open(self) -> None:
        """Raise `RuntimeError` once `aclose` was called."""
        if self.closed:
            raise RuntimeError("the AsyncSession is closed: make a new one, or keep it open for as long as it is used")

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called, on it or on the session it is a view of."""
        return self._closed or (self._root is not None and self._root.closed)

    @property
    def base_url(self) -> str:
        """The URL of the cluster, without a slash at the end."""
        return self._shared.base_url

    @property
    def timeouts(self) -> Timeouts:
        """The `Timeouts` of this session or view."""
        return self._settings.timeouts

    @property
    def paging(self) -> Paging:
        """The `Paging` of this session or view."""
        return self._settings.paging

    @property
    def limits(self) -> Limits:
        """The `Limits` of the session and all its views together."""
        return self._settings.limits

    @property
    def server_timezone(self) -> tzinfo | None:
        """The time zone in which times without an offset are read."""
        return self._settings.server_timezone


def _scope(settings: Settings) -> Headers:
    """Return the scope header of Neo calls; one among the user's headers replaces it."""
    said = any(name.lower() == DAG_SCOPE for name in settings.headers)
    return Headers({} if said or settings.dag_scope is None else {DAG_SCOPE: settings.dag_scope})


def _judged(request: Request, response: Response, shape: ResponseSpec) -> Any:
    """Read an answer that a user's middleware made itself, as one of a server is read."""
    try:
        return judge(response, shape)
    except CapillaryError as error:
        error.method, error.path = request.method, request.path
        error.args = (with_next_step(error),)
        raise
