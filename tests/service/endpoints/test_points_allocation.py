"""`points_allocation` as users call it: what goes over the wire, and what comes of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.api_double import BASIC, HOST, Seen, refused, serving
from support.raw_server import RawServer, said

from capillary_async import (
    EventQuery,
    EventType,
    InvalidRequestError,
    NotFoundError,
    PageLoopError,
    Paging,
    PointsStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import AsyncSession

    Sessions = Callable[..., AsyncSession]

EXPIRY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": date(2025, 6, 1),
    "expiry_date_end": date(2027, 6, 1),
}
ROW = {
    "id": 38855229,
    "event_type_id": 15,
    "points_exclusive": 100.125,
    "expiry_date": 1766687399000,
    "status": "AVAILABLE",
}


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Records with ids of their own."""
    return [{**ROW, "id": first + n + 1} for n in range(count)]


def paged(total: int) -> Callable[[Seen], list[dict[str, Any]]]:
    """A server that heeds page and count."""

    def answer(seen: Seen) -> list[dict[str, Any]]:
        page, count = int(seen.query["page"]), int(seen.query["count"])
        return rows(total)[(page - 1) * count : page * count]

    return answer


async def test_by_expiry_on_the_wire(session_at: Sessions) -> None:
    """Every documented parameter, `page` and `count` always, and nothing more."""
    with serving([ROW]) as seen:
        records = await session_at(HOST).points_allocation.by_expiry(entity_id=383474113, **EXPIRY).collect()
    assert [request.path for request in seen] == ["/x/neo/pointsAllocation/dateRange"]
    assert seen[0].query == {
        "entity_id": "383474113",
        "program_id": "2282",
        "point_category_id": "17383",
        "expiry_date_start": "2025-06-01",
        "expiry_date_end": "2027-06-01",
        "page": "1",
        "count": "100",
    }
    assert records[0].points_exclusive == Decimal("100.125")
    assert records[0].status == PointsStatus.AVAILABLE
    assert records[0].expires_at == datetime(2025, 12, 25, 18, 29, 59, tzinfo=UTC)


async def test_by_event_on_the_wire(session_at: Sessions) -> None:
    """An event's unique id text, a customer, and an event type by name or number."""
    capillary = session_at(HOST)
    with serving([ROW]) as seen:
        for entity_id, kind in (("hfjWDK0dek", EventType.TRANSACTION_ADD), (890697432, 15), ("890697432", "15")):
            pager = capillary.points_allocation.by_event(entity_id=entity_id, customer_id=374819205, event_type_id=kind)
            assert len(await pager.collect()) == 1
    assert {request.path for request in seen} == {"/x/neo/pointsAllocation/event"}
    common = {"customer_id": "374819205", "event_type_id": "15", "page": "1", "count": "100"}
    assert [request.query for request in seen] == [
        {"entity_id": "hfjWDK0dek", **common},
        {"entity_id": "890697432", **common},
        {"entity_id": "890697432", **common},
    ]


async def test_the_headers_of_a_neo_call(session_at: Sessions) -> None:
    """Basic with the MD5 of the password, the scope, gzip, and the user's own."""
    capillary = session_at(HOST, headers={"X-CAP-API-ATTRIBUTION-ENTITY-TYPE": "TILL", "X-CAP-REQUEST-ID": "abc"})
    with serving([]) as seen:
        await capillary.points_allocation.by_expiry(entity_id=1, **EXPIRY).collect()
    headers = seen[0].headers
    assert headers["authorization"] == BASIC
    assert headers["x-cap-neo-dag-scope"] == "global"
    assert headers["accept-encoding"] == "gzip"
    assert headers["accept"] == "application/json"
    assert headers["x-cap-api-attribution-entity-type"] == "TILL"
    assert headers["x-cap-request-id"] == "abc"
    assert headers["user-agent"].startswith("capillary-async/")


