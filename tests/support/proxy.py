"""An HTTP proxy on loopback that forwards requests and tunnels CONNECT, with or without a password; and what it saw."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

WANTED = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass
class Proxy:
    """It lets through whoever has its password; `answer` is said in place of that, e.g. a 403."""

    user: str = ""
    password: str = ""
    answer: bytes = b""
    seen: list[str] = field(default_factory=list)
    """First lines of requests, as they came."""
    passwords: list[str] = field(default_factory=list)
    """`Proxy-Authorization` of each request, decoded; empty where there was none."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Without user name and password."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False once the connection is of no more use."""
        first, headers = await _head(reader)
        given = headers.pop("proxy-authorization", "").removeprefix("Basic ")
        self.seen.append(first)
        self.passwords.append(base64.b64decode(given).decode())
        refused = self.password and self.passwords[-1] != f"{self.user}:{self.password}"
        if refused or self.answer:
            writer.write(self.answer or WANTED)
            await writer.drain()
            return False
        method, target, _ = first.split(" ")
        place = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, away = await asyncio.open_connection(place.hostname, place.port)
        if method == "CONNECT":
            writer.write(ESTABLISHED)
            await asyncio.gather(_pour(reader, away), _pour(there, writer))
            return False
        away.write(_lines(first.replace(target, target.split(place.netloc, 1)[1]), headers))
        away.write(await reader.readexactly(int(headers.get("content-length", 0))))
        status, answered = await _head(there)
        writer.write(_lines(status, answered) + await there.readexactly(int(answered["content-length"])))
        await writer.drain()
        away.close()
        return True


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _lines(first: str, headers: dict[str, str]) -> bytes:
    return "\r\n".join([first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode("latin-1")


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(65536):
            target.write(piece)
            await target.drain()
    finally:
        target.close()
