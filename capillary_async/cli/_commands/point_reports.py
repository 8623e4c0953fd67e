"""The `report` commands: who loses what by when, and what is owed, from exports.

Invariant: 0 means that every customer of the exports is in the report, 2 that some failed, 1 that there is none. Called
by `_app.py`; the work is that of `capillary_async.jobs`.
"""

from __future__ import annotations

# The parser reads the annotations when it runs, so their imports cannot be for type checkers alone.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import Group, Parameter

from capillary_async.cli._commands.reconcile import moment
from capillary_async.cli._io.options import FLAG
from capillary_async.cli._io.run import SOME_FAILED, jobs
from capillary_async.cli._io.words import one_line

if TYPE_CHECKING:
    from capillary_async.jobs import PointsReport

__all__ = ["ReportOf", "expiry", "liability"]


@Parameter(name="*", group=Group("Report", sort_key=1))
@frozen(kw_only=True)
class ReportOf:
    """The options of every report.

    Attributes:
        out: The CSV file to write; it appears when it is whole.
        timezone: The server's zone, e.g. Asia/Kolkata; default: that of the exports, else UTC.
        memory_limit: Memory for DuckDB; the rest goes to the disk of the report.
        threads: Threads for DuckDB; default: one per core.
        quiet: Print no summary.
    """

    out: Path
    timezone: str | None = None
    memory_limit: str = "1GiB"
    threads: int | None = None
    quiet: Annotated[bool, FLAG] = False


async def expiry(folders: tuple[str, ...], given: ReportOf, by: str | None, as_of: str | None) -> int:
    """Write the report, print its summary, and return the exit code.

    Raises:
        UnusableError: The extra is missing, or a day is invalid.
        JobError: The report could not be made.
    """
    report = await jobs("report").expiry_report(
        folders,
        given.out,
        timezone=given.timezone,
        by=by,
        as_of=moment(as_of),
        memory_limit=given.memory_limit,
        threads=given.threads,
    )
    return _printed(report, given)


async def liability(folders: tuple[str, ...], given: ReportOf, currency_rate: str | None) -> int:
    """Write the report, print its summary, and return the exit code.

    Raises:
        UnusableError: The extra is missing.
        JobError: The report could not be made.
    """
    report = await jobs("report").liability_report(
        folders,
        given.out,
        timezone=given.timezone,
        currency_rate=currency_rate,
        memory_limit=given.memory_limit,
        threads=given.threads,
    )
    return _printed(report, given)


def _printed(report: PointsReport, given: ReportOf) -> int:
    for line in report.lines():
        if not given.quiet:
            print(one_line(line))  # noqa: T201
    return SOME_FAILED if report.failed else 0
