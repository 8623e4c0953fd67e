"""Waits that code outside of their task ends: `CancelScope`, and `InFlightCalls`, which end with their session.

Invariant: a scope separates its own cancel from a cancellation of its task, and nothing of it outlives the wait. A
call that waits for an answer, a permit or another attempt when its session closes raises at once, in its own loop.
Called by the session for its calls, by `PageIterator` for its pages and by `AttemptTimer`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from capillary_async._loops import call_in

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

__all__ = ["CancelScope", "InFlightCalls"]

T = TypeVar("T")


class CancelScope:
    """A wait that `cancel` ends from outside: what `asyncio.timeout(None)` is for, at a fraction of its cost.

    Use it once, with `with` around the wait. A wait that `cancel` ended leaves the block without an error, and
    `cancelled_caught` is true; a cancellation from elsewhere stays one.

    Attributes:
        loop: The loop of the wait, the only one in which `cancel` may be called.
        cancel_called: Whether `cancel` was called while the wait lasted.
        cancelled_caught: Whether that ended the wait.
    """

    __slots__ = ("_before", "_task", "cancel_called", "cancelled_caught", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        self.cancel_called = False
        self.cancelled_caught = False

    def cancel(self) -> None:
        """End the wait; does nothing where it has ended."""
        if self._task is not None and not self.cancel_called:
            self.cancel_called = True
            self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if self.cancel_called and task is not None:
            self.cancelled_caught = task.uncancel() <= self._before and kind is asyncio.CancelledError
        return self.cancelled_caught


class InFlightCalls:
    """The calls of one session or view that wait for their result."""

    def __init__(self) -> None:
        self._scopes: set[CancelScope] = set()

    async def run(self, call: Awaitable[T]) -> T:
        """Wait for a call.

        Raises:
            RuntimeError: `end` was called meanwhile.
        """
        scope = CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                return await call
        finally:
            self._scopes.discard(scope)
        raise RuntimeError("the AsyncSession was closed while a request was under way")

    def end(self) -> None:
        """Cancel every call, each in its own loop."""
        for scope in list(self._scopes):
            call_in(scope.loop, scope.cancel)
