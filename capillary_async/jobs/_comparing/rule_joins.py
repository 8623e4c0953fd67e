"""The rules between exports: allocations, awarded ids, loyalty events and ledger entries of the same customers.

Invariant: rows are joined by the ids that mean the same, and by no others: an allocation's `id` is the `id` of an award
of `points_awarded`, an `event_log_id` is one of the ledger, and the ledger and loyalty events share the unique id. The
API's pages do not say so (it is inferred from their samples), so that every rule here is a note.

Run by `_comparing/checks.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from capillary_async.jobs._books.duckdb_engine import literal, name
from capillary_async.jobs._comparing.rule_catalog import EXCLUSIVE
from capillary_async.jobs._comparing.rules import Example, Finding, Rule, SetRule, record_of

if TYPE_CHECKING:
    from capillary_async.jobs._comparing.export_reader import ExportReader

__all__ = ["awarded_rules", "event_rules", "ledger_rules", "without_ledger"]

_POINTS_TABLE = "source_table = 'points_awarded'"
# `pointAwardedRefType` of the two tables, of five, that the endpoints show.
_REF_TYPES = {"POINT_AWARDED": "points_awarded", "POINT_AWARDED_LINEITEM": "points_awarded_bill_lineitems"}
_ADJUSTMENT, _DEDUCTIONS = "manual_points_adjustment_details", "points_deduction_break_up_details"
_CONVERSION = "REDEEMED_BY_CONVERSION"  # takes promised points, which are rows of another category
_HAS_EVENT = "r.event_log_id IS NOT NULL AND r.event_log_id <> -1"  # newer tables have -1 where there is none


def awarded_rules(allocations: ExportReader, awarded: ExportReader) -> list[SetRule]:
    """Awarded ids against allocations: those of `points_awarded` are the same rows; line items are others."""
    a, w = name(allocations.relation), name(awarded.relation)
    what = ("event_log_id", *EXCLUSIVE)
    differs = " OR ".join(f"a.{each} IS DISTINCT FROM w.{each}" for each in what)
    differs = f"{differs} OR w.customer_id NOT IN (a.customer_id, coalesce(a.original_customer_id, a.customer_id))"
    statuses = _statuses(awarded)
    of_status = f" AND a.status IN ({', '.join(map(literal, statuses))})" if statuses else ""
    record = f"{record_of(awarded, 'w')} AS record, CAST(w.asked_key AS VARCHAR) AS asked_key"
    return [
        SetRule(
            "award-has-allocation",
            "note",
            "Each awarded id of the table points_awarded is the id of an allocation; awards of other tables have none. "
            "Where it is not, the points were awarded and are not among the allocations, or the two exports asked for "
            "different dates or categories.",
            f"SELECT {record}, 'no allocation ' || w.id || ', points ' || {_text('w.points_exclusive')} AS detail "
            f"FROM {w} w ANTI JOIN {a} a ON a.id = w.id WHERE w.{_POINTS_TABLE} AND w.id IS NOT NULL",
        ),
        SetRule(
            "award-as-its-allocation",
            "note",
            "An awarded id of the table points_awarded and the allocation with the same id have the same customer, "
            "event and exclusive quantities. Where they differ, one changed between the two exports.",
            f"SELECT {record}, {_pair('w')} || ' awarded, ' || {_pair('a')} || ' allocated' AS detail "
            f"FROM {w} w JOIN {a} a ON a.id = w.id WHERE w.{_POINTS_TABLE} AND ({differs})",
        ),
        SetRule(
            "allocation-has-award",
            "note",
            "Each allocation of the status that was asked for is an awarded id of the table points_awarded. Where it "
            "is not, the two exports asked for different dates or categories, or the status changed between them.",
            f"SELECT {record_of(allocations, 'a')} AS record, CAST(a.asked_key AS VARCHAR) AS asked_key, "
            f"{_pair('a')} || ': not awarded' AS detail FROM {a} a "
            f"ANTI JOIN (SELECT id FROM {w} WHERE {_POINTS_TABLE}) w ON a.id = w.id WHERE a.id IS NOT NULL{of_status}",
        ),
    ]


def ledger_rules(rows: ExportReader, ledger: ExportReader) -> list[SetRule]:
    """Allocations or awarded ids against the ledger: by event log id, and by the award that a deduction names."""
    one, r, g = _one(rows), name(rows.relation), name(ledger.relation)
    return [
        _deductions(rows, ledger),
        SetRule(
            f"{one}-has-ledger-entry",
            "note",
            f"The event_log_id of each {one} row is one of the ledger. Where it is none, the ledger was not asked for "
            "it, or points have no event that explains them. Rows without an event log id (null or -1) are left out.",
            f"SELECT {_record(rows)}, 'event_log_id ' || r.event_log_id || ' is not in the ledger' AS detail "
            f"FROM {r} r ANTI JOIN {g} g ON g.event_log_id = r.event_log_id WHERE {_HAS_EVENT}",
        ),
    ]


def _deductions(rows: ExportReader, ledger: ExportReader) -> SetRule:
    """The award of each deduction, in the tables that the rows are of; promised points are of another category."""
    one, r, g = _one(rows), name(rows.relation), name(ledger.relation)
    table = "'points_awarded'" if rows.source_name == "allocations" else "r.source_table"  # allocations: one table
    tables = " ".join(f"WHEN {literal(kind)} THEN {literal(table)}" for kind, table in _REF_TYPES.items())
    is_text = ledger.columns[_ADJUSTMENT] in ("VARCHAR", "JSON")
    adjustment = f"CAST({_ADJUSTMENT} AS JSON)" if is_text else f"to_json({_ADJUSTMENT})"
    taken = (
        f"SELECT *, unnest(json_extract({adjustment}, '$.{_DEDUCTIONS}[*]')) AS taken FROM {g} "
        f"WHERE {_ADJUSTMENT} IS NOT NULL"
    )
    named = (
        f"SELECT *, CASE taken ->> 'point_awarded_ref_type' {tables} END AS award_table, "
        f"TRY_CAST(taken ->> 'point_awarded_ref_id' AS BIGINT) AS award_id FROM ({taken}) "
        f"WHERE (taken ->> 'deduction_type') IS DISTINCT FROM {literal(_CONVERSION)}"
    )
    shown = ["points_awarded"] if rows.source_name == "allocations" else list(_REF_TYPES.values())
    statuses = ", ".join(_statuses(rows))
    why = f" The awarded ids were read with the status {statuses}, so some may be left out." if statuses else ""
    return SetRule(
        f"deduction-has-{one}",
        "note",
        f"The award that a deduction of the ledger names is among the {one} rows. Where it is not, points were taken "
        f"from a row of another category, program or expiry date, or from none at all.{why}",
        f"SELECT DISTINCT {record_of(ledger, 't')} AS record, CAST(t.asked_key AS VARCHAR) AS asked_key, "
        f"'points were taken from ' || t.award_table || ' ' || t.award_id || ', which is no row' AS detail "
        f"FROM ({named}) t ANTI JOIN {r} r ON r.id = t.award_id AND {table} = t.award_table "
        f"WHERE t.award_id IS NOT NULL AND t.award_table IN ({', '.join(map(literal, shown))})",
    )


def event_rules(rows: ExportReader, events: ExportReader, ledger: ExportReader) -> list[SetRule]:
    """Allocations or awarded ids against loyalty events: through the ledger, by unique id."""
    one, r, e, g = _one(rows), name(rows.relation), name(events.relation), name(ledger.relation)
    query = events.manifest.query
    filtered = [each for each in ("event_type", "from_date", "to_date") if query.get(each) is not None]
    why = f" The events were read with {', '.join(filtered)}, so some may be left out." if filtered else ""
    original = ", coalesce(r.original_customer_id, r.customer_id)" if rows.source_name == "allocations" else ""
    return [
        SetRule(
            f"{one}-has-event",
            "note",
            f"The ledger entry of each {one} row has the unique id of a loyalty event. Where it has none, points have "
            f"no loyalty event that explains them. The id of a loyalty event is no event log id.{why}",
            f"SELECT DISTINCT {_record(rows)}, 'unique id ' || g.unique_id || ' of event_log_id ' || r.event_log_id || "
            f"' is no loyalty event' AS detail FROM {r} r JOIN {g} g ON g.event_log_id = r.event_log_id "
            f"ANTI JOIN {e} e ON e.unique_id = g.unique_id WHERE {_HAS_EVENT} AND g.unique_id IS NOT NULL",
        ),
        SetRule(
            f"{one}-event-of-same-customer",
            "note",
            "The loyalty event with the unique id of the row's ledger entry belongs to the customer of the row, or to "
            "the one before a merge.",
            f"SELECT DISTINCT {_record(rows)}, 'event ' || e.unique_id || ' is of customer ' || e.customer_id || "
            f"', the row of ' || r.customer_id AS detail FROM {r} r "
            f"JOIN {g} g ON g.event_log_id = r.event_log_id JOIN {e} e ON e.unique_id = g.unique_id "
            f"WHERE {_HAS_EVENT} AND e.customer_id NOT IN (r.customer_id{original})",
        ),
    ]


_WITHOUT_LEDGER = Rule(
    "events-compared-through-the-ledger",
    "note",
    "Loyalty events and points are joined by the unique id of the ledger entry between them: the id of a loyalty event "
    "is no event log id. Without an export of the ledger (--with-ledger) they are not compared.",
)


def without_ledger(events: ExportReader) -> Finding:
    """The finding that events were given and the ledger was not."""
    return Finding(_WITHOUT_LEDGER, 1, (Example(str(events.path), None, "no export of the ledger was given"),))


def _statuses(awarded: ExportReader) -> list[str]:
    """The statuses that awarded ids were asked for; none where the manifest has none."""
    status: Any = awarded.manifest.query.get("status")
    if isinstance(status, list):
        return [str(each) for each in cast("list[Any]", status)]
    return [status] if isinstance(status, str) else []


def _one(rows: ExportReader) -> str:
    return rows.source_name.removesuffix("s")


def _record(rows: ExportReader) -> str:
    return f"{record_of(rows, 'r')} AS record, CAST(r.asked_key AS VARCHAR) AS asked_key"


def _pair(alias: str) -> str:
    return f"'event ' || {_text(f'{alias}.event_log_id')} || ', points ' || {_text(f'{alias}.points_exclusive')}"


def _text(column: str) -> str:
    return f"coalesce(CAST({column} AS VARCHAR), 'nothing')"
