"""The summary of the demo: counts, points by status, points left by month of expiry, and the verdict.

Invariant: every number shown was read or measured in this run. Called by `_demo/demo.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from rich.table import Table

from capillary_async.cli._io.words import count
from capillary_async.models.exact import exact_sum

if TYPE_CHECKING:
    from rich.console import Console

    from capillary_async import Stats
    from capillary_async.cli._demo.agreement import Agreement
    from capillary_async.sandbox import Sandbox

__all__ = ["show"]

_SHOWN = 20  # faults; more of the same would hide the first
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Timed(Protocol):
    """The duration and the counts of the reading."""

    merged: int
    unknown: int
    elapsed: float


def show(console: Console, agreement: Agreement, sandbox: Sandbox, stats: Stats, reading: Timed) -> None:
    """Print the summary."""
    for table in (_figures(agreement, sandbox, stats, reading), _by_status(agreement), _by_month(agreement)):
        console.print(table)
    for fault in agreement.faults[:_SHOWN]:
        console.print(f"  {fault}", markup=False, highlight=False, soft_wrap=True)
    if len(agreement.faults) > _SHOWN:
        console.print(f"  ... and {len(agreement.faults) - _SHOWN} more", highlight=False)
    console.print(_verdict(agreement), highlight=False, soft_wrap=True)


def _figures(agreement: Agreement, sandbox: Sandbox, stats: Stats, reading: Timed) -> Table:
    counts = agreement.counts
    refused = f"{reading.merged} merged and {reading.unknown} unknown, refused as they should be"
    rows = {
        "customers": f"{len(sandbox.customer_ids):,}, and {refused}",
        "records": f"{counts.total():,}",
        "  allocations": f"{counts['allocations']:,}",
        "  awarded ids": f"{counts['awarded']:,}",
        "  loyalty events": f"{counts['events']:,}",
        "ledger entries": f"{agreement.entries:,} (of the first ten events of each customer)",
        "requests": f"{stats.requests:,} ({stats.bytes:,} bytes)",
        "retries": f"{stats.retries:,} ({stats.throttles:,} answers were 429 or 503)",
        "elapsed": f"{reading.elapsed:.2f} s",
        "records/s": f"{counts.total() / reading.elapsed if reading.elapsed else 0:,.0f}",
    }
    table = Table(title="capillary-async demo", show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _by_status(agreement: Agreement) -> Table:
    table = Table("status", title="Points by status, as issued", title_justify="left", caption_justify="left")
    table.add_column("allocations say", justify="right")
    table.add_column("awarded ids say", justify="right")
    table.caption = (
        "One category. Allocations are rows of points_awarded alone, awarded ids have line items too; "
        "no endpoint shows the three promotion tables."
    )
    for status in sorted({*agreement.by_status, *agreement.awarded_by_status}):
        said = (agreement.by_status, agreement.awarded_by_status)
        table.add_row(status, *(f"{by.get(status, Decimal(0)):,f}" for by in said))
    return table


def _by_month(agreement: Agreement) -> Table:
    """Return one row per month and one column per year: two and a half years are twelve lines."""
    years = sorted({year for year, _ in agreement.by_month})
    table = Table(
        "",
        title="Points left to use (remaining, AVAILABLE), by month of expiry",
        title_justify="left",
        caption_justify="left",
    )
    for year in years:
        table.add_column(str(year), justify="right")
    for month, name in enumerate(_MONTHS, start=1):
        sums = [agreement.by_month.get((year, month)) for year in years]
        if any(sums):
            table.add_row(name, *("" if points is None else f"{points:,f}" for points in sums))
    table.add_section()
    totals = [exact_sum(points for (of, _), points in agreement.by_month.items() if of == year) for year in years]
    table.add_row("total", *(f"{points:,f}" for points in totals))
    table.caption = f"{exact_sum(totals):,f} in all, of one category and one of five award tables: no balance"
    return table


def _verdict(agreement: Agreement) -> str:
    if agreement.faults:
        return (
            f"DISAGREE: {count(len(agreement.faults), 'difference')} between what was read and what the sandbox holds"
        )
    return (
        "AGREE: allocations, awarded ids, ledger entries and loyalty events match each other customer by customer, "
        "and the sandbox's totals to the last decimal"
    )
