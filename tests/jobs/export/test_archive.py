"""The archive of an export and its replay: the same bytes without the service, or an error that names the fault."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import random
import shutil
import sqlite3
import zipfile
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

pytest.importorskip("pyarrow")

from support.environment import name_cluster
from support.job_server import QUERY, UNKNOWN, Customers, answer, at_once, rows_of

from capillary_async import AsyncSession, InvalidRequestError, Paging, RetryPolicy, jobs
from capillary_async.cli import main
from capillary_async.jobs._archive.pack import PackWriter
from capillary_async.jobs._dataset.state import State
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IDS = [*range(1, 41), UNKNOWN + 1, 7]


async def export(session: AsyncSession, path: Path, ids: Any = IDS, **options: Any) -> jobs.ExportResult:
    given = {"shard_keys": 12, "sleep": at_once, "archive": path / "archive", **QUERY, **options}
    return await jobs.export("allocations", ids, path / "out", session=session, **given)


async def same(path: Path) -> jobs.ReplayResult:
    """Replay it, and compare every file."""
    result = await jobs.replay(path / "archive", path / "again")
    assert result.identical
    assert files(path / "again") == files(path / "out")
    assert (await jobs.verify(path / "again")).ok
    return result


def files(out: Path) -> dict[str, bytes]:
    found = sorted(path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found if "state.sqlite" not in path.name}


def index(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for pack in sorted((path / "archive").glob("part-*.zip")):
        with zipfile.ZipFile(pack) as packed:
            for line in map(json.loads, packed.read("index.jsonl").splitlines()):
                assert hashlib.sha256(packed.read(line["file"])).hexdigest() == line["sha256"]
                found.append(line)
    return found


# -- the same export


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
async def test_the_same_bytes(session: AsyncSession, server: Customers, tmp_path: Path, form: str) -> None:
    """Also of customers that failed, that were recovered in a later round, and that have two pages."""
    server.failing.update({5: 1, 9: 1, 20: 100})
    result = await export(session, tmp_path, format=form)
    assert result.failed == 2
    asked = server.requests
    replayed = await same(tmp_path)
    assert server.requests == asked
    assert (replayed.export.failed, replayed.export.records) == (2, result.records)
    lines = index(tmp_path)
    assert replayed.bodies == len(lines)
    assert {line["status"] for line in lines} == {200}
    keys = {line["request"].partition("entity_id=")[2].partition("&")[0] for line in lines}
    assert keys == {str(key) for key in range(1, 41) if key != 20}
    assert len(list((tmp_path / "archive").iterdir())) == 2 + 4 + 1  # the recovered ones of the first shard


async def test_nothing_secret_is_kept(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path
) -> None:
    """Neither credentials nor headers."""
    await export(session_at(server.url), tmp_path)
    for path in (tmp_path / "archive").iterdir():
        data = path.read_bytes()
        texts = [data]
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as packed:
                texts += [packed.read(name) for name in packed.namelist()]
        for text in texts:
            assert b"uthorization" not in text
            assert b"password" not in text.lower()


@pytest.mark.parametrize("options", [{"verify": True}, {"cap": 50}, {"cap": 50, "verify": True}, {"cap": 7}])
async def test_lists_of_several_pages(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Read twice, cut by the server, or both."""
    server.cap = options.get("cap")
    for key in range(1, 41):
        server.rows[key] = rows_of(key * 10 + 9)[: 10 * (key % 12)]
        for row in server.rows[key]:
            row["customer_id"] = key
    session = session_at(server.url, paging=Paging(page_size=100, prefetch=4))
    await export(session, tmp_path, verify=options.get("verify"))
    await same(tmp_path)


