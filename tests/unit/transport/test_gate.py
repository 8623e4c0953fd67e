"""The gate of a session: one refusal stops every task, then one probe, then all go on. Mostly in virtual time."""

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.raw_server import RawServer, http, in_thread
from support.virtual_time import clock, run

from capillary_async import AsyncSession, BasicAuth, Limits, Rate, RetryPolicy, Timeouts
from capillary_async._priority import begin_bulk
from capillary_async._transport import messages as message
from capillary_async._transport.limiter import RequestLimiter
from capillary_async._transport.messages import CallState, Request, Response, part_of
from capillary_async._transport.permit import permit_here
from capillary_async._transport.retry import Quota, Retry
from capillary_async._transport.retry_decision import NotSentError
from capillary_async._transport.stats import Stats
from capillary_async.errors import (
    CapillaryError,
    DeadlineExceededError,
    RateLimitedError,
    ServerError,
    TransportError,
)

Make = Callable[..., AsyncSession]
RIGHT = Response(200)
REQUEST = Request("GET", "/path")


@pytest.fixture(autouse=True)
def _virtual_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's clock is that of its loop: real for sockets, virtual here."""
    monkeypatch.setattr(message, "time", SimpleNamespace(monotonic=clock))
    random.seed(20)  # the jitter: each run is the same


