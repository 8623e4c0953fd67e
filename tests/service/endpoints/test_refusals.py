"""What a refusal says: the server's own words in the message and an extract in `.body`, in every form in use."""

import json
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_server import RawServer, http, said

from capillary_async import AsyncSession, OAuthClient
from capillary_async._transport.classify import judge
from capillary_async._transport.extract import cleaned, extract
from capillary_async._transport.messages import Headers, Response, ResponseSpec
from capillary_async._transport.refusal import messages
from capillary_async.errors import (
    APIError,
    ApiMessage,
    BadRequestError,
    CapillaryError,
    CustomerNotFoundError,
    DecodeError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)
from capillary_async.models import LedgerEvent, LoyaltyEvent, PointsAllocation

Make = Callable[..., AsyncSession]
NEO = ResponseSpec(PointsAllocation)
EVENTS = ResponseSpec(LoyaltyEvent, "data")
LEDGER = ResponseSpec(LedgerEvent, "events")
FREE = ResponseSpec(free=True)
SPRING = {
    "timestamp": "2026-01-07T05:43:40.123+00:00",
    "status": 500,
    "error": "Internal Server Error",
    "message": "No program with id 2282",
    "path": "/x/neo/pointsAllocation/dateRange",
}


def answer(body: Any, status: int = 200, kind: str = "application/json") -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, Headers({"Content-Type": kind}), content)


def refused(body: Any, status: int = 200, shape: ResponseSpec = NEO, kind: str = "application/json") -> APIError:
    with pytest.raises(APIError) as caught:
        judge(answer(body, status, kind), shape)
    return caught.value


# --- the words of every form ------------------------------------------------------------------------------------------

FORMS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "message": ({"message": "no Route matched with those values"}, ("no Route matched with those values",)),
    "error": ({"error": "program missing"}, ("program missing",)),
    "detail": ({"detail": "Not authenticated"}, ("Not authenticated",)),
    "oauth": ({"error": "invalid_client", "error_description": "Bad key"}, ("invalid_client: Bad key",)),
    "spring": (SPRING, ("Internal Server Error: No program with id 2282",)),
    "problem": (
        {"type": "about:blank", "title": "Out of credit", "status": 403, "detail": "Balance is 30", "instance": "/a"},
        ("Out of credit: Balance is 30",),
    ),
    "apigee": (
        {"fault": {"faultstring": "Rate limit quota violation", "detail": {"errorcode": "policies.QuotaViolation"}}},
        ("Rate limit quota violation", "policies.QuotaViolation"),
    ),
    "google": (
        {"error": {"code": 400, "message": "Bad page", "status": "INVALID_ARGUMENT", "errors": [{"reason": "range"}]}},
        ("Bad page", "range"),
    ),
    "text code": ({"code": "ERR_DAG", "message": "node 7 failed"}, ("ERR_DAG: node 7 failed",)),
    "text code in a list": ({"errors": [{"code": "ERR_DAG", "message": "node 7"}]}, ("ERR_DAG: node 7",)),
    "fields": ({"title": "Invalid", "errors": {"count": ["too large"], "page": ["of 0"]}}, ("count: too large",)),
    "fastapi": ({"detail": [{"loc": ["query", "count"], "msg": "field required", "type": "x"}]}, ("field required",)),
    "json:api": ({"errors": [{"status": "422", "title": "Invalid", "detail": "No date"}]}, ("Invalid: No date",)),
    "graphql": ({"errors": [{"message": "No such field", "path": ["a"]}]}, ("No such field",)),
    "texts": ({"errors": ["first fault", "second fault"]}, ("first fault",)),
    "array": ([{"message": "in an array"}], ("in an array",)),
    "json text": ("a text in quotation marks", ("a text in quotation marks",)),
    "message of an object": ({"message": {"error": {"message": "three levels down"}}}, ("three levels down",)),
    "plain": (b"default backend - 404", ("default backend - 404",)),
    "lines": (b"  upstream connect error\r\nreset reason: overflow\n", ("upstream connect error  reset reason",)),
    "html": (b"<html><head><title>\n 502 Bad Gateway</title><h1>x</h1>", ("HTML page", "502 Bad Gateway")),
    "xml": (b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", ("Access Denied",)),
}


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize("name", FORMS)
def test_the_words_of_the_server_are_in_the_message_and_in_the_body(name: str, status: int):
    body, words = FORMS[name]
    for shape in (NEO, EVENTS, FREE):
        error = refused(body, status, shape)
        assert error.message.startswith(f"the server refused with HTTP {status}")
        assert all(one in error.message for one in words), error.message
        assert all(one.partition(": ")[2].partition("  ")[0] in error.body for one in words if "<" not in error.body)
        assert len(error.message) < 600
        assert len(error.body) <= 500
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (again.body, again.message, again.args) == (error.body, error.message, error.args)


