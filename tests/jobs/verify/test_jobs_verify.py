"""`verify`: every fact of the manifest is computed anew, and whatever is not as it says is named."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from support.job_server import QUERY, Customers, rows_of

from capillary_async import AsyncSession, AuthenticationError, InvalidRequestError, RetryPolicy, jobs
from capillary_async.jobs._common.digest import MultisetDigest, add, added, file_digest
from capillary_async.jobs._dataset.local_days import server_zone
from capillary_async.jobs._dataset.manifest import Manifest
from capillary_async.jobs._verifying.sample import Sample
from capillary_async.jobs._verifying.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IDS = [*range(1, 35), 9_001]


@pytest.fixture(scope="module")
def server() -> Iterator[Customers]:
    with Customers() as customers:
        yield customers


@pytest.fixture
def session(server: Customers, session_at: Callable[..., AsyncSession]) -> AsyncSession:
    server.rows.clear()
    return session_at(server.url, retry=RetryPolicy(attempts=1))


@pytest.fixture
async def out(session: AsyncSession, tmp_path: Path) -> Path:
    await jobs.export("allocations", IDS, tmp_path / "out", session=session, shard_keys=10, rounds=0, **QUERY)
    return tmp_path / "out"


def change_manifest(out: Path, member: str, value: Any) -> None:
    """Give a member of the manifest another value; its path is written with dots."""
    said = where = json.loads((out / "manifest.json").read_text())
    *path, name = member.split(".")
    for step in path:
        where = where[step]
    where[name] = value
    (out / "manifest.json").write_text(json.dumps(said))


async def test_proven(out: Path) -> None:
    """What is computed from the files alone."""
    result = await jobs.verify(out)
    held = [row for customer in range(1, 35) for row in rows_of(customer)]
    assert result.ok
    assert not result.complete
    assert (result.asked, result.found, result.empty, result.failed, result.records) == (35, 31, 3, 1, len(held))
    assert result.totals["points_value"] == sum(Decimal(str(row["points_value"])) for row in held)
    assert (result.sampled, result.notes) == (0, ())


async def test_the_zone_of_the_server(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path
) -> None:
    """The manifest names it, reports take their days from it, and `verify` sees it changed or gone."""
    out = tmp_path / "out"
    session = session_at(server.url, server_timezone="Asia/Kolkata")
    await jobs.export("allocations", [1, 2], out, session=session, **QUERY)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["server_timezone"] == "Asia/Kolkata"
    assert server_zone(None, [Manifest.load(out / "manifest.json")]).name == "Asia/Kolkata"
    assert (await jobs.verify(out)).ok
    change_manifest(out, "server_timezone", "UTC")
    expected = "state.sqlite: server_timezone is Asia/Kolkata, the manifest says UTC"
    assert (await jobs.verify(out)).faults == (expected,)
    change_manifest(out, "server_timezone", None)
    assert (await jobs.verify(out)).faults == (expected.replace("UTC", "None"),)


async def test_without_the_database(out: Path) -> None:
    """Manifest and shards prove themselves; what is not checked is said."""
    (out / "state.sqlite").unlink()
    result = await jobs.verify(out)
    assert result.ok
    assert "the ids that were asked for are not checked" in result.notes[0]
    assert "nor whether query, cluster and counters in manifest.json and the keys in failures.jsonl" in result.notes[0]


@pytest.mark.parametrize(
    ("member", "value", "fault"),
    [
        ("records", 1, "the number of records is [0-9]+, the manifest says 1"),
        ("keys_digest", "00", "the digest of keys is [0-9a-f]{64}, the manifest says 00"),
        ("totals", {"points_value": "1"}, "the total of points_value is [0-9.]+, the manifest says 1"),
        ("totals", {}, "the total of points_value is [0-9.]+, the manifest says None"),
        ("failures", 3, "failures is 3, the manifest says 1"),
        ("complete", True, "complete is True, the manifest says False"),
        ("shards", [], "manifest.json names 0 shards, its ids make 4"),
        ("ids.found", 30, "found"),
        ("ids.failed", 0, "failures.jsonl: the number of lines is 1, the manifest says 0"),
        ("ids.digest", "00", "state.sqlite: the digest of ids is [0-9a-f]{64}, the manifest says 00"),
        ("ids.empty", 4, "state.sqlite: ids.empty is 3, the manifest says 4"),
        ("query.program_id", 9, "part-00000002.parquet: capillary_async.query in its metadata is .*2282.*says .*9}"),
        ("query.program_id", 9, "state.sqlite: query is .*2282.*, the manifest says .*9}"),
        ("source", "awarded", "capillary_async.source in its metadata is allocations, the manifest says awarded"),
        ("consistency", "verified", "state.sqlite: consistency is fast, the manifest says verified"),
        ("cluster", "eu", "state.sqlite: cluster is http://.*, the manifest says eu"),
        ("started", "1999", "state.sqlite: started is 20.*, the manifest says 1999"),
        ("requests", 1, "state.sqlite: requests is [0-9]+, the manifest says 1"),
        ("conflicts", 5, "state.sqlite: conflicts is 0, the manifest says 5"),
        ("warnings", None, "state.sqlite: warnings is 0, the manifest says None"),
    ],
)
async def test_a_wrong_manifest(out: Path, member: str, value: Any, fault: str) -> None:
    """Each of its facts is computed anew."""
    change_manifest(out, member, value)
    faults = (await jobs.verify(out)).faults
    assert any(re.search(fault, text) for text in faults), faults


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("shard_keys", 0),
        ("shard_keys", "x"),
        ("shard_keys", 10**30),
        ("ids", []),
        ("ids", {}),
        ("ids.asked", "35"),
        ("ids.asked", 10**30),
        ("ids.found", -1),
        ("shards", "x"),
        ("shards", [{}]),
        ("shards", [{"file": 5}]),
        ("totals", []),
        ("totals", {"points_value": "abc"}),
        ("totals", {"points_value": "sNaN"}),
        ("totals", {"points_value": None}),
        ("format", "xml"),
        ("source", []),
        ("query", [1]),
        ("records", "5"),
        ("records", True),
    ],
)
async def test_a_manifest_of_other_types(out: Path, member: str, value: Any) -> None:
    """Refused with the member's name, and never with a traceback."""
    change_manifest(out, member, value)
    with pytest.raises(jobs.JobError, match=rf"is no manifest of an export: .* at `\$\.{member.partition('.')[0]}"):
        await jobs.verify(out)


