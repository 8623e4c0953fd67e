"""Permits: in order, never too many, never lost; exact in any window. Mostly in virtual time."""

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_server import RawServer, http, in_thread
from support.virtual_time import VirtualLoop, clock, run

from capillary_async import AsyncSession, BasicAuth, Limits, Rate, Timeouts
from capillary_async._transport.limiter import RequestLimiter
from capillary_async._transport.messages import CallState, Request, Response, part_of
from capillary_async._transport.permit import Permit, permit_here
from capillary_async.errors import DeadlineExceededError

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=60)
REQUEST = Request("GET", "/path")
RIGHT = Response(200)
Make = Callable[..., AsyncSession]


def throttle(concurrency: int = 1000, rate: Rate | None = None) -> RequestLimiter:
    return RequestLimiter(Limits(concurrency=concurrency, concurrency_start=concurrency, rate=rate), clock=clock)


class Server:
    """A handler that takes some time and notes when each request came, and how many were there."""

    def __init__(self, takes: float = 1.0) -> None:
        self.takes = takes
        self.came: list[float] = []
        self.names: list[str] = []
        self.active = 0
        self.peak = 0

    async def __call__(self, request: Request) -> Response:
        self.came.append(clock())
        self.names.append(request.path)
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.active -= 1
        return RIGHT


def request(number: int) -> Request:
    return Request("GET", f"/{number}")


def idle(gate: RequestLimiter) -> bool:
    """Whether every permit is back and nobody waits."""
    return (gate._pace.active, len(gate._permits.lapsed), len(gate._line)) == (0, 0, 0)


def test_permits_go_out_in_the_order_asked():
    """First come, first served, also when a newcomer finds a permit free and others waiting."""
    gate, server = throttle(2), Server()

    async def late() -> None:
        await asyncio.sleep(1)  # exactly when the first two are given back
        await gate(request(99), server)

    async def main() -> None:
        await asyncio.gather(late(), *(gate(request(number), server) for number in range(6)))

    run(main)
    assert server.names == ["/0", "/1", "/2", "/3", "/4", "/5", "/99"]
    assert server.peak == 2
    assert idle(gate)


def test_a_newcomer_never_overtakes_those_who_wait():
    """The rate's next permit is free, and the alarm that hands it to the queue has not rung yet."""
    gate, server = throttle(rate=Rate(1, 1.0)), Server(0)

    async def main() -> None:
        await gate(request(0), server)
        waiting = asyncio.ensure_future(gate(request(1), server))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.now += 2
        assert gate._permits.blocked() is None
        await asyncio.gather(gate(request(2), server), waiting)

    run(main)
    assert server.names == ["/0", "/1", "/2"]


def test_no_more_than_concurrency_at_once():
    gate, server = throttle(3), Server()

    async def main() -> float:
        began = clock()
        await asyncio.gather(*(gate(request(number), server) for number in range(10)))
        return clock() - began

    assert run(main) == pytest.approx(4)
    assert server.peak == 3


def test_a_permit_comes_back_with_an_error_too():
    gate = throttle(1)

    async def failing(_: Request) -> Response:
        raise ZeroDivisionError

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await gate(REQUEST, failing)

    run(main)
    assert idle(gate)


# --- rate -------------------------------------------------------------------------------------------------------------


def most_in_a_window(times: list[float], per: float) -> int:
    """The most requests in any window of `per` seconds, its beginning counted and its end not."""
    return max(sum(start <= at < start + per - 1e-6 for at in times) for start in times)


@pytest.mark.parametrize(("permits", "per", "takes"), [(1, 1.0, 0.0), (10, 1.0, 0.3), (100, 60.0, 2.0), (7, 0.5, 5.0)])
def test_a_rate_is_never_passed_in_any_window(permits: int, per: float, takes: float):
    """Neither at the beginning nor over the border of two windows; and it is used: no slower than need be."""
    gate, server = throttle(rate=Rate(permits, per)), Server(takes)
    total = permits * 4

    async def main() -> None:
        await asyncio.gather(*(gate(request(number), server) for number in range(total)))

    run(main)
    assert most_in_a_window(server.came, per) <= permits
    assert len(server.came) == total
    assert server.came[-1] - server.came[0] == pytest.approx(3 * (per + takes))
    assert server.names == [f"/{number}" for number in range(total)]


