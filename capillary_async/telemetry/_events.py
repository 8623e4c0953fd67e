"""The records that observers get, and the protocol of an observer.

Invariant: records are frozen and hold plain values; a path is without its query. Made by `CallWatch`, `RequestLimiter`,
`ListReader` and `OutcomeBuilder`; read by observers.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "CallEnded",
    "CallStarted",
    "Event",
    "GateOpened",
    "GateShut",
    "KeyFinished",
    "LimitChanged",
    "Observer",
    "PageRead",
    "Waited",
]


class Event(msgspec.Struct, frozen=True, gc=False):
    """The base of all records."""


class CallStarted(Event, frozen=True, gc=False):
    """A logical call began: one request with all its attempts.

    Attributes:
        call: Its number, unique in the process.
        method, path: Of its request, without the query.
        base_url: Of the server.
        priority: `interactive` or `bulk`.
        fan_out: Whether a fan-out or a job makes it.
        token: Whether it fetches the OAuth token, for all calls that wait for it.
        probe: Whether the session repeats the request answered last, to see whether the service answers at all.
    """

    call: int
    method: str
    path: str
    base_url: str
    priority: str
    fan_out: bool = False
    token: bool = False
    probe: bool = False


class CallEnded(Event, frozen=True, gc=False):
    """A logical call ended.

    Attributes:
        call: Its number.
        method, path: Of its request.
        seconds: From its beginning, waits included.
        attempts: HTTP requests that it made.
        status: The HTTP status of the answer; None where none came, or the call was cancelled.
        size: Bytes of the body, decompressed.
        request_id: The server's id of the last request.
        error: The name of the error's class, e.g. `ServerError`; None for success.
    """

    call: int
    method: str
    path: str
    seconds: float
    attempts: int
    status: int | None = None
    size: int = 0
    request_id: str | None = None
    error: str | None = None


class AttemptStarted(Event, frozen=True):
    """One HTTP request of a call goes out now: it has its permit.

    Attributes:
        call: The number of its call.
        number: 1 for the first.
        headers: Headers that an observer adds to this request, e.g. `traceparent`; those of the SDK stay as they are.
    """

    call: int
    number: int
    headers: dict[str, str]


class AttemptEnded(Event, frozen=True, gc=False):
    """One HTTP request of a call ended.

    Attributes:
        call: The number of its call.
        number: 1 for the first.
        method, path: Of its call.
        kind: `ok`, `cancelled`, or the kind of the failure, as in `AttemptRecord.kind`.
        seconds: From its permit to its decoded answer.
        status: The HTTP status; None where no status line came.
        code: The API's own number of a refusal.
        request_id: The server's id of the request.
        retried: Whether the call is tried again.
        slept: Seconds slept before that.
    """

    call: int
    number: int
    method: str
    path: str
    kind: str
    seconds: float
    status: int | None = None
    code: int | None = None
    request_id: str | None = None
    retried: bool = False
    slept: float = 0.0


class Waited(Event, frozen=True, gc=False):
    """A call waited for its permit.

    Attributes:
        call: Its number.
        reason: `rate`, `gate` or `concurrency`: what kept it when it began to wait.
        seconds: How long.
    """

    call: int
    reason: str
    seconds: float


class GateShut(Event, frozen=True, gc=False):
    """The gate of the session shut: no request goes out but probes.

    Attributes:
        reason: `retry-after`, `throttled` (429 in a row), or `outage`.
    """

    reason: str


class GateOpened(Event, frozen=True, gc=False):
    """The gate opened again.

    Attributes:
        reason: Why it had been shut.
        seconds: For how long it had been shut.
    """

    reason: str
    seconds: float


class LimitChanged(Event, frozen=True, gc=False):
    """The adaptive limit of concurrent requests changed.

    Attributes:
        limit: Its value now.
        before: Its value before.
    """

    limit: int
    before: int


class PageRead(Event, frozen=True, gc=False):
    """A page of a list was read and checked.

    Attributes:
        endpoint: E.g. `points_allocation.by_expiry`.
        page: Its number, 1 for the first.
        records: Records that the page gives.
        duplicates: Records that were dropped, since the list had them before.
        request_id: The server's id of its request.
    """

    endpoint: str
    page: int
    records: int
    duplicates: int = 0
    request_id: str | None = None


class KeyFinished(Event, frozen=True):
    """A fan-out finished with a key.

    Attributes:
        endpoint: E.g. `points_allocation.by_expiry_many`.
        key: The key, which the repr leaves out: it may be a mobile number.
        records: Records that were read of it.
        pages: Pages that were read of it.
        seconds: Since its reading began.
        error: The name of the error's class; None for success.
    """

    endpoint: str
    key: Any
    records: int
    pages: int
    seconds: float
    error: str | None = None

    def __repr__(self) -> str:
        counts = f"records={self.records}, pages={self.pages}, seconds={self.seconds}, error={self.error!r}"
        return f"KeyFinished(endpoint={self.endpoint!r}, {counts})"


class Observer(Protocol):
    """A callable that gets every record of a session, in the task and context of the call that it is about.

    It returns at once: it is called between the steps of a call. An error that it raises is logged.

    Example:
        >>> def show(event: Event) -> None:
        ...     if isinstance(event, CallEnded):
        ...         print(event.method, event.path, event.status, event.seconds)
    """

    def __call__(self, event: Event, /) -> object:
        """Take one record."""
        ...
