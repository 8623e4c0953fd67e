"""A program that ends readings at random await points, over real sockets, and looks whether anything is left.

Invariant: each round ends one reading in one way; behind it no task, no request at the server, no connection but those
idle in the pool, and no complaint may be left within a second, or the program fails and says in which round.
`test_paging_cleanup.py` runs it in development mode, with warnings as errors.

    python -X dev -W error ending_rounds.py items 170 7
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import sys
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import define, field

from capillary_async import AsyncSession, BasicAuth, CapillaryError, Limits, Paging, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Generator

    from capillary_async import Pager

ROWS, SIZE = 23, 5
PATIENCE = 0.06  # seconds until a reading that does not come to its point is cancelled where it waits
GRACE = 1.0  # seconds in which everything must be gone
FOREVER = 30.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
TORN = b'[{"id":,}]'  # looks whole to who does not decode it
FAILED = b"HTTP/1.1 500 Down\r\nContent-Length: 0\r\n\r\n"


class Line(asyncio.Protocol):
    """One connection of the server: a list of `ROWS` records, answered at once, late, in two pieces, torn or never."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.timer: asyncio.Handle | None = None
        self.since: float | None = None  # when the open request came
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.server.lines.add(self)

    def connection_lost(self, _: BaseException | None) -> None:
        self.server.lines.discard(self)
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            if self.since is not None:
                self.server.complaints.append("a second request on a connection whose answer is not whole")
            self.since = asyncio.get_running_loop().time()
            self.server.hits += 1
            target = head.split(b" ")[1].decode()
            asked = dict(part.split("=") for part in target.partition("?")[2].split("&"))
            self.answer(int(asked["page"]), int(asked["count"]))

    def answer(self, number: int, size: int) -> None:
        chance = self.server.chance
        rows = [{"id": each} for each in range(ROWS)][(number - 1) * size : number * size]
        body = json.dumps(rows).encode()
        whole = HEAD % len(body) + body
        kind = chance.choices(["whole", "pieces", "failed", "torn", "cut", "never"], [73, 15, 4, 4, 2, 2])[0]
        wait = chance.choice([0.0, 0.0, 0.001, 0.004])
        if kind == "never":
            self.later(FOREVER, whole)
        elif kind == "failed":
            self.later(wait, FAILED)
        elif kind == "torn":
            self.later(wait, HEAD % len(TORN) + TORN)
        elif kind == "cut":
            self.later(wait, whole[:-3], then=self.close)
        elif kind == "pieces":
            self.later(wait, whole[:-7], then=lambda: self.later(0.002, whole[-7:]))
        else:
            self.later(wait, whole)

    def later(self, seconds: float, data: bytes, *, then: Callable[[], None] | None = None) -> None:
        def send() -> None:
            if then is None:
                self.since = None
            self.transport.write(data)
            if then is not None:
                then()

        self.timer = asyncio.get_running_loop().call_later(seconds, send)

    def close(self) -> None:
        self.since = None
        self.transport.close()


class Server:
    """The server, and its own books."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lines: set[Line] = set()
        self.complaints: list[Any] = []
        self.hits = 0

    @property
    def open(self) -> int:
        """How many requests are not answered yet."""
        return sum(line.since is not None for line in self.lines)

    async def start(self) -> str:
        """Listen; gives the URL."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Line(self), "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"


class Boom(Exception):  # noqa: N818 - no error
    """What a loop's body raises."""


def _in_turns(count: int, action: Callable[[], None]) -> None:
    """Act after so many turns of the loop."""
    asyncio.get_running_loop().call_soon(*(action,) if count == 0 else (_in_turns, count - 1, action))


