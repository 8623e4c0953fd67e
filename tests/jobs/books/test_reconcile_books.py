"""Books that are not what they should be, each told by file, column and row; and every place where books may stand."""

from __future__ import annotations

import asyncio
import csv
import importlib
import traceback
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import postgres_server
from support.export_folder import write_export

from capillary_async.jobs import JobError, ReconcileResult, reconcile
from capillary_async.jobs._books.address import Address, without_password
from capillary_async.jobs._books.duckdb_parquet import wide

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASKED = {"key": "id=award_id", "compare": "points_exclusive=points"}
COUNTS = {"equal": 2, "changed": 1, "missing_in_books": 0, "missing_in_capillary": 1}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Three allocations: 1, 2 and 3 with 10.5, 20.5 and 30.5 points."""
    zeros = {f"{what}_exclusive_value": "0" for what in ("redeemed", "returned", "expired")}
    rows = [
        {"id": n, "customer_id": 1, "status": "AVAILABLE", "points_exclusive": f"{n}0.5"} | zeros for n in (1, 2, 3)
    ]
    return write_export(tmp_path / "export", "allocations", rows)


async def told(export: Path, books: str | Path, **options: Any) -> str:
    """What a run with bad books says."""
    with pytest.raises(JobError) as caught:
        await reconcile(export, books, **{**ASKED, **options})
    return str(caught.value)


def counts(result: ReconcileResult) -> dict[str, int]:
    assert result.comparison is not None
    return dict(result.comparison.counts)


# -- CSV


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "the file is empty; it needs a header line and rows"),
        (b"\n\n", "the file is empty"),
        (b"award_id,points\n", "it has a header and no rows: was it cut off, or not filled yet?"),
        (
            b"award_id;points\n1;2,5\n",
            "row 1: its columns are separated by semicolons ('award_id;points'); save it with",
        ),
        (b"award_id\tpoints\n1\t2\n", "row 1: its columns are separated by tabs"),
        ("award_id,points\n1,2\n".encode("utf-16"), "it is UTF-16; save it as UTF-8, or: iconv -f utf-16"),
        (b"award_id,points,name\n1,2,a\n2,3,Ren\xe9\n", "row 3 is not UTF-8 (Latin-1, perhaps); save it as UTF-8"),
        (b"award_id,points\xe9\n1,2\n", "row 1 is not UTF-8"),
        (b"award_id,amount\n1,2\n", "there is no column 'points'. It has: award_id, amount"),
        (b"award_id,points,points\n1,2,3\n", "two columns are named 'points'; rename one"),
        (b"award_id,points\n1,2\n3\n", "row 3 has 1 columns, and the header has 2"),
        (b"award_id,points\n1,2\n3,4,5\n", "row 3 has 3 columns, and the header has 2"),
        (b'award_id,points,n\n1,2,a\n3,4,"b\n5,6,c\n', 'row 3: a quotation mark (") has no partner'),
        (b'award_id,points,n\n1,2,"a"b\n3,4,"5"\n', 'a quotation mark (") is where none may be'),
        (b"award_id,points\n1,2\r\n3,4\n", "its line ends are mixed, or a cell has one outside of quotation marks"),
        (b"award_id,points,n\n1,2,a\rb\n3,4,c\n", "its line ends are mixed, or a cell has one outside of quotation"),
        (b'award_id,points\n1,"1,000.00"\n', "column 'points', row 2: '1,000.00' has a thousands separator"),
        (
            b'award_id,points\n1,2\n2,"12,5"\n',
            "column 'points', row 3: '12,5' has a thousands separator or a decimal c",
        ),
        (b"award_id,points\n1,12.5 \n", "column 'points', row 2: '12.5 ' has spaces around it; points_exclusive needs"),
        (b"award_id,points\n1,1e3\n", "column 'points', row 2: '1e3' cannot be read; points_exclusive needs a decimal"),
        (b"award_id,points\n1,+5\n", "'+5' cannot be read"),
        (b"award_id,points\n1,.5\n", "'.5' cannot be read"),
        (b"award_id,points\n1,NaN\n", "'NaN' cannot be read"),
        (b"award_id,points\n1,\xd9\xa3\n", "cannot be read"),
        (b"award_id,points\n1,007.5\n", "'007.5' has leading zeros"),
        (b"award_id,points\n1,0." + b"1" * 19 + b"\n", "at most 18 decimals"),
        (b"award_id,points\n1," + b"1" * 60 + b"\n", f"'{'1' * 40}...' cannot be read"),
        (
            b"award_id,points\n1,x\n2,y\n3,4\n",
            "column 'points', row 2: 'x' cannot be read; points_exclusive needs a deci",
        ),
        (b"award_id,points\n1.0,2\n", "column 'award_id', row 2: '1.0' cannot be read; id needs a whole number"),
        (
            b"award_id,points\n99999999999999999999,2\n",
            "column 'award_id', row 2: '99999999999999999999' cannot be read",
        ),
        (b"award_id,points\n1,2\n,3\n,4\n", "column 'award_id', row 3: it is empty and part of the key (2 such rows)"),
        (
            b"award_id,points\n1,2\n5,3\n2,1\n5,4\n",
            "award_id 5 is there more than once, row 3 and row 5. A key names one",
        ),
        (b"award_id,points\n1,2\n1,3\n2,1\n2,4\n", "award_id 1 is there more than once, row 2 and row 3; 2 keys do"),
    ],
)
async def test_bad_csv(export: Path, tmp_path: Path, text: bytes, said: str) -> None:
    """Each names the file, and the column and row where there is one."""
    path = tmp_path / "books.csv"
    path.write_bytes(text)
    message = await told(export, path)
    assert message.startswith(f"{path}: ")
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('1,10.5,5" pipe\n2,20.5,x\n3,30.5,"lost\n4,999,y\n', "row 2: a quotation mark"),
        ('1,10.5,a\n2,20.5,"b\nb"\n\n3,30.5,6" ruler 12" ruler\n', "row 4: a quotation mark"),
        ('1,10.5,x\n2,20.5,y\n3,30.5,"lost\n4,999,"y\n', "row 4: a quotation mark"),
        ('1,10.5,""a""\n2,20.5,y\n', "row 2: a quotation mark"),
        ('1,10.5,x\n2,20.5, "y"\n', "row 3: a quotation mark"),
        ('1,10.5,"x\n2,20.5,y\n', 'row 2: a quotation mark (") has no partner'),
    ],
)
async def test_stray_quotation_marks_hide_no_rows(export: Path, tmp_path: Path, text: str, said: str) -> None:
    """Two strays are even in number, and between them rows vanish in silence."""
    path = tmp_path / "books.csv"
    path.write_text(f"award_id,points,note\n{text}")
    assert said in await told(export, path)


@pytest.mark.parametrize("place", ["run[1]", "run*", "run?", "points=7", "award_id=1", "it's"])
async def test_names_are_no_patterns(tmp_path: Path, place: str) -> None:
    """A name is the file's own: no other file is read, and no column is made of it."""
    rows = [{"id": 1, "customer_id": 1, "status": "A", "points_exclusive": "10"}]
    others = [{"id": 1, "customer_id": 1, "status": "B", "points_exclusive": "99"}]
    export = write_export(tmp_path / place.replace("points", "points_exclusive") / "e", "allocations", rows)
    write_export(tmp_path / "run1" / "e", "allocations", others)
    (tmp_path / place).mkdir(exist_ok=True)
    table = {"award_id": pa.array([1]), "points": pa.array([Decimal(10)])}
    pq.write_table(pa.table(table), tmp_path / place / "b.parquet")
    pq.write_table(pa.table(table | {"points": pa.array([Decimal(99)])}), tmp_path / "run1" / "b.parquet")
    (tmp_path / place / "b.csv").write_text("award_id,points\n1,10\n")
    (tmp_path / "run1" / "b.csv").write_text("award_id,points\n1,99\n")
    for books in ("b.parquet", "b.csv"):
        result = await reconcile(export, tmp_path / place / books, **ASKED)
        assert result.equal, result.lines()
    lines = write_export(tmp_path / place / "lines", "allocations", rows, jsonl=True)
    assert (await reconcile(lines, tmp_path / place / "b.csv", **ASKED)).equal


