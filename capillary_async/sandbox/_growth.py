"""Growing one customer from a seed: awards, their allocations, and the loyalty events that made them.

The rule kept here: amounts are whole thousandths until they become a Decimal, and add up: exclusive points are those
redeemed, returned, expired and still there. `_world.py` calls `grow` with the place of the customer.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from capillary_async.sandbox._dice import Dice
from capillary_async.sandbox._records import (
    BILL_TABLE,
    IST,
    ORG_ID,
    POINT_CATEGORY_ID,
    POINTS_TABLE,
    PROGRAM_ID,
    TODAY,
    Award,
    Customer,
    Event,
    Row,
    amount,
    epoch_ms,
    iso,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BLOCK", "Place", "grow"]

_FIRST_EVENT = datetime(2023, 1, 1, tzinfo=UTC)
_SPAN_SECONDS = int((TODAY - _FIRST_EVENT).total_seconds()) - 86_400
# Ids are beyond 32 bits, as on the real service. Both award tables count from one start: an id may stand in both.
BLOCK = 100_000
_EVENT_IDS, _AWARD_IDS, _ALLOCATION_IDS, _BILL_IDS = 6_345_100_000, 37_195_400_000, 71_388_500_000, 21_515_800_000
_TILLS = (50140377, 50137565, 75155297, 75152721, 50671937)
_WHALE_BILL = 150  # one event of a whale has allocations over more than one page of 100

_AWARDING = (
    ("TransactionAdd", 15, BILL_TABLE),
    ("TransactionAdd", 15, BILL_TABLE),
    ("TransactionAdd", 15, BILL_TABLE),
    ("NewBill", 1, BILL_TABLE),
    ("GroupTransactionAdd", 18, BILL_TABLE),
    ("LineItemsPointsPromotionImport", 50, BILL_TABLE),
    ("GenericEvent", 23, POINTS_TABLE),
    ("AllocateGoodwillPoints", 32, POINTS_TABLE),
    ("TargetCompleted", 25, POINTS_TABLE),
    ("BillPointsPromotionImport", 47, POINTS_TABLE),
    ("CustomerPromotionImport", 46, POINTS_TABLE),
)
_REGISTRATION = ("CustomerRegistration", 2, POINTS_TABLE)
_OTHER = (
    ("CustomerUpdate", 12, POINTS_TABLE),
    ("PointsRedemption", 3, POINTS_TABLE),
    ("ReturnBill", 5, POINTS_TABLE),
    ("VoucherRedemption", 4, POINTS_TABLE),
    ("ManualPointsAdjustment", 75, POINTS_TABLE),
    ("PointsExpiry", 34, POINTS_TABLE),
    ("PointsTransfer", 24, POINTS_TABLE),
)


@attrs.frozen
class Place:
    """Where a customer stands in the world.

    Attributes:
        customer_id: The id.
        index: Its place among the ordinary customers, from 0.
        rows: How many allocations it has.
        events: Whether it has loyalty events of its own.
        merged_id: The customer that was merged into it, if any.
    """

    customer_id: int
    index: int
    rows: int
    events: bool = True
    merged_id: int | None = None

    def number(self, start: int, nth: int) -> int:
        """An id that no other customer has."""
        return start + self.index * BLOCK + nth


def grow(seed: int, place: Place) -> Customer:
    """The customer of this place; the same for the same seed, always."""
    dice = Dice(f"{seed}:{place.customer_id}")
    plans = tuple(_plan(dice, place))
    grown = _Grown(dice, place)
    for nth, (kind, rows) in enumerate(plans, start=1):
        grown.add(nth, len(plans), kind, rows)
    return grown.customer()


def _plan(dice: Dice, place: Place) -> Iterator[tuple[tuple[str, int, str], int]]:
    """The customer's events in order, each with its number of awards."""
    if place.events:
        yield _REGISTRATION, 0
    left = place.rows
    first = min(left, _WHALE_BILL) if place.rows > 10 * _WHALE_BILL else 0
    while left > 0:
        if dice.chance(0.3):
            yield dice.pick(_OTHER), 0
        size = first or min(left, dice.pick((1, 1, 1, 2, 2, 3, 4)))
        yield dice.pick(_AWARDING[:3] if first else _AWARDING), size
        left, first = left - size, 0
    for _ in range(dice.below(3) if place.events else 0):
        yield dice.pick(_OTHER), 0


