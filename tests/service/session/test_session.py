"""`AsyncSession` as users hold it: settings, views, loops and threads, middlewares, other requests, closing."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from aioresponses import CallbackResult
from attrs import evolve, frozen
from support.api_double import BASIC, HOST, Seen, ids_of, refused, serving
from support.raw_server import Answer, RawServer, http, in_thread, said

from capillary_async import (
    APIError,
    AsyncSession,
    BadRequestError,
    BasicAuth,
    DecodeError,
    InvalidRequestError,
    Limits,
    NotFoundError,
    OAuthClient,
    Paging,
    PointsAllocation,
    Request,
    Response,
    RetryPolicy,
    ServerError,
    Timeouts,
)
from capillary_async._transport import outage as _outage

Sessions = Callable[..., AsyncSession]

AUTH = BasicAuth("till.id", password="p4ss-w/rd+till")
EXPIRY: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2025-01-01",
    "expiry_date_end": "2026-01-01",
}
VARIABLES = ("BASE_URL", "USERNAME", "PASSWORD", "PASSWORD_MD5", "CLIENT_KEY", "CLIENT_SECRET")


async def ask(session: AsyncSession, entity_id: int = 1) -> list[PointsAllocation]:
    """One request."""
    return await session.points_allocation.by_expiry(entity_id=entity_id, **EXPIRY).collect()


def one_row(seen: Seen) -> list[dict[str, Any]]:
    """One record for each customer."""
    return [{"id": int(seen.query["entity_id"])}]


# Made


def test_a_session_is_made_outside_a_loop() -> None:
    """At module level, say; nothing is opened."""
    session = AsyncSession(f"{HOST}/", auth=AUTH)
    assert session.base_url == HOST
    assert not session.closed
    assert (session.timeouts, session.retry, session.paging, session.limits) == (
        Timeouts(), RetryPolicy(), Paging(), Limits(),
    )  # fmt: skip
    assert session.server_timezone is None
    assert repr(session) == f"AsyncSession({HOST!r}, auth=BasicAuth(username='till.id', password='***'))"


def test_a_half_made_session_has_a_repr() -> None:
    """Reporters of errors ask for it, with the locals of `__init__`."""
    assert repr(AsyncSession.__new__(AsyncSession)) == "AsyncSession(...)"


@pytest.mark.parametrize(
    ("given", "argument", "text"),
    [
        ({"base_url": "http://eu.api.capillarytech.com"}, "base_url", "only loopback"),
        ({"auth": "till.id:s3cr3t"}, "auth", "auth takes BasicAuth or OAuthClient, got str"),
        ({"auth": None}, "auth", "got NoneType"),
        ({"timeouts": 30}, "timeouts", "timeouts takes Timeouts, got int"),
        ({"limits": {"concurrency": 2}}, "limits", "limits takes Limits, got dict"),
        ({"retry": 5}, "retry", "retry takes RetryPolicy, got int"),
        ({"paging": Paging}, "paging", "paging takes Paging, got type"),
        ({"dag_scope": 5}, "dag_scope", "dag_scope takes"),
        ({"headers": {"Authorization": "s3cr3t"}}, "headers", "set by the SDK itself"),
        ({"headers": {"X-A": "s3cr3t\r\nX-B: 1"}}, "headers", "printable ASCII"),
        ({"middlewares": [5]}, "middlewares", "middlewares takes"),
        ({"server_timezone": "Mars"}, "server_timezone", "server_timezone takes"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], argument: str, text: str) -> None:
    """Refused by name when the session is made, without showing a secret."""
    with pytest.raises(InvalidRequestError, match=text) as caught:
        AsyncSession(**{"base_url": HOST, "auth": AUTH, **given})
    assert caught.value.argument == argument
    assert isinstance(caught.value, ValueError)
    assert "s3cr3t" not in str(caught.value)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables, and takes the others away."""

    def put(**variables: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(f"CAPILLARY_{name}", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(f"CAPILLARY_{name}", value)

    return put


def test_a_session_from_the_environment(environment: Callable[..., None]) -> None:
    """Till or client; overrides are arguments of the session."""
    environment(BASE_URL=HOST, USERNAME="till.id", PASSWORD="s3cr3t")
    session = AsyncSession.from_env(paging=Paging(page_size=50))
    assert session.base_url == HOST
    assert session.paging.page_size == 50
    assert "BasicAuth(username='till.id'" in repr(session)
    environment(BASE_URL=HOST, USERNAME="till.id", PASSWORD_MD5="0" * 32)
    assert "BasicAuth" in repr(AsyncSession.from_env())
    environment(BASE_URL=HOST, CLIENT_KEY="key", CLIENT_SECRET="s3cr3t")
    assert "OAuthClient(key='key'" in repr(AsyncSession.from_env())
    environment()
    assert AsyncSession.from_env(base_url=HOST, auth=AUTH).base_url == HOST


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, "BASE_URL"),
        ({"BASE_URL": ""}, "BASE_URL"),
        ({"BASE_URL": HOST}, "USERNAME"),
        ({"BASE_URL": HOST, "PASSWORD": "s3cr3t"}, "USERNAME"),
        ({"BASE_URL": HOST, "USERNAME": "till.id"}, "PASSWORD"),
        ({"BASE_URL": HOST, "CLIENT_KEY": "key"}, "CLIENT_SECRET"),
        ({"BASE_URL": HOST, "CLIENT_SECRET": "s3cr3t"}, "CLIENT_KEY"),
    ],
)
def test_a_missing_variable_is_named(environment: Callable[..., None], variables: dict[str, str], missing: str) -> None:
    """And what it holds; no value is shown."""
    environment(**variables)
    with pytest.raises(InvalidRequestError, match=f"the environment variable CAPILLARY_{missing} is missing") as caught:
        AsyncSession.from_env()
    assert caught.value.argument == f"CAPILLARY_{missing}"
    assert "s3cr3t" not in str(caught.value)


