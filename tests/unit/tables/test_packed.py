"""Whole rows, which are packed page by page: their columns and digests are those of their records."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
from support.odd_rows import AMOUNTS, FIELDS, VALUES, body_of

from capillary_async import DecodeError, PointsAllocation
from capillary_async._codec.decode import rows
from capillary_async._codec.raw_rows import RawRow, RawRows
from capillary_async._paging.contents import digests_of
from capillary_async.models import ManualPointsAdjustment, PointsDeduction
from capillary_async.tables import UnfitError
from capillary_async.tables._batches import BatchBuilder
from capillary_async.tables._columns import Columns
from capillary_async.tables._doors import Part, TableSource

if TYPE_CHECKING:
    from collections.abc import Iterator

ZEROS = "0" * 40
MORE = [f"1.{ZEROS}", f"-7.125{ZEROS}", f"0.{ZEROS}", f"1.0005{ZEROS}", "999999999999999.9990", "0.9995"]


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Iterator[None]:
    """Small pages are packed too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capillary_async._codec.raw_rows._SMALL", 0)
        yield


def whole(number: int, **members: str) -> dict[str, str]:
    """A row with all members, as JSON text."""
    texts = {"status": '"AVAILABLE"', "id": str(number), "customer_id": "5"}
    return dict.fromkeys(FIELDS, "2.5") | {name: "7" for name in FIELDS if name not in AMOUNTS} | texts | members


def table_of(pages: list[Any], columns: list[str] | None = None, rows_: int = 65_536) -> Any:
    """The table of pages of one key, or the message that refuses them."""
    builder = BatchBuilder(TableSource("list", PointsAllocation, int), columns, rows_)
    batches: list[Any] = []
    try:
        for number, page in enumerate(pages, 1):
            builder.add(Part(5, page, number == len(pages), number))
            while builder.full:
                batches.append(builder.take())
        while (batch := builder.take()) is not None:
            batches.append(batch)
    except UnfitError as error:
        return str(error), error.field
    assert [batch.num_rows for batch in batches[:-1]] == [rows_] * (len(batches) - 1)
    made = pa.Table.from_batches(batches, schema=builder.schema)
    made.validate(full=True)
    return made.to_pylist()


def read(body: bytes, *, raw: bool) -> Any:
    """The rows of a page, or the message that refuses it."""
    try:
        return rows(PointsAllocation, body, raw=raw).items
    except DecodeError as error:
        return str(error)


def alike(bodies: list[bytes]) -> None:
    """Raw rows become the same table as records, or are refused alike."""
    raw, records = ([read(body, raw=raw) for body in bodies] for raw in (True, False))
    if any(isinstance(page, str) for page in records):
        assert [page for page in raw if isinstance(page, str)] == [page for page in records if isinstance(page, str)]
        return
    assert table_of(raw) == table_of(records)
    assert [digests_of(page) for page in raw] == [digests_of(page) for page in records]


def test_a_page_of_whole_rows_has_its_columns() -> None:
    """Else the table would be right and slow; a copy of the page is without them."""
    page = read(body_of([whole(1), whole(2, till_id="null", points_value="1.50")]), raw=True)
    assert isinstance(page, RawRows)
    assert dict(zip(FIELDS, page.columns, strict=True))["points_value"] == (b"2.5", b"1.50")
    assert pickle.loads(pickle.dumps(page)) == page  # noqa: S301 - ours
    alike([body_of([whole(1), whole(2, till_id="null", points_value="null")])])


