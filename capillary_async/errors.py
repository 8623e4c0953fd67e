"""The errors of the SDK, as one tree.

Invariant: an error is a value. `args == (message,)`, all else is in plain attributes, so that it pickles, crosses
processes and never holds a session, a request or a secret. Raised by every layer above; imports `_repr` alone.

    CapillaryError
    ├── InvalidRequestError (ValueError)        not sent: what is wrong with which argument
    ├── TransportError                          no complete answer
    │   ├── ConnectError ── TLSError            nothing was sent; TLS is never retried
    │   ├── RequestTimeoutError                 one attempt took too long, on the last attempt
    │   └── DeadlineExceededError               the call's own time ran out
    ├── APIError                                the server refused
    │   ├── BadRequestError 400   AuthenticationError 401/498   PermissionDeniedError 403
    │   ├── NotFoundError 404 ── CustomerNotFoundError (code 8015)
    │   ├── MergedCustomerError (code 8069)   LedgerRequestError (codes 9003-9022, 11001-11023, 1632, 8013)
    │   ├── RateLimitedError 429 (retry_after)   ServerError 5xx
    ├── DecodeError                             the answer has another shape than documented
    │   └── ResponseTooLargeError
    └── PagingError ── PageLoopError, PageDriftError, RecordConflictError
"""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen

from capillary_async._repr import brief_repr, error_repr

__all__ = [
    "APIError",
    "ApiMessage",
    "AttemptRecord",
    "AuthenticationError",
    "BadRequestError",
    "CapillaryError",
    "ConnectError",
    "CustomerNotFoundError",
    "DeadlineExceededError",
    "DecodeError",
    "InvalidRequestError",
    "LedgerRequestError",
    "MergedCustomerError",
    "NotFoundError",
    "OriginalError",
    "PageDriftError",
    "PageLoopError",
    "PagingError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RecordConflictError",
    "RequestTimeoutError",
    "ResponseTooLargeError",
    "ServerError",
    "TLSError",
    "TransportError",
]

_NOT_FOUND = 404
_PASSING = frozenset({408, 425, 429, 461})  # below 500, and the retry rules retry them


@frozen
class ApiMessage:
    """One entry of the `errors` or `warnings` of an answer.

    Attributes:
        code: The API's own number, e.g. 9018; None where the SDK itself warns.
        message: The text as it came.
        status: The entry's `status` member, usually False.
    """

    code: int | None
    message: str
    status: bool | None = None

    __repr__ = brief_repr


@frozen
class AttemptRecord:
    """How one attempt of a call ended.

    Attributes:
        number: 1 for the first attempt.
        kind: `TransportError.kind`; or `status`, `code` (under HTTP 200), `not-json`, `bad-json`, `shape`,
            `misdirected`, `too-large`, as in `DecodeError.kind`.
        status: The HTTP status, None where no status line came.
        slept: Seconds slept after this attempt, 0.0 after the last.
    """

    number: int
    kind: str
    status: int | None
    slept: float = 0.0

    __repr__ = brief_repr


class OriginalError(Exception):
    """The chained cause of an error of ours: the message of the library below, without its objects, headers and frames.

    Attributes:
        type_name: The qualified name of the class that was raised, e.g.
            `aiohttp.client_exceptions.ServerDisconnectedError`.
    """

    type_name: str = ""

    def __init__(self, message: str, *, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name

    __repr__ = error_repr

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__), self.__cause__, self.__suppress_context__)


