"""The retry loop around one call, and the session's quota for retries.

Invariant: `decide_retry` decides, this file acts; no wait is begun that would pass the call's deadline, and what is
raised carries the whole history. The first step of the SDK's own in the chain.
"""

from __future__ import annotations

import asyncio
import random
import threading
from functools import partial
from typing import TYPE_CHECKING

from capillary_async._loops import renew_in_child
from capillary_async._priority import bulk_work
from capillary_async._transport.advice import with_next_step
from capillary_async._transport.call_watch import CallWatch, observed_probe
from capillary_async._transport.messages import CallState, apart, discard, is_copy, part_of, repeat_of
from capillary_async._transport.retry_decision import (
    NotSentError,
    RetryDecision,
    decide_retry,
    is_answer,
    kind_of,
    repeats,
    status_of,
    throttled,
)
from capillary_async._transport.stats import count
from capillary_async.errors import APIError, AttemptRecord, CapillaryError, DeadlineExceededError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capillary_async._config import RetryPolicy, Timeouts
    from capillary_async._priority import Priority
    from capillary_async._transport.limiter import RequestLimiter
    from capillary_async._transport.messages import Handler, Request, Response
    from capillary_async._transport.permit import Permit
    from capillary_async._transport.stats import Stats
    from capillary_async.telemetry._observers import Observers

__all__ = ["Quota", "Retry"]

FIRST_TRY_REFUND = 1
# Reasons that say nothing of the request itself.
_GAVE_UP = frozenset({"attempts", "deadline", "outage", "quota", "retry-after"})


class Quota:
    """Tokens for retries, shared by every call of a session: an outage empties it, and success fills it again."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size
        self._lock = threading.Lock()
        renew_in_child(self, Quota.renew)

    def renew(self) -> None:
        """In a forked child: its lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def take(self, cost: int) -> bool:
        """Take `cost` tokens, or nothing where there are fewer."""
        with self._lock:
            if cost > self.left:
                return False
            self.left -= cost
            return True

    def give(self, tokens: int) -> None:
        """Give tokens back, never beyond the size."""
        if self.left < self.size:
            with self._lock:
                self.left = min(self.size, self.left + tokens)


class Retry:
    """The retry step of one view of a session.

    Args:
        policy, timeouts, quota, stats: Of the view.
        priority: Of its calls; None for interactive, and bulk in a fan-out or a job.
        token: Whether it fetches the token, for which calls of either priority wait.
        limiter: Of the session, whose gate learns of calls that give up; None for tests.
        observers: Of the session; None for tests.
        sleep, uniform: For tests.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        timeouts: Timeouts,
        quota: Quota,
        stats: Stats,
        *,
        priority: Priority | None = None,
        token: bool = False,
        limiter: RequestLimiter | None = None,
        observers: Observers | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._timeouts = timeouts
        self._quota = quota
        self._stats = stats
        self._priority = priority
        self._token = token
        self._limiter = limiter
        self._observers = observers
        self._sleep = sleep
        self._uniform = uniform

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """Send the request until it succeeds or must not be sent again."""
        call = self._call()
        if self._observers is None or not self._observers.active:
            return await self._run(request, call, handler)
        fan_out = bulk_work() is not None and not self._token
        call.watch = CallWatch(self._observers, request, bulk=call.bulk, fan_out=fan_out, token=self._token)
        return await call.watch.run(self._run(request, call, handler))

    async def _run(self, request: Request, call: CallState, handler: Handler) -> Response:
        if self._limiter is None or not call.max_wait or self._token:
            return await self._send(part_of(request, call), call, handler, None)
        calls = self._limiter.patient_calls
        permit = calls.begins()
        try:
            return await self._send(part_of(request, call), call, handler, permit)
        finally:
            calls.ended(permit)

    async def _send(self, request: Request, call: CallState, handler: Handler, permit: Permit | None) -> Response:
        cost = spent = 0
        known = request.fault
        if known is not None:
            self._quota.take(FIRST_TRY_REFUND)  # given when the answer looked whole
        while True:
            if known is not None:
                fault, known = known, None
            else:
                request, came = await _attempt(request, handler)
                if not isinstance(came, CapillaryError):
                    self._quota.give(cost or FIRST_TRY_REFUND)
                    return came
                fault = came
            # Outside the handler, so that what is raised has no context whose frames hold headers.
            verdict = self._judge(call, fault)
            if call.watch is not None:
                call.watch.decided(verdict.delay)
            if verdict.delay is None:
                if await self._begins_again(call, fault, verdict, permit, handler):
                    cost = spent = 0
                    continue
                if spent and repeats(fault):
                    self._quota.give(spent)  # it was answered: what is wrong with this answer takes nothing from others
                raise finish(fault, request, call, verdict)
            if kind_of(fault) == "misdirected":
                request = apart(request)
            cost = verdict.cost
            spent += cost
            count(self._stats, retries=1)
            await self._sleep(verdict.delay)

    async def _begins_again(
        self, call: CallState, fault: CapillaryError, verdict: RetryDecision, permit: Permit | None, handler: Handler
    ) -> bool:
        """Whether a call that gave up begins again, after a wait until others are answered."""
        if _out_of_time(fault) and call.max_wait and call.last is not None:
            fault = call.last  # its time ran out between two attempts, and the attempt says why
            verdict = RetryDecision(None, reason="deadline")
        if self._limiter is None or not _gave_up(fault, verdict):
            return False
        if not call.max_wait:
            self._limiter.notice(call, fault, quota=verdict.reason == "quota")
            return False
        repeat = partial(self._repeated, call, handler)
        again = await self._limiter.patient_calls.begins_again(call, fault, permit, verdict.reason, repeat)
        if again:
            call.begin_again()
            count(self._stats, retries=1)
        return again

    async def _repeated(self, call: CallState, handler: Handler, control: Request) -> Response:
        """The answer to the request that was answered last; it waits as the call does."""
        request = repeat_of(control)
        if request.call is not None:
            request.call.max_wait = call.max_wait
        return await observed_probe(request, self._observers, handler(request))

    def _call(self) -> CallState:
        """A call of a fan-out is bulk and bounded from its first permit; every other one is bounded from here."""
        work = bulk_work()
        call = CallState(self._timeouts, bulk=self._priority == "bulk" if self._priority else work is not None)
        if work is not None and self._limiter is not None:
            call.max_wait = self._timeouts.call if work.max_wait is None else work.max_wait
            call.throttled_tries = work.throttled_tries
        if self._token:
            call.bulk = False
        elif work is None:
            call.begin()
        return call

    def _judge(self, call: CallState, fault: CapillaryError) -> RetryDecision:
        if isinstance(fault, NotSentError) or _out_of_time(fault):
            return RetryDecision(None, reason="final")  # it was never sent: no attempt
        call.last = fault
        number = len(call.history) + 1
        if isinstance(fault, APIError | DecodeError):
            call.answer = fault
        call.history.append(AttemptRecord(number, kind_of(fault), status_of(fault)))
        count(self._stats, throttles=1 if throttled(fault) else 0)
        verdict = decide_retry(fault, call.this_round, self._policy, call.remaining(), self._uniform)
        if verdict.delay is None:
            return verdict
        if call.max_wait and self._limiter is not None and self._limiter.is_down:
            return RetryDecision(None, reason="outage")
        if not self._quota.take(verdict.cost):
            # A quota that never held so much, e.g. 0, says that the user wants no such retry: that is no outage.
            return RetryDecision(None, reason="quota" if verdict.cost <= self._quota.size else "final")
        call.history[-1] = AttemptRecord(number, kind_of(fault), status_of(fault), verdict.delay)
        return verdict


async def _attempt(request: Request, handler: Handler) -> tuple[Request, Response | CapillaryError]:
    """The answer or the error of one attempt; apart from others where the answer was the copy of one before."""
    while True:
        try:
            response = await handler(request)
        except CapillaryError as error:
            return request, error
        if not is_copy(response) or request.fresh:
            return request, response
        discard(response)
        request = apart(request)


def _out_of_time(fault: CapillaryError) -> bool:
    """Whether the call's time ran out in the session's queue."""
    return isinstance(fault, DeadlineExceededError) and fault.kind == "queue"


def _gave_up(fault: CapillaryError, verdict: RetryDecision) -> bool:
    """Whether a call came to an end that may be the service's fault, and not that of its request."""
    if fault.outage or is_answer(fault):
        return False
    timed_out = isinstance(fault, DeadlineExceededError) and fault.kind == "deadline"
    return timed_out or fault.attempts > 0 or verdict.reason in _GAVE_UP  # with attempts, it is the token's error


