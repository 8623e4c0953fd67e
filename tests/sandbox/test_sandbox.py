"""The sandbox over real sockets: the pages' curl lines, credentials, journal, rate, starting and stopping."""

import asyncio
import errno
import hashlib
import json
import math
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from support.paths import SAMPLES
from yarl import URL

from capillary_async import sandbox as package
from capillary_async.auth import BasicAuth, OAuthClient
from capillary_async.sandbox import Sandbox, Throttle

Both = tuple[Sandbox, aiohttp.ClientSession]
NEO = {"x-cap-neo-dag-scope": "global"}
AWARDED = (
    "https://eu.api.capillarytech.com/x/neo/pointsAwarded/paIds?start_expiry_date=2025-06-30&end_expiry_date=2026-08-31"
    "&point_category_id=40022&program_id=3379&entity_id=388034468%2C%20387993857&status=AVAILABLE&org_id=52011"
)
DATE_RANGE = (
    "https://nightly.api.capillarytech.com/x/neo/pointsAllocation/dateRange?expiry_date_start=2025-06-01"
    "&expiry_date_end=2027-06-01&point_category_id=17383&program_id=2282&entity_id=383474113"
)
EVENT = "https://nightly.api.capillarytech.com/x/neo/pointsAllocation/event?entity_id="
LEDGER = "https://eu.api.capillarytech.com/v2/pointsLedger/getLedgerExplodeInfo?identifierName="
BY_REFERENCE = (
    f"{LEDGER}mobile&identifierValue=918088369835&source=INSTORE&eventName=TransactionAdd&eventReferenceIds=888812880"
)
GENERIC = (
    f"{LEDGER}id&identifierValue=565039506&source=INSTORE&type=CUSTOMER&eventName=GenericEvent"
    "&eventReferenceIds=67587c26-d925-4f8d-9211-a9b4d6f8db8e"
)
EVENTS = "https://eu.api.capillarytech.com/v2/customers/565039505/loyaltyEvents"


def basic(sandbox: Sandbox) -> dict[str, str]:
    digest = hashlib.md5(sandbox.password.encode()).hexdigest()
    return {"Authorization": aiohttp.encode_basic_auth(sandbox.username, digest)}


@asynccontextmanager
async def served(**options: object) -> AsyncIterator[Both]:
    """A sandbox, and a client with its credentials and the scope header."""
    async with (
        Sandbox(**{"customers": 12, **options}) as sandbox,
        aiohttp.ClientSession(sandbox.url, headers=basic(sandbox) | NEO) as client,
    ):
        yield sandbox, client


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's own time limit ends it otherwise."""
    while not true():  # noqa: ASYNC110  (the sandbox has no event to wait for)
        await asyncio.sleep(0)


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    async with served() as pair:
        yield pair


def here(sandbox: Sandbox, url: str) -> URL:
    """The page's URL with nothing but its host replaced."""
    return URL(re.sub(r"https://[^/]+", sandbox.url, url), encoded=True)


def page_sample(name: str) -> object:
    text = (SAMPLES / f"{name}.json").read_text("utf-8")
    return json.loads(text, parse_float=Decimal)


async def exact(response: aiohttp.ClientResponse) -> object:
    return json.loads(await response.read(), parse_float=Decimal)


