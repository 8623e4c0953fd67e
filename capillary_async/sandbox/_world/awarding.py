"""Makes awards: rows of the five award tables, and the allocations of those in `points_awarded`.

Invariant: amounts are whole thousandths until they become a Decimal, and add up: points are those redeemed, returned,
expired and remaining, as the status says. `_world/generate.py` makes the awards of a customer through one `Awards`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import attrs

from capillary_async.sandbox._world.records import (
    BILL_PROMOTIONS,
    CUSTOMER_PROMOTIONS,
    IST,
    LINE_PROMOTIONS,
    LINE_TABLE,
    NO_EVENT,
    ORG_ID,
    POINT_CATEGORY_ID,
    POINTS_TABLE,
    PROGRAM_ID,
    Award,
    Deduction,
    Row,
    amount,
    epoch_ms,
)
from capillary_async.sandbox._world.series import AWARDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async.sandbox._world.seeded_random import SeededRandom
    from capillary_async.sandbox._world.series import CustomerSlot

__all__ = ["Awards", "Origin", "Settled", "amount_with_decimals", "deduction", "quantity"]

Settled = tuple[str, int, int, int]  # status, redeemed, returned, expired
# Rows of these days and later have no event log id now and then.
_NEWER = int(datetime(2025, 7, 1, tzinfo=UTC).timestamp())
_TABLES: tuple[str, ...] = (POINTS_TABLE, LINE_TABLE, BILL_PROMOTIONS, LINE_PROMOTIONS, CUSTOMER_PROMOTIONS)


@attrs.frozen
class Origin:
    """The values that the rows of an event share.

    Attributes:
        log_id: Its event log id.
        type_id: Its type.
        moment: When it happened, in epoch seconds.
        till: Where.
        source_id: The transaction that earned the points, or the promotion.
        source_type: 1 for a transaction, 2 for anything else.
    """

    log_id: int
    type_id: int
    moment: int
    till: int
    source_id: int
    source_type: int


@attrs.define
class _Pool:
    """Points of awards that a later event may take: `[award, thousandths]`."""

    left: list[tuple[Award, int]] = attrs.field(factory=list[tuple[Award, int]])

    def put(self, award: Award, thousandths: int) -> None:
        if thousandths:
            self.left.append((award, thousandths))

    def take(self, rng: SeededRandom, kind: str) -> tuple[Deduction, ...]:
        """Take from the oldest one or two awards; nothing if none is left."""
        taken: list[Deduction] = []
        for _ in range(min(1 + rng.below(2), len(self.left))):
            award, points = self.left.pop(0)
            part = points if rng.chance(0.7) else 1 + rng.below(points)
            taken.append(deduction(kind, award, part))
            self.put(award, points - part)
        return tuple(taken)


def deduction(kind: str, award: Award, thousandths: int) -> Deduction:
    """Points taken from an award."""
    return Deduction(kind, award.table, award.row["id"], amount_with_decimals(thousandths))


class Awards:
    """The awards of one customer so far.

    Attributes:
        made: All of them.
        redeemed, returned: What of their points was redeemed and returned, and no event is said to have done it yet.
        available: Points that are still there, of rows that have not expired.
    """

    def __init__(self, rng: SeededRandom, place: CustomerSlot) -> None:
        self._rng, self._place = rng, place
        self.made: list[Award] = []
        self.redeemed, self.returned, self.available = _Pool(), _Pool(), _Pool()
        self._per_table: dict[str, int] = dict.fromkeys(_TABLES, 0)
        self._main = 0

    def points(
        self,
        origin: Origin,
        points: int | None = None,
        settle: Callable[[bool, int], Settled] | None = None,
        category: int = POINT_CATEGORY_ID,
    ) -> Award:
        """A row of `points_awarded`, which is an allocation too."""
        rng = self._rng
        points, plain, expiry = points or quantity(rng), rng.chance(0.5), _expiry(rng, origin.moment)
        settled = self._settled(points, expiry, settle)
        shared = _exclusive(points, settled, plain=plain)
        known = self._known(POINTS_TABLE, origin)
        # In the pages' samples the inclusive columns are 0 beside exclusive points.
        twins = _twins(shared) if rng.chance(0.3) else dict.fromkeys(_twins(shared), 0)
        row = self._allocation(origin, category) | shared | twins
        row |= {each: known[each] for each in ("id", "event_log_id", "customer_id")}
        row |= {"expiry_date": expiry, "status": settled[0]}
        award = Award(shared | known, settled[0], PROGRAM_ID, category, ORG_ID, expiry, row)
        return self._add(award, points, settled, pooled=settle is None)

    def line_item(self, origin: Origin) -> Award:
        """A row of `points_awarded_bill_lineitems`: no allocation shows it."""
        rng = self._rng
        points, plain, expiry = quantity(rng), rng.chance(0.5), _expiry(rng, origin.moment)
        settled = self._settled(points, expiry, None)
        row = _exclusive(points, settled, plain=plain) | self._known(LINE_TABLE, origin)
        award = Award(row, settled[0], PROGRAM_ID, POINT_CATEGORY_ID, ORG_ID, expiry)
        return self._add(award, points, settled)

    def promotion(
        self,
        origin: Origin,
        table: str,
        points: int | None = None,
        settle: Callable[[bool, int], Settled] | None = None,
    ) -> Award:
        """A row of a promotion table: inclusive columns alone, and no endpoint shows it."""
        rng = self._rng
        points = quantity(rng) if points is None else points
        plain, expiry = rng.chance(0.5), _expiry(rng, origin.moment)
        settled = self._settled(points, expiry, settle)
        names = ("points_value", "redeemed_value", "returned_value", "expired_value")
        values = (amount(each, plain=plain) for each in (points, *settled[1:]))
        row = dict(zip(names, values, strict=True)) | self._known(table, origin)
        award = Award(row, settled[0], PROGRAM_ID, POINT_CATEGORY_ID, ORG_ID, expiry)
        return self._add(award, points, settled, pooled=settle is None)

    def _settled(self, points: int, expiry: int, settle: Callable[[bool, int], Settled] | None) -> Settled:
        alive = expiry > self._place.today
        return _settle(self._rng, points, alive=alive) if settle is None else settle(alive, points)

    def _add(self, award: Award, points: int, settled: Settled, *, pooled: bool = True) -> Award:
        status, redeemed, returned, expired = settled
        self.made.append(award)
        if pooled and status != "CONSUMED_BY_CONVERSION":
            self.redeemed.put(award, redeemed)
            self.returned.put(award, returned)
        if status == "AVAILABLE":
            self.available.put(award, points - redeemed - returned - expired)
        return award

    def _known(self, table: str, origin: Origin) -> Row:
        self._per_table[table] += 1
        newer = origin.moment >= _NEWER and self._rng.chance(0.04)
        return {
            "id": self._place.number(AWARDS, self._per_table[table]),
            "customer_id": self._place.customer_id,
            "event_log_id": NO_EVENT if newer else origin.log_id,
            "source_table": table,
        }

    def _allocation(self, origin: Origin, category: int) -> Row:
        place = self._place
        self._main += category == POINT_CATEGORY_ID
        moved = place.merged_id is not None and self._main % 3 == 0
        return {
            "till_id": origin.till,
            "point_category_id": category,
            "program_id": PROGRAM_ID,
            "event_type_id": origin.type_id,
            "points_source_type_id": origin.source_type,
            "awarded_date": origin.moment * 1000,
            "points_source_id": origin.source_id,
            "cps_id": 80_537_000 + place.index,
            "original_customer_id": place.merged_id if moved else place.customer_id,
            "expiry_strategy_id": self._rng.pick((105462, 105602)),
            "allocation_strategy_id": self._rng.pick((105594, 105773)),
            "auto_update_time": origin.moment * 1000 + self._rng.between(1, 60) * 1000,
            "org_id": ORG_ID,
        }


def amount_with_decimals(thousandths: int) -> Decimal:
    """A quantity with three decimals."""
    return Decimal(amount(thousandths, plain=False))


def _exclusive(points: int, settled: Settled, *, plain: bool) -> Row:
    names = ("points_exclusive", "redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")
    values = (amount(each, plain=plain) for each in (points, *settled[1:]))
    return dict(zip(names, values, strict=True))


def _twins(shared: Row) -> Row:
    return {
        "points_value": shared["points_exclusive"],
        "original_points": shared["points_exclusive"],
        "redeemed_value": shared["redeemed_exclusive_value"],
        "returned_value": shared["returned_exclusive_value"],
        "expired_value": shared["expired_exclusive_value"],
    }


def quantity(rng: SeededRandom) -> int:
    """Thousandths of a point: many whole, most with up to three decimals, once in a while millions of points."""
    thousandths = rng.between(5, 2_000_000_000 if rng.chance(0.002) else 2_000_000)
    return max(thousandths // 1000, 1) * 1000 if rng.chance(0.4) else thousandths


def _expiry(rng: SeededRandom, moment: int) -> int:
    """The last second of a day in IST, as in the pages' samples."""
    day = datetime.fromtimestamp(moment, IST) + timedelta(days=rng.between(30, 900))
    return epoch_ms(day.replace(hour=23, minute=59, second=59))


def _settle(rng: SeededRandom, points: int, *, alive: bool) -> Settled:
    """Split the points by their fate; the rest remains.

    EXPIRED: all expired. REDEEMED: fully redeemed. CONSUMED: part redeemed, part expired. A partial return stays
    AVAILABLE.
    """
    if rng.chance(0.6):
        used = rng.below(points - 1) if rng.chance(0.4) else 0
        returned = rng.below(used + 1) if alive else 0
        if alive:
            return "AVAILABLE", used - returned, returned, 0
        return ("CONSUMED", used, 0, points - used) if used else ("EXPIRED", 0, 0, points)
    status = rng.pick(_SPENT)
    if status in {"REDEEMED", "CONSUMED_BY_CONVERSION"}:
        return status, points, 0, 0
    return status, 0, points if status == "RETURNED" else 0, 0


_SPENT = (
    *("REDEEMED",) * 8,
    *("RETURNED",) * 3,
    "CONSUMED_BY_CONVERSION",
    "INACTIVE",
    "POINT_CATEGORY_CHANGED",
)