class Steps:
    """Awaits a coroutine and acts where it waits for the nth time: before, while, or as what it waits for comes.

    The action sees every await point that there is, down to the future that the loop itself is waiting for.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], this: Round, action: Callable[[], None]) -> None:
        self.work, self.action = work, action
        self.point, self.moment, self.turns = this.point, this.moment, this.turns
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        send: Callable[..., Any] = self.work.send
        came: Any = None
        while True:
            try:
                waited = send(came)
            except StopIteration as done:
                return done.value
            self.count += 1
            if self.count == self.point:
                self._act(waited)
            try:
                came, send = (yield waited), self.work.send
            except BaseException as error:  # thrown into whoever waits, as the loop does
                came, send = error, self.work.throw

    def _act(self, waited: Any) -> None:
        if self.moment == "before":
            self.action()
        elif self.moment == "while" or waited is None:
            _in_turns(0, self.action)
        elif self.moment == "later":  # among the await points of the pages read ahead
            _in_turns(self.turns, self.action)
        else:
            waiting = waited._asyncio_future_blocking
            waited.add_done_callback(lambda _: self.action())
            waited._asyncio_future_blocking = waiting


@define
class Round:
    """One reading, and how it shall end."""

    kind: str
    way: str
    point: int
    moment: str
    turns: int
    prefetch: int
    stop: int
    given: list[int] = field(factory=list, repr=False)
    outcome: str = "whole"
    iterator: Any = field(default=None, repr=False)
    scope: asyncio.Timeout | None = field(default=None, repr=False)
    closing: asyncio.Task[None] | None = field(default=None, repr=False)
    struck: bool = False
    closed: bool = False  # the session with it


class Rounds:
    """All rounds of one kind of reading."""

    def __init__(self, kind: str, seed: int, plant: str) -> None:
        self.kind, self.plant = kind, plant
        self.chance = random.Random(seed)
        self.server = Server(seed + 1)
        self.points = deque([8], maxlen=20)  # how many await points the last whole readings had
        self.ends: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.planted: list[Any] = []

    async def run(self, count: int) -> dict[str, Any]:
        """So many readings ended, and what came of them."""
        self.loop = asyncio.get_running_loop()
        self.loop.slow_callback_duration = 60.0  # a busy machine is no fault
        self.loop.set_exception_handler(lambda _, context: self.server.complaints.append(context))
        sys.unraisablehook = lambda raised: self.server.complaints.append(repr(raised.exc_value))
        self.url = await self.server.start()
        self.open_session()
        gc.collect()
        gc.freeze()
        self.before = asyncio.all_tasks()
        while self.ends.total() < count:
            await self.one()
        await self.session.aclose()
        await self.settled("after closing the session", closed=True)
        self.server.server.close()
        return {"ends": self.ends, "outcomes": self.outcomes, "hits": self.server.hits, "points": max(self.points)}

    def open_session(self) -> None:
        self.session = AsyncSession(
            self.url,
            auth=BasicAuth("till.id", password="secret"),
            limits=Limits(concurrency=6, concurrency_start=6) if has_start() else Limits(concurrency=6),
            retry=RetryPolicy(attempts=3, backoff=0, throttle_backoff=0),
        )

    async def one(self) -> None:
        """One round."""
        chance = self.chance
        way = chance.choice(["break", "raise", "cancel", "cancel", "timeout", "aclose", "aclose", "session"])
        if self.kind in {"collect", "first", "page", "verify"} and way in {"break", "raise"}:
            way = chance.choice(["cancel", "timeout"])  # there is no body of a loop to do it in
        point = chance.randrange(1, chance.choice(self.points) + 1)
        moment = chance.choice(["before", "while", "later", "behind"])
        turns, prefetch, stop = chance.randrange(40), chance.randrange(9), chance.randrange(1, ROWS + 1)
        if way in {"break", "raise"}:
            point = 0  # the body ends it; what waits for its turn would hold what was raised, and the iterator with it
        this = Round(self.kind, way, point, moment, turns, prefetch, stop)
        await self.end_one(this)
        self.ends[this.way] += this.struck
        self.outcomes[this.outcome] += 1
        if self.plant:
            await self.plant_fault()
        await self.settled(repr(this), closed=this.closed)
        if this.closed:
            self.open_session()
        if this.given != list(range(len(this.given))):
            raise AssertionError(f"{this} gave {this.given}")

    async def end_one(self, this: Round) -> None:
        view = self.session.with_options(paging=Paging(page_size=SIZE, prefetch=this.prefetch))
        pager = view.points_allocation.by_expiry(
            entity_id=1, program_id=1, point_category_id=1, expiry_date_start="2025-01-01", expiry_date_end="2026-01-01"
        )
        steps = Steps(reading(this, pager), this, lambda: self.strike(this, task, view))

        async def awaited() -> None:
            await steps

        def give_up() -> None:
            if not this.struck:
                this.struck, this.way = True, "cancel"
                task.cancel()

        task = self.loop.create_task(awaited())
        timer = self.loop.call_later(PATIENCE, give_up)
        await asyncio.wait([task])
        timer.cancel()
        if this.closing is not None:
            await this.closing
        if this.outcome == "whole" and not task.cancelled():
            self.points.append(steps.count)
        this.iterator = this.scope = this.closing = None
        this.outcome = outcome(task, this)

    def strike(self, this: Round, task: asyncio.Task[None], view: AsyncSession) -> None:
        """End the reading, unless it has ended."""
        if task.done() or this.struck:
            return
        this.struck = True
        if this.way == "timeout" and this.scope is not None:
            this.scope.reschedule(self.loop.time())
        elif this.way == "aclose":
            this.closing = self.loop.create_task((this.iterator or view).aclose())
        elif this.way == "session":
            this.closed = True
            this.closing = self.loop.create_task(self.session.aclose())
        else:
            task.cancel()

    async def plant_fault(self) -> None:
        """What the checks must see."""
        if self.plant == "task":
            self.planted.append(asyncio.create_task(asyncio.sleep(FOREVER)))
        elif self.plant == "request":
            self.server.chance.choices = lambda *_: ["never"]  # type: ignore[assignment,method-assign]
            _, writer = await asyncio.open_connection(*self.server.server.sockets[0].getsockname())
            writer.write(b"GET /?page=1&count=5 HTTP/1.1\r\n\r\n")
            self.planted.append(writer)
        elif self.plant == "connection":
            self.planted.append(await asyncio.open_connection(*self.server.server.sockets[0].getsockname()))
        elif self.plant == "unretrieved":
            self.loop.create_future().set_exception(ValueError("nobody asks"))
        elif self.plant == "unclosed":
            socket.socket()

    async def settled(self, where: str, *, closed: bool) -> None:
        """Wait until nothing is left; fail after the grace time."""
        gc.collect()
        until = self.loop.time() + GRACE
        for turn in range(1_000_000):
            left = self.left(closed=closed)
            if not left:
                break
            if self.loop.time() > until:
                raise AssertionError(f"left behind {where}: {left}")
            await asyncio.sleep(0 if turn < 30 else 0.002)
        gc.collect()
        await asyncio.sleep(0)
        if self.server.complaints:
            raise AssertionError(f"complaints {where}: {self.server.complaints}")

    def left(self, *, closed: bool) -> dict[str, Any]:
        """What should not be there."""
        pool = self.session._shared.pools._pools.get(self.loop)
        connector: Any = pool.client.connector if pool is not None else None
        taken = len(connector._acquired) if connector is not None else 0
        idle = sum(map(len, connector._conns.values())) if connector is not None else 0
        said = {
            "tasks": [task for task in asyncio.all_tasks() - self.before if task is not asyncio.current_task()],
            "open requests": self.server.open,
            "connections taken": taken,
            "connections beyond the pool": len(self.server.lines) - idle,
            "connections of a closed session": len(self.server.lines) if closed else 0,
        }
        return {what: value for what, value in said.items() if value}


def has_start() -> bool:
    """Whether `Limits` begin below their concurrency."""
    return any(attribute.name == "concurrency_start" for attribute in Limits.__attrs_attrs__)


async def reading(this: Round, pager: Pager[Any]) -> None:
    """What a user writes."""
    async with asyncio.timeout(None) as this.scope:
        if this.kind == "items":
            this.iterator = aiter(pager)
            await loop_over(this, this.iterator, lambda record: [record])
        elif this.kind == "pages":
            this.iterator = pager.pages()
            await loop_over(this, this.iterator, list)
        elif this.kind == "collect":
            this.given += [record.id for record in await pager.collect()]
        elif this.kind == "verify":
            this.given += [record.id for record in await pager.collect(verify=True)]
        elif this.kind == "first":
            first = await pager.first()
            this.given += [first.id] if first is not None else []
        elif this.kind == "page":
            page = await pager.page(this.stop % 6 + 1)
            numbers = [record.id for record in page]
            this.given += range(len(numbers)) if numbers == list(range(ROWS))[this.stop % 6 * SIZE :][:SIZE] else [-1]


async def loop_over(this: Round, iterator: AsyncIterable[Any], records: Callable[[Any], list[Any]]) -> None:
    """A loop that may end in its own body."""
    async for got in iterator:
        this.given += [record.id for record in records(got)]
        if len(this.given) >= this.stop and this.way in {"break", "raise"}:
            this.struck = True
            this.iterator = None  # as with `async for record in pager`, where nobody else holds it
            if this.way == "raise":
                raise Boom
            break
        if len(this.given) % 3 == 0:
            await asyncio.sleep(0)


def outcome(task: asyncio.Task[None], this: Round) -> str:
    """How the reading came out; any other way is a fault."""
    with suppress(asyncio.CancelledError):
        error = task.exception()
        right = isinstance(error, Boom | TimeoutError | CapillaryError | None) or "closed" in str(error)
        if not right:
            raise AssertionError(f"{this} ended with {error!r}") from error
        return "whole" if error is None else type(error).__name__
    if not this.struck:
        raise AssertionError(f"{this} was cancelled by nobody")
    return "CancelledError"


def main(kind: str, count: str, seed: str, plant: str = "") -> None:
    """Run, and tell the figures as JSON."""
    rounds = Rounds(kind, int(seed), plant)
    print(json.dumps(asyncio.run(rounds.run(int(count)))))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(*sys.argv[1:])
