"""What a session may send now, as numbers: the limit, the gate, and what each end of a request teaches."""

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capillary_async import Limits, Rate, RetryPolicy, Timeouts
from capillary_async._transport import messages as message
from capillary_async._transport.adaptive_limit import AdaptiveLimit
from capillary_async._transport.messages import CallState
from capillary_async._transport.retry_decision import NotSentError
from capillary_async.errors import (
    APIError,
    AttemptRecord,
    BadRequestError,
    CapillaryError,
    ConnectError,
    CustomerNotFoundError,
    DeadlineExceededError,
    DecodeError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)

FIXED = settings(derandomize=True, database=None, deadline=None)


class Paced:
    """A pace on a clock that is set by hand, with requests that come and end when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None, *, jitter: bool = False, **options: Any) -> None:
        self.now = 1000.0
        policy = options.pop("policy", RetryPolicy())
        dice = random.Random(7)
        uniform = dice.uniform if jitter else (lambda low, _: low)
        self.pace = AdaptiveLimit(Limits(**options), policy, clock=lambda: self.now, uniform=uniform)
        if monkeypatch is not None:
            monkeypatch.setattr(message, "time", SimpleNamespace(monotonic=lambda: self.now))

    def send(self) -> bool:
        """Take a permit: whether it is the probe's."""
        assert self.pace.wait() is None
        self.pace.held.add(object())
        if self.pace.gate.state is None:
            return False
        self.pace.gate.state.prober = "loop"
        return True

    def end(self, error: CapillaryError | None = None, *, probe: bool = False, call: CallState | None = None) -> None:
        """One of the active requests ends."""
        self.pace.held.pop()
        if error is None:
            self.pace.answered(probe=probe)
        else:
            self.pace.failed(error, call, probe=probe)

    def all(self, error: CapillaryError | None = None) -> int:
        """As many requests as may go, and each of them ends so."""
        number = 0
        while self.pace.wait() is None:
            self.send()
            number += 1
        for _ in range(number):
            self.end(error)
        return number


def too_many(after: float | None = None, **given: Any) -> RateLimitedError:
    return RateLimitedError("too many", **{"status": 429, "retry_after": after, **given})


def busy(after: float | None = None) -> ServerError:
    return ServerError("busy", status=503, retry_after=after)


# --- limit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "most", "first"), [(8, 32, 8), (8, 4, 4), (1, 1, 1), (64, 32, 32)])
def test_it_starts_where_it_is_told_and_never_above_the_most(start: int, most: int, first: int):
    assert Paced(concurrency_start=start, concurrency=most).all() == first


def test_it_grows_by_one_for_a_limit_of_answers():
    """8, 9, 10 ... 32, and no further."""
    paced, went = Paced(), []
    for _ in range(30):
        paced.now += 0.1
        went.append(paced.all())
    assert went == [*range(8, 32), *[32] * 6]


def test_it_grows_at_most_every_100_ms_however_fast_the_answers_are():
    paced = Paced()
    for _ in range(1000):
        paced.now += 0.001
        paced.all()
    assert 8 + 9 <= paced.pace.limit <= 8 + 10


def test_it_grows_only_while_it_is_used_up():
    """Seven at a time for an hour show nothing of eight."""
    paced = Paced()
    for _ in range(1000):
        paced.now += 1
        for _ in range(7):
            paced.send()
        for _ in range(7):
            paced.end()
    assert paced.pace.limit == 8