async def test_not_found(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """Customers that count as empty because of a 404 do so again."""
    server.missing = {3, 4, 30}
    assert (await export(session, tmp_path, not_found="empty")).not_found == 3
    assert (await same(tmp_path)).export.not_found == 3
    assert [line["status"] for line in index(tmp_path)].count(404) == 3


_LONG = b'{"errors":[{"status":false,"code":404,"message":"no such customer %b"}]}' % ("ü" * 2_000).encode()
_SHORT = b'{"errors":[{"status":false,"code":404,"message":"customer not found"}]}'
_EMPTIES = [(b"404 Not Found", _LONG), (b"404 Not Found", _SHORT), (b"200 OK", _SHORT), (b"200 OK", b"[]")]
_ENDS = [*_EMPTIES, (b"200 OK", b"null"), (b"404 Not Found", b"<html>no</html>"), (b"404 Not Found", b"")]


async def test_the_bodies_of_refusals(
    session: AsyncSession, server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept as they came, whole, with the status that they came with."""
    came = dict(enumerate(_EMPTIES, 1))
    plain = server.reply

    def reply(target: bytes) -> tuple[bytes, float]:
        status, body = came.get(int(target.partition(b"entity_id=")[2].partition(b"&")[0]), (b"", b""))
        return (answer(body, status, target), 0.0) if status else plain(target)

    monkeypatch.setattr(server, "reply", reply)
    await export(session, tmp_path, range(1, 9), not_found="empty")
    await same(tmp_path)
    kept: dict[str, tuple[int, bytes]] = {}
    with zipfile.ZipFile(tmp_path / "archive" / "part-00000000-000.zip") as packed:
        for line in map(json.loads, packed.read("index.jsonl").splitlines()):
            key = line["request"].partition("entity_id=")[2].partition("&")[0]
            kept[key] = line["status"], packed.read(line["file"])
    assert [kept[str(key)] for key in came] == [(int(status[:3]), body) for status, body in came.values()]


class World:
    """Customers with lists that end and are empty in each of the ways, on a server that may cap its pages."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.cap = rng.choice([None, 1, 3, 7, 20, 37, 37, 99])
        step = self.cap or 40
        lengths = [0, 0, 1, step - 1, step, step, step, step + 1, 2 * step, 3 * step - 1]
        self.keys = [*range(1, 31)]
        rng.shuffle(self.keys)
        self.rows = {key: [{**rows_of(9)[0], "id": key * 1000 + row, "customer_id": key}
                           for row in range(rng.choice(lengths))] for key in self.keys}  # fmt: skip
        self.empty = {key: rng.choice(_EMPTIES) for key in self.keys}
        self.end = {key: rng.choice(_ENDS if rng.random() < 0.5 else [(b"200 OK", b"[]")]) for key in self.keys}
        self.delay = {key: rng.choice([0, 0, 0.01]) for key in self.keys}
        self.verify = rng.choice([None, True])
        self.paging = Paging(page_size=rng.choice([100, 100, 40]), prefetch=rng.choice([0, 4]))
        self.shard_keys = rng.choice([7, 100])

    def reply(self, target: bytes) -> tuple[bytes, float]:
        """The answer to a request, and the seconds before it."""
        asked = dict(parse_qsl(target.partition(b"?")[2]))
        key, page, count = (int(asked[name]) for name in (b"entity_id", b"page", b"count"))
        size = min(self.cap or count, count)
        rows = self.rows[key][(page - 1) * size : page * size]
        status, body = (b"200 OK", json.dumps(rows).encode()) if rows else (self.empty if page == 1 else self.end)[key]
        return answer(body, status, target), self.delay[key]


@pytest.mark.parametrize("seed", range(8))
async def test_any_world(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:  # fmt: skip
    """Whatever the session knew of caps, and in whatever order the answers came: the replay has the same bytes."""
    world = World(seed)
    monkeypatch.setattr(server, "reply", world.reply)
    session = session_at(server.url, paging=world.paging, retry=RetryPolicy(backoff=0))
    given = {"verify": world.verify, "shard_keys": world.shard_keys, "not_found": "empty"}
    await export(session, tmp_path, world.keys, **given)
    await same(tmp_path)


async def test_a_cap_that_the_session_knew(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path
) -> None:
    """It looked after no page of that length any more; the replay finds the rows after it all the same."""
    server.cap = 37
    for key in range(1, 13):
        server.rows[key] = [{**rows_of(9)[row], "id": key * 1000 + row, "customer_id": key} for row in range(37)]
    server.rows[12] = [{**rows_of(9)[row], "id": 12_000 + row, "customer_id": 12} for row in range(74)]
    session = session_at(server.url)
    query: dict[str, Any] = dict(QUERY)
    assert len(await session.points_allocation.by_expiry(entity_id=12, **query).collect(verify=True)) == 74
    for name, verify in (("once", None), ("verified", True)):
        result = await export(session, tmp_path / name, range(1, 13), verify=verify)
        assert result.records == 11 * 37 + 74
        await same(tmp_path / name)


async def test_a_batch_that_is_refused(session: AsyncSession, server: Customers, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Its keys are read by themselves, and those bodies are replayed; a bare row and nulls are as in the export."""

    def reply(target: bytes) -> tuple[bytes, float]:
        keys = [int(key) for key in dict(parse_qsl(target.decode().partition("?")[2]))["entity_id"].split(",")]
        if 8 in keys:
            return answer(_SHORT, b"404 Not Found", target), 0.0
        rows = [{"id": key * 10, "customer_id": key, "points_value": 1} for key in keys if key in {2, 7, 13, 14}]
        body = json.dumps(rows[0] if len(rows) == 1 else [None, *rows]).encode()
        return answer(b"\xef\xbb\xbf" + body, target=target), 0.0

    monkeypatch.setattr(server, "reply", reply)
    query = {"program_id": 1, "point_category_id": 2, "start_expiry_date": "2020-01-01",
             "end_expiry_date": "2030-12-31", "status": "AVAILABLE", "batch_size": 5}  # fmt: skip
    await jobs.export("awarded", range(1, 19), tmp_path / "out", session=session, archive=tmp_path / "archive",
                      shard_keys=7, sleep=at_once, **query)  # fmt: skip
    await same(tmp_path)


async def test_several_categories(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """Each pair of program and category is a request of its own."""
    server.rows_under = lambda key, program, category: [
        {**row, "id": row["id"] * 100 + category + program, "customer_id": key} for row in rows_of(key)
    ]
    await export(session, tmp_path, range(1, 31), point_category_id=[11, 12], program_id=[20, 40])
    await same(tmp_path)


async def test_the_other_sources(tmp_path: Path) -> None:
    """Awarded ids in batches that the replay cuts otherwise, one and several statuses, events, the ledger."""
    async with Sandbox(customers=30) as sandbox, AsyncSession(sandbox.url, auth=sandbox.auth) as session:
        ids = sandbox.customer_ids
        dates = {"start_expiry_date": "2020-01-01", "end_expiry_date": "2030-12-31"}
        awarded = {"program_id": 2282, "point_category_id": 17383, **dates}
        pairs = [(key, event) for key in ids for event in sandbox.event_log_ids(key)]
        for name, source, given, query in (
            ("a", "awarded", [*ids, "x1"], {**awarded, "status": "AVAILABLE", "batch_size": 7}),
            ("b", "awarded", ids, {**awarded, "status": ["AVAILABLE", "EXPIRED"]}),
            ("e", "events", ids, {}),
            ("l", "ledger", pairs, {"include": ["bill_details"]}),
        ):
            path = tmp_path / name
            archive = path / "archive"
            await jobs.export(
                source, given, path / "out", session=session, archive=archive, shard_keys=9, sleep=at_once, **query
            )  # fmt: skip
            asked = sandbox.requests
            await same(path)
            assert sandbox.requests == asked


async def test_a_shard_of_the_ids(session: AsyncSession, tmp_path: Path) -> None:
    """It is that shard of the whole list again, though the archive has its own ids alone."""
    await export(session, tmp_path, shard=(2, 3))
    await same(tmp_path)
    await same(tmp_path)


async def test_no_customers(session: AsyncSession, tmp_path: Path) -> None:
    """An export without customers has an archive without packs."""
    await export(session, tmp_path, [], allow_empty=True)
    await same(tmp_path)


async def test_a_run_that_goes_on(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """What an interrupted run read and did not finish does not count, though the data have changed since."""
    stop = asyncio.Event()

    def halt(progress: jobs.ExportProgress) -> None:
        if progress.shards >= 1:
            stop.set()

    server.latency = 0.02
    first = await export(session, tmp_path, range(1, 101), stop=stop, on_progress=halt, grace=0)
    assert first.interrupted
    with pytest.raises(jobs.JobError, match="has not finished"):
        await jobs.replay(tmp_path / "archive", tmp_path / "early")
    for key in range(1, 101):
        if key % 10 == 9:
            server.rows[key] = rows_of(key)[:60]
    server.failing.update({50: 100, 60: 100})
    await export(session, tmp_path, None)
    await same(tmp_path)
    server.failing.clear()
    assert (await export(session, tmp_path, None)).complete
    shutil.rmtree(tmp_path / "again")
    await same(tmp_path)
    assert (await export(session, tmp_path, None)).already_complete


async def test_a_replay_that_goes_on(session: AsyncSession, tmp_path: Path) -> None:
    """Twice it asks nothing more; a folder of something else is refused, the export's own too."""
    await export(session, tmp_path)
    await same(tmp_path)
    (tmp_path / "again" / "shards" / "part-00000001.parquet").unlink()
    await same(tmp_path)
    with pytest.raises(jobs.JobError, match="no replay of this archive"):
        await jobs.replay(tmp_path / "archive", tmp_path / "out")


@pytest.mark.parametrize(
    "zone",
    [
        "Asia/Kolkata",
        "UTC",
        UTC,
        timezone(timedelta(hours=5, minutes=30), "IST"),
        timezone(-timedelta(hours=3, minutes=30, seconds=15)),
    ],
)
async def test_the_server_s_zone(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path, zone: Any
) -> None:
    """It is that of the export."""
    for key in (3, 4):
        server.rows[key] = [{**row, "awarded_date": "2025-06-01T12:00:00"} for row in rows_of(key)]
    await export(session_at(server.url, server_timezone=zone), tmp_path, range(1, 9))
    await same(tmp_path)


class Moved(tzinfo):
    """A zone that no name finds."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return None if when is None else timedelta(hours=when.hour % 2)


async def test_a_zone_that_no_replay_finds(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path
) -> None:
    """With an archive it is refused before anything is sent."""
    session = session_at(server.url, server_timezone=Moved())
    with pytest.raises(InvalidRequestError, match="which a replay does not find"):
        await export(session, tmp_path)
    assert server.requests == 0
    await export(session, tmp_path / "plain", archive=None)


async def test_tries_that_fail_are_not_kept(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path
) -> None:
    """One body per request, that of the answer which was used."""
    server.failing.update(dict.fromkeys(range(1, 20), 2))
    await export(session_at(server.url, retry=RetryPolicy(attempts=5, backoff=0)), tmp_path, range(1, 20))
    requests = [line["request"] for line in index(tmp_path)]
    assert len(requests) == len(set(requests))
    await same(tmp_path)


# -- what is not as it was


def repacked(pack: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(pack) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    change(members)
    with zipfile.ZipFile(pack, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)


@pytest.mark.parametrize("fault", ["missing", "changed", "extra", "cut", "gone", "another", "appended", "folder"])
async def test_a_damaged_archive(session: AsyncSession, server: Customers, tmp_path: Path, fault: str) -> None:
    """Each is an error that names the pack, and the body where there is one."""
    await export(session, tmp_path)
    pack = tmp_path / "archive" / "part-00000001-000.zip"
    with zipfile.ZipFile(pack) as packed:
        name = packed.namelist()[3]
    request_id = name[8:].removesuffix(".json")
    if fault == "missing":
        repacked(pack, lambda members: members.pop(name) and None)
        says = f"the body of request {request_id} .* is missing"
    elif fault == "changed":
        repacked(pack, lambda members: members.update({name: members[name] + b" "}))
        says = f"the body of request {request_id} .* is damaged"
    elif fault == "extra":
        repacked(pack, lambda members: members.update({"9999999-x.json": b"[]"}))
        says = "the body '9999999-x.json' is one too many"
    elif fault == "cut":
        pack.write_bytes(pack.read_bytes()[:-30])
        says = "cannot be read"
    elif fault == "appended":
        repacked(pack, lambda _: None)
        says = "not as it was written"
    elif fault == "gone":
        pack.unlink()
        says = "is missing"
    elif fault == "another":
        shutil.copy(pack, pack.with_name("part-00000001-001.zip"))
        says = "part-00000001-001.zip is one too many"
    else:
        (tmp_path / "archive" / "archive.json").unlink()
        says = "is no archive"
    with pytest.raises(jobs.JobError, match=says) as error:
        await jobs.replay(tmp_path / "archive", tmp_path / "again")
    assert str(tmp_path / "archive") in str(error.value)
    assert not (tmp_path / "again" / "manifest.json").exists()
    if fault in ("gone", "cut", "changed"):  # the export repairs it, by reading that shard again
        asked = server.requests
        again = await export(session, tmp_path, None, paranoid=True)
        assert again.repaired == ("the archive of shards/part-00000001.parquet",)
        assert server.requests > asked
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        await same(tmp_path)


async def test_folders_that_are_refused(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """An archive is that of one export from its beginning to its end, and no file of another is removed."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "part-00000000-000.zip").write_text("mine")
    with pytest.raises(jobs.JobError, match="is not empty"):
        await export(session, tmp_path)
    assert (tmp_path / "archive" / "part-00000000-000.zip").read_text() == "mine"
    assert server.requests == 0
    shutil.rmtree(tmp_path / "archive")
    (tmp_path / "archive").write_text("a file")
    with pytest.raises(jobs.JobError, match="as an archive"):
        await export(session, tmp_path)
    (tmp_path / "archive").unlink()
    with pytest.raises(jobs.JobError, match="archive: "):
        await export(session, tmp_path, archive="s3://bucket/archive")
    await export(session, tmp_path)
    with pytest.raises(jobs.JobError, match="begun with an archive: give it"):
        await export(session, tmp_path, archive=None)
    with pytest.raises(jobs.JobError, match="not the archive that"):
        await export(session, tmp_path, archive=tmp_path / "other")
    other = tmp_path / "o"
    await export(session, other, archive=None)
    with pytest.raises(jobs.JobError, match="begun without an archive"):
        await export(session, other, archive=tmp_path / "new")
    with pytest.raises(jobs.JobError, match=r"not the archive that|is not empty"):
        await export(session, tmp_path / "p", archive=tmp_path / "archive")
    await same(tmp_path)


@pytest.mark.parametrize(("out", "archive"), [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "a/shards/x"), ("l", "a")])
async def test_folders_that_are_not_apart(
    session: AsyncSession, server: Customers, tmp_path: Path, out: str, archive: str
) -> None:
    """One inside the other, or the same by another name: nothing is made."""
    (tmp_path / "l").symlink_to("a")
    with pytest.raises(jobs.JobError, match="one is inside the other: name two folders apart"):
        await jobs.export("allocations", [1], tmp_path / out, session=session, archive=tmp_path / archive, **QUERY)
    assert [path.name for path in tmp_path.iterdir()] == ["l"]
    assert server.requests == 0


async def test_an_archive_is_no_folder_of_an_export(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """To export, plan or replay into it changes no byte of it."""
    await export(session, tmp_path)
    archive, asked = tmp_path / "archive", server.requests
    before = {path: path.read_bytes() for path in archive.rglob("*")}
    given: dict[str, Any] = {"session": session, **QUERY}
    for work in (
        jobs.export("allocations", None, archive, **given),
        jobs.export("allocations", None, archive, archive=tmp_path / "new", **given),
        jobs.export("allocations", None, archive, archive=archive, **given),
        jobs.plan_export("allocations", None, archive, **given),
        jobs.replay(archive, archive),
    ):
        with pytest.raises(jobs.JobError, match="is an archive of raw answers: export into another folder"):
            await work
    assert {path: path.read_bytes() for path in archive.rglob("*")} == before
    assert server.requests == asked
    await same(tmp_path)


async def test_a_full_disk(
    session: AsyncSession, server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export ends, what is complete stays, and it goes on when there is room."""
    write, calls = PackWriter.add, [0]

    def full(self: PackWriter, bodies: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device", "part-00000001-000.zip.part")
        write(self, bodies)

    monkeypatch.setattr(PackWriter, "add", full)
    with pytest.raises(jobs.JobError, match="no room to write part-00000001"):
        await export(session, tmp_path)
    assert not list((tmp_path / "archive").glob("*.part"))
    await export(session, tmp_path, None)
    await same(tmp_path)
    assert server.requests > 0


async def test_the_file_that_did_not_fit(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names it, though the error of the system does not."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(jobs.JobError, match=r"no room to write .*/archive/part-0000000[0-9]-000\.zip\.part"):
        await export(session, tmp_path)
    monkeypatch.undo()

    def locked(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(State, "back_up", locked)
    with pytest.raises(jobs.JobError, match=r"no room to write .*/archive/state\.sqlite\.part"):
        await export(session, tmp_path, None)
    monkeypatch.undo()
    await export(session, tmp_path, None)
    await same(tmp_path)


# -- the command


def test_commands(
    server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--archive`, `replay --out`, and the body of a request id."""
    name_cluster(monkeypatch, server.url)
    ids, archive = tmp_path / "ids.txt", tmp_path / "archive"
    ids.write_text("".join(f"{key}\n" for key in IDS))
    points = ["--program-id", "2282", "--point-category-id", "17383", "--expiry-date-start", "2025-06-01",
              "--expiry-date-end", "2027-06-01"]  # fmt: skip
    given = ["--out", str(tmp_path / "out"), "--ids", str(ids), "--archive", str(archive)]
    assert main(["export", "allocations", *points, *given]) == 2
    server.refuse_all = True
    assert main(["replay", str(archive), "--out", str(tmp_path / "again")]) == 2
    assert "REPLAYED: " in capfd.readouterr().out
    assert files(tmp_path / "again") == files(tmp_path / "out")
    line = next(line for line in index(tmp_path) if "entity_id=8&" in line["request"])
    assert main(["replay", str(archive), "--body", line["request_id"]]) == 0
    assert json.loads(capfd.readouterr().out) == rows_of(8)
    assert main(["replay", str(archive), "--body", "r0"]) == 1
    assert "no body with the request id 'r0'" in capfd.readouterr().err
    assert main(["replay", str(archive)]) == 1
    assert main(["replay", str(tmp_path / "out"), "--out", str(tmp_path / "x")]) == 1
    assert "is no archive" in capfd.readouterr().err
