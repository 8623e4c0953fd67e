"""Calls under way, so that they end with their session.

The rule kept here: who waits for an answer, a permit or another attempt when the session is closed learns it at once,
in a loop of their own. Used by the session alone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["UnderWay"]

T = TypeVar("T")


class UnderWay:
    """The calls of one session or view."""

    def __init__(self) -> None:
        self._limits: set[tuple[asyncio.AbstractEventLoop, asyncio.Timeout]] = set()

    async def run(self, call: Awaitable[T]) -> T:
        """Wait for a call.

        Raises:
            RuntimeError: `end` was called meanwhile.
        """
        # Not for a time: an `asyncio.Timeout` is how a wait can be interrupted from outside.
        limit = asyncio.timeout(None)
        entry = asyncio.get_running_loop(), limit
        self._limits.add(entry)
        try:
            async with limit:
                return await call
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._limits.discard(entry)
        raise RuntimeError("the AsyncSession was closed while a request was under way")

    def end(self) -> None:
        """Interrupt them, each in its own loop."""
        for loop, limit in list(self._limits):
            with suppress(RuntimeError):  # that loop is closed, and its calls with it
                loop.call_soon_threadsafe(_expire, loop, limit)


def _expire(loop: asyncio.AbstractEventLoop, limit: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # it has ended meanwhile
        limit.reschedule(loop.time())
