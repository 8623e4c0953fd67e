"""What an answer is, by status and body: pure rules on values, and a few through a whole session."""

import html
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from attrs import frozen
from support.raw_server import RawServer, http, said

from capillary_async import AsyncSession
from capillary_async._transport.api_errors import ADVICE, refusal_in
from capillary_async._transport.classify import check, judge
from capillary_async._transport.messages import Headers, Request, Response, ResponseSpec
from capillary_async._transport.redaction import Redactor
from capillary_async._transport.refusal import messages
from capillary_async.errors import (
    APIError,
    ApiMessage,
    AuthenticationError,
    BadRequestError,
    CapillaryError,
    CustomerNotFoundError,
    DecodeError,
    LedgerRequestError,
    MergedCustomerError,
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


def answer(body: Any, status: int = 200, **headers: str) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, Headers({name.replace("_", "-"): value for name, value in headers.items()}), content)


def refused(body: Any, status: int = 200, shape: ResponseSpec = EVENTS, **headers: str) -> APIError:
    with pytest.raises(APIError) as caught:
        judge(answer(body, status, **headers), shape)
    return caught.value


def no_answer(body: Any, shape: ResponseSpec = NEO, **headers: str) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        judge(answer(body, **headers), shape)
    return caught.value


# --- codes ------------------------------------------------------------------------------------------------------------

# The error tables of the five pages, with the word of the advice that matters.
DOCUMENTED = {
    8015: (CustomerNotFoundError, "no customer has this id"),
    8069: (MergedCustomerError, "surviving customer"),
    1632: (LedgerRequestError, "check the identifier"),
    8013: (LedgerRequestError, "identifier name is not supported"),
    9003: (LedgerRequestError, "use CUSTOMER or USERGROUP2"),
    9005: (LedgerRequestError, "alternate_currency_names"),
    9018: (LedgerRequestError, "no alternate currency matches"),
    9021: (LedgerRequestError, "check event_ids"),
    9022: (LedgerRequestError, "check event_reference_ids"),
    11012: (LedgerRequestError, "check the identifier's value"),
    11013: (LedgerRequestError, "identifier and source must not be empty"),
    11014: (LedgerRequestError, "use one of EventName"),
    11016: (LedgerRequestError, "check event_ids"),
    11017: (LedgerRequestError, "no number"),
    11019: (LedgerRequestError, "ask Capillary's product support"),
    11021: (LedgerRequestError, "not both"),
    11023: (LedgerRequestError, "give event_ids, or event_name with event_reference_ids"),
    320001: (AuthenticationError, "OAuth key or secret is wrong"),
}


def test_every_documented_code_is_here():
    assert set(DOCUMENTED) == set(ADVICE)


@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize("code", DOCUMENTED)
def test_a_documented_code_has_its_class_and_advice_whatever_the_status(code: int, status: int):
    kind, advice = DOCUMENTED[code]
    error = refused({"errors": [{"status": False, "code": code, "message": "As documented"}]}, status)
    assert type(error) is kind
    assert (error.status, error.code) == (status, code)
    assert error.message.startswith(f"the server refused with HTTP {status}, code {code}: 'As documented'; ")
    assert advice in error.message
    assert error.errors == (ApiMessage(code, "As documented", status=False),)


@pytest.mark.parametrize("code", [9003, 9010, 9022, 11001, 11015, 11023])
def test_codes_of_the_ledgers_ranges_have_its_class(code: int):
    assert type(refused({"errors": [{"code": code}]}, 400)) is LedgerRequestError


@pytest.mark.parametrize("code", [9002, 9023, 11000, 11024, 4000])
def test_other_codes_leave_it_to_the_status(code: int):
    assert type(refused({"errors": [{"code": code}]}, 400)) is BadRequestError
    assert type(refused({"errors": [{"code": code}]})) is APIError