class TestCurlLines:
    @pytest.mark.parametrize(
        ("url", "name"),
        [
            (AWARDED, "points_awarded_ids"),
            (DATE_RANGE, "points_allocation_date_range"),
            (f"{EVENT}hfjWDK0dek&customer_id=374819205&event_type_id=15", "points_allocation_event"),
            (EVENTS, "loyalty_events"),
            (
                f"{LEDGER}mobile&identifierValue=918088369835&source=INSTORE&eventIds=634510612",
                "ledger_transaction_add",
            ),
            (BY_REFERENCE, "ledger_transaction_add"),
            (GENERIC, "ledger_generic_event"),
        ],
    )
    async def test_answers_as_the_page_shows(self, both: Both, url: str, name: str) -> None:
        sandbox, client = both
        headers = {"Content-Type": "application/json", "x-cap-neo-test-variant-id": "7a67e565"}
        async with client.get(here(sandbox, url), headers=headers) as response:
            assert (response.status, await exact(response)) == (200, page_sample(name))
        assert sandbox.journal[0].query_string == url.partition("?")[2]

    async def test_the_first_line_of_the_event_page_answers_with_its_ids(self, both: Both) -> None:
        sandbox, client = both
        url = f"{EVENT}890697432&customer_id=566135941&event_type_id=15"
        async with client.get(here(sandbox, url)) as response:
            (row,) = await response.json()
        assert (row["points_source_id"], row["customer_id"], row["event_type_id"]) == (890697432, 566135941, 15)
        assert 630_000_000 < row["event_log_id"] < 660_000_000

    async def test_number_text_is_kept(self, both: Both) -> None:
        """100.0 stays 100.0, and three decimals stay three."""
        sandbox, client = both
        url = f"{LEDGER}id&identifierValue=565039506&source=INSTORE&eventIds=24732968"
        async with client.get(here(sandbox, url)) as response:
            assert '"grossAmount":30.0,"discount":5.0' in await response.text()

    @pytest.mark.parametrize(
        ("event_id", "name"),
        [
            (30527930, "ledger_target_completed"),
            (652367550, "ledger_points_redemption"),
            (8143509, "ledger_goodwill_points"),
            (632749682, "ledger_points_redemption_custom_fields"),
            (24732968, "ledger_transaction_add_bill"),
            (656317605, "ledger_manual_points_adjustment"),
        ],
    )
    async def test_every_ledger_sample_is_there(self, both: Both, event_id: int, name: str) -> None:
        sandbox, client = both
        owner = 566135941 if event_id in (652367550, 656317605) else 565039506
        url = f"{LEDGER}id&identifierValue={owner}&source=INSTORE&eventIds={event_id}"
        shown = page_sample(name)
        assert isinstance(shown, dict)
        async with client.get(here(sandbox, url)) as response:
            assert await exact(response) == {"events": shown["events"][:1], "warnings": shown["warnings"]}


class TestCredentials:
    async def test_the_password_goes_as_md5(self) -> None:
        async with Sandbox(customers=1) as sandbox, aiohttp.ClientSession(sandbox.url) as client:
            path = f"/v2/customers/{sandbox.customer_ids[0]}/loyaltyEvents"
            plain = {"Authorization": aiohttp.encode_basic_auth(sandbox.username, sandbox.password)}
            for headers, status in (
                (basic(sandbox), 200),
                (plain, 401),
                ({}, 401),
                ({"Authorization": "Basic x"}, 401),
            ):
                async with client.get(path, headers=headers) as response:
                    assert response.status == status
                    body = await response.json()
            assert body["response"]["status"] == {
                "success": "false",
                "code": "401",
                "message": "Invalid till id or password",
            }

    async def test_auth_and_oauth_are_those_of_the_package(self) -> None:
        sandbox = Sandbox(customers=0)
        assert isinstance(sandbox.auth, BasicAuth)
        assert isinstance(sandbox.oauth, OAuthClient)
        assert sandbox.password not in repr((sandbox, sandbox.auth))
        assert sandbox.secret not in repr((sandbox, sandbox.oauth))

    async def token(self, sandbox: Sandbox, client: aiohttp.ClientSession) -> dict[str, object]:
        keys = {"key": sandbox.key, "secret": sandbox.secret}
        async with client.post("/v3/oauth/token/generate", json=keys) as response:
            body = await response.json()
        assert body["errors"] is None
        return dict(body["data"])

    async def test_a_token_opens_without_authorization(self) -> None:
        async with Sandbox(customers=1) as sandbox, aiohttp.ClientSession(sandbox.url) as client:
            data = await self.token(sandbox, client)
            assert data["ttlSeconds"] == 300
            headers = {"X-CAP-API-OAUTH-TOKEN": str(data["accessToken"])}
            async with client.get("/v2/customers/565039505/loyaltyEvents", headers=headers) as response:
                assert response.status == 200
            async with client.get("/v2/customers/565039505/loyaltyEvents", headers=headers) as response:
                assert response.status == 200
            assert [seen.method for seen in sandbox.journal] == ["POST", "GET", "GET"]

    @pytest.mark.parametrize("status", [401, 200, 498])
    async def test_a_revoked_token_is_498_in_the_body(self, status: int) -> None:
        async with (
            Sandbox(customers=1, expired_status=status) as sandbox,
            aiohttp.ClientSession(sandbox.url) as client,
        ):
            data = await self.token(sandbox, client)
            await sandbox.revoke_tokens()
            headers = {"X-CAP-API-OAUTH-TOKEN": str(data["accessToken"])}
            async with client.get("/v2/customers/565039505/loyaltyEvents", headers=headers) as response:
                assert response.status == status
                assert (await response.json())["response"]["status"]["code"] == "498"
            assert (await self.token(sandbox, client))["accessToken"] != data["accessToken"]

    async def test_a_token_ends_by_itself(self) -> None:
        async with Sandbox(customers=1, token_ttl=0.01) as sandbox, aiohttp.ClientSession(sandbox.url) as client:
            data = await self.token(sandbox, client)
            assert data["ttlSeconds"] == 0.01
            until = time.monotonic() + 0.02
            await asyncio.sleep(max(0.0, until - time.monotonic()))
            headers = {"X-CAP-API-OAUTH-TOKEN": str(data["accessToken"])}
            async with client.get("/v2/customers/1/loyaltyEvents", headers=headers) as response:
                assert (await response.json())["response"]["status"]["code"] == "498"

    async def test_an_unknown_token_is_401(self, both: Both) -> None:
        _, client = both
        async with client.get(EVENTS[32:], headers={"X-CAP-API-OAUTH-TOKEN": "stolen"}) as response:
            assert (await response.json())["response"]["status"]["message"] == "Invalid token"

    @pytest.mark.parametrize("body", [b"", b"[1]", b'{"key": "sandbox-key", "secret": "wrong"}'])
    async def test_a_wrong_key_is_320001(self, both: Both, body: bytes) -> None:
        _, client = both
        async with client.post("/v3/oauth/token/generate", data=body) as response:
            assert response.status == 401
            answer = await response.json()
        assert answer["data"] is None
        assert answer["errors"][0]["code"] == 320001


