"""`loyalty_events` as users call it: what goes over the wire, and what comes of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.api_double import BASIC, HOST, Seen, refused, serving
from support.raw_server import RawServer, said

from capillary_async import CustomerNotFoundError, EventName, InvalidRequestError, MergedCustomerError, Paging

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import AsyncSession

    Sessions = Callable[..., AsyncSession]

EVENT = {
    "id": 1603616021,
    "customerId": 565039505,
    "date": "2025-02-28T06:16:16Z",
    "eventName": "CustomerRegistration",
    "orgId": 100737,
    "status": "SUCCESS",
    "uniqueId": "eQmzQLEfVb",
}


def envelope(*events: Any) -> dict[str, Any]:
    """An answer of the v2 API."""
    return {"data": list(events), "warnings": [], "errors": []}


def paged(total: int, cap: int = 10**6) -> Callable[[Seen], dict[str, Any]]:
    """A server that heeds `page` and `limit`, up to a cap of its own."""

    def answer(seen: Seen) -> dict[str, Any]:
        page, limit = int(seen.query["page"]), min(int(seen.query["limit"]), cap)
        return envelope(*({**EVENT, "id": n} for n in range((page - 1) * limit, min(total, page * limit))))

    return answer


async def test_on_the_wire(session_at: Sessions) -> None:
    """`limit`, `page` and the equal `offset` always; filters only when they are given; no Neo header."""
    capillary = session_at(HOST)
    with serving(envelope(EVENT)) as seen:
        events = await capillary.loyalty_events.list(565039505).collect()
        await capillary.loyalty_events.list(
            "565039505", event_type="EARN", from_date=date(2025, 1, 1), to_date="2025-12-31"
        ).collect()
    assert {request.path for request in seen} == {"/v2/customers/565039505/loyaltyEvents"}
    always = {"limit": "100", "offset": "0", "page": "1"}
    assert seen[0].query == always
    assert seen[1].query == {**always, "eventType": "EARN", "fromDate": "2025-01-01", "toDate": "2025-12-31"}
    assert "x-cap-neo-dag-scope" not in seen[0].headers
    assert seen[0].headers["authorization"] == BASIC
    assert seen[0].headers["accept-encoding"] == "gzip"
    assert events[0].event_name == EventName.CUSTOMER_REGISTRATION
    assert events[0].date == datetime(2025, 2, 28, 6, 16, 16, tzinfo=UTC)


async def test_the_exact_line(session_at: Sessions) -> None:
    """As a server sees it."""
    async with RawServer(said(envelope())) as server:
        events = session_at(server.url).loyalty_events.list(7, event_type="A&B,C", from_date="2025-01-01")
        await events.collect()
    assert server.seen[0].target == (
        "/v2/customers/7/loyaltyEvents?limit=100&offset=0&page=1&eventType=A%26B,C&fromDate=2025-01-01"
    )


async def test_page_limit_and_offset_agree_on_every_page(session_at: Sessions) -> None:
    """Whichever of them the server heeds."""
    with serving(paged(55)) as seen:
        events = await session_at(HOST).loyalty_events.list(565039505).options(page_size=23).collect()
    assert len(events) == 55
    for request in seen:
        page, limit = int(request.query["page"]), int(request.query["limit"])
        assert limit == 23
        assert int(request.query["offset"]) == (page - 1) * limit
    assert {request.query["page"] for request in seen} >= {"1", "2", "3"}, "pages read ahead are waited for"


async def test_a_server_with_a_cap_of_its_own_loses_no_event(session_at: Sessions) -> None:
    """Its cap becomes the size from page 2 on."""
    with serving(paged(120, cap=50)) as seen:
        events = await session_at(HOST).loyalty_events.list(565039505).collect()
    assert [event.id for event in events] == list(range(120))
    assert (seen[1].query["limit"], seen[1].query["offset"], seen[1].query["page"]) == ("50", "50", "2")


async def test_this_endpoint_has_no_largest_page(session_at: Sessions) -> None:
    """None is documented."""
    with serving(paged(3)) as seen:
        await session_at(HOST, paging=Paging(page_size=1000)).loyalty_events.list_many([1]).collect()
    assert seen[0].query["limit"] == "1000"


async def test_list_many(session_at: Sessions) -> None:
    """Known, unknown and merged customers, each with what came of it."""

    def answer(seen: Seen) -> Any:
        customer = seen.path.split("/")[3]
        if customer == "2":
            return refused(404, 8015, "Customer not found for the given identifiers")
        if customer == "3":
            return refused(200, 8069, "Merged customer found")
        return envelope({**EVENT, "customerId": int(customer)})

    with serving(answer) as seen:
        fan = session_at(HOST).loyalty_events.list_many([1, 2, 3, 4], event_type="EARN")
        collected = await fan.collect()
    assert collected[1].items[0].customer_id == 1
    assert isinstance(collected[2].error, CustomerNotFoundError)
    assert isinstance(collected[3].error, MergedCustomerError)
    assert collected[4].ok
    assert {request.query["eventType"] for request in seen} == {"EARN"}
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("filters", "argument", "text"),
    [
        ({"event_type": ""}, "event_type", "a text that is not empty"),
        ({"event_type": 5}, "event_type", "got 5"),
        ({"from_date": "2025-13-01"}, "from_date", "got '2025-13-01'"),
        ({"to_date": datetime(2025, 1, 1, tzinfo=UTC)}, "to_date", r"value\.date\(\)"),
        ({"from_date": "2025-02-02", "to_date": "2025-02-01"}, "from_date", "is after to_date 2025-02-01"),
    ],
)
def test_filters_that_cannot_be(session_at: Sessions, filters: dict[str, Any], argument: str, text: str) -> None:
    """Refused at the call, for one customer and for many."""
    resource = session_at(HOST).loyalty_events
    for call in (lambda: resource.list(1, **filters), lambda: resource.list_many([1], **filters)):
        with pytest.raises(InvalidRequestError, match=text) as caught:
            call()
        assert caught.value.argument == argument


async def test_one_date_alone_is_fine(session_at: Sessions) -> None:
    """An open range."""
    with serving(envelope()) as seen:
        await session_at(HOST).loyalty_events.list(1, to_date="2025-02-01").collect()
    assert "fromDate" not in seen[0].query
    assert seen[0].query["toDate"] == "2025-02-01"


@pytest.mark.parametrize(
    "customer", ["../x", "a/b", "1?x", "%2e%2e", "1\r\n2", "", ".", "1 ", "\uff11", None, 3.5, True, 0, -1]
)
async def test_an_id_can_never_become_another_path(session_at: Sessions, customer: Any) -> None:
    """It is a number, or nothing is sent."""
    resource = session_at(HOST).loyalty_events
    with serving(envelope()) as seen:
        with pytest.raises(InvalidRequestError, match="customer_id takes a positive whole number") as caught:
            resource.list(customer)
        assert caught.value.argument == "customer_id"
        with pytest.raises(InvalidRequestError):
            resource.list_many([1, customer])
        collected = await resource.list_many(iter([customer])).collect()
        assert [outcome.ok for outcome in collected.values()] == [False]
    assert seen == []
