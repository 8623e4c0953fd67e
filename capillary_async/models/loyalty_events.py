"""`LoyaltyEvent`: one event of a customer's loyalty history.

Invariant: pure data under the wire's own names in snake_case; any field may be absent or null, then it is None. Filled
by `_codec`; imports nothing of ours.
"""

from datetime import datetime

from attrs import frozen

from capillary_async.models._record import Record

__all__ = ["LoyaltyEvent"]


@frozen(kw_only=True, repr=False)
class LoyaltyEvent(Record):
    """One loyalty event (API page "Get Loyalty Events").

    Attributes:
        id: The event's own id, its key. It is not an event log id [inferred], and no other record has it.
        customer_id: The customer of the event.
        date: The time of the event, aware, in the zone that the server wrote.
        event_name: `CustomerRegistration`, `CustomerUpdate`, ...
        org_id: The organisation.
        status: `SUCCESS`, `FAILED`, ...
        unique_id: The event's unique reference, e.g. `eQmzQLEfVb`: also the ledger's `unique_id`, and an `entity_id` of
            `points_allocation.by_event` [inferred].
    """

    id: int | None = None
    customer_id: int | None = None
    date: datetime | None = None
    event_name: str | None = None
    org_id: int | None = None
    status: str | None = None
    unique_id: str | None = None
