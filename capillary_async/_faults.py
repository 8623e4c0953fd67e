"""What a DecodeError says: the faults of an answer, each with its path.

The rule kept here: short, in the words of JSON, and no error made here has a context: the frames behind one hold the
customer's data. Used by `_decode` and `_structure`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from capillary_async.errors import DecodeError

__all__ = ["SHOWN", "beyond", "extract", "list_or_fault", "mismatch", "wrong"]

SHOWN: Final = 40  # characters of a value in a fault
_BODY_EXTRACT: Final = 200  # bytes of the body in a DecodeError: enough to know an HTML page by
_NAMED_FAULTS: Final = 20  # a page wrong in one way is wrong a hundred times; the count is told as well


def extract(body: bytes) -> str:
    return body[:_BODY_EXTRACT].decode("utf-8", "replace")


def beyond(what: str, body: bytes) -> DecodeError:
    """JSON that no record can hold: asking again would bring the same."""
    return DecodeError(
        f"the answer cannot be held: {what}", faults=(f"$: {what}",), paths=("$",), body=extract(body), malformed=False
    )


def wrong(found: list[tuple[str, str]], body: bytes) -> DecodeError:
    """The error that names the first faults and counts all."""
    named = found[:_NAMED_FAULTS]
    faults = tuple(f"{path}: {text}" for path, text in named)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return DecodeError(
        f"the answer has not the documented shape: {faults[0]}{more}",
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


def mismatch(expected: str, value: Any) -> ValueError:
    """The fault of a value of another kind; its path is found on the way up."""
    return ValueError(f"expected {expected}, got {_kind(value)}")
