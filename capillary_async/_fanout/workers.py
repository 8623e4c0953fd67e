"""The workers of a fan-out: a pool that takes keys from one queue.

Invariant: every key has exactly one outcome, or the run fails; all workers take from one queue, so that memory does not
grow with the input; an outage does not use up the input. Knows no HTTP. Called by `FanOutIterator`, in a task of its
own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from copy import copy
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from capillary_async._fanout.keys import AHEAD, KeyQueue
from capillary_async._fanout.outage import Outage
from capillary_async._fanout.outcome import Outcome
from capillary_async._fanout.outcome_builder import OutcomeBuilder
from capillary_async._paging.source import PrefetchBudget
from capillary_async._priority import begin_bulk
from capillary_async.errors import CapillaryError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from capillary_async._fanout.handoff import Handoff
    from capillary_async._fanout.keys import QueuedKey
    from capillary_async._fanout.outcome import FanOutRun
    from capillary_async.errors import InvalidRequestError

__all__ = ["WorkerPool"]

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


class WorkerPool(Generic[K, T]):
    """One run of a fan-out: workers that take keys from one queue, and the state they share."""

    def __init__(self, plan: FanOutRun[K, T], handoff: Handoff[Any]) -> None:
        self._plan = plan
        self._handoff = handoff
        self._queue = KeyQueue(plan.keys, plan.reader, unique=plan.options.unique)
        self._idle = set(range(plan.workers, plan.options.concurrency))  # numbers of workers without work
        self._budgets = [PrefetchBudget(partial(self._ahead, worker), handoff.turn) for worker in range(plan.workers)]
        self.retries: deque[OutcomeBuilder] = deque()
        self.running = 0
        self._outage = Outage(plan, self)
        self._window = asyncio.Event()
        self._given = 0
        # Set until the run ends: a cancelled run must never look like the end of the input.
        self.failure: BaseException | None = _cut_off()
        self._workers = plan.workers
        # Batches start with the workers for a few hundred keys, and each answer admits two more.
        self._admitted = max(AHEAD // plan.reader.batch, 1) if plan.reader.batch > 1 else plan.workers
        self._admission = asyncio.Event()

    async def run(self) -> None:
        """Work until every key has its outcome, or an error concerns all of them.

        asyncio's task group cancels each task once: under one that cancels at each await, neither the input's own
        `finally` nor a page in flight could end in order.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._queue.run())]
                tasks += [group.create_task(self._work(worker)) for worker in range(self._plan.workers)]
            if self._queue.error is not None or not any(task.cancelled() for task in tasks):
                self.failure = self._queue.error
        except (BaseExceptionGroup, KeyboardInterrupt, SystemExit) as error:
            self.failure = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
        finally:
            self._handoff.end()

    def unsettled(self) -> dict[Any, int]:
        """The keys that failed and have no outcome yet, with the attempts of their calls."""
        waiting = chain(self.retries, self._outage.suspects())
        return {key: builder.attempts for builder in waiting for key in builder.unit.keys if builder.attempts}

    async def _work(self, worker: int) -> None:
        """Read unit after unit. Workers have numbers, by which the permits of idle ones are shared."""
        begin_bulk()
        await asyncio.sleep(0)  # an eager task must not fail before the others are made
        try:
            while worker >= self._admitted:
                self._admission.clear()
                await self._admission.wait()
            while (builder := await self._next(worker)) is not None:
                self.running += 1
                error = await self.attempt(builder)
                self.running -= 1
                self._admit(2)
                if error is not None:
                    await self._outage.postpone(builder, error, worker)
                if not self.running:
                    await self._outage.idle()
        except asyncio.CancelledError:
            self._workers -= 1
            self._admit(self._plan.workers)
            if self._workers and self._plan.reorder_window is None:
                raise
            # Cancelled by another task, and its key is lost: an ordered loop would wait for that key, and where this
            # was the last worker, the input would wait for a worker.
            raise _cut_off() from None
        self._admit(self._plan.workers)
        self._idle.add(worker)

    def _admit(self, more: int) -> None:
        """Let more workers start; all of them where the input has ended."""
        self._admitted += more
        self._admission.set()

    async def _next(self, worker: int) -> OutcomeBuilder | None:
        """The next unit; waits while the service is down. None at the end."""
        while True:
            await self._outage.wait()
            if self.retries:
                return self._turn(worker)
            more = self._queue.ready or await self._rest(worker, self._queue.wait())
            if self.retries or self._outage.active:
                continue
            if not more:
                return None
            if (builder := self.new_unit(worker)) is not None:
                return builder
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
        if not self._idle or self._outage.active or self.retries or self._queue.has(self._until()):
            return 0
        share, more = divmod(len(self._idle), max(self._plan.options.concurrency - len(self._idle), 1))
        share += sum(other not in self._idle for other in range(worker)) < more
        return share and 1 + share

    def _turn(self, worker: int) -> OutcomeBuilder:
        """The next unit: a new one rather than the retry of a failed one, until another unit has succeeded."""
        drawn = self.new_unit(worker) if self.retries[0].seen == self._outage.answers else None
        return drawn or self.retries.popleft()

    def _until(self) -> int | None:
        window = self._plan.reorder_window
        return None if window is None else self._given + window

    def new_unit(self, worker: int) -> OutcomeBuilder | None:
        """A unit of new keys; None where there are none."""
        places = self._queue.take(self._until())
        if not places:
            return None
        unit = self._plan.reader.unit(tuple(places), self._plan.options.paging, self._budgets[worker])
        return OutcomeBuilder(self._plan, self._handoff, unit, places, self._outage.answers)

    async def _moved(self) -> None:
        """Wait until the loop takes an outcome: the next key is outside the reorder window."""
        self._window.clear()
        await self._window.wait()

    def advance(self) -> None:
        """Move the reorder window: the loop gave one more outcome in order."""
        self._given += 1
        self._window.set()

    async def attempt(self, builder: OutcomeBuilder) -> CapillaryError | None:
        """Run a unit to its outcomes; return the error where it is to be retried."""
        probe = self._outage.active
        try:
            await builder.unit.run(builder)
        except CapillaryError as error:
            fault = builder.with_earlier_attempts(error)
        except BaseException:
            await builder.unit.aclose()
            raise
        else:
            await self._outage.answered(builder.unit.keys)
            return None
        return await self._outage.judge(builder, fault, probe=probe)

    def retry_later(self, builder: OutcomeBuilder, error: CapillaryError) -> None:
        """Queue a failed unit for a retry."""
        self._plan.with_key(error, builder.unit.keys[0])
        builder.seen = self._outage.answers
        builder.remember(error)
        self.retries.append(builder)

    async def confirm_failure(self, builder: OutcomeBuilder, error: CapillaryError) -> None:
        """Give each key of the unit its error; raise an error that concerns all keys."""
        await builder.unit.aclose()
        keys = builder.unit.keys
        if error.concerns_all_keys or not self._plan.whole:
            raise self._plan.with_key(error, keys[0] if error.key is None else error.key)
        for key in keys:
            await builder.fail(key, error if key == keys[0] else copy(error))

    async def _refuse(self, entry: QueuedKey) -> None:
        error = self._plan.with_key(cast("InvalidRequestError", entry.fault), entry.key)
        if not self._plan.whole:
            raise error
        await self._handoff.send((entry.place, Outcome(entry.key, error=error)))


def _cut_off() -> RuntimeError:
    return RuntimeError("the fan-out was cancelled from elsewhere; keys without an outcome were not answered")
