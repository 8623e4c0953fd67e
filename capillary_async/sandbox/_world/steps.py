"""The plan of a customer's life: which events it has, in the order of time, and how many allocations each makes.

Invariant: the allocations of the main category are as many as the place says, whatever else happens.
`_world/generate.py` turns each step into an event.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capillary_async.sandbox._world.seeded_random import SeededRandom
    from capillary_async.sandbox._world.series import CustomerSlot

__all__ = ["TRANSACTIONAL", "Mark", "Step", "steps"]

_WHALE_BILL = 150  # one event of a whale has allocations over more than one page of 100


class Mark(Enum):
    """The special property of a step."""

    PROMISES = auto()  # the bill leaves promised points
    CONVERTED = auto()  # the same, and the next step converts them
    CONVERTS = auto()  # promised points become points of the main category
    SAME_REQUEST = auto()  # a second event log id of the request before
    REVERSED = auto()  # a redemption that the next step takes back
    REVERSES = auto()
    TO_BE_SENT = auto()  # the first of its points are half transferred by the next step
    SENDS = auto()
    RECEIVES = auto()
    SPENT_BEFORE = auto()  # a bill comes back after its promotion points were spent


@attrs.frozen
class Step:
    """One event to come.

    Attributes:
        name, type_id: The event's.
        rows: How many allocations of the main category it makes.
        mark: What is special about it.
    """

    name: str
    type_id: int
    rows: int = 0
    mark: Mark | None = None


# Their reference is a transaction id; that of other events is a request id, or none.
TRANSACTIONAL = frozenset(
    {
        *("NewBill", "TransactionAdd", "GroupTransactionAdd", "ReturnBill", "VoucherRedemption"),
        *("LineItemsPointsPromotionImport", "BillPointsPromotionImport"),
    }
)
_BILLS = (
    ("TransactionAdd", 15),
    ("TransactionAdd", 15),
    ("TransactionAdd", 15),
    ("NewBill", 1),
    ("GroupTransactionAdd", 18),
)
_BEHAVIOUR = ("GenericEvent", 23)
_OTHER = (
    Step("CustomerUpdate", 12),
    Step("PointsRedemption", 3),
    Step("PointsRedemption", 3),
    Step("PointsRedemption", 3, mark=Mark.REVERSED),
    Step("ReturnBill", 5),
    Step("ReturnBill", 5, mark=Mark.SPENT_BEFORE),
    Step("VoucherRedemption", 4),
    Step("ManualPointsAdjustment", 75),
    Step("PointsExpiry", 34),
    Step("AllocateGoodwillPoints", 32),
    Step("TargetCompleted", 25),
    Step("BillPointsPromotionImport", 47),
    Step("CustomerPromotionImport", 46),
    Step("LineItemsPointsPromotionImport", 50),
)
_REVERSAL = Step("PointsRedemptionReversal", 26, mark=Mark.REVERSES)
_CONVERSION = Step("DelayedAccrual", 16, 1, Mark.CONVERTS)


def steps(rng: SeededRandom, place: CustomerSlot) -> Iterator[Step]:
    """The customer's events in order."""
    if place.events:
        yield Step("CustomerRegistration", 2)
    if place.received:
        yield Step("PointsTransfer", 24, mark=Mark.RECEIVES)
    left = place.rows
    first = min(left, _WHALE_BILL) if place.rows > 10 * _WHALE_BILL else 0
    if place.sent and left:
        yield Step(*_BILLS[0], first or 1, Mark.TO_BE_SENT)
        yield Step("PointsTransfer", 24, mark=Mark.SENDS)
        left, first = left - (first or 1), 0
    while left > 0:
        if rng.chance(0.3):
            yield from _other(rng)
        size = first or min(left, rng.pick((1, 1, 1, 2, 2, 3, 4)))
        left, first = left - size, 0
        for step in _earning(rng, size, left):
            yield step
            left -= step.rows if step.mark in {Mark.CONVERTS, Mark.SAME_REQUEST} else 0
    for _ in range(rng.below(3) if place.events else 0):
        yield from _other(rng)


def _other(rng: SeededRandom) -> Iterator[Step]:
    """An event that makes no allocation."""
    step = rng.pick(_OTHER)
    yield step
    if step.mark is Mark.REVERSED:
        yield _REVERSAL


def _earning(rng: SeededRandom, size: int, left: int) -> Iterator[Step]:
    """An event that makes allocations, and what follows from it where more are due."""
    if rng.chance(0.15):
        yield Step(*_BEHAVIOUR, size)
        if left and rng.chance(0.3):
            yield Step(*_BEHAVIOUR, 1, Mark.SAME_REQUEST)
        return
    mark = Mark.CONVERTED if left and rng.chance(0.12) else Mark.PROMISES if rng.chance(0.08) else None
    yield Step(*rng.pick(_BILLS), size, mark)
    if mark is Mark.CONVERTED:
        yield _CONVERSION
