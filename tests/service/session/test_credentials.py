"""Credentials on the wire: headers, one token for all, its renewal, and what comes of a refused one."""

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.environment import AT_ONCE, PASSWORD, USERNAME
from support.raw_server import Answer, RawServer, http, in_thread, said
from support.virtual_time import clock, run

from capillary_async import AsyncSession, Limits, OAuthClient, RetryPolicy, Timeouts
from capillary_async._transport import messages as message
from capillary_async._transport.credentials import OAuthCredentials, credentials_step
from capillary_async._transport.messages import CallState, Request, Response, part_of, set_decoded
from capillary_async._transport.oauth import _report
from capillary_async.errors import (
    AuthenticationError,
    CapillaryError,
    DeadlineExceededError,
    DecodeError,
    PermissionDeniedError,
    ServerError,
)

Make = Callable[..., AsyncSession]
KEY, SECRET = "client-key", "client-s3cret/+"
TOKEN_PATH = "/v3/oauth/token/generate"
HEADER = "x-cap-api-oauth-token"
EXPIRED = {"response": {"status": {"success": "false", "code": "498", "message": "Token expired at 10:00"}}}
GET = Request("GET", "/path")
OK = said({"ok": 1})


def token(text: str = "token-1", life: Any = 3000, **more: Any) -> Answer:
    return said({"data": {"accessToken": text, "ttlSeconds": life}, "errors": None, **more})


def oauth_server(tokens: list[Answer], answers: list[Answer]) -> RawServer:
    return RawServer(*answers, **{TOKEN_PATH[1:]: tokens})


def posts(server: RawServer) -> int:
    return sum(one.method == "POST" for one in server.seen)


def at(make: Make, server: RawServer, **options: Any) -> AsyncSession:
    return make(server.url, auth=OAuthClient(KEY, SECRET), **options)


# --- Basic ------------------------------------------------------------------------------------------------------------


async def test_basic_sends_the_md5_of_the_password(session_at: Make):
    """As the API's pages ask for it; and nothing of OAuth."""
    async with RawServer(OK) as server:
        await session_at(server.url).request("GET", "/path")
    digest = hashlib.md5(PASSWORD.encode()).hexdigest()
    assert (
        server.seen[0].headers["authorization"] == f"Basic {base64.b64encode(f'{USERNAME}:{digest}'.encode()).decode()}"
    )
    assert HEADER not in server.seen[0].headers


@pytest.mark.parametrize("answer", [http(b"{}", 401), http(b"{}", 498), said(EXPIRED)])
async def test_a_refusal_of_basic_credentials_is_final(session_at: Make, answer: Answer):
    """There is nothing to renew, and trying again may lock the till."""
    async with RawServer(answer) as server:
        with pytest.raises(AuthenticationError, match="check the credentials") as caught:
            await session_at(server.url).request("GET", "/path")
        assert (server.hits, caught.value.attempts) == (1, 1)


# --- the token --------------------------------------------------------------------------------------------------------


async def test_a_token_is_fetched_once_and_sent_in_its_own_header(session_at: Make):
    """The POST carries key and secret as JSON and no authorization; the GETs the token and no Authorization."""
    async with oauth_server([token()], [OK]) as server:
        session = at(session_at, server)
        for _ in range(3):
            assert await session.request("GET", "/path") == {"ok": 1}
    post, *gets = server.seen
    assert (post.method, post.target, json.loads(post.body)) == ("POST", TOKEN_PATH, {"key": KEY, "secret": SECRET})
    assert post.headers["content-type"] == "application/json"
    assert not {HEADER, "authorization"} & set(post.headers)
    assert [(one.method, one.headers[HEADER], "authorization" in one.headers) for one in gets] == [
        ("GET", "token-1", False)
    ] * 3
    assert session.stats.requests == 4


