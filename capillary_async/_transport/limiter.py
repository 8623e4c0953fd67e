"""One queue for every request of a session, over all its loops and threads.

Invariant: permits are granted in the order of the line, and none is kept by what can be seen to have ended: a task, a
loop, the run of a loop, the parent of a forked process. Numbers are locked and on the monotonic clock, only waiting
belongs to a loop. The step before `classify` in the chain, so that every HTTP request takes a permit of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from capillary_async._config import RetryPolicy
from capillary_async._loops import bury, renew_in_child, running_loop
from capillary_async._transport.adaptive_limit import AdaptiveLimit
from capillary_async._transport.alarms import Alarms
from capillary_async._transport.call_watch import observed_probe
from capillary_async._transport.line import Line, Waiter
from capillary_async._transport.messages import repeat_of
from capillary_async._transport.patient_calls import PatientCalls
from capillary_async._transport.permit import Permit, Permits, permit_here
from capillary_async._transport.redis_rate import RedisRate
from capillary_async._transport.retry_decision import is_answer
from capillary_async._transport.stats import Gauges
from capillary_async.errors import CapillaryError, DeadlineExceededError
from capillary_async.telemetry._events import GateOpened, GateShut, LimitChanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._config import Limits
    from capillary_async._transport.messages import CallState, Handler, Request, Response
    from capillary_async._transport.outage import OutageReport
    from capillary_async.telemetry._observers import Observers

__all__ = ["RequestLimiter"]

_LOOK_AGAIN = 1.0  # seconds until those who wait look whether permits are kept by what has ended


class RequestLimiter:
    """Permits for as many requests as `AdaptiveLimit` allows, in the order of `Line`.

    A call that has begun (its first attempt failed, or its token was renewed) is ahead of those that have not: it is
    the older one, and its time is running. So is the request for a token, since others wait for what it brings.
    """

    def __init__(
        self,
        limits: Limits,
        policy: RetryPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        observers: Observers | None = None,
        shared_key: str = "",
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._shared_key = shared_key
        self._observers = observers
        self._pace = AdaptiveLimit(limits, policy or RetryPolicy(), clock=clock)
        # Why and since when the gate is shut, and the limit, as they were reported.
        self._seen: tuple[str | None, float, int] = (None, 0.0, self._pace.limit)
        self._begin()
        renew_in_child(self, RequestLimiter.renew)

    def _begin(self) -> None:
        # Reentrant: while the lock is held, the collector may end a task of a dead loop, which gives its permit back.
        self._lock = threading.RLock()
        self._line = Line()
        self._permits = Permits(self._pace)
        self.patient_calls = PatientCalls(self._lock, self._pace.gate, self._noticed)
        self._alarms = Alarms(self._lock, self._clock, self._look)
        self._shared: RedisRate | None = None
        if self._limits.rate is not None and self._pace.lease is not None:
            lock, changed = self._lock, self._look
            self._shared = RedisRate(
                self._limits.rate, self._shared_key, self._pace.lease, lock=lock, changed=changed, clock=self._clock
            )

    def close(self) -> None:
        """End what leases turns of a shared rate."""
        if self._shared is not None:
            self._shared.close()

    def renew(self) -> None:
        """Begin with no permits taken and no waiting calls, in a forked child."""
        bury(self._pace.held, self._pace.on_its_way, self._line, self._permits.lapsed, self._shared)
        self._alarms.bury()
        self.patient_calls.bury()
        self._pace = self._pace.renewed()
        self._begin()

    def gauges(self) -> Gauges:
        """What there is at this moment."""
        with self._lock:
            return Gauges(self._pace.active, len(self._line), self._pace.limit, self._pace.gate.name)

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """Wait for a permit and hold it until the answer is whole."""
        permit = await self._permit(request)
        while permit.probe and (control := self._control_for(permit, request.call)) is not None:
            await self._repeat(control, permit, handler)
            permit = await self._permit(request)
        if request.call is not None:
            request.call.start()
            with self._lock:
                self._pace.gate.outages.attempt_begins(request.call)
        return await self._send(request, permit, handler)

    async def _send(self, request: Request, permit: Permit, handler: Handler) -> Response:
        """Send a request with its permit."""
        watch = None if request.call is None else request.call.watch
        if watch is not None:
            watch.sends()
        try:
            response = await handler(request)
        except BaseException as error:
            if request.body is None and isinstance(error, CapillaryError) and is_answer(error):
                self._pace.gate.outages.heard = True
            if watch is not None:
                watch.came(error)
            self._failed(permit, request.call, error)
            raise
        if watch is not None:
            watch.came(response)
        if request.body is None and request.call is not None:
            self._pace.gate.outages.control = request
        self._answered(permit)
        return response

    async def _permit(self, request: Request) -> Permit:
        call = request.call
        permit = permit_here(bulk=call is not None and call.bulk)
        if not self._enter(permit, single=_is_single(call)):
            if call is None or call.watch is None:
                await self._queue(permit, request)
            else:
                with call.watch.waiting(self._pace.waits_for):
                    await self._queue(permit, request)
        return permit

    def _enter(self, permit: Permit, *, single: bool = True) -> bool:
        """Take a permit at once, if one is free and no request waits for it; in an outage, single calls do not wait."""
        with self._lock:
            if single and self.is_down:
                blocked = self._pace.wait(single=True) is not None
            else:
                blocked = (
                    bool(self._line)
                    or self._permits.blocked() is not None
                    or (permit.bulk and self._pace.reserved() > 0)
                )
            if not blocked:
                self._take(permit, single=single)
            return not blocked

    def _take(self, permit: Permit, *, single: bool) -> None:
        self._pace.held.add(permit)
        permit.probe = self._pace.gate.probe_granted(permit, single=single) or permit.probe
        self._pace.took()
        self._line.took(permit)

    # --- outages ------------------------------------------------------------------------------------------------------

    @property
    def is_down(self) -> bool:
        """Whether there is an outage."""
        return self._pace.gate.outages.present is not None

    def outage(self) -> OutageReport | None:
        """The outage, of the service or of what keeps a shared rate, to be shown; None where there is none."""
        with self._lock:
            lease = self._pace.lease
            return self._pace.gate.outages.report() or (None if lease is None else lease.report())

    @property
    def _stuck(self) -> bool:
        """Whether requests wait for what may not come: at the shut gate, or for Redis that does not answer."""
        return self._pace.gate.shut or (self._pace.lease is not None and self._pace.lease.down)

    def _refusal_for(self, waiter: Waiter) -> CapillaryError | None:
        """The error for a call that must not wait any longer; None if it may. Under the lock."""
        error = self._pace.gate.refusal_for(waiter.call, waiter.since)
        if error is None and self._pace.lease is not None:
            error = self._pace.lease.refusal_for(waiter.call, waiter.since)
        return error

    def _control_for(self, permit: Permit, call: CallState | None) -> Request | None:
        """The request that is sent before this probe; None for a single call, which is not delayed by it."""
        with self._lock:
            return None if _is_single(call) else self._pace.gate.control_for(permit)

    async def _repeat(self, control: Request, permit: Permit, handler: Handler) -> None:
        """Send the request that was answered last, to see whether it is answered now; the answer is dropped."""
        request = repeat_of(control)
        with suppress(CapillaryError):
            await observed_probe(request, self._observers, self._send(request, permit, handler))

    def notice(self, call: CallState, error: CapillaryError, *, quota: bool) -> None:
        """A single call gave up, which may be the first sign of an outage."""
        with self._lock:
            before = self.is_down
            self._pace.gate.outages.notice(call, error, quota=quota)
        if self.is_down and not before:
            self._noticed()

    def _report(self) -> None:
        """Report to observers what changed of gate and limit."""
        reason, since, before = self._seen
        if self._pace.limit == before and self._pace.gate.reason == reason:
            return
        with self._lock:
            reason, since, before = self._seen
            now, limit, clock = self._pace.gate.reason, self._pace.limit, self._clock()
            self._seen = (now, since if now == reason else clock, limit)
        observers = self._observers
        if observers is None or not observers.active:
            return
        if reason is not None and now != reason:
            observers.notify(GateOpened(reason, clock - since))
        if now is not None and now != reason:
            observers.notify(GateShut(now))
        if limit != before:
            observers.notify(LimitChanged(limit, before))

    def _noticed(self) -> None:
        """An outage has begun: single calls that wait are refused, and calls that gave up wait for its end."""
        self._report()
        self._turn_away()
        self.patient_calls.review()
        self._pump()

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def _queue(self, permit: Permit, request: Request) -> None:
        """Wait for a permit.

        Raises:
            DeadlineExceededError: The call's clock runs, and the wait would pass its deadline, or did.
            NotSentError: The call has not begun, and the gate is shut for too long.
        """
        call = request.call
        while True:
            if call is not None and call.max_wait and self._stuck:
                call.stop(self._clock())
            begun = call is not None and call.started is not None
            # Before its first permit the clock of a bulk call does not run: our own queue is not the server's slowness.
            limit = call.remaining() if call is not None and call.clocked else None
            waiter = Waiter(permit, call, self._clock(), permit.loop.create_future())
            with self._lock:
                if (error := self._hopeless(waiter, limit)) is not None:
                    raise error
                self._line.add(waiter, begun=begun or request.body is not None)
            self._pump()
            try:
                async with asyncio.timeout(limit):
                    error = await waiter.woken
            except TimeoutError:
                self._abandon(waiter)
                if call is not None and call.max_wait and self._stuck:
                    permit.probe = False
                    continue
                error = self._too_late("ran out", begun=begun)
            except BaseException:
                self._abandon(waiter)
                raise
            if error is not None:
                raise error
            return

    def _hopeless(self, waiter: Waiter, limit: float | None) -> CapillaryError | None:
        """The error for a wait that must not be begun, since its end is known to come too late. Under the lock."""
        error = self._refusal_for(waiter)
        if error is None and limit is not None and (self._permits.blocked() or 0.0) > limit:
            call = waiter.call
            return self._too_late("would run out", begun=call is not None and call.started is not None)
        return error

    def _abandon(self, waiter: Waiter) -> None:
        """Leave the line; a permit granted in the same moment goes to the next."""
        with self._lock:
            granted = waiter.granted
            if not granted:
                self._line.remove(waiter)
        if granted:
            self._unused(waiter.permit)
        self._pump()

    # --- ends of requests ---------------------------------------------------------------------------------------------

    def _unused(self, permit: Permit) -> None:
        """A permit comes back with which nothing was sent."""
        with self._lock:
            if self._permits.give(permit):
                self._pace.dropped(probe=permit.probe, sent=False)
                if self._pace.lease is not None:
                    self._pace.lease.unused()

    def _answered(self, permit: Permit) -> None:
        with self._lock:
            if self._permits.give(permit):
                self._pace.answered(probe=permit.probe)
            idle = not self._line
        self._report()
        self.patient_calls.review()
        if not idle:
            self._pump()

    def _failed(self, permit: Permit, call: CallState | None, error: BaseException) -> None:
        passage = None if call is None else call.passage
        if call is not None:
            call.passage = None
        with self._lock:
            if not self._permits.give(permit):
                return
            over = passage is None
            if passage is not None:
                self._pace.on_its_way.add(permit)
            if isinstance(error, CapillaryError):
                self._pace.failed(error, call, probe=permit.probe, over=over)
                self._pace.gate.outages.probe_failed(permit)
            else:
                self._pace.dropped(probe=permit.probe, sent=over)
        if passage is not None:
            passage.when_over(partial(self._arrived, permit))
        self._report()
        self.patient_calls.review()
        self._turn_away()
        self._pump()

    def _arrived(self, permit: Permit) -> None:
        """A request broken off before its answer is not on its way any more."""
        with self._lock:
            if permit in self._pace.on_its_way:
                self._pace.on_its_way.discard(permit)
                self._pace.lost(1)
        self._pump()

    def _turn_away(self) -> None:
        """Wake those who would have to wait too long at the shut gate with their error."""
        turned: list[tuple[Waiter, CapillaryError]] = []
        with self._lock:
            if not self._stuck:
                return
            found = [(waiter, self._refusal_for(waiter)) for waiter in self._line.waiters()]
            turned += [(waiter, error) for waiter, error in found if error is not None]
            for waiter, _ in turned:
                self._line.remove(waiter)
        for waiter, error in turned:
            waiter.wake(error)

    # --- handing out --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand free permits to those who wait."""
        while True:
            with self._lock:
                # First: the collector may come in it, and hand permits to those who wait.
                blocked = self._permits.blocked()
                single, bulk = self._line.heads(probe=self._pace.gate.shut)
                stopped, self._line.stopped = self._line.stopped, set()
                waiter, delay = self._next(blocked, single, bulk)
                if waiter is not None:
                    self._line.remove(waiter)
                    self._take(waiter.permit, single=_is_single(waiter.call))
                    waiter.granted = True
            for loop in stopped:
                self._alarms.set_on_return(loop)
            if waiter is None:
                break
            if not waiter.wake(None):
                self._unused(waiter.permit)
        heads = [head for head in (single, bulk) if head is not None]
        if heads:
            self._wait_on(heads, delay)
            if self._shared is not None:
                self._lease_turns(self._shared, single=single is not None)

    def _wait_on(self, heads: list[Waiter], delay: float) -> None:
        """Look again in time, for the first in the line."""
        # Here too: the loops of the first in the line may end before their alarms ring.
        here = running_loop()
        if here is not None:
            self._alarms.set(here, delay)
        for head in heads:
            if head.loop is not here:
                self._alarms.set(head.loop, delay)

    def _may_probe(self, waiter: Waiter) -> bool:
        """Whether it is a single call that came when one was due in an outage, and waited for its turn."""
        may_wait = self._shared is not None and self.is_down and _is_single(waiter.call)
        return may_wait and self._pace.wait(single=True) is None

    def _lease_turns(self, shared: RedisRate, *, single: bool) -> None:
        with self._lock:
            turns = self._pace.turns_needed(len(self._line), single=single)
            if turns and self._pace.lease is not None:
                self._pace.lease.asked = self._clock()
        if turns:
            shared.ask(turns)

    def _next(self, blocked: float | None, single: Waiter | None, bulk: Waiter | None) -> tuple[Waiter | None, float]:
        """Who goes next, if anybody may go now; and the seconds until that is looked at again. Under the lock."""
        if blocked is not None and single is not None and self._may_probe(single):
            return single, _LOOK_AGAIN
        if blocked is not None:
            # In an outage each second, for those whose wait ends before the next probe.
            return None, min(blocked, _LOOK_AGAIN) if blocked and self.is_down else blocked or _LOOK_AGAIN
        if not self._line.bulk_first(single, bulk):
            return single, _LOOK_AGAIN
        reserved = self._pace.reserved()
        return (single if reserved else bulk), reserved

    def _too_late(self, how: str, *, begun: bool) -> DeadlineExceededError:
        lease = self._pace.lease
        if lease is not None and lease.down:
            return DeadlineExceededError(f"not sent: Timeouts.call {how}: {lease.story}", kind="queue")
        return _too_late(how, begun=begun)

    def _look(self) -> None:
        """The alarm of a loop rings: somebody may have waited for too long, or may go."""
        self._turn_away()
        self._pump()


def _is_single(call: CallState | None) -> bool:
    """Whether a call is refused in an outage, and does not wait."""
    return call is None or not call.max_wait


def _too_late(how: str, *, begun: bool) -> DeadlineExceededError:
    if begun:
        return DeadlineExceededError(f"Timeouts.call {how} while waiting for a permit to try again", kind="queue")
    text = (
        f"not sent: Timeouts.call {how} while the call waited in the session's own queue, behind Limits.concurrency or "
        "Limits.rate; raise Timeouts.call, or send fewer requests at once"
    )
    return DeadlineExceededError(text, kind="queue")
