"""What a DecodeError says: the faults of an answer, each with its path.

Invariant: short, in the words of JSON, and no error made here has a context: the frames behind one hold the customer's
data. Called by `decode.py`, `forms.py` and `converter.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from capillary_async.errors import DecodeError
from capillary_async.models.exact import LARGEST_EXPONENT, MOST_DIGITS

__all__ = ["REPORT", "SHOWN", "beyond", "broken", "extract", "list_or_fault", "mismatch", "unbounded", "wrong"]

REPORT: Final = "report it with the request id if it comes again"
SHOWN: Final = 40  # characters of a value in a fault
_BODY_EXTRACT: Final = 200  # bytes of the body in a DecodeError: enough to know an HTML page by
_NAMED_FAULTS: Final = 20  # a page wrong in one way is wrong a hundred times; the count is told as well


def extract(body: bytes) -> str:
    return body[:_BODY_EXTRACT].decode("utf-8", "replace")


def beyond(what: str, body: bytes) -> DecodeError:
    """JSON that no record can hold: asking again would bring the same."""
    return DecodeError(
        f"the answer is JSON that no record can hold: {what}; {REPORT}",
        faults=(f"$: {what}",),
        paths=("$",),
        body=extract(body),
        kind="beyond",
    )


def broken(why: Exception, body: bytes) -> DecodeError:
    """No complete JSON: cut, or wrong within."""
    return DecodeError(
        f"the body is no complete JSON: {why}; see .body, and {REPORT}",
        body=extract(body),
        malformed=True,
        cut=not _ended(body),
    )


def _ended(body: bytes) -> bool:
    """Whether a body that is no JSON ends as if it were whole: then nothing is cut, and it is wrong within."""
    bare = body.strip(b" \t\r\n\xef\xbb\xbf")
    return bare[:1] + bare[-1:] in (b"[]", b"{}")


def wrong(found: list[tuple[str, str]], body: bytes) -> DecodeError:
    """The error that names the first faults and counts all."""
    named = found[:_NAMED_FAULTS]
    faults = tuple(f"{path}: {text}" for path, text in named)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return DecodeError(
        f"the answer has not the documented shape: {faults[0]}{more}; see .faults and .body, and {REPORT}",
        faults=faults,
        paths=tuple(path for path, _ in named),
        body=extract(body),
    )


def list_or_fault(values: Any, path: str, body: bytes) -> list[Any]:
    if values is None:
        return []
    if isinstance(values, list):
        return values  # pyright: ignore[reportUnknownVariableType]
    raise wrong([(path, str(mismatch("an array", values)))], body)


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
