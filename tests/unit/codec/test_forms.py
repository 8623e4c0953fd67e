"""Every member of every documented sample, in every form that services write: what keeps the value is read."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple, get_args

import attrs
import msgspec
import pytest
from support.api_samples import LEDGER, page_json
from support.paths import PACKAGE

from capillary_async._codec.decode import rows
from capillary_async._codec.wire_names import wire_fields
from capillary_async._transport.classify import judge
from capillary_async._transport.messages import Response, ResponseSpec
from capillary_async.errors import DecodeError
from capillary_async.models import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded
from capillary_async.models.points_ledger import BehavioralFieldAttribute

SANDBOX = PACKAGE / "sandbox" / "samples.json"
ENCODE = msgspec.json.Encoder(decimal_format="number").encode
DECODE = msgspec.json.Decoder(float_hook=Decimal).decode
MILLISECOND = timedelta(milliseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def records() -> Iterator[tuple[type, Any]]:
    """Each record of each sample: its class and its JSON."""
    for name in ("points_allocation_event", "points_allocation_date_range"):
        yield from ((PointsAllocation, one) for one in page_json(name))
    yield from ((PointsAwarded, one) for one in page_json("points_awarded_ids"))
    yield from ((LoyaltyEvent, one) for one in page_json("loyalty_events")["data"])
    for name in LEDGER:
        yield from ((LedgerEvent, one) for one in page_json(name)["events"])
    ours = json.loads(SANDBOX.read_text("utf-8"), parse_float=Decimal)
    kinds = {"awarded": PointsAwarded, "allocations": PointsAllocation, "events": LoyaltyEvent, "ledger": LedgerEvent}
    for name, kind in kinds.items():
        listed = ours[name] if name != "ledger" else [event for page in ours[name] for event in page["events"]]
        yield from ((kind, one) for one in listed)


class Member(NamedTuple):
    """A member of a record: where it is, what is due there, and what is there."""

    path: tuple[str | int, ...]
    due: Any
    value: Any

    @property
    def where(self) -> str:
        return "$[0]" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)


def members(model: Any, tree: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[Member]:
    """Every documented member that is there, those of objects within too."""
    fields = wire_fields(model) or attrs.fields_dict(model)
    for name, one in fields.items():
        value = tree.get(name)
        if value is None or "twin" in one.metadata:
            continue
        here = (*path, name)
        yield Member(here, "epoch" if "epoch" in one.metadata else one.type, value)
        inner = [kind for kind in get_args(one.type) if attrs.has(kind)]
        inner += [kind for outer in get_args(one.type) for kind in get_args(outer) if attrs.has(kind)]
        if inner and isinstance(value, dict):
            yield from members(inner[0], value, here)
        elif inner and isinstance(value, list):
            for index, entry in enumerate(value):
                yield from members(inner[0], entry, (*here, index))


def changed(tree: Any, path: tuple[str | int, ...], value: Any) -> bytes:
    """The record as the body of a page, with another value at the path."""
    copy = DECODE(ENCODE(tree))
    *outer, last = path
    holder = copy
    for step in outer:
        holder = holder[step]
    holder[last] = value
    return ENCODE([copy])


def read(model: Any, body: bytes) -> Any:
    (record,) = rows(model, body, timezone=UTC).items
    return record


def alike(member: Member) -> Iterator[Any]:
    """The same value in other forms."""
    due, value = member.due, member.value
    if due == "epoch":
        time = EPOCH + value * MILLISECOND
        shifted = time.astimezone(timezone(timedelta(hours=5, minutes=30)))
        yield from (f"{time:%Y-%m-%d %H:%M:%S.%f}000", time.isoformat(timespec="milliseconds"), shifted.isoformat())
    if due in ("epoch", int | None):
        yield from (str(value), Decimal(f"{value}.0"), f"{value}.0", f"{int(value)}00E-2", f"{value}E0")
    elif due == Decimal | None:
        number = Decimal(value)
        yield from (number, str(number), f"{number:.60E}", f"{number:f}e+0")
    elif due == bool | None:
        yield from (str(value).lower(), str(value).upper())
    elif due == datetime | None:
        time = datetime.fromisoformat(value)
        milliseconds = ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND
        if EPOCH + milliseconds * MILLISECOND == (time if time.tzinfo else time.replace(tzinfo=UTC)):
            yield from (milliseconds, str(milliseconds), Decimal(f"{milliseconds}.0"))
    elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        yield value[0]


def none(member: Member) -> Iterator[Any]:
    """Forms of null."""
    yield None
    if member.due is Any:  # kept as it came
        return
    if member.due != str | None and str not in get_args(member.due):
        yield ""
    if any(attrs.has(kind) for kind in get_args(member.due)) and len(get_args(member.due)) == 2:
        yield []


def losing(member: Member) -> Iterator[Any]:
    """What no value of the field can keep."""
    wrong: dict[Any, tuple[Any, ...]] = {
        "epoch": (True, Decimal("1.5"), "x", "2026-01-07", "2026-01-07T05:43:40.1230001Z", "2026-13-07T05:43:40Z"),
        int | None: (True, Decimal("1.5"), "1.5", "x", [1]),
        Decimal | None: (True, "x", "1_000", "1E+101", "1E99999999999999999999", "NaN", " 1", [1]),
        bool | None: (0, "yes", [True]),
        datetime | None: (True, Decimal("1.5"), "x", "20250131", 10**18, [1]),
        str | None: (True, [1]),
    }
    yield from wrong.get(member.due, ())


RECORDS = list(records())


@pytest.mark.parametrize(("model", "tree"), RECORDS)
def test_a_form_that_keeps_the_value_gives_the_same_record(model: Any, tree: Any):
    plain, seen = read(model, ENCODE([tree])), 0
    for member in members(model, tree):
        for value in alike(member):
            assert read(model, changed(tree, member.path, value)) == plain, (member.where, value)
            seen += 1
    assert seen


@pytest.mark.parametrize(("model", "tree"), RECORDS)
def test_every_form_of_null_is_none(model: Any, tree: Any):
    for member in members(model, tree):
        plain = read(model, changed(tree, member.path, None))
        for value in none(member):
            assert read(model, changed(tree, member.path, value)) == plain, (member.where, value)


@pytest.mark.parametrize(("model", "tree"), RECORDS)
def test_a_number_where_a_text_is_due_is_the_text_of_its_digits(model: Any, tree: Any):
    for member in members(model, tree):
        if member.due == str | None:
            for number, text in ((7, "7"), (Decimal("12.50"), "12.50"), (10**25, "1" + "0" * 25)):
                body, due = changed(tree, member.path, number), changed(tree, member.path, text)
                assert read(model, body) == read(model, due), member.where


@pytest.mark.parametrize(("model", "tree"), RECORDS)
def test_what_would_lose_something_is_refused_with_its_path(model: Any, tree: Any):
    for member in members(model, tree):
        if str(member.path[-1]).endswith("Str"):  # the twin of a number: a fault of that too
            continue
        for value in losing(member):
            with pytest.raises(DecodeError) as caught:
                read(model, changed(tree, member.path, value))
            assert caught.value.paths == (member.where,), value


# The member that holds the rows of each kind; None where they are the body.
ROWS = {PointsAllocation: None, PointsAwarded: None, LoyaltyEvent: "data", LedgerEvent: "events"}


def judged(model: Any, body: Any) -> Any:
    """What an answer says, errors of the API looked for first."""
    return judge(Response(200, body=ENCODE(body)), ResponseSpec(model, ROWS[model], timezone=UTC))


@pytest.mark.parametrize(("model", "tree"), RECORDS)
def test_a_record_alone_is_an_array_of_one(model: Any, tree: Any):
    member = ROWS[model]
    alone, array = (tree, [tree]) if member is None else ({member: tree}, {member: [tree]})
    assert judged(model, alone).items == judged(model, array).items == (read(model, ENCODE([tree])),)
    assert judged(model, alone).received == 1


@pytest.mark.parametrize("model", [LoyaltyEvent, LedgerEvent])
def test_an_empty_array_for_an_envelope_and_an_empty_text_for_its_rows_are_an_empty_page(model: Any):
    for body in ([], {ROWS[model]: ""}, {ROWS[model]: []}, {ROWS[model]: None}):
        assert (judged(model, body).items, judged(model, body).received) == ((), 0)


@pytest.mark.parametrize(
    ("model", "body", "path"),
    [
        (PointsAllocation, {"rows": []}, "$"),
        (PointsAllocation, {"status": "AVAILABLE"}, "$"),
        (PointsAllocation, {"id": 1, "points_value": "x"}, "$[0].points_value"),
        (LoyaltyEvent, [{"id": 1}], "$"),
        (LoyaltyEvent, {"data": {}}, "$.data"),
        (LoyaltyEvent, {"data": {"rows": []}}, "$.data"),
        (LoyaltyEvent, {"data": {"id": "x"}}, "$.data[0].id"),
        (LedgerEvent, {"events": "x"}, "$.events"),
        (LedgerEvent, {"events": {"message": "no"}}, "$.events"),
    ],
)
def test_what_is_no_record_alone_is_refused_with_its_path(model: Any, body: Any, path: str):
    with pytest.raises(DecodeError) as caught:
        judged(model, body)
    assert caught.value.paths == (path,)


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        (b'{"value": true}', "true"),
        (b'{"value": 1.50}', "1.50"),
        (b'{"value": [1, {"a": 0.10}]}', '[1,{"a":0.10}]'),
        (b'{"value": ""}', ""),
        (b"false", "false"),
        (b"7", "7"),
        (b'"x"', "x"),
    ],
)
def test_an_attribute_has_a_value_of_any_kind(attribute: bytes, text: str):
    body = b'[{"eventLogId":1,"behavioralEventMetadata":{"fields":[{"attributes":{"a":%s}}]}}]' % attribute
    (field,) = read(LedgerEvent, body).behavioral_event_metadata.fields
    assert field.attributes == {"a": BehavioralFieldAttribute(value=text)}


def test_an_empty_text_beside_a_number_is_no_twin_of_it():
    deduction = '{"pointsDeducted": 7.50, "pointsDeductedStr": ""}'
    body = f'[{{"eventLogId":1,"manualPointsAdjustmentDetails":{{"pointsDeductionBreakUpDetails":{deduction}}}}}]'
    (one,) = read(LedgerEvent, body.encode()).manual_points_adjustment_details.points_deduction_break_up_details
    assert one.points_deducted == Decimal("7.50")


@pytest.mark.parametrize("body", [b'[{"status":500,"path":"/x"}]', b'[{"status":404,"timestamp":1}]'])
def test_an_error_of_a_framework_in_the_place_of_a_record_is_none(body: bytes):
    with pytest.raises(DecodeError, match="expected a record, got an error"):
        rows(PointsAllocation, body)
