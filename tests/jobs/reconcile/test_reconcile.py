"""Reconciliation: classes, control totals, the file of differences, other exports, and how a run ends."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.export_folder import write_export

from capillary_async import CapillaryError
from capillary_async.cli import main
from capillary_async.jobs import JobError, ReconcileResult, reconcile
from capillary_async.jobs._books import duckdb_engine as _compare_engine
from capillary_async.jobs._comparing import compare as _compare
from capillary_async.sandbox import Sandbox

HELD = Sandbox(customers=20)
ROWS = [row for customer in HELD.customer_ids for row in HELD.allocations(customer)]
TODAY = date(2026, 1, 15)  # the sandbox's world stands still on this day
CUSTOMER = 600000001


def allocation(number: int, points: Any = "10", **more: Any) -> dict[str, Any]:
    """An allocation with nothing wrong with it."""
    zeros = {f"{what}_exclusive_value": "0" for what in ("redeemed", "returned", "expired")}
    own = {"id": number, "customer_id": CUSTOMER, "status": "AVAILABLE", "points_exclusive": points}
    return zeros | own | {"expiry_date": 1_900_000_000_000} | more


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def counts(result: ReconcileResult) -> dict[str, int]:
    assert result.comparison is not None
    return dict(result.comparison.counts)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Three allocations: 1, 2 and 3 with 10, 20 and 30 points."""
    return write_export(tmp_path / "export", "allocations", [allocation(n, f"{n}0") for n in (1, 2, 3)])


# -- classes and totals


async def test_every_class_with_its_totals(export: Path, tmp_path: Path) -> None:
    """One record in each class; the totals add up; the file has a row a difference, in order."""
    books = write_csv(tmp_path / "books.csv", ["award_id", "points"], [[1, "10.000"], [2, "19.5"], [4, "40"]])
    out = tmp_path / "differences.parquet"
    result = await reconcile(
        export, books, key={"id": "award_id"}, compare={"points_exclusive": "points"}, out=out, as_of=TODAY
    )
    assert not result.equal
    assert counts(result) == {"equal": 1, "changed": 1, "missing_in_books": 1, "missing_in_capillary": 1}
    assert result.comparison is not None
    (totals,) = result.comparison.totals
    assert (totals.capillary, totals.books, totals.difference) == (Decimal(60), Decimal("69.5"), Decimal("-9.5"))
    assert totals.deltas == {
        "missing_in_books": Decimal(30),
        "missing_in_capillary": Decimal(-40),
        "changed": Decimal("0.5"),
        "equal": Decimal(0),
    }
    table = pq.read_table(out)
    assert table.schema.field("delta").type == pa.decimal128(38, 3)
    columns = ["class", "id", "field", "capillary_value", "books_value", "delta", "asked_key"]
    assert table.column_names == columns
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("changed", 2, "points_exclusive", "20.000", "19.500", Decimal("0.5"), CUSTOMER),
        ("missing_in_books", 3, "points_exclusive", "30.000", None, Decimal(30), CUSTOMER),
        ("missing_in_capillary", 4, "points_exclusive", None, "40.000", Decimal(-40), None),
    ]


async def test_equal_books(tmp_path: Path) -> None:
    """All the sandbox holds against books that say the same in plain CSV."""
    export = write_export(tmp_path / "export", "allocations", ROWS, per_shard=37)
    rows = [[row["id"], row["points_exclusive"], row["status"]] for row in reversed(ROWS)]
    books = write_csv(tmp_path / "books.csv", ["id", "points", "status"], rows)
    result = await reconcile(export, books, key="id", compare="points_exclusive=points,status", as_of=TODAY)
    assert result.equal
    assert counts(result) == {"equal": len(ROWS), "changed": 0, "missing_in_books": 0, "missing_in_capillary": 0}
    assert result.verdict == f"EQUAL: {len(ROWS)} records on both sides, no rule broken"


AMOUNTS = st.none() | st.decimals(min_value=0, max_value=30, places=3)
SIDES = st.dictionaries(st.integers(1, 12), AMOUNTS, min_size=1, max_size=12)