async def test_only_columns_that_are_compared_must_be_right(export: Path, tmp_path: Path) -> None:
    """A BOM, other line ends, quoted cells, blank lines and any other columns change nothing."""
    lines = [
        "\ufeffname,award_id,points",
        '"Ren\u00e9, ""x""\nof two lines",1,10.5',
        'b,"2",20.500',
        "",
        "c,3,30",
        "d,9,1",
        "",
    ]
    path = tmp_path / "Books.CSV"
    path.write_bytes("\r\n".join(lines).encode())
    assert counts(await reconcile(export, path, **ASKED)) == COUNTS


async def test_bad_times_and_truths(tmp_path: Path) -> None:
    """A time without an offset may be any of 24."""
    row = {"id": 1, "customer_id": 1, "expiry_date": 1_900_000_000_000}
    export = write_export(tmp_path / "export", "allocations", [row])
    path = tmp_path / "books.csv"
    for cell in ("2030-03-17T17:46:40", "2030-13-17T17:46:40Z", "1900000000000"):
        path.write_text(f"award_id,expires\n1,{cell}\n")
        message = await told(export, path, compare="expires_at=expires")
        assert f"column 'expires', row 2: {cell!r} is none, or has no offset" in message


async def test_text_is_compared_as_it_stands(tmp_path: Path) -> None:
    """No case, no space is folded away; a quoted empty cell is a text, an empty one is nothing."""
    rows = [{"id": n, "customer_id": 1, "status": status} for n, status in enumerate(("A", "A", "", None))]
    export = write_export(tmp_path / "export", "allocations", rows)
    path = tmp_path / "books.csv"
    path.write_text('award_id,state\n0,A\n1,a\n2,""\n3,\n')
    result = await reconcile(export, path, key="id=award_id", compare="status=state")
    assert counts(result) == {"equal": 3, "changed": 1, "missing_in_books": 0, "missing_in_capillary": 0}


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(max_examples=20, deadline=None)
@given(cells=st.lists(CELLS, min_size=1, max_size=30), ends=st.sampled_from(["\n", "\r\n"]), quoted=st.booleans())
def test_no_cell_is_lost(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], ends: str, *, quoted: bool
) -> None:
    """Whatever text stands in the cells, every row is read, and every cell as it stands."""
    path = tmp_path_factory.mktemp("cells")
    quoted = quoted or any("\r" in cell for cell in cells)  # csv leaves a lone one bare, which is no CSV
    nothing = "" if quoted else None  # in quotation marks, an empty cell is an empty text
    rows = [{"id": n, "customer_id": 1, "status": cell or nothing} for n, cell in enumerate(cells)]
    export = write_export(path / "export", "allocations", rows)
    with (path / "books.csv").open("w", newline="", encoding="utf-8") as file:
        style = csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL
        writer = csv.writer(file, lineterminator=ends, quoting=style)
        writer.writerows([["award_id", "state"], *([n, cell or None] for n, cell in enumerate(cells))])
    result = asyncio.run(reconcile(export, path / "books.csv", key="id=award_id", compare="status=state"))
    assert counts(result)["equal"] == len(cells)
    assert result.equal


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.csv", "there is no file nowhere.csv; give books.csv, books.parquet"),
        ("mysql://u:pw@host/db", "'mysql://u:***@host/db' is none of books.csv"),
        ("duckdb://nowhere.db", "there is no file nowhere.db"),
        ("postgresql://u:pw@host/db", "postgresql://u:***@host/db: say which table (table, --table)"),
    ],
)
async def test_books_that_are_nowhere(export: Path, given: str, said: str) -> None:
    assert said in await told(export, given)


