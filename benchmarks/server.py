"""The raw server: answers computed beforehand, written straight to the transport; `python -m benchmarks.server`.

Invariant: it does nothing that a client would wait for but the latency asked of it, and it ends when its parent does,
by its standard input. Prints one line of JSON with its port when it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from benchmarks.pages import CUSTOMERS, LISTS, NO_ROWS, SIZE, customer_page, list_page, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COUNTS", "RawServer", "answer"]

COUNTS = "/-/counts"  # a path of ours: what was asked so far
_ASKED = re.compile(rb"[?&](entity_id|page)=([0-9]+)")
_END = b"\r\n\r\n"


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole HTTP answer."""
    head = (
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-CAP-REQUEST-ID: benchmark\r\n"
        b"Connection: keep-alive\r\n\r\n"
    )
    return head % (status, len(body)) + body


_NOT_FOUND = answer(b'{"errors":[{"status":false,"code":404,"message":"no such page"}]}', b"404 Not Found")


@lru_cache(maxsize=512)
def _of_list(entity_id: int, number: int) -> bytes:
    return answer(list_page(entity_id, number))


_EMPTY = answer(NO_ROWS)


class RawServer:
    """What is counted over all connections, and the latency added to each answer."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.requests = 0
        self.beyond = 0

    def reply(self, target: bytes) -> bytes:
        """The answer to a request target; counts it, and whether it asked behind the last row."""
        asked = dict(_ASKED.findall(target))
        if b"entity_id" not in asked:
            return self._counts() if target == COUNTS.encode() else _NOT_FOUND
        entity_id, page = int(asked[b"entity_id"]), int(asked.get(b"page", 1))
        if entity_id < LISTS:
            return _NOT_FOUND
        self.requests += 1
        if (page - 1) * SIZE >= rows_of(entity_id):
            self.beyond += 1
            return _EMPTY
        return answer(customer_page(entity_id, page)) if entity_id >= CUSTOMERS else _of_list(entity_id, page)

    def _counts(self) -> bytes:
        return answer(json.dumps({"requests": self.requests, "beyond": self.beyond}).encode())

    async def listen(self, port: int) -> asyncio.Server:
        """Serve on a loopback port; 0 for a free one."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Connection(self, loop), "127.0.0.1", port, backlog=512)


class _Connection(asyncio.Protocol):
    """One kept connection of a client."""

    def __init__(self, server: RawServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._pending = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while _END in self._pending:
            head, _, self._pending = self._pending.partition(_END)
            reply = self._server.reply(head.split(b" ", 2)[1])
            if self._server.latency:
                self._loop.call_later(self._server.latency, self._write, reply)
            else:
                self._write(reply)

    def _write(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - clients may go as they like
        self._transport = None


async def _serve(port: int, latency: float) -> None:
    server = await RawServer(latency).listen(port)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


def main() -> int:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description="The benchmarks' raw server.")
    parser.add_argument("--port", type=int, default=0, help="of the loopback interface; 0 for a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added before each answer")
    given = parser.parse_args()
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop  # noqa: PLC0415 - where it is installed
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(given.port, given.latency))
    except OSError as error:
        print(json.dumps({"error": error.strerror or str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
