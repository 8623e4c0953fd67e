"""`reconcile`: an export against the user's own books, and against itself.

Invariant: either everything was compared and the result says what differs, or it raises; files appear when they are
whole. Called by users and the command line; the steps stand in the files beside this one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from attrs import evolve, field, frozen

from capillary_async._files.durable import give_name, write_file
from capillary_async.jobs._books.address import Address
from capillary_async.jobs._books.columns import Pair, Wanted, kind_of
from capillary_async.jobs._books.duckdb_engine import Engine, literal
from capillary_async.jobs._books.engine_thread import run_in_thread
from capillary_async.jobs._books.open import is_export, open_books, stage_books
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.local_days import server_zone
from capillary_async.jobs._comparing import rules as _rules
from capillary_async.jobs._comparing.alike import unlike
from capillary_async.jobs._comparing.arguments import (
    Columns,
    PathLike,
    moment_of,
    pairs_of,
    spare,
    target_of,
    tolerance_of,
)
from capillary_async.jobs._comparing.compare import compare, file_rows
from capillary_async.jobs._comparing.comparison import Comparison
from capillary_async.jobs._comparing.export_reader import ExportReader, open_folder
from capillary_async.jobs._comparing.result import ReconcileResult, Subject
from capillary_async.jobs._comparing.rule_catalog import EXCLUSIVE, row_rules, set_rules
from capillary_async.jobs._comparing.rule_joins import awarded_rules, event_rules, ledger_rules, without_ledger
from capillary_async.jobs._comparing.rules import Finding, check_manifest, check_rows, check_set
from capillary_async.jobs._comparing.staging import stage_export
from capillary_async.jobs._comparing.summary import books_subject, groups_of, months_of, read_time, subject_of
from capillary_async.jobs._dataset.drift import drift_of, lines_of
from capillary_async.jobs._dataset.folder import local_path

__all__ = ["reconcile"]


async def reconcile(
    folder: PathLike,
    books: PathLike | None = None,
    *,
    key: Columns = (),
    compare: Columns = (),
    tolerance: Decimal | int | str = 0,
    table: str | None = None,
    out: PathLike | None = None,
    report: PathLike | None = None,
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
    stand in the folder of `out` or `report` and may grow to a few times the size of the data.

    Args:
        folder: The folder of a finished export.
        books: The other side: a CSV or Parquet file, `duckdb://file.db`, `postgresql://...`, or the folder of another
            export of the same kind; None for the internal checks alone.
        key: Which columns tell a record: `{"id": "award_id"}` or `"id=award_id"`, the export's column first; the same
            name on both sides needs no `=`. Two exports have their record's own key where none is given.
        compare: Which columns must say the same, in the same form. `remaining` (points that are left of allocations
            and awarded ids) is one beside the documented columns: it is what is owed, while `points_exclusive` is what
            was issued. Two exports compare every documented column where none is given; with other books, no column
            compares the keys alone.
        tolerance: Points by which amounts may differ and still be equal. No float.
        table: The table, for `duckdb://` and `postgresql://`, e.g. `finance.awards`.
        out: A Parquet file for the differences, sorted: one row per missing record, and one per field that differs of
            a changed one. Columns: `class`, the key's, `field`, `capillary_value`, `books_value`, `delta`, `asked_key`.
            Of a missing record with several compared columns, `field` is null and its side a JSON object of them all.
        report: An HTML file for a person.
        with_awarded: An export of awarded ids of the same customers, to check the allocations of `folder` against.
        with_events: An export of loyalty events of the same customers, to check `folder` and `with_awarded` against.
            They are joined by the ledger's unique ids, so this needs `with_ledger`.
        with_ledger: An export of the ledger of the same customers, asked by the event log ids of `folder` (and of
            `with_awarded`), to check these against.
        as_of: The moment that dates are compared with, aware, or a day, which begins in the server's zone; None for the
            time the export was read.
        timezone: The server's zone, whose days and months count, e.g. `Asia/Kolkata`; None for that of the export,
            else UTC.
        memory_limit: How much memory DuckDB may take, e.g. `512MiB`; the rest goes to disk. 10 million records against
            10 million rows fit the default.
        threads: How many threads DuckDB may use; None for one a core.

    Raises:
        JobError: It could not be done: the text names the file, the column and the row.
    """
    # Taken before the first await, so that a wrong argument is told at once.
    job = Reconciliation(
        folder=local_path(folder, "the export"),
        books=None if books is None else Address(os.fspath(books)),
        key=pairs_of(key, "key"),
        fields=pairs_of(compare, "compare"),
        tolerance=tolerance_of(tolerance),
        table=table,
        out=target_of(out, "out", ".parquet", folder),
        report=target_of(report, "report", ".html", folder),
        with_awarded=None if with_awarded is None else local_path(with_awarded, "with_awarded"),
        with_events=None if with_events is None else local_path(with_events, "with_events"),
        with_ledger=None if with_ledger is None else local_path(with_ledger, "with_ledger"),
        as_of=as_of,
        timezone=timezone,
        memory_limit=memory_limit,
        threads=threads,
    )
    moment_of(as_of, UTC)
    job.spare_what_is_read()
    del books  # it may hold a password, and a traceback may show this frame
    return await run_in_thread(job)


