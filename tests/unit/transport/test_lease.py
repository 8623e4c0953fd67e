"""The turns of a shared rate, by values: their number, their times, and what is said where Redis gives none."""

import itertools

import pytest

from capillary_async import Rate, Timeouts
from capillary_async._transport.lease import Lease, cost_of, largest_lease
from capillary_async._transport.messages import CallState
from capillary_async._transport.retry_decision import NotSentError
from capillary_async.errors import ConnectError, DeadlineExceededError

ADDRESS = "redis://:s3kret@redis.internal/0"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease_of(clock: Clock, permits: int = 200, per: float = 1) -> Lease:
    return Lease(Rate(permits, per, shared=ADDRESS), clock=clock)


@pytest.mark.parametrize(
    ("permits", "per", "largest"),
    [
        (200, 1, 10), (1_000, 1, 10), (5_000, 1, 50), (10, 1, 10), (3, 1, 3), (100, 60, 1), (1, 60, 1), (1, 1, 1),
        (600, 60, 10), (1, 0.001, 10), (1_000_000, 1, 10_000),
    ],
)  # fmt: skip
def test_a_lease_is_ten_turns_but_no_more_than_a_second(permits: int, per: float, largest: int) -> None:
    """And a hundredth of a second's where that is more."""
    assert largest_lease(Rate(permits, per)) == largest


@pytest.mark.parametrize(
    ("permits", "per", "turns", "cost"),
    [(200, 1, 10, 50_000), (3, 1, 1, 333_334), (3, 1, 3, 1_000_000), (1, 60, 1, 60_000_000), (7, 0.1, 10, 142_858)],
)
def test_the_cost_of_turns_is_never_too_small(permits: int, per: float, turns: int, cost: int) -> None:
    """In whole microseconds, rounded up once per lease."""
    assert cost_of(Rate(permits, per), turns) == cost


def test_turns_are_taken_at_their_times(clock: Clock) -> None:
    """One interval apart, none before its time."""
    lease = lease_of(clock)
    assert lease.wait() == 0.0
    lease.granted(100.02, 3)
    assert lease.wait() == pytest.approx(0.02)
    clock.now = 100.02
    assert lease.wait() is None
    lease.took()
    assert lease.wait() == pytest.approx(0.005)
    clock.now = 100.03
    assert lease.wait() is None
    lease.took()
    assert lease.wait() is None
    lease.took()
    assert lease.wait() == 0.0


def test_a_turn_that_was_missed_is_lost(clock: Clock) -> None:
    """After half a second, or an interval, if that is more."""
    lease = lease_of(clock)
    lease.granted(100.0, 2)
    clock.now = 100.504
    assert lease.wait() is None
    assert len(lease) == 1
    slow = lease_of(clock, 1, 60)
    slow.granted(clock.now, 1)
    clock.now += 59
    assert slow.wait() is None
    clock.now += 2
    assert slow.wait() == 0.0


def test_no_more_turns_are_leased_than_calls_that_could_go(clock: Clock) -> None:
    """Nor while an answer is due, nor before a quarter of a lease is left."""
    lease = lease_of(clock)
    assert [lease.needed(waiting, 32) for waiting in (0, 1, 4, 10, 11, 500)] == [0, 1, 4, 10, 10, 10]
    assert [lease.needed(50, room) for room in (-1, 0, 3, 12)] == [0, 0, 3, 10]
    lease.asked = 100.0
    assert lease.needed(50, 50) == 0
    lease.granted(100.0, 10)
    assert lease.needed(50, 50) == 0
    for left, needed in ((3, 0), (2, 8), (1, 9), (0, 10)):
        while len(lease) > left:
            lease.took()
        assert lease.needed(50, 50) == needed, left


def test_turns_that_are_all_given_are_waited_for(clock: Clock) -> None:
    """Nothing is leased that is more than a minute away."""
    lease = lease_of(clock, 1, 60)
    lease.asked = 100.0
    lease.full(130.0)
    assert lease.wait() == pytest.approx(30)
    assert lease.needed(5, 5) == 0
    clock.now = 130.0
    assert lease.wait() == 0.0
    assert lease.needed(5, 5) == 1


