"""Bytes to plain JSON values: exact, or an error.

Invariant: numbers keep all their digits, and of two values of a member none is picked. A lone half of a surrogate pair
in a text, which is an escape in JSON, is read as U+FFFD. Called by `decode.py`.
"""

import decimal
import json
import re
from decimal import Decimal
from typing import Any, Final

import msgspec

from capillary_async._codec.doubled_members import ambiguity
from capillary_async._codec.faults import SHOWN, bad_json, beyond
from capillary_async.models.exact import PARSING

__all__ = ["PARSER", "parse"]

_BOM: Final = b"\xef\xbb\xbf"
# An escape: two halves of a surrogate pair, one half, or any other; a backslash that is escaped itself is one of those.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_LONE_HALF: Final = re.compile("[\ud800-\udfff]")


def _number(text: str) -> Decimal:
    """A JSON number with a fraction or exponent, exactly."""
    try:
        return Decimal(text, PARSING)
    except decimal.InvalidOperation:
        raise ValueError(f"{text[:SHOWN]} is beyond any decimal") from None


PARSER: Final = msgspec.json.Decoder(float_hook=_number)


def parse(body: bytes) -> Any:
    """Parse any JSON, with exact Decimals for numbers with a fraction or exponent, and exact ints.

    Raises:
        DecodeError: `malformed` is True if the body is no complete JSON in UTF-8, and False if no record can hold the
            JSON: nested too deep, an integer of more than 4,300 digits, an exponent beyond 10^18, two values of one
            member.
    """
    try:
        value = PARSER.decode(body.removeprefix(_BOM))
        refusal = ambiguity(body, value)
        if refusal is None:
            return value
    except msgspec.ValidationError as error:
        refusal = beyond(f"a number out of range ({error})", body)
    except RecursionError:
        refusal = beyond("nested too deep", body)
    except ValueError as error:  # msgspec.DecodeError, UnicodeDecodeError
        refusal = bad_json(error, body)
    if refusal.malformed and (paired := _paired(body)) != body:
        value = parse(paired)
        if _merges_names(body):
            raise beyond("two names of one object differ only in lone halves of surrogate pairs", body)
        return value
    raise refusal


def _paired(body: bytes) -> bytes:
    """The body with U+FFFD for each half of a surrogate pair that is alone: no text can hold one."""
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], body)


def _merges_names(body: bytes) -> bool:
    """Whether two members of one object have one name once U+FFFD is in the place of each half that is alone."""
    merged = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal merged
        names = {name for name, _ in pairs}
        merged = merged or len({_LONE_HALF.sub("\ufffd", name) for name in names}) < len(names)

    # The standard library keeps halves apart, and numbers are of no interest here.
    json.loads(body.removeprefix(_BOM), object_pairs_hook=look, parse_int=str, parse_float=str)
    return merged
