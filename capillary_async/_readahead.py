"""Pages under way: the one place that owns page tasks.

The rule kept here: results come in order; no task outlives its owner, however the owner ends: closed, failed, cancelled or dropped.
Used by the pager, which decides what is worth asking for.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["ReadAhead"]

R = TypeVar("R")


class ReadAhead(Generic[R]):
    """A queue of tasks, each fetching one page, taken in the order they were started."""

    def __init__(self) -> None:
        self._tasks: deque[asyncio.Task[R]] = deque()
        self._guarded = False

    def __len__(self) -> int:
        """How many are in flight or waiting."""
        return len(self._tasks)

    def start(self, fetch: Callable[[], Coroutine[Any, Any, R]]) -> None:
        """Start one more."""
        loop = asyncio.get_running_loop()
        if not self._guarded:
            # For an iterator dropped in the middle, as `break` does: nobody will call `aclose`.
            weakref.finalize(self, _cancel_all, self._tasks, loop).atexit = False
            self._guarded = True
        task = loop.create_task(fetch())
        task.add_done_callback(_retrieve)
        self._tasks.append(task)

    async def take(self) -> R:
        """The oldest result, as soon as it is there.

        Raises:
            RuntimeError: It was cancelled from elsewhere: the session was closed.
        """
        task = self._tasks.popleft()
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and (current is None or not current.cancelling()):
                raise RuntimeError("the session was closed while this iterator waited for a page") from None
            raise

    def cancel(self) -> None:
        """Cancel what is under way; for where nothing can be awaited."""
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Cancel what is under way and wait until it is gone, with its connections."""
        tasks = list(self._tasks)
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the exception of a page that nobody may ask for, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()


def _cancel_all(tasks: deque[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop) -> None:
    if not tasks or loop.is_closed():
        return
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        _cancel_each(tasks)
        return
    try:
        loop.call_soon_threadsafe(_cancel_each, tasks)
    except RuntimeError:  # closed meanwhile
        return


def _cancel_each(tasks: deque[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