STATUSES = {
    400: BadRequestError, 401: AuthenticationError, 403: PermissionDeniedError, 404: NotFoundError, 405: APIError,
    409: APIError, 413: APIError, 429: RateLimitedError, 461: APIError, 498: AuthenticationError, 500: ServerError,
    501: ServerError, 503: ServerError, 521: ServerError, 599: ServerError, 302: APIError, 304: APIError,
}  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_alone_has_its_class(status: int):
    """Nothing in the body: neither code nor errors."""
    error = refused(b"", status)
    assert type(error) is STATUSES[status]
    assert (error.status, error.code, error.errors, error.html) == (status, None, (), False)
    assert error.message.startswith(f"the server refused with HTTP {status}")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (300, "redirects are not followed: check base_url"), (399, "redirects are not followed"),
        (400, "a parameter is wrong"), (401, "the credentials"),
        (403, "the access group that the API page names"), (404, "no such resource"), (429, "lower Limits.rate"),
        (461, "the search is busy: try again later"), (498, "the token is not accepted"), (500, "try again later"),
        (521, "another action of this customer is running"),
    ],
)  # fmt: skip
def test_a_status_comes_with_advice(status: int, words: str):
    assert words in refused(b"", status).message


def test_what_is_not_known_is_to_be_reported():
    message = refused(b"", 418).message
    assert message.startswith("the server refused with HTTP 418; ")
    assert "report it with the request id" in message


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, 400, BadRequestError), (400, 500, ServerError), (200, 404, NotFoundError), (200, 429, RateLimitedError),
        (404, 401, AuthenticationError), (503, 4001, ServerError), (403, 4000, PermissionDeniedError),
        (200, 498, AuthenticationError), (429, 503, ServerError),
    ],
)  # fmt: skip
def test_a_body_code_of_the_form_of_a_status_decides_before_the_status(status: int, code: int, kind: type[APIError]):
    error = refused({"code": code, "message": "no", "err": None}, status, NEO)
    assert type(error) is kind
    assert (error.status, error.code) == (status, code)


def test_of_several_errors_the_first_known_code_decides():
    """An odd one before it is no reason to miss it; and all are kept."""
    listed = [{"code": 77, "message": "odd"}, {"code": 8015, "message": "gone"}, {"code": 8069, "message": "merged"}]
    error = refused({"errors": listed})
    assert (type(error), error.code, len(error.errors)) == (CustomerNotFoundError, 8015, 3)
    assert refused({"errors": listed[:1] * 2}).code == 77


# --- shapes of failure ------------------------------------------------------------------------------------------------

NEO_FAILURES = {
    "code, message, err": {"code": 400, "message": "program missing", "err": None},
    "code and err": {"code": 400, "err": "program missing"},
    "errors": {"errors": [{"status": False, "code": 400, "message": "program missing"}]},
    "a code as text": {"code": "400", "message": "program missing"},
}


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("name", NEO_FAILURES)
def test_every_shape_of_a_neo_failure_is_read(name: str, status: int):
    error = refused(NEO_FAILURES[name], status, NEO)
    assert (type(error), error.code) == (BadRequestError, 400)
    assert "'program missing'" in error.message


@pytest.mark.parametrize("status", [400, 502])
def test_a_failure_of_text_or_html_is_read_by_its_status(status: int):
    """And a page says that something before the API answered."""
    page = refused(b" \n<!DOCTYPE html><title>Bad</title>", status, NEO)
    assert page.html
    assert "an HTML page: something before the API answered" in page.message
    typed = refused(b"upstream failed", status, NEO, Content_Type="text/html; charset=utf-8")
    plain = refused(b"upstream failed", status, NEO, Content_Type="text/plain")
    assert (typed.html, plain.html, plain.code) == (True, False, None)


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"{\xff}", b"null"])
def test_a_failure_with_a_body_that_says_nothing_is_read_by_its_status(body: bytes):
    error = refused(body, 500, NEO)
    assert (type(error), error.code, error.html) == (ServerError, None, False)


def test_an_error_of_json_declared_as_html_is_still_read():
    error = refused({"errors": [{"code": 8015, "message": "gone"}]}, 400, Content_Type="text/html")
    assert (type(error), error.html) == (CustomerNotFoundError, False)


def test_the_v1_envelope_is_read_with_its_values_as_text():
    body = {"response": {"status": {"success": "false", "code": "498", "message": "Token expired at 10:00"}}}
    error = refused(body, shape=FREE)
    assert (type(error), error.code, error.errors[0].message) == (
        AuthenticationError, 498, "Token expired at 10:00",
    )  # fmt: skip
    assert type(refused({"response": {"status": {"success": False, "code": 500}}}, shape=FREE)) is ServerError


