"""The forms in which one value may be written, and those of them that are read.

Invariant: a form is read where it keeps all of the value; nothing is rounded or guessed. Records of the API are read in
every such form, users' classes only in their own. Pure functions, called by the converter.

    field        forms that are read beside its own                                refused
    amount       text, with an exponent too (`"1E+2"`); bounds of `models.exact`   `"NaN"`, `"1_000"`, `" 1"`, `"+1"`
    integer      digits as text, integral decimals (`38855229.0`, `"3E2"`)         `1.5`, true
    epoch ms     as an integer, and ISO 8601 text of whole milliseconds            a date alone, microseconds
    text         numbers, with the digits that came                                true, objects, arrays
    time         epoch milliseconds, as a number or digits: in UTC                 `"20250131"`, `1.5`, a date alone
    true, false  `"true"`, `"false"`                                               0, 1, `"yes"`
    all but text `""` for null; an empty array for an object; an object for an array of one
    records      one alone, as the body or in `$.data`; `[]` for an envelope       an object of another kind
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Final, cast

from capillary_async._codec.faults import mismatch, unbounded
from capillary_async.models.exact import MOST_DIGITS, PARSING, bounded

__all__ = [
    "from_decimal_text",
    "from_time",
    "is_no_object",
    "is_nothing",
    "of_records",
    "of_users",
    "to_any_text",
    "to_int_or_str",
    "to_integer_or_text",
    "to_milliseconds",
    "unbounded_in",
]

Hook = Callable[[Any, Any], Any]

_DECIMAL_TEXT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_EXPONENT_TEXT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?[eE][+-]?[0-9]+")
_INTEGER_TEXT: Final = re.compile(r"-?[0-9]+")
_TIME_TEXT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?P<fraction>\.[0-9]+)?(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
_CALENDAR_DIGITS: Final = frozenset({8, 14})  # 20250131 and 20250131143045 are days and times, not milliseconds
_BOOLEANS: Final = {"true": True, "false": False}
_LONGEST_TEXT: Final = 10_000  # digits of a decimal written out; "1e-999999999" would fill the memory
_PLAIN: Final = 10**18  # integers below have few digits
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def of_users(timezone: tzinfo | None) -> Mapping[Any, Hook]:
    """The function for each kind of value in users' classes."""
    return {
        Decimal: to_decimal,
        bool: to_bool,
        datetime: partial(to_time, timezone),
        float: to_float,
        int: to_int,
        str: to_str,
    }


def of_records(timezone: tzinfo | None) -> Mapping[Any, Hook]:
    """The function for each kind of value in records of the API."""
    return {
        Decimal: to_amount,
        bool: to_truth,
        datetime: partial(to_instant, timezone),
        float: to_float,
        int: to_integer,
        str: to_text,
    }


def is_nothing(value: Any) -> bool:
    """Whether a value that is no text is missing: written as null or as an empty text."""
    return value is None or value == ""


def is_no_object(value: Any) -> bool:
    """Whether an object is missing: null, an empty text, or the empty array that some languages write for it."""
    return value is None or value in ("", [])


# --- in users' classes ------------------------------------------------------------------------------------------------


def to_decimal(value: Any, _: Any) -> Decimal:
    """An exact number, or ASCII decimal text, within bounds. No float: it has lost the digits already."""
    if isinstance(value, Decimal) and value.is_finite():
        number = value
    elif type(value) is int or (isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value)):
        number = Decimal(value, PARSING)
    else:
        raise mismatch("a decimal number", value)
    if (isinstance(value, Decimal) or len(str(value)) > MOST_DIGITS) and not bounded(number):
        raise unbounded()
    return number


def to_int(value: Any, target: Any) -> Any:
    """An integer, or ASCII integer text (epoch milliseconds were seen as text). Never a fraction, even a zero one."""
    if type(value) is int:
        number = value
    elif isinstance(value, str) and _INTEGER_TEXT.fullmatch(value):
        number = int(value)
    else:
        raise mismatch("an integer", value)
    return number if target is int else target(number)  # a user's IntEnum comes here too


def to_str(value: Any, target: Any) -> Any:
    """A text and nothing else: `str()` of another value would hide a fault."""
    if not isinstance(value, str):
        raise mismatch("a text", value)
    return value if target is str else target(value)  # a user's StrEnum comes here too


def to_bool(value: Any, _: Any) -> bool:
    """True or false; 'false' as text is neither."""
    if isinstance(value, bool):
        return value
    raise mismatch("true or false", value)


def to_float(value: Any, _: Any) -> float:
    """A binary float, for users' classes that ask for one."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return float(value)
    raise mismatch("a number", value)


def to_int_or_str(value: Any, _: Any) -> int | str | None:
    """An id whose type the page leaves open, as it came."""
    if value is None or isinstance(value, str) or type(value) is int:
        return value
    raise mismatch("an integer or a text", value)


def to_time(timezone: tzinfo | None, value: Any, _: Any) -> datetime:
    """ISO 8601 with an offset, or without one where the server's zone is known. Digits beyond microseconds are cut."""
    found = _TIME_TEXT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise mismatch("an ISO 8601 time", value)
    time = datetime.fromisoformat(value)
    if time.tzinfo is not None:
        return time
    if timezone is None:
        raise ValueError(f"{value!r} has no offset; pass server_timezone= to AsyncSession to say in which zone it is")
    return time.replace(tzinfo=timezone)


