"""Columns and files: every field of every model, nested ones too, exact; bytes that do not depend on the pieces."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from capillary_async import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded
from capillary_async.jobs._common.errors import UnfitError
from capillary_async.jobs._common.sources import SOURCES
from capillary_async.jobs._dataset.columns import DERIVED, Columns
from capillary_async.jobs._dataset.formats import format_of
from capillary_async.jobs._dataset.parquet_format import GROUP
from capillary_async.models import (
    BehavioralEventMetadata,
    BehavioralField,
    BehavioralFieldAttribute,
    BillDetails,
    CustomField,
    EventDetails,
    LineItem,
    RedemptionDetails,
    TargetCompleted,
)

if TYPE_CHECKING:
    from pathlib import Path

LEDGER = LedgerEvent(
    event_log_id=1,
    unique_id="u",
    event_details=EventDetails(
        event_time_iso=datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        redemption_details=RedemptionDetails(points_redeemed=Decimal("20.000"), extra={"new": Decimal("1.50")}),
    ),
    target_completed_details=(TargetCompleted(target_group_id=7), TargetCompleted(target_group_id="x")),
    behavioral_event_metadata=BehavioralEventMetadata(
        fields=(
            BehavioralField(
                field_name="steps", attributes={"isUniqueKeyField": BehavioralFieldAttribute(value="false"), "no": None}
            ),
        )
    ),
    bill_details=BillDetails(
        bill_amount=Decimal("12.5"),
        line_items=(LineItem(amount=Decimal("1.25")), LineItem(amount=Decimal("11.25")), LineItem()),
        max_conversion_date=1_735_309_787_000,
    ),
    custom_fields=(CustomField(name="n", value={"a": [1, Decimal("0.10")]}),),
    payment_modes=({"mode": "card", "amount": Decimal("12.50")},),
    points_breakup=(),
    extra={"later": None},
)


@pytest.mark.parametrize("model", [PointsAllocation, PointsAwarded, LoyaltyEvent, LedgerEvent])
def test_a_column_for_each_field(model: type[Any]) -> None:
    """In the model's order, with the times that are derived beside their milliseconds."""
    names = Columns(model, pa.int64()).schema.names
    fields = [attribute.name for attribute in attrs.fields(model)]
    assert names[:3] == ["asked_key", "shard", "row"]
    assert [name for name in names[3:] if name not in DERIVED.values()] == fields
    for name, derived in DERIVED.items():
        assert (derived in names) == (name in fields)
        assert not hasattr(model, derived) or names.index(derived) == names.index(name) + 1


def test_nested_values_stay() -> None:
    """Structs and lists where the model is typed, JSON text with all digits where it is free-form."""
    (row,) = Columns(LedgerEvent, pa.string()).table(0, [("k", [LEDGER])]).to_pylist(maps_as_pydicts="strict")
    redemption = row["event_details"]["redemption_details"]
    assert [one["points_redeemed"] for one in redemption] == [Decimal("20.000")]
    assert redemption[0]["extra"] == '{"new":1.50}'
    assert row["event_details"]["event_time_iso"] == datetime(2025, 1, 1, 21, 34, 5, 6, tzinfo=UTC)
    assert [one["target_group_id"] for one in row["target_completed_details"]] == ["7", "x"]
    (field,) = row["behavioral_event_metadata"]["fields"]
    assert field["attributes"]["isUniqueKeyField"]["value"] == "false"
    assert field["attributes"]["no"] is None
    assert [one["amount"] for one in row["bill_details"]["line_items"]] == [Decimal("1.250"), Decimal("11.250"), None]
    assert row["bill_details"]["max_conversion_date"] == "1735309787000"
    assert row["custom_fields"][0]["value"] == '{"a":[1,0.10]}'
    assert row["payment_modes"] == '[{"mode":"card","amount":12.50}]'
    assert row["extra"] == '{"later":null}'
    assert row["points_breakup"] is None
    assert row["extended_fields"] is None


