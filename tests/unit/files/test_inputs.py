"""Text input for ids and books: any text in any pieces is read as it was written, or refused with its line."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capillary_async._files import (
    Fault,
    Layout,
    Source,
    SourceError,
    columns_of,
    inner_suffix,
    is_other_number,
    lines,
    near,
    records,
    shown_names,
    visible,
    why_no_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(
    data: bytes, size: int = 1 << 16, *, padded: bool = False, one_end: bool = False
) -> list[tuple[int, list[str]]]:
    """The records, each with its line."""
    layout = Layout(padded=padded, one_end=one_end)
    found: list[tuple[int, list[str]]] = []
    for piece in pieces(data, size):
        block = layout.take(piece)
        found += records(block) if block else []
    block = layout.finish()
    return found + (list(records(block)) if block else [])


def fault(data: bytes, size: int = 1 << 16, *, padded: bool = False, one_end: bool = False) -> Fault:
    with pytest.raises(Fault) as caught:
        read(data, size, padded=padded, one_end=one_end)
    return caught.value


# -- the layout

CELL = st.text('ab1", \r\n\t\x0b\x0c\x85\u2028\u00e9\U0001f600', max_size=5)
TABLE = st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=6)
SIZE = st.integers(1, 9)


def written(rows: list[list[str]], ends: list[str]) -> tuple[bytes, list[tuple[int, list[str]]]]:
    """The rows as a strict CSV with the ends in turn, and what is due: each with its line."""
    text, due = "", []
    for nth, row in enumerate(rows):
        due.append((1 + len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1, row))
        cells = [f'"{cell.replace(chr(34), chr(34) * 2)}"' if set(cell) & set('",\r\n') else cell for cell in row]
        text += ",".join(cells) + ends[nth % len(ends)]
    return text.encode(), due


@settings(max_examples=300, deadline=None)
@given(rows=TABLE, size=SIZE, ends=st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"]]), last=st.booleans())
def test_any_table_in_any_pieces(rows: list[list[str]], size: int, ends: list[str], *, last: bool) -> None:
    """Wherever the pieces are cut, with a final line end or without, all cells and their lines are right."""
    data, due = written(rows, ends)
    data = data if last else data.removesuffix(ends[(len(rows) - 1) % len(ends)].encode())
    assert read(data, size) == due


@settings(max_examples=300, deadline=None)
@given(text=st.text('a1", \r\n', max_size=40), size=SIZE, one_end=st.booleans())
def test_any_text_is_read_alike_or_refused_alike(text: str, size: int, *, one_end: bool) -> None:
    """Pieces change neither the records nor the fault; and what is read is what the `csv` module reads, strictly."""

    def outcome(size: int) -> object:
        try:
            return read(text.encode(), size, one_end=one_end)
        except Fault as error:
            return error.line, error.record, error.reason

    found = outcome(size)
    whole = outcome(1 << 16)
    # Of two faults, a stray mark and mixed line ends, the pieces may decide which is named.
    assert found == whole or ("\r" in text and isinstance(found, tuple) and isinstance(whole, tuple))
    if isinstance(found, list):
        plain = csv.reader(io.StringIO(text, newline=""), strict=True)
        assert [row for _, row in found if len(row) > 1 or "".join(row).strip()] == [
            row for row in plain if len(row) > 1 or "".join(row).strip()
        ]


@settings(max_examples=200, deadline=None)
@given(rows=TABLE, size=SIZE)
def test_a_stray_mark_is_found_at_once(rows: list[list[str]], size: int) -> None:
    """It is refused at its own line, and the records before it are given first."""
    data, due = written(rows, ["\n"])
    layout, given_ = Layout(), list[tuple[int, list[str]]]()

    def read_all() -> None:
        for piece in pieces(data + b'x"\ny,z\n', size):
            block = layout.take(piece)
            given_.extend(records(block) if block else [])
        layout.finish()

    with pytest.raises(Fault) as caught:
        read_all()
    assert given_ == due
    assert caught.value.record == len([row for row in rows if row]) + 1
    assert caught.value.line == data.decode().replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b'id\n600000001,"Foo\n2\n3\n', 2, 'a quotation mark (") has no partner'),
        (b'id,n\n1,"Foo\n2,x\n3,"Bar\n4,y\n', 4, "is where none may be (a cell in quotation marks began on line 2)"),
        (b'id,n\n1,5" pipe\n2,x\n', 2, "is where none may be;"),
        (b'id,n\n\n\n1,5" pipe\n2,x\n', 4, "is where none may be;"),
        (b'id,n\n1,"a\nb"\n2,"c"d\n', 4, "is where none may be;"),
        (b'id,n\n1,"a""b\n2,c\n', 2, "has no partner"),
        (b"id\n1\n2\x003\n", 3, "a NUL byte"),
        (b'id,n\n1,"\n\0"\n', 3, "a NUL byte"),
        (b"id,n\n1,a\n2,Ren\xe9\n3,b\n", 3, "is not UTF-8 (Latin-1, perhaps)"),
        (b"id,n\n1,a\n2,Ren\xc3", 3, "was cut off"),
        (b"id,n\n1,New\rBill\n2,b\n", 2, "its line ends are mixed"),
    ],
)
def test_faults(data: bytes, line: int, reason: str, size: int) -> None:
    """Each names its line, however the pieces are cut."""
    found = fault(data, size)
    assert (found.line, reason in found.reason) == (line, True), found


def test_blanks_after_a_closing_mark() -> None:
    """They are taken where ids are read, and refused in books, as DuckDB does."""
    data = b'"a" ,b\n"1"\t,"2"  \n'
    for size in (1, 3, 100):
        assert read(data, size, padded=True) == [(1, ["a", "b"]), (2, ["1", "2"])]
        assert fault(data, size).line == 1
        assert fault(b'"a" x,b\n', size, padded=True).line == 1
        assert fault(b'"a" "b"\n', size, padded=True).line == 1


def test_line_ends_of_writers_that_translate_twice() -> None:
    """CR CR LF is an empty line behind each record for ids, and mixed line ends in books."""
    data = b"id\r\r\n1\r\r\n2\r\r\n"
    assert [cells for _, cells in read(data)] == [["id"], ["1"], ["2"]]
    assert fault(data, one_end=True).line == 2
    assert fault(b"a,b\n1,2\r\n3,4\n", one_end=True).line == 2


def test_linear() -> None:
    """A mark without a partner near the top of 80,000 lines, in pieces of a pipe."""
    data = b'id,name\n1,"Foo\n' + b"".join(b"%d,name\n" % number for number in range(80_000))
    began = time.process_time()
    assert fault(data, 4096).line == 2
    assert fault(b'id,name\n1,5" pipe\n' + data, 4096).line == 2
    plain = b"id,name\n" + b"".join(b'%d,"a ""b"" c"\n' % number for number in range(80_000))
    assert len(read(plain, 4096)) == 80_001
    assert time.process_time() - began < 5  # 0.3 s on a quiet machine; it was minutes


def test_a_cell_of_megabytes() -> None:
    """What the `csv` module refuses beyond 131,072 characters is read."""
    cell = "x\n" * 1_500_000
    assert read(f'id,note\n1,"{cell}"\n2,\n'.encode()) == [
        (1, ["id", "note"]),
        (2, ["1", cell]),
        (1_500_003, ["2", ""]),
    ]


def test_a_row_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: the fault names the open mark, or the row."""
    monkeypatch.setattr("capillary_async._files.layout.LONGEST", 1 << 20)
    assert "no partner within 1 MiB" in fault(b'a\nb\n"' + b"x\n" * (1 << 20)).reason
    assert fault(b'a\nb\n"' + b"x\n" * (1 << 20)).line == 3
    assert "a row of more than 1 MiB" in fault(b"a\nb\n" + b"x" * (2 << 20)).reason


