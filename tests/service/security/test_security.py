"""What a hostile value, environment or server cannot do, threat by threat: `docs/explanation/security.md`.

Secrets in errors, logs and objects are hunted in `test_secrets.py`; here it is what goes over the wire, and whereto.
"""

import asyncio
import importlib.machinery
import importlib.util
import inspect
import json
import re
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, unquote

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT
from support.raw_server import RawServer, http, said, tls_server

from capillary_async import (
    APIError,
    AsyncSession,
    BasicAuth,
    DecodeError,
    Identifier,
    InvalidRequestError,
    OAuthClient,
    RetryPolicy,
    TLSError,
)

AUTH = BasicAuth("till.id", password="p4ss-w/rd+till")
ONCE = RetryPolicy(attempts=1)
TOKEN_PATH = "v3/oauth/token/generate"
TOKEN = said({"data": {"accessToken": "a-token-of-length", "ttlSeconds": 300}, "errors": None})
EMPTY: dict[str, Any] = {"data": [], "events": [], "warnings": [], "errors": []}
Make = Callable[..., AsyncSession]


# --- a value stays one value ------------------------------------------------------------------------------------------

HOSTILE = [
    *("../x", "..", ".", "a/b", "/", "//evil.example", "\\", "a\\b", "..\\x"),
    *("a?x", "a#x", "a&entity_id=2&page=9", "a;b", "a=b", "a+b", "a,b"),
    *("%2e%2e", "%2F", "%2e%2e%2fx", "%252e%252e", "%00", "%0d%0aX-Evil: 1", "%"),
    *("a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\r\n\r\nGET /evil HTTP/1.1\r\n\r\n", "\r", "a\0b", "\x1f", "\x7f"),
    *("", " ", "\t", " 5", "5 ", "5\n"),
    # look-alikes of dots, slashes, question marks and digits, an override of direction, half a character
    *("\u2024\u2024", "\uff0e\uff0e", "\u2025", "\uff0f", "\u2215", "\u29f8", "\uff1f", "\uff03", "\uff05\uff12e"),
    *("\uff11\uff12", "\u0663", "\u202e5", "\u200b5", "\ufeff5", "\ud800", "\udcff"),
]  # fmt: skip
EVENT: dict[str, Any] = {"entity_id": "a", "customer_id": 1, "event_type_id": 1}
AWARDED: dict[str, Any] = {"program_id": 1, "point_category_id": 2, "status": "AVAILABLE"}
AWARDED |= {"start_expiry_date": "2025-01-01", "end_expiry_date": "2025-01-02"}
EXPIRY: dict[str, Any] = {"entity_id": 1, "program_id": 1, "point_category_id": 2}
EXPIRY |= {"expiry_date_start": "2025-01-01", "expiry_date_end": "2025-01-02"}
NEO, V2 = "/x/neo/", "/v2/"


def by_event(**changed: Any) -> Callable[[AsyncSession], Awaitable[Any]]:
    return lambda session: session.points_allocation.by_event(**{**EVENT, **changed}).collect()


def explode(session: AsyncSession, **changed: Any) -> Awaitable[Any]:
    options = {"identifier": Identifier.mobile("9"), "source": "ALL", "event_ids": [1], **changed}
    return session.points_ledger.explode(**options).collect()


async def awarded(session: AsyncSession, ids: Any = (1,), **changed: Any) -> Any:
    fan = session.points_awarded.ids(ids, **{**AWARDED, **changed})
    return [outcome.unwrap() for outcome in (await fan.collect()).values()]