@FIXED
@given(st.integers(1, 5), st.integers(1, 6), st.lists(st.tuples(st.floats(0, 3), st.floats(0, 2)), max_size=25))
def test_a_rate_and_a_limit_hold_for_any_arrivals(permits: int, concurrency: int, arrivals: list[tuple[float, float]]):
    """Requests that come when they like and take as long as they like."""
    gate, came, active, peak = throttle(concurrency, Rate(permits, 1.0)), [], 0, 0

    async def one(at: float, takes: float) -> None:
        async def server(_: Request) -> Response:
            nonlocal active, peak
            came.append(clock())
            active += 1
            peak = max(peak, active)
            await asyncio.sleep(takes)
            active -= 1
            return RIGHT

        await asyncio.sleep(at)
        await gate(REQUEST, server)

    async def main() -> None:
        await asyncio.gather(*(one(at, takes) for at, takes in arrivals))

    run(main)
    assert len(came) == len(arrivals)
    assert peak <= concurrency
    assert not came or most_in_a_window(came, 1.0) <= permits
    assert idle(gate)


def test_idle_time_is_not_saved_up():
    """After an hour of rest there are as many permits as ever."""
    gate, server = throttle(rate=Rate(2, 1.0)), Server(0)

    async def main() -> None:
        await asyncio.gather(*(gate(REQUEST, server) for _ in range(2)))
        await asyncio.sleep(3600)
        await asyncio.gather(*(gate(REQUEST, server) for _ in range(6)))

    run(main)
    assert most_in_a_window(server.came, 1.0) == 2


async def test_a_real_server_never_sees_more_than_the_rate(session_at: Make):
    """By its own clock, over real connections: 30 requests at 10 in 150 ms."""
    async with RawServer(http(b"{}")) as server:
        session = session_at(server.url, limits=Limits(rate=Rate(10, per=0.15)))
        await asyncio.gather(*(session.request("GET", "/path") for _ in range(30)))
        came = [one.at for one in server.seen]
    assert len(came) == 30
    assert max(sum(start <= at < start + 0.15 for at in came) for start in came) <= 10


# --- cancellation -----------------------------------------------------------------------------------------------------


def test_a_cancelled_waiter_leaves_the_queue():
    gate, server = throttle(1), Server()

    async def main() -> None:
        tasks = [asyncio.ensure_future(gate(request(number), server)) for number in range(4)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main)
    assert server.names == ["/0", "/3"]
    assert idle(gate)


def test_a_waiter_cancelled_in_the_moment_of_its_permit_passes_it_on():
    """Granted and not yet awake: the permit goes to the next, not to nobody."""
    gate, server = throttle(1), Server()

    async def main() -> None:
        tasks = [asyncio.ensure_future(gate(request(number), server)) for number in range(3)]
        await asyncio.sleep(0)
        (holder,) = gate._pace.held
        gate._answered(holder)  # grants to 1 in this very step
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main)
    assert server.names == ["/0", "/2"]
    assert idle(gate)


def test_a_permit_with_which_nothing_was_sent_costs_nothing_of_the_rate():
    """Its waiter was cancelled in the moment of the grant: the server never saw a request of it."""
    gate, server = throttle(1, Rate(2, per=100.0)), Server()
    tasks: list[asyncio.Future[Response]] = []

    async def ends_one(request: Request) -> Response:
        response = await server(request)
        asyncio.get_running_loop().call_soon(tasks[1].cancel)  # the permit goes to 1 behind this, in this very step
        return response

    async def main() -> None:
        handlers = (ends_one, server, server)
        tasks.extend(asyncio.ensure_future(gate(request(n), handler)) for n, handler in enumerate(handlers))
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main)
    assert tasks[1].cancelled()
    assert server.names == ["/0", "/2"]
    assert server.came[1] - server.came[0] == pytest.approx(1)


@FIXED
@given(st.integers(0, 2**32), st.booleans())
def test_no_permit_is_lost_however_calls_are_cancelled(seed: int, rated: bool):
    """Sixty calls, cancelled at random moments, while waiting, in the moment of the permit, and while being served."""
    dice, server = random.Random(seed), Server(0.5)
    gate = throttle(3, Rate(5, 1.0) if rated else None)

    async def main() -> None:
        tasks = []
        for number in range(60):
            tasks.append(asyncio.ensure_future(gate(request(number), server)))
            await asyncio.sleep(dice.choice([0, 0, 0, 0.1, 0.25, 0.5]))
            if dice.random() < 0.5:
                dice.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert idle(gate)
        assert server.peak <= 3
        await gate(REQUEST, server)  # and it still works

    run(main)


# --- the deadline of a call -------------------------------------------------------------------------------------------


def test_the_queue_ends_with_a_call_that_has_begun():
    """A second attempt waits no longer than its call has time; its place goes to the next."""
    gate, server = throttle(1), Server(100)

    async def main() -> None:
        holder = asyncio.ensure_future(gate(REQUEST, server))
        await asyncio.sleep(0)
        call = CallState(Timeouts(call=0.01))
        call.start()
        with pytest.raises(DeadlineExceededError, match="waiting for a permit to try again") as caught:
            await gate(part_of(REQUEST, call), server)
        assert caught.value.kind == "queue"
        assert not gate._line
        await holder

    run(main)
    assert idle(gate)


