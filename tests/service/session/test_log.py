"""What stands in the log, and what never does."""

import logging
import re
from collections.abc import Callable

import pytest
from support.raw_server import Answer, RawServer, http

from capillary_async import AsyncSession, Handler, RetryPolicy
from capillary_async._transport.call_watch import CallWatch
from capillary_async._transport.messages import Headers, Request, Response
from capillary_async.errors import CapillaryError, ServerError
from capillary_async.telemetry._observers import Observers

Make = Callable[..., AsyncSession]
REQUEST = Request("GET", "/path", "mobile=hunted-mobile", Headers({"Authorization": "Basic abc"}))
RIGHT = Response(200, Headers({"X-CAP-REQUEST-ID": "r-1", "Set-Cookie": "sid=1"}), b'{"secret": "body"}')


async def log(request: Request, handler: Handler) -> Response:
    """One call with nothing but the log around it, as `Retry` makes it."""
    observers = Observers()
    if not observers.active:
        return await handler(request)
    return await CallWatch(observers, request, bulk=False, fan_out=False, token=False).run(handler(request))


async def right(_: Request) -> Response:
    return RIGHT


async def wrong(_: Request) -> Response:
    raise ServerError("the body said hunted-mobile", status=500)


async def test_a_success_is_told_at_debug(caplog: pytest.LogCaptureFixture):
    """Method, path, status, size, time and request id."""
    with caplog.at_level(logging.DEBUG, "capillary_async"):
        assert await log(REQUEST, right) is RIGHT
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("DEBUG", "capillary_async")
    assert record.getMessage().startswith("GET /path: HTTP 200, 18 bytes in 0.0")
    assert record.getMessage().endswith(" s, request id r-1")


async def test_a_failure_is_told_by_its_class_alone(caplog: pytest.LogCaptureFixture):
    """Its text may hold what the server echoed."""
    with caplog.at_level(logging.DEBUG, "capillary_async"), pytest.raises(ServerError):
        await log(REQUEST, wrong)
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /path: ServerError after 0.0")


async def test_nothing_is_told_when_nobody_listens(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "capillary_async"):
        assert await log(REQUEST, right) is RIGHT
        with pytest.raises(ServerError):
            await log(REQUEST, wrong)
    assert not caplog.records


async def test_no_query_header_or_body_is_ever_told(caplog: pytest.LogCaptureFixture):
    """Neither in the text nor in the record's arguments."""
    with caplog.at_level(logging.DEBUG):
        await log(REQUEST, right)
        with pytest.raises(ServerError):
            await log(REQUEST, wrong)
    told = "".join(repr((record.args, record.exc_info)) + record.getMessage() for record in caplog.records)
    for private in ("hunted", "Authorization", "Basic", "sid=", "secret", "body said"):
        assert private not in told


async def test_a_call_is_told_once_and_each_retry_at_info(session_at: Make, caplog: pytest.LogCaptureFixture):
    """Three attempts of one call: two lines of retries, one of the outcome."""
    async with RawServer(Answer(b"", "close"), http(b"no", 503), http(b"{}")) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=3, backoff=0, throttle_backoff=0))
        with caplog.at_level(logging.DEBUG, "capillary_async"):
            await session.request("GET", "/path")
            server._answers[:] = [http(b"{}", 400)]
            with pytest.raises(CapillaryError):
                await session.request("GET", "/path")
    told = [(one.levelname, re.sub(r" [0-9.]+ s.*", "", one.getMessage())) for one in caplog.records]
    assert told == [
        ("INFO", "GET /path: attempt 1: disconnected; again in"),
        ("INFO", "GET /path: attempt 2: HTTP 503; again in"),
        ("DEBUG", "GET /path: HTTP 200, 2 bytes in"),
        ("DEBUG", "GET /path: BadRequestError after"),
    ]


async def test_the_values_of_a_line_are_fields_of_its_record(session_at: Make, caplog: pytest.LogCaptureFixture):
    """For logs in JSON; the gate has lines too, and no field has a query."""
    refused = http(b"", 429, {"Retry-After": "0.01"})
    done = http(b"{}", headers={"X-CAP-REQUEST-ID": "r-2"})
    async with RawServer(refused, done) as server:
        with caplog.at_level(logging.DEBUG, "capillary_async"):
            await session_at(server.url).request("GET", "/path", params={"mobile": "hunted-mobile"})
    by_event = {vars(record)["event"]: record for record in caplog.records}
    assert list(by_event) == ["GateShut", "AttemptEnded", "GateOpened", "CallEnded"]
    retry, end = vars(by_event["AttemptEnded"]), vars(by_event["CallEnded"])
    assert (retry["status"], retry["number"], retry["kind"], retry["method"], retry["path"]) == (
        429, 1, "status", "GET", "/path",
    )  # fmt: skip
    assert retry["slept"] > 0
    assert (end["status"], end["attempts"], end["request_id"], end["size"]) == (200, 2, "r-2", 2)
    assert end["call"] == retry["call"]
    assert by_event["GateShut"].getMessage() == "the gate of the session is shut: retry-after"
    assert "hunted" not in str([vars(record) for record in caplog.records])