def test_a_small_page_has_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would cost more than they save."""
    monkeypatch.setattr("capillary_async._codec.raw_rows._SMALL", 20_000)
    assert type(read(body_of([whole(1)]), raw=True)) is tuple
    assert type(read(body_of([whole(row) for row in range(100)]), raw=True)) is RawRows


@pytest.mark.parametrize("value", [*VALUES, *MORE])
@pytest.mark.parametrize("name", ["points_exclusive", "till_id", "awarded_date", "status"])
def test_a_value_is_taken_or_refused_as_of_records(name: str, value: str) -> None:
    """Between plain pages, and twice, since amounts are remembered."""
    page = body_of([*(whole(row) for row in range(9)), whole(9, **{name: value}), whole(10)])
    plain = body_of([whole(11), whole(12)])
    alike([plain, page, plain])
    alike([page, page])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.dictionaries(
                st.sampled_from((*AMOUNTS[:3], "till_id", "status", "expiry_date", "odd")),
                st.sampled_from([*VALUES[:12], *MORE, "null", "true", '"1.5"', '"A"', '"a:b"']),
                max_size=3,
            ),
            max_size=3,
        ),
        max_size=4,
    ),
    st.sampled_from([1, 2, 3, 65_536]),
)
def test_any_pages_are_taken_or_refused_as_of_records(pages: list[list[dict[str, str]]], most: int) -> None:
    """In the order in which they came, however long the batches are."""
    bodies = [body_of([whole(100 * place + row, **each) for row, each in enumerate(page)])
              for place, page in enumerate(pages, 1)]  # fmt: skip
    alike(bodies)
    raw, records = ([read(body, raw=raw) for body in bodies] for raw in (True, False))
    if not any(isinstance(page, str) for page in records):
        assert table_of(raw, ["id", "points_exclusive", "status"], most) == table_of(
            records, ["id", "points_exclusive", "status"], most
        )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id": 1', b'"id": 1, "id": 1'),
        (b'"id": 1', b'"id": 2, "id": 1'),
        (b'"id": 1', b'"\\u0069d": 1'),
        (b'"id": 1', b'"id" : 1'),
        (b'"id": 1', b'"id":\t1'),
        (b'"id": 1', b'"id": null'),
        (b'"id": 1, ', b""),
        (b'"status": "AVAILABLE"', b'"status": "AVAIL:ABLE"'),
        (b'"status": "AVAILABLE"', b'"status": "A\\"\\u003a\\\\"'),
        (b'"status": "AVAILABLE"', b'"status": "\\ud800"'),
        (b'"status": "AVAILABLE"', b'"status": "\xff"'),
        (b'"status": "AVAILABLE"', b'"status": "AVAILABLE", "odd": 1'),
        (b'"points_value": 2.5', b'"points_value": 2.5, "points_value": 2.5'),
        (b'"points_value": 2.5, ', b'"till_id": 7, '),
        (b'"points_value": 2.5', b'"points_value": {"a": 1}'),
        (b'"points_value": 2.5', b'"points_value": true'),
        (b"[{", b"[null, {"),
        (b"}]", b"}"),
        (b"}]", b"}]x"),
        (b"[{", b"\xef\xbb\xbf[{"),
    ],
)
def test_an_odd_page_of_whole_rows_is_taken_or_refused_as_of_records(old: bytes, new: bytes) -> None:
    """Doubled, unknown and missing members, escaped names, texts with colons, cut bodies."""
    body = body_of([whole(1), whole(3, points_value="1")])
    assert old in body
    body = body.replace(old, new, 1)
    alike([body])
    raw, records = (read(body, raw=raw) for raw in (True, False))
    assert raw == records


@pytest.mark.parametrize("name", ["points_value", "event_log_id"])
def test_minus_one_is_not_minus_two(name: str) -> None:
    """Python hashes them alike; and the digits, the forms and the place do not matter but for the value."""

    def digest(value: str, *, raw: bool = True) -> int:
        (made,) = digests_of(rows(PointsAllocation, body_of([whole(1, **{name: value})]), raw=raw).items)
        return made

    assert digest("-1") == digest("-1", raw=False) != digest("-2") == digest("-2", raw=False)
    if name == "points_value":
        assert digest("-1.00") == digest("-1") == digest("-1.0", raw=False)
        assert digest("-2.00") == digest("-2")
    assert digest("-1") != digest("1") != digest("null")


def test_zeros_that_change_nothing_fit() -> None:
    """However many there are, in raw rows, in records and within other records."""
    alike([body_of([whole(1, points_value=value)]) for value in (f"1.{ZEROS}", "2.5")])
    (made,) = table_of([read(body_of([whole(1, points_value=f"1.{ZEROS}")]), raw=False)], ["points_value"])
    assert made["points_value"] == 1
    deduction = PointsDeduction(points_deducted=Decimal(f"1.{ZEROS}"))
    (column,) = Columns(ManualPointsAdjustment, ["points_deduction_break_up_details"], advice="").arrays(
        [ManualPointsAdjustment(points_deduction_break_up_details=(deduction,))], lambda number: (5, number)
    )
    assert column.to_pylist()[0][0]["points_deducted"] == 1


def test_a_remembered_amount_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept without bound, and nothing is lost where it is forgotten."""
    monkeypatch.setattr("capillary_async.tables._packed._MOST", 2)
    values = [f"{number}.5" for number in range(9)]
    page = read(body_of([whole(row, points_value=value) for row, value in enumerate(values)]), raw=True)
    assert all(isinstance(row, RawRow) for row in page)
    assert [row["points_value"] for row in table_of([page], ["points_value"])] == list(map(Decimal, values))
    (column,) = Columns(PointsAllocation, ["points_value"], advice="").arrays(page, lambda number: (5, number))
    assert column.to_pylist() == list(map(Decimal, values))
