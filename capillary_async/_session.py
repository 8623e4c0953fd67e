"""`AsyncSession`: the object that users make. It joins settings, chain, pools and endpoints, and closes what it opened.

Invariant: nothing is opened before it is used, nothing stays open after `aclose`, and every setting is an argument of
the session or of one of its views. Called by users, the jobs and the command line.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, tzinfo
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar, cast

from capillary_async import _validation as check
from capillary_async._config import Limits, Paging, RetryPolicy, Settings, Timeouts
from capillary_async._html import card
from capillary_async._priority import Priority
from capillary_async._repr import brief, shown
from capillary_async._transport.chain import ClientSession, Shared, share
from capillary_async._transport.messages import Headers, Middleware, Request, ResponseSpec, decoded_of
from capillary_async._transport.outage import OutageReport
from capillary_async._transport.retry import Quota
from capillary_async._transport.stats import Stats
from capillary_async.auth import BasicAuth, OAuthClient
from capillary_async.auth import from_env as credentials_from_env
from capillary_async.endpoints import (
    LedgerInclude,
    LoyaltyEventsResource,
    PointsAllocationResource,
    PointsAwardedResource,
    PointsLedgerResource,
)
from capillary_async.endpoints._caller import Calls
from capillary_async.endpoints._history import History, read_history
from capillary_async.endpoints._resource import Endpoint
from capillary_async.errors import CustomerNotFoundError, InvalidRequestError, MergedCustomerError
from capillary_async.models import PointsStatus
from capillary_async.telemetry._events import Observer

__all__ = ["AsyncSession"]


NEO = "/x/neo/"
_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound="AsyncSession")


class AsyncSession:
    """A client for one cluster: its calls share connection pools, credentials, limits and retries.

    It may be made outside a running loop, e.g. at module level. It opens one connection pool per event loop, on first
    use. Use it with `async with`, or call `aclose()` at the end.

    Args:
        base_url: The URL of the cluster, e.g. `https://eu.api.capillarytech.com`. It is https, except on loopback.
        auth: The credentials: a `BasicAuth` or an `OAuthClient`.
        timeouts: Limits of time in seconds, see `Timeouts`.
        limits: Concurrency and rate of all calls together, see `Limits`.
        retry: When and how often a request is sent again, see `RetryPolicy`.
        paging: Page size, read-ahead and verification of lists, see `Paging`.
        dag_scope: The header `x-cap-neo-dag-scope` of Neo calls; None sends none.
        headers: Headers of every request, e.g. `X-CAP-API-ATTRIBUTION-ENTITY-TYPE`.
        middlewares: Functions `async (request, handler) -> response`, called once per call, outside of its retries;
            the first is the outermost.
        observers: Callables that get a frozen record of each call, attempt, wait, page and key, see
            `capillary_async.telemetry`; what one raises is logged.
        proxy: The URL of an HTTP proxy, e.g. `http://user:password@proxy.example.com:3128`, whose password no message
            shows. Proxies of the environment (`HTTPS_PROXY`, ...) are ignored.
        ssl_context: TLS settings, e.g. `ssl.create_default_context(cafile=...)` for a CA of your own, with a client
            certificate by its `load_cert_chain`. It verifies the server.
        server_timezone: The time zone of the cluster, a tzinfo or a name such as `Asia/Kolkata`. Times without an
            offset are read in it.
        client_session: An `aiohttp.ClientSession` to use instead of the session's own pools. It is never closed here
            and works in its own event loop only. aiohttp resends a GET within the same attempt when a kept connection
            turns out to be lost; `retry`, `stats` and `Limits.rate` do not see that request. The session's own pools
            never do so.

    Raises:
        InvalidRequestError: An argument is invalid; the message names it.

    Example:
        >>> session = AsyncSession("https://eu.api.capillarytech.com", auth=BasicAuth("till.id", password="secret"))
        >>> session
        AsyncSession('https://eu.api.capillarytech.com', auth=BasicAuth(username='till.id', password='***'))
    """

    points_awarded = Endpoint(PointsAwardedResource)
    points_allocation = Endpoint(PointsAllocationResource)
    loyalty_events = Endpoint(LoyaltyEventsResource)
    points_ledger = Endpoint(PointsLedgerResource)

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
        observers: Sequence[Observer] = (),
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
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
            observers=observers,
            proxy=proxy,
            ssl_context=ssl_context,
            server_timezone=server_timezone,
            client_session=client_session,
        )
        # No local of a frame that raises may hold what may be a secret: tracebacks with locals end in log files.
        del base_url, auth, timeouts, limits, retry, paging, dag_scope, headers, middlewares, proxy, ssl_context
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
        """Make a session from environment variables.

        It reads `CAPILLARY_BASE_URL`, and `CAPILLARY_USERNAME` with `CAPILLARY_PASSWORD` (or `CAPILLARY_PASSWORD_MD5`)
        or `CAPILLARY_CLIENT_KEY` with `CAPILLARY_CLIENT_SECRET`; and `CAPILLARY_PROXY`, unless a
        `client_session` is given.

        Args:
            overrides: Arguments of `AsyncSession`; `base_url` and `auth` replace their variables.

        Raises:
            InvalidRequestError: A variable is missing or an argument is invalid; the message names it.
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
        """Return a view of the session with other options; options that are None stay as they are.

        A view is cheap: it shares connection pools, limits, token, stats and retry quota with its session; with `retry`
        it has a quota of its own. Closing a view ends its own iterators and calls only; closing the session closes its
        views.

        Args:
            retry: Replaces the `RetryPolicy` of the session.
            timeouts: Replaces its `Timeouts`.
            paging: Replaces its `Paging`.
            headers: Added to its headers; a header of the same name is replaced.
            priority: `interactive` or `bulk`, for every call of the view. By default, single calls are interactive, and
                the calls of fan-outs and jobs are bulk. While both wait, interactive calls get at least half of the
                permits and of the rate.

        Raises:
            InvalidRequestError: An option is invalid; the message names it.
            RuntimeError: The session or view is closed.
        """
        self._calls.check_open()
        quota = self._quota if retry is None else None
        settings = _tried(
            self._settings.changed, retry=retry, timeouts=timeouts, paging=paging, headers=headers, priority=priority
        )
        del headers, retry, timeouts, paging, priority
        if isinstance(settings, ValueError):
            raise settings
        return self._view(settings, quota or Quota(settings.retry.quota))

    def _view(self, settings: Settings, quota: Quota, around: Sequence[Middleware] = ()) -> Self:
        view = object.__new__(type(self))
        vars(view).update(vars(self))  # a subclass may have attributes of its own
        view._settings, view._quota = settings, quota
        view._go_through(self._calls.view(settings, quota, around))
        return view

    def _through(self, step: Middleware) -> Self:
        """A view whose calls go through one more step, outside of all others: for the jobs."""
        self._calls.check_open()
        return self._view(self._settings, self._quota, (step,))

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, model: Any = None
    ) -> Any:
        """Send any other GET of the API, with the same retries, limits and checks as the typed calls.

        Args:
            method: `GET`, the only one: a read may be sent again safely.
            path: The path below the base URL, without a query, e.g. `/v2/customers/565039505`.
            params: The query. A parameter that is None is not sent; a bool is sent as `true` or `false`, a date as
                `YYYY-MM-DD`, a list with commas between its values.
            model: An attrs class, a list of one, or any type that cattrs structures; None for plain JSON, whose
                fractions are exact `Decimal` numbers.

        Returns:
            An instance of `model`, or plain JSON.

        Raises:
            InvalidRequestError: The method, the path or a parameter is invalid. Nothing is sent.
            CapillaryError: The call failed; see `capillary_async.errors` for the tree of errors.
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

    async def ping(self) -> float:
        """Send one small authenticated read, for readiness checks, and return the seconds until its answer.

        It asks for one loyalty event of customer 1. An answer that there is no such customer is one too.

        Source: Get Loyalty Events, `GET /v2/customers/{customerId}/loyaltyEvents`.

        Raises:
            CapillaryError: The service does not answer, or refuses the credentials, as for any other call: after the
                retries, and at once in an outage.
        """
        began = time.monotonic()
        with suppress(CustomerNotFoundError, MergedCustomerError):
            await self.request("GET", "/v2/customers/1/loyaltyEvents", params={"limit": 1})
        return time.monotonic() - began

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
        """Read everything that the API shows of one customer's points, joined by event, in order of time.

        Allocations and awards are joined to the ledger event with their event log id. A loyalty event is joined to the
        ledger event with its unique id, never by `id`, which is another series (inferred from the vendor's samples). A
        record without a partner has an entry of its own, and is in `unjoined` with the reason. The allocation endpoints
        show one of five award tables and `points_awarded.ids` two, so sums over a history need not equal a balance.

        Source: Get Allocated Points Details with Expiry in Specified Date Range, Get points awarded ID, Get Loyalty
            Events, Get Points Ledger Explode Info.

        Args:
            customer_id: The id of the customer.
            program_id: The id of the loyalty program.
            point_category_id: The id of the category of points.
            expiry_date_start: First day of expiry, a date or `YYYY-MM-DD`, in the server's time zone.
            expiry_date_end: Last day of expiry, included.
            statuses: Statuses of the awards; None for all that the documentation knows.
            from_date: First day of the loyalty events; None for no limit.
            to_date: Last day of the loyalty events, included; None for no limit.
            source: The source that knows the customer, e.g. `INSTORE`; see `points_ledger.explode`.
            include: Details that the ledger adds to its events.

        Raises:
            InvalidRequestError: An argument is invalid. Nothing is sent.
            CapillaryError: One of the four lists could not be read.
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
        """End all iterators and calls and close the pools; a view ends only its own. Closing twice does nothing."""
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
        """The URL of the cluster, without a slash at the end."""
        return self._shared.base_url

    @property
    def stats(self) -> Stats:
        """Counters of what the session and its views have done so far, and gauges of what they do now."""
        return self._shared.stats

    def _outage(self) -> OutageReport | None:
        """The outage that the session sees, None where there is none. For the jobs and the command line."""
        return self._shared.throttle.outage()

    @property
    def timeouts(self) -> Timeouts:
        """The `Timeouts` of this session or view."""
        return self._settings.timeouts

    @property
    def retry(self) -> RetryPolicy:
        """The `RetryPolicy` of this session or view."""
        return self._settings.retry

    @property
    def paging(self) -> Paging:
        """The `Paging` of this session or view."""
        return self._settings.paging

    @property
    def priority(self) -> Priority | None:
        """The priority that `with_options` set for all calls; None if it depends on the call."""
        return self._settings.priority

    @property
    def limits(self) -> Limits:
        """The `Limits` of the session and all its views together."""
        return self._settings.limits

    @property
    def server_timezone(self) -> tzinfo | None:
        """The time zone in which times without an offset are read."""
        return self._settings.server_timezone

    def __repr__(self) -> str:
        if "_calls" not in vars(self):  # half-made in tracebacks
            return "AsyncSession(...)"
        shown = f"{brief(self.base_url, 200)}, auth={brief(self._auth, 200)}"
        return f"AsyncSession({shown}{', closed' if self.closed else ''})"

    def _repr_html_(self) -> str:
        settings = {name: getattr(self, name) for name in ("timeouts", "limits", "retry", "paging", "priority")}
        facts = {"base URL": self.base_url, "auth": self._auth, "state": "closed" if self.closed else "open"}
        return card(type(self).__name__, {**facts, **settings, "stats": self.stats})

    def __reduce__(self) -> NoReturn:
        raise TypeError("AsyncSession is not pickled: make one in each process, e.g. with AsyncSession.from_env()")


_ENDPOINTS: dict[str, Endpoint[Any]] = {
    name: value for name, value in vars(AsyncSession).items() if isinstance(value, Endpoint)
}


def _tried(make: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | ValueError:
    """Return what was made, or the refusal without its frames, whose locals hold what was given."""
    try:
        return make(*args, **kwargs)
    except ValueError as error:
        return error.with_traceback(None)


def _parts(
    base_url: str,
    *,
    auth: BasicAuth | OAuthClient,
    middlewares: Sequence[Middleware],
    observers: Sequence[Observer],
    proxy: str | None,
    ssl_context: ssl.SSLContext | None,
    client_session: ClientSession | None,
    **settings: Any,
) -> tuple[BasicAuth | OAuthClient, Shared, Settings]:
    """What a session is made of, checked."""
    made = Settings.checked(**settings)
    for name, given in (("proxy", proxy), ("ssl_context", ssl_context)):
        if given is not None and client_session is not None:
            text = f"{name} is for the session's own pools: give it to the client_session that you give"
            raise InvalidRequestError(text, argument=name)
    check.kind("auth", auth, BasicAuth | OAuthClient, "BasicAuth or OAuthClient")
    shared = share(
        check.base_url(base_url),
        auth,
        made.limits,
        made.retry,
        made.timeouts,
        middlewares=check.middlewares(middlewares),
        observers=check.observers(observers),
        client_session=client_session,
        proxy=check.proxy(proxy),
        ssl_context=check.ssl_context(ssl_context),
    )
    return auth, shared, made


def _from_env(cls: type[_S], overrides: dict[str, Any]) -> _S:
    name = "CAPILLARY_BASE_URL"
    base_url = overrides.pop("base_url", None) or os.environ.get(name)
    if not base_url:
        text = f"the environment variable {name} is missing: it holds the URL of the cluster"
        raise InvalidRequestError(text, argument=name)
    auth = overrides.pop("auth", None) or credentials_from_env()
    if overrides.get("proxy") is None and overrides.get("client_session") is None:
        overrides["proxy"] = os.environ.get("CAPILLARY_PROXY") or None
    return cls(base_url, auth=auth, **overrides)
