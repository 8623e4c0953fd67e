"""The body of a refusal: whether it states a failure, and its messages.

Invariant: whether a body states a failure is decided by its members alone. Pure functions, called by `classify.py` and
`api_errors.py`.

    form                                              states a failure
    `errors` (Neo, v2), one entry or several          by any entry but those of codes 200 to 299 or `status: true`
    `code` with `message` or `err` (Neo)              by its code, but for 200 to 299
    `response.status`, `status` (v1.1)                by `success: false`
    `success: false`, `status: false`                 always
    `error`, `fault`, an HTTP status in `status`      where a list is due
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from capillary_async._repr import cut
from capillary_async.errors import ApiMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "fails",
    "failures",
    "messages",
    "notices",
    "own_failures",
    "words",
]

LOOKED_AT: Final = 8_000  # characters of a text
DEEPEST: Final = 4
LONGEST_NUMBER: Final = 1_000  # bits; Python refuses to write very long ones
_FEW: Final = 3  # entries of a list that the words are of
_GOOD: Final = range(200, 300)
_BAD: Final = range(400, 600)
_OK: Final = 200

# Members that say what went wrong, in the order in which they are read: of the kind first, then of the case.
_CODES: Final = ("code", "errorCode", "error_code", "errorcode")
_KINDS: Final = ("title", "error", "err", "fault", "reason", "exception")
_CASES: Final = (
    "message", "msg", "detail", "details", "description", "error_description", "errorMessage", "error_message",
    "errorDescription", "faultstring", "statusMessage", "status_message", "errors",
)  # fmt: skip
_SAYING: Final = frozenset((*_KINDS, *_CASES))
_ENTRY: Final = frozenset((*_CODES, *_SAYING, "status", "success"))
_TEXT_CODE: Final = re.compile(r"[A-Za-z][\w.:-]{0,63}")
_WORDS_OF_SUCCESS: Final = frozenset({"OK", "SUCCESS", "SUCCESSFUL"})
_WORDS_OF_FAILURE: Final = frozenset({"ERROR", "FAIL", "FAILED", "FAILURE"})


# --- what it states ---------------------------------------------------------------------------------------------------


def messages(entries: Any) -> tuple[ApiMessage, ...]:
    """The entries of `errors` or `warnings`; absent, null and odd ones included."""
    if not entries:  # also "", {} and false, which say nothing
        return ()
    listed: list[Any]
    if isinstance(entries, dict) and _ENTRY.isdisjoint(cast("dict[str, Any]", entries)):
        members = cast("dict[str, Any]", entries)
        listed = [f"{name}: {words(one)}" for name, one in members.items()]  # of each field its faults
    else:
        listed = cast("list[Any]", entries) if isinstance(entries, list) else [entries]
    return tuple(_message(entry) for entry in listed if entry is not None)


def _message(entry: Any) -> ApiMessage:
    if not isinstance(entry, dict):
        return ApiMessage(None, str(entry))
    fields = cast("dict[str, Any]", entry)
    return ApiMessage(_code(fields), words(fields), _truth(fields.get("status")))


def _code(fields: Mapping[str, Any]) -> int | None:
    """The number of an entry: its code, or an HTTP status in the place of one."""
    code = next((number for name in _CODES if (number := _number(fields.get(name))) is not None), None)
    status = _number(fields.get("status"))
    return status if code is None and status is not None and (status in _GOOD or status in _BAD) else code


def _number(value: Any) -> int | None:
    """A body code: an int, or its text as in the v1.1 envelope."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18  # noqa: PLR2004
    return int(value) if digits else None