class TestJournal:
    async def test_writes_down_what_was_asked(self, both: Both) -> None:
        sandbox, client = both
        url = URL("/v2/customers/565039505/loyaltyEvents?limit=1&page=2&x=a%2C%20b&x=c", encoded=True)
        async with client.get(url, headers={"X-CAP-REQUEST-ID": "mine"}) as response:
            assert response.headers["X-CAP-REQUEST-ID"] == "mine"
        (seen,) = sandbox.journal
        assert (seen.method, seen.path, seen.page) == ("GET", "/v2/customers/565039505/loyaltyEvents", 2)
        assert seen.query_string == "limit=1&page=2&x=a%2C%20b&x=c"
        assert seen.params.getall("x") == ["a, b", "c"]
        assert seen.headers["x-cap-neo-DAG-scope"] == "global"
        assert (seen.status, seen.request_id, seen.number, seen.fault) == (200, "mine", 1, None)
        assert seen.finished is not None
        assert seen.arrived <= seen.finished <= time.monotonic()

    async def test_makes_request_ids_when_none_is_sent(self, both: Both) -> None:
        _, client = both
        ids = []
        for _ in range(2):
            async with client.get("/nowhere") as response:
                ids.append(response.headers["X-CAP-REQUEST-ID"])
        assert ids == ["sandbox-000001", "sandbox-000002"]

    async def test_what_was_asked_does_not_change(self, both: Both) -> None:
        sandbox, client = both
        async with client.get("/nowhere"):
            seen = sandbox.journal[0]
        with pytest.raises(AttributeError):
            seen.path = "/elsewhere"
        assert seen.page is None
        assert "Authorization" not in repr(seen)

    async def test_counts_requests_in_flight(self) -> None:
        async with served(latency=0.05) as (sandbox, client):

            async def ask() -> None:
                async with client.get(EVENTS[32:]):
                    pass

            await asyncio.gather(*(ask() for _ in range(5)))
            assert [seen.in_flight for seen in sandbox.journal] == [1, 2, 3, 4, 5]
            assert (sandbox.in_flight, sandbox.peak_in_flight, sandbox.requests) == (0, 5, 5)

    async def test_a_client_that_goes_away_is_seen(self) -> None:
        async with served(latency=30) as (sandbox, client):
            task = asyncio.create_task(client.get(EVENTS[32:]))
            await until(lambda: sandbox.in_flight == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: sandbox.in_flight == 0)
            assert [(seen.status, seen.finished) for seen in sandbox.journal] == [(None, None)]

    async def test_keeps_the_newest(self) -> None:
        async with served(journal_limit=10) as (sandbox, client):
            for _ in range(25):
                async with client.get("/nowhere"):
                    pass
            assert sandbox.requests == 25
            assert 10 <= len(sandbox.journal) <= 11
            assert sandbox.journal[-1].number == 25
            sandbox.journal.clear()
            assert sandbox.journal == []


