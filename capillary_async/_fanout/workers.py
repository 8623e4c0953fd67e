"""The workers of a fan-out: a pool that takes keys from one queue.

Invariant: every key asked has exactly one outcome, or the run fails; workers draw from one input, so that memory does
not grow with it; an outage does not burn the input. Knows no HTTP; run by `_fanout.py` in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import evolve

from capillary_async._fanout.keys import AHEAD, KeyQueue
from capillary_async._fanout.outcome import STRIKES, Outcome
from capillary_async._fanout.pending import Answered, Control, OutcomeBuilder, answers, throttled, unsent
from capillary_async._paging.page import ALONE, PrefetchBudget
from capillary_async._priority import begin_bulk
from capillary_async.errors import AuthenticationError, CapillaryError, TLSError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from capillary_async._fanout.handoff import Handoff
    from capillary_async._fanout.keys import QueuedKey
    from capillary_async._fanout.outcome import FanOutRun
    from capillary_async.errors import InvalidRequestError

__all__ = ["WorkerPool"]

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")

PROBES = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds between the probes of an outage; the last one repeats
DOUBTFUL = 64  # keys at most whose errors are held back
_NOTICED = 3.0  # seconds that noticing an outage may have taken, at most, to be counted into its first pauses
_LEAST = 0.5  # seconds between the end of a slow probe and the next one
# What one key learns of, every other key would too.
_CONCERNS_ALL = (AuthenticationError, TLSError)


class WorkerPool(Generic[K, T]):
    """One run of a fan-out: workers that take keys from one queue, and the state they share."""

    def __init__(self, plan: FanOutRun[K, T], channel: Handoff[Any]) -> None:
        self._plan = plan
        self._channel = channel
        self._queue = KeyQueue(plan.keys, plan.reader, unique=plan.options.unique)
        self._idle = set(range(plan.workers, plan.options.concurrency))  # numbers of workers without work
        self._paces = [PrefetchBudget(partial(self._ahead, worker), channel.turn) for worker in range(plan.workers)]
        self._again: deque[OutcomeBuilder] = deque()
        self._answers = 0
        self._answered_at = plan.clock()
        self._answered: tuple[Any, ...] = ()  # keys of the unit answered last: they tell a bad key from an outage
        self._doubtful: deque[tuple[OutcomeBuilder, CapillaryError]] = deque()
        self._running = 0
        self._gate = asyncio.Event()
        self._gate.set()
        self._window = asyncio.Event()
        self._given = 0
        # Until the contrary is known: a run that was cut off must never look like the end of the input.
        self.failure: BaseException | None = _cut_off()
        self._ending = False
        self._workers = plan.workers
        # Batches begin with a few hundred keys in hand, and each answer lets two more workers begin.
        self._admitted = max(AHEAD // plan.reader.batch, 1) if plan.reader.batch > 1 else plan.workers
        self._admission = asyncio.Event()

    async def run(self) -> None:
        """Work until every key has its outcome, or something concerns them all.

        Plain tasks, cancelled once: in a scope that cancels again at each await, neither the input's own `finally` nor
        a page under way could end in order.
        """
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            # In here: an eager task may raise a KeyboardInterrupt before the others are made.
            tasks.append(loop.create_task(self._queue.run()))
            tasks.extend(loop.create_task(self._work(worker)) for worker in range(self._plan.workers))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            error = _failure(tasks) or self._queue.error
            if error is not None or not any(task.cancelled() for task in tasks):
                self.failure = error
        finally:
            self._ending = True
            await _end(tasks)
            self._channel.end()

    def unsettled(self) -> dict[Any, int]:
        """The keys that failed and have no outcome yet, with the attempts of their calls."""
        waiting = chain(self._again, (pending for pending, _ in self._doubtful))
        return {key: pending.attempts for pending in waiting for key in pending.unit.keys if pending.attempts}

    async def _work(self, worker: int) -> None:
        """Read unit after unit. Workers have numbers, by which those who rest are shared among those who read."""
        begin_bulk()
        try:
            while worker >= self._admitted:
                self._admission.clear()
                await self._admission.wait()
            while (pending := await self._next(worker)) is not None:
                self._running += 1
                error = await self._attempt(pending)
                self._running -= 1
                self._admit(2)
                if error is not None:
                    await self._postpone(pending, error, worker)
                if not self._running and self._doubtful and self._gate.is_set():
                    await self._settle_doubtful()
        except asyncio.CancelledError:
            self._workers -= 1
            self._admit(self._plan.workers)
            if self._ending or (self._workers and self._plan.reorder_window is None):
                raise
            # From elsewhere, with a key in hand: in order nothing can come behind it, and all would wait for it; and
            # where this was the last worker, the input would wait for one.
            raise _cut_off() from None
        self._admit(self._plan.workers)
        self._idle.add(worker)

    def _admit(self, more: int) -> None:
        """Let more workers begin; all of them where the input has ended."""
        self._admitted += more
        self._admission.set()

    async def _next(self, worker: int) -> OutcomeBuilder | None:
        """The next unit; waits while the service is down. None when nothing is left."""
        while True:
            if not self._gate.is_set():
                await self._gate.wait()
            if self._again:
                return self._turn(worker)
            more = self._queue.ready or await self._rest(worker, self._queue.wait())
            if self._again or not self._gate.is_set():
                continue
            if not more:
                return None
            if (pending := self._draw(worker)) is not None:
                return pending
            if (refused := self._queue.take_refused(self._until())) is not None:
                await self._refuse(refused)
            elif self._queue.waiting:
                await self._rest(worker, self._moved())

    async def _rest(self, worker: int, wait: Awaitable[R]) -> R:
        self._idle.add(worker)
        try:
            return await wait
        finally:
            self._idle.discard(worker)

    def _ahead(self, worker: int) -> int:
        """Maximum pages that the list of this worker may have in flight ahead: 0 while a key could be read instead.

        Else its own permit and an even share of the idle workers'; the rest goes to the lowest numbers, so that no
        permit is used twice.
        """
        if not self._idle or not self._gate.is_set() or self._again or self._queue.has(self._until()):
            return 0
        share, more = divmod(len(self._idle), max(self._plan.options.concurrency - len(self._idle), 1))
        share += sum(other not in self._idle for other in range(worker)) < more
        return share and 1 + share

    def _turn(self, worker: int) -> OutcomeBuilder:
        """A unit that failed, once others were answered since; before that one not asked yet, where there is one."""
        drawn = self._draw(worker) if self._again[0].seen == self._answers else None
        return drawn or self._again.popleft()

    def _until(self) -> int | None:
        window = self._plan.reorder_window
        return None if window is None else self._given + window

    def _draw(self, worker: int) -> OutcomeBuilder | None:
        places = self._queue.take(self._until())
        if not places:
            return None
        unit = self._plan.reader.unit(tuple(places), self._plan.options.paging, self._paces[worker])
        return OutcomeBuilder(self._plan, self._channel, unit, places, self._answers)

    async def _moved(self) -> None:
        """Wait until the loop took an outcome: the next key's would have to be held back."""
        self._window.clear()
        await self._window.wait()

    def advance(self) -> None:
        """The loop gave one more outcome in order."""
        self._given += 1
        self._window.set()

    async def _attempt(self, pending: OutcomeBuilder) -> CapillaryError | None:
        """Run a unit to its outcomes; gives the error where it is to be asked again.

        That is where the session's retry quota was empty or its gate shut, or where an outage was noticed while it was
        asked.
        """
        probe = not self._gate.is_set()
        try:
            await pending.unit.run(pending)
        except CapillaryError as error:
            fault = pending.whole_story(error)
        except BaseException:
            await pending.unit.aclose()
            raise
        else:
            self._was_answered()
            self._answered = pending.unit.keys
            if self._doubtful:
                await self._settle_doubtful()
            return None
        answered = answers(fault)
        noticed = not probe and not self._gate.is_set()
        for_all = isinstance(fault, _CONCERNS_ALL)
        if fault.quota_exhausted or unsent(fault) or (noticed and not answered and not for_all):
            return fault
        if probe and throttled(fault) and pending.strikes < STRIKES:
            pending.strikes += 1  # still the outage, and no verdict on the key that probed
            return fault
        if answered:
            self._was_answered()
        elif self._plan.whole and not probe and self._running > 1 and not for_all:
            await self._doubt(pending, fault)
            return None
        await self._settle(pending, fault)
        return None

    def _was_answered(self) -> None:
        self._answers += 1
        self._answered_at = self._plan.clock()

    async def _doubt(self, pending: OutcomeBuilder, fault: CapillaryError) -> None:
        """Hold back an error that may be an outage's first sign: an answer of others settles it, an outage asks again.

        A key may use up its attempts in the very moment before the quota is empty.
        """
        self._doubtful.append((pending, fault))
        if len(self._doubtful) > DOUBTFUL:
            await self._settle(*self._doubtful.popleft())

    async def _settle_doubtful(self) -> None:
        """Others were answered, or nobody is asked any more. Who was told to wait is asked again in the first case."""
        while self._doubtful:  # others may come and go while one waits for the loop
            pending, fault = self._doubtful.popleft()
            others = throttled(fault) and self._answers > pending.seen
            pending.strikes += others
            if others and pending.strikes <= self._plan.strikes:
                self._put_off(pending, fault)
            else:
                await self._settle(pending, fault)

    async def _postpone(self, pending: OutcomeBuilder, error: CapillaryError, worker: int) -> None:
        """Ask again what was refused its retries: at once where others are answered, else when the outage is over."""
        others = self._answers > pending.seen
        pending.strikes += others
        if pending.strikes > STRIKES:
            # This is no outage, and a key that fails for ever must not be asked for ever.
            await self._settle(pending, error)
            return
        self._put_off(pending, error)
        if not others and self._gate.is_set():
            await self._outage(error, worker)

    def _put_off(self, pending: OutcomeBuilder, error: CapillaryError) -> None:
        self._plan.about(error, pending.unit.keys[0])
        pending.seen = self._answers
        pending.put_off(error)
        self._again.append(pending)

    async def _outage(self, error: CapillaryError, worker: int) -> None:
        """Probe with one unit at a time until the service answers. The worker that noticed does it, the others wait."""
        self._gate.clear()
        while self._doubtful:
            self._put_off(*self._doubtful.popleft())
        try:
            await self._probes(error, worker)
        except asyncio.CancelledError:
            self._gate.set()  # from elsewhere: nobody else would probe, and the others wait for ever
            raise
        self._gate.set()

    async def _probes(self, error: CapillaryError, worker: int) -> None:
        before = self._answers
        for number, pause in enumerate(self._pauses()):
            await self._plan.sleep(pause)
            probe = self._probe(worker, fresh=number % 2 == 0)
            if probe is not None:
                error = await self._ask(probe) or error
            elif not self._again:
                break
            else:
                await self._ask_answered()
            if self._answers > before:
                break
        else:
            raise error

    async def _ask(self, probe: OutcomeBuilder) -> CapillaryError | None:
        fault = await self._attempt(probe)
        if fault is not None:
            self._put_off(probe, fault)
        return fault

    async def _ask_answered(self) -> None:
        """Ask what was answered before: where it is answered again, bad keys are all that is left, and no outage."""
        paging = evolve(self._plan.options.paging, prefetch=0, verify=False)
        unit = self._plan.reader.unit(self._answered, paging, ALONE)
        try:
            await unit.run(Control())
        except Answered:
            self._was_answered()
        except CapillaryError as error:
            if answers(error):
                self._was_answered()
        else:
            self._was_answered()
        finally:
            await unit.aclose()

    def _pauses(self) -> Iterator[float]:
        """Seconds before each probe, for as long as the patience lasts.

        Counted from the last answer: neither the time to notice the outage nor a slow probe puts off the next, so that
        after 30 s of it the probe of the 38th second goes out in that.
        """
        clock = self._plan.clock
        ends = clock() + self._plan.patience
        due = max(self._answered_at, clock() - _NOTICED)
        number = 0
        while (left := ends - clock()) > 0:
            pause = PROBES[min(number, len(PROBES) - 1)]
            due += pause
            late = pause - (due - clock())
            yield min(max(pause - late, _LEAST) if late > _LEAST else pause, left)
            number += 1

    def _probe(self, worker: int, *, fresh: bool) -> OutcomeBuilder | None:
        """A unit not asked yet or, in turn, one that failed: it may be that those alone fail.

        None where nothing is left, or where what was answered before is to be asked for want of anything fresh.
        """
        if (fresh or not self._again) and (drawn := self._draw(worker)) is not None:
            return drawn
        if not self._again or (fresh and self._answered):
            return None
        return self._again.popleft()

    async def _settle(self, pending: OutcomeBuilder, error: CapillaryError) -> None:
        """The unit failed for good: an error of each of its keys, or of all keys."""
        await pending.unit.aclose()
        keys = pending.unit.keys
        if isinstance(error, _CONCERNS_ALL) or not self._plan.whole:
            raise self._plan.about(error, keys[0] if error.key is None else error.key)
        for key in keys:
            await pending.fail(key, error if key == keys[0] else copy(error))

    async def _refuse(self, entry: QueuedKey) -> None:
        error = self._plan.about(cast("InvalidRequestError", entry.fault), entry.key)
        if not self._plan.whole:
            raise error
        await self._channel.send((entry.place, Outcome(entry.key, error=error)))


def _cut_off() -> RuntimeError:
    return RuntimeError("the fan-out was cancelled from elsewhere; keys without an outcome were not answered")


def _failure(tasks: Sequence[asyncio.Task[None]]) -> BaseException | None:
    """The first error of a task, as itself."""
    ended = (task.exception() for task in tasks if task.done() and not task.cancelled())
    return next((error for error in ended if error is not None), None)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel what is left and wait until it is gone. A further cancellation is passed on to it."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(left)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it