def test_a_session_is_neither_pickled_nor_copied() -> None:
    """It holds connections and secrets."""
    session = AsyncSession(HOST, auth=AUTH)
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="AsyncSession is not pickled: make one in each process"):
            way(session)


# Sent


async def test_scope_of_neo_calls(session_at: Sessions) -> None:
    """`global` by default, another, or none; never on other calls; a header of the user's own wins."""
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({}, "global"),
        ({"dag_scope": "org"}, "org"),
        ({"dag_scope": None}, None),
        ({"headers": {"X-Cap-Neo-Dag-Scope": "mine"}}, "mine"),
    ]
    for options, scope in cases:
        session = session_at(HOST, **options)
        with serving([]) as seen:
            await ask(session)
            await session.request("GET", "/x/neo/other")
        assert [request.headers.get("x-cap-neo-dag-scope") for request in seen] == [scope, scope]
    with serving({"data": []}) as seen:
        await session_at(HOST).loyalty_events.list(1).collect()
        await session_at(HOST).request("GET", "/v2/x/neo/other")
    assert [request.headers.get("x-cap-neo-dag-scope") for request in seen] == [None, None]


async def test_a_path_prefix_of_the_base_url_is_kept(session_at: Sessions) -> None:
    """As behind a gateway."""
    async with RawServer(said([])) as server:
        await ask(session_at(f"{server.url}/gateway/"))
    assert server.seen[0].target.startswith("/gateway/x/neo/pointsAllocation/dateRange?")


