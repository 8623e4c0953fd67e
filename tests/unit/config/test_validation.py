"""What may be given to a session: URLs, headers, paths and queries; and that a refusal never shows a secret."""

from __future__ import annotations

import math
import re
import traceback
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from urllib.parse import parse_qsl, unquote
from zoneinfo import ZoneInfo

import hypothesis
import pytest
from hypothesis import strategies as st

from capillary_async import InvalidRequestError, Paging
from capillary_async import _validation as checks
from capillary_async._config import merged_headers


@pytest.mark.parametrize("value", [-1, 0, 1, 50, 10**9, 10**400])
def test_whole_numbers(value: int) -> None:
    """Within bounds, where there are any."""
    assert checks.whole("batch_size", value) == value
    assert checks.whole("batch_size", value, value, value) == value


@pytest.mark.parametrize("value", [0, -1, True, "5", 2.0, None, math.nan, 1j, [1], b"1", Decimal(1)])
def test_what_is_no_whole_number(value: Any) -> None:
    """Refused by name, with the bounds and what came."""
    said = f"batch_size takes a whole number of at least 1, got {value!r}"
    with pytest.raises(InvalidRequestError, match=re.escape(said)) as caught:
        checks.whole("batch_size", value, 1)
    assert caught.value.argument == "batch_size"


def test_the_bounds_of_whole_numbers() -> None:
    """They are in the message."""
    with pytest.raises(InvalidRequestError, match="page_size takes a whole number from 1 to 100, got 101"):
        checks.whole("page_size", 101, 1, 100)
    with pytest.raises(InvalidRequestError, match="seed takes a whole number, got '7'"):
        checks.whole("seed", "7")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -1, -0.1, True, "5", None, 1j, Decimal(1)])
def test_what_are_no_seconds(value: Any) -> None:
    """Neither endless ones, nor more than a float holds."""
    for zero in (True, False):
        with pytest.raises(InvalidRequestError, match=r"read takes a finite number of seconds, .*, got "):
            checks.seconds("read", value, zero=zero)


def test_seconds_of_zero() -> None:
    """Only where it is said."""
    assert checks.seconds("read", 0, zero=True) == 0
    assert checks.seconds("read", 0.5) == 0.5
    with pytest.raises(InvalidRequestError, match="read takes a finite number of seconds, more than zero, got 0"):
        checks.seconds("read", 0)


def test_flags() -> None:
    """1 is merely true."""
    assert [checks.flag("verify", value) for value in (True, False)] == [True, False]
    for value in (1, 0, None, "yes", []):
        with pytest.raises(InvalidRequestError, match=re.escape(f"verify takes True or False, got {value!r}")):
            checks.flag("verify", value)


def test_a_field_is_named_with_its_class() -> None:
    """And the argument is the field's name."""
    with pytest.raises(InvalidRequestError, match=r"Paging\.page_size takes a whole number of at least 1, got 0") as no:
        Paging(page_size=0)
    assert no.value.argument == "page_size"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://eu.api.capillarytech.com", "https://eu.api.capillarytech.com"),
        ("https://eu.api.capillarytech.com/", "https://eu.api.capillarytech.com"),
        ("https://gateway.example/capillary/v1/", "https://gateway.example/capillary/v1"),
        ("https://gateway.example:8443", "https://gateway.example:8443"),
        ("HTTPS://EU.api.capillarytech.com", "HTTPS://EU.api.capillarytech.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://api.localhost", "http://api.localhost"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_base_urls(given: str, kept: str) -> None:
    """https, http on loopback, ports, path prefixes; an unknown host is configuration and never fails."""
    assert checks.base_url(given) == kept


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("http://eu.api.capillarytech.com", "only loopback may do without https"),
        ("http://127.0.0.1.evil.example", "only loopback"),
        ("http://localhost.evil.example", "only loopback"),
        ("http://0.0.0.0", "only loopback"),
        ("http://[::2]", "only loopback"),
        ("https://till:s3cr3t@eu.api.capillarytech.com", "give them as auth="),
        ("https://s3cr3t@eu.api.capillarytech.com", "give them as auth="),
        ("https://eu.api.capillarytech.com@evil.example", "give them as auth="),
        ("https://eu.api.capillarytech.com?key=s3cr3t", "a query or fragment"),
        ("https://eu.api.capillarytech.com/?", "a query or fragment"),
        ("https://eu.api.capillarytech.com#s3cr3t", "a query or fragment"),
        ("https://eu.api.capillarytech.com/a/../b", "dots for a path segment"),
        ("https://eu.api.capillarytech.com/%2e%2e/b", "dots for a path segment"),
        ("eu.api.capillarytech.com", "without https:// or without a host"),
        ("//eu.api.capillarytech.com", "without https:// or without a host"),
        ("ftp://eu.api.capillarytech.com", "without https:// or without a host"),
        ("https://", "without https:// or without a host"),
        ("https:///path", "without https:// or without a host"),
        ("https://host:0", "without https:// or without a host"),
        ("https://host:99999", "a broken host or port"),
        ("https://host:port", "a broken host or port"),
        ("https://[::1", "a broken host or port"),
        ("https://ho st", "spaces or odd characters"),
        ("https://host\r\nX: y", "spaces or odd characters"),
        ("https://host\\@evil", "spaces or odd characters"),
        ("https://büro.example", "spaces or odd characters"),
        ("", "without https:// or without a host"),
        (None, "got NoneType"),
        (b"https://host", "got bytes"),
        (5, "got int"),
    ],
)
def test_base_urls_that_cannot_be(given: Any, text: str) -> None:
    """Refused with the reason, and without showing what may be a password."""
    with pytest.raises(InvalidRequestError, match=re.escape(text)) as caught:
        checks.base_url(given)
    assert caught.value.argument == "base_url"
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in repr(caught.value)


