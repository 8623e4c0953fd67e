"""The server of the soak: right answers, faults among them, and an outage in the middle; own process.

Invariant: it notes which pages it served whole, and what it was asked while it was down. It ends when its parent does,
by its standard input. Prints one line of JSON with its port when it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import json
import random
import re
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from typing import TYPE_CHECKING, cast

from benchmarks.soak_world import FIRST, customers_for, page_body, pages_of, place

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAULTS", "REPORT", "SoakServer"]

REPORT = "/-/report"
RETRY_AFTER = "0.02"  # seconds: a soak of many hours would say 1
STALL = 0.25  # seconds, short of every timeout of the client
# Each fault with its weight among them.
FAULTS = {
    "reset": 2, "close": 1, "reset behind the headers": 1, "reset in the body": 2, "short Content-Length": 1,
    "no last chunk": 1, "gzip cut": 1, "429": 1, "429 with Retry-After": 1, "503": 1, "503 with Retry-After": 1,
    "500": 2, "HTML under 200": 1, "nothing under 200": 1, "half a JSON": 1, "stall before the headers": 1,
    "stall in the body": 1,
}  # fmt: skip
WHOLE = frozenset({"stall before the headers", "stall in the body"})
_ASKED = re.compile(rb"[?&](entity_id|page)=([0-9]+)")
_END = b"\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: closing sends RST
_A_MOMENT = 0.005  # seconds for what was sent to arrive before a reset overtakes it
_HTML = b"<html><head><title>Just a moment</title></head><body>Checking your browser</body></html>"


def answer(
    body: bytes, status: str = "200 OK", extra: str = "", kind: str = "application/json", more: int = 0
) -> bytes:
    """A whole answer; `more` is what the Content-Length lies about."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body) + more}\r\n{extra}\r\n"
    return head.encode() + body


class SoakServer:
    """What is counted over all connections, and the dice that all faults come from."""

    def __init__(self, pages: int, *, share: float, outage: float, seed: int) -> None:
        self._dice = random.Random(seed)
        self._kinds, self._weights = list(FAULTS), list(FAULTS.values())
        self._share = share
        self._outage = outage
        self._half = pages // 2
        self.customers = customers_for(pages)
        self.served = bytearray(place(FIRST + self.customers, 1))
        self.requests = 0
        self.whole = 0
        self.faults: Counter[str] = Counter()
        self.down_at: float | None = None
        self.down_requests = 0
        self.up_after: float | None = None  # seconds from the end of the outage to the first request behind it

    def fault(self) -> str | None:
        """What befalls the next request, None where it is answered well."""
        self.requests += 1
        down = self._down()
        if down is not None:
            self.down_requests += 1
            return down
        if self._dice.random() >= self._share:
            return None
        kind = self._dice.choices(self._kinds, self._weights)[0]
        self.faults[kind] += 1
        return kind

    def _down(self) -> str | None:
        """The outage: resets for half of it, then 503 as a proxy says it."""
        now = time.monotonic()
        if self.down_at is None and self._outage and self.whole >= self._half:
            self.down_at = now
        if self.down_at is None or self.up_after is not None:
            return None
        since = now - self.down_at
        if since < self._outage:
            return "reset" if since < self._outage / 2 else "down"
        self.up_after = since - self._outage
        return None

    def note(self, customer: int, page: int) -> None:
        """The page was served whole."""
        self.whole += 1
        if FIRST <= customer < FIRST + self.customers and page <= pages_of(customer):
            self.served[place(customer, page)] = 1

    def report(self) -> bytes:
        """All that was counted."""
        told = {
            "requests": self.requests,
            "whole": self.whole,
            "faults": dict(self.faults),
            "down_requests": self.down_requests,
            "up_after": self.up_after,
            "served": base64.b64encode(zlib.compress(bytes(self.served))).decode(),
        }
        return answer(json.dumps(told).encode())