async def test_users_headers_go_with_every_request_and_win_over_ours(session_at: Sessions) -> None:
    """Accept and User-Agent may be another."""
    session = session_at(HOST, headers={"user-agent": "till/1", "X-CAP-API-AUTH-ORG-ID": "7"})
    with serving([]) as seen:
        await ask(session)
        await session.points_awarded.ids(
            [1],
            program_id=1,
            point_category_id=1,
            start_expiry_date="2025-01-01",
            end_expiry_date="2025-01-02",
            status="X",
        ).collect()
    for request in seen:
        assert request.headers["user-agent"] == "till/1"
        assert request.headers["x-cap-api-auth-org-id"] == "7"
        assert request.headers["accept-encoding"] == "gzip"


async def test_times_without_an_offset_take_the_servers_zone(session_at: Sessions) -> None:
    """For ISO times only; none is made up where the zone was not said."""
    event = {"id": 1, "date": "2025-02-28T06:16:16"}
    india = timezone(timedelta(hours=5, minutes=30))
    with serving({"data": [event]}):
        for zone in ("Asia/Kolkata", india):
            (found,) = await session_at(HOST, server_timezone=zone).loyalty_events.list(1).collect()
            assert found.date == datetime(2025, 2, 28, 0, 46, 16, tzinfo=UTC)
    with serving({"data": [{**event, "date": "2025-02-28T06:16:16Z"}]}):
        (found,) = await session_at(HOST, server_timezone=india).loyalty_events.list(1).collect()
        assert found.date == datetime(2025, 2, 28, 6, 16, 16, tzinfo=UTC)


async def test_stats(session_at: Sessions) -> None:
    """Requests, retries, throttles, bytes, records and duplicates."""
    row = {"id": 1}
    answers: Iterator[Any] = iter(
        [CallbackResult(status=503), CallbackResult(status=429), CallbackResult(body=b'[{"id": 1}, {"id": 1}]'), [row]]
    )
    session = session_at(HOST)
    with serving(lambda seen: next(answers)):
        assert len(await ask(session)) == 1
        assert len(await ask(session.with_options(headers={"X-A": "b"}))) == 1
    counted = session.stats.snapshot()
    assert counted["bytes"] >= len(b'[{"id": 1}, {"id": 1}]')
    del counted["bytes"]
    assert counted == {"requests": 4, "retries": 2, "throttles": 2, "records": 3, "duplicates": 1}


# Views


async def test_a_view_has_options_of_its_own(session_at: Sessions) -> None:
    """What is not given stays; the session itself does not change."""
    session = session_at(HOST, headers={"X-A": "1", "X-B": "2"}, dag_scope="org")
    view = session.with_options(
        timeouts=Timeouts(call=9), paging=Paging(page_size=7), headers={"x-b": "3", "X-C": "4"}
    ).with_options(headers={"X-D": "5"})
    assert (view.timeouts.call, view.paging.page_size, view.retry) == (9, 7, session.retry)
    assert (session.timeouts, session.paging) == (Timeouts(), Paging())
    with serving([]) as seen:
        await ask(view)
        await ask(session)
    mine, its = seen[0].headers, seen[1].headers
    assert {name: mine.get(name) for name in ("x-a", "x-b", "x-c", "x-d")} == dict(
        zip(("x-a", "x-b", "x-c", "x-d"), "1345", strict=True)
    )
    assert (its["x-a"], its["x-b"], its.get("x-c"), its.get("x-d")) == ("1", "2", None, None)
    assert seen[0].query["count"] == "7"
    assert seen[1].query["count"] == "100"
    assert mine["x-cap-neo-dag-scope"] == "org"
    assert type(view) is AsyncSession
    assert view.base_url == HOST


@pytest.mark.parametrize(
    ("option", "value"),
    [("retry", 5), ("timeouts", 30), ("paging", "x"), ("headers", {"Cookie": "a"}), ("headers", {"a\nb": "c"})],
)
def test_options_of_a_view_that_cannot_be(option: str, value: Any) -> None:
    """Refused by name."""
    with pytest.raises(InvalidRequestError) as caught:
        AsyncSession(HOST, auth=AUTH).with_options(**{option: value})
    assert caught.value.argument == option


