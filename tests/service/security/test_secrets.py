"""The hunt for secrets: in everything that an error, a log or a public object shows, after failing calls of every kind.

Hunted are the till password, its MD5 and the pair that goes over the wire, or the OAuth secret and the token; each
plain, in base64 and quoted for a URL. The servers here echo them all.
"""

import asyncio
import base64
import copy
import hashlib
import html
import inspect
import io
import json
import linecache
import logging
import pickle
import re
import reprlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, FunctionType, TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import attrs
import pytest
import rich.console
import rich.traceback
import trustme
import yarl
from multidict import CIMultiDict, CIMultiDictProxy
from support.paths import TESTS
from support.raw_server import Answer, RawServer, chunked, http, said, tls_server

from capillary_async import AsyncSession, BasicAuth, Limits, OAuthClient, RetryPolicy, Timeouts
from capillary_async._transport.redaction import Redactor
from capillary_async.errors import CapillaryError, DecodeError, InvalidRequestError, ServerError

PASSWORD = "hunted/p4ss+w<rd'"
SECRET = "hunted/s3cret+&'key"
TOKEN = "hunted-t0ken/+=abcdefgh"
USERNAME = "till.id"
DIGEST = hashlib.md5(PASSWORD.encode()).hexdigest()
PAIR = base64.b64encode(f"{USERNAME}:{DIGEST}".encode()).decode()
TOKEN_PATH = "v3/oauth/token/generate"
TESTS = str(TESTS)


def forms(secret: str) -> set[str]:
    """As it may be written somewhere."""
    coded = base64.b64encode(secret.encode()).decode()
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret), quote(coded, safe="")}
    return {secret, coded, *quoted, html.escape(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1], secret.upper()}


SECRETS = {"basic": (PASSWORD, DIGEST, PAIR), "oauth": (SECRET, TOKEN)}
# And the heart of each, which no way of quoting changes.
HUNTED = {"p4ss", "s3cret", "t0ken"}
HUNTED |= {form for secret in (PASSWORD, DIGEST, PAIR, SECRET, TOKEN) for form in forms(secret)}


# --- where to look ----------------------------------------------------------------------------------------------------


def chain(error: BaseException | None, known: set[int] | None = None) -> Iterator[BaseException]:
    """The error, its causes and contexts, and theirs."""
    known = set() if known is None else known
    if error is None or id(error) in known:
        return
    known.add(id(error))
    yield error
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from chain(other, known)


def frames(trace: TracebackType | None) -> Iterator[Any]:
    """The frames of a traceback that are not the tests' own: those hold what the user gave."""
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(TESTS):
            yield trace.tb_frame
        trace = trace.tb_next


def told_by(error: BaseException) -> Iterator[str]:
    """Every text that an error can be made to show."""
    for one in chain(error):
        yield from (repr(one), str(one), repr(one.args), repr(vars(one)), "".join(walked(vars(one))))
        for frame in frames(one.__traceback__):
            yield from (f"{name}={value!r}" for name, value in frame.f_locals.items())
        yield "".join(traceback.TracebackException.from_exception(one).format(chain=False))
        yield "".join(lines_with_locals(one))
        yield from values_on_the_lines(one)
        yield told_by_rich(one)
        yield from serialised(one)
        yield json.dumps(dumped(one), default=reprlib.repr)
        if isinstance(one, CapillaryError):
            yield pickle.dumps(one, 0).decode("latin-1") + repr(pickle.loads(pickle.dumps(one)))  # noqa: S301
            yield repr(vars(copy.copy(one)))


