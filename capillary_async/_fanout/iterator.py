"""One loop over a fan-out: `FanOutIterator`, and its four forms: outcomes, ordered outcomes, pages, records.

Invariant: no task outlives the loop, however the loop ends; an iterator never takes a failure for the end. Classes, not
async generators, whose clean-up waits for the garbage collector.
Called by `FanOut`; closed by loops, users and the session.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from capillary_async._fanout.handoff import Handoff
from capillary_async._fanout.outcome import FanOutRun, Outcome
from capillary_async._fanout.workers import WorkerPool
from capillary_async._loops import call_in, running_loop
from capillary_async._paging.iterators import ClosableIterator
from capillary_async._paging.page import Page
from capillary_async._progress import Bar

__all__ = ["FanOutIterator", "KeyedPageIterator", "OrderedIterator", "OutcomeIterator", "RecordIterator"]

K = TypeVar("K")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class _Run(NamedTuple):
    """The workers of one loop, their task, and the queue between them and the loop."""

    pool: WorkerPool[Any, Any]
    task: asyncio.Task[None]
    handoff: Handoff[Any]


class FanOutIterator(ClosableIterator[V_co]):
    """One loop over a fan-out. `aclose()` ends it early; being dropped does too."""

    _RESTART = "loop over the fan-out again"

    def __init__(self, run: FanOutRun[Any, Any], bar: Bar | None = None) -> None:
        super().__init__(bar)
        self._plan = run
        self._run: _Run | None = None

    async def __anext__(self) -> V_co:
        return await self._next_value()

    async def _sent(self) -> Any:
        """The next value that the workers sent.

        Raises:
            StopAsyncIteration: Every key has its outcome.
            CapillaryError: The error that ended the run, as itself; the input's own error likewise.
        """
        run = self._run or self._start()
        if run.handoff or await run.handoff.wait():
            value = run.handoff.take()
            if self._bar is not None:
                self._count(self._bar, value[1])
            return value
        await asyncio.wait([run.task])
        if self._ended is not None:
            raise self._ended_early()
        if run.pool.failure is not None:
            raise run.pool.failure
        raise StopAsyncIteration

    def _start(self) -> _Run:
        if self._bar is not None:
            self._bar.show()
        handoff: Handoff[Any] = Handoff(self._plan.options.concurrency)
        pool: WorkerPool[Any, Any] = WorkerPool(self._plan, handoff)
        # The task refers to the pool and to nothing of this iterator, so that dropping the iterator ends it.
        task = self._loop.create_task(pool.run())
        task.add_done_callback(lambda _: handoff.end())  # also where it was cancelled before it began
        weakref.finalize(self, _drop, task, handoff, self._loop).atexit = False
        self._run = _Run(pool, task, handoff)
        return self._run

    def _count(self, bar: Bar, result: Outcome[Any, Any] | Page[Any]) -> None:
        """Count a key that is finished."""
        if isinstance(result, Outcome):
            bar.add(1, failed=not result.ok)
        elif result.last:
            bar.add(1)

    def _cancel(self) -> None:
        if self._run is not None:
            _cancel(self._run.task, self._run.handoff)

    async def _released(self) -> None:
        if self._run is not None:
            await asyncio.wait([self._run.task])


class OutcomeIterator(FanOutIterator[Outcome[K, T]]):
    """Outcomes as they finish."""

    async def _receive(self) -> Outcome[K, T]:
        outcome: Outcome[K, T]
        _, outcome = await self._sent()
        return outcome


class OrderedIterator(FanOutIterator[Outcome[K, T]]):
    """Outcomes in the order of the input. The workers stay within the reorder window, so that few are buffered."""

    def __init__(self, run: FanOutRun[Any, Any], bar: Bar | None = None) -> None:
        super().__init__(run, bar)
        self._buffered: dict[int, Outcome[K, T]] = {}
        self._place = 0

    async def _receive(self) -> Outcome[K, T]:
        while self._place not in self._buffered:
            place, outcome = await self._sent()
            self._buffered[place] = outcome
        outcome = self._buffered.pop(self._place)
        self._place += 1
        if self._run is not None:
            self._run.pool.advance()
        return outcome


class KeyedPageIterator(FanOutIterator[tuple[K, Page[T]]]):
    """Pairs of a key and one of its pages, as they come."""

    async def _receive(self) -> tuple[K, Page[T]]:
        pair: tuple[K, Page[T]] = await self._sent()
        return pair


class RecordIterator(FanOutIterator[T_co]):
    """The records of all keys, page after page."""

    def __init__(self, run: FanOutRun[Any, Any], bar: Bar | None = None) -> None:
        super().__init__(run, bar)
        self._items: Iterator[T_co] = iter(())

    async def __anext__(self) -> T_co:
        # Nearly every record comes this way: one coroutine, no await.
        for item in self._items:
            return item
        return await self._next_value()

    async def _receive(self) -> T_co:
        while True:
            _, page = await self._sent()
            self._items = iter(page.items)
            for item in self._items:
                return item

    def _cancel(self) -> None:
        self._items = iter(())
        super()._cancel()


def _drop(task: asyncio.Task[None], handoff: Handoff[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the workers of an iterator that was garbage-collected, from whichever thread that happens in."""
    if loop.is_closed():  # and its tasks with it
        return
    if running_loop() is loop:
        _cancel(task, handoff)
    else:
        call_in(loop, _cancel, task, handoff)


def _cancel(task: asyncio.Task[None], handoff: Handoff[Any]) -> None:
    task.cancel()
    handoff.close()
