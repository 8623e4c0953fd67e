"""The result of a comparison: classes, control totals and the first differences, as values.

Invariant: exact decimals only; data, nothing of DuckDB. Made by `_comparing/compare.py`, shown by `_report/html.py`.

    missing_in_books        the export has the key, the books have not
    missing_in_capillary    the books have the key, the export has not
    changed                 both have it, and a field differs: |delta| > tolerance for amounts, else any difference
    equal                   both have it, and no field differs

Nothing against nothing is equal; nothing against a value, even 0, is a difference, and counts as 0 in deltas and in
totals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from capillary_async._repr import brief_repr
from capillary_async.models.exact import EXACT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from capillary_async.jobs._books.columns import Wanted

__all__ = [
    "CHANGED",
    "CLASSES",
    "EQUAL",
    "MISSING_IN_BOOKS",
    "MISSING_IN_CAPILLARY",
    "BothSides",
    "Comparison",
    "Difference",
    "FieldTotals",
    "Size",
]

MISSING_IN_BOOKS, MISSING_IN_CAPILLARY, CHANGED, EQUAL = CLASSES = (
    "missing_in_books",
    "missing_in_capillary",
    "changed",
    "equal",
)


@frozen
class FieldTotals:
    """The control totals of one amount.

    Attributes:
        field: The column of the export.
        capillary: Its sum over the export.
        books: The sum of its column of the books.
        deltas: The part of the difference that is in each class; `equal` has what is within the tolerance.
        changed: Records whose amount differs by more than the tolerance.
    """

    field: str
    capillary: Decimal
    books: Decimal
    deltas: Mapping[str, Decimal]
    changed: int

    __repr__ = brief_repr

    @property
    def difference(self) -> Decimal:
        """The export's total minus that of the books."""
        return EXACT.subtract(self.capillary, self.books)


@frozen
class Difference:
    """One row of the differences: a missing record's field, or a field that differs.

    Texts are as they are shown: with signs for blanks and invisible characters where these matter.
    """

    kind: str
    key: tuple[str, ...]
    field: str | None
    capillary: str | None
    books: str | None
    delta: Decimal | None
    asked_key: str | None

    __repr__ = brief_repr


@frozen
class Size:
    """The differences of a class and field that are of one size.

    Attributes:
        kind: The class.
        field: The amount's column.
        label: The size in words, e.g. `10 to 100`.
        count: How many.
        delta: The sum of their deltas.
    """

    kind: str
    field: str
    label: str
    count: int
    delta: Decimal

    __repr__ = brief_repr


@frozen
class BothSides:
    """What both sides have with one value of a column.

    Attributes:
        value: The value, as text; None where there is none.
        capillary: Records of the export.
        books: Rows of the books.
        totals: The sums of each amount, the export's first.
    """

    value: str | None
    capillary: int
    books: int
    totals: Mapping[str, tuple[Decimal, Decimal]]

    __repr__ = brief_repr

    @property
    def differences(self) -> dict[str, Decimal]:
        """The export's sums minus those of the books, by amount."""
        return {field: EXACT.subtract(ours, theirs) for field, (ours, theirs) in self.totals.items()}


@frozen
class Comparison:
    """The result of a comparison.

    Attributes:
        wanted: The columns that were compared.
        capillary: Records of the export that were compared, each once.
        books: Rows of the books.
        counts: How many records or rows are in each class.
        within_tolerance: How many of the equal ones differ by no more than the tolerance.
        totals: The control totals of each amount.
        changed: For each field, how many records differ in it.
        sizes: The differences of amounts, by class and size.
        first: Of each class, the first hundred, the largest first.
        repeated: Records of the export left out since they had come before.
        groups: What both sides have by the values of the column that groups, if it is one that is compared.
    """

    wanted: tuple[Wanted, ...]
    capillary: int
    books: int
    counts: Mapping[str, int]
    within_tolerance: int
    totals: tuple[FieldTotals, ...]
    changed: Mapping[str, int]
    sizes: tuple[Size, ...]
    first: Mapping[str, tuple[Difference, ...]]
    repeated: int
    groups: tuple[BothSides, ...] = ()

    __repr__ = brief_repr

    @property
    def equal(self) -> bool:
        """Whether every record and row is in the class `equal`."""
        return all(not self.counts[kind] for kind in CLASSES if kind != EQUAL)