@pytest.mark.long
@settings(max_examples=15, deadline=None)
@given(ours=SIDES, theirs=SIDES, tolerance=st.decimals(min_value=0, max_value=5, places=3))
def test_any_two_sides_against_plain_python(
    tmp_path_factory: pytest.TempPathFactory,
    ours: dict[int, Decimal | None],
    theirs: dict[int, Decimal | None],
    tolerance: Decimal,
) -> None:
    """Classes, deltas and totals are those of a loop over two dicts."""
    path = tmp_path_factory.mktemp("sides")
    export = write_export(path / "export", "allocations", [allocation(n, points) for n, points in ours.items()])
    books = write_csv(path / "books.csv", ["id", "points"], [[n, points] for n, points in theirs.items()])
    result = asyncio.run(
        reconcile(
            export, books, key="id", compare="points_exclusive=points", tolerance=tolerance, out=path / "d.parquet"
        )
    )
    found = {row["id"]: (row["class"], row["delta"]) for row in pq.read_table(path / "d.parquet").to_pylist()}
    expected = {}
    for n in {*ours, *theirs}:
        mine, other = ours.get(n), theirs.get(n)
        delta = (mine or Decimal(0)) - (other or Decimal(0))
        if n not in theirs or n not in ours:
            expected[n] = ("missing_in_books" if n in ours else "missing_in_capillary", delta)
        elif (mine is None) != (other is None) or abs(delta) > tolerance:
            expected[n] = ("changed", delta)
    assert found == expected
    assert result.comparison is not None
    assert result.comparison.totals[0].difference == sum(p or 0 for p in ours.values()) - sum(
        p or 0 for p in theirs.values()
    )
    assert counts(result)["equal"] == len({*ours, *theirs}) - len(expected)


@pytest.mark.parametrize(("tolerance", "changed"), [("0", 2), ("0.001", 1), (Decimal("0.002"), 0), (1, 0)])
async def test_tolerance_is_exact_and_inclusive(tmp_path: Path, tolerance: Any, changed: int) -> None:
    """0.001 of difference is equal at 0.001, and 0.002 is not; what is within shows in the totals."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1, "0.300"), allocation(2, "0.300")])
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[1, "0.301"], [2, "0.298"]])
    result = await reconcile(export, books, key="id", compare="points_exclusive=points", tolerance=tolerance)
    assert counts(result)["changed"] == changed
    assert result.comparison is not None
    assert result.comparison.totals[0].difference == Decimal("0.001")
    assert result.comparison.within_tolerance == 2 - changed


async def test_nothing_is_no_zero(tmp_path: Path) -> None:
    """No value against no value is equal; against 0 it is a difference of 0."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1, None), allocation(2, None)])
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[1, ""], [2, "0"]])
    out = tmp_path / "d.parquet"
    result = await reconcile(export, books, key="id", compare="points_exclusive=points", tolerance=5, out=out)
    assert counts(result) == {"equal": 1, "changed": 1, "missing_in_books": 0, "missing_in_capillary": 0}
    (row,) = pq.read_table(out).to_pylist()
    assert (row["id"], row["capillary_value"], row["books_value"], row["delta"]) == (2, None, "0.000", Decimal(0))


async def test_digits_beyond_three_decimals_and_28_digits(tmp_path: Path) -> None:
    """Books with more decimals than the API are compared with all of them; sums are exact beyond Decimal's default."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1, "999999999999999.999"), allocation(2, 1)])
    rows = [[1, "999999999999999.999000000000000001"], [2, "1.000000000000000000"]]
    books = write_csv(tmp_path / "books.csv", ["id", "points"], rows)
    result = await reconcile(export, books, key="id", compare="points_exclusive=points")
    assert result.comparison is not None
    assert result.comparison.totals[0].difference == Decimal("-1E-18")
    assert counts(result)["changed"] == 1


async def test_composite_key_and_other_kinds_of_columns(tmp_path: Path) -> None:
    """Awards are told apart by table and id; text, ids and amounts are compared each as what it is."""
    rows = [
        {"id": 7, "source_table": table, "customer_id": 1, "event_log_id": 5, "points_exclusive": "2.5"}
        for table in ("points_awarded", "points_awarded_bill_lineitems")
    ]
    export = write_export(tmp_path / "export", "awarded", rows)
    lines = [["points_awarded", 7, 5, "2.5"], ["points_awarded_bill_lineitems", 7, 6, "2.5"]]
    books = write_csv(tmp_path / "books.csv", ["src", "award_id", "event", "points"], lines)
    out = tmp_path / "d.parquet"
    result = await reconcile(
        export,
        books,
        key="source_table=src,id=award_id",
        compare=["event_log_id=event", "points_exclusive=points"],
        out=out,
    )
    assert counts(result) == {"equal": 1, "changed": 1, "missing_in_books": 0, "missing_in_capillary": 0}
    (row,) = pq.read_table(out).to_pylist()
    assert row["source_table"] == "points_awarded_bill_lineitems"
    assert (row["field"], row["capillary_value"], row["books_value"], row["delta"]) == ("event_log_id", "5", "6", None)


async def test_keys_alone(export: Path, tmp_path: Path) -> None:
    """Without columns to compare, what is missing is found all the same."""
    books = write_csv(tmp_path / "books.csv", ["id"], [[1], [2], [9]])
    result = await reconcile(export, books, key="id", out=tmp_path / "d.parquet", report=tmp_path / "r.html")
    assert counts(result) == {"equal": 2, "changed": 0, "missing_in_books": 1, "missing_in_capillary": 1}
    rows = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert [(row["class"], row["id"], row["field"]) for row in rows] == [
        ("missing_in_books", 3, None),
        ("missing_in_capillary", 9, None),
    ]


async def test_times_are_instants(tmp_path: Path) -> None:
    """The same instant in another zone is equal."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1), allocation(2)])
    lines = [[1, "2030-03-17T23:16:40+05:30"], [2, "2030-03-17T17:46:41Z"]]
    books = write_csv(tmp_path / "books.csv", ["id", "expires"], lines)
    result = await reconcile(export, books, key="id", compare="expires_at=expires")
    assert counts(result)["equal"] == 1
    assert counts(result)["changed"] == 1


