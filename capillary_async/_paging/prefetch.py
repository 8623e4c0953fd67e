"""Pages under way: the one place that owns page tasks.

Invariant: results come in order; no task outlives its owner, however the owner ends: closed, failed, cancelled or
dropped. Used by the walk, which decides what is worth asking for.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from capillary_async._loops import call_in, running_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["PrefetchQueue"]

R = TypeVar("R")


class PrefetchQueue(Generic[R]):
    """A queue of tasks, each fetching one page, taken in the order they were started."""

    def __init__(self) -> None:
        self._tasks: deque[asyncio.Task[R]] = deque()
        self._going: list[asyncio.Task[R]] = []  # cancelled, and perhaps not gone yet
        self._guarded = False

    def __len__(self) -> int:
        """How many are in flight or waiting."""
        return len(self._tasks)

    def start(self, fetch: Coroutine[Any, Any, R]) -> None:
        """Start one more. The coroutine must not hold the owner, or dropping the owner would not end it."""
        loop = asyncio.get_running_loop()
        if not self._guarded:
            # For an iterator dropped in the middle, as `break` does: nobody will call `aclose`.
            weakref.finalize(self, _drop, self._tasks, loop).atexit = False
            self._guarded = True
        task = loop.create_task(fetch)
        task.add_done_callback(_retrieve)
        self._tasks.append(task)
        # An eager task may have failed by now: its error has this frame behind its own, and would keep the task alive.
        # (So does asyncio's `create_task` itself, in the first releases of Python 3.12 and 3.13: gh-128552.)
        del task

    async def take(self) -> R:
        """The oldest result, as soon as it is there; a cancellation of the taker cancels it too."""
        task = self._tasks.popleft()
        try:
            return await task
        finally:
            del task  # a failed task and the frames of its own error would keep each other alive

    async def peek(self) -> R:
        """The oldest result, which stays the next one to be taken; a cancellation leaves its task alone."""
        task = self._tasks[0]
        try:
            await asyncio.wait([task])
            return task.result()
        finally:
            del task

    async def any(self, wanted: Callable[[R], Awaitable[bool]]) -> bool:
        """Whether one of the results is wanted. All are waited for, until one is; failures are none."""
        left = set(self._tasks)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and task.exception() is None and await wanted(task.result()):
                    return True
        return False

    def cancel(self) -> None:
        """Cancel what is under way; for where nothing can be awaited. Nothing is cancelled twice.

        A second cancellation would break into what a request still has to do as it ends.
        """
        _cancel(self._tasks)
        self._going += self._tasks
        self._tasks.clear()

    async def aclose(self) -> None:
        """Cancel what is under way and wait until it is gone, with its connections."""
        self.cancel()
        if self._going:
            await asyncio.wait(self._going)
            self._going = [task for task in self._going if not task.done()]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the exception of a page that nobody may ask for, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()


def _cancel(tasks: deque[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _drop(tasks: deque[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks of an owner that nobody holds any more; garbage is collected in whatever thread it comes to."""
    if not tasks or loop.is_closed():
        return
    if running_loop() is loop:
        _cancel(tasks)
    else:
        call_in(loop, _cancel, tasks)
