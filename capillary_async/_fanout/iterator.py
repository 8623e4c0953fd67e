"""One loop over a fan-out: `FanOutIterator`, and its four forms: outcomes, ordered outcomes, pages, records.

Invariant: no task outlives the loop, however the loop ends; an iterator never takes a failure for the end. Classes, not
async generators, whose clean-up waits for the garbage collector.
Called by `FanOut`; closed by loops, users and the session.
"""

from __future__ import annotations

import asyncio
import weakref
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from capillary_async._fanout.handoff import Handoff
from capillary_async._fanout.outcome import FanOutRun, Outcome
from capillary_async._fanout.workers import WorkerPool
from capillary_async._loops import call_in, running_loop
from capillary_async._paging.misuse import AsyncOnly
from capillary_async._paging.page import Page

__all__ = ["FanOutIterator", "KeyedPageIterator", "OrderedIterator", "OutcomeIterator", "RecordIterator"]

K = TypeVar("K")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_END = "end"


class _Run(NamedTuple):
    """The workers of one loop, their task, and the queue between them and the loop."""

    pool: WorkerPool[Any, Any]
    task: asyncio.Task[None]
    handoff: Handoff[Any]


class FanOutIterator(AsyncOnly, Generic[T_co]):
    """One loop over a fan-out. `aclose()` ends it early; being dropped does too."""

    def __init__(self, run: FanOutRun[Any, Any]) -> None:
        self._plan = run
        self._loop = asyncio.get_running_loop()
        self._run: _Run | None = None
        self._busy = False
        self._ended: str | None = None  # `_END`, or the reason why no more values can come

    def __aiter__(self) -> FanOutIterator[T_co]:
        return self

    async def __anext__(self) -> T_co:
        self._enter()
        try:
            return await self._next(self._run or self._start())
        except BaseException as error:
            await self._stop(_reason(error))
            raise
        finally:
            self._busy = False

    @abstractmethod
    async def _next(self, run: _Run) -> T_co:
        """The next value of the loop."""

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError(
                "this iterator is already waiting in another task; give each task an iterator of its own"
            )
        if self._ended == _END:
            raise StopAsyncIteration
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; loop over the fan-out again")
        self._busy = True

    async def _received(self, run: _Run) -> Any:
        """The next value that the workers sent.

        Raises:
            StopAsyncIteration: Every key has its outcome.
            CapillaryError: The error that ended the run, as itself; the input's own error likewise.
        """
        if run.handoff or await run.handoff.wait():
            return run.handoff.take()
        await asyncio.wait([run.task])
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; loop over the fan-out again")
        if run.pool.failure is not None:
            raise run.pool.failure
        raise StopAsyncIteration

    def _start(self) -> _Run:
        handoff: Handoff[Any] = Handoff(self._plan.options.concurrency)
        pool: WorkerPool[Any, Any] = WorkerPool(self._plan, handoff)
        # The task refers to the pool and to nothing of this iterator, so that dropping the iterator ends it.
        task = self._loop.create_task(pool.run())
        task.add_done_callback(lambda _: handoff.end())  # also where it was cancelled before it began
        weakref.finalize(self, _drop, task, handoff, self._loop).atexit = False
        self._run = _Run(pool, task, handoff)
        return self._run

    async def _stop(self, why: str) -> None:
        """Cancel the workers and wait until they have ended. Stopping twice is fine."""
        first = self._ended is None
        self._mark_ended(why)
        if self._run is None:
            return
        if first:
            self._run.task.cancel()
        self._run.handoff.close()
        await asyncio.wait([self._run.task])

    def _mark_ended(self, why: str) -> None:
        self._ended = self._ended or why

    async def aclose(self) -> None:
        """End the loop early; no request stays under way. Closing twice is fine."""
        await self._stop("was closed while it waited" if self._busy else _END)

    def _unsettled(self) -> dict[Any, int]:
        """The keys that failed and have no outcome, with the number of attempts of their calls. For the jobs."""
        return {} if self._run is None else self._run.pool.unsettled()

    async def _end(self, why: str) -> None:
        """End it for the session."""
        if asyncio.get_running_loop() is self._loop:
            await self._stop(why)
            return
        self._mark_ended(why)
        if self._run is not None:
            call_in(self._loop, self._run.task.cancel)


class OutcomeIterator(FanOutIterator[Outcome[K, T]]):
    """Outcomes as they finish."""

    async def _next(self, run: _Run) -> Outcome[K, T]:
        outcome: Outcome[K, T]
        _, outcome = await self._received(run)
        return outcome


class OrderedIterator(FanOutIterator[Outcome[K, T]]):
    """Outcomes in the order of the input. The workers stay within the reorder window, so that few are buffered."""

    def __init__(self, run: FanOutRun[Any, Any]) -> None:
        super().__init__(run)
        self._buffered: dict[int, Outcome[K, T]] = {}
        self._place = 0

    async def _next(self, run: _Run) -> Outcome[K, T]:
        while self._place not in self._buffered:
            place, outcome = await self._received(run)
            self._buffered[place] = outcome
        outcome = self._buffered.pop(self._place)
        self._place += 1
        run.pool.advance()
        return outcome


class KeyedPageIterator(FanOutIterator[tuple[K, Page[T]]]):
    """Pairs of a key and one of its pages, as they come."""

    async def _next(self, run: _Run) -> tuple[K, Page[T]]:
        pair: tuple[K, Page[T]] = await self._received(run)
        return pair


class RecordIterator(FanOutIterator[T_co]):
    """The records of all keys, page after page."""

    def __init__(self, run: FanOutRun[Any, Any]) -> None:
        super().__init__(run)
        self._items: Iterator[T_co] = iter(())

    async def __anext__(self) -> T_co:
        # Nearly every record comes this way: one coroutine, no await.
        for item in self._items:
            return item
        return await super().__anext__()

    async def _next(self, run: _Run) -> T_co:
        while True:
            _, page = await self._received(run)
            self._items = iter(page.items)
            for item in self._items:
                return item

    def _mark_ended(self, why: str) -> None:
        super()._mark_ended(why)
        self._items = iter(())


def _reason(error: BaseException) -> str:
    if isinstance(error, StopAsyncIteration):
        return _END
    if isinstance(error, asyncio.CancelledError):
        return "was cancelled while it waited"
    return f"ended with {type(error).__name__}"


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
