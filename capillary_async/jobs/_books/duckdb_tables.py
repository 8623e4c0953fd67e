"""Books in a table or view of a DuckDB database.

Invariant: the database is opened for reading only. Made by `_books/open.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capillary_async._files import near
from capillary_async.jobs._books.duckdb_engine import literal, name
from capillary_async.jobs._books.duckdb_parquet import TypedBooks
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.options import BooksOptions

__all__ = ["DuckDBBooks"]


class DuckDBBooks(TypedBooks):
    """A table or view of a DuckDB database, which is opened for reading only.

    Raises:
        JobError: No table is named.
    """

    def __init__(self, path: Path, options: BooksOptions) -> None:
        self._path, self._options, self._table = path, options, options.table
        self._is_view = False
        self.label = f"{path}, table {self._table}" if self._table else str(path)

    def _relation(self, engine: Engine, wanted: Sequence[Wanted]) -> str:  # noqa: ARG002 - all columns are read as they are
        engine.run(f"ATTACH {literal(self._path)} AS their_books (READ_ONLY)", about=self.label)
        known = {
            table if schema == "main" else f"{schema}.{table}": (schema, table, is_view)
            for schema, table, is_view in engine.rows(
                "SELECT schema_name, table_name, false FROM duckdb_tables() WHERE database_name = 'their_books' "
                "UNION ALL SELECT schema_name, view_name, true FROM duckdb_views() "
                "WHERE database_name = 'their_books' AND NOT internal"
            )
        }
        given = self._table or ""
        short = given.removeprefix(f"{self._path.stem}.")  # as DuckDB itself names the database
        names = (given, given.removeprefix("main."), short, short.removeprefix("main."))
        found = next((each for each in names if each in known), None)
        if found is None:
            said = "say which table (table, --table)" if self._table is None else "there is no such table"
            listed = f"{', '.join(sorted(known)) or 'none'}{near(given, known)}"
            raise JobError(f"{self.label}: {said}. It has: {listed}", path=str(self._path))
        schema, table, self._is_view = known[found]
        return f"their_books.{name(schema)}.{name(table)}"

    def place(self, row: int, key: Sequence[str]) -> str:
        """The place of a row, for a person; the rows of a view have no numbers."""
        if not self._is_view:
            return super().place(row, key)
        return f"in the row with the key {', '.join(key)}" if key else "one row"

    def _row(self) -> str:
        return "row_number() OVER ()" if self._is_view else "rowid"
