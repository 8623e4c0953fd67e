"""What ends a list: against a server whose answers go wrong once or for ever, in time or after those behind them."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from attrs import define, field
from support.raw_server import Answer, RawServer, http, said

from capillary_async import (
    CapillaryError,
    PageLoopError,
    Paging,
    PagingError,
    Position,
    RecordConflictError,
    RetryPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import AsyncSession, Pager

    Sessions = Callable[..., AsyncSession]

EXPIRY: dict[str, Any] = {
    "program_id": 1, "point_category_id": 1, "expiry_date_start": "2025-01-01", "expiry_date_end": "2026-01-01",
}  # fmt: skip
TEXT = {"Content-Type": "text/plain"}
# What stands for a page, once: none of it says that the list ended.
ENDS: dict[str, Answer] = {
    "no route": said({"message": "no Route matched with those values"}, 404),
    "default backend": http(b"default backend - 404", 404, TEXT),
    "Go": http(b"404 page not found\n", 404, TEXT),
    "nothing": http(b"", 404, TEXT),
    "Spring": said({"timestamp": "2026-01-01T00:00:00Z", "status": 404, "error": "Not Found", "path": "/x"}, 404),
    "HTML": http(b"<html>404 Not Found</html>", 404, {"Content-Type": "text/html"}),
    "errors under 200": said({"errors": [{"status": False, "code": 404, "message": "busy"}]}),
    "an empty page": said([]),
}


def row(number: int, **changes: Any) -> dict[str, Any]:
    """One allocation of customer 1."""
    return {"id": number, "customer_id": 1, "points_exclusive": number / 8, **changes}


@define
class Lists:
    """A list, and what is answered instead of a page.

    Attributes:
        rows: The list; tests change it.
        once: The answer to the first request of a page.
        always: The answer to each request of a page.
        late: Pages whose first answer is sent after that of the page behind.
        events: Whether it is a list of loyalty events.
    """

    rows: list[dict[str, Any]]
    once: dict[int, Answer] = field(factory=dict)
    always: dict[int, Answer] = field(factory=dict)
    late: set[int] = field(factory=set)
    events: bool = False
    cap: int | None = None
    asked: list[int] = field(factory=list)
    _sent: dict[int, asyncio.Event] = field(factory=dict)

    def __call__(self, target: str) -> Answer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        page, size = int(query["page"]), int(query.get("count") or query["limit"])
        self.asked.append(page)
        self._sent.setdefault(page, asyncio.Event()).set()
        answer = self.always.get(page) or self.once.pop(page, None) or self.page(page, size)
        if page in self.late:
            self.late.remove(page)
            return answer.but(when=self._sent.setdefault(page + 1, asyncio.Event()))
        return answer

    def page(self, number: int, size: int) -> Answer:
        """What it holds."""
        size = min(size, self.cap or size)
        rows = self.rows[(number - 1) * size : number * size]
        return said({"data": rows, "warnings": []} if self.events else rows)

    def pager(self, session: AsyncSession) -> Pager[Any]:
        """How it is read."""
        if self.events:
            return session.loyalty_events.list(1)
        return session.points_allocation.by_expiry(entity_id=1, **EXPIRY)


class Listed(RawServer):
    """Answers by page."""

    def __init__(self, lists: Lists) -> None:
        super().__init__()
        self.answer_to = lists  # type: ignore[method-assign,assignment]


def many(count: int, first: int = 1) -> list[dict[str, Any]]:
    """So many rows."""
    return [row(number) for number in range(first, first + count)]


def ids(records: list[Any]) -> list[int]:
    """Their ids."""
    return [record.id for record in records]


@pytest.mark.parametrize("form", ENDS)
@pytest.mark.parametrize(("page", "prefetch", "late"), [(2, 4, True), (2, 0, False), (3, 1, False), (4, 4, False)])
async def test_what_is_no_end_is_asked_again(
    session_at: Sessions, form: str, page: int, prefetch: int, *, late: bool
) -> None:
    """Once, read ahead or not, late or not: the list is whole."""
    lists = Lists(many(450), {page: ENDS[form]}, late={page} if late else set())
    async with Listed(lists) as server:
        session = session_at(server.url, paging=Paging(prefetch=prefetch))
        records = await lists.pager(session).collect()
    assert ids(records) == list(range(1, 451))
    assert lists.asked.count(page) == 2


@pytest.mark.parametrize("form", [*ENDS, "99 rows"])
@pytest.mark.parametrize("prefetch", [2, 4])
async def test_an_end_that_pages_behind_contradict_is_an_error(session_at: Sessions, form: str, prefetch: int) -> None:
    """Twice the end, and rows behind it: nothing of the page is given, and reading goes on there."""
    lists = Lists(many(450), late={2})
    lists.always[2] = said(many(99, 101)) if form == "99 rows" else ENDS[form]
    async with Listed(lists) as server:
        pager = lists.pager(session_at(server.url, paging=Paging(prefetch=prefetch)))
        got: list[Any] = []
        with pytest.raises(PagingError, match="page 2") as caught:  # noqa: PT012 - what comes before it counts
            async for record in pager:
                got.append(record)  # noqa: PERF401
        assert ids(got) == list(range(1, 101))
        assert type(caught.value) is PagingError
        assert caught.value.position == Position(2, 0, 100)
        lists.always.clear()
        got += await pager.options(start=caught.value.position).collect()
        assert ids(got) == list(range(1, 451))


async def test_a_short_page_is_no_end_where_rows_are_behind_it(session_at: Sessions) -> None:
    """99 rows instead of 100, after page 3 was answered."""
    lists = Lists(many(450), {2: said(many(99, 101))}, late={2})
    async with Listed(lists) as server:
        assert ids(await lists.pager(session_at(server.url)).collect()) == list(range(1, 451))


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_null_data_with_a_warning_is_no_end(session_at: Sessions, prefetch: int) -> None:
    """Asked again; whole, nothing is left to warn of."""
    partial = said({"data": None, "warnings": [{"message": "shard 3 timed out; result is partial"}]})
    lists = Lists(many(450), {2: partial}, late={2} if prefetch else set(), events=True)
    async with Listed(lists) as server:
        session = session_at(server.url, paging=Paging(prefetch=prefetch))
        assert ids(await lists.pager(session).collect()) == list(range(1, 451))


@pytest.mark.parametrize("count", [0, 100, 200])
async def test_warnings_of_the_page_that_ends_a_list_are_given(session_at: Sessions, count: int) -> None:
    """On an empty last page, and in the outcome."""
    empty = said({"data": None, "warnings": [{"code": 7, "message": "older events are archived"}]})
    lists = Lists(many(count), always={count // 100 + 1: empty}, events=True)
    async with Listed(lists) as server:
        session = session_at(server.url)
        pages = [page async for page in lists.pager(session).pages()]
        assert [len(page) for page in pages] == [100] * (count // 100) + [0]
        assert [page.last for page in pages] == [False] * (count // 100) + [True]
        assert [warning.message for warning in pages[-1].warnings] == ["older events are archived"]
        outcome = (await session.loyalty_events.list_many([1]).collect())[1]
        assert len(outcome.items) == count
        assert [warning.message for warning in outcome.warnings] == ["older events are archived"]
        assert len(await lists.pager(session).collect()) == count


@pytest.mark.parametrize(
    ("count", "cost"),
    [(0, 1), (1, 1), (9, 1), (37, 1), (99, 1), (100, 3), (101, 2), (199, 2), (200, 4), (250, 3), (300, 5)],
)
async def test_what_lists_cost(session_at: Sessions, count: int, cost: int) -> None:
    """One request more where the length is a multiple of the page size; without reading ahead."""
    lists = Lists(many(count))
    async with Listed(lists) as server:
        session = session_at(server.url, paging=Paging(prefetch=0))
        assert len(await lists.pager(session).collect()) == count
        assert len(lists.asked) == cost


async def test_thrift_where_no_end_is_concerned(session_at: Sessions) -> None:
    """`first`, `page` and `max_items` cost the pages that they give."""
    lists = Lists(many(300))
    async with Listed(lists) as server:
        pager = lists.pager(session_at(server.url))
        assert (await pager.first()).id == 1
        assert lists.asked == [1]
        assert len(await pager.page(3)) == 100
        assert lists.asked == [1, 3]
        assert len(await pager.options(max_items=200).collect()) == 200
        assert lists.asked == [1, 3, 1, 2]


@pytest.mark.parametrize("seed", range(12))
async def test_faults_at_random_lose_nothing(session_at: Sessions, seed: int) -> None:
    """Ends that are none, at random pages, once each, some of them late, at any window, with a cap or without."""
    chance = random.Random(seed)
    count = chance.choice([100, 120, 250, 300, 450, 999])
    pages = -(-count // 100)
    once = {chance.randint(2, pages + 1): ENDS[chance.choice(list(ENDS))] for _ in range(3)}
    lists = Lists(many(count), once, cap=chance.choice([None, 50, 20]))
    prefetch = chance.randrange(6)
    if prefetch > 1 and lists.cap is None:
        lists.late = {page for page in once if page < pages}
    async with Listed(lists) as server:
        records = await lists.pager(session_at(server.url, paging=Paging(prefetch=prefetch))).collect()
    assert ids(records) == list(range(1, count + 1))


# Loops.


@define
class Circles(Lists):
    """A server that ignores `page` or gives its last page for ever, in another order each time.

    Attributes:
        keep: From which page on it repeats: 1 ignores `page`.
    """

    keep: int = 1
    named: bool = True
    chance: random.Random = field(factory=lambda: random.Random(1))

    def page(self, number: int, size: int) -> Answer:
        """The page, or the last one, shuffled."""
        number = min(number, self.keep)
        rows = self.rows[(number - 1) * size : number * size]
        self.chance.shuffle(rows)
        if not self.named:
            rows = [{name: value for name, value in one.items() if name != "id"} for one in rows]
        return said(rows)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("prefetch", [0, 4])
async def test_a_server_that_goes_round_in_circles(
    session_at: Sessions, keep: int, prefetch: int, *, named: bool, verify: bool
) -> None:
    """With ids and without, in whatever order: an error, after no more than the pages in flight."""
    lists = Circles(many(100 * keep), keep=keep, named=named)
    async with Listed(lists) as server:
        session = session_at(server.url, paging=Paging(prefetch=prefetch, verify=verify))
        got: list[Any] = []
        with pytest.raises(PageLoopError) as caught:  # noqa: PT012 - what comes before it counts
            async for record in lists.pager(session):
                got.append(record)  # noqa: PERF401
        assert len(got) == (0 if verify else 100 * keep)
        assert len(lists.asked) <= keep + 1 + prefetch
        if verify:
            return
        # Who goes on there learns the same at once.
        again = lists.pager(session).options(start=caught.value.position)
        with pytest.raises(PageLoopError) as second:
            await again.collect()
        assert second.value.position in {caught.value.position, Position(keep + 2, 0, 100)}


async def test_pages_drawn_from_a_short_list_end(session_at: Sessions) -> None:
    """Two full pages in a row without a record not seen before, none of them equal to another."""

    @define
    class Drawn(Lists):
        chance: random.Random = field(factory=lambda: random.Random(1))

        def page(self, number: int, size: int) -> Answer:
            return said(self.chance.sample(self.rows, size))

    lists = Drawn(many(130))
    async with Listed(lists) as server:
        with pytest.raises(PageLoopError):
            await lists.pager(session_at(server.url)).collect()
    assert len(lists.asked) < 40


async def test_a_short_page_of_known_records_is_an_end(session_at: Sessions) -> None:
    """Rows moved: one that was inserted pushed the last one over the border."""
    lists = Lists(many(200))
    lists.always[3] = said([row(200)])
    async with Listed(lists) as server:
        assert ids(await lists.pager(session_at(server.url)).collect()) == list(range(1, 201))


async def test_the_last_short_page_for_ever_is_an_end(session_at: Sessions) -> None:
    """What is behind it has no record that was not seen."""
    lists = Circles(many(250), keep=3)
    async with Listed(lists) as server:
        assert len(await lists.pager(session_at(server.url)).collect()) == 250


# Conflicts, and going on.


@pytest.mark.parametrize("back", [1, 9, 18])
async def test_a_conflict_is_seen_at_any_distance(session_at: Sessions, back: int) -> None:
    """Page 19 of 30 has rows under ids of an earlier page, with other points."""
    rows = many(3_000)
    rows[1_800:1_860] = [row(number, points_exclusive=1.5) for number in range(1801 - 100 * back, 1861 - 100 * back)]
    lists = Lists(rows)
    async with Listed(lists) as server:
        with pytest.raises(RecordConflictError) as caught:
            await lists.pager(session_at(server.url)).collect()
        assert caught.value.position == Position(19, 0, 100)


async def test_going_on_gives_no_record_again(session_at: Sessions) -> None:
    """A row is inserted before page 3, which fails once; a record that changed over the seam is seen."""
    for changed in (False, True):
        lists = Lists(many(300))
        lists.always[3] = http(b"", 500)
        async with Listed(lists) as server:
            pager = lists.pager(session_at(server.url, retry=RetryPolicy(attempts=1)))
            got: list[int] = []
            position = None
            try:
                async for record in pager:
                    got.append(record.id)  # noqa: PERF401
            except CapillaryError as error:
                position = error.position
            lists.always.clear()
            lists.rows.insert(0, row(9_000))
            if changed:
                lists.rows[200] = row(200, points_exclusive=77)
                with pytest.raises(RecordConflictError):
                    await pager.options(start=position).collect()
                continue
            got += ids(await pager.options(start=position).collect())
            assert got == list(range(1, 301))


# Rows with all their members: their reprs are cut before the last ones.
WHOLE: dict[str, Any] = dict.fromkeys(
    [
        "till_id", "point_category_id", "program_id", "event_log_id", "event_type_id", "points_source_type_id",
        "original_points", "awarded_date", "returned_exclusive_value", "points_source_id", "cps_id",
        "expiry_strategy_id", "returned_value", "redeemed_exclusive_value", "expiry_date", "auto_update_time",
        "redeemed_value", "expired_exclusive_value", "allocation_strategy_id", "points_value", "org_id",
        "expired_value",
    ],
    1_700_000_000_000,
)  # fmt: skip


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_rows_without_an_id_are_compared_by_all_of_their_members(session_at: Sessions, prefetch: int) -> None:
    """Also by those behind what a repr shows."""
    lists = Lists([{**WHOLE, **row(number), "id": None} for number in range(1, 451)])
    async with Listed(lists) as server:
        records = await lists.pager(session_at(server.url, paging=Paging(prefetch=prefetch))).collect()
    assert [record.points_exclusive * 8 for record in records] == list(range(1, 451))


async def test_rows_without_an_id_contradict_an_end(session_at: Sessions) -> None:
    """Those of the page behind differ from those of a short page in one of the last members alone."""
    lists = Lists([{**WHOLE, **row(number), "id": None} for number in range(1, 351)])
    lists.once[2] = said(lists.rows[100:160])
    lists.late.add(2)
    async with Listed(lists) as server:
        records = await lists.pager(session_at(server.url)).collect()
    assert [record.points_exclusive * 8 for record in records] == list(range(1, 351))


async def test_a_pickled_position_sees_a_change_of_any_member(session_at: Sessions) -> None:
    """The status is the last member of a row."""
    lists = Lists([{**WHOLE, **row(number), "status": "AVAILABLE"} for number in range(1, 301)])
    lists.always[3] = http(b"", 500)
    async with Listed(lists) as server:
        pager = lists.pager(session_at(server.url, retry=RetryPolicy(attempts=1)))
        with pytest.raises(CapillaryError) as caught:
            await pager.collect()
        position = pickle.loads(pickle.dumps(caught.value)).position  # noqa: S301 - of this test
        lists.always.clear()
        lists.rows.insert(0, {**WHOLE, **row(9_000)})
        lists.rows[200]["status"] = "REDEEMED"
        with pytest.raises(RecordConflictError, match="record 200 "):
            await pager.options(start=position).collect()


def test_a_server_of_this_file_is_json() -> None:
    """The answers that stand for a page are what they are meant to be."""
    assert json.loads(ENDS["Spring"].data.partition(b"\r\n\r\n")[2])["status"] == 404