@frozen
class Reconciliation:
    """One reconciliation, its arguments checked."""

    folder: Path
    books: Address | None
    key: tuple[Pair, ...]
    fields: tuple[Pair, ...]
    tolerance: Decimal
    table: str | None
    out: Path | None
    report: Path | None
    with_awarded: Path | None
    with_events: Path | None
    with_ledger: Path | None
    as_of: datetime | date | None
    timezone: tzinfo | str | None
    memory_limit: str
    threads: int | None
    _engines: list[Engine] = field(factory=list[Engine], init=False)
    _warnings: list[str] = field(factory=list[str], init=False)

    def spare_what_is_read(self) -> None:
        """See that no file that is written stands where one that is read does."""
        own = None
        if self.books is not None and self.books.is_file:  # nothing else, which may hold a password
            own = self.books.reveal().removeprefix("duckdb://")
        for target in (self.out, self.report):
            spare(target, (self.folder, own, self.with_awarded, self.with_events, self.with_ledger))

    def interrupt(self) -> None:
        for engine in self._engines:
            engine.interrupt()

    def run(self) -> ReconcileResult:
        began, clock = datetime.now(UTC), time.monotonic()
        target = self.out or self.report
        beside = target.resolve().parent if target else None
        with Engine(beside, memory_limit=self.memory_limit, threads=self.threads) as engine:
            self._engines.append(engine)
            result = self._result(engine, began, clock)
            if self.out is not None and result.comparison is not None:
                with _writing(self.out):
                    _differences(engine, result.comparison.wanted, self.out)
                result = evolve(result, differences=self.out)
            engine.go_on()
        if self.report is not None:
            result = evolve(result, report=self.report, elapsed=time.monotonic() - clock)
            from capillary_async.jobs._report.html import render  # noqa: PLC0415 - matplotlib takes a while to import

            text = render(result)
            with _writing(self.report):
                write_file(self.report, text.encode())
        return evolve(result, elapsed=time.monotonic() - clock)

    def _result(self, engine: Engine, began: datetime, clock: float) -> ReconcileResult:
        folder = open_folder(engine, self.folder, "export")
        comparison, other = self._compared(engine, folder)
        engine.go_on()
        zone = server_zone(self.timezone, [folder.manifest])
        as_of = read_time(folder) if self.as_of is None else moment_of(self.as_of, zone.zone)
        findings, more = self._checked(engine, folder, as_of)
        records, groups = groups_of(engine, folder)
        return ReconcileResult(
            equal=(comparison is None or comparison.equal) and not any(each.is_error for each in findings),
            comparison=comparison,
            findings=tuple(findings),
            subjects=(subject_of("Capillary", folder), *other, *more),
            records=records,
            grouped_by=folder.source.group,
            groups=groups,
            months=months_of(engine, folder, zone),
            month=f"{as_of.astimezone(zone.zone):%Y-%m}",
            timezone=zone.note,
            tolerance=self.tolerance,
            command=self._command(as_of),
            as_of=as_of,
            began=began,
            elapsed=time.monotonic() - clock,
            warnings=tuple(self._warnings),
        )

    def _compared(self, engine: Engine, folder: ExportReader) -> tuple[Comparison | None, list[Subject]]:
        if self.books is None:
            given = [option for option in ("key", "fields", "table", "out") if getattr(self, option)]
            if given:
                raise JobError(f"{given[0].replace('fields', 'compare')} goes with books, and none are given")
            return None, []
        if self.books.is_file and self.books.scheme is None and is_export(Path(self.books.reveal())):
            return self._against_export(engine, folder, Path(self.books.reveal()))
        reader = open_books(self.books, self.table)
        if not self.key:
            raise JobError(
                "key takes the columns that tell a record, the export's first, e.g. id=award_id; none was given"
            )
        wanted = self._wanted(folder, self.key, self.fields)
        stage_books(engine, reader, wanted)
        engine.go_on()
        repeated = stage_export(engine, folder, wanted, "capillary", other="books")
        engine.go_on()
        return compare(engine, wanted, self.tolerance, repeated), [books_subject(engine, reader)]

    def _against_export(self, engine: Engine, folder: ExportReader, path: Path) -> tuple[Comparison, list[Subject]]:
        other = open_folder(engine, path, "other_export")
        if other.source_name != folder.source_name:
            raise JobError(
                f"{path} is an export of {other.source_name}, and {folder.path} one of {folder.source_name}",
                path=str(path),
            )
        self._warnings.extend(unlike(folder, other))
        own = tuple(Pair(column, column) for column in folder.source.key)
        key = self.key or own
        named = {pair.ours for pair in key}
        left_out = {*named, *folder.source.derived, *_NOT_COMPARED}
        first = [column for column in EXCLUSIVE if column in folder.columns]  # what a person looks for
        documented = dict.fromkeys((*first, *folder.source.types()))
        every = tuple(Pair(column, column) for column in documented if column not in left_out)
        wanted = self._wanted(folder, key, self.fields or every)
        for each in wanted:
            if each.theirs not in other.columns:
                raise _no_column(other, each.theirs)
        stage_export(engine, other, wanted, "books", other=None)
        repeated = stage_export(engine, folder, wanted, "capillary", other="books")
        engine.go_on()
        subject = subject_of("Books", other)
        return compare(engine, wanted, self.tolerance, repeated), [evolve(subject, label=f"{path}, another export")]

    def _wanted(self, folder: ExportReader, key: Sequence[Pair], fields: Sequence[Pair]) -> list[Wanted]:
        """What is compared; each column of the export once."""
        slots = [(f"k{nth}", pair) for nth, pair in enumerate(key)]
        slots += [(f"f{nth}", pair) for nth, pair in enumerate(fields)]
        wanted: list[Wanted] = []
        for slot, pair in slots:
            if pair.ours not in folder.columns or pair.ours in _NOT_COMPARED[1:]:
                raise _no_column(folder, pair.ours)
            if pair.ours in {each.ours for each in wanted}:
                raise JobError(f"the column {pair.ours} is named twice in key and compare")
            wanted.append(Wanted(slot, pair.ours, pair.theirs, kind_of(folder.columns[pair.ours])))
        return wanted

    def _checked(self, engine: Engine, folder: ExportReader, as_of: datetime) -> tuple[list[Finding], list[Subject]]:
        """What the rules found, and the other exports they used."""
        findings = check_manifest(engine, folder) + _new_in(folder)
        findings += check_rows(engine, folder, row_rules(folder, as_of))
        engine.go_on()
        findings += [check_set(engine, rule, about=str(folder.path)) for rule in set_rules(folder)]
        awarded = self._other(engine, folder, self.with_awarded, "awarded", ("allocations",))
        events = self._other(engine, folder, self.with_events, "events", ("allocations", "awarded"))
        ledger = self._other(engine, folder, self.with_ledger, "ledger", ("allocations", "awarded"))
        rules = [*(awarded_rules(folder, awarded) if awarded else ())]
        for rows in (folder, awarded):
            rules += ledger_rules(rows, ledger) if ledger and rows else ()
            rules += event_rules(rows, events, ledger) if events and ledger and rows else ()
        for rule in rules:
            engine.go_on()
            findings.append(check_set(engine, rule, about=str(folder.path)))
        if events and not ledger:
            findings.append(without_ledger(events))
        others = (("Awarded ids", awarded), ("Loyalty events", events), ("Ledger", ledger))
        present = [(role, other) for role, other in others if other]
        findings += [found for _, other in present for found in _new_in(other)]
        if present:
            # The ids of a ledger are identifiers with their events, so that their digest is another one.
            findings.append(_same_ids(folder, [other for _, other in present if other is not ledger]))
        return findings, [subject_of(role, other) for role, other in present]

    def _other(
        self, engine: Engine, folder: ExportReader, path: Path | None, source: str, beside: tuple[str, ...]
    ) -> ExportReader | None:
        if path is None:
            return None
        if folder.source_name not in beside:
            raise JobError(
                f"with_{source} goes with an export of {' or '.join(beside)}, and {folder.path} is one of "
                f"{folder.source_name}",
                path=str(folder.path),
            )
        other = open_folder(engine, path, source)
        if other.source_name != source:
            raise JobError(f"{path} is an export of {other.source_name}, not of {source}", path=str(path))
        self._warnings.extend(unlike(folder, other))
        return other

    def _command(self, as_of: datetime) -> str:
        """The command line of the same."""
        words = ["capillary-async", "reconcile", str(self.folder)]
        words += ["--books", str(self.books)] if self.books is not None else []
        for option, given in (("--key", self.key), ("--compare", self.fields)):
            if given:
                words += [option, ",".join(p.ours if p.ours == p.theirs else f"{p.ours}={p.theirs}" for p in given)]
        options = {
            "--table": self.table,
            "--tolerance": f"{self.tolerance:f}" if self.tolerance else None,
            "--with-awarded": self.with_awarded,
            "--with-events": self.with_events,
            "--with-ledger": self.with_ledger,
            "--as-of": as_of.isoformat(timespec="seconds"),
            "--timezone": self.timezone,
            "--out": self.out,
            "--report": self.report,
        }
        words += [str(word) for option, value in options.items() if value is not None for word in (option, value)]
        return shlex.join(words)