def test_lines_end_at_cr_and_lf_alone() -> None:
    """Other characters that `str.splitlines` cuts at are text."""
    layout = Layout(quoted=False)
    block = layout.take('1\x0b\x0c\x1c\x85\u2028\n"2\r\n\n3\n'.encode())
    assert block is not None
    assert list(lines(block)) == [(1, "1\x0b\x0c\x1c\x85\u2028"), (2, '"2'), (3, ""), (4, "3")]


def test_columns() -> None:
    """By their exact name first, else without the blanks around it; one that is there twice is ambiguous."""
    assert columns_of(["a", " b ", "c\x0b", "b"], ["b", "c\x0b", "a "]) == [3, 2, 0]
    for names, many in ((["x"], 0), (["a"], 2)):
        with pytest.raises(LookupError) as caught:
            columns_of(["a", "b", "a"], names)
        assert caught.value.args == (names[0], many)


# -- ids


@pytest.mark.parametrize(
    ("text", "other", "said"),
    [
        ("600000001", False, None),
        ("9223372036854775807", False, None),
        ("600000001.0", True, "astype('Int64')"),
        ("6.00000001e8", True, "astype('Int64')"),
        ("6E8", True, "exponent"),
        ("600,000,001", True, "separators"),
        ("600000001,0", True, "decimals"),
        ("+600000001", True, "sign"),
        ("-5", True, "sign"),
        ("9223372036854775808", False, "larger than 9223372036854775807"),
        ("1" * 5000, False, "larger than"),
        ("0", False, "positive"),
        ("", False, "is empty"),
        ("x12", False, "whole numbers"),
        ("e5", False, "whole numbers"),
        (".", False, "whole numbers"),
        ("nan", False, "whole numbers"),
        ("\u0663", False, "whole numbers"),
    ],
)
def test_why_no_id(text: str, said: str | None, *, other: bool) -> None:
    """A number written in another way says that its whole column is."""
    why = why_no_id(text)
    assert (why is None) == (said is None)
    assert said is None or said in (why or "")
    assert is_other_number(text) is other


