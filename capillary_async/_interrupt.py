"""A wait that can be broken off from outside.

Invariant: who breaks a wait off is told apart from who cancels its task; nothing of it outlives the wait. Used by the
session for its calls, by iterators for theirs, and by the watch over an attempt.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CancelScope"]


class CancelScope:
    """A wait that can be broken off from outside: what `asyncio.timeout(None)` is for, at a fraction of its cost.

    Use it with `with` around the wait, once. A wait that was broken off leaves the block without an error, and
    `broken` is true; a cancellation from elsewhere stays one.
    """

    __slots__ = ("_before", "_task", "broken", "loop", "struck")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        self.struck = False
        self.broken = False

    def strike(self) -> None:
        """Break the wait off; for its own loop. Nothing where it has ended."""
        if self._task is not None and not self.struck:
            self.struck = True
            self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if self.struck and task is not None:
            self.broken = task.uncancel() <= self._before and kind is asyncio.CancelledError
        return self.broken
