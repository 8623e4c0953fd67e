"""Books in the forms that people have: other text, workbooks, views, partitions; and the nearest form that works."""

from __future__ import annotations

import bz2
import shlex
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.export_folder import write_export
from support.paths import ROOT

from capillary_async.jobs import JobError, ReconcileResult, reconcile

if TYPE_CHECKING:
    from pathlib import Path

ASKED = {"key": "id=award_id", "compare": "points_exclusive=points"}
TABLE = "award_id;points;name\n1;10,5;René\n2;20,5;\n3;30,5;Zoë\n"
PLAIN = "award_id,points,name\n1,10.5,a\n2,20.5,b\n3,30.5,c\n"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three allocations: 1, 2 and 3 with 10.5, 20.5 and 30.5 points."""
    rows = [
        {"id": n, "customer_id": 1, "status": "AVAILABLE", "points_exclusive": f"{n}0.5"}
        | {f"{what}_exclusive_value": "0" for what in ("redeemed", "returned", "expired")}
        for n in (1, 2, 3)
    ]
    return write_export(tmp_path_factory.mktemp("forms") / "export", "allocations", rows)


async def refusal(export: Path, books: str | Path, **options: Any) -> str:
    with pytest.raises(JobError) as caught:
        await reconcile(export, books, **{**ASKED, **options})
    return str(caught.value)


def equal(result: ReconcileResult, rows: int = 3) -> bool:
    return result.comparison is not None and result.comparison.counts["equal"] == rows and result.comparison.equal


# -- text


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("books.csv.bz2", bz2.compress(PLAIN.encode()), {}),
        ("books.tsv", PLAIN.replace(",", "\t").encode(), {}),
        ("books.tsv.bz2", bz2.compress(PLAIN.replace(",", "\t").encode()), {}),
        ("books.txt", PLAIN.encode(), {}),
        ("books.txt", PLAIN.replace(",", "|").encode(), {"delimiter": "|"}),
        ("books.dat", PLAIN.replace(",", "\t").encode(), {"delimiter": "tab"}),
        ("books.csv", TABLE.encode("cp1252"), {"delimiter": ";", "decimal": ",", "encoding": "cp1252"}),
        ("books.csv", TABLE.encode("utf-16"), {"delimiter": ";", "decimal": ",", "encoding": "utf-16"}),
        ("books.csv", TABLE.encode("utf-8-sig"), {"delimiter": ";", "decimal": ",", "encoding": "utf-8"}),
        ("books.csv", b'award_id,points\n1,"10,5"\n2,"20,5"\n3,"30,50"\n', {"decimal": ","}),
    ],
)
async def test_other_text(export: Path, tmp_path: Path, name: str, data: bytes, options: dict[str, str]) -> None:
    """Every form that is said, or that the name says, is read exactly, and the report's command has it."""
    (tmp_path / name).write_bytes(data)
    result = await reconcile(export, tmp_path / name, **{**ASKED, **options})  # type: ignore[arg-type]
    assert equal(result), result.lines()
    for option, value in options.items():
        assert f"--{option} {shlex.quote(value)}" in result.command


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (TABLE.encode(), {}, "separated by semicolons ('award_id;points;name'); save it with commas, and with points"),
        (TABLE.encode(), {}, "or say so (delimiter, --delimiter ';')"),
        (PLAIN.replace(",", "\t").encode(), {}, "or say so (delimiter, --delimiter tab)"),
        (PLAIN.encode(), {"delimiter": ";"}, "separated by commas"),
        (
            TABLE.encode(),
            {"delimiter": ";"},
            "digits before them. If all amounts have a decimal comma, say so (decimal, --decimal ,) (3 such rows)",
        ),
        (PLAIN.encode(), {"decimal": ","}, "'10.5' has a thousands separator or a decimal point, and decimal is ','"),
        (b'award_id,points\n1,"1.000,5"\n', {"decimal": ","}, "'1.000,5' has a thousands separator or a decimal point"),
        (TABLE.encode("cp1252"), {"delimiter": ";"}, "line 2, row 2 is not UTF-8 (Latin-1, perhaps); save it as UTF-8"),
        (TABLE.encode("cp1252"), {"delimiter": ";"}, "or give its encoding (encoding, --encoding), e.g. cp1252"),
        (TABLE.encode("utf-8-sig"), {"encoding": "cp1252"}, "it begins as UTF-8 does, and not as cp1252: leave the en"),
        (
            b"award_id,points\n1,\x81\n",
            {"encoding": "cp1252"},
            "line 2 is not cp1252: it has the byte 0x81; give its t",
        ),
        (TABLE.encode("utf-16"), {}, "it is UTF-16; save it as UTF-8, or: iconv -f utf-16 -t utf-8, or give its encod"),
        (PLAIN.encode(), {"delimiter": ";;"}, "delimiter takes one character, e.g. ';', '|' or tab, got ';;'"),
        (PLAIN.encode(), {"decimal": "'"}, "decimal takes '.' or ',', got \"'\""),
        (PLAIN.encode(), {"encoding": "ansi1"}, "encoding takes a text encoding, e.g. cp1252, latin-1 or utf-16, got"),
        (PLAIN.encode(), {"encoding": "base64"}, "encoding takes a text encoding"),
        (PLAIN.encode(), {"sheet": "1"}, "is text, and a sheet goes with a workbook (.xlsx)"),
        (
            PLAIN.encode(),
            {"compare": "points_exclusive=Points"},
            "It has: award_id, points, name. Did you mean 'points'",
        ),
        (PLAIN.encode(), {"compare": "point_exclusive=points"}, "Did you mean 'points_exclusive'?"),
        (b"award_id, points\xc2\xa0\n1,2\n", {}, "It has: award_id, ' points\\xa0'. Did you mean ' points\\xa0'?"),
        (bz2.compress(PLAIN.encode())[:-5], {}, "its bzip2 data are cut off"),
    ],
)
async def test_text_that_is_refused(
    export: Path, tmp_path: Path, data: bytes, options: dict[str, str], said: str
) -> None:
    """Each message names the nearest thing that works."""
    (tmp_path / "books.csv").write_bytes(data)
    assert said in await refusal(export, tmp_path / "books.csv", **options)


