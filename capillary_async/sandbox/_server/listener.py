"""Listening on a port, in the event loop that starts it.

Invariant: no signal handlers, no log lines, and closing twice is fine; the port stays the same over a stop and a start.
`Sandbox` owns one `Listener`; in a plain `with` it runs in the event loop of a blocking portal.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Listener"]

_CLOSING = 0.1  # seconds for open requests at the end: those that wait on purpose are woken
_MOST_PORT = 65535
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - no address to talk to


class Listener:
    """A server socket and its request handler.

    Args:
        handler: The function that answers a request.
        host: The address to listen on.
        port: The port; 0 for any free one.
    """

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], host: str, port: int
    ) -> None:
        if not 0 <= port <= _MOST_PORT:
            raise ValueError(f"port takes 0 to {_MOST_PORT}, got {port}")
        self._handler, self._host, self._port = handler, host, port
        self._runner: web.ServerRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        """The URL; of the loopback address if it listens on all addresses.

        Raises:
            RuntimeError: It was never started.
        """
        if self._port == 0:
            raise RuntimeError("the sandbox is not started: use `async with Sandbox() as sandbox` or await start()")
        host = _WILDCARDS.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Start listening.

        Raises:
            RuntimeError: It is listening already.
            OSError: The port is taken, or the host is none of this machine.
        """
        if self._runner is not None:
            raise RuntimeError(f"the sandbox listens already at {self.url}")
        # Without cancellation a request whose client went away would count as open to the end of its latency.
        server = web.Server(self._handler, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_CLOSING)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            text = f"the sandbox cannot listen on {self._host}:{self._port} ({error}): give another port, or 0"
            raise OSError(error.errno, text) from error
        self._runner, self._loop = runner, asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening and drop what is open.

        Raises:
            RuntimeError: It was started in another event loop.
        """
        if self._runner is None:
            return
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("the sandbox must be closed in the event loop in which it was started")
        runner, self._runner = self._runner, None
        self._stopping.set()
        await runner.cleanup()

    async def pause(self, seconds: float) -> bool:
        """Wait that long, or until it stops listening; True if it still listens."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
        return not self._stopping.is_set()
