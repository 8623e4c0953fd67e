"""The status file of a job: whole at any time, true at the end, refused at once, and no reason to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.environment import name_cluster
from support.job_server import QUERY, UNKNOWN, Customers, at_once

from capillary_async import AsyncSession, InvalidRequestError, jobs
from capillary_async._files import status_file as _status_file
from capillary_async.cli import main

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "capillary_async.cli", "export", "allocations", "--program-id", "2282")
POINTS = ("--point-category-id", "17383", "--expiry-date-start", "2025-06-01", "--expiry-date-end", "2027-06-01")
MEMBERS = [
    *("job", "state", "exit_code", "phase", "asked", "done", "failed", "records", "requests", "retries", "throttles"),
    *("rate", "time_left", "elapsed", "last_error", "note", "started", "updated", "pid"),
]


async def export(session: AsyncSession, path: Path, ids: Any = range(1, 31), **options: Any) -> jobs.ExportResult:
    given = {"shard_keys": 10, "sleep": at_once, **QUERY, **options}
    return await jobs.export("allocations", ids, path / "out", session=session, status_file=path / "s.json", **given)


def said(path: Path) -> dict[str, Any]:
    return json.loads((path / "s.json").read_text("utf-8"))


async def test_the_end(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """All members, in their order, with the counts of the result."""
    result = await export(session, tmp_path)
    last = said(tmp_path)
    assert list(last) == MEMBERS
    assert last == last | {
        "job": "export allocations", "state": "finished", "exit_code": 0, "phase": "done", "asked": 30, "done": 30,
        "failed": 0, "records": result.records, "requests": server.requests, "last_error": None, "pid": os.getpid(),
    }  # fmt: skip
    assert last["time_left"] == 0
    assert abs((datetime.now(UTC) - datetime.fromisoformat(last["updated"])).total_seconds()) < 60
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


async def test_while_it_works(
    session: AsyncSession, server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written every few seconds, from another place too, and always whole."""
    monkeypatch.setattr(_status_file, "EVERY", 0.02)
    server.latency = 0.2
    seen: list[dict[str, Any]] = []
    job = asyncio.ensure_future(export(session, tmp_path, range(1, 101)))
    while not job.done():
        await asyncio.sleep(0.01)
        if (tmp_path / "s.json").exists():
            seen.append(said(tmp_path))
    await job
    running = [each for each in seen if each["state"] == "running" and each["phase"] == "reading"]
    assert len({each["done"] for each in running}) > 2
    assert all(each["asked"] == 100 and each["exit_code"] is None for each in running)
    assert any(each["rate"] and each["time_left"] for each in running)


async def test_customers_that_fail(session: AsyncSession, tmp_path: Path) -> None:
    """The code is that of the command; the last error is named, without the query."""
    await export(session, tmp_path, [1, UNKNOWN + 1, 2])
    last = said(tmp_path)
    assert (last["state"], last["exit_code"], last["failed"], last["done"]) == ("finished", 2, 1, 3)
    assert "no such customer" in last["last_error"]
    assert "program_id" not in last["last_error"]
    assert "?" not in last["last_error"]


async def test_what_ends_it(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """An error is a failure with its text; a set `stop` and a cancellation are interruptions."""
    server.refuse_all = True
    with pytest.raises(Exception, match="401"):
        await export(session, tmp_path)
    last = said(tmp_path)
    assert (last["state"], last["exit_code"]) == ("failed", 1)
    assert last["last_error"].startswith("AuthenticationError: ")
    server.refuse_all, server.latency = False, 0.2
    stop = asyncio.Event()
    stop.set()
    assert (await export(session, tmp_path, None, stop=stop)).interrupted
    assert (said(tmp_path)["state"], said(tmp_path)["exit_code"]) == ("interrupted", 130)
    job = asyncio.ensure_future(export(session, tmp_path, None))
    await asyncio.sleep(0.1)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert said(tmp_path)["state"] == "interrupted"


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
@pytest.mark.parametrize(
    "name", ["nowhere/s.json", ".", "s3://bucket/s.json", "ids.csv", "table.bin", "deep.json", "fifo"]
)
async def test_a_place_that_is_refused(session: AsyncSession, server: Customers, tmp_path: Path, name: str) -> None:
    """Before anything is asked; a file of something else is left as it is."""
    (tmp_path / "ids.csv").write_text("customer_id\n1\n")
    (tmp_path / "table.bin").write_bytes(b"\xff\xfe[")
    (tmp_path / "deep.json").write_text("[" * 60_000)
    os.mkfifo(tmp_path / "fifo")
    given = name if "://" in name else tmp_path / name
    with pytest.raises(InvalidRequestError, match="status_file takes "):
        await jobs.export("allocations", [1], tmp_path / "out", session=session, status_file=given, **QUERY)
    assert server.requests == 0
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "ids.csv").read_text() == "customer_id\n1\n"


@pytest.mark.parametrize("name", ["out/s.json", "out/manifest.json", "archive/s.json", "link.json", "linked/s.json"])
async def test_a_place_of_the_export(session: AsyncSession, server: Customers, tmp_path: Path, name: str) -> None:
    """Neither in its folder nor in its archive, by no name; the folder is as it was."""
    out, archive = tmp_path / "out", tmp_path / "archive"
    out.mkdir()
    archive.mkdir()
    (tmp_path / "linked").symlink_to(out)
    (tmp_path / "link.json").symlink_to(out / "state.sqlite")
    with pytest.raises(InvalidRequestError, match=r"status_file takes a file of its own; .* is (inside )?"):
        await jobs.export(
            "allocations", [1], out, session=session, archive=archive, status_file=tmp_path / name, **QUERY
        )  # fmt: skip
    assert server.requests == 0
    assert [*out.iterdir(), *archive.iterdir()] == []


