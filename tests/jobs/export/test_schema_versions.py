"""Folders of earlier schema versions are read, verified, reconciled and continued as they were begun."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from support.job_server import QUERY, Customers, at_once

from capillary_async import AsyncSession, LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded, jobs
from capillary_async.jobs._common.sources import SOURCES
from capillary_async.jobs._dataset.formats import format_of

if TYPE_CHECKING:
    from pathlib import Path

IDS = list(range(1, 31))


async def export(session: AsyncSession, out: Path, **options: Any) -> jobs.ExportResult:
    return await jobs.export("allocations", IDS, out, session=session, shard_keys=10, sleep=at_once, **QUERY, **options)


def begin_as_version_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """New folders are made as the first release made them."""
    monkeypatch.setattr("capillary_async.jobs._dataset.state.SCHEMA_VERSION", 1)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "shards").iterdir()}


def version_of(out: Path) -> int:
    return int(json.loads((out / "manifest.json").read_text())["schema_version"])


async def test_a_folder_of_version_1_is_continued_as_such(
    session: AsyncSession, server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a customer that failed and a shard that is gone, it becomes what the first release would have made of it."""
    begin_as_version_1(monkeypatch)
    await export(session, tmp_path / "whole")
    server.failing[17] = 1
    await export(session, tmp_path / "begun", rounds=0)
    monkeypatch.undo()
    (tmp_path / "begun" / "shards" / "part-00000002.parquet").unlink()
    assert (await export(session, tmp_path / "begun")).complete
    assert version_of(tmp_path / "begun") == 1
    assert files(tmp_path / "begun") == files(tmp_path / "whole")
    assert (await jobs.verify(tmp_path / "begun", session=session)).ok
    await export(session, tmp_path / "new")
    assert version_of(tmp_path / "new") == 2
    assert files(tmp_path / "new") != files(tmp_path / "whole")
    said = await jobs.reconcile(tmp_path / "begun", tmp_path / "new", key="id")
    assert said.equal
    assert said.records > 100


async def test_version_1_has_the_bytes_of_the_first_release(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which wrote with these three options alone."""
    begin_as_version_1(monkeypatch)
    await export(session, tmp_path / "out")
    for path, found in ((tmp_path / "out" / "shards" / name, data) for name, data in files(tmp_path / "out").items()):
        file, table = io.BytesIO(), pq.read_table(path).combine_chunks()
        with pq.ParquetWriter(file, table.schema, compression="zstd", compression_level=3, version="2.6") as writer:
            writer.write_table(table)
        assert file.getvalue() == found


def written(name: str, records: list[Any], version: int) -> pq.FileMetaData:
    """The metadata of a shard of these records."""
    format_, file = format_of("parquet", SOURCES[name], {}, version), io.BytesIO()
    shard = format_.open(file, 0)
    shard.add(format_.chunk(0, [("5" if name == "ledger" else 5, records)]))
    shard.close()
    return pq.read_metadata(pa.BufferReader(file.getvalue()))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("allocations", PointsAllocation(id=1, status="AVAILABLE")),
        ("awarded", PointsAwarded(id=1, source_table="points_awarded")),
        ("events", LoyaltyEvent(id=1, event_name="TransactionAdd")),
        ("ledger", LedgerEvent(event_log_id=1, event_name="TransactionAdd")),
    ],
)
def test_version_2_is_smaller(name: str, record: Any) -> None:
    """Amounts are integers, ids are differences, texts keep their dictionary."""
    group = written(name, [record], 2).row_group(0)
    columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    identity = columns["event_log_id" if name == "ledger" else "id"]
    assert "DELTA_BINARY_PACKED" in identity.encodings
    assert not identity.has_dictionary_page
    assert columns[{"allocations": "status", "awarded": "source_table"}.get(name, "event_name")].has_dictionary_page
    amounts = [column for path, column in columns.items() if path.rpartition(".")[2] in {"points_exclusive", "value"}]
    assert {column.physical_type for column in amounts} <= {"INT64", "BYTE_ARRAY"}
    assert name == "events" or "INT64" in {column.physical_type for column in amounts}
