"""The settings of a session: one frozen class per concern, each default with its reason, and all of them together.

Invariant: an invalid value is refused by name when the object is made. Users change one with `attrs.evolve`. Called by
users and by the session, which passes them to the transport, the pager and the fan-out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from attrs import evolve, field, frozen

from capillary_async import _validation as check
from capillary_async._priority import PRIORITIES, Priority
from capillary_async._redis_address import RedisAddress
from capillary_async._repr import brief, brief_repr
from capillary_async._validation import flag, refuse, seconds, validator, whole
from capillary_async.errors import InvalidRequestError

__all__ = ["CarefulPaging", "Limits", "Paging", "Rate", "RetryPolicy", "Settings", "Timeouts", "merged_headers"]


@frozen
class Timeouts:
    """Limits of time, in seconds.

    Attributes:
        connect: For DNS, TCP and TLS. Default 10: three lost SYNs take 7 s, and a fourth would be hopeless.
        read: Between two pieces of an answer, the first of which is its headers. Default 30: the slowest pages of the
            API answer within 20.
        attempt: For one whole attempt, from the permit to the last byte; it also ends an answer that comes one byte per
            second. Default 60.
        call: For one call with all its attempts and waits. A single call (`request`, each page of a list) is bounded
            from its beginning; its waits for a permit, the rate and the token count. The calls of a fan-out wait for
            those without a limit, and are bounded from their first permit; a fan-out ends when it got no answer for so
            long. Default 180: five attempts at a slow server and their waits, and still below the idle limits of load
            balancers and schedulers.

    Example:
        >>> Timeouts(read=5, attempt=10, call=30)
        Timeouts(connect=10, read=5, attempt=10, call=30)
    """

    connect: float = field(default=10, validator=validator(seconds))
    read: float = field(default=30, validator=validator(seconds))
    attempt: float = field(default=60, validator=validator(seconds))
    call: float = field(default=180, validator=validator(seconds))

    __repr__ = brief_repr


@frozen(init=False)
class Rate:
    """A rate: at most `permits` requests of the session arrive at the server in any `per` seconds.

    Only the server knows when a request arrived. So a permit is free again `per` seconds after the answer, and the
    throughput is `permits` in `per` seconds plus the time of an answer. A request that was sent and not answered, since
    it was cancelled or took too long, keeps its permit until the server ends the connection too, at most 30 s, and then
    for `per` seconds.

    Not promised: a request may arrive together with later ones if it is on its way for longer than these 30 s, if a
    proxy ends our connection and passes the request on later, or if its event loop was stopped meanwhile. With a
    `client_session` of your own, a permit is free again `per` seconds after a request was broken off. Each process
    counts its own requests: a forked child begins with a fresh rate, so parent and child together may send twice as
    many.

    The calls of fan-outs and jobs leave a part of the rate to single calls (see `AsyncSession.with_options`): at the
    beginning they take half of the permits at once and the others evenly over `per`. From then on they use all of it
    while no single call waits.

    **Shared**: with `shared`, it is one rate for all sessions, on all machines, that name the same Redis, the same
    `base_url` and the same user name or client key. Redis gives them turns `per / permits` seconds apart by its own
    clock; no process sends before its turn. In any window, at most so many requests more are sent as the
    processes keep turns: each leases as many as it has calls waiting, at most ten (a hundredth of a second's, if that
    is more; never more than one second's), and a turn that is missed is lost. Turns that a process leased before it
    was killed are lost. Sessions with different rates under one name take their turns each at its own pace, and
    together are never faster than the fastest; a warning in the log names both. Needs the extra `redis`, and Redis 5 or
    a newer one, or Valkey.

    While Redis does not answer, no request is sent. Single calls wait for `Timeouts.call`, calls of fan-outs too, those
    of jobs for 15 minutes; then their error names the address. A Redis that refuses the first request of a
    session, e.g. its password, is an error at once. Without Redis, give each of N processes `permits / N`.

    Attributes:
        permits: Number of requests.
        per: Length of the window in seconds.
        shared: The Redis of a shared rate, `redis://:password@host:6379/0`, or `rediss://...` for TLS; None for a rate
            of the session's own. It is kept without user name and password, which nothing shows; a `Rate` with a
            password does not pickle.

    Example:
        >>> Rate(100, per=60)
        Rate(permits=100, per=60)
        >>> Rate(200, per=1, shared="redis://:secret@redis.internal/0")
        Rate(permits=200, per=1, shared='redis://redis.internal:6379/0')
    """

    permits: int = field(validator=validator(whole, 1))
    per: float = field(validator=validator(seconds))
    shared: str | None = field(default=None)

    def __init__(self, permits: int, per: float, shared: str | None = None) -> None:
        address = RedisAddress.of(shared)
        del shared  # no local of a frame that raises may hold a password
        if isinstance(address, InvalidRequestError):
            raise address
        self.__attrs_init__(permits, per, address)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def __repr__(self) -> str:
        shared = getattr(self, "shared", None)  # half-made in tracebacks
        more = "" if shared is None else f", shared={brief(shared, 200)}"
        permits, per = (brief(getattr(self, name, None), 100) for name in ("permits", "per"))
        return f"Rate(permits={permits}, per={per}{more})"


def _rate(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Rate):
        raise refuse(name, "a Rate or None, e.g. Rate(100, per=60)", value)


@frozen
class Limits:
    """Limits of concurrency and rate, for a session with all its views, loops and threads.

    Attributes:
        concurrency: Maximum number of requests in flight. Default 32: with more, a single core is busy decoding.
        concurrency_start: Where the adaptive limit starts; `concurrency` if that is less. Default 8: polite to a cold
            cluster. The limit grows by one after as many good answers as it is large, at most every 100 ms and only
            while it is used up; 429, 503 and timeouts multiply it by 0.7, at most once in 500 ms.
        rate: A `Rate`, or None for none. Default None: production limits are set per brand; test clusters allow
            `Rate(100, per=60)` per key.

    In addition, a 429 or 503 with `Retry-After` stops every task of the session until that time; then a single request
    probes whether the service accepts requests again. Three 429 in a row without `Retry-After` do the same for a
    backoff of the session's own.

    Example:
        >>> Limits(concurrency=4, rate=Rate(100, per=60)).rate
        Rate(permits=100, per=60)
    """

    concurrency: int = field(default=32, validator=validator(whole, 1))
    concurrency_start: int = field(default=8, validator=validator(whole, 1))
    rate: Rate | None = field(default=None, validator=validator(_rate))

    __repr__ = brief_repr


@frozen
class RetryPolicy:
    """When a call is retried. All calls only read, so a retry is always safe.

    Attributes:
        attempts: Maximum attempts of one call, the first included. Default 5: with 1 % of faults, one call in
            10,000,000,000 is lost.
        backoff: Base of the wait in seconds: uniform(0, min(backoff_max, backoff * 2**n)). Default 0.2: full jitter
            over 0.2, 0.4, 0.8 and 1.6 s.
        throttle_backoff: The base after 429 and 503. Default 1.0: the server said that it has too much to do.
        backoff_max: The longest wait of the session's own in seconds. Default 20.
        retry_after_max: The longest `Retry-After` in seconds that is honoured. A longer one is an error at once, also
            of calls that would be sent while it lasts; one of those is sent once in that time (or in a minute, if that
            is more). Default 120.
        quota: Tokens of the session for retries: 14 per transient fault, 5 per throttled one. A successful call gives
            back the tokens of its last retry, or one token if it needed none. A failed call gives back nothing, except
            for an answer that repeats its fault. Default 500: while nothing is answered, they pay for 35 retries (100
            throttled ones). An outage costs 1.35 times the requests of 100 calls and 1.02 times those of 1,750, instead
            of 5 times.

    Example:
        >>> RetryPolicy(attempts=1).attempts  # never try again
        1
    """

    attempts: int = field(default=5, validator=validator(whole, 1))
    backoff: float = field(default=0.2, validator=validator(seconds, zero=True))
    throttle_backoff: float = field(default=1.0, validator=validator(seconds, zero=True))
    backoff_max: float = field(default=20, validator=validator(seconds, zero=True))
    retry_after_max: float = field(default=120, validator=validator(seconds, zero=True))
    quota: int = field(default=500, validator=validator(whole, 0))

    __repr__ = brief_repr


@frozen
class Paging:
    """How lists are read.

    Attributes:
        page_size: Records per page. Default 100: the maximum of the allocation endpoints.
        prefetch: Maximum number of pages in flight or waiting while one is in use; with 0, a page is requested only
            when it is needed. Default 4: the work on a page hides the latency of a usual answer.
        verify: True reads every list of several pages at least twice, with other page borders, and gives nothing until
            two readings agree. Default False.

    Example:
        >>> Paging(page_size=50, prefetch=8).prefetch
        8
    """

    page_size: int = field(default=100, validator=validator(whole, 1))
    prefetch: int = field(default=4, validator=validator(whole, 0))
    verify: bool = field(default=False, validator=validator(flag))

    __repr__ = brief_repr


@frozen
class CarefulPaging(Paging):
    """Paging of the jobs: a page is requested after a short page 1 of any length that may be a server's cap."""

    __repr__ = brief_repr


_KINDS: dict[str, type[Any]] = {"limits": Limits, "paging": Paging, "retry": RetryPolicy, "timeouts": Timeouts}


@frozen(eq=False)
class Settings:
    """Everything that a view of a session may have of its own, and the session's `limits`."""

    timeouts: Timeouts
    retry: RetryPolicy
    paging: Paging
    limits: Limits
    headers: Mapping[str, str] = field(repr=False)  # a user's own may hold a key
    dag_scope: str | None
    server_timezone: tzinfo | None
    priority: Priority | None = None

    __repr__ = brief_repr

    @classmethod
    def checked(cls, *, headers: Any, dag_scope: Any, server_timezone: Any, **kinds: Any) -> Settings:
        """The settings of a session, from arguments of any kind.

        Raises:
            InvalidRequestError: An argument is invalid. The frames of its traceback hold the headers.
        """
        _check_kinds(kinds)
        return cls(
            headers=check.headers(headers),
            dag_scope=check.dag_scope(dag_scope),
            server_timezone=check.timezone(server_timezone),
            **kinds,
        )

    def changed(self, *, headers: Any = None, priority: Any = None, **kinds: Any) -> Settings:
        """The settings of a view: those that are None stay, and headers are added.

        Raises:
            InvalidRequestError: An argument is invalid. The frames of its traceback hold the headers.
        """
        given = {name: value for name, value in kinds.items() if value is not None}
        _check_kinds(given)
        if headers is not None:
            given["headers"] = merged_headers(self.headers, check.headers(headers))
        if priority is not None:
            given["priority"] = check.choice("priority", priority, PRIORITIES)
        return evolve(self, **given)


def _check_kinds(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        check.kind(name, value, _KINDS[name], _KINDS[name].__name__)


def merged_headers(base: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Both; `more` replaces headers of the same name, whatever the case of it."""
    named = {name.lower() for name in more}
    return {**{name: value for name, value in base.items() if name.lower() not in named}, **more}
