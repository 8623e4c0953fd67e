"""The comparison: every record of the export against the row of the books with its key, and the control totals.

Invariant: exact decimals only; every record and row is in exactly one class; and what the classes differ by is what the
totals of both sides differ by, or the run ends with an error. Called by `_comparing/sides.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from capillary_async.jobs._books.duckdb_engine import literal, name
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.comparison import (
    CHANGED,
    CLASSES,
    EQUAL,
    MISSING_IN_BOOKS,
    MISSING_IN_CAPILLARY,
    BothSides,
    Comparison,
    Difference,
    FieldTotals,
    Size,
)
from capillary_async.jobs._comparing.invisible import made_visible
from capillary_async.models.exact import exact_sum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["compare", "file_rows"]

SHOWN = 100
_GROUPS = 1_000
_BOUNDS = (1, 10, 100, 1_000, 10_000)
_ZERO = Decimal(0)


def compare(
    engine: Engine, wanted: Sequence[Wanted], tolerance: Decimal, repeated: int, by: str | None = None
) -> Comparison:
    """Compare the tables `capillary` and `books`; makes the table `found` and the view `differences`.

    Raises:
        JobError: The totals do not add up, or DuckDB could not.
    """
    _join(engine, wanted, tolerance)
    engine.go_on()
    _make_view(engine, wanted)
    fields = [each for each in wanted if not each.is_key]
    amounts = [each for each in fields if each.kind == "amount"]
    ours, theirs = (engine.row(f"SELECT count(*) FROM {table}")[0] for table in ("capillary", "books"))
    counts, within = _counts(engine, ours, theirs)
    engine.go_on()
    comparison = Comparison(
        wanted=tuple(wanted),
        capillary=ours,
        books=theirs,
        counts=counts,
        within_tolerance=within,
        totals=tuple(_totals(engine, each) for each in amounts),
        changed={each.ours: _changed(engine, each) for each in fields},
        sizes=tuple(_sizes(engine, amounts)),
        first={kind: _first(engine, wanted, kind) for kind in CLASSES if kind != EQUAL},
        repeated=repeated,
        groups=tuple(_groups(engine, amounts, each)) if (each := _of(wanted, by)) else (),
    )
    _assert_adds_up(comparison)
    return comparison


def _differs(each: Wanted, tolerance: Decimal) -> str:
    ours, theirs = f"c.{each.slot}", f"b.{each.slot}"
    if each.kind != "amount" or not tolerance:
        return f"{ours} IS DISTINCT FROM {theirs}"
    return f"coalesce(abs({ours} - {theirs}) > {tolerance:f}, {ours} IS DISTINCT FROM {theirs})"


def _join(engine: Engine, wanted: Sequence[Wanted], tolerance: Decimal) -> None:
    """The table `found`: all but what is equal to the last digit, with the class and which fields differ."""
    keys = [each.slot for each in wanted if each.is_key]
    fields = [each for each in wanted if not each.is_key]
    chosen = [f"coalesce(c.{key}, b.{key}) AS {key}" for key in keys]
    for each in fields:
        chosen += [f"c.{each.slot} AS c_{each.slot}", f"b.{each.slot} AS b_{each.slot}"]
        chosen.append(f"({_differs(each, tolerance)}) AS d_{each.slot}")
    on = " AND ".join(f"c.{key} = b.{key}" for key in keys)
    differing = " OR ".join(("c.shard IS NULL", "b.shard IS NULL", *(_differs(each, _ZERO) for each in fields)))
    changed = " OR ".join(f"d_{each.slot}" for each in fields) or "false"
    engine.run(
        f"CREATE TABLE found AS SELECT CASE WHEN b_shard IS NULL THEN '{MISSING_IN_BOOKS}' "
        f"WHEN c_shard IS NULL THEN '{MISSING_IN_CAPILLARY}' WHEN {changed} THEN '{CHANGED}' ELSE '{EQUAL}' END "
        f"AS class, * EXCLUDE (b_shard, c_shard) FROM (SELECT {', '.join(chosen)}, c.asked_key, c.shard AS c_shard, "
        f"b.shard AS b_shard FROM capillary c FULL OUTER JOIN books b ON {on} WHERE {differing})"
    )


def _make_view(engine: Engine, wanted: Sequence[Wanted]) -> None:
    """The view `differences`, a row a difference; its deltas have the decimals of the amount that has most."""
    keys = [each for each in wanted if each.is_key]
    fields = [each for each in wanted if not each.is_key]
    types = engine.columns("found")
    scales = [_scale_of(types[f"c_{each.slot}"]) for each in fields if each.kind == "amount"]
    scale = max(scales, default=3)
    own = ", ".join(f"{each.slot} AS {name(each.ours)}" for each in keys)
    parts = [_part(each, own, keys, scale) for each in fields]
    if not fields:
        parts = [_part(None, own, keys, scale)]
    engine.run(f"CREATE VIEW differences AS {' UNION ALL '.join(parts)}")


def file_rows(engine: Engine, wanted: Sequence[Wanted]) -> str:
    """The query of the file of differences: one row per missing record, one per field of a changed one, sorted.

    A missing record of which several columns were compared has no `field`: its value is a JSON object of all of them,
    and its delta is that of the only amount, if there is only one.
    """
    fields = [each for each in wanted if not each.is_key]
    if len(fields) <= 1:
        return "SELECT * FROM differences ORDER BY ALL"
    columns = list(engine.columns("differences"))
    slots = {each.ours: each.slot for each in wanted if each.is_key}
    amounts = [each for each in fields if each.kind == "amount"]
    scale = engine.columns("differences")["delta"]
    values = {
        "field": "NULL::VARCHAR",
        "capillary_value": _together("c", fields, MISSING_IN_BOOKS),
        "books_value": _together("b", fields, MISSING_IN_CAPILLARY),
        "delta": _delta(amounts[0].slot, _scale_of(scale)) if len(amounts) == 1 else f"NULL::{scale}",
    }
    own = ", ".join(f"{values.get(column) or slots.get(column, column)} AS {name(column)}" for column in columns)
    return (
        f"SELECT * FROM (SELECT * FROM differences WHERE class = '{CHANGED}' "
        f"UNION ALL SELECT {own} FROM found WHERE class LIKE 'missing%') ORDER BY ALL"
    )


def _together(side: str, fields: Sequence[Wanted], kind: str) -> str:
    """All values of one side as a JSON object; null if that side has no such record."""
    members = ", ".join(f"{literal(each.ours)}, CAST({side}_{each.slot} AS VARCHAR)" for each in fields)
    return f"CASE WHEN class = '{kind}' THEN CAST(json_object({members}) AS VARCHAR) END"


def _scale_of(sql_type: str) -> int:
    return int(sql_type.rstrip(")").split(",")[1])


def _part(each: Wanted | None, own: str, keys: Sequence[Wanted], scale: int) -> str:
    """The differences in one field, or of the key alone."""
    asked = "" if "asked_key" in {key.ours for key in keys} else ", asked_key"
    if each is None:
        nothing = ", ".join(f"NULL::VARCHAR AS {column}" for column in ("field", "capillary_value", "books_value"))
        return (
            f"SELECT class, {own}, {nothing}, NULL::DECIMAL(38,{scale}) AS delta{asked} FROM found "
            f"WHERE class <> '{EQUAL}'"
        )
    delta = _delta(each.slot, scale) if each.kind == "amount" else f"NULL::DECIMAL(38,{scale})"
    return (
        f"SELECT class, {own}, {literal(each.ours)} AS field, CAST(c_{each.slot} AS VARCHAR) AS capillary_value, "
        f"CAST(b_{each.slot} AS VARCHAR) AS books_value, {delta} AS delta{asked} FROM found "
        f"WHERE class LIKE 'missing%' OR (class = '{CHANGED}' AND d_{each.slot})"
    )


def _delta(slot: str, scale: int) -> str:
    wide_type = f"DECIMAL(38,{scale})"
    return f"CAST(coalesce(c_{slot}, 0) AS {wide_type}) - CAST(coalesce(b_{slot}, 0) AS {wide_type})"


def _counts(engine: Engine, ours: int, theirs: int) -> tuple[dict[str, int], int]:
    """How many are in each class, and how many of the equal ones differ within the tolerance."""
    found: dict[str, int] = dict(engine.rows("SELECT class, count(*) FROM found GROUP BY 1"))
    counts = {kind: found.get(kind, 0) for kind in CLASSES}
    both = ours - counts[MISSING_IN_BOOKS]
    if both != theirs - counts[MISSING_IN_CAPILLARY]:
        raise JobError(
            f"the classes do not add up: {ours} records minus {counts[MISSING_IN_BOOKS]} missing in the books are not "
            f"{theirs} rows minus {counts[MISSING_IN_CAPILLARY]} missing in Capillary. This is a fault of the SDK"
        )
    counts[EQUAL] = both - counts[CHANGED]
    return counts, found.get(EQUAL, 0)


def _totals(engine: Engine, each: Wanted) -> FieldTotals:
    sums = [engine.row(f"SELECT coalesce(sum({each.slot}), 0) FROM {table}")[0] for table in ("capillary", "books")]
    scale = _scale_of(engine.columns("found")[f"c_{each.slot}"])
    deltas = dict(engine.rows(f"SELECT class, sum({_delta(each.slot, scale)}) FROM found GROUP BY 1"))
    return FieldTotals(
        field=each.ours,
        capillary=Decimal(sums[0]),
        books=Decimal(sums[1]),
        deltas={kind: Decimal(deltas.get(kind, 0)) for kind in CLASSES},
        changed=_changed(engine, each),
    )


def _of(wanted: Sequence[Wanted], by: str | None) -> Wanted | None:
    return next((each for each in wanted if each.ours == by), None)


def _groups(engine: Engine, amounts: Sequence[Wanted], by: Wanted) -> Iterator[BothSides]:
    """What each side has, by its own values of a column."""
    sums = "".join(f", coalesce(sum({each.slot}), 0) AS {each.slot}" for each in amounts)
    select = f"SELECT {by.slot} AS value, count(*) AS many{sums}"
    ours, theirs = (f"({select} FROM {table} GROUP BY 1)" for table in ("capillary", "books"))
    picked = "".join(f", coalesce(c.{each.slot}, 0), coalesce(b.{each.slot}, 0)" for each in amounts)
    rows = engine.rows(
        f"SELECT CAST(coalesce(c.value, b.value) AS VARCHAR), coalesce(c.many, 0), coalesce(b.many, 0){picked} "
        f"FROM {ours} c FULL JOIN {theirs} b ON c.value IS NOT DISTINCT FROM b.value "
        f"ORDER BY coalesce(c.value, b.value) NULLS LAST LIMIT {_GROUPS}"
    )
    for value, mine, other, *found in rows:
        pairs = zip(found[::2], found[1::2], strict=True)
        totals = {each.ours: (Decimal(one), Decimal(two)) for each, (one, two) in zip(amounts, pairs, strict=True)}
        yield BothSides(value, mine, other, totals)


def _changed(engine: Engine, each: Wanted) -> int:
    return int(engine.row(f"SELECT count(*) FROM found WHERE class = '{CHANGED}' AND d_{each.slot}")[0])


def _assert_adds_up(comparison: Comparison) -> None:
    """Two ways to one number: totals of the tables as they were read, and deltas of the join.

    Raises:
        JobError: They differ.
    """
    for totals in comparison.totals:
        together = exact_sum(totals.deltas.values())
        if together != totals.difference:
            raise JobError(
                f"{totals.field}: the totals differ by {totals.difference:f} and the classes by {together:f}. "
                "This is a fault of the SDK"
            )


def _sizes(engine: Engine, amounts: Sequence[Wanted]) -> list[Size]:
    if not amounts:
        return []
    cases = " ".join(f"WHEN abs(delta) < {bound} THEN {nth}" for nth, bound in enumerate(_BOUNDS))
    fields = ", ".join(literal(each.ours) for each in amounts)
    rows = engine.rows(
        f"SELECT class, field, CASE {cases} ELSE {len(_BOUNDS)} END AS size, count(*), sum(delta) FROM differences "
        f"WHERE field IN ({fields}) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [Size(kind, field, _size(nth), count, Decimal(delta)) for kind, field, nth, count, delta in rows]


def _size(nth: int) -> str:
    if nth == 0:
        return f"less than {_BOUNDS[0]}"
    if nth == len(_BOUNDS):
        return f"{_BOUNDS[-1]:,} and more"
    return f"{_BOUNDS[nth - 1]:,} to {_BOUNDS[nth]:,}"


def _first(engine: Engine, wanted: Sequence[Wanted], kind: str) -> tuple[Difference, ...]:
    """The first differences of a class, the largest first."""
    keys = [each.ours for each in wanted if each.is_key]
    own = ", ".join(name(key) for key in keys)
    texts = ", ".join(f"coalesce(CAST({name(key)} AS VARCHAR), 'nothing')" for key in keys)
    rows: list[tuple[Any, ...]] = engine.rows(
        f"SELECT {texts}, field, capillary_value, books_value, delta, CAST(asked_key AS VARCHAR) FROM differences "
        f"WHERE class = '{kind}' ORDER BY abs(delta) DESC NULLS LAST, {own}, field LIMIT {SHOWN}"
    )
    width = len(keys)
    return tuple(made_visible(Difference(kind, row[:width], *row[width:])) for row in rows)
