"""What the sandbox holds of a customer: awards, allocations and events, as wire rows with what the filters need.

The rule kept here: a wire row has what the API shows and nothing else; quantities are ints or Decimals, never floats.
`_growth.py` and `_sample_customers.py` make these; the endpoint files read them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypeAlias

import attrs

__all__ = [
    "BILL_TABLE",
    "IST",
    "ORG_ID",
    "POINTS_TABLE",
    "POINT_CATEGORY_ID",
    "PROGRAM_ID",
    "TODAY",
    "Award",
    "Customer",
    "Event",
    "Row",
    "amount",
    "epoch_ms",
    "iso",
]

Row: TypeAlias = dict[str, Any]

PROGRAM_ID, POINT_CATEGORY_ID, ORG_ID = 2282, 17383, 50914
POINTS_TABLE, BILL_TABLE = "points_awarded", "points_awarded_bill_lineitems"
IST = timezone(timedelta(hours=5, minutes=30))
# The world stands still on this day: what expired before it is expired, whenever the sandbox runs.
TODAY = datetime(2026, 1, 15, tzinfo=UTC)


@attrs.frozen
class Award:
    """A row of `paIds`, with what the row itself does not tell and the filters need.

    Attributes:
        row: The wire row.
        status: The state of the award.
        program_id: Its program.
        point_category_id: Its category.
        org_id: Its organisation.
        expiry_date: When it expires, in epoch milliseconds.
    """

    row: Row
    status: str
    program_id: int
    point_category_id: int
    org_id: int
    expiry_date: int


@attrs.frozen
class Event:
    """A loyalty event.

    Attributes:
        row: The wire row of `loyaltyEvents`.
        event_type_id: Its type.
        reference: The transaction id or request id; "-1" where there is none.
        till_id: Where it was recorded.
        allocations: The wire rows of the points it awarded.
    """

    row: Row
    event_type_id: int
    reference: str
    till_id: int
    allocations: tuple[Row, ...] = ()

    @property
    def id(self) -> int:
        """Its event log id."""
        return int(self.row["id"])

    @property
    def references(self) -> tuple[str, ...]:
        """The texts that it may be asked for by, beside its id; "-1" stands for no request id."""
        unique_id = str(self.row["uniqueId"])
        return (unique_id,) if self.reference == "-1" else (unique_id, self.reference)


@attrs.frozen
class Customer:
    """All that the sandbox holds of one customer."""

    id: int
    allocations: tuple[Row, ...] = ()
    awards: tuple[Award, ...] = ()
    events: tuple[Event, ...] = ()


def epoch_ms(moment: datetime) -> int:
    """The moment in whole epoch milliseconds."""
    return int(moment.timestamp()) * 1000


def iso(seconds: int) -> str:
    """An epoch second as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def amount(thousandths: int, *, plain: bool) -> int | Decimal:
    """A quantity as the wire has it: with three decimals, or plain: 12, 12.5, 12.345."""
    text = f"{thousandths // 1000}.{thousandths % 1000:03d}"
    if not plain:
        return Decimal(text)
    text = text.rstrip("0").rstrip(".")
    return Decimal(text) if "." in text else int(text)
