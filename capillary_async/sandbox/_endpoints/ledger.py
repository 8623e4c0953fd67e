"""The getLedgerExplodeInfo endpoint: whose events, which events, and every refusal that its page lists.

Invariant: the checks run in the order identifier, type, events, currencies, and the first that fails decides
the code. `_server/routes.py` calls it; `_endpoints/ledger_event.py` writes one event out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from capillary_async.sandbox._endpoints.events import known_customer
from capillary_async.sandbox._endpoints.ledger_event import CURRENCY, exploded
from capillary_async.sandbox._protocol.answers import Answer, Refused, ok, v2_errors
from capillary_async.sandbox._protocol.query import whole_number
from capillary_async.sandbox._world.samples import ledger_samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.sandbox._faults.schedule import FaultPlan
    from capillary_async.sandbox._world.records import Event
    from capillary_async.sandbox._world.world import World

__all__ = ["explode"]

_MOST_IDS = 10
_NAMES = frozenset({"mobile", "id", "email", "customerid", "primaryuserid", "externalid"})
_SOURCES = frozenset(
    {
        *("INSTORE", "MARTJACK", "WECHAT", "FACEBOOK", "WEB_ENGAGE", "TMALL"),
        *("TAOBAO", "JD", "ECOMMERCE", "WEBSITE", "LINE", "ALL"),
    }
)
_EVENT_NAMES = frozenset(
    {
        *("NewBill", "TransactionAdd", "GroupTransactionAdd", "LineItemsPointsPromotionImport"),
        *("BillPointsPromotionImport", "CustomerPromotionImport", "GenericEvent", "CustomerRegistration"),
        *("CustomerUpdate", "AllocateGoodwillPoints", "PointsTransfer", "PointsRedemption", "ReturnBill"),
        *("TargetCompleted", "ManualPointsAdjustment", "VoucherRedemption"),
    }
)


@attrs.frozen
class _Found:
    """One entry of the answer, with the warnings it brings."""

    entry: dict[str, Any] | None
    warnings: tuple[dict[str, Any], ...] = ()


@attrs.frozen
class _Ask:
    """One call, on its way through the checks."""

    world: World
    params: Mapping[str, str]
    status: int
    """The HTTP status of a refusal."""

    def refused(self, code: int, message: str) -> Refused:
        return Refused(v2_errors(self.status, code, message))

    def text(self, name: str) -> str:
        return self.params.get(name, "").strip()

    def listed(self, name: str) -> list[str]:
        """The texts between the commas, each once."""
        return list(dict.fromkeys(part.strip() for part in self.text(name).split(",") if part.strip()))


def explode(
    world: World, params: Mapping[str, str], play: FaultPlan, status: int, unknown: Literal["error", "null"]
) -> Answer:
    """`/v2/pointsLedger/getLedgerExplodeInfo`; `unknown` says what an unknown event id does."""
    ask = _Ask(world, params, status)
    owners = _owners(ask)
    found = _by_ids(ask, owners, unknown) if "eventIds" in params else _by_references(ask, owners)
    warnings = [warning for one in found for warning in one.warnings] + _currency_warnings(ask)
    distinct = {warning["message"]: warning for warning in warnings}
    return ok({"events": play.entries([one.entry for one in found]), "warnings": list(distinct.values())})


def _owners(ask: _Ask) -> list[int]:
    """The customers that the identifier means: one, or the members of a group."""
    name, value, source = (ask.text(part) for part in ("identifierName", "identifierValue", "source"))
    if not (name and value and source):
        raise ask.refused(11013, "IdentifierName and identifierValue, source can not be empty")
    if name.lower() not in _NAMES:
        raise ask.refused(8013, f"Invalid identifiername field value: {name}")
    if name.lower() in {"id", "customerid", "primaryuserid"} and whole_number(value) is None:
        raise ask.refused(11012, f"Invalid userId field value: {value}")
    if source.upper() not in _SOURCES:
        raise ask.refused(11019, f"Source value capturing status is disabled: {source}")
    kind = ask.text("type") or "CUSTOMER"
    if kind not in {"CUSTOMER", "USERGROUP2"}:
        raise ask.refused(9003, f"Error fetching points ledger data, invalid type: {kind}")
    if kind == "USERGROUP2" or name.lower() == "primaryuserid":
        return _group(ask, name.lower(), value)
    return [known_customer(ask.world, ask.world.find(name.lower(), value), ask.status)]


def _group(ask: _Ask, name: str, value: str) -> list[int]:
    """The members of the group, named by its own id or by its primary user."""
    world = ask.world
    for group_id in world.group_ids:
        members = world.members(group_id)
        if value == str(members[0] if name == "primaryuserid" else group_id):
            return list(members)
    raise ask.refused(1632, "Group id/externalId/primary userId passed is invalid")


def _by_ids(ask: _Ask, owners: list[int], unknown: Literal["error", "null"]) -> list[_Found]:
    """The events with these event log ids, in the order asked."""
    if ask.text("eventName") or ask.text("eventReferenceIds"):
        raise ask.refused(11021, "EventId and Event References, both cannot be passed")
    ids = ask.listed("eventIds")
    if not ids:
        raise _neither(ask)
    if any(whole_number(each) is None for each in ids):
        raise ask.refused(11017, f"Event id format exception: {ask.text('eventIds')}")
    if len(ids) > _MOST_IDS:
        raise ask.refused(11016, f"At most {_MOST_IDS} event ids are allowed, got {len(ids)}")
    held = _held(ask, owners)
    found = [entry for each in ids for entry in held.get(int(each)) or [_Found(None)]]
    if unknown == "error" and any(one.entry is None for one in found):
        raise ask.refused(9021, "Invalid identifiers found: eventId is invalid")
    return found


def _by_references(ask: _Ask, owners: list[int]) -> list[_Found]:
    """The events of this name with these transaction ids or request ids, in the order asked."""
    name, references = ask.text("eventName"), ask.listed("eventReferenceIds")
    if not (name and references):
        raise _neither(ask)
    if name not in _EVENT_NAMES:
        raise ask.refused(11014, f"Event name not found: {name}")
    if len(references) > _MOST_IDS:
        raise ask.refused(11016, f"At most {_MOST_IDS} reference ids are allowed, got {len(references)}")
    found = [one for reference in references for one in _referred(ask, owners, name, reference)]
    if not found:
        raise ask.refused(9022, "Event reference IDs are invalid")
    return found


def _neither(ask: _Ask) -> Refused:
    return ask.refused(11023, "Invalid identifiers found. Either EventLogId or (EventName and BillId) are required")


def _held(ask: _Ask, owners: list[int]) -> dict[int, list[_Found]]:
    """Every event of these customers by its id, not yet written out where that is avoidable."""
    wanted = {whole_number(each) for each in ask.listed("eventIds")}
    held: dict[int, list[_Found]] = {}
    for event in _events(ask, owners):
        if event.log_id in wanted:
            held[event.log_id] = [_Found(exploded(event, ask.params))]
    # The documented sample is answered as on its page, whatever flags are sent.
    samples = [sample for sample in ledger_samples() if sample.customer_id in owners]
    for event_id in {sample.event["eventLogId"] for sample in samples}:
        held[event_id] = [
            _Found(sample.event, sample.warnings) for sample in samples if sample.event["eventLogId"] == event_id
        ]
    return held


def _referred(ask: _Ask, owners: list[int], name: str, reference: str) -> list[_Found]:
    """The events of that name and reference."""
    samples = [
        _Found(sample.event, sample.warnings)
        for sample in ledger_samples()
        if sample.customer_id in owners and sample.event["eventName"] == name and reference in sample.references
    ]
    return samples or [
        _Found(exploded(event, ask.params))
        for event in _events(ask, owners)
        if event.name == name and event.is_referred and reference == event.reference
    ]


def _events(ask: _Ask, owners: list[int]) -> list[Event]:
    customers = (ask.world.customer(owner) for owner in owners)
    return [event for customer in customers if customer for event in customer.events]


def _currency_warnings(ask: _Ask) -> list[dict[str, Any]]:
    """One warning for each currency name that the organisation does not have."""
    if "alternateCurrencyNames" not in ask.params:
        return []
    names = ask.listed("alternateCurrencyNames")
    if not names:
        raise ask.refused(9005, "Invalid alternateCurrencyNames field value")
    text = "alternate currency with given name not found for org, name: "
    return [{"code": 9018, "message": text + name, "status": False} for name in names if name != CURRENCY]
