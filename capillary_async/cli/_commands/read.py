"""`allocations`, `awarded` and `events`: many customers to JSON Lines or CSV.

Invariant: one customer's rows are in memory per request under way, and a customer that fails is reported and
does not stop the rest. Called by `_app.py`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Sequence, Sized
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from capillary_async import EventQuery, PointsStatus
from capillary_async.cli._io.id_input import STREAM, ids_of
from capillary_async.cli._io.progress import Report
from capillary_async.cli._io.rows import ALLOCATION, AWARDED, EVENT
from capillary_async.cli._io.run import UnusableError
from capillary_async.cli._io.session import connected, needed
from capillary_async.cli._io.stall_notice import StallMonitor
from capillary_async.cli._io.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from capillary_async import AsyncSession, FanOut
    from capillary_async.cli._io.options import Output, ReadRequest
    from capillary_async.cli._io.record_options import Awarded, EventOf, Events, Expiry, NotFound
    from capillary_async.cli._io.rows import Table
    from capillary_async.sandbox import Sandbox

__all__ = ["Job", "allocations", "awarded", "events", "read", "to_same_terminal"]


@frozen
class Job:
    """The fan-out of a command, and the form of its rows.

    Attributes:
        what: The command's name.
        table: The kind of row.
        fan: The fan-out over the ids.
        first: Columns before those of the record, after the id that was asked for.
    """

    what: str
    table: Table
    fan: Callable[[AsyncSession, Sandbox | None, Any], FanOut[Any, Any]]
    first: dict[str, Any] = field(factory=dict[str, Any])


async def read(given: tuple[str, ...], asked: ReadRequest, job: Job) -> int:
    """Read the records of all ids, given and from the options, and write them; return the exit code.

    Raises:
        UnusableError: The command cannot run like this.
        CapillaryError: What concerns every customer.
    """
    stall = StallMonitor()
    async with connected(asked.connection, asked.sandbox, stall) as (session, sandbox):
        keys = ids_of(given, asked.ids, sandbox.customer_ids if sandbox else None)
        fan = job.fan(session, sandbox, keys)
        total = len(keys) if isinstance(keys, Sized) else None
        output = asked.output
        shared = to_same_terminal(output)
        with Report(job.what, quiet=output.quiet, total=total, shared=shared) as report:
            async with stall.reporting(session, report.stalled), Writer(output, job.table) as writer:
                await _pump(fan, job, report, writer, ordered=output.ordered)
            return report.close(session.stats)


def to_same_terminal(output: Output) -> bool:
    """True if rows and progress share a terminal."""
    return output.out in ("-", STREAM) and sys.stdout.isatty()


async def _pump(fan: FanOut[Any, Any], job: Job, report: Report, writer: Writer, *, ordered: bool) -> None:
    outcomes = fan.ordered() if ordered else aiter(fan)
    try:
        async for outcome in outcomes:
            asked_id = outcome.key.customer_id if isinstance(outcome.key, EventQuery) else outcome.key
            if outcome.error is not None:
                report.refused(asked_id, outcome.error)
                continue
            report.warned(asked_id, outcome.warnings)
            first = {"asked_id": asked_id, **job.first}
            await writer.write(first | job.table.row(record) for record in outcome.items)
            report.answered(len(outcome.items))
    finally:
        await outcomes.aclose()


def _points(expiry: Expiry, sandbox: Sandbox | None) -> tuple[int, int, Any, Any]:
    """Return program, category, first and last day of expiry."""
    return (
        needed("--program-id", _one("--program-id", expiry.program_id), sandbox.program_id if sandbox else None),
        needed(
            "--point-category-id",
            _one("--point-category-id", expiry.point_category_id),
            sandbox.point_category_id if sandbox else None,
        ),
        needed("--expiry-date-start", expiry.expiry_date_start, str(sandbox.expiry_date_start) if sandbox else None),
        needed("--expiry-date-end", expiry.expiry_date_end, str(sandbox.expiry_date_end) if sandbox else None),
    )


def _one(option: str, given: tuple[int, ...]) -> int | None:
    if len(given) > 1:
        raise UnusableError(f"{option} is given {len(given)} times, and this command reads one; export reads several")
    return given[0] if given else None


def allocations(expiry: Expiry, event: EventOf, missing: NotFound) -> Job:
    """Read the allocations of customers that expire within two dates, or those of one event."""

    def by_expiry(session: AsyncSession, sandbox: Sandbox | None, keys: Any) -> FanOut[Any, Any]:
        program, category, first, last = _points(expiry, sandbox)
        return session.points_allocation.by_expiry_many(
            keys,
            program_id=program,
            point_category_id=category,
            expiry_date_start=first,
            expiry_date_end=last,
            not_found=missing.not_found,
        )

    def by_event(session: AsyncSession, sandbox: Sandbox | None, keys: Any) -> FanOut[Any, Any]:  # noqa: ARG001
        return session.points_allocation.by_event_many(_queries(event, keys), not_found=missing.not_found)

    if (event.event_id is None) != (event.event_type_id is None):
        raise UnusableError("--event-id and --event-type-id go together")
    if event.event_id is not None and expiry != type(expiry)():
        raise UnusableError("--event-id asks for one event: program, category and expiry dates do not go with it")
    return Job("allocations", ALLOCATION, by_expiry if event.event_id is None else by_event)


def _queries(event: EventOf, keys: Sequence[Any] | AsyncIterable[Any]) -> list[EventQuery] | AsyncIterator[EventQuery]:
    def query(key: Any) -> EventQuery:
        return EventQuery(event.event_id, key, event.event_type_id)

    async def queries(keys: AsyncIterable[Any]) -> AsyncIterator[EventQuery]:
        async for key in keys:
            yield query(key)

    return queries(keys) if isinstance(keys, AsyncIterable) else [query(key) for key in keys]


def awarded(expiry: Expiry, of: Awarded) -> Job:
    """Read the ids of points awarded to customers, of one status."""

    def ids(session: AsyncSession, sandbox: Sandbox | None, keys: Any) -> FanOut[Any, Any]:
        program, category, first, last = _points(expiry, sandbox)
        return session.points_awarded.ids(
            keys,
            program_id=program,
            point_category_id=category,
            start_expiry_date=first,
            end_expiry_date=last,
            status=needed("--status", of.status, PointsStatus.AVAILABLE.value if sandbox else None),
            org_id=of.org_id,
            batch_size=of.batch_size,
        )

    return Job("awarded", AWARDED, ids, {"asked_status": of.status or PointsStatus.AVAILABLE.value})


def events(of: Events) -> Job:
    """Read the loyalty events of customers."""

    def listed(session: AsyncSession, sandbox: Sandbox | None, keys: Any) -> FanOut[Any, Any]:  # noqa: ARG001
        return session.loyalty_events.list_many(
            keys, event_type=of.event_type, from_date=of.from_date, to_date=of.to_date
        )

    return Job("events", EVENT, listed)
