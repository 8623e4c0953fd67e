"""The comparison: every record of the export against the row of the books with its key, and the control totals.

The rule kept here: exact decimals only; every record and row is in exactly one class; and what the classes differ by is
what the totals of both sides differ by, or the run ends with an error. Called by `_reconcile.py`.

    missing_in_books        the export has the key, the books have not
    missing_in_capillary    the books have the key, the export has not
    changed                 both have it, and a field differs: |delta| > tolerance for amounts, else any difference
    equal                   both have it, and no field differs

Nothing against nothing is equal; nothing against a value, even 0, is a difference, and counts as 0 in deltas and totals.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from functools import reduce
from typing import TYPE_CHECKING, Any

from attrs import frozen

from capillary_async.jobs._books_columns import fit, kind_of
from capillary_async.jobs._books_tables import wide
from capillary_async.jobs._compare_engine import literal, name
from capillary_async.jobs._errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from capillary_async.jobs._books_columns import Wanted
    from capillary_async.jobs._compare_engine import Engine
    from capillary_async.jobs._compare_folder import Folder

__all__ = [
    "CHANGED",
    "CLASSES",
    "EQUAL",
    "MISSING_IN_BOOKS",
    "MISSING_IN_CAPILLARY",
    "Comparison",
    "Difference",
    "FieldTotals",
    "Size",
    "compare",
    "exact_sum",
    "stage_export",
]

MISSING_IN_BOOKS, MISSING_IN_CAPILLARY, CHANGED, EQUAL = CLASSES = (
    "missing_in_books",
    "missing_in_capillary",
    "changed",
    "equal",
)
SHOWN = 100
_BOUNDS = (1, 10, 100, 1_000, 10_000)
_EXACT = Context(prec=1_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])
_ZERO = Decimal(0)


def exact_sum(values: Iterable[Decimal]) -> Decimal:
    """The sum, whatever the ambient decimal context would round."""
    return reduce(_EXACT.add, values, _ZERO)


@frozen
class FieldTotals:
    """The control totals of one amount.

    Attributes:
        field: The column of the export.
        capillary: Its sum over the export.
        books: The sum of its column of the books.
        deltas: What of the difference lies in each class; `equal` has what is within the tolerance.
        changed: Records whose amount differs by more than the tolerance.
    """

    field: str
    capillary: Decimal
    books: Decimal
    deltas: Mapping[str, Decimal]
    changed: int

    @property
    def difference(self) -> Decimal:
        """The export's total less that of the books."""
        return _EXACT.subtract(self.capillary, self.books)


@frozen
class Difference:
    """One row of the differences: a missing record's field, or a field that differs."""

    kind: str
    key: tuple[str, ...]
    field: str | None
    capillary: str | None
    books: str | None
    delta: Decimal | None
    asked_key: str | None


@frozen
class Size:
    """How many differences of a class and field are of one size.

    Attributes:
        kind: The class.
        field: The amount's column.
        label: The size in words, e.g. `10 to 100`.
        count: How many.
        delta: The sum of their deltas.
    """

    kind: str
    field: str
    label: str
    count: int
    delta: Decimal


@frozen
class Comparison:
    """What came out.

    Attributes:
        wanted: The columns that were compared.
        capillary: Records of the export that were compared, each once.
        books: Rows of the books.
        counts: How many records or rows are in each class.
        within_tolerance: How many of the equal ones differ by no more than the tolerance.
        totals: The control totals of each amount.
        changed: For each field, how many records differ in it.
        sizes: The differences of amounts, by class and size.
        first: Of each class, the first hundred, the largest first.
        repeated: Records of the export left out since they had come before.
    """

    wanted: tuple[Wanted, ...]
    capillary: int
    books: int
    counts: Mapping[str, int]
    within_tolerance: int
    totals: tuple[FieldTotals, ...]
    changed: Mapping[str, int]
    sizes: tuple[Size, ...]
    first: Mapping[str, tuple[Difference, ...]]
    repeated: int

    @property
    def equal(self) -> bool:
        """Whether every record and row is in the class `equal`."""
        return all(not self.counts[kind] for kind in CLASSES if kind != EQUAL)


