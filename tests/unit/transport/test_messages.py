"""What travels along the chain: values that show no secret, and the one record that changes."""

import attrs
import pytest

from capillary_async import Request, Response, Timeouts
from capillary_async._transport.messages import (
    CallState,
    Headers,
    ResponseSpec,
    part_of,
    set_decoded,
)
from capillary_async._transport.redaction import SecretBytes, SecretStr

SECRETS = ["Authorization", "authorization", "X-CAP-API-OAUTH-TOKEN", "Cookie", "Set-Cookie", "Proxy-Authorization"]


@pytest.mark.parametrize("name", SECRETS)
def test_headers_show_no_credentials(name: str):
    """Neither by repr nor by str, whatever the case; the value itself is there."""
    headers = Headers({name: "s3cret", "Accept": "application/json"})
    assert "s3cret" not in repr(headers) + str(headers) + f"{headers}"
    assert "'application/json'" in repr(headers)
    assert headers[name] == "s3cret"


def test_a_request_shows_neither_query_nor_body_nor_credentials():
    """Queries hold mobile numbers."""
    request = Request("POST", "/path", "mobile=91", Headers({"Authorization": "s3cret"}), b"s3cret")
    assert repr(request) == "Request(method='POST', path='/path', headers={'Authorization': '***'})"


def test_a_plain_mapping_becomes_headers():
    assert type(Request("GET", "/", headers={"a": "b"}).headers) is Headers
    headers = Headers({"a": "b"})
    assert Request("GET", "/", headers=headers).headers is headers


def test_requests_are_values():
    """`of` and `with_header` make others; all else is kept."""
    request = Request("POST", "/path", "a=b", Headers({"A": "1"}), b"{}", ResponseSpec(free=True))
    call = CallState(Timeouts())
    changed = part_of(request, call).with_header("B", "2")
    assert (changed.method, changed.path, changed.query, changed.body) == ("POST", "/path", "a=b", b"{}")
    assert (changed.headers, changed.call, changed.shape) == ({"A": "1", "B": "2"}, call, request.shape)
    assert (request.headers, request.call) == ({"A": "1"}, None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.path = "/other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"X-CAP-REQUEST-ID": "a"}, "a"),
        ({"X-Cap-RequestID": "b"}, "b"),
        ({"X-CAP-REQUEST-ID": "", "X-Cap-RequestID": "b"}, "b"),
    ],
)
def test_the_request_id_has_two_names(headers: dict[str, str], expected: str | None):
    assert Response(200, headers).request_id == expected


def test_a_response_shows_neither_headers_nor_body():
    assert repr(Response(200, {"Set-Cookie": "a"}, b"data", 0.5)) == "Response(status=200, elapsed=0.5)"


def test_what_a_body_says_is_kept_and_not_carried_to_another_body():
    response = set_decoded(Response(200, body=b"[1]"), [1])
    assert response._decoded == [1]
    assert attrs.evolve(response, body=b"[2]")._decoded is None


def test_veiled_texts_are_texts_that_hide_in_a_repr():
    """Equal to what they hold, sent as what they hold, and shown by nobody's locals."""
    text, octets = SecretStr("s3cret"), SecretBytes(b"s3cret")
    assert (text, f"{text}", str(text), octets) == ("s3cret", "s3cret", "s3cret", b"s3cret")
    assert "s3cret" not in repr({"a": text, "b": [octets]})


def test_a_call_starts_its_clock_once(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("capillary_async._transport.messages.time.monotonic", lambda: now)
    call = CallState(Timeouts(call=10))
    assert (call.remaining(), call.elapsed()) == (10, 0)
    call.start()
    now = 104.0
    call.start()
    assert (call.remaining(), call.elapsed()) == (6, 4)
    now = 111.0
    assert call.remaining() == -1
