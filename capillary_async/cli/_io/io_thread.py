"""Reads and writes that may block, in a thread.

Invariant: a slow reader of our output or a slow writer of our input never stops the requests under way, and never keeps
the process from ending. Used by `_io/id_input.py` and `_io/writer.py`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IOThread"]

P = ParamSpec("P")
T = TypeVar("T")


class IOThread:
    """One thread that makes blocking calls in order.

    It is a daemon: asyncio's own pool would be waited for at the end of the process, for ever where a pipe is never
    read.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="capillary-async-io", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one call, and return or raise what it does."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: function(*args, **kwargs)))
        return await asyncio.wrap_future(future)

    def end(self, last: Callable[[], object]) -> None:
        """Make one last call after those before it; no caller waits for it."""
        self._calls.put((Future(), last))
        self._calls.put(None)

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except StopIteration as error:  # no future can hold one: whoever waits would never wake
                future.set_exception(RuntimeError(f"a blocking call raised {error!r}"))
            except BaseException as error:  # noqa: BLE001 - raised where it was called
                future.set_exception(error)
