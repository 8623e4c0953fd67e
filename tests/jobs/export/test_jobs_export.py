"""Exports: what is in the files, what is refused, what happens to customers that fail, outages, and damaged files."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import multiprocessing
import re
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from support.job_server import QUERY, UNKNOWN, Customers, at_once, rows_of

from capillary_async import (
    AsyncSession,
    AuthenticationError,
    InvalidRequestError,
    Limits,
    Paging,
    RetryPolicy,
    ServerError,
    jobs,
)
from capillary_async._transport import outage as _outage
from capillary_async.jobs import _export
from capillary_async.jobs._dataset.folder import ExportFolder
from capillary_async.jobs._exporting import reading as _reading
from capillary_async.jobs._exporting import shard as _shards
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

IDS = list(range(1, 45))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def export(session: AsyncSession, out: Path, ids: Any = IDS, **options: Any) -> jobs.ExportResult:
    return await jobs.export("allocations", ids, out, session=session, **{"shard_keys": 10, "sleep": at_once, **QUERY,
                                                                         **options})  # fmt: skip


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


def failures(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


# -- what is in the files


async def test_parquet(session: AsyncSession, tmp_path: Path) -> None:
    """Every record, in the order of the ids, exact, with its milliseconds and the time they mean."""
    result = await export(session, tmp_path / "out", [*IDS, 7, "8"])
    assert (result.asked, result.found, result.empty, result.failed, result.shards) == (44, 40, 4, 0, 5)
    assert result.complete
    assert not result.interrupted
    rows = [row for path in sorted((tmp_path / "out" / "shards").iterdir()) for row in pq.read_table(path).to_pylist()]
    held = [(customer, row) for customer in IDS for row in rows_of(customer)]
    assert [row["id"] for row in rows] == [row["id"] for _, row in held]
    assert [row["asked_key"] for row in rows] == [customer for customer, _ in held]
    assert [row["shard"] for row in rows] == [(customer - 1) // 10 for customer, _ in held]
    assert rows[-5]["row"] == rows[-5]["id"] % 1000
    for row, (_, wire) in zip(rows, held, strict=True):
        assert row["points_value"] == Decimal(str(wire["points_value"]))
        assert row["points_exclusive"] == Decimal(wire["points_exclusive"])
        assert row["awarded_date"] == wire["awarded_date"]
        assert row["awarded_at"] == EPOCH + timedelta(milliseconds=wire["awarded_date"])
        assert row["expires_at"] is None
        assert row["till_id"] is None
    said = manifest(tmp_path / "out")
    assert said["records"] == len(held) == result.records
    assert Decimal(said["totals"]["points_value"]) == sum(Decimal(str(wire["points_value"])) for _, wire in held)
    assert said["ids"] == {"asked": 44, "found": 40, "empty": 4, "failed": 0, "digest": said["ids"]["digest"]}
    assert said["complete"] is True
    assert said["consistency"] == "fast"
    assert said["schema_version"] == 2
    assert "password" not in json.dumps(said)


async def test_parquet_columns_and_metadata(session: AsyncSession, tmp_path: Path) -> None:
    """The types that the layout promises, and whose file it is."""
    await export(session, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "shards" / "part-00000002.parquet")
    assert schema.names[:3] == ["asked_key", "shard", "row"]
    expected = {
        "asked_key": pa.int64(),
        "shard": pa.int32(),
        "row": pa.int32(),
        "points_value": pa.decimal128(18, 3),
        "expiry_date": pa.int64(),
        "expires_at": pa.timestamp("ms", "UTC"),
        "updated_at": pa.timestamp("ms", "UTC"),
        "status": pa.string(),
        "org_id": pa.int64(),
    }
    assert {name: schema.field(name).type for name in expected} == expected
    assert schema.names.index("expires_at") == schema.names.index("expiry_date") + 1
    told = {name.decode(): value.decode() for name, value in schema.metadata.items()}
    assert told["capillary_async.source"] == "allocations"
    assert told["capillary_async.shard"] == "2"
    assert told["capillary_async.schema_version"] == "2"
    assert json.loads(told["capillary_async.query"]) == QUERY


async def test_json_lines(session: AsyncSession, tmp_path: Path) -> None:
    """Quantities are text with the digits that came."""
    await export(session, tmp_path / "out", [21], format="jsonl")
    (name, text), = files(tmp_path / "out").items()  # fmt: skip
    assert name == "part-00000000.jsonl"
    row = json.loads(text)
    assert (row["asked_key"], row["shard"], row["row"], row["id"]) == (21, 0, 0, 21_000)
    assert row["points_value"] == "18.375"
    assert row["points_exclusive"] == "21.125"
    assert row["awarded_at"] == "2024-12-27T14:29:47Z"
    assert (await jobs.verify(tmp_path / "out")).ok


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
async def test_bytes_are_a_function_of_the_shard(
    format_: str, server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path
) -> None:
    """One worker or many, in order or not, held in memory or put aside: the same bytes."""
    server.slow.update({1: 0.3, 14: 0.2, 39: 0.1})
    one = session_at(server.url, limits=Limits(concurrency=1))
    many = session_at(server.url, limits=Limits(concurrency=16), paging=Paging(page_size=37))
    await export(one, tmp_path / "one", format=format_)
    await export(many, tmp_path / "many", format=format_)
    _shards.WAITING, before = 3, _shards.WAITING
    try:
        await export(many, tmp_path / "aside", format=format_)
    finally:
        _shards.WAITING = before
    assert files(tmp_path / "one") == files(tmp_path / "many") == files(tmp_path / "aside")
    assert manifest(tmp_path / "one")["keys_digest"] == manifest(tmp_path / "many")["keys_digest"]


async def test_digest_and_totals_do_not_depend_on_shards(session: AsyncSession, tmp_path: Path) -> None:
    """The same keys in another order and other shards have the same digest and totals; others have not."""
    await export(session, tmp_path / "a", IDS)
    await export(session, tmp_path / "b", IDS[::-1], shard_keys=7, format="jsonl")
    await export(session, tmp_path / "c", IDS[:-1])
    a, b, c = (manifest(tmp_path / name) for name in "abc")
    assert a["keys_digest"] == b["keys_digest"] != c["keys_digest"]
    assert {name: Decimal(text) for name, text in a["totals"].items()} == {
        name: Decimal(text) for name, text in b["totals"].items()
    }


async def test_all_sources_of_the_sandbox(tmp_path: Path, session_at: Callable[..., AsyncSession]) -> None:
    """Awards, events and ledgers come whole, and are proven; the shards of awards are a ledger's input."""
    async with Sandbox(customers=30, whales=1, whale_rows=700) as sandbox:
        session = session_at(sandbox.url, auth=sandbox.auth)
        points = {
            "program_id": sandbox.program_id,
            "point_category_id": sandbox.point_category_id,
            "start_expiry_date": sandbox.expiry_date_start,
            "end_expiry_date": sandbox.expiry_date_end,
        }
        ids = [*sandbox.customer_ids, sandbox.merged_ids[0]]
        out = tmp_path / "awarded"
        await jobs.export("awarded", ids, out, session=session, status="EXPIRED", shard_keys=8, **points)
        held = sum(len(sandbox.awarded(customer, "EXPIRED")) for customer in sandbox.customer_ids)
        assert manifest(out)["records"] == held
        assert (await jobs.verify(out, session=session)).ok

        out = tmp_path / "events"
        result = await jobs.export("events", ids, out, session=session, shard_keys=40)
        assert (result.failed, failures(out)[0]["error"]) == (1, "MergedCustomerError")
        assert result.records == sum(len(sandbox.events(customer)) for customer in sandbox.customer_ids)
        times = pq.read_table(out / "shards" / "part-00000000.parquet").schema.field("date").type
        assert times == pa.timestamp("us", "UTC")
        assert (await jobs.verify(out, session=session)).ok

        shard = tmp_path / "awarded" / "shards" / "part-00000000.parquet"
        pairs = list(jobs.ids_in_parquet(shard, "customer_id", "event_log_id"))[:200]
        out = tmp_path / "ledger"
        result = await jobs.export(
            "ledger", pairs, out, session=session, include=["bill_details", "points_earned_breakup"]
        )
        assert result.complete
        assert result.asked == len({customer for customer, _ in pairs})
        table = pq.read_table(out / "shards" / "part-00000000.parquet")
        assert table.schema.field("asked_key").type == pa.string()
        assert pa.types.is_struct(table.schema.field("bill_details").type)
        assert pa.types.is_list(table.schema.field("point_in_time_slabs").type)
        assert table.schema.field("extra").type == pa.string()
        assert sorted(table["event_log_id"].to_pylist()) == sorted({event for _, event in pairs})
        assert (await jobs.verify(out, session=session)).ok


