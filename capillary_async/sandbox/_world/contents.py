"""The records of a sandbox, for tests that compare them with what a client read.

Invariant: everything given is a copy, so that no test can change the world. `Sandbox` is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from capillary_async.sandbox._world import records as _records
from capillary_async.sandbox._world import world as _world
from capillary_async.sandbox._world.records import Row
from capillary_async.sandbox._world.totals import Totals

__all__ = ["Contents"]


class Contents:
    """The ids, rows and totals of a world.

    Attributes:
        program_id: The loyalty program of every ordinary customer; another has no rows.
        point_category_id: The category of their points; totals are those of this one.
        promised_category_id: The category of promised points. On conversion a row becomes CONSUMED_BY_CONVERSION, and
            another of the main category appears: what was issued, summed over categories, counts twice.
        changed_category_id: The category of the rows that took the place of those which are POINT_CATEGORY_CHANGED.
        org_id: Their organisation.
        unknown_id: An id that no customer has: 8015 on v2, no rows on Neo.
        expiry_date_start: A day before all expiry dates.
        expiry_date_end: A day after all expiry dates.
        today: The day of the world; what expired before it is not AVAILABLE.
    """

    program_id, point_category_id, org_id = _records.PROGRAM_ID, _records.POINT_CATEGORY_ID, _records.ORG_ID
    promised_category_id, changed_category_id = _records.PROMISED_CATEGORY_ID, _records.CHANGED_CATEGORY_ID
    unknown_id = _world.UNKNOWN_ID
    expiry_date_start: date = _world.EXPIRY_START
    expiry_date_end: date = _world.EXPIRY_END
    today: date = _records.TODAY.date()

    def __init__(self, world: _world.World) -> None:
        self._world = world
        self.today = world.today

    @property
    def customer_ids(self) -> Sequence[int]:
        """The ordinary customers' ids in order, whales included."""
        return self._world.customer_ids

    @property
    def whale_ids(self) -> Sequence[int]:
        """The ids of the customers with thousands of rows."""
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
        """The customer's identifiers in the ledger: `identifierName` to `identifierValue`."""
        return _world.identifiers(customer_id)

    def allocations(self, customer_id: int, point_category_id: int | None = None) -> list[Row]:
        """The customer's allocations of one category as wire rows: int ids, int or Decimal quantities.

        As on the service, they are rows of the table `points_awarded` alone. The main category where none is given;
        empty for an id without rows.
        """
        category = self.point_category_id if point_category_id is None else point_category_id
        customer = self._world.customer(customer_id)
        return [dict(row) for row in customer.allocations(category)] if customer else []

    def awarded(self, customer_id: int, status: str | None = None, point_category_id: int | None = None) -> list[Row]:
        """The customer's rows of `paIds` of one category, and of one status or of all, as wire rows.

        As on the service, they are rows of two of the five award tables: `points_awarded`, whose ids are those of the
        allocations, and `points_awarded_bill_lineitems`.
        """
        category = self.point_category_id if point_category_id is None else point_category_id
        customer = self._world.customer(customer_id)
        awards = customer.shown(category) if customer else []
        return [dict(award.row) for award in awards if status in (None, award.status)]

    def promotions(self, customer_id: int) -> list[Row]:
        """The customer's rows of the three promotion tables, which no endpoint shows; inclusive columns alone."""
        customer = self._world.customer(customer_id)
        return [dict(award.row) for award in customer.promotions] if customer else []

    def events(self, customer_id: int) -> list[Row]:
        """The customer's loyalty events as wire rows; their `id` is no event log id."""
        customer = self._world.customer(customer_id)
        return [dict(event.row) for event in customer.events] if customer else []

    def event_log_ids(self, customer_id: int) -> list[int]:
        """The customer's event log ids, in the order of `events`, for calls of the ledger."""
        customer = self._world.customer(customer_id)
        return [event.log_id for event in customer.events] if customer else []

    def totals(self, customer_ids: Iterable[int] | None = None) -> Totals:
        """Control totals of these customers, or of all: counts, and exact Decimals of every points column.

        Generates every customer: about 20 microseconds a row.
        """
        return self._world.totals(customer_ids)
