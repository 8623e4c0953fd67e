"""A proxy of the session's own: with and without password, tunnel and forwarding, and how its refusals look."""

import pickle
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from support.environment import AT_ONCE, PASSWORD, name_cluster
from support.proxy import Proxy
from support.raw_server import RawServer, free_port, http, said, tls_server

from capillary_async import AsyncSession, BasicAuth, InvalidRequestError, OAuthClient
from capillary_async.errors import ConnectError, RequestTimeoutError

Make = Callable[..., AsyncSession]
OK = said({"a": 1})
SECRET = "pr0xy@p4ss/w%rd"
CODED = "pr0xy%40p4ss%2Fw%25rd"
TOKEN_PATH = "v3/oauth/token/generate"
TOKEN = said({"data": {"accessToken": "t0k3n-0f-0urs", "ttlSeconds": 300}, "errors": None})
IGNORED = r"HTTP_PROXY is set and ignored: to use a proxy, give proxy= or set CAPILLARY_PROXY"


@asynccontextmanager
async def server_of(scheme: str) -> AsyncIterator[tuple[RawServer, dict[str, Any]]]:
    """A server, and what a session needs to trust it."""
    if scheme == "http":
        async with RawServer(OK, **{TOKEN_PATH: [TOKEN]}) as server:
            yield server, {}
        return
    context, authority = tls_server("127.0.0.1")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    async with RawServer(OK, tls=context, **{TOKEN_PATH: [TOKEN]}) as server:
        yield server, {"ssl_context": trusting}


def shown(error: BaseException) -> str:
    """All that a log may show of an error, with the locals of every frame but those of tests."""
    walked = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if "/tests/" not in frame.f_code.co_filename]
    frames = [repr(frame.f_locals) for frame in walked]
    return " ".join([str(error), repr(error), repr(vars(error)), repr(error.__cause__), *frames])


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("password", ["", SECRET], ids=["open", "with password"])
async def test_every_request_goes_through_the_proxy(session_at: Make, scheme: str, password: str) -> None:
    """By CONNECT where the server speaks TLS, which then sees nothing of the proxy's password."""
    async with server_of(scheme) as (server, options), Proxy("ann", password) as proxy:
        url = proxy.url.replace("//", f"//ann:{CODED}@") if password else proxy.url
        session = session_at(server.url, proxy=url, **options)
        assert [await session.request("GET", "/x", params={"q": 1}) for _ in "12"] == [{"a": 1}] * 2
        due = f"CONNECT 127.0.0.1:{server.port} " if scheme == "https" else f"GET {server.url}/x?q=1 "
        assert proxy.seen
        assert all(line.startswith(due) for line in proxy.seen)
        assert set(proxy.passwords) == {f"ann:{SECRET}" if password else ""}
        assert not [name for one in server.seen for name in one.headers if name.startswith("proxy")]
        assert [one.target for one in server.seen] == ["/x?q=1"] * 2


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_token_is_fetched_the_same_way(session_at: Make, scheme: str) -> None:
    async with server_of(scheme) as (server, options), Proxy("ann", SECRET) as proxy:
        url = proxy.url.replace("//", f"//ann:{CODED}@")
        session = session_at(server.url, auth=OAuthClient("key", "s3cret-s3cret"), proxy=url, **options)
        assert await session.request("GET", "/x") == {"a": 1}
        assert [one.method for one in server.seen] == ["POST", "GET"]
        assert (scheme == "https") or len(proxy.seen) == 2
        assert set(proxy.passwords) == {f"ann:{SECRET}"}


@pytest.mark.parametrize("auth", [BasicAuth("u", password=PASSWORD), OAuthClient("key", "s3cret-s3cret")])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_407_names_the_proxy_once(session_at: Make, scheme: str, auth: Any) -> None:
    """It is no answer of the API and no outage: one request, and an error that concerns every key."""
    async with server_of(scheme) as (server, options), Proxy("ann", "another") as proxy:
        session = session_at(server.url, auth=auth, proxy=proxy.url.replace("//", f"//ann:{CODED}@"), **options)
        with pytest.raises(ConnectError, match=rf"the proxy {proxy.url} wants a user name .*HTTP 407") as caught:
            await session.request("GET", "/x")
        assert (len(proxy.seen), server.hits) == (1, 0)
    error = caught.value
    assert type(error) is ConnectError
    assert (error.attempts, error.concerns_all_keys, error.is_definitive) == (1, True, False)
    assert [(one.kind, one.status) for one in error.history] == [("proxy", None)]
    assert pickle.loads(pickle.dumps(error)).kind == "proxy"  # noqa: S301
    for secret in (SECRET, CODED, "another"):
        assert secret not in shown(error)
    assert session._outage() is None


async def test_407_ends_a_fan_out(session_at: Make) -> None:
    """Every other key would fail in the same way."""
    async with server_of("http") as (server, _), Proxy("ann", SECRET) as proxy:
        session = session_at(server.url, proxy=proxy.url)
        with pytest.raises(ConnectError, match="407"):
            await session.loyalty_events.list_many(range(1, 100)).collect()
        assert len(proxy.seen) < 50


