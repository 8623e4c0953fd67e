"""The `APIError` of a refusal: class, message and advice, by the code in its body first, then by its status.

Invariant: a body code decides before the status does, and every message says what to do next. Pure functions, called by
`classify.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from capillary_async._codec import decode as _decode
from capillary_async._transport import refusal
from capillary_async._transport.extract import cleaned, extract, text_of, title_of
from capillary_async._transport.retry_decision import WHOLE, asked_wait, decisive_status
from capillary_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    CustomerNotFoundError,
    DecodeError,
    LedgerRequestError,
    MergedCustomerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)

if TYPE_CHECKING:
    from capillary_async._transport.messages import Response, ResponseSpec
    from capillary_async.errors import ApiMessage

__all__ = [
    "ADVICE",
    "NO_JSON",
    "PARTIAL",
    "api_error",
    "class_of",
    "first_of",
    "is_html",
    "parsed_or",
    "refusal_in",
    "refused",
]

BAD_CLIENT_KEY = 320001
# The error tables of Get Points Ledger Explode Info and Get Loyalty Events, as instructions.
ADVICE = {
    1632: "the group id, external id or primary user id is invalid: check the identifier",
    8013: "the identifier name is not supported: use one of Identifier's kinds",
    8015: "no customer has this id: check it",
    8069: "the customer was merged: ask for the surviving customer's id",
    9003: "the type is invalid: use CUSTOMER or USERGROUP2",
    9005: "alternate_currency_names is invalid: give names of currencies of this organisation",
    9018: "no alternate currency matches the filters: give a valid name",
    9021: "an event id is unknown: check event_ids",
    9022: "an event reference id is unknown: check event_reference_ids",
    11012: "the user id is invalid: check the identifier's value",
    11013: "identifier and source must not be empty",
    11014: "no such event name: use one of EventName",
    11016: "an event id is unknown: check event_ids",
    11017: "an event id is no number: check event_ids",
    11019: "capturing of the source is disabled: ask Capillary's product support to enable it",
    11021: "give event_ids or event_name with event_reference_ids, not both",
    11023: "give event_ids, or event_name with event_reference_ids",
    BAD_CLIENT_KEY: "the OAuth key or secret is wrong",
}
_LEDGER_CODES = frozenset({1632, 8013, *range(9003, 9023), *range(11001, 11024)})
_BY_CODE: dict[int, type[APIError]] = {
    8015: CustomerNotFoundError,
    8069: MergedCustomerError,
    BAD_CLIENT_KEY: AuthenticationError,
    **dict.fromkeys(_LEDGER_CODES, LedgerRequestError),
}
_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitedError,
    498: AuthenticationError,
}
_UNKNOWN = "the API's page does not describe it: see .errors, and report it with the request id"
PARTIAL = 206
_STATUS_ADVICE = {
    202: "the answer is not ready: try again later",
    PARTIAL: "a part of the answer is missing, e.g. in a cache before the API: try again later",
    400: "a parameter is wrong: check the arguments",
    401: "check the credentials",
    403: "the credentials may not read this: ask for the access group that the API page names",
    404: "no such resource: check the arguments and base_url",
    429: "too many requests: lower Limits.rate or Limits.concurrency",
    461: "the search is busy: try again later",
    498: "the token is not accepted: check the credentials",
    521: "another action of this customer is running, or the origin is down: try again later",
}
NO_JSON = object()
_BOM = b"\xef\xbb\xbf"
_FILLERS = frozenset({b" ", b"\t", b"\r", b"\n", _BOM[:1]})


def refusal_in(parsed: dict[str, Any], shape: ResponseSpec) -> tuple[ApiMessage, ...] | None:
    """The failures that a body states, whatever its status line says; None where it states none.

    Args:
        parsed: The body.
        shape: How the answer is read; where any object may be the answer, `code` beside `message` may be data, e.g. of
            a coupon.
    """
    if shape.free:
        return refusal.own_failures(parsed, lambda code: not _is_data(code))
    return refusal.failures(parsed, shape.member)


def _is_data(code: int) -> bool:
    return code not in _BY_CODE and decisive_status(0, code) == 0


def refused(response: Response) -> APIError:
    """The refusal that a status line states."""
    parsed = NO_JSON if first_of(response.body) in (b"", b"<") else parsed_or(response.body, NO_JSON)
    stated = refusal.own_failures(cast("dict[str, Any]", parsed)) if isinstance(parsed, dict) else None
    return api_error(response, parsed, stated or ())


def api_error(response: Response, parsed: Any, errors: tuple[ApiMessage, ...]) -> APIError:
    decisive = _decisive(errors)
    code = decisive.code if decisive else None
    html = parsed is NO_JSON and is_html(response)
    words = (decisive.message if decisive else "") or _words(response, parsed, html=html)
    return class_of(response.status, code)(
        _describe(response, code, cleaned(words), html=html),
        status=response.status,
        code=code,
        errors=errors,
        request_id=response.request_id,
        retry_after=asked_wait(response.headers, decisive_status(response.status, code)),
        html=html,
        body=extract(response.body, parsed),
    )


def _words(response: Response, parsed: Any, *, html: bool) -> str:
    """What a body says that states no failure in the API's own forms."""
    if parsed is not NO_JSON:
        return refusal.words(parsed) if isinstance(parsed, str | dict | list) else ""
    if html:
        return title_of(response.body)
    return "" if first_of(response.body) in (b"{", b"[") else text_of(response.body)  # half a JSON is in .body


def _decisive(errors: tuple[ApiMessage, ...]) -> ApiMessage | None:
    """Of several errors the first one whose code has a class of its own, else the first."""
    failed = [entry for entry in errors if refusal.fails(entry)] or errors
    known = (entry for entry in failed if entry.code is not None and not _is_data(entry.code))
    return next(known, failed[0] if failed else None)


def class_of(status: int, code: int | None) -> type[APIError]:
    """The class for a status line and a body code, the code first."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    decisive = decisive_status(status, code)
    if decisive >= 500:  # noqa: PLR2004
        return ServerError
    return _BY_STATUS.get(decisive, APIError)


def _describe(response: Response, code: int | None, words: str, *, html: bool) -> str:
    whole = response.status in WHOLE or response.status >= 300  # noqa: PLR2004
    parts = [f"the server {'refused with' if whole else 'gave no whole answer, but'} HTTP {response.status}"]
    if code is not None and code != response.status:
        parts.append(f", code {code}")
    if html:
        parts.append(" and an HTML page: something before the API answered")
    if words:
        parts.append(f": {words!r}")
    advice = _advice(response, code)
    return "".join(parts) + (f"; {advice}" if advice else "")


def _advice(response: Response, code: int | None) -> str:
    if code in ADVICE:
        return ADVICE[code]
    status = decisive_status(response.status, code)
    if 300 <= status < 400:  # noqa: PLR2004
        return "redirects are not followed: check base_url"
    advice = "the service or a proxy before it failed: try again later" if status >= 500 else _UNKNOWN  # noqa: PLR2004
    return _STATUS_ADVICE.get(status, advice)


def is_html(response: Response) -> bool:
    """Whether the body is an HTML page, by its first character or its declared type."""
    return first_of(response.body) == b"<" or "text/html" in response.headers.get("Content-Type", "").lower()


def first_of(body: bytes) -> bytes:
    """The first character that says something, behind a byte order mark and blanks."""
    return body.removeprefix(_BOM).lstrip(b" \t\r\n")[:1] if body[:1] in _FILLERS else body[:1]


def parsed_or(body: bytes, otherwise: Any) -> Any:
    try:
        return _decode.parse(body)
    except DecodeError:
        return otherwise
