"""A rate by the server's own clock, over ways that delay what is sent: also of requests that were broken off."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.arrivals import most_in_a_window
from support.raw_server import Answer, RawServer, http, tls_server

from capillary_async import AsyncSession, Limits, Rate, RequestTimeoutError, RetryPolicy, Timeouts

ONCE = RetryPolicy(attempts=1)
Make = Callable[..., AsyncSession]


class Slow(RawServer):
    """Each answer takes a moment."""

    async def _send(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.05)
        return await super()._send(answer, reader, writer)


@asynccontextmanager
async def way(server: RawServer, delay: Callable[[], float]) -> AsyncIterator[str]:
    """A relay whose connections each delay what the client sends, its end included; not what the server sends."""
    tasks: set[asyncio.Task[Any]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(seconds)
                writer.write(data)
            await asyncio.sleep(seconds)
        except OSError:
            pass
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        for task in (
            asyncio.ensure_future(pass_on(reader, back, delay())),
            asyncio.ensure_future(pass_on(there, writer, 0)),
        ):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))


def idle(session: AsyncSession) -> bool:
    pace = session._shared.throttle._pace
    return (
        not pace.held
        and not pace.on_its_way
        and not any(pool.passages for pool in session._shared.pools._pools.values())
    )


@pytest.mark.long
@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_request_broken_off_on_a_slow_way_keeps_its_permit_until_it_has_arrived(session_at: Make, how: str):
    """It arrives 1.6 s after it was sent, long after the call ended; the next one comes a whole `per` behind it."""
    delays = iter([1.6])
    async with RawServer(http(b"[]")) as server, way(server, lambda: next(delays, 0)) as url:
        limits = Limits(rate=Rate(1, per=1))
        session = session_at(url, limits=limits, retry=ONCE, timeouts=Timeouts(attempt=0.5, read=0.5))
        call = asyncio.ensure_future(session.request("GET", "/first"))
        if how == "cancelled":
            await asyncio.sleep(0.4)
            call.cancel()
        ended = (await asyncio.gather(call, return_exceptions=True))[0]
        assert isinstance(ended, asyncio.CancelledError if how == "cancelled" else RequestTimeoutError)
        assert await session.request("GET", "/second") == []
        first, second = (seen.at for seen in server.seen)
        assert second - first >= 1
        assert idle(session)


@pytest.mark.long
async def test_a_rate_over_a_way_of_uneven_delays_with_cancelled_requests(session_at: Make):
    """Sixty calls over connections that delay by up to 150 ms, a third of them cancelled at some moment."""
    dice = random.Random(5)
    async with Slow(http(b"[]")) as server, way(server, lambda: dice.uniform(0, 0.15)) as url:
        session = session_at(url, limits=Limits(rate=Rate(5, per=0.5), concurrency_start=32))

        async def one() -> None:
            call = asyncio.ensure_future(session.request("GET", "/path"))
            if dice.random() < 0.33:
                await asyncio.sleep(dice.uniform(0, 3))
                call.cancel()
            await asyncio.gather(call, return_exceptions=True)

        await asyncio.gather(*(one() for _ in range(60)))
        await asyncio.sleep(0.3)
        assert server.hits > 35
        assert most_in_a_window(sorted(seen.at for seen in server.seen), 0.5) <= 5
        assert idle(session)


async def test_pages_read_ahead_and_dropped_count_until_they_have_arrived(session_at: Make):
    """What the SDK itself cancels: `break` in the middle of a long list, again and again."""
    dice = random.Random(6)
    rows = "[" + ",".join(f'{{"id": {number}}}' for number in range(3)) + "]"
    query: dict[str, Any] = {
        "program_id": 1,
        "point_category_id": 2,
        "expiry_date_start": "2026-01-01",
        "expiry_date_end": "2026-12-31",
    }
    async with Slow(http(rows)) as server, way(server, lambda: dice.uniform(0, 0.15)) as url:
        session = session_at(url, limits=Limits(rate=Rate(5, per=0.5), concurrency_start=32))
        for entity in range(1, 11):
            pager = session.points_allocation.by_expiry(entity_id=entity, **query).options(page_size=3)
            async for _ in pager.pages():
                break
        await session.request("GET", "/path")
        await asyncio.sleep(0.3)
        assert most_in_a_window(sorted(seen.at for seen in server.seen), 0.5) <= 5


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_the_server_sees_the_end_at_once_and_nothing_stays(session_at: Make, tls: bool, monkeypatch: Any):
    """A server that waits for the client's end: no task, no socket and no permit is left when it has seen it."""
    context, authority = tls_server("127.0.0.1")
    async with RawServer(Answer(b"", "stall"), tls=context if tls else None) as server:
        options: dict[str, Any] = {}
        if tls:
            import ssl

            import aiohttp

            trusted = ssl.create_default_context()
            authority.configure_trust(trusted)
            made = aiohttp.TCPConnector.__init__

            def trusting(self: Any, **given: Any) -> None:
                made(self, **{**given, "ssl": trusted})

            monkeypatch.setattr(aiohttp.TCPConnector, "__init__", trusting)
        session = session_at(server.url, limits=Limits(rate=Rate(1, per=0.1)), **options)
        call = asyncio.ensure_future(session.request("GET", "/path"))
        await server.until(1)
        before = asyncio.all_tasks()
        call.cancel()
        await asyncio.wait([call])
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() <= before
        assert server.active == 0
        assert idle(session)


async def test_a_server_that_never_ends_the_connection_keeps_the_permit_for_a_bounded_time(
    session_at: Make, monkeypatch: pytest.MonkeyPatch
):
    """It neither answers nor closes: what is still on its way then cannot be promised."""
    monkeypatch.setattr("capillary_async._transport.passage.LONGEST", 0.3)
    release = asyncio.Event()
    async with RawServer(http(b"[]", when=release), http(b"[]")) as server:
        session = session_at(server.url, limits=Limits(rate=Rate(1, per=0.2)))
        call = asyncio.ensure_future(session.request("GET", "/path"))
        await server.until(1)
        began = asyncio.get_running_loop().time()
        call.cancel()
        await asyncio.wait([call])
        assert not idle(session)
        assert await session.request("GET", "/path") == []
        assert 0.5 <= server.seen[1].at - began < 2
        release.set()


async def test_closing_the_session_closes_what_is_on_its_way(session_at: Make):
    release = asyncio.Event()
    async with RawServer(http(b"[]", when=release)) as server:
        session = session_at(server.url, limits=Limits(rate=Rate(1, per=0.2)))
        call = asyncio.ensure_future(session.request("GET", "/path"))
        await server.until(1)
        call.cancel()
        await asyncio.wait([call])
        (pool,) = session._shared.pools._pools.values()
        (passage,) = pool.passages
        await session.aclose()
        assert passage._socket.fileno() == -1
        assert not pool.passages
        release.set()
