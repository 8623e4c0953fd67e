"""Books and ids of a sandbox, so that the commands of a nightly reconciliation run against it as they are documented.

Invariant: a file that is there already with other contents is never replaced. Called by `_commands/sandbox.py`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

from capillary_async._files.durable import write_file
from capillary_async.cli._demo.agreement import QUANTITIES
from capillary_async.cli._io.run import UnusableError
from capillary_async.cli._io.words import count
from capillary_async.models.exact import EXACT, exact_sum

if TYPE_CHECKING:
    from pathlib import Path

    from capillary_async.sandbox import Sandbox

__all__ = ["today_there", "write_books_of"]

_FIRST, _LAST = date(2025, 6, 1), date(2027, 6, 1)  # expiry dates of the documented commands
_ZONE = timezone(timedelta(hours=5, minutes=30))  # the sandbox's own


def today_there() -> date:
    """Today in the sandbox's zone, in which points expire at the end of a day."""
    return datetime.now(UTC).astimezone(_ZONE).date()


def write_books_of(sandbox: Sandbox, books: Path) -> str:
    """Write the books, and `ids.csv` beside them; return a line for a person.

    Raises:
        UnusableError: A file is there with other contents, or cannot be written.
    """
    ids = books.with_name("ids.csv")
    if books.name == ids.name:
        raise UnusableError("--books takes another name than ids.csv, which the ids are written to")
    rows = [
        row for customer in sandbox.customer_ids for row in sandbox.allocations(customer) if _within(row["expiry_date"])
    ]
    lines = ["award_id,points,status"]
    for row in rows:
        points, *gone = (Decimal(row[column]) for column in QUANTITIES)
        lines.append(f"{row['id']},{EXACT.subtract(points, exact_sum(gone)):f},{row['status']}")
    _write({books: lines, ids: ["customer_id", *map(str, sandbox.customer_ids)]})
    return (
        f"wrote {books} ({count(len(rows), 'row')}: award_id, points left, status) and {ids} "
        f"({count(len(sandbox.customer_ids), 'customer')}): allocations that expire from {_FIRST} to {_LAST}\n"
    )


def _within(milliseconds: int) -> bool:
    return _FIRST <= datetime.fromtimestamp(milliseconds / 1000, _ZONE).date() <= _LAST


def _write(files: dict[Path, list[str]]) -> None:
    data = {path: "".join(f"{line}\n" for line in lines).encode() for path, lines in files.items()}
    for path, text in data.items():
        if path.exists() and path.read_bytes() != text:
            raise UnusableError(f"{path} is there already, with other contents: remove it, or give another name")
    for path, text in data.items():
        try:
            write_file(path, text)
        except OSError as error:
            raise UnusableError(f"cannot write {path}: {error.strerror or error}") from error
