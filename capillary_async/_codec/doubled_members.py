"""Objects that have a member twice with different values: JSON allows it, and a reader takes one of them.

Invariant: neither of two values is picked; the same value twice is one value. Called by `parse.py` and `decode.py`
after the body is read, which is read again only if it has another count of names than the value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import msgspec

from capillary_async._codec.faults import SHOWN, beyond

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capillary_async.errors import DecodeError

__all__ = ["ambiguity"]

_NAMED = b'":'  # the end of a name; a body with a blank between the two, which is rare, is read again
_encoded = msgspec.json.Encoder().encode


class _AmbiguousError(Exception):
    """A member has two values."""


def ambiguity(body: bytes, value: Any) -> DecodeError | None:
    """The error for a body in which an object has a member twice with different values; None for every other.

    Args:
        body: A whole body.
        value: What it was read as.
    """
    if body.count(_NAMED) == _encoded(value).count(_NAMED):
        return None
    try:
        json.loads(
            body.decode("utf-8-sig", "replace"), object_pairs_hook=_object, parse_int=_number, parse_float=_number
        )
    except _AmbiguousError as found:
        return beyond(str(found), body)
    except RecursionError:
        return beyond("nested too deep", body)
    except ValueError:  # JSON for msgspec alone
        return None
    return None


def _object(members: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        for name, value in members:
            if found[name] != value:
                shown = f"{_shown(value)} and as {_shown(found[name])}"
                raise _AmbiguousError(f"the member {name[:SHOWN]!r} comes twice in one object, as {shown}")
    return found


def _number(digits: str) -> tuple[str]:
    """The digits of a number, in a tuple, since a number is not equal to the text of its digits."""
    return (digits,)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = str(cast("tuple[str]", value)[0]) if isinstance(value, tuple) else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