@pytest.mark.parametrize(
    "error",
    [
        too_many(), busy(), too_many(1.0), busy(1.0), APIError(status=200, code=429),
        RequestTimeoutError(kind="timeout"), ConnectError(kind="connect-timeout"),
        DeadlineExceededError(kind="deadline"),
    ],
    ids=repr,
)  # fmt: skip
def test_refusals_and_timeouts_cut_it_once_in_500_ms(error: CapillaryError):
    """Down to one, and what comes back together cuts but once."""
    limits, paced = [], Paced(concurrency_start=32)
    for _ in range(9):
        for step in (0.0, 0.25, 0.25 - 2**-7):
            paced.now += step
            paced.pace.held.add(object())
            paced.end(error)
        limits.append(paced.pace.limit)
        paced.now += 2**-7  # half a second to the last bit
    assert limits == [22, 15, 10, 7, 4, 2, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        TransportError(), ConnectError(kind="connect"), ServerError(status=500), BadRequestError(status=400),
        CustomerNotFoundError(status=404, code=8015), DecodeError("half", malformed=True),
        DeadlineExceededError(kind="queue"),
    ],
    ids=repr,
)  # fmt: skip
def test_other_faults_do_not(error: CapillaryError):
    paced = Paced()
    paced.all(error)
    assert paced.pace.limit >= 8
    assert paced.pace.gate.state is None


@pytest.mark.parametrize(
    "error", [TransportError(), ServerError(status=500), DecodeError("half", malformed=True)], ids=repr
)
def test_faults_of_the_server_are_no_answers(error: CapillaryError):
    """Nothing in them says that it could take more."""
    paced = Paced()
    for _ in range(5):
        paced.now += 1
        paced.all(error)
    assert paced.pace.limit == 8


def test_the_end_of_a_call_in_a_later_attempt_is_not_the_servers_slowness():
    """Before it, the call's time had gone elsewhere, e.g. into our own queue or a Retry-After."""
    ended, paced = DeadlineExceededError(kind="deadline"), Paced()
    later = CallState(Timeouts(), history=[AttemptRecord(1, "status", 500)])
    for call, limit in ((later, 8), (CallState(Timeouts()), 5)):
        paced.pace.held.add(object())
        paced.end(ended, call=call)
        assert paced.pace.limit == limit


def test_refusals_of_arguments_are_answers_too():
    """A list of unknown customers is read no slower than one of known ones."""
    paced = Paced()
    for _ in range(5):
        paced.now += 1
        paced.all(CustomerNotFoundError(status=404, code=8015))
    assert paced.pace.limit == 13


def test_after_a_cut_it_grows_again():
    paced = Paced()
    paced.all(busy())
    assert paced.pace.limit == 5
    for _ in range(3):
        paced.now += 0.101
        paced.all()
    assert paced.pace.limit == 8


@FIXED
@given(
    st.lists(st.tuples(st.sampled_from(["answer", "503", "reset"]), st.floats(0, 2)), max_size=80), st.integers(1, 40)
)
def test_it_stays_between_one_and_the_most(story: list[tuple[str, float]], most: int):
    """Whatever comes of the requests, and whenever."""
    paced = Paced(concurrency=most)
    for outcome, later in story:
        paced.now += later
        paced.all({"answer": None, "503": busy(), "reset": TransportError()}[outcome])
        assert 1 <= paced.pace.limit <= most
        assert paced.pace.active == 0


# --- gate -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [too_many(10.0), busy(10.0), APIError(status=200, code=429, retry_after=10.0)], ids=repr
)
def test_one_refusal_shuts_it_until_its_time_and_then_one_may_try(error: CapillaryError):
    paced = Paced()
    paced.send()
    paced.end(error)
    assert paced.pace.wait() == pytest.approx(10)
    paced.now += 9.999
    assert paced.pace.wait() == pytest.approx(0.001)
    paced.now += 0.0011
    assert paced.send() is True
    assert paced.pace.wait() == 0.0
    paced.end(probe=True)
    assert paced.all() == 5


def test_the_latest_time_told_counts():
    """Those in flight were refused later; a shorter time that came behind does not open it earlier."""
    paced = Paced()
    for _ in range(3):
        paced.send()
    for after in (2.0, 5.0, 1.0):
        paced.end(too_many(after))
    assert paced.pace.wait() == pytest.approx(5)