def test_a_view_shares_everything_but_its_options() -> None:
    """Pools, throttle, token, stats and quota; with `retry` a quota of its own, which its own views share."""
    session = AsyncSession(HOST, auth=AUTH)
    view = session.with_options(paging=Paging(page_size=7))
    own = session.with_options(retry=RetryPolicy(quota=3))
    assert view.stats is session.stats
    assert view._shared is own._shared is session._shared
    assert view._quota is session._quota
    assert own._quota is not session._quota
    assert own._quota.size == 3
    assert own.with_options(paging=Paging(page_size=5))._quota is own._quota
    assert view.limits is session.limits


async def test_a_view_with_retry_does_not_spend_the_sessions_quota(session_at: Sessions) -> None:
    """Its own is empty soon, the session's is untouched."""
    session = session_at(HOST, retry=RetryPolicy(backoff=0, throttle_backoff=0, quota=100))
    own = session.with_options(retry=RetryPolicy(backoff=0, quota=14))
    with serving(lambda seen: CallbackResult(status=500)) as seen, pytest.raises(ServerError) as caught:
        await ask(own)
    assert len(seen) == 2
    assert caught.value.quota_exhausted
    assert session._quota.left == 100


async def test_closing_a_view_ends_its_own_iterators_alone(session_at: Sessions) -> None:
    """The session and its other views go on."""
    with serving(one_row):
        session = session_at(HOST)
        view, other = session.with_options(headers={"X-A": "1"}), session.with_options(headers={"X-A": "2"})
        loops = [aiter(s.points_allocation.by_expiry_many(range(1, 100), **EXPIRY)) for s in (view, other, session)]
        for loop in loops:
            await anext(loop)
        await view.aclose()
        with pytest.raises(RuntimeError, match="this iterator was closed with its session"):
            await anext(loops[0])
        await anext(loops[1])
        await anext(loops[2])
        assert (view.closed, other.closed, session.closed) == (True, False, False)
        with pytest.raises(RuntimeError, match="the AsyncSession is closed"):
            await ask(view)
        assert len(await ask(session)) == 1
        await session.aclose()
        for loop in loops[1:]:
            with pytest.raises(RuntimeError, match="closed with its session"):
                await anext(loop)
        assert other.closed
        with pytest.raises(RuntimeError, match="the AsyncSession is closed"):
            await ask(other)


async def test_no_view_is_made_of_what_is_closed(session_at: Sessions) -> None:
    """Neither of a closed session, nor of a closed view of an open one, nor of a view whose session is closed."""
    session = session_at(HOST)
    view, closed = session.with_options(paging=Paging(page_size=7)), session.with_options()
    await closed.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        closed.with_options(paging=Paging(page_size=8))
    assert not session.with_options(priority="bulk").closed
    await session.aclose()
    for ended in (session, view):
        with pytest.raises(RuntimeError, match="closed"):
            ended.with_options()


# Closed


async def test_use_after_closing(session_at: Sessions) -> None:
    """Every way in is a RuntimeError, of pagers and fan-outs made before too; closing twice is fine."""
    session = session_at(HOST)
    pager = session.points_allocation.by_expiry(entity_id=1, **EXPIRY)
    fan = session.points_allocation.by_expiry_many([1, 2], **EXPIRY)
    with serving(one_row) as seen:
        async with session as entered:
            assert entered is session
            records, outcomes = aiter(pager), aiter(fan)
        await session.aclose()
        await session.aclose()
        uses: list[Callable[[], Any]] = [
            lambda: ask(session),
            lambda: session.request("GET", "/v2/x"),
            session.__aenter__,
            pager.collect,
            pager.first,
            lambda: pager.page(1),
            fan.collect,
            lambda: anext(records),
            lambda: anext(outcomes),
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match="closed"):
                await use()
        for use in (fan.items, fan.pages, fan.ordered, pager.pages):
            with pytest.raises(RuntimeError, match="the AsyncSession is closed"):
                use()
    assert seen == []
    assert repr(session).endswith("closed)")


