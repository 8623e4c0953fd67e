"""`session.loyalty_events`: the loyalty events of a customer.

Invariant: the wire is that of the page 'Get Loyalty Events'; since it is not known which of `limit`, `page` and
`offset` a server honours, all three are always sent and agree. Called by users through the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from datetime import date
from typing import Any

from capillary_async._fanout.fanout import FanOut
from capillary_async._paging.pager import FetchedPage, ListSource, Pager
from capillary_async.endpoints._arguments import choice_text, day, days, positive, query
from capillary_async.endpoints._resource import IDENTITY, Resource, fetched
from capillary_async.models import LoyaltyEvent

__all__ = ["LoyaltyEventsResource"]


def _customer(value: Any) -> int:
    return positive("customer_id", value)


def _one_of_many(value: Any) -> int:
    return positive("customer_ids", value)


class LoyaltyEventsResource(Resource):
    """Loyalty events of customers."""

    def list(
        self,
        customer_id: int,
        *,
        event_type: str | None = None,
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> Pager[LoyaltyEvent]:
        """The events of one customer.

        Source: Get Loyalty Events, `GET /v2/customers/{customerId}/loyaltyEvents`.

        Args:
            customer_id: The customer.
            event_type: Only events of this type, e.g. `EARN`, `REDEEM`, `EXPIRE`, `TRANSFER`.
            from_date: First day, a date or `YYYY-MM-DD`, in the server's time zone.
            to_date: Last day.

        Raises:
            InvalidRequestError: An argument is invalid. Nothing is sent.
            CustomerNotFoundError, MergedCustomerError: While looping (codes 8015 and 8069).
        """
        return self._pager(self._source(_customer(customer_id), _filters(event_type, from_date, to_date)))

    def list_many(
        self,
        customer_ids: Iterable[int | str] | AsyncIterable[int | str],
        *,
        event_type: str | None = None,
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> FanOut[int, LoyaltyEvent]:
        """The events of many customers, concurrently.

        Source: Get Loyalty Events, `GET /v2/customers/{customerId}/loyaltyEvents`.

        Args:
            customer_ids: The customers.
            event_type: Only events of this type, e.g. `EARN`, `REDEEM`, `EXPIRE`, `TRANSFER`.
            from_date: First day, a date or `YYYY-MM-DD`, in the server's time zone.
            to_date: Last day.

        Raises:
            InvalidRequestError: An argument, or an id of an input with a length, is invalid. Nothing is sent.
        """
        filters = _filters(event_type, from_date, to_date)
        return self._fan(
            customer_ids,
            argument="customer_ids",
            name="loyalty_events.list_many",
            check=_one_of_many,
            source=lambda customer_id: self._source(customer_id, filters),
            largest=None,
            model=LoyaltyEvent,
        )

    def _source(self, customer_id: int, filters: str) -> ListSource[LoyaltyEvent]:
        path = f"/v2/customers/{customer_id}/loyaltyEvents"
        shape = self._shape(LoyaltyEvent, "data", owners=(customer_id,))

        async def fetch(number: int, size: int) -> FetchedPage[LoyaltyEvent]:
            place = f"limit={size}&offset={(number - 1) * size}&page={number}"
            return fetched(await self._get(path, place + filters, shape), shape)

        return ListSource(f"loyalty_events.list({customer_id})", fetch, IDENTITY, model=LoyaltyEvent)


def _filters(event_type: Any, from_date: Any, to_date: Any) -> str:
    """The rest of the query, the same for every page; empty or with its ampersand."""
    first = None if from_date is None else day("from_date", from_date)
    last = None if to_date is None else day("to_date", to_date)
    if first is not None and last is not None:
        days("from_date", first, "to_date", last)
    encoded = query(eventType=choice_text("event_type", event_type), fromDate=first, toDate=last)
    return f"&{encoded}" if encoded else ""
