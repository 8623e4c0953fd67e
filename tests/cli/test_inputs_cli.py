"""Ids as the command line reads them: pipes, faults with their line, a stop that ends the command."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from support.environment import name_cluster
from support.job_server import Customers
from support.raw_server import http, in_thread
from support.workbook import write_workbook

from capillary_async.cli import main
from capillary_async.cli._io.writer import csv_line
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = (sys.executable, "-m", "capillary_async.cli")
POINTS = (
    "--program-id", "2282", "--point-category-id", "17383", "--expiry-date-start", "2025-06-01", "--expiry-date-end",
    "2027-06-01",
)  # fmt: skip
POSIX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="pipes, signals and /proc as Linux has them")
COLUMN = ("--ids-column", "customer_id")


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Customers]:
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)
    with Customers() as customers:
        name_cluster(monkeypatch, customers.url)
        yield customers


def export(out: Path, *more: str) -> list[str]:
    return ["export", "allocations", *POINTS, "--out", str(out), "--quiet", *more]


def asked(out: Path) -> int:
    return int(json.loads((out / "manifest.json").read_text())["ids"]["asked"])


def line_of(capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    err = capfd.readouterr().err
    assert err.startswith("capillary-async: ")
    assert err.count("\n") == 1, err
    return err


# -- pipes


@pytest.mark.long
@POSIX
@pytest.mark.parametrize("how", ["fd", "fifo", "stdin", "-", "gz"])
def test_a_pipe_loses_no_id(how: str, tmp_path: Path) -> None:
    """Process substitution, a named FIFO, /dev/stdin, -, and a compressed pipe: all ids, of one pass."""
    few_rows = [number for number in range(1, 9_000) if number % 10 < 2][:1500]
    data = b"".join(b"%d\n" % number for number in few_rows)
    ids = tmp_path / "ids"
    if how == "fifo":
        os.mkfifo(ids)
    end, start = os.pipe()
    path = {"fd": f"/dev/fd/{end}", "gz": f"/dev/fd/{end}", "fifo": str(ids), "stdin": "/dev/stdin", "-": "-"}[how]

    def feed() -> None:
        target = os.open(ids, os.O_WRONLY) if how == "fifo" else start
        with os.fdopen(target, "wb") as file:
            file.write(gzip.compress(data) if how == "gz" else data)

    line = [*COMMAND, *export(tmp_path / "out", "--ids", path)]
    with subprocess.Popen(line, stdin=end, pass_fds=(end,), stderr=subprocess.PIPE, text=True) as process:
        os.close(end)
        feeder = threading.Thread(target=feed)
        feeder.start()
        _, err = process.communicate(timeout=60)
        feeder.join()
    if how == "fifo":
        os.close(start)
    assert (process.returncode, asked(tmp_path / "out")) == (0, 1500), err


@pytest.mark.long
@POSIX
@pytest.mark.parametrize("command", ["export", "allocations"])
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_fifo_without_a_writer_ends_when_it_is_stopped(command: str, signal_: int, tmp_path: Path) -> None:
    """Opening it waits for a writer; the command does not."""
    os.mkfifo(tmp_path / "ids")
    given_ = (
        export(tmp_path / "out", "--ids", str(tmp_path / "ids"))
        if command == "export"
        else ["allocations", *POINTS, "--ids", str(tmp_path / "ids")]
    )
    with subprocess.Popen([*COMMAND, *given_], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        _wait_until_idle(process.pid)  # sooner, the signal would end the interpreter while it starts
        began = time.monotonic()
        process.send_signal(signal_)
        process.communicate(timeout=20)
    assert process.returncode == 128 + signal_
    assert time.monotonic() - began < 10


def _wait_until_idle(pid: int) -> None:
    """Until it has slept through a second."""
    idle, spent, until = 0, "", time.monotonic() + 15
    while idle < 10 and time.monotonic() < until:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state, cpu = fields[0], " ".join(fields[11:13])
        idle = idle + 1 if state == "S" and cpu == spent and cpu != "0 0" else 0
        spent = cpu
        time.sleep(0.1)


# -- faults, each in one line that names the file and the line

STRAY = (
    "customer_id,name\n600000000,a\n" + '600000001,"Foo\n' + "".join(f"{n},x\n" for n in range(600000002, 600000040))
)


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        (STRAY, COLUMN, 'line 3: a quotation mark (") has no partner'),
        (
            STRAY + '7,"Bar\n8,x\n',
            COLUMN,
            'line 42: a quotation mark (") is where none may be (a cell in quotation marks',
        ),
        ('customer_id,n\n1,5" pipe\n2,b\n', COLUMN, "line 2: a quotation mark"),
        ("customer_id,n\n1,a\n2,New\rBill\n", COLUMN, "line 3: its line ends are mixed"),
        ("customer_id,n\n1,a\n2,\0\n", COLUMN, "line 3: a NUL byte"),
        ("customer_id,n\n1,a\n2,Ren\udce9\n", COLUMN, "line 3 is not UTF-8 (Latin-1, perhaps)"),
        ("customer_id,n\n600000001.0,a\n,b\n", COLUMN, "line 2: column 'customer_id': '600000001.0' is no id"),
        ("customer_id,n\n1,a\n\n,b\n", COLUMN, "line 4: column 'customer_id': it is empty"),
        ("customer_id,n\n1,a\nx,b\n", COLUMN, "line 3: column 'customer_id': 'x' is no id"),
        ("customer_id,n\n1,a\n2,Foo, Inc\n", COLUMN, "line 3 has 3 cells, and the header has 2"),
        ("n,customer_id\na,1\nb\n", COLUMN, "line 3 has 1 cells less than the header"),
        ("customer_id,customer_id\n1,2\n", COLUMN, "line 1: 2 columns are named 'customer_id'"),
        ("n;customer_id\na;1\n", COLUMN, "has n;customer_id; its columns are separated by semicolons: --delimiter ';'"),
        ("n,Customer ID\na,1\n", COLUMN, "it has n, Customer ID. Did you mean 'Customer ID'?"),
        ("a,b\n1,2\n", COLUMN, "line 1: --ids-column 'customer_id' is no column of the ids file; it has a, b"),
        ("1\n2\n\n6.0e8\n", (), "line 4: '6.0e8' is no id"),
        ("1\n9223372036854775808\n", (), "line 2: '9223372036854775808' is no id: it is larger than"),
        ('600000001\n600000002,"Foo\n', (), "line 2: '600000002,\"Foo' is no id"),
        ("1\n2\r3\n", (), "line 2: its line ends are mixed"),
        ("customer_id\n1\n", (), "line 1: the first line of the ids is 'customer_id', which is no id"),
        ("\ufeff", COLUMN, "no ids: the input is empty"),
        ("\ufeff", (), "no ids: the input is empty"),
        ("\ufeff\n\n", COLUMN, "no ids: the input is empty"),
    ],
)
def test_faults_of_ids(  # noqa: PLR0917 - cases and fixtures
    text: str, columns: tuple[str, ...], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], server: Customers
) -> None:
    """Exit 1, and nothing was asked."""
    path = tmp_path / "ids.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert main(export(tmp_path / "out", "--ids", str(path), *columns)) == 1
    told = line_of(capfd)
    assert said in told
    assert said.startswith("no ids") or str(path) in told
    assert server.requests == 0


@pytest.mark.parametrize(("text", "columns"), [(STRAY, COLUMN), ("customer_id\n600000001.0\n", COLUMN), ("1.0\n", ())])
def test_faults_of_ids_that_are_read_while_others_are_asked(
    text: str,
    columns: tuple[str, ...],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reading commands end with exit 1 too."""
    path = tmp_path / "ids.csv"
    path.write_text(text)
    with in_thread(http(b"{}", 404)) as answering:
        monkeypatch.setenv("CAPILLARY_BASE_URL", answering.url)
        assert main(["events", "--quiet", "--ids", str(path), *columns]) == 1
    assert f"{path}, line " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("ids.csv", b"name;customer_id\nRen\xe9;1\nZo\xeb;2\n", ("--delimiter", ";", "--encoding", "cp1252")),
        ("ids.tsv.bz2", bz2.compress(b"name\tcustomer_id\na\t1\nb\t2\n"), ()),
        ("ids.txt", "customer_id\n1\n2\n".encode("utf-16"), ("--encoding", "utf-16")),
    ],
)
def test_other_forms_of_ids(tmp_path: Path, name: str, data: bytes, options: tuple[str, ...]) -> None:
    """Another delimiter and encoding are read as they are said."""
    (tmp_path / name).write_bytes(data)
    assert main(export(tmp_path / "out", "--ids", str(tmp_path / name), *COLUMN, *options)) == 0
    assert asked(tmp_path / "out") == 2