class Service:
    """A server that allows so many requests in each window of its clock, and refuses the others."""

    def __init__(self, permits: int, per: float, *, tells: bool = True, takes: float = 0.05) -> None:
        self.permits, self.per, self.tells, self.takes = permits, per, tells, takes
        self.served: list[float] = []
        self.refused: list[float] = []

    async def __call__(self, request: Request) -> Response:
        now = clock()
        window = now // self.per
        refused = sum(at // self.per == window for at in self.served) >= self.permits
        (self.refused if refused else self.served).append(now)
        await asyncio.sleep(self.takes)
        if refused:
            raise too_many((window + 1) * self.per - now if self.tells else None)
        return RIGHT


class Client:
    """Retry around a throttle, as a session has them."""

    def __init__(self, service: Any, *, policy: RetryPolicy | None = None, call: float = 180.0, **limits: Any) -> None:
        self.service = service
        self.policy = policy or RetryPolicy()
        self.throttle = RequestLimiter(Limits(**limits), self.policy, clock=clock)
        self.retry = Retry(self.policy, Timeouts(call=call), Quota(self.policy.quota), Stats())

    async def get(self, path: str = "/path") -> Response:
        return await self.retry(Request("GET", path), lambda request: self.throttle(request, self.service))

    async def bulk(self) -> Response:
        begin_bulk()
        return await self.get()

    async def all(self, number: int) -> "list[Response | BaseException]":
        """As the workers of a fan-out would: the time of a call runs from its first permit."""
        return await asyncio.gather(*(self.bulk() for _ in range(number)), return_exceptions=True)


def too_many(after: float | None = None) -> RateLimitedError:
    return RateLimitedError("the server refused with HTTP 429", status=429, retry_after=after)


def idle(gate: RequestLimiter) -> bool:
    return (gate._pace.active, len(gate._permits.lapsed), len(gate._line)) == (0, 0, 0)


class Once:
    """A handler that refuses its first requests with a time, and notes when each came and how many were there."""

    def __init__(self, *outcomes: Any, takes: float = 0.1) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.came: list[float] = []
        self.names: list[str] = []

    async def __call__(self, request: Request) -> Response:
        self.came.append(clock())
        self.names.append(request.path)
        outcome = self.outcomes.pop(0) if self.outcomes else RIGHT
        await asyncio.sleep(self.takes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


# --- one refusal stops all --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [too_many(10.0), ServerError("busy", status=503, retry_after=10.0)], ids=repr)
def test_one_refusal_stops_every_task_until_its_time_and_one_probe_goes_first(refusal: CapillaryError):
    """Eight were on their way; of the other ninety-two nobody goes for 10 s, then one, then the rest."""
    service = Once(refusal)
    client = Client(service)

    async def main() -> float:
        began = clock()
        assert await client.all(100) == [RIGHT] * 100
        return began

    began = run(main)
    came = [at - began for at in service.came]
    assert len(came) == 101
    assert [at for at in came if at < 10] == [0] * 8
    probe, behind = came[8], came[9]
    assert 10.1 <= probe <= 10.1 + 0.5
    assert behind == pytest.approx(probe + 0.1)
    assert came.count(behind) == client.throttle._pace.limit or came.count(behind) >= 5
    assert idle(client.throttle)


def test_a_service_of_100_a_minute_that_tells_its_time():
    """A thousand reads at once: no failure, and a few refusals a minute."""
    service = Service(100, 60.0)
    client = Client(service)
    assert run(lambda: client.all(1000)) == [RIGHT] * 1000
    assert len(service.refused) < 10 * 16


def test_a_service_of_100_a_minute_that_does_not_tell():
    """As far as is known, Capillary's own. The session finds its pace: neither attempts nor quota are burnt."""
    service = Service(100, 60.0, tells=False)
    client = Client(service)

    async def main() -> float:
        began = clock()
        assert await client.all(1000) == [RIGHT] * 1000
        return clock() - began

    took = run(main)
    assert len(service.refused) < 10 * 16
    assert took < 10 * 60 + 9 * 20


def test_single_429_without_a_time_stop_nobody():
    """One request in fifty is refused by a mood: the others go on meanwhile."""
    service = Once()
    client = Client(service)
    service.outcomes = [too_many() if number % 50 == 49 else RIGHT for number in range(500)]

    async def main() -> float:
        began = clock()
        assert await client.all(500) == [RIGHT] * 500
        return clock() - began

    assert run(main) < 500 * 0.1 / 5 + 4
    assert client.throttle._pace.gate.state is None


# --- the probe --------------------------------------------------------------------------------------------------------


def shut(client: Client, after: float = 10.0) -> None:
    """Shut the gate as a refused request does."""
    permit = permit_here(bulk=False)
    client.throttle._pace.held.add(permit)
    client.throttle._failed(permit, None, too_many(after))


def test_a_cancelled_probe_hands_its_part_to_the_next():
    """Cancelled in flight, then in the moment of its permit; the gate does not stay shut for it."""
    service = Once(takes=5.0)
    client = Client(service)

    async def main() -> None:
        shut(client)
        calls = [asyncio.ensure_future(client.get(f"/{number}")) for number in range(4)]
        await asyncio.sleep(11)
        assert service.names == ["/0"]
        calls[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.sleep(1)
        assert service.names in (["/0", "/1", "/2"], ["/0", "/2"])
        assert await asyncio.gather(*calls[2:]) == [RIGHT] * 2

    run(main)
    assert service.names[-2:] == ["/2", "/3"]
    assert idle(client.throttle)
    assert client.throttle._pace.gate.state is None


def test_a_probe_refused_again_keeps_it_shut_for_the_new_time():
    service = Once(too_many(20.0), too_many(5.0))
    client = Client(service)

    async def main() -> float:
        began = clock()
        shut(client)
        assert await client.all(10) == [RIGHT] * 10
        return began

    began = run(main)
    first, second, third = (at - began for at in service.came[:3])
    assert 10 <= first <= 10.5
    assert first + 20 <= second <= first + 22.2
    assert second + 5 <= third <= second + 6
    assert len(service.came) == 12


def test_a_probe_of_a_loop_that_was_closed_hands_its_part_on():
    """Its request never ends: whoever comes next is the probe."""
    gate = RequestLimiter(Limits(), RetryPolicy())
    loop = asyncio.new_event_loop()

    async def refused(request: Request) -> Response:
        raise too_many(0.001)

    async def stalled(request: Request) -> Response:
        await asyncio.Event().wait()
        return RIGHT

    async def answered(request: Request) -> Response:
        return RIGHT

    async def begin() -> Any:
        with pytest.raises(RateLimitedError):
            await gate(REQUEST, refused)
        await asyncio.sleep(0.01)
        task = asyncio.ensure_future(gate(REQUEST, stalled))
        await asyncio.sleep(0)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is the point here
        return [task]

    tasks = loop.run_until_complete(begin())
    assert gate._pace.gate.state is not None
    assert gate._pace.gate.state.prober.loop is loop
    loop.close()
    assert asyncio.run(asyncio.wait_for(gate(REQUEST, answered), 5)) is RIGHT
    assert gate._pace.gate.state is None
    tasks.clear()
    gc.collect()
    assert idle(gate)


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_a_call_that_was_answered_before_raises_that_answers_error_at_once():
    """Its 500 came first; meanwhile the session is told to wait for longer than the call has left."""
    service = Once(ServerError("broken", status=500))
    client = Client(service, call=30.0)

    async def main() -> None:
        call = asyncio.ensure_future(client.get())
        await asyncio.sleep(0.1001)  # it sleeps before its second attempt
        shut(client, 60.0)
        began = clock()
        with pytest.raises(ServerError, match="broken") as caught:
            await call
        assert clock() - began < 1
        assert (caught.value.status, caught.value.attempts) == (500, 1)

    run(main)
    assert len(service.came) == 1


def test_a_call_without_any_answer_raises_a_deadline_error_at_once():
    service = Once(TransportError("cut"))
    client = Client(service, call=30.0)

    async def main() -> None:
        call = asyncio.ensure_future(client.get())
        await asyncio.sleep(0.1001)
        shut(client, 60.0)
        with pytest.raises(DeadlineExceededError, match="wait for longer than Timeouts"):
            await call

    run(main)


def test_those_in_the_queue_are_told_when_the_gate_goes_shut_for_too_long():
    """A call not begun and one begun, both waiting when the refusal comes; neither waits for what it cannot await."""
    service = Once(takes=50.0)
    client = Client(service, call=30.0, concurrency=1)

    async def main() -> None:
        holder = asyncio.ensure_future(client.get())
        await asyncio.sleep(0)
        fresh = asyncio.ensure_future(client.get())
        begun = CallState(Timeouts(call=30.0))
        begun.start()
        waits = asyncio.ensure_future(client.throttle(part_of(REQUEST, begun), service))
        await asyncio.sleep(1)
        began = clock()
        shut(client, 60.0)
        with pytest.raises(RateLimitedError, match="not sent") as caught:
            await fresh
        with pytest.raises(DeadlineExceededError):
            await waits
        assert clock() == began
        error = caught.value
        assert (error.attempts, error.history, error.status) == (0, (), 429)
        assert error.elapsed == pytest.approx(1)  # its time in the queue
        assert error.retry_after == pytest.approx(60)
        assert (error.method, error.path) == ("GET", "/path")
        await holder

    run(main)
    assert idle(client.throttle)


def test_beyond_retry_after_max_every_call_fails_at_once_and_one_looks_after_two_minutes():
    """Nobody hangs, nobody is sent meanwhile, and the session comes back by itself."""
    service = Once(too_many(3600.0))
    client = Client(service, concurrency_start=1, concurrency=1)

    async def main() -> None:
        began = clock()
        outcomes = await client.all(100)
        assert clock() - began < 1
        assert all(type(one) is RateLimitedError for one in outcomes)
        assert len(service.came) == 1
        told = [one for one in outcomes if isinstance(one, RateLimitedError)]
        assert [one.attempts for one in told] == [1] + [0] * 99
        assert all(one.retry_after == pytest.approx(3600, abs=1) for one in told)
        with pytest.raises(RateLimitedError, match=r"asks for a wait of 3\d\d\d\.\d s more; waiting would pass RetryP"):
            await client.get()
        await asyncio.sleep(120)
        assert await client.get() is RIGHT
        assert await client.all(20) == [RIGHT] * 20

    run(main)


@pytest.mark.parametrize(("patience", "waited"), [(5.0, False), (500.0, True)])
def test_the_longest_wait_at_the_gate_is_the_sessions_own(patience: float, waited: bool):
    """`retry_after_max` of its policy, longer or shorter than the default."""
    client = Client(Once(too_many(150.0 if waited else 6.0)), policy=RetryPolicy(retry_after_max=patience), call=400.0)

    async def main() -> None:
        first = asyncio.ensure_future(client.get())
        await asyncio.sleep(0.2)
        if waited:
            assert await client.get() is RIGHT
        else:
            with pytest.raises(RateLimitedError, match="waiting would pass RetryPolicy"):
                await client.get()
        await asyncio.wait([first])

    run(main)
    assert idle(client.throttle)


def test_a_service_that_asks_for_ever_hangs_nobody():
    """Each probe is told to wait 100 s: every call has ended after what a call may take, and a little."""

    async def refuses(request: Request) -> Response:
        await asyncio.sleep(0.1)
        raise too_many(100.0)

    client = Client(refuses)

    async def main() -> None:
        began = clock()
        outcomes = await client.all(200)
        assert all(type(one) is RateLimitedError for one in outcomes)
        assert clock() - began < 2 * 180 + 1

    run(main)
    assert idle(client.throttle)


# --- order ------------------------------------------------------------------------------------------------------------


def test_a_call_that_has_begun_is_not_behind_those_that_have_not():
    """Else its time would run out behind a queue of ten minutes. Its token's request is ahead too."""
    service = Once(takes=1.0)
    client = Client(service, concurrency=1)

    async def main() -> None:
        calls = [asyncio.ensure_future(client.get(f"/{number}")) for number in range(4)]
        await asyncio.sleep(0.5)
        begun = CallState(Timeouts())
        begun.start()
        calls.append(asyncio.ensure_future(client.throttle(Request("GET", "/begun", call=begun), service)))
        token = Request("POST", "/token", body=b"{}", call=CallState(Timeouts()))
        calls.append(asyncio.ensure_future(client.throttle(token, service)))
        await asyncio.gather(*calls)

    run(main)
    assert service.names == ["/0", "/begun", "/token", "/1", "/2", "/3"]


def test_calls_in_trouble_take_turns():
    """Each refused probe goes behind the others that wait: no call burns its attempts for all."""
    service = Once(*[too_many(1.0) for _ in range(8 + 16)])
    client = Client(service)

    async def main() -> None:
        outcomes = await asyncio.gather(*(client.get(f"/{number}") for number in range(8)))
        assert outcomes == [RIGHT] * 8

    run(main)
    probes = service.names[8 : 8 + 16]
    assert max(probes.count(name) for name in set(probes)) <= 3


# --- loops, threads, and clocks of the machine ------------------------------------------------------------------------


def test_a_refusal_in_one_thread_stops_the_other_and_the_probe_may_be_anyones(monkeypatch: pytest.MonkeyPatch):
    """By the real server's clock: nothing comes between the refusal and its time, then one alone."""
    monkeypatch.setattr(message, "time", time)
    refused = http(b"{}", 429, {"Retry-After": "0.4"})
    with in_thread(refused, http(b"{}")) as server:
        limits = Limits(concurrency_start=1, concurrency=1)
        session = AsyncSession(server.url, auth=BasicAuth("u", password="p"), limits=limits)

        async def work() -> None:
            await asyncio.gather(*(session.request("GET", "/path") for _ in range(10)))

        threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
        asyncio.run(session.aclose())
        came = [seen.at for seen in server.seen]
    assert len(came) == 21
    assert came[1] - came[0] >= 0.4
    assert idle(session._shared.throttle)


async def test_a_jump_of_the_system_clock_changes_nothing(session_at: Make, monkeypatch: pytest.MonkeyPatch):
    """A day back, then ten years ahead, while a rate and a Retry-After are being waited for."""
    monkeypatch.setattr(message, "time", time)
    jumps = iter([-86_400.0, 3.2e8] * 1000)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps, 0.0))
    async with RawServer(http(b"{}", 429, {"Retry-After": "0.3"}), http(b"{}")) as server:
        session = session_at(server.url, limits=Limits(concurrency_start=2, rate=Rate(10, per=0.2)))
        began = time.monotonic()
        await asyncio.gather(*(session.request("GET", "/path") for _ in range(30)))
        took = time.monotonic() - began
        came = [seen.at for seen in server.seen]
    assert len(came) <= 32
    assert 0.3 + 2 * 0.2 <= took < 8
    assert not [at for at in came[2:] if at < came[0] + 0.3]
    assert max(sum(start <= at < start + 0.2 for at in came) for start in came) <= 10


def test_the_throttle_alone_says_that_nothing_was_sent():
    """`retry` makes of it the error that users see."""
    gate = RequestLimiter(Limits(concurrency=1), RetryPolicy(), clock=clock)

    async def main() -> None:
        async def refused(request: Request) -> Response:
            raise too_many(500.0)

        with pytest.raises(RateLimitedError):
            await gate(REQUEST, refused)
        with pytest.raises(NotSentError, match="not sent: the server refuses this session's requests"):
            await gate(REQUEST, refused)

    run(main)
    assert idle(gate)