@pytest.mark.parametrize("status", [{"success": "true", "code": "200"}, {}, [], None, {"success": True, "code": 500}])
def test_a_v1_envelope_that_states_no_failure_is_an_answer(status: Any):
    body = {"response": {"status": status, "customers": []}}
    assert judge(answer(body), FREE) == body


def test_a_byte_order_mark_or_blanks_hide_no_error():
    """However many."""
    for front in (b"\xef\xbb\xbf", b" " * 500, b"\xef\xbb\xbf\r\n\t "):
        for status in (200, 400):
            assert type(refused(front + b'{"errors": [{"code": 8015}]}', status)) is CustomerNotFoundError
        assert refused(front + b"<html>", 500).html


@pytest.mark.parametrize("errors", [None, [], [None], [None, None], {}, "", False, 0])
def test_errors_that_say_nothing_are_none(errors: Any):
    """`null` is how some answers write that there were none."""
    assert judge(answer({"data": [], "errors": errors}), EVENTS).items == ()
    assert refusal_in({"errors": errors}, EVENTS) is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("text", ApiMessage(None, "text")),
        (7, ApiMessage(None, "7")),
        ({}, ApiMessage(None, "")),
        ({"code": "9021", "message": None, "status": "false"}, ApiMessage(9021, "", status=False)),
        ({"code": True, "message": 5}, ApiMessage(None, "5")),
        ({"code": "9" * 19, "message": "m"}, ApiMessage(None, "m")),
        ({"code": "٩٠٢١", "message": "m"}, ApiMessage(None, "m")),
        ({"code": 1.5, "message": "m"}, ApiMessage(None, "m")),
        (["nested"], ApiMessage(None, "['nested']")),
    ],
    ids=str,
)
def test_odd_entries_are_kept_as_what_they_say(entry: Any, expected: ApiMessage):
    """A list that is not empty is a refusal, whatever stands in it."""
    assert messages([entry]) == (expected,)
    assert refused({"data": [], "errors": [None, entry]}).errors == (expected,)


def test_a_lone_entry_stands_for_a_list():
    assert messages({"code": 9021, "message": "m"}) == (ApiMessage(9021, "m"),)
    assert refused({"errors": "everything"}).errors == (ApiMessage(None, "everything"),)


def test_errors_beside_data_are_a_refusal():
    """HTTP 200 and rows: half of an answer is none."""
    row = {"id": 1}
    assert type(refused({"data": [row], "errors": [{"code": 8069, "message": "merged"}]})) is MergedCustomerError


def test_a_long_message_is_cut_in_the_text_and_kept_in_errors():
    error = refused({"errors": [{"code": 1, "message": "x" * 5000}]}, 400)
    assert len(error.errors[0].message) == 5000
    assert len(error.message) < 700
    assert "xxx...'" in error.message


# --- what else an error tells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-CAP-REQUEST-ID", "X-Cap-RequestID"])
def test_the_request_id_is_kept(name: str):
    """Under both of its names, in refusals and in answers that cannot be read."""
    assert refused(b"", 500, **{name: "r-1"}).request_id == "r-1"
    error = no_answer(b"<html>", **{name: "r-2"})
    assert (error.request_id, error.status) == ("r-2", 200)


def test_retry_after_is_kept_and_measured_by_the_servers_own_clock():
    assert refused(b"", 429, **{"Retry-After": "7"}).retry_after == 7
    dated = {"Retry-After": "Wed, 04 Mar 2026 05:06:37 GMT", "Date": "Wed, 04 Mar 2026 05:06:07 GMT"}
    assert refused(b"", 503, **dated).retry_after == 30
    assert refused(b"", 429, **{"Retry-After": "soon"}).retry_after is None
    assert refused({"code": 429, "message": "m"}, 200, NEO, **{"Retry-After": "3"}).retry_after == 3


# --- answers ----------------------------------------------------------------------------------------------------------


