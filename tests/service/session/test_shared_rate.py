"""`Rate(shared=...)` on a real Redis: the script, what Redis refuses, and Redis that goes and comes back."""

import asyncio
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from support import redis_server
from support.raw_server import RawServer, http, in_thread, said

from capillary_async import (
    AsyncSession,
    BasicAuth,
    ConnectError,
    DeadlineExceededError,
    Limits,
    Rate,
    RetryPolicy,
    Timeouts,
)
from capillary_async._transport import redis_rate
from capillary_async._transport.redis_rate import SCRIPT

SECRET = "s3kret-of-redis"
SESSIONS: dict[str, AsyncSession] = {}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server.running() as number:
        yield number


@pytest.fixture
def redis_client(port: int) -> Iterator[Any]:
    import redis

    client = redis.Redis(port=port, decode_responses=True)
    client.flushall()
    yield client
    client.close()


def session_of(url: str, rate: Rate, **options: Any) -> AsyncSession:
    given = {"limits": Limits(rate=rate), "retry": RetryPolicy(attempts=2), **options}
    return AsyncSession(url, auth=BasicAuth("till", password="pass"), **given)


async def many(session: AsyncSession, number: int) -> None:
    await asyncio.gather(*(session.request("GET", "/path") for _ in range(number)))


# --- the script -------------------------------------------------------------------------------------------------------


def lease(client: Any, cost: int, pace: str = "200/1") -> tuple[int, int, str]:
    given, wait, before = client.eval(SCRIPT, 1, "key", cost, 60_000_000, pace)
    return given, int(wait), before


def test_turns_follow_each_other(redis_client: Any) -> None:
    """Each begins where the one before ends, by the microsecond, also where a time has 16 digits."""
    first = lease(redis_client, 5_000_000)
    assert first == (1, 0, "200/1")
    kept = int(redis_client.get("key").split()[0])
    second = lease(redis_client, 1_234_567)
    assert int(redis_client.get("key").split()[0]) == kept + 1_234_567
    third = lease(redis_client, 1)
    assert int(redis_client.get("key").split()[0]) == kept + 1_234_568
    assert 4_000_000 < second[1] <= 5_000_000
    assert 5_000_000 < third[1] <= 6_234_567


def test_a_key_ends_a_minute_after_its_last_turn(redis_client: Any) -> None:
    """Nothing is left in Redis."""
    lease(redis_client, 5_000_000)
    assert 64_000 < redis_client.pttl("key") <= 65_001


def test_no_turn_is_further_away_than_a_minute(redis_client: Any) -> None:
    """It says when to come again, and changes nothing."""
    lease(redis_client, 50_000_000, "1/50")
    lease(redis_client, 50_000_000, "1/50")
    before = redis_client.get("key")
    given, wait, _ = lease(redis_client, 1, "1/50")
    assert given == 0
    assert 39_000_000 < wait <= 40_000_000
    assert redis_client.get("key") == before


@pytest.mark.parametrize("kept", ["later 200/1", f"{'9' * 32} 200/1", "junk"])
def test_a_clock_that_went_back_costs_a_minute(redis_client: Any, kept: str) -> None:
    """A time that no lease can have left is not waited for; turns that are still out end within that minute."""
    redis_client.set("key", kept.replace("later", str(int((time.time() + 3600) * 1e6))))
    given, wait, _ = lease(redis_client, 50_000)
    assert given == 1
    assert wait == (0 if kept == "junk" else 60_000_000)
    given, wait, _ = lease(redis_client, 50_000)
    assert (given, wait <= 50_000) == ((1, True) if kept == "junk" else (0, True))


def test_the_rate_of_the_one_before_is_said(redis_client: Any) -> None:
    """For the warning."""
    lease(redis_client, 1, pace="100/1")
    assert lease(redis_client, 1, pace="200/1")[2] == "100/1"
    assert lease(redis_client, 1, pace="200/1")[2] == "200/1"


# --- one rate ---------------------------------------------------------------------------------------------------------