def test_an_unused_turn_comes_back(clock: Clock) -> None:
    """But never more of them than a lease has."""
    lease = lease_of(clock, 1, 1)
    lease.granted(100.0, 1)
    lease.took()
    lease.unused()
    lease.unused()
    assert len(lease) == 1
    assert lease.wait() is None


def test_calls_wait_for_redis_as_long_as_they_may(clock: Clock) -> None:
    """From its first failure or their own beginning; a call that does not wait in outages has its own clock."""
    lease = lease_of(clock)
    patient, single = CallState(Timeouts(), bulk=True, max_wait=30.0), CallState(Timeouts())
    lease.granted(100.0, 1)
    lease.failed("ConnectionError: refused", final=True)
    assert lease.down
    clock.now = 129.9
    assert lease.refusal_for(patient, 90.0) is None
    clock.now = 130.0
    assert lease.refusal_for(single, 90.0) is None
    assert lease.refusal_for(None, 90.0) is None
    assert lease.refusal_for(patient, 101.0) is None
    refused = lease.refusal_for(patient, 90.0)
    assert isinstance(refused, NotSentError)
    error = refused.error
    assert isinstance(error, DeadlineExceededError)
    assert (error.kind, error.sent, error.outage, error.concerns_all_keys) == ("queue", False, True, True)
    assert "redis://redis.internal:6379/0" in error.message
    assert "ConnectionError: refused" in error.message
    assert "s3kret" not in error.message
    lease.granted(131.0, 1)
    assert lease.refusal_for(patient, 90.0) is None


def test_a_refusal_before_the_first_turn_ends_the_wait(clock: Clock) -> None:
    """A wrong password does not get right by waiting; one that is refused later may be changed just now."""
    lease = lease_of(clock)
    lease.failed("AuthenticationError: wrong", final=True)
    refused = lease.refusal_for(CallState(Timeouts()), 100.0)
    assert isinstance(refused, NotSentError)
    assert isinstance(refused.error, ConnectError)
    assert refused.error.kind == "shared-rate"
    lease.failed("ConnectionError: refused", final=False)
    assert lease.refusal_for(CallState(Timeouts()), 100.0) is None


def test_an_answer_that_is_overdue_is_said(clock: Clock) -> None:
    """A call may run out of time before the connection does."""
    lease = lease_of(clock)
    lease.asked = 100.0
    clock.now = 100.9
    assert not lease.down
    clock.now = 101.0
    assert lease.down
    assert "it has not answered yet" in lease.story
    clock.now = 130.0
    assert lease.refusal_for(CallState(Timeouts(), max_wait=30.0), 90.0) is not None
    lease.failed("TimeoutError", final=False)
    assert lease.refusal_for(CallState(Timeouts(), max_wait=30.0), 90.0) is not None
    lease.full(130.0)
    assert not lease.down


def test_the_report_names_redis(clock: Clock) -> None:
    """For progress lines."""
    lease = lease_of(clock)
    assert lease.report() is None
    lease.failed("TimeoutError", final=False)
    clock.now = 107.0
    report = lease.report()
    assert report is not None
    assert (report.seconds, report.probes, report.of) == (7.0, 1, " of Redis at redis://redis.internal:6379/0")


def test_turns_of_a_redis_that_forgets_follow_those_before(clock: Clock) -> None:
    """It gives turns from now on; the process keeps the distance to its own."""
    lease = lease_of(clock, permits=10)
    lease.granted(100.0, 10)
    lease.granted(100.0, 10)
    taken = []
    while len(lease):
        wait = lease.wait()
        clock.now += wait or 0.0
        taken.append(clock.now)
        lease.took()
    assert len(taken) == 20
    assert all(after - before == pytest.approx(0.1) for before, after in itertools.pairwise(taken))
