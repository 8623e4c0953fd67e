"""The folder of an export as others may find it: links, locks, foreign manifests, odd names, and what is said of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import sqlite3
import subprocess
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq
from support.environment import name_cluster
from support.export_folder import write_export
from support.job_server import QUERY, UNKNOWN, Customers, at_once

from capillary_async import AsyncSession, Limits, RetryPolicy, Timeouts, jobs
from capillary_async._transport import outage as _outage
from capillary_async.cli import main
from capillary_async.jobs import JobError
from capillary_async.jobs._books.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and locks as POSIX has them")
POINTS = ("--program-id", "2282", "--point-category-id", "17383", "--expiry-date-start", "2025-06-01",
          "--expiry-date-end", "2027-06-01")  # fmt: skip
IDS = [1, 2, 3, 4]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Customers]:
    """A server that the environment names."""
    with Customers() as customers:
        name_cluster(monkeypatch, customers.url)
        yield customers


async def export(session: AsyncSession, out: Any, ids: Any = IDS, **options: Any) -> jobs.ExportResult:
    given = {"shard_keys": 2, "sleep": at_once, **QUERY, **options}
    return await jobs.export("allocations", ids, out, session=session, **given)


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


# -- links


@pytest.mark.parametrize("name", [".lock", "shards", "state.sqlite", "state.sqlite-wal", "manifest.json"])
@pytest.mark.parametrize("finished", [False, True])
async def test_a_planted_link_is_not_followed(
    *, session: AsyncSession, tmp_path: Path, name: str, finished: bool
) -> None:
    """Not by a run that goes on, and not by one that refuses: its target stays as it is."""
    out, target = tmp_path / "out", tmp_path / "target"
    out.mkdir()
    if finished:
        await export(session, out)
        if (out / name).exists():
            (out / name).rename(out / f"{name}.moved")
    if name == "shards":
        target.mkdir()
        (target / "part-00000000.parquet").write_text("kept")
    else:
        target.write_text("kept")
    (out / name).symlink_to(target)
    with pytest.raises(JobError, match="symbolic link"):
        await export(session, out, None if finished else IDS)
    assert (target / "part-00000000.parquet" if name == "shards" else target).read_text() == "kept"


@pytest.mark.parametrize("name", ["shards/part-00000000.parquet", "shards/part-00000001.parquet.part",
                                  "manifest.json.part", "failures.jsonl", "failures.jsonl.part"])  # fmt: skip
async def test_links_that_are_replaced(session: AsyncSession, tmp_path: Path, name: str) -> None:
    """What an export writes takes the link's place; the link's target is not written."""
    out, target = tmp_path / "out", tmp_path / "target"
    await export(session, out, [*IDS, UNKNOWN])
    target.write_bytes((out / name).read_bytes() if (out / name).exists() else b"kept")
    held = target.read_bytes()
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(target)
    (out / "manifest.json").unlink()
    result = await export(session, out, None)
    assert result.failed == 1
    assert target.read_bytes() == held
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    assert (await jobs.verify(out)).ok


async def test_a_shard_that_is_a_link_is_a_difference(session: AsyncSession, tmp_path: Path) -> None:
    """For verify, and for reconcile; no export makes one."""
    out = tmp_path / "out"
    await export(session, out)
    shard = out / "shards" / "part-00000000.parquet"
    shard.rename(tmp_path / "elsewhere.parquet")
    shard.symlink_to(tmp_path / "elsewhere.parquet")
    assert "symbolic link" in (await jobs.verify(out)).faults[0]
    with pytest.raises(JobError, match="symbolic link"):
        await jobs.reconcile(out)


# -- locks and disks


def refusing(number: int) -> Any:
    def call(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_a_disk_without_flock(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The locks of POSIX do; without any lock the reason is the true one."""
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    assert (await export(session, tmp_path / "out")).complete
    monkeypatch.setattr(fcntl, "lockf", refusing(number))
    with pytest.raises(JobError) as caught:
        await export(session, tmp_path / "other")
    assert os.strerror(number) in str(caught.value)
    assert "process" not in str(caught.value)