def test_a_wait_for_the_rate_that_is_known_to_come_too_late_is_not_begun():
    """The call is told at once, not when its time is over."""
    gate, server = throttle(rate=Rate(1, per=100.0)), Server(0)

    async def main() -> None:
        await gate(REQUEST, server)
        call, began = CallState(Timeouts(call=50.0)), clock()
        call.start()
        with pytest.raises(DeadlineExceededError, match="would run out while waiting for a permit"):
            await gate(part_of(REQUEST, call), server)
        assert clock() == began

    run(main)
    assert idle(gate)


def test_the_queue_of_a_call_that_has_not_begun_has_no_end():
    """Our own queue is nobody's slowness."""
    gate, server = throttle(1), Server(1000)

    async def main() -> None:
        call = CallState(Timeouts(call=0.01))
        await asyncio.gather(gate(REQUEST, server), gate(part_of(REQUEST, call), server))
        assert call.started is not None

    run(main)


# --- loops and threads ------------------------------------------------------------------------------------------------


def test_concurrency_holds_across_the_loops_of_two_threads():
    """The real server counts: never more than four at once, all 80 answered, no permit lost."""
    with in_thread(http(b"{}")) as server:
        session = AsyncSession(server.url, auth=BasicAuth("u", password="p"), limits=Limits(concurrency=4))

        async def work() -> None:
            await asyncio.gather(*(session.request("GET", "/path") for _ in range(40)))

        threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
        assert server.hits == 80
        assert server.peak <= 4
        assert idle(session._shared.throttle)
        asyncio.run(session.aclose())


