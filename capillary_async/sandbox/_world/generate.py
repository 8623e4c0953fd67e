"""Generates one customer from a seed: the events of its life, and the awards and deductions that they made.

Invariant: what an event says of an award agrees with the award's own columns, and the same place and seed give the same
customer. `_world/steps.py` says which events there are; `_world/awarding.py` makes the rows. `_world/world.py` calls
`generate`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from capillary_async.sandbox._world.awarding import Awards, Origin, deduction
from capillary_async.sandbox._world.records import (
    BILL_PROMOTIONS,
    CHANGED_CATEGORY_ID,
    CUSTOMER_PROMOTIONS,
    LINE_PROMOTIONS,
    NO_EVENT,
    ORG_ID,
    PROMISED_CATEGORY_ID,
    TODAY,
    Award,
    Customer,
    Deduction,
    Event,
    iso,
)
from capillary_async.sandbox._world.seeded_random import SeededRandom
from capillary_async.sandbox._world.series import EVENT_LOG, LOYALTY_EVENTS, TARGETS, TRANSACTIONS
from capillary_async.sandbox._world.steps import TRANSACTIONAL, Mark, Step, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capillary_async.sandbox._world.awarding import Settled
    from capillary_async.sandbox._world.series import CustomerSlot

__all__ = ["generate"]

_FIRST_EVENT = datetime(2023, 1, 1, tzinfo=UTC)
_SPAN_SECONDS = int((TODAY - _FIRST_EVENT).total_seconds()) - 86_400
_TILLS = (50140377, 50137565, 75155297, 75152721, 50671937)
_PROMOTIONS = (1133572888, 1133595541)
_PROMOTED = {
    "AllocateGoodwillPoints": CUSTOMER_PROMOTIONS,
    "TargetCompleted": CUSTOMER_PROMOTIONS,
    "CustomerPromotionImport": CUSTOMER_PROMOTIONS,
    "BillPointsPromotionImport": BILL_PROMOTIONS,
    "LineItemsPointsPromotionImport": LINE_PROMOTIONS,
}
_NOTHING_TAKEN = Step("CustomerUpdate", 12)


def generate(seed: int, place: CustomerSlot) -> Customer:
    """Generate the customer of this slot; the same seed gives the same customer."""
    rng = SeededRandom(f"{seed}:{place.customer_id}")
    plan = tuple(steps(rng, place))
    builder = CustomerBuilder(rng, place)
    for nth, step in enumerate(plan, start=1):
        builder.add(nth, len(plan), step)
    return builder.customer()


class CustomerBuilder:
    """The parts of a customer that are generated so far."""

    def __init__(self, rng: SeededRandom, place: CustomerSlot) -> None:
        self._rng, self._place = rng, place
        self._awards = Awards(rng, place)
        self._events: list[Event] = []
        self._promised: Award | None = None
        self._reversed: tuple[Deduction, ...] = ()

    def customer(self) -> Customer:
        """Return the customer."""
        return Customer(self._place.customer_id, tuple(self._awards.made), tuple(self._events))

    def add(self, nth: int, of: int, step: Step) -> None:
        """Add one event with its awards and deductions."""
        rng, place = self._rng, self._place
        gap = _SPAN_SECONDS // of
        moment = int(_FIRST_EVENT.timestamp()) + gap * (nth - 1) + rng.below(gap)
        unique_id, till = rng.text(10), rng.pick(_TILLS)
        taken = self._taken(step)
        if taken is None:
            step, taken = _NOTHING_TAKEN, ()
        reference = self._reference(step, nth)
        transaction = step.name in TRANSACTIONAL or step.name == "DelayedAccrual"
        origin = Origin(
            log_id=place.number(EVENT_LOG, nth),
            type_id=step.type_id,
            moment=moment,
            till=till,
            source_id=int(reference) if transaction else rng.pick(_PROMOTIONS),
            source_type=1 if transaction else 2,
        )
        made = tuple(self._made(step, origin, taken))
        row = {
            "id": place.number(LOYALTY_EVENTS, nth),
            "customerId": place.customer_id,
            "date": iso(moment),
            "eventName": step.name,
            "orgId": ORG_ID,
            "status": "SUCCESS",
            "uniqueId": unique_id,
        }
        self._events.append(Event(row, step.type_id, reference, till, origin.log_id, made, taken))

    def _reference(self, step: Step, nth: int) -> str:
        """The transaction or request of the event, in the forms of the page Get Points Ledger Explode Info."""
        if step.mark in {Mark.CONVERTS, Mark.SAME_REQUEST}:
            return self._events[-1].reference
        if step.name in {"AllocateGoodwillPoints", "ManualPointsAdjustment"}:
            return str(NO_EVENT)
        if step.name in {"PointsRedemption", "PointsRedemptionReversal"}:
            return str(self._place.customer_id)
        if step.name == "TargetCompleted":
            return str(self._place.number(TARGETS, nth))
        if step.name in TRANSACTIONAL:
            return str(self._place.number(TRANSACTIONS, nth))
        text = self._rng.text(20).lower()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:]}-{nth:06d}"

    # -- what events take

    def _taken(self, step: Step) -> tuple[Deduction, ...] | None:
        """Return the deductions of the event; None if it needs some and no points are left."""
        awards, rng = self._awards, self._rng
        if step.mark is Mark.REVERSED:
            self._reversed = awards.available.take(rng, "REDEEMED")
            return self._reversed or None
        if step.mark is Mark.REVERSES:
            return tuple(_with_kind(each, "REDEMPTION_REVERSAL") for each in self._reversed) or None
        if step.mark is Mark.SENDS:
            return (deduction("REDEEMED_BY_TRANSFER", awards.made[0], self._place.sent),)
        if step.mark is Mark.CONVERTS and self._promised is not None:
            return (deduction("REDEEMED_BY_CONVERSION", self._promised, int(self._promised.points * 1000)),)
        pools = {
            "PointsRedemption": ("REDEEMED", awards.redeemed),
            "ManualPointsAdjustment": ("MANUAL_ADJUSTMENT", awards.redeemed),
            "ReturnBill": ("RETURN", awards.returned),
        }
        if step.name not in pools or step.mark is Mark.SPENT_BEFORE:
            return ()
        kind, pool = pools[step.name]
        return pool.take(rng, kind) or None

    # -- what events award

    def _made(self, step: Step, origin: Origin, taken: tuple[Deduction, ...]) -> Iterator[Award]:
        awards, place = self._awards, self._place
        if step.mark is Mark.CONVERTS and taken:
            yield from self._with_twin(awards.points(origin, int(taken[0].points * 1000)), origin)
            return
        for nth in range(step.rows):
            sends = step.mark is Mark.TO_BE_SENT and not nth
            award = awards.points(origin, 2 * place.sent, _half_gone) if sends else awards.points(origin)
            yield from self._with_twin(award, origin)
        if step.mark is Mark.RECEIVES:
            yield awards.promotion(origin, CUSTOMER_PROMOTIONS, place.received, _kept)
        elif step.mark is Mark.SPENT_BEFORE:
            # The bill's promotion was spent before the bill came back: the row has no value and redeemed points.
            yield awards.promotion(origin, BILL_PROMOTIONS, 0, self._spent_before)
        elif step.name in _PROMOTED:
            yield awards.promotion(origin, _PROMOTED[step.name])
        elif step.rows and step.name in TRANSACTIONAL:
            yield from self._beside(step, origin)

    def _with_twin(self, award: Award, origin: Origin) -> Iterator[Award]:
        """Return the award, and its replacement if its category was changed."""
        yield award
        if award.status == "POINT_CATEGORY_CHANGED":
            yield self._awards.points(origin, int(award.points * 1000), _kept, CHANGED_CATEGORY_ID)

    def _beside(self, step: Step, origin: Origin) -> Iterator[Award]:
        """Return the further awards of a bill: line items, a promotion, promised points."""
        awards, rng = self._awards, self._rng
        for _ in range(rng.pick((0, 0, 1, 2, 3))):
            yield awards.line_item(origin)
        if rng.chance(0.2):
            yield awards.promotion(origin, rng.pick((BILL_PROMOTIONS, LINE_PROMOTIONS)))
        if step.mark in {Mark.PROMISES, Mark.CONVERTED}:
            settle = _converted if step.mark is Mark.CONVERTED else _kept
            self._promised = awards.points(origin, None, settle, PROMISED_CATEGORY_ID)
            yield self._promised

    def _spent_before(self, alive: bool, points: int) -> Settled:  # noqa: ARG002, FBT001 - as `Awards` calls it
        return "REDEEMED", 1000 * self._rng.between(1, 300), 0, 0


def _with_kind(taken: Deduction, kind: str) -> Deduction:
    return Deduction(kind, taken.table, taken.award_id, taken.points)


def _half_gone(alive: bool, points: int) -> Settled:  # noqa: FBT001 - as `Awards` calls it
    """One half was transferred."""
    half = points // 2
    return ("AVAILABLE", half, 0, 0) if alive else ("CONSUMED", half, 0, points - half)


def _kept(alive: bool, points: int) -> Settled:  # noqa: FBT001 - as `Awards` calls it
    return ("AVAILABLE", 0, 0, 0) if alive else ("EXPIRED", 0, 0, points)


def _converted(alive: bool, points: int) -> Settled:  # noqa: ARG001, FBT001 - as `Awards` calls it
    return "CONSUMED_BY_CONVERSION", points, 0, 0
