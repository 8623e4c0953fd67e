"""Single calls beside the bulk: how long they wait, and what the bulk has when it is alone. Mostly in virtual time."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arrivals import most_in_a_window
from support.raw_server import RawServer, http
from support.virtual_time import clock, run

from capillary_async import AsyncSession, BasicAuth, InvalidRequestError, Limits, Rate
from capillary_async._config import Timeouts
from capillary_async._transport.limiter import RequestLimiter
from capillary_async._transport.messages import CallState, Request, Response, part_of
from capillary_async._transport.reserve import Reserve

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=60)
RIGHT = Response(200)
EXPIRY: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2026-01-01",
    "expiry_date_end": "2026-12-31",
}
Make = Callable[..., AsyncSession]


class World:
    """A throttle, a server that takes some time, workers without an end, and single calls."""

    def __init__(self, takes: float, rate: Rate | None, concurrency: int = 32) -> None:
        self.gate = RequestLimiter(
            Limits(concurrency=concurrency, concurrency_start=concurrency, rate=rate), clock=clock
        )
        self.takes = takes
        self.came: list[tuple[float, bool]] = []

    async def _answer(self, request: Request) -> Response:
        assert request.call is not None
        self.came.append((clock(), request.call.bulk))
        await asyncio.sleep(self.takes)
        return RIGHT

    async def ask(self, *, bulk: bool) -> float:
        """Seconds until the answer."""
        began = clock()
        await self.gate(part_of(Request("GET", "/path"), CallState(Timeouts(), bulk=bulk)), self._answer)
        return clock() - began

    async def work(self, *, bulk: bool = True) -> None:
        while True:
            await self.ask(bulk=bulk)

    def workers(self, number: int = 32, *, bulk: bool = True) -> "list[asyncio.Task[None]]":
        return [asyncio.ensure_future(self.work(bulk=bulk)) for _ in range(number)]

    def number(self, *, bulk: bool, since: float = 0.0) -> int:
        return sum(was is bulk and at >= since for at, was in self.came)


async def ended(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


RATES = [Rate(50, per=1), Rate(100, per=60), Rate(5, per=1), None]


@pytest.mark.parametrize("every", [0.37, 1.7])
@pytest.mark.parametrize("rate", RATES, ids=repr)
def test_a_single_call_beside_the_bulk_waits_for_its_round_trip_and_a_turn(rate: Rate | None, every: float):
    """At any moment of three windows, the first too; two turns of the rate where the bulk has just had one."""
    takes = 0.05
    world = World(takes, rate)
    turn = takes if rate is None else rate.per / rate.permits
    span = 2.0 if rate is None else max(3 * rate.per, 5.0)

    async def main() -> list[float]:
        workers = world.workers()
        waited = []
        for _ in range(int(span / every)):
            await asyncio.sleep(every)
            waited.append(await world.ask(bulk=False))
        await ended(workers)
        return waited

    waited = run(main)
    if every >= 2 * turn:  # what comes faster than half of the rate waits for the rate
        assert max(waited) <= 2 * turn + 2 * takes + 1e-6
    if rate is not None:
        assert most_in_a_window([at for at, _ in world.came], rate.per - 1e-6) <= rate.permits


@pytest.mark.parametrize("takes", [0.0, 0.05, 2.5], ids=lambda takes: f"{takes} s")
@pytest.mark.parametrize("rate", RATES, ids=repr)
def test_alone_the_bulk_has_the_whole_rate(rate: Rate | None, takes: float):
    """As many requests in five windows as single calls would have sent, but for the half that the first one spreads."""
    numbers = {}
    for bulk in (True, False):
        world = World(takes or 1e-3, rate)
        per = 0.1 if rate is None else rate.per

        async def main(world: World = world, bulk: bool = bulk, per: float = per) -> None:
            workers = world.workers(bulk=bulk)
            await asyncio.sleep(5 * per + 1e-4)
            await ended(workers)

        run(main)
        numbers[bulk] = len(world.came)
    spread = 0 if rate is None else math.ceil(rate.permits / 2) + 1
    assert numbers[True] >= numbers[False] - spread


@pytest.mark.parametrize("rate", RATES, ids=repr)
def test_where_both_wait_single_calls_get_half_and_the_bulk_is_not_starved(rate: Rate | None):
    """Thirty-two workers of each, without a pause."""
    world = World(0.02, rate)
    per = 1.0 if rate is None else rate.per

    async def main() -> None:
        workers = world.workers() + world.workers(bulk=False)
        await asyncio.sleep(5 * per)
        await ended(workers)

    run(main)
    single, bulk = world.number(bulk=False), world.number(bulk=True)
    assert single >= bulk - 32  # the first 32 permits go out before anybody waits
    assert bulk * 4 >= len(world.came) - 4


@FIXED
@given(
    st.integers(1, 40),
    st.floats(0.1, 100),
    st.lists(st.tuples(st.booleans(), st.floats(0, 0.5)), max_size=200),
)
def test_the_reserve_never_stops_the_bulk_for_ever_and_never_needs_more_than_the_rate(
    permits: int, per: float, steps: list[tuple[bool, float]]
):
    """Whatever was taken when: after one whole window of rest everything is free; waits are finite and end."""
    reserve, now = Reserve(Rate(permits, per=per)), 0.0
    taken: list[float] = []
    for bulk, pause in steps:
        now += pause * per
        wait = reserve.wait(now)
        assert 0 <= wait <= per * (1 + 1e-9)  # times are added, which rounds
        free = permits > sum(at + per > now for at in taken)  # the rate gives no permit beyond its own
        if free and not (bulk and wait):
            reserve.took(now)
            taken.append(now)
    now += reserve.wait(now)
    assert reserve.wait(now + per) == 0


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Rate(50, per=1), None], ids=repr)
async def test_single_calls_beside_a_fan_out_by_the_servers_clock(session_at: Make, rate: Rate | None):
    """Five calls in the middle of a fan-out over very many keys: each is answered within two turns."""
    async with RawServer(http(b"[]")) as server:
        session = session_at(server.url, limits=Limits(rate=rate))
        fan = session.points_allocation.by_expiry_many(range(1, 100_000), **EXPIRY)

        async def read() -> None:
            async for _ in fan:
                pass

        reading = asyncio.ensure_future(read())
        waited = []
        for _ in range(5):
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await session.request("GET", "/single")
            waited.append(time.monotonic() - began)
        reading.cancel()
        await asyncio.wait([reading])
        assert sorted(waited)[2] < 0.25
        came = sorted(seen.at for seen in server.seen)
        assert rate is None or most_in_a_window(came, rate.per) <= rate.permits


async def test_which_calls_are_bulk(session_at: Make):
    """Those of fan-outs and of pages read ahead for them, unless the view says otherwise."""
    seen: list[tuple[bool, bool]] = []
    async with RawServer(http(b"[]")) as server:
        session = session_at(server.url)
        throttle = session._shared.throttle
        taken = throttle._take

        def take(permit: Any, **how: Any) -> None:
            seen.append(permit.bulk)
            taken(permit, **how)

        throttle._take = take  # type: ignore[method-assign]
        for view, single, bulk in [
            (session, False, True),
            (session.with_options(priority="bulk"), True, True),
            (session.with_options(priority="interactive"), False, False),
            (session.with_options(priority="bulk").with_options(priority="interactive"), False, False),
        ]:
            pager = view.points_allocation.by_expiry(entity_id=1, **EXPIRY)
            seen.clear()
            await view.request("GET", "/path")
            await pager.page(1)
            await pager.first()
            assert seen == [single] * 3
            seen.clear()
            await view.points_allocation.by_expiry_many([1, 2, 3], **EXPIRY).collect()
            assert seen == [bulk] * 3
        assert (session.priority, session.with_options(priority="bulk").priority) == (None, "bulk")


@pytest.mark.parametrize("priority", ["", "Bulk", "high", 1, True, ["bulk"]], ids=repr)
def test_another_priority_is_refused(priority: Any):
    session = AsyncSession.from_env(base_url="https://example.test", auth=BasicAuth("u", password="p"))
    with pytest.raises(InvalidRequestError, match="priority takes 'interactive' or 'bulk'") as caught:
        session.with_options(priority=priority)
    assert caught.value.argument == "priority"


def _basic() -> Any:
    from capillary_async import BasicAuth

    return BasicAuth("u", password="p")
