"""Reads an export into a table of keys and fields, each record once.

Invariant: amounts get a type that fits both sides exactly; a key that names several records is refused. Called by
`_comparing/sides.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capillary_async.jobs._books.columns import fit, kind_of
from capillary_async.jobs._books.duckdb_engine import name
from capillary_async.jobs._books.duckdb_parquet import both, wide
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._comparing.export_reader import ExportReader

__all__ = ["stage_export"]


def stage_export(
    engine: Engine, folder: ExportReader, wanted: Sequence[Wanted], table: str, *, other: str | None
) -> int:
    """Make a table of an export's keys and fields; gives how many repeated records were left out.

    Args:
        engine: DuckDB.
        folder: The export.
        wanted: The columns: `ours` of them is read, `theirs` if the table is `books`.
        table: `capillary` or `books`.
        other: The table of the other side if it is there already: amounts get its types.

    Raises:
        JobError: The key names several records, or a column does not fit.
    """
    theirs = table == "books"
    columns = {each.slot: each.theirs if theirs else each.ours for each in wanted}
    if theirs:
        for each in wanted:
            fit(each, kind_of(folder.columns[each.theirs]), folder.columns[each.theirs], str(folder.path))
    types = engine.columns(other) if other else {}
    slots = ", ".join(f"{_read(folder, columns[each.slot], each, types)} AS {each.slot}" for each in wanted)
    engine.run(
        f"CREATE TABLE {table} AS SELECT shard, row, asked_key, {slots} FROM {name(folder.relation)}",
        about=str(folder.path),
    )
    return _without_repeats(engine, folder, wanted, table, columns)


def _read(folder: ExportReader, column: str, each: Wanted, types: Mapping[str, str]) -> str:
    if each.kind == "nested":
        return f"CAST(to_json({name(column)}) AS VARCHAR)"
    if each.kind == "amount":
        own = wide(folder.columns[column])
        return f"CAST({name(column)} AS {both(own, types[each.slot]) if each.slot in types else own})"
    return f"CAST({name(column)} AS BIGINT)" if each.kind == "integer" else name(column)


def _without_repeats(
    engine: Engine, folder: ExportReader, wanted: Sequence[Wanted], table: str, columns: Mapping[str, str]
) -> int:
    """Leave out records that came before with the same content: they were asked for under two keys."""
    keys = [each.slot for each in wanted if each.is_key]
    by = ", ".join(keys)
    whole = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    named = _first_twice(engine, f"SELECT {by} FROM {table} WHERE {whole}", keys, columns)
    if named is None:
        return 0
    if not set(folder.source.key) <= {columns[key] for key in keys}:
        raise JobError(
            f"{folder.path}: the key {', '.join(columns[key] for key in keys)} names several records, e.g. {named}. "
            f"Name the columns of a record's own key: {', '.join(folder.source.key)}",
            path=str(folder.path),
        )
    contents = ", ".join(each.slot for each in wanted)
    named = _first_twice(engine, f"SELECT DISTINCT {contents} FROM {table} WHERE {whole}", keys, columns)
    if named is not None:
        raise JobError(
            f"{folder.path}: the record {named} came twice with other content: it changed while it was read. "
            "Export again",
            path=str(folder.path),
        )
    before = engine.row(f"SELECT count(*) FROM {table}")[0]
    first = f"SELECT {by}, min((shard, row)) AS first FROM {table} WHERE {whole} GROUP BY {by} HAVING count(*) > 1"
    same = " AND ".join(f"f.{key} = {table}.{key}" for key in keys)
    engine.run(f"DELETE FROM {table} USING ({first}) f WHERE {same} AND (shard, row) <> f.first")
    return int(before - engine.row(f"SELECT count(*) FROM {table}")[0])


def _first_twice(engine: Engine, query: str, keys: Sequence[str], columns: Mapping[str, str]) -> str | None:
    """The first key that the rows of a query have more than once, in words; None if each is there once."""
    texts = ", ".join(f"CAST({key} AS VARCHAR)" for key in keys)
    by = ", ".join(keys)
    found = engine.rows(f"SELECT {texts} FROM ({query}) GROUP BY {by} HAVING count(*) > 1 ORDER BY {by} LIMIT 1")
    return ", ".join(f"{columns[key]} {value}" for key, value in zip(keys, found[0], strict=True)) if found else None
