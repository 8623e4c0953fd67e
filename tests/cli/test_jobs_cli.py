"""`capillary-async export` and `verify`: exit codes, what is said, signals, a full disk, a missing extra."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from support.environment import name_cluster
from support.job_server import UNKNOWN, Customers

from capillary_async.cli import main
from capillary_async.cli._io.job_progress import JobReport, message
from capillary_async.cli._io.sandbox_exports import day_of
from capillary_async.jobs import ExportProgress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

COMMAND = (sys.executable, "-m", "capillary_async.cli")
POINTS = (
    "--point-category-id", "17383", "--expiry-date-start", "2025-06-01", "--expiry-date-end",
    "2027-06-01",
)  # fmt: skip
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits as POSIX has them")


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Customers]:
    """A server that the environment names, as a real cluster would be."""
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with Customers() as customers:
        name_cluster(monkeypatch, customers.url)
        yield customers


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    path = tmp_path / "ids.txt"
    path.write_text("".join(f"{number}\n" for number in range(1, 31)))
    return path


def command(out: Path, *more: str, shard_keys: int = 10, program: int = 2282) -> list[str]:
    given = ("--program-id", str(program), "--shard-keys", str(shard_keys))
    return ["export", "allocations", *POINTS, *given, "--out", str(out), *more]


def incompressible(rows: int) -> list[dict[str, Any]]:
    return [{"id": row, "status": hashlib.sha512(b"%d" % row).hexdigest()} for row in range(rows)]


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def test_export_and_verify(server: Customers, ids: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """0, a closing line with the figures, and plain lines where there is no terminal."""
    out = tmp_path / "out"
    assert main(command(out, "--ids", str(ids))) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "export allocations: reading: 0 of 30 keys" in said.err
    assert "30 asked, 27 found, 3 empty, 0 failed; " in said.err
    assert f"in 3 shards; {server.requests} requests, 0 retries" in said.err
    assert str(out / "manifest.json") in said.err
    assert main(["verify", str(out)]) == 0
    said = capfd.readouterr()
    assert "VERIFIED: the files of" in said.out
    assert f"keys digest {manifest(out)['keys_digest']}" in said.out
    assert main(["verify", str(out), "--against-api", "--sample", "9", "--seed", "1"]) == 0
    assert "9 customers read again have the same" in capfd.readouterr().out


def test_quiet(ids: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing but the exit code."""
    assert main(command(tmp_path / "out", "--ids", str(ids), "--quiet", "--format", "jsonl")) == 0
    assert main(["verify", str(tmp_path / "out"), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_some_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str], server: Customers) -> None:
    """2, naming the file that tells which; the same command asks again."""
    (tmp_path / "ids.csv").write_text(f'name,"customer id"\nx,1\ny,{UNKNOWN}\nz,3\n')
    given = command(
        tmp_path / "out", "--ids", str(tmp_path / "ids.csv"), "--ids-column", "customer id", "--rounds", "1"
    )
    assert main(given) == 2
    err = capfd.readouterr().err
    assert f"1 key failed, see {tmp_path / 'out' / 'failures.jsonl'}; the same command asks for them again" in err
    assert server.asked[UNKNOWN] == 1
    assert main(given) == 2
    assert server.asked[UNKNOWN] == 2


def test_no_ids(tmp_path: Path) -> None:
    """An export of nothing, where it is said that it is meant."""
    (tmp_path / "ids.txt").write_text("")
    assert main(command(tmp_path / "out", "--ids", str(tmp_path / "ids.txt"), "--quiet", "--allow-empty")) == 0
    assert manifest(tmp_path / "out")["ids"]["asked"] == 0


def test_differences(ids: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """3, each named on stdout, also with --quiet."""
    main(command(tmp_path / "out", "--ids", str(ids), "--quiet"))
    path = tmp_path / "out" / "shards" / "part-00000001.parquet"
    path.write_bytes(path.read_bytes() + b"?")
    assert main(["verify", str(tmp_path / "out"), "--quiet"]) == 3
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("shards/part-00000001.parquet: bytes is ")
    assert main(["verify", str(tmp_path / "out")]) == 3
    assert "DIFFERENT: " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("customer_id\n1\n", {}, "the first line of the ids is 'customer_id', which is no id: if it is the header"),
        ("a,b\n1,2\n", {"more": ("--ids-column", "c")}, "--ids-column 'c' is no column of the ids file; it has a, b"),
        ("", {}, "no ids: the input is empty"),
        ("1\n", {"program": 0}, "--program-id takes a positive whole number"),
        ("1\n", {"shard_keys": 0}, "shard_keys takes a whole number of at least 1, got 0"),
    ],
)
def test_could_not_run(
    *, text: str, arguments: dict[str, Any], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    server: Customers,
) -> None:  # fmt: skip
    """1, one line that names the option or the file, nothing sent."""
    (tmp_path / "ids").write_text(text)
    more = arguments.pop("more", ())
    assert main(command(tmp_path / "out", "--ids", str(tmp_path / "ids"), *more, **arguments)) == 1
    assert said in capfd.readouterr().err.splitlines()[-1]
    assert server.requests == 0


