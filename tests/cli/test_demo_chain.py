"""The demo's jobs: an export that is really killed, and books whose planted differences are found, all and no more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from capillary_async.cli import main
from capillary_async.cli._demo import jobs_chain as _demo_chain
from capillary_async.cli._demo.jobs_chain import Chain
from capillary_async.cli._demo.planted_books import disagreements, write_books
from capillary_async.sandbox import Sandbox

pytestmark = pytest.mark.long

pq = pytest.importorskip("pyarrow.parquet")

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.cli._demo.planted_books import Planted

TINY = ["demo", "--latency", "0", "--quiet", "--customers"]
SMALL = [*TINY, "12"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")
PROC = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a demo without `--out` leaves its files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def left_of(row: Mapping[str, Any]) -> Decimal:
    """What finance books: the points issued minus those redeemed, returned and expired."""
    gone = (row[f"{kind}_exclusive_value"] for kind in ("redeemed", "returned", "expired"))
    return Decimal(row["points_exclusive"]) - sum(map(Decimal, gone))


def test_whole_chain(temporary: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed in the middle, gone on with, verified, compared; folder and report are said and there."""
    # What the user's environment says of a server does not reach the child.
    for name, value in (("BASE_URL", "https://cluster.invalid"), ("CLIENT_KEY", "k"), ("CLIENT_SECRET", "s")):
        monkeypatch.setenv(f"CAPILLARY_{name}", value)
    assert main(SMALL) == 0
    out, err = capfd.readouterr()
    assert err == ""
    kept, again, of = map(
        int, re.findall(r"by kill -9; .* kept the (\d+) finished files? and read the other (\d+) of (\d+)\n", out)[0]
    )
    assert of == 12
    assert 1 <= kept < of  # two files are there before it is killed, and the commit of one may be cut off
    assert kept + again == of
    (folder,) = temporary.iterdir()
    assert {path.name for path in folder.iterdir()} == {
        *("ids.csv", "allocations", "export.log", "events", "ledger", "books.csv", "differences.parquet"),
        "report.html",
    }
    lines = out.splitlines()
    assert lines[0].startswith("AGREE: ")
    assert lines[1:4] == [
        "FOUND: exactly the 9 planted differences, no more and no less",
        f"report     {folder / 'report.html'}",
        f"folder     {folder}",
    ]
    assert len(lines) <= 30
    held = Sandbox(customers=12)
    rows = {str(row["id"]): left_of(row) for id_ in held.customer_ids for row in held.allocations(id_)}
    books = dict(line.split(",") for line in (folder / "books.csv").read_text().splitlines()[1:])
    wrong = {id_ for id_ in {*rows, *books} if id_ not in rows or id_ not in books or Decimal(books[id_]) != rows[id_]}
    assert {str(row["id"]) for row in pq.read_table(folder / "differences.parquet").to_pylist()} == wrong
    assert len(wrong) == 9
    assert "<html" in (folder / "report.html").read_text()


def test_given_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is made; one that holds something is refused before anything is read, and left alone."""
    out = tmp_path / "a" / "b"
    assert main([*SMALL, "--out", str(out), "--no-faults"]) == 0
    assert (out / "report.html").exists()
    capfd.readouterr()
    before = sorted(path.stat().st_mtime_ns for path in out.iterdir())
    assert main([*SMALL, "--out", str(out)]) == 1
    said = f"capillary-async: --out takes a new or an empty folder, and {out} holds something\n"
    assert capfd.readouterr() == ("", said)
    assert sorted(path.stat().st_mtime_ns for path in out.iterdir()) == before


@pytest.mark.parametrize(("wrong", "said"), [("more", "found and not planted"), ("fewer", "planted and not found")])
def test_other_books_than_planted(
    wrong: str, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A difference that nobody planted, and one that was planted and is not there: 1, and it is named."""

    def write(path: Path, sandbox: Sandbox, seed: int) -> Planted:
        planted = write_books(path, sandbox, seed)
        first = min(each for each in planted.differences if each[0] == "changed")
        if wrong == "more":
            return evolve(planted, differences=planted.differences - {first})
        lines = path.read_text().splitlines()
        mended = [f"{first[1]},{first[2]}" if line.startswith(f"{first[1]},") else line for line in lines]
        path.write_text("\n".join(mended) + "\n")
        return planted

    monkeypatch.setattr(_demo_chain, "write_books", write)
    assert main(SMALL) == 1
    out = capfd.readouterr().out
    assert re.search(rf"  {said}: award \d+ changed, Capillary [\d.]+, books [\d.]+\n", out)
    assert "NOT AS PLANTED: 1 disagreement with the " in out
    assert "report     " in out


