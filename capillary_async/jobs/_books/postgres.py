"""Books in a table of PostgreSQL, read through its ADBC driver in one read-only transaction.

Invariant: numbers travel as the text PostgreSQL writes, so that no digit is lost; no message shows a password. Made by
`_books/open.py`; the driver is the extra `postgres`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from capillary_async.jobs._books.columns import fit, pick
from capillary_async.jobs._books.duckdb_engine import name
from capillary_async.jobs._books.text_values import typed
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capillary_async.jobs._books.address import Address
    from capillary_async.jobs._books.columns import Kind, Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["PostgresBooks"]

_KINDS: Mapping[str, Kind] = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "numeric": "amount",
    "real": "float",
    "double precision": "float",
    "text": "text",
    "character varying": "text",
    "boolean": "boolean",
    "timestamp with time zone": "time",
}
_DRIVER = "adbc_driver_postgresql.dbapi"


class PostgresBooks:
    """A table of PostgreSQL. The password may also be in PGPASSWORD or ~/.pgpass, as for psql.

    Raises:
        JobError: No table is named, or the driver is missing.
    """

    digest: str | None = None
    digest_of = "the table"

    def __init__(self, address: Address, table: str | None) -> None:
        self._address = address
        self._numeric: set[str] = set()
        self.label = f"{address}, table {table}"
        if table is None:
            raise JobError(f"{address}: say which table (table, --table), e.g. finance.awards")
        self._schema, _, self._table = table.rpartition(".")
        try:
            self._driver = importlib.import_module(_DRIVER)
        except ImportError as error:
            raise JobError(
                f'reading {address} needs the PostgreSQL driver ({error}): pip install "capillary-async[jobs,postgres]"'
            ) from None

    def place(self, row: int, key: Sequence[str]) -> str:  # noqa: ARG002 - its rows have no order
        """The place of a row, for a person."""
        return f"in the row with the key {', '.join(key)}"

    def stage(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Make the table `books`.

        Raises:
            JobError: It cannot be read, is empty, or a column is missing or does not fit.
        """
        said = self._arrived(engine, wanted)
        if said is not None:  # raised here, so that no frame of the driver, which has the URL, hangs on the error
            raise JobError(f"{self.label}: {self._address.scrubbed(said)}", path=self.label)
        if not engine.row("SELECT count(*) FROM raw")[0]:
            raise JobError(f"{self.label}: it has no rows: was it not filled yet?", path=self.label)
        typed(engine, "raw", wanted, label=self.label, place=self.place)
        engine.run("DROP TABLE raw")

    def _arrived(self, engine: Engine, wanted: Sequence[Wanted]) -> str | None:
        """Make the table `raw`; returns the driver's error if it could not."""
        try:
            with self._driver.connect(self._address.reveal()) as connection, connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor.execute("SET LOCAL TIME ZONE 'UTC'")
                self._check(cursor, wanted)
                self._read(engine, cursor, wanted)
        except self._driver.Error as error:
            return " ".join(str(error).split())
        return None

    def _check(self, cursor: Any, wanted: Sequence[Wanted]) -> None:
        cursor.execute(
            "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a "
            "WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (self._quoted(),),
        )
        columns: dict[str, str] = dict(cursor.fetchall())
        if not columns:
            raise JobError(f"{self.label}: there is no such table, or not in the search path", path=self.label)
        pick(wanted, list(columns), self.label)
        for each in wanted:
            kind = _KINDS.get(columns[each.theirs], "other")
            if (each.kind, kind) == ("integer", "amount"):
                self._numeric.add(each.theirs)  # taken if it is whole
            else:
                fit(each, kind, columns[each.theirs], self.label)

    def _read(self, engine: Engine, cursor: Any, wanted: Sequence[Wanted]) -> None:
        slots = ", ".join(f"{self._text(each.theirs)} AS {each.slot}" for each in wanted)
        cursor.execute(f"SELECT {slots} FROM {self._quoted()}")
        engine.connection.register("arriving", cursor.fetch_record_batch())
        engine.run("CREATE TABLE raw AS SELECT row_number() OVER () AS row, * FROM arriving", about=self.label)
        engine.connection.unregister("arriving")

    def _text(self, column: str) -> str:
        cell = name(column)
        if column in self._numeric:  # 5.00 is 5, and 5.50 stays what it is
            return f"(CASE WHEN {cell} = trunc({cell}) THEN trunc({cell}) ELSE {cell} END)::text"
        return f"{cell}::text"

    def _quoted(self) -> str:
        return f"{name(self._schema)}.{name(self._table)}" if self._schema else name(self._table)
