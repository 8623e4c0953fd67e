"""The ids to ask for: from arguments, a file or stdin, plain or a column of a CSV.

The rule kept here: a file is read as it is needed, never whole, and an id is handed on as it stands there; the SDK
judges it. Used by `_read.py` and `_ledger.py`.
"""

from __future__ import annotations

import codecs
import csv
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from capillary_async.cli._blocking import Blocking
from capillary_async.cli._run import UnusableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from capillary_async.cli._options import IdSource

__all__ = ["STREAM", "ids_of"]

# Stands for `-` on the command line, which the parser would take for an option without a name.
STREAM = "\0-"  # no argument of a process can hold a NUL
_PIECE = 65_536


def ids_of(
    given: Sequence[str], source: IdSource, otherwise: Sequence[int] | None
) -> Sequence[str | int] | AsyncIterator[str]:
    """What to ask for: a sequence where the ids are at hand, else an iterator over a file or stdin.

    Raises:
        UnusableError: None were given, in two ways, or the file cannot be read.
    """
    path = source.ids
    if given == (STREAM,) and path is None:
        given, path = (), STREAM
    if given and path is not None:
        raise UnusableError("give ids as arguments or with --ids, not both")
    if STREAM in given:
        raise UnusableError("'-' (stdin) stands alone, without other ids")
    if given:
        return given
    if path is None and otherwise is not None:
        return otherwise
    if path is None:
        raise UnusableError("no ids: give them as arguments, with --ids FILE, or as - for stdin")
    return _ids_in(_opened(path), source.ids_column)


def _opened(path: str) -> int:
    """A file descriptor of our own."""
    stdin: TextIO | None = sys.stdin  # None where it is closed
    if path == STREAM and stdin is None:
        raise UnusableError("cannot read ids: stdin is closed")
    if path != STREAM and Path(path).is_dir():
        raise UnusableError(f"cannot read ids: {path} is a directory")
    try:
        return os.dup(sys.stdin.fileno()) if path == STREAM else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise UnusableError(f"cannot read ids: {error}") from error


async def _ids_in(descriptor: int, column: str | None) -> AsyncIterator[str]:
    place: int | None = None
    async for line in _lines(descriptor, quoted=column is not None):
        if not line.strip():
            continue
        if column is None:
            yield line.strip()
            continue
        cells = next(csv.reader([line], strict=False))
        if place is None:
            place = _place_of(column, cells)
            continue
        yield cells[place].strip() if place < len(cells) else ""


def _place_of(column: str, header: Sequence[str]) -> int:
    names = [name.strip() for name in header]
    if column not in names:
        raise UnusableError(f"--ids-column {column!r} is no column of the ids file; it has {', '.join(names)}")
    return names.index(column)


async def _lines(descriptor: int, *, quoted: bool) -> AsyncIterator[str]:
    """The lines, without their ends; where cells may be quoted, a line goes on behind an end that stands in quotes."""
    blocking = Blocking()
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    held: str = ""
    try:
        while piece := await blocking.call(os.read, descriptor, _PIECE):
            text: str = held + decoder.decode(piece)
            whole: list[str] = text.split("\n")
            rest: str = whole.pop()
            held = ""
            for line in whole:
                held += line
                if quoted and held.count('"') % 2:
                    held += "\n"
                    continue
                yield held.removesuffix("\r")
                held = ""
            held += rest
        yield (held + decoder.decode(b"", final=True)).removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UnusableError(f"the ids are no UTF-8 text: {error}") from error
    finally:
        # Not waited for: a read of a silent pipe may never return.
        blocking.end(lambda: os.close(descriptor))
