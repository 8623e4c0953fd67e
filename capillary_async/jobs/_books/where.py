"""Which rows of the books count: those with the values that the user named.

Invariant: a value is compared exactly, in the column's own type; books in which no row counts are refused. Used by
every reader of books.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capillary_async._files import near, shown_names
from capillary_async.jobs._books.columns import kind_of
from capillary_async.jobs._books.duckdb_engine import literal, name
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["SEARCHED", "by_column", "keep_rows", "nothing_left", "refuse_nothing", "typed_conditions"]

_SHOWN, SEARCHED = 20, 1_000  # values of a column


def by_column(where: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of each column."""
    found: dict[str, list[str]] = {}
    for column, value in where:
        found.setdefault(column, []).append(value)
    return found


def keep_rows(engine: Engine, cells: Mapping[str, str], where: Sequence[tuple[str, str]], label: str) -> None:
    """Remove the rows of the table `raw`, all text, that do not count; `cells` has the SQL of each column.

    Raises:
        JobError: None counts.
    """
    if not where:
        return
    parts = {
        column: f"coalesce({cells[column]} IN ({', '.join(map(literal, values))}), false)"
        for column, values in by_column(where).items()
    }
    refuse_nothing(engine, "raw", parts, cells, where, label)
    engine.run(f"DELETE FROM raw WHERE NOT ({' AND '.join(parts.values())})", about=label)


def typed_conditions(
    engine: Engine, types: Mapping[str, str], where: Sequence[tuple[str, str]], label: str
) -> dict[str, str]:
    """The SQL condition of each column, in its own type.

    Raises:
        JobError: A value is none of its column's type.
    """
    parts: dict[str, str] = {}
    for column, values in by_column(where).items():
        casts = [f"CAST({literal(value)} AS {types[column]})" for value in values]
        for value, cast in zip(values, casts, strict=True):
            if engine.row(f"SELECT {_is_none(cast, types[column])}")[0]:
                raise JobError(
                    f"{label}: books_where: column {column!r} is {types[column]}, and {value!r} is none", path=label
                )
        parts[column] = f"{name(column)} IN ({', '.join(casts)})"
    return parts


def _is_none(cast: str, sql_type: str) -> str:
    """The SQL condition of a text that is no value of a type, or that the cast rounds: `7.6` of BIGINT."""
    if kind_of(sql_type) not in ("integer", "amount"):
        return f"TRY_{cast} IS NULL"
    exact = f"TRY_{cast.rpartition(' AS ')[0]} AS DECIMAL(38,18))"
    return f"TRY_{cast} IS NULL OR TRY_CAST(TRY_{cast} AS DECIMAL(38,18)) IS DISTINCT FROM {exact}"


def refuse_nothing(  # noqa: PLR0917 - a relation, and how it is named
    engine: Engine,
    relation: str,
    parts: Mapping[str, str],
    cells: Mapping[str, str],
    where: Sequence[tuple[str, str]],
    label: str,
) -> None:
    """See that some row counts.

    Raises:
        JobError: None does.
    """

    def some(counts: str) -> bool:
        return bool(engine.row(f"SELECT count(*) FROM {relation} WHERE {counts}", about=label)[0])

    if not some(" AND ".join(parts.values())):
        raise nothing_left(
            where,
            lambda column: None if some(parts[column]) else _values(engine, relation, cells[column], label),
            label,
        )


def nothing_left(
    where: Sequence[tuple[str, str]], others: Callable[[str], Sequence[str] | None], label: str
) -> JobError:
    """The error where no row counts; `others` gives the first values of a column that has none of those named."""
    for column, values in by_column(where).items():
        known = others(column)
        if known is not None:
            return JobError(
                f"{label}: books_where: no row has {column} {' or '.join(map(repr, values))}. It has: "
                f"{shown_names(known[:_SHOWN]) or 'nothing'}{near(values[0], known)}",
                path=label,
            )
    said = ", ".join(f"{column}={value}" for column, value in where)
    return JobError(f"{label}: books_where: no row has {said}", path=label)


def _values(engine: Engine, relation: str, cell: str, label: str) -> list[str]:
    """The first values of a column, as text."""
    rows = engine.rows(
        f"SELECT DISTINCT CAST({cell} AS VARCHAR) FROM {relation} WHERE {cell} IS NOT NULL ORDER BY 1 LIMIT {SEARCHED}",
        about=label,
    )
    return [row[0] for row in rows]