def test_books_are_made_of_what_there_is(tmp_path: Path) -> None:
    """A sandbox with hardly a row has fewer differences; one without any has rows too many alone."""
    planted = write_books(tmp_path / "books.csv", Sandbox(customers=0), 7)
    assert (planted.rows, {kind for kind, *_ in planted.differences}) == (2, {"missing_in_capillary"})
    pq.write_table(_differences([("missing_in_capillary", 1, None, "12.3450"), ("changed", 5, "1", "2")]),
                   tmp_path / "differences.parquet")  # fmt: skip
    assert disagreements(planted, tmp_path / "differences.parquet") == [
        "planted and not found: award 2 missing in capillary, Capillary None, books 100",
        "found and not planted: award 5 changed, Capillary 1, books 2",
    ]


def _differences(rows: list[tuple[str, int, str | None, str | None]]) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped]

    names = ("class", "id", "capillary_value", "books_value")
    return pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=names)


def test_child_that_dies_early(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """One line with its exit code and its last words."""
    dying = [sys.executable, "-c", "import sys; sys.exit('first line\\nno more \\x1b[31mpaper')"]
    monkeypatch.setattr(Chain, "_command", lambda self: dying)
    assert main(SMALL) == 1
    err = capfd.readouterr().err
    assert err.startswith(
        "capillary-async: the export ended with 1 before it could be killed: no more \\x1b[31mpaper (all of it: "
    )
    assert err.count("\n") == 1


def test_second_run_that_fails(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """One line; nothing is verified or compared."""
    command, runs = Chain._command, iter((True, False))

    def second(self: Chain) -> list[str]:
        return command(self) if next(runs) else [*command(self), "--format", "jsonl"]

    monkeypatch.setattr(Chain, "_command", second)
    assert main(SMALL) == 1
    out, err = capfd.readouterr()
    assert "the export that was started again ended with 1: capillary-async: " in err
    assert "was begun with another format" in err
    assert err.count("\n") == 1
    assert "verify" not in out


@pytest.mark.parametrize("package", ["duckdb", "jinja2", "matplotlib", "pyarrow"])
def test_without_the_extra(
    package: str, temporary: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The readings run as ever, one line says what is left out, and 0."""
    monkeypatch.setitem(sys.modules, package, None)
    assert main(SMALL) == 0
    out, err = capfd.readouterr()
    assert "AGREE: " in out
    last = out.splitlines()[-1]
    said = f'export, verify and reconcile are left out, since {package} is missing: pip install "capillary-async['
    assert last == f'{said}cli,jobs]"'
    assert (err, list(temporary.iterdir())) == ("", [])


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [(["12", "--disturb", "--no-faults"], 1, "DISAGREE"), (["1"], 0, "since they want at least 2 customers")],
)
def test_left_out(given: list[str], code: int, said: str, temporary: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After a disturbed reading, and where there are too few customers, no folder is left."""
    assert main([*TINY, *given]) == code
    out = capfd.readouterr().out
    assert said in out
    assert "killed" not in out
    assert list(temporary.iterdir()) == []


def children(pid: int) -> set[int]:
    """The processes that a process started and that are there."""
    try:
        return {int(child) for path in Path(f"/proc/{pid}/task").iterdir() for child in
                (path / "children").read_text().split()}  # fmt: skip
    except FileNotFoundError:
        return set()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@POSIX
@PROC
@pytest.mark.parametrize(
    ("number", "code", "nth"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 2)],
)
def test_no_child_is_left(number: signal.Signals, code: int, nth: int, tmp_path: Path) -> None:
    """Told to end while the first or the second export runs: the child is gone when the demo is."""
    # Without the dev mode, whose remarks on slow steps would stand among its words.
    left_out = ("COVERAGE_", "PYTHONDEVMODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    with subprocess.Popen(
        [sys.executable, "-m", "capillary_async.cli", *SMALL, "--out", str(tmp_path / "out")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as demo:  # fmt: skip
        seen: set[int] = set()
        ends = time.monotonic() + 40
        while len(seen) < nth and demo.poll() is None and time.monotonic() < ends:
            seen |= children(demo.pid)
            time.sleep(0.005)
        demo.send_signal(number)
        out, err = demo.communicate(timeout=20)
    assert demo.returncode == code, out + err
    assert err.startswith("capillary-async: ")
    assert err.count("\n") == 1
    assert len(seen) == nth
    assert [pid for pid in seen if is_there(pid)] == []