@pytest.mark.parametrize(
    "end",
    [None, BadRequestError(status=400), ServerError(status=500), TransportError(), RequestTimeoutError()],
    ids=repr,
)
def test_ends_of_requests_of_before_do_not_open_it(end: CapillaryError | None):
    """They were sent before the refusal, and say nothing of the time it told."""
    paced = Paced()
    paced.send()
    paced.send()
    paced.end(too_many(5.0))
    paced.end(end)
    assert paced.pace.wait() == pytest.approx(5)


def test_the_time_told_is_kept_with_at_most_a_fiftieth_more():
    paced = Paced(jitter=True)
    waits = set()
    for _ in range(50):
        paced.send()
        paced.end(busy(10.0))
        waits.add(paced.pace.wait())
        paced.now += 11
        assert paced.send()
        paced.end(probe=True)
    assert len(waits) == 50
    assert all(10 <= wait <= 10.2 for wait in waits if wait is not None)


def test_the_jitter_leaves_the_refused_call_half_of_its_time(monkeypatch: pytest.MonkeyPatch):
    paced = Paced(monkeypatch, jitter=True)
    call = CallState(Timeouts(call=10.1))
    call.start()
    paced.send()
    paced.end(busy(10.0), call=call)
    assert paced.pace.wait() == pytest.approx(10.05)


@pytest.mark.parametrize("again", [too_many(7.0), busy(7.0)], ids=repr)
def test_a_probe_refused_again_keeps_it_shut_for_the_new_time(again: CapillaryError):
    paced = Paced()
    paced.send()
    paced.end(busy(5.0))
    since = paced.pace.gate.state.since if paced.pace.gate.state else None
    for _ in range(3):
        paced.now += (paced.pace.wait() or 0) + 0.001
        assert paced.send()
        paced.end(again, probe=True)
        assert paced.pace.wait() == pytest.approx(7)
        assert paced.pace.gate.state is not None
        assert paced.pace.gate.state.since == since


@pytest.mark.parametrize(
    "end",
    [None, BadRequestError(status=400), ServerError(status=500), TransportError(), RequestTimeoutError()],
    ids=repr,
)
def test_any_other_end_of_the_probe_opens_it(end: CapillaryError | None):
    """The time is over, and what is wrong now is not the rate: the retries' business."""
    paced = Paced()
    paced.send()
    paced.end(busy(5.0))
    paced.now += 6
    assert paced.send()
    paced.end(end, probe=True)
    assert paced.pace.gate.state is None


@pytest.mark.parametrize("sent", [True, False])
def test_a_probe_that_is_cancelled_hands_its_part_on(sent: bool):
    paced = Paced()
    paced.send()
    paced.end(busy(5.0))
    paced.now += 6
    for _ in range(3):
        assert paced.send()
        paced.pace.held.pop()
        paced.pace.dropped(probe=True, sent=sent)
    assert paced.send()
    paced.end(probe=True)
    assert paced.pace.gate.state is None


# --- without Retry-After ----------------------------------------------------------------------------------------------


def test_three_429_in_a_row_shut_it_for_a_backoff_of_our_own():
    """Half to all of 1, 2, 4, 8, 16, 20, 20 s; here with the least of the dice."""
    paced, waits = Paced(), []
    for _ in range(3):
        paced.send()
        assert paced.pace.gate.state is None
        paced.end(too_many())
    for _ in range(7):
        waits.append(paced.pace.wait())
        paced.now += (paced.pace.wait() or 0) + 1e-6
        assert paced.send()
        paced.end(too_many(), probe=True)
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 10, 10])
    paced.now += 11
    paced.send()
    paced.end(probe=True)
    for _ in range(3):
        paced.send()
        paced.end(too_many())
    assert paced.pace.wait() == pytest.approx(0.5)  # and the next time begins anew