class TestWire:
    async def test_gzip_for_those_who_take_it(self, both: Both) -> None:
        sandbox, client = both
        for accepted, encoding in (("gzip", "gzip"), ("identity", None)):
            async with client.get(here(sandbox, AWARDED), headers={"Accept-Encoding": accepted}) as response:
                assert response.headers.get("Content-Encoding") == encoding
                assert await response.json() == page_sample("points_awarded_ids")

    async def test_no_gzip_when_it_is_off(self) -> None:
        async with served(compress=False) as (sandbox, client), client.get(here(sandbox, AWARDED)) as response:
            assert "Content-Encoding" not in response.headers

    async def test_connections_are_kept(self, both: Both) -> None:
        sandbox, _ = both
        opened, trace = [], aiohttp.TraceConfig()

        async def open_one(*_: object) -> None:
            opened.append(1)

        trace.on_connection_create_end.append(open_one)
        async with aiohttp.ClientSession(sandbox.url, trace_configs=[trace]) as client:
            for _ in range(3):
                async with client.get("/nowhere") as response:
                    await response.read()
        assert opened == [1]

    async def test_other_methods_and_paths_are_refused(self, both: Both) -> None:
        _, client = both
        async with client.post("/x/neo/pointsAwarded/paIds") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")
            assert (await response.json())["errors"][0]["code"] == 405
        async with client.get("/v3/oauth/token/generate") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
        async with client.get("/v2/customers/1/2/loyaltyEvents") as response:
            assert response.status == 404

    async def test_latency_lies_between_its_bounds(self) -> None:
        async with served(latency=(0.02, 0.04)) as (sandbox, client):
            async with client.get("/nowhere"):
                pass
            (seen,) = sandbox.journal
            assert seen.finished is not None
            assert seen.finished - seen.arrived >= 0.019


class TestRate:
    @pytest.mark.parametrize(
        ("rate", "header"), [((2, 60), None), ((2, 60, 3), "3"), (SimpleNamespace(permits=2, per=60), None)]
    )
    async def test_more_is_429(self, rate: object, header: str | None) -> None:
        async with served(rate=rate) as (_, client):
            for path in ("/x/neo/pointsAwarded/paIds", EVENTS[32:]):
                async with client.get(path) as response:
                    assert response.status != 429
            for path in ("/x/neo/pointsAwarded/paIds", EVENTS[32:]):
                async with client.get(path) as response:
                    assert response.status == 429
                    assert response.headers.get("Retry-After") == header
                    assert (await response.json())["errors"][0]["code"] == 429

    async def test_permits_come_back(self) -> None:
        async with served(rate=(1, 0.02)) as (sandbox, client):
            while not sandbox.journal or sandbox.journal[-1].status != 429:
                async with client.get("/nowhere"):
                    pass
            while sandbox.journal[-1].status == 429:
                async with client.get("/nowhere"):
                    pass
            assert sandbox.journal[-1].status == 404

    @pytest.mark.parametrize("rate", [(0, 1), (1, 0)])
    def test_a_rate_of_nothing_is_refused(self, rate: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="rate takes"):
            Sandbox(rate=rate)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("latency", value) for value in (math.nan, math.inf, -1, "1", True, None, (2, 1), (1,), (0, math.nan))),
        *(("token_ttl", value) for value in (-1, math.nan, "300")),
        *(("customers", value) for value in (True, 2.0, "5", None)),
        *(("seed", value) for value in ("7", 1.5, None)),
        *(("rate", value) for value in (100, "100/60", (1,), (1, 2, 3, 4), (1, "2"), (math.nan, 1), (1, 1, -1))),
        *(("faults", value) for value in (Throttle(), [Throttle], ["503"], 5)),
    ],
)
def test_an_argument_that_cannot_be_is_named(argument: str, value: object) -> None:
    """When it is made, not when it answers."""
    arguments: dict[str, Any] = {argument: value}
    with pytest.raises(ValueError, match=rf"^{argument}\b.*takes .*, got "):
        Sandbox(**arguments)


