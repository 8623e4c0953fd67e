"""What `points_awarded.ids` gives: one award of points to a customer.

The rule kept here: pure data under the wire's own names; any field may be absent or null, then it is None. Filled by
`_decode`; imports nothing of ours.
"""

from decimal import Decimal

from attrs import frozen

from capillary_async.models._record import Record

__all__ = ["PointsAwarded"]


@frozen(kw_only=True, repr=False)
class PointsAwarded(Record):
    """One award of points (API page "Get points awarded ID").

    Its key is `(source_table, id)`: ids are unique in their table only.

    Attributes:
        id: The `pointsAwardedId`, unique in `source_table`.
        source_table: The table the award stands in, one of `SourceTable` or another.
        customer_id: Whose points these are.
        event_log_id: The event that awarded them.
        points_exclusive: Points earned by this award.
        redeemed_exclusive_value: Points of this award that were redeemed.
        returned_exclusive_value: Points of this award that were taken back with returned goods.
        expired_exclusive_value: Points of this award that expired.
    """

    # In the order of the wire: msgspec finds the next member first where it stands next.
    redeemed_exclusive_value: Decimal | None = None
    returned_exclusive_value: Decimal | None = None
    event_log_id: int | None = None
    id: int | None = None
    customer_id: int | None = None
    source_table: str | None = None
    points_exclusive: Decimal | None = None
    expired_exclusive_value: Decimal | None = None
