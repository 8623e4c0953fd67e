"""`LoopThread`: an event loop in a thread of its own, and what waits for it.

Invariant: whatever ends a wait, Ctrl-C too, cancels what was awaited and returns once that is gone; after `close` no
thread is left. Called by `blocking/_session.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, TypeVar, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

__all__ = ["LoopThread"]

R = TypeVar("R")

_END: Any = object()


class LoopThread:
    """An event loop in a thread, begun with the first call."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    def run(self, function: Callable[[], Awaitable[R]]) -> R:
        """Await what the function gives, in the loop.

        Raises:
            RuntimeError: The session is closed, or was made in a process that has forked since.
        """
        future = self._started().start_task_soon(_awaited, function)
        try:
            return cast("R", future.result())
        except BaseException:
            future.cancel()
            raise

    def iterate(self, begin: Callable[[], Any]) -> Iterator[Any]:
        """The values of an asynchronous iterator, which is begun with the first of them."""
        iterator: AsyncIterator[Any] = self.run(lambda: _began(begin))
        try:
            while (value := self.run(lambda: _next(iterator))) is not _END:
                yield value
        finally:
            with suppress(RuntimeError):  # the session was closed first, which has ended the iterator
                self.run(cast("Any", iterator).aclose)

    def close(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Await `finish` in the loop, then end the thread. Closing twice is fine."""
        with self._lock:
            closed, self._closed = self._closed or os.getpid() != self._process, True
            portal = self._portal
        if closed or portal is None:
            return
        try:
            portal.start_task_soon(_awaited, finish).result()
        finally:
            self._stack.close()

    def _started(self) -> BlockingPortal:
        if os.getpid() != self._process:
            raise RuntimeError("the session was made in another process; make one in each process, after the fork")
        with self._lock:
            if self._closed:
                raise RuntimeError("the session is closed")
            if self._portal is None:
                self._portal = self._stack.enter_context(start_blocking_portal(name="capillary_async.blocking"))
            return self._portal


async def _awaited(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()


async def _began(begin: Callable[[], Any]) -> Any:
    return aiter(begin())


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, _END)
