"""The adapter against real sockets: what each failure becomes, how often the server was asked, and who closes what."""

import asyncio
import gc
import gzip
import socket
import ssl
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
import trustme
from conftest import AT_ONCE, PASSWORD, USERNAME
from raw_server import Answer, RawServer, chunked, http, in_thread, tls_server

from capillary_async import AsyncSession, BasicAuth, Limits, RetryPolicy, Timeouts
from capillary_async._transport import wire
from capillary_async._transport.body import MAX_BODY
from capillary_async._transport.chain import share
from capillary_async._transport.message import Request
from capillary_async._transport.stats import Stats
from capillary_async._transport.wire import Pools, Wire
from capillary_async.errors import (
    CapillaryError,
    ConnectError,
    DecodeError,
    InvalidRequestError,
    OriginalError,
    RequestTimeoutError,
    ResponseTooLargeError,
    ServerError,
    TLSError,
    TransportError,
)

TWICE = RetryPolicy(attempts=2, backoff=0, throttle_backoff=0)
ONCE = RetryPolicy(attempts=1)
HASTE = Timeouts(connect=5, read=0.15, attempt=5, call=10)
OK = http(b'{"a": 1}')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b'Content-Length: 8\r\n\r\n{"a": 1}'
GZIPPED = gzip.compress(b'{"a": 1}')
Make = Callable[..., AsyncSession]


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what the test left, so that an unclosed socket or task speaks up as the error that it is."""
    yield
    gc.collect()


async def failing(make: Make, server: RawServer, kind: type[CapillaryError], **options: Any) -> Any:
    """The error of a call, which the server's answers make fail."""
    session = make(server.url, **{"retry": TWICE, **options})
    with pytest.raises(kind) as caught:
        await session.request("GET", "/path")
    assert type(caught.value) is kind
    return caught.value


# --- connecting -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_a_refused_connection_is_a_connect_error_tried_again(session_at: Make):
    """Nobody listens: each attempt is made, and the system's own error is chained as numbers and text."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(
        ConnectError, match=r"^GET /path: no connection: .*; check base_url and the network \(2 att"
    ) as e:
        await session_at(url, retry=TWICE).request("GET", "/path")
    assert (e.value.kind, [one.kind for one in e.value.history]) == ("connect", ["connect"] * 2)
    assert isinstance(e.value.__cause__, OSError)
    assert type(e.value) is ConnectError


async def test_a_host_that_does_not_resolve_is_a_connect_error(session_at: Make):
    """The top-level domain `invalid` is promised never to resolve."""
    with pytest.raises(ConnectError, match="the host does not resolve") as caught:
        await session_at("https://capillary.invalid", retry=TWICE).request("GET", "/path")
    assert caught.value.kind == "connect"
    assert caught.value.attempts == 2
    assert isinstance(caught.value.__cause__, OSError | OriginalError)


async def test_a_host_that_cannot_be_one_is_never_tried_again(session_at: Make):
    """A label of more than 63 characters fails before anything is sent."""
    with pytest.raises(InvalidRequestError, match="no URL that can be sent") as caught:
        await session_at(f"https://{'a' * 64}.example.com").request("GET", "/path")
    assert caught.value.attempts == 1


@pytest.fixture
async def deaf() -> AsyncIterator[str]:
    """A server whose queue of connections is full, so that no handshake ends."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        queued = [socket.socket() for _ in range(4)]
        for one in queued:
            one.setblocking(False)
            one.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"
        for one in queued:
            one.close()


async def test_a_connection_that_is_not_made_in_time_is_a_connect_error(session_at: Make, deaf: str):
    """`Timeouts.connect` is over before the handshake."""
    with pytest.raises(ConnectError, match=r"no connection within the 0\.1 s of Timeouts\.connect") as caught:
        await session_at(deaf, retry=TWICE, timeouts=Timeouts(connect=0.1)).request("GET", "/path")
    assert (caught.value.kind, caught.value.attempts) == ("connect-timeout", 2)


# --- cut and torn answers ---------------------------------------------------------------------------------------------

