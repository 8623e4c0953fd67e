"""What travels along the chain: `Request` down, `Response` up, and the `CallState` they belong to.

Invariant: requests and responses are values; only `CallState`, the record of one logical call, changes. No repr shows a
secret. Made by the endpoints, read by every step of the chain and by users' own middlewares.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field, frozen

from capillary_async._config import Timeouts
from capillary_async._repr import brief, brief_repr
from capillary_async.errors import AttemptRecord, CapillaryError

if TYPE_CHECKING:
    from capillary_async._transport.call_watch import CallWatch

__all__ = [
    "DEFERRED",
    "CallState",
    "Handler",
    "Headers",
    "Middleware",
    "Passage",
    "Request",
    "Response",
    "ResponseSpec",
    "after",
    "apart",
    "came_over",
    "decoded_of",
    "discard",
    "is_copy",
    "part_of",
    "repeat_of",
    "set_decoded",
]

SECRET_HEADERS = frozenset({"authorization", "x-cap-api-oauth-token", "cookie", "set-cookie", "proxy-authorization"})

# In place of what a body says: it looks whole, and is decoded when its records are wanted.
DEFERRED: Any = object()


class Headers(dict[str, str]):
    """Header names and values whose repr hides credentials."""

    def __repr__(self) -> str:
        shown = {name: "***" if name.lower() in SECRET_HEADERS else value for name, value in self.items()}
        return brief(shown)

    __str__ = __repr__


@define
class ResponseSpec:
    """How the answer to a request is read.

    Attributes:
        model: The class of a record; None for plain JSON.
        member: The envelope's member that holds the records (`data`, `events`); None for a bare array.
        free: True for any JSON at all (`session.request`).
        timezone: Of the server, for ISO times without an offset.
        owners: The customers asked: at least one record belongs to one of them. Empty where that cannot be said.
        raw: Whether plain pages give raw rows in place of records.
    """

    model: Any = None
    member: str | None = None
    free: bool = False
    timezone: tzinfo | None = None
    owners: frozenset[int] = frozenset()
    raw: bool = False

    __repr__ = brief_repr


class Passage(Protocol):
    """A request that was sent and not answered, on its way to the server for all that is known."""

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call `callback`, in the loop of the request, once the request has arrived or never will."""
        ...


def _no_attempts() -> list[AttemptRecord]:
    return []


@define(eq=False)
class CallState:
    """One logical call: its clock and what its attempts came to.

    Attributes:
        timeouts: The `Timeouts` in force.
        started: Monotonic seconds of the first permit, None before.
        history: A record for each attempt that failed.
        answer: The error made of the last answer of the server, None where none came.
        bulk: Whether it leaves room for single calls.
        since: Monotonic seconds of the beginning of a single call, whose waits before the first permit count too; None
            for a call of a fan-out, whose clock starts with the first permit.
        passage: Set where the last attempt was broken off before its answer and may still be on its way.
        last: The error of the last attempt.
        max_wait: Seconds that it waits at a shut gate, where it is the call of a fan-out or a job; 0 for a single call,
            which fails at once in an outage.
        throttled_tries: How often it begins again after it used up its attempts on 429 while others were answered.
        waits_since: When it first waited at a shut gate, by the limiter's clock.
        seen: How many requests of the session had been answered when it last began.
        tries: How often it began again while others were answered, which shows that it fails by itself.
        rounds: How often it began again.
        earlier: Attempts of the rounds before this one.
        spent: Seconds that its clock ran before it stopped.
        watch: Makes its records for observers; None where nothing observes.
    """

    timeouts: Timeouts
    started: float | None = None
    history: list[AttemptRecord] = field(factory=_no_attempts)
    answer: CapillaryError | None = None
    bulk: bool = False
    since: float | None = None
    passage: Passage | None = None
    last: CapillaryError | None = None
    max_wait: float = 0.0
    throttled_tries: int = 0
    waits_since: float | None = None
    seen: int = 0
    tries: int = 0
    rounds: int = 0
    earlier: int = 0
    spent: float = 0.0
    watch: CallWatch | None = None

    def begin(self) -> None:
        """Start the clock of a single call."""
        self.since = time.monotonic()

    __repr__ = brief_repr

    def start(self) -> None:
        """Note the first permit, which starts the clock of a fan-out's call."""
        if self.started is None:
            self.started = time.monotonic()

    def begin_again(self) -> None:
        """Begin a new round: attempts and clock start again, the history goes on."""
        self.earlier = len(self.history)
        self.rounds += 1
        self._stop()

    def stop(self, now: float) -> None:
        """Stop the clock while the call waits at a shut gate; `now` is the limiter's time."""
        self.waits_since = now if self.waits_since is None else self.waits_since
        self._stop()

    def _stop(self) -> None:
        if self.started is not None:
            self.spent += time.monotonic() - self.started
            self.started = None

    @property
    def this_round(self) -> list[AttemptRecord]:
        """The attempts since the call last began."""
        return self.history[self.earlier :]

    @property
    def clocked(self) -> bool:
        """Whether the clock runs."""
        return self.since is not None or self.started is not None

    def remaining(self) -> float:
        """Seconds left of `Timeouts.call`; all of them before the clock runs."""
        return self.timeouts.call - self._running()

    def elapsed(self) -> float:
        """Seconds that the clock has run."""
        return self.spent + self._running()

    def _running(self) -> float:
        """Seconds since the clock was last started."""
        began = self.started if self.since is None else self.since
        return 0.0 if began is None else time.monotonic() - began

    def queued(self) -> float:
        """Seconds from the beginning of a single call to its first permit; 0 for others."""
        return 0.0 if self.since is None or self.started is None else self.started - self.since