async def test_a_fault_added_later_is_one_too(both: Both) -> None:
    """As at construction."""
    sandbox, _ = both
    with pytest.raises(ValueError, match=r"^faults takes"):
        sandbox.add_faults("503")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/customers/{}/loyaltyEvents", 8015),
        ("/v2/customers/600000001/loyaltyEvents?page={}", 400),
        ("/v2/customers/600000001/loyaltyEvents?offset=0&limit={}", 400),
        ("/v2/pointsLedger/getLedgerExplodeInfo?identifierName=id&source=ALL&eventIds=1&identifierValue={}", 11012),
        (
            "/v2/pointsLedger/getLedgerExplodeInfo?identifierName=id&source=ALL&eventIds={}&identifierValue=600000001",
            11017,
        ),
    ],
)
async def test_numbers_beyond_all_bounds_are_refused(both: Both, path: str, code: int) -> None:
    """With the API's own codes; they are no failure of the sandbox."""
    sandbox, client = both
    async with client.get(path.format("9" * 5_000)) as response:
        assert response.status == 400
        assert (await response.json())["errors"][0]["code"] == code
    assert sandbox.journal[-1].page is None


class TestStartAndStop:
    async def test_closing_twice_is_fine_and_the_port_stays(self) -> None:
        sandbox = Sandbox(customers=1)
        with pytest.raises(RuntimeError, match="not started"):
            _ = sandbox.url
        await sandbox.aclose()
        await sandbox.start()
        url = sandbox.url
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        await sandbox.aclose()
        await sandbox.aclose()
        assert await sandbox.start() is sandbox
        assert sandbox.url == url
        await sandbox.aclose()

    async def test_starting_twice_is_refused(self, both: Both) -> None:
        sandbox, _ = both
        with pytest.raises(RuntimeError, match="listens already at http"):
            await sandbox.start()

    async def test_a_taken_port_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}.*give another port") as caught:
                await Sandbox(port=port).start()
        assert caught.value.errno == errno.EADDRINUSE

    def test_a_taken_port_is_named_in_a_thread_too(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            sandbox = Sandbox(port=taken.getsockname()[1])
            with pytest.raises(OSError, match="cannot listen"), sandbox:
                pass

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_a_port_that_cannot_be_is_refused(self, port: int) -> None:
        with pytest.raises(ValueError, match="port takes 0 to 65535"):
            Sandbox(port=port)

    @pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])  # noqa: S104 - meant
    def test_the_url_is_one_to_talk_to(self, host: str, shown: str) -> None:
        assert Sandbox(host=host, port=8080).url == f"http://{shown}:8080"

    async def test_ipv6_hosts_stand_in_brackets(self) -> None:
        try:
            sandbox = await Sandbox(host="::1").start()
        except OSError:
            sandbox = Sandbox(host="::1", port=8080)
        assert sandbox.url.startswith("http://[::1]:")
        await sandbox.aclose()

    async def test_open_requests_do_not_hold_up_the_end(self) -> None:
        began = time.monotonic()
        async with served(latency=60) as (sandbox, client):
            task = asyncio.create_task(client.get("/nowhere"))
            await until(lambda: sandbox.in_flight == 1)
            await sandbox.aclose()
            with pytest.raises(aiohttp.ClientError):
                await task
        assert time.monotonic() - began < 5

    def test_a_plain_with_serves_from_a_thread(self) -> None:
        async def ask(url: str) -> int:
            async with aiohttp.ClientSession() as client, client.get(url) as response:
                return response.status

        with Sandbox(customers=1) as sandbox:
            assert asyncio.run(ask(f"{sandbox.url}/nowhere")) == 401
            assert sandbox.requests == 1
            with pytest.raises(RuntimeError, match="event loop in which it was started"):
                asyncio.run(sandbox.aclose())
        sandbox.__exit__(None, None, None)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2])))

    def test_shows_how_busy_it_is(self) -> None:
        assert repr(Sandbox(customers=3)) == "<Sandbox customers=3 requests=0>"


def test_the_package_names_what_it_gives() -> None:
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Sandcastle'"):
        _ = package.Sandcastle
