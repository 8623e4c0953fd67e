"""The sandbox's scripted faults: what each does on the wire, how often, and to which request."""

import asyncio
import errno
import gzip
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import attrs
import pytest

from capillary_async.sandbox import (
    Answer,
    ConnectionReset,
    CutBody,
    ErrorEnvelope,
    Fault,
    HtmlAnswer,
    NotFoundPastEnd,
    NullEntries,
    PageCap,
    PagingIgnored,
    RepeatedPage,
    RowsChanged,
    RowsInserted,
    RowsRemoved,
    Sandbox,
    ServerFailure,
    SlowFirstByte,
    Throttle,
)

PAGED = "/x/neo/pointsAllocation/dateRange"


class Client:
    """A raw client that reads one customer's pages."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox, self.session = sandbox, session
        self.customer = next(each for each in sandbox.customer_ids if len(sandbox.allocations(each)) == 100)
        self.neo = {
            "entity_id": self.customer,
            "program_id": sandbox.program_id,
            "point_category_id": sandbox.point_category_id,
            "expiry_date_start": str(sandbox.expiry_date_start),
            "expiry_date_end": str(sandbox.expiry_date_end),
        }

    async def page(self, number: int = 1, count: int = 40, **headers: str) -> tuple[int, Any]:
        async with self.session.get(
            PAGED, params=self.neo | {"page": number, "count": count}, headers=headers
        ) as answer:
            return answer.status, json.loads(await answer.read())

    async def ids(self, number: int = 1, count: int = 40) -> list[int]:
        status, rows = await self.page(number, count)
        assert status == 200
        return [row["id"] for row in rows]

    async def events(self, **params: int) -> Any:
        async with self.session.get(f"/v2/customers/{self.customer}/loyaltyEvents", params=params) as answer:
            return await answer.json()

    def all_ids(self) -> list[int]:
        return [row["id"] for row in self.sandbox.allocations(self.customer)]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Sandbox(customers=12) as sandbox:
        login = aiohttp.encode_basic_auth(sandbox.username, hashlib.md5(sandbox.password.encode()).hexdigest())
        headers = {"Authorization": login, "x-cap-neo-dag-scope": "global"}
        async with aiohttp.ClientSession(sandbox.url, headers=headers) as session:
            # aiohttp's own second try would hide a reset.
            session._retry_connection = False
            yield Client(sandbox, session)


class TestWhen:
    async def statuses(self, client: Client, pages: Iterable[int]) -> list[int]:
        return [(await client.page(number))[0] for number in pages]

    async def test_so_many_times(self, client: Client) -> None:
        client.sandbox.add_faults(Throttle(times=2))
        assert await self.statuses(client, [1] * 4) == [429, 429, 200, 200]

    async def test_always(self, client: Client) -> None:
        client.sandbox.add_faults(ServerFailure(503, times=None))
        assert await self.statuses(client, [1] * 4) == [503] * 4
        client.sandbox.clear_faults()
        assert await self.statuses(client, [1]) == [200]

    async def test_after_some_and_on_one_page(self, client: Client) -> None:
        client.sandbox.add_faults(Throttle(page=2, after=1))
        assert await self.statuses(client, [1, 2, 1, 2, 2]) == [200, 200, 200, 429, 200]

    async def test_on_one_path(self, client: Client) -> None:
        client.sandbox.add_faults(Throttle(path="loyaltyEvents"))
        assert await self.statuses(client, [1]) == [200]
        assert (await client.events())["errors"][0]["code"] == 429

    async def test_one_answer_at_a_time_in_the_order_given(self, client: Client) -> None:
        client.sandbox.add_faults(ServerFailure(502, times=2), Throttle(), ServerFailure(504))
        assert await self.statuses(client, [1] * 5) == [502, 502, 429, 504, 200]

    async def test_a_page_is_known_by_its_offset_too(self, client: Client) -> None:
        client.sandbox.add_faults(Throttle(page=3, path="loyaltyEvents"))
        assert (await client.events(limit=2, offset=2))["errors"] == []
        assert (await client.events(limit=2, offset=4))["errors"][0]["code"] == 429

    async def test_the_journal_tells_what_was_played(self, client: Client) -> None:
        faults = (SlowFirstByte(0), Throttle(), ServerFailure())
        client.sandbox.add_faults(*faults)
        await self.statuses(client, [1] * 3)
        seen = client.sandbox.journal
        assert [each.faults for each in seen] == [faults[:2], faults[2:], ()]
        assert seen[1].fault is faults[2]

    async def test_a_fault_keeps_no_state(self) -> None:
        """The same value works in a second sandbox."""
        fault = Throttle()
        for _ in range(2):
            async with Sandbox(customers=0, faults=[fault]) as sandbox, aiohttp.ClientSession(sandbox.url) as session:
                for status in (429, 401):
                    async with session.get(PAGED) as answer:
                        assert answer.status == status
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            fault.times = 3  # type: ignore[misc]

    async def test_faults_of_ones_own(self, client: Client) -> None:
        class Teapot(Fault):
            exclusive = True

            def instead(self, path: str) -> Answer:
                return Answer(path.encode(), 418, "text/plain", {"X-Brew": "tea"})

        client.sandbox.add_faults(Teapot())
        async with client.session.get(PAGED) as answer:
            assert (answer.status, await answer.text(), answer.headers["X-Brew"]) == (418, PAGED, "tea")

    async def test_the_token_path_may_fail_too(self, client: Client) -> None:
        client.sandbox.add_faults(ServerFailure(503, path="oauth"))
        async with client.session.post("/v3/oauth/token/generate") as answer:
            assert answer.status == 503


class TestInstead:
    @pytest.mark.parametrize(
        ("retry_after", "header"), [(None, None), (2, "2"), (0.5, "0.5"), ("Wed, 21 Oct 2015 07:28:00 GMT", ...)]
    )
    async def test_throttle(self, client: Client, retry_after: Any, header: Any) -> None:
        client.sandbox.add_faults(Throttle(retry_after))
        async with client.session.get(PAGED) as answer:
            assert answer.status == 429
            assert answer.headers.get("Retry-After") == (retry_after if header is ... else header)
            assert await answer.json() == {
                "code": 429,
                "message": "Too many requests",
                "err": {"name": "SandboxFault"},
            }

    @pytest.mark.parametrize(
        ("body", "kind", "start"),
        [
            ("json", "application/json", b'{"code":502'),
            ("html", "text/html", b"<!DOCTYPE html>"),
            ("empty", "text/plain", b""),
            (b'{"half', "application/json", b'{"half'),
        ],
    )
    async def test_server_failure(self, client: Client, body: Any, kind: str, start: bytes) -> None:
        client.sandbox.add_faults(ServerFailure(502, body, retry_after=1))
        async with client.session.get(PAGED) as answer:
            assert (answer.status, answer.content_type) == (502, kind)
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.read()).startswith(start)

    async def test_html_under_200(self, client: Client) -> None:
        client.sandbox.add_faults(HtmlAnswer())
        async with client.session.get(PAGED) as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
            assert (await answer.text()).startswith("<!DOCTYPE html>")

    async def test_an_error_code_under_200(self, client: Client) -> None:
        client.sandbox.add_faults(ErrorEnvelope(4001, "try later", times=2))
        assert await client.page() == (200, {"code": 4001, "message": "try later", "err": {"name": "SandboxFault"}})
        assert (await client.events())["errors"] == [{"status": False, "code": 4001, "message": "try later"}]

    async def test_a_reset_connection(self, client: Client) -> None:
        client.sandbox.add_faults(ConnectionReset())
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await client.page()
        assert caught.value.errno == errno.ECONNRESET
        assert [(seen.status, seen.fault) for seen in client.sandbox.journal] == [(None, ConnectionReset())]
        assert (await client.page())[0] == 200

    async def test_a_slow_first_byte(self, client: Client) -> None:
        client.sandbox.add_faults(SlowFirstByte(0.05))
        began = time.monotonic()
        assert (await client.page())[0] == 200
        assert time.monotonic() - began >= 0.049

    async def test_an_endless_wait_ends_with_the_sandbox(self, client: Client) -> None:
        client.sandbox.add_faults(SlowFirstByte(3600))
        waiting = asyncio.create_task(client.page())
        while not client.sandbox.in_flight:  # noqa: ASYNC110  (the sandbox has no event to wait for)
            await asyncio.sleep(0)
        await client.sandbox.aclose()
        with pytest.raises(aiohttp.ClientOSError):
            await waiting


class TestCut:
    @pytest.mark.parametrize("encoding", ["gzip", "identity"])
    @pytest.mark.parametrize("keep", [0, 0.5, 1])
    @pytest.mark.parametrize("how", ["length", "chunked"])
    async def test_the_connection_ends_within_the_body(
        self, client: Client, how: Any, keep: float, encoding: str
    ) -> None:
        client.sandbox.add_faults(CutBody(keep, how=how))
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.page(**{"Accept-Encoding": encoding})
        assert (await client.page())[0] == 200
        assert [seen.status for seen in client.sandbox.journal] == [200, 200]

    async def test_a_complete_message_around_half_a_json(self, client: Client) -> None:
        client.sandbox.add_faults(CutBody(how="content"))
        with pytest.raises(json.JSONDecodeError):
            await client.page(**{"Accept-Encoding": "identity"})

    async def test_a_complete_message_around_half_a_gzip_stream(self, client: Client) -> None:
        client.sandbox.add_faults(CutBody(0.9, how="content"))
        async with aiohttp.ClientSession(
            client.sandbox.url, headers=client.session.headers, auto_decompress=False
        ) as session:
            params = client.neo | {"count": 100}
            async with session.get(PAGED, params=params, headers={"Accept-Encoding": "gzip"}) as answer:
                body = await answer.read()
        with pytest.raises(EOFError):
            gzip.decompress(body)

    async def test_nothing_can_be_cut_from_nothing(self, client: Client) -> None:
        client.sandbox.add_faults(CutBody(how="content"))
        async with client.session.get(PAGED, params=client.neo | {"page": 99}) as answer:
            assert await answer.read() == b"["

    @pytest.mark.parametrize("keep", [-0.1, 1.1])
    def test_a_part_that_cannot_be_is_refused(self, keep: float) -> None:
        with pytest.raises(ValueError, match="keep"):
            CutBody(keep)


class TestPages:
    async def test_a_repeated_page(self, client: Client) -> None:
        client.sandbox.add_faults(RepeatedPage(page=3))
        pages = [await client.ids(number, 30) for number in (1, 2, 3, 3)]
        assert pages[2] == pages[1]
        assert pages[3] == client.all_ids()[60:90]

    async def test_every_page_repeated(self, client: Client) -> None:
        client.sandbox.add_faults(RepeatedPage(page=None, times=None))
        assert [await client.ids(number, 30) for number in (1, 2)] == [client.all_ids()[:30]] * 2
        rows = client.sandbox.events(client.customer)
        assert (await client.events(limit=5, offset=5))["data"] == rows[:5]
        assert (await client.events(limit=5, offset=2))["data"] == rows[:5]

    async def test_paging_ignored(self, client: Client) -> None:
        client.sandbox.add_faults(PagingIgnored())
        assert [await client.ids(number, 30) for number in (1, 2, 9)] == [client.all_ids()[:30]] * 3
        assert (await client.events(offset=5))["data"] == client.sandbox.events(client.customer)[:10]

    async def test_a_page_cap(self, client: Client) -> None:
        client.sandbox.add_faults(PageCap(25))
        pages = [await client.ids(number, 100) for number in range(1, 6)]
        assert [len(page) for page in pages] == [25, 25, 25, 25, 0]
        assert [each for page in pages for each in page] == client.all_ids()
        assert len(await client.ids(1, 10)) == 10
        with pytest.raises(ValueError, match="limit"):
            PageCap(0)

    async def test_404_past_the_end(self, client: Client) -> None:
        client.sandbox.add_faults(NotFoundPastEnd())
        assert (await client.page(2, 50))[0] == 200
        status, body = await client.page(3, 50)
        assert (status, body["errors"][0]["code"]) == (404, 404)
        client.neo["entity_id"] = client.sandbox.unknown_id
        assert await client.page(1) == (200, [])

    async def test_null_entries(self, client: Client) -> None:
        client.sandbox.add_faults(NullEntries(2))
        _, rows = await client.page(1, 3)
        assert [row and row["id"] for row in rows] == [client.all_ids()[0], None, None, *client.all_ids()[1:3]]


class TestMovingRows:
    async def test_inserted_rows_repeat_rows_on_later_pages(self, client: Client) -> None:
        client.sandbox.add_faults(RowsInserted(2))
        before = client.all_ids()
        first, second = await client.ids(1), await client.ids(2)
        assert (first, second) == (before[:40], before[38:78])
        new = await client.ids(1)
        assert new[2:] == before[:38]
        assert not set(new[:2]) & set(before)

    async def test_removed_rows_skip_rows_on_later_pages(self, client: Client) -> None:
        client.sandbox.add_faults(RowsRemoved(3))
        before = client.all_ids()
        assert (await client.ids(1), await client.ids(2)) == (before[:40], before[43:83])
        assert await client.ids(1) == before[3:43]
        client.sandbox.clear_faults()
        assert await client.ids(1) == before[:40]

    async def test_changed_rows_keep_their_ids(self, client: Client) -> None:
        client.sandbox.add_faults(RowsInserted(1), RowsChanged())
        (_, first), (_, second) = await client.page(1), await client.page(2)
        assert second[0]["id"] == first[-1]["id"]
        assert second[0]["auto_update_time"] > first[-1]["auto_update_time"]

    async def test_some_rows_change(self, client: Client) -> None:
        client.sandbox.add_faults(RowsChanged(1, page=None))
        assert (await client.events(limit=2))["data"] != client.sandbox.events(client.customer)[:2]
        assert (await client.events(limit=2))["data"][1:] == client.sandbox.events(client.customer)[1:2]
        assert (await client.events(limit=1))["data"][0]["status"] == "REPROCESSED_0"

    async def test_a_list_may_move_for_ever(self, client: Client) -> None:
        client.sandbox.add_faults(RowsInserted(times=None))
        pages = [await client.ids(2) for _ in range(3)]
        assert [page[0] for page in pages] == client.all_ids()[39:36:-1]
        assert len(set(await client.ids(1))) == 40

    async def test_events_move_too_and_other_lists_do_not(self, client: Client) -> None:
        client.sandbox.add_faults(RowsInserted(path="loyaltyEvents"))
        events = client.sandbox.events(client.customer)
        assert (await client.events(page=2))["data"] == events[9:19]
        (new, *_) = (await client.events())["data"]
        assert new["uniqueId"] not in {row["uniqueId"] for row in events}
        assert await client.ids(1) == client.all_ids()[:40]

    async def test_an_empty_list_stays_empty(self, client: Client) -> None:
        client.sandbox.add_faults(RowsInserted(page=1), RowsChanged(page=1))
        client.neo["entity_id"] = client.sandbox.unknown_id
        assert await client.page(1) == (200, [])
