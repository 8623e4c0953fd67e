"""Reaching the host, and being sent elsewhere: what each failure becomes, and what the servers see of it.

What fails by the network is tried again. A redirect is not followed, since its target may be anybody's.
"""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from support.environment import AT_ONCE
from support.fault_runs import Make, ids_of, ids_until, page_ids, page_json, rows_at
from support.raw_server import RawServer, free_port, http, said

from capillary_async import AsyncSession, OAuthClient, RetryPolicy, Timeouts
from capillary_async.errors import APIError, ConnectError, InvalidRequestError, OriginalError

THRICE = RetryPolicy(attempts=3, backoff=0)
OK = http(b'{"a": 1}')


# --- reaching the host ------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_a_connect_error_tried_again(session_at: Make):
    """Nobody listens: each attempt is made, and the system's own error is chained as numbers and text."""
    session = session_at(f"http://127.0.0.1:{free_port()}", retry=THRICE)
    words = r"^GET /path: no connection: .*; check base_url and the network \(3 att"
    with pytest.raises(ConnectError, match=words) as caught:
        await session.request("GET", "/path")
    assert type(caught.value) is ConnectError
    assert [(one.kind, one.status) for one in caught.value.history] == [("connect", None)] * 3
    assert isinstance(caught.value.__cause__, OSError)
    assert session.stats.requests == 3


async def test_a_server_that_comes_up_meanwhile_is_found(session_at: Make):
    """Refused twice or more, then up: the records of one request."""
    port = free_port()
    policy = RetryPolicy(attempts=1000, backoff=0.001, backoff_max=0.005, quota=100_000)
    session = session_at(f"http://127.0.0.1:{port}", retry=policy)
    reading = asyncio.ensure_future(ids_of(rows_at(session)))
    while session.stats.retries < 2:  # noqa: ASYNC110 - the session has no event for it
        await asyncio.sleep(0.001)
    async with RawServer(http(page_json(5)), port=port) as server:
        assert await reading == page_ids(5)
        assert (server.hits, server.connections) == (1, 1)
        assert session.stats.retries == session.stats.requests - 1


async def test_a_host_that_does_not_resolve_is_a_connect_error_tried_again(
    session_at: Make, monkeypatch: pytest.MonkeyPatch
):
    """No network is needed to say so: the system's resolver is asked once for each attempt."""
    asked: list[str] = []

    async def unknown(_loop: object, host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    with pytest.raises(ConnectError, match=r"the host does not resolve: .*check base_url and the network") as caught:
        await session_at("https://capillary.invalid", retry=THRICE).request("GET", "/path")
    assert type(caught.value) is ConnectError
    assert ([one.kind for one in caught.value.history], len(asked)) == (["connect"] * 3, 3)
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
    """`Timeouts.connect` is over before the TCP handshake."""
    with pytest.raises(ConnectError, match=r"no connection within the 0\.1 s of Timeouts\.connect") as caught:
        await session_at(deaf, retry=THRICE, timeouts=Timeouts(connect=0.1)).request("GET", "/path")
    assert [one.kind for one in caught.value.history] == ["connect-timeout"] * 3


# --- being sent elsewhere ---------------------------------------------------------------------------------------------

SECRET = "s3cr3t-0f-th3-k3y"
TOKEN = said({"data": {"accessToken": "t0k3n-0f-0urs", "ttlSeconds": 300}, "errors": None})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("elsewhere", ["{target}/steal", "//127.0.0.1:{port}/steal", "/here", "https://evil.invalid/"])
async def test_a_redirect_is_an_error_and_its_target_sees_nothing(session_at: Make, status: int, elsewhere: str):
    """Not even a connection: the target may be anybody's. One request, since a redirect does not go away."""
    async with RawServer(OK) as target:
        place = elsewhere.format(target=target.url, port=target.port)
        async with RawServer(http(b"<html>moved", status, {"Location": place})) as server:
            with pytest.raises(APIError, match="redirects are not followed: check base_url") as caught:
                await session_at(server.url).request("GET", "/path")
            assert (server.hits, server.connections) == (1, 1)
        assert (target.hits, target.connections) == (0, 0)
    assert type(caught.value) is APIError
    assert (caught.value.status, caught.value.attempts) == (status, 1)


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_a_redirected_token_request_hands_the_secret_to_nobody(status: int):
    """307 and 308 ask for the same POST at the target, body and all."""
    async with RawServer(OK) as target:
        away = http(b"", status, {"Location": target.url + "/v3/oauth/token/generate"})
        async with (
            RawServer(away) as server,
            AsyncSession(server.url, auth=OAuthClient("key", SECRET), retry=AT_ONCE) as session,
        ):
            with pytest.raises(APIError) as caught:
                await session.request("GET", "/path")
            assert [one.target for one in server.seen] == ["/v3/oauth/token/generate"]
        assert (target.hits, target.connections) == (0, 0)
    assert SECRET not in str(caught.value)


async def test_a_redirect_in_the_middle_of_a_list_is_an_error_and_not_its_end(session_at: Make):
    """Also where the target would answer with a list."""
    async with RawServer(http(b"[]")) as target:
        away = http(b"[]", 302, {"Location": target.url})
        async with RawServer(http(page_json(1)), away, http(page_json(5))) as server:
            session = session_at(server.url)
            given, error = await ids_until(rows_at(session, prefetch=0), APIError)
            assert given == page_ids(1)
            assert await ids_of(rows_at(session, start=error.position)) == page_ids(5)
        assert target.connections == 0


async def test_a_token_goes_to_no_other_origin(session_at: Make):
    """A redirect of a read: the token stays where it was given."""
    async with RawServer(OK) as target:
        away = http(b"", 302, {"Location": target.url + "/path"})
        async with (
            RawServer(path=[away], **{"v3/oauth/token/generate": [TOKEN]}) as server,
            AsyncSession(server.url, auth=OAuthClient("key", SECRET), retry=AT_ONCE) as session,
        ):
            with pytest.raises(APIError):
                await session.request("GET", "/path")
            assert server.seen[-1].headers["x-cap-api-oauth-token"] == "t0k3n-0f-0urs"
        assert target.connections == 0
