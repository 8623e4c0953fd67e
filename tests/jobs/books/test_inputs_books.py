"""Books in every form they arrive in: compressed, piped, in parts, and of types that are read or refused truly."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.export_folder import write_export

from capillary_async.jobs import JobError, ReconcileResult, reconcile

ASKED = {"key": "id=award_id", "compare": "points_exclusive=points"}
TEXT = b'award_id,points,note\n1,10.5,a\n2,20.5,"b\nb"\n3,30.5,c\n'
POSIX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="pipes, signals and /proc as Linux has them")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Three allocations: 1, 2 and 3 with 10.5, 20.5 and 30.5 points."""
    zeros = {f"{what}_exclusive_value": "0" for what in ("redeemed", "returned", "expired")}
    rows = [
        {"id": n, "customer_id": 1, "status": "AVAILABLE", "points_exclusive": f"{n}0.5", "expiry_date": n * 1000}
        | zeros
        for n in (1, 2, 3)
    ]
    return write_export(tmp_path / "export", "allocations", rows)


async def told(export: Path, books: str | Path, **options: Any) -> str:
    with pytest.raises(JobError) as caught:
        await reconcile(export, books, **{**ASKED, **options})
    message = str(caught.value)
    assert message.count("\n") == 0
    return message


def equal(result: ReconcileResult) -> bool:
    return result.comparison is not None and result.comparison.counts["equal"] == 3 and result.comparison.equal


# -- text


@pytest.mark.parametrize("name", ["books.csv", "books.csv.gz", "books.gz"])
async def test_compressed_books(export: Path, tmp_path: Path, name: str) -> None:
    """Gzip and zstd are read by their first bytes, whatever the name says."""
    path = tmp_path / name
    for data in (gzip.compress(TEXT), pa.compress(TEXT, "zstd", asbytes=True), gzip.compress(b"\xef\xbb\xbf" + TEXT)):
        path.write_bytes(data)
        assert equal(await reconcile(export, path, **ASKED))
    path.write_bytes(gzip.compress(TEXT)[:-9])
    assert "its gzip data are cut off" in await told(export, path)


@POSIX
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_books_through_a_pipe(export: Path, tmp_path: Path, pack: Any) -> None:
    """A named FIFO, byte by byte."""
    os.mkfifo(tmp_path / "books")
    data = pack(TEXT)

    def feed() -> None:
        with (tmp_path / "books").open("wb", buffering=0) as file:
            for at in range(len(data)):
                file.write(data[at : at + 1])

    feeder = threading.Thread(target=feed)
    feeder.start()
    result = await reconcile(export, tmp_path / "books", **ASKED)
    feeder.join()
    assert equal(result)


@POSIX
async def test_a_fifo_without_a_writer_is_left_when_cancelled(export: Path, tmp_path: Path) -> None:
    """And its scratch files are gone."""
    os.mkfifo(tmp_path / "books.csv")
    out = tmp_path / "out"
    out.mkdir()
    work = asyncio.ensure_future(reconcile(export, tmp_path / "books.csv", **ASKED, out=out / "differences.parquet"))
    await asyncio.sleep(1)
    assert not work.done()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(work, 5)
    assert list(out.iterdir()) == []


