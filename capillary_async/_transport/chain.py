"""The order of one call: users' middlewares → retry → credentials → limiter → classify → wire.

Invariant: only this file knows the order. A step is `(request, handler) -> response`, as in aiohttp; the last one is a
handler. Called by the session and by `Calls`, once per view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from capillary_async._paging.lengths import Lengths
from capillary_async._transport.classify import check
from capillary_async._transport.credentials import credentials_step
from capillary_async._transport.limiter import RequestLimiter
from capillary_async._transport.pools import ClientSession, Pools
from capillary_async._transport.redis_rate import rate_key
from capillary_async._transport.retry import Quota, Retry
from capillary_async._transport.route import Proxy
from capillary_async._transport.stats import Stats, measure
from capillary_async._transport.wire import Wire
from capillary_async.auth import BasicAuth
from capillary_async.telemetry._observers import Observers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ssl import SSLContext

    from capillary_async._config import Limits, RetryPolicy, Timeouts
    from capillary_async._priority import Priority
    from capillary_async._transport.credentials import BasicCredentials, OAuthCredentials
    from capillary_async._transport.messages import Handler, Middleware
    from capillary_async.auth import OAuthClient
    from capillary_async.telemetry._events import Observer

__all__ = ["ClientSession", "Shared", "build", "compose", "share"]


@frozen(eq=False)
class Shared:
    """The parts that all views of a session share."""

    base_url: str
    pools: Pools
    throttle: RequestLimiter
    stats: Stats
    quota: Quota
    credentials: BasicCredentials | OAuthCredentials
    middlewares: tuple[Middleware, ...]
    observers: Observers
    lengths: Lengths = field(factory=Lengths)


def share(
    base_url: str,
    auth: BasicAuth | OAuthClient,
    limits: Limits,
    policy: RetryPolicy,
    timeouts: Timeouts,
    *,
    middlewares: Sequence[Middleware] = (),
    observers: Sequence[Observer] = (),
    client_session: ClientSession | None = None,
    proxy: str | None = None,
    ssl_context: SSLContext | None = None,
) -> Shared:
    """Make the shared parts; the token is fetched by the `RetryPolicy` of the session, whatever a view says."""
    watching = Observers(observers, base_url)
    key = rate_key(base_url, auth.username if isinstance(auth, BasicAuth) else auth.key)
    stats, quota = Stats(), Quota(policy.quota)
    limiter = RequestLimiter(limits, policy, observers=watching, shared_key=key)
    measure(stats, limiter.gauges)
    pools = Pools(limits, client_session, proxy=Proxy.of(proxy), ssl_context=ssl_context)
    token = Retry(policy, timeouts, quota, stats, token=True, limiter=limiter, observers=watching)
    credentials = credentials_step(auth, token, secrets=pools.secrets)
    watching.redact = credentials.redact
    return Shared(base_url, pools, limiter, stats, quota, credentials, tuple(middlewares), watching)


def build(
    shared: Shared,
    policy: RetryPolicy,
    timeouts: Timeouts,
    quota: Quota,
    headers: Mapping[str, str],
    *,
    priority: Priority | None = None,
    around: Sequence[Middleware] = (),
) -> Handler:
    """Make the chain of one view; `around` are steps of its own, outside of all others."""
    wire = Wire(shared.base_url, shared.pools, shared.stats, headers)
    watching = shared.observers
    retry = Retry(policy, timeouts, quota, shared.stats, priority=priority, limiter=shared.throttle, observers=watching)
    sent = compose((shared.throttle, check), wire)
    return compose((*around, *shared.middlewares, retry, shared.credentials), sent)


def compose(steps: Sequence[Middleware], last: Handler) -> Handler:
    """Make one handler of several steps; the first is the outermost."""
    handler = last
    for step in reversed(steps):
        handler = _before(step, handler)
    return handler


def _before(step: Middleware, handler: Handler) -> Handler:
    return lambda request: step(request, handler)
