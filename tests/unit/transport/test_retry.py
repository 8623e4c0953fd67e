"""The loop around one call: attempts, quota, deadline, and the story that its error tells. In virtual time."""

import asyncio
import logging
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.raw_server import Answer, RawServer, http, said
from support.virtual_time import clock, run

from capillary_async import AsyncSession, Limits, Rate, RetryPolicy, Timeouts
from capillary_async._priority import begin_bulk
from capillary_async._transport import messages as message
from capillary_async._transport.limiter import RequestLimiter
from capillary_async._transport.messages import CallState, Request, Response
from capillary_async._transport.retry import Quota, Retry
from capillary_async._transport.stats import Stats
from capillary_async.errors import (
    AttemptRecord,
    BadRequestError,
    CapillaryError,
    ConnectError,
    DeadlineExceededError,
    DecodeError,
    RateLimitedError,
    RequestTimeoutError,
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


class Story:
    """A handler that plays outcomes one after another, and a retry step around it that notes what it slept."""

    def __init__(self, *outcomes: Any, policy: RetryPolicy | None = None, call: float = 180.0, **options: Any) -> None:
        self.outcomes = list(outcomes)
        self.slept: list[float] = []
        self.stats = Stats()
        self.policy = policy or RetryPolicy()
        self.quota: Quota = options.get("quota") or Quota(self.policy.quota)
        self.takes: float = options.get("takes", 0.0)
        self.timeouts = Timeouts(call=call)

    async def handler(self, request: Request) -> Response:
        assert request.call is not None
        request.call.start()
        await asyncio.sleep(self.takes)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds)

    def tell(self) -> Any:
        """What comes of it: the response, or the error."""
        retry = Retry(
            self.policy, self.timeouts, self.quota, self.stats, sleep=self.sleep, uniform=lambda _, high: high
        )

        async def call() -> Any:
            try:
                return await retry(REQUEST, self.handler)
            except CapillaryError as error:
                return error

        return run(call)


def server_error(**given: Any) -> ServerError:
    return ServerError("the server refused with HTTP 500", **{"status": 500, **given})


def too_many(**given: Any) -> RateLimitedError:
    return RateLimitedError("the server refused with HTTP 429", **{"status": 429, **given})


def test_a_success_is_given_as_it_is():
    story = Story(RIGHT)
    assert story.tell() is RIGHT
    assert (story.slept, story.stats.retries) == ([], 0)


def test_an_attempt_after_the_other_until_one_succeeds():
    story = Story(server_error(), TransportError("cut", kind="cut-body"), too_many(), RIGHT)
    assert story.tell() is RIGHT
    assert story.slept == pytest.approx([0.2, 0.4, 4.0])
    assert (story.stats.retries, story.stats.throttles) == (3, 1)


def test_the_last_error_tells_the_whole_story():
    """What, which request, how often, how long, whom to ask; and a record of each attempt and the sleep after it."""
    story = Story(
        ConnectError("no connection", kind="connect"),
        DecodeError("half", malformed=True, body="["),
        server_error(request_id="r-17"),
        policy=RetryPolicy(attempts=3),
        takes=1.0,
    )
    error = story.tell()
    assert type(error) is ServerError
    assert (error.method, error.path, error.attempts, error.quota_exhausted) == ("GET", "/path", 3, False)
    assert error.elapsed == pytest.approx(3.6)
    assert error.history == (
        AttemptRecord(1, "connect", None, 0.2),
        AttemptRecord(2, "bad-json", None, 0.4),
        AttemptRecord(3, "status", 500, 0.0),
    )
    assert str(error) == "GET /path: the server refused with HTTP 500 (3 attempts in 3.6 s; request id r-17)"
    assert error.args == (str(error),)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.history) == (str(error), error.history)


def test_a_final_error_is_raised_after_one_attempt():
    error = Story(BadRequestError("bad", status=400), RIGHT).tell()
    assert str(error) == "GET /path: bad (1 attempt in 0.0 s)"
    assert [one.number for one in error.history] == [1]