async def test_a_hundred_first_calls_fetch_one_token(session_at: Make):
    """With few permits: nobody holds one while waiting for the token."""
    gate = asyncio.Event()
    async with oauth_server([token().but(when=gate)], [OK]) as server:
        session = at(session_at, server, limits=Limits(concurrency=3))
        calls = [asyncio.ensure_future(session.request("GET", "/path")) for _ in range(100)]
        await server.until(1)
        gate.set()
        assert await asyncio.gather(*calls) == [{"ok": 1}] * 100
        assert (posts(server), server.hits) == (1, 101)


async def test_one_permit_is_enough(session_at: Make):
    """The token request, the call, the renewal and the resend take the only permit one after another."""
    async with oauth_server([token("a"), token("b")], [http(b"{}", 401), OK]) as server:
        session = at(session_at, server, limits=Limits(concurrency=1))
        assert await asyncio.wait_for(session.request("GET", "/path"), 5) == {"ok": 1}
        assert [one.method for one in server.seen] == ["POST", "GET", "POST", "GET"]


@pytest.mark.parametrize(
    "answer", [http(b"{}", 401), http(b"", 498), said(EXPIRED), said({"code": 401, "message": "no"})]
)
async def test_a_refused_token_is_renewed_once_and_the_call_sent_again(session_at: Make, answer: Answer):
    """Status or body code alike; it costs no attempt."""
    async with oauth_server([token("old"), token("new")], [answer, OK]) as server:
        session = at(session_at, server, retry=RetryPolicy(attempts=1))
        assert await session.request("GET", "/path") == {"ok": 1}
    assert [one.headers.get(HEADER) for one in server.seen] == [None, "old", None, "new"]
    assert session.stats.retries == 0


async def test_a_second_refusal_is_an_authentication_error(session_at: Make):
    """One renewal and one resend, then it is the credentials."""
    async with oauth_server([token("old"), token("new")], [http(b"{}", 401)]) as server:
        with pytest.raises(AuthenticationError) as caught:
            await at(session_at, server).request("GET", "/path")
        assert [one.method for one in server.seen] == ["POST", "GET", "POST", "GET"]
    assert (caught.value.method, caught.value.path, caught.value.attempts) == ("GET", "/path", 1)


async def test_another_fault_of_the_resend_is_retried_as_that(session_at: Make):
    """401, then 503 with the new token, then right: two attempts, two tokens."""
    async with oauth_server([token("old"), token("new")], [http(b"{}", 401), http(b"{}", 503), OK]) as server:
        session = at(session_at, server)
        assert await session.request("GET", "/path") == {"ok": 1}
        assert (posts(server), session.stats.retries) == (2, 1)


async def test_a_403_is_no_reason_for_a_new_token(session_at: Make):
    async with oauth_server([token()], [said({"errors": [{"code": 4000, "message": "no"}]}, 403)]) as server:
        with pytest.raises(PermissionDeniedError):
            await at(session_at, server).request("GET", "/path")
        assert posts(server) == 1


async def test_many_calls_with_a_refused_token_renew_it_once(session_at: Make):
    """All twenty are refused with the same token: who comes later takes the new one."""
    gate = asyncio.Event()
    refused = [http(b"{}", 401).but(when=gate)] * 20
    async with oauth_server([token("old"), token("new")], [OK, *refused, OK]) as server:
        session = at(session_at, server, limits=Limits(concurrency_start=32))
        await session.request("GET", "/path")
        calls = [asyncio.ensure_future(session.request("GET", "/path")) for _ in range(20)]
        await server.until(22)
        gate.set()
        assert await asyncio.gather(*calls) == [{"ok": 1}] * 20
        assert (posts(server), server.hits) == (2, 2 + 1 + 40)


# --- the token request that fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
async def test_a_bad_key_is_an_authentication_error(session_at: Make, status: int):
    """Code 320001 says so, whatever the status line says; one request, and none of the call's own."""
    bad = said({"data": None, "errors": [{"code": 320001, "message": "invalid client"}]}, status)
    async with oauth_server([bad], [OK]) as server:
        with pytest.raises(AuthenticationError, match="the OAuth key or secret is wrong") as caught:
            await at(session_at, server).request("GET", "/path")
        assert server.hits == 1
    assert (caught.value.code, caught.value.method, caught.value.path) == (320001, "POST", TOKEN_PATH)
    assert str(caught.value).startswith(f"POST {TOKEN_PATH}: ")


