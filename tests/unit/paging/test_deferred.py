"""Pages read ahead wait undecoded; what turns out unreadable is an attempt that failed, as if it had been decoded."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aioresponses import CallbackResult
from attrs import evolve
from support.api_double import HOST, Seen, serving

from capillary_async import (
    CapillaryError,
    DecodeError,
    Limits,
    Paging,
    PointsAllocation,
    Position,
    Rate,
    RetryPolicy,
    Timeouts,
)
from capillary_async._transport.classify import DEFERRED_FROM, check, looks_whole
from capillary_async._transport.messages import DEFERRED, Request, Response, ResponseSpec, decoded_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import AsyncSession, Pager

    Sessions = Callable[..., AsyncSession]

FULL, PAGES = 100, 4


def good(number: int) -> str:
    """A page as the server sends it: full, but for the last one, and those behind it."""
    rows = FULL if number < PAGES else 3 if number == PAGES else 0
    return json.dumps([{"id": number * 1000 + row, "points_exclusive": 0.125} for row in range(rows)])


def large(body: str) -> str:
    """The body with so much white space that it is left undecoded, if it looks whole."""
    return body[:-2] + " " * DEFERRED_FROM + body[-2:]


class Api:
    """A list of four pages; `bad` are answered before the good page, in turn."""

    def __init__(self, bad: dict[int, list[str]]) -> None:
        self.bad = bad
        self.hits: list[int] = []

    def __call__(self, seen: Seen) -> CallbackResult:
        number = int(seen.query["page"])
        self.hits.append(number)
        left = self.bad.get(number)
        return CallbackResult(body=large(left.pop(0) if left else good(number)), content_type="application/json")


def listed(session: AsyncSession) -> Pager[PointsAllocation]:
    return session.points_allocation.by_expiry(
        entity_id=1, program_id=1, point_category_id=1, expiry_date_start="2025-01-01", expiry_date_end="2026-01-01"
    )


async def read(pager: Pager[PointsAllocation]) -> tuple[list[int | None], CapillaryError | None]:
    """What a loop gives, and how it ends."""
    given: list[int | None] = []
    try:
        async for record in pager:
            given.append(record.id)  # noqa: PERF401 - what was given before the error counts
    except CapillaryError as error:
        return given, error
    return given, None


ALL = [number * 1000 + row for number in range(1, PAGES + 1) for row in range(FULL if number < PAGES else 3)]
# It ends as a whole page does, and no JSON parser takes it.
TORN = '[{"id": 1,, "points_exclusive": 1}]'


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("faults", [1, 2])
async def test_a_page_that_cannot_be_read_is_asked_for_again(session_at: Sessions, prefetch: int, faults: int) -> None:
    """As often as one that was decoded at once."""
    api = Api({3: [TORN] * faults})
    with serving(api):
        session = session_at(HOST, paging=Paging(prefetch=prefetch))
        assert [record.id async for record in listed(session)] == ALL
    assert api.hits.count(3) == 1 + faults
    assert (session.stats.retries, session.stats.records) == (faults, len(ALL))


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize(
    ("fault", "hits"),
    [(TORN, 5), ('[{"id": "x"}]', 1), ('[{"id": 2, "points_exclusive": "NaN"}]', 1), ('{"errors": "}]', 5)],
)
async def test_the_error_is_the_same_at_every_prefetch(
    session_at: Sessions, prefetch: int, fault: str, hits: int
) -> None:
    """Half a JSON is retried, another shape never; the error says to which request it came, and where to go on."""
    api = Api({3: [fault] * 9})
    with serving(api):
        session = session_at(HOST, paging=Paging(prefetch=prefetch))
        given, error = await read(listed(session))
        assert given == ALL[: 2 * FULL]
        assert api.hits.count(3) == hits
        assert isinstance(error, DecodeError)
        assert (error.method, error.path) == ("GET", "/x/neo/pointsAllocation/dateRange")
        assert (error.attempts, len(error.history)) == (hits, hits)
        assert error.position == Position(3, 0, FULL)
        api.bad.clear()
        rest = [record.id async for record in listed(session).options(start=error.position)]
        assert given + rest == ALL


async def test_middlewares_see_answers_that_were_judged(session_at: Sessions) -> None:
    """They may make their own of one, and a torn page is retried beneath them."""
    seen: list[Any] = []

    async def middleware(request: Any, handler: Any) -> Response:
        response = await handler(request)
        seen.append(response._decoded is DEFERRED)
        return evolve(response, body=response.body.replace(b"0.125", b"0.250"))

    api = Api({3: [TORN]})
    with serving(api):
        session = session_at(HOST, middlewares=[middleware])
        records = await listed(session).collect()
    assert [record.id for record in records] == ALL
    assert {record.points_exclusive for record in records} == {Decimal("0.250")}
    assert set(seen) == {False}
    assert api.hits.count(3) == 2


async def test_a_kept_answer_is_whole_for_every_reader(session_at: Sessions) -> None:
    """A middleware that gives an answer again gives its records, whoever asked first and whoever asks then."""
    kept: dict[str, Response] = {}

    async def cache(request: Any, handler: Any) -> Response:
        if request.query not in kept:
            kept[request.query] = await handler(request)
        return kept[request.query]

    with serving(Api({})):
        pager = listed(session_at(HOST, middlewares=[cache]))
        assert [record.id for record in await pager.collect()] == ALL
        assert [len(await pager.page(number)) for number in (1, 2, 3, 4)] == [100, 100, 100, 3]


async def test_a_page_that_could_not_be_read_earned_no_token(session_at: Sessions) -> None:
    """What looked whole gave its call one token back; found torn, it costs as a torn answer does."""
    with serving(Api({3: [TORN]})):
        session = session_at(HOST, retry=RetryPolicy(backoff=0, quota=100))
        session._quota.left = 50
        assert [record.id async for record in listed(session)] == ALL
        assert session.stats.retries == 1
        # Each page a token but for the torn one, which paid 14 and got them back.
        assert session._quota.left == 50 + session.stats.requests - 2


async def test_what_is_replayed_takes_no_permit(session_at: Sessions) -> None:
    """The answer is there already: only the request that is sent again needs one."""
    with serving(Api({2: [TORN]})):
        session = session_at(HOST, limits=Limits(rate=Rate(8, per=30)), timeouts=Timeouts(call=5))
        assert [record.id async for record in listed(session).options(max_items=250)] == ALL[:250]


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b'[{"id": 1}]', True),
        (b'[{"id": 1}', False),
        (b'[{"id": 1}, {"id": [1]', False),
        (b"[]", False),
        (b'[{"id": 1}] ', False),
        (b'{"errors": [{}]}', False),
        (b"", False),
    ],
)
def test_what_looks_whole(body: bytes, whole: bool) -> None:
    """Only what ends as an array of records does; anything else is decoded at once."""
    assert looks_whole(Response(200, body=body), ResponseSpec(PointsAllocation)) is whole
    assert not looks_whole(Response(500, body=body), ResponseSpec(PointsAllocation))
    assert not looks_whole(Response(200, body=body), ResponseSpec(PointsAllocation, "data"))
    assert not looks_whole(Response(200, body=body), ResponseSpec(PointsAllocation, free=True))


@pytest.mark.parametrize(("size", "deferred"), [(100, False), (DEFERRED_FROM - 1, False), (DEFERRED_FROM, True)])
async def test_small_bodies_are_decoded_at_once(size: int, deferred: bool) -> None:
    """Only a large body waits undecoded."""
    body = b'[{"id": 1}]'.replace(b"1", b"1" + b" " * (size - 11))

    async def answer(request: Request) -> Response:
        return Response(200, body=body)

    request = Request("GET", "/x", shape=ResponseSpec(PointsAllocation), late=True)
    decoded = decoded_of(await check(request, answer))
    assert (decoded is DEFERRED) is deferred
    assert deferred or decoded.received == 1
