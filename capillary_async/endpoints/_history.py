"""`session.history`: reads the four lists of one customer, and joins them by event.

Invariant: all arguments are checked before anything is sent; every record that was read is given to `Join`. Built on
the public endpoints; called by the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from datetime import date
from typing import Any, Protocol

from attrs import frozen

from capillary_async import models
from capillary_async.endpoints import (
    Identifier,
    LedgerInclude,
    LoyaltyEventsResource,
    PointsAllocationResource,
    PointsAwardedResource,
    PointsLedgerResource,
)
from capillary_async.endpoints._arguments import positive
from capillary_async.endpoints._history_join import HistoryEntry, Join, Unjoined, is_event
from capillary_async.endpoints.points_awarded import statuses_of
from capillary_async.errors import ApiMessage, LedgerRequestError
from capillary_async.models import PointsStatus

__all__ = ["History", "read_history"]


@frozen(eq=False)
class History:
    """The history of one customer: its entries in order of time; iterating gives them.

    Attributes:
        customer_id: The customer.
        entries: One per event, in order of time; those without a time are last.
        unjoined: The records that could not be joined, with the reasons.
        warnings: Of all answers.
    """

    customer_id: int
    entries: tuple[HistoryEntry, ...]
    unjoined: tuple[Unjoined, ...] = ()
    warnings: tuple[ApiMessage, ...] = ()

    def __iter__(self) -> Iterator[HistoryEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> HistoryEntry:
        return self.entries[index]

    def __repr__(self) -> str:
        return f"<History of customer {self.customer_id}: {len(self.entries)} entries, {len(self.unjoined)} unjoined>"


class _Endpoints(Protocol):
    """What a history needs of its session."""

    @property
    def points_allocation(self) -> PointsAllocationResource: ...
    @property
    def points_awarded(self) -> PointsAwardedResource: ...
    @property
    def loyalty_events(self) -> LoyaltyEventsResource: ...
    @property
    def points_ledger(self) -> PointsLedgerResource: ...


async def read_history(
    session: _Endpoints,
    customer_id: int,
    *,
    program_id: int,
    point_category_id: int,
    expiry_date_start: date | str,
    expiry_date_end: date | str,
    statuses: Iterable[PointsStatus | str] | None,
    from_date: date | str | None,
    to_date: date | str | None,
    source: str,
    include: LedgerInclude | None,
) -> History:
    """Read and join the history of one customer. For `AsyncSession.history`."""
    customer_id = positive("customer_id", customer_id)
    wanted = statuses_of("statuses", PointsStatus if statuses is None else statuses)
    warnings: dict[ApiMessage, None] = {}

    def exploded(event_ids: list[int]) -> Any:
        return session.points_ledger.explode(
            identifier=Identifier.customer_id(customer_id),
            source=source,
            event_ids=event_ids,
            include=LedgerInclude() if include is None else include,
        )

    # All four are made, and so checked, before anything is sent.
    exploded([])
    allocated = session.points_allocation.by_expiry(
        entity_id=customer_id,
        program_id=program_id,
        point_category_id=point_category_id,
        expiry_date_start=expiry_date_start,
        expiry_date_end=expiry_date_end,
    )
    awarded = session.points_awarded.ids(
        [customer_id],
        program_id=program_id,
        point_category_id=point_category_id,
        start_expiry_date=expiry_date_start,
        end_expiry_date=expiry_date_end,
        status=wanted,
    )
    listed = session.loyalty_events.list(customer_id, from_date=from_date, to_date=to_date)
    allocations, awards, events = await _together(
        _read(allocated, warnings), _awards(awarded, warnings), _read(listed, warnings)
    )
    ids = sorted({row.event_log_id for row in [*allocations, *awards] if is_event(row.event_log_id)})
    ledger: list[models.LedgerEvent] = []
    refused = await _ledger(exploded(ids), ledger, warnings)
    join = Join(refused)
    join.rows(allocations, awards)
    join.events(ledger, events)
    return History(customer_id, join.entries(), tuple(join.unjoined), tuple(warnings))


async def _together(*reads: Coroutine[Any, Any, list[Any]]) -> list[list[Any]]:
    """The results of all reads, in order; the first error as itself, once the others have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read) for read in reads]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _read(pager: Any, warnings: dict[ApiMessage, None], into: list[Any] | None = None) -> list[Any]:
    """Read all pages into a list, and their warnings; what was read before an error stays in the list."""
    records: list[Any] = [] if into is None else into
    async for page in pager.pages():
        records += page.items
        warnings.update(dict.fromkeys(page.warnings))
    return records


async def _awards(fan: Any, warnings: dict[ApiMessage, None]) -> list[Any]:
    records: list[Any] = []
    async for outcome in fan:
        records += outcome.unwrap()
        warnings.update(dict.fromkeys(outcome.warnings))
    return records


async def _ledger(pager: Any, found: list[models.LedgerEvent], warnings: dict[ApiMessage, None]) -> set[int]:
    """Read the ledger events; ids that the server refuses are returned, and the others are read all the same."""
    refused: set[int] = set()
    while True:
        try:
            await _read(pager, warnings, found)
        except LedgerRequestError as error:
            if error.position is None or not error.refused:
                raise
            refused |= {int(event_id) for event_id in error.refused}
            pager = pager.options(start=error.position)
        else:
            return refused