def test_single_ones_and_503_are_faults_of_their_requests():
    """A good answer between them says that the rate is not passed; a proxy's 503 says that the service is down."""
    paced = Paced()
    for _ in range(20):
        paced.now += 1
        for error in (too_many(), too_many(), None):
            paced.send()
            paced.end(error)
    for _ in range(20):
        paced.send()
        paced.end(busy())
    assert paced.pace.gate.state is None


def test_refusals_of_before_do_not_prolong_it():
    paced = Paced()
    paced.all(too_many())
    assert paced.pace.wait() == pytest.approx(0.5)


def test_a_probe_refused_without_a_time_keeps_it_shut_for_our_own():
    paced = Paced()
    paced.send()
    paced.end(busy(5.0))
    paced.now += 6
    paced.send()
    paced.end(busy(), probe=True)
    assert paced.pace.wait() == pytest.approx(0.5)


def test_no_backoff_of_our_own_where_the_user_wants_none():
    paced = Paced(policy=RetryPolicy(throttle_backoff=0))
    for _ in range(30):
        paced.send()
        paced.end(too_many())
    assert paced.pace.gate.state is None


# --- who may wait at the gate -----------------------------------------------------------------------------------------


def shut_for(paced: Paced, seconds: float) -> Paced:
    paced.send()
    paced.end(too_many(seconds))
    return paced


def test_a_call_begun_waits_within_its_deadline(monkeypatch: pytest.MonkeyPatch):
    paced = Paced(monkeypatch)
    call = CallState(Timeouts(call=30))
    call.start()
    shut_for(paced, 25)
    assert paced.pace.gate.refusal_for(call, paced.now) is None
    paced.now += 3
    shut_for_probe(paced, 40)
    error = paced.pace.gate.refusal_for(call, paced.now)
    assert isinstance(error, DeadlineExceededError)
    assert error.kind == "queue"


def shut_for_probe(paced: Paced, seconds: float) -> None:
    """One in flight from before is refused too."""
    paced.pace.held.add(object())
    paced.end(too_many(seconds))


def test_a_call_not_begun_waits_at_the_gate_for_as_long_as_a_call_may_take(monkeypatch: pytest.MonkeyPatch):
    """In one piece or in several: refused probes do not make it wait for ever."""
    paced = shut_for(Paced(monkeypatch), 100)
    since, fresh = paced.now, CallState(Timeouts(call=180))
    assert paced.pace.gate.refusal_for(fresh, since) is None
    assert isinstance(paced.pace.gate.refusal_for(CallState(Timeouts(call=99)), since), NotSentError)
    paced.now += 100
    paced.send()
    paced.end(too_many(100), probe=True)
    error = paced.pace.gate.refusal_for(fresh, since)
    assert isinstance(error, NotSentError)
    assert type(error.error) is RateLimitedError
    assert error.error.retry_after == pytest.approx(100)
    assert "not sent" in error.message
    assert "asks for a wait of 100.0 s more; waiting would pass Timeouts.call" in error.message
    assert paced.pace.gate.refusal_for(fresh, paced.now) is None  # who came later has all of it


def test_the_time_in_the_queue_before_the_gate_went_shut_does_not_count(monkeypatch: pytest.MonkeyPatch):
    paced = Paced(monkeypatch)
    since = paced.now
    paced.now += 3600
    shut_for(paced, 100)
    assert paced.pace.gate.refusal_for(CallState(Timeouts()), since) is None


@pytest.mark.parametrize("told", [120.1, 3600.0, 1e20])
def test_beyond_retry_after_max_nobody_waits_and_one_looks_from_time_to_time(told: float):
    """After 120 s, not after an hour or a thousand years: one odd answer does not end a session."""
    paced = shut_for(Paced(), told)
    for call in (None, CallState(Timeouts()), CallState(Timeouts(call=1e6))):
        error = paced.pace.gate.refusal_for(call, paced.now)
        assert isinstance(error, NotSentError)
        assert isinstance(error.error, RateLimitedError)
        assert error.error.retry_after == pytest.approx(told)
        assert "would pass RetryPolicy.retry_after_max" in error.message
    assert paced.pace.wait() == pytest.approx(120)
    paced.now += 120.01
    assert paced.pace.gate.refusal_for(None, paced.now) is None
    assert paced.send()
    assert paced.pace.gate.refusal_for(None, paced.now) is not None  # while the probe is under way
    paced.end(probe=True)
    assert paced.pace.gate.refusal_for(None, paced.now) is None


