"""Observers: what they are given, in which order, and that they harm nothing."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from support.environment import AT_ONCE, PASSWORD, USERNAME
from support.raw_server import Answer, RawServer, http, said

from capillary_async import AsyncSession, BasicAuth, InvalidRequestError, Limits, OAuthClient, Rate, RetryPolicy
from capillary_async.errors import CapillaryError, RateLimitedError
from capillary_async.telemetry import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    Event,
    GateOpened,
    GateShut,
    KeyFinished,
    LimitChanged,
    Observer,
    PageRead,
    Waited,
    _events,
)

Make = Callable[..., AsyncSession]
OK = http(b'{"a": 1}', headers={"X-CAP-REQUEST-ID": "r-7"})
ROWS = said([{"id": 1, "customer_id": 5}])
TOKEN_PATH = "v3/oauth/token/generate"
TOKEN = said({"data": {"accessToken": "t0k3n-0f-0urs", "ttlSeconds": 300}, "errors": None})


class Heard(list[Event]):
    """An observer that remembers."""

    def __call__(self, event: Event, /) -> None:
        self.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        """Those of a class."""
        return [event for event in self if isinstance(event, kind)]

    @property
    def names(self) -> list[str]:
        """Their classes, in order."""
        return [type(event).__name__ for event in self]


@pytest.fixture
def heard() -> Heard:
    return Heard()


# --- one call ---------------------------------------------------------------------------------------------------------


async def test_a_call_from_its_beginning_to_its_end(session_at: Make, heard: Heard):
    async with RawServer(OK) as server:
        await session_at(server.url, observers=[heard]).request("GET", "/path", params={"mobile": "hunted"})
    assert heard.names == ["CallStarted", "AttemptStarted", "AttemptEnded", "CallEnded"]
    started, _, attempt, ended = heard
    assert isinstance(started, CallStarted)
    assert (started.method, started.path, started.base_url) == ("GET", "/path", server.url)
    assert (started.priority, started.fan_out, started.token) == ("interactive", False, False)
    assert isinstance(attempt, AttemptEnded)
    assert (attempt.number, attempt.kind, attempt.status, attempt.request_id) == (1, "ok", 200, "r-7")
    assert isinstance(ended, CallEnded)
    assert (ended.status, ended.attempts, ended.size, ended.error, ended.request_id) == (200, 1, 8, None, "r-7")
    assert 0 < attempt.seconds <= ended.seconds < 10
    assert len({event.call for event in (started, attempt, ended)}) == 1
    assert "hunted" not in repr(heard)


async def test_each_attempt_with_its_status_and_sleep(session_at: Make, heard: Heard):
    refusal = said({"errors": [{"code": 9999, "message": "no"}]}, 503)
    async with RawServer(Answer(b"", "close"), refusal, http(b"<html>"), OK) as server:
        policy = RetryPolicy(backoff=0.01, throttle_backoff=0.01)
        await session_at(server.url, retry=policy, observers=[heard]).request("GET", "/path")
    ended = heard.of(AttemptEnded)
    assert [(one.number, one.kind, one.status, one.retried) for one in ended] == [
        (1, "disconnected", None, True), (2, "status", 503, True), (3, "not-json", 200, True), (4, "ok", 200, False),
    ]  # fmt: skip
    assert all(0 <= one.slept < 1 for one in ended)
    assert ended[-1].slept == 0
    (end,) = heard.of(CallEnded)
    assert (end.attempts, end.error) == (4, None)


async def test_a_failure_has_the_name_of_its_error(session_at: Make, heard: Heard):
    """Not its text, in which the server may echo what it was asked."""
    async with RawServer(http(b"hunted", 404)) as server:
        with pytest.raises(CapillaryError):
            await session_at(server.url, observers=[heard]).request("GET", "/path")
    (attempt,), (end,) = heard.of(AttemptEnded), heard.of(CallEnded)
    assert (attempt.kind, attempt.status, attempt.retried) == ("status", 404, False)
    assert (end.error, end.status) == ("NotFoundError", 404)
    assert "hunted" not in repr(heard)


async def test_a_cancelled_call_ends_too(session_at: Make, heard: Heard):
    async with RawServer(OK.but(then="stall", data=b"")) as server:
        call = asyncio.ensure_future(session_at(server.url, observers=[heard]).request("GET", "/path"))
        await server.until(1)
        call.cancel()
        await asyncio.wait([call])
    assert heard.names == ["CallStarted", "AttemptStarted", "AttemptEnded", "CallEnded"]
    assert (heard.of(AttemptEnded)[0].kind, heard.of(CallEnded)[0].error) == ("cancelled", "CancelledError")


async def test_the_token_is_a_call_of_its_own(session_at: Make, heard: Heard):
    """And a request sent again with a new token is a second attempt."""
    async with RawServer(http(b"", 401), OK, **{TOKEN_PATH: [TOKEN]}) as server:
        session = session_at(server.url, auth=OAuthClient("key", "s3cret-s3cret"), observers=[heard])
        await session.request("GET", "/path")
    assert [(one.path, one.token) for one in heard.of(CallStarted)] == [
        ("/path", False), (f"/{TOKEN_PATH}", True), (f"/{TOKEN_PATH}", True),
    ]  # fmt: skip
    attempts = [(one.number, one.kind, one.status) for one in heard.of(AttemptEnded) if one.path == "/path"]
    assert attempts == [(1, "status", 401), (2, "ok", 200)]
    assert "s3cret" not in repr(heard)
    assert "t0k3n" not in repr(heard)


async def test_an_observer_adds_headers_to_an_attempt_and_replaces_none(session_at: Make):
    def adds(event: Event) -> None:
        if isinstance(event, AttemptStarted):
            event.headers |= {"traceparent": f"00-{event.number}", "authorization": "mine", "accept": "text/html"}
            event.headers |= {"Host": "elsewhere", "X-Broken": "a\r\nb", "X Broken": "c", "X-None": None}  # type: ignore[dict-item]

    async with RawServer(http(b"", 503), OK) as server:
        await session_at(server.url, observers=[adds]).request("GET", "/path")
        first, second = server.seen
    assert (first.headers["traceparent"], second.headers["traceparent"]) == ("00-1", "00-2")
    assert first.headers["authorization"].startswith("Basic ")
    assert (first.headers["accept"], first.headers["host"]) == ("application/json", server.url.removeprefix("http://"))
    assert not [name for name in first.headers if "broken" in name or "none" in name]


# --- waits, gate, limit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "reason"), [(Limits(concurrency=1), "concurrency"), (Limits(rate=Rate(1, per=0.05)), "rate")]
)
async def test_a_wait_for_a_permit_has_its_reason(session_at: Make, heard: Heard, limits: Limits, reason: str):
    async with RawServer(OK) as server:
        session = session_at(server.url, limits=limits, observers=[heard])
        await asyncio.gather(*(session.request("GET", "/path") for _ in "12"))
    (wait,) = heard.of(Waited)
    assert wait.reason == reason
    assert wait.seconds > 0


async def test_the_gate_shuts_and_opens_and_the_limit_falls(session_at: Make, heard: Heard):
    async with RawServer(http(b"", 429, {"Retry-After": "0.05"}), OK) as server:
        session = session_at(server.url, observers=[heard])
        await session.request("GET", "/path")
    assert [one.reason for one in heard.of(GateShut)] == ["retry-after"]
    (opened,) = heard.of(GateOpened)
    assert opened.reason == "retry-after"
    assert 0.04 < opened.seconds < 5
    assert heard.of(LimitChanged) == [LimitChanged(5, 8)]


async def test_an_outage_is_a_reason(session_at: Make, heard: Heard):
    async with RawServer(http(b"", 429, {"Retry-After": "500"})) as server:
        session = session_at(server.url, observers=[heard])
        for _ in "12":
            with pytest.raises(RateLimitedError):
                await session.request("GET", "/path")
    assert len(heard.of(GateShut)) == 1
    assert len(heard.of(AttemptEnded)) == 1
    assert [one.attempts for one in heard.of(CallEnded)] == [1, 0]


async def test_each_request_that_the_server_saw_has_its_records(session_at: Make, heard: Heard):
    """Keys that are always refused shut the gate; the session's own probes repeat the request answered last."""

    class Server(RawServer):
        def answer_to(self, target: str) -> Answer:
            return ROWS if "=5&" in f"{target}&" else http(b"", 429)

    async with Server() as server:
        retry = RetryPolicy(attempts=2, backoff=0.01, throttle_backoff=0.01, backoff_max=0.02)
        session = session_at(server.url, observers=[heard], retry=retry)
        fan = session.points_allocation.by_expiry_many(
            range(5, 12),
            program_id=1,
            point_category_id=1,
            expiry_date_start="2025-01-01",
            expiry_date_end="2026-01-01",
        )
        outcomes = await fan.collect()
        assert [key for key, outcome in outcomes.items() if outcome.ok] == [5]
        assert len(heard.of(AttemptStarted)) == len(heard.of(AttemptEnded)) == len(server.seen)
    probes = [one for one in heard.of(CallStarted) if one.probe]
    assert probes
    assert {one.call for one in heard.of(CallStarted)} == {one.call for one in heard.of(CallEnded)}


