"""What an answer says of the length of its list: more than was read is a warning, and in an export an error."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import evolve
from support.fake_list import FakeOwner, Row, fetched, rows
from support.raw_server import RawServer, said

from capillary_async import AsyncSession, Paging
from capillary_async._config import CarefulPaging
from capillary_async._paging.page import Position
from capillary_async._paging.source import FetchedPage, ListSource, PagerOptions
from capillary_async._paging.verified import open_reader
from capillary_async._transport.classify import judge
from capillary_async._transport.messages import Headers, Response, ResponseSpec, set_decoded
from capillary_async._transport.totals import total_in, total_of
from capillary_async.endpoints._resource import fetched as as_page
from capillary_async.errors import NotFoundError, PagingError
from capillary_async.models import LoyaltyEvent, PointsAllocation

Make = Callable[..., AsyncSession]
EVENTS = ResponseSpec(LoyaltyEvent, "data")
Read = tuple[list[int | None], list[str], int]


@pytest.mark.parametrize(
    ("envelope", "total"),
    [
        ({"total": 7}, 7), ({"totalCount": "7"}, 7), ({"total_elements": 7}, 7), ({"TotalRecords": "7.0"}, 7),
        ({"pagination": {"total": 7}}, 7), ({"meta": {"pagination": {"total-count": 7}}}, 7),
        ({"page": {"size": 20, "totalElements": 7, "totalPages": 1}}, 7), ({"page": 1, "total": None}, None),
        ({"total": True}, None), ({"total": -1}, None), ({"total": 7.5}, None), ({"total": "many"}, None),
        ({"total": {"points": 7}}, None), ({"total": [7]}, None), ({"total": "9" * 40}, None),
        ({"total": 10**30}, None),
        ({"totalPoints": 7, "count": 7, "other": {"total": 7}}, None), ({}, None),
    ],
)  # fmt: skip
def test_a_total_is_read_in_every_usual_place_and_nothing_else_is_one(envelope: dict[str, Any], total: int | None):
    assert total_of(envelope) == total
    body = json.dumps({"data": [], **envelope}).encode()
    assert (
        as_page(set_decoded(Response(200, body=body), judge(Response(200, body=body), EVENTS)), EVENTS).total == total
    )


def test_a_header_says_it_where_the_body_is_an_array():
    response = Response(200, Headers({"X-Total-Count": "7"}), b'[{"id": 1}]')
    shape = ResponseSpec(PointsAllocation)
    assert as_page(set_decoded(response, judge(response, shape)), shape).total == 7
    assert (total_in({"X-Total-Count": "x"}), total_in({})) == (None, None)


class Counted:
    """A list whose answers say a total."""

    def __init__(self, held: Sequence[Row | None], total: Any, *, cap: int = 100, gone: bool = False) -> None:
        self.held, self.total, self.cap, self.gone = list(held), total, cap, gone
        self.asked: list[int] = []

    async def fetch(self, number: int, size: int) -> FetchedPage[Row]:
        self.asked.append(number)
        size = min(size, self.cap)
        part = self.held[(number - 1) * size : number * size]
        if self.gone and not part:
            raise NotFoundError("gone", status=404)
        return evolve(fetched(part), total=self.total(number) if callable(self.total) else self.total)

    async def read(self, paging: Paging | None = None, **options: Any) -> Read:
        """Keys, warnings and requests."""
        source = ListSource("a.list(entity_id=1)", self.fetch, lambda row: row.id)
        walk = open_reader(source, paging or Paging(10, prefetch=0), FakeOwner(), PagerOptions(**options))
        keys: list[int | None] = []
        warnings: list[str] = []
        while (page := await walk.next_page()) is not None:
            keys += [row.id for row in page.items]
            warnings += [one.message for one in page.warnings]
        return keys, warnings, len(self.asked)


@pytest.mark.parametrize("length", [0, 1, 7, 10, 17, 20])
@pytest.mark.parametrize("gone", [False, True])
async def test_a_list_that_ends_before_its_total_is_warned_of(length: int, gone: bool):
    """Whether its end is a short page, an empty one or a 404; all rows are given all the same."""
    listed = Counted(rows(length), length + 3, gone=gone and length > 0)
    keys, warnings, _ = await listed.read()
    assert keys == list(range(1, length + 1))
    assert len(warnings) == 1
    assert f"the list has {length + 3} rows, and it ended after {length}: 3 may be missing" in warnings[0]


@pytest.mark.parametrize("length", [0, 7, 17, 20])
@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("gone", [False, True])
async def test_in_an_export_it_is_an_error(length: int, verify: bool, gone: bool):
    listed = Counted(rows(length), length + 3, gone=gone and length > 0)
    with pytest.raises(PagingError, match="3 may be missing") as caught:
        await listed.read(CarefulPaging(10, prefetch=0, verify=verify))
    assert (caught.value.is_definitive, caught.value.position is not None) == (False, True)


@pytest.mark.parametrize("length", [0, 1, 7, 10, 17, 20])
@pytest.mark.parametrize("total", [0, 1, "same", "page", None])
async def test_a_total_of_as_much_or_less_changes_nothing(length: int, total: Any):
    """Nor does it cost a request: a total of less is of something else, e.g. of the page."""
    said = {"same": length, "page": lambda number: max(0, min(10, length - 10 * (number - 1)))}.get(total, total)
    if isinstance(said, int) and said > length:
        said = length
    for paging in (Paging(10, prefetch=0), CarefulPaging(10, prefetch=0)):
        assert await Counted(rows(length), said).read(paging) == await Counted(rows(length), None).read(paging)


async def test_a_total_of_more_shows_a_servers_cap():
    """Page 1 of 7 where 10 were asked is no likely cap: the total says that there is more, and there is."""
    keys, warnings, requests = await Counted(rows(17), 17, cap=7).read()
    assert (keys, warnings, requests) == (list(range(1, 18)), [], 3)


async def test_rows_count_as_received_and_from_the_first():
    """Null entries and duplicates are rows; so are those before a position."""
    held = [*rows(8), None, Row(1), *rows(7, 11)]
    assert (await Counted(held, 17).read())[1] == []
    assert len((await Counted(held, 18).read())[1]) == 1
    assert (await Counted(rows(17), 17).read(start=Position(2, 3, 10)))[:2] == ([*range(14, 18)], [])
    assert len((await Counted(rows(17), 18).read(start=Position(2, 3, 10)))[1]) == 1


async def test_what_was_not_read_to_its_end_lacks_nothing():
    assert (await Counted(rows(17), 17).read(max_items=5))[:2] == ([1, 2, 3, 4, 5], [])
    assert (await Counted(rows(17), 17).read(max_items=10))[1] == []


async def test_the_last_page_with_rows_counts():
    """A list that shrinks while it is read, and an empty page behind it that says nothing."""
    assert (await Counted(rows(20), lambda number: {1: 21, 2: 20, 3: 0}[number]).read())[1] == []
    assert len((await Counted(rows(20), lambda number: {1: 20, 2: 23, 3: 0}[number]).read())[1]) == 1


async def test_a_page_that_comes_whole_when_it_is_asked_for_again_is_warned_of_by_nobody():
    listed = Counted(rows(17), 17)
    whole = listed.held
    listed.held = whole[:13]

    async def heal(number: int, size: int) -> FetchedPage[Row]:
        page = await Counted.fetch(listed, number, size)
        if number > 1:
            listed.held = whole
        return page

    listed.fetch = heal  # type: ignore[method-assign]
    assert (await listed.read())[:2] == (list(range(1, 18)), [])


async def test_through_a_session(session_at: Make):
    body = {"data": [{"id": 1, "customerId": 7}], "pagination": {"total": 5}}
    async with RawServer(said(body), said({"data": [], "total": 5}), said(body)) as server:
        pages = [page async for page in session_at(server.url).loyalty_events.list(7).pages()]
    (warning,) = [one for page in pages for one in page.warnings]
    assert "the list has 5 rows, and it ended after 1" in warning.message
