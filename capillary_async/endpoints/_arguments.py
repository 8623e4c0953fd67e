"""The checks of the API's own arguments: ids, days, names and flags, as the text that the API expects.

Invariant: a refusal names the argument, what it takes and what came; an id can never become another path or a query.
Called by the endpoints; `_validation.py` has the checks of all other arguments.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from datetime import date, datetime
from enum import Enum
from typing import Any, cast
from urllib.parse import quote

from capillary_async._validation import refuse
from capillary_async.errors import InvalidRequestError

__all__ = [
    "choice_text",
    "day",
    "days",
    "flag_text",
    "identity",
    "names",
    "positive",
    "positives",
    "query",
    "text",
]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_LARGEST = 2**63 - 1  # the API's ids are Java longs


def positive(argument: str, value: Any) -> int:
    """A positive id: an int, an `__index__` value or a decimal string; never a bool or a float."""
    number = _number(value)
    if number is None:
        raise refuse(argument, f"a positive whole number of at most {_LARGEST}", value)
    return number


def _number(value: Any) -> int | None:
    number: int | None = None
    if isinstance(value, str):
        number = int(value) if _DIGITS.fullmatch(value) else None
    elif not isinstance(value, bool):
        try:
            number = operator.index(value)
        except TypeError:
            number = None
    return number if number is not None and 1 <= number <= _LARGEST else None


def text(argument: str, value: Any) -> str:
    """A text, or an enum's, that is not empty and holds no control characters."""
    # Of a member the value: the text of a `(str, Enum)` member is its name.
    plain: Any = value.value if isinstance(value, Enum) else value
    if not isinstance(plain, str) or not plain.strip() or not plain.isprintable():
        raise refuse(argument, "a text that is not empty, without control characters", value)
    return str(plain)


def choice_text(argument: str, value: Any) -> str | None:
    """A text, or None."""
    return None if value is None else text(argument, value)


def identity(argument: str, value: Any) -> str:
    """An event's id, its unique id text or a request id."""
    if isinstance(value, str):
        return text(argument, value)
    number = _number(value)
    if number is None:
        raise refuse(argument, "a text or a positive whole number", value)
    return str(number)


def flag_text(argument: str, value: Any) -> str | None:
    """A bool as the wire spells it, or None."""
    if value is None:
        return None
    if not isinstance(value, bool):
        raise refuse(argument, "True, False or None", value)
    return "true" if value else "false"


def names(argument: str, values: Any) -> tuple[str, ...]:
    """Texts to be joined by commas, each once, in order."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise refuse(argument, "an iterable of texts, e.g. a list", values)
    checked = [identity(argument, value) for value in cast("Iterable[Any]", values)]
    for value in checked:
        if "," in value:
            raise refuse(argument, "texts without a comma, which separates them on the wire", value)
    return tuple(dict.fromkeys(checked))


def positives(argument: str, values: Any) -> tuple[int, ...]:
    """Positive ids, each once, in order."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise refuse(argument, "an iterable of positive whole numbers, e.g. a list", values)
    return tuple(dict.fromkeys(positive(argument, value) for value in cast("Iterable[Any]", values)))


def day(argument: str, value: Any) -> str:
    """A date as the wire spells it."""
    if isinstance(value, datetime):
        raise refuse(
            argument, "a date or a YYYY-MM-DD text (of a datetime, say which zone's date you mean: value.date())", value
        )
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise refuse(argument, "a date or a YYYY-MM-DD text that is one", value)


def days(start_name: str, start: Any, end_name: str, end: Any) -> tuple[str, str]:
    """Two dates in order, both days included."""
    first, last = day(start_name, start), day(end_name, end)
    if first > last:
        raise InvalidRequestError(f"{start_name} {first} is after {end_name} {last}; swap them", argument=start_name)
    return first, last


def query(**params: str | int | None) -> str:
    """An encoded query; what is None is not sent, and a comma stays a comma."""
    return "&".join(f"{name}={quote(str(value), safe=',')}" for name, value in params.items() if value is not None)
