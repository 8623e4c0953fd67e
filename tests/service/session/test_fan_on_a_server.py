"""The fan-out over real sockets: one whale among many, an endless input, and loops left at random points."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest
from support.raw_server import Answer, http, in_thread

from capillary_async import AsyncSession, BasicAuth, Limits, Paging

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import FanOut, PointsAllocation

QUERY: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}


class Lists:
    """A server of lists: customer `k` has `count(k)` records; an answer takes `seconds`. Knows what is under way."""

    def __init__(self, count: Callable[[int], int], seconds: float = 0.0) -> None:
        self.count = count
        self.seconds = seconds
        self.asked: list[tuple[int, int]] = []
        self.connections: set[_Connection] = set()
        self.under_way = 0
        self.most = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await self._server.wait_closed()

    async def quiet(self, connections: int | None = None) -> None:
        """Wait, a second at most, until nothing is under way and, if given, only so many connections are open."""
        async with asyncio.timeout(1):
            while self.under_way or (connections is not None and len(self.connections) > connections):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    def answer(self, target: str) -> bytes:
        """A page."""
        query = {
            name: int(values[0]) for name, values in parse_qs(urlsplit(target).query).items() if "date" not in name
        }
        key, page, size = query["entity_id"], query["page"], query["count"]
        self.asked.append((key, page))
        rows = range(self.count(key))[(page - 1) * size : page * size]
        return json.dumps([{"id": key * 100_000 + row, "points_value": 1.5} for row in rows]).encode()


class _Connection(asyncio.Protocol):
    """One at a time: a request, its answer, the next."""

    def __init__(self, server: Lists) -> None:
        self._server = server
        self._data = b""
        self._later: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._data.endswith(b"\r\n\r\n"):
            return
        target, self._data = self._data.split(b" ", 2)[1].decode(), b""
        self._server.under_way += 1
        self._server.most = max(self._server.most, self._server.under_way)
        self._later = asyncio.get_running_loop().call_later(self._server.seconds, self._say, target)

    def _say(self, target: str) -> None:
        self._later = None
        self._server.under_way -= 1
        body = self._server.answer(target)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._later is not None:
            self._later.cancel()
            self._server.under_way -= 1


def session(server: Lists, **options: Any) -> AsyncSession:
    """A client of it."""
    return AsyncSession(server.url, auth=BasicAuth("till", password="secret"), **options)


def by_expiry(capillary: AsyncSession, ids: Any) -> FanOut[int, PointsAllocation]:
    """The fan-out over customers."""
    return capillary.points_allocation.by_expiry_many(ids, **QUERY)


async def test_a_whale_among_customers_ends_last_and_whole() -> None:
    """300 customers of a page are not held up by one of 200 pages; no short list costs a page more than it has."""
    whale = 7
    async with (
        Lists(lambda key: 1_999 if key == whale else 3, seconds=0.002) as server,
        session(server, paging=Paging(page_size=10, prefetch=8), limits=Limits(concurrency=16)) as capillary,
    ):
        outcomes = [outcome async for outcome in by_expiry(capillary, range(1, 301))]
        assert outcomes[-1].key == whale
        assert [record.id for record in outcomes[-1].unwrap()] == [whale * 100_000 + row for row in range(1_999)]
        assert outcomes[-1].pages == 200
        assert all(len(outcome.unwrap()) == 3 for outcome in outcomes[:-1])
        others = [key for key, _ in server.asked if key != whale]
        assert len(others) == len(set(others)) == 299
        assert 200 <= len(server.asked) - len(others) <= 207
        # While the others were under way it was read page after page.
        last = max(place for place, (key, _) in enumerate(server.asked) if key != whale)
        assert sum(key == whale for key, _ in server.asked[:last]) <= 299 / 15 * 2
        assert server.most <= 16


async def test_an_endless_input_and_a_loop_that_stops_asking() -> None:
    """The server hears of a few customers more than were taken, and then of nobody."""
    read: list[int] = []
    ids = (read.append(key) or key for key in itertools.count(1))
    async with Lists(lambda key: 3) as server, session(server) as capillary:
        iterator = aiter(by_expiry(capillary, ids).options(concurrency=8))
        for taken in (1, 2, 3):
            assert (await anext(iterator)).ok
            await server.quiet()
            await asyncio.sleep(0.05)
            assert len(server.asked) <= taken + 2 * 8
            assert len(read) <= 256 + taken + 2 * 8
        await iterator.aclose()
        asked = len(server.asked)
        await asyncio.sleep(0.05)
        assert (len(server.asked), server.under_way) == (asked, 0)


async def _leave(iterator: Any, how: str, dice: random.Random) -> None:
    """Break, raise, be cancelled, time out or close somewhere on the way."""
    taken, seconds = dice.randrange(25), dice.random() / 40

    async def read() -> None:
        count = 0
        async for _ in iterator:
            count += 1
            if count > taken and how == "break":
                return
            if count > taken and how == "raise":
                raise ZeroDivisionError

    if how == "break":
        await read()
        return
    with suppress(ZeroDivisionError, TimeoutError, asyncio.CancelledError, RuntimeError):
        if how == "raise":
            await read()
        elif how == "timeout":
            async with asyncio.timeout(seconds):
                await read()
        else:
            task = asyncio.ensure_future(read())
            await asyncio.sleep(seconds)
            if how == "close":
                await iterator.aclose()
            else:
                task.cancel()
            await task


async def gone(before: set[asyncio.Task[Any]]) -> None:
    """Wait until there are no tasks but those of before, and this one."""
    while asyncio.all_tasks() - before - {asyncio.current_task()}:  # noqa: ASYNC110 - tasks tell nobody of their end
        await asyncio.sleep(0)


@pytest.mark.long
@pytest.mark.parametrize("how", ["break", "raise", "timeout", "cancel", "close"])
def test_a_loop_left_on_the_way_leaves_no_task_and_no_request(how: str) -> None:
    """Fifteen random points each, in debug mode with warnings as errors; with the session goes every connection."""
    problems: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: problems.append(context))
        loop.slow_callback_duration = 60
        dice = random.Random(f"left by {how}")
        async with Lists(lambda key: 95 if key % 20 == 1 else key % 13, seconds=0.001) as server:
            capillary = session(server, paging=Paging(page_size=5, prefetch=4), limits=Limits(concurrency=8))
            before = asyncio.all_tasks()
            for _ in range(15):
                fan = by_expiry(capillary, iter(range(1, 200)))
                iterator = [aiter(fan), fan.ordered(), fan.items(), fan.pages()][dice.randrange(4)]
                await _leave(iterator, how, dice)
                del iterator  # a break ends it by dropping it
                await asyncio.wait_for(gone(before), 1)
                await server.quiet()
            await capillary.aclose()
            await server.quiet(connections=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main(), debug=True)
        gc.collect()
    assert not problems


LOOPING = f"""
import asyncio, signal, sys
from capillary_async import AsyncSession, BasicAuth

async def main(url, form):
    async with AsyncSession(url, auth=BasicAuth("u", password="p")) as session:
        fan = session.points_allocation.by_expiry_many(range(1, 10**6), **{QUERY!r})
        async for _ in fan if form == "outcomes" else fan.ordered():
            pass

signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
sys.exit("the loop ended")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("form", "number"), [("outcomes", signal.SIGINT), ("ordered", signal.SIGTERM)])
def test_a_process_that_a_signal_ends_in_a_loop_over_a_fan_out_prints_nothing(form: str, number: int) -> None:
    """SIGINT cancels the main task; SIGTERM raises in any callback, after which `asyncio.run()` cancels all tasks."""
    with in_thread(*[http(b"[]")] * 40, Answer(b"", "stall")) as server:
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", LOOPING, server.url, form]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while server.hits < 45 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "")
