"""`export`: records of many customers into a folder of Parquet or JSON Lines files.

Invariant: gathers the input and shows how it goes; what is durable and exact is `capillary_async.jobs`'s business,
which is imported when it is needed, since its extra may be missing. Called by `_app.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from capillary_async import PointsStatus
from capillary_async._files.status_file import StatusFile
from capillary_async.cli._commands.export_processes import export_in_processes
from capillary_async.cli._io.id_input import ids_of, pairs_of
from capillary_async.cli._io.job_progress import JobReport
from capillary_async.cli._io.run import CANNOT_RUN, INTERRUPTED, SOME_FAILED, TERMINATED, UnusableError, jobs
from capillary_async.cli._io.sandbox_exports import cluster_of
from capillary_async.cli._io.session import connected, needed
from capillary_async.cli._io.stall_notice import StallMonitor
from capillary_async.cli._io.words import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from capillary_async.cli._commands.export_processes import PipedReport
    from capillary_async.cli._io.options import ExportRequest, IdSource
    from capillary_async.cli._io.record_options import Awarded, Events, Expiry, LedgerIncludes, LedgerPairs, NotFound
    from capillary_async.jobs import ExportResult
    from capillary_async.sandbox import Sandbox

__all__ = ["ExportQuery", "Stop", "allocations", "awarded", "events", "export", "export_here", "jobs", "ledger"]

MOST_SHARDS = 100_000
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)


@frozen
class ExportQuery:
    """The source and the arguments of an export.

    Attributes:
        source: As `jobs.export` names it.
        arguments: Of the call; the sandbox, where there is one, gives what is missing. It pickles.
        pairs: The names of the two columns of a ledger's ids.
    """

    source: str
    arguments: Callable[[Sandbox | None], dict[str, Any]]
    pairs: tuple[str, str] | None = None


async def export(asked: ExportRequest, query: ExportQuery) -> int:
    """Export the records, and return the exit code.

    Raises:
        UnusableError: The command cannot run like this.
        CapillaryError: It cannot go on; what is complete stays.
    """
    jobs()
    if asked.output.plan:
        return await _plan(asked, query)
    others = (asked.output.out, asked.output.archive, asked.ids.ids)
    async with StatusFile(asked.output.status_file, f"export {query.source}", others) as status:
        if asked.output.processes != 1:
            return status.ended(await export_in_processes(asked, query, status))
        report = JobReport(f"export {query.source}", quiet=asked.output.quiet)
        return status.ended(await export_here(asked, query, status, report))


async def export_here(
    asked: ExportRequest, query: ExportQuery, status: StatusFile, shown: JobReport | PipedReport
) -> int:
    """Export in this process, and return the exit code."""
    package, stall, options = jobs(), StallMonitor(), asked.output
    async with connected(asked.connection, asked.sandbox, stall) as (session, sandbox):
        stop = Stop()
        stop.listen()
        with shown as report:
            async with stall.reporting(session, report.note):
                try:
                    result: ExportResult = await package.export(
                        *_what(asked, query, sandbox),
                        session=session,
                        paranoid=options.paranoid,
                        stop=stop.event,
                        grace=options.grace,
                        on_progress=report.progress,
                        status_file=status,
                        **_how(asked, query, sandbox),
                    )
                except asyncio.CancelledError:
                    if not stop.ended:
                        raise
                    report.say(f"ended at once; what is complete stays in {options.out}, the same command goes on")
                    return stop.code
            report.exported(result)
    if result.interrupted:
        return stop.code or CANNOT_RUN
    return SOME_FAILED if result.failed else 0


def _what(asked: ExportRequest, query: ExportQuery, sandbox: Sandbox | None) -> tuple[Any, Any, Path]:
    return query.source, _ids(asked.ids, query, sandbox), asked.output.out


def _how(asked: ExportRequest, query: ExportQuery, sandbox: Sandbox | None) -> dict[str, Any]:
    """Return what an export and its plan are given alike."""
    options = asked.output
    return {
        "format": options.format,
        "shard": _shard_of(options.shard),
        "shard_keys": options.shard_keys,
        "rounds": options.rounds,
        "allow_empty": options.allow_empty,
        "cluster": cluster_of(asked.sandbox),
        "archive": options.archive,
        **query.arguments(sandbox),
    }


async def _plan(asked: ExportRequest, query: ExportQuery) -> int:
    options = asked.output
    if options.processes != 1:
        raise UnusableError("--plan goes without --processes: the requests are the same")
    async with connected(asked.connection, asked.sandbox, StallMonitor()) as (session, sandbox):
        plan = await jobs().plan_export(*_what(asked, query, sandbox), session=session, **_how(asked, query, sandbox))
    for line in plan.lines():
        print(one_line(line))  # noqa: T201
    return 0


def _shard_of(text: str | None) -> tuple[int, int] | None:
    """The shard that an option names.

    Raises:
        UnusableError: It is no shard.
    """
    if text is None:
        return None
    found = _SHARD.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST_SHARDS:
        raise UnusableError(f"--shard takes a number of how many, from 1/N to N/N, e.g. 3/16, got {text!r:.80}")
    return int(found[1]), int(found[2])


class Stop:
    """SIGINT and SIGTERM: after the first, the job finishes the shards in progress; the second ends it.

    Attributes:
        event: Set by the first.
        code: The exit code of the first.
        ended: Whether a second one came.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.code = 0
        self.ended = False
        self._task = asyncio.current_task()

    def listen(self) -> None:
        """Handle both signals, until the process ends."""
        loop = asyncio.get_running_loop()
        # Neither Windows nor threads other than the main one have signal handlers: there the first signal ends it.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGINT, self._come, INTERRUPTED)
            loop.add_signal_handler(signal.SIGTERM, self._come, TERMINATED)

    def _come(self, code: int) -> None:
        if self.event.is_set() and self._task is not None:
            self.ended = True
            self._task.cancel()
        self.code = self.code or code
        self.event.set()