def test_rows_are_decoded_where_they_stand():
    """A bare array, and the members of two envelopes."""
    assert judge(answer([{"id": 1}]), NEO).items[0].id == 1
    assert judge(answer({"data": [{"id": 2}], "errors": None, "warnings": None}), EVENTS).received == 1
    assert judge(answer({"events": []}), LEDGER).items == ()
    assert judge(answer({"events": None}), LEDGER).items == ()


@pytest.mark.parametrize("number", [2**31, 37195406289, 2**53 + 1, 2**63 - 1])
def test_an_id_is_given_to_its_last_digit(number: int):
    """Of every shape, as a number and as text: ids exceed 32 bits, and no double holds the longer ones."""
    for value in (number, str(number)):
        assert judge(answer({"data": [{"id": value}]}), EVENTS).items[0].id == number
        assert judge(answer({"events": [{"eventLogId": value}]}), LEDGER).items[0].event_log_id == number
        assert judge(answer([{"id": value}]), NEO).items[0].id == number
    assert judge(answer({"id": number}), FREE) == {"id": number}


def test_warnings_are_passed_and_not_raised():
    """Those of the server stand before those of the SDK."""
    listed = [{"status": True, "code": 9018, "message": "one currency is unknown"}, "text"]
    decoded = judge(answer({"events": [None], "warnings": listed}), LEDGER)
    assert decoded.warnings[:2] == (
        ApiMessage(9018, "one currency is unknown", status=True), ApiMessage(None, "text"),
    )  # fmt: skip
    assert len(decoded.warnings) == 3
    assert judge(answer({"events": [], "warnings": []}), LEDGER).warnings == ()


@pytest.mark.parametrize(
    ("body", "shape", "fault"),
    [
        ({"rows": []}, NEO, "$: expected an array, got an object"),
        ([1], EVENTS, "$: expected an object, got an array"),
        ({"events": []}, EVENTS, "$.data: missing"),
        (None, NEO, "$: expected an array, got a bare value"),
        (7, NEO, "$: expected an array, got a bare value"),
        ("text", EVENTS, "$: expected an object, got a bare value"),
        (True, EVENTS, "$: expected an object, got a bare value"),
    ],
)
def test_json_of_another_shape_is_named_and_not_malformed(body: Any, shape: ResponseSpec, fault: str):
    error = no_answer(body, shape)
    assert (error.faults, error.paths, error.malformed) == ((fault,), (fault.partition(": ")[0],), False)
    assert fault in error.message
    assert error.body == json.dumps(body)


def test_a_row_of_another_shape_is_named_with_its_path():
    error = no_answer({"data": [{"id": 1}, 5]}, EVENTS)
    assert error.paths == ("$.data[1]",)
    assert "(and " not in error.message
    assert not error.malformed


@pytest.mark.parametrize("shape", [NEO, EVENTS, FREE])
@pytest.mark.parametrize(
    ("body", "words"), [(b"", "an empty body"), (b" \r\n", "an empty body"), (b"<p>hi", "an HTML page")]
)
def test_what_is_no_json_says_what_it_is(shape: ResponseSpec, body: bytes, words: str):
    error = no_answer(body, shape)
    assert words in error.message
    assert error.malformed


@pytest.mark.parametrize(("body", "words"), [(b"plain", "no JSON"), (b"nul", "no JSON"), (b"\x00\x01", "no JSON")])
def test_text_is_no_json(body: bytes, words: str):
    error = no_answer(body)
    assert words in error.message
    assert (error.malformed, error.status) == (True, 200)


def test_a_long_body_is_shown_by_its_beginning():
    assert len(no_answer(b"<" + b"x" * 100_000).body) < 1000


# --- any other GET ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 7, True, "text", [], [1, {"a": None}], {}, {"a": [1]}])
def test_a_free_answer_may_be_any_json(value: Any):
    assert judge(answer(value), FREE) == value


def test_a_free_answer_is_exact():
    assert judge(answer(b'{"points": 0.1}'), FREE) == {"points": Decimal("0.1")}


@pytest.mark.parametrize("body", [b"text", b"[1,", b'{"a"', b"NaN", b"[NaN]"])
def test_a_free_answer_that_is_no_json_is_malformed(body: bytes):
    assert no_answer(body, FREE).malformed


@frozen
class Coupon:
    code: str
    message: str


