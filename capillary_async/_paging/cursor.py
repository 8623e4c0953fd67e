"""Which page a reading requests next, how many rows a full page has, and when the list ends: `Cursor`.

Invariant: values only; every step gives a new cursor. Rows count as received, duplicates and nulls included.
Called by `ListReader` for each page, and by `Pager.page` for a single one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from capillary_async._paging.page import Position, placed

if TYPE_CHECKING:
    from capillary_async._paging.seen import Past, Stored

__all__ = ["LIKELY_CAPS", "Cursor", "after_single_page", "detect_page_size"]

# Lengths at which servers cap a page. A page 1 shorter than asked and exactly so long is likely capped, not the end.
LIKELY_CAPS = frozenset({10, 20, 25, 50, 100, 200, 250, 500})


@frozen
class Cursor:
    """Where a reading is.

    Attributes:
        number: The page to request next, from 1.
        skip: Rows of that page, as received, that were given already.
        size: The page size to request.
        full: Rows of a page that another page may follow.
        detected: Whether `size` is known to be what the server gives.
        from_first: Whether the reading began at page 1, whose length shows a cap.
        full_before: Whether the page before was full.
        begun: Whether a page was read.
        done: Whether the list has ended, or the reading has all it needs.
        cap: The length of page 1, where that is known to be a server's cap.
        pages: Pages of the list, where that is known beforehand; sizes mean nothing then.
    """

    number: int
    skip: int
    size: int
    full: int
    detected: bool
    from_first: bool
    full_before: bool
    begun: bool = False
    done: bool = False
    cap: int | None = None
    pages: int | None = None

    @classmethod
    def at(cls, start: Position, size: int, *, fixed: bool = False, pages: int | None = None) -> Cursor:
        """The cursor of a new reading; `size` is requested where the position has none, `fixed` believes it."""
        size = start.page_size or size
        return cls(
            start.page,
            start.index,
            size,
            full=size,
            detected=fixed or start.page_size is not None,  # the reading that made the position detected its size
            from_first=start.page == 1,
            full_before=start.page > 1 and not start.index,  # a position after a page was made where that was full
            done=pages is not None and start.page > pages,
            pages=pages,
        )

    def position(self, past: Past | Stored | None) -> Position:
        """Where reading continues. A size that was not detected is left for the next reading to detect."""
        sized = self.pages is None and self.detected
        return placed(self.number, self.skip, self.size if sized else None, past)

    def fills(self, received: int) -> bool:
        """Whether a page has all the rows that were requested."""
        return self.pages is not None or received >= self.size

    def is_full(self, received: int) -> bool:
        """Whether another page may follow one with so many rows."""
        return received >= (self.full if self.detected else self._full_at(received))

    def _full_at(self, received: int) -> int:
        return received if received == self.cap else detect_page_size(self.size, received)

    def may_be_capped(self, received: int) -> bool:
        """Whether a server's cap may have shortened the page: only page 1 can show that."""
        return self.number == 1 and not self.detected and received > 0

    def capped_at(self, length: int) -> Cursor:
        """The cursor once a page 1 of that length is known to be a cap."""
        return evolve(self, cap=length)

    def detect(self, received: int) -> Cursor:
        """The cursor once a page came: with the size that the server gives, as far as the page shows it."""
        if self.fills(received):
            known = self.detected and self.full == self.size
            return self if known else self._sized(self.size, self.size, detected=True)
        if self.detected:
            return self
        full = self._full_at(received)
        if self.from_first and received:  # an empty list shows no cap: a later reading from here detects it
            return self._sized(full, full, detected=True)
        # After page 1 a short page may as well be the last: the size stays, and only the end is put off.
        return self._sized(self.size, full, detected=False)

    def _sized(self, size: int, full: int, *, detected: bool) -> Cursor:
        # Spelt out here and in `_moved`, since these are made for each page: `evolve` takes four times as long.
        return Cursor(
            self.number, self.skip, size, full, detected, self.from_first, self.full_before, self.begun, self.done,
            self.cap, self.pages,
        )  # fmt: skip

    def after(self, received: int, *, cut_at: int | None = None, enough: bool = False) -> Cursor:
        """The cursor after a page that was detected; `cut_at` is the first row that `max_items` left over."""
        full = received >= self.full
        if cut_at is not None:
            return self._moved(self.number, cut_at, full=full, done=True)
        # The empty page after a list is where later rows would come: it is not stepped over.
        stepped = received > 0 or self.pages is not None
        number = self.number + stepped
        ended = not full if self.pages is None else number > self.pages
        return self._moved(number, 0 if stepped else self.skip, full=full, done=ended or enough)

    def _moved(self, number: int, skip: int, *, full: bool, done: bool) -> Cursor:
        return Cursor(
            number, skip, self.size, self.full, self.detected, self.from_first, full_before=full, begun=True, done=done,
            cap=self.cap, pages=self.pages,
        )  # fmt: skip

    def may_need(self, ahead: int, left: int | None) -> bool:
        """Whether the page so many after the next one can be needed for `left` records; None for all."""
        if self.pages is not None:
            return self.number + ahead <= self.pages
        return left is None or ahead * self.size < left

    def ended(self) -> Cursor:
        """The cursor of a reading that needs no more pages."""
        return evolve(self, done=True)


def detect_page_size(requested: int, received: int) -> int:
    """The page size after page 1: as requested, or the server's cap where page 1 looks like one."""
    return received if received < requested and received in LIKELY_CAPS else requested


def after_single_page(number: int, received: int, size: int, detected: int | None) -> tuple[Position, bool]:
    """Where a list continues after a page that was read alone, and whether the list is known to have ended."""
    if not received:
        return Position(number, 0, detected), True
    full = detect_page_size(size, received) if detected is None else size
    # After page 1, a length at which servers cap may be a cap: one page alone cannot show it, so no size is pinned.
    pinned = None if full < size and number > 1 else full
    return Position(number + 1, 0, pinned), received < size and received not in LIKELY_CAPS