async def test_two_sessions_have_one_rate(port: int, redis_client: Any) -> None:
    """Together as fast as one alone; the key names no credential and has an end."""
    rate = Rate(50, per=1, shared=f"redis://127.0.0.1:{port}/0")
    async with RawServer(http()) as server, session_of(server.url, rate) as one, session_of(server.url, rate) as two:
        await asyncio.gather(many(one, 30), many(two, 30))
        times = sorted(seen.at for seen in server.seen)
    assert len(times) == 60
    # 59 intervals of 20 ms, less what was late at the beginning.
    assert 1.0 < times[-1] - times[0] < 3.0
    assert all(sum(begin <= at < begin + 0.5 for at in times) <= 25 + 20 for begin in times)
    (key,) = redis_client.keys("*")
    assert "till" not in key
    assert "pass" not in key
    assert 0 < redis_client.ttl(key) <= 62


async def test_a_rate_below_one_in_a_second_has_no_burst(port: int, redis_client: Any) -> None:
    """One turn per lease; a call whose turn comes too late is not sent, and once that is known, not begun."""
    rate = Rate(1, per=30, shared=f"redis://127.0.0.1:{port}/0")
    async with RawServer(http()) as server, session_of(server.url, rate, timeouts=Timeouts(call=1)) as session:
        began = time.monotonic()
        await session.request("GET", "/path")
        with pytest.raises(DeadlineExceededError, match=r"Timeouts\.call ran out while"):
            await session.request("GET", "/path")
        again = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"Timeouts\.call would run out while"):
            await session.request("GET", "/path")
        assert time.monotonic() - again < 0.5
        assert time.monotonic() - began < 4
        assert len(server.seen) == 1


async def test_single_calls_get_half(port: int, redis_client: Any) -> None:
    """While both wait, in one process."""
    rate = Rate(100, per=1, shared=f"redis://127.0.0.1:{port}/1")
    async with RawServer(http()) as server, session_of(server.url, rate) as session:
        bulk = session.with_options(priority="bulk")
        waiting = [asyncio.ensure_future(bulk.request("GET", "/bulk")) for _ in range(60)]
        await asyncio.sleep(0.05)
        await asyncio.gather(*(session.request("GET", "/single") for _ in range(20)))
        done = sum(one.done() for one in waiting)
        assert done <= 20 + 10
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_redis_that_forgets_its_scripts_and_keys(port: int, redis_client: Any) -> None:
    """As after a failover: the next lease is as the first."""
    rate = Rate(100, per=1, shared=f"redis://127.0.0.1:{port}/2")
    async with RawServer(http()) as server, session_of(server.url, rate) as session:
        await many(session, 5)
        redis_client.script_flush()
        redis_client.flushall()
        await many(session, 5)
        redis_client.client_kill_filter(_type="normal", skipme=True)
        await many(session, 5)
        assert len(server.seen) == 15


