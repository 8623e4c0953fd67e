"""Books in a CSV file or pipe, plain or compressed: a header line and rows, UTF-8 and commas unless the user says else.

Invariant: every cell is read as text and nothing of the file is guessed; a file that is not what it should be is
refused before it is compared. Made by `_books/open.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from capillary_async._files import Fault, Layout, Source, SourceError, records, separated_otherwise
from capillary_async.jobs._books.columns import names_of, pick
from capillary_async.jobs._books.duckdb_engine import file_literal, literal
from capillary_async.jobs._books.text_values import typed
from capillary_async.jobs._books.where import by_column, keep_rows
from capillary_async.jobs._common.errors import JobError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from capillary_async._files import Block
    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.options import BooksOptions

__all__ = ["CsvBooks"]

_PIECE = 1 << 20
_LINE = 2_000_000  # DuckDB's own limit, unless it is raised


class CsvBooks:
    """A CSV file of a certain form.

    Attributes:
        label: Its path.
        digest: The SHA-256 of what was read.
        digest_of: What the digest is of.
    """

    digest: str | None = None
    digest_of = "the file"

    def __init__(self, path: Path, options: BooksOptions) -> None:
        self._path = self._plain = path
        self._form, self._where = options.form(path), options.where
        self._encoding = self._form.encoding
        self.label = str(path)
        self._header: list[str] = []
        self._layout = self._new_layout()

    def _new_layout(self) -> Layout:
        return Layout(one_end=True, delimiter=self._form.delimiter)

    def _refused(self, text: str) -> JobError:
        return JobError(f"{self.label}: {text}", path=self.label)

    def place(self, row: int, key: Sequence[str]) -> str:  # noqa: ARG002 - tables without row numbers need the key
        """The place of a row, for a person; the header is row 1. The line is added if its number differs."""
        line = row if self._layout.lines <= self._layout.records else self._line_of(row)
        return f"row {row}" if line == row else f"row {row} (line {line})"

    def stage(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Make the table `books`.

        Raises:
            JobError: It cannot be read, is empty or not UTF-8, or has other separators; a column is missing, a row has
                too many or too few, or a cell is not what it must be.
        """
        self._scan(engine, wanted)
        # Names of our own: those of the file may be empty or there twice.
        columns = ", ".join(f"{literal(f'c{nth}')}: 'VARCHAR'" for nth in range(len(self._header)))
        slots = [f"{_cell(each, self._header.index(each.theirs))} AS {each.slot}" for each in wanted]
        cells = {column: f"w{nth}" for nth, column in enumerate(by_column(self._where))}
        slots += [f"c{self._header.index(column)} AS {cell}" for column, cell in cells.items()]
        line = f", max_line_size = {self._layout.longest + 1}" if self._layout.longest >= _LINE else ""
        try:
            # One thread and the file's order give each row its number.
            engine.connection.execute("SET preserve_insertion_order = true")
            engine.connection.execute(
                f"CREATE TABLE raw AS SELECT row_number() OVER () + 1 AS row, {', '.join(slots)} FROM read_csv("
                f"{file_literal(self._plain)}, auto_detect = false, header = true, "
                f"delim = {literal(self._form.delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}}, "
                f"nullstr = '', allow_quoted_nulls = false{line}, compression = 'none', strict_mode = true, "
                "parallel = false, hive_partitioning = false, union_by_name = false)"
            )
            engine.connection.execute("SET preserve_insertion_order = false")
        except duckdb.Error as error:
            raise self._described(error) from error
        rows, found = engine.row("SELECT count(*) FROM raw")[0], self._layout.records
        if not rows:
            raise self._refused("it has a header and no rows: was it cut off, or not filled yet?")
        # An empty line is no record, but where there is one column it is a row whose cell is empty.
        if rows != found - 1 and not (len(self._header) == 1 and rows >= found):
            raise self._refused(
                f"it has {found - 1:,} rows and {rows:,} were read. This is a fault of the SDK; save the file again, "
                "with every cell in quotation marks"
            )
        keep_rows(engine, cells, self._where, self.label)
        typed(engine, "raw", wanted, label=self.label, place=self.place, decimal=self._form.decimal)
        engine.run("DROP TABLE raw")

    # -- one pass over all of it

    def _scan(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Read all of it once: for its digest, its header and its layout.

        DuckDB drops all rows from an opening mark on that has no partner, and reports nothing. What is no plain file is
        copied to the scratch folder as UTF-8, where DuckDB reads it.
        """
        source = Source(str(self._path), size=_PIECE, hashed=True, encoding=self._form.encoding)
        piped = not self._path.is_file()
        try:
            if not piped:
                source.open()
            if piped or source.kind != "text" or self._form.encoding != "utf-8":
                self._plain, self._encoding = engine.scratch / "books.csv", "utf-8"
                with self._plain.open("wb") as copy:
                    for block in self._blocks(source.pieces(engine.go_on), wanted):
                        copy.write(block.data)
            else:
                for _ in self._blocks(iter(source.piece, b""), wanted):
                    engine.go_on()
        except SourceError as error:
            raise self._refused(str(error)) from error
        except Fault as fault:
            raise self._faulty(fault.line, fault.record, fault.reason) from None
        finally:
            if not piped:
                source.close()
        if not self._header:
            raise self._refused("the file is empty; it needs a header line and rows")
        self.digest = source.digest

    def _blocks(self, pieces: Iterator[bytes], wanted: Sequence[Wanted]) -> Iterator[Block]:
        layout = self._layout = self._new_layout()
        for block in layout.blocks(pieces):
            if not self._header:
                self._take_header(block, wanted)
            yield block

    def _take_header(self, block: Block, wanted: Sequence[Wanted]) -> None:
        found = next(records(block, self._form.delimiter), None)
        if found is None:
            return
        line, header = found
        if line != 1:
            raise self._refused(f"line 1 is empty, and the header is on line {line}: remove what is before it")
        other = separated_otherwise(header, self._form.delimiter)
        if other is not None:
            raise self._refused(
                f"line 1, row 1: its columns are separated by {other[0]} ({header[0][:60]!r}); save it with commas, "
                f"and with points in the amounts, or say so (delimiter, --delimiter {other[1]})"
            )
        pick(names_of(wanted, self._where), header, self.label)
        self._header = header

    # -- what is wrong with it

    def _faulty(self, line: int, row: int, reason: str) -> JobError:
        return self._refused(f"line {line}, row {row}{reason}")

    def _described(self, error: duckdb.Error) -> JobError:
        """What DuckDB could not read, in our words."""
        for row, line, cells in self._rows():
            if len(cells) != len(self._header):
                return self._faulty(line, row, f" has {len(cells)} columns, and the header has {len(self._header)}")
        return self._refused(one_line(error))

    def _line_of(self, row: int) -> int:
        return next((line for nth, line, _ in self._rows(row) if nth == row), row)

    def _rows(self, first: int = 1) -> Iterator[tuple[int, int, list[str]]]:
        """The rows again, of the file that DuckDB read; blocks that end before `first` are skipped."""
        source = Source(str(self._plain), size=_PIECE, encoding=self._encoding)
        last: Block | None = None
        layout = self._layout = self._new_layout()
        try:
            for block in layout.blocks(iter(source.piece, b"")):
                if last is not None and block.record >= first:
                    yield from self._numbered(last)
                last = block
            if last is not None:
                yield from self._numbered(last)
        finally:
            source.close()

    def _numbered(self, block: Block) -> Iterator[tuple[int, int, list[str]]]:
        found = records(block, self._form.delimiter)
        return ((nth, line, cells) for nth, (line, cells) in enumerate(found, block.record + 1))


def _cell(each: Wanted, nth: int) -> str:
    """A cell. An empty one is no value; in quotation marks it is an empty text, in a column of text."""
    return f"c{nth}" if each.kind == "text" else f"nullif(c{nth}, '')"