async def test_records_and_manifest_changed_together(out: Path) -> None:
    """A shard and its hash in the manifest, both written anew: the database knows what was written."""
    path = out / "shards" / "part-00000001.parquet"
    table = pq.read_table(path)
    pq.write_table(_changed(table, "status", ["EXPIRED"] * table.num_rows), path)
    said = json.loads((out / "manifest.json").read_text())
    said["shards"][1] |= {"sha256": file_digest(path), "bytes": path.stat().st_size}
    (out / "manifest.json").write_text(json.dumps(said))
    faults = (await jobs.verify(out)).faults
    assert {text.partition(" is ")[0] for text in faults} == {
        "state.sqlite, shards/part-00000001.parquet: sha256", "state.sqlite, shards/part-00000001.parquet: bytes"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"key": 7777}\n', "line 1: key is 7777, state.sqlite says 9001"),
        ("", "the number of lines is 0, the manifest says 1"),
        ("5\n", "cannot be read: line 1 names no key"),
        ("[" * 100_000, "cannot be read"),
        (None, "cannot be read: .*No such file"),
        ("{line}{line}", "line 2: state.sqlite knows of no failure of key 9001"),
    ],
)
async def test_wrong_failures(out: Path, text: str | None, fault: str) -> None:
    """Each line is compared with the database."""
    path = out / "failures.jsonl"
    line = path.read_text()
    path.unlink()
    if text is not None:
        path.write_text(text.replace("{line}", line))
    faults = (await jobs.verify(out)).faults
    assert any(re.search(f"^failures.jsonl:? {fault}", one) for one in faults), faults


@pytest.mark.parametrize("damage", ["noise", "cut", "empty", "meta"])
async def test_a_damaged_state(session: AsyncSession, out: Path, damage: str) -> None:
    """A fault, also where a sample was asked for; what else is wrong is told as well."""
    path = out / "state.sqlite"
    data = path.read_bytes()
    if damage == "meta":
        with sqlite3.connect(path) as database:
            database.execute("UPDATE meta SET value = '[]' WHERE name IN ('counters', 'asked', 'shard_keys')")
        database.close()
    else:
        path.write_bytes(
            {"noise": data[:4096] + b"\xa5" * (len(data) - 4096), "cut": data[:5000], "empty": b""}[damage]
        )
    (out / "shards" / "part-00000001.parquet").write_bytes(b"?")
    for result in (await jobs.verify(out), await jobs.verify(out, session=session)):
        assert any(text.startswith("state.sqlite cannot be read") for text in result.faults), result.faults
        assert any(text.startswith("shards/part-00000001.parquet: sha256") for text in result.faults)
    assert any(text.startswith("the sample could not be read again") for text in result.faults)


