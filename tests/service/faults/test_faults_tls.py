"""Certificates and handshakes that go wrong: what each becomes, and what the server sees of it.

A certificate that is refused is one connection and no request, whatever the policy: it does not get better. What fails
by the network is tried again.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import trustme
from support.environment import AT_ONCE, PASSWORD, USERNAME
from support.fault_runs import Make, ids_of, ids_until, page_ids, page_json, rows_at
from support.raw_server import RESET, Answer, RawServer, http, tls_server

from capillary_async import AsyncSession, BasicAuth, RetryPolicy, Timeouts
from capillary_async.errors import ConnectError, OriginalError, TLSError

THRICE = RetryPolicy(attempts=3, backoff=0)
OK = http(b'{"a": 1}')


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts it."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def refused(url: str, context: ssl.SSLContext | aiohttp.Fingerprint | None = None) -> TLSError:
    """The error of a call by a client with that context."""
    connector = aiohttp.TCPConnector(ssl=context) if context else None
    own = aiohttp.ClientSession(connector=connector) if connector else None
    session = AsyncSession(url, auth=BasicAuth(USERNAME, password=PASSWORD), retry=AT_ONCE, client_session=own)
    try:
        with pytest.raises(TLSError) as caught:
            await session.request("GET", "/path")
    finally:
        await session.aclose()
        if own is not None:
            await own.close()
    error = caught.value
    assert type(error) is TLSError
    assert [(one.kind, one.status) for one in error.history] == [("tls", None)]
    assert error.attempts == 1
    assert "check base_url" in error.message
    return error


# --- certificates -----------------------------------------------------------------------------------------------------


def self_signed() -> ssl.SSLContext:
    """A server whose certificate only it itself vouches for."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with authority.cert_pem.tempfile() as cert, authority.private_key_pem.tempfile() as key:
        context.load_cert_chain(cert, key)
    return context


async def test_a_self_signed_certificate_is_refused_once():
    async with RawServer(OK, tls=self_signed()) as server:
        error = await refused(server.url)
        assert (server.hits, server.connections) == (0, 1)
    assert "self-signed certificate" in error.message


async def test_a_certificate_of_an_unknown_authority_is_refused_once():
    context, _ = tls_server("127.0.0.1")
    async with RawServer(OK, tls=context) as server:
        error = await refused(server.url)
        assert (server.hits, server.connections) == (0, 1)
    assert "the server's certificate was refused" in error.message
    assert isinstance(error.__cause__, OriginalError)
    assert error.__cause__.type_name == "ssl.SSLCertVerificationError"


async def test_a_certificate_of_another_host_is_refused_once():
    """The chain is right and the name is not."""
    context, authority = tls_server("elsewhere.example.com")
    async with RawServer(OK, tls=context) as server:
        error = await refused(server.url, trusting(authority))
        assert (server.hits, server.connections) == (0, 1)
    assert "certificate is not valid for '127.0.0.1'" in error.message


@pytest.mark.parametrize(("days", "words"), [((-30, -1), "certificate has expired"), ((1, 30), "not yet valid")])
async def test_a_certificate_out_of_its_time_is_refused_once(days: tuple[int, int], words: str):
    now = datetime.now(UTC)
    span = {"not_before": now + timedelta(days[0]), "not_after": now + timedelta(days[1])}
    context, authority = tls_server("127.0.0.1", **span)
    async with RawServer(OK, tls=context) as server:
        error = await refused(server.url, trusting(authority))
        assert (server.hits, server.connections) == (0, 1)
    assert words in error.message


async def test_a_wrong_fingerprint_is_refused_once():
    """Pinned by the caller's own client."""
    context, _ = tls_server("127.0.0.1")
    async with RawServer(OK, tls=context) as server:
        await refused(server.url, aiohttp.Fingerprint(bytes(32)))
        assert (server.hits, server.connections) == (0, 1)


