"""`session.history`: what joins what, what stays alone, in which order, and how it fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.api_double import HOST, Seen, refused, serving

from capillary_async import (
    CustomerNotFoundError,
    History,
    InvalidRequestError,
    LedgerEvent,
    LoyaltyEvent,
    PointsAllocation,
    PointsAwarded,
    PointsStatus,
    ServerError,
)
from capillary_async.endpoints._history_join import Join

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import AsyncSession

    Sessions = Callable[..., AsyncSession]

CUSTOMER = 566135941
ASKED: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}
# Event log ids and ids of loyalty events are two series: the numbers are those of the vendor's samples.
BILL, REDEMPTION = 634510612, 652367550


def allocation(number: int, event: int | None, awarded: int | None = 1_750_000_000_000) -> dict[str, Any]:
    return {
        "id": number,
        "customer_id": CUSTOMER,
        "event_log_id": event,
        "awarded_date": awarded,
        "points_exclusive": 5,
    }


def award(number: int, event: int | None, table: str = "points_awarded") -> dict[str, Any]:
    return {"id": number, "customer_id": CUSTOMER, "event_log_id": event, "source_table": table, "points_exclusive": 5}


def loyalty(number: int, unique: str | None, day: int = 1) -> dict[str, Any]:
    return {
        "id": number, "customerId": CUSTOMER, "uniqueId": unique, "date": f"2025-08-{day:02}T10:00:00Z",
        "eventName": "TransactionAdd", "status": "SUCCESS",
    }  # fmt: skip


def ledger(event: int, unique: str | None, iso: str | None = "2025-07-16T14:00:00Z") -> dict[str, Any]:
    return {
        "eventLogId": event, "eventName": "TransactionAdd", "uniqueId": unique, "eventDetails": {"eventTimeISO": iso}
    }  # fmt: skip


class Api:
    """The four endpoints over some rows; the ledger refuses the ids in `refuses`."""

    def __init__(self, allocations: Any = (), awards: Any = (), events: Any = (), exploded: Any = ()) -> None:
        self.allocations, self.awards = list(allocations), list(awards)
        self.events, self.exploded = list(events), list(exploded)
        self.refuses: set[int] = set()
        self.asked: list[int] = []

    def __call__(self, seen: Seen) -> Any:
        if seen.path.endswith("/dateRange"):
            return self.allocations
        if seen.path.endswith("/paIds"):
            return self.awards if seen.query["status"] == "AVAILABLE" else []
        if seen.path.endswith("/loyaltyEvents"):
            return {"data": self.events, "warnings": [{"code": 7, "message": "late"}], "errors": []}
        ids = [int(text) for text in seen.query["eventIds"].split(",")]
        self.asked += ids
        assert (seen.query["identifierName"], seen.query["identifierValue"]) == ("CustomerID", str(CUSTOMER))
        if self.refuses & set(ids):
            return refused(400, 9021, "invalid event")
        return {"events": [event for event in self.exploded if event["eventLogId"] in ids], "warnings": []}


async def history_of(session_at: Sessions, api: Api, **more: Any) -> History:
    with serving(api):
        return await session_at(HOST).history(**{"customer_id": CUSTOMER, **ASKED, **more})


async def test_everything_of_one_event_is_one_entry(session_at: Sessions) -> None:
    api = Api(
        [allocation(1, BILL)],
        [award(1, BILL), award(9, BILL, "points_awarded_bill_lineitems")],
        [loyalty(1603616021, "yFNq8FgavV")],
        [ledger(BILL, "yFNq8FgavV")],
    )
    found = await history_of(session_at, api)
    (entry,) = found
    assert (entry.event_log_id, entry.unique_id, entry.event_name) == (BILL, "yFNq8FgavV", "TransactionAdd")
    assert [len(entry.allocations), len(entry.awards), len(entry.loyalty_events), len(entry.ledger_events)] == [
        1,
        2,
        1,
        1,
    ]
    assert entry.at == datetime(2025, 8, 1, 10, tzinfo=UTC)
    assert found.unjoined == ()
    assert [warning.message for warning in found.warnings] == ["late"]


async def test_a_loyalty_event_never_joins_by_its_id(session_at: Sessions) -> None:
    """Its id may equal an event log id by chance."""
    api = Api([allocation(1, BILL)], (), [loyalty(BILL, "other")], [ledger(BILL, "yFNq8FgavV")])
    found = await history_of(session_at, api)
    assert [(entry.event_log_id, entry.unique_id) for entry in found] == [(BILL, "yFNq8FgavV"), (None, "other")]
    assert Counter(each.reason for each in found.unjoined) == {
        "no ledger event of the rows read has its unique id": 1,
        "no loyalty event of the days asked has its unique id": 1,
    }


async def test_rows_without_an_event_are_never_joined_to_each_other(session_at: Sessions) -> None:
    """None and -1 are no event; an award joins the allocation with its id all the same, in its own table alone."""
    api = Api(
        [allocation(1, -1), allocation(2, None)],
        [award(1, -1), award(2, None, "points_awarded_bill_promotions"), award(3, -1)],
    )
    found = await history_of(session_at, api)
    assert sorted((len(entry.allocations), len(entry.awards)) for entry in found) == [(0, 1), (0, 1), (1, 0), (1, 1)]
    assert {each.reason for each in found.unjoined} == {"it has no event log id"}
    assert len(found.unjoined) == 5
    assert api.asked == []


async def test_the_ledger_is_asked_for_each_event_once(session_at: Sessions) -> None:
    rows = [allocation(number, BILL + number % 25) for number in range(60)]
    api = Api(rows, [award(number, BILL) for number in range(5)], (), [ledger(BILL + n, f"u{n}") for n in range(25)])
    found = await history_of(session_at, api)
    assert sorted(api.asked) == [BILL + n for n in range(25)]
    assert len(found) == 25


async def test_an_event_that_the_ledger_refuses_costs_nothing_else(session_at: Sessions) -> None:
    api = Api(
        [allocation(number, BILL + number) for number in range(13)],
        (),
        (),
        [ledger(BILL + n, f"u{n}") for n in range(13)],
    )
    api.refuses = {BILL + 3}
    found = await history_of(session_at, api)
    assert [(each.record.id, each.reason) for each in found.unjoined if hasattr(each.record, "customer_id")] == [
        (3, "the ledger refused its event log id")
    ]
    assert sum(len(entry.ledger_events) for entry in found) == 12


async def test_an_event_that_the_ledger_does_not_give(session_at: Sessions) -> None:
    found = await history_of(session_at, Api([allocation(1, BILL)]))
    assert [each.reason for each in found.unjoined] == ["the ledger has no event with its event log id"]
    assert found[0].at == datetime.fromtimestamp(1_750_000_000, UTC)


async def test_a_unique_id_of_several_events_joins_none_of_them(session_at: Sessions) -> None:
    exploded = [ledger(BILL, "same"), ledger(REDEMPTION, "same")]
    api = Api([allocation(1, BILL), allocation(2, REDEMPTION)], (), [loyalty(1, "same")], exploded)
    found = await history_of(session_at, api)
    assert [len(entry.loyalty_events) + len(entry.ledger_events) for entry in found] == [1, 1, 1]
    assert "several event log ids have its unique id" in [each.reason for each in found.unjoined]


async def test_entries_are_in_order_of_time_and_those_without_one_last(session_at: Sessions) -> None:
    api = Api(
        [allocation(1, 1, None), allocation(2, 2, 10**18), allocation(3, 3, 1_760_000_000_000)],
        (),
        [loyalty(4, "later", 20), loyalty(5, "earlier", 2)],
    )
    found = await history_of(session_at, api)
    times = [entry.at for entry in found]
    assert times[:3] == sorted(time for time in times[:3] if time is not None)
    assert times[3:] == [None, None]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"statuses": []}, "statuses takes"),
        ({"statuses": 5}, "statuses takes"),
        ({"customer_id": True}, "customer_id takes"),
        ({"expiry_date_start": "x"}, "takes a date"),
        ({"from_date": "2026-02-30"}, "from_date takes a date"),
        ({"source": ""}, "source takes"),
        ({"include": "bill_details"}, "include takes a LedgerInclude"),
    ],
)
async def test_arguments_that_are_invalid_send_nothing(session_at: Sessions, more: dict[str, Any], said: str) -> None:
    with serving(Api([allocation(1, BILL)])) as seen, pytest.raises(InvalidRequestError, match=said):
        await session_at(HOST).history(**{"customer_id": CUSTOMER, **ASKED, **more})
    assert seen == []


async def test_statuses_are_asked_for_all_or_as_said(session_at: Sessions) -> None:
    for statuses, due in ((None, list(PointsStatus)), (["AVAILABLE"], ["AVAILABLE"])):
        with serving(Api()) as seen:
            await session_at(HOST).history(CUSTOMER, **ASKED, statuses=statuses)
        assert [each.query["status"] for each in seen if each.path.endswith("/paIds")] == due


async def test_a_failure_is_itself_and_leaves_no_request(session_at: Sessions) -> None:
    def failing(seen: Seen) -> Any:
        return refused(404, 8015) if seen.path.endswith("/loyaltyEvents") else Api([allocation(1, BILL)])(seen)

    with serving(failing), pytest.raises(CustomerNotFoundError):
        await session_at(HOST).history(CUSTOMER, **ASKED)
    assert len(asyncio.all_tasks()) == 1


async def test_a_failure_of_the_ledger_is_the_call_s(session_at: Sessions) -> None:
    def failing(seen: Seen) -> Any:
        return refused(500) if "getLedger" in seen.path else Api([allocation(1, BILL)])(seen)

    with serving(failing), pytest.raises(ServerError):
        await session_at(HOST).history(CUSTOMER, **ASKED)


def test_reprs_are_short() -> None:
    entry = History(1, ())
    assert repr(entry) == "<History of customer 1: 0 entries, 0 unjoined>"


events = st.one_of(st.none(), st.just(-1), st.integers(1, 4))
uniques = st.one_of(st.none(), st.sampled_from("abcd"))


records = given(
    allocations=st.lists(events, max_size=6),
    awards=st.lists(st.tuples(events, st.sampled_from(["points_awarded", "other"])), max_size=6),
    loyal=st.lists(uniques, max_size=5),
    exploded=st.dictionaries(st.integers(1, 4), uniques, max_size=4),
)


@settings(max_examples=200, deadline=None)
@records
def test_a_join_gives_every_record_once(allocations: Any, awards: Any, loyal: Any, exploded: Any) -> None:
    """As values, without a session."""
    join = Join(())
    join.rows(
        [PointsAllocation(id=n, event_log_id=event) for n, event in enumerate(allocations, 1)],
        [PointsAwarded(id=n, event_log_id=event, source_table=table) for n, (event, table) in enumerate(awards, 1)],
    )
    join.events(
        [LedgerEvent(event_log_id=event, unique_id=unique) for event, unique in exploded.items()],
        [LoyaltyEvent(id=n, unique_id=unique) for n, unique in enumerate(loyal, 1)],
    )
    found = join.entries()
    assert sorted(row.id or 0 for entry in found for row in entry.allocations) == [*range(1, len(allocations) + 1)]
    assert sorted(row.id or 0 for entry in found for row in entry.awards) == [*range(1, len(awards) + 1)]
    assert sorted(row.id or 0 for entry in found for row in entry.loyalty_events) == [*range(1, len(loyal) + 1)]
    assert sorted(row.event_log_id or 0 for entry in found for row in entry.ledger_events) == sorted(exploded)
    for entry in found:
        rows = [*entry.allocations, *entry.awards]
        assert entry.event_log_id is None or all(row.event_log_id == entry.event_log_id for row in rows)


@settings(max_examples=10, deadline=None)
@records
async def test_every_record_is_in_exactly_one_entry(allocations: Any, awards: Any, loyal: Any, exploded: Any) -> None:
    from capillary_async import AsyncSession, BasicAuth

    api = Api(
        [allocation(n, event) for n, event in enumerate(allocations, 1)],
        [award(n, event, table) for n, (event, table) in enumerate(awards, 1)],
        [loyalty(n, unique) for n, unique in enumerate(loyal, 1)],
        [ledger(event, unique) for event, unique in exploded.items()],
    )
    async with AsyncSession(HOST, auth=BasicAuth("till", password="p")) as session:
        with serving(api):
            found = await session.history(CUSTOMER, **ASKED)
    assert sorted(row.id for entry in found for row in entry.allocations) == list(range(1, len(allocations) + 1))
    assert sorted(row.id for entry in found for row in entry.awards) == list(range(1, len(awards) + 1))
    assert sorted(row.id for entry in found for row in entry.loyalty_events) == list(range(1, len(loyal) + 1))
    wanted = {event for event in [*allocations, *(event for event, _ in awards)] if event is not None and event > 0}
    given_ids = sorted(row.event_log_id for entry in found for row in entry.ledger_events)
    assert given_ids == sorted(wanted & set(exploded))
    for entry in found:
        rows = [*entry.allocations, *entry.awards]
        assert entry.event_log_id is None or all(row.event_log_id == entry.event_log_id for row in rows)
        assert {row.unique_id for row in entry.loyalty_events} <= {
            *(row.unique_id for row in entry.ledger_events), entry.unique_id,
        }  # fmt: skip
