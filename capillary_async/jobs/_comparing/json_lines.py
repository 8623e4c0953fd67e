"""The rows of JSON Lines with the types they have in Parquet; amounts may have more digits there.

Invariant: an amount keeps every digit, in the smallest type that holds the whole column, or an error names file
and record; nothing is rounded. Used by `_comparing/export_reader.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from capillary_async.jobs._books.duckdb_engine import literal, name
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._comparing.export_kinds import ExportSource

__all__ = ["FILE", "WHOLE_NUMBERS", "is_amount", "typed_lines"]

WHOLE_NUMBERS = ("BIGINT", "INTEGER")
FILE = "the file"  # the column with a row's file: no field has that name
_AMOUNT = r"-?\d+(\.\d+)?(E[+-]?\d{1,2})?"
_WHOLE, _DECIMALS = 15, 3  # digits of DECIMAL(18,3)
_MOST_WHOLE, _MOST_DECIMALS = 20, 18
_AN_AMOUNT = f"an amount, a text of at most {_MOST_WHOLE} digits before the point and {_MOST_DECIMALS} after it"
_TORN = re.compile(r'JSON transform error in file "(.*)", in line (\d+): (.*)')
# The exponent is gone, and so are zeros that say nothing; NULL where digits would be lost on the way.
_MACROS = f"""
CREATE OR REPLACE MACRO without_exponent(t) AS CASE WHEN NOT contains(t, 'E') THEN t
    WHEN length(split_part(split_part(t, 'E', 1), '.', 2)) - CAST(split_part(t, 'E', 2) AS INTEGER) <= {_MOST_DECIMALS}
    THEN CAST(TRY_CAST(t AS DECIMAL(38,{_MOST_DECIMALS})) AS VARCHAR) END;
CREATE OR REPLACE MACRO stripped(t) AS regexp_replace(
    CASE WHEN contains(t, '.') THEN rtrim(rtrim(t, '0'), '.') ELSE t END, '^(-?)0+(\\d)', '\\1\\2');
CREATE OR REPLACE MACRO amount_text(j) AS CASE WHEN json_type(j) = 'VARCHAR' AND
    regexp_full_match(j ->> '$', {literal(_AMOUNT)}) THEN stripped(without_exponent(j ->> '$')) END;
CREATE OR REPLACE MACRO whole_digits(t) AS length(ltrim(split_part(t, '.', 1), '-'));
CREATE OR REPLACE MACRO decimal_digits(t) AS length(split_part(t, '.', 2));
"""


def is_amount(kind: str) -> bool:
    """Whether DuckDB's type is that of amounts."""
    return kind.startswith("DECIMAL")


def typed_lines(engine: Engine, source: ExportSource, reader: str, as_text: str, *, about: str) -> str:
    """The query of the rows with their types; reads all of them once to find out which.

    Args:
        engine: DuckDB.
        source: The kind of export.
        reader: The rows; amounts are JSON.
        as_text: The rows; amounts are JSON, and whole numbers are text as written, since DuckDB rounds fractions.
        about: The folder.

    Raises:
        JobError: A line cannot be read, or a value fits no type.
    """
    engine.run(_MACROS, about=about)
    kinds = source.types()
    amounts = [column for column, kind in kinds.items() if is_amount(kind)]
    numbers = [column for column, kind in kinds.items() if kind in WHOLE_NUMBERS]
    texts = "".join(f", amount_text({name(column)}) AS {_text(column)}" for column in amounts)
    picked = [f"count(*) FILTER (WHERE {_is_no_number(column)})" for column in numbers]
    for column in amounts:
        text = _text(column)
        picked += [f"coalesce(max(whole_digits({text})), 0)", f"coalesce(max(decimal_digits({text})), 0)"]
        picked.append(f"count(*) FILTER (WHERE {_bad(column, text)})")
    try:  # the texts are made in a query of their own: macros copy their arguments, in each other without end
        found = engine.row(f"SELECT {', '.join(picked)} FROM (SELECT *{texts} FROM {as_text})", about=about)
        if any(found[: len(numbers)]):  # DuckDB names the line of what is no number at all
            engine.run(f"SELECT {', '.join(f'count({name(column)})' for column in numbers)} FROM {reader}", about=about)
    except JobError as error:
        raise _described(error) from error
    for column, many in zip(numbers, found, strict=False):
        if many:
            raise _unfit(
                engine, source, as_text, column, condition=_is_no_number(column), expected="a whole number", many=many
            )
    found = found[len(numbers) :]
    types = dict(kinds)
    for column, whole, decimals, bad in zip(amounts, found[::3], found[1::3], found[2::3], strict=True):
        if bad:
            raise _unfit(
                engine,
                source,
                reader,
                column,
                condition=_bad(column, f"amount_text({name(column)})"),
                expected=_AN_AMOUNT,
                many=bad,
            )
        if whole > _WHOLE or decimals > _DECIMALS:
            types[column] = f"DECIMAL(38,{max(decimals, _DECIMALS)})"
    chosen = (
        f"CAST(amount_text({name(column)}) AS {kind}) AS {name(column)}" if column in amounts else name(column)
        for column, kind in types.items()
    )
    return f"SELECT {', '.join(chosen)} FROM {reader}"


def _text(column: str) -> str:
    """The name of the column with an amount's text."""
    return name(f"{column} as text")


def _bad(column: str, text: str) -> str:
    """True for an amount that is there and cannot be read to its last digit."""
    there = f"{name(column)} IS NOT NULL AND json_type({name(column)}) <> 'NULL'"
    fits = f"whole_digits({text}) <= {_MOST_WHOLE} AND decimal_digits({text}) <= {_MOST_DECIMALS}"
    return f"{there} AND NOT coalesce({fits}, false)"


def _is_no_number(column: str) -> str:
    """True for a text that is there and is no whole number of 64 bits; `1.0` is one."""
    text = name(column)
    whole = f"regexp_full_match({text}, '-?[0-9]+([.]0+)?') AND TRY_CAST({text} AS BIGINT) IS NOT NULL"
    return f"{text} IS NOT NULL AND NOT ({whole})"


def _unfit(
    engine: Engine, source: ExportSource, reader: str, column: str, *, condition: str, expected: str, many: int
) -> JobError:
    key = " || ' ' || ".join(f"coalesce(CAST({name(part)} AS VARCHAR), 'nothing')" for part in source.key)
    file, asked, record, value = engine.rows(
        f"SELECT {name(FILE)}, asked_key, {key}, CAST({name(column)} AS VARCHAR) FROM {reader} "
        f"WHERE {condition} ORDER BY shard, row LIMIT 1"
    )[0]
    more = f" ({many:,} such records)" if many > 1 else ""
    return JobError(
        f"{file}: record {record} of {asked}: {column} is {value[:60]}, and must be {expected}: nothing is "
        f"rounded{more}",
        path=file,
    )


def _described(error: JobError) -> JobError:
    """DuckDB's error about a line, with the file and the line first."""
    found = _TORN.search(str(error))
    if found is None:
        return error
    file, line, said = found.groups()
    if "numerical" in said:
        value = said.rpartition(": ")[2]
        said = (
            f"{value[:60]} is no whole number of 64 bits (up to 9223372036854775807), and can be compared in no column"
        )
    return JobError(f"{file}, line {line}: {said}", path=file)
