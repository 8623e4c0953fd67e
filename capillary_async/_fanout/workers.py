"""The workers of a fan-out: a pool that takes keys from one queue.

Invariant: every key has exactly one outcome, or the run fails; all workers take from one queue, so that memory does not
grow with the input. Knows no HTTP and nothing of outages, in which its calls wait.
Called by `FanOutIterator`, in a task of its own.
"""

from __future__ import annotations

import asyncio
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from capillary_async._fanout.keys import AHEAD, KeyQueue
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
        self._window = asyncio.Event()
        self._given = 0
        # Set until the run ends: a cancelled run must never look like the end of the input.
        self.failure: BaseException | None = _cut_off()
        self._workers = plan.workers
        # Batches start with the workers for a few hundred keys, and each answer admits two more.
        self._admitted = max(AHEAD // plan.reader.batch, 1) if plan.reader.batch > 1 else plan.workers
        self._admission = asyncio.Event()

    async def run(self) -> None:
        """Work until every key has its outcome, an error concerns all of them, or the run is cancelled.

        asyncio's task group cancels each task once: under one that cancels at each await, neither the input's own
        `finally` nor a page in flight could end in order.
        """
        run = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._queue.run())]
                tasks += [group.create_task(self._work(worker, run)) for worker in range(self._plan.workers)]
            if self._queue.error is not None or not any(task.cancelled() for task in tasks):
                self.failure = self._queue.error
        except (BaseExceptionGroup, KeyboardInterrupt, SystemExit) as error:
            self.failure = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
        finally:
            self._handoff.end()

    async def _work(self, worker: int, run: asyncio.Task[None] | None) -> None:
        """Read unit after unit. Workers have numbers, by which the permits of idle ones are shared."""
        begin_bulk(self._plan.work)
        await asyncio.sleep(0)  # an eager task must not fail before the others are made
        try:
            while worker >= self._admitted:
                self._admission.clear()
                await self._admission.wait()
            while (places := await self._next(worker)) is not None:
                await self._read(places, worker)
                if self._admitted < len(self._budgets):
                    self._admit(2)
        except asyncio.CancelledError:
            self._workers -= 1
            self._admit(self._plan.workers)
            if run is not None and (not self._workers or self._plan.reorder_window is not None):
                # Cancelled by another task, and its key is lost: an ordered loop would wait for that key, and where
                # this was the last worker, the input would wait for a worker. The run ends with the `failure` it began
                # with; an error raised here would be printed by `asyncio.run()`, which cancels all tasks at its end.
                run.cancel()
            raise
        self._admit(self._plan.workers)
        self._idle.add(worker)

    def _admit(self, more: int) -> None:
        """Let more workers start; all of them where the input has ended."""
        self._admitted += more
        self._admission.set()

    async def _next(self, worker: int) -> dict[K, int] | None:
        """The keys of the next unit, with their places; None at the end."""
        while self._queue.ready or await self._rest(worker, self._queue.wait()):
            if places := self._queue.take(self._until()):
                return places
            if (refused := self._queue.take_refused(self._until())) is not None:
                await self._refuse(refused)
            elif self._queue.waiting:
                await self._rest(worker, self._moved())
        return None

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
        if not self._idle or self._queue.has(self._until()):
            return 0
        share, more = divmod(len(self._idle), max(self._plan.options.concurrency - len(self._idle), 1))
        share += sum(other not in self._idle for other in range(worker)) < more
        return share and 1 + share

    def _until(self) -> int | None:
        window = self._plan.reorder_window
        return None if window is None else self._given + window

    async def _moved(self) -> None:
        """Wait until the loop takes an outcome: the next key is outside the reorder window."""
        self._window.clear()
        await self._window.wait()

    def advance(self) -> None:
        """Move the reorder window: the loop gave one more outcome in order."""
        self._given += 1
        self._window.set()

    async def _read(self, places: dict[K, int], worker: int) -> None:
        """Read the keys of a unit to their outcomes."""
        plan, keys = self._plan, tuple(places)
        builder = OutcomeBuilder(plan, self._handoff, places)
        try:
            await plan.reader.read(keys, builder, plan.options.paging, self._budgets[worker])
        except CapillaryError as error:
            await self._fail(builder, keys, error)

    async def _fail(self, builder: OutcomeBuilder, keys: tuple[K, ...], error: CapillaryError) -> None:
        """Give each key of the unit its error; raise an error that concerns all keys."""
        if error.concerns_all_keys or not self._plan.whole:
            raise self._plan.with_key(error, keys[0] if error.key is None else error.key)
        for key in keys:
            await builder.failed(key, error if key == keys[0] else copy(error))

    async def _refuse(self, entry: QueuedKey) -> None:
        error = self._plan.with_key(cast("InvalidRequestError", entry.fault), entry.key)
        if not self._plan.whole:
            raise error
        await self._handoff.send((entry.place, Outcome(entry.key, error=error)))


def _cut_off() -> RuntimeError:
    return RuntimeError("the fan-out was cancelled from elsewhere; keys without an outcome were not answered")
