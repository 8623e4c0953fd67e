"""`AsyncSession`: one object for the whole API. It joins settings, chain, pools, endpoints, and closes what it opened.

The rule kept here: nothing is opened before it is used, nothing stays open behind `aclose`, and no setting lives
anywhere but in the session and its views. The top of the package; users start here.
"""

from __future__ import annotations

import os
import threading
import weakref
from platform import python_version
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar, cast

from attrs import evolve, field, frozen

from capillary_async._checks import (
    check_base_url,
    check_dag_scope,
    check_headers,
    check_middlewares,
    check_path,
    check_timezone,
    encode_query,
    expect,
    merged,
)
from capillary_async._config import Limits, Paging, RetryPolicy, Timeouts
from capillary_async._transport.chain import build, share
from capillary_async._transport.check import judge
from capillary_async._transport.message import LATE, Headers, Request, Shape
from capillary_async._transport.retry import Quota
from capillary_async._underway import UnderWay
from capillary_async._version import __version__
from capillary_async.auth import BasicAuth, OAuthClient
from capillary_async.endpoints import (
    LoyaltyEventsResource,
    PointsAllocationResource,
    PointsAwardedResource,
    PointsLedgerResource,
)
from capillary_async.errors import CapillaryError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import tzinfo
    from types import TracebackType

    from capillary_async._decode import Decoded
    from capillary_async._transport.chain import ClientSession, Shared
    from capillary_async._transport.message import Handler, Middleware, Response
    from capillary_async._transport.stats import Stats

__all__ = ["AsyncSession"]


DAG_SCOPE = "x-cap-neo-dag-scope"
NEO = "/x/neo/"
_TILL = ("CAPILLARY_USERNAME", "CAPILLARY_PASSWORD", "CAPILLARY_PASSWORD_MD5")
_CLIENT = ("CAPILLARY_CLIENT_KEY", "CAPILLARY_CLIENT_SECRET")
_KINDS: dict[str, type[Any]] = {"limits": Limits, "paging": Paging, "retry": RetryPolicy, "timeouts": Timeouts}
_P = ParamSpec("_P")
_T = TypeVar("_T")


@frozen(eq=False)
class _Settings:
    """What a view may have of its own."""

    timeouts: Timeouts
    retry: RetryPolicy
    paging: Paging
    headers: Headers = field(repr=False)  # a user's own may hold a key
    limits: Limits
    dag_scope: str | None
    server_timezone: tzinfo | None