def test_a_free_answer_is_read_by_its_model():
    """An object, a list, a plain type."""
    assert judge(answer({"code": "AB1", "message": "hello"}), ResponseSpec(Coupon, free=True)) == Coupon("AB1", "hello")
    assert judge(answer([{"code": "1", "message": "m"}]), ResponseSpec(list[Coupon], free=True)) == [Coupon("1", "m")]
    assert judge(answer(7), ResponseSpec(int, free=True)) == 7


@pytest.mark.parametrize("code", [0, "1234", 7001])
def test_data_with_a_code_and_a_message_is_no_refusal_of_a_free_call(code: Any):
    """A coupon has both. On a list of the API the same object is a refusal."""
    body = {"code": code, "message": "a text of the shop"}
    assert judge(answer(body), FREE) == body
    assert type(refused(body, shape=NEO)) is APIError


@pytest.mark.parametrize(("code", "kind"), [(500, ServerError), ("404", NotFoundError), (8015, CustomerNotFoundError)])
def test_a_code_that_states_a_failure_is_one_of_a_free_call_too(code: Any, kind: type[APIError]):
    assert type(refused({"code": code, "message": "m"}, shape=FREE)) is kind
    assert type(refused({"code": 77, "message": "m"}, 400, FREE)) is BadRequestError


# --- the step ---------------------------------------------------------------------------------------------------------


async def test_an_answer_is_decoded_once_and_kept():
    response = answer([{"id": 1}])

    async def handler(_: Request) -> Response:
        return response

    assert (await check(Request("GET", "/", shape=NEO), handler)) is response
    assert response._decoded.items[0].id == 1


async def test_a_request_without_a_shape_is_not_read():
    """A user's own request, further down the chain."""

    async def handler(_: Request) -> Response:
        return answer(b"<html>", 500)

    assert (await check(Request("GET", "/"), handler))._decoded is None


async def test_a_refusal_through_a_session_tells_its_story(session_at: Make):
    """One hit: what the API refuses is not tried again."""
    body = {"errors": [{"status": False, "code": 8015, "message": "Customer not found"}], "warnings": None}
    async with RawServer(said(body, 200, X_CAP_REQUEST_ID="r-5")) as server:
        with pytest.raises(CustomerNotFoundError) as caught:
            await session_at(server.url).loyalty_events.list(7).collect()
        assert server.hits == 1
    assert str(caught.value) == (
        "GET /v2/customers/7/loyaltyEvents: the server refused with HTTP 200, code 8015: 'Customer not found'; "
        "no customer has this id: check it (1 attempt in 0.0 s; request id r-5)"
    )


async def test_half_a_json_heals_and_another_shape_does_not(session_at: Make):
    """The former may do better next time."""
    async with RawServer(http(b'[{"id": 1}, {"id'), http(b'[{"id": 1}]')) as server:
        rows = session_at(server.url).points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
        assert [row.id for row in await rows.collect()] == [1]
        assert server.hits == 2
    async with RawServer(http(b'[{"id": {}}]')) as server:
        rows = session_at(server.url).points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
        with pytest.raises(CapillaryError, match=r"\$\[0\]\.id"):
            await rows.collect()
        assert server.hits == 1


# --- what a server echoes ---------------------------------------------------------------------------------------------

AWKWARD = "quo'te\"back\\slash-\xe9-end"


@pytest.mark.parametrize(
    "form",
    [AWKWARD, AWKWARD.upper(), json.dumps(AWKWARD)[1:-1], json.dumps(AWKWARD, ensure_ascii=False)[1:-1],
     repr(AWKWARD)[1:-1], html.escape(AWKWARD), quote(AWKWARD, safe=""), quote_plus(AWKWARD)],
)  # fmt: skip
def test_a_secret_is_taken_out_to_its_last_character_in_every_form(form: str):
    """Not one of its characters is left on either side."""
    assert Redactor(AWKWARD)(APIError(f"<{form}>", status=400)).args == ("<***>",)


def test_a_secret_that_begins_with_another_is_taken_out_whole():
    """The longer one first, or its end would stay."""
    assert Redactor("abcdef", "abcdefghij")(APIError("<abcdefghij> <abcdef>", status=400)).args == ("<***> <***>",)
