"""`ssl_context=`: a CA of one's own, a client certificate, and a server that refuses a client without one."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from support.cert_server import demanding
from support.proxy import Proxy
from support.raw_server import Answer, RawServer, said, tls_server

from capillary_async import AsyncSession, BasicAuth, InvalidRequestError
from capillary_async._transport.alerts import UnreadAlert
from capillary_async.errors import ConnectError, TLSError, TransportError

Make = Callable[..., AsyncSession]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def test_a_ca_of_ones_own_is_trusted(session_at: Make) -> None:
    context, authority = tls_server("127.0.0.1")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    async with RawServer(said({"a": 1}), tls=context) as server:
        session = session_at(server.url, ssl_context=trusting)
        assert [await session.request("GET", "/x") for _ in "12"] == [{"a": 1}] * 2
        assert server.connections == 1
        with pytest.raises(TLSError, match="certificate was refused"):
            await session_at(server.url).request("GET", "/x")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "by proxy"])
async def test_a_client_certificate_is_shown(session_at: Make, version: ssl.TLSVersion, proxied: bool) -> None:
    with demanding(version) as server:
        trusting = server.trusting()
        server.clients.issue_cert("client@example.com").configure_cert(trusting)
        async with Proxy() as proxy:
            session = session_at(server.url, ssl_context=trusting, proxy=proxy.url if proxied else None)
            assert await session.request("GET", "/x") == {"a": 1}
            assert len(proxy.seen) == proxied
            await session.aclose()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("drains", [False, True], ids=["closes", "drains"])
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "by proxy"])
async def test_a_server_that_demands_a_certificate_is_a_tls_error(
    session_at: Make, version: ssl.TLSVersion, drains: bool, proxied: bool
) -> None:
    """Not a lost connection, and not retried, also where our first write finds the socket closed before its alert."""
    with demanding(version, drains=drains) as server:
        async with Proxy() as proxy:
            way = {"ssl_context": server.trusting(), "proxy": proxy.url if proxied else None}
            for _ in range(5):
                session = session_at(server.url, **way)
                with pytest.raises(TLSError) as caught:
                    await session.request("GET", "/x")
                assert [one.kind for one in caught.value.history] == ["tls"]
                assert "alert" in caught.value.message.lower()
                assert type(caught.value) is TLSError
                assert caught.value.concerns_all_keys
        assert (server.connections, server.heads) == (5, [])


async def test_a_certificate_of_an_unknown_ca_is_a_tls_error(session_at: Make) -> None:
    with demanding() as server:
        trusting = server.trusting()
        trustme.CA().issue_cert("client@example.com").configure_cert(trusting)
        with pytest.raises(TLSError, match=r"no TLS connection: .*check base_url and the client cert"):
            await session_at(server.url, ssl_context=trusting).request("GET", "/x")


def test_a_certificate_is_demanded_in_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main(url: str, context: ssl.SSLContext) -> None:
        async with AsyncSession(url, auth=BasicAuth("u", password="p"), ssl_context=context) as session:
            with pytest.raises(TransportError):
                await session.request("GET", "/x")

    with demanding(drains=True) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(server.url, server.trusting()))


@pytest.mark.parametrize("answer", [Answer(b"", "reset"), Answer(b"", "close")])
async def test_a_lost_connection_stays_one(session_at: Make, answer: Answer) -> None:
    """A reset over TLS without an alert is the network's, and retried."""
    context, authority = tls_server("127.0.0.1")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    async with RawServer(answer, said({"a": 1}), tls=context) as server:
        session = session_at(server.url, ssl_context=trusting)
        assert await session.request("GET", "/x") == {"a": 1}
        assert (server.hits, session.stats.retries) == (2, 1)


async def test_no_handle_of_a_socket_stays(session_at: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[UnreadAlert] = []
    of = UnreadAlert.of

    def kept(transport: Any) -> UnreadAlert | None:
        found = of(transport)
        assert found is not None
        made.append(found)
        return found

    monkeypatch.setattr(UnreadAlert, "of", kept)
    with demanding() as server, pytest.raises(TLSError):
        await session_at(server.url, ssl_context=server.trusting()).request("GET", "/x")
    context, authority = tls_server("127.0.0.1")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    async with RawServer(said({"a": 1}), tls=context) as server:
        await session_at(server.url, ssl_context=trusting).request("GET", "/x")
    assert [one._handle for one in made] == [None, None]


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def nameless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (False, "takes an ssl.SSLContext, .*got bool"),
        ("ca.pem", "takes an ssl.SSLContext, .*got str"),
        (unverified(), "verifies the certificate and the name of the server"),
        (nameless(), "verifies the certificate and the name of the server"),
        (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "verifies the certificate and the name of the server"),
    ],
)
def test_a_wrong_context_is_refused_by_name(value: Any, words: str) -> None:
    """Nothing turns verification off."""
    with pytest.raises(InvalidRequestError, match=words) as caught:
        AsyncSession("https://eu.example.com", auth=BasicAuth("u", password="p"), ssl_context=value)
    assert caught.value.argument == "ssl_context"
    assert not isinstance(caught.value, ConnectError)