# Every argument of the public face that may be a text: the call, the path it must stay on, its name on the wire.
PLACES: dict[str, tuple[Callable[[AsyncSession, Any], Awaitable[Any]], str, str]] = {
    "ids": (lambda s, v: awarded(s, [v]), "/x/neo/pointsAwarded/paIds", "entity_id"),
    "ids: program": (lambda s, v: awarded(s, program_id=v), "/x/neo/pointsAwarded/paIds", "program_id"),
    "ids: status": (lambda s, v: awarded(s, status=v), "/x/neo/pointsAwarded/paIds", "status"),
    "ids: organisation": (lambda s, v: awarded(s, org_id=v), "/x/neo/pointsAwarded/paIds", "org_id"),
    "ids: day": (
        lambda s, v: awarded(s, start_expiry_date=v), "/x/neo/pointsAwarded/paIds", "start_expiry_date",
    ),
    "by_event": (lambda s, v: by_event(entity_id=v)(s), "/x/neo/pointsAllocation/event", "entity_id"),
    "by_event: customer": (lambda s, v: by_event(customer_id=v)(s), "/x/neo/pointsAllocation/event", "customer_id"),
    "by_event: type": (lambda s, v: by_event(event_type_id=v)(s), "/x/neo/pointsAllocation/event", "event_type_id"),
    "by_expiry": (
        lambda s, v: s.points_allocation.by_expiry(**{**EXPIRY, "entity_id": v}).collect(),
        "/x/neo/pointsAllocation/dateRange", "entity_id",
    ),
    "events: type": (
        lambda s, v: s.loyalty_events.list(5, event_type=v).collect(), "/v2/customers/5/loyaltyEvents", "eventType",
    ),
    "events: day": (
        lambda s, v: s.loyalty_events.list(5, from_date=v).collect(), "/v2/customers/5/loyaltyEvents", "fromDate",
    ),
    **{
        f"identifier: {kind}": (
            lambda s, v, kind=kind: explode(s, identifier=getattr(Identifier, kind)(v)),
            "/v2/pointsLedger/getLedgerExplodeInfo", "identifierValue",
        )
        for kind in ("mobile", "email", "external_id", "customer_id", "id", "primary_user_id")
    },
    **{
        f"ledger: {name}": (
            lambda s, v, name=name, listed=listed: explode(s, **{name: [v] if listed else v}),
            "/v2/pointsLedger/getLedgerExplodeInfo", wire,
        )
        for name, wire, listed in (
            ("source", "source", False), ("account_id", "accountId", False), ("event_ids", "eventIds", True),
            ("alternate_currency_names", "alternateCurrencyNames", True), ("type", "type", False),
        )
    },
    "ledger: event name": (
        lambda s, v: explode(s, event_ids=None, event_name=v, event_reference_ids=["r"]),
        "/v2/pointsLedger/getLedgerExplodeInfo", "eventName",
    ),
    "ledger: reference": (
        lambda s, v: explode(s, event_ids=None, event_name="NewBill", event_reference_ids=[v]),
        "/v2/pointsLedger/getLedgerExplodeInfo", "eventReferenceIds",
    ),
    "request: parameter": (lambda s, v: s.request("GET", "/v2/x", params={"q": v}), "/v2/x", "q"),
    "request: parameters": (lambda s, v: s.request("GET", "/v2/x", params={"q": [v]}), "/v2/x", "q"),
}  # fmt: skip


@pytest.fixture
async def seen() -> AsyncIterator[RawServer]:
    """Answers every call with no rows."""
    paths = ("v2/customers/5/loyaltyEvents", "v2/pointsLedger/getLedgerExplodeInfo")
    async with RawServer(said([]), **{path: [said(EMPTY)] for path in paths}) as server:
        yield server


@pytest.mark.parametrize("place", PLACES)
async def test_a_hostile_value_stays_one_value_or_is_refused(session_at: Make, seen: RawServer, place: str) -> None:
    """Every argument: the path is the endpoint's own, the parameter holds exactly what was given, nothing is added."""
    ask, path, name = PLACES[place]
    session = session_at(seen.url)
    kinds_of_headers: set[frozenset[str]] = set()
    refused = 0
    for value in HOSTILE:
        before = seen.hits
        try:
            await ask(session, value)
        except InvalidRequestError:
            refused += 1
            assert seen.hits == before, value
            continue
        assert seen.hits == before + 1, value
        target, headers = seen.seen[-1].target, seen.seen[-1].headers
        sent_path, _, query = target.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
        assert sent_path == path, value
        assert [text for key, text in pairs if key == name] == [value], target
        assert len({key for key, _ in pairs}) == len(pairs), target
        assert re.fullmatch(r"[!-~]+", target), value
        assert "x-evil" not in headers
        kinds_of_headers.add(frozenset(headers))
    assert len(kinds_of_headers) <= 1
    assert refused >= 2  # half a character, whatever the place


