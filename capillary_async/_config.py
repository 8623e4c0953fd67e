"""The settings of a session, one frozen class a concern, each default with its reason.

Invariant: a value that cannot work is refused when the object is made, by name. Changed with `attrs.evolve`. Read by
the session, the transport and the pager.
"""

from __future__ import annotations

from attrs import field, frozen

from capillary_async._repr import brief_repr
from capillary_async._validation import flag, refuse, seconds, validator, whole

__all__ = ["Limits", "Paging", "Rate", "RetryPolicy", "Timeouts"]


@frozen
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect: For DNS, TCP and TLS. 10: three lost SYNs are 7 s, so a fourth would be hopeless.
        read: Between two pieces of an answer, of which the headers are the first. 30: the API's slowest pages answer
            within 20.
        attempt: One whole attempt, from the permit to the last byte; it also ends what drips a byte a second. 60.
        call: A whole call with all its attempts and waits. A single call (`request`, each page of a list) is bounded
            from its beginning, its waits in the session's own queue included: for a permit, the rate, the token. The
            calls of a fan-out wait there as long as they must, and are bounded from their first permit; a fan-out ends
            when nothing was answered for so long. 180: five attempts of a slow server and their waits, and still below
            the idle limits of load balancers and schedulers.

    Example:
        >>> Timeouts(read=5, attempt=10, call=30)
        Timeouts(connect=10, read=5, attempt=10, call=30)
    """

    connect: float = field(default=10, validator=validator(seconds))
    read: float = field(default=30, validator=validator(seconds))
    attempt: float = field(default=60, validator=validator(seconds))
    call: float = field(default=180, validator=validator(seconds))

    __repr__ = brief_repr


@frozen
class Rate:
    """At most `permits` requests in any `per` seconds, whoever sends them, by the server's own clock.

    Only the server knows when a request arrived. So a permit comes back `per` seconds after the answer, and the
    throughput is `permits` in `per` seconds plus the time of an answer. A request that is sent and not answered, since
    it was cancelled or took too long, keeps its permit until the other side ends the connection too, for 30 s at most,
    and then for `per` seconds.

    What cannot be promised: a request that is on its way for longer than these 30 s, or behind a proxy that ends our
    connection and passes the request on later, or left in an event loop that was stopped in its middle, may arrive with
    later ones. With a `client_session` of your own a permit comes back `per` seconds after a request was broken off.
    Each process counts its own requests: a forked child begins with a fresh rate, so parent and child together may send
    twice as many.

    Where single calls and the calls of fan-outs or jobs (see `AsyncSession.with_options`) share a rate, the latter
    leave a part of it free: at the beginning they take half of the permits at once and the others evenly over `per`;
    from then on, alone, they use all of it.

    Attributes:
        permits: How many.
        per: Of how many seconds.

    Example:
        >>> Rate(100, per=60)
        Rate(permits=100, per=60)
    """

    permits: int = field(validator=validator(whole, 1))
    per: float = field(validator=validator(seconds))

    __repr__ = brief_repr


def _rate(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Rate):
        raise refuse(name, "a Rate or None, e.g. Rate(100, per=60)", value)


@frozen
class Limits:
    """How much at once and how fast.

    Attributes:
        concurrency: Requests under way at once at most, over all loops and threads of the session. 32: above it a
            single core is busy decoding.
        concurrency_start: How many the adaptive limit starts with; not more than `concurrency`. 8: polite to a cold
            cluster. It grows by one for each limit's worth of good answers, at most every 100 ms and only while it is
            used up; 429, 503 and timeouts cut it to 0.7 of itself, at most once in 500 ms.
        rate: A `Rate`, or None. None: production limits are set per brand; test clusters allow `Rate(100, per=60)` a
            key.

    Beside these, a 429 or 503 with `Retry-After` stops every task of the session until that time; then one request
    looks whether the service takes them again. Three 429 in a row without it do so for a backoff of the session's own.

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
    """Whether and when to try again. All five calls only read, so trying again is always safe.

    Attributes:
        attempts: Of one call, the first included. 5: faults of 1 % lose one call in 10,000,000,000.
        backoff: Base of the wait in seconds: uniform(0, min(backoff_max, backoff * 2**n)). 0.2: full jitter over
            0.2, 0.4, 0.8 and 1.6 s.
        throttle_backoff: The base after 429 and 503. 1.0: the server said that it has too much to do.
        backoff_max: The longest own wait in seconds. 20.
        retry_after_max: The longest `Retry-After` in seconds that is obeyed; a longer one is an error at once, also of
            calls that would be sent while it lasts: once in that time (or in a minute, if that is more) one is. 120.
        quota: Tokens of the session for retries: 14 a transient fault, 5 a throttled one. A call that ends well gives
            back what its last retry took, or one token where it needed none; a call that fails gives back nothing, but
            for an answer that repeats its fault. 500: while nothing is answered, they pay for 35 retries (100 throttled
            ones). An outage costs 1.35 times the requests of 100 calls, 1.02 times those of 1,750, and not 5 times.

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
        page_size: Records asked for a page. 100: the most that the allocation endpoints give.
        prefetch: Pages in flight or waiting at most while one is being used; 0 asks for a page only when it is wanted.
            4: hides the latency of a usual answer behind the work on a page.
        verify: Read every list of several pages at least twice, with other page borders, and give nothing until two
            reads agree. False.

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
    """Paging of the jobs: a short page 1 of any length is looked behind where it may be a server's cap."""
