"""The loyaltyEvents endpoint.

Invariant: the v2 envelope with `data`, `warnings` and `errors`; parameters are those of the page Get Loyalty
Events. `_server/routes.py` calls it.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from capillary_async.sandbox._protocol.answers import Answer, Refused, ok, v2_errors
from capillary_async.sandbox._protocol.query import RequestParams, Window, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.sandbox._faults.schedule import FaultPlan
    from capillary_async.sandbox._world.records import Event
    from capillary_async.sandbox._world.world import World

__all__ = ["known_customer", "loyalty_events"]

_NOT_FOUND, _MERGED = 8015, 8069
_DEFAULT_LIMIT = 10
# The page names four kinds beside the events' own names.
_KINDS = {
    "REDEEM": frozenset({"PointsRedemption", "VoucherRedemption"}),
    "EXPIRE": frozenset({"PointsExpiry"}),
    "TRANSFER": frozenset({"PointsTransfer"}),
}


def loyalty_events(world: World, customer_id: str, params: Mapping[str, str], play: FaultPlan, status: int) -> Answer:
    """`/v2/customers/{customerId}/loyaltyEvents`; a refusal goes out under the given HTTP status.

    The segment that is no number is a customer that is not found.
    """
    query = RequestParams(params, lambda message: v2_errors(400, 400, message))
    owner = known_customer(world, whole_number(customer_id), status)
    window, kind = _window(query), params.get("eventType", "").strip()
    start, end = query.optional_day("fromDate"), query.optional_day("toDate")
    customer = world.customer(owner)
    events = customer.events if customer else ()
    if kind or start or end:
        events = tuple(event for event in events if _wanted(event, kind, start, end))
    rows = [event.row for event in events]
    page = play.page(f"loyaltyEvents {owner} {kind} {start} {end}", rows, window)
    return ok({"data": page, "warnings": [], "errors": []})


def known_customer(world: World, customer_id: int | None, status: int) -> int:
    """The id, when there is such a customer.

    Raises:
        Refused: 8015 for an unknown customer, 8069 for a merged one.
    """
    standing = "unknown" if customer_id is None else world.standing(customer_id)
    if customer_id is None or standing == "unknown":
        raise Refused(v2_errors(status, _NOT_FOUND, "Customer not found for the given identifiers"))
    if standing == "merged":
        raise Refused(v2_errors(status, _MERGED, f"Merged customer found, survivor {world.survivor(customer_id)}"))
    return customer_id


def _window(query: RequestParams) -> Window:
    """`page` overrides `offset` where both are sent."""
    limit = query.number("limit", _DEFAULT_LIMIT)
    offset = query.number("offset", 0, least=0)
    if "page" in query.params or "offset" not in query.params:
        return Window(query.number("page", 1), limit)
    return Window(1 + offset // limit, limit, offset)


def _wanted(event: Event, kind: str, start: date | None, end: date | None) -> bool:
    day = date.fromisoformat(event.row["date"][:10])
    return (start is None or day >= start) and (end is None or day <= end) and _is(event, kind)


def _is(event: Event, kind: str) -> bool:
    if kind == "EARN":
        return bool(event.awards)
    name = event.name
    return not kind or name == kind or name in _KINDS.get(kind, ())
