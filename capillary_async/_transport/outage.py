"""Outages: whether the service answers, which requests may check that while it does not, and which calls begin again.

Invariant: pure. Nothing waits, nothing is locked, and no clock is read but the one handed in. Part of `Gate`; called by
`RequestLimiter` and `PatientCalls` under the limiter's lock.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from capillary_async._priority import TRIES
from capillary_async._transport.retry_decision import NotSentError
from capillary_async.errors import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._transport.messages import CallState, Request
    from capillary_async.errors import CapillaryError

__all__ = ["Outage", "OutageReport", "Outages"]

PROBES = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds between the probes; the last one repeats
NOTICED = 3.0  # maximum seconds of noticing an outage that count into its first pauses
LEAST = 0.5  # seconds between the end of a slow probe and the next one
SINGLE_EVERY = 1.0  # seconds between two single calls that are let through
_ROUNDING = 1e-6
_NO_ANSWER = frozenset({None, 502, 503})  # of an attempt: no status, or a proxy's that reaches no service


@define(eq=False)
class Outage:
    """An outage, and when the next request may check whether it is over.

    Attributes:
        error: The error of the call that noticed it.
        reason: The short text of that error, before it has the story of its call.
        since: When it was noticed.
        due: When the last probe was due, or when a request was last answered.
        until: When the next probe may go.
        number: Of the next probe, from 0: even ones repeat `control`, odd ones send a waiting call.
        control: The request that was answered last; None where all probes send a waiting call.
        confirmed: Whether a probe failed.
        last: When the first call that waits gives up: a probe goes just before that.
        single: When the next single call may go.
        prober: The permit of the probe under way.
    """

    error: CapillaryError
    reason: str
    since: float
    due: float
    until: float = 0.0
    number: int = 0
    control: Request | None = None
    confirmed: bool = False
    last: float | None = None
    single: float = 0.0
    prober: Any = None

    def plan(self, now: float) -> None:
        """Set the time of the next probe: a pause after the last one was due, at least half a second ahead."""
        pause = PROBES[min(self.number, len(PROBES) - 1)]
        late = now - self.due
        self.until = now + max(pause - late, LEAST) if late > LEAST else self.due + pause
        if self.last is not None and now < self.last - _ROUNDING < self.until:
            self.until = self.last

    def failed(self, now: float) -> None:
        """The probe was not answered: the next one goes later."""
        self.prober, self.confirmed = None, True
        self.due += PROBES[min(self.number, len(PROBES) - 1)]
        self.number += 1
        self.plan(now)

    def wait(self, now: float, *, single: bool) -> float | None:
        """None if a request may go as a probe; else the seconds until one may (0.0: when the present probe ends)."""
        if self.prober is not None and not single:
            return 0.0
        left = (self.single if single else self.until) - now
        return left if left > 0 else None

    def granted(self, permit: Any, now: float, *, single: bool) -> None:
        """The request with this permit goes as a probe; a single call goes beside the others' probes."""
        if single:
            self.single = now + SINGLE_EVERY
        else:
            self.prober = permit

    def refusal_for(self, call: CallState | None, since: float, now: float) -> NotSentError | None:
        """The error of a call that must not wait, or has waited for long enough; None if it may wait."""
        if call is None or not call.max_wait:
            return self._refusal(now, 0.0, self.single) if self.wait(now, single=True) is not None else None
        ends = max(self.since, since) + call.max_wait
        if self.last is None:
            self.last = ends
        # Its last probe goes before it gives up.
        over = now >= ends - _ROUNDING and self.prober is None and self.wait(now, single=False) is not None
        return self._refusal(now, call.max_wait, self.until) if over else None

    def _refusal(self, now: float, waited: float, until: float) -> NotSentError:
        error = copy(self.error)
        error.__cause__ = self.error
        error.attempts, error.history, error.quota_exhausted = 0, (), False
        error.key = error.position = None
        left = max(0.0, until - now)
        silent = f"not sent: the service has answered no request for {now - self.since:.1f} s ({self.reason})"
        then = f"the call has waited for {waited:g} s" if waited else f"the next one may go in {left:.1f} s"
        error.args = (f"{silent}, and {then}",)
        error.sent, error.retry_after = False, left
        return NotSentError(error)


@frozen
class OutageReport:
    """An outage, as it is shown.

    Attributes:
        error: The error of the call that noticed it.
        since: When it was noticed, in seconds of the session's clock.
        seconds: For how long it has lasted.
        probes: How many requests were sent since to check that.
        retry_in: Seconds until the next one.
        of: What does not answer, as it follows "no answer"; empty for the service.
    """

    error: CapillaryError
    since: float
    seconds: float
    probes: int
    retry_in: float
    of: str = ""


