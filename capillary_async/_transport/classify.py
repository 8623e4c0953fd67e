"""Reading an answer: is it what was asked for, and if not, which error is it. Pure rules, inside the attempt.

Invariant: HTTP 200 may carry errors, and only 200 and 203 carry records; half a JSON or an HTML page is another fault
than JSON of another shape, since only the former may do better next time; records of another customer are no answer.
The step between `RequestLimiter` and `Wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from capillary_async._codec import decode as _decode
from capillary_async._codec.faults import not_json, wrong_shape
from capillary_async._transport import refusal
from capillary_async._transport.api_errors import (
    NO_JSON,
    PARTIAL,
    api_error,
    first_of,
    is_html,
    parsed_or,
    refusal_in,
    refused,
)
from capillary_async._transport.extract import cleaned
from capillary_async._transport.messages import DEFERRED, discard, set_decoded
from capillary_async._transport.owners import misdirected, mixed, unowned
from capillary_async._transport.retry_decision import WHOLE
from capillary_async._transport.totals import total_of
from capillary_async.errors import DecodeError, NotFoundError

if TYPE_CHECKING:
    from capillary_async._codec.decode import Decoded
    from capillary_async._transport.messages import Handler, Request, Response, ResponseSpec

__all__ = ["DEFERRED_FROM", "check", "judge"]

NOTHING = 204
DEFERRED_FROM = 8 * 1024  # bytes of a body; decoding a smaller one later costs more than its records in memory


async def check(request: Request, handler: Handler) -> Response:
    """Pass on an answer that is what was asked for, decoded; raise the error that any other is."""
    response = await handler(request)
    if request.shape is None:
        return response
    deferred = request.late and len(response.body) >= DEFERRED_FROM and looks_whole(response, request.shape)
    try:
        return set_decoded(response, DEFERRED if deferred else judge(response, request.shape))
    except NotFoundError:
        if request.refusals is not None:
            request.refusals.append(response)
        raise


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
        raise refused(response)
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
    others = unowned(decoded.items, owners)
    if not others:
        return decoded
    fault = misdirected(decoded.items, others, owners)
    if fault is not None:
        raise fault
    return evolve(decoded, warnings=(*decoded.warnings, mixed(decoded.items, others, owners)))


def _read(response: Response, shape: ResponseSpec) -> Any:
    body = response.body
    first = first_of(body)
    if first not in (b"[", b"{"):
        return _bare(response, shape, first)
    if shape.member is None and not shape.free and first == b"[":
        return _decode.rows(shape.model, body, timezone=shape.timezone, raw=shape.raw)
    if shape.free and first == b"[":
        return _decode.decode(shape.model, body, timezone=shape.timezone)
    parsed = _decode.parse(body)
    if isinstance(parsed, dict):
        found = refusal_in(cast("dict[str, Any]", parsed), shape)
        if found is not None:
            raise api_error(response, parsed, found)
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
    parsed = parsed_or(response.body, NO_JSON)
    if parsed is NO_JSON:
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
    return wrong_shape([(path, what)], body, says=cleaned(refusal.words(says)), empty=empty)


def _no_json(response: Response) -> DecodeError:
    what = "an HTML page" if is_html(response) else "no JSON" if response.body.strip() else "an empty body"
    text = f"HTTP {response.status} came with {what} where JSON is due"
    return not_json(text, response.body, empty=response.status == NOTHING)
