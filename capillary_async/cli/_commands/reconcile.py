"""The `reconcile` command: an export against the user's own books, told in ten lines.

Invariant: 0 says that everything is equal and no rule is broken, 3 that something differs, 1 that it could not be told.
Called by `_app.py`; the work is that of `capillary_async.jobs`.
"""

from __future__ import annotations

import importlib
from datetime import date, datetime

# The parser reads the annotations when it runs, so their imports cannot be for type checkers alone.
from pathlib import Path
from typing import Annotated, Any

from attrs import field, frozen
from cyclopts import Group, Parameter

from capillary_async.cli._io.run import UnusableError
from capillary_async.cli._io.words import one_line

__all__ = ["DIFFERENT", "WithBooks", "comparing_jobs", "moment", "reconcile"]

DIFFERENT = 3
_EXTRA = {"duckdb", "jinja2", "markupsafe", "matplotlib", "pyarrow"}
_FLAG = Parameter(negative="", show_default=False)


@Parameter(name="*", group=Group("Comparison", sort_key=1))
@frozen(kw_only=True)
class WithBooks:
    """What to compare with, and how.

    Attributes:
        books: books.csv, books.parquet, the folder of another export, duckdb://file.db or postgresql://...; without
            it, only the rules are checked. A password belongs in PGPASSWORD or ~/.pgpass.
        table: The table of duckdb:// or postgresql://, e.g. finance.awards.
        key: Which columns tell a record, the export's first: id=award_id, or source_table=src,id=award_id.
        compare: Which columns must say the same, in the same form: remaining=points,status. remaining is what is left
            of an award, points_exclusive what was issued.
        tolerance: Points by which amounts may differ and still be equal.
        out: A Parquet file for the differences: one row per missing record, one per field of a changed one.
        report: An HTML file for a person.
        with_awarded: An export of awarded ids of the same customers, to check the allocations against.
        with_events: An export of loyalty events of the same customers, to check the rows against; needs --with-ledger.
        with_ledger: An export of the ledger, asked by the event log ids of the rows, to check the rows against.
        as_of: Reference day or time for expiry checks; default: when the export was read.
        timezone: The server's zone, whose days and months count, e.g. Asia/Kolkata; default: that of the export, else
            UTC.
        memory_limit: Memory for the comparison; what does not fit goes to the disk of the files written.
        threads: Threads for the comparison; one a core, where it is not given.
        quiet: The verdict alone.
    """

    books: str | None = field(default=None, repr=False)  # it may hold a password
    table: str | None = None
    key: Annotated[tuple[str, ...], _FLAG] = ()
    compare: Annotated[tuple[str, ...], _FLAG] = ()
    tolerance: str = "0"
    out: Path | None = None
    report: Path | None = None
    with_awarded: Path | None = None
    with_events: Path | None = None
    with_ledger: Path | None = None
    as_of: str | None = None
    timezone: str | None = None
    memory_limit: str = "1GiB"
    threads: int | None = None
    quiet: Annotated[bool, _FLAG] = False


async def reconcile(folder: str, given: WithBooks) -> int:
    """Compare, tell the outcome, and give the exit code.

    Raises:
        UnusableError: The extra is missing, or the day is none.
        JobError: It could not be done.
    """
    result = await comparing_jobs("reconcile").reconcile(
        folder,
        given.books,
        key=given.key,
        compare=given.compare,
        tolerance=given.tolerance,
        table=given.table,
        out=given.out,
        report=given.report,
        with_awarded=given.with_awarded,
        with_events=given.with_events,
        with_ledger=given.with_ledger,
        as_of=moment(given.as_of),
        timezone=given.timezone,
        memory_limit=given.memory_limit,
        threads=given.threads,
    )
    for line in result.lines()[: 1 if given.quiet else None]:
        print(one_line(line))  # noqa: T201
    return 0 if result.equal else DIFFERENT


def comparing_jobs(command: str) -> Any:
    """Return the jobs package.

    Raises:
        UnusableError: The extra is missing.
    """
    try:
        return importlib.import_module("capillary_async.jobs")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise UnusableError(
            f'{command} needs the jobs extra ({error.name} is missing): pip install "capillary-async[cli,jobs]"'
        ) from error


def moment(text: str | None) -> date | datetime | None:
    """A day, or a time with its offset."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text) if len(text) <= len("2026-01-15") else datetime.fromisoformat(text)
    except ValueError as error:
        raise UnusableError(f"--as-of takes a day, YYYY-MM-DD, or a time with its offset, got {text!r}") from error
