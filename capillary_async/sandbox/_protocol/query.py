"""Reading what was asked: the query parameters of one request, checked one by one.

Invariant: a missing or malformed parameter is refused by name, before any row is looked at. The Neo and v2 endpoint
files read their parameters through this.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING

import attrs

from capillary_async.sandbox._protocol.answers import Answer, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["RequestParams", "Window", "whole_number"]

_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def whole_number(text: str) -> int | None:
    """The number that the text is, of at most 19 digits; None for anything else."""
    return int(text) if _DIGITS.fullmatch(text) else None


@attrs.frozen
class Window:
    """The part of a list that is asked for.

    Attributes:
        page: From 1.
        size: Rows on a page.
        offset: Rows before the first, where the request says so without a page.
    """

    page: int
    size: int
    offset: int | None = None

    @property
    def start(self) -> int:
        """Rows before the first row of the page."""
        return (self.page - 1) * self.size if self.offset is None else self.offset


@attrs.frozen
class RequestParams:
    """The parameters of a request, and how its API words a refusal of one of them."""

    params: Mapping[str, str]
    refuse: Callable[[str], Answer]

    def refused(self, message: str) -> Refused:
        """The refusal, to be raised."""
        return Refused(self.refuse(message))

    def text(self, name: str) -> str:
        """A text that must be there."""
        value = self.params.get(name, "").strip()
        if not value:
            raise self.refused(f"Required parameter is missing: {name}")
        return value

    def number(self, name: str, default: int | None = None, *, least: int = 1, most: int | None = None) -> int:
        """A whole number within bounds; must be there when it has no default."""
        text = self.text(name) if default is None else self.params.get(name, str(default)).strip()
        if not _DIGITS.fullmatch(text) or int(text) < least or (most is not None and int(text) > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise self.refused(f"Invalid value for parameter {name}: {text!r}, expected an integer {bounds}")
        return int(text)

    def numbers(self, name: str) -> list[int]:
        """Whole numbers separated by commas, with or without spaces, each once and in the order asked."""
        parts = [part.strip() for part in self.text(name).split(",")]
        bad = [part for part in parts if not _DIGITS.fullmatch(part)]
        if bad:
            raise self.refused(f"Invalid value for parameter {name}: {bad[0]!r}, expected integers separated by commas")
        return list(dict.fromkeys(map(int, parts)))

    def day(self, name: str) -> date:
        """A day as YYYY-MM-DD that must be there and exist in the calendar."""
        text = self.text(name)
        try:
            if _DAY.fullmatch(text):
                return date.fromisoformat(text)
        except ValueError:
            pass
        raise self.refused(f"Invalid value for parameter {name}: {text!r}, expected YYYY-MM-DD")

    def days(self, first: str, last: str) -> tuple[date, date]:
        """Two days in order."""
        start, end = self.day(first), self.day(last)
        if start > end:
            raise self.refused(f"{first} {start} is after {last} {end}")
        return start, end

    def optional_day(self, name: str) -> date | None:
        """A day, or None when it was not sent."""
        return self.day(name) if name in self.params else None
