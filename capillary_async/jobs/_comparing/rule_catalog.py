"""The rules that an export is checked by, without any books.

Invariant: an `error` is what the API's pages or their samples rule out; what is only inferred, or strange, is a `note`.
What the pages do not tie together is not checked: in the sample of "Get Allocated Points Details with Expiry in
Specified Date Range" `points_value` is 0 where `points_exclusive` is 100, so inclusive and exclusive columns are no
sums of each other. `remaining` is derived (exclusive minus redeemed, returned, expired); that it is never negative, and
zero where the status says that all is gone, makes exclusive = redeemed + returned + expired + remaining a check.
Rules between exports are in `_comparing/rule_joins.py`: which id joins what is inferred, so all of them are notes.

Run by `_comparing/checks.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capillary_async.jobs._books.duckdb_engine import name
from capillary_async.jobs._comparing.rules import RowRule, SetRule, record_of

if TYPE_CHECKING:
    from datetime import datetime

    from capillary_async.jobs._comparing.export_reader import ExportReader

__all__ = ["EXCLUSIVE", "REMAINING", "row_rules", "set_rules"]

EXCLUSIVE = (
    "points_exclusive",
    "redeemed_exclusive_value",
    "returned_exclusive_value",
    "expired_exclusive_value",
)
REMAINING = " - ".join(EXCLUSIVE)
_AT_MOST = " - ".join((EXCLUSIVE[0], *(f"coalesce({column}, 0)" for column in EXCLUSIVE[1:])))
_INCLUSIVE = ("original_points", "points_value", "redeemed_value", "returned_value", "expired_value")
_GONE = "'EXPIRED', 'REDEEMED', 'CONSUMED'"
_PROBABLY_GONE = "'RETURNED', 'CONSUMED_BY_CONVERSION'"
_PROMOTED = "coalesce(source_table, '') LIKE '%promotion%'"
_GRACE_DAYS = 2
_LEFT = f"'remaining ' || ({REMAINING}) || ' of ' || points_exclusive || ', status ' || status"


def _sum_text(columns: tuple[str, ...]) -> str:
    return " || ', ' || ".join(f"'{column} ' || coalesce(CAST({column} AS VARCHAR), 'nothing')" for column in columns)


def _arithmetic(quantities: tuple[str, ...], beside: str = "") -> list[RowRule]:
    """Rules that allocations and awards share; `beside` limits them to tables that are tied to it."""
    return [
        RowRule(
            "deductions-within-points",
            "error",
            "What was redeemed, returned and expired is never more than the points there were: exclusive = redeemed + "
            "returned + expired + remaining, and remaining is not negative. Where it is, points were taken twice.",
            # A deduction that is left out can only make less remain.
            f"{_AT_MOST} < 0{beside}",
            f"'remaining ' || ({_AT_MOST}) || ': ' || {_sum_text(EXCLUSIVE)}",
        ),
        RowRule(
            "no-negative-quantity",
            "error",
            "No quantity of points is below zero: deductions are written as what was taken, not as minus.",
            " OR ".join(f"{column} < 0" for column in quantities),
            _sum_text(EXCLUSIVE),
        ),
        RowRule(
            "quantities-there",
            "note",
            "All four exclusive quantities are there. Where one is left out, what remains is unknown, and a "
            "missing deduction taken for zero would invent points.",
            " OR ".join(f"{column} IS NULL" for column in EXCLUSIVE),
            _sum_text(EXCLUSIVE),
        ),
    ]


def _shown(column: str) -> str:
    """A time of milliseconds as text, also beyond the range of DuckDB's times."""
    return f"coalesce(TRY(CAST(to_timestamp({column} / 1000) AS VARCHAR)), {column} || ' ms')"


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _status(as_of: datetime) -> list[RowRule]:
    """An allocation's status against its quantities and its dates."""
    now, late = _milliseconds(as_of), _milliseconds(as_of) - _GRACE_DAYS * 86_400_000
    dates = f"'status ' || status || ', expires ' || {_shown('expiry_date')}"
    gone = (("EXPIRED", "expired"), ("REDEEMED", "redeemed"), ("RETURNED", "returned"))
    return [
        RowRule(
            "gone-means-nothing-left",
            "error",
            "An allocation that is EXPIRED, REDEEMED or CONSUMED has no points left: exclusive = redeemed + returned + "
            "expired. Where some are left, status and quantities contradict.",
            f"status IN ({_GONE}) AND {REMAINING} > 0",
            _LEFT,
        ),
        RowRule(
            "returned-or-converted-means-nothing-left",
            "note",
            "An allocation that is RETURNED or CONSUMED_BY_CONVERSION has no points left, as far as is known: no page "
            "says so.",
            f"status IN ({_PROBABLY_GONE}) AND {REMAINING} > 0",
            _LEFT,
        ),
        RowRule(
            "expired-after-its-date",
            "note",
            f"What is EXPIRED had its expiry date before {as_of:%Y-%m-%d %H:%M} UTC. Where the date is still to come, "
            "points were taken too early, the date was moved afterwards, or an early expiry was run.",
            f"status = 'EXPIRED' AND expiry_date > {now}",
            dates,
        ),
        RowRule(
            "status-has-its-quantity",
            "note",
            "An EXPIRED allocation has expired points, a REDEEMED one redeemed points, a RETURNED one returned points.",
            " OR ".join(f"(status = '{status}' AND {word}_exclusive_value = 0)" for status, word in gone),
            f"'status ' || status || ', ' || {_sum_text(EXCLUSIVE)}",
        ),
        RowRule(
            "available-has-points",
            "note",
            "An AVAILABLE allocation has points left. One that is used up and still AVAILABLE adds nothing to a "
            "balance.",
            f"status = 'AVAILABLE' AND {REMAINING} = 0",
            _LEFT,
        ),
        RowRule(
            "available-before-its-date",
            "note",
            f"What is AVAILABLE and has points left had not expired {_GRACE_DAYS} days before {as_of:%Y-%m-%d %H:%M} "
            "UTC. Servers expire points in batches some hours late; later than that, a batch may have been missed.",
            f"status = 'AVAILABLE' AND {REMAINING} > 0 AND expiry_date < {late}",
            dates,
        ),
        RowRule(
            "expires-after-award",
            "note",
            "Points expire after they were awarded. Imported history may say otherwise.",
            "expiry_date < awarded_date",
            f"'awarded ' || {_shown('awarded_date')} || ', expires ' || {_shown('expiry_date')}",
        ),
        RowRule(
            "inclusive-deductions-within-value",
            "note",
            "In the columns beside the exclusive ones, redeemed, returned and expired are no more than the value.",
            "redeemed_value + returned_value + expired_value > points_value",
            _sum_text(_INCLUSIVE[1:]),
        ),
    ]


