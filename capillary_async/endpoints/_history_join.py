"""The entries of a history: `Join` puts the four kinds of records of one customer together by event.

Invariant: every record is in exactly one entry; a join is made by an id that both sides share, never by time or amount;
a record without a partner is listed with the reason. Pure values; called by `_history.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from attrs import define, field, frozen

from capillary_async import models
from capillary_async._repr import shown
from capillary_async.models import LoyaltyEvent, PointsAllocation, PointsAwarded

__all__ = ["HistoryEntry", "Join", "Unjoined", "is_event"]

_Record: TypeAlias = "LoyaltyEvent | models.LedgerEvent | PointsAllocation | PointsAwarded"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AWARDED = "points_awarded"  # the table whose rows the allocation endpoints show, and whose ids they share
_SHOWN = 40


@frozen(kw_only=True)
class HistoryEntry:
    """One event of a customer's history, with all that was read of it.

    Attributes:
        at: When it happened, aware: of the loyalty event, else of the ledger event, else the earliest award time of the
            allocations. None where none of them has a time.
        event_log_id: The event log id; None where only a loyalty event is known.
        unique_id: The unique id of the ledger event or the loyalty event.
        event_name: Its name, e.g. `TransactionAdd`; of the ledger event, else of the loyalty event.
        loyalty_events: The loyalty events with the same unique id; one, but where the server has more.
        ledger_events: The ledger events with the event log id; one, but where the server has more.
        allocations: The allocations that the event made.
        awards: The awards that the event made.
    """

    at: datetime | None = None
    event_log_id: int | None = None
    unique_id: str | None = None
    event_name: str | None = None
    loyalty_events: tuple[LoyaltyEvent, ...] = ()
    ledger_events: tuple[models.LedgerEvent, ...] = ()
    allocations: tuple[PointsAllocation, ...] = ()
    awards: tuple[PointsAwarded, ...] = ()

    def __repr__(self) -> str:
        at = None if self.at is None else self.at.isoformat()
        return (
            f"<HistoryEntry {at} {str(self.event_name)[:_SHOWN]} event_log_id={shown(self.event_log_id)}: "
            f"{len(self.allocations)} allocations, {len(self.awards)} awards>"
        )


@frozen
class Unjoined:
    """A record that has no partner on the other side, and why.

    Attributes:
        record: The record; it is in an entry of the history all the same.
        reason: What is missing, in words.
    """

    record: LoyaltyEvent | models.LedgerEvent | PointsAllocation | PointsAwarded
    reason: str

    def __repr__(self) -> str:
        return f"Unjoined({type(self.record).__name__}, {shown(self.reason)})"


@define(eq=False)
class _Group:
    """The records of one event."""

    allocations: list[PointsAllocation] = field(factory=list[PointsAllocation])
    awards: list[PointsAwarded] = field(factory=list[PointsAwarded])
    loyalty: list[LoyaltyEvent] = field(factory=list[LoyaltyEvent])
    ledger: list[models.LedgerEvent] = field(factory=list["models.LedgerEvent"])

    def entry(self, event_log_id: int | None) -> HistoryEntry:
        named: list[models.LedgerEvent | LoyaltyEvent] = [*self.ledger, *self.loyalty]
        return HistoryEntry(
            at=self._at(),
            event_log_id=event_log_id,
            unique_id=next((event.unique_id for event in named if event.unique_id is not None), None),
            event_name=next((event.event_name for event in named if event.event_name is not None), None),
            loyalty_events=tuple(self.loyalty),
            ledger_events=tuple(self.ledger),
            allocations=tuple(self.allocations),
            awards=tuple(self.awards),
        )

    def _at(self) -> datetime | None:
        loyalty = [event.date for event in self.loyalty]
        details = [event.event_details for event in self.ledger]
        ledger = [None if found is None else found.event_time_iso for found in details]
        awarded = [_time_of(row.awarded_date) for row in self.allocations]
        for times in (loyalty, ledger, awarded):
            known = [time for time in times if time is not None and time.tzinfo is not None]
            if known:
                return min(known)
        return None


def _time_of(milliseconds: int | None) -> datetime | None:
    """Epoch milliseconds as an aware time; None beyond the years 1 to 9999, where no time could be ordered."""
    try:
        return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


@define(eq=False)
class Join:
    """The four kinds of records, joined by event log id, award id and unique id."""

    refused: Collection[int]
    groups: dict[Any, _Group] = field(factory=lambda: defaultdict[Any, _Group](_Group))
    unjoined: list[Unjoined] = field(factory=list[Unjoined])

    def rows(self, allocations: Iterable[PointsAllocation], awards: Iterable[PointsAwarded]) -> None:
        """Put rows to their event; without an event log id, an award to the allocation with its id."""
        for row in allocations:
            self.groups[_group_of(row.event_log_id, _AWARDED, row.id)].allocations.append(row)
        for award in awards:
            self.groups[_group_of(award.event_log_id, award.source_table, award.id)].awards.append(award)

    def events(self, ledger: Iterable[models.LedgerEvent], loyalty: Iterable[LoyaltyEvent]) -> None:
        """Put ledger events to their event log id, and loyalty events to the ledger event with their unique id."""
        shared: defaultdict[str, set[int]] = defaultdict(set)
        for exploded in ledger:
            number = exploded.event_log_id
            self.groups[_group_of(number, None, None)].ledger.append(exploded)
            if number is not None and exploded.unique_id is not None:
                shared[exploded.unique_id].add(number)
        for event in loyalty:
            numbers = shared.get(event.unique_id or "", ())
            if len(numbers) == 1:
                self.groups[next(iter(numbers))].loyalty.append(event)
                continue
            self.groups[object()].loyalty.append(event)
            several = "several event log ids have its unique id"
            self._unjoined(event, several if numbers else "no ledger event of the rows read has its unique id")

    def entries(self) -> tuple[HistoryEntry, ...]:
        """One entry per event, in order of time, those without a time last."""
        found = [(number if isinstance(number, int) else None, group) for number, group in self.groups.items()]
        for number, group in found:
            self._look_for_partners(number, group)
        return tuple(sorted((group.entry(number) for number, group in found), key=_in_time))

    def _look_for_partners(self, number: int | None, group: _Group) -> None:
        if not group.ledger:
            refused = "the ledger refused its event log id"
            known = refused if number in self.refused else "the ledger has no event with its event log id"
            rows: list[_Record] = [*group.allocations, *group.awards]
            for row in rows:
                self._unjoined(row, "it has no event log id" if number is None else known)
        elif not group.loyalty:
            for event in group.ledger:
                self._unjoined(event, "no loyalty event of the days asked has its unique id")

    def _unjoined(self, record: _Record, reason: str) -> None:
        self.unjoined.append(Unjoined(record, reason))


def is_event(event_log_id: int | None) -> bool:
    return event_log_id is not None and event_log_id > 0


def _group_of(event_log_id: int | None, table: str | None, row: int | None) -> Any:
    """What identifies the event of a row: its event log id, else the row itself, else nothing."""
    if is_event(event_log_id):
        return event_log_id
    return object() if table is None or row is None else (table, row)


def _in_time(entry: HistoryEntry) -> tuple[bool, datetime, int]:
    return entry.at is None, entry.at or _EPOCH, entry.event_log_id or 0
