"""`session.ping()` and the gauges of `session.stats`."""

import asyncio
from collections.abc import Callable

import pytest
from support.raw_server import RawServer, free_port, http, said

from capillary_async import AsyncSession, Limits, OAuthClient, Rate, RetryPolicy, Timeouts
from capillary_async.blocking import Session
from capillary_async.errors import (
    AuthenticationError,
    ConnectError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)
from capillary_async.sandbox import Sandbox

Make = Callable[..., AsyncSession]
ONCE = RetryPolicy(attempts=1)
OK = said({"a": 1})


# --- ping -------------------------------------------------------------------------------------------------------------


async def test_a_ping_is_one_small_read(session_at: Make):
    async with RawServer(said({"data": []})) as server:
        seconds = await session_at(server.url).ping()
        assert 0 < seconds < 10
        (seen,) = server.seen
    assert seen.target == "/v2/customers/1/loyaltyEvents?limit=1"
    assert seen.headers["authorization"].startswith("Basic ")


async def test_a_ping_of_the_sandbox(capillary_sandbox: Sandbox):
    """Where customer 1 is unknown, which the API itself says."""
    async with AsyncSession(capillary_sandbox.url, auth=capillary_sandbox.auth) as session:
        assert 0 < await session.ping() < 10
    async with AsyncSession(capillary_sandbox.url, auth=capillary_sandbox.oauth) as session:
        assert 0 < await session.ping() < 10


@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthenticationError), (403, PermissionDeniedError), (500, ServerError)]
)
async def test_a_ping_raises_what_a_call_would(session_at: Make, status: int, error: type[Exception]):
    async with RawServer(http(b"{}", status)) as server:
        with pytest.raises(error):
            await session_at(server.url, retry=ONCE).ping()


async def test_a_ping_of_nobody(session_at: Make):
    with pytest.raises(ConnectError):
        await session_at(f"http://127.0.0.1:{free_port()}", auth=OAuthClient("k", "s3cret")).ping()


def test_a_ping_without_a_loop(capillary_sandbox: Sandbox):
    with Session(capillary_sandbox.url, auth=capillary_sandbox.auth) as session:
        assert 0 < session.ping() < 10


# --- gauges -----------------------------------------------------------------------------------------------------------


async def test_the_gauges_of_a_quiet_session(session_at: Make):
    stats = session_at("http://127.0.0.1:9", limits=Limits(concurrency=20, concurrency_start=5)).stats
    assert (stats.in_flight, stats.queued, stats.limit, stats.gate) == (0, 0, 5, "open")
    assert "in_flight=0, queued=0, limit=5, gate=open" in repr(stats)


async def test_requests_in_flight_and_queued(session_at: Make):
    gate = asyncio.Event()
    async with RawServer(OK.but(when=gate)) as server:
        session = session_at(server.url, limits=Limits(concurrency=3))
        calls = [asyncio.ensure_future(session.request("GET", "/x")) for _ in range(10)]
        await server.until(3)
        assert (session.stats.in_flight, session.stats.queued, session.stats.limit) == (3, 7, 3)
        gate.set()
        await asyncio.gather(*calls)
        assert (session.stats.in_flight, session.stats.queued) == (0, 0)


async def test_what_waits_for_the_rate_is_queued(session_at: Make):
    async with RawServer(OK) as server:
        session = session_at(server.url, limits=Limits(rate=Rate(1, per=0.2)))
        await session.request("GET", "/x")
        second = asyncio.ensure_future(session.request("GET", "/x"))
        await asyncio.sleep(0.02)
        assert (session.stats.in_flight, session.stats.queued, session.stats.gate) == (0, 1, "open")
        await second


async def test_a_refusal_shuts_the_gate_and_cuts_the_limit(session_at: Make):
    """Until a probe is answered, which is seen too."""
    done = asyncio.Event()
    async with RawServer(http(b"", 429, {"Retry-After": "1"}), OK.but(when=done)) as server:
        session = session_at(server.url, timeouts=Timeouts(call=30))
        call = asyncio.ensure_future(session.request("GET", "/x"))
        await server.until(1)
        while session.stats.throttles == 0:  # noqa: ASYNC110 - the session has no event for it
            await asyncio.sleep(0.001)
        assert (session.stats.gate, session.stats.limit) == ("shut", 5)
        await server.until(2)
        assert session.stats.gate == "half-open"
        done.set()
        await call
        assert session.stats.gate == "open"


async def test_a_long_retry_after_shuts_it_for_single_calls(session_at: Make):
    async with RawServer(http(b"", 429, {"Retry-After": "500"})) as server:
        session = session_at(server.url)
        with pytest.raises(RateLimitedError):
            await session.ping()
        assert session.stats.gate == "shut"
        with pytest.raises(RateLimitedError, match="not sent"):
            await session.ping()
        assert server.hits == 1


def test_a_view_and_the_blocking_session_share_them():
    session = AsyncSession("http://127.0.0.1:9", auth=OAuthClient("k", "s3cret"))
    assert session.with_options(priority="bulk").stats is session.stats
