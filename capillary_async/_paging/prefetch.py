"""`PrefetchQueue`: the owner of the tasks that request pages ahead.

Invariant: results come in order; no task outlives its owner, however the owner ends: closed, failed, cancelled or
dropped. Called by `PageRequests`, which decides how many pages are requested.
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
        self._ending: list[asyncio.Task[R]] = []  # cancelled, and perhaps not ended yet
        self._guarded = False

    def __len__(self) -> int:
        """Number of pages in flight or waiting to be taken."""
        return len(self._tasks)

    def start(self, fetch: Coroutine[Any, Any, R]) -> None:
        """Start one more task. The coroutine must not refer to the owner, or dropping the owner would not end it."""
        loop = asyncio.get_running_loop()
        if not self._guarded:
            # For an iterator dropped in the middle, as `break` does: no caller is left for `aclose`.
            weakref.finalize(self, _drop, self._tasks, loop).atexit = False
            self._guarded = True
        task = loop.create_task(fetch)
        task.add_done_callback(_retrieve)
        self._tasks.append(task)
        # An eager task may have failed by now: its error has this frame behind its own, and would keep the task alive.
        # (So does asyncio's `create_task` itself, in the first releases of Python 3.12 and 3.13: gh-128552.)
        del task

    async def take(self) -> R:
        """Wait for the oldest result and remove it; a cancellation of the caller cancels its task too."""
        task = self._tasks.popleft()
        try:
            return await task
        finally:
            del task  # a failed task and the frames of its own error would keep each other alive

    async def peek(self) -> R:
        """Wait for the oldest result, which stays the next to be taken. Cancelling the caller leaves the task alone."""
        task = self._tasks[0]
        try:
            await asyncio.wait([task])
            return task.result()
        finally:
            del task

    async def any(self, wanted: Callable[[R], Awaitable[bool]]) -> bool:
        """Wait until one of the results is wanted, or all are known; failed tasks have no result."""
        left = set(self._tasks)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and task.exception() is None and await wanted(task.result()):
                    return True
        return False

    def cancel(self) -> None:
        """Cancel all tasks without waiting, each of them once.

        A second cancellation would interrupt the clean-up of a request.
        """
        if self._tasks:  # nearly never: most lists are one page
            _cancel(self._tasks)
            self._ending += self._tasks
            self._tasks.clear()

    async def aclose(self) -> None:
        """Cancel all tasks and wait until they have ended, with their connections."""
        self.cancel()
        if self._ending:
            await asyncio.wait(self._ending)
            self._ending = [task for task in self._ending if not task.done()]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a page that may never be taken, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


def _cancel(tasks: deque[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _drop(tasks: deque[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks of an owner that was garbage-collected, from whichever thread that happens in."""
    if not tasks or loop.is_closed():
        return
    if running_loop() is loop:
        _cancel(tasks)
    else:
        call_in(loop, _cancel, tasks)