def _headers(given: Mapping[str, str]) -> Headers:
    return given if type(given) is Headers else Headers(given)


def _changed(request: Request, values: dict[str, Any]) -> Request:
    """A copy with other values: what `attrs.evolve` does, in a tenth of its time. Each call makes two of them."""
    copy = object.__new__(type(request))
    vars(copy).update(vars(request))
    vars(copy).update(values)
    return copy


@frozen(eq=False, slots=False)  # a frozen class without slots is made in half the time
class Request:
    """One request of the API, complete but for credentials and host.

    Attributes:
        method: `GET`, or `POST` for the token.
        path: The path below the base URL, each segment quoted.
        query: The encoded query, without `?`.
        headers: Of this request. The repr hides credentials.
        body: JSON bytes of the token request, else None.
        shape: How the answer is read.
        call: The logical call this request belongs to, set by the chain.
        late: Whether a body that looks whole may be left undecoded: it waits more cheaply than its records.
        fault: Why an answer left undecoded could not be read in the end: it counts as the first attempt.
        fresh: Whether it goes out on a connection of its own: those that are open may have an answer too many.
        refusals: Takes each `Response` that is a `NotFoundError`, for an archive; None where nothing keeps them.
    """

    method: str
    path: str
    query: str = field(default="", repr=False)
    headers: Headers = field(factory=Headers, converter=_headers)
    body: bytes | None = field(default=None, repr=False)
    shape: ResponseSpec | None = field(default=None, repr=False)
    call: CallState | None = field(default=None, repr=False)
    late: bool = field(default=False, repr=False)
    fault: CapillaryError | None = field(default=None, repr=False)
    fresh: bool = field(default=False, repr=False)
    refusals: list[Any] | None = field(default=None, repr=False)

    __repr__ = brief_repr

    def with_header(self, name: str, value: str) -> Request:
        """The same request with one more header."""
        headers = Headers(self.headers)
        headers[name] = value
        return _changed(self, {"headers": headers})


@frozen(eq=False, slots=False)
class Response:
    """One whole answer.

    Attributes:
        status: The HTTP status.
        headers: As they came.
        body: The whole body, decompressed.
        elapsed: Seconds of the attempt that brought it.
        request_id: `X-CAP-REQUEST-ID` (or `X-Cap-RequestID`) of the answer.
    """

    status: int
    headers: Mapping[str, str] = field(factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)
    elapsed: float = 0.0
    # Not an argument, so that `attrs.evolve(response, body=...)` never carries the old body's records along.
    _decoded: Any = field(default=None, init=False, repr=False)
    _discard: Callable[[], None] | None = field(default=None, init=False, repr=False)
    _copy: bool = field(default=False, init=False, repr=False)

    __repr__ = brief_repr

    @property
    def request_id(self) -> str | None:
        """The server's id of this request, None where it sent none."""
        return self.headers.get("X-CAP-REQUEST-ID") or self.headers.get("X-Cap-RequestID")


class Handler(Protocol):
    """The rest of the chain, to which a middleware passes a request on."""

    def __call__(self, request: Request, /) -> Awaitable[Response]:
        """Send the request."""
        ...


class Middleware(Protocol):
    """A step around each call, which may change the request, the response, or answer itself.

    Example:
        >>> async def stamped(request: Request, handler: Handler) -> Response:
        ...     return await handler(request.with_header("X-Correlation-ID", "4711"))
    """

    def __call__(self, request: Request, handler: Handler, /) -> Awaitable[Response]:
        """Pass the request on to `handler`."""
        ...


# The SDK's own steps; users' middlewares are given values without them.


def part_of(request: Request, call: CallState) -> Request:
    """The same request as part of `call`."""
    return _changed(request, {"call": call})


def repeat_of(request: Request) -> Request:
    """The same request as a bulk call of its own that is not retried."""
    timeouts = Timeouts() if request.call is None else request.call.timeouts
    return part_of(request, CallState(timeouts, bulk=True))


def apart(request: Request) -> Request:
    """The same request, decoded at once, over a connection that had no request before."""
    return _changed(request, {"late": False, "fresh": True})


def after(request: Request, fault: CapillaryError | None) -> Request:
    """The same request, decoded at once, whose first attempt was made and failed if there is a `fault`."""
    return _changed(request, {"call": None, "late": False, "fault": fault, "fresh": False})


def decoded_of(response: Response) -> Any:
    """What the body says, once `set_decoded` was called, or `DEFERRED`; else None."""
    return response._decoded  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def set_decoded(response: Response, decoded: Any) -> Response:
    """Remember what the body says, so that it is decoded once."""
    object.__setattr__(response, "_decoded", decoded)
    return response


def came_over(response: Response, discard: Callable[[], None] | None, *, copy: bool = False) -> Response:
    """Remember how the connection that brought the answer is dropped."""
    object.__setattr__(response, "_discard", discard)
    object.__setattr__(response, "_copy", copy)
    return response


def is_copy(response: Response) -> bool:
    """Whether its connection brought the same bytes before, for another request."""
    return response._copy  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def discard(response: Response) -> None:
    """Drop the connection that brought the answer: its next answer may be for another request too."""
    if response._discard is not None:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        response._discard()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