class _Grown:
    """What has grown so far."""

    def __init__(self, dice: Dice, place: Place) -> None:
        self._dice, self._place = dice, place
        self._allocations: list[Row] = []
        self._awards: list[Award] = []
        self._events: list[Event] = []
        self._per_table = {POINTS_TABLE: 0, BILL_TABLE: 0}

    def customer(self) -> Customer:
        """All of it."""
        awards = sorted(self._awards, key=lambda award: str(award.row["source_table"]))
        return Customer(self._place.customer_id, tuple(self._allocations), tuple(awards), tuple(self._events))

    def add(self, nth: int, of: int, kind: tuple[str, int, str], rows: int) -> None:
        """One event with its awards."""
        dice, place = self._dice, self._place
        name, type_id, table = kind
        event_id = place.number(_EVENT_IDS, nth)
        gap = _SPAN_SECONDS // of
        moment = int(_FIRST_EVENT.timestamp()) + gap * (nth - 1) + dice.below(gap)
        unique_id, till = dice.text(10), dice.pick(_TILLS)
        made = tuple(self._award(event_id, type_id, table, moment, till) for _ in range(rows))
        row = {
            "id": event_id,
            "customerId": place.customer_id,
            "date": iso(moment),
            "eventName": name,
            "orgId": ORG_ID,
            "status": "SUCCESS",
            "uniqueId": unique_id,
        }
        self._events.append(Event(row, type_id, self._reference(name, nth), till, made))

    def _reference(self, name: str, nth: int) -> str:
        if name == "GenericEvent":
            text = self._dice.text(20).lower()
            return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:]}-{nth:06d}"
        if name in {"AllocateGoodwillPoints", "ManualPointsAdjustment"}:
            return "-1"
        return str(self._place.number(_BILL_IDS, nth))

    def _award(self, event_id: int, type_id: int, table: str, moment: int, till: int) -> Row:
        """One award and its allocation; they share the quantities and the event."""
        dice, place = self._dice, self._place
        plain = dice.chance(0.5)
        exclusive = _quantity(dice)
        expiry = _expiry(dice, moment)
        status, redeemed, returned, lapsed = _settle(dice, exclusive, alive=expiry > epoch_ms(TODAY))
        shared = {
            "points_exclusive": amount(exclusive, plain=plain),
            "redeemed_exclusive_value": amount(redeemed, plain=plain),
            "returned_exclusive_value": amount(returned, plain=plain),
            "expired_exclusive_value": amount(lapsed, plain=plain),
        }
        self._per_table[table] += 1
        award_id = place.number(_AWARD_IDS, self._per_table[table])
        known = {"id": award_id, "customer_id": place.customer_id, "event_log_id": event_id, "source_table": table}
        self._awards.append(Award(shared | known, status, PROGRAM_ID, POINT_CATEGORY_ID, ORG_ID, expiry))
        # A promotion's points have no value beside the exclusive one, as in the pages' samples.
        twins = _twins(shared) if table == BILL_TABLE else dict.fromkeys(_twins(shared), 0)
        row = self._allocation(event_id, type_id, moment, till) | shared | twins
        row |= {"points_source_id": award_id, "expiry_date": expiry, "status": status}
        self._allocations.append(row)
        return row

    def _allocation(self, event_id: int, type_id: int, moment: int, till: int) -> Row:
        place, nth = self._place, len(self._allocations) + 1
        moved = place.merged_id is not None and nth % 3 == 0
        return {
            "id": place.number(_ALLOCATION_IDS, nth),
            "till_id": till,
            "point_category_id": POINT_CATEGORY_ID,
            "program_id": PROGRAM_ID,
            "event_log_id": event_id,
            "event_type_id": type_id,
            "points_source_type_id": self._dice.between(1, 3),
            "awarded_date": moment * 1000,
            "cps_id": 80_537_000 + place.index,
            "original_customer_id": place.merged_id if moved else place.customer_id,
            "customer_id": place.customer_id,
            "expiry_strategy_id": self._dice.pick((105462, 105602)),
            "allocation_strategy_id": self._dice.pick((105594, 105773)),
            "auto_update_time": moment * 1000 + self._dice.between(1, 60) * 1000,
            "org_id": ORG_ID,
        }


def _twins(shared: Row) -> Row:
    return {
        "points_value": shared["points_exclusive"],
        "original_points": shared["points_exclusive"],
        "redeemed_value": shared["redeemed_exclusive_value"],
        "returned_value": shared["returned_exclusive_value"],
        "expired_value": shared["expired_exclusive_value"],
    }


def _quantity(dice: Dice) -> int:
    """Thousandths of a point: many whole, most with up to three decimals, once in a while millions of points."""
    thousandths = dice.between(5, 2_000_000_000 if dice.chance(0.002) else 2_000_000)
    return max(thousandths // 1000, 1) * 1000 if dice.chance(0.4) else thousandths


def _expiry(dice: Dice, moment: int) -> int:
    """The last second of a day in IST, as in the pages' samples."""
    day = datetime.fromtimestamp(moment, IST) + timedelta(days=dice.between(30, 900))
    return epoch_ms(day.replace(hour=23, minute=59, second=59))


def _settle(dice: Dice, exclusive: int, *, alive: bool) -> tuple[str, int, int, int]:
    """What became of the points: status, redeemed, returned, expired; the rest is still there."""
    if dice.chance(0.6):
        used = dice.below(exclusive - 1) if dice.chance(0.4) else 0
        returned = dice.below(used + 1) if alive else 0
        return ("AVAILABLE", used - returned, returned, 0) if alive else ("EXPIRED", used, 0, exclusive - used)
    status = dice.pick(_SPENT)
    if status == "CONSUMED":
        returned = dice.between(1, exclusive - 1)
        return status, exclusive - returned, returned, 0
    if status in {"REDEEMED", "CONSUMED_BY_CONVERSION"}:
        return status, exclusive, 0, 0
    return status, 0, exclusive if status == "RETURNED" else 0, 0


_SPENT = (
    *("REDEEMED",) * 6,
    *("CONSUMED",) * 3,
    *("RETURNED",) * 2,
    "CONSUMED_BY_CONVERSION",
    "INACTIVE",
    "POINT_CATEGORY_CHANGED",
)