def _truth(value: Any) -> bool | None:
    """True or false, as text too."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def fails(entry: ApiMessage) -> bool:
    """Whether an entry of `errors` states a failure: what it says itself, then its code."""
    if entry.status is not None:
        return not entry.status
    return entry.code not in _GOOD


def notices(entries: Any) -> tuple[ApiMessage, ...]:
    """The entries of `errors` that state no failure and say more than that all is well: warnings."""
    return tuple(one for one in messages(entries) if not fails(one) and one.code not in (None, _OK) and one.message)


def own_failures(
    body: Mapping[str, Any], counts: Callable[[int], bool] = lambda _: True
) -> tuple[ApiMessage, ...] | None:
    """The failures that a body states in the API's own forms; None where it states none.

    Neo: `errors[]`, or `code`/`message`/`err`. v2: `errors[]`. v1.1: `response.status`.

    Args:
        body: The answer.
        counts: Whether a code beside a message is of the API, and no data.
    """
    listed = messages(body.get("errors"))
    if any(map(fails, listed)):
        return listed
    code = _number(body.get("code"))
    if code is not None and code not in _GOOD and ("message" in body or "err" in body) and counts(code):
        return (ApiMessage(code, _own_words(body)),)
    for state in (_member(_member(body, "response"), "status"), _member(body, "status"), body):
        if _truth(state.get("success")) is False:
            return (ApiMessage(_code(state), _own_words(state)),)
    return None


def failures(body: Mapping[str, Any], rows: str | None) -> tuple[ApiMessage, ...] | None:
    """The failures that a body states where a list is due, in the forms of others too; None where it states none.

    Args:
        body: The answer.
        rows: The member that the list is due in, None where it is due as the whole body.
    """
    found = own_failures(body)
    if found is not None:
        return found
    status = body.get("status")
    word = status.upper() if isinstance(status, str) and rows not in body else ""
    stated = _truth(status) is False or word in _WORDS_OF_FAILURE
    framework = (_number(status) or 0) in _BAD and not _SAYING.isdisjoint(body)
    if stated or framework or body.get("error") or body.get("fault") or (rows not in body and _has_text_code(body)):
        return (ApiMessage(_code(body), _own_words(body)),)
    return None


def _has_text_code(body: Mapping[str, Any]) -> bool:
    """Whether a code in words, e.g. `ERR_DAG`, comes with a message."""
    code = _text_code(body)
    return code is not None and code.upper() not in _WORDS_OF_SUCCESS and ("message" in body or "err" in body)


def _member(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


# --- its words --------------------------------------------------------------------------------------------------------


def words(value: Any) -> str:
    """What a body or a part of it says, as it came: codes in words, kinds and messages, of what is within it too."""
    said: list[str] = []
    for piece in _pieces(value, DEEPEST):
        known = [one for one in said if piece.casefold() in one.casefold()]
        if not known:
            said = [one for one in said if one.casefold() not in piece.casefold()]
            said.append(piece)
    return ": ".join(said)


def _own_words(body: Mapping[str, Any]) -> str:
    """Those of the body itself: the entries of `errors` stated no failure."""
    return words({name: one for name, one in body.items() if name != "errors"})


def _pieces(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str) and value.strip():
        yield cut(value, LOOKED_AT)
    elif isinstance(value, Decimal) or (type(value) is int and value.bit_length() <= LONGEST_NUMBER):
        yield str(value)
    elif isinstance(value, dict) and depth:
        yield from _of_members(cast("dict[str, Any]", value), depth - 1)
    elif isinstance(value, list) and depth:
        for entry in cast("list[Any]", value)[:_FEW]:
            if not isinstance(entry, int | Decimal):
                yield from _pieces(entry, depth - 1)


def _of_members(fields: Mapping[str, Any], depth: int) -> Iterator[str]:
    code = _text_code(fields)
    if code is not None:
        yield code
    for name in (*_KINDS, *_CASES):
        if fields.get(name) is not None:
            yield from _pieces(fields[name], depth)


def _text_code(fields: Mapping[str, Any]) -> str | None:
    texts = (fields.get(name) for name in _CODES)
    return next((one for one in texts if isinstance(one, str) and _TEXT_CODE.fullmatch(one)), None)
