"""The commands that have commands of their own, `export` and `report`: names, options and help.

Invariant: the function of a command only collects its options. `_app.py` adds both to the program.
"""

from __future__ import annotations

from capillary_async.cli._commands import export as _export
from capillary_async.cli._commands import point_reports as _reports
from capillary_async.cli._commands.point_reports import ReportOf
from capillary_async.cli._help import EXPORTING, REPORTED, command_group, epilogue
from capillary_async.cli._io.options import ExportRequest
from capillary_async.cli._io.record_options import Awarded, Events, Expiry, LedgerIncludes, LedgerPairs, NotFound
from capillary_async.cli._io.run import run as run_coroutine

__all__ = ["exports", "reports"]

# The defaults of the groups of options.
_EXPIRY, _NOT_FOUND, _AWARDED, _EVENTS = Expiry(), NotFound(), Awarded(), Events()
_PAIRS, _INCLUDES = LedgerPairs(), LedgerIncludes()

exports = command_group(
    "export",
    "Export records of many customers into a folder, durably; the same command again continues. Ids are read from "
    "--ids: one per line, a column of a CSV or Parquet file, or - for stdin.",
    epilogue(EXPORTING, "export allocations --sandbox --customers 20 --out points/"),
)
reports = command_group(
    "report",
    "Write a CSV from exports of allocations: who loses what by when, or what is owed.",
    epilogue(REPORTED, "report liability points/ --out owed.csv"),
)


@exports.command(
    name="allocations",
    help_epilogue=epilogue(EXPORTING, "export allocations --sandbox --customers 20 --out points/"),
)
def export_allocations(*, expiry: Expiry = _EXPIRY, missing: NotFound = _NOT_FOUND, asked: ExportRequest) -> int:
    """Export the points allocations of customers that expire within two dates."""
    return run_coroutine(_export.export(asked, _export.allocations(expiry, missing)))


@exports.command(
    name="awarded",
    help_epilogue=epilogue(EXPORTING, "export awarded --sandbox --customers 20 --status REDEEMED --out redeemed/"),
)
def export_awarded(*, expiry: Expiry = _EXPIRY, of: Awarded = _AWARDED, asked: ExportRequest) -> int:
    """Export the ids of the points awarded to customers or user groups, of one status."""
    return run_coroutine(_export.export(asked, _export.awarded(expiry, of)))


@exports.command(
    name="events",
    help_epilogue=epilogue(EXPORTING, "export events --ids customers.txt --from-date 2026-01-01 --out events/"),
)
def export_events(*, of: Events = _EVENTS, asked: ExportRequest) -> int:
    """Export the loyalty events of customers."""
    return run_coroutine(_export.export(asked, _export.events(of)))


@exports.command(
    name="ledger",
    help_epilogue=epilogue(EXPORTING, "export ledger --ids points/shards --bill-details --out ledger/"),
)
def export_ledger(*, pairs: LedgerPairs = _PAIRS, include: LedgerIncludes = _INCLUDES, asked: ExportRequest) -> int:
    """Export the details of events of customers' ledgers.

    As --ids, give the shards of allocations or awarded ids; the ids of loyalty events are different.
    """
    return run_coroutine(_export.export(asked, _export.ledger(pairs, include)))


@reports.command(
    name="expiry",
    help_epilogue=epilogue(REPORTED, "report expiry points/ --out campaign.csv --by 2026-12-31"),
)
def report_expiry(  # noqa: D417 - the group describes itself
    *folders: str,
    report: ReportOf,
    by: str | None = None,
    as_of: str | None = None,
) -> int:
    """Write who loses how many points by when: one row per customer and last day.

    Args:
        folders: Finished exports of allocations.
        by: Leave out what can be used after this day, YYYY-MM-DD.
        as_of: Leave out what expired before, a day or a time. Default: when the exports were read.
    """
    return run_coroutine(_reports.expiry(folders, report, by, as_of))


@reports.command(
    name="liability",
    help_epilogue=epilogue(REPORTED, "report liability points/ --out owed.csv --currency-rate 0.25"),
)
def report_liability(  # noqa: D417 - the group describes itself
    *folders: str, report: ReportOf, currency_rate: str | None = None
) -> int:
    """Write what is owed: one row per month of expiry, status, program and category.

    Args:
        folders: Finished exports of allocations.
        currency_rate: Money for one point, e.g. 0.25; exact.
    """
    return run_coroutine(_reports.liability(folders, report, currency_rate))
