"""Columns from the bytes of a page are those of its records: no value is taken by one way and refused by the other."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
from support.odd_rows import VALUES, body_of, rows_of_values

from capillary_async import DecodeError, LoyaltyEvent, PointsAllocation, PointsAwarded
from capillary_async._codec.decode import rows
from capillary_async._codec.raw_rows import RawRow
from capillary_async.tables import UnfitError, schema
from capillary_async.tables._columns import Columns


def columns_of(body: bytes, *, raw: bool = False) -> dict[str, list[Any]] | str:
    """The columns of a page by name, or what refuses it."""
    try:
        items = rows(PointsAllocation, body, raw=raw).items
        made = Columns(PointsAllocation, advice="").arrays(items, lambda number: (5, number))
    except (DecodeError, UnfitError) as error:
        return f"{type(error).__name__}: {error}"
    return dict(zip(schema(PointsAllocation).names, (array.to_pylist() for array in made), strict=True))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    "name", ["points_exclusive", "original_points", "till_id", "awarded_date", "status", "unknown"]
)
def test_a_value_is_taken_or_refused_as_of_records(name: str, value: str) -> None:
    """In the last of twenty rows, so that those before it are plain."""
    page = [
        {"id": str(row), "customer_id": "5", "points_exclusive": "2.5", "status": '"AVAILABLE"'} for row in range(20)
    ]
    page[19][name] = value
    expected = columns_of(body_of(page))
    assert columns_of(body_of(page), raw=True) == expected
    assert columns_of(body_of(page), raw=True) == expected  # rows like those of a page before are known


@given(rows_of_values, st.sampled_from(["", " ", "\n"]))
def test_any_page_is_taken_or_refused_as_of_records(page: list[dict[str, str]], space: str) -> None:
    """Whatever rows are beside each other."""
    body = body_of([{"id": str(number), **row} for number, row in enumerate(page, 1)]).replace(
        b", ", f",{space}".encode()
    )
    assert columns_of(body, raw=True) == columns_of(body)
    with suppress(DecodeError):
        raw = [one for one in rows(PointsAllocation, body, raw=True).items if isinstance(one, RawRow)]
        assert list(map(hash, raw)) == [hash(one.record()) for one in raw]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"{}",
        b"[null]",
        b'[{"id": 1}, null]',
        b"[{}]",
        b'[{"error": 1}]',
        b'[{"id": 1, "id": 2}]',
        b'[{"id": 1, "points_value": 1, "points_value": 2}]',
        b'[{"id": 1, "points_value": 1, "points_value": 1}]',
        b'[{"i\\u0064": 1, "points_value": 1.5}]',
        b'[{"id": 1, "status": "\\ud83d\\ude00 \\ud800"}]',
        b'[{"id": 1, "points_value": 1.5}',
        b'\xef\xbb\xbf[{"id": 1, "points_value": 1.5}]',
        b'{"id": 1, "points_value": 1.5}',
        b'[{"id": 1, "points_value": [[[[1]]]]}]',
    ],
)
def test_an_odd_page_is_taken_or_refused_as_of_records(body: bytes) -> None:
    """Doubled members, escaped names, nested nulls, cut bodies."""
    assert columns_of(body, raw=True) == columns_of(body)


def test_a_plain_page_has_no_records() -> None:
    """Else the columns would be right and slow."""
    body = body_of([{"id": "1", "customer_id": "5", "points_value": "1.50", "points_exclusive": "3"}])
    (row,) = rows(PointsAllocation, body, raw=True).items
    assert isinstance(row, RawRow)
    assert (row.points_value, row.points_exclusive) == (b"1.50", 3)
    assert row.record() == rows(PointsAllocation, body).items[0]


def test_raw_rows_are_equal_as_their_records_are() -> None:
    """Digits may differ where values do not, and a record may be on either side."""

    def row(value: str, *, raw: bool = True) -> Any:
        body = body_of([{"id": "1", "points_value": value, "status": '"A"'}])
        return rows(PointsAllocation, body, raw=raw).items[0]

    record = row("1.5", raw=False)
    assert row("1.5") == row("1.50") == record == row("1.500")
    assert not row("1.5") != row("1.50")  # noqa: SIM202 - an operator of its own
    assert not row("1.5") != record  # noqa: SIM202
    assert hash(row("1.5")) == hash(row("1.50")) == hash(record)
    assert row("1.5") != row("1.51")
    assert row("1.5") != row("1.5", raw=False).status
    assert row("1.51") != record


def test_some_columns_need_only_their_fields() -> None:
    """Derived times come from their milliseconds; the order is the caller's."""
    columns = Columns(PointsAllocation, ["expires_at", "points_value", "id"], advice="")
    assert columns.fields == ("expiry_date", "points_value", "id")
    body = body_of([{"id": "1", "expiry_date": "1748716199000", "points_value": "0.5"}])
    items = rows(PointsAllocation, body, raw=True).items
    made = columns.arrays(items, lambda number: (5, number))
    table = pa.Table.from_arrays(made, schema=columns.schema)
    assert table.to_pylist() == [
        {"expires_at": table["expires_at"][0].as_py(), "points_value": Decimal("0.500"), "id": 1}
    ]
    assert table["expires_at"][0].as_py().isoformat() == "2025-05-31T18:29:59+00:00"


