"""The recorded pages that every server serves and every client reads: the same bytes in each run.

Invariant: what a list holds is told by the customer's id alone, so that a server needs no state and a check knows the
truth.

    id               what it has
    383 + 6 digits   one list of so many full pages; the page behind them is empty
    566 + 6 digits   a customer of one to three pages, by the last digit (see `KINDS`)
"""

from __future__ import annotations

import json
import random
from functools import lru_cache
from typing import Any

__all__ = [
    "AUTHORIZATION", "CUSTOMERS", "KINDS", "LISTS", "NO_ROWS", "PASSWORD_MD5", "PATH", "QUERY", "SCOPE", "SIZE",
    "USERNAME", "customer_page", "list_id", "list_ids", "list_page", "pages_of", "rows_of",
]  # fmt: skip

PATH = "/x/neo/pointsAllocation/dateRange"
QUERY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}
SCOPE = {"x-cap-neo-dag-scope": "global"}
USERNAME = "till.1"
PASSWORD_MD5 = "5f4dcc3b5aa765d61d8327deb882cf99"
AUTHORIZATION = "Basic dGlsbC4xOjVmNGRjYzNiNWFhNzY1ZDYxZDgzMjdkZWI4ODJjZjk5"
SIZE = 100
NO_ROWS = b"[]"

LISTS = 383_000_000
CUSTOMERS = 566_000_000
# Rows by the last digit of a customer's id; none is a length at which servers cap a page.
KINDS = (3, 17, 37, 8, 64, 28, 112, 141, 183, 233)

_PAGE_MARK = b"@@@@@@"  # replaced by the page's number in the ids of a list
_OWNER_MARK = b"$$$$$$$$$"  # replaced by the customer's id in each record


def list_id(pages: int) -> int:
    """The customer whose list has so many full pages."""
    return LISTS + pages


def list_ids(pages: int) -> list[int]:
    """The records' ids of that list, in order."""
    return [1_000_000_00 + page * 100 + row for page in range(1, pages + 1) for row in range(SIZE)]


def rows_of(entity_id: int) -> int:
    """How many rows a customer has."""
    return SIZE * (entity_id - LISTS) if entity_id < CUSTOMERS else KINDS[entity_id % 10]


def pages_of(entity_id: int) -> int:
    """How many requests a reader needs: lists of full pages show their end only by an empty one."""
    return rows_of(entity_id) // SIZE + 1


@lru_cache(maxsize=256)
def list_page(entity_id: int, number: int) -> bytes:
    """A full page of a list: 100 records of the customer, whose ids hold the page's number."""
    return _full_page().replace(_PAGE_MARK, b"%06d" % number).replace(_OWNER_MARK, b"%d" % entity_id)


def customer_page(entity_id: int, number: int) -> bytes:
    """A page of a customer; empty behind the end."""
    return _customer_page(entity_id % 10, number).replace(_OWNER_MARK, b"%d" % entity_id)


@lru_cache(maxsize=64)
def _customer_page(digit: int, number: int) -> bytes:
    rows = min(SIZE, KINDS[digit] - (number - 1) * SIZE)
    first = 200_000_000 + digit * 1_000 + number * SIZE
    return _text([_record(digit * 10 + number, first + row) for row in range(max(0, rows))])


@lru_cache(maxsize=1)
def _full_page() -> bytes:
    marked = _text([_record(row, 1_000_000_00 + row) for row in range(SIZE)])
    for row in range(SIZE):
        marked = marked.replace(b'"id":1000000%02d' % row, b'"id":1' + _PAGE_MARK + b"%02d" % row)
    return marked


def _text(records: list[dict[str, object]]) -> bytes:
    return json.dumps(records, separators=(",", ":")).encode().replace(b'"%b"' % _OWNER_MARK, _OWNER_MARK)


def _record(seed: int, identity: int) -> dict[str, object]:
    """One allocation as on the API's page: all 27 members in its order, some points with a fraction."""
    dice = random.Random(seed)
    earned = dice.choice([100, 50, 1250, 50.5, 12.375, 7.25, 300])
    redeemed = dice.choice([0, 0, 0, 25, 3.125])
    awarded = 1_735_309_787_000 + dice.randrange(10**9) * 1000
    return {
        "till_id": 50140377 + dice.randrange(1000), "point_category_id": 17383, "program_id": 2282,
        "event_log_id": 33822621 + dice.randrange(10**6), "event_type_id": dice.choice([1, 15, 15, 17]),
        "points_source_type_id": 1, "original_points": earned, "awarded_date": awarded, "returned_exclusive_value": 0,
        "points_source_id": 2151585684 + dice.randrange(10**6), "id": identity, "cps_id": 80537188,
        "original_customer_id": _OWNER_MARK.decode(), "expiry_strategy_id": 105462, "returned_value": 0,
        "redeemed_exclusive_value": redeemed, "expiry_date": awarded + 31_536_000_000,
        "auto_update_time": awarded + 1000, "redeemed_value": redeemed, "expired_exclusive_value": 0,
        "allocation_strategy_id": 105594, "points_value": earned, "org_id": 50914, "expired_value": 0,
        "customer_id": _OWNER_MARK.decode(), "points_exclusive": earned,
        "status": dice.choice(["AVAILABLE", "AVAILABLE", "EXPIRED"]),
    }  # fmt: skip