async def test_files_of_other_kinds(export: Path, tmp_path: Path) -> None:
    (tmp_path / "books.xlsx").write_bytes(b"PK")
    assert "is none of books.csv, books.parquet" in await told(export, tmp_path / "books.xlsx")
    (tmp_path / "books.parquet").write_bytes(b"")
    assert "the file is empty; it needs rows" in await told(export, tmp_path / "books.parquet")
    (tmp_path / "books.parquet").write_bytes(b"award_id,points\n1,2\n")
    assert str(tmp_path / "books.parquet") in await told(export, tmp_path / "books.parquet")


# -- typed books

GOOD = {
    "award_id": pa.array([1, 2, 3, 9]),
    "points": pa.array([Decimal("10.5"), Decimal("20.5"), Decimal(30), Decimal(1)]),
}


def write_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({**GOOD, **columns}), path)
    return path


async def test_parquet_and_duckdb(export: Path, tmp_path: Path) -> None:
    """Amounts of another scale and ids of another width are the same amounts and ids."""
    path = write_parquet(tmp_path / "books.parquet", award_id=pa.array([1, 2, 3, 9], pa.uint32()))
    result = await reconcile(export, path, **ASKED)
    assert counts(result) == COUNTS
    assert len(result.subjects[1].facts["SHA-256 of the file"]) == 64
    with duckdb.connect(str(tmp_path / "books.db")) as database:
        database.execute(f"CREATE SCHEMA fin; CREATE TABLE fin.\"the books\" AS FROM read_parquet('{path}')")
        columns = "award_id::HUGEINT AS award_id, points::DECIMAL(38,10) AS points"
        database.execute(f'CREATE TABLE plain AS SELECT {columns} FROM fin."the books"')
    url = f"duckdb://{tmp_path / 'books.db'}"
    for table in ("fin.the books", "plain", "main.plain"):
        assert counts(await reconcile(export, url, table=table, **ASKED)) == COUNTS
    assert "say which table (table, --table). It has: fin.the books, plain" in await told(export, url)
    assert "there is no such table. It has: fin.the books, plain" in await told(export, url, table="fin.none")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            {"points": pa.array([1.0, 2.0, 3.0, 0.1])},
            "column 'points' is DOUBLE (row 1: '1.0'), and points_exclusive needs a DECIMAL or an integer type: ",
        ),
        (
            {"points": pa.array([1.0, 2.0, 3.0, 4.0])},
            "Cast it where the books are made: CAST(points AS DECIMAL(18,3))",
        ),
        ({"points": pa.array([1.0, 2.0, 3.0, 4.0], pa.float32())}, "column 'points' is FLOAT"),
        ({"points": pa.array(["12.5", "1,000.00", "1", "2"])}, "column 'points' is VARCHAR (row 2: '1,000.00')"),
        ({"points": pa.array(["12.5", "12.5 ", "1", "2"])}, "column 'points' is VARCHAR (row 2: '12.5 ')"),
        ({"points": pa.array([True, False, True, True])}, "column 'points' is BOOLEAN, and points_exclusive needs"),
        (
            {"award_id": pa.array(["1", "2", "3", "9"])},
            "column 'award_id' is VARCHAR (row 1: '1'), and id needs an integer",
        ),
        ({"award_id": pa.array([1.0, 2.0, 3.0, 9.0])}, "column 'award_id' is DOUBLE (row 1: '1.0'), and id needs"),
        (
            {"award_id": pa.array([1, None, 3, None])},
            "column 'award_id', row 2: it is empty and part of the key (2 such",
        ),
        ({"award_id": pa.array([1, 2, 1, 9])}, "award_id 1 is there more than once, row 1 and row 3"),
        (
            {"award_id": pa.array([1, 2, 3, 2**64 - 1], pa.uint64())},
            "column 'award_id', row 4: 18446744073709551615 is beyond what id is compared as, BIGINT",
        ),
    ],
)
async def test_bad_types(export: Path, tmp_path: Path, column: dict[str, Any], said: str) -> None:
    """Nothing is coerced: the column, its type, a row of it, and how to cast it."""
    path = write_parquet(tmp_path / "books.parquet", **column)
    message = await told(export, path)
    assert str(path) in message
    assert said in message


