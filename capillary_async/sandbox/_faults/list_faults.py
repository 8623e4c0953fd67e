"""Faults of lists: pages that repeat, are capped or ignored, and rows that move between the reading of two pages.

Invariant: these alter which rows an answer holds, never how it is sent; several may be played on one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

from capillary_async._repr import brief_repr
from capillary_async.sandbox._faults.faults import Fault
from capillary_async.sandbox._protocol.answers import Answer, neo_error
from capillary_async.sandbox._protocol.query import Window
from capillary_async.sandbox._world.records import Row

__all__ = [
    "NotFoundPastEnd",
    "NullEntries",
    "PageCap",
    "PagingIgnored",
    "RepeatedPage",
    "RowsChanged",
    "RowsInserted",
    "RowsRemoved",
]


@attrs.frozen
class RepeatedPage(Fault):
    """A page is answered with the rows of the page before it.

    Example:
        >>> faults = [RepeatedPage(page=3)]     # page 3 has the rows of page 2
    """

    page: int | None = attrs.field(default=2, kw_only=True)

    __repr__ = brief_repr

    def window(self, window: Window) -> Window:
        """The page before; the first page stays."""
        if window.offset is None:
            return attrs.evolve(window, page=max(1, window.page - 1))
        return attrs.evolve(window, offset=max(0, window.offset - window.size))


@attrs.frozen
class PagingIgnored(Fault):
    """Every page is answered with the first one: the server ignores `page`.

    Example:
        >>> faults = [PagingIgnored(path="loyaltyEvents")]
    """

    times: int | None = attrs.field(default=None, kw_only=True)

    __repr__ = brief_repr

    def window(self, window: Window) -> Window:
        """The first page."""
        return attrs.evolve(window, page=1, offset=None)


@attrs.frozen
class PageCap(Fault):
    """No page holds more rows than this, whatever `count` or `limit` says, and nothing is said about it.

    Attributes:
        limit: Rows on a page at most.

    Example:
        >>> faults = [PageCap(50)]
    """

    limit: int = attrs.field(default=50, validator=attrs.validators.ge(1))
    times: int | None = attrs.field(default=None, kw_only=True)

    __repr__ = brief_repr

    def window(self, window: Window) -> Window:
        """The page of that many rows."""
        return attrs.evolve(window, size=min(window.size, self.limit))


@attrs.frozen
class NotFoundPastEnd(Fault):
    """A page past the end is 404 instead of empty.

    Example:
        >>> faults = [NotFoundPastEnd()]
    """

    times: int | None = attrs.field(default=None, kw_only=True)

    __repr__ = brief_repr

    def past_end(self) -> Answer:
        """The refusal."""
        return neo_error(404, "No data found for the requested page")


@attrs.frozen
class NullEntries(Fault):
    """Null entries among the rows of a page.

    Attributes:
        count: How many, after the first row.

    Example:
        >>> faults = [NullEntries(2, path="getLedgerExplodeInfo")]
    """

    count: int = 1

    __repr__ = brief_repr

    def entries(self, rows: list[Any]) -> list[Any]:
        """The rows with the nulls among them."""
        return [*rows[:1], *[None] * self.count, *rows[1:]]


@attrs.frozen
class RowsInserted(Fault):
    """New rows stand at the front of the list from the moment that a page is read, so that later pages repeat rows.

    Attributes:
        rows: How many.
        page: Just before which page is read; 2 by default.

    Example:
        >>> faults = [RowsInserted(1)]                  # page 2 begins with the last row of page 1
        >>> faults = [RowsInserted(times=None)]         # the list moves at every reading of page 2
    """

    rows: int = 1
    page: int | None = attrs.field(default=2, kw_only=True)
    moves_rows: ClassVar[bool] = True

    __repr__ = brief_repr

    def move(self, rows: Sequence[Row], nth: int) -> Sequence[Row]:
        """The list with new rows in front; they are like its first row, with ids of their own."""
        if not rows:
            return rows
        top = max(int(row["id"]) for row in rows)
        return [*(_like(rows[0], top + 1 + n, f"inserted{nth}x{n}") for n in range(self.rows)), *rows]


@attrs.frozen
class RowsRemoved(Fault):
    """Rows vanish from the front of the list from the moment that a page is read, so that later pages skip rows.

    Attributes:
        rows: How many.
        page: Just before which page is read; 2 by default.

    Example:
        >>> faults = [RowsRemoved(1)]                   # page 2 begins one row too late
    """

    rows: int = 1
    page: int | None = attrs.field(default=2, kw_only=True)
    moves_rows: ClassVar[bool] = True

    __repr__ = brief_repr

    def move(self, rows: Sequence[Row], nth: int) -> Sequence[Row]:  # noqa: ARG002
        """The list without its first rows."""
        return rows[self.rows :]


@attrs.frozen
class RowsChanged(Fault):
    """Rows change from the moment that a page is read: same ids, other content.

    Together with `RowsInserted` a row is seen twice with different content.

    Attributes:
        rows: How many rows from the front of the list; None for all.
        page: Just before which page is read; 2 by default.

    Example:
        >>> faults = [RowsInserted(1), RowsChanged()]
    """

    rows: int | None = None
    page: int | None = attrs.field(default=2, kw_only=True)
    moves_rows: ClassVar[bool] = True

    __repr__ = brief_repr

    def move(self, rows: Sequence[Row], nth: int) -> Sequence[Row]:
        """The list with the changed rows: a later update time, or another status."""
        changed = len(rows) if self.rows is None else self.rows
        return [_changed(row, nth) for row in rows[:changed]] + list(rows[changed:])


def _like(row: Row, new_id: int, unique_id: str) -> Row:
    return row | {"id": new_id} | ({"uniqueId": unique_id} if "uniqueId" in row else {})


def _changed(row: Row, nth: int) -> Row:
    if "auto_update_time" in row:
        return row | {"auto_update_time": row["auto_update_time"] + 1000 * (nth + 1)}
    return row | {"status": f"REPROCESSED_{nth}"}
