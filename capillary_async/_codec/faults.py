"""Every `DecodeError` of the SDK is built here: one function for each kind, and the texts of the faults in it.

Invariant: a message is short, in the words of JSON, and says what to do next; no error made here has a context, since
its frames would keep the customer's data. Called by the codec, by `_transport` and by the endpoints.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from capillary_async.errors import DecodeError, ResponseTooLargeError
from capillary_async.models.exact import LARGEST_EXPONENT, MOST_DIGITS

__all__ = [
    "SHOWN",
    "bad_json",
    "beyond",
    "list_or_fault",
    "misdirected",
    "mismatch",
    "no_token",
    "not_json",
    "too_large",
    "unbounded",
    "wrong_shape",
]

SHOWN: Final = 40  # characters of a value in a fault
_REPORT: Final = "report it with the request id if it comes again"
_BODY_EXTRACT: Final = 200  # bytes of the body in a DecodeError: enough to know an HTML page by
_NAMED_FAULTS: Final = 20  # a page wrong in one way is wrong a hundred times; the message has the count too

# --- the errors -------------------------------------------------------------------------------------------------------


def wrong_shape(found: list[tuple[str, str]], body: bytes, *, says: str = "", empty: bool = False) -> DecodeError:
    """JSON of another shape than documented: the error names the first faults and counts all.

    Args:
        found: Path and text of each fault.
        body: The body.
        says: The server's own words in it.
        empty: The body is there in place of records: `null`, `{}` or nothing.
    """
    named = found[:_NAMED_FAULTS]
    faults = tuple(f"{path}: {text}" for path, text in named)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    words = f"{more}; the server says: {says!r}" if says else more
    return DecodeError(
        f"the answer does not have the documented shape: {faults[0]}{words}; see .faults and .body, and {_REPORT}",
        faults=faults,
        paths=tuple(path for path, _ in named),
        body=_extract(body),
        empty=empty,
    )


def no_token(request: str) -> DecodeError:
    """The answer to the request of a token holds none; nothing of it is shown, since it may hold a part of one."""
    fault = "$.data: expected accessToken and ttlSeconds"
    text = f"{request}: the answer holds no token: {fault}; check base_url"
    return DecodeError(text, faults=(fault,), paths=("$.data",))


def beyond(what: str, body: bytes) -> DecodeError:
    """JSON that no record can hold: a retry would bring the same."""
    return DecodeError(
        f"the answer is JSON that no record can hold: {what}; {_REPORT}",
        faults=(f"$: {what}",),
        paths=("$",),
        body=_extract(body),
        kind="beyond",
    )


def bad_json(why: Exception, body: bytes) -> DecodeError:
    """No complete JSON: cut, or wrong within."""
    return DecodeError(
        f"the body is no complete JSON: {why}; see .body, and {_REPORT}",
        body=_extract(body),
        malformed=True,
        cut=not _ended(body),
    )


def not_json(what: str, body: bytes = b"", *, empty: bool = False) -> DecodeError:
    """No JSON at all: HTML, text, nothing, or a coding of it that the SDK does not read."""
    return DecodeError(
        f"{what}; something before the API seems to answer: check base_url, and try again later",
        body=_extract(body),
        malformed=True,
        kind="not-json",
        empty=empty,
    )


def misdirected(what: str, fault: str, *, request_id: str | None = None) -> DecodeError:
    """Records of another customer."""
    report = f"request id {request_id}" if request_id else "the request id"
    return DecodeError(
        f"{what}. Something before the API answers from a cache or mixes up answers: look there, and report it with "
        f"{report}",
        faults=(f"$: {fault}",),
        paths=("$",),
        kind="misdirected",
    )


def too_large(what: str) -> ResponseTooLargeError:
    """More than the SDK takes."""
    return ResponseTooLargeError(f"{what}; ask for less at a time, e.g. with a smaller page_size")


def _extract(body: bytes) -> str:
    return body[:_BODY_EXTRACT].decode("utf-8", "replace")


def _ended(body: bytes) -> bool:
    """Whether a body that is no JSON ends as if it were whole: then nothing is cut, and it is wrong within."""
    bare = body.strip(b" \t\r\n\xef\xbb\xbf")
    return bare[:1] + bare[-1:] in (b"[]", b"{}")


# --- the faults in them -----------------------------------------------------------------------------------------------


def list_or_fault(values: Any, path: str, body: bytes) -> list[Any]:
    """The array at `path`; null is an empty one.

    Raises:
        DecodeError: It is no array.
    """
    if values is None:
        return []
    if isinstance(values, list):
        return values  # pyright: ignore[reportUnknownVariableType]
    raise wrong_shape([(path, str(mismatch("an array", values)))], body)


def _kind(value: Any) -> str:
    """A value as a fault shows it: short, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    shown = str(value) if isinstance(value, Decimal) else repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def unbounded() -> ValueError:
    """The fault of a number that is no amount."""
    return ValueError(f"expected at most {MOST_DIGITS} digits and an exponent within ±{LARGEST_EXPONENT} in an amount")


def mismatch(expected: str, value: Any) -> ValueError:
    """The fault of a value of another kind; its path is found on the way up."""
    return ValueError(f"expected {expected}, got {_kind(value)}")