async def test_different_rates_are_warned_of(port: int, redis_client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Once, with both."""
    async with RawServer(http()) as server:
        for permits in (100, 50):
            rate = Rate(permits, per=1, shared=f"redis://127.0.0.1:{port}/3")
            async with session_of(server.url, rate) as session:
                await many(session, 3)
                await many(session, 3)
    warned = [record.getMessage() for record in caplog.records if "together they are as fast" in record.getMessage()]
    assert len(warned) == 1
    assert "100/1" in warned[0]
    assert "50/1" in warned[0]


# --- Redis that refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "user", "text"),
    [
        (("--requirepass", SECRET), ":another-secret@", "AuthenticationError"),
        (("--requirepass", SECRET), "", "AuthenticationError|NOAUTH"),
        (("--rename-command", "EVAL", ""), "", "needs Redis 5 or newer"),
        (("--rename-command", "AUTH", ""), f":{SECRET}@", "script|Error"),
        (("--cluster-enabled", "yes", "--cluster-config-file", "none.conf"), "", "Error"),
    ],
    ids=["another password", "no password", "no scripts", "no passwords", "a cluster without slots"],
)
async def test_a_refusal_is_an_error_at_once(
    options: tuple[str, ...], user: str, text: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the address and what to do, and no password; of a cluster that may come up, after the call's time."""
    with redis_server.running(0, "--dir", str(tmp_path), *options) as number:
        rate = Rate(50, per=1, shared=f"redis://{user}127.0.0.1:{number}/0")
        async with (
            RawServer(http()) as server,
            session_of(server.url, rate, timeouts=Timeouts(call=1.5)) as session,
        ):
            with pytest.raises((ConnectError, DeadlineExceededError), match=text) as caught:
                await session.request("GET", "/path")
            assert server.seen == []
    message = str(caught.value)
    assert f"redis://127.0.0.1:{number}/0" in message
    assert "check Rate.shared" in message
    everything = message + repr(caught.value.__cause__) + caplog.text
    assert SECRET not in everything
    assert "another-secret" not in everything


async def test_the_right_password(tmp_path: Any) -> None:
    """Gives turns."""
    with redis_server.running(0, "--requirepass", SECRET) as number:
        rate = Rate(50, per=1, shared=f"redis://:{SECRET}@127.0.0.1:{number}/0")
        async with RawServer(http()) as server, session_of(server.url, rate) as session:
            await many(session, 3)


async def test_what_is_no_redis() -> None:
    """A web server on that port."""
    async with RawServer(http()) as other, RawServer(http()) as server:
        rate = Rate(50, per=1, shared=f"redis://127.0.0.1:{other.port}/0")
        async with session_of(server.url, rate, timeouts=Timeouts(call=2)) as session:
            with pytest.raises((ConnectError, DeadlineExceededError), match=r"check Rate\.shared"):
                await session.request("GET", "/path")
        assert server.seen == []


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the session is made."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "capillary-async\[redis\]"'):
        session_of("http://127.0.0.1:1", Rate(1, 1, shared="redis://localhost"))


# --- Redis that goes --------------------------------------------------------------------------------------------------


async def test_single_calls_wait_for_their_time() -> None:
    """Then they say which Redis gives no turns; nothing was sent."""
    nobody = redis_server.free_port()
    rate = Rate(50, per=1, shared=f"redis://:{SECRET}@127.0.0.1:{nobody}/0")
    async with RawServer(http()) as server, session_of(server.url, rate, timeouts=Timeouts(call=1)) as session:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=rf"redis://127\.0\.0\.1:{nobody}/0") as caught:
            await session.request("GET", "/path")
        assert 0.9 < time.monotonic() - began < 3
        assert server.seen == []
    assert caught.value.kind == "queue"
    assert SECRET not in str(caught.value)


async def test_a_fan_out_ends_after_its_patience() -> None:
    """With the error that names Redis, which concerns every key."""
    nobody = redis_server.free_port()
    rate = Rate(50, per=1, shared=f"redis://127.0.0.1:{nobody}/0")
    async with RawServer(said([])) as server, session_of(server.url, rate, timeouts=Timeouts(call=1.5)) as session:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="has waited for") as caught:
            await session.loyalty_events.list_many([1, 2, 3]).collect()
        assert 1.4 < time.monotonic() - began < 6
        assert server.seen == []
    assert caught.value.outage
    assert f"redis://127.0.0.1:{nobody}/0" in str(caught.value)


async def test_redis_that_comes_back_is_used_again(redis_program: None, caplog: pytest.LogCaptureFixture) -> None:
    """Calls wait meanwhile, none is lost, and nothing is faster than allowed."""
    number = redis_server.free_port()
    rate = Rate(50, per=1, shared=f"redis://127.0.0.1:{number}/0")
    async with RawServer(http()) as server, session_of(server.url, rate) as session:
        with ExitStack() as first:
            first.enter_context(redis_server.running(number))
            await many(session, 10)
        calls = asyncio.ensure_future(many(session, 40))
        await asyncio.sleep(1)
        assert len(server.seen) <= 10 + 10
        with redis_server.running(number):
            await asyncio.wait_for(calls, 15)
        times = sorted(seen.at for seen in server.seen)
    assert len(times) == 50
    assert all(sum(begin <= at < begin + 1 for at in times) <= 50 + 10 for begin in times)
    assert "gives turns of the shared rate again" in caplog.text or "no request is sent" in caplog.text