def finish(fault: CapillaryError, request: Request, call: CallState, verdict: RetryDecision) -> CapillaryError:
    """The error to raise: the one that says most, complete with the story of the call."""
    if fault.attempts:  # the token's own call failed and says so itself
        return fault
    error = fault
    if isinstance(fault, NotSentError):
        error = fault.error if fault.final else call.answer or call.last or fault.error
        if call.max_wait:
            error.outage = True
    elif isinstance(fault, DeadlineExceededError) or verdict.reason == "deadline":
        error = call.answer or _deadline(fault, call)
    error.method, error.path = request.method, request.path
    error.attempts, error.elapsed = len(call.history), call.elapsed()
    error.history, error.quota_exhausted = tuple(call.history), verdict.reason == "quota"
    story = "" if isinstance(fault, NotSentError) and fault.final else _story(error, verdict)
    error.args = (f"{request.method} {request.path}: {with_next_step(error)}{story}",)
    return error


def _deadline(fault: CapillaryError, call: CallState) -> CapillaryError:
    if isinstance(fault, DeadlineExceededError):
        return fault
    message = f"no answer within the {call.timeouts.call:g} s of Timeouts.call, and another wait would pass them"
    error = DeadlineExceededError(f"{message}; the last attempt: {fault.message}", kind="deadline")
    error.__cause__ = fault.__cause__
    error.__suppress_context__ = True
    return error


def _story(error: CapillaryError, verdict: RetryDecision) -> str:
    parts: list[str] = []
    if error.attempts:
        parts.append(f"{error.attempts} attempt{'s' if error.attempts != 1 else ''} in {error.elapsed:.1f} s")
    if isinstance(error, APIError | DecodeError) and error.request_id:
        parts.append(f"request id {error.request_id}")
    if error.outage:
        parts.append("the service did not answer for as long as the call may wait")
    elif error.quota_exhausted:
        parts.append(
            "not tried again: the session's retry quota is empty, the service seems to be down; try again later"
        )
    elif verdict.reason == "deadline":
        parts.append("the next wait would pass Timeouts.call")
    elif verdict.reason == "retry-after" and isinstance(error, APIError):
        parts.append(f"the server asks for a wait of {error.retry_after:g} s, beyond RetryPolicy.retry_after_max")
    return f" ({'; '.join(parts)})" if parts else ""