@pytest.mark.parametrize("flock", [True, False])
async def test_two_in_one_folder(
    *, session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: bool
) -> None:
    """The second is refused, also within one process and where only the locks of POSIX work."""
    if not flock:
        monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    said: list[str] = []

    async def again(_: Any = None) -> None:
        with pytest.raises(JobError, match="works in") as caught:
            await export(session, tmp_path / "out")
        said.append(str(caught.value))

    async def ids() -> Any:
        await again()
        for number in IDS:
            yield number

    assert (await export(session, tmp_path / "out", ids())).complete
    assert f"process {os.getpid()} works in" in said[0]
    assert (await export(session, tmp_path / "out")).already_complete


async def test_a_folder_that_cannot_be_synced(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on old CIFS."""
    fsync = os.fsync

    def files_alone(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - a link of the system
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_alone)
    assert (await export(session, tmp_path / "out")).complete


# -- names and addresses


@pytest.mark.parametrize("name", ["file:x", "s3:__x", "a?b#c", "per%20cent", "quote'd"])
async def test_odd_names(session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They are folders like any other, for every job."""
    monkeypatch.chdir(tmp_path)
    assert (await export(session, name)).complete
    assert (await jobs.verify(name)).ok
    assert (await jobs.verify(name, session=session)).sampled == len(IDS)
    assert (await jobs.reconcile(name, name, out="d.parquet")).equal
    assert (await export(session, name, None)).already_complete
    assert sorted(os.listdir(tmp_path)) == sorted(["d.parquet", name])


URLS = ["s3://k:S3cret@b/x", "S3:/b/x", "gs://b/x", "abfss://c@a/x", "file:///tmp/x"]


@pytest.mark.parametrize("url", URLS)
async def test_a_url_is_no_path(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:  # fmt: skip
    """Wherever a path is due; nothing is made."""
    monkeypatch.chdir(tmp_path)
    good = write_export(tmp_path / "good", "allocations", [])
    for asked in (
        lambda: export(session, url),
        lambda: jobs.verify(url),
        lambda: jobs.reconcile(url),
        lambda: jobs.reconcile(good, good, out=f"{url}.parquet"),
        lambda: jobs.reconcile(good, report=f"{url}.html"),
        lambda: jobs.reconcile(good, with_events=url),
        lambda: jobs.reconcile(good, url, key="id"),
    ):
        with pytest.raises(JobError, match=r"is a URL|is none of") as caught:
            await asked()
        assert "S3cret" not in str(caught.value)
    assert os.listdir(tmp_path) == ["good"]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_no_path_for_any_command(
    server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In any of its options; one line, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    good = write_export(tmp_path / "good", "allocations", [])
    for line in (
        ["export", "allocations", *POINTS, "--ids", str(good / "failures.jsonl"), "--out", url],
        ["verify", url],
        ["reconcile", str(good), "--report", f"{url}.html"],
        ["allocations", "1", *POINTS, "--out", url],
        ["demo", "--customers", "1", "--out", url],
        ["allocations", *POINTS, "--ids", url],
        ["export", "allocations", *POINTS, "--ids", url, "--out", "new"],
    ):
        assert main(line) == 1, line
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert "is a URL" in err
        assert "S3cret" not in err
    assert os.listdir(tmp_path) == ["good"]


BOOKS = [
    "postgresql+psycopg2://u:S3cret@127.0.0.1:1/fin",
    "postgresql+asyncpg://u:S3cret@127.0.0.1:1/fin",
    " 'postgresql://u:S3cret@127.0.0.1:1/fin'",
    "mysql+pymysql://u:S3cret@db/fin",
    "jdbc:postgresql://h/d?user=u&password=S3cret",
    "jdbc:sqlserver://h;user=u;password=S3cret",
    "host=h user=u password='S3cret x'",
    "host=h password=S3cret",
    "Driver={x};Server=h;PWD=S3cret",
    "scott/S3cret@h:1521/orcl",
    "u:S3cret@db/fin",
    "https://S3cret@h/books.csv",
    "https://h/books.csv?token=S3cret",
]


@pytest.mark.parametrize("books", BOOKS)
async def test_no_address_shows_its_secret(tmp_path: Path, books: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In no error, no chained error, no frame of ours, no repr."""
    folder = write_export(tmp_path / "export", "allocations", [])
    options: dict[str, Any] = {"key": "id", "table": "t" if "postgresql" in books[:14] else None}
    with pytest.raises(JobError) as caught:
        await jobs.reconcile(folder, Address(books).reveal(), **options)
    del books
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    inside = shown.rpartition("await jobs.reconcile(folder, Address(books)")[2]
    assert "S3cret" not in re.sub(r"(?s)^.*?in reconcile\n", "", inside)
    assert "S3cret" not in str(caught.value) + repr(caught.value.path)


@pytest.mark.parametrize("books", BOOKS)
def test_no_command_shows_a_secret(tmp_path: Path, books: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor where the option itself is written wrongly."""
    folder = write_export(tmp_path / "export", "allocations", [])
    for option in ("--books", "--book"):
        assert main(["reconcile", str(folder), option, books, "--key", "id"]) == 1
        assert "S3cret" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("given", "hint"), [
    ("jdbc:postgresql://h/d", "PGPASSWORD"), ("host=h dbname=d", "PGPASSWORD"), ("mysql://h/d", "Parquet or CSV"),
    ("Driver={x};Server=h", "Parquet or CSV"), ("snowflake://u@a/d", "Parquet or CSV"),
])  # fmt: skip
async def test_other_addresses_are_hinted_at(tmp_path: Path, given: str, hint: str) -> None:
    """What to give instead."""
    with pytest.raises(JobError, match=hint):
        await jobs.reconcile(write_export(tmp_path / "export", "allocations", []), given, key="id")


def test_drivers_in_the_scheme() -> None:
    """`postgresql+driver://` is PostgreSQL."""
    for scheme in ("postgresql+psycopg2", "postgres", "POSTGRESQL+asyncpg", "postgresql"):
        assert Address(f" {scheme}://u@h/d").reveal() == "postgresql://u@h/d"


# -- manifests


@pytest.mark.parametrize("change", [{"schema_version": 3}, {"schema_version": "1.0"}, {"schema_version": None}])
@pytest.mark.parametrize("finished", [False, True])
async def test_a_manifest_of_another_release(
    *, session: AsyncSession, tmp_path: Path, change: dict[str, Any], finished: bool
) -> None:
    """It is refused, and left as it is, whatever else is in the folder."""
    out = tmp_path / "out"
    await export(session, out, IDS if finished else [*IDS, UNKNOWN])
    text = json.dumps(manifest(out) | change | {"new": "member"})
    (out / "manifest.json").write_text(text)
    with pytest.raises(JobError, match=r"schema version|no manifest of an export"):
        await export(session, out, None)
    assert (out / "manifest.json").read_text() == text


@pytest.mark.parametrize("text", ['{"name": "my app", "icons": []}', "[]", '"x"', "7"])
async def test_a_manifest_of_something_else(session: AsyncSession, tmp_path: Path, text: str) -> None:
    """The same."""
    out = tmp_path / "out"
    await export(session, out)
    (out / "manifest.json").write_text(text)
    with pytest.raises(JobError, match="is no manifest of an export"):
        await export(session, out, None)
    assert (out / "manifest.json").read_text() == text


# -- when it was read


async def test_when_it_was_read(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """First and last answer over all runs, in result, manifest, verify and report; a finished one asks nothing."""
    out, began = tmp_path / "out", datetime.now(UTC).replace(microsecond=0)
    server.failing[3] = 1
    first = await export(session, out, rounds=0)
    assert (first.failed, first.already_complete) == (1, False)
    second = await export(session, out, None, rounds=1)
    assert second.complete
    assert second.read is not None
    assert first.read is not None
    assert began <= second.read[0] == first.read[0] <= second.read[1] <= datetime.now(UTC)
    assert manifest(out)["read"] == {
        "first": second.read[0].isoformat(timespec="seconds"), "last": second.read[1].isoformat(timespec="seconds")
    }  # fmt: skip
    asked = server.requests
    third = await export(session, out)
    assert (third.already_complete, third.read, server.requests) == (True, second.read, asked)
    assert (await jobs.verify(out)).read == second.read
    result = await jobs.reconcile(out, report=tmp_path / "r.html")
    assert f"{second.read[0]:%Y-%m-%d %H:%M}" in result.subjects[0].facts["Read"]
    assert result.subjects[0].facts["Read"] in (tmp_path / "r.html").read_text()
    said = manifest(out)
    said["read"]["first"] = "2020-01-01T00:00:00+00:00"
    (out / "manifest.json").write_text(json.dumps(said))
    assert "read is" in (await jobs.verify(out)).faults[0]


def test_the_second_night(server: Customers, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It says that nothing was asked, and when the data were read."""
    (tmp_path / "ids").write_text("1\n2\n")
    line = ["export", "allocations", *POINTS, "--ids", str(tmp_path / "ids"), "--out", str(tmp_path / "out")]
    assert main(line) == 0
    assert "already complete" not in capfd.readouterr().err
    asked = server.requests
    assert main(line) == 0
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.search(rf"already complete, read {time}( to {time})? UTC; nothing was asked", capfd.readouterr().err)
    assert server.requests == asked


async def test_other_ids_name_the_way(session: AsyncSession, tmp_path: Path) -> None:
    """One more, or another order: without ids it goes on."""
    await export(session, tmp_path / "out", [*IDS, UNKNOWN])
    for ids in ([*IDS, UNKNOWN, 9], [UNKNOWN, *IDS]):
        with pytest.raises(JobError, match=r"without ids \(no --ids\)"):
            await export(session, tmp_path / "out", ids)
    assert (await export(session, tmp_path / "out", None)).asked == len(IDS) + 1


# -- failures


async def test_failures_only_where_some_failed(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """The file comes and goes with them."""
    out = tmp_path / "out"
    server.failing[3] = 1
    assert (await export(session, out, rounds=0)).failed == 1
    assert len((out / "failures.jsonl").read_text().splitlines()) == 1
    assert (await export(session, out, None, rounds=1)).complete
    assert not (out / "failures.jsonl").exists()
    assert (await jobs.verify(out)).ok
    (out / "failures.jsonl").write_text("{}\n")
    assert (await export(session, out, None)).repaired == ("failures.jsonl",)
    assert not (out / "failures.jsonl").exists()


async def test_rounds_are_for_what_may_come(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """A refusal is asked for once a run, a fault of the server in every round."""
    server.failing[3] = 100
    result = await export(session, tmp_path / "out", [*IDS, UNKNOWN], rounds=3)
    assert result.failed == 2
    assert (server.asked[UNKNOWN], server.asked[3]) == (1, 4)
    await export(session, tmp_path / "out", None, rounds=3)
    assert server.asked[UNKNOWN] == 2


def attempts(out: Path) -> dict[int, int]:
    lines = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    return {line["key"]: line["attempts"] for line in lines}


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("others", [3, 40], ids=["few others", "many others"])
async def test_the_calls_of_a_customer_turned_away_are_rounds(
    session_at: Callable[..., AsyncSession], tmp_path: Path, rounds: int, others: int
) -> None:
    """429 costs one call per round and two at least; `attempts` is what the server counted, over later runs too."""
    with Customers() as server:
        server.throttled.add(3)
        session = session_at(server.url, retry=RetryPolicy(attempts=1, throttle_backoff=0.01))
        result = await export(session, tmp_path / "out", range(1, others + 1), shard_keys=8, rounds=rounds)
        assert result.failed == 1
        assert attempts(tmp_path / "out") == {3: server.asked[3]}
        assert server.asked[3] <= max(2, rounds + 1)
        await export(session, tmp_path / "out", None, shard_keys=8, rounds=rounds)
        assert attempts(tmp_path / "out") == {3: server.asked[3]}


async def test_attempts_of_an_outage_and_its_probes_are_counted(
    session_at: Callable[..., AsyncSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before and in the outage, and of the later rounds: all that the server was asked."""
    monkeypatch.setattr(_outage, "PROBES", (0.05, 0.1, 0.3))
    monkeypatch.setattr(_outage, "LEAST", 0.05)
    with Customers() as server:
        bad = range(8, 31)
        server.failing.update(dict.fromkeys(bad, 1_000_000))
        server.down_from = 10
        session = session_at(
            server.url,
            retry=RetryPolicy(attempts=2, backoff=0, throttle_backoff=0, quota=5),
            limits=Limits(concurrency=1),
        )

        def told(progress: jobs.ExportProgress) -> None:
            if progress.phase == "paused":
                server.down_from = None

        await export(session, tmp_path / "out", range(1, 31), on_progress=told, rounds=1)
        counted = attempts(tmp_path / "out")
        assert server.down_from is None
        assert set(counted) >= set(bad)
        assert counted == {key: server.asked[key] for key in counted}


@pytest.mark.parametrize("table", ["history", "meta", "keys"])
async def test_a_database_of_something_else(session: AsyncSession, tmp_path: Path, table: str) -> None:
    """It is refused, and not a byte of it is changed."""
    out = tmp_path / "out"
    out.mkdir()
    with contextlib.closing(sqlite3.connect(out / "state.sqlite")) as other, other:
        other.execute(f"CREATE TABLE {table} (name TEXT, value TEXT)")
    before = (out / "state.sqlite").read_bytes()
    with pytest.raises(jobs.JobError, match=f"no database of an export: it holds the tables {table}"):
        await export(session, out)
    assert (out / "state.sqlite").read_bytes() == before


# -- verify


async def test_a_service_that_does_not_answer(
    session_at: Callable[..., AsyncSession], server: Customers, tmp_path: Path
) -> None:
    """It is no difference: the files are proven, and what could not be read again is named."""
    session = session_at(server.url, retry=RetryPolicy(attempts=1), timeouts=Timeouts(call=2))
    await export(session, tmp_path / "out")
    server.down_from = server.requests
    result = await jobs.verify(tmp_path / "out", session=session)
    assert (result.ok, result.faults, result.records > 0) == (False, (), True)
    assert "could not be read again" in result.unanswered[0]
    server.down_from = None
    assert (await jobs.verify(tmp_path / "out", session=session_at(server.url))).ok


@pytest.mark.parametrize("trouble", ["down", "refused", "credentials"])
def test_verify_without_a_service(
    server: Customers, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """1, and the proof of the files; with a difference in the files 3."""
    (tmp_path / "ids").write_text("1\n2\n")
    out = tmp_path / "out"
    assert main(["export", "allocations", *POINTS, "--ids", str(tmp_path / "ids"), "--out", str(out)]) == 0
    line = ["verify", str(out), "--against-api", "--attempts", "1"]
    make = AsyncSession.from_env
    monkeypatch.setattr(AsyncSession, "from_env", lambda **given: make(timeouts=Timeouts(call=2), **given))
    if trouble == "down":
        server.down_from = server.requests
    elif trouble == "credentials":
        server.refuse_all = True
    else:
        monkeypatch.setenv("CAPILLARY_BASE_URL", "http://127.0.0.1:1")
    capfd.readouterr()
    assert main(line) == 1
    told = capfd.readouterr().out
    assert "VERIFIED: the files of" in told
    assert "not checked: " in told
    assert main([*line, "--quiet"]) == 1
    assert "not checked: " in capfd.readouterr().out
    shard = out / "shards" / "part-00000000.parquet"
    shard.write_bytes(shard.read_bytes() + b"?")
    assert main(line) == 3


def test_verify_with_failed_customers(server: Customers, tmp_path: Path) -> None:
    """2, as export."""
    (tmp_path / "ids").write_text(f"1\n2\n{UNKNOWN}\n{UNKNOWN + 1}\n")
    line = ["export", "allocations", *POINTS, "--ids", str(tmp_path / "ids"), "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert main(["verify", str(tmp_path / "out")]) == 2
    assert main(["verify", str(tmp_path / "out"), "--against-api"]) == 2


# -- reconcile


def rows(*points: str) -> list[dict[str, Any]]:
    return [{"id": n, "customer_id": 1, "status": "AVAILABLE", "points_exclusive": each, "points_value": each}
            for n, each in enumerate(points, 1)]  # fmt: skip


async def test_one_row_per_missing_record(tmp_path: Path) -> None:
    """However many columns are compared; a changed one has a row per field."""
    folder = write_export(tmp_path / "export", "allocations", rows("1", "2", "3", "4"))
    (tmp_path / "books.csv").write_text("id,points,value,status\n1,1,1,AVAILABLE\n2,7,2,EXPIRED\n9,5,6,EXPIRED\n")
    out = tmp_path / "d.parquet"
    columns = {"points_exclusive": "points", "points_value": "value", "status": "status"}
    await jobs.reconcile(folder, tmp_path / "books.csv", key="id", compare=columns, out=out)
    found = pq.read_table(out).to_pylist()
    assert [(row["class"], row["id"], row["field"]) for row in found] == [
        ("changed", 2, "points_exclusive"), ("changed", 2, "status"),
        ("missing_in_books", 3, None), ("missing_in_books", 4, None), ("missing_in_capillary", 9, None),
    ]  # fmt: skip
    theirs = {"points_exclusive": "5.000", "points_value": "6.000", "status": "EXPIRED"}
    assert json.loads(found[-1]["books_value"]) == theirs
    assert (found[-1]["capillary_value"], found[-1]["delta"]) == (None, None)
    assert json.loads(found[2]["capillary_value"])["points_exclusive"] == "3.000"
    await jobs.reconcile(folder, tmp_path / "books.csv", key="id", compare="points_exclusive=points,status", out=out)
    assert str(pq.read_table(out).to_pylist()[-1]["delta"]) == "-5.000"


@pytest.mark.parametrize(("changed", "said"), [
    ({"query": {"program_id": 2282, "expiry_date_end": "2026-06-01"}}, "expiry_date_end not given and 2026-06-01"),
    ({"ids": {"asked": 2, "found": 2, "empty": 0, "failed": 0, "digest": "others"}}, "asked for different customers"),
    ({"ids": {"asked": 1, "found": 0, "empty": 0, "failed": 1, "digest": "of the ids"}}, "1 customers of"),
])  # fmt: skip
async def test_exports_that_did_not_ask_for_the_same(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    """The summary and the report warn of it."""
    ours = write_export(tmp_path / "ours", "allocations", rows("1", "2"))
    same = write_export(tmp_path / "same", "allocations", rows("1", "2"))
    theirs = write_export(tmp_path / "theirs", "allocations", rows("1"), **changed)
    assert (await jobs.reconcile(ours, same)).warnings == ()
    result = await jobs.reconcile(ours, theirs, report=tmp_path / "r.html")
    assert any(said in line for line in result.lines() if line.startswith("warning: "))
    assert said in (tmp_path / "r.html").read_text()


# -- an output file and kill -9


def test_what_a_kill_left_of_an_output_file(server: Customers, tmp_path: Path) -> None:
    """It goes with the next run of the command."""
    out = tmp_path / "all.jsonl"
    line = ["allocations", *map(str, IDS), *POINTS, "--out", str(out)]
    server.slow[4] = 30.0
    process = subprocess.Popen([sys.executable, "-m", "capillary_async.cli", *line])
    with process:
        while not list(tmp_path.glob(".all.jsonl.*.part")):
            assert process.poll() is None
        process.kill()
    assert os.listdir(tmp_path) == [f".all.jsonl.{process.pid}.part"]
    server.slow.clear()
    assert main([*line, "--quiet"]) == 0
    assert os.listdir(tmp_path) == ["all.jsonl"]
