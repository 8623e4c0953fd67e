"""Books in a sheet of an Excel workbook.

Invariant: a cell is exact or refused with its row; text and numbers of Excel are read as strictly as cells of a CSV.
Made by `_books/open.py`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from capillary_async._files import SourceError
from capillary_async._files.workbook import Sheet
from capillary_async.jobs._books.columns import names_of, pick
from capillary_async.jobs._books.text_values import typed
from capillary_async.jobs._books.where import by_column, keep_rows
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.pyarrow_import import pa

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.options import BooksOptions

__all__ = ["WorkbookBooks"]


class WorkbookBooks:
    """A sheet of a workbook; without a name, the only one.

    Attributes:
        label: Its path and sheet.
        digest: The SHA-256 of the workbook.
        digest_of: What the digest is of.
    """

    digest: str | None = None
    digest_of = "the file"

    def __init__(self, path: Path, options: BooksOptions) -> None:
        self._path, self._options = path, options
        self._decimal = options.form(path).decimal
        self.label = f"{path}, sheet {options.sheet}" if options.sheet else str(path)

    def place(self, row: int, key: Sequence[str]) -> str:  # noqa: ARG002 - tables without row numbers need the key
        """The place of a row, for a person; the header is row 1."""
        return f"row {row}"

    def stage(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Make the table `books`.

        Raises:
            JobError: It cannot be read, is empty, a column is missing, or a cell is not what it must be.
        """
        with self._path.open("rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            sheet = Sheet(str(self._path), self._options.sheet)
        except SourceError as error:
            raise JobError(f"{self.label}: {error}", path=self.label) from error
        where = self._options.where
        pick(names_of(wanted, where), sheet.header, self.label)
        columns = {each.slot: (each.theirs, each.kind == "text") for each in wanted}
        cells = {column: f"w{nth}" for nth, column in enumerate(by_column(where))}
        columns |= {cell: (column, False) for column, cell in cells.items()}
        self._fill(engine, sheet, columns)
        keep_rows(engine, cells, where, self.label)
        typed(engine, "raw", wanted, label=self.label, place=self.place, decimal=self._decimal)
        engine.run("DROP TABLE raw")

    def _fill(self, engine: Engine, sheet: Sheet, columns: dict[str, tuple[str, bool]]) -> None:
        """Make the table `raw`, all text."""
        places = {slot: (sheet.header.index(name), text) for slot, (name, text) in columns.items()}
        rows: list[int] = []
        texts: dict[str, list[str | None]] = {slot: [] for slot in columns}
        for number, row in sheet.rows():
            rows.append(number)
            for slot, (column, text) in places.items():
                try:
                    texts[slot].append(self._text(sheet, number, row, column, text=text))
                except ValueError as error:
                    raise JobError(
                        f"{self.label}: column {columns[slot][0]!r}, row {number}: {error}", path=self.label
                    ) from None
            if not number % 10_000:
                engine.go_on()
        if not rows:
            raise JobError(f"{self.label}: it has a header and no rows: was it not filled yet?", path=self.label)
        table = pa.table({"row": pa.array(rows, pa.int64())} | {k: pa.array(v, pa.string()) for k, v in texts.items()})
        engine.connection.register("arriving", table)
        engine.run("CREATE TABLE raw AS SELECT * FROM arriving", about=self.label)
        engine.connection.unregister("arriving")

    def _text(self, sheet: Sheet, number: int, row: list[object], column: int, *, text: bool) -> str | None:
        found = sheet.cell(number, row, column, text=text)
        return found if found is None or isinstance(row[column], str) else found.replace(".", self._decimal)