async def test_the_classes_must_add_up(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: a join that loses a row is found out by the totals."""
    join = _compare._join

    def losing(engine: Any, *others: Any) -> None:
        join(engine, *others)
        engine.run("DELETE FROM found WHERE class = 'changed'")

    monkeypatch.setattr(_compare, "_join", losing)
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[1, 10], [2, 20], [3, 31]])
    with pytest.raises(JobError, match=r"points_exclusive: the totals differ by -1\.000 and the classes by 0"):
        await reconcile(export, books, key="id", compare="points_exclusive=points")


# -- exports on either side


@pytest.mark.long
async def test_two_exports(tmp_path: Path) -> None:
    """Another export stands as the books: its record key and every column are compared by themselves."""
    changed = [row | ({"status": "RETURNED"} if nth == 3 else {}) for nth, row in enumerate(ROWS)]
    yesterday = write_export(tmp_path / "yesterday", "allocations", changed[:-1], jsonl=True, per_shard=50)
    today = write_export(tmp_path / "today", "allocations", ROWS)
    result = await reconcile(today, yesterday, as_of=TODAY, out=tmp_path / "d.parquet")
    assert counts(result) == {"equal": len(ROWS) - 2, "changed": 1, "missing_in_books": 1, "missing_in_capillary": 0}
    assert result.comparison is not None
    assert {field for field, number in result.comparison.changed.items() if number} == {"status"}
    fields = {"points_exclusive", "till_id", "expiry_date", "status"}
    assert fields <= set(result.comparison.changed)
    assert (await reconcile(yesterday, yesterday, as_of=TODAY)).comparison.equal  # type: ignore[union-attr]


async def test_exports_of_ledger_and_events(tmp_path: Path) -> None:
    """Nested values are compared as they stand."""
    entry = {"event_log_id": 5, "unique_id": "a", "event_name": "NewBill", "bill_details": '{"billNumber": "x"}'}
    one = write_export(tmp_path / "one", "ledger", [entry])
    other = write_export(tmp_path / "other", "ledger", [entry | {"bill_details": '{"billNumber": "y"}'}])
    result = await reconcile(one, other, out=tmp_path / "d.parquet")
    (row,) = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert (row["event_log_id"], row["unique_id"], row["field"]) == (5, "a", "bill_details")
    assert result.groups[0].value == "NewBill"
    events = write_export(tmp_path / "events", "events", [{"id": 1, "customer_id": 1, "date": "2026-01-01T00:00:00Z"}])
    assert (await reconcile(events, events)).equal
    with pytest.raises(JobError, match=r"is an export of events, and .* one of ledger"):
        await reconcile(one, events)


async def test_nested_columns(tmp_path: Path) -> None:
    """Structs of Parquet are compared member by member, and shown as JSON."""
    entry = {"event_log_id": 5, "unique_id": "a", "event_name": "NewBill"}
    folders = []
    for folder, amount in (("one", "10.500"), ("other", "10.501")):
        export = write_export(tmp_path / folder, "ledger", [entry])
        shard = next(export.glob("shards/*"))
        table = pq.read_table(shard)
        struct = pa.struct([("bill_number", pa.string()), ("bill_amount", pa.decimal128(18, 3))])
        bill = pa.array([{"bill_number": "x", "bill_amount": Decimal(amount)}], struct)
        pq.write_table(table.set_column(table.schema.get_field_index("bill_details"), "bill_details", bill), shard)
        folders.append(export)
    assert (await reconcile(folders[0], folders[0])).equal
    result = await reconcile(*folders, out=tmp_path / "d.parquet", report=tmp_path / "r.html")
    assert not result.equal
    (row,) = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert row["field"] == "bill_details"
    assert row["capillary_value"] == '{"bill_number":"x","bill_amount":10.500}'


async def test_json_lines_with_rounded_amounts_are_refused(tmp_path: Path) -> None:
    """An amount that stands as a JSON number went through a float, or may have more decimals than the column."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1, "10.000")], jsonl=True)
    assert (await reconcile(export)).records == 1
    shard = next(export.glob("shards/*"))
    text = shard.read_text()
    for written in ("10.0004", "10.5", '"1e3"', f'"{"1" * 21}"', f'"0.{"1" * 19}"', '"1.5E-18"'):
        shard.write_text(text.replace('"points_exclusive": "10.000"', f'"points_exclusive": {written}'))
        with pytest.raises(JobError, match=rf"{shard}: record 1 of .*exclusive is {re.escape(written)}"):
            await reconcile(export)


@pytest.mark.parametrize(
    ("written", "plain"),
    [("1E+17", "1" + "0" * 17), ("10.0004", "10.0004"), ("1." + "0" * 24, "1"), ("1.5E-7", "0.00000015"), ("-0", "0")],
)
async def test_every_digit_of_json_lines(tmp_path: Path, written: str, plain: str) -> None:
    """What has more digits than a Parquet column holds is compared to the last one, on either side."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1, written), allocation(2)], jsonl=True)
    rounded = str(Decimal(plain).quantize(Decimal("0.001")))
    for points, same in ((plain, True), (plain + ("1" if "." in plain else ".0001"), False), (rounded, None)):
        books = write_csv(tmp_path / "books.csv", ["id", "points"], [[1, points], [2, "10"]])
        result = await reconcile(export, books, key="id", compare="points_exclusive=points", as_of=TODAY)
        assert counts(result)["equal"] == 1 + (Decimal(points) == Decimal(plain) if same is None else same)
        assert result.comparison is not None
        assert result.comparison.totals[0].difference == Decimal(plain) - Decimal(points)


async def test_ids_with_a_fraction_are_refused(tmp_path: Path) -> None:
    """DuckDB would round 1.5 to the id of another record."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1)], jsonl=True)
    shard = next(export.glob("shards/*"))
    shard.write_text(shard.read_text().replace('"id": 1,', '"id": 1.5,'))
    with pytest.raises(JobError, match=rf"{shard}: record 1\.5 of .*: id is 1\.5, and must be a whole number"):
        await reconcile(export)


async def test_ids_beyond_64_bits_are_told(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", "allocations", [allocation(1), allocation(2**63)], jsonl=True)
    with pytest.raises(JobError, match=rf"part-00000000\.jsonl, line 2: {2**63} is no whole number of 64 bits"):
        await reconcile(export)


@pytest.mark.parametrize("given_as", ["argument", "export"])
async def test_months_are_the_servers_and_of_what_can_be_used(tmp_path: Path, given_as: str) -> None:
    """AVAILABLE rows alone, in the total too; the report names the zone, and what the endpoints do not show."""
    evening = 1_780_257_600_000  # 2026-05-31 20:00 UTC, which is June in India
    rows = [
        allocation(1, "10.001", expiry_date=evening, redeemed_exclusive_value="1"),
        allocation(2, "20", expiry_date=evening, status="INACTIVE"),
        allocation(3, "30", expiry_date=evening, status="POINT_CATEGORY_CHANGED"),
        allocation(4, "40", expiry_date=evening - 86_400_000),
    ]
    zone = {} if given_as == "argument" else {"server_timezone": "Asia/Kolkata"}
    folder = write_export(tmp_path / "points", "allocations", rows, **zone)
    arguments = {"timezone": "Asia/Kolkata"} if given_as == "argument" else {}
    result = await reconcile(folder, report=tmp_path / "report.html", as_of=TODAY, **arguments)
    assert result.months == {"2026-05": Decimal(40), "2026-06": Decimal("9.001")}
    text = (tmp_path / "report.html").read_text()
    assert "Asia/Kolkata" in result.timezone
    assert "Asia/Kolkata" in text
    assert "49.001 points in all" in text
    assert "rows of one of five award tables" in text
    assert "no sum here is a balance" in text


async def test_an_expiry_that_means_never(export: Path) -> None:
    """What expires after the year 9999 counts in its last month; no record and no point is left out."""
    shard = next(export.glob("shards/*"))
    table = pq.read_table(shard)
    for name, kind in (("expiry_date", pa.int64()), ("expires_at", pa.timestamp("ms", tz="UTC"))):
        column = pa.array([500_000_000_000_000] * 3, pa.int64()).cast(kind)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    gone = pa.array(["EXPIRED", "AVAILABLE", "AVAILABLE"])
    table = table.set_column(table.schema.get_field_index("status"), "status", gone)
    pq.write_table(table, shard)
    result = await reconcile(export)
    assert result.months == {"9999-12": Decimal(50)}
    assert "expired-after-its-date" in {each.rule.name for each in result.broken}


async def test_a_record_read_twice_counts_once(tmp_path: Path) -> None:
    """A record that came under two asked keys is compared once, told by a rule, and never summed twice."""
    rows = [allocation(1), allocation(1, asked_key=2, original_customer_id=2), allocation(2)]
    export = write_export(tmp_path / "export", "allocations", rows)
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[1, 10], [2, 10]])
    result = await reconcile(export, books, key="id", compare="points_exclusive=points", report=tmp_path / "r.html")
    assert result.comparison is not None
    assert result.comparison.equal
    assert result.comparison.repeated == 1
    assert not result.equal
    assert result.verdict.startswith("EQUAL, BUT RULES ARE BROKEN: 2 records on both sides, 1 rule broken")
    assert [each.rule.name for each in result.broken] == ["record-once"]
    assert "1 records of the export had come before" in (tmp_path / "r.html").read_text()