def lines_with_locals(error: BaseException) -> Iterator[str]:
    """The locals that a reporter of errors would send along."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in told.stack:
        if not frame.filename.startswith(TESTS):
            yield repr(frame.locals)


def values_on_the_lines(error: BaseException) -> Iterator[str]:
    """As cgitb shows a frame: every dotted name in the lines around the one that raised, with its value."""
    for frame, line in ((one.tb_frame, one.tb_lineno) for one in links(error.__traceback__)):
        if frame.f_code.co_filename.startswith(TESTS):
            continue
        around = "".join(linecache.getline(frame.f_code.co_filename, number) for number in range(line - 5, line + 6))
        for name in set(re.findall(r"[A-Za-z_][\w.]*[\w]", around)):
            yield f"{name}={named(frame, name)!r}"


def links(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def named(frame: FrameType, dotted: str) -> Any:
    """What a dotted name means in a frame, None where it means nothing."""
    first, *rest = dotted.split(".")
    value = frame.f_locals.get(first, frame.f_globals.get(first))
    for part in rest:
        value = getattr(value, part, None)
    return value


def told_by_rich(error: BaseException) -> str:
    """The traceback of rich with locals, where texts are cut; the tests' own frames hold what the user gave."""
    console = rich.console.Console(file=io.StringIO(), width=300, record=True)
    trace = rich.traceback.Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    for stack in trace.trace.stacks:
        stack.frames = [frame for frame in stack.frames if not frame.filename.startswith(TESTS)]
        for frame in stack.frames:
            # What rich made of each local, without the source lines around it.
            console.print(*(frame.locals or {}).values())
    return console.export_text()


def serialised(error: BaseException) -> Iterator[str]:
    """As reporters of errors send locals: containers opened, texts cut to their limit, all else by repr."""
    for frame in frames(error.__traceback__):
        yield from (leaf for value in list(frame.f_locals.values()) for leaf in leaves(value))


def plain_texts(error: BaseException) -> Iterator[str]:
    """As reporters that take every kind of text for a text: what a frame holds, without repr."""
    for frame in frames(error.__traceback__):
        for value in list(frame.f_locals.values()):
            yield from texts_in(value)


def texts_in(value: Any, depth: int = 5) -> Iterator[str]:
    """The texts in a container."""
    if isinstance(value, str | bytes):
        yield str.__str__(value) if isinstance(value, str) else bytes(value).decode("latin-1")
    elif depth and isinstance(value, Mapping):
        yield from (text for pair in list(value.items()) for part in pair for text in texts_in(part, depth - 1))
    elif depth and isinstance(value, list | tuple | set | frozenset):
        yield from (text for item in list(value) for text in texts_in(item, depth - 1))


def leaves(value: Any, depth: int = 5) -> Iterator[str]:
    """The ends of a container."""
    if depth and isinstance(value, Mapping):
        for name, item in list(value.items()):
            yield from (repr(name), *leaves(item, depth - 1))
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in list(value):
            yield from leaves(item, depth - 1)
    else:
        yield from (repr(value), reprlib.repr(value))
        if isinstance(value, str | bytes):
            yield from (repr(value[:80]), repr(value[-80:]), repr(value[2:40]), repr(value[:1]))


def dumped(one: Any) -> Any:
    """As instrumentation takes attributes: `vars`, `attrs.asdict`, `inspect.getmembers`, and JSON of them."""
    members = {name: value for name, value in inspect.getmembers(one) if not callable(value)}
    members.pop("__traceback__", None)
    members.pop("__context__", None)
    members.pop("__cause__", None)
    members.pop("__doc__", None)
    told: dict[str, Any] = {"vars": getattr(one, "__dict__", {}), "members": members}
    if attrs.has(type(one)):
        told["asdict"] = attrs.asdict(one)
    return json.loads(json.dumps(told, default=repr, skipkeys=True))


def walked(value: Any, known: set[int] | None = None) -> Iterator[str]:
    """The repr of everything that is reachable by attributes and items."""
    known = set() if known is None else known
    if id(value) in known or isinstance(value, type | FunctionType | asyncio.AbstractEventLoop):
        return
    known.add(id(value))
    yield repr(value)
    if isinstance(value, dict):
        for name, item in list(value.items()):
            yield from walked(name, known)
            yield from walked(item, known)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in list(value):
            yield from walked(item, known)
    elif not isinstance(value, str | bytes | int | float):
        yield from walked(getattr(value, "__dict__", None), known)
        names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in names:
            yield from walked(getattr(value, name, None), known)


