"""The bounds of amounts, and sums that never round.

Invariant: one rule for records, tables, digests and sums. An amount has at most 100 digits and an exponent within ±100;
within that, `EXACT` adds millions of amounts without rounding. Read by the decoder, the models, the jobs and the
command line; imports nothing of ours.
"""

from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation, localcontext
from typing import Final

__all__ = ["EXACT", "LARGEST_EXPONENT", "MOST_DIGITS", "PARSING", "bounded", "exact_sum"]

MOST_DIGITS: Final = 100
LARGEST_EXPONENT: Final = 100  # also as a negative one: 1E-101 is refused as 1E+101 is

# The ambient context may round to 28 digits or fewer. This one never rounds: amounts within the bounds span at most 300
# digits, so that a sum that does not fit 10,000 holds something that is no amount, and raises.
EXACT: Final = Context(prec=10_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])
# `Decimal(text, PARSING)` keeps all digits, and raises where an ambient context without the trap would give NaN.
PARSING: Final = Context(traps=[InvalidOperation])
_ZERO: Final = Decimal(0)


def bounded(amount: Decimal) -> bool:
    """Whether a Decimal is finite, has at most 100 digits and an exponent within ±100.

    Example:
        >>> bounded(Decimal("1234.500")), bounded(Decimal("1E-9999999")), bounded(Decimal("NaN"))
        (True, False, False)
    """
    if amount.is_finite() and len(text := str(amount)) <= MOST_DIGITS and "E" not in text and "e" not in text:
        return True  # written out, as nearly all are: a third of the time
    _, digits, exponent = amount.as_tuple()
    return isinstance(exponent, int) and abs(exponent) <= LARGEST_EXPONENT and len(digits) <= MOST_DIGITS


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """The sum, whatever the ambient decimal context would round.

    Raises:
        decimal.Inexact: The sum does not fit 10,000 digits: one of them is out of bounds.
    """
    with localcontext(EXACT):  # half the time of `EXACT.add` for each
        return sum(amounts, _ZERO)
