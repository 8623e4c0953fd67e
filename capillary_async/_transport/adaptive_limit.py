"""How much a session may send now: a limit that adapts, a rate, and the gate that a refusal shuts.

Invariant: pure arithmetic. Nothing waits, nothing is locked, and no clock is read but the one handed in. `throttle.py`
asks before each request, and tells afterwards what came of it.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import define

from capillary_async._transport.reserve import Reserve
from capillary_async._transport.retry_decision import RETRIED_STATUSES, NotSentError, decisive_status, throttled
from capillary_async.errors import APIError, ConnectError, DeadlineExceededError, RequestTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._config import Limits, RetryPolicy
    from capillary_async._transport.messages import CallState
    from capillary_async.errors import CapillaryError

__all__ = ["AdaptiveLimit"]

CUT = 0.7
CUT_EVERY = 0.5  # seconds: what comes back together was refused together
GROW_EVERY = 0.1  # seconds: a fast server's bucket is not overrun within one of its fills
IN_A_ROW = 3  # refusals without a time, and no good answer between them: the rate is passed, it was no single fault
GATE_JITTER = 0.02  # of the time told, so that many processes do not come back in one moment
LONGEST_SHUT = 60.0  # seconds until one request looks whether a wait beyond `retry_after_max` is still asked for
_TOO_MANY = 429
_SERVER_ERROR = 500


@define(eq=False)
class GateState:
    """Why the gate is shut.

    Attributes:
        kind, status, code: Of the refusal that shut it.
        since: When it went shut; a refused probe does not move that.
        until: When one request may try.
        told: When the server itself wants to be asked again; None where it did not say.
        beyond: Whether that is longer than `RetryPolicy.retry_after_max`: then nobody waits for it.
        jitter: The share added to each time told.
        prober: The permit of the one request that is trying.
    """

    kind: type[APIError]
    status: int
    code: int | None
    since: float
    until: float
    told: float | None
    beyond: bool
    jitter: float
    prober: Any = None


class AdaptiveLimit:
    """The numbers of a session, over all its loops and threads. Every call is made under the throttle's lock.

    **Limit**: additive increase, multiplicative decrease. It starts at `Limits.concurrency_start` and grows by one for
    each limit's worth of good answers, at most every 100 ms and only while it is used up; 429, 503 and timeouts cut it
    to 0.7 of itself, at most once in 500 ms. A wait in our own queue is before the request, and counts for nothing.

    **Rate**: a permit is free again `per` seconds after the answer to its request, not after its sending, since nobody
    knows when the request itself arrived. A request broken off before its answer is on its way until its connection is
    known to be closed; only then its `per` seconds begin. The bulk leaves a part free for single calls: see `Reserve`.

    **Gate**: 429 or 503 with `Retry-After` shuts it for every task until that time. Then one request goes as a probe;
    where it is refused too, the gate stays shut for the new time; any other end of it opens the gate, and the limit
    grows from where the refusals cut it to. A probe that is cancelled hands its part to the next. A `Retry-After`
    beyond `RetryPolicy.retry_after_max` is waited for by nobody: what would have to is refused at once, and a request
    looks from time to time whether it still holds.

    A 429 **without** `Retry-After` says that the session is too fast, and not for how long. Most SDKs leave it at the
    backoff of the one call (Stripe, google-api-core); botocore's adaptive mode slows its whole client. A limit alone
    cannot slow down a session enough, since one request at a time to a server that refuses within a millisecond is
    still a thousand a second, that burn attempts and quota. So three of them in a row, without a good answer between,
    shut the gate for a backoff of the session's own: half to all of `throttle_backoff`, doubled with each refused
    probe, up to `backoff_max`. A single one is taken for a fault of its request, as is every 503 without a time, which
    is how proxies say that a service is down: that is the retries' and the fan-outs' business.
    """

    def __init__(
        self,
        limits: Limits,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.limit = min(limits.concurrency_start, limits.concurrency)
        # Sets of permits, whose size is the number: unlike a count they are changed in one step of the interpreter,
        # whatever interrupts the program or gives permits back from a finalizer.
        self.held: set[Any] = set()
        self.on_its_way: set[Any] = set()
        self.shut: GateState | None = None
        self._limits = limits
        self._most = limits.concurrency
        self._rate = limits.rate
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._cooling: deque[float] = deque()
        self._reserve = None if limits.rate is None else Reserve(limits.rate)
        self._answers = 0  # good ones in this round of the limit
        self._wanted = False  # whether the limit held somebody up in this round
        self._changed = float("-inf")
        self._cut = float("-inf")
        self._refusals = 0  # in a row, without a time
        self._pauses = 0  # of our own, in a row

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self.held)

    def renewed(self) -> AdaptiveLimit:
        """The numbers of a forked child: as at the beginning, but that what the server asked for holds for it too."""
        pace = AdaptiveLimit(self._limits, self._policy, clock=self._clock, uniform=self._uniform)
        pace.shut = self.shut
        if pace.shut is not None:
            pace.shut.prober = None
        return pace

    def wait(self) -> float | None:
        """None if a request may go now; else the seconds until one may (0.0: when another ends)."""
        if self.active >= self.limit:
            self._wanted = True
            return 0.0
        if self.shut is not None:
            if self.shut.prober is not None:
                return 0.0
            left = self.shut.until - self._clock()
            if left > 0:
                return left
        if self._rate is None:
            return None
        now = self._clock()
        while self._cooling and self._cooling[0] <= now:
            self._cooling.popleft()
        if self.active + len(self.on_its_way) + len(self._cooling) < self._rate.permits:
            return None
        return self._cooling[0] - now if self._cooling else 0.0

    def took(self) -> None:
        """A permit was taken."""
        if self._reserve is not None:
            self._reserve.took(self._clock())

    def reserved(self) -> float:
        """Seconds for which the permit that is free is kept for single calls: 0.0 if the bulk may take it."""
        return 0.0 if self._reserve is None else self._reserve.wait(self._clock())

    # --- what came of a request, told once it is no longer counted as active ------------------------------------------

    def answered(self, *, probe: bool) -> None:
        """A good answer."""
        if self._rate is not None:
            self._cooling.append(self._clock() + self._rate.per)
        self._refusals = 0
        if self.shut is None:
            if self.limit < self._most:
                self._grow()
        elif probe:
            self.shut, self._pauses = None, 0

    def failed(self, error: CapillaryError, call: CallState | None, *, probe: bool, over: bool = True) -> None:
        """Another answer, or none; `over` is false where the request may still be on its way."""
        if isinstance(error, APIError) and throttled(error):
            self.lost(1)
            self._shrink()
            self._refused(error, call, probe=probe)
        elif isinstance(error, APIError) and _final(error):
            self.answered(probe=probe)  # what is wrong with one request's arguments is no sign of load
        else:
            self.lost(over)
            if _timed_out(error, call):
                self._shrink()
            if probe:
                self.shut, self._pauses = None, 0

    def dropped(self, *, probe: bool, sent: bool) -> None:
        """Cancelled, or never sent: nothing was learnt. The next in the queue is the probe then."""
        if sent:
            self.lost(1)
        if probe and self.shut is not None:
            self.shut.prober = None

    def lost(self, number: int) -> None:
        """So many requests may have been sent, whatever came of them."""
        if self._rate is not None:
            self._cooling.extend([self._clock() + self._rate.per] * number)

    # --- limit --------------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        self._answers += 1
        if self._answers < self.limit or (now := self._clock()) - self._changed < GROW_EVERY:
            return
        if self._wanted:
            self.limit += 1
            self._changed = now
        self._answers, self._wanted = 0, False

    def _shrink(self) -> None:
        now = self._clock()
        if now - self._cut >= CUT_EVERY:
            self.limit = max(1, int(self.limit * CUT))
            self._answers, self._changed, self._cut = 0, now, now

    # --- gate ---------------------------------------------------------------------------------------------------------

    def _refused(self, error: APIError, call: CallState | None, *, probe: bool) -> None:
        asked = error.retry_after
        if asked is not None:
            # The call that was refused sleeps so long too: the jitter leaves it half of its time behind that.
            spare = asked if call is None else max(0.0, call.remaining() - asked) / 2
            self._shut_for(error, asked, spare)
        elif probe or self._is_passed(error):
            self._shut_for(error, None, 0.0)
        if probe and self.shut is not None:
            self.shut.prober = None

    def _is_passed(self, error: APIError) -> bool:
        """Whether a refusal that names no time shows that the rate is passed, rather than one odd answer."""
        self._refusals += decisive_status(error.status, error.code) == _TOO_MANY
        return self._refusals >= IN_A_ROW and self.shut is None and self._policy.throttle_backoff > 0

    def _shut_for(self, error: APIError, asked: float | None, spare: float) -> None:
        """Shut the gate, or keep it shut for longer: never for less than it is already."""
        now, before = self._clock(), self.shut
        jitter = self._uniform(0, GATE_JITTER) if before is None else before.jitter
        beyond = asked is not None and asked > self._policy.retry_after_max
        if asked is None:
            until = now + self._pause()
        elif beyond:
            until = now + min(asked, max(LONGEST_SHUT, self._policy.retry_after_max))
        else:
            until = now + asked + min(asked * jitter, spare)
        told = None if asked is None else now + asked
        if before is None:
            self.shut = GateState(type(error), error.status, error.code, now, until, told, beyond, jitter)
        elif until > before.until:
            self.shut = GateState(
                type(error), error.status, error.code, before.since, until, told, beyond, jitter, before.prober
            )

    def _pause(self) -> float:
        top = min(self._policy.backoff_max, self._policy.throttle_backoff * 2 ** min(self._pauses, 60))
        self._pauses += 1
        self._refusals = 0
        return self._uniform(top / 2, top)

    def barred(self, call: CallState | None, since: float) -> CapillaryError | None:
        """The error for a call that would have to wait too long at the shut gate; None where it may wait.

        Args:
            call: The call.
            since: When it began to wait. A fan-out's call not begun waits here for `Timeouts.call` at most; where it
                waits for its turn alone, its time does not run.
        """
        shut = self.shut
        if shut is None:
            return None
        now = self._clock()
        if shut.beyond and (shut.until > now or shut.prober is not None):
            return self._not_sent(shut, now, "RetryPolicy.retry_after_max")
        if call is None:
            return None
        if call.started is not None:
            late = shut.until - now > call.remaining()
            text = "the server asked this session to wait for longer than Timeouts.call leaves"
            return DeadlineExceededError(text, kind="queue") if late else None
        if call.clocked:
            late = shut.until - now > call.remaining()
        else:
            late = shut.until - max(since, shut.since) > call.timeouts.call
        return self._not_sent(shut, now, "Timeouts.call") if late else None

    @staticmethod
    def _not_sent(shut: GateState, now: float, setting: str) -> NotSentError:
        left = None if shut.told is None else max(0.0, shut.told - now)
        asks = "" if left is None else f" and asks for a wait of {left:.1f} s more"
        text = (
            f"not sent: the server refuses this session's requests with HTTP {shut.status}{asks}; waiting would pass "
            f"{setting}; try again later, and lower Limits.rate or Limits.concurrency"
        )
        error = shut.kind(text, status=shut.status, code=shut.code, retry_after=left)
        error.sent = False
        return NotSentError(error)


def _final(error: APIError) -> bool:
    """Whether the server looked at the request and refused it; not where it asks to try again later."""
    status = decisive_status(error.status, error.code)
    return status < _SERVER_ERROR and status not in RETRIED_STATUSES


def _timed_out(error: CapillaryError, call: CallState | None) -> bool:
    """Whether the server took too long.

    Where the call's own end cut an attempt short, only if that was its first: before a later one, the call's time had
    gone elsewhere, e.g. into our own queue.
    """
    if isinstance(error, DeadlineExceededError):
        # Nor where a single call had spent most of its time in the queue.
        return error.kind == "deadline" and (
            call is None or (not call.history and call.queued() * 2 < call.timeouts.call)
        )
    return isinstance(error, RequestTimeoutError) or (
        isinstance(error, ConnectError) and error.kind == "connect-timeout"
    )
