"""Rows received of a list, and the total that the server reports: `RowCount`.

Invariant: values only; a total smaller than the rows received has another meaning and is ignored. Called by
`ListReader`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

if TYPE_CHECKING:
    from capillary_async._paging.source import FetchedPage

__all__ = ["RowCount"]


@define
class RowCount:
    """Rows received up to the last page given, nulls and duplicates included.

    Attributes:
        received: Number of rows.
        total: Rows of the whole list, as its last answer with rows reports; None where none does.
    """

    received: int
    total: int | None = None

    @property
    def missing(self) -> int:
        """Rows of the total that were not received."""
        return _missing(self.total, self.received)

    def missing_after(self, page: FetchedPage[Any]) -> int:
        """Rows that the total of the next page reports beyond that page."""
        return _missing(page.total, self.received + page.received)

    def after(self, page: FetchedPage[Any]) -> RowCount:
        """The count with one more page."""
        total = page.total if page.received or self.total is None else self.total
        return RowCount(self.received + page.received, total)

    def warning(self, name: str) -> str:
        """The message for a list that ended before its total."""
        return (
            f"{name}: the server says that the list has {self.total} rows, and it ended after {self.received}: "
            f"{self.missing} may be missing. Read it again, and report it to Capillary if it comes again"
        )


def _missing(total: int | None, received: int) -> int:
    return 0 if total is None else max(0, total - received)
