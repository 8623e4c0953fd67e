"""The server of the misdirected soak, behind a proxy that gives some answers to the wrong question; own process.

Invariant: it notes which records it served in a right answer, and how often it played which wrong one. It ends when its
parent does, by its standard input. Prints one line of JSON with its port when it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import sys
import zlib
from collections import Counter
from functools import lru_cache
from typing import cast

from benchmarks.soak_records import FIRST, customers_for, page_body, rows_of
from benchmarks.soak_server import REPORT, answer
from benchmarks.soak_wrong import TWICE, Wrong, wrong_answer, wrong_of

__all__ = ["LATE", "Proxy"]

LATE = 0.02  # seconds: the pages asked for after it are answered meanwhile
AGAIN = 0.01  # seconds until an answer comes once more
_TICK = 0.001  # what follows on the connection comes behind it
_END = b"\r\n\r\n"
_CUSTOMER = re.compile(rb"[?&]entity_id=([0-9]+)|/customers/([0-9]+)/")
_PAGE = re.compile(rb"[?&]page=([0-9]+)")


class Proxy:
    """What is counted over all connections, and what befalls whose list."""

    def __init__(self, pages: int, *, share: float, seed: int) -> None:
        self._share = share
        self._seed = seed
        self._customers = range(FIRST, FIRST + customers_for(pages))
        self._left: dict[int, int] = {}
        self._asked: dict[int, set[int]] = {}
        self.served = bytearray(rows_of(self._customers.stop, 1).start - 1)
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self.wrong_of = lru_cache(maxsize=4096)(self._wrong_of)

    def _wrong_of(self, customer: int) -> Wrong | None:
        return wrong_of(customer, self._share, self._seed)

    def ask(self, customer: int, page: int) -> Wrong | None:
        """Take a request; gives what may be answered instead, None where it is answered right."""
        self.requests += 1
        wrong = self.wrong_of(customer)
        if wrong is None:
            return None
        if page == 1:
            self._asked[customer] = set()
        self._asked.setdefault(customer, set()).add(page)
        return wrong if wrong.page == page and self._left.get(customer, wrong.times) else None

    def play(self, customer: int, wrong: Wrong) -> bytes | None:
        """The wrong answer, now that it is due; None where nothing would contradict it."""
        left = self._left.get(customer, wrong.times)
        if not left or (wrong.contradicted and wrong.page + 1 not in self._asked[customer]):
            return None
        self._left[customer] = left - 1
        self.faults[wrong.kind] += 1
        return wrong_answer(wrong.kind, customer, wrong.page)

    def right(self, customer: int, page: int) -> bytes:
        """The right answer; its records are noted as served."""
        rows = rows_of(customer, page)
        if customer in self._customers:
            self.served[rows.start - 1 : rows.stop - 1] = b"\x01" * len(rows)
        return answer(page_body(customer, page))

    def report(self) -> bytes:
        """All that was counted."""
        told = {
            "requests": self.requests,
            "faults": dict(self.faults),
            "served": base64.b64encode(zlib.compress(bytes(self.served))).decode(),
        }
        return answer(json.dumps(told).encode())


class _Connection(asyncio.Protocol):
    """One kept connection of the client. What it writes stays in order, also behind an answer that comes again."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy = proxy
        self._loop = loop
        self._pending = b""
        self._free_at = 0.0
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
        asked = _CUSTOMER.search(target)
        if asked is None:
            self._write(self._proxy.report() if target == REPORT.encode() else answer(b"{}", "404 Not Found"))
            return
        paged = _PAGE.search(target)
        customer, page = int(asked[1] or asked[2]), int(paged[1]) if paged else 1
        wrong = self._proxy.ask(customer, page)
        wait = max(self._free_at - self._loop.time(), LATE if wrong is not None and wrong.late else 0.0)
        if wait > 0:
            self._loop.call_later(wait, self._answer, customer, page, wrong)
        else:
            self._answer(customer, page, wrong)

    def _answer(self, customer: int, page: int, wrong: Wrong | None) -> None:
        played = None if wrong is None else self._proxy.play(customer, wrong)
        if wrong is None or played is None:
            self._write(self._proxy.right(customer, page))
            return
        self._write(played)
        if wrong.kind == TWICE:
            self._proxy.right(customer, page)
            now = self._loop.time()
            self._free_at = now + AGAIN + _TICK
            self._loop.call_at(now + AGAIN, self._write, played)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


async def _serve(proxy: Proxy, port: int) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(proxy, loop), "127.0.0.1", port, backlog=512)
    print(json.dumps({"port": listening.sockets[0].getsockname()[1]}), flush=True)
    async with listening:
        await loop.run_in_executor(None, sys.stdin.buffer.read)


def main() -> int:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak_proxy", description="The misdirected soak's server."
    )
    parser.add_argument("--port", type=int, default=0, help="of the loopback interface; 0 for a free one")
    parser.add_argument("--pages", type=int, default=1000, help="that will be asked for")
    parser.add_argument("--share", type=float, default=0.01, help="of answers that are wrong")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        asyncio.run(_serve(Proxy(given.pages, share=given.share, seed=given.seed), given.port))
    except OSError as error:
        print(json.dumps({"error": error.strerror or str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