@pytest.mark.parametrize("ask", ["list", "list_many"])
@pytest.mark.parametrize("value", HOSTILE, ids=repr)
async def test_a_customer_id_is_one_path_segment_or_is_refused(
    session_at: Make, seen: RawServer, ask: str, value: str
) -> None:
    """The one id that stands in a path is a positive number, and nothing else passes."""
    events = session_at(seen.url).loyalty_events
    if ask == "list":
        with pytest.raises(InvalidRequestError, match="customer_id"):
            events.list(value)
    else:
        outcomes = [outcome async for outcome in events.list_many(one for one in [value])]
        assert [type(outcome.error) for outcome in outcomes] == [InvalidRequestError]
    assert seen.hits == 0


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
async def test_a_path_of_request_never_climbs_nor_grows_a_query(session_at: Make, seen: RawServer, value: str) -> None:
    """A path is the caller's own, but no piece of it can leave the host, the prefix, or become a query."""
    session = session_at(f"{seen.url}/prefix")
    for path in (f"/v2/customers/{value}", f"/v2/{value}/x", value):
        before = seen.hits
        try:
            await session.request("GET", path)
        except InvalidRequestError:
            assert seen.hits == before
            continue
        target = seen.seen[-1].target
        assert target.startswith("/prefix/")
        assert "?" not in target
        assert "#" not in target
        assert unquote(target) == f"/prefix{path}" or unquote(target) == unquote(f"/prefix{path}")
        assert not {".", ".."} & set(unquote(target).split("/"))
        assert not re.search(r"[\x00-\x1f\x7f\\]", unquote(target))


@given(st.text(max_size=12))
def test_any_text_as_a_parameter_is_one_parameter(value: str) -> None:
    """The same, of all texts."""
    from capillary_async._validation import query

    try:
        sent = query({"q": value, "r": "1"})
    except InvalidRequestError:
        assert any("\ud800" <= character <= "\udfff" for character in value)
        return
    assert parse_qsl(sent, keep_blank_values=True, strict_parsing=True) == [("q", value), ("r", "1")]
    assert re.fullmatch(r"[!-~]+", sent)


BREAKING = ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "\x1f", "\x7f", "\n", "ü", "\u2028", "\ud800"]


@pytest.mark.parametrize("value", BREAKING, ids=repr)
def test_a_header_that_would_break_the_request_is_refused(value: str) -> None:
    """As a value, as a name, as the scope; at once, not when it is sent."""
    session = AsyncSession("https://eu.api.capillarytech.com", auth=AUTH)
    for headers in ({"X-Note": value}, {value: "x"}, {f"X-{value}": "x"}):
        with pytest.raises(InvalidRequestError, match="headers"):
            AsyncSession("https://eu.api.capillarytech.com", auth=AUTH, headers=headers)
        with pytest.raises(InvalidRequestError, match="headers"):
            session.with_options(headers=headers)
    with pytest.raises(InvalidRequestError, match="dag_scope"):
        AsyncSession("https://eu.api.capillarytech.com", auth=AUTH, dag_scope=value)


@pytest.mark.parametrize("value", BREAKING[:4], ids=repr)
async def test_a_header_of_a_middleware_cannot_break_the_request(session_at: Make, value: str) -> None:
    """Nothing is sent."""

    async def careless(request: Any, handler: Any) -> Any:
        return await handler(request.with_header("X-Note", value))

    async with RawServer(said([])) as server:
        with pytest.raises(ValueError, match="header"):
            await session_at(server.url, middlewares=[careless]).request("GET", "/x")
        assert server.hits == 0


@pytest.mark.parametrize("token", ["abc\r\nX-Evil: 1", "a\nb", "a\0b", "tok\u00e9n", "", "\u2028"], ids=repr)
async def test_a_token_that_would_break_the_request_is_refused(session_at: Make, token: str) -> None:
    """Though it comes from the server, which may not be the one it seems."""
    answer = said({"data": {"accessToken": token, "ttlSeconds": 300}, "errors": None})
    async with RawServer(said([]), **{TOKEN_PATH: [answer]}) as server:
        with pytest.raises(DecodeError, match="holds no token"):
            await session_at(server.url, auth=OAuthClient("key", "s3cret-s3cret"), retry=ONCE).request("GET", "/x")
        assert [one.method for one in server.seen] == ["POST"]