@pytest.mark.parametrize("body", [b"", b"  ", b"\x00\x01\xff", b"{", b"[1]", b"null", b"\xff\xfe", b"12"])
def test_a_body_that_says_nothing_adds_nothing(body: bytes):
    assert refused(body, 500).message.startswith("the server refused with HTTP 500; the service")


def test_half_a_json_is_in_the_body_alone():
    error = refused(b'{"error": "half of', 502)
    assert "half" not in error.message
    assert error.body == '{"error": "half of'


@pytest.mark.parametrize("body", [SPRING | {"status": 404}, {"message": "no Route matched"}, b"default backend - 404"])
def test_a_404_of_what_is_before_the_api_is_not_definitive(body: Any):
    """It may be the end of a list, or a route that is back in a moment: the words change nothing of that."""
    error = refused(body, 404)
    assert (type(error), error.errors, error.code, error.is_definitive) == (NotFoundError, (), None, False)


# --- what states a failure under HTTP 200 -----------------------------------------------------------------------------

FAILURES: dict[str, tuple[Any, type[APIError], int | None]] = {
    "spring": (SPRING, ServerError, 500),
    "spring 404 as text": (SPRING | {"status": "404"}, NotFoundError, 404),
    "problem": ({"title": "Too many", "status": 429}, RateLimitedError, 429),
    "error": ({"error": "program missing"}, APIError, None),
    "error of an object": ({"error": {"code": 8015, "message": "gone"}}, APIError, None),
    "fault": ({"fault": {"faultstring": "down"}}, APIError, None),
    "text code": ({"code": "ERR_DAG", "message": "node 7"}, APIError, None),
    "success": ({"success": False}, APIError, None),
    "success as text": ({"success": "false", "message": "no"}, APIError, None),
    "success and a code": ({"success": False, "code": 403, "message": "no"}, PermissionDeniedError, 403),
    "status": ({"status": False, "message": "no"}, APIError, None),
    "jsend": ({"status": "fail", "message": "no"}, APIError, None),
    "v1.1": ({"response": {"status": {"success": "false", "message": "no"}}}, APIError, None),
    "v1.1 bare": ({"status": {"success": "false", "code": 8015}}, CustomerNotFoundError, 8015),
    "status of an entry": ({"errors": [{"status": 400, "message": "no"}]}, BadRequestError, 400),
    "one of several": ({"errors": [{"code": 200}, {"code": 8015, "message": "gone"}]}, CustomerNotFoundError, 8015),
    "200 that failed": ({"errors": [{"code": 200, "status": False, "message": "no"}]}, APIError, 200),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_under_http_200_is_a_refusal(name: str):
    body, kind, code = FAILURES[name]
    for shape in (NEO, EVENTS, LEDGER):
        error = refused(body, 200, shape)
        assert (type(error), error.status, error.code) == (kind, 200, code)


@pytest.mark.parametrize("body", [{"success": False}, {"success": "false", "code": 77, "message": "no", "data": []}])
def test_success_false_is_a_refusal_beside_rows_and_of_any_call(body: dict[str, Any]):
    for shape in (EVENTS, FREE):
        assert type(refused({"data": [{"id": 1}], **body}, shape=shape)) is APIError


@pytest.mark.parametrize(
    "stated",
    [
        {"errors": [{"code": 200, "message": "OK"}]},
        {"errors": [{"code": "200", "status": "true", "message": "OK"}]},
        {"errors": [{"status": True, "message": "done"}]},
        {"errors": {"code": 204}},
        {"code": 200, "message": "success"},
        {"code": 299, "err": None},
        {"success": True, "error": None},
        {"success": "true", "status": {"success": True, "code": 200, "message": "ok"}},
        {"status": "success", "error": ""},
        {"code": "SUCCESS", "message": "done"},
        {"status": 200, "message": "OK", "error": False},
    ],
    ids=str,
)
def test_what_states_a_success_is_no_refusal(stated: dict[str, Any]):
    decoded = judge(answer({"data": [{"id": 1}], **stated}), EVENTS)
    assert ([one.id for one in decoded.items], decoded.warnings) == ([1], ())
    assert judge(answer({"answer": 1, **stated}), FREE) == {"answer": 1, **stated}


def test_an_entry_that_succeeded_with_something_to_say_is_a_warning():
    entry: dict[str, Any] = {"status": True, "code": 9018, "message": "one currency is unknown"}
    assert judge(answer({"data": [], "errors": [entry]}), EVENTS).warnings == (
        ApiMessage(9018, entry["message"], status=True),
    )
    entry = {"code": 206, "message": "shard 3 is late"}
    assert judge(answer({"data": [], "errors": [entry]}), EVENTS).warnings == (ApiMessage(206, entry["message"]),)


def test_an_answer_of_another_shape_says_what_the_server_said():
    for body, shape in (({"message": "try the other host"}, NEO), ({"message": "try the other host"}, EVENTS)):
        with pytest.raises(DecodeError, match="the server says: 'try the other host'"):
            judge(answer(body), shape)


# --- what is not shown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Basic dGlsbC5pZDpIUNTED01==", "authorization=Bearer HUNTED", "bearer eyJhbGciOi.HUNTED.HUNTED",
        "bad token eyJhbGciOiJIUzI1NiJ9.HUNTED-HUNTED.sig", '{"password": "HUNTED HUNTED"}', "password=HUNTED<HUNTED'",
        "api_key=HUNTED&x=1", "X-CAP-API-OAUTH-TOKEN: 7HUNTED", "at https://till:HUNTED@host/x said no",
        "GET https://host/v2/x?mobile=HUNTED failed", "GET /v2/x?identifierValue=HUNTED&a=1", "see http://h/#HUNTED",
        "https://h/x?HUNTED",
    ],
)  # fmt: skip
def test_credentials_and_queries_are_taken_out_wherever_they_are(text: str):
    for body in (text.encode(), {"message": text}, {"errors": [text]}, {"deep": [{"other": text}]}, {text: text}):
        error = refused(body, 400)
        assert "HUNTED" not in error.message
        assert "HUNTED" not in error.body