async def test_the_token_request_is_retried_by_the_same_rules(session_at: Make):
    async with oauth_server([http(b"", 503), Answer(b"", "close"), token()], [OK]) as server:
        session = at(session_at, server)
        assert await session.request("GET", "/path") == {"ok": 1}
        assert (posts(server), session.stats.retries) == (3, 2)


async def test_a_token_request_that_was_given_up_is_not_tried_again_by_the_call(session_at: Make):
    """Five POSTs are the whole story, not five times five; the error tells the POST's own story."""
    async with oauth_server([http(b"", 503)], [OK]) as server:
        with pytest.raises(ServerError) as caught:
            await at(session_at, server).request("GET", "/path")
        assert (posts(server), server.hits) == (5, 5)
    assert (caught.value.method, caught.value.attempts, len(caught.value.history)) == ("POST", 5, 5)
    assert str(caught.value).count("attempts in") == 1


NO_TOKENS = {
    "no data": said({"errors": None}),
    "data is null": said({"data": None}),
    "no token": said({"data": {"ttlSeconds": 300}}),
    "an empty token": token(""),
    "a token that no header can carry": token("a\r\nX-Evil: b"),
    "a token of other letters": token("tök"),
    "a life that is none": token("t", ["x"]),
    "a life that is a word": token("t", "long"),
    "a life beyond any float": token("t", 10**400),
    "an array": said([1]),
}


@pytest.mark.parametrize("name", NO_TOKENS)
async def test_an_answer_without_a_token_is_a_decode_error(session_at: Make, name: str):
    """Well-formed and of another shape: asked for once."""
    async with oauth_server([NO_TOKENS[name]], [OK]) as server:
        with pytest.raises(DecodeError, match="the answer holds no token") as caught:
            await at(session_at, server).request("GET", "/path")
        assert server.hits == 1
    assert (caught.value.method, caught.value.path, caught.value.paths) == ("POST", TOKEN_PATH, ("$.data",))


async def test_half_a_token_answer_shows_nothing_of_it(session_at: Make):
    """A torn answer may hold a token, so the error has no extract of it."""
    async with oauth_server([http(b'{"data": {"accessToken": "secret-token-1", "ttlSe')], [OK]) as server:
        with pytest.raises(DecodeError) as caught:
            await at(session_at, server, retry=RetryPolicy(attempts=1)).request("GET", "/path")
    assert (caught.value.body, caught.value.malformed) == ("", True)
    assert "secret-token" not in repr(vars(caught.value)) + str(caught.value)


async def test_each_caller_has_its_own_error(session_at: Make):
    """Pagers and fan-outs hang their position and key on what they get: one object for all would mix them up."""
    gate = asyncio.Event()
    async with oauth_server([http(b"{}", 403).but(when=gate)], [OK]) as server:
        session = at(session_at, server)
        calls = [asyncio.ensure_future(session.request("GET", "/path")) for _ in range(5)]
        await server.until(1)
        gate.set()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in errors] == [PermissionDeniedError] * 5
    assert len({id(one) for one in errors}) == 5
    assert len({str(one) for one in errors}) == 1


async def test_a_fault_that_is_not_ours_reaches_everyone_who_waits(session_at: Make):
    """E.g. the RuntimeError of a client that belongs elsewhere: an error, and no endless waiting."""
    async with oauth_server([token()], [OK]) as server:
        session = at(session_at, server)
        session._shared.pools._closed = True
        ended = await asyncio.gather(*(session.request("GET", "/path") for _ in range(3)), return_exceptions=True)
        session._shared.pools._closed = False
    assert [str(one) for one in ended] == ["the AsyncSession is closed: make a new one"] * 3


