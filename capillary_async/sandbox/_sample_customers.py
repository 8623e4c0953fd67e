"""The customers that the pages' samples speak of, made whole: each of their rows has its loyalty event.

The rule kept here: what a page shows is answered as it stands there; what it leaves open is filled in with the same
ids. `World` falls back on them after its own customers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from capillary_async.sandbox._records import TODAY, Award, Customer, Event, Row, iso
from capillary_async.sandbox._samples import ledger_samples, sample_rows

__all__ = ["sample_customers"]

_PROGRAM_ID, _POINT_CATEGORY_ID, _ORG_ID = 3379, 40022, 52011  # of the curl line of Get Points Awarded ID
_EXPIRY = 1_782_844_199_000  # 2026-06-30 23:59:59 IST: within the dates of that curl line
_CURL_EVENT, _CURL_CUSTOMER = 890697432, 566135941  # the first curl line of Get Point Allocation Details by Event ID
_TILL = 50140377
_UNIQUE_IDS = {10072893: "hfjWDK0dek"}  # what the second curl line of that page asks for
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
        _put(made, Customer(row["customer_id"], (row,), events=(_event_of(row),)))
    for row in sample_rows("awarded"):
        award = Award(row, "AVAILABLE", _PROGRAM_ID, _POINT_CATEGORY_ID, _ORG_ID, _EXPIRY)
        _put(made, Customer(row["customer_id"], awards=(award,), events=(_event_of(row),)))
    for row in sample_rows("events"):
        _put(made, Customer(row["customerId"], events=(Event(row, _TYPES[row["eventName"]], "-1", _TILL),)))
    for sample in ledger_samples():
        _put(made, Customer(sample.customer_id, events=(_event_of_ledger(sample.customer_id, sample.event),)))
    return made


def _put(made: dict[int, Customer], more: Customer) -> None:
    """Add rows to a customer; several rows name the same event, which is one."""
    before = made.get(more.id, Customer(more.id))
    known = {event.id for event in before.events}
    events = before.events + tuple(event for event in more.events if event.id not in known)
    made[more.id] = Customer(more.id, before.allocations + more.allocations, before.awards + more.awards, events)


def _curl_row() -> Row:
    """The page shows no answer to its first curl line: the one it shows for the other, with this line's ids."""
    other = sample_rows("allocations")[1]
    ids = {"customer_id": _CURL_CUSTOMER, "original_customer_id": _CURL_CUSTOMER, "event_log_id": _CURL_EVENT}
    return other | ids | {"id": other["id"] + 1}


def _event_of(row: Row) -> Event:
    """The loyalty event that an allocation or award names; every one of the samples is a TransactionAdd."""
    event_id, owner = row["event_log_id"], row["customer_id"]
    date = iso(row["awarded_date"] // 1000) if "awarded_date" in row else iso(int(TODAY.timestamp()))
    wire = _wire((event_id, owner, row.get("org_id", _ORG_ID)), date, "TransactionAdd", _UNIQUE_IDS.get(event_id))
    allocations = (row,) if "points_source_id" in row else ()
    return Event(wire, _TYPES["TransactionAdd"], str(row.get("points_source_id", event_id)), _TILL, allocations)


def _event_of_ledger(customer_id: int, event: dict[str, Any]) -> Event:
    """The loyalty event that the ledger page explodes."""
    text = event["eventDetails"].get("eventTime", "2025-11-20 09:00:00.0")
    date = iso(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))
    name = event["eventName"]
    wire = _wire((event["eventLogId"], customer_id, _ORG_ID), date, name, event.get("uniqueId"))
    reference = str(event.get("eventReferenceId", "-1"))
    return Event(wire, _TYPES[name], reference, event["eventDetails"].get("tillId", _TILL))


def _wire(ids: tuple[int, int, int], date: str, name: str, unique_id: str | None) -> Row:
    event_id, customer_id, org_id = ids
    return {
        "id": event_id,
        "customerId": customer_id,
        "date": date,
        "eventName": name,
        "orgId": org_id,
        "status": "SUCCESS",
        "uniqueId": unique_id or f"event{event_id}",
    }
