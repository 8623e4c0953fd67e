"""Outages at the gate, in virtual time: bulk calls wait, one probe at a time looks, single calls are refused unsent."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support.gated_client import RIGHT, Client, Service, virtual_calls
from support.virtual_time import clock, run

from capillary_async import OAuthClient, RetryPolicy, Timeouts
from capillary_async._transport.messages import Request, Response, set_decoded
from capillary_async._transport.oauth import OAuthCredentials
from capillary_async._transport.retry import Quota, Retry
from capillary_async._transport.stats import Stats
from capillary_async.errors import (
    CapillaryError,
    ConnectError,
    DecodeError,
    NotFoundError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)


@pytest.fixture(autouse=True)
def _virtual_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual_calls(monkeypatch)


def down_until(seconds: float, error: type[CapillaryError] = ServerError) -> Callable[[int, float], Any]:
    return lambda key, at: _error(error) if at < seconds else None


def _error(kind: type[CapillaryError]) -> CapillaryError:
    return kind("down", status=500) if issubclass(kind, ServerError) else kind("down")


def test_an_outage_does_not_burn_the_input() -> None:
    """Four calls notice it, one probe goes after 1, 2, 5 and 10 s, and then every key is answered."""
    service = Service(down_until(15.0))
    client = Client(service)
    outcomes = run(lambda: client.fan_out(range(200)))
    assert list(outcomes.values()) == [None] * 200
    assert service.times()[:8] == [0, 0, 0, 0, 1, 3, 8, 18]
    assert len(service.asked) == 200 + 4 + 3
    assert client.idle


def test_probes_settle_at_twenty_seconds() -> None:
    """Each further one waits 20 s."""
    service = Service(down_until(100.0))
    client = Client(service)
    assert run(lambda: client.fan_out([1, 2, 3], workers=1)) == {1: None, 2: None, 3: None}
    assert [round(at) for at in service.times()[:10]] == [0, 1, 3, 8, 18, 38, 58, 78, 98, 118]


def test_an_outage_longer_than_a_call_waits_is_the_error_of_every_call() -> None:
    """With the attempts that it made; the last probe goes when the time is over."""
    service = Service(down_until(1_000.0))
    client = Client(service, call=30.0)
    outcomes = run(lambda: client.fan_out([1, 2, 3, 4]))
    errors = list(outcomes.values())
    assert all(type(error) is ServerError and error.outage for error in errors)
    assert service.times()[4:] == [1, 3, 8, 18, 30]
    assert sum(error.attempts for error in errors if error is not None) == len(service.asked)
    assert client.idle


def test_a_call_that_sent_nothing_says_so() -> None:
    """It came in the outage, and its time is over when that of the others is not."""
    service = Service(down_until(1_000.0))
    client = Client(service, call=30.0)

    async def main() -> CapillaryError | None:
        first = asyncio.ensure_future(client.fan_out([1], workers=1))
        await asyncio.sleep(10)
        second = asyncio.ensure_future(client.fan_out([2], workers=1))
        await first
        return (await second)[2]

    error = run(main)
    assert error is not None
    assert (type(error), error.outage) == (ServerError, True)


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_a_key_that_always_fails_does_not_hold_up_the_others(concurrency: int) -> None:
    """Others are answered meanwhile, so it is no outage: it is sent a few times, then it has its own error."""
    service = Service(lambda key, _: _error(ServerError) if key == 13 else None)
    client = Client(service)

    async def main() -> tuple[dict[int, CapillaryError | None], float]:
        began = clock()
        return await client.fan_out(range(300), workers=concurrency), clock() - began

    outcomes, took = run(main)
    assert [key for key, error in outcomes.items() if error is not None] == [13]
    assert not outcomes[13].outage  # type: ignore[union-attr]
    assert service.count(13) == 4
    assert outcomes[13].attempts == 4  # type: ignore[union-attr]
    assert took <= 10
    assert client.idle


@pytest.mark.parametrize(
    ("concurrency", "bad"),
    [(1, range(10, 201, 10)), (4, range(10, 201, 10)), (32, range(10, 201, 10)), (32, range(181, 201))],
)
def test_keys_that_always_fail_are_no_outage(concurrency: int, bad: range) -> None:
    """Nor where they are all that is left: a request that was answered is repeated, and each has its error soon."""
    service = Service(lambda key, _: _error(ServerError) if key in bad else None)
    client = Client(service, call=30.0)

    async def main() -> tuple[dict[int, CapillaryError | None], float]:
        began = clock()
        return await client.fan_out(range(1, 201), workers=concurrency), clock() - began

    outcomes, took = run(main)
    assert len(outcomes) == 200
    assert sorted(key for key, error in outcomes.items() if error is not None) == list(bad)
    assert took <= {1: 27, 4: 20}.get(concurrency, 10)
    assert len(service.asked) <= 200 + 20 * 3 * 2 + 20
    assert client.idle


def test_an_outage_at_the_end_of_the_input_burns_no_key() -> None:
    """What was answered before is down as well, so the last keys wait."""
    service = Service(lambda key, at: _error(ServerError) if key > 90 and at < 100 else None)
    answered = service.fault_for
    service.fault_for = lambda key, at: answered(99 if 0.2 < at < 100 else key, at)
    client = Client(service)
    outcomes = run(lambda: client.fan_out(range(1, 101), workers=8))
    assert list(outcomes.values()) == [None] * 100
    assert client.idle


@pytest.mark.parametrize("kind", [TransportError, RequestTimeoutError, ConnectError])
def test_a_key_that_used_up_its_attempts_just_before_the_outage_was_noticed_waits_too(kind: Any) -> None:
    """It waits until others are answered or an outage begins."""

    def fault_for(key: int, at: float) -> CapillaryError | None:
        return _error(kind if key == 1 else ServerError) if at < 2 else None

    client = Client(Service(fault_for))
    once = Client(client.service, attempts=1)
    once.limiter = once.retry._limiter = client.limiter

    async def main() -> None:
        outcomes = await asyncio.gather(once.fan_out([1], workers=1), client.fan_out(range(2, 50)))
        assert [*outcomes[0].values(), *outcomes[1].values()] == [None] * 49

    run(main)
    assert client.idle


@pytest.mark.parametrize(
    ("attempts", "count", "status"), [(1, 100, None), (1, 100, 503), (5, 3, None), (5, 3, 502), (5, 1, None)]
)
def test_a_server_that_is_down_from_the_start_burns_no_key(attempts: int, count: int, status: int | None) -> None:
    """Attempts are used up before the quota is: where no request was answered, that is an outage."""
    error = ConnectError("down") if status is None else ServerError("down", status=status)
    service = Service(lambda key, at: error if at < 20 else None)
    client = Client(service, attempts=attempts, quota=500)
    client.quota.left = 500
    assert list(run(lambda: client.fan_out(range(count))).values()) == [None] * count
    assert len(service.asked) <= count + 4 * attempts + 5
    assert client.idle


@pytest.mark.parametrize("status", [502, 503])
def test_a_lone_call_that_a_proxy_refuses_has_its_error(status: int) -> None:
    """It may be refused alone, and nothing else shows that the service is down."""
    service = Service(lambda *_: ServerError("down", status=status))
    client = Client(service, attempts=2, quota=500)
    client.quota.left = 500
    (error,) = run(lambda: client.fan_out([1])).values()
    assert isinstance(error, ServerError)
    assert not error.outage
    assert len(service.asked) == 2


@pytest.mark.parametrize("count", [1, 100])
def test_used_up_attempts_where_nothing_was_ever_answered_are_an_outage(count: int) -> None:
    """The calls wait for `Timeouts.call`, and their error concerns every key."""
    service = Service(down_until(1_000.0, ConnectError))
    client = Client(service, attempts=1, call=30.0)
    outcomes = run(lambda: client.fan_out(range(count), workers=min(count, 4)))
    assert all(type(error) is ConnectError and error.outage for error in outcomes.values())
    assert 30 <= service.times()[min(count, 4) + 4] <= 32
    assert client.idle


def test_a_key_that_hangs_among_definitive_errors_has_its_own() -> None:
    """The service answers, though nothing that could be repeated; no key is asked for another's sake."""
    missing = NotFoundError("none", status=404)
    service = Service(lambda key, _: _error(ConnectError) if key == 7 else missing)
    outcomes = run(lambda: Client(service, attempts=1).fan_out(range(1, 8)))
    assert [type(outcomes[key]) for key in range(1, 8)] == [NotFoundError] * 6 + [ConnectError]
    assert not outcomes[7].outage  # type: ignore[union-attr]
    assert len(service.asked) == 7
    assert service.times()[-1] < 3


