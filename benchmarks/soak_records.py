"""The customers of the misdirected soak: which records each has, and the account of every record delivered.

Invariant: a record's id alone says whose it is and what is in it, so that server and client know the same truth without
a word between them. A record is one byte of an account.

    rows by the last digit   45  3  20  61  100  0  8  40  99  119
    pages of twenty           3  1   2   4    6  1  1   3   5    6      32 for ten customers
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "FIRST", "SIZE", "Account", "customers_for", "has_events", "owner", "page_body", "pages_of", "rows_of", "value",
]  # fmt: skip

SIZE = 20
FIRST = 800_000_000
_ROWS = (45, 3, 20, 61, 100, 0, 8, 40, 99, 119)
_BEFORE = tuple(sum(_ROWS[:digit]) for digit in range(10))
_TEN = sum(_ROWS)
_PAGES = sum(rows // SIZE + 1 for rows in _ROWS)
_DIGITS = tuple(digit for digit, rows in enumerate(_ROWS) for _ in range(rows))


def customers_for(pages: int) -> int:
    """How many customers have at least so many pages together."""
    return -(-pages * 10 // _PAGES)


def has_events(customer: int) -> bool:
    """Whether the customer is asked for loyalty events; the others are asked for allocations."""
    return customer // 10 % 2 == 1


def pages_of(customer: int) -> int:
    """How many requests its list takes: a list of full pages shows its end by an empty one."""
    return _ROWS[customer % 10] // SIZE + 1


def rows_of(customer: int, page: int) -> range:
    """The ids of the records on a page; none behind the end."""
    first = (customer - FIRST) // 10 * _TEN + _BEFORE[customer % 10] + 1
    rows = range(first, first + _ROWS[customer % 10])
    return rows[(page - 1) * SIZE : page * SIZE]


def owner(identity: int) -> int:
    """The customer whose record it is."""
    tens, row = divmod(identity - 1, _TEN)
    return FIRST + tens * 10 + _DIGITS[row]


def value(identity: int) -> Decimal | str:
    """What is in the record: the points of an allocation, or the unique id of an event."""
    return f"u{identity}" if has_events(owner(identity)) else Decimal(f"{identity % 1000}.{identity % 125:03d}")


def _wire(identity: int) -> dict[str, Any]:
    """The record as the API writes it; three decimal places survive a float's shortest form."""
    customer = owner(identity)
    if has_events(customer):
        return {"id": identity, "customerId": customer, "eventName": "Soaked", "uniqueId": value(identity)}
    points = float(value(identity))
    return {"id": identity, "customer_id": customer, "status": "AVAILABLE", "points_exclusive": points}


class Account:
    """What came of each record, compared with the truth."""

    def __init__(self, customers: int) -> None:
        self._customers = range(FIRST, FIRST + customers)
        self._delivered = bytearray(rows_of(FIRST + customers, 1).start - 1)
        self.doubled = 0
        self.misdirected = 0
        self.altered = 0
        self.misordered = 0

    @property
    def total(self) -> int:
        """All records that have to come."""
        return len(self._delivered)

    @property
    def delivered(self) -> int:
        """Records that came to their owner as they are."""
        return len(self._delivered) - self._delivered.count(0)

    def note(self, customer: int, items: Sequence[Any]) -> None:
        """The records of one customer, complete as the SDK says."""
        for item in items:
            self._note(customer, item)
        ids = [item.id for item in items]
        self.misordered += ids != sorted(ids)

    def _note(self, customer: int, item: Any) -> None:
        came = item.unique_id if has_events(customer) else item.points_exclusive
        if customer not in self._customers or owner(item.id) != customer:
            self.misdirected += 1
        elif came != value(item.id):
            self.altered += 1
        elif self._delivered[item.id - 1]:
            self.doubled += 1
        else:
            self._delivered[item.id - 1] = 1

    def close(self, served: bytes) -> dict[str, int]:
        """The three sets beside each other: expected, delivered, and `served` in a right answer (a byte per record)."""
        pairs = zip(self._delivered, served, strict=True)
        return {
            "expected": self.total,
            "delivered": self.delivered,
            "served_whole": len(served) - served.count(0),
            "lost": self.total - self.delivered,
            "doubled": self.doubled,
            "misdirected": self.misdirected,
            "altered": self.altered,
            "misordered": self.misordered,
            "never served": sum(1 for here, there in pairs if here and not there),
        }


def page_body(customer: int, page: int, ids: Sequence[int] | None = None) -> bytes:
    """A page in the envelope of the customer's endpoint, or the same with other records."""
    rows = [_wire(identity) for identity in (rows_of(customer, page) if ids is None else ids)]
    if has_events(customer):
        return json.dumps({"data": rows, "warnings": [], "errors": []}, separators=(",", ":")).encode()
    return json.dumps(rows, separators=(",", ":")).encode()