def test_a_rate_holds_across_the_loops_of_two_threads():
    """Alarms ring in both loops, and nobody is forgotten when the other loop ends first."""
    gate = RequestLimiter(Limits(rate=Rate(5, per=0.05)))
    came: list[float] = []

    async def server(_: Request) -> Response:
        came.append(asyncio.get_running_loop().time())
        return RIGHT

    async def work(count: int) -> None:
        await asyncio.gather(*(gate(REQUEST, server) for _ in range(count)))

    threads = [threading.Thread(target=asyncio.run, args=(work(count),)) for count in (5, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(came) == 35
    assert most_in_a_window(came, 0.05) <= 5
    assert idle(gate)


def waiting_in(loop: asyncio.AbstractEventLoop, gate: RequestLimiter) -> "asyncio.Task[Response]":
    """A call that waits in the queue, in a loop that then stands still."""

    async def server(_: Request) -> Response:
        return RIGHT

    async def begin() -> Any:
        task = asyncio.ensure_future(gate(REQUEST, server))
        await asyncio.sleep(0)
        return task

    return loop.run_until_complete(begin())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_waiters_of_a_closed_loop_are_passed_over():
    """A loop closed with a call in the queue: its permit, and the rate's, goes to the next in a living loop."""
    gate, server = RequestLimiter(Limits(concurrency=1, rate=Rate(2, per=1000.0))), Server(0.1)
    dead = asyncio.new_event_loop()

    async def main() -> None:
        holder = asyncio.ensure_future(gate(request(0), server))
        await asyncio.sleep(0)
        task = await asyncio.to_thread(waiting_in, dead, gate)
        task._log_destroy_pending = False  # that is the point here
        dead.close()
        await asyncio.wait_for(asyncio.gather(holder, gate(request(1), server)), 10)

    asyncio.run(main())
    assert server.names == ["/0", "/1"]
    assert idle(gate)
    gc.collect()


def test_the_alarm_of_a_dead_loop_wakes_nobody_and_is_not_needed():
    """The first in the queue for a rate sits in a loop that is closed before its alarm: the next has one of its own."""
    gate = RequestLimiter(Limits(rate=Rate(1, per=0.05)))
    dead = asyncio.new_event_loop()

    async def server(_: Request) -> Response:
        return RIGHT

    async def main() -> None:
        await gate(REQUEST, server)
        task = await asyncio.to_thread(waiting_in, dead, gate)
        task._log_destroy_pending = False
        call = asyncio.ensure_future(gate(REQUEST, server))
        await asyncio.sleep(0)
        dead.close()
        assert await asyncio.wait_for(call, 5) is RIGHT
        assert await asyncio.wait_for(gate(REQUEST, server), 5) is RIGHT

    asyncio.run(main())
    assert idle(gate)
    assert dead not in gate._alarms.due
    gc.collect()


def test_a_loop_that_was_closed_before_the_alarm_could_be_set_is_forgotten():
    """The rate is used up, the first in the queue is dead already when the next comes."""
    gate = RequestLimiter(Limits(rate=Rate(1, per=0.05)))
    dead = asyncio.new_event_loop()

    async def server(_: Request) -> Response:
        return RIGHT

    async def main() -> None:
        await gate(REQUEST, server)
        task = await asyncio.to_thread(waiting_in, dead, gate)
        task._log_destroy_pending = False
        dead.close()
        assert await asyncio.wait_for(gate(REQUEST, server), 5) is RIGHT

    asyncio.run(main())
    assert idle(gate)
    gc.collect()


def test_a_permit_given_back_without_a_loop_reaches_those_who_wait():
    """The collector may end a call of a dead loop anywhere, also where no loop runs."""
    gate = RequestLimiter(Limits(concurrency=1))
    loop = asyncio.new_event_loop()

    async def hold() -> Permit:
        permit = permit_here(bulk=False)
        assert gate._enter(permit)
        return permit

    permit = loop.run_until_complete(hold())
    task = waiting_in(loop, gate)
    gate._answered(permit)
    assert loop.run_until_complete(task) is RIGHT
    loop.close()
    assert idle(gate)


# --- loops closed with requests in flight ---------------------------------------------------------------------------


async def stalled(_: Request) -> Response:
    await asyncio.Event().wait()
    return RIGHT


async def at_once(_: Request) -> Response:
    return RIGHT


def left_behind(gate: RequestLimiter, number: int) -> "tuple[asyncio.AbstractEventLoop, list[asyncio.Task[Response]]]":
    """Calls in flight in a loop that stands still, ready to be closed without cancelling them."""
    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        tasks = [asyncio.ensure_future(gate(REQUEST, stalled)) for _ in range(number)]
        await asyncio.sleep(0)
        for task in tasks:
            task._log_destroy_pending = False  # that is the point here
        return tasks

    return loop, loop.run_until_complete(begin())


async def soon(gate: RequestLimiter) -> Response:
    return await asyncio.wait_for(gate(REQUEST, at_once), 5)


@pytest.mark.parametrize("limits", [Limits(concurrency=2), Limits(rate=Rate(2, per=0.05))], ids=["limit", "rate"])
def test_a_closed_loop_gives_its_permits_back(limits: Limits):
    """Also when its calls come to their end later, by the collector: a permit comes back but once."""
    gate = RequestLimiter(limits)
    loop, tasks = left_behind(gate, 2)
    loop.close()
    assert gate._pace.active == 2
    assert asyncio.run(soon(gate)) is RIGHT
    assert idle(gate)
    tasks.clear()
    gc.collect()
    assert idle(gate)
    assert asyncio.run(soon(gate)) is RIGHT


def test_permits_a_closed_loop_gave_back_by_itself_are_not_reclaimed():
    """The collector was first."""
    gate = RequestLimiter(Limits(concurrency=2))
    loop, tasks = left_behind(gate, 2)
    loop.close()
    tasks.clear()
    del loop
    gc.collect()
    assert idle(gate)
    assert asyncio.run(soon(gate)) is RIGHT


def test_a_late_release_takes_no_permit_of_another_loop():
    """Reclaimed, taken by a living loop, and only then given back by the dead call."""
    gate = RequestLimiter(Limits(concurrency=1))
    loop, tasks = left_behind(gate, 1)
    loop.close()

    async def main() -> None:
        holder = asyncio.ensure_future(gate(REQUEST, stalled))
        await asyncio.sleep(0)
        tasks.clear()
        gc.collect()
        assert gate._pace.active == 1
        holder.cancel()
        await asyncio.wait([holder])

    asyncio.run(main())
    assert idle(gate)


def test_those_who_wait_already_get_the_permits_of_a_loop_that_stops_meanwhile(monkeypatch: pytest.MonkeyPatch):
    """Nobody wakes them: they look."""
    monkeypatch.setattr("capillary_async._transport.limiter._LOOK_AGAIN", 0.02)
    gate = RequestLimiter(Limits(concurrency=1))
    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        task = asyncio.ensure_future(gate(REQUEST, stalled))
        await asyncio.sleep(0)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is the point here
        return task

    tasks = []

    def other() -> None:
        task = loop.create_task(begin())
        loop.run_forever()
        tasks.append(task.result())

    async def main() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        async with asyncio.timeout(5):
            while not gate._pace.held:  # noqa: ASYNC110 - set in another thread
                await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(soon(gate))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        loop.call_soon_threadsafe(loop.stop)
        assert await waiting is RIGHT
        thread.join(5)

    asyncio.run(main())
    loop.close()
    tasks.clear()
    gc.collect()
    assert idle(gate)


def test_one_closed_loop_after_another_gives_its_permits_back():
    """Each gets the permit that the one before left behind."""
    gate = RequestLimiter(Limits(concurrency=1))
    for _ in range(3):
        loop, tasks = left_behind(gate, 1)
        assert gate._pace.active == 1
        loop.close()
    assert asyncio.run(soon(gate)) is RIGHT
    tasks.clear()
    gc.collect()
    assert idle(gate)
