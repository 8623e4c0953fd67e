"""The adapter against real sockets: connections, pools, the mapping of errors. Faults stand in `test_faults_*.py`."""

import asyncio
import base64
import gc
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from support.environment import AT_ONCE, PASSWORD, USERNAME
from support.raw_server import MOMENT, Answer, RawServer, free_port, http, in_thread

from capillary_async import AsyncSession, BasicAuth, Limits, RetryPolicy, Timeouts
from capillary_async._transport import pools
from capillary_async._transport.aiohttp_errors import mapped, timed_out
from capillary_async._transport.chain import share
from capillary_async._transport.messages import Request
from capillary_async._transport.pools import Pools
from capillary_async._transport.stats import Stats
from capillary_async._transport.wire import Wire
from capillary_async.errors import CapillaryError, InvalidRequestError, TLSError, TransportError

ONCE = RetryPolicy(attempts=1)
OK = http(b'{"a": 1}')
Make = Callable[..., AsyncSession]


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what the test left, so that an unclosed socket or task speaks up as the error that it is."""
    yield
    gc.collect()


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
    opened = Pools(Limits())
    assert (await opened.client())._retry_connection is False
    await opened.aclose()


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


async def test_elapsed_is_the_time_of_the_attempt(session_at: Make):
    """In seconds, from the request to the last byte."""
    row = http(b'[{"id": 1}]')
    async with RawServer(row.but(pause=len(row.data) - 1)) as server:
        rows = session_at(server.url).points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
        page = await rows.page(1)
    assert 0.8 * MOMENT < page.elapsed < 30


async def test_cookies_are_never_kept(session_at: Make):
    """A session is no browser: what one answer sets, the next request does not send."""
    async with RawServer(http(b"{}", headers={"Set-Cookie": "a=b; Path=/"})) as server:
        session = session_at(server.url.replace("127.0.0.1", "localhost"))  # no jar takes cookies of an IP address
        for _ in range(2):
            await session.request("GET", "/path")
        assert "cookie" not in server.seen[1].headers


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    session_at: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Neither proxies nor .netrc."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with RawServer(OK) as server:
        assert await session_at(server.url).request("GET", "/path") == {"a": 1}
        assert base64.b64decode(server.seen[0].headers["authorization"].split()[1]).startswith(b"till.id:")


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
        clients: list[aiohttp.ClientSession] = []

        async def elsewhere() -> None:
            await session.request("GET", "/path")
            clients.append(await session._shared.pools.client())
            opened.set()
            await asyncio.to_thread(done.wait, 5)

        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        opened.wait(5)
        asyncio.run(session.aclose())
        assert clients[0].closed
        done.set()
        thread.join(5)


async def test_no_pool_is_opened_behind_the_closing():
    """Another thread may close the session between a call's look and the opening of its pool."""
    session = new_session("http://127.0.0.1:1")
    await session.aclose()
    with pytest.raises(RuntimeError, match="is closed"):
        await session._shared.pools._open(asyncio.get_running_loop())
    assert not session._shared.pools._pools


@pytest.mark.usefixtures("collected")
def test_a_pool_of_a_loop_that_stands_still_is_let_go():
    """The loop is neither running nor closed, so that nobody can await in it."""
    session = new_session("http://127.0.0.1:1")
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(session._shared.pools.client())
    connector = client.connector
    asyncio.run(session.aclose())
    assert client.closed
    assert connector is not None
    assert connector.closed
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.usefixtures("collected")
def test_a_pool_of_a_loop_closed_by_hand_is_let_go_at_the_next_opening():
    """Without `shutdown_asyncgens` nobody told the pool."""
    session = new_session("http://127.0.0.1:1")
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(session._shared.pools.client())
    connector = client.connector
    loop.close()

    async def again() -> None:
        await session._shared.pools.client()
        assert client.closed
        assert connector is not None
        assert connector.closed  # its sockets, that is
        assert list(session._shared.pools._pools) == [asyncio.get_running_loop()]
        await session.aclose()

    asyncio.run(again())


@pytest.mark.usefixtures("collected")
def test_a_loop_too_busy_to_close_its_pool_closes_it_later(monkeypatch: pytest.MonkeyPatch):
    """`aclose` does not wait for ever, and nothing is left when that loop ends."""
    monkeypatch.setattr(pools, "_CLOSE_WAIT", 0.05)
    session = new_session("http://127.0.0.1:1")
    opened, closed = threading.Event(), threading.Event()
    clients: list[aiohttp.ClientSession] = []

    async def busy() -> None:
        clients.append(await session._shared.pools.client())
        opened.set()
        closed.wait(5)  # blocks the loop

    thread = threading.Thread(target=asyncio.run, args=(busy(),))
    thread.start()
    opened.wait(5)
    asyncio.run(session.aclose())
    assert not clients[0].closed
    closed.set()
    thread.join(5)
    assert clients[0].closed


def still_loop(running: list[bool]) -> Any:
    """A loop in another thread that ends while it is looked at."""
    return Mock(is_running=Mock(side_effect=running), is_closed=Mock(return_value=True))


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("running", [[False], [True, False]])
async def test_a_loop_that_ends_while_its_pool_is_being_closed(running: list[bool], monkeypatch: pytest.MonkeyPatch):
    """Its callbacks never run, or it takes none any more: either way the pool is let go."""
    monkeypatch.setattr(pools, "_CLOSE_WAIT", 0.01)
    client = aiohttp.ClientSession()
    pool = pools._Pool(still_loop(running), client, owned=True)
    await pools._close_elsewhere(pool)
    assert client.closed
    closed = still_loop([True])
    closed.call_soon_threadsafe.side_effect = RuntimeError("Event loop is closed")
    another = aiohttp.ClientSession()
    await pools._close_elsewhere(pools._Pool(closed, another, owned=True))
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
        await pools._close_elsewhere(pools._Pool(still_loop([False]), client, owned=False))
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
    async with (
        RawServer(http(gzip.compress(b'{"a": 1}'), headers={"Content-Encoding": "gzip"}), http(b"{}", 404)) as server,
        own as client,
    ):
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
        return timed_out(error, Request("GET", "/"))
    return mapped(error)


@pytest.mark.parametrize("kind", aiohttp_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_aiohttp_has_one_of_ours(kind: type[Exception]):
    """None is left over, also of those that a later aiohttp brings; and each is raised by itself, not by its bases."""
    ours = ours_for(raised(kind))
    assert isinstance(ours, InvalidRequestError if issubclass(kind, aiohttp.InvalidURL) else TransportError)
    assert isinstance(ours, TLSError) == issubclass(kind, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch)


def test_a_timeout_of_the_kernel_is_a_lost_connection():
    """ETIMEDOUT is a TimeoutError too, and none of our timers."""
    ours = timed_out(TimeoutError(110, "timed out"), Request("GET", "/"))
    assert (type(ours), ours.kind) == (TransportError, "disconnected")
    assert isinstance(ours.__cause__, TimeoutError)


def test_an_unknown_error_of_aiohttp_is_still_ours():
    """Not every one has a rule."""
    ours = mapped(aiohttp.ClientError())
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