def test_a_long_retry_after_is_an_error_at_once_that_names_it():
    story = Story(too_many(retry_after=3600.0), RIGHT)
    error = story.tell()
    assert type(error) is RateLimitedError
    assert (error.retry_after, error.attempts, story.slept) == (3600.0, 1, [])
    assert "asks for a wait of 3600 s, beyond RetryPolicy.retry_after_max" in str(error)


def test_retry_after_is_slept_in_full():
    story = Story(too_many(retry_after=100.0), RIGHT)
    assert story.tell() is RIGHT
    assert story.slept == [pytest.approx(110)]


def test_what_is_not_ours_passes():
    """A programming error is nobody's to retry."""
    story = Story(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        story.tell()


# --- quota ------------------------------------------------------------------------------------------------------------


def test_a_retry_costs_14_and_5_when_throttled():
    """And what the last retry cost comes back with success: the call before it stays paid."""
    story = Story(server_error(), too_many(), server_error(), RIGHT)
    assert story.tell() is RIGHT
    assert story.quota.left == 500 - 14 - 5 - 14 + 14


def test_a_failed_call_gives_nothing_back():
    story = Story(*[server_error() for _ in range(5)])
    assert isinstance(story.tell(), ServerError)
    assert story.quota.left == 500 - 4 * 14


def test_a_first_success_gives_one_token_and_never_more_than_the_size():
    quota = Quota(500)
    assert Story(RIGHT, quota=quota).tell() is RIGHT
    assert quota.left == 500
    assert quota.take(2)
    for left in (499, 500, 500):
        assert Story(RIGHT, quota=quota).tell() is RIGHT
        assert quota.left == left
    quota.take(3)
    quota.give(14)
    assert quota.left == 500


def test_an_empty_quota_ends_the_call_and_says_so():
    """Another attempt was due; nothing is slept, and nothing taken."""
    quota = Quota(500)
    quota.take(490)
    story = Story(server_error(), RIGHT, quota=quota)
    error = story.tell()
    assert error.quota_exhausted
    assert (error.attempts, story.slept, quota.left) == (1, [], 10)
    assert "retry quota is empty, the service seems to be down" in str(error)
    assert error.history[-1].slept == 0
    assert Story(too_many(), RIGHT, quota=quota).tell() is RIGHT  # 5 tokens are left for a throttled one


def test_500_tokens_are_35_retries_and_then_one_attempt_a_call():
    """An outage costs little more than its first attempts."""
    quota, attempts = Quota(500), []
    for _ in range(100):
        error = Story(*[server_error() for _ in range(5)], quota=quota).tell()
        attempts.append(error.attempts)
    assert sum(attempts) == 100 + 500 // 14
    assert attempts[:10] == [5] * 8 + [4, 1]


@pytest.mark.parametrize(("size", "fault"), [(0, server_error()), (0, too_many()), (5, server_error())])
def test_a_quota_that_never_held_a_retry_switches_it_off(size: int, fault: CapillaryError):
    """The user wanted it so: that is no outage, and a fan-out must not wait for its end."""
    story = Story(fault, RIGHT, policy=RetryPolicy(quota=size))
    error = story.tell()
    assert error is fault
    assert (error.attempts, error.quota_exhausted, story.slept, story.stats.retries) == (1, False, [], 0)


@pytest.mark.parametrize(("size", "fault"), [(14, server_error), (5, too_many)])
def test_a_quota_that_held_just_one_retry_was_emptied(size: int, fault: Callable[[], CapillaryError]):
    """That is an outage, and no wish of the user's."""
    story = Story(*[fault() for _ in range(3)], policy=RetryPolicy(quota=size))
    error = story.tell()
    assert (error.attempts, error.quota_exhausted, story.quota.left) == (2, True, 0)


def test_an_answer_that_cannot_be_read_tells_its_request_id():
    """It is what Capillary's support asks for first."""
    half = DecodeError("half", malformed=True, body="[")
    half.request_id = "r-7"
    error = Story(half, policy=RetryPolicy(attempts=1)).tell()
    assert str(error).startswith("GET /path: half; try again later")
    assert str(error).endswith("(1 attempt in 0.0 s; request id r-7)")


def test_the_quota_counts_right_in_many_threads():
    quota = Quota(8 * 1000)
    taken: list[bool] = []

    def work() -> None:
        for _ in range(2000):
            taken.append(quota.take(1))
            quota.give(0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(taken), quota.left) == (8000, 0)


# --- deadline ---------------------------------------------------------------------------------------------------------


def test_a_wait_that_would_pass_the_deadline_is_not_begun():
    """The last answer's own error is raised, whatever came after that answer."""
    story = Story(server_error(), TransportError("cut"), RIGHT, call=5.0, takes=2.4)
    error = story.tell()
    assert (type(error), error.status) == (ServerError, 500)
    assert [one.kind for one in error.history] == ["status", "disconnected"]
    assert story.slept == pytest.approx([0.2])
    assert str(error).endswith("(2 attempts in 5.0 s; the next wait would pass Timeouts.call)")


def test_a_retry_after_beyond_the_deadline_is_the_servers_own_error():
    story = Story(too_many(retry_after=100.0), RIGHT, call=60.0)
    error = story.tell()
    assert (type(error), error.retry_after, story.slept) == (RateLimitedError, 100.0, [])


def test_without_any_answer_it_is_a_deadline_error_with_the_last_cause():
    cut = ConnectError("no connection", kind="connect")
    cut.__cause__ = ConnectionRefusedError(111, "refused")
    error = Story(cut, RIGHT, call=1.0, takes=0.9).tell()
    assert type(error) is DeadlineExceededError
    assert (error.kind, error.attempts) == ("deadline", 1)
    assert "no answer within the 1 s of Timeouts.call" in str(error)
    assert "the last attempt: no connection" in str(error)
    assert error.__cause__ is cut.__cause__
    assert [one.kind for one in error.history] == ["connect"]


def test_an_attempt_that_the_deadline_ended_is_the_last():
    """`wire` ends it; with an answer before it that is raised, without one the deadline's error is."""
    ended = DeadlineExceededError("ran out", kind="deadline")
    assert Story(ended, RIGHT).tell() is ended
    error = Story(server_error(), DeadlineExceededError("ran out", kind="deadline"), RIGHT).tell()
    assert (type(error), error.attempts) == (ServerError, 2)


def test_the_clock_of_a_call_starts_with_its_first_permit():
    """An hour in our own queue is no slowness of the server; from the permit on, everything counts."""
    call = CallState(Timeouts(call=10))

    async def main() -> None:
        await asyncio.sleep(3600)
        assert (call.remaining(), call.elapsed()) == (10, 0)
        call.start()
        await asyncio.sleep(4)
        call.start()
        assert (call.remaining(), call.elapsed()) == (pytest.approx(6), pytest.approx(4))

    run(main)


def test_the_queue_before_the_first_permit_of_a_fan_outs_call_is_free_and_after_it_counts():
    """Three calls and one permit: the second waits longer than its whole time, and then still has all of it."""
    throttle = RequestLimiter(Limits(concurrency=1), clock=clock)
    retry = Retry(RetryPolicy(attempts=2, backoff=0), Timeouts(call=5), Quota(500), Stats())
    held: list[float] = []

    async def slow(request: Request) -> Response:
        assert request.call is not None
        held.append(request.call.remaining())
        await asyncio.sleep(4.5)
        return RIGHT

    async def main() -> None:
        async def call() -> Response:
            begin_bulk()
            return await retry(REQUEST, lambda request: throttle(request, slow))

        assert await asyncio.gather(*(call() for _ in range(3))) == [RIGHT] * 3

    run(main)
    assert held == [5, 5, 5]


def test_the_queue_for_another_attempt_ends_with_the_call():
    """The first attempt failed at once, the rate has no permit for a second in time: the first's error is raised."""
    throttle = RequestLimiter(Limits(rate=Rate(1, per=60)), clock=clock)
    retry = Retry(RetryPolicy(), Timeouts(call=30), Quota(500), Stats())

    async def failing(request: Request) -> Response:
        raise server_error()

    async def main() -> None:
        began = clock()
        with pytest.raises(ServerError) as caught:
            await retry(REQUEST, lambda request: throttle(request, failing))
        assert clock() - began < 1  # not begun: the next permit is known to come after the call's end
        assert [one.kind for one in caught.value.history] == ["status"]  # what never got a permit was no attempt
        assert caught.value.attempts == 1

    run(main)


# --- through a whole session ------------------------------------------------------------------------------------------


async def test_503_then_200_is_two_hits(session_at: Make):
    async with RawServer(http(b"busy", 503), http(b"[1]")) as server:
        session = session_at(server.url)
        assert await session.request("GET", "/path") == [1]
        assert (server.hits, session.stats.retries, session.stats.throttles) == (2, 1, 1)


@pytest.mark.parametrize(("status", "hits"), [(500, 3), (521, 3), (461, 3), (400, 1), (403, 1), (404, 1), (501, 1)])
async def test_the_servers_hits_are_the_attempts(session_at: Make, status: int, hits: int):
    async with RawServer(http(b"{}", status)) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=3, backoff=0))
        with pytest.raises(CapillaryError) as caught:
            await session.request("GET", "/path")
        assert server.hits == caught.value.attempts == hits