# --- lists and fan-outs -----------------------------------------------------------------------------------------------


async def test_pages_and_keys(session_at: Make, heard: Heard):
    answers = {"a": ROWS, "b": http(b"{}", 403)}

    class Server(RawServer):
        def answer_to(self, target: str) -> Answer:
            return answers["a" if "=5&" in f"{target}&" else "b"]

    async with Server() as server:
        session = session_at(server.url, observers=[heard])
        fan = session.points_allocation.by_expiry_many(
            [5, 6], program_id=1, point_category_id=1, expiry_date_start="2025-01-01", expiry_date_end="2026-01-01"
        )
        outcomes = await fan.collect()
    assert [outcome.ok for _, outcome in sorted(outcomes.items())] == [True, False]
    assert [(one.endpoint, one.page, one.records) for one in heard.of(PageRead)] == [
        ("points_allocation.by_expiry", 1, 1)
    ]
    keys = sorted(heard.of(KeyFinished), key=lambda one: one.key)
    assert [(one.key, one.records, one.pages, one.error) for one in keys] == [
        (5, 1, 1, None), (6, 0, 0, "PermissionDeniedError"),
    ]  # fmt: skip
    assert {one.endpoint for one in keys} == {"points_allocation.by_expiry_many"}
    assert "key=" not in repr(keys)
    assert {(one.fan_out, one.priority) for one in heard.of(CallStarted)} == {(True, "bulk")}


