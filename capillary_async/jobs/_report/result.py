"""`PointsReport`: the result of an expiry or a liability report.

Invariant: data only. Made by `_report/expiry.py` and `_report/liability.py`, shown by the command line.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

from attrs import frozen

from capillary_async._html import lines_card
from capillary_async._repr import brief_repr

__all__ = ["PointsReport"]


@frozen(kw_only=True)
class PointsReport:
    """The result of a report.

    Attributes:
        out: The CSV file.
        rows: Its rows, without the header.
        customers: Customers with points to lose; None for the liability.
        records: AVAILABLE allocations that `points` is the sum of.
        points: The sum of what is left of AVAILABLE allocations in the report.
        value: The same times the currency rate, exact; None without one.
        timezone: The zone of days and months, and where it was taken from.
        as_of: Points that had expired before are not counted as expiring; None for the liability.
        read: When the data were read, per export.
        failed: Customers of the exports that failed, whose points are missing.
        notes: What these figures do not show, as sentences.
    """

    out: Path
    rows: int
    customers: int | None
    records: int
    points: Decimal
    value: Decimal | None
    timezone: str
    as_of: datetime | None
    read: tuple[str, ...]
    failed: int
    notes: tuple[str, ...]

    __repr__ = brief_repr
    _repr_html_ = lines_card

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        owed = f"{self.points:,f} points" + ("" if self.value is None else f", worth {self.value:,f}")
        whose = "" if self.customers is None else f" of {_count(self.customers, 'customer')}"
        since = "" if self.as_of is None else f" that expire after {self.as_of:%Y-%m-%d %H:%M} UTC"
        return [
            f"{owed}{whose}{since}, in {_count(self.records, 'allocation')}: {self.out} ({_count(self.rows, 'row')})",
            f"days and months: {self.timezone}",
            *(f"read: {each}" for each in self.read),
            *(f"note: {each}" for each in self.notes),
        ]


def _count(number: int, one: str) -> str:
    return f"{number:,} {one if number == 1 else f'{one}s'}"
