"""The summary of the demo as lines of text: the verdict, counts, points by status, points left by year of expiry.

Invariant: every number shown was read or measured in this run. Called by `_demo/demo.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from capillary_async.cli._io.words import count, one_line
from capillary_async.models.exact import exact_sum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capillary_async import Stats
    from capillary_async.cli._demo.agreement import Agreement
    from capillary_async.sandbox import Sandbox

__all__ = ["summary", "verdict"]

_SHOWN = 20  # faults; more of the same would hide the first


class Timed(Protocol):
    """The duration and the counts of the reading."""

    merged: int
    unknown: int
    elapsed: float


def verdict(agreement: Agreement) -> Iterator[str]:
    """Yield the verdict of the reading, and below it what disagrees."""
    if not agreement.faults:
        yield (
            "AGREE: allocations, awarded ids, ledger entries and loyalty events match each other customer by customer, "
            "and the sandbox's totals to the last decimal"
        )
        return
    yield f"DISAGREE: {count(len(agreement.faults), 'difference')} between what was read and what the sandbox holds"
    yield from (f"  {one_line(fault)}" for fault in agreement.faults[:_SHOWN])
    if len(agreement.faults) > _SHOWN:
        yield f"  ... and {len(agreement.faults) - _SHOWN} more"


def summary(agreement: Agreement, sandbox: Sandbox, stats: Stats, reading: Timed) -> Iterator[str]:
    """Yield the counts and sums of the reading."""
    counts = agreement.counts
    refused = f"{reading.merged} merged and {reading.unknown} unknown, refused as they should be"
    speed = counts.total() / reading.elapsed if reading.elapsed else 0
    yield f"customers  {len(sandbox.customer_ids):,}, and {refused}"
    yield (
        f"records    {counts.total():,}: {counts['allocations']:,} allocations, {counts['awarded']:,} awarded ids, "
        f"{counts['events']:,} loyalty events"
    )
    yield f"ledger     {agreement.entries:,} entries, of the first ten events of each customer"
    yield f"requests   {stats.requests:,} ({stats.bytes:,} bytes) in {reading.elapsed:.2f} s, {speed:,.0f} records/s"
    yield f"retries    {stats.retries:,} ({stats.throttles:,} answers were 429 or 503)"
    yield ""
    yield from _by_status(agreement)
    yield _by_year(agreement)


def _by_status(agreement: Agreement) -> Iterator[str]:
    """Yield a table: awarded ids have the line items too, so that they say more."""
    yield f"{'Points by status, as issued':28}{'allocations':>18}{'awarded ids, with line items':>30}"
    for status in sorted({*agreement.by_status, *agreement.awarded_by_status}):
        said = (agreement.by_status.get(status, Decimal(0)), agreement.awarded_by_status.get(status, Decimal(0)))
        yield f"  {status:26}{said[0]:>18,f}{said[1]:>30,f}"


def _by_year(agreement: Agreement) -> str:
    years: dict[int, list[Decimal]] = {}
    for (year, _), points in sorted(agreement.by_month.items()):
        years.setdefault(year, []).append(points)
    sums = "".join(f", {exact_sum(points):,f} in {year}" for year, points in years.items())
    return (
        f"Points left to use: {exact_sum(agreement.by_month.values()):,f} in all; by year of expiry{sums or ', none'}"
    )