def test_mixed_pages_make_one_column() -> None:
    """A page that needed the careful way beside plain ones."""
    plain = rows(
        PointsAllocation,
        body_of([{"id": "1", "points_value": "0.5"}, {"id": "2", "points_value": "2"}]),
        raw=True,
    )
    odd = rows(PointsAllocation, body_of([{"id": "3", "points_value": '"1.25"'}, {"id": "4"}]), raw=True)
    assert not isinstance(odd.items[0], RawRow)
    columns = Columns(PointsAllocation, ["points_value"], advice="")
    (array,) = columns.arrays([*plain.items, *odd.items], lambda number: (5, number))
    assert array.to_pylist() == [Decimal("0.500"), Decimal("2.000"), Decimal("1.250"), None]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("points_value", "1.2345", r"key 5: points_value 1\.2345 of row 1 does not fit decimal128\(18, 3\)"),
        ("points_value", "1000000000000000", r"key 5: points_value 1000000000000000 of row 1 does not fit"),
        ("id", str(2**63), r"key 5: id 9223372036854775808 of row 1 does not fit int64"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: str, said: str) -> None:
    """Key, row and field; nothing is rounded."""
    page = [{"id": "1", "points_value": "2.5"}, {"id": "2", name: value}]
    items = rows(PointsAllocation, body_of(page), raw=True).items
    with pytest.raises(UnfitError, match=said) as caught:
        Columns(PointsAllocation, advice="").arrays(items, lambda number: (5, number))
    assert caught.value.field == name


@pytest.mark.parametrize("model", [PointsAllocation, PointsAwarded, LoyaltyEvent])
def test_a_schema_has_each_field(model: type[Any]) -> None:
    """In the order of the model, amounts as decimal128(18, 3)."""
    made = schema(model)
    names = [one.name for one in attrs.fields(model)]
    assert [name for name in made.names if name in names] == names
    for one in attrs.fields(model):
        if one.type == Decimal | None:
            assert made.field(one.name).type == pa.decimal128(18, 3)


@pytest.mark.parametrize("model", [int, "PointsAllocation", None, PointsAllocation()])
def test_a_schema_of_what_is_no_model_is_refused(model: Any) -> None:
    """With the name of one that is."""
    with pytest.raises(TypeError, match="schema takes a model"):
        schema(model)


def test_the_corpus_is_json_or_not() -> None:
    """It has both, else the comparison would compare little."""
    good = 0
    for value in VALUES:
        try:
            json.loads(value)
        except ValueError:
            continue
        good += 1
    assert 40 < good < len(VALUES)
