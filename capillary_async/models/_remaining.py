"""Points that remain after deductions, exact.

Invariant: nothing is rounded, and a missing amount is not taken for zero. Used by the records of allocations and
awards.
"""

from decimal import Decimal

from capillary_async.models.exact import EXACT

__all__ = ["remaining"]


def remaining(points: Decimal | None, *deductions: Decimal | None) -> Decimal | None:
    """The points minus all deductions; None where any of them is unknown."""
    left = points
    for gone in deductions:
        if left is None or gone is None:
            return None
        left = EXACT.subtract(left, gone)
    return left
