"""Books that have types: a Parquet file, or a table of a DuckDB database.

The rule kept here: a column's type must fit, whatever its values; nothing is cast but amounts to a wider amount. Made
by `_books.py`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from capillary_async.jobs._books_columns import fit, kind_of, pick
from capillary_async.jobs._compare_engine import file_literal, literal, name
from capillary_async.jobs._errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from capillary_async.jobs._books_columns import Wanted
    from capillary_async.jobs._compare_engine import Engine

__all__ = ["DuckDBBooks", "ParquetBooks", "both", "wide"]

_WIDEST, _WHOLE, _DECIMALS = 38, 15, 3


def wide(sql_type: str) -> str:
    """The type in which amounts of this type are compared: at least DECIMAL(18,3), so that both sides fit it."""
    found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", sql_type)
    width, scale = (int(found[1]), int(found[2])) if found else (_WIDEST - _DECIMALS, 0)
    if not found and sql_type not in ("HUGEINT", "UBIGINT", "BIGINT"):
        width = 10
    decimals = max(scale, _DECIMALS)
    return f"DECIMAL({min(_WIDEST, decimals + max(width - scale, _WHOLE))},{decimals})"


def both(one: str, other: str) -> str:
    """The DECIMAL that holds every amount of the two; where 38 digits are too few, the decimals are kept."""
    sizes = [tuple(map(int, re.findall(r"\d+", each))) for each in (one, other)]
    decimals = max(scale for _, scale in sizes)
    return f"DECIMAL({min(_WIDEST, decimals + max(width - scale for width, scale in sizes))},{decimals})"


class _Typed:
    """What both have in common: a relation with columns of certain types and a row number."""

    label: str
    digest: str | None = None
    _path: Path

    def _relation(self, engine: Engine) -> str:
        raise NotImplementedError

    def _row(self) -> str:
        raise NotImplementedError

    def place(self, row: int, key: Sequence[str]) -> str:  # noqa: ARG002 - tables without row numbers need the key
        """Where a row stands, for a person."""
        return f"row {row}"

    def stage(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Make the table `books`.

        Raises:
            JobError: It cannot be read, is empty, or a column is missing or does not fit.
        """
        relation = self._relation(engine)
        columns = engine.columns(relation, about=self.label)
        pick(wanted, list(columns), self.label)
        if not engine.row(f"SELECT count(*) FROM {relation}", about=self.label)[0]:
            raise JobError(f"{self.label}: it has no rows: was it not filled yet?", path=self.label)
        for each in wanted:
            kind = kind_of(columns[each.theirs])
            if kind in ("float", "text") and kind != each.kind:
                fit(each, kind, columns[each.theirs], self.label, self._example(engine, relation, each))
            fit(each, kind, columns[each.theirs], self.label)
        slots = ", ".join(_cast(each, columns[each.theirs]) for each in wanted)
        try:
            engine.run(
                f"CREATE TABLE books AS SELECT 0 AS shard, {self._row()} + 1 AS row, {slots} FROM {relation}",
                about=self.label,
            )
        except JobError:
            self._tell_beyond(engine, relation, wanted, columns)
            raise

    def _tell_beyond(self, engine: Engine, relation: str, wanted: Sequence[Wanted], columns: Mapping[str, str]) -> None:
        """Raise with the first number that is larger than what it is compared as, if that is the fault."""
        for each in wanted:
            if each.kind not in ("amount", "integer"):
                continue
            cell, kind = name(each.theirs), _kind(each, columns[each.theirs])
            found = engine.rows(
                f"SELECT {self._row()} + 1, CAST({cell} AS VARCHAR) FROM {relation} "
                f"WHERE {cell} IS NOT NULL AND TRY_CAST({cell} AS {kind}) IS NULL ORDER BY 1 LIMIT 1",
                about=self.label,
            )
            if found:
                raise JobError(
                    f"{self.label}: column {each.theirs!r}, row {found[0][0]}: {found[0][1]} is beyond what "
                    f"{each.ours} is compared as, {kind}",
                    path=self.label,
                )

    def _example(self, engine: Engine, relation: str, each: Wanted) -> str:
        """A value of a column that does not fit: a text that is no number, if there is one, and the first otherwise."""
        cell = f"CAST({name(each.theirs)} AS VARCHAR)"
        plain = f"regexp_full_match({cell}, '-?\\d+(\\.\\d+)?')"
        found = engine.rows(
            f"SELECT {self._row()} + 1, {cell} FROM {relation} WHERE {name(each.theirs)} IS NOT NULL "
            f"ORDER BY {plain}, 1 LIMIT 1",
            about=self.label,
        )
        return f" (row {found[0][0]}: {found[0][1]!r})" if found else ""


def _kind(each: Wanted, sql_type: str) -> str:
    """The type in which a number is compared."""
    return wide(sql_type) if each.kind == "amount" else "BIGINT"


def _cast(each: Wanted, sql_type: str) -> str:
    cell = name(each.theirs)
    numeric = each.kind in ("amount", "integer")
    return f"CAST({cell} AS {_kind(each, sql_type)}) AS {each.slot}" if numeric else f"{cell} AS {each.slot}"


class ParquetBooks(_Typed):
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path, self.label = path, str(path)
        if not path.stat().st_size:
            raise JobError(f"{path}: the file is empty; it needs rows", path=str(path))

    def _relation(self, engine: Engine) -> str:  # noqa: ARG002 - a file needs no engine
        with self._path.open("rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        return (
            f"read_parquet({file_literal(self._path)}, file_row_number = true, hive_partitioning = false, "
            "union_by_name = false)"
        )

    def _row(self) -> str:
        return "file_row_number"


class DuckDBBooks(_Typed):
    """A table of a DuckDB database, which is opened for reading only.

    Raises:
        JobError: No table is named.
    """

    def __init__(self, path: Path, table: str | None) -> None:
        self._path, self._table = path, table
        self.label = f"{path}, table {table}" if table else str(path)

    def _relation(self, engine: Engine) -> str:
        engine.run(f"ATTACH {literal(self._path)} AS their_books (READ_ONLY)", about=self.label)
        listed = engine.rows(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'their_books' ORDER BY ALL"
        )
        known = [table if schema == "main" else f"{schema}.{table}" for schema, table in listed]
        if self._table is None or self._table.removeprefix("main.") not in known:
            said = "say which table (table, --table)" if self._table is None else "there is no such table"
            raise JobError(f"{self.label}: {said}. It has: {', '.join(known) or 'none'}", path=str(self._path))
        schema, _, table = self._table.rpartition(".")
        return f"their_books.{name(schema or 'main')}.{name(table)}"

    def _row(self) -> str:
        return "rowid"
