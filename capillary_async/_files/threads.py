"""Calls that block, in threads beside the event loop, and waiting for what was cancelled.

Invariant: `Thread` makes one call at a time, also after its caller was cancelled; a process ends though its event loop
was interrupted. Threads of anyio do neither: a call that asyncio cancels frees its limiter while it runs, and an
interrupted loop leaves a thread that the exit of the process waits for. Used by all jobs and by `tables`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from anyio import CancelScope

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Thread", "in_thread", "join"]

P = ParamSpec("P")
T = TypeVar("T")
_MEANWHILE = 0.1  # seconds between two calls of `meanwhile`


def _without_stop_iteration(function: Callable[[], T]) -> T:
    """Call it. A future does not take a `StopIteration`: its waiter would never wake."""
    try:
        return function()
    except StopIteration as error:
        raise RuntimeError(f"a call in a thread raised {error!r}") from error


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make one call in a thread of the event loop's pool."""
    return await asyncio.to_thread(_without_stop_iteration, partial(function, *args, **kwargs))


class Thread:
    """One thread for calls that block, in order."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one call, after those that were made before."""
        call = partial(_without_stop_iteration, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Wait for the call that runs, drop those after it, and end the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)


async def join(*tasks: asyncio.Future[Any], meanwhile: Callable[[], object] | None = None) -> None:
    """Wait until all have ended, however often the caller is cancelled; then raise its last cancellation.

    Args:
        tasks: Tasks that end by themselves, e.g. cancelled ones. What they raise is left in them.
        meanwhile: Called every 0.1 seconds until they have ended.
    """
    cancelled: asyncio.CancelledError | None = None
    with CancelScope(shield=True):  # scopes of anyio cancel again at each await, asyncio once per `cancel()`
        while left := [task for task in tasks if not task.done()]:
            if meanwhile is not None:
                meanwhile()
            try:
                await asyncio.wait(left, timeout=None if meanwhile is None else _MEANWHILE)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
