"""A server of exact bytes: it answers what it is told to, whole or not at all, and counts what it was asked.

Invariant: each request takes the next answer, the last answer serves all that follow; nothing outlives the `async
with`.
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

MOMENT = 0.02  # seconds in which a client on this machine reads what was sent
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: closing sends RST


@dataclass(frozen=True)
class Answer:
    """Bytes, and what comes behind them: `keep`, `close`, `reset` or `stall` (until the client goes)."""

    data: bytes
    then: str = "keep"
    every: float = 0.0
    """Seconds between two bytes; 0 sends all at once."""
    pause: int | None = None
    """Send so many bytes, and the rest a moment later: what is in one packet is parsed at one go."""
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

    def __init__(
        self, *answers: Answer, tls: ssl.SSLContext | None = None, port: int = 0, **routes: list[Answer]
    ) -> None:
        self._answers = list(answers)
        self._routes = {f"/{path}": list(listed) for path, listed in routes.items()}
        self.tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Seen] = []
        self.connections = 0
        """TCP connections, also those whose TLS handshake failed."""
        self.sent = 0
        """Answers sent to their last byte."""
        self.port = port
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
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
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

    async def until_sent(self, answers: int) -> None:
        """Wait until so many answers have been sent whole."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.sent >= answers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            if self.tls is not None:
                await writer.start_tls(self.tls)
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
            return await self._send(self.answer_to(seen.target), reader, writer)
        finally:
            self.active -= 1

    def answer_to(self, target: str) -> Answer:
        """The next answer for a path; another rule in a subclass."""
        route = self._routes.get(target.partition("?")[0], self._answers)
        return route.pop(0) if len(route) > 1 else route[0]

    async def _send(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if answer.when is not None:
            await answer.when.wait()
        for piece, wait in _pieces(answer):
            await asyncio.sleep(wait)
            writer.write(piece)
            await writer.drain()
        async with self.arrived:
            self.sent += 1
            self.arrived.notify_all()
        if answer.then == "stall":
            await reader.read()
        if answer.then == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        return answer.then == "keep"


def _pieces(answer: Answer) -> list[tuple[bytes, float]]:
    """What is sent in one write each, and the seconds to wait before it."""
    if answer.every:
        return [(bytes([octet]), answer.every) for octet in answer.data]
    if answer.pause is None:
        return [(answer.data, 0)]
    return [(answer.data[: answer.pause], 0), (answer.data[answer.pause :], MOMENT)]


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(method, target, headers, body, asyncio.get_running_loop().time())


def free_port() -> int:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def tls_server(host: str, **options: Any) -> tuple[ssl.SSLContext, trustme.CA]:
    """What a server for `host` needs to speak TLS, and who vouches for it; options as of `issue_cert`."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, **options).configure_cert(context)
    return context, authority


@contextmanager
def in_thread(*answers: Answer, **routes: list[Answer]) -> Iterator[RawServer]:
    """The server in a thread and loop of its own, for tests that run loops themselves."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[tuple[RawServer, asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        async with RawServer(*answers, **routes) as server:
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
