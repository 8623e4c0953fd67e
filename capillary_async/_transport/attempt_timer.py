"""`AttemptTimer`: the limits of time of one attempt.

Invariant: every attempt ends, whatever the server does: after `Timeouts.read` without a byte, after `Timeouts.attempt`,
or when the time of its call is over. Called by `Wire`, with one timer per attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capillary_async._config import Timeouts
from capillary_async._interrupt import CancelScope

if TYPE_CHECKING:
    from capillary_async._transport.alerts import UnreadAlert
    from capillary_async._transport.messages import CallState

__all__ = ["AttemptTimer"]


class AttemptTimer(CancelScope):
    """One attempt's time: one timer for the whole of it and for its silences, where aiohttp sets one for each read.

    Attributes:
        seconds: How long the attempt may take.
        of_call: Whether that is what the call has left, and not the attempt's own limit.
        stalled: Whether nothing came for `Timeouts.read`.
        fresh: Whether the attempt takes no connection that was used before.
        alert: Of a fresh TLS connection, the refusal of this client that may be in its socket.
        transport: Of its connection, once there is one; None again when the answer begins: the request has arrived.
    """

    __slots__ = ("_end", "_handle", "_moved", "_read", "alert", "fresh", "of_call", "seconds", "stalled", "transport")

    def __init__(self, call: CallState | None, *, fresh: bool = False) -> None:
        super().__init__()
        self.fresh = fresh
        self.transport: Any = None
        self.alert: UnreadAlert | None = None
        timeouts = call.timeouts if call is not None else Timeouts()
        remaining = timeouts.attempt if call is None else max(call.remaining(), 0.0)
        self.of_call = remaining < timeouts.attempt
        self.seconds = min(remaining, timeouts.attempt)
        self.stalled = False
        now = self.loop.time()
        self._read = timeouts.read
        self._end = now + self.seconds
        self._moved: float | None = None  # until there is a connection, its own limits count
        self._handle = self.loop.call_at(min(self._end, now + self._read), self._look)

    def moved(self) -> None:
        """A part of the answer came."""
        self._moved = self.loop.time()
        self.transport = None

    def connected(self, transport: Any) -> None:
        """There is a connection: from here on the server may be stalled for `Timeouts.read` at most."""
        self.moved()
        self.transport = transport
        if self._handle.when() > self._due():
            self._set()

    def _due(self) -> float:
        return self._end if self._moved is None else min(self._end, self._moved + self._read)

    def _set(self) -> None:
        self._handle.cancel()
        self._handle = self.loop.call_at(self._due(), self._look)

    def _look(self) -> None:
        due = self._due()
        if self.loop.time() < due:
            self._set()
            return
        self.stalled = due < self._end
        self.cancel()

    def stop(self) -> None:
        """The attempt is over."""
        self._handle.cancel()
        if self.alert is not None:
            self.alert.close()