def assert_clean(texts: Iterator[str]) -> None:
    for text in texts:
        assert not [form for form in HUNTED if form in text], text[:2000]


@contextmanager
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Every logger at DEBUG, whatever it was set to, asyncio's own notes of slow steps included."""
    loop = asyncio.get_running_loop()
    listed = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(one, one.level, one.propagate, one.disabled) for one in listed]
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    try:
        for one in listed:
            one.setLevel(logging.DEBUG)
            one.propagate, one.disabled = True, False
        with caplog.at_level(logging.DEBUG):
            yield
    finally:
        loop.set_debug(False)
        for one, level, propagate, disabled in before:
            one.setLevel(level)
            one.propagate, one.disabled = propagate, disabled


# --- failing calls ----------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"


def answers(*secrets: str) -> dict[str, Answer]:
    """Failures of every kind, by servers that echo what they know in every form."""
    secret, echo = secrets[0], " ".join(sorted(form for one in secrets for form in forms(one)))
    entry = {"status": False, "code": 1, "message": f"bad {echo}"}
    return {
        "an error message": said({"errors": [entry]}, 400),
        "an error message under 200": said({"errors": [entry, echo]}),
        "Neo's object": said({"code": 500, "message": echo, "err": echo}),
        "the v1.1 envelope": said({"response": {"status": {"success": "false", "code": "498", "message": echo}}}),
        "a bad key": said({"data": None, "errors": [{"code": 320001, "message": echo}]}),
        "401": http(echo, 401),
        "HTML under 500": http(f"<html>{echo}</html>", 500),
        "HTML under 200": http(f"<html>{echo}</html>"),
        "text under 200": http(echo),
        "half a JSON": http(json.dumps([echo])[:-1]),
        "another shape": said([{"id": echo, "points": echo}]),
        "an object where an array is due": said({"id": echo, "values": [echo]}),
        "the request id": http("{}", 500, {"X-CAP-REQUEST-ID": f"id-{secret}-{secrets[-1]}"}),
        "the place of a redirect": http("", 302, {"Location": f"/x?{quote(secret)}"}),
        "a bad status line": Answer(f"HTTP/1.1 {secret} {secrets[-1]}\r\n\r\n".encode(), "close"),
        "a bad header": Answer(f"HTTP/1.1 200 OK\r\n{secret} {secrets[-1]}\r\n\r\n".encode(), "close"),
        "a bad chunk size": chunked(b"[1", end=f"{secrets[-1]}\r\n{secret}\r\n".encode(), then="close"),
        "a cut body": Answer(HEAD + echo.encode(), "close"),
        "a reset": Answer(HEAD + echo.encode(), "reset"),
        "no answer": Answer(b"", "close"),
        "silence": Answer(b"", "stall"),
        "an unknown encoding": http(echo, headers={"Content-Encoding": quote(secret, safe="")}),
        "a body that says gzip": http(echo, headers={"Content-Encoding": "gzip"}),
        "a long wait": http(echo, 429, {"Retry-After": "9999"}),
    }


GOOD_TOKEN = said({"data": {"accessToken": TOKEN, "ttlSeconds": 3000}, "errors": None})
KINDS = {"basic": BasicAuth(USERNAME, password=PASSWORD), "oauth": OAuthClient("client-key", SECRET)}
HASTE: dict[str, Any] = {
    "timeouts": Timeouts(read=0.1, call=5),
    "retry": RetryPolicy(attempts=2, backoff=0, throttle_backoff=0),
}
Make = Callable[..., AsyncSession]


async def rows_of(session: AsyncSession) -> Any:
    return await session.points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1).collect()


