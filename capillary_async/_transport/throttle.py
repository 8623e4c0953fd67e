"""One queue for every request of a session, over all its loops and threads.

The rule kept here: permits are granted in the order they were asked for, but for a call that has begun, which does not
wait behind those that have not; numbers are locked and on the monotonic clock, only waiting belongs to a loop. How many
permits there are is `pace.py`'s to say. The step next to `check` in the chain, so that every single HTTP request takes
a permit of its own.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define

from capillary_async._config import RetryPolicy
from capillary_async._transport.pace import Pace
from capillary_async.errors import CapillaryError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._config import Limits
    from capillary_async._transport.message import Call, Handler, Request, Response

__all__ = ["Throttle"]

_LOOK_AGAIN = 1.0  # seconds until those who wait look whether another loop was closed with permits in its hands


@define(eq=False)
class _Waiter:
    """A request in the queue.

    Attributes:
        loop, call: Its own.
        since: When it came, in the throttle's time.
        woken: Set when it goes on: None with a permit, else the error to raise.
        holds: Whether it was given a permit.
        probe: Whether that is the probe's.
    """

    loop: asyncio.AbstractEventLoop
    call: Call | None
    since: float
    woken: asyncio.Future[CapillaryError | None]
    holds: bool = False
    probe: bool = False


class Throttle:
    """Permits for as many requests as `Pace` allows, first come first served.

    A call that has begun (its first attempt failed, or its token was renewed) is ahead of those that have not: it is
    the older one, and its time is running. So is the request for a token, since others wait for what it brings.
    """

    def __init__(
        self, limits: Limits, policy: RetryPolicy | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._pace = Pace(limits, policy or RetryPolicy(), clock=clock)
        # Reentrant: while the lock is held, the collector may end a task of a dead loop, which gives its permit back.
        self._lock = threading.RLock()
        self._held: defaultdict[asyncio.AbstractEventLoop, int] = defaultdict(int)  # the active ones, by loop
        self._begun: deque[_Waiter] = deque()
        self._fresh: deque[_Waiter] = deque()
        self._alarms: dict[asyncio.AbstractEventLoop, float] = {}

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """Wait for a permit and hold it until the answer is whole."""
        call, loop = request.call, asyncio.get_running_loop()
        probe = self._enter(loop)
        if probe is None:
            probe = await self._queue(loop, request)
        if call is not None:
            call.start()
        try:
            response = await handler(request)
        except BaseException as error:
            self._failed(loop, probe, call, error)
            raise
        self._answered(loop, probe)
        return response

    def _enter(self, loop: asyncio.AbstractEventLoop) -> bool | None:
        """Take a permit at once, if one is free and nobody waits for it: whether it is the probe's. Else None."""
        with self._lock:
            if self._begun or self._fresh or self._blocked() is not None:
                return None
            return self._take(loop)

    # No calls in these two: the collector may come between and give back permits of the same loop.
    def _take(self, loop: asyncio.AbstractEventLoop) -> bool:
        self._held[loop] += 1
        self._pace.active += 1
        shut = self._pace.shut
        if shut is None:
            return False
        shut.prober = loop
        return True

    def _give(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a permit back; False where `_reclaim` did so before. Under the lock."""
        if loop not in self._held:
            return False
        self._held[loop] -= 1
        if not self._held[loop]:
            del self._held[loop]
        self._pace.active -= 1
        return True

    def _reclaim(self) -> bool:
        """Take back what closed loops hold: their requests never end. Under the lock."""
        dead = [loop for loop in list(self._held) if loop.is_closed()]
        for loop in dead:
            lost = self._held.pop(loop, 0)
            self._pace.active -= lost
            self._pace.lost(lost)  # they may have been sent
            if self._pace.shut is not None and self._pace.shut.prober is loop:
                self._pace.shut.prober = None
        return bool(dead)

    def _blocked(self) -> float | None:
        """None if a permit is free; else the seconds until one may be (0.0: when a request ends). Under the lock."""
        blocked = self._pace.wait()
        return self._pace.wait() if blocked is not None and self._reclaim() else blocked

    async def _queue(self, loop: asyncio.AbstractEventLoop, request: Request) -> bool:
        """Wait for a permit: whether it is the probe's.

        Raises:
            DeadlineExceededError: The call has begun, and the wait would pass its deadline, or did.
            NotSentError: The call has not begun, and the gate is shut for too long.
        """
        call = request.call
        begun = call is not None and call.started is not None
        # Before the first permit the call's clock stands still: our own queue is nobody's slowness.
        limit = call.remaining() if call is not None and begun else None
        waiter = _Waiter(loop, call, self._clock(), loop.create_future())
        with self._lock:
            if (error := self._hopeless(waiter, limit)) is not None:
                raise error
            (self._begun if begun or request.body is not None else self._fresh).append(waiter)
        self._pump()
        try:
            async with asyncio.timeout(limit):
                error = await waiter.woken
        except TimeoutError:
            self._abandon(waiter)
            error = _too_late("ran out while waiting for a permit to try again")
        except BaseException:
            self._abandon(waiter)
            raise
        if error is not None:
            raise error
        return waiter.probe

    def _hopeless(self, waiter: _Waiter, limit: float | None) -> CapillaryError | None:
        """The error for a wait that must not be begun, since its end is known to come too late. Under the lock."""
        error = self._pace.barred(waiter.call, waiter.since)
        if error is None and limit is not None and (self._blocked() or 0.0) > limit:
            return _too_late("would run out while waiting for a permit to try again")
        return error

    def _abandon(self, waiter: _Waiter) -> None:
        """Leave the queue; a permit granted in the same moment goes to the next."""
        with self._lock:
            holds = waiter.holds
            if not holds:
                self._remove(waiter)
        if holds:
            self._unused(waiter)
        self._pump()

    def _remove(self, waiter: _Waiter) -> None:
        for queue in (self._begun, self._fresh):
            with suppress(ValueError):  # it may be gone by now
                queue.remove(waiter)

    def _unused(self, waiter: _Waiter) -> None:
        """A permit comes back with which nothing was sent."""
        with self._lock:
            if self._give(waiter.loop):
                self._pace.dropped(probe=waiter.probe, sent=False)

    def _answered(self, loop: asyncio.AbstractEventLoop, probe: bool) -> None:  # noqa: FBT001 - one of two, both ours
        with self._lock:
            if self._give(loop):
                self._pace.answered(probe=probe)
            idle = not (self._begun or self._fresh)
        if not idle:
            self._pump()

    def _failed(self, loop: asyncio.AbstractEventLoop, probe: bool, call: Call | None, error: BaseException) -> None:  # noqa: FBT001
        with self._lock:
            if not self._give(loop):
                return
            if isinstance(error, CapillaryError):
                self._pace.failed(error, call, probe=probe)
            else:
                self._pace.dropped(probe=probe, sent=True)
        self._turn_away()
        self._pump()

    def _turn_away(self) -> None:
        """Tell those who would have to wait too long at the shut gate."""
        told: list[tuple[_Waiter, CapillaryError]] = []
        with self._lock:
            if self._pace.shut is None:
                return
            for queue in (self._begun, self._fresh):
                found = [(waiter, self._pace.barred(waiter.call, waiter.since)) for waiter in queue]
                told += [(waiter, error) for waiter, error in found if error is not None]
            for waiter, _ in told:
                self._remove(waiter)
        for waiter, error in told:
            self._wake(waiter, error)

    def _pump(self) -> None:
        """Hand free permits to those who wait, first come first served."""
        while True:
            with self._lock:
                # First: the collector may come in it, and hand permits to those who wait.
                blocked = self._blocked()
                queue = self._begun or self._fresh
                if not queue:
                    return
                waiter = queue[0]
                if blocked is None:
                    queue.popleft()
                    waiter.probe = self._take(waiter.loop)
                    waiter.holds = True
                elif blocked == 0.0 and any(loop is not waiter.loop for loop in list(self._held)):
                    blocked = _LOOK_AGAIN
            if blocked is None:
                if not self._wake(waiter, None):
                    self._unused(waiter)
                continue
            if blocked > 0.0 and not self._wake_later(waiter.loop, blocked):
                with self._lock:
                    self._remove(waiter)
                continue
            here = _running_loop()
            if blocked > 0.0 and here is not None:
                # Here too: the loop of the first in the queue may end before its alarm rings.
                self._wake_later(here, blocked)
            return

    @staticmethod
    def _wake(waiter: _Waiter, error: CapillaryError | None) -> bool:
        """Wake the waiter in its own loop; False where that loop is closed."""
        if waiter.loop is _running_loop():
            _settle(waiter.woken, error)
            return True
        return _call_in(waiter.loop, _settle, waiter.woken, error)

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


def _too_late(how: str) -> DeadlineExceededError:
    return DeadlineExceededError(f"Timeouts.call {how}", kind="queue")


def _settle(future: asyncio.Future[CapillaryError | None], error: CapillaryError | None) -> None:
    if not future.done():
        future.set_result(error)


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
