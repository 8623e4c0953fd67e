"""The text, table or workbook that ids are read from, row by row.

Invariant: each row has its number, and what is wrong with a row or a header is an error that names it. Made by
`_io/id_input.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capillary_async._files import (
    Fault,
    Layout,
    Source,
    SourceError,
    columns_of,
    near,
    records,
    separated_otherwise,
    shown_names,
)
from capillary_async._files.workbook import Sheet
from capillary_async.cli._io.io_thread import IOThread
from capillary_async.cli._io.run import UnusableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capillary_async._files import Block

__all__ = ["STREAM", "SheetInput", "TextInput"]

# Replaces `-` on the command line, which the parser would take for an option without a name.
STREAM = "\0-"  # no argument of a process can hold a NUL


class _TableInput:
    """What both kinds have in common."""

    _delimiter = ","
    _unit = "line"

    def __init__(self, path: str) -> None:
        self.label = "stdin" if path == STREAM else path

    def wrong(self, line: int, text: str) -> UnusableError:
        """Return the error for a line or row."""
        return UnusableError(f"ids: {self.label}, {self._unit} {line}{text}")

    def _places(self, line: int, header: list[str], columns: dict[str, str]) -> list[int]:
        try:
            return columns_of(header, list(columns.values()))
        except LookupError as error:
            name, many = error.args
            option = next(option for option, each in columns.items() if each == name)
            if many:
                raise self.wrong(line, f": {many} columns are named {name!r}; rename all but one") from None
            other = separated_otherwise(header, self._delimiter)
            also = f"; its columns are separated by {other[0]}: --delimiter {other[1]}" if other else near(name, header)
            known = shown_names(each.strip(" \t") for each in header)
            if len(columns) > 1:
                text = f": the ids have no column {name!r}; they have {known}. Name it with {option}{also}"
                raise self.wrong(line, text) from None
            raise self.wrong(line, f": {option} {name!r} is no column of the ids file; it has {known}{also}") from None


class TextInput(_TableInput):
    """A text input, read in a thread."""

    def __init__(self, path: str, source: Source, delimiter: str) -> None:
        super().__init__(path)
        self._source, self._delimiter = source, delimiter

    async def blocks(self, layout: Layout) -> AsyncIterator[Block]:
        """Checked pieces of whole records.

        Raises:
            UnusableError: It cannot be read, or a line is wrong.
        """
        blocking = IOThread()
        try:
            while piece := await blocking.call(self._source.piece):
                block = layout.take(piece)
                if block is not None:
                    yield block
            block = layout.finish()
            if block is not None:
                yield block
        except Fault as fault:
            raise self.wrong(fault.line, fault.reason) from None
        except SourceError as error:
            raise UnusableError(f"ids: {self.label}: {error}") from error
        finally:
            # Not waited for: a read of a silent pipe may never return.
            blocking.end(self._source.close)

    async def rows(self, columns: dict[str, str]) -> AsyncIterator[tuple[int, list[str], int]]:
        """Yield the cells of the columns of a CSV, each row with its line number and the number of its missing cells.

        Args:
            columns: The names of the columns, by the options that name them.

        Raises:
            UnusableError: It cannot be read, or its layout is wrong.
        """
        places: list[int] | None = None
        width = 0
        async for block in self.blocks(Layout(padded=True, delimiter=self._delimiter)):
            for line, cells in records(block, self._delimiter):
                if places is None:
                    places, width = self._places(line, cells, columns), len(cells)
                    continue
                if len(cells) > width:
                    raise self.wrong(line, f" has {len(cells)} cells, and the header has {width}: {cells!r:.80}")
                yield line, [cells[at].strip() if at < len(cells) else "" for at in places], width - len(cells)


class SheetInput(_TableInput):
    """A sheet of a workbook."""

    _unit = "row"

    def __init__(self, path: str, sheet: str | None) -> None:
        super().__init__(path)
        self._path, self._sheet = path, sheet

    async def rows(self, columns: dict[str, str]) -> AsyncIterator[tuple[int, list[str], int]]:
        """Yield the cells of the columns, each row with its number; no cell is missing.

        Raises:
            UnusableError: It cannot be read, or a cell is not exact.
        """
        blocking = IOThread()
        try:
            sheet = await blocking.call(lambda: Sheet(self._path, self._sheet))
        except SourceError as error:
            raise UnusableError(f"ids: {self.label}: {error}") from error
        finally:
            blocking.end(lambda: None)
        places = self._places(1, sheet.header, columns)
        for number, row in sheet.rows():
            try:
                cells = [sheet.cell(number, row, at, text=False) for at in places]
            except ValueError as error:
                raise self.wrong(number, f": {error}") from None
            yield number, [(cell or "").strip() for cell in cells], 0
