"""The customers of the soak: who has which records on which page, and the account of what was delivered.

Invariant: what a customer has is told by its number alone, so that server and client know the same truth without a word
between them; a page is one bit of an account, so that checking takes no memory that grows.

    rows by the last digit   3  5  8  12  1  4  14  0  9  10
    pages of five            1  2  2   3  1  1   3  1  2   3      19 for ten customers
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FIRST", "PER_PAGE", "QUERY", "SIZE", "Account", "customers_for", "page_body", "pages_of", "place"]

QUERY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}
SIZE = 5
FIRST = 700_000_000
_ROWS = (3, 5, 8, 12, 1, 4, 14, 0, 9, 10)
_PAGES = tuple(rows // SIZE + 1 for rows in _ROWS)
_BEFORE = tuple(sum(_PAGES[:digit]) for digit in range(10))
_TEN = sum(_PAGES)
_TWICE = sum(rows > 0 and rows % SIZE == 0 for rows in _ROWS)  # an empty page behind a full one is asked for again
PER_PAGE = (_TEN + _TWICE) / _TEN  # requests
_MOST = 20  # ids reserved for a customer


def customers_for(pages: int) -> int:
    """How many customers have at least so many pages together."""
    return -(-pages * 10 // _TEN)


def pages_of(customer: int) -> int:
    """How many requests its list takes: a list of full pages shows its end by an empty one."""
    return _PAGES[customer % 10]


def place(customer: int, page: int) -> int:
    """The number of a page among all pages of all customers, from 0."""
    return (customer - FIRST) // 10 * _TEN + _BEFORE[customer % 10] + page - 1


def _record(customer: int, row: int) -> tuple[int, str]:
    """The id and the points of a record."""
    number = (customer - FIRST) * _MOST + row
    return number + 1, f"{number % 1000}.{number % 125:03d}"


def page_body(customer: int, page: int) -> bytes:
    """A page as the API would give it; empty behind the end."""
    rows = range((page - 1) * SIZE, min(page * SIZE, _ROWS[customer % 10]))
    told = (_record(customer, row) for row in rows)
    return b"[%b]" % b",".join(
        f'{{"id":{number},"customer_id":{customer},"status":"AVAILABLE","points_exclusive":{points}}}'.encode()
        for number, points in told
    )


class Account:
    """What came of each page, held against what had to."""

    def __init__(self, customers: int) -> None:
        self._customers = customers
        self._delivered = bytearray(place(FIRST + customers, 1))
        self._answered = bytearray(customers)
        self.unexpected = 0
        self.duplicated = 0
        self.misordered = 0

    @property
    def total(self) -> int:
        """All pages that have to come."""
        return len(self._delivered)

    @property
    def delivered(self) -> int:
        """Pages whose records are all here."""
        return len(self._delivered) - self._delivered.count(0)

    def note(self, customer: int, items: Sequence[Any]) -> None:
        """The records of one customer, complete as the fan-out says."""
        index = customer - FIRST
        if not 0 <= index < self._customers:
            self.unexpected += max(1, len(items))
            return
        self.duplicated += bool(self._answered[index])
        self._answered[index] = 1
        due = [_record(customer, row) for row in range(_ROWS[customer % 10])]
        came = [(item.id, item.points_exclusive) for item in items]
        right = [(number, Decimal(points)) for number, points in due]
        if came == right:
            for page in range(1, pages_of(customer) + 1):
                self._delivered[place(customer, page)] = 1
            return
        self._differs(customer, came, right)

    def _differs(self, customer: int, came: list[tuple[int, Decimal]], right: list[tuple[int, Decimal]]) -> None:
        """Some are missing, too many, made up or in another order."""
        counted = Counter(came)
        self.duplicated += sum(number - 1 for number in counted.values())
        self.unexpected += len(counted.keys() - set(right))
        self.misordered += sorted(came) == sorted(right)
        for page in range(1, pages_of(customer) + 1):
            rows = right[(page - 1) * SIZE : page * SIZE]
            self._delivered[place(customer, page)] = all(counted[row] == 1 for row in rows)

    def close(self, served: bytes) -> dict[str, int]:
        """The three sets beside each other: expected, delivered, and `served` whole (a byte for each page).

        A page delivered that was never served whole would be one read out of a torn answer.
        """
        made_up = sum(1 for here, there in zip(self._delivered, served, strict=True) if here and not there)
        return {
            "expected": self.total,
            "delivered": self.delivered,
            "served_whole": len(served) - served.count(0),
            "lost": self.total - self.delivered,
            "duplicated": self.duplicated,
            "unexpected": self.unexpected + made_up,
            "misordered": self.misordered,
        }
