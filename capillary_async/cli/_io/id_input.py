"""The ids of a command: from arguments, a file, a folder of Parquet files, a pipe or stdin.

Invariant: an input is opened once and read as it is needed, never whole; what is wrong with it is an error that names
the file and the line. Used by `_commands/read.py`, `_commands/ledger.py` and `_commands/export.py`.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from capillary_async._files import (
    PARQUET,
    Layout,
    Source,
    SourceError,
    is_other_number,
    lines,
    near_file,
    text_form,
    why_no_id,
)
from capillary_async._files.addresses import why_no_path
from capillary_async._files.workbook import is_workbook
from capillary_async.cli._io.run import UnusableError, jobs
from capillary_async.cli._io.table_input import STREAM, SheetInput, TextInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from capillary_async.cli._io.options import IdSource

__all__ = ["STREAM", "ids_of", "pairs_of"]

_PIECE = 65_536
_NO_EVENT = frozenset({"", "-1"})
Rule = Literal["references", "ids", "strict"]
_OWNERS = ("customer_id", "id", "primary_user_id", "mobile")  # kinds of identifiers that are whole numbers


def ids_of(
    given: Sequence[str], source: IdSource, otherwise: Sequence[int] | None, *, rule: Rule = "ids"
) -> Sequence[str | int] | AsyncIterator[Any]:
    """Return the ids: a sequence if they are in memory, else an iterator over the input.

    Args:
        given: The ids among the arguments.
        source: The options.
        otherwise: The ids where none are given.
        rule: `references` are any text; of `ids`, a number written in another way is refused, and what else is no id
            is left to the SDK, which names it; `strict` refuses everything that is no id.

    Raises:
        UnusableError: None were given, in two ways, or the input cannot be read.
    """
    path = source.ids
    if given == (STREAM,) and path is None:
        given, path = (), STREAM
    if given and path is not None:
        raise UnusableError("give ids as arguments or with --ids, not both")
    if STREAM in given:
        raise UnusableError("'-' (stdin) is used alone, without other ids")
    if given:
        return given
    if path is None and otherwise is not None:
        return otherwise
    if path is None:
        raise UnusableError("no ids: give them as arguments, with --ids FILE, or as - for stdin")
    if source.delimiter is not None and source.ids_column is None:
        raise UnusableError("--delimiter goes with --ids-column, which names the column of the ids")
    columns = () if source.ids_column is None else (source.ids_column,)
    opened = _opened(path, source)
    if opened is None:
        return _each(jobs().ids_in_parquet(path, *columns), path, rule)
    return _checked(opened, source.ids_column, rule)


def pairs_of(source: IdSource, columns: tuple[str, str], kind: str) -> AsyncIterator[Any]:
    """Return the identifiers and event ids of a ledger, from two columns of a CSV or Parquet input.

    Raises:
        UnusableError: The input cannot be read.
    """
    path = str(source.ids)
    opened = _opened(path, source)
    if opened is None:
        return _each(jobs().ids_in_parquet(path, *columns), path, "ids")
    return _pairs(opened, columns, kind)


def _opened(path: str, options: IdSource) -> TextInput | SheetInput | None:
    """Open the input, unless opening can block; None for Parquet.

    Raises:
        UnusableError: It cannot be read, or an option does not fit it.
    """
    try:
        form = text_form(options.delimiter, encoding=options.encoding)
    except ValueError as error:
        raise UnusableError(f"--{error}") from None
    if path != STREAM and is_workbook(path):
        _refuse(path, "a workbook", delimiter=options.delimiter, encoding=options.encoding)
        return SheetInput(path, options.sheet)
    source = _source(path, form.encoding)
    if source is None:
        _refuse(path, "Parquet", delimiter=options.delimiter, encoding=options.encoding, sheet=options.sheet)
        return None
    _refuse("the input" if path == STREAM else path, "text", sheet=options.sheet)
    return TextInput(path, source, form.at(path, options.delimiter).delimiter)


def _refuse(path: str, kind: str, **options: str | None) -> None:
    for name, given in options.items():
        if given is not None:
            raise UnusableError(f"--{name} does not go with ids that are {kind}, as {path} is: leave it out")


def _source(path: str, encoding: str) -> Source | None:
    if path == STREAM:
        return _stdin(encoding)
    mode = _mode_of(path)
    if mode is None:
        return None
    if stat.S_ISDIR(mode):
        if not any(each.suffix.lower() in PARQUET for each in Path(path).rglob("*")):
            raise UnusableError(f"cannot read ids: {path} is a directory, and has no Parquet files")
        return None
    source = Source(path, size=_PIECE, encoding=encoding)
    if stat.S_ISREG(mode):  # opening a FIFO waits for its writer
        try:
            source.open()
        except SourceError as error:
            source.close()
            raise UnusableError(f"cannot read ids: {path}: {error}") from error
        if source.kind == "parquet":
            source.close()
            return None
    return source


def _mode_of(path: str) -> int | None:
    """Return the mode of the file at the path; None for a glob.

    Raises:
        UnusableError: It is a URL, or leads to nothing.
    """
    if (why := why_no_path(path)) is not None:
        raise UnusableError(f"--ids: {why}")
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        if glob.has_magic(path):
            return None
        raise UnusableError(f"cannot read ids: there is no file {path}{near_file(path)}") from None
    except (OSError, ValueError) as error:
        raise UnusableError(f"cannot read ids: {error}") from error


def _stdin(encoding: str) -> Source:
    stdin: TextIO | None = sys.stdin  # None where it is closed
    if stdin is None:
        raise UnusableError("cannot read ids: stdin is closed")
    try:
        return Source(os.dup(stdin.fileno()), size=_PIECE, encoding=encoding)
    except (OSError, ValueError) as error:
        raise UnusableError(f"cannot read ids: {error}") from error


async def _plain(source: TextInput) -> AsyncIterator[tuple[int, str]]:
    async for block in source.blocks(Layout(quoted=False)):
        for line, text in lines(block):
            stripped = text.strip()
            if stripped:
                yield line, stripped


async def _checked(source: TextInput | SheetInput, column: str | None, rule: Rule) -> AsyncIterator[str]:
    if column is None:
        if isinstance(source, SheetInput):
            raise UnusableError(f"{source.label} is a workbook: say which column holds the ids, with --ids-column")
        first = True
        async for line, text in _plain(source):
            if first and rule == "strict" and not text.isdecimal() and not is_other_number(text):
                raise UnusableError(
                    f"ids: {source.label}, line {line}: the first line of the ids is {text!r:.80}, which is no id: if "
                    "it is the header of a CSV, say which column holds the ids, with --ids-column"
                )
            first = False
            _check(source, line, text, rule, "")
            yield text
        return
    async for line, (text,), lacking in source.rows({"--ids-column": column}):
        if lacking and rule == "strict":
            raise source.wrong(line, f" has {lacking} cells less than the header")
        _check(source, line, text, rule, f"column {column!r}: ")
        yield text


def _check(source: TextInput | SheetInput, line: int, text: str, rule: Rule, where: str) -> None:
    if rule == "references" or (rule == "ids" and not is_other_number(text)):
        return
    why = why_no_id(text)
    if why is not None:
        raise source.wrong(line, f": {where}{_shown(text)}{why}")


def _shown(text: str) -> str:
    return f"{text!r:.80} " if text else "it "


async def _pairs(source: TextInput | SheetInput, columns: tuple[str, str], kind: str) -> AsyncIterator[tuple[str, str]]:
    async for line, (owner, event), lacking in source.rows(
        {"--identifier-column": columns[0], "--event-column": columns[1]}
    ):
        if lacking:
            raise source.wrong(line, f" has {lacking} cells less than the header, too few")
        if event.strip() in _NO_EVENT:
            continue  # a row of an export without an event log id: the ledger has nothing of it
        wrong = why_no_id(event)
        if wrong is not None:
            raise source.wrong(line, f": column {columns[1]!r}: {_shown(event)}{wrong}")
        if not owner or (kind in _OWNERS and is_other_number(owner.removeprefix("+"))):
            raise source.wrong(line, f": column {columns[0]!r}: {_shown(owner)}{why_no_id(owner)}")
        yield owner, event


async def _each(keys: Iterable[Any], path: str, rule: Rule) -> AsyncIterator[Any]:
    for row, key in enumerate(keys, 1):
        if rule == "strict" and isinstance(key, str) and (why := why_no_id(key.strip())) is not None:
            raise UnusableError(f"ids: {path}, row {row}: {_shown(key)}{why}")
        yield key