async def test_the_exact_lines(session_at: Sessions) -> None:
    """As a server sees them: nothing is encoded twice, a unique id text cannot break out of its parameter."""
    async with RawServer(said([])) as server:
        capillary = session_at(server.url)
        await capillary.points_allocation.by_expiry(entity_id=1, **EXPIRY).collect()
        by_event = capillary.points_allocation.by_event
        await by_event(entity_id="a/b?c=d&e#f %2e+é", customer_id=2, event_type_id=3).collect()
    assert server.seen[0].target == (
        "/x/neo/pointsAllocation/dateRange?expiry_date_start=2025-06-01&expiry_date_end=2027-06-01"
        "&point_category_id=17383&program_id=2282&entity_id=1&page=1&count=100"
    )
    assert server.seen[1].target == (
        "/x/neo/pointsAllocation/event?entity_id=a%2Fb%3Fc%3Dd%26e%23f%20%252e%2B%C3%A9"
        "&customer_id=2&event_type_id=3&page=1&count=100"
    )


async def test_pages_follow_each_other(session_at: Sessions) -> None:
    """By page and count, each record once."""
    with serving(paged(250)) as seen:
        records = await session_at(HOST).points_allocation.by_expiry(entity_id=1, **EXPIRY).collect()
    assert [record.id for record in records] == list(range(1, 251))
    assert sorted((request.query["page"], request.query["count"]) for request in seen)[:3] == [
        ("1", "100"),
        ("2", "100"),
        ("3", "100"),
    ]


async def test_page_size_of_the_session_and_of_one_pager(session_at: Sessions) -> None:
    """Sent as `count`."""
    capillary = session_at(HOST, paging=Paging(page_size=40))
    with serving(paged(10)) as seen:
        pager = capillary.points_allocation.by_expiry(entity_id=1, **EXPIRY)
        await pager.options(page_size=99).first()
        await capillary.points_allocation.by_expiry_many([1], **EXPIRY).options(paging=Paging(page_size=30)).collect()
        await pager.page(3)
    assert [(request.query["page"], request.query["count"]) for request in seen if request.query["page"] != "2"] == [
        ("1", "99"),
        ("1", "30"),
        ("3", "40"),
    ]


@pytest.mark.parametrize("size", [0, 101, -1, True, "50"])
async def test_a_page_size_beyond_the_apis_is_refused_everywhere(session_at: Sessions, size: Any) -> None:
    """In the session's `Paging`, in a pager's options, and in a fan-out's; nothing is sent."""
    good = session_at(HOST)
    with serving([]) as seen:
        with pytest.raises(InvalidRequestError, match="page_size takes a whole number from 1 to 100") as caught:
            good.points_allocation.by_expiry(entity_id=1, **EXPIRY).options(page_size=size)
        assert caught.value.argument == "page_size"
        if size == 101:
            self_paged = session_at(HOST, paging=Paging(page_size=101)).points_allocation
            for call in (
                lambda: self_paged.by_expiry(entity_id=1, **EXPIRY),
                lambda: self_paged.by_event(entity_id=1, customer_id=1, event_type_id=1),
                lambda: self_paged.by_expiry_many([1], **EXPIRY),
                lambda: self_paged.by_event_many([EventQuery(1, 2, 3)]),
                lambda: good.points_allocation.by_expiry_many([1], **EXPIRY).options(paging=Paging(page_size=101)),
            ):
                with pytest.raises(InvalidRequestError, match="got 101"):
                    call()
    assert seen == []


async def test_by_expiry_many(session_at: Sessions) -> None:
    """One outcome a customer; the filters are the same for all."""
    with serving(lambda seen: rows(3, first=int(seen.query["entity_id"]) * 10)) as seen:
        fan = session_at(HOST).points_allocation.by_expiry_many([11, "12", 13], **EXPIRY)
        outcomes = {outcome.key: outcome async for outcome in fan}
    assert {key: [record.id for record in outcome.items] for key, outcome in outcomes.items()} == {
        11: [111, 112, 113],
        12: [121, 122, 123],
        13: [131, 132, 133],
    }
    assert {request.query["expiry_date_end"] for request in seen} == {"2027-06-01"}
    assert all(request.headers["x-cap-neo-dag-scope"] == "global" for request in seen)


