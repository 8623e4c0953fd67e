"""`AsyncSession`: one object for the whole API. It joins settings, chain, pools, endpoints, and closes what it opened.

Invariant: nothing is opened before it is used, nothing stays open behind `aclose`, and no setting lives anywhere but in
the session and its views. The top of the package; users start here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, tzinfo
from types import TracebackType
from typing import Any, Generic, NoReturn, ParamSpec, Self, TypeVar, cast, overload

from attrs import evolve

from capillary_async import _validation as check
from capillary_async._config import Limits, Paging, RetryPolicy, Timeouts
from capillary_async._priority import PRIORITIES, Priority
from capillary_async._repr import brief, shown
from capillary_async._transport.chain import ClientSession, Shared, share
from capillary_async._transport.messages import Headers, Middleware, Request, ResponseSpec, decoded_of
from capillary_async._transport.retry import Quota
from capillary_async._transport.stats import Stats
from capillary_async.auth import BasicAuth, OAuthClient
from capillary_async.endpoints import (
    LedgerInclude,
    LoyaltyEventsResource,
    PointsAllocationResource,
    PointsAwardedResource,
    PointsLedgerResource,
)
from capillary_async.endpoints._caller import Calls, Settings
from capillary_async.endpoints._history import History, read_history
from capillary_async.errors import InvalidRequestError
from capillary_async.models import PointsStatus

__all__ = ["AsyncSession"]


NEO = "/x/neo/"
_TILL = ("CAPILLARY_USERNAME", "CAPILLARY_PASSWORD", "CAPILLARY_PASSWORD_MD5")
_CLIENT = ("CAPILLARY_CLIENT_KEY", "CAPILLARY_CLIENT_SECRET")
_KINDS: dict[str, type[Any]] = {"limits": Limits, "paging": Paging, "retry": RetryPolicy, "timeouts": Timeouts}
_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound="AsyncSession")
_R = TypeVar("_R")


class _Endpoint(Generic[_R]):
    """A group of calls of a session; on the class it is its class, so that `create_autospec(AsyncSession)` has them."""

    def __init__(self, resource: Callable[[Calls], _R]) -> None:
        self.resource = resource

    @overload
    def __get__(self, session: None, owner: type[AsyncSession]) -> type[_R]: ...
    @overload
    def __get__(self, session: AsyncSession, owner: type[AsyncSession]) -> _R: ...
    def __get__(self, session: AsyncSession | None, owner: type[AsyncSession]) -> Any:
        if session is None:
            return self.resource
        raise AttributeError("the AsyncSession is half made: its __init__ has not run to its end")


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
        InvalidRequestError: An argument is invalid; the message names it.

    Example:
        >>> session = AsyncSession("https://eu.api.capillarytech.com", auth=BasicAuth("till.id", password="secret"))
        >>> session
        AsyncSession('https://eu.api.capillarytech.com', auth=BasicAuth(username='till.id', password='***'))
    """

    points_awarded = _Endpoint(PointsAwardedResource)
    points_allocation = _Endpoint(PointsAllocationResource)
    loyalty_events = _Endpoint(LoyaltyEventsResource)
    points_ledger = _Endpoint(PointsLedgerResource)

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
        self._auth, self._shared, self._settings = parts
        self._quota = self._shared.quota
        self._go_through(Calls(self._shared, self._settings, self._quota, root=None))

    def _go_through(self, calls: Calls) -> None:
        self._calls = calls
        vars(self).update({name: endpoint.resource(calls) for name, endpoint in _ENDPOINTS.items()})

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
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
        priority: Priority | None = None,
    ) -> Self:
        """A cheap view with other options; what is not given stays.

        It shares pools, throttle, token, stats and retry quota (with `retry` it has a quota of its own). Closing a view
        ends its own iterators and calls and nothing else; closing the session closes its views.

        Args:
            retry: In place of the session's.
            timeouts: In place of the session's.
            paging: In place of the session's.
            headers: Added to the session's.
            priority: `interactive` or `bulk`, for every call of the view. Without it, single calls are interactive, and
                the calls of fan-outs and jobs are bulk. Where both wait, interactive calls get at least half of the
                permits and of the rate.

        Raises:
            InvalidRequestError: An option is invalid; the message names it.
            RuntimeError: The session or view is closed.
        """
        self._calls.check_open()
        quota = self._quota if retry is None else None
        settings = _tried(
            _changed, self._settings, headers, retry=retry, timeouts=timeouts, paging=paging, priority=priority
        )
        del headers, retry, timeouts, paging, priority
        if isinstance(settings, ValueError):
            raise settings
        view = object.__new__(type(self))
        vars(view).update(vars(self))  # a subclass may have attributes of its own
        view._settings = settings
        view._quota = quota or Quota(settings.retry.quota)
        view._go_through(self._calls.view(settings, view._quota))
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
            InvalidRequestError: Another method, or an invalid path or parameter. Nothing is sent.
            CapillaryError: As with every call.
        """
        if not isinstance(cast("object", method), str) or method.upper() != "GET":
            raise InvalidRequestError(
                f"method takes 'GET', got {shown(method)}: the SDK sends requests again, which is only safe for reads",
                argument="method",
            )
        quoted = check.path(path)
        shape = ResponseSpec(model, free=True, timezone=self.server_timezone)
        headers = self._calls.neo_headers if quoted.startswith(NEO) else Headers()
        response = await self._calls.call(Request("GET", quoted, check.query(params), headers, shape=shape))
        return decoded_of(response)

    async def history(
        self,
        customer_id: int,
        *,
        program_id: int,
        point_category_id: int,
        expiry_date_start: date | str,
        expiry_date_end: date | str,
        statuses: Iterable[PointsStatus | str] | None = None,
        from_date: date | str | None = None,
        to_date: date | str | None = None,
        source: str = "INSTORE",
        include: LedgerInclude | None = None,
    ) -> History:
        """Everything that the API shows of one customer's points, joined event by event, in order of time.

        Allocations and awards join the ledger event with their event log id; a loyalty event joins the ledger event
        with its unique id (never by `id`, which is another series: inferred from the vendor's samples). A record
        without a partner is in an entry of its own, and in `unjoined` with the reason. The allocation endpoints show
        one of five award tables and `points_awarded.ids` two, so sums over a history need not equal a balance.

        Source: Get Allocated Points Details with Expiry in Specified Date Range, Get points awarded ID, Get Loyalty
            Events, Get Points Ledger Explode Info.

        Args:
            customer_id: The customer.
            program_id: The loyalty program.
            point_category_id: The category of points.
            expiry_date_start: First day of expiry, a date or `YYYY-MM-DD`, in the server's time zone.
            expiry_date_end: Last day of expiry.
            statuses: Statuses of the awards; None for all that the documentation knows.
            from_date: First day of the loyalty events; None for all.
            to_date: Last day of the loyalty events.
            source: Where the customer is known, e.g. `INSTORE`; see `points_ledger.explode`.
            include: What the ledger shows beside the events.

        Raises:
            InvalidRequestError: An argument is invalid. Nothing is sent.
            CapillaryError: One of the four could not be read.
        """
        return await read_history(
            cast("Any", self),  # a protocol knows nothing of descriptors
            customer_id,
            program_id=program_id,
            point_category_id=point_category_id,
            expiry_date_start=expiry_date_start,
            expiry_date_end=expiry_date_end,
            statuses=statuses,
            from_date=from_date,
            to_date=to_date,
            source=source,
            include=include,
        )

    async def aclose(self) -> None:
        """End all iterators and calls and close the pools; a view ends its own alone. Closing twice is fine."""
        await self._calls.aclose()

    async def __aenter__(self) -> Self:
        self._calls.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called, on it or on the session it is a view of."""
        return self._calls.closed

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
    def priority(self) -> Priority | None:
        """`interactive` or `bulk` where `with_options` set it for all calls; None where it depends on the call."""
        return self._settings.priority

    @property
    def limits(self) -> Limits:
        """Of the session and all its views together."""
        return self._settings.limits

    @property
    def server_timezone(self) -> tzinfo | None:
        """For ISO times without an offset."""
        return self._settings.server_timezone

    def __repr__(self) -> str:
        if "_calls" not in vars(self):  # half-made in tracebacks
            return "AsyncSession(...)"
        shown = f"{brief(self.base_url, 200)}, auth={brief(self._auth, 200)}"
        return f"AsyncSession({shown}{', closed' if self.closed else ''})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("AsyncSession is not pickled: make one in each process, e.g. with AsyncSession.from_env()")


_ENDPOINTS: dict[str, _Endpoint[Any]] = {
    name: value for name, value in vars(AsyncSession).items() if isinstance(value, _Endpoint)
}


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
) -> tuple[BasicAuth | OAuthClient, Shared, Settings]:
    """What a session is made of, checked."""
    _expect_kinds(timeouts=timeouts, limits=limits, retry=retry, paging=paging)
    check.kind("auth", auth, BasicAuth | OAuthClient, "BasicAuth or OAuthClient")
    shared = share(
        check.base_url(base_url),
        auth,
        limits,
        retry,
        timeouts,
        middlewares=check.middlewares(middlewares),
        client_session=client_session,
    )
    settings = Settings(
        timeouts,
        retry,
        paging,
        Headers(check.headers(headers)),
        limits,
        check.dag_scope(dag_scope),
        check.timezone(server_timezone),
    )
    return auth, shared, settings


def _check_priority(priority: object) -> Priority:
    for known in PRIORITIES:
        if priority == known:
            return known
    raise InvalidRequestError(f"priority takes 'interactive' or 'bulk', got {priority!r}", argument="priority")


def _changed(settings: Settings, headers: Mapping[str, str] | None, **given: object) -> Settings:
    """The settings of a view; what is None stays."""
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    priority = changed.pop("priority", None)
    _expect_kinds(**changed)
    if priority is not None:
        changed["priority"] = _check_priority(priority)
    if headers is not None:
        changed["headers"] = settings.headers.merged(check.headers(headers))
    return evolve(settings, **changed)


def _from_env(cls: type[_S], overrides: dict[str, Any]) -> _S:
    base_url = overrides.pop("base_url", None) or _variable("CAPILLARY_BASE_URL", "the URL of the cluster")
    auth = overrides.pop("auth", None) or _auth_from_env()
    return cls(base_url, auth=auth, **overrides)


def _expect_kinds(**settings: object) -> None:
    for name, value in settings.items():
        check.kind(name, value, _KINDS[name], _KINDS[name].__name__)


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
