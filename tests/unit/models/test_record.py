"""Records leave exactly: `to_dict()` with their own values, `to_json()` as the row that the command line writes."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from typing import Any, get_args, get_type_hints

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capillary_async import models
from capillary_async._codec import decode as _decode
from capillary_async.cli._io.rows import ALLOCATION, AWARDED, EVENT, LEDGER
from capillary_async.cli._io.writer import _JsonLines
from capillary_async.models import (
    BehavioralField,
    BehavioralFieldAttribute,
    CustomField,
    EventDetails,
    LedgerEvent,
    LoyaltyEvent,
    PointsAllocation,
    PointsAwarded,
    PointsStatus,
    TargetCompleted,
)
from capillary_async.models._record import Record

DERIVED = {
    PointsAwarded: {"remaining"},
    PointsAllocation: {"awarded_at", "expires_at", "updated_at", "remaining"},
    LedgerEvent: {"targets_completed"},
}
KINDS = [kind for kind in (getattr(models, name) for name in models.__all__) if attrs.has(kind)]

amounts = st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30
)
texts = st.text(max_size=20)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-9, minutes=-30))])
times = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001
numbers = st.integers(-(2**63), 2**63 - 1)
free = st.recursive(
    st.none() | st.booleans() | numbers | amounts | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@cache
def values_of(hint: Any, depth: int) -> st.SearchStrategy[Any]:
    """What a field of this type may have; nested records end at a depth."""
    parts = get_args(hint)
    if hint is Any:
        return free
    if isinstance(hint, type) and attrs.has(hint):
        return records_of(hint, depth - 1) if depth else st.none()
    simple = {int: numbers, str: texts, bool: st.booleans(), Decimal: amounts, datetime: times, type(None): st.none()}
    if hint in simple:
        return simple[hint]
    origin = getattr(hint, "__origin__", None)
    if origin is tuple:
        return st.lists(values_of(parts[0], depth).filter(lambda one: one is not None), max_size=2).map(tuple)
    if origin is not None and len(parts) == 2:
        return st.dictionaries(texts, values_of(parts[1], depth), max_size=2)
    return st.one_of([values_of(part, depth) for part in parts])


@cache
def records_of(kind: type[Any], depth: int = 2) -> st.SearchStrategy[Any]:
    """Any record of a model, with any of its fields left out."""
    hints = get_type_hints(kind)
    fields = {one.name: values_of(hints[one.name], depth) for one in attrs.fields(kind)}
    required = {"extra": fields.pop("extra")} if "extra" in fields else {}
    return st.fixed_dictionaries(required, optional=fields).map(lambda given: kind(**given))


def plain(value: Any) -> bool:
    """Whether all of it is what any program knows: no record, no tuple."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and plain(member) for name, member in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (bool, int, str, float, Decimal, datetime)


def same(value: Any, left: Any) -> bool:
    """Whether what left a record is what was in it, digit by digit and zone by zone."""
    if isinstance(value, Record):
        return all(same(getattr(value, one.name), left[one.name]) for one in attrs.fields(type(value)))
    if isinstance(value, tuple | list):
        return len(value) == len(left) and all(map(same, value, left))
    if isinstance(value, dict):
        return list(value) == list(left) and all(map(same, value.values(), left.values()))
    if isinstance(value, Decimal):
        return value.as_tuple() == left.as_tuple()
    if isinstance(value, datetime):
        return value == left and value.utcoffset() == left.utcoffset()
    return bool(value == left) and type(value) is type(left)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_to_dict_is_plain_and_exact(kind: type[Any], data: st.DataObject) -> None:
    """Of every model: its fields by their names, and what is derived; nothing of the record changes with it."""
    record = data.draw(records_of(kind))
    before = copy.deepcopy(record)
    left = record.to_dict()
    assert plain(left)
    assert list(left) == [one.name for one in attrs.fields(kind)] + [name for name in left if name in _derived(kind)]
    assert set(left) - {one.name for one in attrs.fields(kind)} == _derived(kind)
    assert same(record, left)
    assert record == before
    if kind in (PointsAllocation, PointsAwarded, LoyaltyEvent):
        assert kind(**{one.name: left[one.name] for one in attrs.fields(kind)}) == record


def _derived(kind: type[Any]) -> set[str]:
    return DERIVED.get(kind, set())


