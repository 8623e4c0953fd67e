"""The sandbox's ids, by series: each kind of record counts in a range of its own.

Invariant: an id of one series is never an id of another, so that a join by the wrong id finds nothing instead of
something. The ranges are those of the API pages' samples of late 2025. `_world/generate.py` and `_world/awarding.py`
number with it.
"""

from __future__ import annotations

import attrs

__all__ = ["AWARDS", "EVENT_LOG", "LOYALTY_EVENTS", "MOST_ROWS", "TARGETS", "TRANSACTIONS", "CustomerSlot", "Series"]

MOST_ROWS = 50_000
_WHALE_BLOCK = 4 * MOST_ROWS


@attrs.frozen
class Series:
    """A range of ids.

    Attributes:
        start: Where ordinary customers begin; whales count below it.
        block: How many ids an ordinary customer has, more than it can need.
    """

    start: int
    block: int = 320


# Those of events stay apart up to 750,000 customers.
# The ledger's `eventLogId` and the `event_log_id` of allocations and awards.
EVENT_LOG = Series(632_700_000)
# Bills: a transactional event's `eventReferenceId`, an allocation's `points_source_id`.
TRANSACTIONS = Series(888_800_000)
# `id` of loyaltyEvents: another series than the event log; what both sides share is the unique id.
LOYALTY_EVENTS = Series(1_603_600_000)
# Beyond 32 bits, as on the real service. All award tables count from one start: an id may exist in several.
AWARDS = Series(37_195_400_000, 2_000)
TARGETS = Series(263_000)


@attrs.frozen
class CustomerSlot:
    """Where a customer is in the world.

    Attributes:
        customer_id: The id.
        index: Its place among the ordinary customers, from 0.
        rows: How many allocations it has in the main category.
        events: Whether it has loyalty events of its own.
        merged_id: The customer that was merged into it, if any.
        whale: Its place among the whales, None for any other customer.
        sent: Thousandths of a point that it transfers to the next customer, 0 for none.
        received: Thousandths of a point that the customer before it transfers to it, 0 for none.
        today: The day of the world in epoch milliseconds: what expired before it is not AVAILABLE.
    """

    customer_id: int
    index: int
    rows: int
    events: bool = True
    merged_id: int | None = None
    whale: int | None = None
    sent: int = 0
    received: int = 0
    today: int = 0

    def number(self, series: Series, nth: int) -> int:
        """The customer's nth id of the series, which no other customer has."""
        if self.whale is None:
            return series.start + self.index * series.block + nth
        return series.start - (self.whale + 1) * _WHALE_BLOCK + nth
