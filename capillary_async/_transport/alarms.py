"""Alarms of event loops: those whose calls wait for a permit look again in time, though nothing else wakes them.

Invariant: no loop has two alarms at once, a lost alarm is replaced, and closed loops are forgotten. Called by
`RequestLimiter`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from capillary_async._loops import bury, call_in, running_loop

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable

__all__ = ["Alarms"]

_OVERDUE = 1.0  # seconds: an alarm so late was lost, e.g. to a KeyboardInterrupt


class Alarms:
    """When each loop looks again whether its calls may go.

    Args:
        lock: The limiter's.
        clock: The limiter's.
        look: Called in the loop, without the lock, when its alarm rings or when it runs again.
    """

    def __init__(self, lock: threading.RLock, clock: Callable[[], float], look: Callable[[], None]) -> None:
        self._lock = lock
        self._clock = clock
        self._look = look
        self.due: dict[asyncio.AbstractEventLoop, float] = {}
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}  # each is touched in its loop alone
        self._called: set[asyncio.AbstractEventLoop] = set()  # stopped loops that look when they run again

    def bury(self) -> None:
        """Forget the loops of the parent, in a forked child."""
        bury(self.due, self._timers, self._called)

    def set(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        """Have the loop look within `delay` seconds, unless its alarm rings before that."""
        now = self._clock()
        with self._lock:
            if now - _OVERDUE <= self.due.get(loop, math.inf) <= now + delay:
                return
            for dead in [known for known in self.due if known.is_closed()]:
                del self.due[dead]
                self._timers.pop(dead, None)
            self.due[loop] = now + delay
        if loop is running_loop():
            self._start(loop)
        else:
            call_in(loop, self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the timer of the alarm, in its loop, in place of the one before."""
        with self._lock:
            before, due = self._timers.pop(loop, None), self.due.get(loop)
            if before is not None:
                before.cancel()
            if due is not None:
                self._timers[loop] = loop.call_later(max(0.0, due - self._clock()), self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self.due.pop(loop, None)
            self._timers.pop(loop, None)
        self._look()

    def set_on_return(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a stopped loop look as soon as it runs again: its waiters were passed over."""
        with self._lock:
            self._called = {known for known in self._called if not known.is_closed()}
            if loop in self._called:
                return
            self._called.add(loop)
        call_in(loop, self._returned, loop)

    def _returned(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._called.discard(loop)
        self._look()