# --- cancellation, closing, threads -----------------------------------------------------------------------------------


async def test_a_cancelled_leader_does_not_fail_the_others(session_at: Make):
    """The call that started the fetch is cancelled; the fetch goes on for those who wait."""
    gate = asyncio.Event()
    async with oauth_server([token().but(when=gate)], [OK]) as server:
        session = at(session_at, server)
        calls = [asyncio.ensure_future(session.request("GET", "/path")) for _ in range(5)]
        await server.until(1)
        calls[0].cancel()
        calls[3].cancel()
        await asyncio.wait(calls[:1])
        gate.set()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert posts(server) == 1
    assert [isinstance(one, asyncio.CancelledError) for one in ended] == [True, False, False, True, False]


async def test_closing_stops_a_fetch_under_way():
    """Those who wait for it get an error at once."""
    async with oauth_server([Answer(b"", "stall")], [OK]) as server:
        session = AsyncSession(server.url, auth=OAuthClient(KEY, SECRET), retry=AT_ONCE)
        calls = [asyncio.ensure_future(session.request("GET", "/path")) for _ in range(3)]
        await server.until(1)
        await session.aclose()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        await session.aclose()
        assert server.hits == 1
    assert [type(one) for one in ended] == [RuntimeError] * 3
    assert all("closed" in str(one) for one in ended)


def test_two_threads_fetch_one_token():
    """Their loops wait for the same request."""
    with in_thread(token()) as server:
        session = AsyncSession(server.url, auth=OAuthClient(KEY, SECRET), retry=AT_ONCE)
        both = threading.Barrier(2)
        errors: list[BaseException] = []

        async def work() -> None:
            both.wait(5)
            try:
                await asyncio.gather(*(session.request("GET", "/path") for _ in range(10)))
            except CapillaryError as error:
                errors.append(error)

        threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not errors
        assert (posts(server), server.hits) == (1, 21)
        asyncio.run(session.aclose())


