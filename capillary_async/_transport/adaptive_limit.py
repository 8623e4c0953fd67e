"""How many requests a session may send now: a concurrency limit that adapts, and a rate.

Invariant: pure arithmetic. Nothing waits, nothing is locked, and no clock is read but the one handed in. Called by
`RequestLimiter` before and after each request; whether the service may be asked at all is the decision of `Gate`.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

from capillary_async._transport.gate import Gate
from capillary_async._transport.lease import Lease
from capillary_async._transport.reserve import Reserve
from capillary_async._transport.retry_decision import is_answer, throttled
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


class AdaptiveLimit:
    """The numbers of a session, over all its loops and threads. Every call is made under the throttle's lock.

    **Limit**: additive increase, multiplicative decrease. It starts at `Limits.concurrency_start` and grows by one for
    each limit's worth of good answers, at most every 100 ms and only while it is used up; 429, 503 and timeouts cut it
    to 0.7 of itself, at most once in 500 ms. A wait in our own queue is before the request, and counts for nothing.
    After an outage it is at least what it started with.

    **Rate**: a permit is free again `per` seconds after the answer to its request, not after its sending, since the
    arrival of the request itself is unknown. A request broken off before its answer is on its way until its connection
    is known to be closed; only then its `per` seconds begin. The bulk leaves a part free for single calls: see
    `Reserve`. Of a shared rate each request takes a turn: see `Lease`.
    """

    def __init__(
        self,
        limits: Limits,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.limit = self._start = min(limits.concurrency_start, limits.concurrency)
        # Sets of permits, whose size is the number: unlike a count they are changed in one step of the interpreter,
        # whatever interrupts the program or gives permits back from a finalizer.
        self.held: set[Any] = set()
        self.on_its_way: set[Any] = set()
        self.gate = Gate(policy, clock=clock, uniform=uniform)
        self._limits = limits
        self._most = limits.concurrency
        shared = limits.rate is not None and limits.rate.shared is not None
        self.lease = Lease(limits.rate, clock=clock) if limits.rate is not None and shared else None
        self._rate = None if shared else limits.rate
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._cooling: deque[float] = deque()
        self._reserve = None if self._rate is None else Reserve(self._rate)
        self._answers = 0  # good ones in this round of the limit
        self._wanted = False  # whether the limit held somebody up in this round
        self._changed = float("-inf")
        self._cut = float("-inf")

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self.held)

    def renewed(self) -> AdaptiveLimit:
        """The numbers of a forked child: as at the beginning, but that what the server asked for holds for it too."""
        pace = AdaptiveLimit(self._limits, self._policy, clock=self._clock, uniform=self._uniform)
        pace.gate.state = self.gate.state
        pace.gate.probe_dropped()
        return pace

    def wait(self, *, single: bool = False) -> float | None:
        """None if a request may go now; else the seconds until one may (0.0: when another ends).

        Args:
            single: As in `Gate.wait`.
        """
        # In an outage the limit has been cut to what hangs: one single call a second passes beside that.
        if self.active >= (self._most if single and self.gate.outages.present is not None else self.limit):
            self._wanted = True
            return 0.0
        if (shut := self.gate.wait(single=single)) is not None:
            return shut
        if self.lease is not None:
            return self.lease.wait()
        if self._rate is None:
            return None
        now = self._clock()
        while self._cooling and self._cooling[0] <= now:
            self._cooling.popleft()
        if self.active + len(self.on_its_way) + len(self._cooling) < self._rate.permits:
            return None
        return self._cooling[0] - now if self._cooling else 0.0

    @property
    def waits_for(self) -> str:
        """What a request waits for that may not go now: `gate`, `concurrency` or `rate`."""
        if self.gate.shut:
            return "gate"
        return "concurrency" if self.active >= self.limit else "rate"

    def took(self) -> None:
        """A permit was taken."""
        if self._reserve is not None:
            self._reserve.took(self._clock())
        if self.lease is not None:
            self.lease.took()

    def turns_needed(self, waiting: int, *, single: bool) -> int:
        """How many turns of a shared rate to lease now.

        Args:
            waiting: How many requests wait.
            single: Whether one of them is a single call, which may go in an outage.
        """
        lease = self.lease
        if lease is None or not waiting:
            return 0
        if self.gate.shut:  # a probe alone may go
            alone = single and self.gate.outages.present is not None
            return 0 if self.gate.wait(single=alone) is not None else min(1, lease.needed(1, 1))
        return lease.needed(waiting, self.limit - self.active)

    def reserved(self) -> float:
        """Seconds for which the permit that is free is kept for single calls: 0.0 if the bulk may take it."""
        return 0.0 if self._reserve is None else self._reserve.wait(self._clock())

    # --- the outcome of a request, reported once it is no longer counted as active ------------------------------------

    def answered(self, *, probe: bool) -> None:
        """A good answer."""
        if self._rate is not None:
            self._cooling.append(self._clock() + self._rate.per)
        if self.gate.outages.present is not None:
            self.limit = max(self.limit, self._start)  # it was cut by what hung in the outage
        if self.gate.state is None and self.limit < self._most:
            self._grow()
        self.gate.succeeded(probe=probe)

    def failed(self, error: CapillaryError, call: CallState | None, *, probe: bool, over: bool = True) -> None:
        """Another answer, or none; `over` is false where the request may still be on its way."""
        if isinstance(error, APIError) and throttled(error):
            self.lost(1)
            self._shrink()
            self.gate.failed(error, call, probe=probe)
        elif isinstance(error, APIError) and is_answer(error):
            self.answered(probe=probe)  # what is wrong with one request's arguments is no sign of load
        else:
            self.lost(over)
            if _timed_out(error, call):
                self._shrink()
            if is_answer(error):
                self.gate.outages.answered()
            if probe:
                self.gate.open()

    def dropped(self, *, probe: bool, sent: bool) -> None:
        """Cancelled, or never sent: nothing was learnt. The next in the queue is the probe then."""
        if sent:
            self.lost(1)
        if probe:
            self.gate.probe_dropped()

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