def test_just_retry_after_max_is_waited_for():
    """The longest wait that is obeyed is obeyed."""
    paced = shut_for(Paced(), 120)
    assert paced.pace.gate.refusal_for(CallState(Timeouts(call=1e6)), paced.now) is None
    assert paced.pace.wait() == pytest.approx(120)


def test_with_no_patience_at_all_a_minute_is_the_longest():
    """`retry_after_max=0`: no wait told is obeyed by a call, and the server is still not run down."""
    policy = RetryPolicy(retry_after_max=0)
    assert shut_for(Paced(policy=policy), 5).pace.wait() == pytest.approx(5)
    assert shut_for(Paced(policy=policy), 500).pace.wait() == pytest.approx(60)


def test_an_error_of_our_own_backoff_names_no_time():
    """The server did not say one."""
    paced = Paced()
    for _ in range(3):
        paced.send()
        paced.end(too_many())
    error = paced.pace.gate.refusal_for(CallState(Timeouts(call=0.1)), paced.now)
    assert isinstance(error, NotSentError)
    assert isinstance(error.error, RateLimitedError)
    assert error.error.retry_after is None
    assert "with HTTP 429; waiting would pass Timeouts.call" in error.message


# --- rate beside the rest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["good", "refused", "failed", "cancelled", "lost"])
def test_every_end_of_a_request_uses_the_rate_up_alike(end: str):
    """Answered, failed, cancelled, or lost with its loop: each may have been counted by the server."""
    paced = Paced(concurrency_start=32, rate=Rate(1, per=10))
    paced.send()
    match end:
        case "good" | "refused" | "failed":
            paced.end({"good": None, "refused": BadRequestError(status=400), "failed": TransportError()}[end])
        case "cancelled":
            paced.pace.held.pop()
            paced.pace.dropped(probe=False, sent=True)
        case _:
            paced.pace.held.pop()
            paced.pace.lost(1)
    assert paced.pace.wait() == pytest.approx(10)
    paced.now += 10
    assert paced.pace.wait() is None


def test_the_rates_permits_of_many_ends_are_all_used_up():
    """And those of requests that were never sent are not."""
    paced = Paced(concurrency_start=32, rate=Rate(5, per=10))
    for _ in range(3):
        paced.send()
    for _ in range(3):
        paced.pace.held.pop()
    paced.pace.lost(3)
    assert paced.all() == 2
    assert paced.pace.wait() == pytest.approx(10)
    paced.now += 10
    for _ in range(5):
        paced.send()
        paced.pace.held.pop()
        paced.pace.dropped(probe=False, sent=False)
    assert paced.all() == 5


@FIXED
@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 30), st.floats(0, 3)), max_size=40))
def test_a_wait_told_is_no_longer_than_need_be(permits: int, story: list[tuple[int, float]]):
    """After it, one more may go; and never is one told to wait for nothing."""
    paced = Paced(concurrency=10**6, concurrency_start=10**6, rate=Rate(permits, per=1.0))
    for number, later in story:
        paced.now += later
        for _ in range(number):
            wait = paced.pace.wait()
            if wait is None:
                paced.send()
                paced.end()
            else:
                assert 0 < wait <= 1 + 1e-9  # the clock is far from 0, where floats are coarse
                assert math.isfinite(wait)
                paced.now += wait
                paced.now = math.nextafter(paced.now, math.inf)