def stage_export(engine: Engine, folder: Folder, wanted: Sequence[Wanted], table: str, *, other: str | None) -> int:
    """Make a table of an export's keys and fields; gives how many repeated records were left out.

    Args:
        engine: DuckDB.
        folder: The export.
        wanted: The columns: `ours` of them is read, `theirs` where it is made as `books`.
        table: `capillary` or `books`.
        other: The table of the other side where that is there already: amounts get its types.

    Raises:
        JobError: The key names several records, or a column does not fit.
    """
    theirs = table == "books"
    columns = {each.slot: each.theirs if theirs else each.ours for each in wanted}
    if theirs:
        for each in wanted:
            fit(each, kind_of(folder.columns[each.theirs]), folder.columns[each.theirs], str(folder.path))
    types = engine.columns(other) if other else {}
    slots = ", ".join(
        f"{_read(folder, columns[each.slot], each, types)} AS {each.slot}" for each in wanted
    )
    engine.run(
        f"CREATE TABLE {table} AS SELECT shard, row, asked_key, {slots} FROM {name(folder.relation)}",
        about=str(folder.path),
    )
    return _without_repeats(engine, folder, wanted, table, columns)


def _read(folder: Folder, column: str, each: Wanted, types: Mapping[str, str]) -> str:
    if each.kind == "nested":
        return f"CAST(to_json({name(column)}) AS VARCHAR)"
    if each.kind == "amount":
        return f"CAST({name(column)} AS {types.get(each.slot) or wide(folder.columns[column])})"
    return f"CAST({name(column)} AS BIGINT)" if each.kind == "integer" else name(column)


def _without_repeats(
    engine: Engine, folder: Folder, wanted: Sequence[Wanted], table: str, columns: Mapping[str, str]
) -> int:
    """Leave out records that came before with the same content: they were asked for under two keys."""
    keys = [each.slot for each in wanted if each.is_key]
    fields = [each.slot for each in wanted if not each.is_key]
    whole = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    several = f"SELECT {', '.join(keys)} FROM {table} WHERE {whole} GROUP BY ALL HAVING count(*) > 1"
    found = engine.rows(f"SELECT {_texts(keys)} FROM ({several}) ORDER BY ALL LIMIT 1")
    if not found:
        return 0
    named = ", ".join(f"{columns[key]} {value}" for key, value in zip(keys, found[0], strict=True))
    if not set(folder.source.key) <= {columns[key] for key in keys}:
        raise JobError(
            f"{folder.path}: the key {', '.join(columns[key] for key in keys)} names several records, e.g. {named}. "
            f"Name the columns of a record's own key: {', '.join(folder.source.key)}",
            path=str(folder.path),
        )
    if fields:
        variants = f"SELECT {', '.join(keys)} FROM (SELECT DISTINCT {', '.join((*keys, *fields))} FROM {table} WHERE {whole})"
        other = engine.rows(f"SELECT {_texts(keys)} FROM ({variants} GROUP BY ALL HAVING count(*) > 1) ORDER BY ALL LIMIT 1")
        if other:
            named = ", ".join(f"{columns[key]} {value}" for key, value in zip(keys, other[0], strict=True))
            raise JobError(
                f"{folder.path}: the record {named} came twice with other content: it changed while it was read. "
                "Export again",
                path=str(folder.path),
            )
    before = engine.row(f"SELECT count(*) FROM {table}")[0]
    first = f"SELECT {', '.join(keys)}, min((shard, row)) AS first FROM {table} WHERE {whole} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
    same = " AND ".join(f"f.{key} = {table}.{key}" for key in keys)
    engine.run(f"DELETE FROM {table} USING ({first}) f WHERE {same} AND (shard, row) <> f.first")
    return int(before - engine.row(f"SELECT count(*) FROM {table}")[0])