# -- DuckDB


async def test_views_and_schemas(export: Path, tmp_path: Path) -> None:
    """Views are read as tables are, also those that name their database and schema."""
    path = tmp_path / "finance.duckdb"
    with duckdb.connect(str(path)) as database:
        for statement in (
            "CREATE SCHEMA fin",
            "CREATE TABLE fin.base (award_id INTEGER, points DECIMAL(9,2))",
            "INSERT INTO fin.base VALUES (1, 10.5), (2, 20.5), (3, 30.5), (1, 9)",
            "CREATE VIEW fin.good AS SELECT * FROM finance.fin.base WHERE points > 9",
            "CREATE VIEW plain AS FROM fin.good",
            "CREATE VIEW doubled AS FROM fin.base",
            "CREATE VIEW wide AS SELECT award_id, points::DOUBLE AS points FROM fin.base",
            "CREATE VIEW bad AS FROM fin.base",
            "CREATE VIEW broken AS FROM bad",
            "DROP VIEW bad",
        ):
            database.execute(statement)
    url = f"duckdb://{path}"
    for table in ("fin.good", "plain", "main.plain", "finance.fin.good", "finance.plain"):
        assert equal(await reconcile(export, url, table=table, **ASKED)), table
    cases = {
        "fin.god": "It has: broken, doubled, fin.base, fin.good, plain, wide. Did you mean 'fin.good'?",
        "doubled": "award_id 1 is there more than once, in the row with the key 1. A key names one row",
        "wide": "column 'points' is DOUBLE (one row: '",
        "broken": "table broken: ",
    }
    for table, said in cases.items():
        assert said in await refusal(export, url, table=table), table
    assert f"Give {path} alone, and the table with table, --table" in await refusal(export, f"{url}?table=fin.good")
    assert f"give duckdb://{path} and its table (table, --table)" in await refusal(export, path)


# -- what cannot be seen


