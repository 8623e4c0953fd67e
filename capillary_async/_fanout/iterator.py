"""What a loop over a fan-out holds: `FanOutIterator`.

Invariant: no task outlives the loop over it, however the loop ends; an iterator never takes a failure for the end. A
class, not an async generator, whose clean-up waits for the garbage collector. Made by `FanOut`, closed by loops, users
and the session.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar, cast

from capillary_async._fanout.handoff import Handoff
from capillary_async._fanout.outcome import FanOutRun
from capillary_async._fanout.workers import WorkerPool
from capillary_async._loops import call_in, running_loop
from capillary_async._paging.misuse import AsyncOnly

__all__ = ["FanOutIterator"]

T_co = TypeVar("T_co", covariant=True)

_END = "end"


class _Run(NamedTuple):
    """What stands behind one loop: the crew, its task, and what it sends."""

    crew: WorkerPool[Any, Any]
    task: asyncio.Task[None]
    channel: Handoff[Any]


class FanOutIterator(AsyncOnly, Generic[T_co]):
    """One loop over a fan-out. `aclose()` ends it early; being dropped does too."""

    def __init__(self, plan: FanOutRun[Any, Any]) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._run: _Run | None = None
        self._held: dict[int, Any] = {}
        self._place = 0
        self._items: Iterator[Any] = iter(())
        self._busy = False
        self._ended: str | None = None  # `_END`, or why nothing more can come

    def __aiter__(self) -> FanOutIterator[T_co]:
        return self

    async def __anext__(self) -> T_co:
        # The way of nearly every record: one coroutine, nothing awaited.
        for item in self._items:
            return cast("T_co", item)
        self._enter()
        try:
            return cast("T_co", await self._next())
        except BaseException as error:
            await self._stop(_reason(error))
            raise
        finally:
            self._busy = False

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

    async def _next(self) -> Any:
        run = self._run or self._start()
        if self._plan.mode == "outcomes":
            return (await self._received(run))[1]
        if self._plan.mode == "pages":
            return await self._received(run)
        if self._plan.mode == "ordered":
            return await self._in_order(run)
        while True:
            _, page = await self._received(run)
            self._items = iter(page.items)
            for item in self._items:
                return item

    async def _in_order(self, run: _Run) -> Any:
        while self._place not in self._held:
            place, outcome = await self._received(run)
            self._held[place] = outcome
        outcome = self._held.pop(self._place)
        self._place += 1
        run.crew.advance()
        return outcome

    async def _received(self, run: _Run) -> Any:
        """What the workers sent next.

        Raises:
            StopAsyncIteration: All is done.
            CapillaryError: What ended the run, as itself; the input's own error likewise.
        """
        if run.channel or await run.channel.wait():
            return run.channel.take()
        await asyncio.wait([run.task])
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; loop over the fan-out again")
        if run.crew.failure is not None:
            raise run.crew.failure
        raise StopAsyncIteration

    def _start(self) -> _Run:
        channel: Handoff[Any] = Handoff(self._plan.options.concurrency)
        crew: WorkerPool[Any, Any] = WorkerPool(self._plan, channel)
        # The task holds the crew and nothing of this iterator, so that dropping the iterator ends it.
        task = self._loop.create_task(crew.run())
        task.add_done_callback(lambda _: channel.end())  # also where it was cancelled before it began
        weakref.finalize(self, _drop, task, channel, self._loop).atexit = False
        self._run = _Run(crew, task, channel)
        return self._run

    async def _stop(self, why: str) -> None:
        """Cancel the workers and wait until they are gone. Stopping twice is fine."""
        first, self._ended, self._items = self._ended is None, self._ended or why, iter(())
        if self._run is None:
            return
        if first:
            self._run.task.cancel()
        self._run.channel.close()
        await asyncio.wait([self._run.task])

    async def aclose(self) -> None:
        """End the loop early; no request stays under way. Closing twice is fine."""
        await self._stop("was closed while it waited" if self._busy else _END)

    def _unsettled(self) -> dict[Any, int]:
        """The keys that failed and have no outcome, with the attempts of their calls. For the jobs."""
        return {} if self._run is None else self._run.crew.unsettled()

    async def _end(self, why: str) -> None:
        """End it for the session."""
        if asyncio.get_running_loop() is self._loop:
            await self._stop(why)
            return
        self._ended, self._items = self._ended or why, iter(())
        if self._run is not None:
            call_in(self._loop, self._run.task.cancel)


def _reason(error: BaseException) -> str:
    if isinstance(error, StopAsyncIteration):
        return _END
    if isinstance(error, asyncio.CancelledError):
        return "was cancelled while it waited"
    return f"ended with {type(error).__name__}"


def _drop(task: asyncio.Task[None], channel: Handoff[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the workers of an iterator that nobody holds any more, wherever that is noticed."""
    if loop.is_closed():  # and its tasks with it
        return
    if running_loop() is loop:
        _cancel(task, channel)
    else:
        call_in(loop, _cancel, task, channel)


def _cancel(task: asyncio.Task[None], channel: Handoff[Any]) -> None:
    task.cancel()
    channel.close()
