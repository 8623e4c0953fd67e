"""A server of exact bytes: it answers what it is told to, whole or not at all, and counts what it was asked.

The rule kept here: each request takes the next answer, the last answer serves all that follow; nothing outlives the
`async with`.
"""

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import trustme

RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: closing sends RST


@dataclass(frozen=True)
class Answer:
    """Bytes, and what comes behind them: `keep`, `close`, `reset` or `stall` (until the client goes)."""

    data: bytes
    then: str = "keep"
    every: float = 0.0
    """Seconds between two bytes; 0 sends all at once."""
    when: asyncio.Event | None = field(default=None, compare=False)
    """Answer only when it is set."""

    def but(self, **changes: Any) -> "Answer":
        """The same answer, changed."""
        return replace(self, **changes)


def http(body: bytes | str = b"[]", status: int = 200, headers: dict[str, str] | None = None, **options: Any) -> Answer:
    """A whole answer, with its Content-Length unless the headers say otherwise."""
    content = body.encode() if isinstance(body, str) else body
    given = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return Answer(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + content, **options)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n", **options: Any) -> Answer:
    """A chunked answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Answer(head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end, **options)


def said(value: Any, status: int = 200, **headers: str) -> Answer:
    """JSON."""
    return http(json.dumps(value), status, {name.replace("_", "-"): text for name, text in headers.items()})


@dataclass
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float


class RawServer:
    """Answers the nth request with the nth answer; or each path with its own answers."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, **routes: list[Answer]) -> None:
        self._answers = list(answers)
        self._routes = {f"/{path}": list(listed) for path, listed in routes.items()}
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Seen] = []
        self.connections = 0
        self.port = 0
        self.active = 0
        self.peak = 0
        self.arrived = asyncio.Condition()

    @property
    def hits(self) -> int:
        """Requests that came in whole."""
        return len(self.seen)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def until(self, hits: int) -> None:
        """Wait until so many requests have come."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.hits >= hits)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort() if task.cancelling() else writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        seen = await _request(reader)
        async with self.arrived:
            self.seen.append(seen)
            self.active += 1
            self.peak = max(self.peak, self.active)
            self.arrived.notify_all()
        try:
            return await self._send(self._answer(seen.target), reader, writer)
        finally:
            self.active -= 1

    def _answer(self, target: str) -> Answer:
        route = self._routes.get(target.partition("?")[0], self._answers)
        return route.pop(0) if len(route) > 1 else route[0]

    @staticmethod
    async def _send(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if answer.when is not None:
            await answer.when.wait()
        pieces = [answer.data] if not answer.every else [bytes([octet]) for octet in answer.data]
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(answer.every)
        if answer.then == "stall":
            await reader.read()
        if answer.then == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        return answer.then == "keep"


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(method, target, headers, body, asyncio.get_running_loop().time())


def tls_server(host: str) -> tuple[ssl.SSLContext, trustme.CA]:
    """What a server for `host` needs to speak TLS, and who vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context, authority


@contextmanager
def in_thread(*answers: Answer) -> Iterator[RawServer]:
    """The server in a thread and loop of its own, for tests that run loops themselves."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[tuple[RawServer, asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        async with RawServer(*answers) as server:
            found.append((server, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ready.wait(5)
    try:
        yield found[0][0]
    finally:
        found[0][1].call_soon_threadsafe(stop.set)
        thread.join(5)
