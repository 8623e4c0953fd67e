"""The paths of the endpoints.

Invariant: what does not exist, or exists under another method, is refused in the shape of its API. `Sandbox` calls
`answer_to` once a request is past faults, rate and credentials.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import attrs

from capillary_async.sandbox._endpoints.events import loyalty_events
from capillary_async.sandbox._endpoints.ledger import explode
from capillary_async.sandbox._endpoints.neo import allocations_by_event, allocations_by_expiry, awarded
from capillary_async.sandbox._protocol.answers import Answer, Refused, neo_error, v2_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.sandbox._faults.schedule import FaultPlan
    from capillary_async.sandbox._world.world import World

__all__ = ["TOKEN_PATH", "Setup", "answer_to", "check_method"]

TOKEN_PATH = "/v3/oauth/token/generate"  # noqa: S105  (a path)
_NEO = {
    "/x/neo/pointsAwarded/paIds": awarded,
    "/x/neo/pointsAllocation/event": allocations_by_event,
    "/x/neo/pointsAllocation/dateRange": allocations_by_expiry,
}
_EVENTS = re.compile(r"/v2/customers/([^/]+)/loyaltyEvents")
_LEDGER = "/v2/pointsLedger/getLedgerExplodeInfo"
_SCOPE_HEADER, _SCOPE = "x-cap-neo-dag-scope", "global"


@attrs.frozen
class Setup:
    """The data and the options of the endpoints.

    Attributes:
        world: The customers.
        v2_error_status: The HTTP status of refusals that name a code of the v2 pages.
        unknown_event_ids: What an unknown event id does to a ledger call.
    """

    world: World
    v2_error_status: int
    unknown_event_ids: Literal["error", "null"]


def check_method(method: str, path: str) -> None:
    """Refuse a method that the path does not have.

    Raises:
        Refused: 405.
    """
    allowed = "POST" if path == TOKEN_PATH else "GET"
    if method != allowed:
        refusal = _refusal(path, 405, f"Method {method} is not supported, use {allowed}")
        raise Refused(attrs.evolve(refusal, headers={"Allow": allowed}))


def answer_to(
    setup: Setup, path: str, params: Mapping[str, str], headers: Mapping[str, str], play: FaultPlan
) -> Answer:
    """Return the answer of the endpoint at this path.

    Raises:
        Refused: The request is not one that it answers.
    """
    if path in _NEO:
        _check_scope(headers)
        return _NEO[path](setup.world, params, play)
    if path == _LEDGER:
        return explode(setup.world, params, play, setup.v2_error_status, setup.unknown_event_ids)
    found = _EVENTS.fullmatch(path)
    if found is None:
        raise Refused(_refusal(path, 404, f"No such resource: {path}"))
    return loyalty_events(setup.world, found[1], params, play, setup.v2_error_status)


def _check_scope(headers: Mapping[str, str]) -> None:
    """The server's default scope is another one and wrong for these paths, so the header must be there."""
    if headers.get(_SCOPE_HEADER) != _SCOPE:
        raise Refused(neo_error(400, f"Header {_SCOPE_HEADER} must be {_SCOPE}, got {headers.get(_SCOPE_HEADER)}"))


def _refusal(path: str, status: int, message: str) -> Answer:
    return neo_error(status, message) if path.startswith("/x/neo/") else v2_errors(status, status, message)