async def fails(session: AsyncSession) -> CapillaryError:
    with pytest.raises(CapillaryError) as caught:
        await rows_of(session)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", answers("secret"))
async def test_no_failing_call_shows_a_secret(session_at: Make, caplog: pytest.LogCaptureFixture, name: str, kind: str):
    """Whatever the server sends back, and wherever."""
    async with RawServer(answers(*SECRETS[kind])[name], **{TOKEN_PATH: [GOOD_TOKEN]}) as server:
        with caplog.at_level(logging.DEBUG):
            session = session_at(server.url, auth=KINDS[kind], **HASTE)
            error = await fails(session)
    assert_clean(told_by(error))
    assert_clean(repr(vars(record)) + record.getMessage() for record in caplog.records)
    assert_clean(walked(session))


@pytest.mark.parametrize("name", [*answers("secret"), "half a token"])
async def test_no_failing_token_request_shows_a_secret(session_at: Make, caplog: pytest.LogCaptureFixture, name: str):
    """Its body holds key and secret, and its answer a token."""
    half = http(json.dumps({"data": {"accessToken": TOKEN, "ttl": [SECRET]}})[:-5])
    async with RawServer(http("[]"), **{TOKEN_PATH: [answers(SECRET).get(name, half)]}) as server:
        with caplog.at_level(logging.DEBUG):
            session = session_at(server.url, auth=KINDS["oauth"], **HASTE)
            error = await fails(session)
        assert all(one.method == "POST" for one in server.seen)
    assert error.path == "/" + TOKEN_PATH
    assert_clean(told_by(error))
    assert_clean(repr(vars(record)) + record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_failing_connection_shows_a_secret(session_at: Make, kind: str):
    """Refused, and refused by TLS."""
    context, authority = tls_server("127.0.0.1")
    async with RawServer(http("[]"), tls=context) as server:
        assert_clean(told_by(await fails(session_at(server.url, auth=KINDS[kind], **HASTE))))
    assert_clean(told_by(await fails(session_at("http://127.0.0.1:9", auth=KINDS[kind], **HASTE))))
    assert isinstance(authority, trustme.CA)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["headers", "body", "token"])
async def test_no_cancelled_call_shows_a_secret(session_at: Make, kind: str, where: str):
    """A timeout of the user's own leaves frames of aiohttp in the chain, whose locals hold headers and body."""
    stalled = Answer(HEAD if where == "body" else b"", "stall")
    token = stalled if where == "token" else GOOD_TOKEN
    async with RawServer(stalled, **{TOKEN_PATH: [token]}) as server:
        session = session_at(server.url, auth=KINDS[kind])
        call = asyncio.ensure_future(rows_of(session))
        await server.until(1 if kind == "basic" or where == "token" else 2)
        await asyncio.wait([call], timeout=0.05)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0):
                await call
    assert any(isinstance(one, asyncio.CancelledError) for one in chain(caught.value))
    assert_clean(told_by(caught.value))
    assert_clean(text for one in chain(caught.value) for text in plain_texts(one))


@pytest.mark.parametrize("kind", KINDS)
async def test_no_bug_beneath_shows_a_secret(session_at: Make, monkeypatch: pytest.MonkeyPatch, kind: str):
    """What is not ours passes as it is, with frames of aiohttp whose locals hold headers and the token's request."""

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        await rows_of(session_at("http://127.0.0.1:1", auth=KINDS[kind]))
    assert any("aiohttp" in frame.f_code.co_filename for frame in frames(caught.value.__traceback__))
    assert_clean(told_by(caught.value))


async def test_no_call_of_a_closed_session_shows_a_secret():
    """A RuntimeError is no error of ours, and as quiet."""
    async with RawServer(Answer(b"", "stall")) as server:
        session = AsyncSession(server.url, auth=KINDS["basic"])
        call = asyncio.ensure_future(rows_of(session))
        await server.until(1)
        await session.aclose()
        with pytest.raises(RuntimeError) as caught:
            await call
        assert_clean(told_by(caught.value))
        with pytest.raises(RuntimeError) as caught:
            await rows_of(session)
        assert_clean(told_by(caught.value))


