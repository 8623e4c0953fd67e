"""Compares allocations, awards, ledger entries and loyalty events of the same customers, one by one and in total.

Rows are joined by the ids that mean the same: an allocation's `id` is that of an award of `points_awarded`, an
`event_log_id` is one of the ledger, and the ledger and loyalty events share the unique id.

Invariant: what is summed is never rounded, and a customer is let go when its readings are complete, so that
memory does not grow with the run. Pure; fed by `_demo/demo.py`, shown by `_demo/summary.py`.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import define, field

from capillary_async import SourceTable
from capillary_async.cli._io.words import count
from capillary_async.models.exact import EXACT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from capillary_async import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded
    from capillary_async.sandbox import Totals

__all__ = ["QUANTITIES", "Agreement"]

QUANTITIES = ("points_exclusive", "redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")


@define
class _Customer:
    """The records of one customer that were read so far.

    `balance` counts allocations up and awards of their table down, so that it ends empty; `entries` has the unique id
    of each event log id that the ledger was asked for, None where it had no entry.
    """

    balance: Counter[tuple[Any, ...]] = field(factory=Counter[tuple[Any, ...]])
    entries: dict[int, str | None] = field(factory=dict[int, "str | None"])
    events: set[str | None] = field(factory=set["str | None"])
    others: int = 0
    readings: int = 0


@define
class Agreement:
    """Control totals of the records that were read, and all contradictions.

    Attributes:
        readings: How many answers make a customer complete.
        counts: Rows by kind.
        points: The sums of the allocations, by column.
        awarded_points: The sums of the awards, by column.
        by_status: Exclusive points of the allocations, which are those issued, by status.
        awarded_by_status: Exclusive points of the awards, by the status that was asked for.
        by_month: Points remaining of AVAILABLE allocations, by the year and month in which they expire.
        entries: How many ledger entries.
        faults: What disagreed, in words.
    """

    readings: int
    counts: Counter[str] = field(factory=Counter[str])
    points: dict[str, Decimal] = field(factory=dict[str, Decimal])
    awarded_points: dict[str, Decimal] = field(factory=dict[str, Decimal])
    by_status: dict[str, Decimal] = field(factory=dict[str, Decimal])
    awarded_by_status: dict[str, Decimal] = field(factory=dict[str, Decimal])
    by_month: dict[tuple[int, int], Decimal] = field(factory=dict[tuple[int, int], Decimal])
    entries: int = 0
    faults: list[str] = field(factory=list[str])
    _open: dict[int, _Customer] = field(factory=dict[int, _Customer])

    def allocations(self, customer_id: int, rows: Iterable[PointsAllocation], columns: Iterable[str]) -> None:
        """Add the records of `by_expiry`; `columns` are summed."""
        customer = self._customer(customer_id)
        for row in rows:
            self.counts["allocations"] += 1
            customer.balance[_what(row)] += 1
            customer.others += row.customer_id != customer_id
            for column in columns:
                _add(self.points, column, getattr(row, column))
            _add(self.by_status, str(row.status), row.points_exclusive)
            if row.status == "AVAILABLE" and row.expires_at is not None:
                _add(self.by_month, (row.expires_at.year, row.expires_at.month), row.remaining)
        self._read(customer_id, customer)

    def awarded(self, customer_id: int, rows: Iterable[PointsAwarded], status: str) -> None:
        """Add the records of `ids` for one status."""
        customer = self._customer(customer_id)
        for row in rows:
            self.counts["awarded"] += 1
            if row.source_table == SourceTable.POINTS_AWARDED:  # no allocation shows a row of another table
                customer.balance[_what(row)] -= 1
            customer.others += row.customer_id != customer_id
            for column in QUANTITIES:
                _add(self.awarded_points, column, getattr(row, column))
            _add(self.awarded_by_status, status, row.points_exclusive)
        self._read(customer_id, customer)

    def events(self, customer_id: int, rows: Iterable[LoyaltyEvent]) -> None:
        """Add the records of `list`."""
        customer = self._customer(customer_id)
        for row in rows:
            self.counts["events"] += 1
            customer.events.add(row.unique_id)
            customer.others += row.customer_id != customer_id
        self._read(customer_id, customer)

    def ledger(self, customer_id: int, asked: Iterable[int], entries: Iterable[LedgerEvent]) -> None:
        """Add the records of `explode` for event log ids of the customer's allocations."""
        customer = self._customer(customer_id)
        customer.entries.update(dict.fromkeys(asked))
        for entry in entries:
            self.entries += 1
            if entry.event_log_id is not None:
                customer.entries[entry.event_log_id] = entry.unique_id
        self._read(customer_id, customer)

    def compare(self, expected: Totals) -> None:
        """Compare the totals with those of the server, and with each other."""
        for customer_id, customer in self._open.items():
            self.faults.append(f"customer {customer_id}: {customer.readings} of {self.readings} answers came")
        for kind in ("allocations", "awarded", "events"):
            self.same(f"{kind}: rows", self.counts[kind], getattr(expected, kind))
        self._same_sums("allocations", self.points, expected.points)
        self._same_sums("awarded", self.awarded_points, expected.awarded_points)
        self._same_sums("allocations by status", self.by_status, expected.by_status)
        self._same_sums("awarded by status", self.awarded_by_status, expected.awarded_by_status)
        self._same_sums("left to use", _dated(self.by_month), _dated(expected.left_by_month))

    def same(self, what: str, read: object, expected: object) -> None:
        """Compare one figure with that of the server."""
        if read != expected:
            self.faults.append(f"{what}: read {read}, the sandbox holds {expected}")

    def _customer(self, customer_id: int) -> _Customer:
        return self._open.setdefault(customer_id, _Customer())

    def _read(self, customer_id: int, customer: _Customer) -> None:
        customer.readings += 1
        if customer.readings == self.readings:
            del self._open[customer_id]
            self.faults.extend(f"customer {customer_id}: {fault}" for fault in _faults(customer))

    def _same_sums(self, what: str, read: Mapping[str, Decimal], expected: Mapping[str, Decimal]) -> None:
        for name in sorted({*read, *expected}):
            self.same(f"{what}: {name}", read.get(name, Decimal(0)), expected.get(name, Decimal(0)))


def _what(row: PointsAllocation | PointsAwarded) -> tuple[Any, ...]:
    """Return the values that an allocation and its award share."""
    return (row.id, row.event_log_id, *(getattr(row, name) for name in QUANTITIES))


def _dated(sums: Mapping[tuple[int, int], Decimal]) -> dict[str, Decimal]:
    return {f"{year}-{month:02}": points for (year, month), points in sums.items()}


def _add(sums: dict[Any, Decimal], name: Any, quantity: Decimal | None) -> None:
    if quantity is not None:
        sums[name] = EXACT.add(sums.get(name, Decimal(0)), quantity)


def _faults(customer: _Customer) -> Iterable[str]:
    more, fewer = +customer.balance, -customer.balance
    if more:
        yield f"{count(more.total(), 'allocation')} without their award"
    if fewer:
        yield f"{count(fewer.total(), 'award')} without their allocation"
    missing = [log_id for log_id, unique_id in customer.entries.items() if unique_id is None]
    if missing:
        yield f"{count(len(missing), 'event_log_id')} of allocations without a ledger entry"
    strange = {unique_id for unique_id in customer.entries.values() if unique_id is not None} - customer.events
    if strange:
        yield f"{count(len(strange), 'unique id')} of ledger entries not among the loyalty events"
    if customer.others:
        yield f"{count(customer.others, 'row')} of other customers"
