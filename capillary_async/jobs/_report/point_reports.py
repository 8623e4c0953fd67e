"""`expiry_report` and `liability_report`: who loses what by when, and what is owed, from exports of allocations.

Invariant: arguments are checked before anything is read; the file appears when it is whole. Called by users and the
command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from capillary_async.jobs._books.duckdb_engine import Engine
from capillary_async.jobs._books.engine_thread import run_with_engine
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.arguments import PathLike, decimal_of, refuse_overwriting, target_of
from capillary_async.jobs._report.allocations import open_allocations
from capillary_async.jobs._report.expiry import write_expiry
from capillary_async.jobs._report.liability import write_liability
from capillary_async.jobs._report.result import PointsReport

__all__ = ["expiry_report", "liability_report"]

_RATE_BELOW, _RATE_DECIMALS = 10**9, 18


async def expiry_report(
    folders: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    timezone: tzinfo | str | None = None,
    by: date | str | None = None,
    as_of: datetime | date | None = None,
    memory_limit: str = "1GiB",
    threads: int | None = None,
) -> PointsReport:
    """Write who loses how many points by when: a CSV with one row per customer, last day, program and category.

    Columns: `customer` (the id that was asked for), `points` (what is left of AVAILABLE allocations, exact),
    `last_day` (the last day on which they can be used, `YYYY-MM-DD`), `program_id`, `point_category_id`.

    Args:
        folders: Finished exports of allocations, each allocation in one of them.
        out: The CSV file; it is replaced when the new one is whole.
        timezone: The server's zone, e.g. `Asia/Kolkata`; None for that of the exports, else UTC.
        by: Leave out what can be used after this day, a date or `YYYY-MM-DD`.
        as_of: Leave out what expired before; None for the time the exports were read.
        memory_limit: Memory for DuckDB; the rest goes to disk.
        threads: Threads for DuckDB; None for one per core.

    Raises:
        JobError: A folder is no finished export of allocations, an allocation is in two of them, or an argument is
            invalid.
    """
    paths = _paths(folders)
    target = _target(out, paths)
    last = None if by is None else _day("by", by)

    def work(engine: Engine) -> PointsReport:
        return write_expiry(engine, open_allocations(engine, paths, timezone), target, last, as_of)

    return await run_with_engine(work, beside=target.resolve().parent, memory_limit=memory_limit, threads=threads)


async def liability_report(
    folders: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    timezone: tzinfo | str | None = None,
    currency_rate: Decimal | int | str | None = None,
    memory_limit: str = "1GiB",
    threads: int | None = None,
) -> PointsReport:
    """Write what is owed: a CSV with one row per local month of expiry, status, program and category.

    Columns: `month` (`YYYY-MM`; empty if points do not expire), `status`, `program_id`, `point_category_id`,
    `records`, `points_issued` (`points_exclusive`), `points_remaining` (minus redeemed, returned and expired),
    `value` (`points_remaining` times the rate, for AVAILABLE rows; empty without a rate).

    Args:
        folders: Finished exports of allocations, each allocation in one of them.
        out: The CSV file; it is replaced when the new one is whole.
        timezone: The server's zone, e.g. `Asia/Kolkata`; None for that of the exports, else UTC.
        currency_rate: Money for one point, as Decimal, int or text, e.g. `"0.25"`; no float.
        memory_limit: Memory for DuckDB; the rest goes to disk.
        threads: Threads for DuckDB; None for one per core.

    Raises:
        JobError: A folder is no finished export of allocations, an allocation is in two of them, or an argument is
            invalid.
    """
    rate = None if currency_rate is None else _rate(currency_rate)
    paths = _paths(folders)
    target = _target(out, paths)

    def work(engine: Engine) -> PointsReport:
        return write_liability(engine, open_allocations(engine, paths, timezone), target, rate)

    return await run_with_engine(work, beside=target.resolve().parent, memory_limit=memory_limit, threads=threads)


def _paths(folders: PathLike | Iterable[PathLike]) -> tuple[Path, ...]:
    several = isinstance(folders, Iterable) and not isinstance(folders, str)
    paths = tuple(
        Path(each) for each in (cast("Iterable[PathLike]", folders) if several else [cast("PathLike", folders)])
    )
    if not paths:
        raise JobError("folders takes at least one folder of an export of allocations, got none")
    if len({path.resolve() for path in paths}) < len(paths):
        raise JobError(f"folders names one folder twice: {', '.join(map(str, paths))}")
    return paths


def _day(argument: str, given: Any) -> date:
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    try:
        return date.fromisoformat(str(given))
    except ValueError:
        raise JobError(f"{argument} takes a date or YYYY-MM-DD, got {given!r}") from None


def _rate(given: Any) -> Decimal:
    rate = decimal_of(given)
    if rate is None or not 0 <= rate < _RATE_BELOW or cast("int", rate.as_tuple().exponent) < -_RATE_DECIMALS:
        raise JobError(
            f"currency_rate takes a decimal number from 0 to {_RATE_BELOW:,} with at most {_RATE_DECIMALS} decimals, "
            f"as Decimal, int or text, got {str(given)[:100]!r}"
        )
    return rate


def _target(out: PathLike, folders: tuple[Path, ...]) -> Path:
    """The CSV file: not part of an export."""
    for folder in folders:
        target_of(out, "out", ".csv", [folder])
    refuse_overwriting(Path(out), folders)
    return Path(out)
