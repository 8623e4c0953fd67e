"""`StallMonitor`: a notice where no request is answered, so that a server that is down does not look like a hang.

Invariant: it watches and changes nothing; slowness is reported once, and each kind of failure once per stall.
Called by `_commands/read.py`, `_commands/ledger.py` and `_commands/export.py`.
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

_LIMIT = 5.0  # seconds without an answer until a notice
_TICK = 0.25
_SLOW = ""  # the kind of a stall without a failure


class StallMonitor:
    """A middleware of the session, which notes how each call ends, and a task that reports where none is answered."""

    def __init__(self) -> None:
        self._under_way = 0
        self._since: float | None = None  # when the first unanswered call began; None if no call is under way
        self._error: CapillaryError | None = None
        self._reported: set[str] = set()

    async def __call__(self, request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
        """Pass a call on and note how it ended."""
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
        self._reported &= {_SLOW}

    @asynccontextmanager
    async def reporting(self, session: AsyncSession, report: Callable[[str], object]) -> AsyncGenerator[None]:
        """Report for as long as the block runs."""
        watch = asyncio.ensure_future(self._watch(session, report))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _watch(self, session: AsyncSession, report: Callable[[str], object]) -> None:
        rate = session.limits.rate
        limit = _LIMIT + (rate.per if rate else 0)  # requests that wait for their permit are no stall
        while True:
            await asyncio.sleep(_TICK)
            stalled = 0.0 if self._since is None else time.monotonic() - self._since
            kind = _SLOW if self._error is None else type(self._error).__name__
            if stalled >= limit and kind not in self._reported:
                self._reported |= {_SLOW, kind}
                report(f"no answer from {session.base_url} for {stalled:.0f} s{self._until(session, stalled)}")

    def _until(self, session: AsyncSession, stalled: float) -> str:
        """The reason, as far as it is known, and until when the call is tried."""
        ends = time.localtime(time.time() - stalled + session.timeouts.call)
        reason = "" if self._error is None else f" ({type(self._error).__name__}: {_why(self._error)})"
        return f"{reason}; trying on until about {time.strftime('%H:%M:%S', ends)}"


def _why(error: CapillaryError) -> object:
    """The bare reason: the error's own text ends with what became of its call."""
    return f"HTTP {error.status}" if isinstance(error, APIError) else error.__cause__ or error