# --- the environment --------------------------------------------------------------------------------------------------

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "WS_PROXY", "ws_proxy")


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that writes down what reaches it."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of somebody else for every host of these tests."""
    for name in (".netrc", "_netrc"):
        file = tmp_path / name
        file.write_text("machine 127.0.0.1 login other password other\nmachine localhost login other password other\n")
        file.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_proxies_of_the_environment_see_nothing(
    session_at: Make, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Neither a request nor a CONNECT, whichever variable names the proxy."""
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    context = tls_server("127.0.0.1")[0] if scheme == "https" else None
    async with listening() as (proxy, heard), RawServer(said([]), tls=context) as server:
        for name in PROXIES:
            monkeypatch.setenv(name, proxy)
        session = session_at(server.url, retry=ONCE)
        if scheme == "http":
            assert await session.request("GET", "/x") == []
            assert server.hits == 1
        else:
            with pytest.raises(TLSError):  # nobody vouches for it, but it was reached
                await session.request("GET", "/x")
        assert heard == []


@pytest.mark.parametrize("auth", [AUTH, OAuthClient("key", "s3cret-s3cret")], ids=["basic", "oauth"])
@pytest.mark.usefixtures("netrc")
async def test_credentials_of_netrc_are_never_sent(session_at: Make, auth: Any) -> None:
    """An OAuth request has no Authorization at all, and gets none."""
    async with RawServer(said([]), **{TOKEN_PATH: [TOKEN]}) as server:
        await session_at(server.url, auth=auth).request("GET", "/x")
        sent = [one.headers.get("authorization") for one in server.seen]
    if isinstance(auth, OAuthClient):
        assert sent == [None, None]
    else:
        assert len(sent) == 1
        assert "b3RoZXI6b3RoZXI=" not in str(sent)


async def test_a_proxy_that_the_caller_gives_is_used(session_at: Make) -> None:
    """The control, and the way for those who have one: a client of their own."""
    async with listening() as (proxy, heard), aiohttp.ClientSession(proxy=proxy) as client:
        session = session_at("http://127.0.0.1:9", client_session=client)
        assert await session.request("GET", "/x") == {}
    assert len(heard) == 1
    assert heard[0].startswith(b"GET http://127.0.0.1:9/x ")


async def test_a_client_of_the_callers_may_take_its_proxy_from_the_environment(
    session_at: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trust_env=True` is the caller's word; and the test above it could fail."""
    async with listening() as (proxy, heard):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        async with aiohttp.ClientSession(trust_env=True) as client:
            assert await session_at("http://127.0.0.1:9", client_session=client).request("GET", "/x") == {}
    assert len(heard) == 1


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_no_argument_can_turn_verification_off() -> None:
    """There is none for it: `ssl_context` takes a context that verifies, as a client of the caller's may not."""
    import capillary_async

    names: set[str] = set()
    for public in (getattr(capillary_async, name) for name in capillary_async.__all__):
        if inspect.isclass(public) and not issubclass(public, BaseException):
            for _, member in [("", public), *inspect.getmembers(public, inspect.isfunction)]:
                try:
                    names |= set(inspect.signature(member).parameters)
                except ValueError:
                    continue
    suspicious = re.compile(r"ssl|tls|verify_|_verify|insecure|cert|trust|unsafe|check_host", re.IGNORECASE)
    assert "base_url" in names
    assert [name for name in names if suspicious.search(name)] == ["ssl_context"]  # see test_tls.py


OFF = {
    "PYTHONHTTPSVERIFY": "0",
    "CURL_CA_BUNDLE": "",
    "REQUESTS_CA_BUNDLE": "",
    "NODE_TLS_REJECT_UNAUTHORIZED": "0",
    "AIOHTTP_NO_EXTENSIONS": "0",
    "SSL_VERIFY": "false",
    "CAPILLARY_VERIFY": "0",
    "CAPILLARY_SSL": "false",
}


async def test_nothing_but_the_callers_own_context_trusts_a_stranger(
    session_at: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the environment, whatever other tools read there."""
    context, authority = tls_server("127.0.0.1")
    for name, value in OFF.items():
        monkeypatch.setenv(name, value)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with RawServer(said([]), tls=context) as server:
        with pytest.raises(TLSError):
            await session_at(server.url).request("GET", "/x")
        assert server.hits == 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as client:
            assert await session_at(server.url, client_session=client).request("GET", "/x") == []


@pytest.mark.parametrize(
    "url", ["http://eu.api.capillarytech.com", "http://127.0.0.1.example.com", "http://localhost.example.com", "HTTP://1.2.3.4"]
)  # fmt: skip
def test_credentials_never_go_in_the_open(url: str) -> None:
    """Plain http is for loopback alone."""
    with pytest.raises(InvalidRequestError, match="base_url"):
        AsyncSession(url, auth=AUTH)


@pytest.mark.parametrize("auth", [AUTH, OAuthClient("key", "s3cret-s3cret")], ids=["basic", "oauth"])
@pytest.mark.parametrize("own", [False, True], ids=["our pool", "a client of the caller's"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_takes_nothing_along(
    session_at: Make, status: int, auth: Any, own: bool
) -> None:
    """An error; the other origin sees no connection, be it for a read or for the token."""
    async with RawServer(said([])) as target, aiohttp.ClientSession() as client:
        away = http("", status, {"Location": f"{target.url}/elsewhere"})
        async with RawServer(away, **{TOKEN_PATH: [away]}) as server:
            session = session_at(server.url, auth=auth, client_session=client if own else None)
            with pytest.raises(APIError, match="redirects are not followed") as caught:
                await session.request("GET", "/x")
            assert server.hits == 1
        assert target.connections == 0
    assert caught.value.status == status


# --- what a server may make of the client -----------------------------------------------------------------------------


async def test_a_server_sets_no_cookies(session_at: Make) -> None:
    """Nothing that it gives is sent to it again, or to anyone."""
    async with RawServer(http("[]", headers={"Set-Cookie": "sid=1; Path=/"})) as server:
        session = session_at(server.url.replace("127.0.0.1", "localhost"))
        for _ in range(2):
            await session.request("GET", "/x")
        assert all("cookie" not in one.headers for one in server.seen)


# --- dependencies -----------------------------------------------------------------------------------------------------

FAKE = """
import json, pathlib, sys
asked = next(one for one in sys.argv if one.startswith("--requirement=")).partition("=")[2]
names = pathlib.Path(asked).read_text().split()
answers = json.loads(sys.argv[1])
vulnerable = [name for name in names if name in answers["known"]]
if answers["unreachable"]:
    sys.exit("ConnectionError: no route")
print(json.dumps({"dependencies": [
    {"name": name.partition("==")[0], "version": name.partition("==")[2],
     "vulns": [{"id": "PYSEC-1"}] if name in vulnerable else []} for name in names]}))
sys.exit(bool(vulnerable))
"""


@pytest.fixture
def audit() -> ModuleType:
    """`.ci/audit` as a module."""
    loader = importlib.machinery.SourceFileLoader("ci_audit", str(ROOT / ".ci" / "audit"))
    spec = importlib.util.spec_from_loader("ci_audit", loader)
    assert spec is not None
    module, before = importlib.util.module_from_spec(spec), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


AUDITS: dict[str, tuple[dict[str, Any], int, str]] = {
    "sound": ({"known": ["jinja2==2.10"], "unreachable": False}, 0, "nothing known against them"),
    "vulnerable": ({"known": ["jinja2==2.10", "aiohttp==1.0"], "unreachable": False}, 1, "aiohttp 1.0: PYSEC-1"),
    "blind": ({"known": [], "unreachable": False}, 1, "the audit is blind, and fails"),
    "unreachable": ({"known": [], "unreachable": True}, 75, "NOT AUDITED"),
}


@pytest.mark.parametrize("name", AUDITS)
def test_the_audit_fails_for_its_canary_and_says_when_it_could_not_ask(
    audit: ModuleType, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """With a pip-audit that answers as told."""
    answers, code, words = AUDITS[name]
    told = json.dumps(answers)
    assert audit.CANARY == "jinja2==2.10"
    assert audit.audit([sys.executable, "-c", FAKE, told], ["aiohttp==1.0", "attrs==25.3.0"]) == code
    assert words in capsys.readouterr().out


def test_the_audit_sees_what_is_installed_here(audit: ModuleType) -> None:
    """Pinned, and the canary is not among it."""
    listed = audit.installed(sys.executable)
    assert any(one.startswith("aiohttp==") for one in listed)
    assert audit.CANARY not in listed


# --- the page of threats ----------------------------------------------------------------------------------------------


def named_tests() -> list[str]:
    """The tests that the threat table names."""
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", (ROOT / "docs/explanation/security.md").read_text())


def test_every_threat_names_a_test() -> None:
    """Three columns, the last of them with a test."""
    table = (ROOT / "docs/explanation/security.md").read_text().partition("| threat |")[2]
    rows = [line for line in table.splitlines() if line.startswith("|")][1:]
    assert len(rows) >= 15
    assert [row for row in rows if row.count("|") != 4 or "`tests/" not in row.split("|")[3]] == []


@pytest.mark.parametrize("name", sorted(set(named_tests())))
def test_every_test_named_on_the_page_exists(name: str) -> None:
    """And is a test function of that file."""
    path, _, function = name.partition("::")
    assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE), name
