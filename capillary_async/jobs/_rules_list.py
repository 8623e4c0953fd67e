"""The rules that an export is checked by, without any books.

The rule kept here: an `error` is what the API's pages or their samples rule out; what is only strange is a `note`. What
the pages do not tie together is not checked: in the sample of "Get Allocated Points Details with Expiry in Specified
Date Range" `points_value` is 0 where `points_exclusive` is 100, so inclusive and exclusive columns are no sums of each
other. `remaining` is derived (exclusive less redeemed, returned, expired); that it is never negative, and nothing where
the status says that all is gone, is what makes exclusive = redeemed + returned + expired + remaining a check.

Run by `_reconcile.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capillary_async.jobs._compare_engine import literal, name
from capillary_async.jobs._rules import RowRule, SetRule, record_of

if TYPE_CHECKING:
    from datetime import datetime

    from capillary_async.jobs._compare_folder import Folder

__all__ = ["EXCLUSIVE", "REMAINING", "awarded_rules", "event_rules", "row_rules", "set_rules"]

EXCLUSIVE = (
    "points_exclusive",
    "redeemed_exclusive_value",
    "returned_exclusive_value",
    "expired_exclusive_value",
)
REMAINING = " - ".join(EXCLUSIVE)
_AT_MOST = " - ".join((EXCLUSIVE[0], *(f"coalesce({column}, 0)" for column in EXCLUSIVE[1:])))
_INCLUSIVE = ("original_points", "points_value", "redeemed_value", "returned_value", "expired_value")
_GONE = "'EXPIRED', 'REDEEMED', 'CONSUMED', 'RETURNED', 'CONSUMED_BY_CONVERSION'"
_GRACE_DAYS = 2
_LEFT = f"'remaining ' || ({REMAINING}) || ' of ' || points_exclusive || ', status ' || status"


def _sum_text(columns: tuple[str, ...]) -> str:
    return " || ', ' || ".join(f"'{column} ' || coalesce(CAST({column} AS VARCHAR), 'nothing')" for column in columns)


def _arithmetic(quantities: tuple[str, ...]) -> list[RowRule]:
    """What allocations and awards have in common."""
    return [
        RowRule(
            "deductions-within-points",
            "error",
            "What was redeemed, returned and expired is never more than the points there were: exclusive = redeemed + "
            "returned + expired + remaining, and remaining is not negative. Where it is, points were taken twice.",
            # A deduction that is left out can only make less remain.
            f"{_AT_MOST} < 0",
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
            "All four exclusive quantities are there. Where one is left out, what remains cannot be told, and a "
            "missing deduction taken for zero would invent points.",
            " OR ".join(f"{column} IS NULL" for column in EXCLUSIVE),
            _sum_text(EXCLUSIVE),
        ),
    ]


def _shown(column: str) -> str:
    """A time of milliseconds as text, also where it is more than DuckDB's times hold."""
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
            "An allocation that is EXPIRED, REDEEMED, CONSUMED, RETURNED or CONSUMED_BY_CONVERSION has no points left: "
            "exclusive = redeemed + returned + expired. Where some are left, status and quantities contradict.",
            f"status IN ({_GONE}) AND {REMAINING} > 0",
            _LEFT,
        ),
        RowRule(
            "expired-after-its-date",
            "error",
            f"What is EXPIRED had its expiry date before {as_of:%Y-%m-%d %H:%M} UTC. Where the date is still to come, "
            "points were taken too early, or the date was moved afterwards.",
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


def row_rules(folder: Folder, as_of: datetime) -> list[RowRule]:
    """The rules of each row of this kind of export."""
    source = folder.source_name
    no_key = " OR ".join(f"{name(key)} IS NULL" for key in folder.source.key)
    rules = [
        RowRule(
            "record-has-key",
            "error",
            f"Each record has its own key ({', '.join(folder.source.key)}). One without cannot be found again or "
            "compared.",
            no_key,
            "'shard ' || shard || ', row ' || row",
        )
    ]
    if source == "allocations":
        rules += [*_arithmetic((*EXCLUSIVE, *_INCLUSIVE)), *_status(as_of)]
    elif source == "awarded":
        rules += _arithmetic(EXCLUSIVE)
    return rules if source == "ledger" else [*rules, _owner(source)]


def _caps(folder: Folder) -> list[SetRule]:
    """Which lists may have been cut by a server that gives fewer rows than asked; none where no size is known."""
    size = folder.manifest.get("page_size")
    if not isinstance(size, int) or isinstance(size, bool):
        return []
    return [
        SetRule(
            "list-below-longest",
            "note",
            f"A list that has exactly as many records as the longest one, and fewer than the {size} that a page was "
            "asked for, may have been cut short by the server. The export looks behind three such lists and takes the "
            "length for no cap where it finds nothing. Where many lists end at one length, look at one of them in "
            "another way.",
            "WITH lists AS (SELECT asked_key, count(*) AS many FROM "
            f"{name(folder.relation)} GROUP BY asked_key) SELECT CAST(NULL AS VARCHAR) AS record, "
            "CAST(asked_key AS VARCHAR) AS asked_key, many || ' records, no list has more' AS detail FROM lists "
            f"WHERE many = (SELECT max(many) FROM lists) AND many < {size}",
        )
    ]


def set_rules(folder: Folder) -> list[SetRule]:
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


def awarded_rules(allocations: Folder, awarded: Folder) -> list[SetRule]:
    """Awarded ids against allocations: they have customer, event and exclusive quantities in common."""
    a, w = name(allocations.relation), name(awarded.relation)
    what = ", ".join(("event_log_id", *EXCLUSIVE))
    owners = (
        f"SELECT customer_id AS owner, * FROM {a} UNION ALL "
        f"SELECT original_customer_id, * FROM {a} WHERE original_customer_id <> customer_id"
    )
    same = " AND ".join(f"g.{each} IS NOT DISTINCT FROM h.{each}" for each in ("event_log_id", *EXCLUSIVE))
    status = awarded.manifest.get("query", {}).get("status")
    of_status = f"WHERE status = {literal(status)}" if isinstance(status, str) else ""
    event, points = (f"coalesce(CAST(g.{each} AS VARCHAR), 'nothing')" for each in ("event_log_id", EXCLUSIVE[0]))
    shown = f"'event ' || {event} || ', points ' || {points} || ': ' || g.many"
    return [
        SetRule(
            "award-has-event-in-allocations",
            "error",
            "Each awarded id belongs to an event that also has allocations. Where it has none, the points were "
            "awarded and are not held, or the two exports asked for different dates.",
            f"SELECT {record_of(awarded)} AS record, CAST(asked_key AS VARCHAR) AS asked_key, "
            f"'event ' || event_log_id || ', points ' || coalesce(CAST(points_exclusive AS VARCHAR), 'nothing') "
            f"AS detail FROM {w} ANTI JOIN {a} USING (event_log_id) WHERE event_log_id IS NOT NULL",
        ),
        SetRule(
            "award-has-allocation",
            "error",
            "Each awarded id has an allocation of the same customer, event and exclusive quantities. Where the event "
            "has allocations, but none with these quantities, one of the two changed and the other did not.",
            f"SELECT g.record, g.asked_key, {shown} || ' awarded, ' || coalesce(h.many, 0) || ' allocated' AS detail "
            f"FROM (SELECT customer_id, {what}, count(*) AS many, min({record_of(awarded)}) AS record, "
            f"CAST(min(asked_key) AS VARCHAR) AS asked_key FROM {w} GROUP BY customer_id, {what}) g LEFT JOIN "
            f"(SELECT owner AS customer_id, {what}, count(*) AS many FROM ({owners}) GROUP BY owner, {what}) h "
            f"ON g.customer_id IS NOT DISTINCT FROM h.customer_id AND {same} WHERE g.many > coalesce(h.many, 0) AND "
            f"g.event_log_id IN (SELECT event_log_id FROM {a})",
        ),
        SetRule(
            "allocation-has-award",
            "note",
            "Each allocation of the status that was asked for has an awarded id of the same event and quantities. The "
            "API tells the awards of some tables only, so this need not hold, and is no error.",
            f"SELECT g.record, g.asked_key, {shown} || ' allocated, ' || coalesce(h.many, 0) || ' awarded' AS detail "
            f"FROM (SELECT {what}, count(*) AS many, min({record_of(allocations)}) AS record, "
            f"CAST(min(asked_key) AS VARCHAR) AS asked_key FROM {a} {of_status} GROUP BY {what}) g LEFT JOIN "
            f"(SELECT {what}, count(*) AS many FROM {w} GROUP BY {what}) h ON {same} "
            "WHERE g.many > coalesce(h.many, 0)",
        ),
    ]


def event_rules(rows: Folder, events: Folder) -> list[SetRule]:
    """Allocations or awarded ids against loyalty events, by event log id."""
    one = rows.source_name.removesuffix("s")
    r, e = name(rows.relation), name(events.relation)
    query = events.manifest.get("query", {})
    filtered = [each for each in ("event_type", "from_date", "to_date") if query.get(each) is not None]
    why = f" The events were read with {', '.join(filtered)}, so some may be left out." if filtered else ""
    record = f"{record_of(rows, 'r')} AS record, CAST(r.asked_key AS VARCHAR) AS asked_key"
    original = ", coalesce(r.original_customer_id, r.customer_id)" if rows.source_name == "allocations" else ""
    return [
        SetRule(
            f"{one}-has-event",
            "note" if filtered else "error",
            f"The event_log_id of each {one} row is the id of a loyalty event. Where it is none, points have no event "
            f"that explains them.{why}",
            f"SELECT {record}, 'event_log_id ' || r.event_log_id || ' is no loyalty event' AS detail FROM {r} r "
            f"ANTI JOIN {e} e ON e.id = r.event_log_id WHERE r.event_log_id IS NOT NULL",
        ),
        SetRule(
            f"{one}-event-of-same-customer",
            "error",
            "The loyalty event belongs to the customer of the row, or to the one before a merge.",
            f"SELECT {record}, 'event ' || e.id || ' is of customer ' || e.customer_id || ', the row of ' || "
            f"r.customer_id AS detail FROM {r} r JOIN {e} e ON e.id = r.event_log_id "
            f"WHERE e.customer_id NOT IN (r.customer_id{original})",
        ),
    ]