async def test_values_that_differ_in_what_cannot_be_seen(tmp_path: Path) -> None:
    """They are differences, and are shown with signs; the file of differences has them as they are."""
    states = {1: ("AVAILABLE", "AVAILABLE "), 2: ("A B", "A\u00a0B"), 3: ("EXPIRED", "EXPIRD"), 4: ("A B", "A B")}
    rows = [{"id": n, "customer_id": 1, "status": ours} for n, (ours, _) in states.items()]
    export = write_export(tmp_path / "export", "allocations", rows)
    books, out = tmp_path / "books.csv", tmp_path / "out.parquet"
    books.write_text("award_id,state\n" + "".join(f"{n},{theirs}\n" for n, (_, theirs) in states.items()))
    result = await reconcile(export, books, key="id=award_id", compare="status=state", out=out)
    assert result.comparison is not None
    shown = {each.key: (each.capillary, each.books) for each in result.comparison.first["changed"]}
    assert shown == {
        ("1",): ("AVAILABLE", "AVAILABLE\u2420"), ("2",): ("A\u2420B", "A\\xa0B"), ("3",): ("EXPIRED", "EXPIRD"),
    }  # fmt: skip
    said = (
        "2 status of changed records differ in blanks or invisible characters alone, e.g. 'A\u2420B' in Capillary and"
    )
    assert [each for each in result.warnings if said in each], result.warnings
    assert pq.read_table(out)["books_value"].to_pylist() == ["AVAILABLE ", "A\u00a0B", "EXPIRD"]
    result = await reconcile(export, books, key="id=award_id,status=state")
    assert result.comparison is not None
    assert {each.key for each in result.comparison.first["missing_in_capillary"]} == {
        ("1", "AVAILABLE\u2420"), ("2", "A\\xa0B"), ("3", "EXPIRD")
    }  # fmt: skip
    assert any("2 keys of missing records differ in blanks or invisible" in each for each in result.warnings)


# -- rows that count


@pytest.mark.parametrize("form", ["csv", "parquet", "duckdb"])
async def test_rows_that_count(export: Path, tmp_path: Path, form: str) -> None:
    """Only rows with the values; exactly, in the type of the column."""
    path, options = tmp_path / f"books.{form}", dict[str, Any](ASKED)
    text = "1,10.5,7,A B\n2,20.5,7,A B\n3,30.5,7,C\n1,1,8,A B\n2,1,,A B\n"
    (tmp_path / "books.csv").write_text(f"award_id,points,program_id,state\n{text}")
    with duckdb.connect(str(tmp_path / "books.duckdb")) as database:
        kinds = "{'award_id': 'BIGINT', 'points': 'DECIMAL(9,1)', 'program_id': 'BIGINT', 'state': 'VARCHAR'}"
        database.execute(f"CREATE TABLE t AS FROM read_csv('{tmp_path / 'books.csv'}', columns = {kinds})")
        database.execute(f"COPY t TO '{tmp_path / 'books.parquet'}'")
    if form == "duckdb":
        options["table"] = "t"
    books = f"duckdb://{path}" if form == "duckdb" else str(path)
    result = await reconcile(export, books, books_where=["program_id=7", "state=A B", "state=C"], **options)
    assert equal(result), result.lines()
    assert "--books-where program_id=7 --books-where 'state=A B' --books-where state=C" in result.command
    assert result.subjects[1].facts["Rows where"] == "program_id=7, state=A B or C"
    assert equal(await reconcile(export, books, books_where={"program_id": "7"}, **options))
    some = await reconcile(export, books, books_where="state=C", **options)
    assert some.comparison is not None
    assert some.comparison.counts["missing_in_books"] == 2
    for where, said in {
        "state=a b": "books_where: no row has state 'a b'. It has: A B, C. Did you mean 'A B'?",
        "program_id=9": "books_where: no row has program_id '9'. It has: 7, 8",
        "program=9": "'program'. It has: award_id, points, program_id, state. Did you mean 'program_id'?",
        "program_id": "books_where takes column=value, e.g. program_id=2282, got 'program_id'",
    }.items():
        assert said in await refusal(export, books, books_where=where, **options)
    assert "no row has program_id=8, state=C" in await refusal(
        export, books, books_where={"program_id": "8", "state": "C"}, **options
    )
    if form != "csv":
        said = "books_where: column 'program_id' is BIGINT, and 'x' is none"
        assert said in await refusal(export, books, books_where="program_id=x", **options)
        assert "is BIGINT, and '7.4' is none" in await refusal(export, books, books_where="program_id=7.4", **options)
        assert "and '10.54' is none" in await refusal(export, books, books_where="points=10.54", **options)