def _changed(table: Any, column: str, values: list[Any]) -> Any:
    place = table.schema.names.index(column)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda table: table.take([0, *range(2, table.num_rows)]), "row 2 .* is not where it belongs"),
        (lambda table: table.take([1, 0, *range(2, table.num_rows)]), "row [12] .* is not where it belongs"),
        (lambda table: table.slice(0, table.num_rows - 1), "rows is [0-9]+, the manifest says"),
        (lambda table: _changed(table, "shard", [7] * table.num_rows), "row 1 .* is not where it belongs"),
        (lambda table: _changed(table, "asked_key", [777] * table.num_rows), "row 1 .* is not where it belongs"),
        (lambda table: _changed(table, "id", [1] * table.num_rows), "the digest of keys is"),
        (
            lambda table: _changed(table, "points_value", [Decimal(1)] * table.num_rows),
            "the total of points_value is",
        ),
        (lambda table: table.drop_columns(["points_value"]), "its columns are not those of this release"),
    ],
)
async def test_wrong_rows(out: Path, change: Callable[[Any], Any], fault: str) -> None:
    """A shard that was written anew by somebody else is seen twice: by its hash, and by what is in it."""
    path = out / "shards" / "part-00000001.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    faults = (await jobs.verify(out)).faults
    assert any("sha256" in text for text in faults)
    assert any(re.search(fault, text) for text in faults), faults


async def test_files_that_do_not_belong(out: Path) -> None:
    """One too many, one too few, one that is no Parquet, one that is no JSON."""
    (out / "shards" / "part-00000009.parquet").write_bytes(b"?")
    (out / "shards" / "part-00000000.parquet").unlink()
    (out / "shards" / "part-00000001.parquet").write_bytes(b"?")
    (out / "failures.jsonl").write_text("?")
    (out / "state.sqlite").write_text("?")
    faults = (await jobs.verify(out)).faults
    assert "shards/part-00000009.parquet: the manifest does not name it" in faults
    assert "shards/part-00000000.parquet: No such file or directory" in faults
    assert any(text.startswith("shards/part-00000001.parquet cannot be read") for text in faults)
    assert any(text.startswith("failures.jsonl cannot be read") for text in faults)
    assert any(text.startswith("state.sqlite cannot be read") for text in faults)


@pytest.mark.parametrize("name", ["state.sqlite", "failures.jsonl"])
@pytest.mark.parametrize("made", ["link", "pipe"])
async def test_what_an_export_never_makes(out: Path, name: str, made: str) -> None:
    """A link leads out of the folder, and a named pipe would be read for ever: neither is opened."""
    path = out / name
    path.rename(out / "elsewhere")
    path.symlink_to(out / "elsewhere") if made == "link" else os.mkfifo(path)
    async with asyncio.timeout(20):
        assert f"{name} is a symbolic link or no file, and an export makes neither" in (await jobs.verify(out)).faults


async def test_a_link_in_place_of_the_shards(out: Path) -> None:
    """An export makes none, and refuses to work in such a folder."""
    (out / "shards").rename(out / "elsewhere")
    (out / "shards").symlink_to(out / "elsewhere")
    assert (await jobs.verify(out)).faults == ("shards is a symbolic link, and an export makes none",)


async def test_a_manifest_that_is_no_file(out: Path) -> None:
    """A named pipe is not waited for, by `reconcile` either."""
    (out / "manifest.json").unlink()
    os.mkfifo(out / "manifest.json")
    for job in (jobs.verify, jobs.reconcile):
        with pytest.raises(jobs.JobError, match=r"manifest\.json is no file, and no manifest"):
            await job(out)


async def test_a_name_in_the_manifest_stays_in_the_folder(out: Path) -> None:
    """A manifest that names another file is not followed there."""
    said = json.loads((out / "manifest.json").read_text())
    said["shards"][0]["file"] = "../../secret"
    (out / "manifest.json").write_text(json.dumps(said))
    assert "'../../secret' is no name of a shard" in (await jobs.verify(out)).faults


async def test_no_manifest(out: Path, tmp_path: Path) -> None:
    """Nothing was finished there, or it is no manifest."""
    with pytest.raises(jobs.JobError, match=r"has no manifest\.json: no export is there, or it was not finished"):
        await jobs.verify(tmp_path)
    (out / "manifest.json").write_text("[")
    with pytest.raises(jobs.JobError, match=r"manifest\.json cannot be read"):
        await jobs.verify(out)
    (out / "manifest.json").write_text('{"schema_version": 1}')
    with pytest.raises(jobs.JobError, match="members are missing"):
        await jobs.verify(out)