BAD_ANSWERS = {
    "closed before headers": (Answer(b"", "close"), TransportError, "disconnected"),
    "reset before headers": (Answer(b"", "reset"), TransportError, "disconnected"),
    "closed in headers": (Answer(HEAD, "close"), TransportError, "disconnected"),
    "reset after headers": (Answer(HEAD + b"Content-Length: 9\r\n\r\n", "reset"), TransportError, "cut-body"),
    "reset in body": (Answer(HEAD + b"Content-Length: 9\r\n\r\n{", "reset"), TransportError, "cut-body"),
    "short Content-Length": (Answer(HEAD + b"Content-Length: 9\r\n\r\n[1,2", "close"), TransportError, "cut-body"),
    "chunked, cut in a chunk": (chunked(b"[1,", end=b"5\r\n2,", then="close"), TransportError, "cut-body"),
    "chunked, no last chunk": (chunked(b"[1]", end=b"", then="close"), TransportError, "cut-body"),
    "no HTTP": (Answer(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "close"), TransportError, "protocol"),
    "bad status": (Answer(b"HTTP/1.1 2OO OK\r\n\r\n", "close"), TransportError, "protocol"),
    "oversized header": (
        Answer(HEAD + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", "close"), TransportError, "protocol",
    ),
    "two lengths": (Answer(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n11"), TransportError, "protocol"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_a_torn_answer_is_a_transport_error_and_sent_again_once_for_each_attempt(session_at: Make, name: str):
    """Two attempts are two requests at the server: no more, no fewer."""
    answer, kind, word = BAD_ANSWERS[name]
    async with RawServer(answer) as server:
        error = await failing(session_at, server, kind)
        assert server.hits == 2
    assert error.kind == word
    assert [(one.number, one.kind, one.status) for one in error.history] == [(1, word, None), (2, word, None)]
    assert error.message.startswith("GET /path: ")
    assert error.__cause__ is not None
    assert error.__context__ is None


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_the_next_attempt_heals_a_torn_answer(session_at: Make, name: str):
    """One bad answer and one good one: the caller sees the good one alone."""
    async with RawServer(BAD_ANSWERS[name][0], OK) as server:
        session = session_at(server.url)
        assert await session.request("GET", "/path") == {"a": 1}
        assert (server.hits, session.stats.requests, session.stats.retries) == (2, 2, 1)


async def test_a_bad_chunk_size_with_the_headers_is_no_http(session_at: Make):
    """The parser refuses before it gives an answer, and the text of the error is one line."""
    async with RawServer(chunked(b"[1", end=b"zz\r\nx\r\n", then="stall")) as server:
        error = await failing(session_at, server, TransportError)
        assert server.hits == 2
    assert error.kind == "protocol"
    assert "\n" not in error.message


async def test_a_bad_chunk_size_behind_the_headers_is_a_silence(session_at: Make):
    """The parser of aiohttp dies and nobody tells its reader; `sock_read` does not fire, so our own timer has to."""
    async with RawServer(chunked(b"[1", end=b"zz\r\nx\r\n", then="stall", every=0.0005)) as server:
        timeouts = Timeouts(read=0.1, attempt=0.6, call=10)
        error = await failing(session_at, server, RequestTimeoutError, timeouts=timeouts, retry=ONCE)
        assert server.hits == 1
    assert "Timeouts.read" in error.message


async def test_silence_before_the_headers_is_a_timeout(session_at: Make):
    """`Timeouts.read` runs while nothing comes."""
    async with RawServer(Answer(b"", "stall")) as server:
        error = await failing(session_at, server, RequestTimeoutError, timeouts=HASTE)
        assert server.hits == 2
    assert error.kind == "timeout"
    assert "0.15 s of Timeouts.read" in error.message


async def test_silence_in_the_body_is_a_timeout(session_at: Make):
    """It runs again for each piece of the body."""
    async with RawServer(Answer(HEAD + b"Content-Length: 9\r\n\r\n[1", "stall")) as server:
        error = await failing(session_at, server, RequestTimeoutError, timeouts=HASTE)
        assert server.hits == 2
    assert error.kind == "timeout"


async def test_a_dripping_answer_ends_with_the_attempt(session_at: Make):
    """Each byte comes within `Timeouts.read`, and the whole answer not within `Timeouts.attempt`."""
    async with RawServer(Answer(WHOLE, every=0.02)) as server:
        timeouts = Timeouts(read=5, attempt=0.2, call=10)
        error = await failing(session_at, server, RequestTimeoutError, timeouts=timeouts)
        assert server.hits == 2
    assert "0.2 s of Timeouts.attempt" in error.message


# --- compression ------------------------------------------------------------------------------------------------------


def packed(body: bytes, encoding: str = "gzip", **options: Any) -> Answer:
    return http(body, headers={"Content-Encoding": encoding}, **options)


def raw_deflate(body: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(body) + engine.flush()


GOOD_BODIES = {
    "plain": (b'{"a": 1}', "identity"),
    "gzip": (GZIPPED, "gzip"),
    "x-gzip": (GZIPPED, "X-GZip "),
    "two members": (gzip.compress(b'{"a"') + gzip.compress(b": 1}"), "gzip"),
    "padded": (GZIPPED + b"\0" * 7, "gzip"),
    "deflate": (zlib.compress(b'{"a": 1}'), "deflate"),
    "deflate without its header": (raw_deflate(b'{"a": 1}'), "deflate"),
}


@pytest.mark.parametrize("name", GOOD_BODIES)
async def test_every_usual_compression_is_read(session_at: Make, name: str):
    """What comes out is what went in; what is counted is what came over the wire."""
    body, encoding = GOOD_BODIES[name]
    async with RawServer(packed(body, encoding)) as server:
        session = session_at(server.url)
        assert await session.request("GET", "/path") == {"a": 1}
        assert session.stats.bytes == len(body)


CUT_BODIES = {
    "cut": GZIPPED[:-12],
    "no trailer": GZIPPED[:-8],
    "half a trailer": GZIPPED[:-3],
    "wrong checksum": GZIPPED[:-8] + bytes(4) + GZIPPED[-4:],
    "second member cut": GZIPPED + GZIPPED[:15],
    "followed by text": GZIPPED + b"more",
    "no gzip": b'{"a": 1}',
}


@pytest.mark.parametrize("name", CUT_BODIES)
async def test_damaged_compression_is_a_cut_body(session_at: Make, name: str):
    """The length is right and the trailer is not: aiohttp alone would give half the body as the whole."""
    async with RawServer(packed(CUT_BODIES[name])) as server:
        error = await failing(session_at, server, TransportError)
        assert server.hits == 2
    assert error.kind == "cut-body"


async def test_damaged_deflate_is_a_cut_body(session_at: Make):
    """Both kinds of it."""
    for body in (zlib.compress(b'{"a": 1}')[:-2], raw_deflate(b'{"a": 1}')[:-2]):
        async with RawServer(packed(body, "deflate")) as server:
            assert (await failing(session_at, server, TransportError)).kind == "cut-body"


async def test_an_encoding_that_was_not_asked_for_is_a_decode_error(session_at: Make):
    """Two attempts, as with anything that stays, and the error knows its answer."""
    async with RawServer(http(b"xyz", headers={"Content-Encoding": "br", "X-Cap-RequestID": "r1"})) as server:
        error = await failing(session_at, server, DecodeError, retry=AT_ONCE)
        assert server.hits == 2
        assert server.seen[0].headers["accept-encoding"] == "gzip"
    assert (error.status, error.request_id, error.malformed) == (200, "r1", True)


async def test_an_empty_body_has_no_trailer_to_miss(session_at: Make):
    """A 503 that says gzip and sends nothing is still a 503."""
    async with RawServer(http(b"", 503, {"Content-Encoding": "gzip"})) as server:
        error = await failing(session_at, server, ServerError)
    assert error.status == 503


async def test_a_gzip_bomb_ends_at_the_cap_and_is_not_asked_for_again(session_at: Make):
    """300 MiB of zeros in 300 KiB: refused at 64 MiB, with no more than that held."""
    engine = zlib.compressobj(level=1, wbits=31)
    bomb = b"".join(engine.compress(bytes(1024 * 1024)) for _ in range(100)) + engine.flush()
    async with RawServer(http(bomb, headers={"Content-Encoding": "gzip", "X-CAP-REQUEST-ID": "r9"})) as server:
        tracemalloc.start()
        error = await failing(session_at, server, ResponseTooLargeError)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert server.hits == 1
    assert (error.status, error.request_id, error.attempts) == (200, "r9", 1)
    assert "64 MiB" in error.message
    assert [one.kind for one in error.history] == ["too-large"]
    assert peak < 2.2 * MAX_BODY


async def test_a_body_beyond_the_cap_is_not_read_to_its_end(session_at: Make, monkeypatch: pytest.MonkeyPatch):
    """Also without compression; the connection is closed, since the rest is on its way."""
    monkeypatch.setattr("capillary_async._transport.body.MAX_BODY", 1000)
    async with RawServer(http(b"[" + b"1," * 200_000 + b"1]"), OK) as server:
        session = session_at(server.url)
        with pytest.raises(ResponseTooLargeError):
            await session.request("GET", "/path")
        assert await session.request("GET", "/path") == {"a": 1}
        assert (server.hits, server.connections) == (2, 2)


async def test_the_cap_itself_is_allowed(session_at: Make, monkeypatch: pytest.MonkeyPatch):
    """Exactly the cap passes, plain and over several members; one byte more does not."""
    body = b"[" + b"1" * 998 + b"]"
    monkeypatch.setattr("capillary_async._transport.body.MAX_BODY", 1000)
    members = gzip.compress(body[:500]) + gzip.compress(body[500:])
    async with RawServer(http(body), packed(members), packed(gzip.compress(body + b" "))) as server:
        session = session_at(server.url)
        assert await session.request("GET", "/path") == await session.request("GET", "/path") == [int("1" * 998)]
        with pytest.raises(ResponseTooLargeError):
            await session.request("GET", "/path")


# --- whole answers that are no answer ---------------------------------------------------------------------------------

NO_ANSWERS = {
    "204": (Answer(b"HTTP/1.1 204 No Content\r\n\r\n"), "not-json", 2),
    "empty": (http(b""), "not-json", 2),
    "blanks": (http(b" \r\n"), "not-json", 2),
    "HTML": (http("<html><body>Maintenance</body></html>", headers={"Content-Type": "text/html"}), "not-json", 2),
    "text": (http("upstream said no"), "not-json", 2),
    "half JSON": (http(b'[{"id": 1}, {"id"'), "bad-json", 3),
    "NaN": (http(b'{"points": NaN}'), "bad-json", 3),
    "bad UTF-8": (http(b'{"a": "\xff"}'), "bad-json", 3),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_an_answer_that_is_no_json_is_tried_again(session_at: Make, name: str):
    """Half a JSON gets every attempt; what holds no JSON at all comes from something that stays, and gets two."""
    answer, kind, hits = NO_ANSWERS[name]
    async with RawServer(answer) as server:
        error = await failing(session_at, server, DecodeError, retry=RetryPolicy(attempts=3, backoff=0))
        assert server.hits == hits
    assert error.malformed
    assert error.status in (200, 204)
    assert [one.kind for one in error.history] == [kind] * hits


async def test_a_byte_order_mark_is_no_harm(session_at: Make):
    """In front of an object and an array."""
    async with RawServer(http(b"\xef\xbb\xbf{}"), http(b'\xef\xbb\xbf ["a"]')) as server:
        session = session_at(server.url)
        assert [await session.request("GET", "/path") for _ in "12"] == [{}, ["a"]]


async def test_redirects_are_not_followed(session_at: Make):
    """The target, which may be anybody's, sees neither request nor credentials."""
    async with RawServer(OK) as target, RawServer(http(b"", 302, {"Location": target.url + "/elsewhere"})) as server:
        with pytest.raises(CapillaryError, match="redirects are not followed: check base_url") as caught:
            await session_at(server.url).request("GET", "/path")
        assert (server.hits, target.hits, target.connections) == (1, 0, 0)
    assert caught.value.status == 302


async def test_cookies_are_never_kept(session_at: Make):
    """A session is no browser: what one answer sets, the next request does not send."""
    async with RawServer(http(b"{}", headers={"Set-Cookie": "a=b; Path=/"})) as server:
        session = session_at(server.url.replace("127.0.0.1", "localhost"))  # no jar takes cookies of an IP address
        for _ in range(2):
            await session.request("GET", "/path")
        assert "cookie" not in server.seen[1].headers


async def test_proxies_of_the_environment_are_not_used(session_at: Make, monkeypatch: pytest.MonkeyPatch):
    """Neither proxies nor .netrc."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with RawServer(OK) as server:
        assert await session_at(server.url).request("GET", "/path") == {"a": 1}


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_a_certificate_nobody_vouches_for_is_a_tls_error_at_once(session_at: Make):
    """One connection and no request: a wrong certificate does not get better."""
    context, _ = tls_server("127.0.0.1")
    async with RawServer(OK, tls=context) as server:
        error = await failing(session_at, server, TLSError, retry=AT_ONCE)
        assert server.hits == 0
    assert (error.kind, error.attempts) == ("tls", 1)
    assert "certificate" in error.message
    assert isinstance(error.__cause__, OriginalError)
    assert error.__cause__.type_name == "ssl.SSLCertVerificationError"


async def test_a_certificate_of_another_host_is_a_tls_error_at_once(session_at: Make):
    """The chain is right and the name is not."""
    context, authority = tls_server("elsewhere.example.com")
    async with RawServer(OK, tls=context) as server:
        error = await with_authority(authority, server)
        assert server.hits == 0
    assert (error.kind, error.attempts) == ("tls", 1)


async def with_authority(authority: trustme.CA, server: RawServer) -> CapillaryError:
    """The error of a call by a client that trusts `authority`."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as client:
        session = AsyncSession(server.url, auth=BasicAuth(USERNAME, password=PASSWORD), client_session=client)
        with pytest.raises(TLSError) as caught:
            await session.request("GET", "/path")
        await session.aclose()
    return caught.value


async def test_a_right_certificate_is_no_hindrance(session_at: Make):
    """Through a client of the caller's own, which knows the authority."""
    context, authority = tls_server("127.0.0.1")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with RawServer(OK, tls=context) as server:
        client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting))
        assert await session_at(server.url, client_session=client).request("GET", "/path") == {"a": 1}
        await client.close()


async def test_a_wrong_fingerprint_is_a_tls_error_at_once():
    """Pinned by the caller's own client."""
    context, authority = tls_server("127.0.0.1")
    async with RawServer(OK, tls=context) as server:
        connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(bytes(32)))
        async with aiohttp.ClientSession(connector=connector) as client:
            session = AsyncSession(server.url, auth=BasicAuth("u", password="p"), client_session=client)
            with pytest.raises(TLSError) as caught:
                await session.request("GET", "/path")
        assert (server.hits, caught.value.attempts) == (0, 1)
    assert authority


async def test_tls_to_a_plain_port_is_a_tls_error_at_once(session_at: Make):
    """The answer is HTTP where a handshake is due."""
    connections = 0

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TLSError) as caught:
            await session_at(url).request("GET", "/path")
    assert (connections, caught.value.attempts, caught.value.kind) == (1, 1, "tls")


# --- connections ------------------------------------------------------------------------------------------------------


async def test_connections_are_kept_and_used_again(session_at: Make):
    """Also after answers of every failing status: they are read whole."""
    answers = [http(b"{}"), http(b'{"errors": []}', 404), http(b"busy", 503), http(b"{}")]
    async with RawServer(*answers) as server:
        session = session_at(server.url, retry=ONCE)
        for _ in answers:
            await asyncio.gather(session.request("GET", "/path"), return_exceptions=True)
        assert (server.hits, server.connections) == (4, 1)


async def test_a_lost_kept_connection_is_one_failed_attempt_and_nothing_hidden(session_at: Make):
    """The server closes a kept connection at the second request: aiohttp alone would send it twice in one attempt.

    This guards `_retry_connection`, which is private: when an upgrade of aiohttp takes it away, the hits are three.
    """
    async with RawServer(OK, Answer(b"", "close")) as server:
        session = session_at(server.url, retry=ONCE)
        await session.request("GET", "/path")
        with pytest.raises(TransportError) as caught:
            await session.request("GET", "/path")
        assert server.hits == 2
    assert (caught.value.attempts, caught.value.kind) == (1, "disconnected")


async def test_aiohttp_still_knows_the_switch_for_its_hidden_resend():
    """On by default and off in our pools; a rename would leave the resend on without a word."""
    async with aiohttp.ClientSession() as client:
        assert client._retry_connection is True
    pools = Pools(Limits())
    assert (await pools.client())._retry_connection is False
    await pools.aclose()


async def test_a_client_as_it_comes_would_send_twice():
    """The proof that the guard above guards something."""
    async with RawServer(OK, Answer(b"", "close")) as server, aiohttp.ClientSession() as client:
        async with client.get(server.url) as answer:
            await answer.read()
        with pytest.raises(aiohttp.ClientError):
            await client.get(server.url)
        assert server.hits == 3


async def test_a_call_takes_one_of_many_connections_at_a_time(session_at: Make):
    """As many as `Limits.concurrency` allows, and no more."""
    gate = asyncio.Event()
    async with RawServer(OK.but(when=gate)) as server:
        session = session_at(server.url, limits=Limits(concurrency=3))
        calls = [asyncio.ensure_future(session.request("GET", "/path")) for _ in range(9)]
        await server.until(3)
        gate.set()
        await asyncio.gather(*calls)
        assert (server.hits, server.peak, server.connections) == (9, 3, 3)


# --- pools ------------------------------------------------------------------------------------------------------------


def new_session(url: str, **options: Any) -> AsyncSession:
    return AsyncSession(url, auth=BasicAuth(USERNAME, password=PASSWORD), **{"retry": AT_ONCE, **options})


@pytest.mark.usefixtures("collected")
def test_a_session_outlives_its_loops():
    """Several `asyncio.run` with one session, never closed between: each loop's pool goes with its loop."""
    with in_thread(OK) as server:
        session = new_session(server.url)
        for _ in range(3):
            assert asyncio.run(session.request("GET", "/path")) == {"a": 1}
            assert not session._shared.pools._pools
        asyncio.run(session.aclose())
        assert (server.hits, server.connections) == (3, 3)


@pytest.mark.usefixtures("collected")
def test_a_session_works_in_uvloop_as_well():
    """The `speed` extra: pools go with its loops too."""
    uvloop = pytest.importorskip("uvloop")
    with in_thread(OK) as server:
        session = new_session(server.url)
        for _ in range(2):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                assert runner.run(session.request("GET", "/path")) == {"a": 1}
            assert not session._shared.pools._pools
        asyncio.run(session.aclose())


@pytest.mark.usefixtures("collected")
def test_two_threads_share_a_session():
    """Two loops at once, one pool each; the loops end by themselves."""
    with in_thread(OK) as server:
        session = new_session(server.url)
        both = threading.Barrier(2)

        async def work() -> None:
            await session.request("GET", "/path")
            await asyncio.to_thread(both.wait, 5)  # both pools are open now
            await asyncio.gather(*(session.request("GET", "/path") for _ in range(10)))

        threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert server.hits == session.stats.requests == 22
        asyncio.run(session.aclose())


@pytest.mark.usefixtures("collected")
def test_closing_reaches_the_pool_of_a_loop_in_another_thread():
    """It is closed there, in its own loop, before `aclose` returns."""
    with in_thread(OK) as server:
        session = new_session(server.url)
        opened, done = threading.Event(), threading.Event()
        pools: list[aiohttp.ClientSession] = []

        async def elsewhere() -> None:
            await session.request("GET", "/path")
            pools.append(await session._shared.pools.client())
            opened.set()
            await asyncio.to_thread(done.wait, 5)

        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        opened.wait(5)
        asyncio.run(session.aclose())
        assert pools[0].closed
        done.set()
        thread.join(5)


@pytest.mark.usefixtures("collected")
def test_a_pool_of_a_loop_that_stands_still_is_let_go():
    """The loop is neither running nor closed, so that nobody can await in it."""
    session = new_session("http://127.0.0.1:1")
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(session._shared.pools.client())
    asyncio.run(session.aclose())
    assert client.closed
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.usefixtures("collected")
def test_a_pool_of_a_loop_closed_by_hand_is_let_go_at_the_next_opening():
    """Without `shutdown_asyncgens` nobody told the pool."""
    session = new_session("http://127.0.0.1:1")
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(session._shared.pools.client())
    loop.close()

    async def again() -> None:
        await session._shared.pools.client()
        assert client.closed
        assert list(session._shared.pools._pools) == [asyncio.get_running_loop()]
        await session.aclose()

    asyncio.run(again())


@pytest.mark.usefixtures("collected")
def test_a_loop_too_busy_to_close_its_pool_closes_it_later(monkeypatch: pytest.MonkeyPatch):
    """`aclose` does not wait for ever, and nothing is left when that loop ends."""
    monkeypatch.setattr(wire, "_PATIENCE", 0.05)
    session = new_session("http://127.0.0.1:1")
    opened, closed = threading.Event(), threading.Event()
    pools: list[aiohttp.ClientSession] = []

    async def busy() -> None:
        pools.append(await session._shared.pools.client())
        opened.set()
        closed.wait(5)  # blocks the loop

    thread = threading.Thread(target=asyncio.run, args=(busy(),))
    thread.start()
    opened.wait(5)
    asyncio.run(session.aclose())
    assert not pools[0].closed
    closed.set()
    thread.join(5)
    assert pools[0].closed


def still_loop(running: list[bool]) -> Any:
    """A loop in another thread that ends while it is looked at."""
    return Mock(is_running=Mock(side_effect=running), is_closed=Mock(return_value=True))


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("running", [[False], [True, False]])
async def test_a_loop_that_ends_while_its_pool_is_being_closed(running: list[bool], monkeypatch: pytest.MonkeyPatch):
    """Its callbacks never run, or it takes none any more: either way the pool is let go."""
    monkeypatch.setattr(wire, "_PATIENCE", 0.01)
    client = aiohttp.ClientSession()
    pool = wire._Pool(still_loop(running), client, owned=True)
    await wire._close_elsewhere(pool)
    assert client.closed
    closed = still_loop([True])
    closed.call_soon_threadsafe.side_effect = RuntimeError("Event loop is closed")
    another = aiohttp.ClientSession()
    await wire._close_elsewhere(wire._Pool(closed, another, owned=True))
    assert another.closed
    for coroutine in coroutines_of(pool.loop):
        coroutine.close()


def coroutines_of(loop: Any) -> list[Any]:
    """What was handed to a loop that never ran it."""
    given = [cell.cell_contents for call in loop.call_soon_threadsafe.mock_calls for cell in call.args[0].__closure__]
    return [one for one in given if asyncio.iscoroutine(one)]


async def test_a_given_client_is_left_alone_wherever_its_loop_is():
    """Closing the session lets go of nothing that is not its own."""
    async with aiohttp.ClientSession() as client:
        await wire._close_elsewhere(wire._Pool(still_loop([False]), client, owned=False))
        assert not client.closed


@pytest.mark.usefixtures("collected")
async def test_closing_twice_is_fine_and_use_afterwards_is_not():
    """A closed session says so, whoever asks."""
    async with RawServer(OK) as server:
        session = new_session(server.url)
        await session.request("GET", "/path")
        await session.aclose()
        await session.aclose()
        with pytest.raises(RuntimeError, match="is closed"):
            await session.request("GET", "/path")
        with pytest.raises(RuntimeError, match="is closed: make a new one"):
            await session._shared.pools.client()


async def test_a_pool_is_not_opened_behind_a_close_of_another_thread():
    """The close came between the first look and the opening."""
    pools = Pools(Limits())
    pools._closed = True
    with pytest.raises(RuntimeError, match="is closed"):
        await pools._open(asyncio.get_running_loop())
    assert not pools._pools


@pytest.mark.usefixtures("collected")
async def test_closing_with_requests_under_way_ends_them():
    """Each ends with a RuntimeError, none hangs and none is sent again."""
    async with RawServer(Answer(b"", "stall")) as server:
        session = new_session(server.url, limits=Limits(concurrency=2))
        calls = [asyncio.ensure_future(session.request("GET", "/path")) for _ in range(4)]
        await server.until(2)
        await session.aclose()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert server.hits == 2
    assert [type(one) for one in ended] == [RuntimeError] * 4
    assert all("closed" in str(one) for one in ended)


@pytest.mark.usefixtures("collected")
async def test_a_pool_closed_under_a_request_says_so_and_not_that_the_server_failed():
    """The lost connection is our own doing, and trying again would be no use."""
    async with RawServer(Answer(b"", "stall")) as server:
        pools = Pools(Limits())
        call = asyncio.ensure_future(Wire(server.url, pools, Stats(), {})(Request("GET", "/path")))
        await server.until(1)
        await pools.aclose()
        with pytest.raises(RuntimeError, match="was closed while a request was under way"):
            await call


async def test_a_cancelled_call_leaves_no_connection_taken(session_at: Make):
    """With one permit and one connection, the next call still gets through."""
    async with RawServer(Answer(b"", "stall"), OK) as server:
        session = session_at(server.url, limits=Limits(concurrency=1))
        call = asyncio.ensure_future(session.request("GET", "/path"))
        await server.until(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await session.request("GET", "/path") == {"a": 1}


# --- a client of the caller's own -------------------------------------------------------------------------------------


async def test_a_given_client_is_used_and_never_closed():
    """Whatever its own defaults say about statuses and compression."""
    own = aiohttp.ClientSession(raise_for_status=True, headers={"X-Mine": "yes"})
    async with RawServer(packed(GZIPPED), http(b"{}", 404)) as server, own as client:
        session = new_session(server.url, client_session=client)
        assert await session.request("GET", "/path") == {"a": 1}
        with pytest.raises(CapillaryError, match="404"):
            await session.request("GET", "/path")
        await session.aclose()
        assert not client.closed
        assert server.seen[0].headers["x-mine"] == "yes"


async def test_a_given_client_that_is_closed_is_refused():
    """At the call, by name."""
    client = aiohttp.ClientSession()
    session = new_session("http://127.0.0.1:1", client_session=client)
    await client.close()
    with pytest.raises(RuntimeError, match="client_session given to AsyncSession is closed"):
        await session.request("GET", "/path")


@pytest.mark.filterwarnings("ignore:.*(BasicAuth|auth).* is deprecated:DeprecationWarning")
async def test_a_given_client_with_credentials_of_its_own_is_refused():
    """They would stand against the session's, and aiohttp takes only one."""
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth("other", "one")) as client:
        session = new_session("http://127.0.0.1:1", client_session=client)
        with pytest.raises(InvalidRequestError, match="without auth= of its own") as caught:
            await session.request("GET", "/path")
        assert (caught.value.argument, caught.value.attempts) == ("client_session", 1)


def test_a_given_client_serves_its_own_loop_alone():
    """In another loop it would fail in strange ways, so it is refused."""
    with asyncio.Runner() as home:

        async def make() -> aiohttp.ClientSession:
            return aiohttp.ClientSession()

        client = home.run(make())
        session = new_session("http://127.0.0.1:1", client_session=client)
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            threaded(session.request("GET", "/path"))
        home.run(client.close())


def threaded(coroutine: Any) -> None:
    """Run it in a loop of another thread; what it raises is raised here."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(coroutine)
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)
    raise caught[0]


async def test_the_wait_for_a_connection_of_a_given_client_is_no_connect_timeout():
    """Its pool may be smaller than our limit, and busy with requests of its own."""
    gate = asyncio.Event()
    own = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
    async with RawServer(OK.but(when=gate), OK) as server, own as client:
        session = new_session(server.url, client_session=client, timeouts=Timeouts(connect=0.05), retry=ONCE)
        first = asyncio.ensure_future(session.request("GET", "/path"))
        await server.until(1)
        second = asyncio.ensure_future(session.request("GET", "/path"))
        await asyncio.wait([second], timeout=0.15)
        gate.set()
        assert await asyncio.gather(first, second) == [{"a": 1}] * 2
        await session.aclose()


# --- the mapping itself -----------------------------------------------------------------------------------------------


def aiohttp_errors() -> list[type[Exception]]:
    found = (getattr(aiohttp.client_exceptions, name) for name in aiohttp.client_exceptions.__all__)
    return [one for one in found if isinstance(one, type) and issubclass(one, Exception)]


def raised(kind: type[Exception]) -> Exception:
    """An error of that class with what its own methods need."""
    error = kind.__new__(kind)
    key = aiohttp.client_reqrep.ConnectionKey("host", 443, True, True, None, None, None)
    error.__dict__.update(_conn_key=key, _os_error=OSError(5, "io"), _certificate_error=ssl.CertificateError("bad"))
    error.__dict__.update(message="torn", status=400, request_info=aiohttp.RequestInfo(None, "GET", None, None))
    error.__dict__.update(_url="http://host/", _description=None, expected=b"", got=b"", host="host", port=443)
    return error


def ours_for(error: Exception) -> CapillaryError:
    if isinstance(error, TimeoutError):
        return wire._timed_out(error, Request("GET", "/"))
    return wire._mapped(error)


@pytest.mark.parametrize("kind", aiohttp_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_aiohttp_has_one_of_ours(kind: type[Exception]):
    """None is left over, also of those that a later aiohttp brings; and each is raised by itself, not by its bases."""
    ours = ours_for(raised(kind))
    assert isinstance(ours, InvalidRequestError if issubclass(kind, aiohttp.InvalidURL) else TransportError)
    assert isinstance(ours, TLSError) == issubclass(kind, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch)


def test_a_timeout_of_the_kernel_is_a_lost_connection():
    """ETIMEDOUT is a TimeoutError too, and none of our timers."""
    ours = wire._timed_out(TimeoutError(110, "timed out"), Request("GET", "/"))
    assert (type(ours), ours.kind) == (TransportError, "disconnected")
    assert isinstance(ours.__cause__, TimeoutError)


def test_an_unknown_error_of_aiohttp_is_still_ours():
    """Not every one has a rule."""
    ours = wire._mapped(aiohttp.ClientError())
    assert (type(ours), ours.kind, ours.message) == (TransportError, "other", "the request failed: ClientError")


async def test_a_request_outside_a_call_has_a_limit_too():
    """So that the adapter alone can be used in tests and never hangs."""
    async with RawServer(OK, Answer(b"", "close")) as server:
        pools, stats = Pools(Limits()), Stats()
        sends = Wire(server.url, pools, stats, {"X-A": "b"})
        response = await sends(Request("GET", "/path", "a=b%20c"))
        assert (response.status, response.body, response.request_id) == (200, b'{"a": 1}', None)
        assert (server.seen[0].target, server.seen[0].headers["x-a"]) == ("/path?a=b%20c", "b")
        with pytest.raises(TransportError):
            await sends(Request("GET", "/path"))
        await pools.aclose()
        assert pools.closed


async def test_what_is_sent_is_what_was_built(session_at: Make):
    """Quoted once: no part of the path or query is quoted again, or taken apart."""
    async with RawServer(OK) as server:
        await session_at(server.url + "/base").request("GET", "/v2/a b%2B/é", params={"q": "a b&c=d", "ids": [1, 2]})
        assert server.seen[0].target == "/base/v2/a%20b%2B/%C3%A9?q=a%20b%26c%3Dd&ids=1,2"


def test_making_what_sessions_share_opens_nothing():
    """No loop is needed, and no socket is taken."""
    shared = share("http://127.0.0.1:1", BasicAuth("u", password="p"), Limits(), AT_ONCE, Timeouts())
    assert not shared.pools._pools