async def test_by_event_many(session_at: Sessions) -> None:
    """Keys are the queries themselves; the same query twice is asked once."""
    queries = [EventQuery("abc", 1, EventType.NEW_BILL), EventQuery(7, "2", 2), EventQuery("abc", 1, 1)]
    with serving(lambda seen: rows(int(seen.query["customer_id"]))) as seen:
        fan = session_at(HOST).points_allocation.by_event_many(queries)
        collected = await fan.collect()
    assert {query: len(outcome.items) for query, outcome in collected.items()} == {queries[0]: 1, queries[1]: 2}
    assert len(seen) == 2


async def test_a_query_of_another_kind(session_at: Sessions) -> None:
    """Refused in a list, an outcome from an iterator."""
    resource = session_at(HOST).points_allocation
    with pytest.raises(InvalidRequestError, match="queries takes EventQuery values, got") as caught:
        resource.by_event_many([(1, 2, 3)])
    assert caught.value.argument == "queries"
    with serving([]) as seen:
        collected = await resource.by_event_many(iter([(1, 2, 3), EventQuery(1, 2, 3)])).collect()
    assert [outcome.ok for outcome in collected.values()] == [True, False]
    assert len(seen) == 1


def test_an_event_query_is_checked_when_it_is_made() -> None:
    """And is a value: equal, hashable, comparable to what it was made of."""
    assert EventQuery(7, "8", EventType.SCAN) == EventQuery("7", 8, 17)
    assert hash(EventQuery(7, 8, 17)) == hash(EventQuery("7", 8, 17))
    for entity_id, customer_id, event_type_id, argument in (
        ("", 1, 1, "entity_id"),
        (True, 1, 1, "entity_id"),
        (0, 1, 1, "entity_id"),
        (1, "x", 1, "customer_id"),
        (1, 1, 0, "event_type_id"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            EventQuery(entity_id, customer_id, event_type_id)
        assert caught.value.argument == argument


async def test_errors_of_one_customer(session_at: Sessions) -> None:
    """A 404 on page 1 is an error, and in a fan-out an outcome."""
    with serving(lambda seen: refused(404) if seen.query["entity_id"] == "2" else rows(1)):
        capillary = session_at(HOST)
        with pytest.raises(NotFoundError) as caught:
            await capillary.points_allocation.by_expiry(entity_id=2, **EXPIRY).collect()
        assert caught.value.path == "/x/neo/pointsAllocation/dateRange"
        collected = await capillary.points_allocation.by_expiry_many([1, 2, 3], **EXPIRY).collect()
    assert {key: outcome.ok for key, outcome in collected.items()} == {1: True, 2: False, 3: True}
    error = collected[2].error
    assert isinstance(error, NotFoundError)
    assert error.key == 2


async def test_a_server_that_does_not_page(session_at: Sessions) -> None:
    """The same page again and again is an error, not an endless list."""
    with serving(rows(100)), pytest.raises(PageLoopError) as caught:
        await session_at(HOST).points_allocation.by_expiry(entity_id=1, **EXPIRY).collect()
    assert caught.value.position is not None
    assert caught.value.position.page == 2


async def test_verify_in_a_fan_out(session_at: Sessions) -> None:
    """Each customer's list is read twice where it has several pages."""
    with serving(paged(150)) as seen:
        fan = session_at(HOST, paging=Paging(verify=True)).points_allocation.by_expiry_many([1], **EXPIRY)
        collected = await fan.collect()
    assert len(collected[1].items) == 150
    assert {request.query["count"] for request in seen} == {"100", "97"}


def test_reprs_say_what_is_asked(session_at: Sessions) -> None:
    """For notebooks and logs."""
    resource = session_at(HOST).points_allocation
    pager = resource.by_expiry(entity_id=5, **EXPIRY)
    assert repr(pager) == "<Pager points_allocation.by_expiry(entity_id=5)>"
    fan = resource.by_expiry_many([1, 2], **EXPIRY)
    assert repr(fan) == "<FanOut points_allocation.by_expiry_many over 2 keys>"
