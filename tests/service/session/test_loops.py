"""Loops that are stopped and not closed: nothing that they took stays taken, and they may run again."""

import asyncio
import gc
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from support.raw_server import Answer, RawServer, http, in_thread, said

from capillary_async import AsyncSession, BasicAuth, Limits, OAuthClient, Rate
from capillary_async._transport.limiter import RequestLimiter
from capillary_async._transport.messages import Request, Response

REQUEST, RIGHT = Request("GET", "/path"), Response(200)
TOKEN = said({"data": {"accessToken": "token", "ttlSeconds": 3000}, "errors": None})
STALL = Answer(b"", "stall")
BASIC, OAUTH = BasicAuth("u", password="p"), OAuthClient("key", "secret")


class Interrupt(BaseException):
    """What a user's own code may raise out of a loop over a fan-out."""


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is left as an interruption leaves it; its tasks end when the test does."""
    loop = asyncio.new_event_loop()
    yield loop
    if tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def seconds_of(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def idle(session: AsyncSession) -> bool:
    gate = session._shared.throttle
    return (len(gate._pace.held), len(gate._permits.lapsed), len(gate._line)) == (0, 0, 0)


async def many(session: AsyncSession, number: int = 8) -> None:
    await asyncio.gather(*(session.request("GET", "/slow") for _ in range(number)))


async def one(session: AsyncSession) -> Any:
    return await asyncio.wait_for(session.request("GET", "/path"), 5)


def interrupted_by_a_signal(loop: asyncio.AbstractEventLoop, work: Any, server: RawServer, hits: int) -> None:
    """Ctrl-C, when so many requests have come."""

    def ring() -> None:
        while server.hits < hits:
            time.sleep(0.005)
        time.sleep(0.1)  # the loop waits for its sockets by then
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    assert main is not None
    ringer = threading.Thread(target=ring)
    ringer.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(work)
    ringer.join(5)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("waiting", [8, 20])
@pytest.mark.parametrize("again", [False, True], ids=["new loop", "same loop"])
def test_ctrl_c_leaves_the_session_free(
    loop: asyncio.AbstractEventLoop,
    waiting: int,
    again: bool,
    debug: bool,
):
    """All eight permits in flight, more calls in the queue: the next call is answered at once."""
    with in_thread(http(b"[]"), slow=[STALL]) as server:
        session = AsyncSession(server.url, auth=BASIC, limits=Limits(concurrency_start=8))
        loop.set_debug(debug)
        interrupted_by_a_signal(loop, many(session, waiting), server, 8)
        if again:
            for task in asyncio.all_tasks(loop):  # else they rightly keep what they hold: they run again
                task.cancel()
            assert seconds_of(lambda: loop.run_until_complete(one(session))) < 2
        else:
            assert seconds_of(lambda: asyncio.run(one(session), debug=debug)) < 2
            assert seconds_of(lambda: asyncio.run(one(session), debug=debug)) < 2
        assert session._shared.throttle._pace.active <= 8
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        assert idle(session)
        asyncio.run(session.aclose())


def test_an_interrupt_out_of_a_fan_out_leaves_the_session_free(loop: asyncio.AbstractEventLoop):
    """Its workers hold permits in the loop that was left."""
    with in_thread(http(b"[]")) as server:
        session = AsyncSession(server.url, auth=BASIC, limits=Limits(concurrency=4))
        query: dict[str, Any] = {
            "program_id": 1,
            "point_category_id": 2,
            "expiry_date_start": "2026-01-01",
            "expiry_date_end": "2026-12-31",
        }

        async def work() -> None:
            async for _ in session.points_allocation.by_expiry_many(range(1, 100_000), **query):
                raise Interrupt

        with pytest.raises(Interrupt):
            loop.run_until_complete(work())
        assert seconds_of(lambda: asyncio.run(one(session))) < 2
        asyncio.run(session.aclose())


@pytest.mark.parametrize("again", [False, True], ids=["new loop", "same loop"])
def test_ctrl_c_during_the_token_request(loop: asyncio.AbstractEventLoop, again: bool):
    """The fetch in the stopped loop is nobody's any more: the next call fetches its own; the same loop goes on."""
    tokens = [Answer(TOKEN.data, "keep", when=None, every=0.02 if again else 0), TOKEN]
    tokens[0] = tokens[0] if again else STALL
    with in_thread(http(b"[]"), **{"v3/oauth/token/generate": tokens}) as server:
        session = AsyncSession(server.url, auth=OAUTH)
        interrupted_by_a_signal(loop, many(session, 3), server, 1)
        if again:
            assert seconds_of(lambda: loop.run_until_complete(one(session))) < 4
        else:
            assert seconds_of(lambda: asyncio.run(one(session))) < 2
        asyncio.run(session.aclose())