@pytest.mark.parametrize(
    "answer",
    [http(then="stall"), http(b"[", headers={"Content-Length": "9"}, then="stall")],
    ids=["before the answer", "in its body"],
)
async def test_closing_while_requests_are_under_way(session_at: Sessions, answer: Answer) -> None:
    """Those who wait are told at once, wherever the answer stands; no task is left."""
    async with RawServer(answer.but(data=b"") if answer.data.endswith(b"[]") else answer) as server:
        session = session_at(server.url)
        waiting = [
            asyncio.ensure_future(ask(session)),
            asyncio.ensure_future(session.points_allocation.by_expiry_many([2, 3], **EXPIRY).collect()),
            asyncio.ensure_future(session.request("GET", "/v2/x")),
        ]
        await server.until(4)
        await session.aclose()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [RuntimeError, RuntimeError, RuntimeError]
    assert all("closed" in str(error) for error in ended)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_while_a_call_waits_for_another_attempt(session_at: Sessions) -> None:
    """It does not sleep on until its time has come."""
    async with RawServer(http(b"", 503, {"Retry-After": "100"})) as server:
        session = session_at(server.url)
        waiting = asyncio.ensure_future(session.request("GET", "/v2/x"))
        await server.until(1)
        while not session.stats.retries:  # noqa: ASYNC110 - the wait has no event
            await asyncio.sleep(0)
        await session.aclose()
        with pytest.raises(RuntimeError, match="the AsyncSession was closed while a request was under way"):
            await waiting


# Loops and threads


def test_one_session_in_several_runs() -> None:
    """A pool for each loop, closed with it; stats go on."""
    with in_thread(said([{"id": 1}])) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        session = AsyncSession(server.url, auth=AUTH)
        for _ in range(3):
            assert len(asyncio.run(ask(session))) == 1
        assert session.stats.requests == 3
        asyncio.run(session.aclose())
        gc.collect()


def test_one_session_in_two_threads() -> None:
    """Each with a loop of its own, at the same time; closing in a third closes both."""
    with in_thread(said([{"id": 1}])) as server:
        session = AsyncSession(server.url, auth=AUTH, limits=Limits(concurrency=3))
        found: list[int] = []

        async def many() -> None:
            collected = await session.points_allocation.by_expiry_many(range(1, 41), **EXPIRY).collect()
            found.extend(len(outcome.unwrap()) for outcome in collected.values())

        threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1] * 80
        assert session.stats.records == 80
        assert server.peak <= 3
        asyncio.run(session.aclose())


async def test_a_session_entered_and_left_in_different_tasks(session_at: Sessions) -> None:
    """As pytest fixtures and web lifespans do."""
    with serving(one_row):
        session = session_at(HOST)
        await asyncio.create_task(session.__aenter__())
        await asyncio.create_task(ask(session))
        await asyncio.create_task(session.__aexit__(None, None, None))
    assert session.closed


async def test_the_callers_own_client_is_used_and_not_closed(session_at: Sessions) -> None:
    """Its connector and its life are the caller's."""
    async with RawServer(said([{"id": 1}])) as server, aiohttp.ClientSession() as client:
        session = session_at(server.url, client_session=client)
        assert len(await ask(session)) == 1
        await session.aclose()
        assert not client.closed
        assert server.seen[0].headers["authorization"] == BASIC


# Middlewares


async def test_middlewares_run_outside_retry_the_first_outermost(session_at: Sessions) -> None:
    """Once a call, whatever the attempts; they may change headers, and see the answer."""
    log: list[str] = []

    def named(name: str) -> Any:
        async def middleware(request: Request, handler: Any) -> Response:
            log.append(f"{name} in")
            response: Response = await handler(request.with_header("X-Trace", name))
            log.append(f"{name} out {response.status}")
            return response

        return middleware

    answers: Iterator[Any] = iter([CallbackResult(status=503), [{"id": 1}]])
    with serving(lambda seen: next(answers)) as seen:
        assert len(await ask(session_at(HOST, middlewares=[named("a"), named("b")]))) == 1
    assert log == ["a in", "b in", "b out 200", "a out 200"]
    assert [request.headers["x-trace"] for request in seen] == ["b", "b"]


