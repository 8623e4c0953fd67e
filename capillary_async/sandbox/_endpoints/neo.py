"""The three Neo endpoints: awarded ids, and allocations by event and by expiry date.

Invariant: success is a bare array, refusal an object; parameters are those of the pages Get Points Awarded ID, Get
Point Allocation Details by Event ID, and Get Allocated Points Details with Expiry in Specified Date Range. Allocations
are rows of the table `points_awarded` alone, awarded ids of two of the five award tables. `_server/routes.py` calls
these.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import TYPE_CHECKING

from capillary_async.sandbox._protocol.answers import Answer, neo_error, ok
from capillary_async.sandbox._protocol.query import RequestParams, Window
from capillary_async.sandbox._world.records import IST, epoch_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.sandbox._faults.schedule import FaultPlan
    from capillary_async.sandbox._world.records import Row
    from capillary_async.sandbox._world.world import World

__all__ = ["allocations_by_event", "allocations_by_expiry", "awarded"]

_STATUSES = frozenset(
    {
        *("AVAILABLE", "REDEEMED", "EXPIRED", "CONSUMED", "RETURNED", "CONSUMED_BY_CONVERSION", "INACTIVE"),
        "POINT_CATEGORY_CHANGED",  # not on the page, but in its table
    }
)
_DEFAULT_COUNT, _MOST_COUNT = 10, 100


def awarded(world: World, params: Mapping[str, str], play: FaultPlan) -> Answer:
    """`/x/neo/pointsAwarded/paIds`: not paged; several customers or user groups at once."""
    query = _query(params)
    start, end = _span(*query.days("start_expiry_date", "end_expiry_date"))
    program_id, category, status = query.number("program_id"), query.number("point_category_id"), _status(query)
    org_id = query.number("org_id", 0, least=0)
    customers = map(world.customer, world.people(query.numbers("entity_id")))
    rows = [
        award.row
        for customer in customers
        for award in (customer.shown(category) if customer else ())
        if (award.program_id, award.status) == (program_id, status)
        and start <= award.expiry_date <= end
        and org_id in (0, award.org_id)
    ]
    # The page's sample is in this order, not in that of the ids asked for.
    rows.sort(key=lambda row: (row["source_table"], row["customer_id"]))
    return ok(play.entries(rows))


def allocations_by_expiry(world: World, params: Mapping[str, str], play: FaultPlan) -> Answer:
    """`/x/neo/pointsAllocation/dateRange`: one customer's allocations that expire within two days, both included."""
    query = _query(params)
    start, end = _span(*query.days("expiry_date_start", "expiry_date_end"))
    scope = (query.number("program_id"), query.number("point_category_id"))
    entity_id, window = query.number("entity_id"), _window(query)
    rows = world.expiring(entity_id, *scope, start, end)
    return ok(play.page(f"dateRange {entity_id} {scope} {start} {end}", rows, window))


def allocations_by_event(world: World, params: Mapping[str, str], play: FaultPlan) -> Answer:
    """`/x/neo/pointsAllocation/event`: the allocations of one event, of all categories.

    It is found by its unique id, its transaction id or its request id. An event log id finds nothing: that the service
    takes one is uncertain.
    """
    query = _query(params)
    entity_id, type_id = query.text("entity_id"), query.number("event_type_id")
    customer_id, window = query.number("customer_id"), _window(query)
    customer = world.customer(customer_id)
    rows: list[Row] = [
        row
        for event in (customer.events if customer else ())
        if event.event_type_id == type_id and entity_id in event.entities
        for row in event.allocations
    ]
    return ok(play.page(f"event {customer_id} {entity_id}", rows, window))


def _query(params: Mapping[str, str]) -> RequestParams:
    return RequestParams(params, lambda message: neo_error(400, message))


def _window(query: RequestParams) -> Window:
    count = query.number("count", _DEFAULT_COUNT, most=_MOST_COUNT)
    return Window(query.number("page", 1), count)


def _status(query: RequestParams) -> str:
    status = query.text("status")
    if status not in _STATUSES:
        raise query.refused(f"Invalid value for parameter status: {status!r}, expected one of {sorted(_STATUSES)}")
    return status


def _span(first: date, last: date) -> tuple[int, int]:
    """From the beginning of the first day until the end of the last one, in epoch milliseconds."""
    return epoch_ms(datetime.combine(first, time(), IST)), epoch_ms(datetime.combine(last, time(23, 59, 59), IST))
