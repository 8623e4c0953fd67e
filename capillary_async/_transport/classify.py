"""Reading an answer: is it what was asked for, and if not, which error is it. Pure rules, inside the attempt.

Invariant: a body code decides before the status does; HTTP 200 may carry errors, and only 200 and 203 carry
records; half a JSON or an HTML page is told apart from JSON of another shape, since only the former may do better next
time; records of another customer are no answer. The step between `throttle` and `wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from capillary_async._codec import decode as _decode
from capillary_async._codec.faults import REPORT
from capillary_async._transport import refusal
from capillary_async._transport.messages import LATE, discard, keep
from capillary_async._transport.owners import foreign, misdirected, mixed
from capillary_async._transport.retry_decision import WHOLE, asked_wait, decisive_status
from capillary_async._transport.totals import total_of
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
    from capillary_async._codec.decode import Decoded
    from capillary_async._transport.messages import Handler, Request, Response, ResponseSpec
    from capillary_async.errors import ApiMessage

__all__ = ["check", "judge"]

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
NOTHING, PARTIAL = 204, 206
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
_BODY_SHOWN = 200
_NO_JSON = object()
_BOM = b"\xef\xbb\xbf"
_FILLERS = frozenset({b" ", b"\t", b"\r", b"\n", _BOM[:1]})


async def check(request: Request, handler: Handler) -> Response:
    """Pass on an answer that is what was asked for, decoded; raise the error that any other is."""
    response = await handler(request)
    if request.shape is None:
        return response
    late = request.late and looks_whole(response, request.shape)
    return keep(response, LATE if late else judge(response, request.shape))


def looks_whole(response: Response, shape: ResponseSpec) -> bool:
    """Whether a body seems to be an array of records to its end: one that was cut ends otherwise, nearly always."""
    bare = shape.member is None and not shape.free
    body = response.body
    return bare and response.status in WHOLE and body[:1] == b"[" and body[-2:] == b"}]"


def judge(response: Response, shape: ResponseSpec) -> Any:
    """What the answer says.

    Raises:
        APIError: The server refused, by status or by body.
        DecodeError: The body is no JSON, JSON of another shape, or holds another customer's records: then the
            connection that brought it is dropped.
    """
    if not _answers(response.status, shape):
        raise _refused(response)
    try:
        said = _read(response, shape)
        return said if not shape.owners else _owned(said, shape.owners)
    except DecodeError as error:
        fault = error
    if fault.kind == "misdirected":
        discard(response)
    fault.status, fault.request_id = response.status, response.request_id
    raise fault


def _answers(status: int, shape: ResponseSpec) -> bool:
    """Whether a status may come with the answer: 200 and 203 with records; what users ask for themselves has more."""
    if shape.free:
        return 200 <= status < 300 and status != PARTIAL  # noqa: PLR2004
    return status in WHOLE or status == NOTHING  # of which the body says that it is empty


def _owned(decoded: Decoded[Any], owners: frozenset[int]) -> Decoded[Any]:
    """The records, with a warning where some belong to customers that were not asked for.

    Raises:
        DecodeError: All of them do.
    """
    others = foreign(decoded.items, owners)
    if not others:
        return decoded
    fault = misdirected(decoded.items, others, owners)
    if fault is not None:
        raise fault
    return evolve(decoded, warnings=(*decoded.warnings, mixed(decoded.items, others, owners)))


def _read(response: Response, shape: ResponseSpec) -> Any:
    body = response.body
    first = _first(body)
    if first not in (b"[", b"{"):
        return _bare(response, shape, first)
    if shape.member is None and not shape.free and first == b"[":
        return _decode.rows(shape.model, body, timezone=shape.timezone)
    if shape.free and first == b"[":
        return _decode.decode(shape.model, body, timezone=shape.timezone)
    parsed = _decode.parse(body)
    if isinstance(parsed, dict):
        found = refusal_in(cast("dict[str, Any]", parsed), shape)
        if found is not None:
            raise _refusal(response, parsed, found)
    if shape.free:
        value = cast("Any", parsed)
        return value if shape.model is None else _decode.structure(shape.model, value, timezone=shape.timezone)
    return _enveloped(parsed, shape, body)


def _bare(response: Response, shape: ResponseSpec, first: bytes) -> Any:
    """An answer that is neither array nor object: the null, number or text that was asked for, or no JSON at all."""
    if first in (b"", b"<"):
        raise _no_json(response)
    if shape.free:
        return _decode.decode(shape.model, response.body, timezone=shape.timezone)
    parsed = _parsed_or(response.body, _NO_JSON)
    if parsed is _NO_JSON:
        raise _no_json(response)
    raise _other_shape(shape, "a bare value", response.body, empty=parsed is None)


def _enveloped(parsed: Any, shape: ResponseSpec, body: bytes) -> Decoded[Any]:
    if not isinstance(parsed, dict):
        if parsed == []:  # an empty object, as some languages write it: nothing is lost
            return _decode.Decoded((), 0)
        raise _other_shape(shape, "an array", body, empty=False)
    envelope = cast("dict[str, Any]", parsed)
    if shape.member is None:
        if _decode.is_record(shape.model, envelope):
            return _decode.structure_rows(shape.model, envelope, timezone=shape.timezone, body=body)
        raise _other_shape(shape, "an object", body, empty=not envelope, says=envelope)
    path = f"$.{shape.member}"
    if shape.member not in envelope:
        raise _misshapen(path, "missing", body, empty=not envelope, says=envelope)
    decoded = _decode.structure_rows(shape.model, envelope[shape.member], path=path, timezone=shape.timezone, body=body)
    given = refusal.messages(envelope.get("warnings")) + refusal.notices(envelope.get("errors"))
    total = total_of(envelope)
    if not given and total is None:
        return decoded
    return evolve(decoded, warnings=given + decoded.warnings, total=total)


def _other_shape(shape: ResponseSpec, got: str, body: bytes, *, empty: bool, says: Any = None) -> DecodeError:
    due = "an array" if shape.member is None else "an object"
    return _misshapen("$", f"expected {due}, got {got}", body, empty=empty, says=says)


def _misshapen(path: str, what: str, body: bytes, *, empty: bool, says: Any = None) -> DecodeError:
    shown = body[:_BODY_SHOWN].decode("utf-8", "replace")
    words = refusal.cleaned(refusal.words(says))
    said = f"; the server says: {words!r}" if words else ""
    text = f"the answer is not what the API's page describes: {path}: {what}{said}; see .body, and {REPORT}"
    return DecodeError(text, faults=(f"{path}: {what}",), paths=(path,), body=shown, empty=empty)


def _no_json(response: Response) -> DecodeError:
    shown = response.body[:_BODY_SHOWN].decode("utf-8", "replace")
    what = "an HTML page" if is_html(response) else "no JSON" if response.body.strip() else "an empty body"
    text = (
        f"HTTP {response.status} came with {what} where JSON is due; something before the API seems to answer: "
        "check base_url, and try again later"
    )
    return DecodeError(text, body=shown, malformed=True, empty=response.status == NOTHING)


def is_html(response: Response) -> bool:
    """Whether the body is an HTML page, by its first character or its declared type."""
    return _first(response.body) == b"<" or "text/html" in response.headers.get("Content-Type", "").lower()


def _first(body: bytes) -> bytes:
    """The first character that says something, behind a byte order mark and blanks."""
    return body.removeprefix(_BOM).lstrip(b" \t\r\n")[:1] if body[:1] in _FILLERS else body[:1]


def _parsed_or(body: bytes, otherwise: Any) -> Any:
    try:
        return _decode.parse(body)
    except DecodeError:
        return otherwise


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


def _refused(response: Response) -> APIError:
    """The refusal that a status line states."""
    parsed = _NO_JSON if _first(response.body) in (b"", b"<") else _parsed_or(response.body, _NO_JSON)
    stated = refusal.own_failures(cast("dict[str, Any]", parsed)) if isinstance(parsed, dict) else None
    return _refusal(response, parsed, stated or ())


def _refusal(response: Response, parsed: Any, errors: tuple[ApiMessage, ...]) -> APIError:
    decisive = _decisive(errors)
    code = decisive.code if decisive else None
    html = parsed is _NO_JSON and is_html(response)
    words = (decisive.message if decisive else "") or _words(response, parsed, html=html)
    return class_of(response.status, code)(
        _told(response, code, refusal.cleaned(words), html=html),
        status=response.status,
        code=code,
        errors=errors,
        request_id=response.request_id,
        retry_after=asked_wait(response.headers, decisive_status(response.status, code)),
        html=html,
        body=refusal.extract(response.body, parsed),
    )


def _words(response: Response, parsed: Any, *, html: bool) -> str:
    """What a body says that states no failure in the API's own forms."""
    if parsed is not _NO_JSON:
        return refusal.words(parsed) if isinstance(parsed, str | dict | list) else ""
    if html:
        return refusal.title_of(response.body)
    return "" if _first(response.body) in (b"{", b"[") else refusal.text_of(response.body)  # half a JSON is in .body


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


def _told(response: Response, code: int | None, words: str, *, html: bool) -> str:
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
    later = "the service or what stands before it failed: try again later" if status >= 500 else _UNKNOWN  # noqa: PLR2004
    return _STATUS_ADVICE.get(status, later)