@pytest.mark.parametrize("before", range(0, 520, 13))
async def test_no_cut_text_shows_the_half_of_a_secret(session_at: Make, before: int):
    """Messages and extracts are cut somewhere, perhaps within a secret."""
    filler = "x" * before
    page, message = (
        http(f"<p>{filler}{PAIR}"),
        said({"errors": [{"code": 1, "message": f"{filler}{PAIR}{filler}"}]}, 400),
    )
    for answer in (page, message, said([{"id": f"{filler}{PAIR}"}]), http(f'[{{"a": "{filler}{PAIR}')):
        async with RawServer(answer) as server:
            error = await fails(session_at(server.url, auth=KINDS["basic"], **HASTE))
        assert all(PAIR[:7] not in text for text in told_by(error))


MOBILE = "919812345678"
QUERIED: dict[str, Answer] = {
    name: answer for name, answer in answers(PASSWORD).items() if answer.then in ("close", "reset", "stall")
}


@pytest.mark.parametrize("name", [*QUERIED, "nobody there", "no TLS"])
async def test_no_failing_call_shows_its_query(session_at: Make, name: str):
    """Which holds a customer's mobile number or e-mail; URLs are in the texts of many of aiohttp's errors."""
    context, _ = tls_server("127.0.0.1") if name == "no TLS" else (None, None)
    async with RawServer(QUERIED.get(name, http("[]")), tls=context) as server:
        session = session_at("http://127.0.0.1:9" if name == "nobody there" else server.url, **HASTE)
        with pytest.raises(CapillaryError) as caught:
            await session.request("GET", "/path", params={"mobile": MOBILE, "email": "jo@example.com"})
    assert_no_query(caught.value)


def assert_no_query(error: BaseException) -> None:
    for one in chain(error):
        for text in (str(one), repr(one), repr(one.args), repr(vars(one)), "".join(walked(vars(one)))):
            assert MOBILE not in text
            assert "jo" not in text.split("example")[0][-3:]


URL = yarl.URL(f"https://eu.api.capillarytech.com/path?mobile={MOBILE}&email=jo%40example.com")
INFO = aiohttp.RequestInfo(URL, "GET", CIMultiDictProxy(CIMultiDict()), URL)


