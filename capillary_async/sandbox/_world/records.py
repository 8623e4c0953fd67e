"""The records of a customer: awards, allocations and events, as wire rows with what the filters need.

Invariant: a wire row has what the API shows and nothing else; quantities are ints or Decimals, never floats.
`_world/generate.py` and `_world/sample_customers.py` make these; the endpoint files read them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypeAlias

import attrs

__all__ = [
    "BILL_PROMOTIONS",
    "CHANGED_CATEGORY_ID",
    "CUSTOMER_PROMOTIONS",
    "IST",
    "LINE_PROMOTIONS",
    "LINE_TABLE",
    "NO_EVENT",
    "ORG_ID",
    "POINTS_TABLE",
    "POINT_CATEGORY_ID",
    "PROGRAM_ID",
    "PROMISED_CATEGORY_ID",
    "REF_TYPES",
    "SHOWN_TABLES",
    "TODAY",
    "Award",
    "Customer",
    "Deduction",
    "Event",
    "Row",
    "amount",
    "epoch_ms",
    "iso",
]

Row: TypeAlias = dict[str, Any]

PROGRAM_ID, POINT_CATEGORY_ID, ORG_ID = 2282, 17383, 50914
PROMISED_CATEGORY_ID, CHANGED_CATEGORY_ID = 17384, 17385
POINTS_TABLE, LINE_TABLE = "points_awarded", "points_awarded_bill_lineitems"
# No endpoint shows the rows of these three; their names are inferred from the ledger's `pointAwardedRefType`.
BILL_PROMOTIONS = "points_awarded_bill_promotions"
LINE_PROMOTIONS = "points_awarded_lineitem_promotions"
CUSTOMER_PROMOTIONS = "points_awarded_customer_promotions"
SHOWN_TABLES = (POINTS_TABLE, LINE_TABLE)
REF_TYPES = {
    POINTS_TABLE: "POINT_AWARDED",
    LINE_TABLE: "POINT_AWARDED_LINEITEM",
    BILL_PROMOTIONS: "POINT_AWARDED_BILL_PROMOTION",
    LINE_PROMOTIONS: "POINT_AWARDED_LINEITEM_PROMOTION",
    CUSTOMER_PROMOTIONS: "POINT_AWARDED_CUSTOMER_PROMOTION",
}
_NOTHING = Decimal("0.000")
NO_EVENT = -1  # what newer tables have as event_log_id where there is none
IST = timezone(timedelta(hours=5, minutes=30))
# This is the fixed day of the world: what expired before it is expired, whenever the sandbox runs.
TODAY = datetime(2026, 1, 15, tzinfo=UTC)


@attrs.frozen
class Award:
    """A row of one of the five award tables, with values that the filters need and the row does not show.

    Attributes:
        row: The wire row of `paIds`; in the three promotion tables, the row as the table has it.
        status: The state of the award.
        program_id: Its program.
        point_category_id: Its category.
        org_id: Its organisation.
        expiry_date: When it expires, in epoch milliseconds.
        allocation: The wire row of `pointsAllocation`, which shows rows of `points_awarded` alone.
    """

    row: Row
    status: str
    program_id: int
    point_category_id: int
    org_id: int
    expiry_date: int
    allocation: Row | None = None

    @property
    def table(self) -> str:
        """The table of the row."""
        return str(self.row["source_table"])

    @property
    def points(self) -> Any:
        """The points issued: promotion tables have the inclusive column alone."""
        return self.row["points_exclusive"] if self.table in SHOWN_TABLES else self.row["points_value"]


@attrs.frozen
class Deduction:
    """Points that an event took from an award.

    Attributes:
        kind: The `deductionType`.
        table: The table of the award.
        award_id: Its id in that table.
        points: How many points.
    """

    kind: str
    table: str
    award_id: int
    points: Decimal


@attrs.frozen
class Event:
    """An event of the loyalty events and of the ledger.

    Attributes:
        row: The wire row of `loyaltyEvents`: its `id` is of another series than `log_id`, its unique id the same.
        event_type_id: Its type.
        reference: The transaction id or request id; "-1" where there is none.
        till_id: Where it was recorded.
        log_id: Its event log id.
        awards: The points it awarded, of all tables and categories.
        deductions: The points it took.
    """

    row: Row
    event_type_id: int
    reference: str
    till_id: int
    log_id: int
    awards: tuple[Award, ...] = ()
    deductions: tuple[Deduction, ...] = ()

    @property
    def name(self) -> str:
        """Its name, e.g. `TransactionAdd`."""
        return str(self.row["eventName"])

    @property
    def allocations(self) -> tuple[Row, ...]:
        """The wire rows of its allocations, of all categories."""
        return tuple(award.allocation for award in self.awards if award.allocation is not None)

    @property
    def is_referred(self) -> bool:
        """Whether its reference names a transaction or a request."""
        return self.reference != str(NO_EVENT)

    @property
    def entities(self) -> tuple[str, ...]:
        """The `entity_id` values of its allocations: its unique id, and its transaction or request id."""
        unique_id = str(self.row["uniqueId"])
        return (unique_id, self.reference) if self.is_referred else (unique_id,)


@attrs.frozen
class Customer:
    """The records of one customer, in the order of time."""

    id: int
    awards: tuple[Award, ...] = ()
    events: tuple[Event, ...] = ()

    def allocations(self, point_category_id: int) -> list[Row]:
        """The allocations of one category."""
        return [
            award.allocation
            for award in self.awards
            if award.allocation is not None and award.point_category_id == point_category_id
        ]

    def shown(self, point_category_id: int) -> list[Award]:
        """The awards of one category in the two tables that `paIds` shows, table by table."""
        return [
            award
            for table in SHOWN_TABLES
            for award in self.awards
            if award.table == table and award.point_category_id == point_category_id
        ]

    @property
    def promotions(self) -> list[Award]:
        """The awards in the three tables that no endpoint shows."""
        return [award for award in self.awards if award.table not in SHOWN_TABLES]


def epoch_ms(moment: datetime) -> int:
    """The moment in whole epoch milliseconds."""
    return int(moment.timestamp()) * 1000


def iso(seconds: int) -> str:
    """An epoch second as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def amount(thousandths: int, *, plain: bool) -> int | Decimal:
    """A quantity as the wire has it: with three decimals, or plain: 12, 12.5, 12.345."""
    if not thousandths:  # three in four are
        return 0 if plain else _NOTHING
    text = f"{thousandths // 1000}.{thousandths % 1000:03d}"
    if not plain:
        return Decimal(text)
    text = text.rstrip("0").rstrip(".")
    return Decimal(text) if "." in text else int(text)
