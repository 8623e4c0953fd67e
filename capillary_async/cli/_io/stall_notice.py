"""Telling that nothing is answered, so that a server that cannot be reached does not look like a program that hangs.

Invariant: it watches and changes nothing; slowness is reported once, a kind of failure once in each silence. Used by
`_commands/read.py` and `_commands/ledger.py`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from capillary_async import APIError, CapillaryError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from capillary_async import AsyncSession, Request, Response

__all__ = ["StallMonitor"]

_PATIENCE = 5.0  # seconds
_TICK = 0.25
_SLOW = ""  # where no failure is known


class StallMonitor:
    """A middleware of the session that sees how every call ends, and a task that reports when no call succeeds."""

    def __init__(self) -> None:
        self._under_way = 0
        self._since: float | None = None  # the first call that has no answer yet began; None where none is awaited
        self._error: CapillaryError | None = None
        self._told: set[str] = set()

    async def __call__(self, request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
        """Pass a call on and remember how it went."""
        self._under_way += 1
        if self._since is None:
            self._since = time.monotonic()
        try:
            response = await handler(request)
        except BaseException as error:
            if isinstance(error, CapillaryError) and error.lacks_answer:
                self._under_way -= 1
                self._error = error
            else:
                self._ended()
            raise
        self._ended()
        return response

    def _ended(self) -> None:
        self._under_way -= 1
        self._since = time.monotonic() if self._under_way else None
        self._error = None
        self._told &= {_SLOW}

    @asynccontextmanager
    async def told(self, session: AsyncSession, tell: Callable[[str], object]) -> AsyncGenerator[None]:
        """Tell for as long as the block runs."""
        watch = asyncio.ensure_future(self._watch(session, tell))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _watch(self, session: AsyncSession, tell: Callable[[str], object]) -> None:
        rate = session.limits.rate
        patience = _PATIENCE + (rate.per if rate else 0)  # requests that wait for their permit are no silence
        while True:
            await asyncio.sleep(_TICK)
            silent = 0.0 if self._since is None else time.monotonic() - self._since
            kind = _SLOW if self._error is None else type(self._error).__name__
            if silent >= patience and kind not in self._told:
                self._told |= {_SLOW, kind}
                tell(f"no answer from {session.base_url} for {silent:.0f} s{self._until(session, silent)}")

    def _until(self, session: AsyncSession, silent: float) -> str:
        """What is known of the reason, and how long it is tried."""
        ends = time.localtime(time.time() - silent + session.timeouts.call)
        reason = "" if self._error is None else f" ({type(self._error).__name__}: {_why(self._error)})"
        return f"{reason}; trying on until about {time.strftime('%H:%M:%S', ends)}"


def _why(error: CapillaryError) -> object:
    """The bare reason: the error's own text ends with what became of its call."""
    return f"HTTP {error.status}" if isinstance(error, APIError) else error.__cause__ or error