# -- sources


def everything(source: Source) -> bytes:
    found = b""
    while piece := source.piece():
        found += piece
    source.close()
    return found


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200).filter(lambda data: data[:1] not in b"\xff\xfe\x1f\x28PB\xd0\xfd\xef"), size=SIZE)
def test_a_pipe_fed_byte_by_byte_loses_none(data: bytes, size: int) -> None:
    """Plain, with a BOM, or compressed."""
    for made, due in ((data, data), (codecs.BOM_UTF8 + data, data), (gzip.compress(data), data)):
        end, start = os.pipe()
        writer = threading.Thread(target=_feed, args=(start, made))
        writer.start()
        assert everything(Source(end, size=size)) == due
        writer.join()


def _feed(descriptor: int, data: bytes) -> None:
    for at in range(len(data)):
        os.write(descriptor, data[at : at + 1])
    os.close(descriptor)


def test_what_is_there_is_given_at_once() -> None:
    """A slow writer's first line is not kept back."""
    end, start = os.pipe()
    os.write(start, b"5\n")
    source = Source(end)
    assert source.piece() == b"5\n"
    os.close(start)
    assert source.piece() == b""
    source.close()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("id\n1\n".encode("utf-16"), "it is UTF-16; save it as UTF-8, or: iconv -f utf-16"),
        ("id\n1\n".encode("utf-32"), "it is UTF-32"),
        (b"PK\x03\x04....", "a workbook (xlsx)"),
        (b"\xd0\xcf\x11\xe0....", "an old Excel workbook"),
        (b"BZh91AY&SY...", "its bzip2 data are cut off"),
        (b"\xfd7zXZ\x00...", "compressed with xz"),
        (gzip.compress(b"id\n1\n", mtime=0)[:-4], "its gzip data are cut off"),
        (gzip.compress(b"id\n1\n" * 99, mtime=0)[:30] + b"xxxxx", "its gzip data are"),
        (gzip.compress(b"id\n1\n", mtime=0)[:-8] + b"12345678", "its gzip data are damaged"),
        (gzip.compress(gzip.compress(b"id\n", mtime=0), mtime=0), "compressed twice"),
        (gzip.compress(b"PK\x03\x04", mtime=0), "a workbook"),
        (b"PAR1\x15\x00", "a Parquet file: that is read from a file only"),
    ],
)
def test_what_is_no_text(tmp_path: Path, data: bytes, said: str) -> None:
    """The true reason, and the nearest thing that works."""
    path = tmp_path / "ids.csv"
    path.write_bytes(data)
    source = Source(str(path))
    with pytest.raises(SourceError, match=said.replace("(", r"\(").replace(")", r"\)")):
        everything(source)
    source.close()