class Statuses(RawServer):
    """Answers `/418` with 418."""

    def answer_to(self, target: str) -> Answer:
        return http(b"{}", int(target[1:]))


async def test_every_status_of_the_table_on_the_wire(session_at: Make):
    """400 to 599, each with the hits that the server sees: those of the table as often as there are attempts."""
    async with Statuses() as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=3, backoff=0, throttle_backoff=0, quota=10**6))
        for status in range(400, 600):
            with pytest.raises(CapillaryError):
                await session.request("GET", f"/{status}")
        hits = Counter(seen.target for seen in server.seen)
    retried = {int(target[1:]) for target, number in hits.items() if number == 3}
    assert sorted(retried) == [408, 425, 429, 461, 500, 502, 503, 504, 520, 521, 522, 523, 524]
    assert {number for target, number in hits.items() if int(target[1:]) not in retried} == {1}


async def test_the_deadline_runs_through_a_real_attempt(session_at: Make):
    """The second attempt gets what is left, and the 500 of the first is raised."""
    async with RawServer(http(b"{}", 500), Answer(b"", "stall")) as server:
        session = session_at(server.url, timeouts=Timeouts(call=0.3))
        with pytest.raises(ServerError) as caught:
            await session.request("GET", "/path")
        assert server.hits == 2
    assert [one.kind for one in caught.value.history] == ["status", "deadline"]
    assert 0.25 < caught.value.elapsed < 2