def test_options_that_are_missing(ids: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The dates, the folder, the ids, and an export to verify."""
    assert main(["export", "allocations", "--ids", str(ids), "--out", str(tmp_path / "out")]) == 1
    assert "--program-id is missing" in capfd.readouterr().err
    assert main(["export", "events", "--ids", str(ids)]) == 1
    assert "--out" in capfd.readouterr().err
    assert main(command(tmp_path / "out")) == 1
    assert "holds none to go on with" in capfd.readouterr().err
    assert main(["verify", str(tmp_path / "out")]) == 1
    assert "has no manifest.json" in capfd.readouterr().err


@POSIX
def test_ids_from_stdin(tmp_path: Path) -> None:
    """They are kept in the folder: the second run needs none."""
    line = [*COMMAND, *command(tmp_path / "out", "--ids", "-")]
    ended = subprocess.run(line, input="3\n5\n3\n", capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, manifest(tmp_path / "out")["ids"]["asked"]) == (0, 2), ended.stderr
    ended = subprocess.run(
        [*COMMAND, *command(tmp_path / "out", "--quiet")], capture_output=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_ids_from_parquet(tmp_path: Path) -> None:
    """Whatever the file is called; a column by name."""
    pq.write_table(pa.table({"n": [1, 2], "id": ["3", "4"]}), tmp_path / "ids.dat")
    given = ("--ids", str(tmp_path / "ids.dat"), "--ids-column", "id", "--quiet")
    assert main(command(tmp_path / "out", *given)) == 0
    rows = pq.read_table(tmp_path / "out" / "shards" / "part-00000000.parquet")["asked_key"].to_pylist()
    assert sorted(set(rows)) == [3, 4]


def test_all_sources(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On a sandbox, with nothing given; a ledger's ids are a CSV or the shards of an export of points."""
    small = ("--sandbox", "--customers", "12", "--quiet")
    for source in ("allocations", "awarded", "events", "ledger"):
        assert main(["export", source, *small, "--out", str(tmp_path / source)]) == 0
        assert main(["verify", str(tmp_path / source), "--quiet", "--against-api", *small[:3]]) == 0
    shard = tmp_path / "allocations" / "shards" / "part-00000000.parquet"
    given = ("--ids", str(shard), "--bill-details")
    assert main(["export", "ledger", *small, *given, "--out", str(tmp_path / "again")]) == 0
    table = pq.read_table(shard, columns=["customer_id", "event_log_id"]).to_pylist()
    log_ids = {row["event_log_id"]: row["customer_id"] for row in table if row["event_log_id"] != -1}
    assert len(log_ids) < len(table)
    assert manifest(tmp_path / "again")["records"] == len(log_ids)
    assert manifest(tmp_path / "again")["query"]["include"] == ["bill_details"]
    lines = [f"{log_id},{owner}" for log_id, owner in [*log_ids.items()][:3]]
    owner = lines[0].partition(",")[2]
    lines += [lines[0], f"-1,{owner}", f",{owner}"]  # again, and two rows without an event
    (tmp_path / "pairs.csv").write_text("\n".join(["event_log_id,customer_id", *lines, ""]))
    assert main(["export", "ledger", *small, "--ids", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "few")]) == 0
    assert manifest(tmp_path / "few")["records"] == 3
    assert capfd.readouterr() == ("", "")
    (tmp_path / "pairs.csv").write_text("event_log_id\n1\n")
    assert main(["export", "ledger", *small, "--ids", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "no")]) == 1
    assert "no column 'customer_id'; they have event_log_id" in capfd.readouterr().err


