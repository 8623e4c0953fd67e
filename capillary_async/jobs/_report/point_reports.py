"""`expiry_report` and `liability_report`: who loses what by when, and what is owed, from exports of allocations.

Invariant: every allocation counts once, in exact sums, on days and months of the server's zone; what the exports do not
show is part of the notes. Called by users and the command line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from attrs import define, evolve, field, frozen

from capillary_async._files.durable import PartFile
from capillary_async._repr import brief_repr, printable
from capillary_async.jobs._books.duckdb_engine import Engine, name
from capillary_async.jobs._books.engine_thread import run_in_thread
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.local_days import QUARTER, ServerZone, server_zone
from capillary_async.jobs._comparing.arguments import PathLike, moment_of, spare, target_of
from capillary_async.jobs._comparing.export_reader import ExportReader, open_folder
from capillary_async.jobs._comparing.rule_catalog import REMAINING
from capillary_async.jobs._comparing.summary import read_time
from capillary_async.models.exact import EXACT, exact_sum

__all__ = ["PointsReport", "expiry_report", "liability_report"]

_ZERO = Decimal(0)
_ROWS = "report_rows"
_USED = (
    "id", "customer_id", "status", "expiry_date", "program_id", "point_category_id", "points_exclusive",
    "redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value",
)  # fmt: skip
_QUARTER = f"(expiry_date - 1) // {QUARTER}"
EXPIRY_COLUMNS = ("customer", "points", "last_day", "program_id", "point_category_id")
LIABILITY_COLUMNS = (
    "month", "status", "program_id", "point_category_id", "records", "points_issued", "points_remaining", "value",
)  # fmt: skip
_ONE_TABLE = (
    "the allocation endpoints show one of five award tables, in the categories that were exported: line-item points, "
    "promotion points and other categories are not in these figures"
)
_RATE_BELOW, _RATE_DECIMALS = 10**9, 18


@frozen(kw_only=True)
class PointsReport:
    """What a report came to.

    Attributes:
        out: The CSV file.
        rows: Its rows, without the header.
        customers: Customers with points to lose; None for the liability.
        records: AVAILABLE allocations that `points` is the sum of.
        points: The sum of what is left of AVAILABLE allocations in the report.
        value: The same times the currency rate, exact; None without one.
        timezone: The zone of days and months, and where it was taken from.
        as_of: Points that had expired before are not counted as expiring; None for the liability.
        read: When the data were read, per export.
        failed: Customers of the exports that failed, whose points are missing.
        notes: What these figures do not show, in words.
    """

    out: Path
    rows: int
    customers: int | None
    records: int
    points: Decimal
    value: Decimal | None
    timezone: str
    as_of: datetime | None
    read: tuple[str, ...]
    failed: int
    notes: tuple[str, ...]

    __repr__ = brief_repr

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        owed = f"{self.points:,f} points" + ("" if self.value is None else f", worth {self.value:,f}")
        whose = "" if self.customers is None else f" of {_count(self.customers, 'customer')}"
        since = "" if self.as_of is None else f" that expire after {self.as_of:%Y-%m-%d %H:%M} UTC"
        return [
            f"{owed}{whose}{since}, in {_count(self.records, 'allocation')}: {self.out} ({_count(self.rows, 'row')})",
            f"days and months: {self.timezone}",
            *(f"read: {each}" for each in self.read),
            *(f"note: {each}" for each in self.notes),
        ]


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
    report = _Report(_paths(folders), Path(out), timezone, memory_limit, threads)
    report.check()
    last = None if by is None else _day("by", by)
    return await run_in_thread(_Work(report, lambda engine: report.expiry(engine, last, as_of)))


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

    Columns: `month` (`YYYY-MM`; empty where points do not expire), `status`, `program_id`, `point_category_id`,
    `records`, `points_issued` (`points_exclusive`), `points_remaining` (less redeemed, returned and expired),
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
    report = _Report(_paths(folders), Path(out), timezone, memory_limit, threads)
    report.check()
    return await run_in_thread(_Work(report, lambda engine: report.liability(engine, rate)))


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
    rate = Decimal("nan")
    if isinstance(given, Decimal | int | str) and not isinstance(given, bool):
        with suppress(InvalidOperation):
            rate = Decimal(given)
    exponent = rate.as_tuple().exponent
    if not rate.is_finite() or not 0 <= rate < _RATE_BELOW or cast("int", exponent) < -_RATE_DECIMALS:
        raise JobError(
            f"currency_rate takes a decimal number from 0 to {_RATE_BELOW:,} with at most {_RATE_DECIMALS} decimals, "
            f"as Decimal, int or text, got {str(given)[:100]!r}"
        )
    return rate


@frozen(eq=False)
class _Work:
    """One report, run in a thread with an engine of its own."""

    report: _Report
    make: Callable[[Engine], PointsReport]
    _engines: list[Engine] = field(factory=list[Engine], init=False)

    def run(self) -> PointsReport:
        report = self.report
        with Engine(report.beside, memory_limit=report.memory_limit, threads=report.threads) as engine:
            self._engines.append(engine)
            return self.make(engine)

    def interrupt(self) -> None:
        for engine in self._engines:
            engine.interrupt()


@frozen(eq=False)
class _Report:
    """The exports of one report, and where it is written."""

    folders: tuple[Path, ...]
    out: Path
    timezone: tzinfo | str | None
    memory_limit: str
    threads: int | None

    @property
    def beside(self) -> Path:
        """The folder of the report: DuckDB's scratch files are there too."""
        return self.out.resolve().parent

    def check(self) -> None:
        """Refuse a target that is no CSV file, or is part of an export."""
        for folder in self.folders:
            target_of(self.out, "out", ".csv", folder)
        spare(self.out, self.folders)

    def expiry(self, engine: Engine, last: date | None, as_of: datetime | date | None) -> PointsReport:
        """Write who loses what by when."""
        exports, zone, notes = self._opened(engine)
        moment = min(map(read_time, exports)) if as_of is None else moment_of(as_of, zone.zone)
        milliseconds = int(moment.timestamp()) * 1000
        rows = engine.stream(
            f"SELECT asked_key, program_id, point_category_id, {_QUARTER}, sum({REMAINING}) AS points, count(*) "
            f"FROM {_ROWS} WHERE status = 'AVAILABLE' AND expiry_date > {milliseconds} GROUP BY ALL "
            "HAVING points <> 0 ORDER BY 1, 2 NULLS FIRST, 3 NULLS FIRST, 4"
        )
        days = groupby(rows, lambda row: (*row[:3], zone.last_day_of((row[3] + 1) * QUARTER)))
        totals = _Totals()
        with _Csv(self.out, EXPIRY_COLUMNS) as file:
            for (customer, program, category, day), parts in days:
                if last is None or day <= last:
                    points = totals.add(customer, list(parts))
                    file.line(customer, points, day.isoformat(), program, category)
        late = _counted(engine, f"status = 'AVAILABLE' AND expiry_date <= {milliseconds} AND {REMAINING} > 0")
        if late:
            notes.append(f"AVAILABLE allocations that expired before {moment:%Y-%m-%d %H:%M} UTC, left out: {late:,}")
        return self._result(exports, zone, notes, file, totals, as_of=moment, customers=totals.customers)

    def liability(self, engine: Engine, rate: Decimal | None) -> PointsReport:
        """Write what is owed."""
        exports, zone, notes = self._opened(engine)
        rows = engine.stream(
            f"SELECT {_QUARTER}, status, program_id, point_category_id, count(*), coalesce(sum(points_exclusive), 0), "
            f"coalesce(sum({REMAINING}), 0) FROM {_ROWS} GROUP BY ALL"
        )
        sums: dict[tuple[Any, ...], tuple[Decimal, ...]] = {}
        for quarter, *group, records, issued, left in rows:
            month = "" if quarter is None else zone.month_of((quarter + 1) * QUARTER)
            before = sums.get((month, *group), (_ZERO, _ZERO, _ZERO))
            sums[(month, *group)] = tuple(map(EXACT.add, before, map(Decimal, (records, issued, left))))
        totals = _Totals()
        with _Csv(self.out, LIABILITY_COLUMNS) as file:
            for (month, status, *which), (records, issued, left) in sorted(sums.items(), key=_in_order):
                owed = left if status == "AVAILABLE" else None
                totals.records += 0 if owed is None else int(records)
                totals.points = EXACT.add(totals.points, owed or _ZERO)
                value = None if owed is None or rate is None else EXACT.multiply(owed, rate)
                file.line(month, status, *which, int(records), issued, left, value)
        result = self._result(exports, zone, notes, file, totals)
        return evolve(result, value=None if rate is None else EXACT.multiply(totals.points, rate))

    def _opened(self, engine: Engine) -> tuple[list[ExportReader], ServerZone, list[str]]:
        """Open the exports, and read their rows into one table; with the zone, and notes on what is not shown."""
        exports = [open_folder(engine, path, f"export_{nth}") for nth, path in enumerate(self.folders)]
        for export in exports:
            if export.source_name != "allocations":
                raise JobError(
                    f"{export.path} is an export of {export.source_name}; these reports are made of exports of "
                    "allocations",
                    path=str(export.path),
                )
        parts = (
            f"SELECT {nth} AS export, asked_key, {_used(each)} FROM {name(each.relation)}"
            for nth, each in enumerate(exports)
        )
        engine.run(f"CREATE TABLE {_ROWS} AS {' UNION ALL '.join(parts)}")  # the files are read once
        self._refuse_shared(engine, exports)
        notes = self._notes(engine, exports)
        return exports, server_zone(self.timezone, [export.manifest for export in exports]), notes

    @staticmethod
    def _refuse_shared(engine: Engine, exports: Sequence[ExportReader]) -> None:
        """Refuse exports that hold the same allocation: it would count twice."""
        if len(exports) == 1:
            return
        shared = engine.rows(
            f"SELECT id, min(export), max(export) FROM {_ROWS} WHERE id IS NOT NULL GROUP BY id "
            "HAVING min(export) <> max(export) ORDER BY id LIMIT 1"
        )
        for number, first, second in shared:
            paths = [str(exports[int(nth)].path) for nth in (first, second)]
            raise JobError(
                f"allocation {number} is in {paths[0]} and in {paths[1]}, and would count "
                "twice: give exports of different customers, programs, categories or expiry dates"
            )

    @staticmethod
    def _drop_repeated(engine: Engine) -> int:
        """Keep an allocation that is in the lists of several customers once, with its owner; return how many went."""
        gone: int = engine.row(
            f"DELETE FROM {_ROWS} WHERE rowid IN (SELECT rowid FROM {_ROWS} WHERE id IS NOT NULL QUALIFY row_number() "
            "OVER (PARTITION BY id ORDER BY (customer_id = asked_key) DESC NULLS LAST, asked_key) > 1)"
        )[0]
        return gone

    def _notes(self, engine: Engine, exports: Sequence[ExportReader]) -> list[str]:
        notes = [_ONE_TABLE]
        repeated = self._drop_repeated(engine)
        if repeated:
            notes.append(f"allocations in the lists of two customers, e.g. after a merge, counted once: {repeated:,}")
        counted = (
            (
                f"{REMAINING} IS NULL",
                "allocations without one of the four columns that the rest is computed from, counted as 0",
            ),
            ("status = 'AVAILABLE' AND expiry_date IS NULL", "AVAILABLE allocations without an expiry date"),
            ("status IS NULL", "allocations without a status, not counted as AVAILABLE"),
        )
        for condition, words in counted:
            number = _counted(engine, condition)
            if number:
                notes.append(f"{words}: {number:,}")
        for export in exports:
            failed = export.ids("failed") or 0
            if failed:
                notes.append(f"customers of {export.path} that failed, whose points are missing here: {failed:,}")
        return notes

    def _result(
        self, exports: Sequence[ExportReader], zone: ServerZone, notes: Sequence[str], file: _Csv, totals: _Totals,
        *, as_of: datetime | None = None, customers: int | None = None,
    ) -> PointsReport:  # fmt: skip
        return PointsReport(
            out=self.out,
            rows=file.rows,
            customers=customers,
            records=totals.records,
            points=totals.points,
            value=None,
            timezone=zone.note,
            as_of=as_of,
            read=tuple(f"{export.path}: {read_time(export):%Y-%m-%d %H:%M} UTC" for export in exports),
            failed=sum(export.ids("failed") or 0 for export in exports),
            notes=tuple(notes),
        )