@pytest.mark.parametrize(
    ("check", "given"),
    [
        (checks.base_url, "https://till:s3cr3t@eu.api.capillarytech.com"),
        (checks.headers, {"Authorization": "s3cr3t"}),
        (checks.headers, {"X-A": "s3cr3t\n"}),
        (checks.headers, ["s3cr3t"]),
        (lambda given: checks.kind("auth", given, int, "an int"), ("till", "s3cr3t")),
    ],
)
def test_no_frame_that_refuses_holds_what_was_refused(check: Any, given: Any) -> None:
    """Tracebacks with locals end in log files."""
    with pytest.raises(InvalidRequestError) as caught:
        check(given)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in told.stack if frame.filename == checks.__file__]
    assert ours
    assert "s3cr3t" not in repr([frame.locals for frame in ours])


def test_headers() -> None:
    """Texts by name; none at all is fine."""
    assert checks.headers(None) == {}
    given = {"X-CAP-API-ATTRIBUTION-ENTITY-TYPE": "TILL", "x-cap-neo-test-variant-id": "a b\tc~"}
    assert checks.headers(given) == given


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"X-A": "s3cr3t\r\nX-B: 1"}, "the value of X-A takes printable ASCII text"),
        ({"X-A": "s3cr3t\n"}, "the value of X-A"),
        ({"X-A": "s3cr3t\x00"}, "the value of X-A"),
        ({"X-A": "s3cr3té"}, "the value of X-A"),
        ({"X-A": 5}, "the value of X-A"),
        ({"X-A": None}, "the value of X-A"),
        ({"X-A\r\nX-B": "1"}, "is no header name"),
        ({"X A": "1"}, "is no header name"),
        ({"X:A": "1"}, "is no header name"),
        ({"": "1"}, "is no header name"),
        ({5: "1"}, "5 is no header name"),
        ("X-A: s3cr3t", "headers takes a mapping of texts, got str"),
        ([("X-A", "s3cr3t")], "headers takes a mapping of texts, got list"),
    ],
)
def test_headers_that_cannot_be(given: Any, text: str) -> None:
    """A header cannot bring another one with it; values are not shown."""
    with pytest.raises(InvalidRequestError, match=text) as caught:
        checks.headers(given)
    assert caught.value.argument == "headers"
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "authorization", "X-CAP-API-OAUTH-TOKEN", "Cookie", "Host", "Content-Length", "Content-Type",
        "Transfer-Encoding", "Connection", "Accept-Encoding",
    ],
)  # fmt: skip
def test_headers_that_are_the_sdks_own(name: str) -> None:
    """Credentials, lengths and encodings are not for users to set."""
    with pytest.raises(InvalidRequestError, match=f"headers: {name} is set by the SDK itself"):
        checks.headers({name: "s3cr3t"})


def test_merged_headers() -> None:
    """The latter win, whatever the case of their names."""
    assert merged_headers({"Accept": "a", "X-B": "b"}, {"ACCEPT": "c", "x-c": "d"}) == {
        "X-B": "b",
        "ACCEPT": "c",
        "x-c": "d",
    }


def test_dag_scopes() -> None:
    """A text or None."""
    assert checks.dag_scope(None) is None
    assert checks.dag_scope("org") == "org"
    for given in ("", " ", "a\r\nb", 5, True):
        with pytest.raises(InvalidRequestError, match="dag_scope takes a printable ASCII text or None") as caught:
            checks.dag_scope(given)
        assert caught.value.argument == "dag_scope"


def test_middlewares() -> None:
    """A sequence of callables, or one."""

    async def one(request: Any, handler: Any) -> Any:
        return await handler(request)

    assert checks.middlewares([one, one]) == (one, one)
    assert checks.middlewares(one) == (one,)
    assert checks.middlewares(()) == ()
    for given in ("text", [one, 5], None, 5):
        with pytest.raises(InvalidRequestError, match="middlewares takes a sequence of async") as caught:
            checks.middlewares(given)
        assert caught.value.argument == "middlewares"