@pytest.mark.parametrize(
    "given",
    [
        "verify out --status-file out/s.json",
        "verify out --status-file out/s.json --quiet",
        "reconcile out --status-file out/s.json",
        "reconcile out --out d.parquet --status-file d.parquet",
        "reconcile out --report r.html --status-file ./r.html",
        "reconcile out --report r.html --status-file link.html",
        "reconcile out --books books.csv --key id --status-file books.csv",
        "reconcile out --books books.csv --key id --status-file hard.csv",
        "reconcile out --with-ledger ledger --status-file ledger/s.json",
        "export events --sandbox --customers 2 --out new --status-file new",
        "export events --sandbox --customers 2 --out out --status-file out/s.json",
        "export events --sandbox --customers 2 --out new --ids ids --ids-column id --status-file ids",
    ],
)
def test_a_place_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    """No file or folder that the command reads or writes, whatever is in it yet."""
    monkeypatch.chdir(tmp_path)
    for folder in ("out", "ledger"):
        (tmp_path / folder).mkdir()
    (tmp_path / "books.csv").touch()
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "books.csv")
    (tmp_path / "link.html").symlink_to("r.html")
    assert main(given.split()) == 1
    assert "--status-file takes a file of its own; " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["books.csv", "hard.csv", "ledger", "link.html", "out"]


async def test_a_link(session: AsyncSession, tmp_path: Path) -> None:
    """It is replaced, and what it led to is as it was."""
    (tmp_path / "before.json").touch()
    (tmp_path / "s.json").symlink_to("before.json")
    await export(session, tmp_path)
    assert said(tmp_path)["state"] == "finished"
    assert not (tmp_path / "s.json").is_symlink()
    assert (tmp_path / "before.json").read_bytes() == b""


async def test_a_disk_that_fills(
    session: AsyncSession, server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The job goes on; the log says once that the file is old."""
    write, calls = _status_file.write_file, [0]

    def full(target: Path, data: bytes) -> None:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(28, "No space left on device")
        write(target, data)

    monkeypatch.setattr(_status_file, "write_file", full)
    monkeypatch.setattr(_status_file, "EVERY", 0.02)
    server.latency = 0.1
    with caplog.at_level(logging.WARNING, "capillary_async.jobs"):
        assert (await export(session, tmp_path)).complete
    assert calls[0] > 2
    assert [record.getMessage() for record in caplog.records if "status file" in record.getMessage()] == [
        "the status file cannot be written, the job goes on: [Errno 28] No space left on device"
    ]
    assert said(tmp_path)["state"] == "running"


def test_commands(
    server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verify` and `reconcile` have one too, with their codes; also where the command never came to its job."""
    name_cluster(monkeypatch, server.url)
    status, out, ids = tmp_path / "s.json", tmp_path / "out", tmp_path / "ids.txt"
    ids.write_text("1\n2\n")
    given = ["--out", str(out), "--ids", str(ids), "--status-file", str(status)]
    assert main([*COMMAND[3:], *POINTS, *given]) == 0
    assert main(["verify", str(out), "--status-file", str(status)]) == 0
    assert (said(tmp_path)["job"], said(tmp_path)["exit_code"], said(tmp_path)["asked"]) == ("verify", 0, None)
    books = tmp_path / "books.csv"
    books.write_text("id,points_exclusive\n1,1\n")
    given = ["--books", str(books), "--key", "id", "--status-file", str(status)]
    assert main(["reconcile", str(out), *given]) == 3
    assert (said(tmp_path)["job"], said(tmp_path)["state"], said(tmp_path)["exit_code"]) == ("reconcile", "finished", 3)
    assert main(["reconcile", str(out), "--books", "postgresql://u:S3cret@127.0.0.1:1/x", *given[2:]]) == 1
    assert said(tmp_path)["state"] == "failed"
    assert "S3cret" not in status.read_text()
    assert main(["verify", str(out), "--status-file", str(tmp_path / "no" / "s.json")]) == 1
    assert "--status-file takes a file in a folder" in capsys.readouterr().err
    monkeypatch.delenv("CAPILLARY_PASSWORD")
    assert main([*COMMAND[3:], *POINTS, "--out", str(out), "--status-file", str(status)]) == 1
    assert (said(tmp_path)["state"], said(tmp_path)["phase"]) == ("failed", "starting")


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, None)])
def test_signals(
    server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int | None
) -> None:
    """A stopped command says so with its code; of a killed one the last state is there, whole."""
    name_cluster(monkeypatch, server.url)
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{each}\n" for each in range(1, 2001)))
    server.latency = 0.3
    given = ("--out", str(tmp_path / "out"), "--ids", str(ids), "--status-file", str(tmp_path / "s.json"), "--quiet")
    process = subprocess.Popen([*COMMAND, *POINTS, *given, "--shard-keys", "10", "--grace", "0"])
    assert server.came.wait(30)
    ends = time.monotonic() + 20
    while said(tmp_path)["phase"] != "reading" and time.monotonic() < ends:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(20) == (code or -number)
    last = said(tmp_path)
    assert (last["state"], last["exit_code"]) == (("interrupted", code) if code else ("running", None))
    assert last["asked"] == 2000
