"""`reconcile`: an export against the user's own books, and against itself.

Invariant: either everything was compared and the result says what differs, or it raises; files appear when they are
whole. Called by users and the command line; the steps are in `_comparing/`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterable, Sequence
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from functools import partial
from pathlib import Path

from attrs import evolve

from capillary_async._files.durable import give_name, write_file
from capillary_async.jobs._books.address import Address
from capillary_async.jobs._books.columns import Wanted
from capillary_async.jobs._books.duckdb_engine import Engine, literal
from capillary_async.jobs._books.engine_thread import run_in_thread, run_with_engine
from capillary_async.jobs._books.options import Conditions, books_options
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.arguments import (
    Arguments,
    Columns,
    PathLike,
    folders_of,
    moment_of,
    pairs_of,
    target_of,
    tolerance_of,
)
from capillary_async.jobs._comparing.checks import OtherExports, check_export
from capillary_async.jobs._comparing.compare import file_rows
from capillary_async.jobs._comparing.export_reader import open_folders
from capillary_async.jobs._comparing.result import ReconcileResult
from capillary_async.jobs._comparing.sides import compare_sides
from capillary_async.jobs._comparing.summary import group_column, groups_of, months_of, read_time, subject_of
from capillary_async.jobs._dataset.folder import local_path
from capillary_async.jobs._dataset.local_days import server_zone

__all__ = ["reconcile"]


async def reconcile(
    folder: PathLike | Iterable[PathLike],
    books: PathLike | None = None,
    *,
    key: Columns = (),
    compare: Columns = (),
    tolerance: Decimal | int | str = 0,
    table: str | None = None,
    sheet: str | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    books_where: Conditions = (),
    out: PathLike | None = None,
    report: PathLike | None = None,
    by: str | None = None,
    with_awarded: PathLike | None = None,
    with_events: PathLike | None = None,
    with_ledger: PathLike | None = None,
    as_of: datetime | date | None = None,
    timezone: tzinfo | str | None = None,
    memory_limit: str = "1GiB",
    threads: int | None = None,
) -> ReconcileResult:
    """Compare an export with the books, and check it by its own rules.

    Works in a thread beside the event loop. Being cancelled ends DuckDB's work and removes its scratch files, which
    are in the folder of `out` or `report` and may grow to a few times the size of the data.

    Args:
        folder: The folder of a finished export; or several of one kind (programs, categories, parts of the customers),
            which are compared as one.
        books: The other side: a CSV or Parquet file, `duckdb://file.db`, `postgresql://...`, or the folder of another
            export of the same kind; None for the internal checks alone.
        key: Columns that identify a record: `{"id": "award_id"}` or `"id=award_id"`, the export's column first; the
            same name on both sides needs no `=`. Two exports have their record's own key if none is given.
        compare: Columns that are compared, in the same form. `remaining` (points that are left of allocations
            and awarded ids) is one beside the documented columns: it is what is owed, while `points_exclusive` is what
            was issued. Two exports compare every documented column if none is given; with other books, no column
            compares the keys alone.
        tolerance: Points by which amounts may differ and still be equal. No float.
        table: The table or view, for `duckdb://` and `postgresql://`, e.g. `finance.awards`.
        sheet: The sheet of a workbook that has several.
        delimiter: The character between the cells of text books; None for a comma, and a tab in `.tsv`.
        decimal: The decimal mark of amounts in text and in text cells, `.` or `,`; None for a point.
        encoding: The encoding of text books, e.g. `cp1252`; None for UTF-8.
        books_where: Columns of the books and the values of the rows that count, e.g. `{"program_id": "2282"}` or
            `["program_id=2282"]`; of several values of one column, any.
        out: A Parquet file for the differences, sorted: one row per missing record, and one per field that differs of
            a changed one. Columns: `class`, the key's, `field`, `capillary_value`, `books_value`, `delta`, `asked_key`.
            Of a missing record with several compared columns, `field` is null and its side a JSON object of them all.
        report: An HTML report.
        by: The column of the export whose values group its totals, e.g. `program_id`; None for the status, source table
            or event name.
        with_awarded: An export of awarded ids of the same customers, to check the allocations of `folder` against.
        with_events: An export of loyalty events of the same customers, to check `folder` and `with_awarded` against.
            They are joined by the ledger's unique ids, so this needs `with_ledger`.
        with_ledger: An export of the ledger of the same customers, asked by the event log ids of `folder` (and of
            `with_awarded`), to check these against.
        as_of: Reference time for expiry checks, aware, or a day, which begins in the server's zone; None for the
            time the export was read.
        timezone: The server's zone, whose days and months count, e.g. `Asia/Kolkata`; None for that of the export,
            else UTC.
        memory_limit: Memory for DuckDB, e.g. `512MiB`; the rest goes to disk. 10 million records against
            10 million rows fit the default.
        threads: Threads for DuckDB; None for one per core.

    Raises:
        JobError: It could not be done: the message names the file, the column and the row.
    """
    began, clock = datetime.now(UTC), time.monotonic()
    folders = folders_of(folder)
    arguments = Arguments(
        folders=folders,
        books=None if books is None else Address(os.fspath(books)),
        key=pairs_of(key, "key"),
        compare=pairs_of(compare, "compare"),
        tolerance=tolerance_of(tolerance),
        options=books_options(
            table=table, sheet=sheet, delimiter=delimiter, decimal=decimal, encoding=encoding, where=books_where
        ),
        out=target_of(out, "out", ".parquet", folders),
        report=target_of(report, "report", ".html", folders),
        by=by,
        with_awarded=None if with_awarded is None else local_path(with_awarded, "with_awarded"),
        with_events=None if with_events is None else local_path(with_events, "with_events"),
        with_ledger=None if with_ledger is None else local_path(with_ledger, "with_ledger"),
        as_of=as_of,
        timezone=timezone,
    )
    moment_of(as_of, UTC)
    arguments.refuse_overwriting()
    del books  # it may have a password in it, and a traceback may show this frame
    target = arguments.out or arguments.report
    work = partial(_reconcile, arguments=arguments, began=began)
    beside = target.resolve().parent if target else None
    result = await run_with_engine(work, beside=beside, memory_limit=memory_limit, threads=threads)
    result = evolve(result, elapsed=time.monotonic() - clock)
    if arguments.report is not None:
        result = evolve(result, report=arguments.report)
        await run_in_thread(partial(_write_report, result, arguments.report))
    return evolve(result, elapsed=time.monotonic() - clock)


def _reconcile(engine: Engine, arguments: Arguments, began: datetime) -> ReconcileResult:
    """Compare and check; writes the file of differences."""
    arguments.refuse_useless()
    export = open_folders(engine, arguments.folders, "export")
    compared = None if arguments.books is None else compare_sides(engine, arguments, arguments.books, export)
    engine.go_on()
    zone = server_zone(arguments.timezone, [each.manifest for each in export.exports])
    as_of = read_time(export) if arguments.as_of is None else moment_of(arguments.as_of, zone.zone)
    others = OtherExports(engine, export, arguments)
    findings = check_export(engine, export, others, as_of)
    by = group_column(export, arguments.by)
    records, groups = groups_of(engine, export, by)
    months = months_of(engine, export, zone)
    if arguments.out is not None and compared is not None:
        _write_differences(engine, compared.comparison.wanted, arguments.out)
    engine.go_on()
    return ReconcileResult(
        equal=(compared is None or compared.comparison.equal) and not any(each.is_error for each in findings),
        comparison=None if compared is None else compared.comparison,
        findings=tuple(findings),
        subjects=(
            *(subject_of("Capillary", each) for each in export.exports),
            *([compared.other] if compared else []),
            *others.subjects,
        ),
        records=records,
        source=export.source_name,
        grouped_by=by,
        shows_groups=arguments.by is not None,
        groups=groups,
        months=months,
        month=f"{as_of.astimezone(zone.zone):%Y-%m}",
        timezone=zone.note,
        tolerance=arguments.tolerance,
        command=arguments.command(as_of),
        as_of=as_of,
        began=began,
        elapsed=0,
        differences=arguments.out,
        warnings=(*(compared.warnings if compared else ()), *others.warnings),
    )


def _write_report(result: ReconcileResult, target: Path) -> None:
    from capillary_async.jobs._report.html import render  # noqa: PLC0415 - matplotlib takes a while to import

    text = render(result)
    with _writing(target):
        write_file(target, text.encode())


def _write_differences(engine: Engine, wanted: Sequence[Wanted], target: Path) -> None:
    """Write the file of differences in the scratch folder, which is on the same disk, and give it its name there."""
    part = engine.scratch / "differences.parquet"
    with _writing(target):
        # Sorted by every column in order: class, key, field; the file is the same each time.
        engine.run(f"COPY ({file_rows(engine, wanted)}) TO {literal(part)} (FORMAT parquet)", about=str(target))
        give_name(part, target)


@contextlib.contextmanager
def _writing(target: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(
            f"cannot write {target}: {error.strerror or error}; give another name or make room there, and run it again",
            path=str(target),
        ) from error
