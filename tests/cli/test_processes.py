"""`export --processes`: what each process is asked for, and one export by several of them."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.environment import name_cluster
from support.job_server import QUERY, Customers, rows_of

from capillary_async import jobs
from capillary_async.cli import main
from capillary_async.cli._commands import export as commands
from capillary_async.cli._commands.export_processes import parts_of
from capillary_async.cli._io.options import Connection, ExportOf, ExportRequest
from capillary_async.cli._io.record_options import Awarded, Events, Expiry, LedgerIncludes, LedgerPairs, NotFound
from capillary_async.cli._io.run import UnusableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUERY_OPTIONS = [word for name, value in QUERY.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def server() -> Iterator[Customers]:
    with Customers() as customers:
        yield customers


@pytest.fixture
def cluster(server: Customers, monkeypatch: pytest.MonkeyPatch) -> Customers:
    monkeypatch.delenv("CAPILLARY_SHARED_RATE", raising=False)
    name_cluster(monkeypatch, server.url, "till", "pass")
    return server


def request(tmp_path: Path, *, processes: int = 4, shard: str | None = None, **connection: Any) -> ExportRequest:
    output = ExportOf(out=tmp_path / "out", processes=processes, shard=shard, status_file=tmp_path / "status")
    return ExportRequest(output=output, connection=Connection(**connection))


def test_rate_and_concurrency_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last permit; each process has its shard and folder, and none writes the status file."""
    monkeypatch.delenv("CAPILLARY_SHARED_RATE", raising=False)
    parts = parts_of(request(tmp_path, processes=3, rate="100/60", concurrency=32))
    assert [part.connection.rate for part in parts] == ["34/60", "33/60", "33/60"]
    assert [part.connection.concurrency for part in parts] == [11, 11, 10]
    assert [part.output.shard for part in parts] == ["1/3", "2/3", "3/3"]
    assert [part.output.out.name for part in parts] == ["shard-1-of-3", "shard-2-of-3", "shard-3-of-3"]
    assert {(part.output.processes, part.output.status_file) for part in parts} == {(1, None)}
    assert parts_of(request(tmp_path, processes=12))[0].output.out.name == "shard-01-of-12"


def test_a_shared_rate_is_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis divides it, whoever names it."""
    monkeypatch.delenv("CAPILLARY_SHARED_RATE", raising=False)
    parts = parts_of(request(tmp_path, rate="100/60", shared_rate="redis://localhost"))
    assert {part.connection.rate for part in parts} == {"100/60"}
    monkeypatch.setenv("CAPILLARY_SHARED_RATE", "redis://localhost")
    assert {part.connection.rate for part in parts_of(request(tmp_path, rate="2/60"))} == {"2/60"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"processes": 0}, "takes a whole number from 1 to 64"),
        ({"processes": 65}, "takes a whole number from 1 to 64"),
        ({"shard": "1/2"}, "goes without --shard"),
        ({"rate": "3/60"}, "less than one request for each of 4 processes"),
        ({"concurrency": 3}, "less than one for each of 4 processes"),
    ],
)
def test_what_cannot_be_divided_is_refused(given: dict[str, Any], text: str, tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(UnusableError, match=text):
        parts_of(request(tmp_path, **given))


def test_folders_of_another_export_are_refused(tmp_path: Path) -> None:
    """Of one process, and of another number of them."""
    (tmp_path / "out" / "shard-1-of-3").mkdir(parents=True)
    with pytest.raises(UnusableError, match=r"shard-1-of-3, of another number of processes"):
        parts_of(request(tmp_path))
    assert len(parts_of(request(tmp_path, processes=3))) == 3
    (tmp_path / "out" / "state.sqlite").touch()
    with pytest.raises(UnusableError, match=r"an export of one process"):
        parts_of(request(tmp_path, processes=3))


def test_queries_cross_processes(tmp_path: Path) -> None:
    """And say the same there."""
    expiry = Expiry(
        program_id=(1,), point_category_id=(2,), expiry_date_start="2025-01-01", expiry_date_end="2026-01-01"
    )
    queries = [
        commands.allocations(expiry, NotFound()),
        commands.awarded(expiry, Awarded(status="AVAILABLE")),
        commands.events(Events()),
        commands.ledger(LedgerPairs(), LedgerIncludes()),
    ]
    for query in queries:
        again = pickle.loads(pickle.dumps(query))  # noqa: S301 - our own
        assert again.arguments(None) == query.arguments(None)
    asked = request(tmp_path)
    assert pickle.loads(pickle.dumps(asked)) == asked  # noqa: S301 - our own


async def test_two_processes_make_one_export(
    cluster: Customers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every id once, failures counted, one status; the folders are verified together, and go on together."""
    import asyncio

    ids, out, status = tmp_path / "ids.txt", tmp_path / "out", tmp_path / "status.json"
    ids.write_text("".join(f"{customer}\n" for customer in (*range(1, 60), 9_001)))
    words = ["export", "allocations", "--ids", str(ids), "--out", str(out), "--processes", "2", *QUERY_OPTIONS]
    words += ["--rate", "500/1", "--rounds", "0", "--status-file", str(status), "--archive", str(tmp_path / "archive")]
    assert await asyncio.to_thread(main, words) == 2
    assert {customer: count for customer, count in cluster.asked.items() if count != 1} == {}
    found = await jobs.verify(out)
    assert found.ok, found.faults
    assert (found.asked, found.failed) == (60, 1)
    assert found.records == sum(len(rows_of(customer)) for customer in range(1, 60))
    said = json.loads(status.read_text())
    assert (said["state"], said["exit_code"], said["asked"], said["done"], said["failed"]) == ("finished", 2, 60, 60, 1)
    for name in ("shard-1-of-2", "shard-2-of-2"):
        replayed = await jobs.replay(tmp_path / "archive" / name, tmp_path / "again" / name)
        assert replayed.identical
        manifests = [(folder / name / "manifest.json").read_bytes() for folder in (out, tmp_path / "again")]
        assert manifests[0] == manifests[1]
    err = capfd.readouterr().err
    assert "1 key failed" in err
    assert "60 asked" in err
    assert "Traceback" not in err
    ids.write_text(ids.read_text() + "61\n")
    assert await asyncio.to_thread(main, words) == 1
    assert "the ids are not those" in capfd.readouterr().err


def test_an_error_of_all_processes_is_said_once(
    cluster: Customers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong credentials, and ids that are not there."""
    words = ["export", "allocations", "--ids", str(tmp_path / "none.txt"), "--out", str(tmp_path / "out")]
    assert main([*words, "--processes", "2", *QUERY_OPTIONS]) == 1
    err = capfd.readouterr().err
    assert err.count("none.txt") == 1
    assert main(["export", "allocations", "--out", str(tmp_path / "out"), "--ids", "-", "--processes", "2"]) == 1
    assert "stdin can be read once" in capfd.readouterr().err