async def test_options_with_another_export(export: Path, tmp_path: Path) -> None:
    """They are refused, never ignored; its shards can be books."""
    rows = [{"id": n, "customer_id": 1, "status": "AVAILABLE", "points_exclusive": f"{n}0.5"} for n in (1, 2, 3)]
    other = write_export(tmp_path / "other", "allocations", rows)
    for options, said in (
        ({"table": "t"}, "is another export, and a table goes with duckdb://"),
        ({"delimiter": ";"}, "is another export, and a delimiter goes with text"),
        ({"books_where": "status=AVAILABLE"}, f"give {other / 'shards'} to read its Parquet files as books"),
    ):
        assert said in await refusal(export, other, **options)  # type: ignore[arg-type]
    asked = {"key": "id", "compare": "points_exclusive", "books_where": "status=AVAILABLE"}
    assert equal(await reconcile(export, other / "shards", **asked))  # type: ignore[arg-type]


# -- Parquet in folders


def write_parts(folder: Path, parts: dict[str, list[int]], **more: Any) -> Path:
    """Parts with the awards of these numbers."""
    for nth, (place, awards) in enumerate(parts.items()):
        (folder / place).mkdir(parents=True, exist_ok=True)
        table = {"points": pa.array([Decimal(f"{award}0.5") for award in awards], pa.decimal128(9, 1)), **more}
        pq.write_table(pa.table(table), folder / place / f"part-{nth}.pq")
    return folder


async def test_names_of_folders_are_columns(export: Path, tmp_path: Path) -> None:
    """As keys, as what is compared, and as what says which rows count; from a folder or a glob."""
    folder = write_parts(
        tmp_path / "award_id=9" / "books",
        {
            "month=2026-01/state=AVAILABLE/award_id=1": [1],
            "month=2026-01/state=AVAILABLE/award_id=2": [2],
            "month=2026-02/state=AVAILABLE/award_id=3": [3],
            "month=__HIVE_DEFAULT_PARTITION__/state=A%20B/award_id=4": [4],
        },
    )
    compare = "points_exclusive=points,status=state"
    for books in (folder, folder / "month=2026-0*", folder / "*" / "*" / "award_id=[123]"):
        result = await reconcile(export, books, key=ASKED["key"], compare=compare, books_where="state=AVAILABLE")
        assert equal(result), result.lines()
    result = await reconcile(export, folder, **ASKED, books_where=["month=2026-01", "month=2026-02"])  # type: ignore[arg-type]
    assert equal(result)
    assert "no row has state 'AB'. It has: A B, AVAILABLE. Did you mean 'A B'?" in await refusal(
        export, folder, books_where="state=AB"
    )
    for compared, said in {
        "points_exclusive=month": "column 'month' is VARCHAR (row 1 of month=2026-01/state=AVAILABLE/award_id=1/",
        "points_exclusive=moth": "no column 'moth'. It has: points, award_id, month, state. Did you mean 'month'?",
    }.items():
        assert said in await refusal(export, folder, compare=compared)


@pytest.mark.parametrize(
    ("parts", "more", "said"),
    [
        ({"award_id=x": [1]}, {}, "column 'award_id', the folder of "),
        ({"award_id=01": [1]}, {}, "'01' is no whole number"),
        ({"award_id=1": [1], "": [2]}, {}, "column 'award_id' is the name of a folder, and "),
        ({"award_id=1": [1]}, {"award_id": [1]}, "column 'award_id' is in the files and in the names of their folders"),
        ({"award_id=__HIVE_DEFAULT_PARTITION__": [1]}, {}, "column 'award_id', row 1: it is empty and part of the key"),
        ({"award_id=1": [1, 1]}, {}, "award_id 1 is there more than once"),
    ],
)
async def test_names_of_folders_that_are_refused(
    export: Path, tmp_path: Path, parts: dict[str, list[int]], more: dict[str, Any], said: str
) -> None:
    """They are read as strictly as cells."""
    assert said in await refusal(export, write_parts(tmp_path / "books", parts, **more))


async def test_the_way_of_other_databases(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's statements write Parquet that is read; here the other database is DuckDB's own."""
    monkeypatch.chdir(tmp_path)
    block = (ROOT / "docs/how_to/nightly_reconciliation.md").read_text().partition("```sql\n")[2].partition("```")[0]
    with duckdb.connect("finance.db") as database:
        database.execute("CREATE TABLE awards (id INTEGER, points VARCHAR)")
        database.execute("INSERT INTO awards VALUES (1, '10.5'), (2, '20.5'), (3, '30.500')")
    with duckdb.connect() as other:
        other.execute(block.replace(" (TYPE sqlite)", ""))
    assert equal(await reconcile(export, "books.parquet", **ASKED))  # type: ignore[arg-type]