async def until(holds: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    while not holds():  # noqa: ASYNC110 - an event of that thread's loop cannot be awaited here
        await asyncio.sleep(0.001)


def test_a_fetch_that_ends_with_its_loop_is_begun_anew_in_another():
    """The loop that fetched is shut down; who waits in another loop fetches for itself."""
    with in_thread(Answer(b"", "stall"), token(), OK) as server:
        session = AsyncSession(server.url, auth=OAuthClient(KEY, SECRET), retry=AT_ONCE)
        step = session._shared.credentials
        assert isinstance(step, OAuthCredentials)
        fetching = threading.Event()

        async def first() -> None:
            call = asyncio.ensure_future(session.request("GET", "/path"))
            await until(lambda: server.hits)
            fetching.set()
            await until(lambda: len(step._waiters) == 2)
            assert not call.done()  # the loop ends here, and cancels it

        thread = threading.Thread(target=asyncio.run, args=(first(),))
        thread.start()
        fetching.wait(5)
        assert asyncio.run(session.request("GET", "/path")) == {"ok": 1}
        thread.join(5)
        assert [one.method for one in server.seen] == ["POST", "POST", "GET"]
        asyncio.run(session.aclose())


async def test_a_token_that_came_in_this_very_moment_is_not_fetched_again():
    """Another thread's fetch ended between the look and the wait."""
    tokens = Tokens(300)
    step = OAuthCredentials(OAuthClient(KEY, SECRET), tokens.retry)
    await sent(step)
    assert await step._renew(None, no_handler, None) is None
    assert len(tokens.asked) == 1


async def no_handler(_: Request) -> Response:
    raise NotImplementedError


def test_nobody_is_told_in_a_closed_loop():
    """Who waited there is gone."""
    loop = asyncio.new_event_loop()
    done = loop.create_future()
    loop.close()
    _report(loop, done, None)
    assert not done.done()


async def test_a_call_under_way_waits_for_a_token_no_longer_than_it_has_time(session_at: Make):
    """The refusal came within the call; a renewal that hangs ends with it, and the refusal is raised."""
    async with oauth_server([token(), Answer(b"", "stall")], [http(b"{}", 503), http(b"{}", 401)]) as server:
        session = at(session_at, server, timeouts=Timeouts(call=0.3))
        with pytest.raises(ServerError) as caught:
            await session.request("GET", "/path")
        assert posts(server) == 2
    assert [one.kind for one in caught.value.history] == ["status"]


# --- renewal in time, on a virtual clock ------------------------------------------------------------------------------


class Tokens:
    """A token endpoint in virtual time: gives tokens `1`, `2`, ... of given lives, or raises, and counts."""

    def __init__(self, *outcomes: float | Exception, takes: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.asked: list[float] = []

    async def retry(self, request: Request, handler: Any) -> Response:
        assert (request.method, request.path) == ("POST", TOKEN_PATH)
        self.asked.append(clock())
        await asyncio.sleep(self.takes)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return set_decoded(Response(200), {"data": {"accessToken": f"token-{len(self.asked)}", "ttlSeconds": outcome}})


async def sent(step: OAuthCredentials, call: CallState | None = None) -> str:
    """The token that a call is sent with."""
    used: list[str] = []

    async def handler(request: Request) -> Response:
        used.append(request.headers["X-CAP-API-OAUTH-TOKEN"])
        return Response(200)

    await step(part_of(GET, call) if call else GET, handler)
    return used[-1]


def step_for(tokens: Tokens) -> OAuthCredentials:
    return OAuthCredentials(OAuthClient(KEY, SECRET), tokens.retry, clock=clock)


@pytest.mark.parametrize(
    ("life", "early"), [(3600, 3240), (1200, 1080), (600, 540), (300, 240), (120, 60), (100, 50), (10, 5)]
)
def test_a_token_is_renewed_early(life: float, early: float):
    """At the larger of 60 s and a tenth of its life before its end; of short lives, at half."""
    tokens = Tokens(life)
    step = step_for(tokens)

    async def main() -> None:
        assert await sent(step) == "token-1"
        await asyncio.sleep(early - 0.5)
        assert await sent(step) == "token-1"
        await asyncio.sleep(1)
        assert await sent(step) == "token-2"

    run(main)


@pytest.mark.parametrize("life", [None, 0, -5, "inf", "nan"])
def test_a_life_that_says_nothing_is_300_seconds(life: Any):
    """As in the samples."""
    tokens = Tokens(life)
    step = step_for(tokens)

    async def main() -> None:
        await sent(step)
        await asyncio.sleep(239)
        assert await sent(step) == "token-1"
        await asyncio.sleep(2)
        assert await sent(step) == "token-2"

    run(main)


def test_a_failed_early_renewal_keeps_the_token_and_pauses():
    """The old one is valid: calls go on with it, and the next renewal is tried 10 s later, not at each call."""
    tokens = Tokens(300, ServerError(status=503), ServerError(status=503), 300)
    step = step_for(tokens)

    async def main() -> None:
        await sent(step)
        await asyncio.sleep(250)
        assert [await sent(step) for _ in range(5)] == ["token-1"] * 5
        await asyncio.sleep(9)
        assert (await sent(step), len(tokens.asked)) == ("token-1", 2)
        await asyncio.sleep(2)
        assert (await sent(step), len(tokens.asked)) == ("token-1", 3)
        await asyncio.sleep(11)
        assert (await sent(step), len(tokens.asked)) == ("token-4", 4)

    run(main)


def test_a_slow_early_renewal_delays_a_call_by_two_seconds_at_most():
    """The old token serves meanwhile, the new one when it is there."""
    tokens = Tokens(300)
    step = step_for(tokens)

    async def main() -> None:
        await sent(step)
        await asyncio.sleep(250)
        tokens.takes = 20
        began = clock()
        assert await sent(step) == "token-1"
        assert clock() - began == pytest.approx(2)
        await asyncio.sleep(20)
        assert (await sent(step), len(tokens.asked)) == ("token-2", 2)

    run(main)


def test_an_ended_token_is_never_sent():
    """Its end is counted from before its request, so that it never outlives the server's own."""
    tokens = Tokens(300, ServerError(status=503), takes=5)
    step = step_for(tokens)

    async def main() -> None:
        began = clock()
        await sent(step)
        await asyncio.sleep(294.9 - (clock() - began) + 5)
        assert await sent(step) == "token-1"  # the renewal takes longer than the call's patience, and fails
        await asyncio.sleep(20)
        with pytest.raises(ServerError):
            await sent(step)

    run(main)


def test_renewal_pause_and_end_begin_at_their_very_second():
    """A token is not sent at its end, which a clock of whole seconds may show."""
    tokens, now = Tokens(300, ServerError(status=503)), [0.0]
    step = OAuthCredentials(OAuthClient(KEY, SECRET), tokens.retry, clock=lambda: now[0])

    async def main() -> None:
        for now[0], asked in ((0, 1), (239, 1), (240, 2), (249, 2), (250, 3)):
            assert (await sent(step), len(tokens.asked)) == ("token-1", asked)
        now[0] = 300
        with pytest.raises(ServerError):
            await sent(step)

    run(main)


def test_a_life_shorter_than_its_way_here_is_used_and_not_fetched_for_ever():
    """Each call fetches once."""
    tokens = Tokens(0.5, takes=1)
    step = step_for(tokens)

    async def main() -> None:
        assert [await sent(step) for _ in range(3)] == ["token-1", "token-2", "token-3"]

    run(main)


def test_a_refused_token_whose_successor_has_ended_too_is_renewed():
    """A slow call comes back refused, when another call's new token has ended already."""
    tokens = Tokens(300, 20, 300)
    step = step_for(tokens)
    used: list[str] = []

    async def slow(request: Request) -> Response:
        used.append(request.headers["X-CAP-API-OAUTH-TOKEN"])
        if len(used) == 1:
            await asyncio.sleep(310 + 30)
            raise AuthenticationError(status=401)
        return Response(200)

    async def other() -> None:
        await asyncio.sleep(310)
        assert await sent(step) == "token-2"

    async def main() -> None:
        await asyncio.gather(step(GET, slow), other())

    run(main)
    assert used == ["token-1", "token-3"]


def test_waiting_for_a_token_ends_with_the_call_and_not_before_its_first_permit(monkeypatch: pytest.MonkeyPatch):
    """Of a call that has begun its time runs; the wait of one that has not is our own affair."""
    monkeypatch.setattr(message, "time", SimpleNamespace(monotonic=clock))
    tokens = Tokens(300, takes=50)
    step = step_for(tokens)

    async def main() -> None:
        begun, fresh = CallState(Timeouts(call=10)), CallState(Timeouts(call=10))
        begun.start()
        with pytest.raises(DeadlineExceededError, match="while waiting for a token") as caught:
            await step(part_of(GET, begun), lambda _: None)  # type: ignore[arg-type,return-value]
        assert caught.value.kind == "queue"
        assert await sent(step, fresh) == "token-1"

    run(main)


def test_closing_tells_those_who_wait_for_a_token():
    """The fetch is stopped, nobody begins another, and whoever comes later hears the same."""
    tokens = Tokens(300, takes=1000)
    step = step_for(tokens)

    async def main() -> list[Any]:
        calls = [asyncio.ensure_future(sent(step)) for _ in range(3)]
        await asyncio.sleep(1)
        await step.aclose()
        ended = await asyncio.gather(*calls, sent(step), return_exceptions=True)
        await step.aclose()
        assert clock() < 1010
        return ended

    assert [str(one) for one in run(main)] == ["the AsyncSession was closed while a request waited for a token"] * 4
    assert len(tokens.asked) == 1


def test_each_kind_of_credentials_has_its_step():
    assert isinstance(credentials_step(OAuthClient(KEY, SECRET), None), OAuthCredentials)  # type: ignore[arg-type]
