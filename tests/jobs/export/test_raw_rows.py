"""An export of Parquet reads raw rows in place of records: its rows, sums, digests, drift and failures are the same."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq
from support.job_server import QUERY, Customers, at_once
from support.odd_rows import body_of, rows_of_values

from capillary_async import AsyncSession, DecodeError, PointsAllocation, PointsAwarded, jobs
from capillary_async._codec.decode import rows
from capillary_async._codec.raw_rows import RawRow
from capillary_async.jobs._common.digest import MultisetDigest, key_text
from capillary_async.jobs._common.errors import UnfitError
from capillary_async.jobs._common.sources import SOURCES
from capillary_async.jobs._dataset.formats import format_of
from capillary_async.jobs._exporting import shard as _shards

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALLOCATIONS = SOURCES["allocations"]
PARQUET = format_of("parquet", ALLOCATIONS, {}, 2)


async def export(session: AsyncSession, out: Path, ids: Any, **options: Any) -> dict[str, Any]:
    """Export, and read the manifest."""
    given = {"shard_keys": 10, "sleep": at_once, "rounds": 0, **QUERY, **options}
    await jobs.export("allocations", ids, out, session=session, **given)
    said: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return said


def plain_rows(customer: int, count: int) -> list[dict[str, Any]]:
    """Rows whose amounts are numbers, so that they are read as raw rows."""
    return [
        {"id": customer * 1_000 + row, "customer_id": customer, "points_value": customer / 8, "points_exclusive": row,
         "status": "AVAILABLE", "awarded_date": 1_735_309_787_000 + row}
        for row in range(count)
    ]  # fmt: skip


def made_of(items: Any) -> tuple[Any, Any] | str:
    """The table and the sums of the rows of customer 5, or what refuses them."""
    try:
        table = PARQUET.chunk(0, [(5, items)])
    except UnfitError as error:
        return str(error)
    return table, PARQUET.sums(table, ())


@given(rows_of_values, st.booleans())
def test_any_rows_have_the_columns_and_sums_of_their_records(page: list[dict[str, str]], several: bool) -> None:
    """Also where rows that need the careful way are beside plain ones."""
    body = body_of([{"id": str(number), **row} for number, row in enumerate(page, 1)])
    try:
        records = rows(PointsAllocation, body).items
    except DecodeError:
        return
    raw = rows(PointsAllocation, body, raw=True).items
    if several:
        records, raw = records * 2, raw + records
    found = made_of(raw)
    assert found == made_of(records)
    if isinstance(found, str):
        return
    _, sums = found
    assert sums.totals == ALLOCATIONS.totals(records)
    assert list(sums.totals) == list(ALLOCATIONS.totals(records))
    assert list(sums.keys) == list(map(key_text, ALLOCATIONS.keys_of(5, records)))


def test_the_digest_is_the_sum_of_hashes_as_before() -> None:
    """Its value for two keys, one of them twice, is that of the first release."""
    digest = MultisetDigest()
    digest.put([(5, None), (7, "points_awarded", 9), (5, None)])
    assert str(digest) == "1c3ed5b93a4becc2e6e92995c0b3bb6344f8e563a26b1237b1a89c380e99e454"


@pytest.mark.parametrize("model", [PointsAllocation, PointsAwarded])
def test_raw_rows_are_pickled(model: type[Any]) -> None:
    """As they are where they wait on the disk for an earlier customer."""
    body = b'[{"id": 1, "customer_id": 2, "points_exclusive": 1.50}, {"id": 3}]'
    items = rows(model, body, raw=True).items
    again = pickle.loads(pickle.dumps(items))  # noqa: S301 - of this test
    assert all(isinstance(one, RawRow) for one in again)
    assert again == items
    assert again[0].points_exclusive == b"1.50"


async def test_both_formats_say_the_same(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """Of plain rows, odd ones, unknown members and statuses, rows without an id, and a row that fits no column."""
    for customer in range(1, 31):
        server.rows[customer] = plain_rows(customer, customer % 7 + 1)
    server.rows[3][0] |= {"points_value": "7.125", "new_member": 1}
    server.rows[2][0] |= {"new_member": 2}
    server.rows[4][1] |= {"status": "FROZEN", "points_value": None, "points_exclusive": -2.5}
    server.rows[5] = [{"id": None, "customer_id": 5, "points_value": 1}, {"customer_id": 5, "points_value": 2.25}]
    server.rows[6][0]["points_value"] = 10**15
    server.rows[7] += server.rows[7][:1]
    server.rows[8][0] |= {"till_id": "12", "awarded_date": 10**15}
    server.rows[9] = plain_rows(9, 130)
    parquet = await export(session, tmp_path / "parquet", range(1, 31))
    lines = await export(session, tmp_path / "jsonl", [*range(1, 6), *range(7, 31)], format="jsonl")
    assert parquet["ids"]["failed"] == 1
    assert parquet["duplicates"] == lines["duplicates"] == 1
    assert parquet["keys_digest"] == lines["keys_digest"]
    assert {name: Decimal(text) for name, text in parquet["totals"].items()} == {
        name: Decimal(text) for name, text in lines["totals"].items()
    }
    assert parquet["drift"] == lines["drift"]
    assert set(parquet["drift"]) == {"members", "status"}
    (failure,) = map(json.loads, (tmp_path / "parquet" / "failures.jsonl").read_text().splitlines())
    assert failure["message"].startswith("key 6: points_value 1000000000000000 of row 0 does not fit decimal128(18, 3)")
    assert (await jobs.verify(tmp_path / "parquet", session=session)).ok
    assert (await jobs.verify(tmp_path / "jsonl", session=session)).ok


@pytest.mark.parametrize("category", [17383, [17383, 17384]])
async def test_what_waits_on_the_disk_makes_the_same_bytes(
    session: AsyncSession, server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, category: Any
) -> None:
    """Under one category and under several."""

    def rows_under(customer: int, _: int, category: int) -> list[dict[str, Any]]:
        return [row | {"id": row["id"] * 10 + category - 17383} for row in plain_rows(customer, 5)]

    server.rows_under = rows_under
    await export(session, tmp_path / "memory", range(1, 31), point_category_id=category)
    monkeypatch.setattr(_shards, "WAITING", 3)
    server.slow = dict.fromkeys((1, 11, 21), 0.3)
    await export(session, tmp_path / "disk", range(1, 31), point_category_id=category)
    memory, disk = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "shards").iterdir()} for name in ("memory", "disk")
    )
    assert memory == disk
    table = pq.read_table(tmp_path / "disk" / "shards")
    assert table.num_rows == 30 * 5 * (1 if isinstance(category, int) else 2)


async def test_a_record_without_an_id_under_two_categories(
    session: AsyncSession, server: Customers, tmp_path: Path
) -> None:
    """It is the same record where its content is, whatever digits its amounts have."""

    def rows_under(customer: int, _: int, category: int) -> list[dict[str, Any]]:
        points = 1.5 if customer == 1 else category
        return [{"customer_id": customer, "points_value": points, "status": "AVAILABLE"}]

    server.rows_under = rows_under
    said = await export(session, tmp_path / "out", [1, 2], point_category_id=[17383, 17384])
    assert said["ids"]["failed"] == 1
    (failure,) = map(json.loads, (tmp_path / "out" / "failures.jsonl").read_text().splitlines())
    assert (failure["key"], failure["error"]) == (1, "RecordConflictError")


async def test_records_are_not_made(session: AsyncSession, server: Customers, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Else the export would be right and slow."""
    met: set[type] = set()
    before: Callable[..., Any] = _shards.ShardTask.complete_key

    def complete_key(self: Any, place: int, items: Any, new: Any = ()) -> None:
        met.update(map(type, items))
        before(self, place, items, new)

    monkeypatch.setattr(_shards.ShardTask, "complete_key", complete_key)
    server.rows[2] = plain_rows(2, 3)
    await export(session, tmp_path / "parquet", [2])
    assert all(issubclass(one, RawRow) for one in met)
    assert met
    met.clear()
    await export(session, tmp_path / "jsonl", [2], format="jsonl")
    assert met == {PointsAllocation}
