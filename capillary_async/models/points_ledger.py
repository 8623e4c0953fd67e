"""`LedgerEvent`: one event of the points ledger, and the objects in it.

Invariant: pure data under the wire's own names in snake_case, nothing is dropped: members unknown to this release stay
in `extra`. Filled by `_codec`, which reads the fields' metadata; imports nothing of ours.

The source of every class here is the API page "Get Points Ledger Explode Info". All of them have in common:

- Any field may be absent or null, then it is None. Null entries of a list are left out.
- A field ending in `_iso` is an aware time in the server's zone. Its twin without the ending is the page's older text
  in the server's local time; the page announces its end.
- Quantities of points and money are Decimals, exact as on the wire, whether it had a number or a text there.
- `extra` holds the members that this release does not know, under their wire names, numbers with fractions as Decimals.
  It counts in `==` and not in `hash()`.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from attrs import field, frozen

from capillary_async.models._record import LeanRecord

__all__ = [
    "AlternateCurrencyEarned",
    "AlternateCurrencyEarnedBreakup",
    "BehavioralEventMetadata",
    "BehavioralField",
    "BehavioralFieldAttribute",
    "BillDetails",
    "CustomField",
    "EarnedPoints",
    "EarnedPointsBreakup",
    "EventDetails",
    "LedgerEvent",
    "LineItem",
    "ManualPointsAdjustment",
    "PointInTimeSlab",
    "PointsDeduction",
    "PointsEarned",
    "PointsEarnedBreakup",
    "RedemptionDetails",
    "TargetCompleted",
]

# The metadata of a field, which `_codec` reads:
#   wire       the member's name, if it is not the field's name in camelCase
#   text       the wire has this Decimal as text
#   twin       the member that has the same quantity as text, which is exact where the number may not be
#   lone       the page says "Object" where its samples show an array: one object alone is taken for an array of one
#   bare       a value of any kind, which may come alone in the place of its object
#   either     the page says "Array" where its samples show an object: what comes is kept, one or several
_TEXT = {"text": True}
_LONE = {"lone": True}
_EITHER = {"either": True}
_BARE = {"bare": True}


# The tables behind `pointAwardedRefType`; the names of the promotion tables are inferred.
_AWARD_TABLES = {
    "POINT_AWARDED": "points_awarded",
    "POINT_AWARDED_LINEITEM": "points_awarded_bill_lineitems",
    "POINT_AWARDED_BILL_PROMOTION": "points_awarded_bill_promotions",
    "POINT_AWARDED_LINEITEM_PROMOTION": "points_awarded_lineitem_promotions",
    "POINT_AWARDED_CUSTOMER_PROMOTION": "points_awarded_customer_promotions",
}


def _no_extra() -> dict[str, Any]:
    """An empty `extra`, one for each record."""
    return {}


def _several(value: Any) -> tuple[Any, ...]:
    """One, several or none, as a tuple."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)  # pyright: ignore[reportUnknownVariableType]


