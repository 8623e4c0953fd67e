"""Reading a list one page after the other, as the documentation says it: what other readings are compared with.

Invariant: nothing of the package's paging is used, nothing runs at once, and each rule is said once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from capillary_async._paging.pager import Position
from capillary_async.errors import CustomerNotFoundError, NotFoundError, PageLoopError, PagingError, RecordConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.fake_list import Row

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
    # What it may come to as well, where pages behind its end were asked for already and have rows.
    otherwise: Reading | None = field(default=None, eq=False)

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


def read_plainly(  # noqa: C901, PLR0912, PLR0915 - one loop, as the documentation says it
    ask: Callable[[int, int], Answer],
    page_size: int,
    *,
    start: Position | None = None,
    before: Sequence[Row] = (),
    max_items: int | None = None,
    pages: int | None = None,
) -> Reading:
    """Read a list, or a walk over ids where `pages` says how many there are; `before` was given before `start`."""
    start = start or Position(1)
    number, skip = start.page, start.index
    size = start.page_size or page_size
    settled = start.page_size is not None
    after_full = start.page > 1 and not skip
    reading = Reading()
    accepted: list[list[Row | None]] = [list(before)]
    full_pages: list[list[Row | None]] = []
    stale = 0
    begun = False

    def here() -> Position:
        return Position(number, skip, size if settled and pages is None else None)

    def ends() -> Reading:
        """The end of the list, unless rows not seen yet are behind it and were asked for already."""
        known = [row for page in [*accepted, rows] for row in page]
        behind = [ask(number + step, size).rows for step in range(1, 9)]
        if pages is None and any(row is None or row not in known for page in behind for row in page):
            reading.otherwise = Reading(list(reading.pages), PagingError, here(), reading.duplicates)
        return reading

    while True:
        reading.position = here()
        if max_items is not None and len(reading.items) >= max_items:
            return reading
        if pages is not None and number > pages:
            return reading
        answer = ask(number, size)
        rows = list(answer.rows)
        html = isinstance(answer.error, NotFoundError) and answer.error.html
        if answer.error is not None:
            gone = isinstance(answer.error, NotFoundError) and not isinstance(answer.error, CustomerNotFoundError)
            if not (gone and after_full and pages is None):
                reading.error = type(answer.error)
                return reading
            ends()
            if not html:
                return reading

        # The size: page 1 shows a server's cap; a page as long as asked shows that there is none.
        full, newly_settled, new_size = size, settled, size
        if len(rows) >= size:
            newly_settled = True
        elif not settled:
            full = len(rows) if len(rows) in CAPS else size
            if start.page == 1 and rows:
                newly_settled, new_size = True, full
        if pages is None and len(rows) < full:
            ends()

        # Records given before.
        known = {row.id: row for page in reversed(accepted) for row in reversed(page) if row and row.id is not None}
        # Rows of before `start` may come again where the list moved: a circle is what comes twice since.
        met = [row if row.id is None else row.id for page in accepted[1:] for row in page if row]
        new = any((row if row.id is None else row.id) not in met for row in rows if row)
        fresh: list[tuple[int, Row]] = []
        duplicates = 0
        for index, row in enumerate(rows):
            if row is None:
                continue
            twice = row.id is not None and row.id in known
            if twice and known[row.id] != row:
                settled, size = newly_settled, new_size
                reading.error, reading.position = RecordConflictError, here()
                return reading
            if row.id is not None:
                known[row.id] = row
            if index < skip:
                continue
            if twice:
                duplicates += 1
            else:
                fresh.append((index, row))

        settled, size = newly_settled, new_size
        if pages is None and rows and len(rows) >= full:
            stale = 0 if new else stale + 1
            if stale == 2 or any(_same(rows, page) for page in full_pages):
                reading.error, reading.position = PageLoopError, here()
                return reading
            full_pages.append(rows)
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
        if pages is None and not rows and begun and not html:
            return reading
        begun = True
        last = (ended or cut or enough) and refusal is None
        reading.pages.append(
            Given(page_number, tuple(row for _, row in items), here(), last, tuple(index for index, _ in fresh))
        )
        if refusal is not None:
            reading.error = type(refusal)
            return reading
        if last:
            return reading


def _same(page: list[Row | None], other: list[Row | None]) -> bool:
    """Whether two full pages have the same records, in whatever order: by keys, and by content without one."""
    if len(page) != len(other) or page.count(None) != other.count(None):
        return False
    one, two = ({row if row.id is None else row.id for row in rows if row is not None} for rows in (page, other))
    return one == two
