"""`Handoff`: the bounded queue between the workers of a fan-out and the loop over it.

Invariant: a value once accepted is taken, in the order of sending, or dropped by `close`; senders block in FIFO order
while the queue is full. One event loop, many senders, one receiver. An anyio memory stream, which yields to the event
loop at each value, costs five times as much. Called by `OutcomeBuilder` (sends) and `FanOutIterator` (takes).
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["Handoff"]

V = TypeVar("V")


class Handoff(Generic[V]):
    """A bounded queue with an end."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: deque[V] = deque()
        # Senders wait only while the queue is full: `take` queues the value of the first of them.
        self._senders: deque[tuple[asyncio.Future[None], V]] = deque()
        self._receiver: asyncio.Future[None] | None = None
        self._turns: deque[asyncio.Future[None]] = deque()
        self._ended = False

    def __len__(self) -> int:
        """Number of values in the queue."""
        return len(self._values)

    def offer(self, value: V) -> bool:
        """Send without waiting; False where the queue is full. A value sent after the end is dropped."""
        if self._ended:
            return True
        if len(self._values) >= self._size:
            return False
        self._values.append(value)
        self._wake()
        return True

    async def send(self, value: V) -> None:
        """Send, waiting while the queue is full."""
        if self.offer(value):
            return
        entry = asyncio.get_running_loop().create_future(), value
        self._senders.append(entry)
        try:
            await entry[0]
        except BaseException:
            with suppress(ValueError):  # its value was queued in the same moment
                self._senders.remove(entry)
            raise

    async def wait(self) -> bool:
        """Wait until there is a value to take. False at the end."""
        while not self._values:
            if self._ended:
                return False
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        return True

    def take(self) -> V:
        """Take the oldest value; the first sender that waits is released."""
        value = self._values.popleft()
        while self._senders:
            sender, moved = self._senders.popleft()
            if sender.done():  # cancelled, and not resumed yet
                continue
            self._values.append(moved)
            sender.set_result(None)
            break
        if self._turns:
            self._next_turn()
        return value

    async def turn(self) -> None:
        """Wait until the queue is empty; one sender at a time returns.

        For the decoding of large pages: records decoded long before they are taken fall out of the processor's cache,
        and the garbage collector has to traverse all of them.
        """
        if not self._values and not self._turns:
            return
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except BaseException:
            with suppress(ValueError):  # its turn came in the same moment
                self._turns.remove(turn)
            raise

    def _next_turn(self) -> None:
        """Release the next sender, and another where that one sends nothing."""
        if self._values:
            return
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                # After the step of that sender, which comes first in the loop's queue.
                turn.get_loop().call_soon(self._next_turn)
                return

    def end(self) -> None:
        """Mark the end; values already sent can still be taken."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Drop all values and mark the end. The caller cancels senders that wait."""
        self._values.clear()
        self._senders.clear()
        self.end()

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)