@frozen(kw_only=True, repr=False)
class EarnedPoints(LeanRecord):
    """Points earned, an entry of `regular`, `promo` or `promised` of `PointsEarned`.

    Attributes:
        promotion_id: The promotion, in `promo`.
        promotion_name: Its name.
        program_id: The loyalty program.
        program_name: Its name.
        value: Points earned.
        expires_on: When they expire, server-local text.
        expires_on_iso: When they expire.
        expiry_type: `fixed`, ...
        promotion_start_date: When the promotion starts, server-local text.
        promotion_end_date: When it ends, server-local text.
        conversion_date: When promised points become points, in `promised`, as it came: the page shows no sample of it.
        is_transferable: Whether promised points may be transferred, in `promised`; the page shows no sample of it.
        extra: Members unknown to this release.
    """

    promotion_id: int | None = None
    promotion_name: str | None = None
    program_id: int | None = None
    program_name: str | None = None
    value: Decimal | None = None
    expires_on: str | None = None
    expires_on_iso: datetime | None = None
    expiry_type: str | None = None
    promotion_start_date: str | None = None
    promotion_end_date: str | None = None
    conversion_date: int | str | None = None
    is_transferable: bool | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class PointsEarned(LeanRecord):
    """Points earned by an event, by kind.

    Attributes:
        regular: Points of the program itself.
        promo: Points of promotions.
        promised: Points promised, not yet given.
        extra: Members unknown to this release.
    """

    regular: tuple[EarnedPoints, ...] | None = None
    promo: tuple[EarnedPoints, ...] | None = None
    promised: tuple[EarnedPoints, ...] | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class EarnedPointsBreakup(LeanRecord):
    """Points earned, with where they come from: an entry of `PointsEarnedBreakup`.

    Attributes:
        value: Points earned.
        expires_on: When they expire, server-local text.
        expires_on_iso: When they expire.
        awarded_on: When they were awarded, server-local text.
        awarded_on_iso: When they were awarded; its offset may be another than the server's.
        source_value: The value of the source that earned them, e.g. points or money.
        program_id: The loyalty program.
        program_name: Its name.
        allocation_strategy_id: The strategy that allocated the points.
        allocation_strategy_name: Its name.
        points_category_id: The category under which the points fall.
        points_category_name: Its name.
        expiry_strategy_id: The strategy that set the expiry.
        expiry_strategy_name: Its name.
        expiry_type: `fixed`, ...
        extra: Members unknown to this release.
    """

    value: Decimal | None = None
    expires_on: str | None = None
    expires_on_iso: datetime | None = None
    awarded_on: str | None = None
    awarded_on_iso: datetime | None = None
    source_value: Decimal | None = None
    program_id: int | None = None
    program_name: str | None = None
    allocation_strategy_id: int | None = None
    allocation_strategy_name: str | None = None
    points_category_id: int | None = None
    points_category_name: str | None = None
    expiry_strategy_id: int | None = None
    expiry_strategy_name: str | None = None
    expiry_type: str | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class PointsEarnedBreakup(LeanRecord):
    """Points earned with their sources, by kind; comes with `LedgerInclude(points_earned_breakup=True)`.

    Attributes:
        regular: Points of the program itself.
        promised: Points promised, not yet given.
        extra: Members unknown to this release.
    """

    regular: tuple[EarnedPointsBreakup, ...] | None = None
    promised: tuple[EarnedPointsBreakup, ...] | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class AlternateCurrencyEarned(LeanRecord):
    """Amounts that a bill earned in one alternate currency, by kind.

    Attributes:
        regular: Amounts of the program itself, in the alternate currency.
        promo: Amounts of promotions.
        promised: Amounts promised, not yet given.
        alternate_currency_name: The currency's name.
        alternate_currency_identifier: Its identifier, e.g. `P7d8Br`.
        extra: Members unknown to this release.
    """

    regular: tuple[EarnedPoints, ...] | None = None
    promo: tuple[EarnedPoints, ...] | None = None
    promised: tuple[EarnedPoints, ...] | None = None
    alternate_currency_name: str | None = None
    alternate_currency_identifier: str | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class AlternateCurrencyEarnedBreakup(LeanRecord):
    """Amounts that a bill earned in one alternate currency, with their sources.

    Attributes:
        regular: Amounts of the program itself, in the alternate currency.
        promised: Amounts promised, not yet given.
        alternate_currency_name: The currency's name.
        alternate_currency_identifier: Its identifier, e.g. `P7d8Br`.
        extra: Members unknown to this release.
    """

    regular: tuple[EarnedPointsBreakup, ...] | None = None
    promised: tuple[EarnedPointsBreakup, ...] | None = None
    alternate_currency_name: str | None = None
    alternate_currency_identifier: str | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class RedemptionDetails(LeanRecord):
    """A redemption of points.

    Attributes:
        points_redeemed: Points redeemed; the wire has them as text, e.g. "20.000".
        redemption_purpose: The purpose.
        transaction_number: The bill on which they were redeemed.
        billing_time: The bill's time, server-local text.
        billing_time_iso: The bill's time.
        redemption_id: The redemption's own id, e.g. `evjan8`.
        notes: A free text.
        group_redemption: Whether a group redeemed.
        extra: Members unknown to this release.
    """

    points_redeemed: Decimal | None = field(default=None, metadata=_TEXT)
    redemption_purpose: str | None = None
    transaction_number: str | None = None
    billing_time: str | None = None
    billing_time_iso: datetime | None = None
    redemption_id: str | None = None
    notes: str | None = None
    group_redemption: bool | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class EventDetails(LeanRecord):
    """The time, the place and the reason of an event.

    Attributes:
        event_time: The event's time, server-local text.
        event_time_iso: The event's time.
        event_display_name: The event's display name, e.g. `CupSeries2024`.
        till_id: The till that recorded it.
        comments: Comments given with goodwill points.
        assoc_id: The Intouch user who issued the goodwill points.
        display_name: The name to display.
        reason: Why goodwill points were issued, e.g. `POINTS_ISSUE`.
        request_id: The request for goodwill points.
        redemption_details: The redemption. The page says "Array" and its samples show one object: this is the object,
            or a tuple where an array came; `redemptions` is always a tuple.
        max_conversion_date: See `BillDetails.max_conversion_date`.
        extra: Members unknown to this release.
    """

    event_time: str | None = None
    event_time_iso: datetime | None = None
    event_display_name: str | None = None
    till_id: int | None = None
    comments: str | None = None
    assoc_id: int | None = None
    display_name: str | None = None
    reason: str | None = None
    request_id: int | None = None
    redemption_details: RedemptionDetails | tuple[RedemptionDetails, ...] | None = field(default=None, metadata=_EITHER)
    max_conversion_date: int | str | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)

    @property
    def redemptions(self) -> tuple[RedemptionDetails, ...]:
        """`redemption_details` as a tuple, empty where there are none."""
        return _several(self.redemption_details)