@pytest.mark.parametrize(
    "theirs",
    [
        aiohttp.ClientResponseError(INFO, (), status=400, message="Expected HTTP/"),
        aiohttp.ClientResponseError(INFO, (), status=400),
        aiohttp.ClientResponseError(INFO, (), status=400, message=f"bad line: GET {URL}"),
        aiohttp.ClientHttpProxyError(INFO, (), status=502, message="Bad Gateway"),
        aiohttp.InvalidURL(URL, "odd"),
        aiohttp.NonHttpUrlClientError(URL),
        aiohttp.ClientOSError(32, f"Can not write request body for {URL}"),
        aiohttp.ServerDisconnectedError(f"gone: {URL}"),
        aiohttp.ClientPayloadError(f"cut: {URL!r}"),
        aiohttp.ClientConnectionError(f"lost '{URL}'"),
        aiohttp.ConnectionTimeoutError(f"Connection timeout to host {URL}"),
        aiohttp.SocketTimeoutError(f"Timeout on reading data from {URL}"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_error_of_aiohttp_shows_the_query(
    session_at: Make, monkeypatch: pytest.MonkeyPatch, theirs: Exception
):
    """Those too that a server is hardly made to cause."""

    async def broken(*_: object, **__: object) -> None:
        raise theirs

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", broken)
    with pytest.raises(CapillaryError) as caught:
        await session_at("http://127.0.0.1:1", **HASTE).request("GET", "/path", params={"mobile": MOBILE})
    assert_no_query(caught.value)


# --- refused arguments ------------------------------------------------------------------------------------------------

HTTPS = "https://eu.api.capillarytech.com"
HIDDEN_HEADERS = {"Authorization": f"Bearer {TOKEN}"}
REFUSED: dict[str, dict[str, Any]] = {
    "userinfo": {"base_url": f"https://till:{quote(PASSWORD, safe='')}@eu.api.capillarytech.com"},
    "a key in the URL": {"base_url": f"{HTTPS}?key={SECRET}"},
    "a pair": {"auth": (USERNAME, PASSWORD)},
    "a text": {"auth": PASSWORD},
    "Authorization": {"headers": HIDDEN_HEADERS},
    "a header with a line end": {"headers": {"X-Key": f"{SECRET}\n"}},
    "headers in a list": {"headers": [("X-Key", SECRET)]},
    "another argument": {"headers": {"X-Key": SECRET}, "limits": 30},
    "a scope": {"headers": {"X-Key": SECRET}, "dag_scope": 5},
    "a zone": {"headers": {"X-Key": SECRET}, "server_timezone": "Nowhere/At_All"},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("how", ["made", "from the environment"])
def test_no_refused_argument_is_shown(name: str, how: str):
    """By the locals of a traceback either, and a half-made session has a repr for them."""
    given = {"base_url": HTTPS, "auth": KINDS["basic"], **REFUSED[name]}
    with pytest.raises(InvalidRequestError) as caught:
        AsyncSession(**given) if how == "made" else AsyncSession.from_env(**given)
    assert_clean(told_by(caught.value))


def test_no_refused_variable_is_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAPILLARY_BASE_URL", f"https://till:{quote(PASSWORD, safe='')}@eu.api.capillarytech.com")
    with pytest.raises(InvalidRequestError, match="give them as auth=") as caught:
        AsyncSession.from_env(auth=KINDS["basic"])
    assert_clean(told_by(caught.value))


@pytest.mark.parametrize("options", [{"headers": HIDDEN_HEADERS}, {"headers": {"X-Key": SECRET}, "retry": 5}])
def test_no_refused_option_of_a_view_is_shown(options: dict[str, Any]):
    session = AsyncSession(HTTPS, auth=KINDS["basic"], headers={"X-Old": SECRET})
    with pytest.raises(InvalidRequestError) as caught:
        session.with_options(**options)
    assert_clean(told_by(caught.value))


# --- public objects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_no_public_object_shows_a_secret(session_at: Make, kind: str):
    """By repr, by attributes however deep, by copy; also when a token is held and requests are under way."""
    async with RawServer(http("[]"), **{TOKEN_PATH: [GOOD_TOKEN]}) as server:
        session = session_at(server.url, auth=KINDS[kind], limits=Limits(concurrency=1))
        await rows_of(session)
        view = session.with_options(headers={"X-A": "b"})
        pager = session.loyalty_events.list(7)
        fan = session.loyalty_events.list_many([1, 2])
        for one in (session, view, pager, fan, pager.pages(), session.points_ledger, session.stats, KINDS[kind]):
            assert_clean(walked(one))
            assert_clean(iter([repr(one), str(one), f"{one}"]))
        await session.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_that_holds_credentials_is_pickled_or_dumped(session_at: Make, kind: str):
    """Not through a pager or a fan-out either."""
    session = session_at("http://127.0.0.1:1", auth=KINDS[kind])
    pager, fan = session.loyalty_events.list(7), session.loyalty_events.list_many([1])
    for one in (KINDS[kind], session, session.with_options(), pager, fan):
        with pytest.raises(Exception, match=r"pickle") as caught:
            pickle.dumps(one)
        assert_clean(told_by(caught.value))
    for one in (KINDS[kind], session):
        with pytest.raises(attrs.exceptions.NotAnAttrsClassError):
            attrs.asdict(one)
    assert copy.copy(KINDS[kind]) is copy.deepcopy(KINDS[kind]) is KINDS[kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_no_dump_of_attributes_shows_a_secret(session_at: Make, kind: str):
    """As tracing and debugging tools take them: of sessions, calls, requests, responses, pages and errors."""
    seen: list[Any] = []

    async def watch(request: Any, handler: Any) -> Any:
        seen.append(request)
        response = await handler(request)
        seen.append(response)
        return response

    async with RawServer(http("[]"), **{TOKEN_PATH: [GOOD_TOKEN]}) as server:
        session = session_at(server.url, auth=KINDS[kind], middlewares=[watch])
        pager = session.points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
        seen += [await pager.page(1), pager, session, session.with_options(), session.stats, KINDS[kind]]
        error = await fails(session_at("http://127.0.0.1:9", auth=KINDS[kind], **HASTE))
    assert {"Request", "Response", "Page"} <= {type(one).__name__ for one in seen}
    for one in (*seen, error, session.points_awarded, session.limits, session.retry):
        assert_clean(iter([json.dumps(dumped(one)), *leaves(dumped(one)), reprlib.repr(one)]))


@pytest.mark.parametrize("kind", KINDS)
async def test_no_logger_at_debug_shows_a_secret(session_at: Make, caplog: pytest.LogCaptureFixture, kind: str):
    """Neither ours nor those beneath: aiohttp's, asyncio's notes of slow steps with their arguments, all of them."""
    async with RawServer(http("[]"), http("", 500), **{TOKEN_PATH: [GOOD_TOKEN]}) as server:
        with everything_logged(caplog):
            session = session_at(server.url, auth=KINDS[kind], **HASTE)
            await rows_of(session)
            await fails(session)
    assert {"asyncio", "capillary_async"} <= {record.name.split(".")[0] for record in caplog.records}
    assert_clean(repr(vars(record)) + record.getMessage() + repr(record.args) for record in caplog.records)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_cut_of_a_credential_on_its_way_shows_a_part_of_it(
    session_at: Make, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """Tools cut long texts before they take their repr: what is hidden whole is hidden in parts."""
    sent: list[Any] = []
    real = aiohttp.ClientSession._request

    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append(kwargs)
        return await real(self, *args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", watched)
    async with RawServer(http("[]"), **{TOKEN_PATH: [GOOD_TOKEN]}) as server:
        await rows_of(session_at(server.url, auth=KINDS[kind]))
    told = [leaf for one in sent for leaf in leaves(one)]
    assert any("***" in leaf for leaf in told)
    assert_clean(iter(told))
    assert not [leaf for leaf in told if any(form[:9] in leaf for form in (PAIR, DIGEST, TOKEN, SECRET))]


# --- the scrubber -----------------------------------------------------------------------------------------------------


def test_the_scrubber_cleans_every_text_of_an_error():
    error = DecodeError(f"m {PASSWORD}", faults=(f"f {PASSWORD}",), paths=(PASSWORD,), body=f"b {PASSWORD}")
    error.request_id = PASSWORD
    error.__cause__ = ValueError(f"c {PASSWORD}", 7)
    assert Redactor(PASSWORD)(error) is error
    assert (error.args, error.faults, error.paths, error.body) == (("m ***",), ("f ***",), ("***",), "b ***")
    assert (error.request_id, error.__cause__.args) == ("***", ("c ***", 7))


def test_the_scrubber_leaves_short_texts_and_ordinary_words():
    """A secret of five letters would garble every message."""
    error = ServerError("the server refused with the code", status=500)
    assert str(Redactor("the", "serve")(error)) == "the server refused with the code"
    assert str(Redactor("server refused")(ServerError("the server refused..."))) == "the ***..."
    assert str(Redactor("server refused!")(ServerError("the server refused... so"))) == "the ***... so"


def test_the_scrubber_shows_nothing_itself():
    assert_clean(walked(Redactor(PASSWORD, SECRET, TOKEN, DIGEST, PAIR)))
