"""Calls under way, so that they end with their session.

Invariant: who waits for an answer, a permit or another attempt when the session is closed learns it at once, in a loop
of their own. Used by the session alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from capillary_async._interrupt import CancelScope
from capillary_async._loops import call_in

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["InFlightCalls"]

T = TypeVar("T")


class InFlightCalls:
    """The calls of one session or view."""

    def __init__(self) -> None:
        self._waits: set[CancelScope] = set()

    async def run(self, call: Awaitable[T]) -> T:
        """Wait for a call.

        Raises:
            RuntimeError: `end` was called meanwhile.
        """
        wait = CancelScope()
        self._waits.add(wait)
        try:
            with wait:
                return await call
        finally:
            self._waits.discard(wait)
        raise RuntimeError("the AsyncSession was closed while a request was under way")

    def end(self) -> None:
        """Interrupt them, each in its own loop."""
        for wait in list(self._waits):
            call_in(wait.loop, wait.strike)