def test_attempts_used_up_on_a_dead_server_are_an_outage_where_others_were_answered_before() -> None:
    """Nothing answers any more, the quota is never empty, and no key is lost."""
    service = Service(lambda key, at: _error(ConnectError) if 1 < at < 20 else None)
    client = Client(service, attempts=1)
    assert list(run(lambda: client.fan_out(range(1_000))).values()) == [None] * 1_000
    assert len(service.asked) <= 1_000 + 4 + 6
    assert client.idle


def test_an_error_waits_only_until_others_are_answered() -> None:
    """Keys that use up their attempts among others have their own error; where all calls wait, a few are repeated."""
    service = Service(lambda key, _: _error(TransportError) if key % 3 == 0 else None)
    client = Client(service, attempts=1)
    outcomes = run(lambda: client.fan_out(range(1, 100)))
    assert [key for key, error in sorted(outcomes.items()) if error] == list(range(3, 100, 3))
    assert len(service.asked) <= 99 + 12
    assert service.times()[-1] < 3


def test_a_lone_key_that_is_refused_with_429_gets_its_error_and_one_among_others_four_tries() -> None:
    """Refusals may be meant for the session; they are the key's own where others are answered."""
    refused = RateLimitedError("later", status=429)
    client = Client(Service(lambda *_: refused), attempts=1)
    assert run(lambda: client.fan_out([1])) == {1: refused}
    service = Service(lambda key, _: RateLimitedError("later", status=429) if key == 5 else None)
    outcomes = run(lambda: Client(service, attempts=1).fan_out(range(1, 50)))
    assert [key for key, error in outcomes.items() if error] == [5]
    assert service.count(5) == 4