def test_a_fetch_whose_loop_stops_is_taken_over_by_those_who_wait(monkeypatch: pytest.MonkeyPatch):
    """Two threads: one started the fetch, its loop stops; the other looks and fetches its own."""
    monkeypatch.setattr("capillary_async._transport.oauth._CHECK_INTERVAL", 0.05)
    with in_thread(http(b"[]"), **{"v3/oauth/token/generate": [STALL, TOKEN]}) as server:
        session = AsyncSession(server.url, auth=OAUTH)
        first = asyncio.new_event_loop()
        task = first.create_task(one(session))
        thread = threading.Thread(target=first.run_forever)
        thread.start()
        while server.hits < 1:
            time.sleep(0.005)

        async def second() -> None:
            waiting = asyncio.ensure_future(one(session))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            first.call_soon_threadsafe(first.stop)
            assert await waiting == []

        asyncio.run(second())
        thread.join(5)
        assert first.run_until_complete(task) == []  # and the first goes on with that token
        asyncio.run(session.aclose())
        first.run_until_complete(first.shutdown_asyncgens())
        first.close()


# --- a loop that is stopped and runs again ----------------------------------------------------------------------------


class Held:
    """A handler that answers when it is told to, in whatever loop it runs."""

    def __init__(self) -> None:
        self.active = 0
        self.open = False

    async def __call__(self, _: Request) -> Response:
        self.active += 1
        try:
            while not self.open:  # noqa: ASYNC110 - in whatever loop it runs
                await asyncio.sleep(0.005)
        finally:
            self.active -= 1
        return RIGHT


def test_requests_of_a_loop_that_runs_again_are_counted_again(loop: asyncio.AbstractEventLoop):
    """Two of two permits lapse with the loop; while it runs again, nobody gets a third; no permit comes back twice."""
    gate, held = RequestLimiter(Limits(concurrency=2)), Held()

    async def begin() -> Any:
        tasks = [asyncio.ensure_future(gate(REQUEST, held)) for _ in range(4)]
        await asyncio.sleep(0.02)
        return tasks

    async def at_once(_: Request) -> Response:
        return RIGHT

    async def elsewhere() -> None:
        for _ in range(5):
            assert await asyncio.wait_for(gate(REQUEST, at_once), 2) is RIGHT

    tasks = loop.run_until_complete(begin())
    assert held.active == gate._pace.active == 2
    asyncio.run(elsewhere())
    assert gate._pace.active == 0

    async def go_on() -> None:
        late = asyncio.ensure_future(gate(REQUEST, at_once))
        await asyncio.sleep(0.05)
        assert gate._pace.active == 2
        assert not late.done()
        held.open = True
        assert await asyncio.gather(*tasks, late) == [RIGHT] * 5

    loop.run_until_complete(go_on())
    assert (gate._pace.active, gate._permits.lapsed, len(gate._line)) == (0, set(), 0)


def test_waiters_of_a_stopped_loop_hold_nobody_up_and_go_on_when_it_runs_again(loop: asyncio.AbstractEventLoop):
    """They are first in the queue for a rate, and keep their place."""
    gate = RequestLimiter(Limits(rate=Rate(1, per=0.1)))

    async def at_once(_: Request) -> Response:
        return RIGHT

    async def begin() -> Any:
        await gate(REQUEST, at_once)
        tasks = [asyncio.ensure_future(gate(REQUEST, at_once)) for _ in range(2)]
        await asyncio.sleep(0)
        return tasks

    async def elsewhere() -> None:
        await asyncio.wait_for(gate(REQUEST, at_once), 2)

    tasks = loop.run_until_complete(begin())
    asyncio.run(elsewhere())
    asyncio.run(elsewhere())
    assert len(gate._line) == 2
    assert loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks), 2)) == [RIGHT] * 2
    assert not gate._line