def _promotion_beyond_value() -> RowRule:
    return RowRule(
        "promotion-spent-before-its-return",
        "note",
        "A row of a promotion table has no more deductions than points. Where a bill is returned after its points were "
        "spent, a row with the value 0 and redeemed points is legitimate, and says what the customer owes.",
        f"{_AT_MOST} < 0 AND ({_PROMOTED})",
        f"'remaining ' || ({_AT_MOST}) || ': ' || {_sum_text(EXCLUSIVE)}",
    )


def _owner(source: str) -> RowRule:
    """Whether a row belongs to the customer that was asked for."""
    merged = " AND original_customer_id IS DISTINCT FROM asked_key" if source == "allocations" else ""
    groups = " Asking for a user group gives its members' rows." if source == "awarded" else ""
    return RowRule(
        "row-of-asked-customer",
        "note" if source == "awarded" else "error",
        f"Each row belongs to the customer that was asked for, or to the one it was merged into.{groups}",
        f"customer_id IS NOT NULL AND customer_id <> asked_key{merged}",
        "'asked for ' || asked_key || ', got a row of ' || customer_id",
    )


def row_rules(folder: ExportReader, as_of: datetime) -> list[RowRule]:
    """The rules of each row of this kind of export."""
    source = folder.source_name
    no_key = " OR ".join(f"{name(key)} IS NULL" for key in folder.source.key)
    rules = [
        RowRule(
            "record-has-key",
            # In the page's sample of a CustomerRegistration, the ledger's entries have no unique id.
            "note" if source == "ledger" else "error",
            f"Each record has its own key ({', '.join(folder.source.key)}). One without cannot be found again or "
            "compared.",
            no_key,
            "'shard ' || shard || ', row ' || row",
        )
    ]
    if source == "allocations":
        rules += [*_arithmetic((*EXCLUSIVE, *_INCLUSIVE)), *_status(as_of)]
    elif source == "awarded":
        rules += _arithmetic(EXCLUSIVE, f" AND NOT ({_PROMOTED})")
        rules.append(_promotion_beyond_value())
    return rules if source == "ledger" else [*rules, _owner(source)]


def _caps(folder: ExportReader) -> list[SetRule]:
    """The rule for lists that a server may have cut; none if the page size is unknown."""
    size = folder.manifest.page_size
    if not isinstance(size, int) or isinstance(size, bool):
        return []
    return [
        SetRule(
            "list-below-longest",
            "note",
            f"A list that has exactly as many records as the longest one, and fewer than the {size} that a page was "
            "asked for, may have been cut short by the server. The export asks for a page after three such lists; if "
            "there is none, the length is no cap. If many lists end at one length, look at one of them in another way.",
            "WITH lists AS (SELECT asked_key, count(*) AS many FROM "
            f"{name(folder.relation)} GROUP BY asked_key) SELECT CAST(NULL AS VARCHAR) AS record, "
            "CAST(asked_key AS VARCHAR) AS asked_key, many || ' records, no list has more' AS detail FROM lists "
            f"WHERE many = (SELECT max(many) FROM lists) AND many < {size}",
        )
    ]


def set_rules(folder: ExportReader) -> list[SetRule]:
    """The rules about several rows of this export."""
    keys = ", ".join(name(key) for key in folder.source.key)
    there = " AND ".join(f"{name(key)} IS NOT NULL" for key in folder.source.key)
    return [
        *_caps(folder),
        SetRule(
            "record-once",
            "error",
            "Each record is there once. One that came twice was asked for under two ids, and counts twice in any sum.",
            f"SELECT {record_of(folder)} AS record, CAST(min(asked_key) AS VARCHAR) AS asked_key, "
            f"'there ' || count(*) || ' times' AS detail FROM {name(folder.relation)} WHERE {there} GROUP BY {keys} "
            "HAVING count(*) > 1",
        ),
    ]