@pytest.mark.parametrize("answer", [NotFoundError("none", status=404), DecodeError("another shape")], ids=repr)
def test_a_definitive_error_ends_an_outage(answer: CapillaryError) -> None:
    """The service answers; the key has its error."""
    service = Service(lambda key, at: _error(ServerError) if at < 0.5 else answer if key == 1 else None)
    outcomes = run(lambda: Client(service).fan_out([1, 2], workers=1))
    assert outcomes == {1: answer, 2: None}
    assert service.times()[1:2] == [1]


def test_an_answer_under_way_ends_an_outage_as_a_probe_does() -> None:
    """A slow success of another call."""

    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.2 if request.path == "/1" else 0.01)
        if request.path != "/1" and clock() < 1_000.2:
            raise _error(ServerError)
        return RIGHT

    client = Client(slow)

    async def main() -> float:
        assert list((await client.fan_out([1, 2, 3], workers=2)).values()) == [None] * 3
        return clock()

    assert run(main) < 1_000.5


def test_single_calls_in_an_outage_go_once_a_second_and_bring_the_service_back_for_all() -> None:
    """The others are refused at once, unsent, with the time of the next."""
    service = Service(down_until(4.5))
    client = Client(service)

    async def main() -> None:
        waiting = asyncio.ensure_future(client.fan_out(range(50)))
        await asyncio.sleep(3.2)  # the next probe of those that wait is due in 4.8 s
        refused: list[CapillaryError] = []
        for _ in range(21):
            error = await client.outcome(99)
            if error is not None and not error.sent:
                refused.append(error)
            await asyncio.sleep(0.1)
        assert len(refused) == 18
        assert all(0 < (error.retry_after or 0) <= 1 for error in refused)
        assert all((error.attempts, error.outage) == (0, False) for error in refused)
        assert list((await waiting).values()) == [None] * 50
        assert clock() < 1_006

    run(main)
    assert client.idle


def test_a_single_call_under_way_raises_its_own_error_when_an_outage_begins() -> None:
    """It sleeps before its second attempt, which is not sent."""
    service = Service(down_until(1_000.0))
    client = Client(service, quota=500)

    async def main() -> None:
        client.quota.left = 14
        single = asyncio.ensure_future(client.outcome(1))
        await asyncio.sleep(0.011)
        bulk = asyncio.ensure_future(client.fan_out([2], workers=1))
        await asyncio.sleep(0.02)
        assert await client.outcome(3) is not None  # the one that may go
        error = await single
        assert error is not None
        assert (error.attempts, error.sent, error.outage) == (1, True, False)
        bulk.cancel()
        await asyncio.wait([bulk])

    run(main)


def test_two_fan_outs_share_one_outage_and_its_probes() -> None:
    """Together they send no more probes than one."""
    service = Service(down_until(15.0))
    client = Client(service)

    async def main() -> None:
        both = await asyncio.gather(client.fan_out(range(50)), client.fan_out(range(50, 100)))
        assert all(error is None for outcomes in both for error in outcomes.values())

    run(main)
    assert Counter(service.times())[0.0] == 8
    assert len(service.asked) == 100 + 8 + 3


def test_a_cancelled_probe_leaves_its_part_to_the_next() -> None:
    """Nobody waits for ever."""
    service = Service(down_until(2.0), takes=0.5)
    client = Client(service)

    async def main() -> None:
        first = asyncio.ensure_future(client.fan_out([1], workers=1))
        second = asyncio.ensure_future(client.fan_out([2], workers=1))
        await asyncio.sleep(1.7)  # one of the two is the probe
        assert len(client.limiter._pace.held) == 1
        first.cancel()
        assert await second == {2: None}

    run(main)
    assert client.idle


