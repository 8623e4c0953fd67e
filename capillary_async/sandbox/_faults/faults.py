"""Scripted faults: what can go wrong between a client and the API, each as a small value for the sandbox.

Invariant: a fault is frozen and holds no state, so that it may be used in several sandboxes; `_faults/schedule.py`
counts how often it was played. Of the faults that replace or spoil an answer one is played per request, in the order
given; the others add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs

from capillary_async._repr import brief_repr
from capillary_async.sandbox._protocol.answers import Answer, ok, v2_errors
from capillary_async.sandbox._protocol.query import Window
from capillary_async.sandbox._world.records import Row

__all__ = [
    "ConnectionReset",
    "CutBody",
    "ErrorEnvelope",
    "Fault",
    "HtmlAnswer",
    "ServerFailure",
    "SlowFirstByte",
    "Throttle",
]

_HTML = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


@attrs.frozen(kw_only=True)
class Fault:
    """What all faults share: when they are played.

    Make your own by subclassing it and one of the methods below.

    Attributes:
        times: How many requests it hits; None for every one.
        path: Only requests whose path contains this text; None for all, that of the token included.
        page: Only requests for this page; None for all.
        after: How many matching requests go by before it starts.

    Example:
        >>> Throttle(retry_after=1, times=2, path="paIds")
        Throttle(times=2, path='paIds', page=None, after=0, retry_after=1, status=429)
    """

    times: int | None = attrs.field(default=1)
    path: str | None = attrs.field(default=None)
    page: int | None = attrs.field(default=None)
    after: int = attrs.field(default=0)

    exclusive: ClassVar[bool] = False
    """Whether it replaces or spoils the answer: one such fault is played per request."""
    moves_rows: ClassVar[bool] = False
    """Whether `move` changes the list for this request and all later ones."""

    __repr__ = brief_repr

    def matches(self, path: str, page: int) -> bool:
        """Whether the request is one of those it is meant for."""
        return (self.path is None or self.path in path) and (self.page is None or self.page == page)

    def delay(self) -> float:
        """Seconds to wait before anything is answered."""
        return 0.0

    def instead(self, path: str) -> Answer | None:  # noqa: ARG002
        """What to answer instead of what was asked for, None to go on."""
        return None

    def window(self, window: Window) -> Window:
        """The part of the list to answer with, for the part asked for."""
        return window

    def move(self, rows: Sequence[Row], nth: int) -> Sequence[Row]:  # noqa: ARG002
        """The list as it is from this request on; `nth` is different for each time it moved."""
        return rows

    def entries(self, rows: list[Any]) -> list[Any]:
        """The entries of the page, for its rows."""
        return rows

    def past_end(self) -> Answer | None:
        """What to answer to a page after the first that holds nothing, None for an empty page."""
        return None

    def spoil(self, answer: Answer) -> Answer:
        """How the answer is sent."""
        return answer


@attrs.frozen
class Throttle(Fault):
    """429 Too Many Requests.

    Attributes:
        retry_after: The Retry-After header: seconds, or any text (an HTTP-date, garbage); None for no header.
        status: 429, or 503 for the other way to say it.

    Example:
        >>> faults = [Throttle()]                       # one 429 without Retry-After
        >>> faults = [Throttle(2, times=3)]             # three with Retry-After: 2
        >>> faults = [Throttle("Wed, 21 Oct 2015 07:28:00 GMT", times=None)]
    """

    retry_after: float | str | None = None
    status: int = 429
    exclusive: ClassVar[bool] = True

    __repr__ = brief_repr

    def instead(self, path: str) -> Answer:
        """The refusal, in the shape of the path's API."""
        return attrs.evolve(_refusal(path, self.status, "Too many requests"), headers=_retry_after(self.retry_after))