@frozen(kw_only=True, repr=False)
class TargetCompleted(LeanRecord):
    """A target that the customer completed.

    Attributes:
        target_group_id: The target group (`targetGroupID`); the page says String, its samples show a number: kept as it
            came.
        target_group_name: Its name.
        target_id: The target.
        target_name: Its name.
        target_description: Its description.
        target_period_id: The target's period (`targetPeriodID`).
        target_period_name: Its name, e.g. `Cycle_4`.
        target_value: The value to reach; the wire has it as text, e.g. "1000.000".
        achieved_value: The value that was reached; text on the wire.
        trigger_value: The value that triggered the milestone; text on the wire.
        source_id: The source of the target.
        source_type: `MILESTONE`, `STREAKS`, `UNIFIED`, `USERTARGET`, ...
        points_earned: Points earned by it.
        mile_stone_name: The milestone's name (`mileStoneName`).
        extra: Members unknown to this release.
    """

    target_group_id: int | str | None = field(default=None, metadata={"wire": "targetGroupID"})
    target_group_name: str | None = None
    target_id: int | None = None
    target_name: str | None = None
    target_description: str | None = None
    target_period_id: int | None = field(default=None, metadata={"wire": "targetPeriodID"})
    target_period_name: str | None = None
    target_value: Decimal | None = field(default=None, metadata=_TEXT)
    achieved_value: Decimal | None = field(default=None, metadata=_TEXT)
    trigger_value: Decimal | None = field(default=None, metadata=_TEXT)
    source_id: int | None = None
    source_type: str | None = None
    points_earned: PointsEarned | None = None
    mile_stone_name: str | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class BehavioralFieldAttribute(LeanRecord):
    """An attribute of a field of a behavioral event, e.g. `isRequired`.

    Attributes:
        value_type: `BOOLEAN`, `ENUM`, ...
        value: The value as text, e.g. "false"; numbers with their digits, arrays and objects as JSON.
        extra: Members unknown to this release.
    """

    value_type: str | None = None
    value: str | None = field(default=None, metadata=_BARE)
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class BehavioralField(LeanRecord):
    """A field of a behavioral event.

    Attributes:
        field_name: The field's name, e.g. `stepsWalked`.
        field_type: Its type, e.g. `double`.
        attributes: Its attributes by their wire names, e.g. `isUniqueKeyField`. It counts in `==` and not in `hash()`.
        extra: Members unknown to this release.
    """

    field_name: str | None = None
    field_type: str | None = None
    attributes: Mapping[str, BehavioralFieldAttribute | None] | None = field(default=None, hash=False)
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class BehavioralEventMetadata(LeanRecord):
    """The fields of a behavioral event.

    Attributes:
        label: The event's label, e.g. `CUP SERIES CHECK-IN`.
        fields: Its fields.
        extra: Members unknown to this release.
    """

    label: str | None = None
    fields: tuple[BehavioralField, ...] | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class LineItem(LeanRecord):
    """A line of a bill.

    Attributes:
        id: The line's own id.
        item_code: The item, e.g. an SKU.
        source: `instore`, ...
        gross_amount: Money before discount.
        discount: Money taken off.
        amount: Money to pay.
        rate: Money for one piece.
        qty: Pieces.
        extra: Members unknown to this release.
    """

    id: int | None = None
    item_code: str | None = None
    source: str | None = None
    gross_amount: Decimal | None = None
    discount: Decimal | None = None
    amount: Decimal | None = None
    rate: Decimal | None = None
    qty: Decimal | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class BillDetails(LeanRecord):
    """The bill of a transaction; comes with `LedgerInclude(bill_details=True)`.

    Attributes:
        type: The kind of transaction, e.g. `loyalty`.
        bill_number: The bill's number, set when the transaction was added.
        gross_amount: Money before discount.
        discount: Money taken off.
        bill_amount: Money of the whole bill.
        note: A free text.
        source: `instore`, ...
        bill_date: The bill's time, server-local text.
        bill_date_iso: The bill's time.
        return_date: When the goods were returned, server-local text.
        return_date_iso: When the goods were returned.
        return_amount: Money of the return.
        return_type: `AMOUNT`, `FULL`, `LINE_ITEM`, `CANCELLED`.
        return_bill_id: The return transaction.
        points_earned: Points earned by the bill.
        points_earned_breakup: The same with their sources.
        alternate_currency_value_earned: Amounts earned in alternate currencies.
        alternate_currency_value_earned_breakup: The same with their sources.
        line_items: The bill's lines.
        max_conversion_date: The latest of the lines' delayed-accrual dates
            (`LedgerInclude(max_conversion_details=True)`), as it came: the page shows no sample of it.
        extra: Members unknown to this release.
    """

    type: str | None = None
    bill_number: str | None = None
    gross_amount: Decimal | None = None
    discount: Decimal | None = None
    bill_amount: Decimal | None = None
    note: str | None = None
    source: str | None = None
    bill_date: str | None = None
    bill_date_iso: datetime | None = None
    return_date: str | None = None
    return_date_iso: datetime | None = None
    return_amount: Decimal | None = None
    return_type: str | None = None
    return_bill_id: int | None = None
    points_earned: PointsEarned | None = None
    points_earned_breakup: PointsEarnedBreakup | None = None
    alternate_currency_value_earned: tuple[AlternateCurrencyEarned, ...] | None = None
    alternate_currency_value_earned_breakup: tuple[AlternateCurrencyEarnedBreakup, ...] | None = None
    line_items: tuple[LineItem, ...] | None = field(default=None, metadata=_LONE)
    max_conversion_date: int | str | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class CustomField(LeanRecord):
    """A custom field of a transaction.

    Attributes:
        name: The field's name.
        value: Its value, of the type configured for it; numbers with fractions are Decimals. It counts in `==` and not
            in `hash()`.
        extra: Members unknown to this release.
    """

    name: str | None = None
    value: Any = field(default=None, hash=False)
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class PointInTimeSlab(LeanRecord):
    """The tier of the customer at the event.

    Attributes:
        point_in_time_slab_number: The tier's number.
        point_in_time_slab_name: The tier's name, e.g. `SILVER`.
        program_id: The loyalty program.
        is_default_program: Whether it is the organisation's default program.
        extra: Members unknown to this release.
    """

    point_in_time_slab_number: int | None = None
    point_in_time_slab_name: str | None = None
    program_id: int | None = None
    is_default_program: bool | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class PointsDeduction(LeanRecord):
    """One deduction of a manual adjustment.

    The wire has two quantities twice, as a number and as text. Where the text came it is the value of both fields,
    since the number may have gone through a binary float on the server.

    Attributes:
        customer_id: The customer who lost the points.
        loyalty_id: The customer's loyalty id.
        program_id: The loyalty program.
        program_name: Its name.
        promotion_id: The promotion of the deducted points.
        promotion_name: Its name.
        point_awarded_ref_type: How the points had been awarded, e.g. `POINT_AWARDED_CUSTOMER_PROMOTION`.
        point_awarded_ref_id: The award: its `id` in the table that `point_awarded_ref_type` names; see `award_key`.
        deduction_type: `MANUAL_ADJUSTMENT`, ...
        points_deducted: Points deducted.
        points_deducted_str: The same as the text that came.
        points_deducted_currency_value: Money that the points are worth.
        points_deducted_currency_value_str: The same as the text that came.
        points_deducted_on: When, server-local text.
        points_deducted_on_iso: When.
        points_deducted_by: The user who deducted them.
        points_deducted_by_id: That user's id.
        source_type: The cause, e.g. `Bill`.
        awarded_till_id: The till that had awarded the points.
        awarded_till_date: When they had been awarded, server-local text.
        awarded_till_date_iso: When they had been awarded.
        extra: Members unknown to this release.
    """

    customer_id: int | None = None
    loyalty_id: int | None = None
    program_id: int | None = None
    program_name: str | None = None
    promotion_id: int | None = None
    promotion_name: str | None = None
    point_awarded_ref_type: str | None = None
    point_awarded_ref_id: int | None = None
    deduction_type: str | None = None
    points_deducted: Decimal | None = field(default=None, metadata={"twin": "pointsDeductedStr"})
    points_deducted_str: str | None = None
    points_deducted_currency_value: Decimal | None = field(
        default=None, metadata={"twin": "pointsDeductedCurrencyValueStr"}
    )
    points_deducted_currency_value_str: str | None = None
    points_deducted_on: str | None = None
    points_deducted_on_iso: datetime | None = None
    points_deducted_by: str | None = None
    points_deducted_by_id: int | None = None
    source_type: str | None = None
    awarded_till_id: int | None = None
    awarded_till_date: str | None = None
    awarded_till_date_iso: datetime | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)

    @property
    def award_key(self) -> tuple[str, int] | None:
        """The `(source_table, id)` of the award that the points were taken from; None where that is unknown.

        `POINT_AWARDED` names the table `points_awarded`, and its longer forms the other four [inferred]. Three of these
        are promotion tables, which no endpoint shows.
        """
        table = _AWARD_TABLES.get(self.point_awarded_ref_type or "")
        return None if table is None or self.point_awarded_ref_id is None else (table, self.point_awarded_ref_id)