def _texts(columns: Sequence[str]) -> str:
    return ", ".join(f"CAST({column} AS VARCHAR)" for column in columns)


def compare(engine: Engine, wanted: Sequence[Wanted], tolerance: Decimal, repeated: int) -> Comparison:
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
        f"WHEN c_shard IS NULL THEN '{MISSING_IN_CAPILLARY}' WHEN {changed} THEN '{CHANGED}' ELSE '{EQUAL}' END AS class, "
        f"* EXCLUDE (b_shard, c_shard) FROM (SELECT {', '.join(chosen)}, c.asked_key, c.shard AS c_shard, "
        f"b.shard AS b_shard FROM capillary c FULL OUTER JOIN books b ON {on} WHERE {differing})"
    )


def _make_view(engine: Engine, wanted: Sequence[Wanted]) -> None:
    """The view `differences`, a row a difference; its deltas have the decimals of the amount that has most."""
    keys = [each for each in wanted if each.is_key]
    fields = [each for each in wanted if not each.is_key]
    types = engine.columns("found")
    scales = [int(types[f"c_{each.slot}"].rstrip(")").split(",")[1]) for each in fields if each.kind == "amount"]
    scale = max(scales, default=3)
    own = ", ".join(f"{each.slot} AS {name(each.ours)}" for each in keys)
    parts = [_part(each, own, keys, scale) for each in fields]
    if not fields:
        parts = [_part(None, own, keys, scale)]
    engine.run(f"CREATE VIEW differences AS {' UNION ALL '.join(parts)}")


def _part(each: Wanted | None, own: str, keys: Sequence[Wanted], scale: int) -> str:
    """The differences in one field, or of the key alone."""
    asked = "" if "asked_key" in {key.ours for key in keys} else ", asked_key"
    if each is None:
        nothing = f"NULL::VARCHAR AS field, NULL::VARCHAR AS capillary_value, NULL::VARCHAR AS books_value, NULL::DECIMAL(38,{scale}) AS delta"
        return f"SELECT class, {own}, {nothing}{asked} FROM found WHERE class <> '{EQUAL}'"
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
    """How many are in each class, and how many of the equal ones lie within the tolerance."""
    found: dict[str, int] = dict(engine.rows("SELECT class, count(*) FROM found GROUP BY 1"))
    counts = {kind: found.get(kind, 0) for kind in CLASSES}
    both = ours - counts[MISSING_IN_BOOKS]
    if both != theirs - counts[MISSING_IN_CAPILLARY]:
        raise JobError(
            f"the classes do not add up: {ours} records less {counts[MISSING_IN_BOOKS]} missing in the books are not "
            f"{theirs} rows less {counts[MISSING_IN_CAPILLARY]} missing in Capillary. This is a fault of the SDK"
        )
    counts[EQUAL] = both - counts[CHANGED]
    return counts, found.get(EQUAL, 0)


def _totals(engine: Engine, each: Wanted) -> FieldTotals:
    sums = [engine.row(f"SELECT coalesce(sum({each.slot}), 0) FROM {table}")[0] for table in ("capillary", "books")]
    scale = int(engine.columns("found")[f"c_{each.slot}"].rstrip(")").split(",")[1])
    deltas = dict(engine.rows(f"SELECT class, sum({_delta(each.slot, scale)}) FROM found GROUP BY 1"))
    return FieldTotals(
        field=each.ours,
        capillary=Decimal(sums[0]),
        books=Decimal(sums[1]),
        deltas={kind: Decimal(deltas.get(kind, 0)) for kind in CLASSES},
        changed=_changed(engine, each),
    )


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
    return tuple(Difference(kind, row[:width], *row[width:]) for row in rows)