# --- the ids ----------------------------------------------------------------------------------------------------------


def _ids(source: IdSource, query: ExportQuery, sandbox: Sandbox | None) -> Any:
    """Return the ids, or None if the export's folder must have them."""
    if source.ids is None:
        if sandbox is None:
            return None
        return list(_pairs_of(sandbox)) if query.pairs else sandbox.customer_ids
    if query.pairs:
        return pairs_of(source, query.pairs, query.arguments(sandbox)["identifier"])
    return ids_of((), source, None, rule="strict")


def _pairs_of(sandbox: Sandbox) -> Iterator[tuple[int, int]]:
    for customer in sandbox.customer_ids:
        for event in sandbox.event_log_ids(customer):
            yield customer, event


# --- the four sources -------------------------------------------------------------------------------------------------


def _points(expiry: Expiry, sandbox: Sandbox | None, start: str, end: str) -> dict[str, Any]:
    first = None if sandbox is None else str(sandbox.expiry_date_start)
    last = None if sandbox is None else str(sandbox.expiry_date_end)
    return {
        "program_id": needed("--program-id", _several(expiry.program_id), sandbox and sandbox.program_id),
        "point_category_id": needed(
            "--point-category-id", _several(expiry.point_category_id), sandbox and sandbox.point_category_id
        ),
        start: needed("--expiry-date-start", expiry.expiry_date_start, first),
        end: needed("--expiry-date-end", expiry.expiry_date_end, last),
    }


def _several(given: tuple[int, ...]) -> int | list[int] | None:
    """Return one value as itself and several as a list."""
    return list(given) if len(given) > 1 else given[0] if given else None


def allocations(expiry: Expiry, missing: NotFound) -> ExportQuery:
    """Query the allocations of customers that expire within two dates."""
    return ExportQuery("allocations", partial(_of_allocations, expiry, missing))


def _of_allocations(expiry: Expiry, missing: NotFound, sandbox: Sandbox | None) -> dict[str, Any]:
    return {**_points(expiry, sandbox, "expiry_date_start", "expiry_date_end"), "not_found": missing.not_found}


def awarded(expiry: Expiry, of: Awarded) -> ExportQuery:
    """Query the ids of points awarded to customers, of one status."""
    return ExportQuery("awarded", partial(_of_awarded, expiry, of))


def _of_awarded(expiry: Expiry, of: Awarded, sandbox: Sandbox | None) -> dict[str, Any]:
    available = None if sandbox is None else PointsStatus.AVAILABLE.value
    return {
        **_points(expiry, sandbox, "start_expiry_date", "end_expiry_date"),
        "status": needed("--status", of.status, available),
        "org_id": of.org_id,
        "batch_size": of.batch_size,
    }


def events(of: Events) -> ExportQuery:
    """Query the loyalty events of customers."""
    return ExportQuery("events", partial(_same, attrs.asdict(of)))


def ledger(pairs: LedgerPairs, include: LedgerIncludes) -> ExportQuery:
    """Query the ledger events of customers, each with the ids of its events."""
    wanted = sorted(name for name, value in attrs.asdict(include).items() if value)
    arguments = {
        "identifier": pairs.identifier,
        "identifier_source": pairs.source,
        "account_id": pairs.account_id,
        "type": pairs.type,
        "include": wanted,
    }
    return ExportQuery("ledger", partial(_same, arguments), (pairs.identifier_column, pairs.event_column))


def _same(arguments: dict[str, Any], _: Sandbox | None) -> dict[str, Any]:
    return arguments
