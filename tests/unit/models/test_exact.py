"""The bounds of amounts, and sums that never round, whatever the ambient decimal context."""

from __future__ import annotations

import decimal
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capillary_async.models.exact import bounded, exact_sum


@pytest.mark.parametrize(
    ("text", "within"),
    [
        ("0", True),
        ("-12.500", True),
        ("9" * 100, True),
        ("9" * 101, False),
        ("1E+100", True),
        ("1E+101", False),
        ("1E-100", True),
        ("1E-101", False),
        ("NaN", False),
        ("Infinity", False),
    ],
)
def test_an_amount_has_a_hundred_digits_and_an_exponent_within_a_hundred(text: str, *, within: bool) -> None:
    """Beyond that a number is no amount; pyarrow ends the process over such ones."""
    assert bounded(Decimal(text)) is within


@given(st.lists(st.integers(-(10**99), 10**99), max_size=20))
def test_a_sum_is_exact_in_any_context(thousandths: list[int]) -> None:
    """The ambient context has three digits here, and rounds without a word."""
    amounts = [Decimal(one).scaleb(-3, decimal.Context(prec=200)) for one in thousandths]
    with decimal.localcontext(prec=3, traps=[]):
        total = exact_sum(iter(amounts))
    assert total == Decimal(sum(thousandths)).scaleb(-3, decimal.Context(prec=200))


def test_a_sum_that_does_not_fit_is_an_error() -> None:
    """Of what is no amount."""
    with pytest.raises(decimal.Inexact):
        exact_sum([Decimal("1E+10000"), Decimal(1)])
