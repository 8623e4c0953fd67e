"""The gate of a session: whether the service may be asked now, and how long a call may wait for that.

Invariant: pure. Nothing waits, nothing is locked, and no clock is read but the one handed in. Called by `AdaptiveLimit`
and `RequestLimiter` under the limiter's lock.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from attrs import define, evolve

from capillary_async._transport.outage import Outages
from capillary_async._transport.retry_decision import NotSentError, decisive_status
from capillary_async.errors import DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._config import RetryPolicy
    from capillary_async._transport.messages import CallState, Request
    from capillary_async.errors import APIError, CapillaryError

__all__ = ["Gate", "GateState"]

IN_A_ROW = 3  # refusals without a time, and no good answer between them: the rate is passed, it was no single fault
GATE_JITTER = 0.02  # share of the wait asked for, so that many processes do not come back in one moment
LONGEST_SHUT = 60.0  # seconds until one request checks whether a wait beyond `retry_after_max` is still asked for
_TOO_MANY = 429


@define(eq=False)
class GateState:
    """Why and until when the gate is shut.

    Attributes:
        kind, status, code: Of the refusal that shut it.
        since: When it shut; a refused probe does not change it.
        until: When one request may go as a probe.
        retry_at: When the server asks to be called again; None if it named no time.
        exceeds_max_wait: Whether that is longer than `RetryPolicy.retry_after_max`, so that no call waits for it.
        jitter: The share added to each wait that the server asks for.
        number: Of the next probe, from 0: as in `Outage`.
        prober: The permit of the probe under way.
    """

    kind: type[APIError]
    status: int
    code: int | None
    since: float
    until: float
    retry_at: float | None
    exceeds_max_wait: bool
    jitter: float
    number: int = 0
    prober: Any = None


class Gate:
    """A circuit breaker: open, shut until a time, or half open with one probe under way.

    429 or 503 with `Retry-After` shuts it for every task until that time. Then one request goes as a probe. If it is
    refused too, the gate stays shut for the new time; any other result opens the gate, and the limit grows from where
    the refusals cut it to. A probe that is cancelled hands its part to the next request. No call waits for a
    `Retry-After` beyond `RetryPolicy.retry_after_max`: it is refused at once, and from time to time one request checks
    whether the wait is still asked for.

    A 429 **without** `Retry-After` says that the session is too fast, and not for how long. Most SDKs leave it at the
    backoff of the one call (Stripe, google-api-core); botocore's adaptive mode slows its whole client. A limit alone
    does not slow down a session enough: one request at a time to a server that refuses within a millisecond is still a
    thousand a second, which use up attempts and quota. So three of them in a row, without a good answer between, shut
    the gate for a backoff of the session's own: half to all of `throttle_backoff`, doubled with each refused probe, up
    to `backoff_max`. A single one is taken for a fault of its request, as is every 503 without a time, which is how
    proxies report that a service is down: that is left to retries and fan-outs.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.state: GateState | None = None
        self.outages = Outages(clock)
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._refusals = 0  # in a row, without a time
        self._pauses = 0  # of our own, in a row

    @property
    def shut(self) -> bool:
        """Whether there is a reason to let no request go, or only a probe."""
        return self.state is not None or self.outages.present is not None

    @property
    def reason(self) -> str | None:
        """Why it is shut: `outage`, `retry-after` or `throttled`; None while it is open."""
        if self.outages.present is not None:
            return "outage"
        if self.state is None:
            return None
        return "throttled" if self.state.retry_at is None else "retry-after"

    @property
    def name(self) -> str:
        """`open`, `shut`, or `half-open` while a probe is under way."""
        if not self.shut:
            return "open"
        probing = [shut for shut in (self.state, self.outages.present) if shut is not None and shut.prober is not None]
        return "half-open" if probing else "shut"

    def wait(self, *, single: bool = False) -> float | None:
        """None if a request may go; else the seconds until one may as a probe (0.0: when the present probe ends).

        Args:
            single: Whether it is a call that does not wait in an outage.
        """
        state, outage = self.state, self.outages.present
        if state is None and outage is None:
            return None
        now = self._clock()
        refused = None if state is None else _left(state, now)
        down = None if outage is None else outage.wait(now, single=single)
        if refused is None or down is None:
            return down if refused is None else refused
        return max(refused, down) if refused and down else 0.0

    def probe_granted(self, permit: Any, *, single: bool = False) -> bool:
        """Make the request with this permit the probe; False if the gate is open and needs none."""
        if self.outages.present is not None:
            self.outages.present.granted(permit, self._clock(), single=single)
        if self.state is not None:
            self.state.prober = permit
        return self.state is not None or (self.outages.present is not None and not single)

    def control_for(self, permit: Any) -> Request | None:
        """The request that this probe sends in place of its own: the one answered last; None where it sends its own.

        Without it, requests that are refused whatever happens would keep the gate shut, being all that probe.
        """
        outage, state = self.outages.present, self.state
        if outage is not None and outage.prober is permit:
            return None if outage.number % 2 else outage.control
        if state is not None and state.prober is permit:
            return None if state.number % 2 else self.outages.control
        return None

    def probe_dropped(self, permit: Any = None) -> None:
        """The probe was cancelled or never sent, so the next request is the probe.

        Args:
            permit: Of the probe; another one's changes nothing. None for whichever is under way.
        """
        for shut in (self.state, self.outages.present):
            if shut is not None and (permit is None or shut.prober is permit):
                shut.prober = None

    def open(self) -> None:
        """Let requests go, as far as refusals are concerned."""
        self.state, self._pauses = None, 0

    def succeeded(self, *, probe: bool) -> None:
        """A request had a good answer; if it was the probe, the gate opens."""
        self._refusals = 0
        self.outages.answered()
        if self.state is not None and probe:
            self.open()

    def failed(self, error: APIError, call: CallState | None, *, probe: bool) -> None:
        """A request was refused with 429 or 503."""
        asked = error.retry_after
        if asked is not None:
            # The call that was refused sleeps so long too: the jitter leaves it half of its time after that.
            slack = asked if call is None else max(0.0, call.remaining() - asked) / 2
            self._shut_for(error, asked, slack)
        elif probe or self._passes_the_rate(error):
            self._shut_for(error, None, 0.0)
        if probe and self.state is not None:
            self.state.prober = None
            self.state.number += 1

    # --- shutting -----------------------------------------------------------------------------------------------------

    def _passes_the_rate(self, error: APIError) -> bool:
        """Whether a refusal without a time shows that the rate is passed, rather than a fault of one request."""
        self._refusals += decisive_status(error.status, error.code) == _TOO_MANY
        return self._refusals >= IN_A_ROW and self.state is None and self._policy.throttle_backoff > 0

    def _shut_for(self, error: APIError, asked: float | None, slack: float) -> None:
        """Shut the gate, or keep it shut for longer: never for less than it is already."""
        now, before = self._clock(), self.state
        jitter = self._uniform(0, GATE_JITTER) if before is None else before.jitter
        exceeds = asked is not None and asked > self._policy.retry_after_max
        if asked is None:
            until = now + self._pause()
        elif exceeds:
            until = now + min(asked, max(LONGEST_SHUT, self._policy.retry_after_max))
        else:
            until = now + asked + min(asked * jitter, slack)
        retry_at = None if asked is None else now + asked
        state = GateState(type(error), error.status, error.code, now, until, retry_at, exceeds, jitter)
        if before is None:
            self.state = state
        elif until > before.until:
            self.state = evolve(state, since=before.since, number=before.number, prober=before.prober)

    def _pause(self) -> float:
        top = min(self._policy.backoff_max, self._policy.throttle_backoff * 2 ** min(self._pauses, 60))
        self._pauses += 1
        self._refusals = 0
        return self._uniform(top / 2, top)

    def refusal_for(self, call: CallState | None, since: float) -> CapillaryError | None:
        """The error for a call that would have to wait too long at the shut gate; None if it may wait.

        Args:
            call: The call. One that waits in outages waits here for `max_wait`, in which its own clock is still;
                its wait for a permit alone is not counted.
            since: When it began to wait.
        """
        now, outage, state = self._clock(), self.outages.present, self.state
        if call is not None and call.waits_since is not None:
            since = min(since, call.waits_since)
        if outage is not None and (refused := outage.refusal_for(call, since, now)) is not None:
            return refused
        if state is None:
            return None
        if state.exceeds_max_wait and (call is None or not call.max_wait):
            shut = state.until > now or state.prober is not None
            return _not_sent(state, now, "RetryPolicy.retry_after_max") if shut else None
        if call is None:
            return None
        if call.max_wait or not call.clocked:
            most = call.max_wait or call.timeouts.call
            setting = "Timeouts.call" if most == call.timeouts.call else f"the {most:g} s that a call may wait"
            return _not_sent(state, now, setting) if state.until - max(since, state.since) > most else None
        if state.until - now <= call.remaining():
            return None
        if call.started is None:
            return _not_sent(state, now, "Timeouts.call")
        text = "the server asked this session to wait for longer than Timeouts.call leaves"
        return DeadlineExceededError(text, kind="queue")


def _left(state: GateState, now: float) -> float | None:
    """How long the time that the server asked for, or a pause after refusals, is still to be waited for."""
    if state.prober is not None:
        return 0.0
    return state.until - now if state.until > now else None


def _not_sent(state: GateState, now: float, setting: str) -> NotSentError:
    left = None if state.retry_at is None else max(0.0, state.retry_at - now)
    asks = "" if left is None else f" and asks for a wait of {left:.1f} s more"
    text = (
        f"not sent: the server refuses this session's requests with HTTP {state.status}{asks}; waiting would pass "
        f"{setting}; try again later, and lower Limits.rate or Limits.concurrency"
    )
    error = state.kind(text, status=state.status, code=state.code, retry_after=left)
    error.sent = False
    return NotSentError(error)
