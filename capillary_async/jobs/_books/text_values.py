"""From text to values: cells of CSV files and of PostgreSQL, read strictly.

Invariant: a cell is exactly what was meant or the run ends, naming file, column and row; no separator, no space, no
leading zero, no exponent is guessed away. Used by `_books/csv.py` and `_books/postgres.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from capillary_async.jobs._books.duckdb_engine import literal
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["typed"]

_PATTERNS: Mapping[str, str] = {
    "amount": r"-?(0|[1-9]\d*)(\.\d+)?",
    "integer": r"-?(0|[1-9]\d*)",
    "time": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d(:\d\d)?)",
    "boolean": r"true|false",
}
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_NANOSECONDS = re.compile(r".{19}\.\d{7,}(Z|[+-]\d\d(:\d\d)?)")
_TYPES: Mapping[str, str] = {
    "amount": "DECIMAL(38,18)",
    "integer": "BIGINT",
    "time": "TIMESTAMP WITH TIME ZONE",
    "boolean": "BOOLEAN",
    "text": "VARCHAR",
}
_EXPECTED: Mapping[str, str] = {
    "amount": "a decimal number like 1234.500, with at most 18 decimals and 20 digits before them",
    "integer": "a whole number of 64 bits like 37195406289",
    "time": "a time with its offset like 2026-01-15T23:59:59+05:30",
    "boolean": "true or false",
}
_WHOLE, _DECIMALS = 15, 3  # digits of DECIMAL(18,3)
_LONGEST = 40  # characters of a cell that are shown


def typed(
    engine: Engine,
    raw: str,
    wanted: Sequence[Wanted],
    *,
    label: str,
    place: Callable[[int, Sequence[str]], str],
    decimal: str = ".",
) -> None:
    """Make the table `books` of the raw one, whose columns are `row` and the slots, all text.

    Raises:
        JobError: A cell is not what its column needs.
    """
    _check(engine, raw, wanted, label, place, decimal)
    columns = ", ".join(
        f"CAST({_number(each, decimal)} AS {_type(engine, raw, each, decimal)}) AS {each.slot}" for each in wanted
    )
    engine.run(f"CREATE TABLE books AS SELECT 0 AS shard, row, {columns} FROM {raw}", about=label)


def _number(each: Wanted, decimal: str) -> str:
    """The SQL of a cell; where amounts have commas, points and commas change places, so that a point is a fault."""
    return f"translate({each.slot}, '.,', ',.')" if each.kind == "amount" and decimal == "," else each.slot


def _bad(each: Wanted, decimal: str) -> str:
    """True for a cell that is there and is not what it must be; text is always what it is."""
    if each.kind not in _PATTERNS:
        return "false"
    cell = _number(each, decimal)
    plain = f"regexp_full_match({cell}, {literal(_PATTERNS[each.kind])})"
    fits = f"TRY_CAST({cell} AS {_TYPES[each.kind]}) IS NOT NULL"
    if each.kind == "amount":  # a cast would round
        fits += f" AND length(split_part({cell}, '.', 2)) <= 18"
    return f"({each.slot} IS NOT NULL AND NOT ({plain} AND {fits}))"


def _check(  # noqa: PLR0917 - as typed
    engine: Engine,
    raw: str,
    wanted: Sequence[Wanted],
    label: str,
    place: Callable[[int, Sequence[str]], str],
    decimal: str,
) -> None:
    bad = [_bad(each, decimal) for each in wanted]
    counts = ", ".join(f"count(*) FILTER (WHERE {each}), min(row) FILTER (WHERE {each})" for each in bad)
    found = engine.row(f"SELECT {counts} FROM {raw}", about=label)
    for each, many, row in zip(wanted, found[::2], found[1::2], strict=True):
        if many:
            keys = [key for key in wanted if key.is_key]
            picked = ", ".join(f"coalesce({slot.slot}, 'nothing')" for slot in (each, *keys))
            cell, *key = engine.row(f"SELECT {picked} FROM {raw} WHERE row = {row}", about=label)
            more = f" ({many:,} such rows)" if many > 1 else ""
            raise JobError(
                f"{label}: column {each.theirs!r}, {place(row, key)}: {_shown(cell)} "
                f"{_what(each, cell, decimal)}{more}",
                path=label,
            )


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= _LONGEST else f"{cell[:_LONGEST]}...")


def _what(each: Wanted, cell: str, decimal: str) -> str:
    """What is wrong with a cell, and what its column needs."""
    expected = f"{each.ours} needs {_EXPECTED[each.kind]}"
    if each.kind == "amount":
        expected = expected.replace("1234.500", f"1234{decimal}500")
    if cell != cell.strip():
        return f"has spaces around it; {expected}"
    if each.kind == "amount" and decimal == "," and "." in cell:
        return f"has a thousands separator or a decimal point, and decimal is ','; {expected}"
    if each.kind == "amount" and decimal == "." and _DECIMAL_COMMA.fullmatch(cell):
        return (
            f"has a thousands separator or a decimal comma; {expected}. If all amounts have a decimal comma, say so "
            "(decimal, --decimal ,)"
        )
    if each.kind in ("amount", "integer") and "," in cell:
        return f"has a thousands separator or a decimal comma; {expected}"
    if each.kind == "time" and _NANOSECONDS.fullmatch(cell):
        return f"has more than 6 decimals of a second; {expected}"
    if each.kind == "time":
        return f"is none, or has no offset; {expected}"
    if cell.lstrip("-").startswith("0") and cell.replace(".", "", 1).lstrip("-").isdigit():
        return f"has leading zeros; {expected}"
    return f"cannot be read; {expected}"


def _type(engine: Engine, raw: str, each: Wanted, decimal: str) -> str:
    """The column's type: for amounts the smallest that fits every one of them."""
    if each.kind != "amount":
        return _TYPES[each.kind]
    cell = _number(each, decimal)
    whole, decimals = engine.row(
        f"SELECT coalesce(max(length(ltrim(split_part({cell}, '.', 1), '-'))), 0), "
        f"coalesce(max(length(split_part({cell}, '.', 2))), 0) FROM {raw}"
    )
    if whole <= _WHOLE and decimals <= _DECIMALS:
        return "DECIMAL(18,3)"
    return f"DECIMAL(38,{max(decimals, _DECIMALS)})"