def test_members_with_credentials_are_veiled():
    error = refused({"message": "no", "data": {"accessToken": "HUNTED", "client_secret": ["HUNTED"], "id": 7}}, 401)
    assert error.body == '{"message": "no", "data": {"accessToken": "***", "client_secret": "***", "id": 7}}'


@pytest.mark.parametrize("sentence", ["Token expired at 10:00", "token: expired", "the secret is wrong", "is it? a=b"])
def test_sentences_are_left_as_they_are(sentence: str):
    assert cleaned(sentence) == sentence


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters() | st.sampled_from("\x00\x1b\x7f\x9b\u202e\u2028\r\n\t"), max_size=700))
def test_what_is_shown_is_short_and_printable(text: str):
    for shown in (cleaned(text), extract(text.encode("utf-8", "replace"), None), extract(b"", {"message": text})):
        assert shown.isprintable()
        assert len(shown) <= 500
    error = refused(text.encode("utf-8", "replace"), 400, kind="text/plain")
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "text", [one * (100_000 // len(one)) for one in ("a", "?", "token", "<h1>", "://", "1", "eyJa", "basic ", "token:")]
)
def test_no_body_is_looked_at_for_long(text: str):
    began = time.process_time()
    for body in (text.encode(), {"message": text}, {"errors": {text: text}}, [[[[[[[text]]]]]]] * 9):
        assert len(refused(body, 500).message) < 1000
    assert time.process_time() - began < 1


def test_odd_json_does_no_harm():
    """Deep, long, empty, of other kinds."""
    deep: Any = "end"
    for _ in range(200):
        deep = {"error": [deep]}
    empty: list[Any] = [{"error": {}}, {"errors": {"a": {}}}]
    for body in (deep, b'{"message": ' + b"9" * 4000 + b"}", {"message": 1.5}, *empty):
        assert type(refused(body, 500)) is ServerError
    assert messages({"count": ["too large"], "page": {"msg": "of 0"}}) == (
        ApiMessage(None, "count: too large"), ApiMessage(None, "page: of 0"),
    )  # fmt: skip


# --- through a session ------------------------------------------------------------------------------------------------


async def test_a_refusal_of_a_gateway_says_so_to_the_caller(session_at: Make):
    body = SPRING | {"status": 403, "error": "Forbidden", "message": "key 7 is disabled"}
    async with RawServer(said(body, 403)) as server:
        with pytest.raises(PermissionDeniedError, match="'Forbidden: key 7 is disabled'") as caught:
            await session_at(server.url).loyalty_events.list(7).collect()
    assert caught.value.body.startswith('{"timestamp": "2026-01-07T05:43:40.123+00:00", "status": 403')


async def test_the_body_of_a_refused_token_request_is_not_kept(oauth_refusal: CapillaryError):
    assert isinstance(oauth_refusal, APIError)
    assert "'invalid_client: no such key'" in oauth_refusal.message
    assert oauth_refusal.body == ""


@pytest.fixture
async def oauth_refusal(session_at: Make) -> CapillaryError:
    body = {"error": "invalid_client", "error_description": "no such key"}
    async with RawServer(http(json.dumps(body), 401)) as server:
        with pytest.raises(CapillaryError) as caught:
            await session_at(server.url, auth=OAuthClient("key", secret="s3cret-of-7")).loyalty_events.list(7).collect()
    return caught.value
