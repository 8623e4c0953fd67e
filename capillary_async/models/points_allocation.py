"""`PointsAllocation`: one allocation of points to a customer.

Invariant: pure data under the wire's own names, exact; derived values are properties and never rounded. Filled by
`_codec`.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Literal

from attrs import field, frozen

from capillary_async.models._record import Record
from capillary_async.models._remaining import remaining

__all__ = ["PointsAllocation"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _epoch() -> Any:
    """A field of epoch milliseconds, for which services write ISO 8601 text too."""
    return field(default=None, metadata={"epoch": True})


def _utc(milliseconds: int | None) -> datetime | None:
    """Epoch milliseconds as an aware time, without the error of float seconds."""
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)


@frozen(kw_only=True, repr=False)
class PointsAllocation(Record):
    """One allocation of points.

    API pages "Get Point Allocation Details by Event ID" and "Get Allocated Points Details with Expiry in Specified Date
    Range". All points are Decimal, exact as on the wire; any field may be absent or null, then it is None.

    Allocations are rows of the award table `points_awarded` alone [inferred]: line items and the points of promotions
    are in four other tables, so sums over allocations are no balances.

    Attributes:
        id: The allocation's own id, its key; also the `id` of an award whose `source_table` is `points_awarded`
            [inferred].
        customer_id: The customer who has the points.
        original_customer_id: The customer before a merge or update.
        org_id: The organisation.
        program_id: The loyalty program.
        point_category_id: The category under which the points fall.
        status: `AVAILABLE`, `EXPIRED`, ...: one of `PointsStatus` or another.
        event_log_id: The event log entry that recorded the transaction: the ledger's `event_log_id`. It is not the `id`
            of a loyalty event. -1 in newer rows without one.
        event_type_id: The kind of event, one of `EventType` or another number.
        till_id: The store or till of the transaction.
        points_source_id: The entity that awarded the points: for transactions the transaction id, which is the
            ledger's `event_reference_id` [inferred].
        points_source_type_id: The kind of that entity.
        cps_id: The customer points summary; the page calls it the customer program state.
        allocation_strategy_id: The strategy that allocated the points.
        expiry_strategy_id: The strategy that set the expiry.
        awarded_date: When the points were awarded, epoch milliseconds; see `awarded_at`.
        expiry_date: When they expire, epoch milliseconds; see `expires_at`.
        auto_update_time: When the entry last changed, epoch milliseconds; see `updated_at`.
        original_points: Points first awarded.
        points_value: Total points awarded; 0 beside exclusive points in the pages' samples.
        points_exclusive: Exclusive points issued by this allocation; never changes. See `remaining`.
        redeemed_value: Points redeemed.
        redeemed_exclusive_value: Exclusive points redeemed.
        returned_value: Points returned.
        returned_exclusive_value: Exclusive points returned.
        expired_value: Points expired.
        expired_exclusive_value: Exclusive points expired.
    """

    WIRE_CASE: ClassVar[Literal["camel", "snake"]] = "snake"
    _derived: ClassVar[tuple[str, ...]] = ("awarded_at", "expires_at", "updated_at", "remaining")

    # In the order of the wire: msgspec finds a member first where it comes next.
    till_id: int | None = None
    point_category_id: int | None = None
    program_id: int | None = None
    event_log_id: int | None = None
    event_type_id: int | None = None
    points_source_type_id: int | None = None
    original_points: Decimal | None = None
    awarded_date: int | None = _epoch()
    returned_exclusive_value: Decimal | None = None
    points_source_id: int | None = None
    id: int | None = None
    cps_id: int | None = None
    original_customer_id: int | None = None
    expiry_strategy_id: int | None = None
    returned_value: Decimal | None = None
    redeemed_exclusive_value: Decimal | None = None
    expiry_date: int | None = _epoch()
    auto_update_time: int | None = _epoch()
    redeemed_value: Decimal | None = None
    expired_exclusive_value: Decimal | None = None
    allocation_strategy_id: int | None = None
    points_value: Decimal | None = None
    org_id: int | None = None
    expired_value: Decimal | None = None
    customer_id: int | None = None
    points_exclusive: Decimal | None = None
    status: str | None = None

    @property
    def awarded_at(self) -> datetime | None:
        """When the points were awarded, in UTC. OverflowError for a time outside the years 1 to 9999."""
        return _utc(self.awarded_date)

    @property
    def expires_at(self) -> datetime | None:
        """When the points expire, in UTC. Servers mean the end of a local day, so the UTC *date* may be another one."""
        return _utc(self.expiry_date)

    @property
    def updated_at(self) -> datetime | None:
        """When the entry last changed, in UTC. OverflowError for a time outside the years 1 to 9999."""
        return _utc(self.auto_update_time)

    @property
    def remaining(self) -> Decimal | None:
        """Exclusive points less the redeemed, returned and expired exclusive ones, never rounded.

        Points that can be spent are the sum of `remaining` over AVAILABLE rows; `points_exclusive` is what was issued
        and never changes. A row of another status may have points left that cannot be spent.

        None if the server left out any of the four: a missing deduction taken for zero would invent points.
        """
        return remaining(
            self.points_exclusive,
            self.redeemed_exclusive_value,
            self.returned_exclusive_value,
            self.expired_exclusive_value,
        )