# --- observers that misbehave -----------------------------------------------------------------------------------------


async def test_what_an_observer_raises_is_logged_and_harms_no_call(
    session_at: Make, heard: Heard, caplog: pytest.LogCaptureFixture
):
    """The others are called too; the first failure is an error with its traceback, the rest are for DEBUG."""

    def broken(event: Event) -> None:
        raise RuntimeError("its own fault")

    async with RawServer(OK) as server:
        session = session_at(server.url, observers=[broken, heard])
        assert await session.request("GET", "/path") == {"a": 1}
    assert len(heard) == 4
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "broken raised for CallStarted" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("given", [7, [7], "name", [None]])
def test_what_is_no_observer_is_refused(given: Any):
    with pytest.raises(InvalidRequestError, match="observers takes a sequence of plain callables") as caught:
        AsyncSession("https://a.example", auth=BasicAuth("u", password="p"), observers=given)
    assert caught.value.argument == "observers"


def test_a_coroutine_function_is_refused():
    async def later(event: Event) -> None: ...

    with pytest.raises(InvalidRequestError, match="plain callables"):
        AsyncSession("https://a.example", auth=BasicAuth("u", password="p"), observers=[later])


# --- what it costs ----------------------------------------------------------------------------------------------------


async def test_no_record_is_made_where_nothing_observes(session_at: Make, monkeypatch: pytest.MonkeyPatch):
    """Neither of a call that fails, nor of pages and keys."""

    class Refused:
        def __init__(self, *_: object, **__: object) -> None:
            pytest.fail("a record was made")

    from capillary_async._fanout import outcome_builder
    from capillary_async._paging import reader
    from capillary_async._transport import call_watch, limiter

    for module in (outcome_builder, reader, call_watch, limiter):
        for name in _events.__all__:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, Refused)
    async with RawServer(http(b"", 429, {"Retry-After": "0.01"}), ROWS) as server:
        session = session_at(server.url)
        fan = session.points_allocation.by_expiry_many(
            [5], program_id=1, point_category_id=1, expiry_date_start="2025-01-01", expiry_date_end="2026-01-01"
        )
        assert len(await fan.collect()) == 1


def test_records_are_frozen_and_observers_are_typed():
    event = LimitChanged(5, 8)
    with pytest.raises(AttributeError):
        event.limit = 9  # type: ignore[misc]
    observer: Observer = Heard()
    observer(event)
    assert repr(event) == "LimitChanged(limit=5, before=8)"


async def test_a_view_has_the_observers_of_its_session(heard: Heard):
    async with RawServer(OK) as server:
        auth = BasicAuth(USERNAME, password=PASSWORD)
        async with AsyncSession(server.url, auth=auth, retry=AT_ONCE, observers=(heard,)) as session:
            await session.with_options(priority="bulk").request("GET", "/path")
    assert heard.of(CallStarted)[0].priority == "bulk"
    assert not heard.of(CallStarted)[0].fan_out
