"""What a sandbox holds, for tests that compare it with what was read.

The rule kept here: everything given is a copy, so that no test can change the world. `Sandbox` is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from capillary_async.sandbox import _records, _world
from capillary_async.sandbox._records import Row
from capillary_async.sandbox._totals import Totals

__all__ = ["Holdings"]


class Holdings:
    """The ids, rows and totals of a world.

    Attributes:
        program_id: The loyalty program of every ordinary customer; another has no rows.
        point_category_id: Their point category; another has no rows.
        org_id: Their organisation.
        unknown_id: An id that no customer has: 8015 on v2, no rows on Neo.
        expiry_date_start: A day before all expiry dates.
        expiry_date_end: A day after all expiry dates.
        today: The day on which the world stands still; what expired before it is not AVAILABLE.
    """

    program_id, point_category_id, org_id = _records.PROGRAM_ID, _records.POINT_CATEGORY_ID, _records.ORG_ID
    unknown_id = _world.UNKNOWN_ID
    expiry_date_start: date = _world.EXPIRY_START
    expiry_date_end: date = _world.EXPIRY_END
    today: date = _records.TODAY.date()

    def __init__(self, world: _world.World) -> None:
        self._world = world

    @property
    def customer_ids(self) -> Sequence[int]:
        """The ordinary customers' ids in order, whales included."""
        return self._world.customer_ids

    @property
    def whale_ids(self) -> Sequence[int]:
        """Those of the customers that have thousands of rows."""
        return self._world.whale_ids

    @property
    def merged_ids(self) -> Sequence[int]:
        """Customers that were merged into others: 8069 on v2, no rows on Neo."""
        return self._world.merged_ids

    @property
    def group_ids(self) -> Sequence[int]:
        """User groups: `paIds` answers with the rows of their members."""
        return self._world.group_ids

    def members(self, group_id: int) -> Sequence[int]:
        """The customers of a user group; the first is its primary user.

        Raises:
            ValueError: There is no such group.
        """
        return self._world.members(group_id)

    def identifiers(self, customer_id: int) -> dict[str, str]:
        """How the ledger knows the customer: `identifierName` to `identifierValue`."""
        return _world.identifiers(customer_id)

    def allocations(self, customer_id: int) -> list[Row]:
        """The customer's allocations as wire rows: int ids, int or Decimal quantities. Empty for an id without rows."""
        customer = self._world.customer(customer_id)
        return [dict(row) for row in customer.allocations] if customer else []

    def awarded(self, customer_id: int, status: str | None = None) -> list[Row]:
        """The customer's rows of `paIds` of one status, or of all, as wire rows."""
        customer = self._world.customer(customer_id)
        awards = customer.awards if customer else ()
        return [dict(award.row) for award in awards if status in (None, award.status)]

    def events(self, customer_id: int) -> list[Row]:
        """The customer's loyalty events as wire rows."""
        customer = self._world.customer(customer_id)
        return [dict(event.row) for event in customer.events] if customer else []

    def totals(self, customer_ids: Iterable[int] | None = None) -> Totals:
        """Control totals of these customers, or of all: counts, and exact Decimals of every points column.

        Grows every customer: about 20 microseconds a row.
        """
        return self._world.totals(customer_ids)