@POSIX
def test_a_fifo_without_a_writer_ends_at_sigterm(export: Path, tmp_path: Path) -> None:
    """The command ends although its thread waits for a writer."""
    os.mkfifo(tmp_path / "books.csv")
    line = [
        sys.executable,
        "-m",
        "capillary_async.cli",
        "reconcile",
        str(export),
        "--books",
        str(tmp_path / "books.csv"),
    ]
    line += ["--key", ASKED["key"], "--compare", ASKED["compare"]]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        idle, spent, until = 0, "", time.monotonic() + 15
        while idle < 10 and time.monotonic() < until:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            idle = (
                idle + 1 if fields[0] == "S" and abs(int(fields[11]) - int(spent or 0)) < 3 and fields[11] != "0" else 0
            )
            spent = fields[11]
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
    assert process.returncode == 143


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xef\xbb\xbf", "the file is empty; it needs a header line and rows"),
        (b"\xef\xbb\xbf\r\n", "the file is empty"),
        (b"\nid,points\n1,2\n", "line 1 is empty, and the header is on line 2"),
        (b'award_id,"points' + b"x" * 200_000 + b"\n1,2\n", 'line 1, row 1: a quotation mark (") has no partner'),
        (b'award_id,points,n\n1,2,"a\nb"\n\n3,4,5" x\n', "line 5, row 3: a quotation mark"),
        (b'award_id,points,n\n1,2,"a\nb"\n3\n', "line 4, row 3 has 1 columns, and the header has 3"),
        (b'award_id,points,n\n1,2,"a\nb"\n3,x,c\n', "column 'points', row 3 (line 4): 'x' cannot be read"),
        (b'award_id,points,n\n1,2,"a\nb"\n1,2,c\n', "is there more than once, row 2 and row 3 (line 4)"),
        (b"award_id,points\n1,2\n\n2,\0\n", "line 4, row 3: a NUL byte"),
        (b"award_id,points\n1,2\n2,3\r\n", "line 3, row 3: its line ends are mixed"),
        (b"PK\x03\x04\0\0", "it is a workbook (xlsx) or another ZIP archive, no CSV; save the sheet as CSV, UTF-8"),
        (b"\xd0\xcf\x11\xe0\0\0", "it is an old Excel workbook (xls)"),
        ("award_id,points\n1,2\n".encode("utf-16-le"), "line 1, row 1: a NUL byte"),
        (b"award_id,points\n1,2\n2,3\xc3", "line 3, row 3 ends within a character of UTF-8: the input was cut off"),
    ],
)
async def test_faults_of_books(export: Path, tmp_path: Path, text: bytes, said: str) -> None:
    """One line: the file, the line of the file and the row, plain and compressed."""
    for name, data in (("books.csv", text), ("books.csv.gz", gzip.compress(text))):
        path = tmp_path / name
        path.write_bytes(data)
        message = await told(export, path)
        assert message.startswith(f"{path}: ")
        assert said in message


async def test_a_row_of_megabytes(export: Path, tmp_path: Path) -> None:
    """Longer than DuckDB's own limit, quoted or not."""
    path = tmp_path / "books.csv"
    for cell in ("x" * 3_000_000, '"' + "x\n" * 10_000_000 + '"'):
        path.write_text(f"award_id,points,note\n1,10.5,a\n2,20.5,{cell}\n3,30.5,c\n")
        assert equal(await reconcile(export, path, **ASKED))


async def test_header_cells_with_other_line_breaks(export: Path, tmp_path: Path) -> None:
    """VT, FF, U+0085 and U+2028 end no line."""
    path = tmp_path / "books.csv"
    path.write_text("a\x0bb,award_id,c\x0c\x85,points\u2028\n,1,,10.5\n,2,,20.5\n,3,,30.5\n", encoding="utf-8")
    assert equal(await reconcile(export, path, key="id=award_id", compare="points_exclusive=points\u2028"))


async def test_old_mac_lines(export: Path, tmp_path: Path) -> None:
    path = tmp_path / "books.csv"
    path.write_bytes(b"award_id,points\r1,10.5\r2,20.5\r3,30.5\r")
    assert equal(await reconcile(export, path, **ASKED))


NOTE = st.text('ab", \r\n\x0b\u2028\u00e9', max_size=6)


@settings(max_examples=25, deadline=None)
@given(notes=st.lists(NOTE, min_size=3, max_size=3), end=st.sampled_from(["\n", "\r\n"]), packed=st.booleans())
def test_any_note_beside(tmp_path_factory: pytest.TempPathFactory, notes: list[str], end: str, *, packed: bool) -> None:
    """Whatever text is in another column, in quotation marks, rows and amounts are the same."""
    tmp_path = tmp_path_factory.mktemp("note")
    rows = [{"id": n, "customer_id": 1, "status": "A", "points_exclusive": f"{n}0.5"} for n in (1, 2, 3)]
    export = write_export(tmp_path / "export", "allocations", rows)
    quoted = ['"' + note.replace('"', '""') + '"' for note in notes]
    text = end.join(["note,award_id,points", *(f"{note},{n},{n}0.5" for n, note in enumerate(quoted, 1))])
    path = tmp_path / "books.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert equal(asyncio.run(reconcile(export, path, **ASKED)))


# -- Parquet

GOOD = {"award_id": pa.array([1, 2, 3]), "points": pa.array([Decimal("10.5"), Decimal("20.5"), Decimal("30.5")])}


def write(path: Path, start: int = 0, stop: int = 3, **columns: Any) -> Path:
    pq.write_table(pa.table({**GOOD, **columns}).slice(start, stop - start), path)
    return path