async def test_other_bad_types(tmp_path: Path) -> None:
    """Ids where text stands, and times without a zone."""
    row = {"id": 1, "customer_id": 1, "expiry_date": 1_900_000_000_000, "status": "A"}
    export = write_export(tmp_path / "export", "allocations", [row])
    path = write_parquet(tmp_path / "books.parquet", points=pa.array([0, 0, 0, 0], pa.timestamp("us")))
    message = await told(export, path, compare="expires_at=points")
    assert "column 'points' is TIMESTAMP, and expires_at needs a time with its zone" in message
    assert "a time without its zone may be any of 24" in message
    message = await told(export, path, compare="status=award_id")
    assert "column 'award_id' is BIGINT, and status needs text (VARCHAR). Cast it" in message


async def test_missing_columns_and_empty_tables(export: Path, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "books.parquet")
    assert "there is no column 'amount'. It has: award_id, points" in await told(
        export, path, compare="points_exclusive=amount"
    )
    pq.write_table(pa.table(GOOD).slice(0, 0), path)
    assert "it has no rows" in await told(export, path)


@pytest.mark.parametrize(
    ("given", "compared"),
    [
        ("DECIMAL(18,3)", "DECIMAL(18,3)"),
        ("DECIMAL(5,1)", "DECIMAL(18,3)"),
        ("DECIMAL(20,6)", "DECIMAL(21,6)"),
        ("DECIMAL(38,10)", "DECIMAL(38,10)"),
        ("DECIMAL(38,0)", "DECIMAL(38,3)"),
        ("INTEGER", "DECIMAL(18,3)"),
        ("BIGINT", "DECIMAL(38,3)"),
    ],
)
def test_amounts_are_compared_in_a_type_that_holds_both(given: str, compared: str) -> None:
    assert wide(given) == compared