class AsyncSession:
    """A connection pool, credentials, limits and retries for one cluster, and the API's calls on it.

    It may be made outside a running loop and at module level; it opens a pool on first use, one for each event loop.
    Use it with `async with`, or call `aclose()` at the end.

    Args:
        base_url: Of the cluster, e.g. `https://eu.api.capillarytech.com`. https, except on loopback.
        auth: `BasicAuth` or `OAuthClient`.
        timeouts: See `Timeouts`, in seconds.
        limits: See `Limits`.
        retry: See `RetryPolicy`.
        paging: See `Paging`.
        dag_scope: The `x-cap-neo-dag-scope` of Neo calls; None to send none.
        headers: Sent with every request, e.g. `X-CAP-API-ATTRIBUTION-ENTITY-TYPE`.
        middlewares: `async (request, handler) -> response`, run outside retry, the first outermost.
        server_timezone: The cluster's zone (a tzinfo or a name such as `Asia/Kolkata`), for ISO times that come without
            an offset.
        client_session: Your own `aiohttp.ClientSession`; it is never closed here and serves its own loop alone.
            aiohttp's hidden resend stays on in it: a GET over a kept connection that turns out lost is sent once more
            within the same attempt, seen neither by `retry` and `stats` nor by `Limits.rate`. In the session's own
            pools it is off.

    Raises:
        InvalidRequestError: An argument cannot be; the text names it.

    Example:
        >>> session = AsyncSession("https://eu.api.capillarytech.com", auth=BasicAuth("till.id", password="secret"))
        >>> session
        AsyncSession('https://eu.api.capillarytech.com', auth=BasicAuth(username='till.id', password='***'))
    """

    points_awarded: PointsAwardedResource
    points_allocation: PointsAllocationResource
    loyalty_events: LoyaltyEventsResource
    points_ledger: PointsLedgerResource

    def __init__(
        self,
        base_url: str,
        *,
        auth: BasicAuth | OAuthClient,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        limits: Limits = Limits(),  # noqa: B008
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008
        paging: Paging = Paging(),  # noqa: B008
        dag_scope: str | None = "global",
        headers: Mapping[str, str] | None = None,
        middlewares: Sequence[Middleware] = (),
        server_timezone: tzinfo | str | None = None,
        client_session: ClientSession | None = None,
    ) -> None:
        parts = _tried(
            _parts,
            base_url,
            auth=auth,
            timeouts=timeouts,
            limits=limits,
            retry=retry,
            paging=paging,
            dag_scope=dag_scope,
            headers=headers,
            middlewares=middlewares,
            server_timezone=server_timezone,
            client_session=client_session,
        )
        # No local of a frame that raises may hold what may be a secret: tracebacks with locals end in log files.
        del base_url, auth, timeouts, limits, retry, paging, dag_scope, headers, middlewares, server_timezone
        if isinstance(parts, ValueError):
            raise parts
        self._auth, shared, settings = parts
        self._set_up(shared, settings, shared.quota, root=None)

    def _set_up(self, shared: Shared, settings: _Settings, quota: Quota, root: AsyncSession | None) -> None:
        self._closed = False
        self._root = root
        self._shared = shared
        self._settings = settings
        self._quota = quota
        self._lock = threading.Lock()
        self._under_way = UnderWay()
        self._iterators: weakref.WeakSet[Any] = weakref.WeakSet()
        self._views: weakref.WeakSet[AsyncSession] = weakref.WeakSet()
        self._neo_headers = _scope(settings)
        base = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"capillary-async/{__version__} python/{python_version()}",
        }
        self._handler: Handler = build(shared, settings.retry, settings.timeouts, quota, merged(base, settings.headers))
        self.points_awarded = PointsAwardedResource(self)
        self.points_allocation = PointsAllocationResource(self)
        self.loyalty_events = LoyaltyEventsResource(self)
        self.points_ledger = PointsLedgerResource(self)

    @classmethod
    def from_env(cls, **overrides: Any) -> AsyncSession:
        """A session from the environment.

        Reads `CAPILLARY_BASE_URL`, and `CAPILLARY_USERNAME` with `CAPILLARY_PASSWORD` (or `CAPILLARY_PASSWORD_MD5`), or
        `CAPILLARY_CLIENT_KEY` with `CAPILLARY_CLIENT_SECRET`.

        Args:
            overrides: Arguments of `AsyncSession`; `base_url` and `auth` stand in for their variables.

        Raises:
            InvalidRequestError: A variable is missing; the text names it.
        """
        made = _tried(_from_env, cls, overrides)
        del overrides
        if isinstance(made, ValueError):
            raise made
        return made

    def with_options(
        self,
        *,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        paging: Paging | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncSession:
        """A cheap view with other options; what is not given stays.

        It shares pools, throttle, token, stats and retry quota (with `retry` it has a quota of its own). `headers` are
        added to the session's. Closing a view ends only its iterators; closing the session closes its views.

        Raises:
            InvalidRequestError: An option cannot be.
        """
        quota = self._quota if retry is None else None
        settings = _tried(_changed, self._settings, headers, retry=retry, timeouts=timeouts, paging=paging)
        del headers, retry, timeouts, paging
        if isinstance(settings, ValueError):
            raise settings
        view = object.__new__(type(self))
        view._auth = self._auth
        root = self._root or self
        view._set_up(self._shared, settings, quota or Quota(settings.retry.quota), root)
        with root._lock:  # noqa: SLF001 - of this class
            root._views.add(view)  # noqa: SLF001
        return view

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, model: Any = None
    ) -> Any:
        """Any other GET of the API, through the same chain.

        Args:
            method: `GET`: only reads may be sent again safely.
            path: Below the base URL, e.g. `/v2/customers/565039505`, without a query.
            params: The query. None is not sent, a bool is sent as `true` or `false`, a date as `YYYY-MM-DD`, a list
                joined by commas.
            model: An attrs class, a list of one, or any type cattrs knows; None for plain JSON with exact `Decimal`
                numbers.

        Returns:
            What the model says.

        Raises:
            InvalidRequestError: Another method, or a path or parameter that cannot be. Nothing is sent.
            CapillaryError: As with every call.
        """
        if not isinstance(cast("object", method), str) or method.upper() != "GET":
            raise InvalidRequestError(
                f"method takes 'GET', got {method!r}: the SDK sends requests again, which is only safe for reads",
                argument="method",
            )
        quoted = check_path(path)
        shape = Shape(model, free=True, timezone=self.server_timezone)
        headers = self._neo_headers if quoted.startswith(NEO) else Headers()
        response = await self.call(Request("GET", quoted, encode_query(params), headers, shape=shape))
        return response.decoded

    async def call(self, request: Request) -> Response:
        """Send a request through the chain. For the endpoints.

        Raises:
            RuntimeError: The session is closed.
            CapillaryError: As the request came out.
        """
        self._check_open()
        if request.late and self._shared.middlewares:
            request = request.after(None)  # users' middlewares see answers that were judged, and may keep them
        response = await self._under_way.run(self._handler(request))
        shape = cast("Shape", request.shape)
        if response.decoded is None:
            response.keep(_judged(request, response, shape))
        if not shape.free and response.decoded is not LATE:
            self._count(response)
        return response

    async def read(self, request: Request, response: Response) -> Response:
        """Decode an answer that was left undecoded. For the endpoints.

        What cannot be read after all is an attempt that failed: it goes through the chain as that.

        Raises:
            CapillaryError: As the request came out.
        """
        try:
            response.keep(judge(response, cast("Shape", request.shape)))
        except CapillaryError as error:
            fault = self._shared.credentials.scrub(error.with_traceback(None))
        else:
            self._count(response)
            return response
        return await self.call(request.after(fault))

    def _count(self, response: Response) -> None:
        self._shared.stats.add(records=len(cast("Decoded[Any]", response.decoded).items))

    async def aclose(self) -> None:
        """End all iterators and calls and close the pools; a view ends its own only. Closing twice is fine."""
        self._closed = True
        with self._lock:
            iterators, views = list(self._iterators), list(self._views)
        for iterator in iterators:
            await iterator.end("was closed with its session")
        self._under_way.end()
        if self._root is not None:
            return
        for view in views:
            await view.aclose()
        await self._shared.credentials.aclose()
        await self._shared.pools.aclose()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self._closed or (self._root is not None and self._root.closed):
            raise RuntimeError("the AsyncSession is closed: make a new one, or keep it open for as long as it is used")

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called, on it or on the session it is a view of."""
        return self._closed or (self._root is not None and self._root.closed)

    @property
    def base_url(self) -> str:
        """Of the cluster, without a slash at the end."""
        return self._shared.base_url

    @property
    def stats(self) -> Stats:
        """What the session and its views have done so far."""
        return self._shared.stats

    @property
    def timeouts(self) -> Timeouts:
        """In force here."""
        return self._settings.timeouts

    @property
    def retry(self) -> RetryPolicy:
        """In force here."""
        return self._settings.retry

    @property
    def paging(self) -> Paging:
        """In force here."""
        return self._settings.paging

    @property
    def limits(self) -> Limits:
        """Of the session and all its views together."""
        return self._settings.limits

    @property
    def server_timezone(self) -> tzinfo | None:
        """For ISO times without an offset."""
        return self._settings.server_timezone

    @property
    def neo_headers(self) -> Headers:
        """What Neo calls send beside the rest. For the endpoints."""
        return self._neo_headers

    def track(self, iterator: Any) -> None:
        """Remember a live iterator weakly, to end it with the session. For pagers and fan-outs."""
        self._check_open()
        with self._lock:
            self._iterators.add(iterator)

    def count_duplicates(self, number: int) -> None:
        """Count records that came twice. For pagers."""
        self._shared.stats.add(duplicates=number)

    def __repr__(self) -> str:
        if "_shared" not in vars(self):  # half-made in tracebacks
            return "AsyncSession(...)"
        return f"AsyncSession({self.base_url!r}, auth={self._auth!r}{', closed' if self.closed else ''})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("AsyncSession is not pickled: make one in each process, e.g. with AsyncSession.from_env()")


def _scope(settings: _Settings) -> Headers:
    """The scope of Neo calls. One among the user's headers wins, since it was said for this view."""
    said = any(name.lower() == DAG_SCOPE for name in settings.headers)
    return Headers({} if said or settings.dag_scope is None else {DAG_SCOPE: settings.dag_scope})


