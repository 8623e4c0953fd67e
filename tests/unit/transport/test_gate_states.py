"""The gate as a value: open, shut until a time, half open with one probe; nothing waits and nothing is sent."""

import pytest

from capillary_async import AttemptRecord, RateLimitedError, RetryPolicy, ServerError, Timeouts, TransportError
from capillary_async._transport.gate import GATE_JITTER, IN_A_ROW, Gate
from capillary_async._transport.messages import CallState, Request
from capillary_async._transport.outage import Outages as OutageRules
from capillary_async._transport.retry_decision import NotSentError


class Timed:
    """A gate and the clock that it reads."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.gate = Gate(RetryPolicy(), clock=lambda: self.now, uniform=lambda low, high: high)

    def refuse(self, after: float | None = None, *, probe: bool = False) -> None:
        """A request is refused with 429."""
        self.gate.failed(RateLimitedError("later", status=429, retry_after=after), None, probe=probe)


def test_an_open_gate_delays_nothing_and_needs_no_probe() -> None:
    """No wait, no probe, no refusal."""
    gate = Timed().gate
    assert (gate.wait(), gate.probe_granted("a"), gate.refusal_for(None, 0.0)) == (None, False, None)


def test_a_shut_gate_becomes_half_open_at_its_time_and_opens_after_a_good_answer() -> None:
    """One probe goes; a good answer to another request changes nothing."""
    timed = Timed()
    timed.refuse(10.0)
    assert timed.gate.wait() == pytest.approx(10 * (1 + GATE_JITTER))
    timed.now += 10.3
    assert timed.gate.wait() is None
    assert timed.gate.probe_granted("a")
    assert timed.gate.wait() == 0.0
    timed.gate.succeeded(probe=False)
    assert timed.gate.state is not None
    timed.gate.succeeded(probe=True)
    assert timed.gate.state is None


def test_a_dropped_probe_leaves_its_part_to_the_next() -> None:
    """The permit of another request drops nothing."""
    timed = Timed()
    timed.refuse(10.0)
    timed.now += 11
    timed.gate.probe_granted("a")
    timed.gate.probe_dropped("b")
    assert timed.gate.wait() == 0.0
    timed.gate.probe_dropped("a")
    assert timed.gate.wait() is None


def test_refusals_without_a_time_shut_it_only_in_a_row_and_for_longer_each_time() -> None:
    """A good answer between them starts the count again; refused probes double the pause."""
    timed = Timed()
    for _ in range(IN_A_ROW - 1):
        timed.refuse()
    timed.gate.succeeded(probe=False)
    assert timed.gate.state is None
    for _ in range(IN_A_ROW):
        timed.refuse()
    pauses: list[float | None] = []
    for _ in range(3):
        pauses.append(timed.gate.wait())
        timed.now += pauses[-1] or 0.0
        assert timed.gate.probe_granted("a")
        timed.refuse(probe=True)
    assert pauses == pytest.approx([1.0, 2.0, 4.0])


def test_a_shorter_time_never_moves_a_longer_one() -> None:
    """It stays shut for what was asked first, and `since` is that of the first refusal."""
    timed = Timed()
    timed.refuse(60.0)
    timed.now += 1
    timed.refuse(5.0)
    assert timed.gate.state is not None
    assert (timed.gate.state.since, timed.gate.state.retry_at) == (1_000.0, 1_060.0)
    timed.refuse(100.0)
    assert (timed.gate.state.since, timed.gate.state.retry_at) == (1_000.0, 1_101.0)


def test_a_wait_beyond_the_longest_is_refused_at_once_until_a_probe_may_check_it() -> None:
    """Unsent, with the time that is left."""
    timed = Timed()
    timed.refuse(3_600.0)
    timed.now += 100
    refusal = timed.gate.refusal_for(None, timed.now)
    assert isinstance(refusal, NotSentError)
    assert isinstance(refusal.error, RateLimitedError)
    assert (refusal.error.sent, refusal.error.retry_after) == (False, 3_500.0)
    timed.now += 20
    assert timed.gate.refusal_for(None, timed.now) is None
    assert timed.gate.wait() is None


# --- outages ----------------------------------------------------------------------------------------------------------


DOWN = ServerError("down", status=503)
CONTROL = Request("GET", "/answered")


class Outages(Timed):
    """A gate, and calls that give up."""

    @property
    def outages(self) -> OutageRules:
        return self.gate.outages

    def call(self, max_wait: float = 180.0, *attempts: int | None) -> CallState:
        call = CallState(Timeouts(), max_wait=max_wait, throttled_tries=3, seen=self.outages.answers)
        call.history = [AttemptRecord(number, "status", status) for number, status in enumerate(attempts, 1)]
        return call

    def begin(self, max_wait: float = 180.0) -> None:
        """A call is refused its retry."""
        self.outages.begins_again(self.call(max_wait), DOWN, self.outages.answers, reason="quota", alone=False)

    def fail(self) -> float:
        """Wait for the next probe, which is not answered; gives the wait."""
        pause = self.gate.wait() or 0.0
        self.now += pause
        assert self.gate.probe_granted("probe")
        self.outages.probe_failed("probe")
        return pause


def test_probes_of_an_outage_go_after_1_2_5_10_and_20_seconds() -> None:
    """Counted from the last answer, for as long as the call that noticed it waits; then every call is refused."""
    gate = Outages()
    gate.begin()
    assert [gate.fail() for _ in range(8)] == pytest.approx([1, 2, 5, 10, 20, 20, 20, 20])
    gate = Outages()
    gate.begin(30.0)
    call = gate.call(30.0)
    pauses: list[float] = []
    while (refused := gate.gate.refusal_for(call, 0.0)) is None:
        pauses.append(gate.fail())
    assert pauses == pytest.approx([1, 2, 5, 10, 12])
    assert isinstance(refused, NotSentError)
    assert (refused.error.sent, type(refused.error)) == (False, ServerError)


def test_neither_noticing_an_outage_nor_a_slow_probe_puts_off_the_next() -> None:
    """Maximum 3 s of noticing count; the next probe goes at least half a second after a slow one."""
    gate = Outages()
    gate.outages.answered()
    gate.now += 2
    gate.begin()
    assert gate.gate.wait() == pytest.approx(0.5)
    gate.now += 0.5
    assert gate.gate.probe_granted("slow")
    gate.now += 3
    gate.outages.probe_failed("slow")
    assert gate.gate.wait() == pytest.approx(0.5)


def test_an_outage_ends_with_any_answer_and_nothing_else_ends_it() -> None:
    """An answer under way counts as well as that to a probe; opening after refusals does not."""
    gate = Outages()
    gate.begin()
    gate.gate.open()
    assert gate.outages.present is not None
    gate.gate.succeeded(probe=False)
    assert (gate.outages.present, gate.gate.wait()) == (None, None)


def test_even_probes_repeat_what_was_answered_and_odd_ones_send_what_waits() -> None:
    """Where nothing was answered before, all send what waits."""
    gate = Outages()
    gate.begin()
    gate.now += 1
    gate.gate.probe_granted("a")
    assert gate.gate.control_for("a") is None
    gate = Outages()
    gate.outages.control = CONTROL
    gate.begin()
    gate.now += 1
    gate.gate.probe_granted("a")
    sent = [gate.gate.control_for("a")]
    gate.outages.probe_failed("a")
    gate.gate.probe_granted("b")
    sent.append(gate.gate.control_for("b"))
    assert (sent, gate.gate.control_for("a")) == ([CONTROL, None], None)


def test_single_calls_go_once_a_second_and_are_refused_unsent_between() -> None:
    """The first goes at once, and none of them moves the probes of those that wait."""
    gate = Outages()
    gate.begin()
    assert gate.gate.wait(single=True) is None
    assert not gate.gate.probe_granted("single", single=True)
    gate.now += 0.25
    assert gate.gate.wait(single=True) == 0.75
    refused = gate.gate.refusal_for(gate.call(0.0), gate.now)
    assert isinstance(refused, NotSentError)
    assert (refused.error.sent, refused.error.retry_after, refused.error.outage) == (False, 0.75, False)
    assert gate.gate.wait() == 0.75


@pytest.mark.parametrize(
    ("reason", "alone", "control", "others", "again", "down"),
    [
        ("quota", False, True, False, True, True),  # no request was answered since it began
        ("quota", False, True, True, None, False),  # one was: the next answer shows whether it fails by itself
        ("quota", True, True, False, None, False),  # the control shows it
        ("quota", True, False, True, True, True),
        ("attempts", False, True, False, None, False),  # others are under way
        ("attempts", True, True, False, None, False),
        ("attempts", True, False, False, True, True),  # nothing was ever answered
        ("retry-after", True, True, False, False, False),
    ],
)
def test_a_call_that_gave_up_is_judged_by_the_answers_of_others(
    *, reason: str, alone: bool, control: bool, others: bool, again: bool | None, down: bool
) -> None:
    """It begins again in an outage, waits while others may be answered, and else has its own error."""
    gate = Outages()
    call = gate.call()
    gate.outages.control = CONTROL if control else None
    if others:
        gate.outages.answered()
    assert gate.outages.begins_again(call, DOWN, gate.outages.answers, reason=reason, alone=alone) is again
    assert (gate.outages.present is not None) is down
    gate.outages.begin(DOWN)
    assert gate.outages.begins_again(call, DOWN, gate.outages.answers, reason=reason, alone=alone) is True


@pytest.mark.parametrize("status", [429, 500, 504, 200])
def test_a_lone_call_that_had_an_http_answer_is_no_outage(status: int) -> None:
    """The service answers, if only so: it may be the fault of the request."""
    gate = Outages()
    assert gate.outages.begins_again(gate.call(180.0, None, status), DOWN, 0, reason="attempts", alone=True) is False
    assert gate.outages.present is None


def test_the_error_of_a_token_is_an_outage_whose_probes_repeat_no_other_request() -> None:
    """The service answers those that have a token; without one nothing is sent."""
    gate = Outages()
    gate.outages.control = CONTROL
    fault = ServerError("down", status=503)
    fault.attempts = 1
    gate.outages.answered()
    assert gate.outages.begins_again(gate.call(), fault, 0, reason="final", alone=False) is True
    gate.now += 1
    gate.gate.probe_granted("probe")
    assert gate.gate.control_for("probe") is None


def test_a_call_that_fails_while_others_are_answered_begins_again_three_times() -> None:
    """Where its retry was refused, or 429; what used up its attempts has its own error at once."""
    gate = Outages()
    call = gate.call()
    later = RateLimitedError("later", status=429)
    gate.outages.answered()
    assert gate.outages.begins_again(call, DOWN, 0, reason="quota", alone=False) is True
    assert gate.outages.begins_again(call, later, 0, reason="attempts", alone=False) is True
    assert gate.outages.begins_again(call, TransportError("cut"), 0, reason="attempts", alone=False) is False
    for _ in range(3):
        call.begin_again()
        gate.outages.answered()
        gate.outages.attempt_begins(call)
    assert call.tries == 3
    assert gate.outages.begins_again(call, DOWN, 0, reason="quota", alone=False) is False
    assert gate.outages.present is None


def test_an_outage_is_no_try_of_the_calls_that_wait_in_it_unless_the_first_probe_ends_it() -> None:
    """Where the control was answered at once, there was none."""
    for failed, tries in ((True, 0), (False, 1)):
        gate = Outages()
        call = gate.call()
        gate.begin()
        call.begin_again()
        if failed:
            gate.fail()
        gate.outages.answered()
        gate.outages.attempt_begins(call)
        assert call.tries == tries


@pytest.mark.parametrize(
    ("attempts", "quota", "down"),
    [((None, None), False, True), ((None, 500), False, False), ((None, 500), True, True)],
)
def test_a_single_call_that_gave_up_is_an_outage_where_nothing_answers(
    attempts: tuple[int | None, ...], quota: bool, down: bool
) -> None:
    """Not where something answered it, which may be the fault of its request."""
    gate = Outages()
    gate.outages.control = CONTROL
    gate.outages.notice(gate.call(0.0, *attempts), DOWN, quota=quota)
    assert (gate.outages.present is not None) is down