async def test_amounts_beyond_any_type(export: Path, tmp_path: Path) -> None:
    """What 38 digits cannot hold ends the run; it is never cut."""
    big = pa.array([Decimal("9" * 38), Decimal(1), Decimal(1), Decimal(1)], pa.decimal128(38, 0))
    path = write_parquet(tmp_path / "books.parquet", points=big)
    message = await told(export, path)
    assert f"{path}: column 'points', row 1: {'9' * 38} is beyond what points_exclusive is compared as" in message
    many = pa.array([Decimal(f"0.{'0' * 36}1")] * 4, pa.decimal128(38, 37))
    message = await told(export, write_parquet(path, points=many))
    assert f"{export}: Conversion Error" in message
    assert "a value is beyond what can be compared: amounts of 38 digits, decimals included" in message


# -- PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server's URL."""
    if postgres_server.programs() is None:
        pytest.skip(postgres_server.HOWTO)
    with postgres_server.running() as url:
        yield url


@pytest.fixture
def sql(server: str) -> Any:
    """Runs statements on the server."""
    dbapi = importlib.import_module("adbc_driver_postgresql.dbapi")

    def run(*statements: str) -> None:
        with dbapi.connect(server, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return run


async def test_postgresql(export: Path, server: str, sql: Any) -> None:
    """Numbers keep every digit, names are quoted, and the result shows no password."""
    sql(
        'CREATE TABLE "The Books" (award_id bigint, points numeric, "My State" varchar(20), gone timestamptz)',
        "INSERT INTO \"The Books\" VALUES (1, 10.5, 'AVAILABLE', null), (2, 20.500000, 'AVAILABLE', null), "
        "(3, 30.5000000001, 'AVAILABLE', now()), (9, 1, null, null)",
    )
    options = {"key": "id=award_id", "compare": "points_exclusive=points,status=My State", "table": "public.The Books"}
    result = await reconcile(export, server, **options)  # type: ignore[arg-type]
    assert counts(result) == COUNTS
    assert result.comparison is not None
    assert result.comparison.totals[0].books == Decimal("62.5000000001")
    told = repr(attrs.asdict(result))  # all of it; its own repr is short
    assert "books:***@127.0.0.1" in told
    assert postgres_server.ESCAPED not in told
    assert postgres_server.PASSWORD not in told


@pytest.mark.parametrize("kind", ["numeric(20,0)", "numeric", "numeric(20,2)", "smallint"])
async def test_whole_keys_of_postgresql(export: Path, server: str, sql: Any, kind: str) -> None:
    """Keys of any numeric type are taken where they are whole."""
    sql(
        f"CREATE TABLE books (award_id {kind}, points numeric)",
        "INSERT INTO books VALUES (1.00, 10.5), (2, 20.5), (3, 30), (9, 1)",
    )
    assert counts(await reconcile(export, server, table="books", **ASKED)) == COUNTS


@pytest.mark.parametrize(
    ("kinds", "column", "compared"),
    [
        ("CREATE TYPE state AS ENUM ('AVAILABLE', 'EXPIRED')", "state", "status=s"),
        ("CREATE DOMAIN word AS varchar(20); CREATE DOMAIN state AS word CHECK (value <> '')", "state", "status=s"),
        ("SELECT 1", "char(20)", "status=s"),
        ("SELECT 1", "name", "status=s"),
        ("CREATE DOMAIN amount AS numeric(12,3)", "amount", "points_exclusive=s"),
        ("CREATE DOMAIN number AS numeric(20,0)", "number", "customer_id=s"),
        ("SELECT 1", "uuid", "status=s"),
    ],
)
async def test_types_of_postgresql(  # noqa: PLR0917 - cases and fixtures
    tmp_path: Path, server: str, sql: Any, kinds: str, column: str, compared: str
) -> None:
    """Enumerations, domains, padded text and UUIDs are what they hold."""
    ours = compared.partition("=")[0]
    state = "6f1c2b1e-6f3a-4f6b-9a57-0c1d2e3f4a5b" if column == "uuid" else "AVAILABLE"
    row = {"id": 1, "customer_id": 7, "status": state, "points_exclusive": "10.5"}
    export = write_export(tmp_path / "export", "allocations", [row])
    sql(*kinds.split("; "), f"CREATE TABLE books (award_id numeric(20,0), s {column})")
    sql(f"INSERT INTO books VALUES (1, '{row[ours]}')")
    assert (await reconcile(export, server, table="books", key="id=award_id", compare=compared)).equal
    if ours != "points_exclusive":
        assert (await reconcile(export, server, table="books", key=compared)).equal


async def test_rows_of_postgresql_that_count(export: Path, server: str, sql: Any) -> None:
    """A value is compared in the type of its column; one that no row has is refused with those that there are."""
    sql(
        "CREATE TYPE state AS ENUM ('OPEN', 'CLOSED')",
        "CREATE TABLE books (award_id bigint, points numeric(18,3), s state, program numeric(9,2), c char(5))",
        "INSERT INTO books VALUES (1, 10.5, 'OPEN', 7, 'a'), (2, 20.5, 'OPEN', 7, 'a'), (3, 30, 'OPEN', 7, 'a'), "
        "(9, 1, 'OPEN', 7.00, 'a'), (1, 4, 'CLOSED', 7, 'a'), (2, 4, 'OPEN', 8, 'b'), (3, 3, 'OPEN', null, 'a')",
    )
    where = ["s=OPEN", "program=7", "c=a"]
    assert counts(await reconcile(export, server, table="books", books_where=where, **ASKED)) == COUNTS
    said = await told(export, server, table="books", books_where="s=Open")
    assert "books_where: no row has s 'Open'. It has: CLOSED, OPEN. Did you mean 'OPEN'?" in said
    assert "no row has program=8, c=a" in await told(export, server, table="books", books_where=["program=8", "c=a"])
    assert 'invalid input syntax for type numeric: "x"' in await told(
        export, server, table="books", books_where="program=x"
    )
    assert "there is no column 'State'. It has: award_id, points, s, program, c" in await told(
        export, server, table="books", books_where="State=x"
    )
    assert "Did you mean 'public.books'?" in await told(export, server, table="public.boks")


@pytest.mark.parametrize(
    ("definition", "values", "said"),
    [
        ("award_id numeric, points numeric", "(1.5, 1)", "'1.5' cannot be read; id needs a whole number of 64 bits"),
        ("award_id numeric, points numeric", "(1e20, 1)", "'100000000000000000000' cannot be read; id needs a whole"),
        ("award_id numeric, points numeric", "('NaN', 1)", "'NaN' cannot be read; id needs a whole number"),
        (
            "award_id bigint, points float8",
            "(1, 0.1)",
            "column 'points' is double precision, and points_exclusive needs a DECI",
        ),
        ("award_id bigint, points text", "(1, '1,000.00')", "column 'points' is text, and points_exclusive needs"),
        ("award_id bigint, points money", "(1, 1)", "column 'points' is money, and points_exclusive needs"),
        ("award_id text, points numeric", "('1', 1)", "column 'award_id' is text, and id needs an integer type"),
        (
            "award_id bigint, points numeric",
            "(1, 'NaN')",
            "column 'points', in the row with the key 1: 'NaN' cannot be read",
        ),
        (
            "award_id bigint, points numeric",
            "(null, 1)",
            "column 'award_id', in the row with the key nothing: it is empty",
        ),
        (
            "award_id bigint, points numeric",
            "(5, 1), (5, 2)",
            "award_id 5 is there more than once, in the row with the key 5.",
        ),
        ("award_id bigint, amount numeric", "(5, 1)", "there is no column 'points'. It has: award_id, amount"),
        ("award_id bigint, points numeric", None, "it has no rows: was it not filled yet?"),
    ],
)
async def test_bad_postgresql(  # noqa: PLR0917 - cases and fixtures
    export: Path, server: str, sql: Any, definition: str, values: str | None, said: str
) -> None:
    """Each is told as PostgreSQL names it."""
    sql(f"CREATE TABLE books ({definition})", *([f"INSERT INTO books VALUES {values}"] if values else []))
    message = await told(export, server, table="books")
    assert "/postgres, table books: " in message
    assert said in message


async def test_postgresql_that_refuses(export: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No table, a wrong password, nobody there, no driver: told, and no password shown."""
    assert "there is no such table" in await told(export, server, table="fin.none")
    wrong = server.replace(postgres_server.ESCAPED, "wr0ng%2Fone")
    message = await told(export, wrong, table="books")
    assert "password authentication failed" in message
    assert "wr0ng" not in message
    with pytest.raises(JobError) as caught:
        await reconcile(export, wrong, table="books", **ASKED)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    here = shown.rpartition("await reconcile(export, wrong")[2].partition("in reconcile")[2]
    assert "stage_books" in here
    assert "wr0ng" not in here
    assert caught.value.__context__ is None
    port = server.rpartition(":")[2].partition("/")[0]
    assert "refused" in await told(export, server.replace(port, "1"), table="books")
    monkeypatch.setitem(__import__("sys").modules, "adbc_driver_postgresql.dbapi", None)
    message = await told(export, server, table="books")
    assert 'pip install "capillary-async[jobs,postgres]"' in message
    assert postgres_server.ESCAPED not in message


def test_passwords_are_left_out_of_what_drivers_say() -> None:
    """As they stand in the URL, and as they are meant."""
    address = Address("postgresql://u:p%40w@h/d?sslpassword=k%2Fey")
    said = address.scrubbed("no p%40w, no p@w, no k%2Fey, no k/ey")
    assert said == "no ***, no ***, no ***, no ***"
    assert "p%40w" not in repr(address) + str(address)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p%40w@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u@h/d?password=x&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("postgresql://u:a@b@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql://u@h/d?sslpassword=x", "postgresql://u@h/d?sslpassword=***"),
    ],
)
def test_passwords_are_left_out(url: str, shown: str) -> None:
    assert without_password(url) == shown
