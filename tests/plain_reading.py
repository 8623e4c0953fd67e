"""Reading a list one page after the other, as the documentation says it: what other readings are compared with.

The rule kept here: nothing of the package's paging is used, nothing runs at once, and each rule is said once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from capillary_async._pager import Position
from capillary_async.errors import NotFoundError, PageLoopError, RecordConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fake_list import Row

CAPS = {10, 20, 25, 50, 100, 200, 250, 500}


@frozen
class Given:
    """A page as it is given: `Page` without what a server adds, and the row of each item."""

    number: int
    items: tuple[Row, ...]
    position: Position
    last: bool
    rows: tuple[int, ...] = field(eq=False, default=())

    def position_behind(self, count: int) -> Position:
        """Where reading goes on behind its first items."""
        if count >= len(self.items):
            return self.position
        return Position(self.number, self.rows[count], self.position.page_size)


@define
class Reading:
    """What a reading comes to."""

    pages: list[Given] = field(factory=list)
    error: type[BaseException] | None = None
    position: Position = field(factory=lambda: Position(1))
    duplicates: int = 0

    @property
    def items(self) -> list[Row]:
        """All that was given."""
        return [item for page in self.pages for item in page.items]

    def position_behind(self, count: int, start: Position) -> Position:
        """Where a loop over records stands that took so many of them."""
        behind = start
        for page in self.pages:
            if not count:
                return behind
            if count < len(page.items):
                return page.position_behind(count)
            count -= len(page.items)
            behind = page.position
        return behind


@frozen
class Answer:
    """What a server says to one question: rows, or an error; `refusal` is raised behind the rows."""

    rows: Sequence[Row | None] = ()
    error: BaseException | None = None
    refusal: BaseException | None = None


def read_plainly(  # noqa: C901, PLR0912, PLR0915 - one loop, as the documentation tells it
    ask: Callable[[int, int], Answer],
    page_size: int,
    *,
    start: Position | None = None,
    max_items: int | None = None,
    pages: int | None = None,
) -> Reading:
    """Read a list, or a walk over ids where `pages` says how many there are."""
    start = start or Position(1)
    number, skip = start.page, start.index
    size = start.page_size or page_size
    settled = start.page_size is not None
    after_full = start.page > 1 and not skip
    reading = Reading()
    accepted: list[list[Row | None]] = []

    def here() -> Position:
        return Position(number, skip, size if settled and pages is None else None)

    while True:
        reading.position = here()
        if max_items is not None and len(reading.items) >= max_items:
            return reading
        if pages is not None and number > pages:
            return reading
        answer = ask(number, size)
        if answer.error is not None:
            plain = type(answer.error) is NotFoundError and not answer.error.html
            if not (plain and after_full and pages is None):
                reading.error = type(answer.error)
            return reading
        rows = list(answer.rows)

        # The size: page 1 tells a server's cap; a page as long as asked tells there is none.
        full, newly_settled, new_size = size, settled, size
        if len(rows) >= size:
            newly_settled = True
        elif not settled:
            full = len(rows) if len(rows) in CAPS else size
            if start.page == 1 and rows:
                newly_settled, new_size = True, full

        # Records given before, by this reading.
        known: dict[int, None] = {row.id: None for page in accepted for row in page if row and row.id is not None}
        fresh: list[tuple[int, Row]] = []
        duplicates = 0
        for index, row in enumerate(rows):
            if row is None:
                continue
            twice = row.id is not None and row.id in known
            if twice and any(other.id == row.id and other != row for other in _near(accepted, rows[:index])):
                settled, size = newly_settled, new_size
                reading.error, reading.position = RecordConflictError, here()
                return reading
            if row.id is not None:
                known[row.id] = None
            if index < skip:
                continue
            if twice:
                duplicates += 1
            else:
                fresh.append((index, row))

        settled, size = newly_settled, new_size
        if pages is None and rows and any(_equal(rows, page) for page in accepted):
            reading.error, reading.position = PageLoopError, here()
            return reading
        accepted.append(rows)
        reading.duplicates += duplicates

        items = fresh if max_items is None else fresh[: max_items - len(reading.items)]
        cut = len(items) < len(fresh)
        page_number = number
        if cut:
            skip = fresh[len(items)][0]
        elif rows or pages is not None:
            number, skip = number + 1, 0
        after_full = len(rows) >= full
        enough = max_items is not None and len(reading.items) + len(items) >= max_items
        ended = number > pages if pages is not None else not after_full
        refusal = None if enough else answer.refusal
        reading.position = here()
        if pages is None and not rows and len(accepted) > 1:
            return reading
        last = (ended or cut or enough) and refusal is None
        reading.pages.append(
            Given(page_number, tuple(row for _, row in items), here(), last, tuple(index for index, _ in fresh))
        )
        if refusal is not None:
            reading.error = type(refusal)
            return reading
        if last:
            return reading


def _near(accepted: list[list[Row | None]], page: list[Row | None]) -> Iterator[Row]:
    """The records of the last sixteen pages and of this one so far."""
    return (row for rows in [*accepted[-16:], page] for row in rows if row is not None)


def _equal(page: list[Row | None], other: list[Row | None]) -> bool:
    """Whether two pages are the same: by their keys, and by content where a record has none."""
    if len(page) != len(other):
        return False
    if any(row is not None and row.id is None for row in page):
        return page == other
    return [row and (row.id,) for row in page] == [row and (row.id,) for row in other]
