"""Books in a table of PostgreSQL, read through its ADBC driver in one read-only transaction.

Invariant: numbers travel as the text PostgreSQL writes, so that no digit is lost; no message shows a password. Made by
`_books/open.py`; the driver is the extra `postgres`.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from capillary_async._files import near
from capillary_async.jobs._books.columns import fit, names_of, pick
from capillary_async.jobs._books.duckdb_engine import literal, name
from capillary_async.jobs._books.text_values import typed
from capillary_async.jobs._books.where import SEARCHED, by_column, nothing_left
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capillary_async.jobs._books.address import Address
    from capillary_async.jobs._books.columns import Kind, Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.options import BooksOptions

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
    "character": "text",
    "name": "text",
    "uuid": "text",
    "boolean": "boolean",
    "timestamp with time zone": "time",
}
# The type of each column: a domain's is that below it, an enumeration's is text.
_COLUMNS = """
WITH RECURSIVE c (number, name, own, base) AS (
    SELECT attnum, attname, atttypid, atttypid FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT c.number, c.name, c.own, t.typbasetype FROM c JOIN pg_type t ON t.oid = c.base AND t.typtype = 'd'
)
SELECT c.name, CASE t.typtype WHEN 'e' THEN 'text' ELSE format_type(c.base, NULL) END, format_type(c.own, NULL)
FROM c JOIN pg_type t ON t.oid = c.base WHERE t.typtype <> 'd' ORDER BY c.number
"""
_DRIVER = "adbc_driver_postgresql.dbapi"


class PostgresBooks:
    """A table of PostgreSQL. The password may also be in PGPASSWORD or ~/.pgpass, as for psql.

    Raises:
        JobError: No table is named, or the driver is missing.
    """

    digest: str | None = None
    digest_of = "the table"

    def __init__(self, address: Address, options: BooksOptions) -> None:
        self._address, self._where, table = address, options.where, options.table
        self._numeric: set[str] = set()
        self._columns: dict[str, tuple[str, str]] = {}  # the type that counts, and the column's own
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
                cursor.execute("SET LOCAL standard_conforming_strings = on")
                self._check(cursor, wanted)
                self._read(engine, cursor, wanted)
        except self._driver.Error as error:
            return " ".join(str(error).split())
        return None

    def _check(self, cursor: Any, wanted: Sequence[Wanted]) -> None:
        cursor.execute(_COLUMNS, (self._quoted(),))
        columns = self._columns = {column: (base, own) for column, base, own in cursor.fetchall()}
        if not columns:
            raise JobError(
                f"{self.label}: there is no such table, or not in the search path{self._nearest(cursor)}",
                path=self.label,
            )
        pick(names_of(wanted, self._where), list(columns), self.label)
        for each in wanted:
            base, own = columns[each.theirs]
            kind = _KINDS.get(base, "other")
            if (each.kind, kind) == ("integer", "amount"):
                self._numeric.add(each.theirs)  # taken if it is whole
            else:
                fit(each, kind, own, self.label)

    def _nearest(self, cursor: Any) -> str:
        """The table with the nearest name."""
        cursor.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        return near(f"{self._schema or 'public'}.{self._table}", [row[0] for row in cursor.fetchall()])

    def _read(self, engine: Engine, cursor: Any, wanted: Sequence[Wanted]) -> None:
        slots = ", ".join(f"{self._text(each.theirs)} AS {each.slot}" for each in wanted)
        conditions = self._conditions()
        counts = " AND ".join(conditions.values()) or "true"
        cursor.execute(f"SELECT {slots} FROM {self._quoted()} WHERE {counts}")
        engine.connection.register("arriving", cursor.fetch_record_batch())
        engine.run("CREATE TABLE raw AS SELECT row_number() OVER () AS row, * FROM arriving", about=self.label)
        engine.connection.unregister("arriving")
        if self._where and not engine.row("SELECT count(*) FROM raw")[0]:
            raise nothing_left(self._where, partial(self._others, cursor, conditions), self.label)

    def _conditions(self) -> dict[str, str]:
        """The SQL condition of each column that says which rows count."""
        parts: dict[str, str] = {}
        for column, values in by_column(self._where).items():
            base, cell = self._columns[column][0], name(column)
            if _KINDS.get(base) == "text":
                parts[column] = f"{cell}::text IN ({', '.join(map(literal, values))})"
            else:
                parts[column] = f"{cell} IN ({', '.join(f'CAST({literal(value)} AS {base})' for value in values)})"
        return parts

    def _others(self, cursor: Any, conditions: Mapping[str, str], column: str) -> list[str] | None:
        """The first values of a column that has none of those named; None if it has one."""
        cursor.execute(f"SELECT count(*) FROM {self._quoted()} WHERE {conditions[column]}")
        if cursor.fetchone()[0]:
            return None
        cell = name(column)
        cursor.execute(
            f"SELECT DISTINCT {cell}::text FROM {self._quoted()} WHERE {cell} IS NOT NULL ORDER BY 1 LIMIT {SEARCHED}"
        )
        return [row[0] for row in cursor.fetchall()]

    def _text(self, column: str) -> str:
        cell = name(column)
        if column in self._numeric:  # 5.00 is 5, and 5.50 stays what it is
            return f"(CASE WHEN {cell} = trunc({cell}) THEN trunc({cell}) ELSE {cell} END)::text"
        return f"{cell}::text"

    def _quoted(self) -> str:
        return f"{name(self._schema)}.{name(self._table)}" if self._schema else name(self._table)
