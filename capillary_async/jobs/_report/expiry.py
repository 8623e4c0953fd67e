"""The expiry report: who loses how many points by when.

Invariant: sums are exact, on days of the server's zone. Called by `_report/point_reports.py`.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any

from attrs import define

from capillary_async.jobs._comparing.arguments import moment_of
from capillary_async.jobs._comparing.rule_catalog import REMAINING
from capillary_async.jobs._comparing.summary import read_time
from capillary_async.jobs._dataset.local_days import QUARTER
from capillary_async.jobs._report.allocations import EXPIRY_QUARTER, ROWS, Allocations, count_rows
from capillary_async.jobs._report.csv_file import CsvFile
from capillary_async.jobs._report.result import PointsReport
from capillary_async.models.exact import EXACT, exact_sum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["write_expiry"]

_COLUMNS = ("customer", "points", "last_day", "program_id", "point_category_id")


def write_expiry(
    engine: Engine, allocations: Allocations, out: Path, last: date | None, as_of: datetime | date | None
) -> PointsReport:
    """Write the CSV file.

    Args:
        engine: DuckDB, with the table of allocations.
        allocations: The exports that they are of.
        out: The CSV file.
        last: Leave out what can be used after this day.
        as_of: Leave out what expired before; None for the time the exports were read.
    """
    zone = allocations.zone
    moment = min(map(read_time, allocations.exports)) if as_of is None else moment_of(as_of, zone.zone)
    milliseconds = int(moment.timestamp()) * 1000
    totals = _Totals()
    with CsvFile(out, _COLUMNS) as file:
        days = groupby(_rows(engine, milliseconds), lambda row: (*row[:3], zone.last_day_of((row[3] + 1) * QUARTER)))
        for (customer, program, category, day), parts in days:
            if last is None or day <= last:
                points = totals.add(customer, parts)
                file.line(customer, points, day.isoformat(), program, category)
    notes = list(allocations.notes)
    expired = count_rows(engine, f"status = 'AVAILABLE' AND expiry_date <= {milliseconds} AND {REMAINING} > 0")
    if expired:
        notes.append(f"AVAILABLE allocations that expired before {moment:%Y-%m-%d %H:%M} UTC, left out: {expired:,}")
    return PointsReport(
        out=out,
        rows=file.rows,
        customers=totals.customers,
        records=totals.records,
        points=totals.points,
        value=None,
        timezone=zone.note,
        as_of=moment,
        read=allocations.read,
        failed=allocations.failed,
        notes=tuple(notes),
    )


def _rows(engine: Engine, milliseconds: int) -> Iterator[tuple[Any, ...]]:
    """Customer, program, category, quarter of an hour, points and allocations of what expires after a time."""
    return engine.stream(
        f"SELECT asked_key, program_id, point_category_id, {EXPIRY_QUARTER}, sum({REMAINING}) AS points, count(*) "
        f"FROM {ROWS} WHERE status = 'AVAILABLE' AND expiry_date > {milliseconds} GROUP BY ALL "
        "HAVING points <> 0 ORDER BY 1, 2 NULLS FIRST, 3 NULLS FIRST, 4"
    )


@define
class _Totals:
    """Sums over the lines of the report; customers come one after the other."""

    customers: int = 0
    records: int = 0
    points: Decimal = Decimal(0)
    _last: object = None

    def add(self, customer: object, rows: Iterable[tuple[Any, ...]]) -> Decimal:
        """Add the rows of one line, and return their points."""
        parts = list(rows)
        points = exact_sum(Decimal(part[4]) for part in parts)
        self.customers += customer != self._last
        self._last = customer
        self.records += sum(part[5] for part in parts)
        self.points = EXACT.add(self.points, points)
        return points