@pytest.mark.parametrize(
    ("kind", "table"),
    [(PointsAllocation, ALLOCATION), (PointsAwarded, AWARDED), (LoyaltyEvent, EVENT), (LedgerEvent, LEDGER)],
    ids=lambda one: getattr(one, "__name__", ""),
)
@settings(max_examples=30)
@given(data=st.data())
def test_to_json_is_the_row_of_the_command_line(kind: type[Any], table: Any, data: st.DataObject) -> None:
    """Byte for byte, but for the columns of the command itself, which come first."""
    record = data.draw(records_of(kind))
    line = _JsonLines(table).line(table.row(record))
    assert record.to_json() + b"\n" == line
    assert b"\n" not in record.to_json()


@given(records_of(PointsAllocation))
def test_json_has_the_digits_of_the_record(record: PointsAllocation) -> None:
    """Amounts are text, so that no reader takes them for binary floats."""
    row = json.loads(record.to_json())
    for name, value in record.to_dict().items():
        if isinstance(value, Decimal):
            assert Decimal(row[name]).as_tuple() == value.as_tuple()
        elif isinstance(value, datetime):
            assert datetime.fromisoformat(row[name]) == value
        else:
            assert row[name] == value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_every_record_leaves_as_json(kind: type[Any], data: st.DataObject) -> None:
    """Those of the ledger without empty members, one inside another as well."""
    row = json.loads(data.draw(records_of(kind)).to_json())
    assert set(row) <= {one.name for one in attrs.fields(kind)} | _derived(kind)
    if kind not in (PointsAllocation, PointsAwarded, LoyaltyEvent):
        assert all(value not in (None, {}, []) for value in row.values())


def test_what_binary_floats_would_change() -> None:
    """The amount that a common encoder gives as 12345678901234.566."""
    record = PointsAllocation(points_exclusive=Decimal("12345678901234.567"), points_value=Decimal("1.500"))
    assert str(record.to_dict()["points_exclusive"]) == "12345678901234.567"
    assert b'"points_exclusive":"12345678901234.567"' in record.to_json()
    assert b'"points_value":"1.500"' in record.to_json()


def test_derived_values() -> None:
    """Times in UTC, what is left of the points; where a time is beyond the calendar, None."""
    amounts = {
        name: Decimal(0) for name in ("redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")
    }
    record = PointsAllocation(
        awarded_date=0, expiry_date=10**18, points_exclusive=Decimal("7.250"), status=PointsStatus.AVAILABLE, **amounts
    )
    left = record.to_dict()
    assert left["awarded_at"] == datetime(1970, 1, 1, tzinfo=UTC)
    assert (left["expires_at"], left["updated_at"]) == (None, None)
    assert str(left["remaining"]) == "7.250"
    assert type(left["status"]) is str
    row = json.loads(record.to_json())
    assert (row["awarded_at"], row["expires_at"], row["remaining"]) == ("1970-01-01T00:00:00Z", None, "7.250")


def test_a_ledger_with_all_that_is_nested() -> None:
    """Records within records, mappings of records, and members that this release does not know."""
    record = LedgerEvent(
        event_log_id=1,
        event_details=EventDetails(till_id=2),
        target_completed_details=TargetCompleted(extra={"new": Decimal("0.10")}),
        custom_fields=(CustomField(name="a", value=[Decimal("1.0"), {"b": None}]),),
        behavioral_event_metadata=models.BehavioralEventMetadata(
            fields=(BehavioralField(field_name="x", attributes={"y": BehavioralFieldAttribute(value="1"), "z": None}),)
        ),
        extra={"deep": {"amount": Decimal("12345678901234.567"), "list": (1, 2)}},
    )
    left = record.to_dict()
    assert left["event_details"]["till_id"] == 2
    assert left["targets_completed"] == [left["target_completed_details"]]
    assert left["custom_fields"][0]["value"] == [Decimal("1.0"), {"b": None}]
    assert left["behavioral_event_metadata"]["fields"][0]["attributes"]["y"]["value"] == "1"
    assert left["extra"] == {"deep": {"amount": Decimal("12345678901234.567"), "list": [1, 2]}}
    row = json.loads(record.to_json())
    assert row["extra"]["deep"]["amount"] == "12345678901234.567"
    assert row["target_completed_details"]["extra"] == {"new": "0.10"}
    assert "bill_details" not in row


def test_records_are_what_they_were() -> None:
    """Values without a dict of their own, that pickle, compare and go the straight way of decoding."""
    body = b'[{"id":1,"points_value":1.50,"status":"AVAILABLE"}]'
    (record,) = _decode.rows(PointsAllocation, body).items
    assert not hasattr(record, "__dict__")
    assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301
    assert str(record.to_dict()["points_value"]) == "1.50"
