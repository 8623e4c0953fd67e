"""The five calls of the API, one class per resource, which builds requests and names models."""

from capillary_async.endpoints.loyalty_events import LoyaltyEventsResource
from capillary_async.endpoints.points_allocation import EventQuery, PointsAllocationResource
from capillary_async.endpoints.points_awarded import PointsAwardedResource
from capillary_async.endpoints.points_ledger import Identifier, LedgerInclude, LedgerQuery, PointsLedgerResource

__all__ = [
    "EventQuery",
    "Identifier",
    "LedgerInclude",
    "LedgerQuery",
    "LoyaltyEventsResource",
    "PointsAllocationResource",
    "PointsAwardedResource",
    "PointsLedgerResource",
]