async def test_a_deadline_without_any_answer(session_at: Make):
    async with RawServer(Answer(b"", "stall")) as server:
        session = session_at(server.url, timeouts=Timeouts(call=0.2))
        with pytest.raises(DeadlineExceededError, match=r"the 0\.2 s of Timeouts\.call ran out"):
            await session.request("GET", "/path")
        assert server.hits == 1


async def test_views_have_policies_of_their_own(session_at: Make):
    """A view with `retry` has its own quota too; stats stay common."""
    async with RawServer(http(b"{}", 500)) as server:
        session = session_at(server.url)
        once = session.with_options(retry=RetryPolicy(attempts=1))
        with pytest.raises(ServerError):
            await once.request("GET", "/path")
        assert (server.hits, session.stats.requests) == (1, 1)
        with pytest.raises(ServerError):
            await session.request("GET", "/path")
        assert server.hits == 6
        assert (session._quota.left, once._quota.left) == (500 - 4 * 14, 500)


async def test_a_retried_body_code_under_200(session_at: Make):
    """`code` 500 in an object is a server error as any other."""
    async with RawServer(said({"code": 500, "message": "try later", "err": None}), said({"ok": 1})) as server:
        assert await session_at(server.url).request("GET", "/path") == {"ok": 1}
        assert server.hits == 2