class Outages:
    """What a session knows of outages: it notices them by the calls that give up, and any answer ends one.

    A call that gave up failed by itself where others are answered; where none is, the service is down. What shows that
    there are no others to be answered is the control: the request that was answered last, sent again.

    Attributes:
        present: The outage; None where there is none.
        answers: How many requests were answered, with a definitive error too.
        heard: Whether a request other than for a token was answered with a definitive error.
        control: The request that was answered last.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.present: Outage | None = None
        self.answers = 0
        self.heard = False
        self.control: Request | None = None
        self._clock = clock
        self._answered_at: float | None = None
        self._recovered = 0  # `answers` at the end of the last outage in which a probe failed

    def answered(self) -> None:
        """The service answered a request, with a definitive error at least: there is no outage."""
        self.answers += 1
        self._answered_at = self._clock()
        if self.present is not None:
            if self.present.confirmed:
                self._recovered = self.answers
            self.present = None

    def begin(self, error: CapillaryError, *, confirmed: bool = False) -> None:
        """Begin an outage, unless there is one.

        Args:
            error: Of the call that noticed it.
            confirmed: Whether the control was not answered.
        """
        control = None if error.attempts else self.control  # it shows nothing of the service that gives tokens
        if self.present is None:
            now = self._clock()
            due = now if self._answered_at is None else max(self._answered_at, now - NOTICED)
            reason = error.message.partition("; ")[0]
            self.present = Outage(error, reason, now, due, control=control, confirmed=confirmed, single=now)
            self.present.plan(now)

    def probe_failed(self, permit: Any) -> None:
        """The request with this permit was not answered; if it was the probe, the next one goes later."""
        if self.present is not None and self.present.prober is permit:
            self.present.failed(self._clock())

    def report(self) -> OutageReport | None:
        """The outage, to be shown; None where there is none."""
        outage = self.present
        if outage is None:
            return None
        now = self._clock()
        return OutageReport(outage.error, outage.since, now - outage.since, outage.number, max(0.0, outage.until - now))

    # --- calls that give up -------------------------------------------------------------------------------------------

    def attempt_begins(self, call: CallState) -> None:
        """Note what was answered when a call begins, or begins again; in the second case it has one try less.

        Where others were answered at the end of an outage, which the call did not cause, that is no try.
        """
        if call.this_round:
            return
        if call.rounds and self.answers > call.seen and self._recovered <= call.seen:
            call.tries += 1
        call.seen = self.answers

    def notice(self, call: CallState, error: CapillaryError, *, quota: bool) -> None:
        """A single call gave up: an outage begins where no request was answered since it began.

        Unless something answered one of its attempts: that may be the fault of its request, and others are not refused.
        """
        unanswered = self.control is not None and all(attempt.status is None for attempt in call.history)
        if self.answers == call.seen and (quota or unanswered):
            self.begin(error)

    def begins_again(
        self, call: CallState, error: CapillaryError, answers: int, *, reason: str, alone: bool, others: bool = False
    ) -> bool | None:
        """Whether a call that waits in outages and gave up begins again; None where that shows later.

        Args:
            call: The call.
            error: The error of its last attempt.
            answers: `answers` when it gave up.
            reason: Why it gave up, as in `RetryDecision`.
            alone: Whether no other call that waits in outages is under way, so that none will be answered.
            others: Whether others gave up too.
        """
        if call.tries >= TRIES:
            return False
        if self.present is not None:
            return True
        if error.attempts:  # the token's error, without which no call is sent
            self.begin(error)
            return True
        if self.answers > answers:
            # The server may mean the session, and not the key, where it asks to wait.
            return reason == "quota" or (call.tries < call.throttled_tries and _asks_to_wait(error))
        if reason == "retry-after":
            # No control goes through the gate. What waited there before goes on as long as it may wait.
            return call.waits_since is not None or (False if alone else None)
        if alone and self.control is not None:
            return None
        if reason == "quota":
            down = alone or self.answers == call.seen
        else:
            # A refusal by a proxy may be that of one request; those of several are the service's.
            unanswered = _NO_ANSWER if others else {None}
            down = alone and not self.heard and all(attempt.status in unanswered for attempt in call.this_round)
        if down:
            self.begin(error)
            return True
        return False if alone else None


def _asks_to_wait(error: CapillaryError) -> bool:
    return isinstance(error, RateLimitedError) or error.retry_after is not None