@pytest.mark.parametrize("name", ["PAR1", "PK", "BZhigh", "(\u00b5", "\x1f"])
def test_header_cells_that_begin_like_other_files(tmp_path: Path, name: str) -> None:
    """They are text."""
    path = tmp_path / "ids.csv"
    path.write_text(f"{name},b\n", encoding="utf-8")
    assert everything(Source(str(path))).decode() == f"{name},b\n"


def test_zstd(tmp_path: Path) -> None:
    """Whole or in several frames; a cut one is refused."""
    arrow = pytest.importorskip("pyarrow")
    data = arrow.Codec("zstd").compress(b"id\n" + b"1\n" * 9999, asbytes=True)
    path = tmp_path / "ids.zst"
    path.write_bytes(data + data)
    assert everything(Source(str(path))) == (b"id\n" + b"1\n" * 9999) * 2
    path.write_bytes(data[:-3])
    source = Source(str(path))
    with pytest.raises(SourceError, match="cut off or damaged"):
        everything(source)
    source.close()


# -- other forms


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.text('a",; \t|\n\u00e9', max_size=5), min_size=2, max_size=3), min_size=1, max_size=6),
    delimiter=st.sampled_from(["\t", ";", "|", " ", "^"]),
    size=SIZE,
    padded=st.booleans(),
)
def test_any_delimiter(rows: list[list[str]], delimiter: str, size: int, *, padded: bool) -> None:
    """What the `csv` module writes with a delimiter is read with it, wherever the pieces are cut."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    layout, found = Layout(padded=padded, delimiter=delimiter), list[list[str]]()
    for block in (*map(layout.take, pieces(text.getvalue().encode(), size)), layout.finish()):
        found += [cells for _, cells in records(block, delimiter)] if block else []
    assert found == rows


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32", "shift_jis", "latin-1"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    """The text arrives as UTF-8, without a BOM, in pieces of any size."""
    text = "id,name\n" + ("1,\u8868\n" if encoding in ("shift_jis", "utf-16") else "1,Ren\u00e9\u00a0\n") * 50
    for packed in (bytes, gzip.compress, bz2.compress):
        (tmp_path / "ids.csv").write_bytes(packed(text.encode(encoding)))
        for size in (1, 7, 1 << 16):
            assert everything(Source(str(tmp_path / "ids.csv"), size=size, encoding=encoding)).decode() == text
    (tmp_path / "ids.csv").write_bytes(text.encode("utf-16")[:-1])
    with pytest.raises(SourceError, match="line 51 is not utf-16: it has the byte 0x0a; give its true encoding"):
        everything(Source(str(tmp_path / "ids.csv"), encoding="utf-16"))


@pytest.mark.parametrize(
    ("wanted", "names", "said"),
    [
        ("award id", ["id", "award_id", "points"], ". Did you mean 'award_id'?"),
        ("AwardId", ["award_id"], ". Did you mean 'award_id'?"),
        ("points", [" points "], ". Did you mean ' points '?"),
        ("amount", ["customer", "award_id"], ""),
        ("", ["a"], ""),
        ("\u2020", ["\u2021"], ""),
    ],
)
def test_the_nearest_name(wanted: str, names: list[str], said: str) -> None:
    assert near(wanted, names) == said


def test_invisible_characters_are_shown() -> None:
    """Blanks as signs, the others as escapes; what is visible stays."""
    assert visible("A B\u00a0\u200b\t\u00e9") == "A\u2420B\\xa0\\u200b\\t\u00e9"
    assert shown_names(["a", " b", "c\ufeff", "d e"]) == "a, ' b', 'c\\ufeff', d e"


@pytest.mark.parametrize(("name", "suffix"), [("a.CSV.gz", ".csv"), ("a.tsv.bz2", ".tsv"), ("a.gz", ""), ("a", "")])
def test_the_suffix_within(name: str, suffix: str) -> None:
    assert inner_suffix(name) == suffix