# --- in records of the API --------------------------------------------------------------------------------------------


def to_amount(value: Any, target: Any) -> Decimal:
    """As `to_decimal`, and text with an exponent as Java's BigDecimal writes it."""
    if type(value) is Decimal and bounded(value):  # nearly always
        return value
    if type(value) is int and -_PLAIN < value < _PLAIN:
        return Decimal(value)
    if isinstance(value, str) and _EXPONENT_TEXT.fullmatch(value):
        return to_decimal(_of_exponent_text(value), target)
    return to_decimal(value, target)


def _of_exponent_text(text: str) -> Decimal:
    try:
        return Decimal(text, PARSING)
    except InvalidOperation:
        raise unbounded() from None


def to_integer(value: Any, target: Any) -> Any:
    """As `to_int`, and integral decimals: an id that went through a number type with fractions is still exact."""
    if type(value) is int:  # nearly always
        return to_int(value, target)
    text = value if isinstance(value, str) and not _INTEGER_TEXT.fullmatch(value) else ""
    if not (isinstance(value, Decimal) or _DECIMAL_TEXT.fullmatch(text) or _EXPONENT_TEXT.fullmatch(text)):
        return to_int(value, target)
    number = to_amount(value, target)
    if number != int(number):
        raise mismatch("an integer", value)
    return to_int(int(number), target)


def to_text(value: Any, target: Any) -> Any:
    """A text, or a number with the digits that came."""
    if type(value) is int or (isinstance(value, Decimal) and value.is_finite()):
        value = str(value)
    return to_str(value, target)


def to_any_text(value: Any, _: Any) -> str | None:
    """A value of any kind as text: `true`, digits, and what has members as JSON."""
    if value is None or isinstance(value, str):
        return value
    import msgspec  # noqa: PLC0415 - loaded with the first answer anyway

    return msgspec.json.Encoder(decimal_format="number").encode(value).decode()


def to_truth(value: Any, target: Any) -> bool:
    """True or false, as text too."""
    known = _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    return to_bool(value if known is None else known, target)


def to_integer_or_text(value: Any, target: Any) -> int | str | None:
    """An id whose type the page leaves open, as it came; an integral decimal as an integer, others as digits."""
    if isinstance(value, Decimal) and value.is_finite():
        if not bounded(value):
            raise unbounded()
        return int(value) if value == int(value) else str(value)
    return to_int_or_str(value, target)


def to_instant(timezone: tzinfo | None, value: Any, target: Any) -> datetime:
    """As `to_time`, and epoch milliseconds in UTC, as a number or digits."""
    milliseconds = _milliseconds(value)
    if milliseconds is None:
        return to_time(timezone, value, target)
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise mismatch("a time within the years 1 to 9999", value) from None


def to_milliseconds(instant: Hook, value: Any, _: Any) -> int | None:
    """Epoch milliseconds: an integer, or the time that ISO 8601 text names, where that is a whole number of them.

    Args:
        instant: Reads the text.
        value: What came.
    """
    if is_nothing(value):
        return None
    found = _TIME_TEXT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        number: int = to_integer(value, int)
        return number
    time: datetime = instant(value, datetime)
    if len((found["fraction"] or "").rstrip("0")) > len(".123"):
        raise mismatch("a time of whole milliseconds", value)
    return (time - _EPOCH) // _MILLISECOND


def _milliseconds(value: Any) -> int | None:
    """The value as milliseconds since the epoch; None if it is no integer or digits of one."""
    if type(value) is int:
        return value
    if isinstance(value, Decimal) and value.is_finite() and bounded(value) and value == int(value):
        return int(value)
    digits = isinstance(value, str) and _INTEGER_TEXT.fullmatch(value) and len(value) not in _CALENDAR_DIGITS
    return int(value) if digits else None


def unbounded_in(value: Any) -> bool:
    """Whether a free-form value holds a number out of the bounds of amounts."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        elif (isinstance(one, Decimal) or type(one) is int) and not bounded(Decimal(one)):
            return True
    return False


def from_time(time: datetime) -> str:
    """ISO 8601 as the page writes it: `Z` for UTC, `+05:30` otherwise."""
    text = time.isoformat()
    return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text


def from_decimal_text(value: Decimal | None) -> str | None:
    """The text of a Decimal without an exponent, as the page writes it."""
    if value is None or not value.is_finite():
        return None if value is None else str(value)
    exponent = cast("int", value.as_tuple().exponent)
    return format(value, "f") if -_LONGEST_TEXT <= exponent <= 0 else str(value)
