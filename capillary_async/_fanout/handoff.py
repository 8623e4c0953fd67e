"""`Handoff`: what the workers of a fan-out hand to the loop over it, a few values at most.

Invariant: a value once accepted is taken, in the order of sending, or dropped by `close`; who finds no room waits its
turn. One loop, many senders, one receiver. Not an anyio memory stream, which yields to the event loop at each value:
this way costs a fifth. Filled by the crew, emptied by the fan-out's iterator.
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
        # They wait only while the queue is full: whoever takes a value moves the first of theirs up.
        self._senders: deque[tuple[asyncio.Future[None], V]] = deque()
        self._receiver: asyncio.Future[None] | None = None
        self._turns: deque[asyncio.Future[None]] = deque()
        self._ended = False

    def __len__(self) -> int:
        """How many values can be taken at once."""
        return len(self._values)

    def offer(self, value: V) -> bool:
        """Send where nothing has to be waited for. Behind the end nobody listens: what is sent then is dropped."""
        if self._ended:
            return True
        if len(self._values) >= self._size:
            return False
        self._values.append(value)
        self._wake()
        return True

    async def send(self, value: V) -> None:
        """Send, once there is room."""
        if self.offer(value):
            return
        entry = asyncio.get_running_loop().create_future(), value
        self._senders.append(entry)
        try:
            await entry[0]
        except BaseException:
            with suppress(ValueError):  # it was moved up in the same moment, and is sent
                self._senders.remove(entry)
            raise

    async def wait(self) -> bool:
        """Wait until there is something to take. False at the end."""
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
        """The oldest value; one more sender has room."""
        value = self._values.popleft()
        while self._senders:
            sender, moved = self._senders.popleft()
            if sender.done():  # cancelled, and not yet awake to leave
                continue
            self._values.append(moved)
            sender.set_result(None)
            break
        if self._turns:
            self._next_turn()
        return value

    async def turn(self) -> None:
        """Wait until what was sent is taken, one sender at a time.

        For work that is better not done for all senders at once: records decoded long before they are taken fall out of
        the processor's cache, and the garbage collector has to look at all of them.
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
        """Let the next one have its turn, and another where that one sends nothing."""
        if self._values:
            return
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                # Behind that one's step, which comes first in the loop's queue.
                turn.get_loop().call_soon(self._next_turn)
                return

    def end(self) -> None:
        """Nothing more comes; what was sent can still be taken."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Nobody takes any more. Senders that wait are cancelled by whoever runs them."""
        self._values.clear()
        self._senders.clear()
        self.end()

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)
