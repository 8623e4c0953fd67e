"""`points_awarded.ids` as users call it: batches, whose row is whose, and what is halved."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aioresponses import CallbackResult
from support.api_double import BASIC, HOST, Seen, ids_of, refused, serving
from support.raw_server import RawServer, said

from capillary_async import (
    AuthenticationError,
    BadRequestError,
    InvalidRequestError,
    Limits,
    NotFoundError,
    Paging,
    PermissionDeniedError,
    PointsStatus,
    RecordConflictError,
    ServerError,
    SourceTable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capillary_async import AsyncSession

    Sessions = Callable[..., AsyncSession]

ASKED: dict[str, Any] = {
    "program_id": 3379,
    "point_category_id": 40022,
    "start_expiry_date": date(2025, 6, 30),
    "end_expiry_date": "2026-08-31",
    "status": PointsStatus.AVAILABLE,
}


def row(number: int, customer: int | None, table: str = "points_awarded", points: float = 600) -> dict[str, Any]:
    """One award."""
    return {"id": number, "customer_id": customer, "source_table": table, "points_exclusive": points}


def own_rows(seen: Seen) -> list[dict[str, Any]]:
    """A server where customer n has n % 10 awards."""
    return [row(customer * 10 + n, customer) for customer in ids_of(seen) for n in range(customer % 10)]


async def test_on_the_wire(session_at: Sessions) -> None:
    """Every documented parameter; ids joined by a plain comma; no `org_id` unless it is given."""
    capillary = session_at(HOST)
    with serving(own_rows) as seen:
        await capillary.points_awarded.ids([388034468, "387993857"], **ASKED).collect()
        await capillary.points_awarded.ids([1], org_id=52011, **{**ASKED, "status": "EXPIRED"}).collect()
    assert {request.path for request in seen} == {"/x/neo/pointsAwarded/paIds"}
    common = {
        "program_id": "3379",
        "point_category_id": "40022",
        "start_expiry_date": "2025-06-30",
        "end_expiry_date": "2026-08-31",
    }
    assert seen[0].query == {**common, "status": "AVAILABLE", "entity_id": "388034468,387993857"}
    assert seen[1].query == {**common, "status": "EXPIRED", "entity_id": "1", "org_id": "52011"}
    assert seen[0].headers["x-cap-neo-dag-scope"] == "global"
    assert seen[0].headers["authorization"] == BASIC
    assert "page" not in seen[0].query


async def test_the_exact_line(session_at: Sessions) -> None:
    """The comma is a comma."""
    async with RawServer(said([])) as server:
        await session_at(server.url).points_awarded.ids([11, 12], **ASKED).collect()
    assert server.seen[0].target == (
        "/x/neo/pointsAwarded/paIds?start_expiry_date=2025-06-30&end_expiry_date=2026-08-31"
        "&point_category_id=40022&program_id=3379&status=AVAILABLE&entity_id=11,12"
    )


async def test_each_id_has_its_own_rows(session_at: Sessions) -> None:
    """And an id without rows has an outcome without items."""
    with serving(own_rows) as seen:
        collected = await session_at(HOST).points_awarded.ids([21, 30, 43], **ASKED).collect()
    assert {key: [award.id for award in outcome.items] for key, outcome in collected.items()} == {
        21: [210],
        30: [],
        43: [430, 431, 432],
    }
    assert all(outcome.ok and outcome.pages == 1 for outcome in collected.values())
    assert collected[43].items[0].points_exclusive == Decimal(600)
    assert collected[43].items[0].source_table == SourceTable.POINTS_AWARDED
    assert len(seen) == 1


async def test_no_rows_at_all(session_at: Sessions) -> None:
    """An empty array is an answer for every id of the batch."""
    with serving([]) as seen:
        collected = await session_at(HOST).points_awarded.ids([1, 2], **ASKED).collect()
    assert {key: (outcome.ok, outcome.items) for key, outcome in collected.items()} == {1: (True, ()), 2: (True, ())}
    assert len(seen) == 1


async def test_batches_by_count(session_at: Sessions) -> None:
    """Fifty ids a request, or what `batch_size` says."""
    capillary = session_at(HOST)
    with serving(own_rows) as seen:
        assert len(await capillary.points_awarded.ids(range(1, 121), **ASKED).collect()) == 120
    assert sorted(len(ids_of(request)) for request in seen) == [20, 50, 50]
    with serving(own_rows) as seen:
        await capillary.points_awarded.ids(range(1, 6), batch_size=1, **ASKED).collect()
    assert sorted(ids_of(request) for request in seen) == [[1], [2], [3], [4], [5]]


@pytest.mark.parametrize("first", [1, 37195406289, 2**63 - 2001])
async def test_batches_by_length_of_the_url(session_at: Sessions, first: int) -> None:
    """No URL is longer than 7,000 bytes, and none is much shorter than it may be."""
    ids = range(first, first + 2000)
    with serving([]) as seen:
        collected = await session_at(HOST).points_awarded.ids(ids, batch_size=10_000, **ASKED).collect()
    assert list(collected) == sorted(collected)
    assert len(collected) == 2000
    lengths = [len(request.url.replace("%2C", ",")) for request in seen]
    assert max(lengths) <= 7000
    assert len([length for length in lengths if length < 6970]) <= 1
    asked = [key for request in seen for key in ids_of(request)]
    assert sorted(asked) == list(ids)


async def test_the_length_of_the_real_url(session_at: Sessions) -> None:
    """Measured as the server sees it, host and path prefix included."""
    async with RawServer(said([])) as server:
        capillary = session_at(f"{server.url}/gateway/prefix")
        await capillary.points_awarded.ids(range(10**9, 10**9 + 1500), batch_size=10**6, **ASKED).collect()
    lengths = [len(server.url) + len(seen.target) for seen in server.seen]
    assert len(lengths) == 3
    assert 6980 < max(lengths) <= 7000


async def test_a_query_that_fills_the_url_by_itself(session_at: Sessions) -> None:
    """One id a request still goes out."""
    with serving([]) as seen:
        fan = session_at(HOST).points_awarded.ids([1, 2], **{**ASKED, "status": "S" * 7000})
        assert len(await fan.collect()) == 2
    assert sorted(ids_of(request) for request in seen) == [[1], [2]]


@pytest.mark.parametrize("status", [400, 404, 413, 414])
async def test_a_refused_batch_is_halved(session_at: Sessions, status: int) -> None:
    """Until the refusal stands at the id that earned it; the others are answered."""
    with serving(lambda seen: refused(status) if 13 in ids_of(seen) else own_rows(seen)) as seen:
        collected = await session_at(HOST).points_awarded.ids(range(1, 17), **ASKED).collect()
    assert {key for key, outcome in collected.items() if not outcome.ok} == {13}
    error = collected[13].error
    assert error is not None
    assert error.key == 13
    assert type(error) is {400: BadRequestError, 404: NotFoundError}.get(status, type(error))
    assert all(len(outcome.items) == key % 10 for key, outcome in collected.items() if outcome.ok)
    assert len(seen) == 9  # 16, 8 and 8, then 4 and 4, 2 and 2, 1 and 1 of the side that was refused


async def test_a_failing_part_does_not_cost_the_other_parts(session_at: Sessions) -> None:
    """Once a batch is in parts, a part that fails keeps its error to itself; wrong credentials end it all."""

    def answer(seen: Seen) -> Any:
        ids = ids_of(seen)
        return refused(414) if len(ids) > 4 else refused(501) if 7 in ids else own_rows(seen)

    with serving(answer):
        collected = await session_at(HOST).points_awarded.ids(range(1, 17), **ASKED).collect()
    assert {key for key, outcome in collected.items() if not outcome.ok} == {5, 6, 7, 8}
    assert all(isinstance(collected[key].error, ServerError) for key in (5, 6, 7, 8))
    assert [len(outcome.items) for key, outcome in collected.items() if outcome.ok] == [
        key % 10 for key in collected if collected[key].ok
    ]
    with (
        serving(lambda seen: refused(414) if len(ids_of(seen)) > 4 else refused(401)),
        pytest.raises(AuthenticationError),
    ):
        await session_at(HOST).points_awarded.ids(range(1, 17), **ASKED).collect()


async def test_a_body_code_is_halved_like_its_status(session_at: Sessions) -> None:
    """Neo states 400 in a body under HTTP 200."""
    with serving(lambda seen: refused(200, 400) if 2 in ids_of(seen) else []):
        collected = await session_at(HOST).points_awarded.ids([1, 2], **ASKED).collect()
    assert collected[1].ok
    assert isinstance(collected[2].error, BadRequestError)


async def test_other_refusals_are_not_halved(session_at: Sessions) -> None:
    """403 and 5xx are no fault of an id; every id has an error of its own."""
    for status, kind in ((403, PermissionDeniedError), (501, ServerError)):
        with serving(lambda seen, status=status: refused(status)) as seen:
            collected = await session_at(HOST).points_awarded.ids(range(1, 9), **ASKED).collect()
        assert len(seen) == 1
        assert {type(outcome.error) for outcome in collected.values()} == {kind}
        assert len({id(outcome.error) for outcome in collected.values()}) == 8
        assert [outcome.error.key for outcome in collected.values() if outcome.error] == list(range(1, 9))


async def test_credentials_are_refused_for_all(session_at: Sessions) -> None:
    """Raised from the loop."""
    with serving(lambda seen: refused(401)) as seen, pytest.raises(AuthenticationError):
        await session_at(HOST, limits=Limits(concurrency=1)).points_awarded.ids(range(1, 900), **ASKED).collect()
    assert len(seen) == 1


async def test_rows_of_strangers_are_halved_down_to_who_asked(session_at: Sessions) -> None:
    """A user group's rows carry its members' ids: asked alone, they belong to the group."""
    group, members = 77, [501, 502]

    def answer(seen: Seen) -> list[dict[str, Any]]:
        extra = [row(900 + n, member) for n, member in enumerate(members)] if group in ids_of(seen) else []
        return extra + [row(customer, customer) for customer in ids_of(seen) if customer != group]

    with serving(answer) as seen:
        collected = await session_at(HOST).points_awarded.ids([1, 2, 3, group, 5, 6, 7, 8], **ASKED).collect()
    assert [award.id for award in collected[group].items] == [900, 901]
    assert all([award.id for award in collected[key].items] == [key] for key in (1, 2, 3, 5, 6, 7, 8))
    assert [ids_of(request) for request in seen] == [
        [1, 2, 3, 77, 5, 6, 7, 8], [1, 2, 3, 77], [1, 2], [3, 77], [3], [77], [5, 6, 7, 8],
    ]  # fmt: skip


async def test_rows_of_nobody_belong_to_the_id_that_asked_alone(session_at: Sessions) -> None:
    """A null `customer_id` says nothing, so its batch is halved; no row is lost."""
    with serving(lambda seen: [row(9, None)] if 2 in ids_of(seen) else []) as seen:
        collected = await session_at(HOST).points_awarded.ids([1, 2], **ASKED).collect()
    assert [len(outcome.items) for outcome in collected.values()] == [0, 1]
    assert len(seen) == 3


async def test_groups_one_by_one(session_at: Sessions) -> None:
    """`batch_size=1` asks no id twice, whosever the rows are."""
    with serving(lambda seen: [row(ids_of(seen)[0], 999)]) as seen:
        collected = await session_at(HOST).points_awarded.ids([1, 2, 3], batch_size=1, **ASKED).collect()
    assert {key: [award.id for award in outcome.items] for key, outcome in collected.items()} == {
        1: [1],
        2: [2],
        3: [3],
    }
    assert len(seen) == 3


async def test_the_same_id_in_two_tables_is_two_awards(session_at: Sessions) -> None:
    """The key is the table and the id."""
    table = "points_awarded_bill_lineitems"
    with serving([row(5, 1), row(5, 1, table)]):
        collected = await session_at(HOST).points_awarded.ids([1, 2], **ASKED).collect()
    assert [award.source_table for award in collected[1].items] == ["points_awarded", table]


async def test_a_row_twice_is_given_once(session_at: Sessions) -> None:
    """And counted; rows without an id are never duplicates."""
    capillary = session_at(HOST)
    nameless = {**row(0, 1), "id": None}
    with serving([row(5, 1), row(5, 1), nameless, nameless, {**row(7, 1), "source_table": None}]):
        collected = await capillary.points_awarded.ids([1], **ASKED).collect()
    assert [award.id for award in collected[1].items] == [5, None, None, 7]
    assert capillary.stats.duplicates == 1


async def test_a_row_twice_with_other_content_is_a_conflict_of_its_customer(session_at: Sessions) -> None:
    """The rest of its batch is answered."""

    def answer(seen: Seen) -> list[dict[str, Any]]:
        clash = [row(5, 2, points=1), row(5, 2, points=2)] if 2 in ids_of(seen) else []
        return clash + [row(customer * 100, customer) for customer in ids_of(seen)]

    with serving(answer):
        collected = await session_at(HOST).points_awarded.ids([1, 2, 3, 4], **ASKED).collect()
    assert {key for key, outcome in collected.items() if not outcome.ok} == {2}
    assert isinstance(collected[2].error, RecordConflictError)
    assert collected[2].error.key == 2


async def test_null_entries_are_dropped_with_a_warning(session_at: Sessions) -> None:
    """Each id of the batch is told."""
    with serving([None, row(1, 1)]):
        collected = await session_at(HOST).points_awarded.ids([1, 2], **ASKED).collect()
    assert [len(outcome.items) for outcome in collected.values()] == [1, 0]
    assert all(len(outcome.warnings) == 1 for outcome in collected.values())


async def test_a_failing_server_is_asked_again_and_not_halved(session_at: Sessions) -> None:
    """A 503 in the middle costs one more request."""
    answers: Iterator[Any] = iter([CallbackResult(status=503), [row(1, 1)]])
    with serving(lambda seen: next(answers)) as seen:
        collected = await session_at(HOST).points_awarded.ids([1, 2], **ASKED).collect()
    assert [len(outcome.items) for outcome in collected.values()] == [1, 0]
    assert [ids_of(request) for request in seen] == [[1, 2], [1, 2]]


async def test_pages_items_and_order(session_at: Sessions) -> None:
    """Each id is one page, the last; in order where that is wanted."""
    capillary = session_at(HOST)
    with serving(own_rows):
        fan = capillary.points_awarded.ids([22, 30, 11], batch_size=2, **ASKED)
        pages = {key: (len(page), page.last, page.number) async for key, page in fan.pages()}
        assert pages == {22: (2, True, 1), 30: (0, True, 1), 11: (1, True, 1)}
        assert sorted([award.id async for award in fan.items()]) == [110, 220, 221]
        assert [outcome.key async for outcome in fan.ordered()] == [22, 30, 11]


async def test_the_key_of_an_error_raised_from_items(session_at: Sessions) -> None:
    """The id that was refused, not the first of its batch."""
    with serving(lambda seen: refused(404) if 2 in ids_of(seen) else own_rows(seen)):
        fan = session_at(HOST).points_awarded.ids([1, 2, 3], **ASKED)
        with pytest.raises(NotFoundError) as caught:
            [award async for award in fan.items()]
    assert caught.value.key == 2


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "50", None])
def test_a_batch_size_that_cannot_be(session_at: Sessions, size: Any) -> None:
    """Refused by name."""
    with pytest.raises(InvalidRequestError, match=f"batch_size takes a whole number of at least 1, got {size!r}"):
        session_at(HOST).points_awarded.ids([1], batch_size=size, **ASKED)


@pytest.mark.parametrize(
    ("changed", "argument"),
    [
        ({"program_id": 0}, "program_id"),
        ({"point_category_id": "x"}, "point_category_id"),
        ({"org_id": -1}, "org_id"),
        ({"status": ""}, "status"),
        ({"status": None}, "status"),
        ({"start_expiry_date": "2026-09-01"}, "start_expiry_date"),
        ({"end_expiry_date": "31.12.2026"}, "end_expiry_date"),
    ],
)
def test_arguments_that_cannot_be(session_at: Sessions, changed: dict[str, Any], argument: str) -> None:
    """Refused at the call."""
    with pytest.raises(InvalidRequestError) as caught:
        session_at(HOST).points_awarded.ids([1], **{**ASKED, **changed})
    assert caught.value.argument == argument
    assert argument in str(caught.value)


def test_paging_means_nothing_here(session_at: Sessions) -> None:
    """A session with large pages for other endpoints asks for awards all the same."""
    capillary = session_at(HOST, paging=Paging(page_size=1000))
    fan = capillary.points_awarded.ids([1], **ASKED).options(paging=Paging(page_size=5000))
    assert repr(fan) == "<FanOut points_awarded.ids over 1 keys>"


async def test_several_statuses_are_one_request_each(session_at: Sessions) -> None:
    """Each batch is asked once per status, each status once; a customer has the awards of all."""
    capillary = session_at(HOST)

    def by_status(seen: Seen) -> list[dict[str, Any]]:
        number = {"AVAILABLE": 1, "EXPIRED": 2}[seen.query["status"]]
        return [row(customer * 10 + number, customer) for customer in ids_of(seen)]

    asked = {**ASKED, "status": [PointsStatus.AVAILABLE, "EXPIRED", "AVAILABLE"]}
    with serving(by_status) as seen:
        outcomes = await capillary.points_awarded.ids([7, 8], **asked).collect()
    assert [request.query["status"] for request in seen] == ["AVAILABLE", "EXPIRED"]
    assert {key: [award.id for award in outcome.items] for key, outcome in outcomes.items()} == {
        7: [71, 72],
        8: [81, 82],
    }
    assert all(outcome.pages == 1 for outcome in outcomes.values())


async def test_an_award_that_moves_between_two_statuses(session_at: Sessions) -> None:
    """Unchanged it is given once; redeemed meanwhile it is no record to be counted, and its customer is asked again."""
    capillary = session_at(HOST)
    asked = {**ASKED, "status": ["AVAILABLE", "REDEEMED"]}
    with serving(lambda seen: [row(1, customer) for customer in ids_of(seen)]):
        outcome = (await capillary.points_awarded.ids([7], **asked).collect())[7]
    assert [award.id for award in outcome.items] == [1]

    def moving(seen: Seen) -> list[dict[str, Any]]:
        late = seen.query["status"] == "REDEEMED"
        return [
            row(customer, customer) | ({"redeemed_exclusive_value": 5} if late else {}) for customer in ids_of(seen)
        ]

    with serving(moving):
        outcome = (await capillary.points_awarded.ids([7], **asked).collect())[7]
    assert isinstance(outcome.error, RecordConflictError)


@pytest.mark.parametrize("status", [[], [""], [None], 5, None, b"AVAILABLE", ["AVAILABLE", 3]])
def test_statuses_that_are_invalid(session_at: Sessions, status: Any) -> None:
    with pytest.raises(InvalidRequestError, match="status takes"):
        session_at(HOST).points_awarded.ids([7], **{**ASKED, "status": status})