def _restore(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None, quiet: object
) -> BaseException:
    """Rebuild an error from its pickled parts without `__init__`, so that subclasses keep working."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    error.__suppress_context__ = bool(quiet)
    return error


class CapillaryError(Exception):
    """The root: `except CapillaryError` catches everything that the SDK raises on purpose.

    With one exception: the use of a closed session raises `RuntimeError`.

    Attributes:
        method, path: The request, e.g. `GET` and `/v2/customers/1/loyaltyEvents`; None where nothing was to be sent.
            The query is left out, since it may hold mobile numbers and e-mail addresses.
        attempts: How many attempts were made; in a fan-out, of all calls for the key that failed.
        elapsed: Seconds from the call's first permit to the error; in a fan-out, the sum of those calls.
        history: An `AttemptRecord` for each attempt.
        quota_exhausted: True where another attempt was due and the session's retry quota was empty.
        position: The next unread record, in an error raised by a `Pager`; pass it to `.options(start=...)`.
        key: The key that was read, in an error raised by a `FanOut`.
        sent: False where the session sent nothing, since no request was answered or others were refused just before.
        retry_after: Seconds until a request may be sent again; None where that is not known.
        outage: Whether the service did not answer for as long as the call may wait, which concerns every call.
    """

    method: str | None
    path: str | None
    attempts: int
    elapsed: float
    history: tuple[AttemptRecord, ...]
    quota_exhausted: bool
    position: Any
    key: Any
    # Defaults of the class: an error that says otherwise has its own.
    sent: bool = True
    retry_after: float | None = None
    outage: bool = False

    def __init__(self, message: str = "", *, method: str | None = None, path: str | None = None) -> None:
        super().__init__(message)
        self.method = method
        self.path = path
        self.attempts = 0
        self.elapsed = 0.0
        self.history = ()
        self.quota_exhausted = False
        self.position = None
        self.key = None

    @property
    def message(self) -> str:
        """The text of the error, which says what happened, to which request, and what to do."""
        return str(self.args[0]) if self.args else ""

    @property
    def is_definitive(self) -> bool:
        """Whether the server answered, and would answer the same again, so that a retry does not help.

        False for errors of connecting, timeouts, 429, 5xx, bodies that are cut or not the API's (HTML), pages
        that did not fit together, and for requests that were never sent.
        """
        return False

    @property
    def concerns_all_keys(self) -> bool:
        """Whether every other key of the session would fail in the same way, so that going on with them is useless.

        True for `AuthenticationError` and `TLSError`, and where `outage` is True.
        """
        return self.outage

    @property
    def lacks_answer(self) -> bool:
        """Whether the service gave no answer of its own, so that it may be down and the key may be right.

        True for errors of connecting, timeouts, 429, 5xx, and for bodies that are cut or no JSON.
        """
        return False

    def __str__(self) -> str:
        return self.message

    __repr__ = error_repr

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__), self.__cause__, self.__suppress_context__)


class InvalidRequestError(CapillaryError, ValueError):
    """Nothing was sent: an argument is invalid. Raised at the call.

    The message names the argument, the value and what is allowed.

    Attributes:
        argument: The name of the argument, e.g. `entity_id`; None if no single one is invalid.
    """

    argument: str | None

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class TransportError(CapillaryError):
    """No complete answer came: the connection was reset, closed or spoke no HTTP, even after all retries.

    Attributes:
        kind: What happened, as in `AttemptRecord.kind`: `connect`, `connect-timeout`, `proxy` (a
            proxy refused to connect), `tls`, `timeout`, `disconnected`,
            `cut-body`, `protocol`, `deadline`, `queue` (the time ran out before anything was sent), `shared-rate` (its
            Redis refuses; nothing was sent), `other`.
    """

    kind: str

    def __init__(self, message: str = "", *, kind: str = "disconnected") -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def lacks_answer(self) -> bool:
        """True, since no complete answer came."""
        return True


class ConnectError(TransportError):
    """No connection: DNS, refused, unreachable, or not within `Timeouts.connect`. Nothing was sent.

    With the kind `proxy`, the proxy refused, e.g. by 407 for want of its password; that is not retried.
    """

    @property
    def concerns_all_keys(self) -> bool:
        """Whether a proxy refused, which all requests of the session go through, or `outage` is True."""
        return self.outage or self.kind == "proxy"


class TLSError(ConnectError):
    """The server's certificate or TLS version was refused, or ours was. Never retried; nothing was sent."""

    @property
    def concerns_all_keys(self) -> bool:
        """True, since every connection of the session has the same server and the same TLS settings."""
        return True


class RequestTimeoutError(TransportError):
    """The last attempt took longer than `Timeouts.read` or `Timeouts.attempt`."""


class DeadlineExceededError(TransportError):
    """The call as a whole ran out of `Timeouts.call` seconds before the server gave any answer."""


class APIError(CapillaryError):
    """The server answered and refused.

    Attributes:
        status: The HTTP status; 200 where the refusal was in the body.
        code: The API's own number from the body, None where there was none.
        errors: The entries of the body's `errors`, as `ApiMessage`.
        request_id: The server's request id, to be given to Capillary's support.
        retry_after: Seconds the server asked to wait, None where it did not say.
        html: True where the body was an HTML page, so that something before the API answered.
        body: The beginning of the body, at most 500 characters, without credentials, queries of URLs and control
            characters; JSON is encoded again, with `***` for secret members. Empty where nothing came, and for the
            token's own request.
        sent: False where the session sent nothing, since the server had refused its other requests just before.
    """

    status: int
    code: int | None
    errors: tuple[ApiMessage, ...]
    request_id: str | None
    retry_after: float | None
    html: bool
    body: str

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        code: int | None = None,
        errors: tuple[ApiMessage, ...] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        html: bool = False,
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors
        self.request_id = request_id
        self.retry_after = retry_after
        self.html = html
        self.body = body

    @property
    def is_definitive(self) -> bool:
        """Whether the API itself refused, and would again; an HTML page or a bare 404 is from something before it."""
        bare = self.status == _NOT_FOUND and self.code is None and not self.errors
        return self.sent and not self.html and not bare and self.status not in _PASSING