@pytest.mark.parametrize(("status", "attempts"), [("403 Forbidden", 1), ("502 Bad Gateway", 5)])
async def test_a_proxy_that_does_not_connect(session_at: Make, status: str, attempts: int) -> None:
    """Its refusal stays; its failures are retried as those of the network are."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    async with server_of("https") as (server, options), Proxy(answer=answer) as proxy:
        session = session_at(server.url, proxy=proxy.url, **options)
        with pytest.raises(ConnectError, match=f"the proxy {proxy.url} did not connect to the server: HTTP {status}"):
            await session.request("GET", "/x")
        assert (len(proxy.seen), server.hits) == (attempts, 0)


async def test_a_proxy_that_echoes_its_password_is_not_quoted(session_at: Make) -> None:
    body = f"<html>{SECRET}".encode()
    answer = b"HTTP/1.1 400 Bad\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with server_of("http") as (server, _), Proxy(answer=answer) as proxy:
        session = session_at(server.url, proxy=proxy.url.replace("//", f"//ann:{CODED}@"))
        with pytest.raises(Exception, match="400") as caught:
            await session.request("GET", "/x")
    assert "***" in str(vars(caught.value))
    assert SECRET not in shown(caught.value)


async def test_a_proxy_that_is_down_is_named(session_at: Make) -> None:
    place = f"http://127.0.0.1:{free_port()}"
    session = session_at("https://capillary.invalid", proxy=place.replace("//", f"//ann:{CODED}@"))
    words = f"no connection through the proxy {place}: .*; check proxy={place} and the network"
    with pytest.raises(ConnectError, match=words) as caught:
        await session.request("GET", "/x")
    assert len(caught.value.history) == 5
    assert CODED not in shown(caught.value)


@pytest.mark.parametrize("names", ["HTTP_PROXY", "http_proxy ALL_PROXY"])
async def test_an_error_of_connecting_names_a_variable_that_is_ignored(
    session_at: Make, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    """A user behind a proxy learns why nothing gets out; the value, which may have a password, is not shown."""
    for name in names.split():
        monkeypatch.setenv(name, f"http://ann:{SECRET}@127.0.0.1:9")
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectError, match=f"(?i){IGNORED}") as caught:
        await session_at(url).request("GET", "/x")
    assert SECRET not in shown(caught.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConnectError, match="check base_url and the network \\(5"):
        await session_at(url).request("GET", "/x")


async def test_no_variable_is_named_where_a_connection_was_made(
    session_at: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capillary_async import Timeouts

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with RawServer(http(b"").but(then="stall", data=b"")) as server:
        session = session_at(server.url, timeouts=Timeouts(read=0.05), retry=AT_ONCE)
        with pytest.raises(RequestTimeoutError) as caught:
            await session.request("GET", "/x")
    assert "PROXY" not in caught.value.message


async def test_407_of_a_client_of_the_callers_own(session_at: Make) -> None:
    """Its proxy is named too."""
    async with server_of("https") as (server, _), Proxy("ann", SECRET) as proxy:
        async with aiohttp.ClientSession(proxy=proxy.url) as client:
            with pytest.raises(ConnectError, match=f"the proxy {proxy.url} wants a user name"):
                await session_at(server.url, client_session=client).request("GET", "/x")
        assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("proxy.example.com:3128", "without http://"),
        ("https://proxy.example.com", "without http://"),
        ("socks5://proxy.example.com", "a proxy of another kind takes a client_session"),
        (f"http://ann:{SECRET}@proxy", "with a path, .* written as %XX"),
        ("http://ann:p4ss/w%rd@proxy", "broken host, port or password"),
        ("http://ann:%ff@proxy", "broken host, port or password"),
        ("http://ann:a b@proxy", r"written as %XX"),
        ("http://:secret@proxy", "user name is empty"),
        ("http://proxy/path", "with a path"),
        ("", "without http://"),
        (7, "got int"),
        (b"http://proxy", "got bytes"),
    ],
)
def test_a_wrong_proxy_is_refused_by_name(value: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"proxy takes a URL .*{words}") as caught:
        AsyncSession("https://eu.example.com", auth=BasicAuth("u", password="p"), proxy=value)
    assert caught.value.argument == "proxy"
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("name", ["proxy", "ssl_context"])
async def test_a_client_of_the_callers_own_has_its_own(name: str) -> None:
    value = {"proxy": "http://proxy:3128", "ssl_context": ssl.create_default_context()}[name]
    async with aiohttp.ClientSession() as client:
        with pytest.raises(InvalidRequestError, match=f"{name} is for the session's own pools") as caught:
            AsyncSession("https://a.example", auth=BasicAuth("u", password="p"), client_session=client, **{name: value})
    assert caught.value.argument == name


async def test_the_environment_of_the_sdk_names_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """`CAPILLARY_PROXY`, in `from_env` alone; an argument replaces it."""
    async with server_of("http") as (server, _), Proxy("ann", SECRET) as proxy, Proxy() as other:
        name_cluster(monkeypatch, server.url)
        monkeypatch.setenv("CAPILLARY_PROXY", proxy.url.replace("//", f"//ann:{CODED}@"))
        async with AsyncSession.from_env() as session:
            assert await session.request("GET", "/x") == {"a": 1}
            assert SECRET not in repr(session) + repr(vars(session)) + repr(vars(session._shared.pools))
        async with AsyncSession.from_env(proxy=other.url) as session:
            assert await session.request("GET", "/x") == {"a": 1}
        assert (len(proxy.seen), len(other.seen)) == (1, 1)