@frozen(kw_only=True, repr=False)
class ManualPointsAdjustment(LeanRecord):
    """A manual adjustment of points.

    Attributes:
        org_id: The organisation.
        customer_id: The customer of the points.
        total_points_deducted: Points deducted in all; the wire has them as text, e.g. "100.000".
        created_on: When, server-local text.
        created_on_iso: When.
        reason: Why.
        points_deduction_break_up_details: The single deductions.
        extra: Members unknown to this release.
    """

    org_id: int | None = None
    customer_id: int | None = None
    total_points_deducted: Decimal | None = field(default=None, metadata=_TEXT)
    created_on: str | None = None
    created_on_iso: datetime | None = None
    reason: str | None = None
    points_deduction_break_up_details: tuple[PointsDeduction, ...] | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)


@frozen(kw_only=True, repr=False)
class LedgerEvent(LeanRecord):
    """One event of the points ledger. Its key is `(event_log_id, unique_id)`.

    Attributes:
        event_log_id: The event's id: the `event_log_id` of allocations and awards, and not the `id` of a loyalty event.
        event_name: `TransactionAdd`, `PointsRedemption`, ...: one of `EventName` or another.
        event_details: Its time, place and reason.
        target_completed_details: The completed target. The page says "Array" and its samples show one object: this is
            the object, or a tuple where an array came; `targets_completed` is always a tuple.
        points_earned: Points earned by the event.
        points_earned_breakup: The same with their sources.
        points_breakup: Entries as they came: the page's samples show empty arrays only.
        behavioral_event_metadata: The fields of a behavioral event.
        bill_details: The bill of a transaction.
        custom_fields: The brand's custom fields of the transaction.
        extended_fields: The brand's extended fields, entries as they came: the page's samples show empty arrays only.
        payment_modes: The payment modes used, entries as they came: the page's samples show empty arrays only.
        point_in_time_slabs: The tiers of the customer at the event.
        manual_points_adjustment_details: A manual adjustment.
        max_conversion_date: See `BillDetails.max_conversion_date`; the page does not say where it is. Servers have
            it in `event_details`, as far as is known.
        event_reference_id: The transaction or request of the event; "-1" if there is none. For transactions the
            `points_source_id` of allocations [inferred]. One request may have several event log ids.
        event_reference_ids: As it came; one sample of the page has this name with a placeholder.
        unique_id: The reference of this event; also the `unique_id` of the loyalty event [inferred].
        extra: Members unknown to this release.

    Fields whose entries are kept as they came count in `==` and not in `hash()`.
    """

    _derived: ClassVar[tuple[str, ...]] = ("targets_completed",)

    event_log_id: int | None = None
    event_name: str | None = None
    event_details: EventDetails | None = None
    target_completed_details: TargetCompleted | tuple[TargetCompleted, ...] | None = field(
        default=None, metadata=_EITHER
    )
    points_earned: PointsEarned | None = None
    points_earned_breakup: PointsEarnedBreakup | None = None
    points_breakup: tuple[Any, ...] | None = field(default=None, hash=False, metadata=_LONE)
    behavioral_event_metadata: BehavioralEventMetadata | None = None
    bill_details: BillDetails | None = None
    custom_fields: tuple[CustomField, ...] | None = field(default=None, metadata=_LONE)
    extended_fields: tuple[Any, ...] | None = field(default=None, hash=False, metadata=_LONE)
    payment_modes: tuple[Any, ...] | None = field(default=None, hash=False, metadata=_LONE)
    point_in_time_slabs: tuple[PointInTimeSlab, ...] | None = None
    manual_points_adjustment_details: ManualPointsAdjustment | None = None
    max_conversion_date: int | str | None = None
    event_reference_id: str | None = None
    event_reference_ids: Any = field(default=None, hash=False)
    unique_id: str | None = None
    extra: Mapping[str, Any] = field(factory=_no_extra, hash=False)

    @property
    def targets_completed(self) -> tuple[TargetCompleted, ...]:
        """`target_completed_details` as a tuple, empty where there are none."""
        return _several(self.target_completed_details)
