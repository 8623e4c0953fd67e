"""Books in a CSV file: UTF-8, commas, a header line.

The rule kept here: every cell is read as text and nothing of the file is guessed; a file that is not what it should be
is refused before it is compared. Made by `_books.py`.
"""

from __future__ import annotations

import csv
import hashlib
import re
from typing import TYPE_CHECKING

import duckdb

from capillary_async.jobs._books_columns import pick
from capillary_async.jobs._books_layout import Layout
from capillary_async.jobs._books_text import typed
from capillary_async.jobs._compare_engine import file_literal, literal
from capillary_async.jobs._errors import JobError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from capillary_async.jobs._books_columns import Wanted
    from capillary_async.jobs._compare_engine import Engine

__all__ = ["CsvBooks"]

_PIECE = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ONE_LINE = re.compile(r"CSV Error on Line: (\d+)")


class CsvBooks:
    """A CSV file.

    Attributes:
        label: Its path.
        digest: The SHA-256 of what was read.

    Raises:
        JobError: It cannot be read, is empty or not UTF-8, or has other separators.
    """

    digest: str | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.label = str(path)
        self._header = self._read_header()

    def _refused(self, text: str) -> JobError:
        return JobError(f"{self.label}: {text}", path=self.label)

    def _read_header(self) -> list[str]:
        with self._path.open("rb") as file:
            start = file.read(_PIECE)
        if not start.strip():
            raise self._refused("the file is empty; it needs a header line and rows")
        if start.startswith(_UTF16):
            raise self._refused(f"it is UTF-16; save it as UTF-8, or: iconv -f utf-16 -t utf-8 {self._path.name}")
        try:
            # The piece may end within a character, which is never in its first line.
            text = start.decode("utf-8-sig", errors="strict" if len(start) < _PIECE else "ignore")
        except UnicodeDecodeError as error:
            raise self._not_utf8(start.count(b"\n", 0, error.start) + 1) from error
        header = next(csv.reader(text.splitlines(keepends=True)))
        for separator, said in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if len(header) == 1 and separator in header[0]:
                raise self._refused(
                    f"row 1: its columns are separated by {said} ({header[0][:60]!r}); save it with commas, and with "
                    "points in the amounts"
                )
        return header

    def _not_utf8(self, row: int) -> JobError:
        return self._refused(
            f"row {row} is not UTF-8 (Latin-1, perhaps); save it as UTF-8, or: "
            f"iconv -f latin1 -t utf-8 {self._path.name}"
        )

    def place(self, row: int, key: Sequence[str]) -> str:  # noqa: ARG002 - tables without row numbers need the key
        """Where a row stands, for a person; the header is row 1."""
        return f"row {row}"

    def stage(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Make the table `books`.

        Raises:
            JobError: A column is missing, a row has too many or too few, or a cell is not what it must be.
        """
        pick(wanted, self._header, self.label)
        records = self._scan()
        # Names of our own: those of the file may be empty or stand there twice.
        columns = ", ".join(f"{literal(f'c{nth}')}: 'VARCHAR'" for nth in range(len(self._header)))
        slots = ", ".join(f"{_cell(each, self._header.index(each.theirs))} AS {each.slot}" for each in wanted)
        try:
            # One thread and the file's order give each row its number.
            engine.connection.execute("SET preserve_insertion_order = true")
            engine.connection.execute(
                f"CREATE TABLE raw AS SELECT row_number() OVER () + 1 AS row, {slots} FROM read_csv("
                f"{file_literal(self._path)}, auto_detect = false, header = true, delim = ',', quote = '\"', "
                f"escape = '\"', columns = {{{columns}}}, nullstr = '', allow_quoted_nulls = false, "
                "strict_mode = true, parallel = false, hive_partitioning = false, union_by_name = false)"
            )
            engine.connection.execute("SET preserve_insertion_order = false")
        except duckdb.Error as error:
            raise self._told(str(error)) from error
        rows = engine.row("SELECT count(*) FROM raw")[0]
        if not rows:
            raise self._refused("it has a header and no rows: was it cut off, or not filled yet?")
        # An empty line is no record, but where there is one column it is a row whose cell is empty.
        if rows != records - 1 and not (len(self._header) == 1 and rows >= records):
            raise self._refused(
                f"it has {records - 1:,} rows and {rows:,} were read. This is a fault of the SDK; save the file anew, "
                "with every cell in quotation marks"
            )
        typed(engine, "raw", wanted, label=self.label, place=self.place)
        engine.run("DROP TABLE raw")

    def _scan(self) -> int:
        """Read all of it once: for its digest, and to see that each quotation mark opens, closes or is doubled.

        DuckDB drops all rows from an opening mark on that has no partner, and says nothing.

        Returns:
            How many records it has, the header being one.

        Raises:
            JobError: A quotation mark stands where none may.
        """
        digest, layout = hashlib.sha256(), Layout()
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                wrong = layout.take(piece)
                if wrong is not None:
                    raise self._stray(wrong)
        if layout.inside:
            raise self._refused(
                f'row {layout.records}: a quotation mark (") has no partner; double those within a cell'
            )
        self.digest = digest.hexdigest()
        return layout.records

    def _stray(self, row: int) -> JobError:
        return self._refused(
            f'row {row}: a quotation mark (") stands where none may; put the cell in quotation marks and double those '
            "within"
        )

    def _told(self, text: str) -> JobError:
        """What DuckDB could not read, in our words."""
        line = _ONE_LINE.search(text)
        row = int(line[1]) if line else 0
        if "state machine" in text:
            return self._refused(
                "its line ends are mixed, or a cell has one outside of quotation marks; save it with one kind"
            )
        if "unicode" in text or "utf-8" in text:
            return self._not_utf8(row)
        number = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
        if number:
            return self._refused(f"row {row} has {number[2]} columns, and the header has {number[1]}")
        if "quote" in text:
            return self._stray(row)
        return self._refused(text.strip().partition("\n")[0])


def _cell(each: Wanted, nth: int) -> str:
    """A cell. An empty one is no value; in quotation marks it is an empty text, where text is wanted."""
    return f"c{nth}" if each.kind == "text" else f"nullif(c{nth}, '')"
