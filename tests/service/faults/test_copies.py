"""An answer that a proxy sends twice is given to nobody else, also where nothing in it says whose it is.

Invariant: the copy arrives before the answer that it is taken for, in one packet with it, so that no clock decides.
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.raw_server import Answer, RawServer, http

from capillary_async import AsyncSession, EventQuery, Limits

EXPIRY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}
ONE = Limits(concurrency=1, concurrency_start=1)
Make = Callable[..., AsyncSession]


class Twice(RawServer):
    """Sends each third answer again, before the next one; each has an id of its own."""

    def __init__(self, rows: Callable[[dict[str, str]], list[dict[str, Any]]], name: str) -> None:
        super().__init__()
        self._rows, self._name, self._last = rows, name, b""

    def answer_to(self, target: str) -> Answer:
        """Its rows, or a page behind them."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        rows = self._rows(query) if query["page"] == "1" else []
        answer = http(json.dumps(rows), headers={self._name: f"r-{len(self.seen)}"} if self._name else {})
        before, self._last = self._last, answer.data if len(self.seen) % 3 == 1 else b""
        return answer.but(data=before + answer.data)


@pytest.mark.parametrize("name", ["X-CAP-REQUEST-ID", "X-Cap-RequestID", "x-cap-requestid"])
async def test_a_copy_of_an_empty_list_is_no_other_customers_list(session_at: Make, name: str):
    """Customers without rows, whose answers come twice, take nothing from those after them."""
    async with Twice(
        lambda q: [{"id": 1, "customer_id": int(q["entity_id"])}] * (int(q["entity_id"]) % 3 > 1), name
    ) as server:
        fan = session_at(server.url, limits=ONE).points_allocation.by_expiry_many(range(1, 31), **EXPIRY)
        found = {outcome.key: len(outcome.items) async for outcome in fan}
        assert found == {key: int(key % 3 > 1) for key in range(1, 31)}
        assert server.hits == 30 + server.connections - 1 > 30


async def test_a_copy_is_no_answer_of_another_event_of_the_same_customer(session_at: Make):
    """Rows that belong to who was asked are another event's all the same."""
    async with Twice(lambda q: [{"id": int(q["entity_id"]), "customer_id": 5}], "X-CAP-REQUEST-ID") as server:
        queries = [EventQuery(entity_id=event, customer_id=5, event_type_id=1) for event in range(1, 31)]
        fan = session_at(server.url, limits=ONE).points_allocation.by_event_many(queries)
        assert all([outcome.items[0].id == outcome.key.entity_id async for outcome in fan])
        assert server.connections > 1


@pytest.mark.parametrize("chosen", [None, "job-7"])
async def test_what_has_no_id_of_its_own_is_no_copy(session_at: Make, chosen: str | None):
    """Empty lists without an id, or with one that the caller chose and the server echoes, are read once each."""
    headers = {"X-CAP-REQUEST-ID": chosen} if chosen else {}
    async with RawServer(http("[]", headers=headers)) as server:
        session = session_at(server.url, limits=ONE, headers=headers)
        await session.points_allocation.by_expiry_many(range(1, 31), **EXPIRY).collect()
        assert (server.hits, server.connections) == (30, 1)


async def test_ids_that_never_change_are_learnt_by_one_request(session_at: Make):
    """A server or a gateway with the same id on all answers: one request more for the session, not one for each."""
    async with RawServer(http("[]", headers={"X-CAP-REQUEST-ID": "constant"})) as server:
        session = session_at(server.url, limits=ONE)
        for first in (1, 31):
            await session.points_allocation.by_expiry_many(range(first, first + 30), **EXPIRY).collect()
        assert (server.hits, server.connections) == (61, 2)


async def test_the_same_request_may_be_answered_alike(session_at: Make):
    """A list that is read again is no copy, whatever its id."""
    async with RawServer(http("[]", headers={"X-CAP-REQUEST-ID": "constant"})) as server:
        session = session_at(server.url, limits=ONE)
        for _ in range(3):
            assert await session.points_allocation.by_expiry(entity_id=5, **EXPIRY).collect() == []
        assert (server.hits, server.connections) == (3, 1)
