"""The `reconcile` command: compare an export with the user's own books and print ten lines.

Invariant: 0 says that everything is equal and no rule is broken, 3 that something differs, 1 that it failed.
Called by `_app.py`; the work is that of `capillary_async.jobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

# The parser reads the annotations when it runs, so their imports cannot be for type checkers alone.
from pathlib import Path
from typing import Annotated

from attrs import field, frozen
from cyclopts import Group, Parameter

from capillary_async._files.addresses import scheme_of
from capillary_async._files.status_file import StatusFile
from capillary_async.cli._io.options import FLAG
from capillary_async.cli._io.run import DIFFERENT, UnusableError, jobs
from capillary_async.cli._io.sandbox_exports import day_of
from capillary_async.cli._io.words import one_line

__all__ = ["WithBooks", "moment", "reconcile"]


@Parameter(name="*", group=Group("Comparison", sort_key=1))
@frozen(kw_only=True)
class WithBooks:
    """The options of the comparison.

    Attributes:
        books: A .csv or .parquet file, another export, duckdb://file.db or postgresql://... (password: PGPASSWORD
            or ~/.pgpass; default: check the rules only).
        books_where: Rows of the books that count: program_id=2282; of several values of a column, any.
        table: The table of duckdb:// or postgresql://, e.g. finance.awards.
        sheet: The sheet of a workbook that has several.
        delimiter: Between the cells of text (default: a comma; a tab in .tsv).
        decimal: Decimal mark of amounts in text, . or , (default: a point).
        encoding: Encoding of text, e.g. cp1252 (default: UTF-8).
        key: Columns that identify a record, the export's name first: source_table=src,id=award_id.
        compare: Columns that must be equal, in the same form: remaining=points,status. remaining: points left of an
            award; points_exclusive: points issued.
        tolerance: Maximum difference of amounts that count as equal.
        out: Parquet file of differences: a row per missing record and per changed field.
        report: HTML report.
        by: Group totals by this column of the export, e.g. program_id (default: status or the like).
        with_awarded: Check against this export of awarded ids of the same customers.
        with_events: Check against this export of loyalty events; needs --with-ledger.
        with_ledger: Check against this export of the ledger, read by the rows' event log ids.
        as_of: Reference time for expiry checks (default: when the export was read; of --sandbox, its own day).
        timezone: The server's zone, e.g. Asia/Kolkata (default: the export's, else UTC).
        memory_limit: Memory for the comparison; the rest goes to disk.
        threads: Threads for the comparison (default: one per core).
        status_file: JSON file of the state, replaced every 2 s.
        quiet: Print only the verdict.
    """

    books: str | None = field(default=None, repr=False)  # it may hold a password
    books_where: Annotated[tuple[str, ...], FLAG] = ()
    table: str | None = None
    sheet: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    key: Annotated[tuple[str, ...], FLAG] = ()
    compare: Annotated[tuple[str, ...], FLAG] = ()
    tolerance: str = "0"
    out: Path | None = None
    report: Path | None = None
    by: str | None = None
    with_awarded: Path | None = None
    with_events: Path | None = None
    with_ledger: Path | None = None
    as_of: str | None = None
    timezone: str | None = None
    memory_limit: str = "1GiB"
    threads: int | None = None
    status_file: Path | None = None
    quiet: Annotated[bool, FLAG] = False


async def reconcile(folders: Sequence[str], given: WithBooks) -> int:
    """Compare, print the outcome, and return the exit code.

    Raises:
        UnusableError: The extra is missing, or --as-of is invalid.
        JobError: The comparison failed.
    """
    jobs("reconcile")
    books = None if given.books is None or scheme_of(given.books) else given.books
    others = (*folders, books, given.out, given.report, given.with_awarded, given.with_events, given.with_ledger)
    async with StatusFile(given.status_file, "reconcile", others) as status:
        status.enter("comparing")
        return status.ended(await _reconcile(folders, given))


async def _reconcile(folders: Sequence[str], given: WithBooks) -> int:
    result = await jobs("reconcile").reconcile(
        folders,
        given.books,
        key=given.key,
        compare=given.compare,
        tolerance=given.tolerance,
        table=given.table,
        sheet=given.sheet,
        delimiter=given.delimiter,
        decimal=given.decimal,
        encoding=given.encoding,
        books_where=given.books_where,
        out=given.out,
        report=given.report,
        by=given.by,
        with_awarded=given.with_awarded,
        with_events=given.with_events,
        with_ledger=given.with_ledger,
        as_of=moment(given.as_of) or day_of(folders),
        timezone=given.timezone,
        memory_limit=given.memory_limit,
        threads=given.threads,
    )
    for line in result.lines()[: 1 if given.quiet else None]:
        print(one_line(line))  # noqa: T201
    return 0 if result.equal else DIFFERENT


def moment(text: str | None) -> date | datetime | None:
    """Parse a day, or a time with its offset."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text) if len(text) <= len("2026-01-15") else datetime.fromisoformat(text)
    except ValueError as error:
        raise UnusableError(f"--as-of takes a day, YYYY-MM-DD, or a time with its offset, got {text!r}") from error
