"""A forked child that uses the session of its parent: nothing is waited for, shared or disturbed."""

import asyncio
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from support.raw_server import RawServer, http, said

from capillary_async import AsyncSession, BasicAuth, Limits, OAuthClient, Rate

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # Python 3.12 and later warn of any fork of a process with threads; here that is the point.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

TOKEN = said({"data": {"accessToken": "token", "ttlSeconds": 3000}, "errors": None})
SESSIONS: dict[str, AsyncSession] = {}


def ask() -> tuple[Any, float]:
    """In the child: one call by the inherited session, and the seconds it took."""
    began = time.monotonic()
    answer = asyncio.run(asyncio.wait_for(SESSIONS["one"].request("GET", "/path"), 5))
    return answer, time.monotonic() - began


def close() -> float:
    """In the child: the seconds of closing."""
    began = time.monotonic()
    asyncio.run(SESSIONS["one"].aclose())
    return time.monotonic() - began


@pytest.fixture
def session_of() -> Iterator[Callable[..., AsyncSession]]:
    def make(url: str, **options: Any) -> AsyncSession:
        SESSIONS["one"] = AsyncSession(url, **{"auth": BasicAuth("u", password="p"), **options})
        return SESSIONS["one"]

    yield make
    SESSIONS.clear()


def forked(work: Callable[[], Any]) -> Any:
    """What the work gives in a child made by `os.fork` alone, through a pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, repr(work()).encode())
        except BaseException as error:
            os.write(writing, repr(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return eval(told)  # noqa: S307 - our own repr


async def test_a_pool_of_processes_in_a_service_with_calls_under_way(session_of: Callable[..., AsyncSession]):
    """All eight permits are in flight in the parent: the child has its own, and its own connection."""
    release = asyncio.Event()
    async with RawServer(http(b"[]"), slow=[http(b"[1]", when=release)]) as server:
        session = session_of(server.url, limits=Limits(concurrency_start=8))
        calls = [asyncio.ensure_future(session.request("GET", "/slow")) for _ in range(8)]
        await server.until(8)
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            answer, took = await loop.run_in_executor(pool, ask)
            assert answer == []
            assert took < 2
            assert await loop.run_in_executor(pool, close) < 1
        assert server.connections == 9
        assert not any(call.done() for call in calls)
        release.set()
        assert await asyncio.gather(*calls) == [[1]] * 8  # their connections were left alone
        assert await session.request("GET", "/path") == []
        assert server.connections == 9  # and are used again
        await session.aclose()


async def test_a_fork_during_the_token_request(session_of: Callable[..., AsyncSession]):
    """The child fetches a token of its own, the parent's fetch goes on."""
    release = asyncio.Event()
    tokens = [TOKEN.but(when=release), TOKEN]
    async with RawServer(http(b"[]"), **{"v3/oauth/token/generate": tokens}) as server:
        session = session_of(server.url, auth=OAuthClient("key", "secret"))
        call = asyncio.ensure_future(session.request("GET", "/path"))
        await server.until(1)
        answer, took = await asyncio.to_thread(forked, ask)
        assert (answer, took < 2) == ([], True)
        release.set()
        assert await call == []
        await session.aclose()


async def test_locks_held_by_other_threads_at_the_moment_of_the_fork(session_of: Callable[..., AsyncSession]):
    """Those threads are not there in the child."""
    async with RawServer(http(b"[]")) as server:
        session = session_of(server.url)
        shared = session._shared
        locks = (
            shared.throttle._lock,
            shared.stats._lock,
            shared.quota._lock,
            shared.pools._lock,
            session._calls._lock,
        )
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            for lock in locks:
                lock.acquire()
            held.set()
            release.wait(10)
            for lock in locks:
                lock.release()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(5)
        answer, took = await asyncio.to_thread(forked, ask)
        closing = await asyncio.to_thread(forked, close)
        release.set()
        thread.join(5)
        assert (answer, took < 2, closing < 1) == ([], True, True)
        await session.aclose()


async def test_iterators_and_views_of_the_parent_are_not_touched_by_closing_in_the_child(
    session_of: Callable[..., AsyncSession],
):
    """A fan-out under way goes on in the parent, and nothing wakes its loop."""
    query: dict[str, Any] = {
        "program_id": 1,
        "point_category_id": 2,
        "expiry_date_start": "2026-01-01",
        "expiry_date_end": "2026-12-31",
    }
    async with RawServer(http(b"[]")) as server:
        session = session_of(server.url)
        view = session.with_options()
        outcomes = aiter(view.points_allocation.by_expiry_many(range(1, 101), **query))
        assert (await anext(outcomes)).ok
        assert await asyncio.to_thread(forked, close) < 1
        assert sum([outcome.ok async for outcome in outcomes]) == 99
        await session.aclose()


async def test_a_child_counts_a_rate_of_its_own(session_of: Callable[..., AsyncSession]):
    """The parent has used it up."""
    async with RawServer(http(b"[]")) as server:
        session = session_of(server.url, limits=Limits(rate=Rate(2, per=60)))
        await session.request("GET", "/path")
        await session.request("GET", "/path")
        answer, took = await asyncio.to_thread(forked, ask)
        assert (answer, took < 2) == ([], True)
        await session.aclose()


async def test_nothing_is_finalized_in_the_child(session_of: Callable[..., AsyncSession]):
    """A collection there closes no connection of the parent and takes none out of the selector that both share."""
    release = asyncio.Event()
    async with RawServer(http(b"[]"), slow=[http(b"[1]", when=release)]) as server:
        session = session_of(server.url)
        await session.request("GET", "/path")
        call = asyncio.ensure_future(session.request("GET", "/slow"))
        await server.until(2)

        def collect() -> Any:
            import gc

            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                SESSIONS.clear()
                gc.collect()
            return [str(one.message) for one in caught if "unclosed" in str(one.message).lower()]

        assert await asyncio.to_thread(forked, collect) == []
        release.set()
        assert await asyncio.wait_for(call, 5) == [1]
        await session.aclose()
