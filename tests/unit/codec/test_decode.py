"""Bytes to records and back: exact, strict, every fault named, and the quick way equal to the careful one."""

import decimal
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Optional, TypeVar
from zoneinfo import ZoneInfo

import attrs
import cattrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.api_samples import BROKEN_SAMPLE, LEDGER, page_json, sample
from support.paths import SAMPLES

from capillary_async import models
from capillary_async._codec import converter as _structure
from capillary_async._codec import decode as _decode
from capillary_async._codec import fast_decoder as _fast
from capillary_async._codec.decode import decode, parse, rows, structure, structure_rows, unstructure
from capillary_async.errors import DecodeError
from capillary_async.models import (
    BillDetails,
    CustomField,
    EarnedPoints,
    EventDetails,
    EventType,
    LedgerEvent,
    LineItem,
    LoyaltyEvent,
    PointsAllocation,
    PointsAwarded,
    PointsDeduction,
    PointsStatus,
    RedemptionDetails,
    TargetCompleted,
)
from capillary_async.models._record import is_snake_case
from capillary_async.models.exact import bounded

FIXED = settings(derandomize=True, database=None, deadline=None)  # the first example builds converters
IST = timezone(timedelta(hours=5, minutes=30))
NEO = {
    "points_allocation_event": PointsAllocation,
    "points_allocation_date_range": PointsAllocation,
    "points_awarded_ids": PointsAwarded,
}


