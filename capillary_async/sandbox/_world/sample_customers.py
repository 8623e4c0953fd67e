"""The customers of the API pages' samples; each of their rows has its event.

Invariant: what a page shows is answered as it is there; what it leaves open is filled in with the same ids: an
allocation is an award of `points_awarded` with the same id, and an event has the same unique id as a loyalty event and
in the ledger. `World` falls back on them after its own customers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from capillary_async.sandbox._world.records import LINE_TABLE, NO_EVENT, TODAY, Award, Customer, Event, Row, iso
from capillary_async.sandbox._world.samples import ledger_samples, sample_rows

__all__ = ["sample_customers"]

_PROGRAM_ID, _POINT_CATEGORY_ID, _ORG_ID = 3379, 40022, 52011  # of the curl line of Get Points Awarded ID
_EXPIRY = 1_782_844_199_000  # 2026-06-30 23:59:59 IST: within the dates of that curl line
# The first curl line of Get Point Allocation Details by Event ID asks by a transaction id of 2025-09.
_CURL_TRANSACTION, _CURL_CUSTOMER, _CURL_EVENT, _CURL_AWARDED = 890697432, 566135941, 642_750_000, 1_757_900_000_000
_TILL = 50140377
_UNIQUE_IDS = {10072893: "hfjWDK0dek"}  # what the second curl line of that page asks for
_LOYALTY_IDS = 1_599_000_000  # below those of the world's own customers, and none of the samples'
_COMMON = ("points_exclusive", "redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")
_TYPES = {
    "TransactionAdd": 15,
    "CustomerRegistration": 2,
    "CustomerUpdate": 12,
    "PointsRedemption": 3,
    "GenericEvent": 23,
    "TargetCompleted": 25,
    "AllocateGoodwillPoints": 32,
    "ManualPointsAdjustment": 75,
}


@cache
def sample_customers() -> dict[int, Customer]:
    """The customers by id."""
    made: dict[int, Customer] = {}
    for row in (*sample_rows("allocations"), _curl_row()):
        _put(made, row["customer_id"], _award_of(row), None)
    for row in sample_rows("awarded"):
        _put(made, row["customer_id"], _of_sample(row), None)
    for row in sample_rows("events"):
        event = Event(row, _TYPES[row["eventName"]], str(NO_EVENT), _TILL, NO_EVENT)
        _put(made, row["customerId"], None, event)
    for sample in ledger_samples():
        _put(made, sample.customer_id, None, _event_of_ledger(sample.customer_id, sample.event))
    return made


def _put(made: dict[int, Customer], customer_id: int, award: Award | None, event: Event | None) -> None:
    """Add an award with its event, or an event alone; several awards name the same event, which is one."""
    before = made.get(customer_id, Customer(customer_id))
    events = list(before.events)
    if award is not None:
        log_id = award.row["event_log_id"]
        same = [each for each in events if each.log_id == log_id]
        event = _event_of(award, (*(same[0].awards if same else ()), award))
        events = [each for each in events if each.log_id != log_id]
    known = {each.row["uniqueId"] for each in events}
    events += [event] if event is not None and event.row["uniqueId"] not in known else []
    awards = before.awards if award is None else (*before.awards, award)
    made[customer_id] = Customer(customer_id, awards, tuple(events))


def _curl_row() -> Row:
    """The page shows no answer to its first curl line: the one it shows for the other, with this line's ids."""
    other = sample_rows("allocations")[1]
    ids = {"customer_id": _CURL_CUSTOMER, "original_customer_id": _CURL_CUSTOMER, "event_log_id": _CURL_EVENT}
    return (
        other
        | ids
        | {"id": other["id"] + 1, "points_source_id": _CURL_TRANSACTION, "awarded_date": _CURL_AWARDED}
        | {
            "expiry_date": _EXPIRY,
            "auto_update_time": _CURL_AWARDED + 1000,
            "expired_exclusive_value": 0,
            "status": "AVAILABLE",
        }
    )


def _award_of(row: Row) -> Award:
    """The award that an allocation shows: the row of `points_awarded` with the same id."""
    shared = {name: row[name] for name in (*_COMMON, "event_log_id", "id", "customer_id")}
    scope = (row["program_id"], row["point_category_id"], row["org_id"], row["expiry_date"])
    return Award(shared | {"source_table": "points_awarded"}, row["status"], *scope, row)


def _of_sample(row: Row) -> Award:
    """An award of the page Get points awarded ID; those of `points_awarded` are allocations too."""
    scope = (_PROGRAM_ID, _POINT_CATEGORY_ID, _ORG_ID, _EXPIRY)
    if row["source_table"] == LINE_TABLE:
        return Award(row, "AVAILABLE", *scope)
    like = sample_rows("allocations")[0]
    own = {name: row[name] for name in (*_COMMON, "event_log_id", "id", "customer_id")}
    ids = {"program_id": _PROGRAM_ID, "point_category_id": _POINT_CATEGORY_ID, "org_id": _ORG_ID}
    allocation = like | own | ids | {"original_customer_id": row["customer_id"], "expiry_date": _EXPIRY}
    return Award(row, "AVAILABLE", *scope, allocation)


def _event_of(award: Award, awards: tuple[Award, ...]) -> Event:
    """The event that an award names; every one of the samples is a TransactionAdd."""
    log_id, owner = award.row["event_log_id"], award.row["customer_id"]
    shown = next((each.allocation for each in awards if each.allocation is not None), None)
    date = iso(int(TODAY.timestamp()) if shown is None else shown["awarded_date"] // 1000)
    wire = _wire((log_id, owner, award.org_id), date, "TransactionAdd", _UNIQUE_IDS.get(log_id))
    reference = str(NO_EVENT if shown is None else shown["points_source_id"])
    return Event(wire, _TYPES["TransactionAdd"], reference, _TILL, log_id, awards)


def _event_of_ledger(customer_id: int, event: dict[str, Any]) -> Event:
    """The loyalty event that the ledger page explodes."""
    text = event["eventDetails"].get("eventTime", "2025-11-20 09:00:00.0")
    date = iso(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))
    name = event["eventName"]
    wire = _wire((event["eventLogId"], customer_id, _ORG_ID), date, name, event.get("uniqueId"))
    reference = str(event.get("eventReferenceId", NO_EVENT))
    return Event(wire, _TYPES[name], reference, event["eventDetails"].get("tillId", _TILL), event["eventLogId"])


def _wire(ids: tuple[int, int, int], date: str, name: str, unique_id: str | None) -> Row:
    log_id, customer_id, org_id = ids
    return {
        "id": _LOYALTY_IDS + log_id % 1_000_000,
        "customerId": customer_id,
        "date": date,
        "eventName": name,
        "orgId": org_id,
        "status": "SUCCESS",
        "uniqueId": unique_id or f"event{log_id}",
    }
