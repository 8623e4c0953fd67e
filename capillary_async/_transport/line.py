"""The calls that wait for a permit, and their order.

Invariant: within a priority, first come first served, but for calls that have begun, which go first; between the
priorities, turn by turn; a loop that does not run delays no other. Called by `RequestLimiter` under
its lock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define

from capillary_async._loops import call_in, running_loop

if TYPE_CHECKING:
    import asyncio

    from capillary_async._transport.messages import CallState
    from capillary_async._transport.permit import Permit
    from capillary_async.errors import CapillaryError

__all__ = ["Line", "Waiter"]


@define(eq=False)
class Waiter:
    """A request in the line.

    Attributes:
        permit: What it waits for.
        call: Its own.
        since: When it came, by the limiter's clock.
        woken: Set when it goes on: None with a permit, else the error to raise.
        granted: Whether the permit was given to it.
    """

    permit: Permit
    call: CallState | None
    since: float
    woken: asyncio.Future[CapillaryError | None]
    granted: bool = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Of the request."""
        return self.permit.loop

    def wake(self, error: CapillaryError | None) -> bool:
        """Let it go on in its own loop, with its permit or with an error; False where that loop is closed."""
        if self.loop is running_loop():
            self._set(error)
            return True
        return call_in(self.loop, self._set, error)

    def _set(self, error: CapillaryError | None) -> None:
        if not self.woken.done():
            self.woken.set_result(error)


class Line:
    """Four queues: interactive and bulk calls, of each those that have begun and those that have not.

    Attributes:
        stopped: Loops whose waiters were passed over, since they are neither running nor closed.
    """

    def __init__(self) -> None:
        self._single: tuple[deque[Waiter], deque[Waiter]] = (deque(), deque())
        self._bulk: tuple[deque[Waiter], deque[Waiter]] = (deque(), deque())
        self._bulk_is_next = False
        self.stopped: set[asyncio.AbstractEventLoop] = set()

    def __len__(self) -> int:
        return sum(map(len, self._single + self._bulk))

    def __bool__(self) -> bool:
        (begun, single), (bulk_begun, bulk) = self._single, self._bulk
        return bool(begun or single or bulk_begun or bulk)

    def add(self, waiter: Waiter, *, begun: bool) -> None:
        """Join the line."""
        queues = self._bulk if waiter.permit.bulk else self._single
        queues[0 if begun else 1].append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Leave the line; nothing where it has left."""
        for queue in self._bulk if waiter.permit.bulk else self._single:
            if queue and queue[0] is waiter:
                queue.popleft()
                return
            if waiter in queue:  # a failing `remove` would write the waiter out for its message
                queue.remove(waiter)
                return

    def waiters(self) -> list[Waiter]:
        """All of them."""
        return [waiter for queue in self._single + self._bulk for waiter in queue]

    def heads(self, *, probe: bool = False) -> tuple[Waiter | None, Waiter | None]:
        """The first interactive and the first bulk call that a running loop waits for.

        Args:
            probe: Whether the next one looks whether the service answers: of bulk calls, one goes that has not begun,
                since those that have may be what it does not answer.
        """
        return self._first(self._single), self._first(self._bulk[::-1] if probe else self._bulk)

    def _first(self, queues: tuple[deque[Waiter], ...]) -> Waiter | None:
        for queue in queues:
            if queue and queue[0].permit.runs:
                return queue[0]
            for waiter in list(queue):
                if waiter.permit.runs:
                    return waiter
                if waiter.loop.is_closed():
                    self.remove(waiter)
                else:
                    self.stopped.add(waiter.loop)
        return None

    def bulk_first(self, single: Waiter | None, bulk: Waiter | None) -> bool:
        """Whether the next permit is the bulk's: where both wait, each second one."""
        return bulk is not None and (single is None or self._bulk_is_next)

    def took(self, permit: Permit) -> None:
        """A permit was taken: where both wait, the next one is the other priority's."""
        self._bulk_is_next = not permit.bulk
