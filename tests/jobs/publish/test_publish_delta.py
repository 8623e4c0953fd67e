"""`jobs.publish(table="delta")`: one commit, once, and never over rows of something else."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.object_store import ObjectStore, required

from capillary_async import jobs
from capillary_async.cli import main

deltalake = required("deltalake", "Delta tables are not tested: pip install 'capillary-async[publish]'")

if TYPE_CHECKING:
    from pathlib import Path


def published(folder: Any, url: str, **named: Any) -> jobs.PublishResult:
    return asyncio.run(jobs.publish(folder, url, table="delta", **named))


def refused(folder: Any, url: str, **named: Any) -> str:
    with pytest.raises(jobs.JobError) as caught:
        published(folder, url, **named)
    return str(caught.value)


def rows_of(*exports: Path) -> list[dict[str, Any]]:
    """The rows of exports, sorted."""
    files = [path for export in exports for path in sorted((export / "shards").iterdir())]
    return by_key(pa.concat_tables([pq.read_table(path).replace_schema_metadata(None) for path in files]))


def by_key(table: pa.Table) -> list[dict[str, Any]]:
    return table.sort_by([("id", "ascending")]).to_pylist()


def rows_in(url: str, **options: Any) -> list[dict[str, Any]]:
    return by_key(deltalake.DeltaTable(url, **options).to_pyarrow_table())


def log_of(table: Path) -> list[str]:
    return sorted(path.name for path in (table / "_delta_log").glob("*.json"))


def test_one_commit_with_the_rows_of_the_export(exports: Path, tmp_path: Path) -> None:
    """Of each shard one file, with times in microseconds; the same again commits nothing."""
    url = (tmp_path / "points").as_uri()
    result = published(exports / "first", url)
    assert (result.table, result.version, result.files, result.sent) == ("delta", 0, 5, 5)
    assert log_of(tmp_path / "points") == ["00000000000000000000.json"]
    assert rows_in(url) == rows_of(exports / "first")
    assert len(rows_in(url)) == result.records == json.loads((exports / "first/manifest.json").read_bytes())["records"]
    data = next(iter((tmp_path / "points").glob("export-*/part-00000000.parquet")))
    assert pq.read_schema(data).field("awarded_at").type == pa.timestamp("us", "UTC")
    again = published(exports / "first", url)
    assert (again.already_there, again.sent, again.version) == (True, 0, 0)
    assert log_of(tmp_path / "points") == ["00000000000000000000.json"]
    assert "Delta table, version 0" in again.lines()[0]


def test_polars_and_duckdb_read_it(exports: Path, tmp_path: Path) -> None:
    """With amounts exact. DuckDB needs its extension, which a machine without a network has not."""
    polars = pytest.importorskip("polars")
    published(exports / "first", (tmp_path / "points").as_uri())
    expected = rows_of(exports / "first")
    if tuple(map(int, polars.__version__.split(".")[:2])) < (1, 32):
        pytest.skip("this Polars does not know the schemas of this deltalake")
    frame = polars.read_delta(str(tmp_path / "points")).sort("id")
    assert frame["points_exclusive"].to_list() == [row["points_exclusive"] for row in expected]
    assert frame["awarded_at"].to_list() == [row["awarded_at"] for row in expected]
    import duckdb

    try:
        duckdb.sql("LOAD delta")
    except duckdb.Error:
        return
    found = duckdb.sql(f"SELECT id, points_exclusive FROM delta_scan('{tmp_path / 'points'}') ORDER BY id").fetchall()
    assert found == [(row["id"], row["points_exclusive"]) for row in expected]


def test_a_newer_export_replaces_the_rows(exports: Path, tmp_path: Path) -> None:
    """In one commit, with the old rows in the old version; the first one again changes nothing and says so."""
    url = (tmp_path / "points").as_uri()
    published(exports / "first", url)
    result = published(exports / "later", url)
    assert result.version == 1
    assert result.notes == ("the rows of version 0 were replaced; that version keeps them until VACUUM",)
    assert rows_in(url) == rows_of(exports / "later")
    assert rows_in(url, version=0) == rows_of(exports / "first")
    again = published(exports / "first", url)
    assert again.already_there
    assert any("has a newer export now" in note for note in again.notes)
    assert len(log_of(tmp_path / "points")) == 2
    text = refused(exports / "other", url)
    assert "has a newer export of the same query" in text
    assert len(log_of(tmp_path / "points")) == 2


def test_other_schemas_and_other_rows_are_refused(exports: Path, tmp_path: Path) -> None:
    """Names what differs; a table that is empty and has the columns is taken."""
    first = pq.read_schema(exports / "first" / "shards" / "part-00000000.parquet").remove_metadata()
    tables = {
        "named": pa.table({"id": pa.array([1], pa.int64())}),
        "typed": first.set(first.get_field_index("status"), pa.field("status", pa.int64())).empty_table(),
        "rows": first.empty_table(),
    }
    for name, table in tables.items():
        deltalake.write_deltalake(str(tmp_path / name), table)
    text = refused(exports / "first", (tmp_path / "named").as_uri())
    assert "the table has no column asked_key, shard" in text
    assert "status is" in refused(exports / "first", (tmp_path / "typed").as_uri())
    assert published(exports / "first", (tmp_path / "rows").as_uri()).version == 1
    deltalake.write_deltalake(str(tmp_path / "others"), pq.read_table(
        exports / "first/shards/part-00000001.parquet").replace_schema_metadata(None))  # fmt: skip
    text = refused(exports / "first", (tmp_path / "others").as_uri())
    assert "has rows of something else than allocations of 127.0.0.1" in text
    deltalake.write_deltalake(str(tmp_path / "parts"), first.empty_table(), partition_by=["status"])
    assert "is partitioned by status" in refused(exports / "first", (tmp_path / "parts").as_uri())
    for name, versions in {"named": 1, "typed": 1, "others": 1, "parts": 1, "rows": 2}.items():
        assert len(log_of(tmp_path / name)) == versions


def test_several_parts_are_one_commit(exports: Path, tmp_path: Path) -> None:
    """In any order the same; parts with a customer in common, of other kinds or given twice are refused."""
    url = (tmp_path / "points").as_uri()
    parts = [exports / "first", exports / "later"]
    result = published(parts, url)
    assert (result.version, result.files) == (0, 9)
    assert rows_in(url) == rows_of(*parts)
    assert published(parts[::-1], url).already_there
    assert "is in" in refused([*parts, exports / "other"], url)
    assert "would count twice" in refused([parts[0], parts[0]], url)
    assert "different columns" in refused([parts[0], exports / "wider"], url)


def test_shards_are_one_table_together(exports: Path, shards: Path, tmp_path: Path) -> None:
    """All of a list, an empty one included, by their folders or the one that has them; some alone are refused."""
    url, each = (tmp_path / "points").as_uri(), [shards / f"shard-{number}-of-3" for number in (1, 2, 3)]
    assert "shards 2, 3 of 3 are missing" in refused(each[0], url)
    assert "shard 3 of 3 is missing" in refused(each[:2], url)
    assert "is no shard" in refused([*each, exports / "later"], url)
    assert not (tmp_path / "points").exists()
    assert json.loads((each[2] / "manifest.json").read_bytes())["ids"]["asked"] == 0
    assert published(each[::-1], url).version == 0
    assert rows_in(url) == rows_of(*each)
    assert published(shards, url).already_there
    assert published(shards, f"{url}2").folders == tuple(each)
    assert "missing" in refused(each[1], url)
    assert rows_in(url) == rows_of(*each)


def test_an_export_without_customers_is_no_table(shards: Path, exports: Path, tmp_path: Path) -> None:
    assert "missing" in refused(shards / "shard-3-of-3", (tmp_path / "points").as_uri())
    assert "has no customers, so no columns" in refused(exports / "none", (tmp_path / "points").as_uri())


def test_rows_of_others_are_kept(exports: Path, tmp_path: Path) -> None:
    """Appended, changed or merged rows are refused; those that are fewer or in other files are of the export."""
    url, path = (tmp_path / "points").as_uri(), str(tmp_path / "points")
    published(exports / "first", url)
    some = deltalake.DeltaTable(url).to_pyarrow_table().slice(0, 5)
    deltalake.write_deltalake(path, some, mode="append")
    before = rows_in(url)
    text = refused(exports / "later", url)
    assert "has rows that publish did not write" in text
    assert "RESTORE" in text
    deltalake.DeltaTable(url).optimize.compact()
    assert "has rows that publish did not write" in refused(exports / "later", url)
    assert rows_in(url) == before
    deltalake.DeltaTable(url).restore(0)
    published(exports / "later", url)
    assert rows_in(url) == rows_of(exports / "later")
    published(exports / "first", f"{url}2")
    deltalake.DeltaTable(f"{url}2").optimize.compact()
    published(exports / "later", f"{url}2")
    assert rows_in(f"{url}2") == rows_of(exports / "later")
    deltalake.DeltaTable(url).update({"status": "'X'"}, predicate="asked_key = 51")
    assert "has rows that publish did not write" in refused(exports / "last", url)


def test_what_is_no_table_is_refused(exports: Path, tmp_path: Path) -> None:
    url = (tmp_path / "points").as_uri()
    assert "is in JSON Lines" in refused(exports / "lines", url)
    assert "1 customer failed" in refused(exports / "failed", url)
    assert not (tmp_path / "points").exists()


def test_a_commit_in_between(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process commits while files are sent: nothing is committed over it."""
    from capillary_async.jobs._publishing import delta

    url, send = (tmp_path / "points").as_uri(), delta.send
    published(exports / "first", url)

    def meanwhile(*args: Any, **options: Any) -> Any:
        deltalake.DeltaTable(url).delete("asked_key = 3")
        return send(*args, **options)

    monkeypatch.setattr(delta, "send", meanwhile)
    assert "another process changed the Delta table" in refused(exports / "later", url)
    monkeypatch.undo()
    published(exports / "later", url)
    assert rows_in(url) == rows_of(exports / "later")


def test_without_deltalake(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command names what to install; a copy needs it not."""
    monkeypatch.setitem(sys.modules, "deltalake", None)
    assert main(["publish", str(exports / "first"), (tmp_path / "a").as_uri(), "--table", "delta"]) == 1
    assert 'pip install "capillary-async[publish]"' in capfd.readouterr().err
    assert main(["publish", str(exports / "first"), (tmp_path / "a").as_uri(), "--quiet"]) == 0


def test_a_table_in_s3(store: ObjectStore, exports: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Credentials that expire before the commit leave the old table."""
    url, options = "s3://lake/tables/points", {"storage_options": {"AWS_ALLOW_HTTP": "true"}}
    assert main(["publish", str(exports / "first"), url, "--table", "delta"]) == 0
    assert "version 0" in capfd.readouterr().out
    store.writes_left = 4  # all four shards, not the commit
    text = refused(exports / "later", url)
    assert "expired" in text
    assert rows_in(url, **options) == rows_of(exports / "first")
    store.writes_left = None
    result = published(exports / "later", url)
    assert (result.sent, result.version) == (0, 1)
    assert rows_in(url, **options) == rows_of(exports / "later")
    assert "no-such-bucket" in refused(exports / "first", "s3://no-such-bucket/points")
