"""The liability report: what is owed by month of expiry, status, program and category.

Invariant: sums are exact, on months of the server's zone. Called by `_report/point_reports.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from capillary_async.jobs._comparing.rule_catalog import REMAINING
from capillary_async.jobs._dataset.local_days import QUARTER, ServerZone
from capillary_async.jobs._report.allocations import EXPIRY_QUARTER, ROWS, Allocations
from capillary_async.jobs._report.csv_file import CsvFile
from capillary_async.jobs._report.result import PointsReport
from capillary_async.models.exact import EXACT

if TYPE_CHECKING:
    from pathlib import Path

    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["write_liability"]

_COLUMNS = (
    "month", "status", "program_id", "point_category_id", "records", "points_issued", "points_remaining", "value",
)  # fmt: skip
_ZERO = Decimal(0)
_Group = tuple[Any, ...]


def write_liability(engine: Engine, allocations: Allocations, out: Path, rate: Decimal | None) -> PointsReport:
    """Write the CSV file; `rate` is the money for one point."""
    records, points = 0, _ZERO
    with CsvFile(out, _COLUMNS) as file:
        for (month, status, *group), (count, issued, left) in sorted(
            _sums(engine, allocations.zone).items(), key=_in_order
        ):
            value = None
            if status == "AVAILABLE":
                records, points = records + int(count), EXACT.add(points, left)
                value = None if rate is None else EXACT.multiply(left, rate)
            file.line(month, status, *group, int(count), issued, left, value)
    return PointsReport(
        out=out,
        rows=file.rows,
        customers=None,
        records=records,
        points=points,
        value=None if rate is None else EXACT.multiply(points, rate),
        timezone=allocations.zone.note,
        as_of=None,
        read=allocations.read,
        failed=allocations.failed,
        notes=allocations.notes,
    )


def _sums(engine: Engine, zone: ServerZone) -> dict[_Group, tuple[Decimal, ...]]:
    """Allocations, points issued and points left by month, status, program and category."""
    rows = engine.stream(
        f"SELECT {EXPIRY_QUARTER}, status, program_id, point_category_id, count(*), "
        f"coalesce(sum(points_exclusive), 0), coalesce(sum({REMAINING}), 0) FROM {ROWS} GROUP BY ALL"
    )
    sums: dict[_Group, tuple[Decimal, ...]] = {}
    for quarter, *group, count, issued, left in rows:
        month = "" if quarter is None else zone.month_of((quarter + 1) * QUARTER)
        before = sums.get((month, *group), (_ZERO, _ZERO, _ZERO))
        sums[(month, *group)] = tuple(map(EXACT.add, before, map(Decimal, (count, issued, left))))
    return sums


def _in_order(entry: tuple[_Group, Any]) -> _Group:
    """By month, those without one last; then by status, program and category."""
    month, status, program, category = entry[0]
    return month == "", month, status or "", program or 0, category or 0
