"""The layout of a CSV file: where its quotation marks stand, and how many records it has.

The rule kept here: a quotation mark opens a cell, closes it, or stands doubled within; whatever else is told, never
guessed. All work is done by the search functions of `bytes` and `re`, so a file of gigabytes takes seconds. Used by
`_books_csv.py`.
"""

from __future__ import annotations

import codecs
import re

__all__ = ["Layout"]

# Each begins with the mark itself, which is what makes the search fast.
_AFTER_TEXT = re.compile(rb'"(?<=[^,\r\n"]")')
_BEFORE_TEXT = re.compile(rb'"[^,\r\n"]')


class Layout:
    """What was seen of a file that is given piece by piece.

    Attributes:
        inside: Whether it stands within quotation marks now.
        records: How many records have begun, the header being one; empty lines are none.
    """

    def __init__(self) -> None:
        self.inside, self.records = False, 0
        self._last, self._began = b"", False

    def take(self, piece: bytes) -> int | None:
        """Look at the next piece; gives the record in which a quotation mark stands where none may."""
        if not self._began:
            piece, self._began = piece.removeprefix(codecs.BOM_UTF8), True
        parts = piece.split(b'"')
        # What stands within marks is left out; a mark alone stands for it.
        outside = self._last + b'"'.join(parts[1 if self.inside else 0 :: 2])
        marks = len(parts) - 1
        self.inside ^= bool(marks % 2)
        if self.inside and marks:
            outside += b'"'
        before = self.records - bool(self._last.strip(b"\r\n"))  # the record that goes on here
        self.records = before + _lines(outside)
        self._last = outside[-1:]
        wrong = [found.start() for found in (_AFTER_TEXT.search(outside), _BEFORE_TEXT.search(outside)) if found]
        return before + _lines(outside[: min(wrong) + 1]) if wrong else None


def _lines(text: bytes) -> int:
    return sum(map(bool, text.replace(b"\r", b"\n").split(b"\n")))
