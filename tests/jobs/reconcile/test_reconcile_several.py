"""Several exports as one against one set of books, and totals by a column of choice."""

from __future__ import annotations

import shlex
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.export_folder import write_export

from capillary_async.cli import main
from capillary_async.jobs import JobError, reconcile

if TYPE_CHECKING:
    from pathlib import Path

ASKED: dict[str, Any] = {"key": "id=award_id", "compare": "points_exclusive=points"}


def allocation(number: int, program: int, **more: Any) -> dict[str, Any]:
    """An allocation with nothing wrong with it."""
    zeros = {f"{what}_exclusive_value": "0" for what in ("redeemed", "returned", "expired")}
    own = {"id": number, "customer_id": 7, "status": "AVAILABLE", "points_exclusive": f"{number}0.5"}
    return zeros | own | {"program_id": program, "expiry_date": 4_000_000_000_000} | more


@pytest.fixture
def programs(tmp_path: Path) -> list[Path]:
    """Exports of two programs, one of them in JSON Lines."""
    one = write_export(tmp_path / "one", "allocations", [allocation(1, 71), allocation(2, 71)], per_shard=1)
    two = write_export(tmp_path / "two", "allocations", [allocation(3, 72)], jsonl=True)
    return [one, two]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    path = tmp_path / "books.csv"
    path.write_text("award_id,points\n1,10.5\n2,20.5\n3,30.5\n")
    return path


async def test_several_exports(programs: list[Path], books: Path, tmp_path: Path) -> None:
    """Each with its own facts and checks, all rows in one comparison."""
    result = await reconcile(programs, books, by="program_id", out=tmp_path / "out.parquet", **ASKED)
    assert result.equal
    assert result.comparison is not None
    assert result.comparison.counts["equal"] == result.records == 3
    assert result.warnings == ()
    assert [each.label for each in result.subjects] == [*map(str, programs), str(books)]
    assert shlex.split(result.command)[2:4] == [str(each) for each in programs]
    assert [(each.value, each.records, each.points["remaining"]) for each in result.groups] == [
        ("71", 2, Decimal("31.000")),
        ("72", 1, Decimal("30.500")),
    ]
    assert "program_id 71: 2 records, points_exclusive 31.000, remaining 31.000" in result.lines()
    assert (await reconcile(programs[0], **ASKED | {"key": (), "compare": ()})).records == 2


async def test_both_sides_by_a_column(programs: list[Path], tmp_path: Path) -> None:
    """Where the column is compared, each side by its own values; also those that only one has."""
    books = tmp_path / "books.csv"
    books.write_text("award_id,points,program\n1,10.5,71\n2,20,71\n4,1.25,73\n")
    report = tmp_path / "report.html"
    result = await reconcile(
        programs, books, key="id=award_id,program_id=program", compare=ASKED["compare"], by="program_id", report=report
    )
    assert result.comparison is not None
    assert [(each.value, each.capillary, each.books) for each in result.comparison.groups] == [
        ("71", 2, 2),
        ("72", 1, 0),
        ("73", 0, 1),
    ]
    lines = result.lines()
    assert "program_id 71: 2 records, 2 rows of the books, points_exclusive 31.000 - 30.500 = +0.500" in lines
    assert "program_id 73: 0 records, 1 row of the books, points_exclusive 0.000 - 1.250 = -1.250" in lines
    assert "Both sides by program_id" in report.read_text()


async def test_one_of_several_is_changed_or_incomplete(tmp_path: Path, books: Path, programs: list[Path]) -> None:
    """Its own manifest says so, by its folder."""
    ids = {"asked": 2, "found": 1, "empty": 0, "failed": 1, "digest": "x"}
    bad = write_export(tmp_path / "bad", "allocations", [allocation(4, 73)], ids=ids, records=9, complete=False)
    result = await reconcile([*programs, bad], books, **ASKED)
    broken = {each.rule.name: each for each in result.broken}
    assert [each.record for each in broken["export-complete"].examples] == [str(bad)]
    assert [each.record for each in broken["manifest-totals"].examples] == [str(bad)]


async def test_a_record_in_two_exports(tmp_path: Path, books: Path, programs: list[Path]) -> None:
    """It is compared once, with a warning; with other content it is refused."""
    again = write_export(tmp_path / "again", "allocations", [allocation(3, 72)])
    result = await reconcile([*programs, again], books, **ASKED)
    assert result.comparison is not None
    assert result.comparison.counts["equal"] == 3
    assert any("1 record came more than once in " in each for each in result.warnings)
    other = write_export(tmp_path / "other", "allocations", [allocation(3, 72, points_exclusive="9")])
    with pytest.raises(JobError, match="the record id 3 came twice with other content"):
        await reconcile([*programs, other], books, **ASKED)


async def test_folders_that_are_refused(tmp_path: Path, books: Path, programs: list[Path]) -> None:
    """Other kinds, the same folder twice, no folder; and columns that are no groups."""
    events = write_export(tmp_path / "events", "events", [{"id": 1, "customer_id": 7}])
    for folders, said in (
        ([programs[0], events], f"{events} is an export of events, and {programs[0]} one of allocations"),
        ([programs[0], programs[0]], "are the same export; name it once"),
        ([], "give the folder of an export, or several; none was given"),
    ):
        with pytest.raises(JobError) as caught:
            await reconcile(folders, books, **ASKED)
        assert said in str(caught.value)
    for by, said in {
        "program": "has no column 'program'. It has: asked_key, ",
        "programm_id": "Did you mean 'program_id'?",
        "points_exclusive": "by takes a column of whole numbers or texts, and points_exclusive is DECIMAL(18,3)",
    }.items():
        with pytest.raises(JobError) as caught:
            await reconcile(programs, by=by)
        assert said in str(caught.value)


def test_the_command(programs: list[Path], books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders one after the other, before or after the options."""
    options = ["--books", str(books), "--key", ASKED["key"], "--compare", ASKED["compare"], "--by", "program_id"]
    assert main(["reconcile", *map(str, programs), *options]) == 0
    assert "program_id 72: 1 record, points_exclusive 30.500, remaining 30.500" in capsys.readouterr().out
    assert main(["reconcile", *options, *map(str, programs)]) == 0
    assert main(["reconcile", str(programs[0]), *options]) == 3