async def test_a_cancelled_wait_is_no_attempt(session_at: Make):
    """Cancelling a call while it sleeps ends it at once, and the server is not asked again."""
    policy = RetryPolicy(backoff=100, backoff_max=100, throttle_backoff=100)
    async with RawServer(http(b"{}", 503, {"Retry-After": "100"})) as server:
        call = asyncio.ensure_future(session_at(server.url, retry=policy).request("GET", "/path"))
        await server.until(1)
        done, _ = await asyncio.wait([call], timeout=0.05)
        assert not done
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert server.hits == 1


async def test_a_retry_is_told_at_info_without_query_or_body(session_at: Make, caplog: pytest.LogCaptureFixture):
    async with RawServer(http(b'{"message": "for 919999999999"}', 500), http(b"{}")) as server:
        with caplog.at_level(logging.INFO, "capillary_async"):
            await session_at(server.url).request("GET", "/path", params={"mobile": "919999999999"})
    assert [one.getMessage() for one in caplog.records] == ["GET /path: attempt 1: HTTP 500; again in 0.00 s"]


FINAL_MESSAGES: list[tuple[Answer, type[CapillaryError], list[str]]] = [
    (http(b"{}", 500), ServerError, ["HTTP 500", "try again later", "2 attempts"]),
    (http(b"{}", 400), BadRequestError, ["HTTP 400", "a parameter is wrong", "1 attempt"]),
    (http(b"{}", 429, {"Retry-After": "500"}), RateLimitedError, ["HTTP 429", "lower Limits.rate", "wait of 500 s"]),
    (http(b"<p>", 200), DecodeError, ["an HTML page where JSON is due", "2 attempts"]),
    (Answer(b"", "close"), TransportError, ["the connection was lost", "2 attempts"]),
    (Answer(b"", "stall"), RequestTimeoutError, ["Timeouts.read", "raise it or ask for less", "2 attempts"]),
]


@pytest.mark.parametrize(("answer", "kind", "said_"), FINAL_MESSAGES, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_final_message_says_what_which_and_what_to_do(
    session_at: Make, answer: Answer, kind: type[CapillaryError], said_: list[str]
):
    async with RawServer(answer) as server:
        policy = RetryPolicy(attempts=2, backoff=0, throttle_backoff=0)
        session = session_at(server.url, retry=policy, timeouts=Timeouts(read=0.1))
        with pytest.raises(kind) as caught:
            await session.request("GET", "/v2/things/7")
    assert str(caught.value).startswith("GET /v2/things/7: ")
    assert all(part in str(caught.value) for part in said_), str(caught.value)


# --- what the quota costs and gives back ------------------------------------------------------------------------------


@pytest.mark.parametrize(("calls", "cost"), [(100, 1.35), (1750, 1.02)])
def test_an_outage_costs_thirty_five_requests_beyond_one_a_call(calls: int, cost: float):
    """As `RetryPolicy.quota` says."""
    retry = Retry(RetryPolicy(backoff=0), Timeouts(), Quota(500), Stats())
    sent = 0

    async def down(_: Request) -> Response:
        nonlocal sent
        sent += 1
        raise TransportError("reset")

    async def main() -> None:
        for _ in range(calls):
            with pytest.raises(TransportError):
                await retry(REQUEST, down)

    run(main)
    assert sent == calls + 35
    assert sent / calls == pytest.approx(cost, abs=0.001)


@pytest.mark.parametrize(("faults", "left"), [(0, 401), (1, 400), (2, 386), (3, 372)])
def test_a_call_that_ends_well_gives_back_what_its_last_retry_took(faults: int, left: int):
    """Or one token where it needed none."""
    quota = Quota(500)
    quota.left = 400
    retry = Retry(RetryPolicy(backoff=0), Timeouts(), quota, Stats())
    coming = [TransportError("reset")] * faults

    async def handler(_: Request) -> Response:
        if coming:
            raise coming.pop()
        return RIGHT

    async def main() -> None:
        await retry(REQUEST, handler)

    run(main)
    assert quota.left == left