async def test_verified_lists(session: AsyncSession, tmp_path: Path) -> None:
    """The consistency level is said, and another one is another export."""
    result = await export(session, tmp_path / "out", [9, 19], verify=True)
    assert result.requests > 4
    assert manifest(tmp_path / "out")["consistency"] == "verified"
    with pytest.raises(jobs.JobError, match="another verify: true, now it is false"):
        await export(session, tmp_path / "out", [9, 19])


async def test_no_ids_at_all(session: AsyncSession, tmp_path: Path) -> None:
    """Refused, and the folder can still be used; where it is meant, an export of nothing, and complete."""
    for nothing in ([], iter(())):
        with pytest.raises(jobs.JobError, match=r"no ids: the input is empty.*allow_empty"):
            await export(session, tmp_path / "out", nothing)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert (await export(session, tmp_path / "out", [1])).complete
    result = await export(session, tmp_path / "none", [], allow_empty=True)
    assert (result.complete, result.asked, result.shards) == (True, 0, 0)
    assert (await jobs.verify(tmp_path / "none")).ok
    assert (await export(session, tmp_path / "none", None)).complete


# -- going on, and refusing to


async def test_again_does_nothing(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """A complete export is left as it is, to the byte, and the ids need not be given."""
    await export(session, tmp_path / "out")
    before, asked, said = files(tmp_path / "out"), server.requests, (tmp_path / "out" / "manifest.json").read_bytes()
    result = await export(session, tmp_path / "out", None)
    assert (result.complete, result.asked, server.requests) == (True, 44, asked)
    assert files(tmp_path / "out") == before
    assert (tmp_path / "out" / "manifest.json").read_bytes() == said


@pytest.mark.parametrize("name", ["manifest.json", "failures.jsonl"])
@pytest.mark.parametrize("damage", [None, "", "{}", "edited"])
async def test_again_mends_manifest_and_failures(
    *, session: AsyncSession, server: Customers, tmp_path: Path, name: str, damage: str | None
) -> None:
    """With nothing left to do they come back to the byte, and nothing is asked."""
    out = tmp_path / "out"
    await export(session, out, [*IDS, "no id"])
    path = out / name
    held, asked = {one: (out / one).read_bytes() for one in ("manifest.json", "failures.jsonl")}, server.requests
    path.unlink()
    if damage is not None:
        path.write_bytes(held[name].replace(b"4", b"5") if damage == "edited" else damage.encode())
    result = await export(session, out, None)
    assert (result.repaired, result.failed, server.requests) == ((name,), 1, asked)
    assert {one: (out / one).read_bytes() for one in held} == held
    assert (await jobs.verify(out)).ok
    assert (await export(session, out, None)).repaired == ()


async def test_ids_from_anywhere(session: AsyncSession, tmp_path: Path) -> None:
    """Generators and async generators, read once; compared when they are given again."""

    async def asynchronous() -> AsyncIterator[str]:
        for number in IDS:
            await asyncio.sleep(0)
            yield f" {number} "

    await export(session, tmp_path / "out", (number for number in IDS))
    assert (await export(session, tmp_path / "out", asynchronous())).complete


@pytest.mark.parametrize(
    ("ids", "number", "shard"),
    [(IDS[::-1], 1, 0), ([*IDS[:25], 99, *IDS[26:]], 26, 2), (IDS[:-1], 44, 4), ([*IDS, 99], 45, 4)],
)
async def test_other_ids(session: AsyncSession, tmp_path: Path, ids: list[int], number: int, shard: int) -> None:
    """Refused, naming where they begin to differ."""
    await export(session, tmp_path / "out")
    with pytest.raises(jobs.JobError, match=f"number {number}, in shard {shard}"):
        await export(session, tmp_path / "out", ids)
    assert (await jobs.verify(tmp_path / "out")).ok


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"program_id": 3}, "another query: .*2282.*3"),
        ({"format": "jsonl"}, 'another format: "parquet", now it is "jsonl"'),
        ({"shard_keys": 11}, "another shard_keys: 10, now it is 11"),
        ({"cluster": "in"}, 'another cluster: "http://127.0.0.1:[0-9]+", now it is "in"'),
    ],
)
async def test_another_export(session: AsyncSession, tmp_path: Path, changed: dict[str, Any], text: str) -> None:
    """Two exports are not mixed in one folder."""
    await export(session, tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(jobs.JobError, match=text):
        await export(session, tmp_path / "out", **changed)
    assert files(tmp_path / "out") == before


async def test_another_schema_version(session: AsyncSession, tmp_path: Path) -> None:
    """Of the folder, and of the manifest."""
    await export(session, tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "state.sqlite") as database:
        database.execute("UPDATE meta SET value = '0' WHERE name = 'schema_version'")
    database.close()
    with pytest.raises(jobs.JobError, match="schema version 0, this release writes 2"):
        await export(session, tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    (tmp_path / "out" / "manifest.json").write_text(text.replace('"schema_version": 2', '"schema_version": 7'))
    with pytest.raises(jobs.JobError, match="schema version 7, and this release reads 1 and 2"):
        await jobs.verify(tmp_path / "out")


def _hold(path: Path, ready: Any, leave: Any) -> None:
    with ExportFolder(path):
        ready.set()
        leave.wait(20)


async def test_another_process(session: AsyncSession, tmp_path: Path) -> None:
    """One process at a time; the text names it. A killed one leaves no lock."""
    spawn = multiprocessing.get_context("spawn")
    ready, leave = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold, args=(tmp_path / "out", ready, leave))
    process.start()
    try:
        assert await asyncio.to_thread(ready.wait, 20)
        with pytest.raises(jobs.JobError, match=f"process {process.pid} works in "):
            await export(session, tmp_path / "out")
    finally:
        process.kill()
        process.join()
        process.close()
    assert (await export(session, tmp_path / "out")).complete


async def test_a_folder_of_others(session: AsyncSession, tmp_path: Path) -> None:
    """Shards that nothing is known of are not deleted; a file in the way is told."""
    (tmp_path / "out" / "shards").mkdir(parents=True)
    theirs = tmp_path / "out" / "shards" / "part-00000000.parquet"
    theirs.write_bytes(b"theirs")
    with pytest.raises(jobs.JobError, match=r"holds shards or a manifest\.json and no state\.sqlite"):
        await export(session, tmp_path / "out")
    assert theirs.read_bytes() == b"theirs"
    (tmp_path / "file").write_text("")
    with pytest.raises(jobs.JobError, match=r"cannot use .*file for an export"):
        await export(session, tmp_path / "file")


@pytest.mark.parametrize("damage", ["empty", "no facts", "no ids"])
@pytest.mark.parametrize("query", [{}, {"program_id": 5}])
async def test_a_state_that_knows_of_no_export(
    *, session: AsyncSession, tmp_path: Path, damage: str, query: dict[str, Any]
) -> None:
    """Beside shards it is as good as none: refused, and not one file is deleted."""
    out = tmp_path / "out"
    await export(session, out)
    before, said = files(out), (out / "manifest.json").read_bytes()
    if damage == "empty":
        (out / "state.sqlite").write_bytes(b"")
    else:
        with sqlite3.connect(out / "state.sqlite") as database:
            names = ("asked",) if damage == "no ids" else ("source", "query")
            database.executemany("DELETE FROM meta WHERE name = ?", [(name,) for name in names])
        database.close()
    for _ in range(2):
        with pytest.raises(jobs.JobError, match=r"its state\.sqlite knows of no export"):
            await export(session, out, [1, 2], **query)
        assert files(out) == before
        assert (out / "manifest.json").read_bytes() == said
    for path in (out / "shards").iterdir():
        path.unlink()
    with pytest.raises(jobs.JobError, match=r"its state\.sqlite knows of no export"):
        await export(session, out)
    assert (out / "manifest.json").read_bytes() == said


async def test_what_an_export_did_not_make_stays(session: AsyncSession, tmp_path: Path) -> None:
    """Unknown shards go; a user's own files do not."""
    out = tmp_path / "out"
    await export(session, out)
    (out / "report.html").write_text("mine")
    (out / "shards" / "notes.txt").write_text("mine")
    (out / "shards" / "part-00000009.parquet").write_text("of a run that was killed")
    await export(session, out)
    assert (out / "report.html").exists()
    assert (out / "shards" / "notes.txt").exists()
    assert not (out / "shards" / "part-00000009.parquet").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"program_id": 0}, "program_id"),
        ({"nonsense": 1}, "query of allocations"),
        ({"expiry_date_start": None}, "expiry_date_start"),
        ({"format": "csv"}, "format takes"),
        ({"shard_keys": 0}, "shard_keys takes"),
        ({"rounds": -1}, "rounds takes"),
        ({"ids": "123"}, "ids takes an iterable"),
        ({"ids": None}, "no ids"),
    ],
)
async def test_bad_arguments(
    session: AsyncSession, server: Customers, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    """Refused before anything is sent."""
    with pytest.raises(InvalidRequestError, match=text):
        await export(session, tmp_path / "out", **{"ids": IDS, **options})
    assert server.requests == 0
    with pytest.raises(InvalidRequestError, match="source takes one of"):
        await jobs.export("points", IDS, tmp_path / "out", session=session)  # type: ignore[arg-type]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
async def test_an_id_that_is_no_text(session: AsyncSession, tmp_path: Path, format_: str) -> None:
    """A lone surrogate fails by name, as whatever else is no id."""
    result = await export(session, tmp_path / "out", [1, "\ud800", 2], format=format_)
    assert (result.asked, result.found, result.failed) == (3, 2, 1)
    (failure,) = failures(tmp_path / "out")
    assert (failure["key"], failure["error"]) == ("\\ud800", "InvalidRequestError")
    assert (await jobs.verify(tmp_path / "out")).ok
    assert not (await export(session, tmp_path / "out", [1, "\ud800", 2], format=format_)).complete


@pytest.mark.parametrize("bad", [5, "5", (1,), (1, None), (1, "x"), ("", 3), (1, []), ("\ud800", 3)])
async def test_ledger_ids_are_pairs(session: AsyncSession, tmp_path: Path, bad: Any) -> None:
    """What is none is named."""
    with pytest.raises(InvalidRequestError, match="pairs of an identifier and an event id"):
        await jobs.export("ledger", [bad], tmp_path / "out", session=session)


async def test_ids_in_parquet(tmp_path: Path) -> None:
    """A column of integers or texts without nulls; the text names file, column and row."""
    path = tmp_path / "ids.parquet"
    table = pa.table({"a": [1, 2, None], "b": ["x", "y", "z"], "c": [1.0, 2.0, 3.0]})
    pq.write_table(table, path)
    assert list(jobs.ids_in_parquet(path, "b")) == ["x", "y", "z"]
    with pytest.raises(jobs.JobError, match=r"row 3 of .*ids\.parquet has no id in column 'a'"):
        list(jobs.ids_in_parquet(path, "a"))
    with pytest.raises(jobs.JobError, match=r"column 'c' of .* holds double"):
        jobs.ids_in_parquet(path, "c")
    with pytest.raises(jobs.JobError, match="no column 'd'; it has a, b, c"):
        jobs.ids_in_parquet(path, "d")
    with pytest.raises(jobs.JobError, match="the columns a, b, c: say which"):
        jobs.ids_in_parquet(path)
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(jobs.JobError, match="cannot read ids"):
        jobs.ids_in_parquet(path)


# -- customers that fail


async def test_failed_customers(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """One that the service refuses is asked once a run, told with its error; one that is no id is never asked."""
    out, ids = tmp_path / "out", [1, UNKNOWN + 1, "12x", *range(2, 20)]
    result = await export(session, out, ids)
    assert (result.failed, result.complete, result.found) == (2, False, 18)
    assert server.asked[UNKNOWN + 1] == 1
    assert server.asked[5] == 1
    refused, no_id = failures(out)
    assert refused == {
        "key": UNKNOWN + 1, "error": "BadRequestError", "message": refused["message"], "request_id": "r1",
        "attempts": 1, "shard": 0,
    }  # fmt: skip
    assert "no such customer" in refused["message"]
    assert (no_id["key"], no_id["error"]) == ("12x", "InvalidRequestError")
    assert manifest(out)["failures"] == 2
    assert manifest(out)["complete"] is False
    assert (await jobs.verify(out)).ok
    before = files(out)
    await export(session, out, ids)
    assert server.asked[UNKNOWN + 1] == 2, "another run asks again, once"
    assert files(out) == before


async def test_recovered_customers(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """One that is answered in a later round, or in a later run, stands where it would have stood."""
    await export(session, tmp_path / "undisturbed")
    server.failing.update({1: 3, 19: 1, 18: 2, 44: 4})
    result = await export(session, tmp_path / "out")
    assert (result.failed, [line["key"] for line in failures(tmp_path / "out")]) == (1, [44])
    assert failures(tmp_path / "out")[0]["error"] == "ServerError"
    assert (await jobs.verify(tmp_path / "out")).ok
    assert (await export(session, tmp_path / "out")).complete
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
    assert (await jobs.verify(tmp_path / "out")).ok
    for name in ("keys_digest", "totals", "shards", "ids"):
        assert manifest(tmp_path / "out")[name] == manifest(tmp_path / "undisturbed")[name]


async def test_recovered_into_json_lines(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """The same in the other format."""
    await export(session, tmp_path / "undisturbed", format="jsonl")
    server.failing.update({1: 1, 19: 1, 20: 1, 44: 1})
    await export(session, tmp_path / "out", format="jsonl")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


async def test_rounds_wait_only_for_a_busy_service(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """A refusal is asked again at once, a failure after a pause."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    await export(session, tmp_path / "a", [UNKNOWN], sleep=sleep)
    assert pauses == []
    server.failing[5] = 9
    await export(session, tmp_path / "b", [5], sleep=sleep)
    assert pauses == [5.0, 10.0, 20.0]
    await export(session, tmp_path / "c", [5], sleep=sleep, rounds=0)
    assert server.asked[5] == 5


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("points_value", "1.2345", r"key 5: points_value 1\.2345 of row 1 does not fit decimal128\(18, 3\)"),
        ("points_exclusive", 10**15, r"points_exclusive 1000000000000000 of row 1 does not fit"),
        ("id", 2**63, r"id 9223372036854775808 of row 1 does not fit int64"),
    ],
)
async def test_a_value_that_does_not_fit(
    *, session: AsyncSession, server: Customers, tmp_path: Path, field: str, value: Any, text: str
) -> None:
    """It is never rounded: its customer fails, named, is not asked again, and the others are whole."""
    server.rows[5] = [rows_of(5)[0], {**rows_of(5)[1], field: value}, *rows_of(5)[2:]]
    result = await export(session, tmp_path / "out")
    assert result.failed == 1
    (failed,) = failures(tmp_path / "out")
    assert failed["error"] == "UnfitError"
    assert re.search(text, failed["message"])
    assert server.asked[5] == 1
    asked = pq.read_table(tmp_path / "out" / "shards" / "part-00000000.parquet")["asked_key"].to_pylist()
    assert asked == [customer for customer in range(1, 11) if customer != 5 for _ in rows_of(customer)]
    assert (await jobs.verify(tmp_path / "out")).ok
    assert (await export(session, tmp_path / "lines", format="jsonl")).complete


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
@pytest.mark.parametrize("value", [253_402_300_800_000, 9 * 10**18, -62_135_596_800_001, 253_402_300_799_999])
async def test_a_time_out_of_range(
    *, session: AsyncSession, server: Customers, tmp_path: Path, format_: str, value: int
) -> None:
    """Its milliseconds stay; where no date says it, the derived time is null. It is verified as any other."""
    server.rows[3] = [{**rows_of(3)[0], "expiry_date": value}]
    out = tmp_path / "out"
    result = await export(session, out, [2, 3], format=format_)
    assert (result.found, result.failed) == (2, 0)
    ((name, data),) = files(out).items()
    rows = pq.read_table(out / "shards" / name).to_pylist() if format_ == "parquet" else [
        json.loads(line) for line in data.splitlines()
    ]  # fmt: skip
    (row,) = (row for row in rows if row["asked_key"] == 3)
    assert row["expiry_date"] == value
    assert (row["expires_at"] is None) == (value != 253_402_300_799_999)
    verified = await jobs.verify(out, session=session)
    assert (verified.ok, verified.sampled) == (True, 2)
    server.rows[3][0]["expiry_date"] = value - 1
    assert "changed" in (await jobs.verify(out, session=session)).faults[0]


async def test_wrong_credentials_end_it(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """After a handful of requests, as itself; it goes on when they are right."""
    server.refuse_all = True
    with pytest.raises(AuthenticationError):
        await export(session, tmp_path / "out", range(1, 1_000), shard_keys=500)
    assert server.requests < 200
    server.refuse_all = False
    assert (await export(session, tmp_path / "out", None, shard_keys=500)).complete


# -- outages


@pytest.fixture
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outage, "PROBES", (0.05, 0.1, 0.3))
    monkeypatch.setattr(_outage, "LEAST", 0.05)


@pytest.mark.usefixtures("_quick_probes")
async def test_an_outage_pauses(server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path) -> None:
    """Nothing fails while the service is down; the job sends one request at a time and goes on."""
    session = session_at(
        server.url,
        retry=RetryPolicy(attempts=2, backoff=0, throttle_backoff=0, quota=5),
        limits=Limits(concurrency=4),
    )
    await export(session, tmp_path / "undisturbed")
    notes: list[str] = []

    def told(progress: jobs.ExportProgress) -> None:
        if progress.phase == "paused":
            notes.append(str(progress.note))
            server.down_from = None

    server.down_from = before = server.requests + 20
    result = await export(session, tmp_path / "out", on_progress=told)
    assert re.fullmatch(r"no answer for \d s \(ServerError\); retrying in \d s", notes[0])
    assert result.complete
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
    assert server.requests - before <= len(IDS) + 4 * 2 + 10


@pytest.mark.usefixtures("_quick_probes")
async def test_customers_that_always_fail_are_no_outage(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path
) -> None:
    """A request that was answered is repeated, so that the job goes on when the service does."""
    session = session_at(
        server.url,
        retry=RetryPolicy(attempts=2, backoff=0, throttle_backoff=0, quota=5),
        limits=Limits(concurrency=2),
    )
    bad = dict.fromkeys(range(8, 31), 1_000_000)
    server.failing.update(bad)
    server.down_from = 10
    notes: list[str] = []

    def told(progress: jobs.ExportProgress) -> None:
        if progress.phase == "paused":
            notes.append(str(progress.note))
            server.down_from = None

    result = await export(session, tmp_path / "out", on_progress=told, rounds=0)
    assert notes
    assert {line["key"] for line in failures(tmp_path / "out")} >= set(bad)
    assert result.failed < len(bad) + 12
    assert (await jobs.verify(tmp_path / "out")).ok


async def test_ids_that_cannot_be_read(session: AsyncSession, tmp_path: Path) -> None:
    """An error of the input is told as one, and any other is raised as itself."""

    def broken(error: Exception) -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(jobs.JobError, match="cannot read the ids: gone"):
        await export(session, tmp_path / "out", broken(OSError("gone")))
    with pytest.raises(KeyError):
        await export(session, tmp_path / "out", broken(KeyError("x")))
    assert (await export(session, tmp_path / "out")).complete


async def test_an_outage_ends_after_fifteen_minutes(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do; what is complete stays, and the same command goes on."""
    assert _reading.MAX_WAIT == 900
    monkeypatch.setattr(_reading, "MAX_WAIT", 0.3)
    session = session_at(server.url, retry=RetryPolicy(attempts=2, backoff=0, throttle_backoff=0, quota=5))
    server.down_from = server.requests + 5
    with pytest.raises(jobs.JobError, match=r"the service did not answer for .* what is complete stays") as raised:
        await export(session, tmp_path / "out")
    assert isinstance(raised.value.__cause__, ServerError)
    assert raised.value.__cause__.outage
    server.down_from = None
    assert (await export(session, tmp_path / "out", None)).complete


# -- stopping


async def test_stop_finishes_what_is_under_way(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """No shard is begun any more, those begun are finished, and the next run reads the rest alone."""
    server.latency = 0.002
    stop = asyncio.Event()
    ids = range(1, 601)

    def told(progress: jobs.ExportProgress) -> None:
        if progress.settled > 120:
            stop.set()

    result = await export(session, tmp_path / "out", ids, shard_keys=40, stop=stop, on_progress=told)
    assert result.interrupted
    assert not (tmp_path / "out" / "failures.jsonl").exists()
    assert not result.complete
    assert 3 <= result.shards < 15
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out" / "shards").glob("*.part"))
    asked = server.requests
    server.latency = 0
    result = await export(session, tmp_path / "out", ids, shard_keys=40)
    assert result.complete
    assert server.requests > asked
    assert {server.asked[number] for number in ids if number % 10 != 9} == {1}, "none was asked twice"
    assert (await jobs.verify(tmp_path / "out")).ok


async def test_stopped_over_shards_that_are_gone(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """What failed in them is not counted while they are not there again."""
    out = tmp_path / "out"
    await export(session, out, [*range(1, 20), *range(UNKNOWN, UNKNOWN + 20)], rounds=0)
    for path in sorted((out / "shards").iterdir())[1:]:
        path.unlink()
    server.latency, stop = 30, asyncio.Event()
    told: list[jobs.ExportProgress] = []

    def tell(progress: jobs.ExportProgress) -> None:
        told.append(progress)
        if progress.phase == "reading":
            stop.set()

    result = await export(session, out, None, stop=stop, grace=0, on_progress=tell)
    assert result.interrupted
    assert (result.asked, result.found, result.empty, result.failed) == (39, 9, 1, 0)
    assert {progress.failed for progress in told} == {0}
    server.latency = 0
    result = await export(session, out, None, rounds=0)
    assert (result.asked, result.found, result.empty, result.failed) == (39, 18, 1, 20)


async def test_stop_waits_no_longer_than_granted(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """What is not done by then is dropped without a trace, and read again."""
    server.slow[3] = 30.0
    stop = asyncio.Event()

    def told(progress: jobs.ExportProgress) -> None:
        if progress.shards:
            stop.set()

    result = await export(session, tmp_path / "out", stop=stop, grace=0.1, on_progress=told)
    assert result.interrupted
    assert "part-00000000.parquet" not in files(tmp_path / "out")
    assert not list((tmp_path / "out" / "shards").glob("*.part"))
    server.slow.clear()
    assert (await export(session, tmp_path / "out")).complete


async def test_a_file_that_is_dropped(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """One that has rows already leaves nothing either, and complains of nothing."""
    server.rows[1] = [{"id": row} for row in range(1, 2_001)]
    server.slow[2] = 30.0
    stop = asyncio.Event()
    task = asyncio.ensure_future(export(session, tmp_path / "out", [1, 2], stop=stop, grace=0.0))
    while not list((tmp_path / "out").glob("shards/*.part")):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    stop.set()
    assert (await task).interrupted
    gc.collect()
    assert files(tmp_path / "out") == {}


async def test_stop_while_the_ids_are_read(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """Nothing is kept of a part of the input."""
    stop = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        number = 0
        while True:
            number += 1
            if number == 20_000:
                stop.set()
            await asyncio.sleep(0)
            yield number

    result = await export(session, tmp_path / "out", endless(), stop=stop)
    assert (result.interrupted, result.asked, server.requests) == (True, 0, 0)
    assert (await export(session, tmp_path / "out", [1, 2, 3])).asked == 3


async def test_cancelled(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """As any other task; the lock is given back, and it goes on."""
    server.latency = 0.05
    task = asyncio.ensure_future(export(session, tmp_path / "out", range(1, 300), shard_keys=30))
    assert await asyncio.to_thread(server.came.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.latency = 0
    assert (await export(session, tmp_path / "out", range(1, 300), shard_keys=30)).complete


# -- stragglers


@pytest.mark.long
async def test_a_straggler_does_not_hold_up_the_rest(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """While one customer of the first shard is waited for, the others are read, and put on the disk, up to a bound."""
    server.slow[3] = 4.0  # a busy machine needs more than two seconds for the others
    shards: list[int] = []

    def told(progress: jobs.ExportProgress) -> None:
        if progress.settled < 600:
            shards.append(progress.shards)

    result = await export(session, tmp_path / "out", range(1, 601), shard_keys=50, on_progress=told)
    assert result.complete
    assert max(shards) >= 9, "a few are in work at the last settling"
    assert server.asked[3] == 1


async def test_one_worker_at_each_end(session: AsyncSession, tmp_path: Path) -> None:
    """A window smaller than the input: keys are handed out again as shards are done."""
    before = _export.ReadLoop.__init__.__globals__["KEYS"]
    _export.ReadLoop.__init__.__globals__["KEYS"] = 1
    try:
        result = await export(session, tmp_path / "out", range(1, 91), shard_keys=3)
    finally:
        _export.ReadLoop.__init__.__globals__["KEYS"] = before
    assert result.complete
    assert result.shards == 30


# -- damage


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
async def test_damaged_files(session: AsyncSession, server: Customers, tmp_path: Path, damage: str) -> None:
    """A file that is gone or has another size is read again; a flipped byte shows to `paranoid` and to `verify`."""
    await export(session, tmp_path / "out")
    before = files(tmp_path / "out")
    path = tmp_path / "out" / "shards" / "part-00000002.parquet"
    data = bytearray(before[path.name])
    data[len(data) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[:-1])
    proof = await jobs.verify(tmp_path / "out")
    assert not proof.ok
    assert "shards/part-00000002.parquet" in proof.faults[0]
    asked = server.requests
    result = await export(session, tmp_path / "out")
    if damage == "flipped":
        assert (result.repaired, server.requests) == ((), asked), "its size is the same"
        result = await export(session, tmp_path / "out", paranoid=True)
    assert result.repaired == ("shards/part-00000002.parquet",)
    assert files(tmp_path / "out") == before
    assert (await jobs.verify(tmp_path / "out")).ok


async def test_a_full_disk_ends_an_export_at_once_while_an_answer_is_awaited(
    session: AsyncSession, server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write of the third shard fails while the fourth waits for the service; later everything is exported."""
    server.slow[IDS[-1]] = 30.0
    seal, failed_at = _shards.ShardWriter.seal, list[float]()

    def full(writer: Any, keys: int) -> Any:
        if writer.path.name.startswith("part-00000002"):
            failed_at.append(time.monotonic())
            raise OSError(errno.ENOSPC, "No space left on device")
        return seal(writer, keys)

    monkeypatch.setattr(_shards.ShardWriter, "seal", full)
    with pytest.raises(jobs.JobError, match="No space left") as caught:
        await export(session, tmp_path / "out")
    assert time.monotonic() - failed_at[0] < 1
    assert isinstance(caught.value.__cause__, OSError)
    monkeypatch.undo()
    server.slow.clear()
    result = await export(session, tmp_path / "out")
    assert result.complete
    assert result.records == sum(len(rows_of(customer)) for customer in IDS)
    assert (await jobs.verify(tmp_path / "out")).ok
