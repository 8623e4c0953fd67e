"""`PointsAwarded`: one award of points to a customer.

Invariant: pure data under the wire's own names; any field may be absent or null, then it is None; derived values
are properties and never rounded. Filled by `_codec`.
"""

from decimal import Decimal
from typing import ClassVar, Literal

from attrs import frozen

from capillary_async.models._record import Record
from capillary_async.models._remaining import remaining

__all__ = ["PointsAwarded"]


@frozen(kw_only=True, repr=False)
class PointsAwarded(Record):
    """One award of points (API page "Get points awarded ID").

    Its key is `(source_table, id)`: ids are unique in their table only. The page shows two of five award tables, so
    sums over awards are no balances.

    Attributes:
        id: The `pointsAwardedId`, unique in `source_table`; in `points_awarded` it is the `id` of the allocation
            [inferred].
        source_table: The table of the award, one of `SourceTable` or another.
        customer_id: The customer who has the points.
        event_log_id: The event that awarded them: the ledger's `event_log_id`. It is not the `id` of a loyalty event.
            -1 in newer rows without one.
        points_exclusive: Points issued by this award; never changes. See `remaining`.
        redeemed_exclusive_value: Points of this award that were redeemed.
        returned_exclusive_value: Points of this award that were taken back with returned goods.
        expired_exclusive_value: Points of this award that expired.
    """

    WIRE_CASE: ClassVar[Literal["camel", "snake"]] = "snake"
    _derived: ClassVar[tuple[str, ...]] = ("remaining",)

    # In the order of the wire: msgspec finds a member first where it comes next.
    redeemed_exclusive_value: Decimal | None = None
    returned_exclusive_value: Decimal | None = None
    event_log_id: int | None = None
    id: int | None = None
    customer_id: int | None = None
    source_table: str | None = None
    points_exclusive: Decimal | None = None
    expired_exclusive_value: Decimal | None = None

    @property
    def remaining(self) -> Decimal | None:
        """Exclusive points less the redeemed, returned and expired exclusive ones, never rounded.

        Points that can be spent are the sum of `remaining` over the awards of the status AVAILABLE.

        None if the server left out any of the four. The promotion tables have inclusive columns alone, which this
        endpoint does not document: a row of theirs without the exclusive columns has no known remaining points.
        """
        return remaining(
            self.points_exclusive,
            self.redeemed_exclusive_value,
            self.returned_exclusive_value,
            self.expired_exclusive_value,
        )
