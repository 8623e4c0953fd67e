"""Control totals: exact sums over customers, to compare with what a client read.

Invariant: sums are Decimals, and nothing is rounded. `World.totals` and the demo use them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs

from capillary_async._repr import brief_repr
from capillary_async.sandbox._world.records import POINT_CATEGORY_ID

if TYPE_CHECKING:
    from capillary_async.sandbox._world.records import Customer, Row

__all__ = ["Sums", "Totals"]

_AWARD_COLUMNS = ("points_exclusive", "redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")
_ALLOCATION_COLUMNS = (
    *_AWARD_COLUMNS,
    *("points_value", "original_points", "redeemed_value", "returned_value", "expired_value"),
)


@attrs.frozen
class Totals:
    """Control totals of the customers in the main category, exact.

    Promised points and the three promotion tables are left out, so that no sum here is the balance of a customer.

    Attributes:
        customers: How many customers.
        allocations: Rows of `pointsAllocation`.
        awarded: Rows of `paIds`, over all statuses: those of the allocations, and line items beside them.
        events: Rows of `loyaltyEvents`.
        points: The sum of each points column of the allocations.
        awarded_points: The sum of each points column of the awards.
        by_status: The sum of `points_exclusive` of the allocations of each status: what was issued.
        left_by_month: What remains of the AVAILABLE allocations, by the year and month (UTC) of their expiry.
        awarded_by_status: The sum of `points_exclusive` of the awards of each status.
    """

    customers: int
    allocations: int
    awarded: int
    events: int
    points: dict[str, Decimal]
    awarded_points: dict[str, Decimal]
    by_status: dict[str, Decimal]
    left_by_month: dict[tuple[int, int], Decimal]
    awarded_by_status: dict[str, Decimal] = attrs.field(factory=dict[str, Decimal])

    __repr__ = brief_repr


class Sums:
    """Running sums over customers."""

    def __init__(self) -> None:
        self._counts = {"allocations": 0, "awarded": 0, "events": 0}
        self._points: dict[str, Decimal] = dict.fromkeys(_ALLOCATION_COLUMNS, Decimal(0))
        self._awarded: dict[str, Decimal] = dict.fromkeys(_AWARD_COLUMNS, Decimal(0))
        self._by_status: dict[str, Decimal] = {}
        self._awarded_by_status: dict[str, Decimal] = {}
        self._left: dict[tuple[int, int], Decimal] = {}

    def add(self, customer: Customer) -> None:
        """Count one customer in."""
        allocations, awards = customer.allocations(POINT_CATEGORY_ID), customer.shown(POINT_CATEGORY_ID)
        self._counts["allocations"] += len(allocations)
        self._counts["awarded"] += len(awards)
        self._counts["events"] += len(customer.events)
        for row in allocations:
            _add(self._points, row)
            _put(self._by_status, row["status"], row["points_exclusive"])
            if row["status"] == "AVAILABLE":
                _put(self._left, _month(row["expiry_date"]), _left(row))
        for award in awards:
            _add(self._awarded, award.row)
            _put(self._awarded_by_status, award.status, award.points)

    def totals(self, customers: int) -> Totals:
        """The sums so far."""
        return Totals(
            customers=customers,
            allocations=self._counts["allocations"],
            awarded=self._counts["awarded"],
            events=self._counts["events"],
            points=self._points,
            awarded_points=self._awarded,
            by_status=dict(sorted(self._by_status.items())),
            left_by_month=dict(sorted(self._left.items())),
            awarded_by_status=dict(sorted(self._awarded_by_status.items())),
        )


def _month(milliseconds: int) -> tuple[int, int]:
    day = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return day.year, day.month


def _left(row: Row) -> Decimal:
    whole, *gone = (Decimal(row[column]) for column in _AWARD_COLUMNS)
    return whole - sum(gone, Decimal(0))


def _put(sums: dict[Any, Decimal], name: Any, points: int | Decimal) -> None:
    sums[name] = sums.get(name, Decimal(0)) + points


def _add(sums: dict[str, Decimal], row: Row) -> None:
    for column in sums:
        sums[column] += row[column]
