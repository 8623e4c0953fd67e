"""`demo`: a sandbox in this process, read by four endpoints at once and checked row by row, then the jobs of a night.

Invariant: it ends well only when every customer was answered, all readings agree with each other and with what the
sandbox has, and the jobs found exactly the planted differences. Called by `_app.py`; the jobs are in
`_demo/jobs_chain.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from capillary_async import (
    AsyncSession,
    CapillaryError,
    CustomerNotFoundError,
    Identifier,
    MergedCustomerError,
    PointsStatus,
)
from capillary_async.cli._demo.agreement import Agreement
from capillary_async.cli._demo.jobs_chain import Chain, empty_folder, left_out
from capillary_async.cli._demo.summary import summary, verdict
from capillary_async.cli._io.progress import Screen, bar
from capillary_async.cli._io.run import CANNOT_RUN, UnusableError
from capillary_async.sandbox import CutBody, Fault, RowsRemoved, Sandbox, ServerFailure, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from rich.progress import Progress, TaskID

    from capillary_async import FanOut, Outcome, PointsAllocation

__all__ = ["DemoOptions", "demo", "faults_of"]

_IDS_PER_CALL, _LEDGER_WORKERS = 10, 8
_NO_EVENT = -1  # what newer rows have as event_log_id where there is none


@frozen(kw_only=True)
class DemoOptions:
    """The options of the demo.

    Attributes:
        customers, seed: Of the sandbox.
        latency: Seconds before each of its answers.
        faults: Whether some requests are refused, cut or fail, so that retries are seen.
        disturb: Whether rows vanish while they are read, so that the check must find it.
        out: The folder of the jobs' files; None for a new one among the system's temporary files, which is kept.
        quiet: No progress bar.
    """

    customers: int = 100
    seed: int = 7
    latency: float = 0.01
    faults: bool = True
    disturb: bool = False
    out: Path | None = None
    quiet: bool = False


def faults_of(options: DemoOptions) -> list[Fault]:
    """Return the faults: a burst of 503, a 502 page, cut bodies, 429 with and without Retry-After."""
    faults: list[Fault] = []
    if options.faults:
        faults += [
            ServerFailure(503, times=3, after=3),
            Throttle(times=2, after=8),
            CutBody(times=2, after=12),
            Throttle(1, times=1, after=16),
            ServerFailure(502, body="html", times=2, path="loyaltyEvents"),
        ]
    if options.disturb:
        faults.append(RowsRemoved(1, times=5, page=1, path="dateRange"))
    return faults


async def demo(options: DemoOptions) -> int:
    """Run the demo, and return the exit code.

    Raises:
        UnusableError: An option is invalid.
        CapillaryError: What concerns every customer.
    """
    if options.out is not None:
        empty_folder(options.out)  # refused before anything is read
    try:
        sandbox = Sandbox(
            customers=options.customers, seed=options.seed, latency=options.latency, faults=faults_of(options)
        )
    except ValueError as error:
        raise UnusableError(str(error)) from error
    async with sandbox, AsyncSession(sandbox.url, auth=sandbox.auth) as session:
        reading = _Reading(session, sandbox)
        console = Screen(stderr=True)
        shown = console.is_terminal and not options.quiet
        with bar(console, shown=shown) as progress:
            await reading.read(progress)
        reading.compare()
        figures = ["", *summary(reading.agreement, sandbox, session.stats, reading)]
        if reading.agreement.faults or options.disturb:
            _print([*verdict(reading.agreement), *figures])
            return CANNOT_RUN if reading.agreement.faults else 0
        jobs = _Jobs(options, sandbox, session)
        try:
            with console.status("export, verify and reconcile") if shown else contextlib.nullcontext():
                await jobs.run()
        finally:
            _print([*verdict(reading.agreement), *jobs.verdict, *figures, *jobs.lines])
        return 0 if jobs.found else CANNOT_RUN


@define
class _Jobs:
    """The jobs of a night, and their lines of the summary, which are printed below the verdict.

    Attributes:
        found: Whether exactly the planted differences were found, or the jobs were left out.
        verdict: What was found, and the paths of the report and of the folder.
        lines: What each job did.
    """

    _options: DemoOptions
    _sandbox: Sandbox
    _session: AsyncSession
    found: bool = False
    verdict: list[str] = field(factory=list[str])
    lines: list[str] = field(factory=lambda: [""])

    async def run(self) -> None:
        """Run the jobs, unless they cannot run here."""
        why = left_out(self._sandbox)
        if why is not None:
            self.found = True
            self.lines.append(why)
            return
        options = self._options
        folder = empty_folder(options.out)
        chain = Chain(self._sandbox, self._session, folder, options.seed, options.faults, self.lines.append)
        try:
            wrong = await chain.run()
        except BaseException:
            self.verdict.append(f"folder     {folder}")
            raise
        self.found = not wrong.disagreements
        self.verdict += [*wrong.lines(), f"report     {folder / 'report.html'}", f"folder     {folder}"]


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)  # noqa: T201


@define
class _Reading:
    """Four readings at once, each outcome checked as it comes.

    Attributes:
        merged, unknown: How many customers were refused as they should be.
        elapsed: Seconds of all of it.
    """

    _session: AsyncSession
    _sandbox: Sandbox
    agreement: Agreement = field(factory=lambda: Agreement(readings=3 + len(PointsStatus)))
    merged: int = 0
    unknown: int = 0
    elapsed: float = 0.0
    _log_ids: dict[int, list[int]] = field(factory=dict[int, "list[int]"])

    async def read(self, progress: Progress) -> None:
        """Read everything."""
        began = time.monotonic()
        customers = self._customers()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._allocations(customers, progress))
                for status in PointsStatus:
                    group.create_task(self._awarded(customers, status, progress))
                group.create_task(self._events(customers, progress))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        self.elapsed = time.monotonic() - began

    def compare(self) -> None:
        """Compare the records with those of the sandbox; some customers have to be refused."""
        self.agreement.compare(self._sandbox.totals())
        self.agreement.same("merged customers, refused as such", self.merged, len(self._sandbox.merged_ids))
        self.agreement.same("unknown customers, refused as such", self.unknown, 1)

    def _customers(self) -> list[int]:
        return [*self._sandbox.customer_ids, *self._sandbox.merged_ids, self._sandbox.unknown_id]

    async def _allocations(self, customers: list[int], progress: Progress) -> None:
        sandbox = self._sandbox
        columns = tuple(sandbox.totals([]).points)
        fan = self._session.points_allocation.by_expiry_many(
            customers,
            program_id=sandbox.program_id,
            point_category_id=sandbox.point_category_id,
            expiry_date_start=sandbox.expiry_date_start,
            expiry_date_end=sandbox.expiry_date_end,
        )
        await self._each(fan, progress, "expiring allocations", partial(self._allocated, columns=columns))
        await self._ledger(progress)

    def _allocated(self, customer_id: int, rows: Iterable[PointsAllocation], columns: Iterable[str]) -> None:
        """Count the rows, and keep the event log ids that the ledger is asked for: those of one call."""
        rows = list(rows)
        self.agreement.allocations(customer_id, rows, columns)
        named = dict.fromkeys(row.event_log_id for row in rows if row.event_log_id not in {None, _NO_EVENT})
        self._log_ids[customer_id] = [log_id for log_id in named if log_id is not None][:_IDS_PER_CALL]

    async def _ledger(self, progress: Progress) -> None:
        task = progress.add_task("ledger entries", total=len(self._log_ids), records=0)
        asked = iter(self._log_ids.items())
        async with asyncio.TaskGroup() as group:
            for _ in range(_LEDGER_WORKERS):
                group.create_task(self._entries(asked, progress, task))
        progress.remove_task(task)

    async def _entries(self, asked: Iterator[tuple[int, list[int]]], progress: Progress, task: TaskID) -> None:
        for customer_id, log_ids in asked:
            owner = Identifier.customer_id(customer_id)
            pager = self._session.points_ledger.explode(identifier=owner, source="INSTORE", event_ids=log_ids)
            try:
                self.agreement.ledger(customer_id, log_ids, await pager.collect() if log_ids else ())
            except CapillaryError as error:
                self.agreement.faults.append(f"customer {customer_id}: ledger: {error}")
            progress.update(task, advance=1, records=self.agreement.entries)

    async def _awarded(self, customers: list[int], status: PointsStatus, progress: Progress) -> None:
        sandbox = self._sandbox
        fan = self._session.points_awarded.ids(
            customers,
            program_id=sandbox.program_id,
            point_category_id=sandbox.point_category_id,
            start_expiry_date=sandbox.expiry_date_start,
            end_expiry_date=sandbox.expiry_date_end,
            status=status,
        )
        # One worker per status: all read the same customers at a time, so that the sandbox generates each once.
        use = partial(self.agreement.awarded, status=status)
        await self._each(fan.options(concurrency=1), progress, f"awarded ids, {status.lower()}", use)

    async def _events(self, customers: list[int], progress: Progress) -> None:
        fan = self._session.loyalty_events.list_many(customers)
        await self._each(fan, progress, "loyalty events", self.agreement.events)

    async def _each(
        self, fan: FanOut[int, Any], progress: Progress, what: str, use: Callable[[int, Iterable[Any]], None]
    ) -> None:
        records, task = 0, progress.add_task(what, total=len(self._customers()), records=0)
        async for outcome in fan:
            if outcome.error is None or self._expected(outcome):
                use(outcome.key, outcome.items)
            else:
                self.agreement.faults.append(f"customer {outcome.key}: {what}: {outcome.error}")
            records += len(outcome.items)
            progress.update(task, advance=1, records=records)
        progress.remove_task(task)

    def _expected(self, outcome: Outcome[int, Any]) -> bool:
        """Merged and unknown customers have to be refused, each in its way."""
        key, error = outcome.key, outcome.error
        merged = key in self._sandbox.merged_ids and isinstance(error, MergedCustomerError)
        unknown = key == self._sandbox.unknown_id and isinstance(error, CustomerNotFoundError)
        self.merged += merged
        self.unknown += unknown
        return merged or unknown
