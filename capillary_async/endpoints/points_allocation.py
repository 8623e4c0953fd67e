"""`session.points_allocation`: points allocated to a customer, by event or by expiry.

Invariant: the wire is that of the pages 'Get Point Allocation Details by Event ID' and 'Get Allocated Points Details
with Expiry in Specified Date Range'; `page` and `count` are always sent. Called by users through the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from datetime import date
from functools import partial
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from capillary_async._fanout.fanout import FanOut
from capillary_async._paging.pager import FetchedPage, ListSource, Pager
from capillary_async._repr import brief_repr
from capillary_async._transport.messages import Request
from capillary_async._validation import choice, refuse
from capillary_async.endpoints._arguments import days, positive, query, text
from capillary_async.endpoints._resource import IDENTITY, NEO_LARGEST_PAGE, Resource
from capillary_async.errors import APIError, ApiMessage, NotFoundError
from capillary_async.models import PointsAllocation

__all__ = ["EventQuery", "ListNotFound", "PointsAllocationResource"]

BY_EVENT = "/x/neo/pointsAllocation/event"
BY_EXPIRY = "/x/neo/pointsAllocation/dateRange"
NOT_FOUND = 404

NotFoundAs: TypeAlias = Literal["error", "empty"]
_NOT_FOUND_AS: tuple[NotFoundAs, ...] = ("error", "empty")


@frozen
class ListNotFound(ApiMessage):
    """The SDK's own warning of a list that the API answered with 404, and that is given as an empty one."""


def _entity(value: Any) -> str | int:
    return text("entity_id", value) if isinstance(value, str) else positive("entity_id", value)


def _customer(value: Any) -> int:
    return positive("customer_id", value)


def _event_type(value: Any) -> int:
    return positive("event_type_id", value)


@frozen
class EventQuery:
    """What `by_event_many` asks for one event.

    Attributes:
        entity_id: The transaction id, request id or unique id of the event; see `by_event`.
        customer_id: The customer.
        event_type_id: An `EventType` or its number.

    Raises:
        InvalidRequestError: One of them is invalid.
    """

    entity_id: str | int = field(converter=_entity, eq=str)  # 7 and "7" are the same question
    customer_id: int = field(converter=_customer)
    event_type_id: int = field(converter=_event_type)

    __repr__ = brief_repr


def _event_query(value: Any) -> EventQuery:
    if not isinstance(value, EventQuery):
        raise refuse("queries", "EventQuery values", value)
    return value


