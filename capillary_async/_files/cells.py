"""From checked blocks of text to records of cells, each with its line.

Invariant: a line ends at CR, LF or CR LF and nowhere else; the other characters that `str.splitlines` cuts at are text.
Used where ids are read.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capillary_async._files.layout import Block

__all__ = ["columns_of", "lines", "records"]


@cache
def _cell(delimiter: str) -> re.Pattern[str]:
    between, blanks = re.escape(delimiter), " \t".replace(delimiter, "")
    return re.compile(rf'(?:"((?:[^"]++|"")*+)"[{blanks}]*+|([^{between}\r\n]*+))({between}|\r\n|\r|\n|\Z)')


def lines(block: Block) -> Iterator[tuple[int, str]]:
    """The lines, without their ends, each with its number."""
    text = block.text.replace("\r\n", "\n").replace("\r", "\n")
    return enumerate(text.removesuffix("\n").split("\n"), block.line)


def records(block: Block, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The records, each with the number of the line it begins on; lines of blanks are none."""
    blanks = " \t".replace(delimiter, "")
    if '"' not in block.text:
        for number, line in lines(block):
            if line.strip(blanks):
                yield number, line.split(delimiter)
        return
    text, at, number, cell = block.text, 0, block.line, _cell(delimiter)
    while at < len(text):
        cells: list[str] = []
        start, end, written = at, delimiter, False
        while end == delimiter:
            found = cell.match(text, at)
            if found is None:  # pragma: no cover - the layout was checked
                raise AssertionError(text[at : at + 80])
            quoted, bare, end = found.groups()
            written = written or quoted is not None
            cells.append(bare if quoted is None else quoted.replace('""', '"'))
            at = found.end()
        if written or len(cells) > 1 or cells[0].strip(" \t"):
            yield number, cells
        part = text[start:at]
        number += part.count("\n") + part.count("\r") - part.count("\r\n")


def columns_of(header: Sequence[str], names: Sequence[str]) -> list[int]:
    """The places of named columns.

    Raises:
        LookupError: One is missing or there twice; its arguments are the name and how many there are.
    """
    places: list[int] = []
    for name in names:
        exact = [nth for nth, each in enumerate(header) if each == name]
        found = exact or [nth for nth, each in enumerate(header) if each.strip(" \t") == name.strip(" \t")]
        if len(found) != 1:
            raise LookupError(name, len(found))
        places.append(found[0])
    return places