_NOT_COMPARED = ("asked_key", "shard", "row")
_IDS_DIFFER = _rules.Rule(
    "exports-of-same-customers",
    "note",
    "All exports asked for the same customers. Where they did not, records of customers that only one of them asked "
    "for look as if they were missing.",
)

_NEW = _rules.Rule(
    "documented-values-only",
    "note",
    "All members, statuses, event names and source tables are ones that the API's documentation knows. Others are no "
    "fault: something was added to the API. Unknown members are not in the columns of the export.",
)


def _new_in(folder: ExportReader) -> list[_rules.Finding]:
    """What was new in an export; no finding where nothing was."""
    examples = tuple(_rules.Example(str(folder.path), None, line) for line in lines_of(drift_of(folder.manifest)))
    return [_rules.Finding(_NEW, len(examples), examples)] if examples else []


def _no_column(folder: ExportReader, column: str) -> JobError:
    known = ", ".join(each for each in folder.columns if each not in _NOT_COMPARED[1:])
    return JobError(
        f"{folder.path}: an export of {folder.source_name} has no column {column!r}. It has: {known}",
        path=str(folder.path),
    )


def _same_ids(folder: ExportReader, others: Sequence[ExportReader]) -> _rules.Finding:
    digest = _digest(folder)
    strangers = [other for other in others if _digest(other) != digest]
    said = "customers asked for in the export, {:,}, are not those asked for here, {:,}"
    examples = [
        _rules.Example(str(each.path), None, said.format(folder.ids("asked") or 0, each.ids("asked") or 0))
        for each in strangers
    ]
    return _rules.Finding(_IDS_DIFFER, len(examples), tuple(examples))


def _digest(folder: ExportReader) -> Any:
    """The digest of the ids that were asked for."""
    ids: Any = folder.manifest.get("ids")
    return cast("Mapping[str, Any]", ids).get("digest") if isinstance(ids, dict) else None


def _differences(engine: Engine, wanted: Sequence[Wanted], target: Path) -> None:
    """Write the file of differences in the scratch folder, which is on the same disk, and give it its name there."""
    part = engine.scratch / "differences.parquet"
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