def test_a_task_that_ended_without_giving_its_permit_back(monkeypatch: pytest.MonkeyPatch):
    """As a KeyboardInterrupt between two instructions may leave it, in a loop that runs on."""
    monkeypatch.setattr("capillary_async._transport.limiter._LOOK_AGAIN", 0.02)
    gate = RequestLimiter(Limits(concurrency=1))
    monkeypatch.setattr(gate, "_answered", lambda permit: None)

    async def at_once(_: Request) -> Response:
        return RIGHT

    async def main() -> None:
        await asyncio.ensure_future(gate(REQUEST, at_once))
        assert gate._pace.active == 1
        await asyncio.wait_for(gate(REQUEST, at_once), 2)

    asyncio.run(main())


# --- what a collector finds -------------------------------------------------------------------------------------------


@pytest.fixture
def _one_generation() -> Iterator[None]:
    """No collection but those that the test asks for.

    Within a generation the collector finalizes in the order of creation: a call's outer coroutine first, which closes
    those inside it. A collection in the middle of the call moves the outer ones to a later generation; the collector
    would then come to aiohttp's own inner coroutine first, and print what that raises in a closed loop.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_one_generation")
@pytest.mark.parametrize("how", ["request", "page", "collect", "fan", "fan-collect", "next", "token", "queue"])
@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["no loop", "in a loop"])
def test_nothing_is_printed_when_a_call_is_collected(
    how: str,
    elsewhere: bool,
    closed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    """A coroutine of each kind of call, left in its middle in a loop that nobody runs any more."""
    said_of: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", said_of.append)
    query: dict[str, Any] = {
        "program_id": 1,
        "point_category_id": 2,
        "expiry_date_start": "2026-01-01",
        "expiry_date_end": "2026-12-31",
    }
    with in_thread(STALL) as server:
        auth = OAUTH if how == "token" else BASIC
        limits = Limits(concurrency=1) if how == "queue" else Limits(concurrency=3)

        def begin() -> None:
            session = AsyncSession(server.url, auth=auth, limits=limits)
            pager = session.points_allocation.by_expiry(entity_id=1, **query)
            fan = session.points_allocation.by_expiry_many(range(1, 9), **query)

            async def work() -> Any:
                calls: dict[str, Callable[[], Any]] = {
                    "request": lambda: session.request("GET", "/path"),
                    "page": lambda: pager.page(1),
                    "collect": pager.collect,
                    "fan": lambda: anext(aiter(fan)),
                    "fan-collect": fan.collect,
                    "next": lambda: anext(aiter(pager)),
                    "token": lambda: session.request("GET", "/path"),
                    "queue": lambda: many(session, 3),
                }

                async def call() -> Any:
                    return await calls[how]()

                asyncio.ensure_future(call())  # noqa: RUF006 - left alone
                await asyncio.sleep(0.1)
                for task in asyncio.all_tasks():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is asyncio's own word

            loop = asyncio.new_event_loop()
            loop.run_until_complete(work())
            if closed:
                loop.close()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the loop was left with its sockets: that is its owner's
            begin()

            async def collect() -> None:
                gc.collect()
                await asyncio.sleep(0.01)

            asyncio.run(collect()) if elsewhere else gc.collect()
            gc.collect()
    # aiohttp's own finalizer of a response calls a closed loop, where the collector comes to it before the call.
    theirs = getattr(aiohttp.ClientResponse, "__del__")  # noqa: B009
    ours = [e for e in said_of if not isinstance(e.exc_value, ResourceWarning) and e.object is not theirs]
    assert [(repr(entry.exc_value), entry.object) for entry in ours] == []
    assert capfd.readouterr().err == ""