async def test_a_key_of_several_records_is_refused(tmp_path: Path) -> None:
    """Two allocations of a customer are no one row of the books; the same record with other points is no record."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1), allocation(2)])
    books = write_csv(tmp_path / "books.csv", ["customer", "points"], [[CUSTOMER, 20]])
    with pytest.raises(JobError, match=rf"customer_id names several records, e\.g\. customer_id {CUSTOMER}"):
        await reconcile(export, books, key="customer_id=customer", compare="points_exclusive=points")
    changed = write_export(tmp_path / "changed", "allocations", [allocation(1), allocation(1, "11")])
    ids = write_csv(tmp_path / "ids.csv", ["id", "points"], [[1, 20]])
    with pytest.raises(JobError, match="the record id 1 came twice with other content"):
        await reconcile(changed, ids, key="id", compare="points_exclusive=points")


async def test_records_without_key_are_missing_in_books(tmp_path: Path) -> None:
    """Nothing equals nothing there: such a record is told, and the totals add up."""
    export = write_export(tmp_path / "export", "allocations", [allocation(None), allocation(None), allocation(3)])  # type: ignore[arg-type]
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[3, 10]])
    result = await reconcile(export, books, key="id", compare="points_exclusive=points")
    assert counts(result) == {"equal": 1, "changed": 0, "missing_in_books": 2, "missing_in_capillary": 0}


async def test_an_export_without_records(tmp_path: Path) -> None:
    """No shard at all is an export too."""
    export = write_export(tmp_path / "export", "allocations", [])
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[3, 10]])
    result = await reconcile(export, books, key="id", compare="points_exclusive=points", report=tmp_path / "r.html")
    assert counts(result) == {"equal": 0, "changed": 0, "missing_in_books": 0, "missing_in_capillary": 1}


# -- folders that are none


async def test_folders_that_are_no_finished_export(tmp_path: Path, export: Path) -> None:
    """Each says what it is and what to do."""
    (tmp_path / "begun").mkdir()
    for folder, said in (
        (tmp_path / "nowhere", "is no folder"),
        (tmp_path / "begun", "has not finished. Run the same export command again, with the same --out"),
    ):
        with pytest.raises(JobError, match=said) as caught:
            await reconcile(folder)
        assert isinstance(caught.value, CapillaryError)
        assert caught.value.path == str(folder)
    manifest = export / "manifest.json"
    text = manifest.read_text()
    for changed, said in (
        ("{", "cannot be read"),
        ("[]", "is no manifest"),
        (text.replace('"allocations"', '"invoices"'), "source is 'invoices'"),
        (text.replace("part-00000000", "part-00000009"), "part-00000009.parquet is missing"),
        ("{" + '"source": "allocations"}', "has schema version None"),
    ):
        manifest.write_text(changed)
        with pytest.raises(JobError, match=said):
            await reconcile(export)


async def test_a_shard_that_is_torn_or_old(export: Path) -> None:
    """The folder is named, and nothing is compared."""
    shard = next(export.glob("shards/*"))
    table = pq.read_table(shard)
    pq.write_table(table.drop_columns(["status"]), shard)
    with pytest.raises(JobError, match="the shards have no column status"):
        await reconcile(export)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(JobError, match=str(export)):
        await reconcile(export)


# -- arguments


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"schema_version": 99}, "has schema version 99, and this release reads 1"),
        ({"schema_version": True}, "has schema version True"),
        ({"source": ["ledger"]}, r"source is \['ledger'\], not one of"),
        ({"shards": [{}]}, r"shards\[0\]\.file is None, and must be a file within shards/"),
        ({"shards": ["x"]}, r"shards\[0\] is 'x', and must be an object"),
        ({"shards": {}}, "shards is {}, and must be a list"),
        ({"shards": [{"file": "../other/shards/part-00000000.parquet"}]}, r"shards\[0\]\.file is '\.\./other"),
        ({"shards": [{"file": "/etc/passwd"}]}, r"shards\[0\]\.file is '/etc/passwd'"),
        ({"shards": [{"file": "shards/a.parquet"}] * 2}, "each file once"),
        ({"records": "abc"}, "records is 'abc', and must be a whole number"),
        ({"records": -1}, "records is -1"),
        ({"totals": {"points_value": "x"}}, r"totals\.points_value is 'x', and must be a decimal number"),
        ({"totals": {"points_value": 0.1}}, r"totals\.points_value is 0\.1"),
        ({"totals": []}, r"totals is \[\], and must be an object"),
        ({"query": [1]}, r"query is \[1\], and must be an object"),
        ({"ids": {"asked": "x"}}, r"ids\.asked is 'x', and must be a whole number"),
        ({"ids": None}, "ids is None, and must be an object"),
        ({"format": "csv"}, "format is 'csv', and must be parquet or jsonl"),
        ({"complete": "yes"}, "complete is 'yes', and must be true or false"),
        ({"keys_digest": [1]}, "keys_digest is"),
    ],
)
async def test_a_manifest_that_is_none(tmp_path: Path, members: dict[str, Any], said: str) -> None:
    """Each names the file, the member, what stands there and what must."""
    export = write_export(tmp_path / "export", "allocations", [allocation(1)])
    manifest = export / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | members))
    with pytest.raises(JobError, match=said) as caught:
        await reconcile(export)
    assert str(caught.value).startswith(str(manifest))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"key": "id", "compare": "points"}, "has no column 'points'. It has: asked_key, till_id"),
        ({"key": "row", "compare": "points_exclusive=points"}, "has no column 'row'"),
        ({"key": "id", "compare": "id=points"}, "the column id is named twice"),
        ({"key": "id=", "compare": "points_exclusive=points"}, "key takes column=column"),
        ({"compare": "points_exclusive=points"}, "key takes the columns"),
        ({"key": "id", "tolerance": 0.1}, "tolerance takes a decimal number from 0 on, .* got 0.1"),
        ({"key": "id", "tolerance": "-1"}, "tolerance takes"),
        ({"key": "id", "tolerance": "nan"}, "tolerance takes"),
        ({"key": "id", "tolerance": True}, "tolerance takes"),
        ({"key": "id", "tolerance": "1E+100"}, "tolerance takes less than 1,000,000,000,000,000 points"),
        ({"key": "id", "tolerance": "1E-19"}, "at most 18 decimals, got '1E-19'"),
        ({"key": "id", "out": "d.csv"}, r"the name must end in \.parquet"),
        ({"key": "id", "report": "nowhere/r.html"}, "there is no folder nowhere"),
        ({"key": "id", "as_of": datetime(2026, 1, 1)}, "as_of takes an aware datetime"),  # noqa: DTZ001
        ({"key": "id", "memory_limit": "much"}, "memory_limit takes no 'much'"),
        ({"key": "id", "threads": -1}, "threads takes no -1"),
        ({"key": "id", "table": "t"}, "has no tables"),
    ],
)
async def test_arguments_that_cannot_be(export: Path, tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[1, 10]])
    with pytest.raises(JobError, match=said):
        await reconcile(export, books, **arguments)


async def test_files_within_the_export_are_refused(export: Path) -> None:
    """Its folder holds what the manifest names and nothing else."""
    with pytest.raises(JobError, match="is within the export"):
        await reconcile(export, report=export / "report.html")


async def test_what_is_read_is_never_written_over(export: Path, tmp_path: Path) -> None:
    """Neither the books under any of their names, nor a file of another export, finished or not."""
    books = tmp_path / "books.parquet"
    pq.write_table(pa.table({"id": [1], "points": [10]}), books)
    other = write_export(tmp_path / "other", "allocations", [allocation(1)])
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "state.sqlite").touch()
    (tmp_path / "link.parquet").symlink_to(books)
    (tmp_path / "same.parquet").hardlink_to(books)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    asked = {"key": "id", "compare": "points_exclusive=points"}
    for target in (books, tmp_path / "link.parquet", tmp_path / "same.parquet"):
        with pytest.raises(JobError, match="is what is compared, and would be written over"):
            await reconcile(export, books, out=target, **asked)
    shard = other / "shards" / "part-00000000.parquet"
    for target in (shard, begun / "d.parquet"):
        with pytest.raises(JobError, match="is within the export"):
            await reconcile(export, books, out=target, **asked)
    for sides in ({"books": other}, {"with_awarded": other}, {"with_events": other}):
        with pytest.raises(JobError, match="would be written over"):
            await reconcile(export, out=shard, **sides)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(JobError, match="is a folder; name a file"):
        await reconcile(export, books, out=tmp_path / "folder.parquet", **asked)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


async def test_without_books_nothing_of_them_is_taken(export: Path, tmp_path: Path) -> None:
    for arguments in ({"key": "id"}, {"compare": "status"}, {"table": "t"}, {"out": tmp_path / "d.parquet"}):
        with pytest.raises(JobError, match="goes with books"):
            await reconcile(export, **arguments)


# -- how a run ends


async def test_the_file_of_differences_is_the_same_each_time(tmp_path: Path) -> None:
    """Threads or memory change neither its bytes nor its order; what does not fit in memory goes to disk."""
    rows = [allocation(n, f"{n % 97}.125") for n in range(3000)]
    export = write_export(tmp_path / "export", "allocations", rows, per_shard=500)
    lines = [[n, f"{n % 89}.5"] for n in range(1500, 4500)]
    books = write_csv(tmp_path / "books.csv", ["id", "points"], lines)
    written = []
    for threads, memory in ((1, "1GiB"), (4, "100MiB")):
        out = tmp_path / f"{threads}.parquet"
        await reconcile(
            export,
            books,
            key="id",
            compare="points_exclusive=points",
            out=out,
            threads=threads,
            memory_limit=memory,
        )
        written.append(out.read_bytes())
    assert written[0] == written[1]
    table = pq.read_table(tmp_path / "1.parquet")
    keys = [(row["class"], row["id"]) for row in table.to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) > 3000


async def test_nothing_is_left_behind_an_error(export: Path, tmp_path: Path) -> None:
    """Neither scratch files nor half a result; what stood there before stays."""
    out = tmp_path / "out" / "d.parquet"
    out.parent.mkdir()
    out.write_text("from yesterday")
    books = write_csv(tmp_path / "books.csv", ["id", "points"], [[1, "1,0"]])
    with pytest.raises(JobError):
        await reconcile(export, books, key="id", compare="points_exclusive=points", out=out)
    assert os.listdir(out.parent) == ["d.parquet"]
    assert out.read_text() == "from yesterday"


async def test_a_folder_that_cannot_be_written(export: Path, tmp_path: Path) -> None:
    """A file where the report should be a file is told."""
    (tmp_path / "r.html").mkdir()
    with pytest.raises(JobError, match=r"r\.html is a folder; name a file"):
        await reconcile(export, report=tmp_path / "r.html")


def big_export(path: Path) -> Path:
    """Enough records that comparing them takes a while."""
    export = write_export(path / "export", "allocations", [allocation(1)])
    shard = next(export.glob("shards/*"))
    rows = f"SELECT * REPLACE (id + n AS id) FROM read_parquet('{shard}'), range(2000000) numbers(n)"
    duckdb.execute(f"COPY ({rows}) TO '{path / 'many.parquet'}' (FORMAT parquet)")
    (path / "many.parquet").replace(shard)
    return export


async def test_cancelling_ends_the_work(tmp_path: Path) -> None:
    """Soon after, and no scratch folder stays."""
    export = big_export(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    task = asyncio.create_task(reconcile(export, export, out=out / "d.parquet"))
    while not any(out.glob(".reconcile-*/work.duckdb")):  # noqa: ASYNC110 - another thread makes it
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert not task.done()
    task.cancel()
    cancelled = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - cancelled < 15
    assert os.listdir(out) == []


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_command(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """With the usual exit code, one line, and no scratch folder."""
    export = big_export(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "capillary_async.cli", "reconcile", str(export), "--books", str(export)]
    # The development mode would write to stderr what asyncio thinks slow.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDEVMODE"}
    process = subprocess.Popen(
        [*command, "--out", str(out / "d.parquet")], stderr=subprocess.PIPE, text=True, env=environment
    )
    while not any(out.glob(".reconcile-*/work.duckdb")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert process.returncode == code, told
    assert told.count("\n") == 1
    assert os.listdir(out) == []


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
async def test_what_a_kill_left_goes_with_the_next_run(tmp_path: Path) -> None:
    """And nothing of a run that still works there, nor what is none of ours."""
    export = big_export(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / ".reconcile-notes").mkdir()
    command = [sys.executable, "-m", "capillary_async.cli", "reconcile", str(export), "--books", str(export)]
    process = await asyncio.create_subprocess_exec(*command, "--out", str(out / "d.parquet"))
    try:
        while not (left := list(out.glob(".reconcile-*/work.duckdb"))):  # another process makes it
            assert process.returncode is None
            await asyncio.sleep(0.01)
        small = write_export(tmp_path / "small", "allocations", [allocation(1)])
        process.send_signal(signal.SIGSTOP)
        await reconcile(small, report=out / "r.html")
        assert left[0].exists()
    finally:
        process.kill()
        await process.wait()
    assert left[0].exists()
    await reconcile(small, report=out / "r.html")
    assert sorted(os.listdir(out)) == [".reconcile-notes", "r.html"]


async def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is done there as well, and what others left stays."""

    def no_locks(_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(_compare_engine, "take_lock", no_locks)
    export = write_export(tmp_path / "export", "allocations", [allocation(1)])
    left = tmp_path / "out" / ".reconcile-left"
    left.mkdir(parents=True)
    (left / "lock").touch()
    await reconcile(export, report=tmp_path / "out" / "r.html")
    assert sorted(os.listdir(tmp_path / "out")) == [".reconcile-left", "r.html"]


async def test_a_folder_swept_before_it_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is made, whether the lock was taken or what it lies in is gone."""
    tried: list[Path] = []

    def late(file: Any) -> None:
        folder = Path(file.name).parent
        tried.append(folder)
        if len(tried) == 1:
            raise BlockingIOError
        if len(tried) == 2:
            shutil.rmtree(folder)

    monkeypatch.setattr(_compare_engine, "take_lock", late)
    (tmp_path / "out").mkdir()
    with _compare_engine.Engine(tmp_path / "out", memory_limit="1GiB", threads=1) as engine:
        assert engine.row("SELECT 1") == (1,)
        assert engine.scratch == tried[2]


# -- the command


def test_the_command_tells_it_in_ten_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """3 where something differs, 0 where nothing does, 1 where it cannot be told."""
    export = write_export(tmp_path / "export", "allocations", ROWS)
    header = ["award_id", "points"]
    lines = [[row["id"], row["points_exclusive"]] for row in ROWS]
    books = str(write_csv(tmp_path / "books.csv", header, lines[1:]))
    asked = ["reconcile", str(export), "--key", "id=award_id", "--compare", "points_exclusive=points"]
    asked += ["--as-of", "2026-01-15"]
    files = ["--out", str(tmp_path / "d.parquet"), "--report", str(tmp_path / "r.html")]
    assert main([*asked, "--books", books, *files]) == 3
    out, err = capfd.readouterr()
    told = out.splitlines()
    assert not err
    assert len(told) <= 10
    assert told[0] == f"DIFFERENT: 1 of {len(ROWS)} records differ, no rule broken"
    assert f"equal {len(ROWS) - 1}, changed 0, missing in books 1, missing in Capillary 0" in told
    assert f"report: {tmp_path / 'r.html'}" in told
    write_csv(tmp_path / "books.csv", header, lines)
    assert main([*asked, "--books", books, "--quiet"]) == 0
    assert capfd.readouterr().out == f"EQUAL: {len(ROWS)} records on both sides, no rule broken\n"
    assert main([*asked, "--books", str(tmp_path / "no.csv")]) == 1
    assert capfd.readouterr().err.startswith("capillary-async: books: there is no file")
    assert main(["reconcile", str(export), "--as-of", "tomorrow"]) == 1
    assert "--as-of takes a day, YYYY-MM-DD" in capfd.readouterr().err
    assert main(["reconcile", str(export), "--books", books, "--tolerance", "much"]) == 1
    assert capfd.readouterr().err.startswith("capillary-async: --tolerance takes a decimal number")


def test_the_command_says_what_it_takes(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["reconcile", "--help"]) == 0
    told = " ".join(capfd.readouterr().out.split())
    assert "3 differences found" in told
    for option in ("--books", "--table", "--key", "--compare", "--tolerance", "--out", "--report", "--with-events"):
        assert option in told


def test_the_command_without_the_extra(
    export: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line that says what to install."""
    for name in [name for name in sys.modules if name.startswith("capillary_async.jobs")]:
        monkeypatch.delitem(sys.modules, name)
    import capillary_async

    monkeypatch.delattr(capillary_async, "jobs")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["reconcile", str(export)]) == 1
    told = capfd.readouterr().err
    assert told == (
        'capillary-async: reconcile needs the jobs extra (duckdb is missing): pip install "capillary-async[cli,jobs]"\n'
    )


def test_the_command_in_the_report_does_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What the result gives as its command line is one that gives the same result."""
    import shlex

    export = write_export(tmp_path / "an export", "allocations", ROWS)
    books = write_csv(tmp_path / "my books.csv", ["award_id", "points"], [[ROWS[0]["id"], 1]])
    result = asyncio.run(
        reconcile(
            export,
            books,
            key="id=award_id",
            compare="points_exclusive=points",
            tolerance="0.5",
            as_of=datetime(2026, 1, 15, tzinfo=UTC),
        )
    )
    program, *words = shlex.split(result.command)
    assert program == "capillary-async"
    assert main(words) == 3
    assert capfd.readouterr().out.splitlines() == result.lines()