@define
class _Totals:
    """Sums over the lines of a report; customers come one after the other."""

    customers: int = 0
    records: int = 0
    points: Decimal = _ZERO
    _last: object = None

    def add(self, customer: object, parts: list[tuple[Any, ...]]) -> Decimal:
        """Add the parts of one line, and return their points."""
        points = exact_sum(Decimal(part[4]) for part in parts)
        self.customers += customer != self._last
        self._last = customer
        self.records += sum(part[5] for part in parts)
        self.points = EXACT.add(self.points, points)
        return points


class _Csv:
    """A CSV file that appears when it is whole: `with _Csv(path, columns) as file: file.line(...)`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.rows = 0
        self._path = path
        with self._named():
            self._part = PartFile(path)
        self._file = open(self._part.descriptor, "w", encoding="utf-8", newline="", closefd=False)  # noqa: SIM115
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(columns)

    def line(self, *values: object) -> None:
        """Write one line; amounts with every digit and no exponent."""
        with self._named():
            self._writer.writerow(list(map(_cell, values)))
        self.rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._part, self._named():
            self._file.close()
            if error is None:
                self._part.publish()

    @contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise JobError(f"cannot write {self._path}: {error.strerror or error}", path=str(self._path)) from error


def _count(number: int, one: str) -> str:
    return f"{number:,} {one if number == 1 else f'{one}s'}"


def _used(export: ExportReader) -> str:
    """The columns that count; where a row has no program or category, the one it was asked under, if there is one."""
    asked = {column: f"asked_{column}" for column in _USED if f"asked_{column}" in export.columns}
    return ", ".join(f"coalesce({one}, {asked[one]}) AS {one}" if one in asked else one for one in _USED)


def _counted(engine: Engine, condition: str) -> int:
    return int(engine.row(f"SELECT count(*) FROM {_ROWS} WHERE {condition}")[0])


def _in_order(entry: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """By month, those without one last; then by status, program and category."""
    month, status, program, category = entry[0]
    return month == "", month, status or "", program or 0, category or 0


def _cell(value: Any) -> Any:
    """A value as the CSV has it: amounts without exponents, texts without control characters, which part rows."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return printable(value) if isinstance(value, str) else value