async def test_a_folder_of_parts(export: Path, tmp_path: Path) -> None:
    """Read as one table; rows are named by their part."""
    folder = tmp_path / "parts"
    (folder / "month=1").mkdir(parents=True)
    write(folder / "a.parquet", 0, 1)
    write(folder / "b.parquet", 1, 2)
    write(folder / "month=1" / "c.parquet", 2, 3)
    (folder / "_SUCCESS").touch()
    result = await reconcile(export, folder, **ASKED)
    assert equal(result)
    assert "SHA-256 of the list of the 3 files with their SHA-256" in result.subjects[1].facts
    write(folder / "manifest.parquet", 0, 1)
    (folder / "manifest.json").write_text("{}")
    message = await told(export, folder)
    assert f"{folder}: award_id 1 is there more than once, row 1 of a.parquet and row 1 of manifest.parquet" in message
    (folder / "manifest.parquet").unlink()
    assert (
        equal(await reconcile(export, str(folder / "*.parquet"), key="id=award_id", compare="points_exclusive=points"))
        is False
    )
    write(folder / "d.parquet", 0, 1, points=pa.array([1.0, 2.0, 3.0]))
    message = await told(export, folder)
    assert (
        "column 'points' is DECIMAL(3,1) in a.parquet and DOUBLE in d.parquet; write all files with one type" in message
    )


async def test_a_folder_that_holds_no_parts(export: Path, tmp_path: Path) -> None:
    """The advice about an unfinished export is for exports alone."""
    folder = tmp_path / "data"
    folder.mkdir()
    assert "a folder without Parquet files" in await told(export, folder)
    (folder / "books.csv.gz").touch()
    assert "(*.parquet). It has books.csv.gz: give one of them" in await told(export, folder)
    (folder / "_delta_log").mkdir()
    write(folder / "a.parquet")
    assert "is a Delta table" in await told(export, folder)
    assert "no Parquet file matches" in await told(export, str(tmp_path / "nothing*.parquet"))
    (export / "manifest.json").unlink()
    assert "export" in await told(write_export(tmp_path / "second", "allocations", []), export)


async def test_parquet_by_another_name(export: Path, tmp_path: Path) -> None:
    assert equal(await reconcile(export, write(tmp_path / "books.csv"), **ASKED))


async def test_times_with_nanoseconds(export: Path, tmp_path: Path) -> None:
    """The same time is the same; one that microseconds cannot hold is refused with its row."""
    times = pa.array([n * 1_000_000_000 for n in (1, 2, 3)], pa.timestamp("ns", "UTC"))
    path = write(tmp_path / "books.parquet", expires=times)
    options = {"key": "id=award_id", "compare": "expires_at=expires"}
    assert equal(await reconcile(export, path, **options))  # type: ignore[arg-type]
    write(path, expires=pa.array([1_000_000_000, 2_000_000_001, 3_000_000_000], pa.timestamp("ns", "UTC")))
    message = await told(export, path, **options)
    assert "column 'expires', row 2: " in message
    assert "has nanoseconds" in message
    csv = tmp_path / "books.csv"
    csv.write_text("award_id,expires\n1,2020-01-01T00:00:00.123456789Z\n")
    assert "has more than 6 decimals of a second" in await told(export, csv, **options)
    with duckdb.connect(str(tmp_path / "books.db")) as database:
        database.execute(f"CREATE TABLE b AS SELECT award_id, expires::TIMESTAMPTZ_NS AS expires FROM '{path}'")
    assert "row 2: " in await told(export, f"duckdb://{tmp_path / 'books.db'}", table="b", **options)
    assert datetime.fromtimestamp(1, UTC).year == 1970


async def test_more_than_38_digits(export: Path, tmp_path: Path) -> None:
    """DuckDB reads it as DOUBLE; that is not what the file is."""
    wide = pa.array([Decimal("10.5"), Decimal("20.5"), Decimal("30.5")], pa.decimal256(60, 3))
    message = await told(export, write(tmp_path / "books.parquet", points=wide))
    assert "column 'points' is DECIMAL(60,3), and amounts of at most 38 digits are compared. Cast it" in message
    narrow = pa.array([Decimal("10.5"), Decimal("20.5"), Decimal("30.5")], pa.decimal256(20, 3))
    assert equal(await reconcile(export, write(tmp_path / "books.parquet", points=narrow), **ASKED))


@pytest.mark.parametrize("kind", [pa.decimal128(38, 0), pa.decimal256(38, 0), pa.uint64(), pa.uint8()], ids=str)
async def test_types_of_keys(export: Path, tmp_path: Path, kind: Any) -> None:
    values = [Decimal(n) for n in (1, 2, 3)] if pa.types.is_decimal(kind) else [1, 2, 3]
    assert equal(await reconcile(export, write(tmp_path / "books.parquet", award_id=pa.array(values, kind)), **ASKED))
