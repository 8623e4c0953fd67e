"""`Passage`: a request that was broken off before its answer and may still be on its way to the server.

Invariant: the server sees the connection end at once, and no task is left; the socket stays until the server ends it
too or answers, since only then the request has arrived or never will. Called by `Pools` if the session has a rate, and
by the limiter, which keeps the permit meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Passage"]

LONGEST = 30.0  # seconds: a longer way is not waited for, or a server that never closes would use up the rate


class Passage:
    """The socket of a request that was sent and not answered, closed on our side."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ends: socket.socket, ended: Callable[[Passage], object]
    ) -> None:
        self._loop = loop
        self._socket = ends
        self._ended = ended
        self._callback: Callable[[], None] | None = None
        self._over = False
        loop.add_reader(ends.fileno(), self.end)
        self._timer = loop.call_later(LONGEST, self.end)

    @classmethod
    def of(cls, transport: Any, ended: Callable[[Passage], object]) -> Passage | None:
        """The way of a request over a transport that is being closed; None where its socket is gone already."""
        ends = _half_closed(transport)
        if ends is None:
            return None
        try:
            return cls(asyncio.get_running_loop(), ends, ended)
        except NotImplementedError:  # the proactor loop of Windows
            ends.close()
            return None

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the request has arrived or never will."""
        self._callback = callback
        if self._over:
            callback()

    def end(self) -> None:
        """The other side has ended the connection or answers, or the wait for that is over."""
        if self._over:
            return
        self._over = True
        self._timer.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._ended(self)
        if self._callback is not None:
            self._callback()


def _half_closed(transport: Any) -> socket.socket | None:
    """The transport's socket, kept beyond its end and closed for sending; None where it is closed."""
    given = transport.get_extra_info("socket")
    if given is None or given.fileno() < 0:
        return None
    try:
        ends = socket.socket(fileno=os.dup(given.fileno()))
    except OSError:
        return None
    ends.settimeout(0)
    with suppress(OSError):  # the other side was quicker
        ends.shutdown(socket.SHUT_WR)
    return ends