def test_ids_in_a_workbook(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A column of a sheet, numbers or text; what is no id is named with its row."""
    pytest.importorskip("python_calamine")
    rows: list[tuple[str | float, ...]] = [("name", "customer_id"), ("a", 1), ("b", "2"), ("c", 3.0)]
    ids = write_workbook(tmp_path / "ids.xlsx", {"Ids": rows, "Bad": [*rows, ("d", 1.5)]})
    assert main(export(tmp_path / "out", "--ids", str(ids), *COLUMN, "--sheet", "Ids")) == 0
    assert asked(tmp_path / "out") == 3
    for options, said in {
        COLUMN: "it has several sheets, 'Ids', 'Bad': say which (sheet, --sheet)",
        ("--sheet", "Ids"): "is a workbook: say which column holds the ids, with --ids-column",
        (*COLUMN, "--sheet", "Bad"): "row 5: column 'customer_id': '1.5' is no id",
        (*COLUMN, "--encoding", "cp1252"): "--encoding does not go with ids that are a workbook",
        ("--ids-column", "customer", "--sheet", "Ids"): "it has name, customer_id. Did you mean 'customer_id'?",
    }.items():
        assert main(export(tmp_path / "second", "--ids", str(ids), *options)) == 1
        assert said in line_of(capfd)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*COLUMN, "--delimiter", ";;"), "--delimiter takes one character, e.g. ';', '|' or tab, got ';;'"),
        (("--encoding", "ansi1"), "--encoding takes a text encoding, e.g. cp1252, latin-1 or utf-16, got 'ansi1'"),
        (("--delimiter", ";"), "--delimiter goes with --ids-column, which names the column of the ids"),
    ],
)
def test_forms_that_are_none(
    options: tuple[str, ...], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 before anything is read."""
    assert main(export(tmp_path / "out", "--ids", str(tmp_path / "ids.csv"), *options)) == 1
    assert said in line_of(capfd)


def test_80_000_lines_with_a_stray_mark(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Linear: it took minutes."""
    path = tmp_path / "ids.csv"
    path.write_text('customer_id,n\n1,"Foo\n' + "".join(f"{number},name\n" for number in range(2, 80_000)))
    began = time.process_time()
    assert main(export(tmp_path / "out", "--ids", str(path), *COLUMN)) == 1
    assert "line 2: a quotation mark" in line_of(capfd)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("customer_id\r1\r2\r3", COLUMN),
        ("1\r2\r3\r", ()),
        ("1\r\n2\n3", ()),
        ("customer_id\x0b,n\x0c\x85\u2028\n1,a\n2,b\u2028c\n3,\x0b\n", ("--ids-column", "customer_id\x0b")),
        ("n,customer_id\n" + '"a\nb",1\n' + f'"{"x" * 200_000}",2\n' + "c,3\n", COLUMN),
        ("n,customer_id\n" + f'"{"x" * 3_000_000}",1\n' + "c,2\n\n\nd,3", COLUMN),
        ('\ufeff"customer_id"\r\n"1"\r\n"2"\r\n"3"\r\n', COLUMN),
    ],
)
def test_ids_that_are_read(text: str, columns: tuple[str, ...], tmp_path: Path) -> None:
    """Any line ends, any length, any text beside them; plain and compressed."""
    for nth, data in enumerate((text.encode(), gzip.compress(text.encode()), _zstd(text.encode()))):
        path = tmp_path / f"ids{nth}"
        path.write_bytes(data)
        assert main(export(tmp_path / f"out{nth}", "--ids", str(path), *columns)) == 0
        assert asked(tmp_path / f"out{nth}") == 3


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def test_pairs_of_a_ledger_are_csv(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A note over two lines is one cell; it was taken for a pair."""
    small = ("--sandbox", "--customers", "12", "--quiet")
    held = Sandbox(customers=12)
    rows = [(held.customer_ids[0], log_id) for log_id in held.event_log_ids(held.customer_ids[0])[:3]]
    text = io.StringIO()
    csv.writer(text).writerows([
        ["customer_id", "event_log_id", "note"], *([*row, "a\n600000008,7,b"] for row in rows)
    ])  # fmt: skip
    path = tmp_path / "pairs.csv"
    path.write_text(text.getvalue(), newline="")
    assert main(["export", "ledger", *small, "--ids", str(path), "--out", str(tmp_path / "ledger")]) == 0
    assert json.loads((tmp_path / "ledger" / "manifest.json").read_text())["records"] == 3
    capfd.readouterr()
    for bad, said in (
        ("customer_id,event_log_id\n5,7\n6,7.0\n", "line 3: column 'event_log_id': '7.0' is no id"),
        ("customer_id,event_log_id\n5.0,7\n", "line 2: column 'customer_id': '5.0' is no id"),
        ("customer_id,event_log_id\n,7\n", "line 2: column 'customer_id': it is empty"),
        ("customer_id,event_log_id\n5\n", "line 2 has 1 cells less than the header"),
        (
            "customer_id,event\n5,7\n",
            "line 1: the ids have no column 'event_log_id'; they have customer_id, event. ",
        ),
        ('customer_id,event_log_id\n5,"7\n', "line 2: a quotation mark"),
    ):
        path.write_text(bad)
        assert main(["export", "ledger", *small, "--ids", str(path), "--out", str(tmp_path / "bad")]) == 1
        assert f"{path}, {said}" in line_of(capfd)


# -- Parquet


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(38, 0)),
        pa.array([Decimal("1.00"), Decimal(2), Decimal(3)], pa.decimal128(20, 2)),
        pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal256(60, 0)),
        pa.array(["1", "2", "3"], pa.string_view()),
        pa.array(["1", "2", "3"], pa.large_string()),
        pa.array(["1", "2", "3"]).dictionary_encode(),
        pa.array([1, 2, 3], pa.uint64()),
    ],
    ids=lambda ids: str(ids.type),
)
def test_types_of_ids_in_parquet(ids: Any, tmp_path: Path) -> None:
    """Taken where they are whole."""
    pq.write_table(pa.table({"customer_id": ids}), tmp_path / "ids.parquet")
    assert main(export(tmp_path / "out", "--ids", str(tmp_path / "ids.parquet"), *COLUMN)) == 0
    assert asked(tmp_path / "out") == 3


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (pa.array([Decimal("1.50")], pa.decimal128(20, 2)), "row 1 of .*: 1.50 is no id"),
        (pa.array([1, 2**64 - 1], pa.uint64()), "row 2 of .*: 18446744073709551615 is no id: it is larger than"),
        (pa.array([1.0, None]), "holds double: a float is no exact id"),
        (pa.array(["1", "2.0"]), "row 2 of .*: 2.0 is no id: it is a number with"),
        (pa.array(["1", "x"]), "row 2: 'x' is no id"),
        (pa.array([1, None]), "row 2 of .* has no id in column 'customer_id'"),
        (pa.array([b"1"]), "holds binary: ids are integers or texts"),
    ],
    ids=str,
)
def test_ids_in_parquet_that_are_none(ids: Any, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The file, the row, the true reason."""
    path = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"customer_id": ids}), path)
    assert main(export(tmp_path / "out", "--ids", str(path), *COLUMN)) == 1
    told = line_of(capfd)
    assert str(path) in told
    assert re.search(said, told), told


def test_a_folder_and_a_glob_of_parquet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The parts in the order of their names, without what begins with `_` or `.`; a Delta table is refused."""
    folder = tmp_path / "parts"
    (folder / "month=1").mkdir(parents=True)
    for name, values in (("b", [3]), ("a", [1, 2]), ("month=1/c", [4]), ("_temporary", [9]), (".d", [9])):
        pq.write_table(pa.table({"customer_id": values}), folder / f"{name}.parquet")
    assert main(export(tmp_path / "out", "--ids", str(folder), *COLUMN)) == 0
    assert asked(tmp_path / "out") == 4
    assert main(export(tmp_path / "out2", "--ids", str(folder / "[ab].parquet"))) == 0
    assert asked(tmp_path / "out2") == 3
    (folder / "_delta_log").mkdir()
    capfd.readouterr()
    assert main(export(tmp_path / "out3", "--ids", str(folder))) == 1
    assert "is a Delta table" in line_of(capfd)


# -- CSV as it is written

TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.text('a,"\r\n \t', max_size=6)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=5))
def test_every_reader_reads_what_is_written(rows: list[list[str]]) -> None:
    """Any text, a lone CR too: the csv module and pyarrow read back what was written."""
    width = max(map(len, rows))
    rows = [row + ["x"] * (width - len(row)) for row in rows]
    data = b"".join(csv_line(row) for row in rows)
    assert list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True)) == rows
    names = [f"c{nth}" for nth in range(width)]
    table = pa_csv.read_csv(
        io.BytesIO(data),
        read_options=pa_csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    assert [list(row.values()) for row in table.to_pylist()] == rows


def test_a_lone_cr_is_quoted() -> None:
    """Python 3.11.7 and 3.12.1 leave it bare."""
    assert csv_line(["New\rBill", None, 5, ""]) == b'"New\rBill",,5,\n'
    assert csv_line([None]) == b'""\n'
