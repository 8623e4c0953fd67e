"""Books in Excel workbooks: exact, or refused with the row."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.export_folder import write_export
from support.workbook import write_workbook

from capillary_async._files.workbook import cell_text
from capillary_async.jobs import JobError, ReconcileResult, reconcile

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("python_calamine")
ASKED: dict[str, Any] = {"key": "id=award_id", "compare": "points_exclusive=points"}
HEADER = ("award_id", "points", "state", 2026)
DATE = '<v>46023.125</v>|s="1"'
NO_VALUE, DIVIDED = "<f>A2+1</f><v></v>|", '<v>#DIV/0!</v>|t="e"'


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three allocations: 1, 2 and 3 with 10.5, 20.5 and 30.5 points."""
    rows = [{"id": n, "customer_id": 1, "status": "A", "points_exclusive": f"{n}0.5"} for n in (1, 2, 3)]
    return write_export(tmp_path_factory.mktemp("workbook") / "export", "allocations", rows)


async def refusal(export: Path, books: Path, **options: Any) -> str:
    with pytest.raises(JobError) as caught:
        await reconcile(export, books, **{**ASKED, **options})
    return str(caught.value)


def equal(result: ReconcileResult) -> bool:
    return result.comparison is not None and result.comparison.counts["equal"] == 3 and result.comparison.equal


async def test_numbers_and_text(export: Path, tmp_path: Path) -> None:
    """Both kinds of cells, empty rows, formulas with their value, and columns that are not compared with anything."""
    rows = [
        HEADER, (1, 10.5, "A"), ("2", "20.50", "A"), (None, None, "  "), (3.0, "<f>A5*10+0.5</f><v>30.5</v>|", "A"),
        (None, None, None),
    ]  # fmt: skip
    rows[1] = (*rows[1], DIVIDED)
    books = write_workbook(tmp_path / "books.xlsx", {"Books": rows, "Notes": []})
    result = await reconcile(export, books, sheet="Books", **ASKED)
    assert equal(result), result.lines()
    assert result.subjects[1].label == f"{books}, sheet Books"
    assert len(result.subjects[1].facts["SHA-256 of the file"]) == 64
    assert "--sheet Books" in result.command
    only = write_workbook(tmp_path / "books.csv", {"Books": rows})  # known by its contents
    assert equal(await reconcile(export, only, **ASKED | {"compare": "points_exclusive=points,status=state"}))
    commas = [HEADER, (1, 10.5, "A"), (2, "20,5", "A"), (3, 30.5, "B"), (4, 1, "C")]
    books = write_workbook(tmp_path / "commas.xlsx", {"Books": commas})
    assert equal(await reconcile(export, books, decimal=",", books_where=["state=A", "state=B"], **ASKED))


@pytest.mark.parametrize(
    ("row", "compare", "said"),
    [
        (
            (1, 0.30000000000000004, "A"),
            "",
            "column 'points', row 2: 0.30000000000000004 has more than the 15 digits",
        ),
        (
            (1, 12345678901234.566, "A"),
            "",
            "has more than the 15 digits that Excel keeps; round it or store it",
        ),
        ((1e15, 1, "A"), "", "column 'award_id', row 2: 1000000000000000 has more than the 15 digits"),
        ((1.5, 1, "A"), "", "column 'award_id', row 2: '1.5' cannot be read; id needs a whole number"),
        (
            (1, DIVIDED, "A"),
            "",
            "row 2: the cell has the error #DIV/0!; save the workbook with Excel, with a val",
        ),
        ((1, NO_VALUE, "A"), "", "row 2: the cell has a formula that was never computed"),
        (
            (1, DATE, "A"),
            "",
            "row 2: 2026-01-01T03:00:00 is a date or time of Excel; store it as text, with",
        ),
        ((1, "1,000.00", "A"), "", "row 2: '1,000.00' has a thousands separator"),
        ((1, "<v>1</v>|t='b'", "A"), "", "row 2: 'true' cannot be read"),
        ((1, 1, 7), "status=state", "column 'state', row 2: 7.0 is a number of Excel; store it as text"),
        (
            (1, 1, DATE),
            "expires_at=state",
            "2026-01-01T03:00:00 is a date or time of Excel; store it as text, with its",
        ),
        ((None, 1, "A"), "", "column 'award_id', row 2: it is empty and part of the key"),
        ((1, 1, "A"), "points_exclusive=Point", "It has: award_id, points, state, 2026. Did you mean 'points'?"),
    ],
)
async def test_cells_that_are_refused(
    export: Path, tmp_path: Path, row: tuple[Any, ...], compare: str, said: str
) -> None:
    """Nothing is rounded, and no error of a formula is an empty cell."""
    books = write_workbook(tmp_path / "books.xlsx", {"Books": [HEADER, row]})
    assert said in await refusal(export, books, compare=compare or ASKED["compare"])


async def test_sheets_that_are_refused(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message says which there are."""
    books = write_workbook(tmp_path / "books.xlsx", {"Jan 2026": [HEADER], "Feb 2026": []})
    assert "it has several sheets, 'Jan 2026', 'Feb 2026': say which (sheet, --sheet)" in await refusal(export, books)
    for sheet, said in {
        "jan2026": "there is no sheet 'jan2026'. It has: 'Jan 2026', 'Feb 2026'. Did you mean 'Jan 2026'?",
        "Jan 2026": "it has a header and no rows: was it not filled yet?",
        "Feb 2026": "sheet 'Feb 2026' is empty; it needs a header and rows",
    }.items():
        assert said in await refusal(export, books, sheet=sheet)
    assert "is a workbook, and a delimiter goes with text" in await refusal(export, books, delimiter=";")
    low = write_workbook(tmp_path / "low.xlsx", {"Books": [HEADER, (1, 1, "A")]}, first=3)
    assert "row 1 is empty, and the header is in row 3: remove what is above it" in await refusal(export, low)
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04")
    assert "It is no workbook: save it again as .xlsx" in await refusal(export, tmp_path / "broken.xlsx")
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    message = await refusal(export, low)
    assert 'needs the extra excel: pip install "capillary-async[cli,jobs,excel]"; or save the sheet as CSV' in message


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (-0.0, "0"), (1e-7, "0.0000001"), (123456789012345.0, "123456789012345"), (0.1, "0.1"), ("", None)],
)
def test_texts_of_cells(value: Any, text: str | None) -> None:
    assert cell_text(value, text=False) == text
