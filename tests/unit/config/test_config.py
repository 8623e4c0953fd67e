"""Settings: their defaults are the design's, and what cannot work is refused by name when it is made."""

import math
import pickle
from fractions import Fraction
from typing import Any

import attrs
import pytest

from capillary_async import Limits, Paging, Rate, RetryPolicy, Timeouts


def test_the_defaults_are_those_of_the_design():
    assert attrs.astuple(Timeouts()) == (10, 30, 60, 180)
    assert attrs.astuple(Limits()) == (32, 8, None)
    assert attrs.astuple(RetryPolicy()) == (5, 0.2, 1.0, 20, 120, 500)
    assert attrs.astuple(Paging()) == (100, 4, False)
    assert attrs.astuple(Rate(100, per=60)) == (100, 60, None)


SECONDS = [(Timeouts, name) for name in ("connect", "read", "attempt", "call")]
WAITS = [(RetryPolicy, name) for name in ("backoff", "throttle_backoff", "backoff_max", "retry_after_max")]
COUNTS = [(Limits, "concurrency"), (Limits, "concurrency_start"), (RetryPolicy, "attempts"), (Paging, "page_size")]
COUNTS_FROM_ZERO = [(RetryPolicy, "quota"), (Paging, "prefetch")]
NO_NUMBERS: list[Any] = [None, "1", True, [], 1j, Fraction(1, 2)]


@pytest.mark.parametrize("value", [-1, -0.1, math.nan, math.inf, -math.inf, *NO_NUMBERS], ids=str)
@pytest.mark.parametrize(("kind", "name"), [*SECONDS, *WAITS])
def test_seconds_are_finite_numbers(kind: type, name: str, value: Any):
    """An endless timeout is no timeout; True is no second."""
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.{name} takes a finite number of seconds, .*, got "):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), SECONDS)
def test_no_timeout_is_zero(kind: type, name: str):
    with pytest.raises(ValueError, match="more than zero, got 0"):
        kind(**{name: 0})
    assert getattr(kind(**{name: 0.001}), name) == 0.001


@pytest.mark.parametrize(("kind", "name"), WAITS)
def test_a_wait_may_be_zero(kind: type, name: str):
    assert getattr(kind(**{name: 0}), name) == 0


@pytest.mark.parametrize("value", [-1, 1.0, math.nan, *NO_NUMBERS], ids=str)
@pytest.mark.parametrize(("kind", "name"), [*COUNTS, *COUNTS_FROM_ZERO])
def test_counts_are_whole_numbers(kind: type, name: str, value: Any):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.{name} takes a whole number of at least \d, got "):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), COUNTS)
def test_some_counts_start_at_one(kind: type, name: str):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        kind(**{name: 0})
    assert getattr(kind(**{name: 1}), name) == 1


@pytest.mark.parametrize(("kind", "name"), COUNTS_FROM_ZERO)
def test_others_at_zero(kind: type, name: str):
    assert getattr(kind(**{name: 0}), name) == 0


@pytest.mark.parametrize(("permits", "per"), [(0, 1), (1.5, 1), (True, 1), (1, 0), (1, math.inf), (1, "60")])
def test_a_rate_is_a_whole_number_in_some_seconds(permits: Any, per: Any):
    with pytest.raises(ValueError, match=r"Rate\.(permits|per) takes"):
        Rate(permits, per=per)


@pytest.mark.parametrize("value", [100, (100, 60), "100/min", 0])
def test_a_limit_takes_a_rate_and_no_number(value: Any):
    with pytest.raises(ValueError, match=r"Limits\.rate takes a Rate or None, e\.g\. Rate\(100, per=60\), got"):
        Limits(rate=value)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_verify_is_a_flag(value: Any):
    with pytest.raises(ValueError, match=r"Paging\.verify takes True or False"):
        Paging(verify=value)


@pytest.mark.parametrize(
    "one", [Timeouts(read=5), Limits(rate=Rate(1, 2)), RetryPolicy(quota=0), Paging(verify=True)], ids=repr
)
def test_settings_are_values(one: Any):
    """Equal by content, usable as keys, picklable, not changed in place, and checked again when evolved."""
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert {one: 1}[attrs.evolve(one)] == 1
    name = attrs.fields(type(one))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(one, name, 1)
    with pytest.raises(ValueError, match="takes"):
        attrs.evolve(one, **{name: -1})


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError):
        RetryPolicy(retries=3)  # type: ignore[call-arg]
