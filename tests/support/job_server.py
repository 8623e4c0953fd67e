"""A server of points allocations in a thread, whose answers are a function of the customer's id alone.

Invariant: the truth is told by `rows_of`; what goes wrong is said beforehand, by customer or for all. Used by the tests
of jobs.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["QUERY", "Customers", "at_once", "rows_of"]

QUERY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}
UNKNOWN = 9_000  # customers from here on are refused
_MISSING = b'{"errors":[{"status":false,"code":404,"message":"customer not found"}]}'
_ASKED = re.compile(rb"[?&](entity_id|page|count|program_id|point_category_id)=([0-9]+)")
_SOME = 50
_END = b"\r\n\r\n"


async def at_once(_: float) -> None:
    """A `sleep` for jobs: pauses are not waited for."""


def rows_of(customer: int) -> list[dict[str, Any]]:
    """What a customer has: nothing, a few rows, or two pages of them."""
    count = (0, 1, 2, 3, 4, 5, 6, 7, 8, 130)[customer % 10]
    return [
        {
            "id": customer * 1_000 + row,
            "customer_id": customer,
            "points_value": (customer * 7 + row) % 100_000 / 8,
            "points_exclusive": f"{customer}.125",
            "awarded_date": 1_735_309_787_000 + row,
            "status": ("AVAILABLE", "EXPIRED")[row % 2],
        }
        for row in range(count)
    ]


class Customers:
    """The server; a context that runs it.

    Attributes:
        failing: How often each customer is still answered with 500.
        rows: Rows of customers that have others than `rows_of` says.
        rows_under: Gives the rows of a customer under a program and a category; None where they do not matter.
        asked_under: How often page 1 of each customer, program and category was asked for.
        cap: The longest page that it gives, whatever is asked.
        throttled: Customers who are always answered with 429.
        missing: Customers that are answered with the API's own 404.
        circles: Customers of whom every page is page 1 in another order.
        down_from: From which request on all are answered with 503; None for never.
        latency: Seconds before each answer.
        asked: How often each customer's page 1 was asked for: how often its list was read.
    """

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.failing: Counter[int] = Counter()
        self.rows: dict[int, list[dict[str, Any]]] = {}
        self.rows_under: Callable[[int, int, int], list[dict[str, Any]]] | None = None
        self.asked_under: Counter[tuple[int, int, int]] = Counter()
        self.cap: int | None = None
        self.throttled: set[int] = set()
        self.missing: set[int] = set()
        self.circles: set[int] = set()
        self.slow: dict[int, float] = {}
        self.asked: Counter[int] = Counter()
        self.requests = 0
        self.down_from: int | None = None
        self.refuse_all = False
        self.came = threading.Event()  # fifty requests came
        self.port = 0
        self.open: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        create = self._loop.create_server(lambda: _Connection(self, self._loop), "127.0.0.1", 0, backlog=512)
        server = self._loop.run_until_complete(create)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for transport in list(self.open):
            transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))

    def reply(self, target: bytes) -> tuple[bytes, float]:
        """The answer to a request, and the seconds before it."""
        asked = {name: int(value) for name, value in _ASKED.findall(target)}
        customer = asked[b"entity_id"]
        self.requests += 1
        self.asked[customer] += asked[b"page"] == 1
        if self.requests == _SOME:
            self.came.set()
        delay = self.slow.get(customer, self.latency)
        if self.refuse_all:
            return answer(b'{"errors":[{"status":false,"code":401,"message":"no"}]}', b"401 Unauthorized"), delay
        if self.down_from is not None and self.requests > self.down_from:
            return answer(b"", b"503 Service Unavailable"), delay
        if self.failing[customer] > 0:
            self.failing[customer] -= 1
            return answer(b"", b"500 Internal Server Error"), delay
        if customer in self.throttled:
            return answer(b"", b"429 Too Many Requests"), delay
        if customer in self.missing:
            return answer(_MISSING, b"404 Not Found", target), delay
        if customer >= UNKNOWN:
            text = b'{"errors":[{"status":false,"code":400,"message":"no such customer"}]}'
            return answer(text, b"400 Bad Request"), delay
        rows = self.rows.get(customer) or rows_of(customer)
        if self.rows_under is not None:
            under = customer, asked[b"program_id"], asked[b"point_category_id"]
            self.asked_under[under] += asked[b"page"] == 1
            rows = self.rows_under(*under)
        size = min(asked[b"count"], self.cap or asked[b"count"])
        first = (asked[b"page"] - 1) * size
        if customer in self.circles:
            return answer(json.dumps(random.sample(rows[:size], min(size, len(rows)))).encode(), target=target), delay
        return answer(json.dumps(rows[first : first + size]).encode(), target=target), delay


def answer(body: bytes, status: bytes = b"200 OK", target: bytes = b"") -> bytes:
    """An answer; of equal ones to two requests the ids differ, or they would be copies."""
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-CAP-REQUEST-ID: r%d\r\n\r\n"
    return head % (status, len(body), zlib.crc32(target) or 1) + body


class _Connection(asyncio.Protocol):
    def __init__(self, server: Customers, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self._pending = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.open.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._server.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while _END in self._pending:
            head, _, self._pending = self._pending.partition(_END)
            reply, delay = self._server.reply(head.split(b" ", 2)[1])
            if delay:
                self._loop.call_later(delay, self._write, reply)
            else:
                self._write(reply)

    def _write(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply)
