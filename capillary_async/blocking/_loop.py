"""`LoopThread`: an event loop in a thread of its own, and calls into it that wait for their result.

Invariant: whatever ends a wait, Ctrl-C too, cancels the awaited call and waits until it is gone; a closed, dropped or
forked session leaves no thread. Called by `blocking/_session.py`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from capillary_async._fanout.keys import READ_BY
from capillary_async._loops import bury, call_in, renew_in_child, running_loop
from capillary_async._session import AsyncSession
from capillary_async.blocking._input import CallersInput

__all__ = ["LoopThread"]

R = TypeVar("R")

_END: Any = object()


class LoopThread:
    """The loop of one session and its views; the thread starts with the first call."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._lock = threading.RLock()  # the garbage collector may close an iterator while this thread holds it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inherited = False
        renew_in_child(self, LoopThread._renew)

    def run(self, function: Callable[[], Awaitable[R]], work: SimpleQueue[Any] | None = None) -> R:
        """Await the function's result in the loop.

        Args:
            function: Makes what is awaited.
            work: What the loop asks this thread to do meanwhile: to read the input of a fan-out.

        Raises:
            RuntimeError: The session is closed, its thread was left behind by a fork, or this is its own loop.
        """
        call = _Call(function, work or SimpleQueue())
        loop: asyncio.AbstractEventLoop | None = None
        self._check()
        try:
            with self._lock:
                self._check_open()
                loop = self._loop or self._start()
                loop.call_soon_threadsafe(call.begin, context=call.context)
            call.wait()
        except BaseException:  # Ctrl-C comes between any two statements
            if loop is not None and call_in(loop, call.cancel):
                call.wait()
            raise
        return call.result()

    def iterate(self, begin: Callable[[], AsyncIterator[R]]) -> Iterator[R]:
        """The values of an asynchronous iterator, which is made in the loop."""
        work: SimpleQueue[Any] = SimpleQueue()
        return self._values(self.run(lambda: _made(begin), work), work)

    def _values(self, iterator: Any, work: SimpleQueue[Any]) -> Iterator[Any]:
        try:
            while (value := self.run(lambda: _next(iterator), work)) is not _END:
                yield value
        finally:
            with suppress(RuntimeError):  # closed with its session; or collected as garbage in the loop's own thread
                self.run(iterator.aclose, work)

    def close(self, session: AsyncSession) -> None:
        """Close the session and end the thread; of a view, end its own iterators and calls. Closing twice is fine."""
        if session.closed or self._inherited:
            return
        self.run(session.aclose)
        if session is self._session:
            with self._lock:
                self._end()
            self._thread.join()

    def _check_open(self) -> None:
        if self._session.closed:
            raise RuntimeError("the Session is closed: make a new one, or keep it open for as long as it is used")

    def _check(self) -> None:
        if self._inherited:
            raise RuntimeError("the Session was used before the fork: make one in each process, after the fork")
        if sys.is_finalizing():
            raise RuntimeError("the interpreter is shutting down")
        if self._loop is not None and running_loop() is self._loop:
            raise RuntimeError("called in the Session's own event loop, which cannot wait for itself: await there")

    def _start(self) -> asyncio.AbstractEventLoop:
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop, ended = runner.get_loop(), asyncio.Event()
        self._end = weakref.finalize(self, call_in, self._loop, ended.set)
        self._end.atexit = False
        arguments = (runner, self._session, ended)
        self._thread = threading.Thread(target=_serve, args=arguments, name="capillary_async.blocking", daemon=True)
        self._thread.start()
        return self._loop

    def _renew(self) -> None:
        """In a forked child, which has no such thread."""
        self._lock = threading.RLock()
        if self._loop is not None:
            self._inherited = True
            self._end.detach()
            bury(self._loop)


class _Call(Generic[R]):
    """One call into the loop, and what its caller does until it is done."""

    def __init__(self, function: Callable[[], Awaitable[R]], work: SimpleQueue[Any]) -> None:
        self._function = function
        self._work = work
        self._task: asyncio.Task[R] | None = None
        self._done = False
        self.context = copy_context()
        self.context.run(READ_BY.set, partial(CallersInput, work))

    def begin(self) -> None:
        """Start it; in the loop, as `cancel`."""
        self._task = asyncio.get_running_loop().create_task(_awaited(self._function))
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel it; one that was not started is done."""
        if self._task is None:
            self._end(None)
        else:
            self._task.cancel()

    def _end(self, _: object) -> None:
        self._done = True
        self._work.put(None)

    def wait(self) -> None:
        """Do what the loop asks for, until the call is done."""
        while not self._done:
            work = self._work.get()
            if work is not None:
                work()

    def result(self) -> R:
        """Its result, once it is done."""
        if self._task is None or self._task.cancelled():
            raise RuntimeError("the Session was closed during the call")
        return self._task.result()


def _serve(runner: asyncio.Runner, session: AsyncSession, ended: asyncio.Event) -> None:
    with runner:
        runner.run(_until(ended, session))


async def _until(ended: asyncio.Event, session: AsyncSession) -> None:
    await ended.wait()
    await session.aclose()


async def _awaited(function: Callable[[], Awaitable[R]]) -> R:
    return await function()


async def _made(begin: Callable[[], AsyncIterator[R]]) -> AsyncIterator[R]:
    return begin()


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, _END)