async def test_redis_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer in time, no request is sent, and the error says so."""
    monkeypatch.setattr(redis_rate, "TIMEOUT", 0.3)
    async with RawServer(http().but(then="stall", data=b"")) as slow, RawServer(http()) as server:
        rate = Rate(50, per=1, shared=f"redis://127.0.0.1:{slow.port}/0")
        async with session_of(server.url, rate, timeouts=Timeouts(call=1.5)) as session:
            with pytest.raises(DeadlineExceededError, match="TimeoutError"):
                await session.request("GET", "/path")
        assert server.seen == []


# --- loops, threads, processes ----------------------------------------------------------------------------------------


@pytest.fixture
def redis_program() -> None:
    redis_server.program()


@contextmanager
def counted(url: str, rate: Rate) -> Iterator[AsyncSession]:
    session = session_of(url, rate)
    yield session
    asyncio.run(session.aclose())


def test_loops_that_end_and_loops_at_once(port: int, redis_client: Any) -> None:
    """One session in loops one after the other, closed ones between them, and in two threads at once."""
    rate = Rate(200, per=1, shared=f"redis://127.0.0.1:{port}/4")
    with in_thread(http()) as server, counted(server.url, rate) as session:
        for _ in range(3):
            asyncio.run(many(session, 5))
        threads = [threading.Thread(target=lambda: asyncio.run(many(session, 20))) for _ in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(15)
            assert not one.is_alive()
        assert len(server.seen) == 55


async def test_no_thread_stays(port: int, redis_client: Any) -> None:
    """After the session was closed."""
    rate = Rate(200, per=1, shared=f"redis://127.0.0.1:{port}/5")
    async with RawServer(http()) as server, session_of(server.url, rate) as session:
        await many(session, 3)
    ends = time.monotonic() + 5
    while any(thread.name == "capillary-shared-rate" for thread in threading.enumerate()):
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


def child(pipe: Any) -> None:
    began = time.monotonic()
    asyncio.run(many(SESSIONS["one"], 10))
    pipe.send(time.monotonic() - began)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_turns_of_its_own(port: int, redis_client: Any) -> None:
    """Of the same rate, over a connection of its own."""
    rate = Rate(100, per=1, shared=f"redis://127.0.0.1:{port}/6")
    with in_thread(http()) as server, counted(server.url, rate) as session:
        SESSIONS["one"] = session
        asyncio.run(many(session, 5))
        context = multiprocessing.get_context("fork")
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(sending,))
        process.start()
        asyncio.run(many(session, 10))
        assert receiving.poll(15)
        assert receiving.recv() < 10
        process.join(10)
        SESSIONS.clear()
        assert len(server.seen) == 25


async def test_tls_verifies_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CA that `SSL_CERT_FILE` names; a server of another CA gives no turns."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, issuer in (("own", ca), ("other", trustme.CA())):
        made = issuer.issue_cert("localhost")
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for name in ("own", "other"):
        tls = redis_server.free_port()
        words = ["--tls-port", str(tls), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(tmp_path / "ca.pem")]
        words += ["--tls-cert-file", str(tmp_path / f"{name}.pem"), "--tls-key-file", str(tmp_path / f"{name}.key")]
        with redis_server.running(0, *words):
            rate = Rate(50, per=1, shared=f"rediss://localhost:{tls}/0")
            async with RawServer(http()) as server:
                async with session_of(server.url, rate, timeouts=Timeouts(call=2)) as session:
                    if name == "own":
                        await many(session, 3)
                        continue
                    with pytest.raises(DeadlineExceededError, match=r"CERTIFICATE_VERIFY_FAILED"):
                        await session.request("GET", "/path")
                assert server.seen == []