class BadRequestError(APIError):
    """400: a parameter is wrong. The same request fails again."""


class AuthenticationError(APIError):
    """401 or 498: the credentials or the token were refused, even after one token refresh. It concerns every call."""

    @property
    def concerns_all_keys(self) -> bool:
        """True, since every call of the session has the same credentials."""
        return True


class PermissionDeniedError(APIError):
    """403: the credentials are right and may not read this resource. The API page names the access group to request."""


class NotFoundError(APIError):
    """404: no such path or resource."""


class CustomerNotFoundError(NotFoundError):
    """Code 8015: no customer has this id (Get Loyalty Events)."""


class MergedCustomerError(APIError):
    """Code 8069: the customer was merged into another (Get Loyalty Events). Use the id of the surviving customer."""


class LedgerRequestError(APIError):
    """Codes 9003-9022, 11001-11023, 1632 and 8013: an identifier, event or filter of the ledger call was refused.

    Attributes:
        refused: The ids that were refused each by itself, while the others of their page were given; empty where the
            call as a whole was refused.
    """

    refused: tuple[str, ...] = ()


class RateLimitedError(APIError):
    """429: too many requests, even after waiting; or at once, where the server asks for more than `retry_after_max`."""

    @property
    def is_definitive(self) -> bool:
        """False, since a later request may pass."""
        return False

    @property
    def lacks_answer(self) -> bool:
        """True, since the server did not look at the request."""
        return True


class ServerError(APIError):
    """5xx: the server or a proxy before it failed, even after all retries."""

    @property
    def is_definitive(self) -> bool:
        """False, since the server may recover."""
        return False

    @property
    def lacks_answer(self) -> bool:
        """True, since the server could not serve the request."""
        return True


class DecodeError(CapillaryError):
    """The answer is not what the API's page describes, or it is for another customer. Nothing of it was given out.

    Attributes:
        paths: The path of each fault, e.g. `$[3].points_value`.
        faults: Each fault with its path, e.g. `$[3].points_value: expected a decimal number, got 'abc'`.
        body: The first characters of the body.
        malformed: True for no complete JSON at all (cut, HTML, empty), False for JSON of another shape.
        kind: What is wrong: `bad-json` (half of it, or wrong within), `not-json` (HTML, text, nothing), `shape`
            (another shape than documented), `beyond` (JSON that no record can hold), `misdirected` (records of another
            customer), `too-large`.
        cut: True where a malformed body ends before its end; one that does not is nearly always the same when sent
            again.
        empty: True where the answer is 204, `null` or `{}` in place of records.
        status, request_id: Of the answer.
    """

    paths: tuple[str, ...]
    faults: tuple[str, ...]
    body: str
    malformed: bool
    kind: str
    _kind: ClassVar[str] = ""
    cut: bool
    empty: bool
    status: int | None
    request_id: str | None

    def __init__(
        self,
        message: str = "",
        *,
        faults: tuple[str, ...] = (),
        paths: tuple[str, ...] = (),
        body: str = "",
        malformed: bool = False,
        kind: str = "",
        cut: bool | None = None,
        empty: bool = False,
    ) -> None:
        super().__init__(message)
        self.faults = faults
        self.paths = paths
        self.body = body
        self.malformed = malformed
        self.kind = kind or self._kind or _kind_of(body, malformed=malformed)
        self.cut = self.kind == "bad-json" if cut is None else cut
        self.empty = empty
        self.status = None
        self.request_id = None

    @property
    def is_definitive(self) -> bool:
        """Whether the answer was whole and had another shape; a body that is no JSON may come whole another time."""
        return not self.malformed

    @property
    def lacks_answer(self) -> bool:
        """Whether the body is cut or no JSON, of which a proxy or a broken connection may be the cause."""
        return self.cut or self.kind == "not-json"


def _kind_of(body: str, *, malformed: bool) -> str:
    """The kind of a DecodeError that is made without one."""
    begins = body.lstrip()[:1] in ("[", "{")
    return ("bad-json" if begins else "not-json") if malformed else "shape"


class ResponseTooLargeError(DecodeError):
    """The answer is larger than 64 MiB once decompressed. Never retried; request less at a time."""

    _kind = "too-large"


class PagingError(CapillaryError):
    """The pages of one list do not fit together. `position` is where reading stopped."""


class PageLoopError(PagingError):
    """The server gave a page that it had given before: it does not honour the page parameters."""


class PageDriftError(PagingError):
    """A verified read saw another list at each pass: records moved, came, went or changed. Read the list later."""


class RecordConflictError(PagingError):
    """The same record came twice with other content: it changed while the list was read. Read the list again."""
