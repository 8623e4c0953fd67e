"""The demo's books: the points left of each award, with differences planted, and whether exactly those were found.

Invariant: the books are made of the sandbox's own rows, never of the export that they are compared with. Used by
`_demo/jobs_chain.py`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import frozen

from capillary_async._files.durable import write_file
from capillary_async.cli._demo.agreement import QUANTITIES
from capillary_async.cli._io.words import count
from capillary_async.models.exact import EXACT, exact_sum

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from capillary_async.sandbox import Sandbox

__all__ = ["COMPARE", "KEY", "Planted", "Planting", "disagreements", "write_books"]

KEY, COMPARE = {"id": "award_id"}, {"remaining": "points"}
_LEFT_OUT = 3
_SHOWN = 10  # disagreements; more of the same would hide the first
_CHANGES = tuple(map(Decimal, ("0.001", "-0.01", "1", "250")))
_TOO_MANY = tuple(map(Decimal, ("12.345", "100")))

_MISSING_IN_BOOKS, _MISSING_IN_CAPILLARY, _CHANGED = "missing_in_books", "missing_in_capillary", "changed"
Difference = tuple[str, int, Decimal | None, Decimal | None]  # class, id, points in Capillary, points in the books


@frozen
class Planted:
    """The differences in the books.

    Attributes:
        rows: How many rows they have.
        differences: Every difference from what the sandbox holds: class, id, points there, points in the books.
    """

    rows: int
    differences: frozenset[Difference]

    def described(self) -> str:
        """Describe the differences."""
        kinds = Counter(kind for kind, *_ in self.differences)
        changes = [
            abs(ours - theirs) for _, _, ours, theirs in self.differences if ours is not None and theirs is not None
        ]
        sizes = f" by {min(changes)} to {max(changes)}" if changes else ""
        return (
            f"{count(self.rows, 'row')}: {kinds[_MISSING_IN_BOOKS]} left out, {kinds[_MISSING_IN_CAPILLARY]} too many, "
            f"{kinds[_CHANGED]} changed{sizes}"
        )


@frozen
class Planting:
    """Planted differences, and what the jobs found otherwise.

    Attributes:
        planted: How many differences were planted.
        disagreements: In words: what was not found, and what was found and not planted.
    """

    planted: int
    disagreements: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the verdict, and below it the first disagreements."""
        number, wrong = count(self.planted, "planted difference"), self.disagreements
        if not wrong:
            yield f"FOUND: exactly the {number}, no more and no less"
            return
        yield f"NOT AS PLANTED: {count(len(wrong), 'disagreement')} with the {number}"
        yield from (f"  {line}" for line in wrong[:_SHOWN])
        if len(wrong) > _SHOWN:
            yield f"  ... and {len(wrong) - _SHOWN} more"


def write_books(path: Path, sandbox: Sandbox, seed: int) -> Planted:
    """Write the books as a CSV file; the same seed plants the same differences."""
    rows = (row for customer in sandbox.customer_ids for row in sandbox.allocations(customer))
    left = {row["id"]: _left(row) for row in rows}
    chosen = Random(seed).sample(sorted(left), min(_LEFT_OUT + len(_CHANGES), len(left)))
    books: dict[int, Decimal] = dict(left)
    differences: set[Difference] = set()
    for id_ in chosen[:_LEFT_OUT]:
        del books[id_]
        differences.add((_MISSING_IN_BOOKS, id_, left[id_], None))
    for id_, change in zip(chosen[_LEFT_OUT:], _CHANGES, strict=False):  # a tiny sandbox has fewer rows
        books[id_] = left[id_] + change
        differences.add((_CHANGED, id_, left[id_], books[id_]))
    for id_, points in enumerate(_TOO_MANY, start=max(left, default=0) + 1):
        books[id_] = points
        differences.add((_MISSING_IN_CAPILLARY, id_, None, points))
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow((KEY["id"], COMPARE["remaining"]))
    writer.writerows((id_, f"{points:f}") for id_, points in books.items())
    write_file(path, lines.getvalue().encode())
    return Planted(len(books), frozenset(differences))


def disagreements(planted: Planted, differences: Path) -> list[str]:
    """Return the planted differences that the Parquet file does not have, and those in it that were not planted."""
    import duckdb  # noqa: PLC0415 - the extra may be missing

    with duckdb.connect() as reading:
        query = "SELECT class, id, capillary_value, books_value FROM read_parquet(?)"
        rows = reading.execute(query, [str(differences)]).fetchall()
    seen = Counter[Difference]((kind, id_, _amount(ours), _amount(theirs)) for kind, id_, ours, theirs in rows)
    expected = Counter(planted.differences)
    missed = [f"planted and not found: {_described(each)}" for each in sorted((expected - seen).elements(), key=str)]
    return missed + [
        f"found and not planted: {_described(each)}" for each in sorted((seen - expected).elements(), key=str)
    ]


def _left(row: Mapping[str, Any]) -> Decimal:
    """Return the points left of an award, not those issued."""
    points, *gone = (Decimal(row[column]) for column in QUANTITIES)
    return EXACT.subtract(points, exact_sum(gone))


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _described(difference: Difference) -> str:
    kind, id_, ours, theirs = difference
    return f"award {id_} {kind.replace('_', ' ')}, Capillary {ours}, books {theirs}"
