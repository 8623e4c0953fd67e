"""The contents of the sandbox: customers, merged ones, user groups, whales, and the customers of the pages' samples.

Invariant: a customer is generated on demand and kept for a while, so that a hundred thousand customers
cost nothing to start with. The endpoint files and `Sandbox` read it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from capillary_async._validation import whole
from capillary_async.sandbox._protocol.query import whole_number
from capillary_async.sandbox._world.generate import generate
from capillary_async.sandbox._world.records import TODAY, Customer, epoch_ms
from capillary_async.sandbox._world.sample_customers import sample_customers
from capillary_async.sandbox._world.samples import LEDGER_OWNERS, SAMPLE_MOBILE
from capillary_async.sandbox._world.seeded_random import SeededRandom
from capillary_async.sandbox._world.series import MOST_ROWS, CustomerSlot
from capillary_async.sandbox._world.totals import Sums, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capillary_async.sandbox._world.records import Row

__all__ = ["EXPIRY_END", "EXPIRY_START", "UNKNOWN_ID", "World", "identifiers"]

# Every expiry date of the world, the samples included, is between these two.
EXPIRY_START, EXPIRY_END = date(2020, 1, 1), date(2030, 12, 31)
_FIRST_ID, _STEP = 600_000_001, 7
_FIRST_MERGED, _MERGED = 590_000_001, 3
_FIRST_GROUP, _GROUPS, _MEMBERS = 7_000_001, 5, 3
UNKNOWN_ID = 999_999_999
_KEPT, _KEPT_LISTS = 512, 32  # customers in memory, so that a default sandbox generates each once: about 20 MiB


class World:
    """Customers by id, generated on demand.

    Args:
        customers: How many ordinary customers there are.
        seed: The same seed gives the same world.
        whales: How many of them have thousands of rows; None for one in a hundred, at most three.
        whale_rows: How many rows a whale has; None for 2,000 to 4,000.
        today: The day on which it is seen; None for its last one.
    """

    def __init__(
        self,
        customers: int,
        seed: int,
        whales: int | None = None,
        whale_rows: int | None = None,
        today: date | None = None,
    ) -> None:
        self.today = _day(today)
        whole("customers", customers, 0)
        whole("seed", seed)
        whales = min(3, customers // 100) if whales is None else whales
        _check(customers, whales, whale_rows)
        self.customer_ids: Sequence[int] = range(_FIRST_ID, _FIRST_ID + customers * _STEP, _STEP)
        self.merged_ids: Sequence[int] = range(_FIRST_MERGED, _FIRST_MERGED + _MERGED)
        groups = min(_GROUPS, customers // _MEMBERS)
        self.group_ids: Sequence[int] = range(_FIRST_GROUP, _FIRST_GROUP + groups)
        self.whale_ids = tuple(self.customer_ids[n * customers // (whales + 1)] for n in range(1, whales + 1))
        self._seed, self._whale_rows = seed, whale_rows
        self._grown = lru_cache(maxsize=_KEPT)(self._grow)
        # Page after page of the same list: a whale's rows are not looked through each time.
        self.expiring = lru_cache(maxsize=_KEPT_LISTS)(self._expiring)

    def customer(self, customer_id: int) -> Customer | None:
        """The customer, or None when there is none of this id (merged ones and groups are none)."""
        if customer_id in self.customer_ids:
            return self._grown(customer_id)
        return sample_customers().get(customer_id)

    def standing(self, customer_id: int) -> Literal["known", "merged", "unknown"]:
        """The kind of the id on the v2 paths."""
        if customer_id in self.merged_ids:
            return "merged"
        return "known" if customer_id in self.customer_ids or customer_id in sample_customers() else "unknown"

    def survivor(self, merged_id: int) -> int | None:
        """The customer that the merged one went into; None in a world without customers."""
        nth = self.merged_ids.index(merged_id)
        return self.customer_ids[nth] if nth < len(self.customer_ids) else None

    def members(self, group_id: int) -> Sequence[int]:
        """The customers of the user group; the first is the primary one."""
        nth = self.group_ids.index(group_id) * _MEMBERS
        return self.customer_ids[nth : nth + _MEMBERS]

    def people(self, entity_ids: Iterable[int]) -> list[int]:
        """The customers of the ids, with the members of each group in its place, each customer once."""
        found: dict[int, None] = {}
        for entity_id in entity_ids:
            found.update(dict.fromkeys(self.members(entity_id) if entity_id in self.group_ids else (entity_id,)))
        return list(found)

    def find(self, kind: str, value: str) -> int | None:
        """The id of an identifier: `mobile`, `email`, `externalid`, `id` or `customerid`."""
        if kind == "mobile" and value == SAMPLE_MOBILE:
            return LEDGER_OWNERS[0]
        prefix, suffix = _IDENTIFIERS[kind]
        if not (value.startswith(prefix) and value.endswith(suffix)):
            return None
        digits = value[len(prefix) : len(value) - len(suffix)]
        return whole_number(digits)

    def totals(self, customer_ids: Iterable[int] | None = None) -> Totals:
        """Control totals of these customers, or of all. Generates each of them: about 10 microseconds a row."""
        people = list(dict.fromkeys(self.customer_ids if customer_ids is None else customer_ids))
        sums = Sums()
        for customer_id in people:
            sums.add(self.customer(customer_id) or Customer(customer_id))
        return sums.totals(len(people))

    def _expiring(
        self, customer_id: int, program_id: int, point_category_id: int, start: int, end: int
    ) -> Sequence[Row]:
        """The customer's allocations in that program and category that expire between these epoch milliseconds."""
        customer = self.customer(customer_id)
        return [
            row
            for row in (customer.allocations(point_category_id) if customer else ())
            if start <= row["expiry_date"] <= end and row["program_id"] == program_id
        ]

    def _grow(self, customer_id: int) -> Customer:
        index = self.customer_ids.index(customer_id)
        merged = self.merged_ids[index] if index < len(self.merged_ids) else None
        place = CustomerSlot(
            customer_id,
            index,
            self._row_count(index, customer_id),
            events=index % 20 != _SILENT,
            merged_id=merged,
            whale=self.whale_ids.index(customer_id) if customer_id in self.whale_ids else None,
            sent=self._sent(index),
            received=self._sent(index - 1),
            today=epoch_ms(datetime.combine(self.today, time(), UTC)),
        )
        return generate(self._seed, place)

    def _sent(self, index: int) -> int:
        """Thousandths of a point that this customer transfers to the next one; 0 for most."""
        sender = self.customer_ids[0] + index * _STEP
        if index % 4 != _SENDER or not self._row_count(index, sender):
            return 0
        return SeededRandom(f"{self._seed}:{sender}:transfer").between(1_000, 200_000)

    def _row_count(self, index: int, customer_id: int) -> int:
        """Mostly up to 40 rows, many with none, some with exactly a page of 10 or 100."""
        rng = SeededRandom(f"{self._seed}:{customer_id}:rows")
        if customer_id in self.whale_ids:
            return rng.between(2_000, 4_000) if self._whale_rows is None else self._whale_rows
        if index % 50 == _FULL_PAGE:
            return 100
        return _SPECIAL_ROWS.get(index % 20, 1 + rng.below(rng.between(1, 40)))


