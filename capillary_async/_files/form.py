"""How a text file is written: its delimiter, its decimal mark and its encoding.

Invariant: all three come from the user or the file's name (`.tsv`), never from its contents. Used by
`jobs/_books/options.py` and `cli/_io/id_input.py`.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
from typing import TYPE_CHECKING

from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PACKED", "PARQUET", "TextForm", "inner_suffix", "separated_otherwise", "text_form"]

PACKED, PARQUET = (".gz", ".bz2", ".zst"), (".parquet", ".parq", ".pq")  # suffixes
_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|", "pipe": "|"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
_UTF8 = "utf-8"


@frozen
class TextForm:
    """The form of a CSV file.

    Attributes:
        delimiter: The character between two cells.
        decimal: The decimal mark of amounts.
        encoding: Python's name of the encoding.
    """

    delimiter: str = ","
    decimal: str = "."
    encoding: str = _UTF8

    def at(self, path: str | os.PathLike[str], delimiter: str | None) -> TextForm:
        """The form of the file at a path: without a given delimiter, `.tsv` has tabs."""
        return evolve(self, delimiter="\t") if delimiter is None and inner_suffix(path) == ".tsv" else self


def text_form(delimiter: str | None = None, decimal: str = ".", encoding: str | None = None) -> TextForm:
    """The form that three options say.

    Raises:
        ValueError: One is invalid; the message names it and what is valid.
    """
    between = "," if delimiter is None else _NAMES.get(delimiter, delimiter)
    if len(between) != 1 or not between.isascii() or between in '"\r\n\0' or between.isalnum() or between in ".-+":
        raise ValueError(f"delimiter takes one character, e.g. ';', '|' or tab, got {delimiter!r}")
    if decimal not in (".", ","):
        raise ValueError(f"decimal takes '.' or ',', got {decimal!r}")
    return TextForm(between, decimal, _UTF8 if encoding is None else _encoding(encoding))


def _encoding(given: str) -> str:
    try:
        found = codecs.lookup(given).name
        "".encode(found)  # some codecs are of bytes alone
        codecs.getincrementaldecoder(found)
    except (LookupError, ValueError):
        raise ValueError(f"encoding takes a text encoding, e.g. cp1252, latin-1 or utf-16, got {given!r}") from None
    return _UTF8 if re.fullmatch(r"utf-8(-sig)?|ascii", found) else found


def separated_otherwise(header: Sequence[str], delimiter: str) -> tuple[str, str] | None:
    """What else separates the cells of a header that is one cell, in words and as `--delimiter` takes it."""
    if len(header) == 1:
        for each, words in _SEPARATORS.items():
            if each != delimiter and each in header[0]:
                return words, "tab" if each == "\t" else shlex.quote(each)
    return None


def inner_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file, in lower case; of `books.csv.gz` it is `.csv`."""
    root, last = os.path.splitext(os.fspath(path).lower())  # noqa: PTH122 - any text
    return os.path.splitext(root)[1] if last in PACKED else last  # noqa: PTH122