def test_timezones() -> None:
    """A zone, or its name."""
    zone = timezone(timedelta(hours=5, minutes=30))
    assert checks.timezone(None) is None
    assert checks.timezone(zone) is zone
    assert checks.timezone("Asia/Kolkata") == ZoneInfo("Asia/Kolkata")
    for given in ("Mars/Olympus", "", "../etc/passwd", 5, b"UTC"):
        with pytest.raises(InvalidRequestError, match="server_timezone takes a tzinfo or a zone's name") as caught:
            checks.timezone(given)
        assert caught.value.argument == "server_timezone"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("/v2/customers/565039505", "/v2/customers/565039505"),
        ("/", "/"),
        ("/v2/a b/é", "/v2/a%20b/%C3%A9"),
        ("/v2/a%20b", "/v2/a%20b"),
        ("/v2/100%", "/v2/100%25"),
        ("/v2/%zz/%4", "/v2/%25zz/%254"),
        ("/v2/x@y:z,(1)", "/v2/x@y:z,(1)"),
        ("/v2//x", "/v2//x"),
        ("/v2/...", "/v2/..."),
    ],
)
def test_paths(given: str, sent: str) -> None:
    """Each segment quoted once."""
    assert checks.path(given) == sent


@pytest.mark.parametrize(
    "given",
    [
        "v2/customers", "", "//evil.example/x", "https://evil.example", "/v2/x?y=1", "/v2/x#y", "/v2\\x",
        "/v2/x\r\nHost: y", "/v2/\x00", "/v2/../x", "/v2/./x", "/..", "/v2/%2e%2e/x", "/v2/%2E%2e", "/v2/.%2e/x",
        "/v2/a%2fb", "/v2/a%5cb", "/v2/a%0d%0ab", "/v2/\ud800", None, 5, b"/v2",
    ],
)  # fmt: skip
def test_paths_that_cannot_be(given: Any) -> None:
    """Another host, another level, a query, or a line break."""
    with pytest.raises(InvalidRequestError, match="path takes") as caught:
        checks.path(given)
    assert caught.value.argument == "path"


@hypothesis.given(st.text())
def test_a_path_stays_a_path(rest: str) -> None:
    """Whatever follows the first slash: one path, no query, no fragment, no climbing."""
    try:
        sent = checks.path(f"/{rest}")
    except InvalidRequestError:
        return
    assert sent.isascii()
    assert not set(sent) & set("?#\\ \r\n")
    assert not any(unquote(segment) in (".", "..") for segment in sent.split("/"))
    assert unquote(sent) == unquote(f"/{rest}")


class Number(IntEnum):
    SEVEN = 7


class Old(str, Enum):  # noqa: UP042 - users' own enums may be of this kind
    A = "a value"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, ""),
        ({}, ""),
        ({"a": None}, ""),
        ({"a": "x y&z=1", "b&c": 2}, "a=x%20y%26z%3D1&b%26c=2"),
        ({"a": True, "b": False}, "a=true&b=false"),
        ({"a": date(2025, 6, 1)}, "a=2025-06-01"),
        ({"a": datetime(2025, 6, 1, 12, tzinfo=UTC)}, "a=2025-06-01T12%3A00%3A00%2B00%3A00"),
        ({"a": [1, "b", None, True]}, "a=1,b,true"),
        ({"a": (1, 2)}, "a=1,2"),
        ({"a": Number.SEVEN, "b": Old.A}, "a=7&b=a%20value"),
        ({"a": ""}, "a="),
    ],
)
def test_queries(given: Any, sent: str) -> None:
    """None is not sent, lists are joined by commas, everything else is encoded once."""
    assert checks.query(given) == sent


@pytest.mark.parametrize(
    "given",
    [
        "a=1",
        [("a", 1)],
        {5: "a"},
        {b"a": 1},
        {"a": 1.5},
        {"a": {}},
        {"a": [1.5]},
        {"a": 10**5000},
        {"a": "\ud800"},
        {"a": b"x"},
    ],
)
def test_queries_that_cannot_be(given: Any) -> None:
    """A float has no one spelling, and half a character has none."""
    with pytest.raises(InvalidRequestError, match="params") as caught:
        checks.query(given)
    assert caught.value.argument == "params"


@hypothesis.given(st.dictionaries(st.text(min_size=1), st.text() | st.integers()))
def test_a_query_says_what_was_given(params: dict[str, Any]) -> None:
    """Whatever is in a name or a text stays there."""
    try:
        sent = checks.query(params)
    except InvalidRequestError:
        return
    assert dict(parse_qsl(sent, keep_blank_values=True)) == {name: str(value) for name, value in params.items()}


def test_kind_shows_the_class_alone() -> None:
    """A password given in the wrong place is not shown."""
    with pytest.raises(InvalidRequestError, match="auth takes BasicAuth or OAuthClient, got str") as caught:
        checks.kind("auth", "s3cr3t", int, "BasicAuth or OAuthClient")
    assert "s3cr3t" not in str(caught.value)
    checks.kind("n", 5, int, "int")