def assert_same(ours: Any, theirs: Any, path: str = "$") -> None:
    """Member by member; numbers also by their text, other than those whose twin has more digits."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), path
        assert sorted(ours) == sorted(theirs), path
        for name, value in theirs.items():
            assert_same(ours[name], value, f"{path}.{name}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), path
        assert len(ours) == len(theirs), path
        for index, value in enumerate(theirs):
            assert_same(ours[index], value, f"{path}[{index}]")
    else:
        assert ours == theirs, path
        assert isinstance(ours, str | bool) == isinstance(theirs, str | bool), path
        assert path.endswith(("pointsDeducted", "CurrencyValue")) or str(ours) == str(theirs), path


def refused(call: Any, *args: Any, **named: Any) -> DecodeError:
    """The DecodeError that a call ends in."""
    with pytest.raises(DecodeError) as caught:
        call(*args, **named)
    assert caught.value.__context__ is None  # its frames would hold the customer's data
    return caught.value


def row(**members: Any) -> bytes:
    return json.dumps([members]).encode()


# --- the pages' samples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "model"), NEO.items())
def test_neo_samples_come_back_member_by_member(name: str, model: type):
    decoded = rows(model, sample(name))
    assert decoded.received == len(decoded.items) == len(page_json(name))
    assert decoded.warnings == ()
    assert_same([unstructure(item) for item in decoded.items], page_json(name))


@pytest.mark.parametrize(("name", "model"), NEO.items())
def test_the_careful_way_reads_neo_samples_as_the_quick_one(name: str, model: type):
    assert structure_rows(model, parse(sample(name))).items == rows(model, sample(name)).items


def test_the_loyalty_sample_comes_back_member_by_member():
    decoded = structure_rows(LoyaltyEvent, parse(sample("loyalty_events"))["data"], path="$.data")
    assert_same([unstructure(item) for item in decoded.items], page_json("loyalty_events")["data"])
    assert decoded.items[0].date == datetime(2025, 2, 28, 6, 16, 16, tzinfo=UTC)


@pytest.mark.parametrize("name", LEDGER)
def test_ledger_samples_come_back_member_by_member(name: str):
    decoded = structure_rows(LedgerEvent, parse(sample(name))["events"], path="$.events")
    assert_same([unstructure(item) for item in decoded.items], page_json(name)["events"])
    assert all(hash(item) == hash(attrs.evolve(item, extra={})) for item in decoded.items)


@pytest.mark.parametrize("name", LEDGER)
def test_no_member_of_a_ledger_sample_is_unknown(name: str):
    def extras(record: Any) -> Iterable[Any]:
        if isinstance(record, tuple | list | dict):
            for one in record.values() if isinstance(record, dict) else record:
                yield from extras(one)
        elif attrs.has(type(record)):
            yield from record.extra
            for one in attrs.fields(type(record)):
                yield from extras(getattr(record, one.name))

    assert list(extras(structure_rows(LedgerEvent, parse(sample(name))["events"]).items)) == []


def test_only_one_sample_is_broken_on_the_page_and_is_known_as_no_json():
    for path in SAMPLES.glob("*.json"):
        if path.stem == BROKEN_SAMPLE:
            assert refused(parse, path.read_bytes()).malformed
        else:
            parse(path.read_bytes())


def test_what_the_redemption_sample_says():
    (event,) = structure_rows(LedgerEvent, parse(sample("ledger_points_redemption"))["events"]).items
    details = event.event_details
    assert details is not None
    assert details.event_time == "2025-12-03 05:13:39.0"
    assert details.event_time_iso == datetime(2025, 12, 3, 5, 13, 39, tzinfo=UTC)
    assert isinstance(details.redemption_details, RedemptionDetails)
    assert str(details.redemption_details.points_redeemed) == "20.000"
    assert details.redemption_details.group_redemption is False
    assert event.custom_fields == event.points_breakup == ()


def test_what_the_bill_sample_says():
    (event,) = structure_rows(LedgerEvent, parse(sample("ledger_transaction_add_bill"))["events"]).items
    bill = event.bill_details
    assert bill is not None
    assert bill.bill_date_iso == datetime(2024, 3, 26, 10, 38, tzinfo=IST)
    assert bill.line_items is not None
    assert [str(item.rate) for item in bill.line_items] == ["10.5"] * 3
    assert bill.alternate_currency_value_earned is not None
    assert bill.alternate_currency_value_earned[0].alternate_currency_name == "acName"


def test_the_text_twin_is_the_value_of_the_number():
    (event,) = structure_rows(LedgerEvent, parse(sample("ledger_manual_points_adjustment"))["events"]).items
    adjustment = event.manual_points_adjustment_details
    assert adjustment is not None
    assert adjustment.points_deduction_break_up_details is not None
    (deduction,) = adjustment.points_deduction_break_up_details
    assert str(deduction.points_deducted) == deduction.points_deducted_str == "100.000"
    assert str(deduction.points_deducted_currency_value) == "100.000"
    assert str(adjustment.total_points_deducted) == "100.000"


# --- parse -----------------------------------------------------------------------------------------------------------


def test_numbers_are_exact():
    value = parse(b"[12345678901234567890.123, 1e400, 0.10, -0.0, 123456789012345678901234567890, 7]")
    assert [str(one) for one in value[:4]] == ["12345678901234567890.123", "1E+400", "0.10", "-0.0"]
    assert value[4:] == [123456789012345678901234567890, 7]
    assert [type(one) for one in value[4:]] == [int, int]


@FIXED
@given(st.integers(-(10**60), 10**60), st.integers(0, 30))
def test_any_decimal_keeps_its_digits(digits: int, places: int):
    text = f"{digits}.{'7' * (places + 1)}"
    assert str(parse(text.encode())) == text
    assert str(rows(PointsAwarded, f'[{{"points_exclusive":{text}}}]'.encode()).items[0].points_exclusive) == text


def test_a_byte_order_mark_is_no_fault():
    assert parse(b"\xef\xbb\xbf[1]") == [1]
    assert rows(PointsAwarded, b'\xef\xbb\xbf[{"id":1}]').items == (PointsAwarded(id=1),)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[",
        b'[{"id":1}',
        b'[{"id":1}] x',
        b"<html>502 Bad Gateway</html>",
        b"NaN",
        b"[Infinity]",
        b"\xff\xfe",
        b'["\xff"]',
        b'["\xed\xa0\x80"]',
        b"[01]",
        b"[1.]",
        b'["a\nb"]',
        b"\xef\xbb\xbf",
        b"{'id': 1}",
    ],
)
def test_what_is_no_complete_json_is_malformed(body: bytes):
    for call in (parse, lambda body: rows(PointsAllocation, body), lambda body: rows(LoyaltyEvent, body)):
        error = refused(call, body)
        assert error.malformed
        assert error.body == body.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        b"[" + b"9" * 5_000 + b"]",
        b"[1e99999999999999999999]",
        b"[1e-99999999999999999999]",
    ],
)
def test_json_that_cannot_be_held_is_not_malformed(body: bytes):
    error = refused(parse, body)
    assert not error.malformed
    assert error.paths == ("$",)
    assert len(error.body) == min(len(body), 200)
    assert len(error.args[0]) < 300


def test_deep_or_absurd_members_of_a_row_are_an_error_or_right():
    assert not refused(rows, PointsAwarded, b'[{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}]").malformed
    assert not refused(rows, PointsAwarded, b'[{"id":' + b"9" * 5_000 + b"}]").malformed
    assert not refused(rows, PointsAwarded, b'[{"points_exclusive":1e99999999999999999999}]').malformed
    assert not refused(rows, PointsAwarded, b'[{"points_exclusive":' + b"9" * 5_000 + b".5}]").malformed
    assert not refused(rows, PointsAwarded, b'[{"points_exclusive":1e999999999}]').malformed


def test_an_ambient_context_without_traps_makes_no_nan():
    with decimal.localcontext(prec=2, traps=[]):
        assert not refused(rows, PointsAwarded, b'[{"points_exclusive":1e99999999999999999999}]').malformed
        assert str(rows(PointsAwarded, b'[{"points_exclusive":1.2345}]').items[0].points_exclusive) == "1.2345"


def test_a_body_is_quoted_up_to_200_characters():
    assert refused(parse, b"<" + b"x" * 500).body == "<" + "x" * 199


# --- rows in snake_case ----------------------------------------------------------------------------------------------


def test_an_empty_array_is_no_rows():
    assert rows(PointsAllocation, b" [ ] ") == _decode.Decoded((), 0)


def test_null_entries_are_dropped_with_a_warning():
    decoded = rows(PointsAwarded, b'[null, {"id": 1}, null]')
    assert decoded.items == (PointsAwarded(id=1),)
    assert decoded.received == 3
    assert [(one.code, one.message) for one in decoded.warnings] == [
        (None, "2 null entries were dropped from the answer")
    ]
    assert rows(PointsAwarded, b"[null]").warnings[0].message == "1 null entry was dropped from the answer"


@pytest.mark.parametrize(
    ("body", "got"),
    [(b'{"code":500}', "an object"), (b"null", "null"), (b'"x"', "'x'"), (b"5", "5"), (b"true", "true")],
)
def test_anything_but_an_array_is_a_fault_at_the_root(body: bytes, got: str):
    error = refused(rows, PointsAllocation, body)
    assert error.faults == (f"$: expected an array, got {got}",)
    assert error.paths == ("$",)
    assert not error.malformed


def test_every_fault_is_named_with_its_path_and_index_as_received():
    body = json.dumps([{"id": 1}, None, {"id": 1.5, "points_value": "abc", "status": []}, 7]).encode()
    error = refused(rows, PointsAllocation, body)
    assert sorted(error.faults) == [
        "$[2].id: expected an integer, got 1.5",
        "$[2].points_value: expected a decimal number, got 'abc'",
        "$[2].status: expected a text, got an array",
        "$[3]: expected an object, got 7",
    ]
    assert sorted(error.paths) == ["$[2].id", "$[2].points_value", "$[2].status", "$[3]"]
    assert error.body == body.decode()
    assert "(and 3 more)" in error.args[0]


def test_only_the_first_faults_are_named_and_all_are_counted():
    error = refused(rows, PointsAwarded, json.dumps([{"id": "x"}] * 500).encode())
    assert len(error.faults) == len(error.paths) == 20
    assert error.paths[-1] == "$[19].id"
    assert "(and 499 more)" in error.args[0]


def test_unknown_members_unknown_words_nulls_and_absence_are_no_faults():
    body = row(id=1, status="NEW_STATUS", new_member={"deep": [1]}, currency="INR", points_value=None)
    assert rows(PointsAllocation, body).items == (PointsAllocation(id=1, status="NEW_STATUS"),)
    body = row(id=1, status="AVAILABLE", currency="INR")
    assert rows(PointsAllocation, body).items[0].status == PointsStatus.AVAILABLE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", True),
        ("id", 1.5),
        ("id", "1.5"),
        ("id", "1e"),
        ("id", " "),
        ("id", "١٢"),
        ("id", "1_000"),
        ("id", [1]),
        ("status", False),
        ("status", {}),
        ("points_value", True),
        ("points_value", "NaN"),
        ("points_value", "Infinity"),
        ("points_value", "1_000"),
        ("points_value", "١٢"),
        ("points_value", " 1"),
        ("points_value", "1\n"),
        ("points_value", "+1"),
        ("points_value", "1e"),
        ("points_value", "e5"),
        ("points_value", "1e101"),
        ("points_value", "1e99999999999999999999"),
        ("points_value", ".5"),
        ("points_value", "5."),
        ("points_value", " "),
        ("points_value", []),
    ],
)
def test_nothing_is_coerced(name: str, value: Any):
    assert refused(rows, PointsAllocation, row(**{name: value})).paths == (f"$[0].{name}",)


def test_numbers_as_ascii_text_are_read():
    (record,) = rows(
        PointsAllocation, row(id="37195406289", awarded_date="1735309787000", points_value="-20.000")
    ).items
    assert record.id == 37195406289
    assert record.awarded_date == 1735309787000
    assert str(record.points_value) == "-20.000"


@FIXED
@given(st.from_regex(r"\A-?[0-9]{1,40}(\.[0-9]{1,40})?\Z"))
def test_decimal_text_of_the_documented_form_is_exact(text: str):
    (record,) = rows(PointsAwarded, row(points_exclusive=text)).items
    assert record.points_exclusive == Decimal(text)
    assert str(record.points_exclusive) == str(Decimal(text))


@FIXED
@given(st.text(max_size=8) | st.from_regex(r"\A[-+]?[0-9_.eE ]{1,8}\Z"))
def test_decimal_text_of_any_other_form_is_a_fault(text: str):
    if text == "":
        assert rows(PointsAwarded, row(points_exclusive=text)).items[0].points_exclusive is None
    elif re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", text) and bounded(Decimal(text)):
        assert rows(PointsAwarded, row(points_exclusive=text)).items[0].points_exclusive == Decimal(text)
    else:
        assert refused(rows, PointsAwarded, row(points_exclusive=text)).paths == ("$[0].points_exclusive",)


@attrs.frozen
class Odd:
    """A class whose fault shows only the first time."""

    number: int
    asked = 0

    def __attrs_post_init__(self) -> None:
        type(self).asked += 1
        if type(self).asked == 1:
            raise ValueError("not yet")


def test_a_fault_that_goes_away_is_none():
    Odd.asked = 0
    assert rows(Odd, b'[{"number":1}]').items == (Odd(1),)


NAMES = ["id", "status", "points_value", "points_exclusive", "till_id", "new", "a:b", 'q"q', ":", "", "points\\value"]
VALUES = (
    st.none()
    | st.integers(-5, 10**20)
    | st.sampled_from(["NaN", "1_0", "7", "1.50", "AVAILABLE", "a:b", '"', '":"', "\\", "", " 1 ", "٣"])
    | st.sampled_from([True, 1.5, [], ["NaN"], {"x": "y"}, {":": '"'}])
)
SPACE = st.sampled_from(["", "", " ", "  ", "\n", "\t", "\r\n "])


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """Arrays of rows, many of them alike, with any white space, odd names and text where numbers are due."""

    def member(name: str, value: Any) -> str:
        return "".join(
            part + draw(SPACE) for part in ("", json.dumps(name), ":", json.dumps(value, ensure_ascii=False))
        )

    members = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=5)  # a name may come twice
    alike = [draw(members)] * draw(st.integers(0, 3))
    others = draw(st.lists(members, max_size=3))
    texts = ["{" + ",".join(member(name, value) for name, value in one) + "}" for one in [*alike, *others]]
    return f"{draw(SPACE)}[{','.join(texts)}]{draw(SPACE)}".encode()


def outcome(read: Callable[[], Any]) -> Any:
    """What a reading came to: the rows, or the faults."""
    try:
        return read()
    except DecodeError as error:
        return error.faults


@FIXED
@given(pages())
def test_the_quick_way_gives_what_the_careful_one_gives(body: bytes):
    assert outcome(lambda: rows(PointsAllocation, body)) == outcome(
        lambda: structure_rows(PointsAllocation, parse(body))
    )


def test_models_in_snake_case_are_the_fast_decoders():
    """A model that sets `WIRE_CASE` has its entry; a user's subclass is read as a user's class."""
    ours = {kind for name in models.__all__ if isinstance(kind := getattr(models, name), type)}
    assert {kind for kind in ours if is_snake_case(kind)} == set(_fast._TEXTS) == {PointsAllocation, PointsAwarded}
    assert not is_snake_case(type("Mine", (PointsAllocation,), {}))
    assert not is_snake_case(list[PointsAllocation])


@pytest.mark.parametrize("cls", [PointsAllocation, PointsAwarded])
def test_the_texts_counted_are_all_text_fields(cls: type):
    fields = attrs.fields_dict(cls)
    assert {one.type for one in fields.values()} == {int | None, str | None, Decimal | None}
    (name,) = [name for name, one in fields.items() if one.type == str | None]
    texts = _fast._TEXTS[cls]
    assert texts([cls(), cls(**{name: ""}), cls(**{name: "x"}), cls(id=1)]) == [None, "", "x", None]


@pytest.mark.parametrize(
    "rest",
    [
        r'"p\u006fints_value":"1_0"',
        r'"points\u005fvalue" : "1_0"',
        r'"status":"\":","points_value":"1_0"',
        r'"points_value":"\u0031_0"',
        r'"points_value":10,"points_value":"1_0"',
        r'"points_value":"1_0","status":null',
        r'"status":"x","status":"y","points_value":"1_0"',
        r'"status":"x","status":null,"points_value":"1_0"',
        r'"new":{"status":"x"},"points_value":"1_0"',
        r'"new":[{"":1}],"points_value":"1_0"',
        r'"":1,"points_value":"1_0"',
        r'":":1,"points_value":"1_0"',
        '"points_value"\n:\t"1_0"',
        '"points_value":"1\u00a00"',
    ],
)
@pytest.mark.parametrize("before", ["", '{"id":1,"status":"x"},', '{"points_value":1,"status":null},'])
def test_no_text_of_another_form_hides_among_plain_members(before: str, rest: str):
    odd = "{" + rest + "}"
    for body in (f"[{before}{odd}]", f"[{odd},{odd}]", f"[{odd},{before}{odd}]"):
        refused(rows, PointsAllocation, body.encode())


@pytest.mark.parametrize("last", ["10", "null"])
def test_of_a_member_that_comes_twice_neither_value_counts(last: str):
    refused(rows, PointsAllocation, f'[{{"points_value":"1_0","points_value":{last},"status":"x"}}]'.encode())


@st.composite
def alike_pages(draw: st.DrawFn) -> bytes:
    """Rows of one skeleton: texts stand at the same places of each row, under names that differ from row to row."""
    places = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    names = st.permutations(["status", "points_value", "points_exclusive", "id", "new"])
    text, other = st.sampled_from(["7", "1_0", "NaN", "AVAILABLE", "", " 1"]), st.sampled_from(["7", "1.50", "null"])

    def member(name: str, *, is_text: bool) -> str:
        return f'{draw(SPACE)}"{name}":{draw(SPACE)}' + (f'"{draw(text)}"' if is_text else draw(other))

    def one_row() -> str:
        chosen = zip(draw(names), places, strict=False)
        return "{" + ",".join(member(name, is_text=is_text) for name, is_text in chosen) + "}"

    return f"[{','.join(one_row() for _ in range(draw(st.integers(1, 4))))}]".encode()


@settings(FIXED, max_examples=200)
@given(alike_pages())
def test_rows_of_one_skeleton_give_what_the_careful_way_gives(body: bytes):
    assert outcome(lambda: rows(PointsAllocation, body)) == outcome(
        lambda: structure_rows(PointsAllocation, parse(body))
    )


KNOWN = _fast.fast_decoder(PointsAllocation).members


@settings(FIXED, max_examples=200)
@given(alike_pages() | pages())
def test_a_plain_page_has_no_text_where_a_decimal_is_due(body: bytes):
    straight = _fast.fast_decoder(PointsAllocation)
    try:
        records = straight.decode(body)
    except (ValueError, RecursionError):
        return
    if _fast._looked_at(body, straight.members)[0] == sum(text is not None for text in straight.texts(records)):
        due = ("points_value", "points_exclusive")
        assert not [
            name
            for one in json.loads(body, object_pairs_hook=list)
            for name, value in one or ()
            if name in due and isinstance(value, str)
        ]


def test_a_page_with_a_backslash_is_not_taken_for_plain():
    for body, texts in ((b'[{"id":1,"status":"x"}]', 1), (rb'[{"id":1,"status":"\n"}]', -1)):
        assert _fast._looked_at(body, KNOWN)[0] == texts
        assert rows(PointsAllocation, body).received == 1


def test_long_rows_are_not_remembered():
    _fast._texts_in.cache_clear()
    body = json.dumps([{"id": 1, **{f"new{number}": number for number in range(1_000)}}]).encode()
    assert rows(PointsAllocation, body).items == (PointsAllocation(id=1),)
    assert _fast._texts_in.cache_info().currsize == 0


def test_plain_pages_take_the_quick_way_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_decode, "parse", None)
    page = page_json("points_allocation_event") * 100
    for body in (json.dumps(page), json.dumps(page, separators=(",", ":")), json.dumps(page, indent=4)):
        assert _fast._looked_at(body.encode(), KNOWN)[:2] == (100, True)
        assert rows(PointsAllocation, body.encode()).received == 100
    body = json.dumps([{**one, "currency": "INR"} for one in page]).encode()
    assert _fast._looked_at(body, KNOWN)[:2] == (200, True)
    assert rows(PointsAllocation, body).received == 100


@pytest.mark.parametrize(
    ("rest", "good"),
    [
        ('"status":"AVAILABLE"', True),
        ('"status":"AVAILABLE","till_id":null', True),
        ('"status":"AVAILABLE","points_exclusive":7.25', True),
        ('"status":"AVAILABLE","new_member":1', True),
        ('"status":"AVAILABLE","points_value":1.50', True),
        ('"status":"AVAILABLE","points_value":2', False),
        ('"status":"AVAILABLE","expired_value":{"id":1}', False),
        ('"status":"AVAILABLE","expired_value":"NaN"', False),
        ('"status":null,"expired_value":"NaN"', False),
        ('"status":"AVAILABLE","expired_value":1e200', False),
        ('"status":"AVAILABLE","expired_value":1E-200', False),
        (f'"status":"AVAILABLE","expired_value":{"7" * 101}', False),
    ],
)
def test_a_page_is_read_alike_whatever_pages_were_read_before(rest: str, good: bool):
    """Rows are remembered by their texts: a page that only resembles them is looked at like any other."""
    _fast.fast_decoder.cache_clear()
    common = '"id":1,"points_value":1.50,"expired_value":0,'
    plain = ",".join(f'{{{common}"status":"{status}"}}' for status in ("AVAILABLE", "EXPIRED", "AVAILABLE"))
    body = f"[{plain},{{{common}{rest}}}]".encode()

    def found() -> Any:
        decoded = rows(PointsAllocation, body)
        return decoded.items, [dict(members) for _, members in decoded._drift or ()]

    first = outcome(found)
    for _ in range(2):
        assert rows(PointsAllocation, f"[{plain}]".encode()).received == 3
        assert outcome(found) == first
    assert len(_fast.fast_decoder(PointsAllocation).kinds) == 2
    if good:
        assert found()[0] == structure_rows(PointsAllocation, parse(body)).items
    else:
        refused(rows, PointsAllocation, body)


def test_rows_of_a_camel_case_model_and_of_a_users_class():
    assert rows(LoyaltyEvent, b'[{"customerId": 5}]').items == (LoyaltyEvent(customer_id=5),)
    assert rows(LoyaltyEvent, b'[{"date": "2025-01-01T00:00:00"}]', timezone=IST).items[0].date == datetime(
        2025, 1, 1, tzinfo=IST
    )
    assert refused(rows, LoyaltyEvent, b"null").paths == ("$",)


# --- rows of an envelope ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "merged"),
    [
        (r'"x\ud800":1,"x\udbff":2', True),
        (r'"x\ud800":1,"x\ufffd":2', True),
        (r'"x\ud800":1,"x\udbff":1', True),
        (r'"x\ud800":1,"x\uD800":1', False),  # one name twice, with one value
        (r'"x\ud800":1,"x\\ud800":2', False),
        (r'"x\ud800":1},{"id":1,"eventLogId":1,"x\udbff":2', False),
        (r'"x\ud83d\ude00":1,"x\ud83d":"\ud83d"', False),
    ],
)
@pytest.mark.parametrize("model", [PointsAllocation, LedgerEvent])
def test_names_that_only_halves_of_surrogate_pairs_keep_apart_are_refused(model: type, members: str, merged: bool):
    """U+FFFD in the place of both would drop one of the two members."""
    body = f'[{{"id":1,"eventLogId":1,{members}}}]'.encode()
    if merged:
        error = refused(rows, model, body)
        assert not error.malformed
        assert ("comes twice in one object" if members.endswith("2") else "surrogate") in error.message
    else:
        assert rows(model, body).received == body.count(b"eventLogId")


def test_no_list_at_all_is_no_rows_and_anything_else_a_fault_at_its_path():
    assert structure_rows(LoyaltyEvent, None, path="$.data") == _decode.Decoded((), 0)
    error = refused(structure_rows, LoyaltyEvent, {}, path="$.data", body=b"{}")
    assert error.faults == ("$.data: expected an array, got an object",)
    assert error.body == "{}"


def test_faults_of_an_envelope_have_the_names_of_the_wire():
    events = [
        None,
        {
            "eventDetails": {"tillId": "x", "redemptionDetails": [{"pointsRedeemed": "1"}, {"pointsRedeemed": "NaN"}]},
            "targetCompletedDetails": {"targetGroupID": True, "targetPeriodID": True},
            "billDetails": {"lineItems": [None, {"qty": "a"}], "pointsEarned": {"promo": "none"}},
            "behavioralEventMetadata": {"fields": [{"attributes": {"isRequired": {"valueType": True}}}]},
            "pointInTimeSlabs": 1,
            "customFields": [{"name": "a"}],
        },
    ]
    error = refused(structure_rows, LedgerEvent, events, path="$.events")
    assert sorted(error.paths) == [
        "$.events[1].behavioralEventMetadata.fields[0].attributes.isRequired.valueType",
        "$.events[1].billDetails.lineItems[1].qty",
        "$.events[1].billDetails.pointsEarned.promo",
        "$.events[1].eventDetails.redemptionDetails[1].pointsRedeemed",
        "$.events[1].eventDetails.tillId",
        "$.events[1].pointInTimeSlabs",
        "$.events[1].targetCompletedDetails.targetGroupID",
        "$.events[1].targetCompletedDetails.targetPeriodID",
    ]


# --- the ledger's shapes ---------------------------------------------------------------------------------------------


def test_unknown_members_of_the_ledger_are_kept_at_every_level():
    value = parse(b'{"eventLogId": 1, "new": 1.10, "eventDetails": {"tillId": 2, "more": {"x": [0.1]}}}')
    event = structure(LedgerEvent, value)
    assert str(event.extra["new"]) == "1.10"
    assert event.event_details == EventDetails(till_id=2, extra={"more": {"x": [Decimal("0.1")]}})
    assert_same(unstructure(event), value)


@pytest.mark.parametrize("shape", [lambda one: one, lambda one: [one], lambda one: [one, one], lambda _: []])
def test_one_or_several_come_back_in_the_shape_that_came(shape: Any):
    value = {
        "eventDetails": {"redemptionDetails": shape({"pointsRedeemed": "20.000"})},
        "targetCompletedDetails": shape({"targetValue": "1.0", "targetGroupID": "TG"}),
    }
    event = structure(LedgerEvent, value)
    assert unstructure(event) == value
    assert len(event.targets_completed) == len(shape({})) if isinstance(shape({}), list) else 1
    assert all(isinstance(one, TargetCompleted) for one in event.targets_completed)


def test_nothing_there_is_none_everywhere():
    value = {"eventDetails": {"redemptionDetails": None}, "targetCompletedDetails": None, "customFields": None}
    assert structure(LedgerEvent, value) == LedgerEvent(event_details=EventDetails())


def test_a_lone_object_where_the_page_says_object_is_an_array_of_one():
    event = structure(LedgerEvent, {"customFields": {"name": "a", "value": [1]}, "paymentModes": "CASH"})
    assert event.custom_fields == (CustomField(name="a", value=[1]),)
    assert event.payment_modes == ("CASH",)
    bill = structure(BillDetails, {"lineItems": {"id": 1}})
    assert bill.line_items == (LineItem(id=1),)


@pytest.mark.parametrize(
    ("number", "text", "value"),
    [("100.0", '"100.005"', "100.005"), ("1.50", "null", "1.50"), ("null", '"7.000"', "7.000")],
)
def test_twins(number: str, text: str, value: str):
    body = f'{{"pointsDeducted": {number}, "pointsDeductedStr": {text}}}'.encode()
    assert str(decode(PointsDeduction, body).points_deducted) == value


def test_a_twin_of_another_form_is_a_fault():
    assert refused(decode, PointsDeduction, b'{"pointsDeducted": 1, "pointsDeductedStr": "1,000"}').paths == (
        "$.pointsDeducted",
    )


def test_a_decimal_is_read_from_number_or_text_and_written_as_its_field_says():
    details = decode(RedemptionDetails, b'{"pointsRedeemed": 20.50}')
    assert unstructure(details) == {"pointsRedeemed": "20.50"}
    earned = decode(EarnedPoints, b'{"value": "20.50"}')
    assert unstructure(earned) == {"value": Decimal("20.50")}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.0000001", "0.0000001"),
        ("-0.000", "-0.000"),
        ("12345678901234567890123456789012345.000", "12345678901234567890123456789012345.000"),
        ("1E+3", "1E+3"),
        ("1E-999999999", "1E-999999999"),
        ("NaN", "NaN"),
    ],
)
def test_decimals_are_written_out_unless_that_would_fill_the_memory(value: str, text: str):
    with decimal.localcontext(prec=3):
        assert unstructure(RedemptionDetails(points_redeemed=Decimal(value))) == {"pointsRedeemed": text}


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2025-12-16T14:30:45Z", "2025-12-16T14:30:45Z"),
        ("2025-12-16T14:30:45.000Z", "2025-12-16T14:30:45Z"),
        ("2025-12-16T14:30:45.120Z", "2025-12-16T14:30:45.120000Z"),
        ("2025-12-16T14:30:45+00:00", "2025-12-16T14:30:45Z"),
        ("2025-12-16T14:30:45+05:30", "2025-12-16T14:30:45+05:30"),
        ("2025-12-16T14:30:45+0530", "2025-12-16T14:30:45+05:30"),
        ("2025-12-16 14:30:45.5-03:00", "2025-12-16T14:30:45.500000-03:00"),
    ],
)
def test_times_with_an_offset(text: str, written: str):
    event = structure(LoyaltyEvent, {"date": text})
    assert event.date is not None
    assert event.date.utcoffset() is not None
    assert unstructure(event) == {"date": written}


def test_a_time_without_an_offset_is_in_the_servers_zone():
    value = {"date": "2025-12-16T14:30:45"}
    for zone in (IST, ZoneInfo("Asia/Kolkata")):
        assert unstructure(structure(LoyaltyEvent, value, timezone=zone)) == {"date": "2025-12-16T14:30:45+05:30"}
    assert unstructure(structure(LoyaltyEvent, value, timezone=UTC)) == {"date": "2025-12-16T14:30:45Z"}
    (fault,) = refused(structure, LoyaltyEvent, value).faults
    assert fault.startswith("$.date: '2025-12-16T14:30:45' has no offset")
    assert "server_timezone=" in fault


def test_a_naive_time_of_a_user_is_written_without_an_offset():
    assert unstructure(LoyaltyEvent(date=datetime(2025, 1, 1))) == {"date": "2025-01-01T00:00:00"}  # noqa: DTZ001


@pytest.mark.parametrize(
    "value",
    [
        " ",
        "2025-12-16",
        "2025-13-16T14:30:45Z",
        "20251216T143045Z",
        "20251216",
        "20251216143045",
        "16/12/2025",
        1735309787000.5,
        10**15,
        True,
        "٢٠٢٥",
    ],
)
def test_what_is_no_time_is_a_fault(value: Any):
    assert refused(structure, LoyaltyEvent, {"date": value}, timezone=UTC).paths == ("$.date",)


def test_old_server_local_times_stay_text():
    details = structure(EventDetails, {"eventTime": "2024-10-25 22:59:12.0"})
    assert details.event_time == "2024-10-25 22:59:12.0"


# --- users' classes, and the generic door ----------------------------------------------------------------------------

T = TypeVar("T")


class Colour(Enum):
    RED = "red"


@attrs.frozen
class Mine:
    name: str
    kind: EventType | None = None
    status: PointsStatus | None = None
    tags: tuple[str, ...] = ()
    share: float = 0.0
    colour: Colour | None = None
    counts: dict[str, int] = attrs.field(factory=dict)


@dataclass
class Plain:
    id: int
    parts: list[Decimal]


@attrs.frozen
class Boxed(Generic[T]):
    inside: T


@attrs.frozen
class Picky:
    number: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.frozen
class Raiser:
    number: int

    def __attrs_post_init__(self) -> None:
        error = KeyError("nothing there") if self.number else LookupError("nothing there")
        error.add_note("a user's own note")
        raise error


def test_a_users_class():
    body = b'{"name":"a","kind":"25","status":"EXPIRED","tags":["x"],"share":1.5,"colour":"red","counts":{"a":1}}'
    mine = decode(Mine, body)
    assert mine == Mine("a", EventType.TARGET_COMPLETED, PointsStatus.EXPIRED, ("x",), 1.5, Colour.RED, {"a": 1})
    assert type(mine.kind) is EventType
    assert type(mine.status) is PointsStatus
    assert unstructure(mine)["kind"] == 25
    assert decode(Plain, b'{"id":1,"parts":["1.0",2]}') == Plain(1, [Decimal("1.0"), Decimal(2)])
    assert decode(Boxed[int], b'{"inside":1}') == Boxed(1)


@pytest.mark.parametrize(
    ("model", "body", "faults"),
    [
        (Mine, b"{}", ("$.name: is missing",)),
        (Mine, b"[]", ("$: expected an object, got an array",)),
        (Mine, b'{"name":null}', ("$.name: expected a text, got null",)),
        (Mine, b'{"name":"a","tags":"abc"}', ("$.tags: expected an array, got 'abc'",)),
        (Mine, b'{"name":"a","tags":["a",null]}', ("$.tags[1]: expected a text, got null",)),
        (Mine, b'{"name":"a","share":true}', ("$.share: expected a number, got true",)),
        (Mine, b'{"name":"a","kind":90}', ("$.kind: 90 is not a valid EventType",)),
        (Mine, b'{"name":"a","counts":{"x":"y"}}', ("$.counts.x: expected an integer, got 'y'",)),
        (Mine, b'{"name":"a","counts":[]}', ("$.counts: expected an object, got an array",)),
        (Boxed[int], b'{"inside":"a"}', ("$.inside: expected an integer, got 'a'",)),
        (list[bool], b'[true,"false"]', ("$[1]: expected true or false, got 'false'",)),
        (list, b'"abc"', ("$: expected an array, got 'abc'",)),
        (dict, b"[]", ("$: expected an object, got an array",)),
        (str, b"null", ("$: expected a text, got null",)),
        (Picky, b'{"number":0}', ("$: 'number' must be > 0: 0",)),
        (Raiser, b'{"number":0}', ("$: LookupError: nothing there",)),
        (list[Raiser], b'[{"number":0}]', ("$[0]: LookupError: nothing there",)),
        (dict[str, Raiser], b'{"a":{"number":0}}', ("$.a: LookupError: nothing there",)),
    ],
)
def test_faults_of_users_classes(model: Any, body: bytes, faults: tuple[str, ...]):
    assert refused(decode, model, body).faults == faults


def test_long_values_are_cut_in_faults():
    (fault,) = refused(decode, int, json.dumps("x" * 500).encode()).faults
    assert fault == f"$: expected an integer, got '{'x' * 39}..."


@pytest.mark.parametrize(
    ("model", "body", "value"),
    [
        (None, b"[1.5]", [Decimal("1.5")]),
        (Any, b"[null]", [None]),
        (list[PointsAwarded], b'[{"id":1},null]', [PointsAwarded(id=1)]),
        (list[LoyaltyEvent], b'[null,{"id":1}]', [LoyaltyEvent(id=1)]),
        (PointsAwarded, b'{"id":"1","new":1}', PointsAwarded(id=1)),
        (dict[str, PointsAwarded], b'{"a":{"id":1}}', {"a": PointsAwarded(id=1)}),
        (Mapping[str, Decimal], b'{"a":1}', {"a": Decimal(1)}),
        (set[int], b"[1,1]", {1}),
        (Sequence[int], b"[1,2]", [1, 2]),
        (tuple[int, str], b'[1,"a"]', (1, "a")),
        (list[int | None], b"[1,null]", [1, None]),
        (list[Optional[int]], b"[1,null]", [1, None]),  # noqa: UP045 - users may write it so
        (list, b"[1,null]", [1, None]),
        (dict, b'{"a":null}', {"a": None}),
        (bool, b"true", True),
        (float, b"1", 1.0),
        (int | str | None, b'"a"', "a"),
    ],
)
def test_the_generic_door(model: Any, body: bytes, value: Any):
    assert decode(model, body) == value


def test_a_list_of_a_snake_case_model_refuses_what_rows_refuses():
    assert refused(decode, list[PointsAwarded], b"{}").paths == ("$",)
    assert refused(decode, list[LoyaltyEvent], b'[null,{"id":true}]').paths == ("$[1].id",)


def test_a_type_that_cannot_be_structured_is_the_callers_error():
    with pytest.raises(cattrs.StructureHandlerNotFoundError):
        decode(complex, b"1")
    with pytest.raises(cattrs.StructureHandlerNotFoundError):
        rows(complex, b"[1]")
    with pytest.raises(cattrs.StructureHandlerNotFoundError):
        structure_rows(Optional[complex], [1])  # type: ignore[arg-type] # noqa: UP045 - cattrs finds it late


def test_binary_floats_are_no_decimals():
    assert refused(structure, Decimal, 0.1).faults == ("$: expected a decimal number, got 0.1",)
    assert refused(structure, Decimal, Decimal("NaN")).faults == ("$: expected a decimal number, got NaN",)


def test_faults_begin_at_the_given_path():
    assert refused(structure, list[int], ["a"], path="$.data").paths == ("$.data[0]",)


# --- the converters --------------------------------------------------------------------------------------------------


def test_importing_builds_nothing():
    code = (
        "from capillary_async._codec import fast_decoder as f; from capillary_async._codec import converter as s;"
        "print(s._converter.cache_info().currsize, f.fast_decoder.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=15)
    assert done.stdout.split() == ["0", "0"]


def test_threads_may_ask_first_at_the_same_time():
    _structure._converter.cache_clear()
    _fast.fast_decoder.cache_clear()
    events = parse(sample("ledger_transaction_add_bill"))["events"]
    with ThreadPoolExecutor(8) as pool:
        ledgers = list(pool.map(lambda _: structure_rows(LedgerEvent, events).items, range(16)))
        neos = list(pool.map(lambda _: rows(PointsAwarded, sample("points_awarded_ids")).items, range(16)))
    assert all(one == ledgers[0] for one in ledgers)
    assert all(one == neos[0] for one in neos)


def test_a_page_of_a_thousand_faulty_rows_ends_soon():
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    assert refused(structure, list[PointsAllocation], [{"id": deep}] * 1000).paths[0] == "$[0].id"