def _tried(make: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | ValueError:
    """What was made, or the refusal without its frames, whose locals hold what was given."""
    try:
        return make(*args, **kwargs)
    except ValueError as error:
        return error.with_traceback(None)


def _parts(
    base_url: str,
    *,
    auth: BasicAuth | OAuthClient,
    middlewares: Sequence[Middleware],
    client_session: ClientSession | None,
    timeouts: Timeouts,
    limits: Limits,
    retry: RetryPolicy,
    paging: Paging,
    headers: Mapping[str, str] | None,
    dag_scope: str | None,
    server_timezone: tzinfo | str | None,
) -> tuple[BasicAuth | OAuthClient, Shared, _Settings]:
    """What a session is made of, checked."""
    _expect_kinds(timeouts=timeouts, limits=limits, retry=retry, paging=paging)
    expect("auth", auth, BasicAuth | OAuthClient, "BasicAuth or OAuthClient")
    shared = share(
        check_base_url(base_url),
        auth,
        limits,
        retry,
        timeouts,
        middlewares=check_middlewares(middlewares),
        client_session=client_session,
    )
    settings = _Settings(
        timeouts,
        retry,
        paging,
        check_headers(headers),
        limits,
        check_dag_scope(dag_scope),
        check_timezone(server_timezone),
    )
    return auth, shared, settings


def _changed(settings: _Settings, headers: Mapping[str, str] | None, **given: object) -> _Settings:
    """The settings of a view; what is None stays."""
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _expect_kinds(**changed)
    if headers is not None:
        changed["headers"] = Headers(merged(settings.headers, check_headers(headers)))
    return evolve(settings, **changed)


def _from_env(cls: type[AsyncSession], overrides: dict[str, Any]) -> AsyncSession:
    base_url = overrides.pop("base_url", None) or _variable("CAPILLARY_BASE_URL", "the URL of the cluster")
    auth = overrides.pop("auth", None) or _auth_from_env()
    return cls(base_url, auth=auth, **overrides)


def _expect_kinds(**settings: object) -> None:
    for name, value in settings.items():
        expect(name, value, _KINDS[name], _KINDS[name].__name__)


def _judged(request: Request, response: Response, shape: Shape) -> Any:
    """What an answer says that a user's middleware gave by itself: it is read as a server's would be."""
    try:
        return judge(response, shape)
    except CapillaryError as error:
        error.method, error.path = request.method, request.path
        raise


def _variable(name: str, what: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise InvalidRequestError(f"the environment variable {name} is missing: it holds {what}", argument=name)
    return value


def _auth_from_env() -> BasicAuth | OAuthClient:
    if any(map(os.environ.get, _CLIENT)) and not any(map(os.environ.get, _TILL)):
        key = _variable("CAPILLARY_CLIENT_KEY", "the OAuth client's key")
        return OAuthClient(key, _variable("CAPILLARY_CLIENT_SECRET", "the OAuth client's secret"))
    username = _variable("CAPILLARY_USERNAME", "the till id (or set CAPILLARY_CLIENT_KEY and CAPILLARY_CLIENT_SECRET)")
    if os.environ.get("CAPILLARY_PASSWORD_MD5") and not os.environ.get("CAPILLARY_PASSWORD"):
        # The value is never a local here: tracebacks with locals end in log files.
        return BasicAuth(username, password_md5=os.environ["CAPILLARY_PASSWORD_MD5"])
    what = "the till password (or set CAPILLARY_PASSWORD_MD5)"
    return BasicAuth(username, password=_variable("CAPILLARY_PASSWORD", what))