async def test_a_middleware_may_answer_by_itself(session_at: Sessions) -> None:
    """Its body is read as a server's would be, errors included."""
    bodies = {
        "1": (200, b'[{"id": 7, "points_value": 1.10}]'),
        "2": (404, b'{"errors":[{"code":404,"message":"gone"}]}'),
        "3": (200, b"<html>"),
    }

    async def cached(request: Request, handler: Any) -> Response:
        status, body = bodies[request.query.partition("entity_id=")[2].partition("&")[0]]
        return Response(status, {"X-CAP-REQUEST-ID": "mine"}, body)

    with serving([]) as seen:
        session = session_at(HOST, middlewares=[cached])
        page = await session.points_allocation.by_expiry(entity_id=1, **EXPIRY).page(1)
        with pytest.raises(NotFoundError, match="gone") as missing:
            await ask(session, 2)
        with pytest.raises(DecodeError):
            await ask(session, 3)
    assert (page.items[0].points_value, page.request_id) == (Decimal("1.10"), "mine")
    assert missing.value.path == "/x/neo/pointsAllocation/dateRange"
    assert missing.value.method == "GET"
    assert seen == []


async def test_a_middleware_may_change_the_answer_and_what_is_asked(session_at: Sessions) -> None:
    """A changed body is read anew."""

    async def change(request: Request, handler: Any) -> Response:
        response = await handler(evolve(request, query=request.query.replace("entity_id=1", "entity_id=5")))
        return evolve(response, body=response.body.replace(b"5", b"6"))

    with serving(one_row) as seen:
        records = await ask(session_at(HOST, middlewares=[change]))
    assert seen[0].query["entity_id"] == "5"
    assert records[0].id == 6


async def test_what_a_middleware_raises_comes_out_as_itself(session_at: Sessions) -> None:
    """It is no answer and not tried again."""

    async def broken(request: Request, handler: Any) -> Response:
        raise LookupError("mine")

    with serving([]) as seen, pytest.raises(LookupError, match="mine"):
        await ask(session_at(HOST, middlewares=[broken]))
    assert seen == []


# Other requests


@frozen
class Balance:
    """A model of a user's own."""

    customer_id: int
    points: Decimal


async def test_other_gets_of_the_api(session_at: Sessions) -> None:
    """Plain JSON with exact numbers, or a model; retried and refused like every call."""
    answers: Iterator[Any] = iter(
        [
            CallbackResult(body=b'{"points": 0.10, "n": 1}'),
            CallbackResult(status=503),
            CallbackResult(body=b'{"customer_id": 7, "points": 1.10, "more": 1}'),
            CallbackResult(body=b'[{"customer_id": 7, "points": 1.10}]'),
            refused(200, 400),
            CallbackResult(body=b"7"),
            CallbackResult(body=b"null"),
        ]
    )
    with serving(lambda seen: next(answers)) as seen:
        session = session_at(HOST)
        plain = await session.request("GET", "/v2/customers/7", params={"a": [1, 2], "b": None, "c": True})
        assert plain == {"points": Decimal("0.10"), "n": 1}
        assert str(plain["points"]) == "0.10"
        assert await session.request("get", "/v2/x", model=Balance) == Balance(7, Decimal("1.10"))
        assert await session.request("GET", "/v2/x", model=list[Balance]) == [Balance(7, Decimal("1.10"))]
        with pytest.raises(BadRequestError):
            await session.request("GET", "/v2/x")
        assert await session.request("GET", "/v2/x") == 7
        assert await session.request("GET", "/v2/x") is None
    assert seen[0].path == "/v2/customers/7"
    assert seen[0].query == {"a": "1,2", "c": "true"}
    assert seen[0].headers["authorization"] == BASIC
    assert session.stats.records == 0


