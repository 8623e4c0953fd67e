"""`sandbox --books`: books and ids of the sandbox for the documented commands."""

from __future__ import annotations

import csv
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from capillary_async.cli import main
from capillary_async.cli._commands.sandbox_books import today_there, write_books_of
from capillary_async.cli._io.run import UnusableError
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path


def test_books_and_ids(tmp_path: Path) -> None:
    """A row per allocation within the documented dates, with what is left of it; the same files again are fine."""
    sandbox = Sandbox(customers=12, today=today_there())
    said = write_books_of(sandbox, tmp_path / "books.csv")
    with (tmp_path / "books.csv").open(newline="") as file:
        books = list(csv.DictReader(file))
    assert list(books[0]) == ["award_id", "points", "status"]
    held = {row["id"]: row for customer in sandbox.customer_ids for row in sandbox.allocations(customer)}
    assert 0 < len(books) < len(held)
    for row in books:
        own = held[int(row["award_id"])]
        gone = sum(Decimal(own[f"{what}_exclusive_value"]) for what in ("redeemed", "returned", "expired"))
        assert Decimal(row["points"]) == Decimal(own["points_exclusive"]) - gone
    assert f"({len(books)} rows: award_id, points left, status)" in said
    ids = (tmp_path / "ids.csv").read_text().split()
    assert ids == ["customer_id", *map(str, sandbox.customer_ids)]
    assert write_books_of(sandbox, tmp_path / "books.csv") == said


def test_files_that_are_there(tmp_path: Path) -> None:
    """They are the user's own, and stay."""
    sandbox = Sandbox(customers=2)
    (tmp_path / "ids.csv").write_text("mine\n")
    with pytest.raises(UnusableError, match=r"ids\.csv is there already, with other contents: remove it"):
        write_books_of(sandbox, tmp_path / "books.csv")
    assert (tmp_path / "ids.csv").read_text() == "mine\n"
    with pytest.raises(UnusableError, match=r"takes another name than ids\.csv"):
        write_books_of(sandbox, tmp_path / "ids.csv")


def test_the_command_ends_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--port", "0", "--customers", "2", "--books", str(tmp_path / "none" / "books.csv")]) == 1
    assert "cannot write " in capsys.readouterr().err