async def test_a_right_certificate_is_no_hindrance(session_at: Make):
    """Through a client of the caller's own, which knows the authority."""
    context, authority = tls_server("127.0.0.1")
    connector = aiohttp.TCPConnector(ssl=trusting(authority))
    async with RawServer(OK, tls=context) as server, aiohttp.ClientSession(connector=connector) as client:
        session = session_at(server.url, client_session=client)
        assert [await session.request("GET", "/path") for _ in "12"] == [{"a": 1}] * 2
        assert (server.hits, server.connections) == (2, 1)


class Turning(RawServer):
    """A server that answers once, and is another from then on."""

    def __init__(self, right: ssl.SSLContext, wrong: ssl.SSLContext) -> None:
        super().__init__(http(page_json(1)), tls=right)
        self._wrong = wrong

    def answer_to(self, target: str) -> Answer:
        self.tls = self._wrong
        return super().answer_to(target)


async def test_a_certificate_changed_for_a_wrong_one_ends_a_list_with_its_position():
    """Page 2 comes over a new connection, on which somebody else answers."""
    right, authority = tls_server("127.0.0.1")
    wrong, _ = tls_server("127.0.0.1")
    connector = aiohttp.TCPConnector(ssl=trusting(authority), force_close=True)
    async with Turning(right, wrong) as server, aiohttp.ClientSession(connector=connector) as client:
        session = AsyncSession(server.url, auth=BasicAuth(USERNAME, password=PASSWORD), client_session=client)
        given, error = await ids_until(rows_at(session, prefetch=0), TLSError)
        assert given == page_ids(1)
        assert error.position.page == 2
        assert (server.hits, server.connections) == (1, 2)
        await session.aclose()


# --- the handshake ----------------------------------------------------------------------------------------------------

Welcome = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def greeting(*welcomes: Welcome, tls: str = "https") -> AsyncIterator[tuple[str, list[int]]]:
    """A server that does so with its first, second ... connection; and how many came."""
    came: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(len(came))
        with contextlib.suppress(OSError, EOFError):
            await welcomes[min(len(came), len(welcomes)) - 1](reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"{tls}://127.0.0.1:{server.sockets[0].getsockname()[1]}", came


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP where a handshake is due."""
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The client's hello is read and the connection reset."""
    await reader.read(100)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The client's hello is read, half a record is sent, and that was all."""
    await reader.read(100)
    writer.write(b"\x16\x03\x03\x00\x7a\x02\x00")
    await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The client's hello is read and nothing comes."""
    await reader.read()


async def test_https_to_a_plain_port_is_refused_once():
    async with greeting(plain) as (url, came):
        error = await refused(url)
    assert len(came) == 1
    assert "no TLS connection" in error.message


async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The alert `handshake_failure`, e.g. for want of a common version or cipher."""
    await reader.read(100)
    writer.write(b"\x15\x03\x03\x00\x02\x02\x28")
    await writer.drain()


async def test_a_handshake_that_is_refused_is_not_tried_again():
    async with greeting(alert) as (url, came):
        error = await refused(url)
    assert len(came) == 1
    assert "no TLS connection" in error.message


@pytest.mark.parametrize(("welcome", "kind"), [(reset, "connect"), (closed, "connect"), (silent, "connect-timeout")])
async def test_a_handshake_that_breaks_off_is_tried_again(session_at: Make, welcome: Welcome, kind: str):
    """It says nothing of the certificate: the network, or a server that just starts."""
    async with greeting(welcome) as (url, came):
        session = session_at(url, retry=THRICE, timeouts=Timeouts(connect=0.2))
        with pytest.raises(ConnectError) as caught:
            await session.request("GET", "/path")
    assert type(caught.value) is ConnectError
    assert [one.kind for one in caught.value.history] == [kind] * 3
    assert "None" not in caught.value.message
    assert len(came) == 3


async def test_a_handshake_that_broke_off_is_healed_by_the_next_attempt(session_at: Make):
    context, authority = tls_server("127.0.0.1")

    async def right(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(context)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(page_json(5)).data)
        await writer.drain()

    connector = aiohttp.TCPConnector(ssl=trusting(authority))
    async with greeting(reset, closed, right) as (url, came), aiohttp.ClientSession(connector=connector) as client:
        session = session_at(url, retry=THRICE, client_session=client)
        assert await ids_of(rows_at(session)) == page_ids(5)
        assert len(came) == 3