class PointsAllocationResource(Resource):
    """Points allocations of customers."""

    def by_event(
        self, *, entity_id: str | int, customer_id: int, event_type_id: int, not_found: NotFoundAs = "error"
    ) -> Pager[PointsAllocation]:
        """The allocations that one event made.

        Allocations are rows of the award table `points_awarded` alone [inferred]: line items and promotions, which the
        same event may have earned, are in four other tables. Promised points are rows of another category and come
        along: where they were converted, an event of the type DelayedAccrual made rows of the main category, so sum
        `remaining` of AVAILABLE rows, not `points_exclusive`.

        Source: Get Point Allocation Details by Event ID, `GET /x/neo/pointsAllocation/event`.

        Args:
            entity_id: The event. For a transaction: the transaction id (the `points_source_id` of its allocations, the
                `event_reference_id` of its ledger entry) or its unique id. For a behavioural event: the request id or
                the unique id [inferred]. The unique id is that of the loyalty event and of the ledger entry; the `id`
                of a loyalty event finds nothing, and an event log id probably finds nothing too.
            customer_id: The customer.
            event_type_id: An `EventType` or its number, e.g. 15 for TransactionAdd.
            not_found: What a 404 of the API itself on the first page is: `"error"`, a `NotFoundError`; or `"empty"`, an
                empty list with a warning. The API's page does not say whether it means no such customer or no points.
                A 404 without the API's own error code, e.g. of a gateway or a wrong `base_url`, is an error always.

        Raises:
            InvalidRequestError: An argument is invalid, or the session's page size is more than 100. Nothing is sent.
        """
        choice("not_found", not_found, _NOT_FOUND_AS)
        return self._pager(self._of_event(not_found, EventQuery(entity_id, customer_id, event_type_id)))

    def by_event_many(
        self, queries: Iterable[EventQuery] | AsyncIterable[EventQuery], *, not_found: NotFoundAs = "error"
    ) -> FanOut[EventQuery, PointsAllocation]:
        """The allocations of many events, concurrently; see `by_event`.

        Source: Get Point Allocation Details by Event ID, `GET /x/neo/pointsAllocation/event`.

        Args:
            queries: The events.
            not_found: As of `by_event`: whether a 404 of the API itself is an `"error"` or `"empty"`.

        Raises:
            InvalidRequestError: `not_found` or an entry of an input with a length is invalid. Nothing is sent.
        """
        choice("not_found", not_found, _NOT_FOUND_AS)
        return self._fan(
            queries,
            argument="queries",
            name="points_allocation.by_event_many",
            check=_event_query,
            source=partial(self._of_event, not_found),
            largest=NEO_LARGEST_PAGE,
            model=PointsAllocation,
            key=EventQuery,
        )

    def by_expiry(
        self,
        *,
        entity_id: int,
        program_id: int,
        point_category_id: int,
        expiry_date_start: date | str,
        expiry_date_end: date | str,
        not_found: NotFoundAs = "error",
    ) -> Pager[PointsAllocation]:
        """The allocations of one customer that expire within two dates, both days included.

        They are rows of one category in the award table `points_awarded` alone [inferred]: line items and promotions
        are in four other tables, so this understates what expires. The points held are the sum of `remaining` over
        AVAILABLE rows; `points_exclusive` is what was issued.

        Source: Get Allocated Points Details with Expiry in Specified Date Range,
        `GET /x/neo/pointsAllocation/dateRange`.

        Args:
            entity_id: The customer.
            program_id: The loyalty program.
            point_category_id: The category of points.
            expiry_date_start: First day, a date or `YYYY-MM-DD`, in the server's time zone.
            expiry_date_end: Last day.
            not_found: As of `by_event`: whether a 404 of the API itself is an `"error"` or `"empty"`.

        Raises:
            InvalidRequestError: An argument is invalid, or the session's page size is more than 100. Nothing is sent.
        """
        choice("not_found", not_found, _NOT_FOUND_AS)
        prefix = self._expiry_prefix(program_id, point_category_id, expiry_date_start, expiry_date_end)
        return self._pager(self._of_expiry(not_found, prefix, positive("entity_id", entity_id)))

    def by_expiry_many(
        self,
        entity_ids: Iterable[int | str] | AsyncIterable[int | str],
        *,
        program_id: int,
        point_category_id: int,
        expiry_date_start: date | str,
        expiry_date_end: date | str,
        not_found: NotFoundAs = "error",
    ) -> FanOut[int, PointsAllocation]:
        """The allocations of many customers that expire within two dates, concurrently; see `by_expiry`.

        Source: Get Allocated Points Details with Expiry in Specified Date Range,
        `GET /x/neo/pointsAllocation/dateRange`.

        Args:
            entity_ids: The customers.
            program_id: The loyalty program.
            point_category_id: The category of points.
            expiry_date_start: First day, a date or `YYYY-MM-DD`, in the server's time zone.
            expiry_date_end: Last day.
            not_found: As of `by_event`: whether a 404 of the API itself is an `"error"` or `"empty"`.

        Raises:
            InvalidRequestError: An argument, or an id of an input with a length, is invalid. Nothing is sent.
        """
        choice("not_found", not_found, _NOT_FOUND_AS)
        prefix = self._expiry_prefix(program_id, point_category_id, expiry_date_start, expiry_date_end)
        return self._fan(
            entity_ids,
            argument="entity_ids",
            name="points_allocation.by_expiry_many",
            check=_entity_number,
            source=partial(self._of_expiry, not_found, prefix),
            largest=NEO_LARGEST_PAGE,
            model=PointsAllocation,
        )

    @staticmethod
    def _expiry_prefix(program_id: Any, point_category_id: Any, start: Any, end: Any) -> str:
        first, last = days("expiry_date_start", start, "expiry_date_end", end)
        return query(
            expiry_date_start=first,
            expiry_date_end=last,
            point_category_id=positive("point_category_id", point_category_id),
            program_id=positive("program_id", program_id),
        )

    def _of_event(self, not_found: NotFoundAs, asked: EventQuery) -> ListSource[PointsAllocation]:
        prefix = query(entity_id=asked.entity_id, customer_id=asked.customer_id, event_type_id=asked.event_type_id)
        name = f"points_allocation.by_event(entity_id={asked.entity_id})"
        return self._source(BY_EVENT, prefix, name, asked.customer_id, not_found)

    def _of_expiry(self, not_found: NotFoundAs, prefix: str, entity_id: int) -> ListSource[PointsAllocation]:
        name = f"points_allocation.by_expiry(entity_id={entity_id})"
        return self._source(BY_EXPIRY, f"{prefix}&entity_id={entity_id}", name, entity_id, not_found)

    def _source(
        self,
        path: str,
        prefix: str,
        name: str,
        customer_id: int,
        not_found: NotFoundAs,
        *,
        raw: bool = False,
    ) -> ListSource[PointsAllocation]:
        headers = self._caller.neo_headers

        def fetch(number: int, size: int, *, late: bool = False) -> Awaitable[FetchedPage[PointsAllocation]]:
            query = f"{prefix}&page={number}&count={size}"
            shape = self._shape(PointsAllocation, owners=(customer_id,), raw=raw)
            request = Request("GET", path, query, headers, shape=shape, late=late)
            first = number == 1 and not_found == "empty"
            return _or_empty(partial(self._page, request), name) if first else self._page(request)

        return ListSource(
            name,
            fetch,
            IDENTITY,
            largest=NEO_LARGEST_PAGE,
            ahead=partial(fetch, late=True),
            model=PointsAllocation,
            make_raw=partial(self._source, path, prefix, name, customer_id, not_found, raw=True),
        )


def _entity_number(value: Any) -> int:
    return positive("entity_ids", value)


async def _or_empty(ask: Callable[[], Awaitable[FetchedPage[Any]]], name: str) -> FetchedPage[Any]:
    """The first page of a list; an empty one where the API itself says 404.

    A 404 in the body of an HTTP 200, which a busy service sends too, is retried once before it is believed.
    """
    try:
        return await ask()
    except NotFoundError as error:
        found = error
    if _is_own(found) and found.status != NOT_FOUND:
        try:
            return await ask()
        except NotFoundError as error:
            found = error
    if not _is_own(found):
        raise found
    warning = ListNotFound(None, f"{name}: the API answered with 404, which is taken for an empty list: {found}")
    return FetchedPage((), 0, found.request_id, (warning,), found.status, found.elapsed)


def _is_own(error: APIError) -> bool:
    """Whether a refusal has the form of the API's own: an error code, or an entry with `status: false`."""
    return error.code is not None or any(one.code is not None or one.status is False for one in error.errors)