@attrs.frozen
class ServerFailure(Fault):
    """A status of 5xx, or any other.

    Attributes:
        status: The HTTP status.
        body: `json` for the API's own shape, `html` for a page of the proxy in front, `empty`, or the bytes themselves.
        retry_after: The Retry-After header, None for none.

    Example:
        >>> faults = [ServerFailure(503, times=3)]             # a burst of three
        >>> faults = [ServerFailure(502, body="html", path="loyaltyEvents")]
    """

    status: int = 500
    body: Literal["json", "html", "empty"] | bytes = "json"
    retry_after: float | str | None = None
    exclusive: ClassVar[bool] = True

    __repr__ = brief_repr

    def instead(self, path: str) -> Answer:
        """The failure."""
        return attrs.evolve(self._answer(path), headers=_retry_after(self.retry_after))

    def _answer(self, path: str) -> Answer:
        if isinstance(self.body, bytes):
            return Answer(self.body, self.status)
        if self.body == "json":
            return _refusal(path, self.status, "Internal error")
        return _html(self.status) if self.body == "html" else Answer(b"", self.status, "text/plain")


@attrs.frozen
class HtmlAnswer(Fault):
    """An HTML page where JSON is due, under status 200: a proxy or a captive portal answered.

    Example:
        >>> faults = [HtmlAnswer(times=2)]
    """

    status: int = 200
    exclusive: ClassVar[bool] = True

    __repr__ = brief_repr

    def instead(self, path: str) -> Answer:  # noqa: ARG002
        """The page."""
        return _html(self.status)


@attrs.frozen
class ErrorEnvelope(Fault):
    """An error code in the body, under status 200 by default: a body code decides before the status does.

    Attributes:
        code: The code in the body.
        message: Its text.
        status: The HTTP status.

    Example:
        >>> faults = [ErrorEnvelope(8015, "Customer not found", path="loyaltyEvents")]
    """

    code: int = 500
    message: str = "Internal error"
    status: int = 200
    exclusive: ClassVar[bool] = True

    __repr__ = brief_repr

    def instead(self, path: str) -> Answer:
        """The envelope, in the shape of the path's API."""
        return attrs.evolve(_refusal(path, self.code, self.message), status=self.status)


@attrs.frozen
class ConnectionReset(Fault):
    """The connection is reset (RST) before a byte of the answer.

    Example:
        >>> faults = [ConnectionReset(times=2, path="dateRange")]
    """

    exclusive: ClassVar[bool] = True

    __repr__ = brief_repr

    def instead(self, path: str) -> Answer:  # noqa: ARG002
        """Nothing."""
        return Answer(b"", send="reset")


@attrs.frozen
class CutBody(Fault):
    """The right answer, cut within its body.

    Attributes:
        keep: The part of the body that is sent, from 0 to 1; at least one byte is missing.
        how: `length` announces the whole Content-Length, sends less and closes; `chunked` closes before the last chunk;
            `content` is a complete HTTP message around half a JSON (or half a gzip stream).

    Example:
        >>> faults = [CutBody(0.5, page=2)]
        >>> faults = [CutBody(how="chunked", times=3)]
    """

    keep: float = attrs.field(default=0.5, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    how: Literal["length", "chunked", "content"] = "length"
    exclusive: ClassVar[bool] = True

    __repr__ = brief_repr

    def spoil(self, answer: Answer) -> Answer:
        """The same, sent in part."""
        return attrs.evolve(answer, send=self.how, keep=self.keep)


@attrs.frozen
class SlowFirstByte(Fault):
    """Nothing comes for a while, then the right answer does.

    Attributes:
        seconds: How long.

    Example:
        >>> faults = [SlowFirstByte(0.3, page=1)]
    """

    seconds: float = 1.0

    __repr__ = brief_repr

    def delay(self) -> float:
        """The seconds."""
        return self.seconds


def _html(status: int) -> Answer:
    return Answer(_HTML.format(f"{status} Bad gateway").encode(), status, "text/html")


def _retry_after(value: float | str | None) -> dict[str, str]:
    return {} if value is None else {"Retry-After": str(value)}


def _refusal(path: str, code: int, message: str) -> Answer:
    """A refusal with the code as status, in the shape of the path's API."""
    if path.startswith("/x/neo/"):
        return ok({"code": code, "message": message, "err": {"name": "SandboxFault"}}, code)
    return v2_errors(code, code, message)
