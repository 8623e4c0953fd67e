"""How much at once and how fast: one gate for every request of a session, over all its loops and threads.

The rule kept here: permits are granted in the order they were asked for; numbers are locked and on the monotonic clock,
only waiting belongs to a loop. The step next to `check` in the chain, so that every single HTTP request takes a permit
of its own.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from capillary_async.errors import DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._config import Limits
    from capillary_async._transport.message import Call, Handler, Request, Response

__all__ = ["Throttle"]

_LOOK_AGAIN = 1.0  # seconds until those who wait look whether another loop was closed with permits in its hands


@frozen(eq=False)
class _Waiter:
    loop: asyncio.AbstractEventLoop
    granted: asyncio.Future[None]


class Throttle:
    """Permits for `Limits.concurrency` requests at once and `Limits.rate` requests in any window.

    A rate's permit is free again `per` seconds after the answer to its request, not after its sending: whatever the
    network does to the requests on their way, the server's own clock never sees more than `permits` of them in any
    `per` seconds.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limits.concurrency
        self._rate = limits.rate
        self._clock = clock
        # Reentrant: while the lock is held, the collector may end a task of a dead loop, which gives its permit back.
        self._lock = threading.RLock()
        self._active = 0
        self._held: defaultdict[asyncio.AbstractEventLoop, int] = defaultdict(int)  # the active ones, by loop
        self._cooling: deque[float] = deque()
        self._waiters: deque[_Waiter] = deque()
        self._alarms: dict[asyncio.AbstractEventLoop, float] = {}

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """Wait for a permit and hold it until the answer is whole."""
        call, loop = request.call, asyncio.get_running_loop()
        if not self._enter(loop):
            await self._queue(loop, call)
        if call is not None:
            call.start()
        try:
            return await handler(request)
        finally:
            self._leave(loop, used=True)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a permit at once, if one is free and nobody waits for it."""
        with self._lock:
            if self._waiters or self._blocked() is not None:
                return False
            self._take(loop)
            return True

    # No calls in these two: the collector may come between and give back permits of the same loop.
    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        self._held[loop] += 1
        self._active += 1

    def _give(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a permit back; False where `_reclaim` did so before. Under the lock."""
        if loop not in self._held:
            return False
        self._held[loop] -= 1
        if not self._held[loop]:
            del self._held[loop]
        self._active -= 1
        return True

    def _reclaim(self) -> bool:
        """Take back what closed loops hold: their requests never end. Under the lock."""
        dead = [loop for loop in list(self._held) if loop.is_closed()]
        for loop in dead:
            lost = self._held.pop(loop, 0)
            self._active -= lost
            if self._rate is not None:  # they may have been sent
                self._cooling.extend([self._clock() + self._rate.per] * lost)
        return bool(dead)

    def _blocked(self) -> float | None:
        """None if a permit is free; else the seconds until one may be (0.0: when a request ends). Under the lock."""
        blocked = self._wait()
        return self._wait() if blocked is not None and self._reclaim() else blocked

    def _wait(self) -> float | None:
        if self._active >= self._limit:
            return 0.0
        if self._rate is None:
            return None
        now = self._clock()
        while self._cooling and self._cooling[0] <= now:
            self._cooling.popleft()
        if self._active + len(self._cooling) < self._rate.permits:
            return None
        return self._cooling[0] - now if self._cooling else 0.0

    async def _queue(self, loop: asyncio.AbstractEventLoop, call: Call | None) -> None:
        waiter = _Waiter(loop, loop.create_future())
        with self._lock:
            self._waiters.append(waiter)
        self._pump()
        # Before the first permit the call's clock stands still: our own queue is nobody's slowness.
        limit = call.remaining() if call is not None and call.started is not None else None
        try:
            async with asyncio.timeout(limit):
                await waiter.granted
        except TimeoutError:
            self._abandon(waiter)
        except BaseException:
            self._abandon(waiter)
            raise
        else:
            return
        raise DeadlineExceededError("Timeouts.call ran out while waiting for a permit to try again", kind="queue")

    def _abandon(self, waiter: _Waiter) -> None:
        """Leave the queue; a permit granted in the same moment goes to the next."""
        with self._lock:
            waiting = waiter in self._waiters
            if waiting:
                self._waiters.remove(waiter)
        if waiting:
            self._pump()
        else:
            self._leave(waiter.loop, used=False)

    def _leave(self, loop: asyncio.AbstractEventLoop, *, used: bool) -> None:
        with self._lock:
            if self._give(loop) and used and self._rate is not None:
                self._cooling.append(self._clock() + self._rate.per)
            idle = not self._waiters
        if not idle:
            self._pump()

    def _pump(self) -> None:
        """Hand free permits to those who wait, first come first served."""
        while True:
            with self._lock:
                if not self._waiters:
                    return
                waiter = self._waiters[0]
                blocked = self._blocked()
                if blocked is None:
                    self._waiters.popleft()
                    self._take(waiter.loop)
                elif blocked == 0.0 and any(loop is not waiter.loop for loop in list(self._held)):
                    blocked = _LOOK_AGAIN
            if blocked is None:
                if not self._grant(waiter):
                    self._leave_dead(waiter.loop)
                continue
            if blocked > 0.0 and not self._wake_later(waiter.loop, blocked):
                self._forget(waiter)
                continue
            here = _running_loop()
            if blocked > 0.0 and here is not None:
                # Here too: the loop of the first in the queue may end before its alarm rings.
                self._wake_later(here, blocked)
            return

    def _leave_dead(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._give(loop)

    def _forget(self, waiter: _Waiter) -> None:
        with self._lock, suppress(ValueError):  # it may be gone by now
            self._waiters.remove(waiter)

    @staticmethod
    def _grant(waiter: _Waiter) -> bool:
        """Wake the waiter in its own loop; False where that loop is closed."""
        if waiter.loop is _running_loop():
            _settle(waiter.granted)
            return True
        return _call_in(waiter.loop, _settle, waiter.granted)

    def _wake_later(self, loop: asyncio.AbstractEventLoop, delay: float) -> bool:
        """Set an alarm for the queue in a loop, unless it has one in time; False where that loop is closed."""
        due = self._clock() + delay
        with self._lock:
            for dead in [known for known in self._alarms if known.is_closed()]:
                del self._alarms[dead]
            if self._alarms.get(loop, math.inf) <= due:
                return True
            self._alarms[loop] = due
        return _call_in(loop, self._set_alarm, loop, delay)

    def _set_alarm(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        loop.call_later(delay, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._alarms.pop(loop, None)
        self._pump()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> bool:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop is closed
        return False
    return True