async def test_other_gets_on_the_wire(session_at: Sessions) -> None:
    """As a server sees them."""
    async with RawServer(said({})) as server:
        await session_at(server.url).request("GET", "/v2/a b/ü", params={"d": date(2025, 1, 1), "e": "x&y"})
    assert server.seen[0].target == "/v2/a%20b/%C3%BC?d=2025-01-01&e=x%26y"


@pytest.mark.parametrize("method", ["POST", "DELETE", "", None, 5, "GET "])
async def test_other_methods_are_refused(session_at: Sessions, method: Any) -> None:
    """They are not safe to send again."""
    with serving({}) as seen, pytest.raises(InvalidRequestError, match="method takes 'GET'") as caught:
        await session_at(HOST).request(method, "/v2/x")
    assert caught.value.argument == "method"
    assert seen == []


@pytest.mark.parametrize("path", ["../x", "/a/../b", "/a?x=1", "/%2e%2e/x", "/a\r\nb", "", "//evil.example"])
async def test_other_paths_are_refused(session_at: Sessions, path: str) -> None:
    """Before anything is sent."""
    with serving({}) as seen, pytest.raises(InvalidRequestError, match="path takes"):
        await session_at(HOST).request("GET", path)
    assert seen == []


async def test_an_answer_of_another_shape_than_the_model(session_at: Sessions) -> None:
    """Named by its path."""
    with serving({"customer_id": "x", "points": 1}), pytest.raises(DecodeError, match="customer_id"):
        await session_at(HOST).request("GET", "/v2/x", model=Balance)


async def test_a_redirect_is_an_error(session_at: Sessions) -> None:
    """And is not followed."""
    async with RawServer(http(b"", 302, {"Location": "http://evil.example/"})) as server:
        with pytest.raises(APIError, match="redirects are not followed"):
            await session_at(server.url).request("GET", "/v2/x")
        assert server.hits == 1


# In applications


async def test_a_session_as_a_dependency(session_at: Sessions) -> None:
    """A generator that yields it, as web frameworks like it."""

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(HOST, auth=OAuthClient("key", "s3cr3t")) as session:
            yield session

    async with lifespan() as session:
        assert "s3cr3t" not in repr(session)
    assert session.closed


async def test_fan_outs_of_one_session_share_its_concurrency(session_at: Sessions) -> None:
    """However many workers each of them has."""
    async with RawServer(said([])) as server:
        session = session_at(server.url, limits=Limits(concurrency=2, concurrency_start=2))
        fan = session.points_allocation.by_expiry_many(range(1, 21), **EXPIRY)
        await asyncio.gather(fan.options(concurrency=9).collect(), fan.collect())
        assert server.peak <= 2
        assert server.hits == 40


async def test_an_outage_of_the_service_and_its_end(session_at: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The retry quota is empty, one request at a time looks whether the service is up, then every key is answered."""
    monkeypatch.setattr(_outage, "PROBES", (0.05, 0.1, 0.25))
    monkeypatch.setattr(_outage, "LEAST", 0.05)
    began = time.monotonic()

    def answer(seen: Seen) -> Any:
        return one_row(seen) if time.monotonic() - began > 0.4 else CallbackResult(status=500)

    session = session_at(HOST, retry=RetryPolicy(backoff=0, quota=30), limits=Limits(concurrency=2))
    with serving(answer) as seen:
        collected = await session.points_allocation.by_expiry_many(range(1, 31), **EXPIRY).collect()
    assert all(outcome.ok for outcome in collected.values())
    assert len(collected) == 30
    assert len(seen) < 30 + 10
    assert ids_of(seen[-1])[0] in range(1, 31)