_SILENT = 13
_FULL_PAGE = 11
_SENDER = 2  # every fourth customer; the next one is never silent
_SPECIAL_ROWS = {3: 10, 7: 0, _SILENT: 0}
_IDENTIFIERS = {
    "mobile": ("918", ""),
    "email": ("customer.", "@example.com"),
    "externalid": ("EXT-", ""),
    "id": ("", ""),
    "customerid": ("", ""),
}


def identifiers(customer_id: int) -> dict[str, str]:
    """The customer's identifiers in the ledger: identifierName to identifierValue."""
    return {
        "mobile": f"918{customer_id:09d}",
        "email": f"customer.{customer_id}@example.com",
        "EXTERNALID": f"EXT-{customer_id}",
        "id": str(customer_id),
        "CustomerID": str(customer_id),
    }


def _day(given: date | None) -> date:
    first = TODAY.date()
    if given is None:
        return first
    if type(given) is not date or not first <= given <= EXPIRY_END:
        raise ValueError(f"today takes a date from {first} to {EXPIRY_END}, got {given!r}")
    return given


def _check(customers: int, whales: int, whale_rows: int | None) -> None:
    if not 0 <= whole("whales", whales) <= customers:
        raise ValueError(f"whales takes 0 to {customers} (the number of customers), got {whales}")
    if whale_rows is not None and not 0 <= whole("whale_rows", whale_rows) <= MOST_ROWS:
        raise ValueError(f"whale_rows takes 0 to {MOST_ROWS}, got {whale_rows}")
