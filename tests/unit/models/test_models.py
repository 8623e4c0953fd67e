"""The records themselves: frozen, hashable, picklable, exact, and documented field by field."""

import decimal
import inspect
import pickle
import re
from datetime import UTC, datetime
from decimal import Decimal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capillary_async import models
from capillary_async.models import (
    BehavioralField,
    BehavioralFieldAttribute,
    CustomField,
    EventDetails,
    LedgerEvent,
    PointsAllocation,
    PointsAwarded,
    RedemptionDetails,
    TargetCompleted,
)

FIXED = settings(derandomize=True, database=None, deadline=None)
CLASSES = [one for one in (getattr(models, name) for name in models.__all__) if attrs.has(one)]


def allocation(exclusive: object, redeemed: object = 0, returned: object = 0, expired: object = 0) -> PointsAllocation:
    values = [None if value is None else Decimal(str(value)) for value in (exclusive, redeemed, returned, expired)]
    return PointsAllocation(
        points_exclusive=values[0],
        redeemed_exclusive_value=values[1],
        returned_exclusive_value=values[2],
        expired_exclusive_value=values[3],
    )


def test_public_names_are_sorted_and_exist():
    assert models.__all__ == sorted(models.__all__)
    assert all(hasattr(models, name) for name in models.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_has_a_sentence(cls: type):
    documented = re.findall(r"^ {4}(\w+): ", inspect.getdoc(cls) or "", re.MULTILINE)
    assert sorted(documented) == sorted(one.name for one in attrs.fields(cls))


@pytest.mark.parametrize("cls", CLASSES)
def test_a_record_of_nothing_is_a_value(cls: type):
    record = cls()
    assert record == cls()
    assert hash(record) == hash(cls())
    assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301
    assert not hasattr(record, "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.id = 1
    assert all(value in (None, {}) for value in attrs.asdict(record).values())


@pytest.mark.parametrize("cls", CLASSES)
def test_fields_are_given_by_name(cls: type):
    with pytest.raises(TypeError):
        cls(1)


def test_fields_of_the_neo_pages():
    assert len(attrs.fields(PointsAllocation)) == 27
    assert len(attrs.fields(PointsAwarded)) == 8


def test_derived_times_are_exact_and_aware():
    record = PointsAllocation(awarded_date=1735309787001, expiry_date=1766687399000, auto_update_time=-1)
    assert record.awarded_at == datetime(2024, 12, 27, 14, 29, 47, 1000, tzinfo=UTC)
    assert record.expires_at == datetime(2025, 12, 25, 18, 29, 59, tzinfo=UTC)
    assert record.updated_at == datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
    assert PointsAllocation().awarded_at is PointsAllocation().expires_at is PointsAllocation().updated_at is None


def test_a_time_beyond_the_calendar_is_an_overflow():
    with pytest.raises(OverflowError):
        _ = PointsAllocation(expiry_date=10**30).expires_at


@FIXED
@given(st.integers(min_value=-62135596800000, max_value=253402300799999))
def test_derived_times_keep_each_millisecond(milliseconds: int):
    time = PointsAllocation(awarded_date=milliseconds).awarded_at
    assert time is not None
    seconds, rest = divmod(milliseconds, 1000)
    assert (time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1 == seconds
    assert time.microsecond == rest * 1000


def test_remaining_is_exclusive_less_what_is_gone():
    assert allocation("100.125", 20, "0.005", 30).remaining == Decimal("50.120")


@pytest.mark.parametrize("missing", range(4))
def test_remaining_is_unknown_where_a_part_is(missing: int):
    parts = [100, 0, 0, 0]
    assert allocation(*[None if index == missing else part for index, part in enumerate(parts)]).remaining is None


def test_remaining_does_not_round_in_a_narrow_context():
    with decimal.localcontext(prec=3, traps=[]):
        record = allocation("12345678901234567890.123", "0.001")
        assert str(record.remaining) == "12345678901234567890.122"


def test_remaining_raises_where_no_sum_is_exact():
    with pytest.raises(decimal.Inexact):
        _ = allocation("1E+999999999", "0.001").remaining


@FIXED
@given(st.lists(st.integers(-(10**40), 10**40), min_size=4, max_size=4))
def test_remaining_is_exact_for_any_thousandths(parts: list[int]):
    left = allocation(*[Decimal(part).scaleb(-3, decimal.Context(prec=60)) for part in parts]).remaining
    assert left is not None
    assert left.scaleb(3, decimal.Context(prec=60)) == parts[0] - parts[1] - parts[2] - parts[3]


def test_what_may_be_one_or_several_is_always_a_tuple_in_its_property():
    redemption, target = RedemptionDetails(redemption_id="a"), TargetCompleted(target_id=1)
    assert EventDetails().redemptions == LedgerEvent().targets_completed == ()
    assert EventDetails(redemption_details=redemption).redemptions == (redemption,)
    assert EventDetails(redemption_details=(redemption, redemption)).redemptions == (redemption, redemption)
    assert LedgerEvent(target_completed_details=target).targets_completed == (target,)


def test_members_kept_as_they_came_count_in_equality_and_not_in_the_hash():
    one, other = CustomField(name="a", value=["x"]), CustomField(name="a", value=["y"])
    assert one != other
    assert hash(one) == hash(other)
    assert LedgerEvent(extra={"a": 1}) != LedgerEvent()
    assert hash(LedgerEvent(extra={"a": [1]}, payment_modes=({"a": 1},))) == hash(LedgerEvent())
    assert hash(BehavioralField(attributes={"a": BehavioralFieldAttribute()})) == hash(BehavioralField())


def test_records_of_one_class_share_no_extra():
    assert LedgerEvent().extra is not LedgerEvent().extra