def test_sums_of_nested_quantities() -> None:
    """Computed from records and from files, by the same paths."""
    source = SOURCES["ledger"]
    said = source.totals([LEDGER, LEDGER])
    assert said["bill_details.line_items.amount"] == 25
    assert said["event_details.redemption_details.points_redeemed"] == 40
    assert said["points_earned.regular.value"] == 0
    rows = format_of("jsonl", source, {}, 2).plain("k", [LEDGER, LEDGER])
    assert source.totals_of_rows(rows) == said


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (PointsAllocation(points_value=Decimal("0.0001")), r"points_value 0\.0001 of row 0 does not fit decimal128"),
        (PointsAllocation(points_value=Decimal("NaN")), "points_value NaN of row 0 does not fit"),
        (PointsAllocation(till_id=-(2**63) - 1), "till_id -9223372036854775809 of row 0 does not fit int64"),
        (
            LedgerEvent(bill_details=BillDetails(line_items=(LineItem(), LineItem(rate=Decimal("1.00001"))))),
            r"bill_details\.line_items\.rate 1\.00001 of row 0 does not fit decimal128\(18, 3\)",
        ),
    ],
)
def test_what_does_not_fit(record: Any, text: str) -> None:
    """An error that names key, field and row; never a rounded value."""
    with pytest.raises(UnfitError, match=f"key 9: {text}") as raised:
        Columns(type(record), pa.int64()).table(0, [(9, [record])])
    assert raised.value.field == text.split(maxsplit=1)[0].replace("\\", "")
    assert ("jsonl" in str(raised.value)) == ("till_id" not in text)


@pytest.mark.parametrize("value", ["1E+2", "0E-9", "20.0000", "-0", "999999999999999.999", "-999999999999999.999"])
def test_what_fits_exactly(value: str) -> None:
    """The number counts, not the digits it was written with."""
    table = Columns(PointsAwarded, pa.int64()).table(0, [(9, [PointsAwarded(points_exclusive=Decimal(value))])])
    assert table["points_exclusive"].to_pylist() == [Decimal(value)]


def test_times_beyond_the_calendar() -> None:
    """Their milliseconds stay, and the column beside them is null in both formats: readers have no name for them."""
    record = PointsAllocation(awarded_date=10**15)
    table = Columns(PointsAllocation, pa.int64()).table(0, [(9, [record])])
    assert table["awarded_date"].to_pylist() == [10**15]
    assert table["awarded_at"].to_pylist() == [None]
    (row,) = format_of("jsonl", SOURCES["allocations"], {}, 2).plain(9, [record])
    assert (row["awarded_date"], row["awarded_at"]) == (10**15, None)


def test_pieces_do_not_show(tmp_path: Path) -> None:
    """Row by row or all at once, over several row groups: the same bytes, and row groups of one size."""
    format_ = format_of("parquet", SOURCES["awarded"], {"status": "AVAILABLE"}, 2)
    entries = [(key, [PointsAwarded(id=key * 10 + row, source_table=f"t{key % 7}") for row in range(key % 40)])
               for key in range(1, 1_000)]  # fmt: skip
    entries = [entry for entry in entries if entry[1]]
    written: list[bytes] = []
    for size in (1, 7, 500, len(entries)):
        file = io.BytesIO()
        shard = format_.open(file, 3)
        for start in range(0, len(entries), size):
            shard.add(format_.chunk(3, entries[start : start + size]))
        shard.close()
        written.append(file.getvalue())
    assert len(set(written)) == 1
    path = tmp_path / "part.parquet"
    path.write_bytes(written[0])
    meta = pq.read_metadata(path)
    groups = [meta.row_group(place).num_rows for place in range(meta.num_row_groups)]
    assert groups[:-1] == [GROUP] * (len(groups) - 1)
    assert len(groups) > 2
    assert meta.row_group(0).column(0).compression == "ZSTD"
    keys = [key for key, _ in format_.pieces(path)]
    assert list(dict.fromkeys(keys)) == [key for key, _ in entries]