@pytest.mark.parametrize("bad", [range(285, 301), range(298, 301)], ids=len)
def test_keys_that_always_get_429_at_the_end_of_the_input_have_their_own_error(bad: range) -> None:
    """They shut the gate, and are all that waits at it: the request answered last shows that others are answered."""
    service = Service(lambda key, _: RateLimitedError("later", status=429) if key in bad else None)
    client = Client(service, attempts=1, call=25.0)
    outcomes = run(lambda: client.fan_out(range(1, 301), workers=32))
    assert sorted(key for key, error in outcomes.items() if error is not None) == list(bad)
    assert not any(error.outage for error in outcomes.values() if error is not None)
    assert {service.count(key) for key in bad} == {4}
    assert service.times()[-1] < 20
    assert client.idle


class Hanging(Service):
    """Some keys are never answered: each attempt takes a second and fails."""

    def __init__(self, bad: range) -> None:
        super().__init__(lambda key, _: _error(RequestTimeoutError) if key in bad else None)
        self.bad = bad

    async def __call__(self, request: Request) -> Response:
        if int(request.path[1:]) in self.bad:
            await asyncio.sleep(1.0)
        return await super().__call__(request)


@pytest.mark.parametrize(("bad", "seconds"), [(range(1, 17), 140), (range(261, 301), 40)], ids=["first", "last"])
def test_keys_that_always_hang_are_tried_together_and_are_no_outage(bad: range, seconds: float) -> None:
    """Probes send calls that have not begun; what hung has cut the limit, which is restored by an answer."""
    service = Hanging(bad)
    client = Client(service)
    outcomes = run(lambda: client.fan_out(range(1, 301), workers=32))
    assert sorted(key for key, error in outcomes.items() if error is not None) == list(bad)
    assert not any(error.outage for error in outcomes.values() if error is not None)
    assert max(service.count(key) for key in bad) <= 6
    assert service.times()[-1] < seconds
    assert client.idle


def test_a_call_whose_time_runs_out_between_two_attempts_waits_in_the_outage() -> None:
    """It waited in the queue for its second attempt, behind others that were not answered either: no key's error."""
    service = Hanging(range(1, 101))
    client = Client(service, attempts=2, call=3.0, quota=500)
    client.quota.left = 500
    outcomes = run(lambda: client.fan_out(range(1, 101), workers=32))
    assert len(outcomes) == 100
    assert all(error is not None and error.outage for error in outcomes.values())
    assert len(service.asked) < 100
    assert client.idle


class TokenService(Service):
    """Gives tokens of 10 s while `gives(seconds)`, and answers all that comes with one."""

    def __init__(self, gives: Callable[[float], bool]) -> None:
        super().__init__(lambda *_: None)
        self.gives = gives
        self.posts: list[float] = []

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return await super().__call__(request)
        self.began = clock() if self.began is None else self.began
        self.posts.append(clock() - self.began)
        if not self.gives(self.posts[-1]):
            raise _error(ServerError)
        return set_decoded(Response(200), {"data": {"accessToken": "token", "ttlSeconds": 10}})


class TokenClient(Client):
    """A client whose requests need a token."""

    def __init__(self, service: TokenService, *, attempts: int, call: float = 180.0) -> None:
        super().__init__(service, attempts=attempts, call=call)
        policy = RetryPolicy(attempts=attempts)
        fetch = Retry(policy, Timeouts(call=call), Quota(0), Stats(), token=True, limiter=self.limiter)
        self.token = OAuthCredentials(OAuthClient("key", "secret"), fetch, clock=clock)

    async def get(self, key: int) -> Response:
        await asyncio.sleep(0.1)

        async def send(request: Request) -> Response:
            return await self.limiter(request, self.service)

        return await self.retry(Request("GET", f"/{key}"), lambda request: self.token(request, send))


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("begins", [-1.0, 2.0], ids=["start", "renewal"])
def test_a_service_of_tokens_that_is_down_burns_no_key(begins: float, attempts: int) -> None:
    """It concerns every key: the calls wait, and the requests for a token are the probes."""
    service = TokenService(lambda at: not begins < at < 30)
    client = TokenClient(service, attempts=attempts)
    assert list(run(lambda: client.fan_out(range(400))).values()) == [None] * 400
    assert len([at for at in service.posts if at < 30]) <= 12
    assert client.idle


def test_a_service_of_tokens_that_stays_down_is_the_error_of_every_call() -> None:
    """Once they have waited for `Timeouts.call`."""
    client = TokenClient(TokenService(lambda at: at < 2), attempts=1, call=30.0)
    outcomes = run(lambda: client.fan_out(range(500)))
    errors = [error for error in outcomes.values() if error is not None]
    assert all(type(error) is ServerError and error.outage for error in errors)
    assert errors
    assert client.idle