async def test_against_the_service(server: Customers, session: AsyncSession, out: Path) -> None:
    """A sample is read again; what changed is named by its records."""
    result = await jobs.verify(out, session=session, sample=20)
    assert (result.ok, result.sampled) == (True, 20)
    rows = rows_of(14)
    server.rows[14] = [rows[0], {**rows[1], "points_value": 1}, {**rows[2], "id": 99}]
    server.rows[10] = [{**rows_of(11)[0], "customer_id": 10}]
    result = await jobs.verify(out, session=session, sample=1_000)
    assert result.sampled == 34, "all but the one that failed"
    assert [text.partition(";")[0] for text in sorted(result.faults)] == [
        "key 10: the files hold 0 records, the service has 1 (new: 11000)",
        "key 14: the files hold 4 records, the service has 3 (gone: 14002, 14003, new: 99, changed: 14001)",
    ]
    server.failing[7] = 1
    unanswered = (await jobs.verify(out, session=session, sample=1_000)).unanswered
    assert ["key 7 could not be read again" in text for text in unanswered] == [True]
    server.failing.clear()


@pytest.mark.parametrize(("of", "name"), [(Verification, "of"), (Sample, "_drawn"), (Sample, "_exported")])
async def test_the_end_of_an_iterator_is_an_error(
    session: AsyncSession, out: Path, monkeypatch: pytest.MonkeyPatch, of: type, name: str
) -> None:
    """Raised in a thread, it does not leave the caller waiting."""

    def ends(*_: object) -> None:
        raise StopIteration

    monkeypatch.setattr(of, name, ends)
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await jobs.verify(out, session=session)


@pytest.mark.parametrize("data", [None, b"PAR1xx"])
async def test_against_the_service_with_a_damaged_shard(session: AsyncSession, out: Path, data: bytes | None) -> None:
    """Its customers are not asked, the others are."""
    path = out / "shards" / "part-00000001.parquet"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    result = await jobs.verify(out, session=session, sample=1_000)
    assert result.sampled == 24
    assert any("10 keys of the sample were not read again" in text for text in result.faults)


async def test_against_a_service_that_refuses(server: Customers, session: AsyncSession, out: Path) -> None:
    """What the files showed is not lost."""
    server.refuse_all = True
    try:
        with pytest.raises(AuthenticationError):
            await jobs.verify(out, session=session)
        said = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps(said | {"cluster": "eu"}))
        faults = (await jobs.verify(out, session=session)).faults
    finally:
        server.refuse_all = False
    assert len(faults) == 2
    assert "cluster" in faults[0]
    assert "could not be read again" in faults[1]
    (out / "manifest.json").write_text(json.dumps(said | {"query": {"nonsense": 1}}))
    assert "could not be read again: the query of allocations" in (await jobs.verify(out, session=session)).faults[-1]


async def test_the_same_seed_draws_the_same(server: Customers, session: AsyncSession, out: Path) -> None:
    """So that a sample can be repeated."""
    drawn = []
    for _ in range(2):
        server.asked.clear()
        await jobs.verify(out, session=session, sample=5, seed=3)
        drawn.append(sorted(server.asked))
    assert drawn[0] == drawn[1]
    with pytest.raises(InvalidRequestError, match="sample takes"):
        await jobs.verify(out, session=session, sample=0)


def test_digest_of_a_bag() -> None:
    """Whatever the order and the parts; a key that is there twice counts twice; parts do not run together."""
    one, two, twice = MultisetDigest(), MultisetDigest(), MultisetDigest()
    one.put([(1, "a"), (2, None)])
    two.put([(2, "")])
    two.put([(1, "a")])
    twice.put([(1, "a"), (2, None), (1, "a"), (1, "a")])
    assert str(one) == str(two) != str(twice)
    assert str(MultisetDigest.of(str(twice))) == str(twice)
    joined, other = MultisetDigest(), MultisetDigest()
    joined.put([(12, 3)])
    other.put([(1, 23)])
    assert str(joined) != str(other)


def test_sums_are_exact() -> None:
    """Beyond the 28 digits of the ambient context."""
    large, small = Decimal(123456789012345678901234567890), Decimal("0.001")
    assert add([large, small, small]) == Decimal("123456789012345678901234567890.002")
    assert add(["0.1", "0.2"]) == Decimal("0.3")
    assert added([{"a": large}, {"a": small, "b": small}]) == {
        "a": Decimal("123456789012345678901234567890.001"), "b": small,
    }  # fmt: skip