def test_an_export_of_a_sandbox_is_checked_as_of_its_day(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whenever it is read: no points of it have lapsed. Any other export is checked as of its reading."""
    out = str(tmp_path / "out")
    assert main(["export", "allocations", "--sandbox", "--customers", "12", "--quiet", "--out", out]) == 0
    assert main(["reconcile", out]) == 0
    assert "-its-date" not in capfd.readouterr().out
    assert day_of([out]) == datetime(2026, 1, 15, tzinfo=UTC)
    assert day_of([out, str(tmp_path)]) is None
    written = manifest(tmp_path / "out") | {"cluster": "https://eu.api.capillarytech.com"}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(written))
    assert day_of([out]) is None


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: signal.Signals, code: int, tmp_path: Path, server: Customers) -> None:
    """What is under way is finished, how to go on is said, and it does go on."""
    server.latency = 0.08
    (tmp_path / "ids").write_text("".join(f"{number}\n" for number in range(1, 1_001)))
    line = command(tmp_path / "out", "--ids", str(tmp_path / "ids"), shard_keys=100)
    process = subprocess.Popen([*COMMAND, *line], stderr=subprocess.PIPE, text=True)
    assert server.came.wait(20)
    while not list((tmp_path / "out" / "shards").glob("*.parquet")):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "stopping: shards under way are finished for at most 10 s" in err
    assert "give the same command again to go on, the ids are kept there" in err
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out" / "shards").glob("*.part"))
    server.latency = 0
    assert main([*line, "--quiet"]) == 0
    assert {server.asked[number] for number in range(1, 1_001) if number % 10 != 9} == {1}
    assert main(["verify", str(tmp_path / "out"), "--quiet"]) == 0


@POSIX
def test_a_second_signal_ends_it_at_once(tmp_path: Path, server: Customers) -> None:
    """For who does not want to wait for the grace."""
    server.slow[7] = 60.0
    line = command(tmp_path / "out", "--ids", "-", "--grace", "40")
    process = subprocess.Popen([*COMMAND, *line], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("".join(f"{number}\n" for number in range(1, 200)))
    process.stdin.close()
    assert server.came.wait(20)
    process.send_signal(signal.SIGINT)
    while "stopping" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 130, said
    assert "ended at once; what is complete stays" in said


def unmeasured() -> dict[str, str]:
    """An environment in which coverage writes nothing: under a limit of ours it could not."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
from capillary_async.cli import main
sys.exit(main(sys.argv[1:]))
"""


@POSIX
@pytest.mark.parametrize("size", [9_000, 200_000])
def test_no_room(size: int, tmp_path: Path, ids: Path, server: Customers) -> None:
    """1 and one line that says what to do; nothing half is left, and it goes on when there is room.

    The small limit stops the database, the large one a shard.
    """
    server.rows[25] = incompressible(9_000)
    line = command(tmp_path / "out", "--ids", str(ids))
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED.format(size=size), *line],
        env=unmeasured(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert str(tmp_path / "out") in last
    assert "give the same command again: it goes on" in last
    assert ended.stderr.count("Traceback") == 0
    assert not (tmp_path / "out" / "manifest.json").exists()
    if size > 100_000:
        assert "no room to write" in last
        assert {path.suffix for path in (tmp_path / "out" / "shards").iterdir()} <= {".parquet"}
    assert main([*line, "--quiet"]) == 0
    assert main(["verify", str(tmp_path / "out"), "--quiet"]) == 0


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="mounting a file system needs root")
def test_a_full_disk(tmp_path: Path, ids: Path, server: Customers) -> None:
    """A real one, of 400 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], check=False)  # noqa: S607
    if made.returncode:
        pytest.skip("this machine mounts nothing")
    try:
        server.rows[25] = incompressible(9_000)
        line = command(disk / "out", "--ids", str(ids))
        ended = subprocess.run([*COMMAND, *line], capture_output=True, text=True, timeout=50, check=False)
        assert ended.returncode == 1
        assert "no room to write" in ended.stderr.splitlines()[-1]
        assert subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=False).returncode == 0  # noqa: S607
        assert main([*line, "--quiet"]) == 0
        assert main(["verify", str(disk / "out"), "--quiet"]) == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607


@pytest.mark.parametrize("missing", ["pyarrow"])
def test_without_the_extra(missing: str, tmp_path: Path) -> None:
    """One line that says what to install; the package and the other commands do not miss it."""
    hide = f"import sys; sys.modules[{missing!r}] = None; "
    code = hide + "from capillary_async.cli import main; sys.exit(main(sys.argv[1:]))"
    for line in (["export", "events", "--sandbox", "--out", str(tmp_path / "out")], ["verify", str(tmp_path)]):
        ended = subprocess.run(
            [sys.executable, "-c", code, *line], capture_output=True, text=True, timeout=30, check=False
        )
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
        assert 'pip install "capillary-async[cli,jobs]"' in ended.stderr
    ended = subprocess.run(
        [sys.executable, "-c", hide + "import capillary_async.cli._app; from capillary_async import jobs"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (
        'ModuleNotFoundError: jobs need the jobs extra (pyarrow is missing): pip install "capillary-async[jobs]"'
        in (ended.stderr)
    )


def _progress(**changed: Any) -> ExportProgress:
    facts: dict[str, Any] = {
        "phase": "reading", "asked": 10_000, "settled": 2_500, "failed": 3, "records": 7_000, "shards": 2,
        "requests": 2_600, "retries": 4, "throttles": 5, "elapsed": 50.0, "began_with": 500,
    }  # fmt: skip
    return ExportProgress(**{**facts, **changed})


def test_what_is_told() -> None:
    """Rate and time left are those of this run."""
    assert message(_progress()) == "7,000 records, 40/s, 3 failed, 5 throttled, 3 min left"
    assert message(_progress(phase="round 1")) == "7,000 records, 40/s, 3 failed, 5 throttled"
    assert message(_progress(settled=500)) == "7,000 records, 0/s, 3 failed, 5 throttled"
    assert message(_progress(asked=1_000_000)).endswith("6.9 h left")
    assert message(_progress(asked=2_600)).endswith("2 s left")


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A bar with the same figures; what interrupts it is a line of its own."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with JobReport("export events", quiet=False) as report:
        report.progress(_progress())
        report.progress(_progress(phase="paused", note="no answer for 5 s"))
        report.progress(_progress(phase="paused", note="no answer for 5 s"))
    err = capfd.readouterr().err
    assert "2500/10000" in err
    assert "7,000 records, 40/s" in err
    assert err.count("export events: no answer for 5 s") == 1