class _Connection(asyncio.Protocol):
    """One kept connection of the client."""

    def __init__(self, server: SoakServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._pending = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - clients may go as they like
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while _END in self._pending:
            head, _, self._pending = self._pending.partition(_END)
            self._reply(head.split(b" ", 2)[1])

    def _reply(self, target: bytes) -> None:
        asked = dict(_ASKED.findall(target))
        if b"entity_id" not in asked:
            self._write(self._server.report() if target == REPORT.encode() else answer(b"{}", "404 Not Found"))
            return
        customer, page = int(asked[b"entity_id"]), int(asked.get(b"page", 1))
        fault, body = self._server.fault(), page_body(customer, page)
        if fault is None or fault in WHOLE:
            self._right(fault, body, lambda: self._server.note(customer, page))
        else:
            self._wrong(fault, body)

    def _right(self, fault: str | None, body: bytes, note: Callable[[], None]) -> None:
        whole = answer(body)
        if fault is None:
            self._write(whole, note)
        elif fault == "stall before the headers":
            self._loop.call_later(STALL, self._write, whole, note)
        else:
            cut = len(whole) - len(body) // 2 - 1
            self._write(whole[:cut])
            self._loop.call_later(STALL, self._write, whole[cut:], note)

    def _wrong(self, fault: str, body: bytes) -> None:
        """One of the faults that make no whole answer, or another than was asked for."""
        whole, later = answer(body), f"Retry-After: {RETRY_AFTER}\r\n"
        cut = {
            "reset": (b"", "reset"),
            "close": (b"", "close"),
            "reset behind the headers": (whole[: whole.index(_END) + 4], "reset"),
            "reset in the body": (whole[: -len(body) // 2 - 1], "reset"),
            "short Content-Length": (answer(body, more=50), "close"),
            "no last chunk": (_chunked(body), "close"),
        }
        if fault in cut:
            data, end = cut[fault]
            self._end(data, end)
            return
        said = {
            "gzip cut": lambda: answer(gzip.compress(body)[:-9], extra="Content-Encoding: gzip\r\n"),
            "429": lambda: answer(b"{}", "429 Too Many Requests"),
            "429 with Retry-After": lambda: answer(b"{}", "429 Too Many Requests", later),
            "503": lambda: answer(b"{}", "503 Service Unavailable"),
            "503 with Retry-After": lambda: answer(b"{}", "503 Service Unavailable", later),
            "500": lambda: answer(
                b'{"code":500,"message":"an internal error","err":null}', "500 Internal Server Error"
            ),
            "HTML under 200": lambda: answer(_HTML, kind="text/html"),
            "nothing under 200": lambda: answer(b""),
            "half a JSON": lambda: answer(body[: len(body) // 2] or b"["),
            "down": lambda: answer(_HTML, "503 Service Unavailable", kind="text/html"),
        }
        self._write(said[fault]())

    def _write(self, data: bytes, note: Callable[[], None] | None = None) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if note is not None:
                note()

    def _end(self, data: bytes, how: str) -> None:
        if data:
            self._write(data)
            self._loop.call_later(_A_MOMENT, self._go, how)
        else:
            self._go(how)

    def _go(self, how: str) -> None:
        if self._transport is None:
            return
        if how == "close":
            self._transport.close()
            return
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()


def _chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(body), body)


async def _serve(server: SoakServer, port: int) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server, loop), "127.0.0.1", port, backlog=512)
    print(json.dumps({"port": listening.sockets[0].getsockname()[1]}), flush=True)
    async with listening:
        await loop.run_in_executor(None, sys.stdin.buffer.read)


def main() -> int:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak_server", description="The soak's server.")
    parser.add_argument("--port", type=int, default=0, help="of the loopback interface; 0 for a free one")
    parser.add_argument("--pages", type=int, default=1000, help="that will be asked for; the outage comes behind half")
    parser.add_argument("--share", type=float, default=0.1, help="of requests that meet a fault")
    parser.add_argument("--outage", type=float, default=0.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    server = SoakServer(given.pages, share=given.share, outage=given.outage, seed=given.seed)
    try:
        asyncio.run(_serve(server, given.port))
    except OSError as error:
        print(json.dumps({"error": error.strerror or str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
