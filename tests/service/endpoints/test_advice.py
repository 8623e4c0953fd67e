"""Every error says what to do next: the text of each class, made as a call makes it, has an instruction."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aioresponses import aioresponses
from support.fake_list import FakeList, FakePages, Row, rows
from support.raw_server import Answer, RawServer, http

from capillary_async import (
    APIError,
    AsyncSession,
    BasicAuth,
    CapillaryError,
    DeadlineExceededError,
    InvalidRequestError,
    Limits,
    PageDriftError,
    PageLoopError,
    PagingError,
    RecordConflictError,
    Request,
    RequestTimeoutError,
    Response,
    ResponseTooLargeError,
    RetryPolicy,
    Timeouts,
    errors,
)
from capillary_async._transport.advice import with_next_step
from capillary_async._transport.aiohttp_errors import mapped
from capillary_async._transport.body import check_size

if TYPE_CHECKING:
    from collections.abc import Callable

INSTRUCTION = re.compile(
    r"[;:,.] (and |then |or )?(ask|check|choose|enable|give|go on|lower|make|raise|read|report|send|swap|try|use)\b"
    r"|\btakes\b|\b(ask|check|give|lower|raise|read|try|use|report) (it|the|for|again|later|what|base_url|Timeouts)\b",
    re.IGNORECASE,
)
SEEN: set[str] = set()
ONCE = RetryPolicy(attempts=1)


def told(error: BaseException) -> str:
    """The text of an error, which must have an instruction."""
    assert INSTRUCTION.search(str(error)), str(error)
    SEEN.add(type(error).__name__)
    return str(error)


def body(text: str, status: int = 200) -> Answer:
    """A JSON answer."""
    return http(text.encode(), status)


async def failure(session: AsyncSession, **options: Any) -> CapillaryError:
    """What one call of a session ends with."""
    with pytest.raises(CapillaryError) as caught:
        await session.with_options(**options).loyalty_events.list(5).collect()
    return caught.value


def refusal(code: int) -> str:
    """A body that refuses with a code."""
    return f'{{"data":null,"errors":[{{"code":{code},"message":"no"}}],"warnings":[]}}'


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        *(
            (body("{}", status), "")
            for status in (301, 400, 401, 403, 404, 409, 410, 415, 422, 429, 461, 498, 500, 503)
        ),
        *((body(refusal(code)), "") for code in (8015, 8069, 9003, 9004, 9022, 11012, 11020, 11023, 1632, 8013, 77)),
        (body("{}", 299), ""),
        (body(""), "DecodeError"),
        (body("<html>"), "DecodeError"),
        (body('{"data":[{"id":"x"}],"warnings":[],"errors":[]}'), "DecodeError"),
        (body('{"warnings":[]}'), "DecodeError"),
        (body("[1]"), "DecodeError"),
        (body('{"data":[{"id":1'), "DecodeError"),
        (Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[{", "close"), "TransportError"),
        (Answer(b"what?\r\n\r\n", "close"), "TransportError"),
        (Answer(b"", "close"), "TransportError"),
        (Answer(b"", "reset"), "TransportError"),
    ],
)
async def test_answers(session_at: Callable[..., AsyncSession], answer: Answer, kind: str) -> None:
    """By status, by code under HTTP 200, cut, torn, of another shape."""
    async with RawServer(answer) as server:
        error = await failure(session_at(server.url, retry=ONCE))
    told(error)
    assert type(error).__name__ == kind or (not kind and isinstance(error, APIError))


async def test_what_a_middleware_answers(session_at: Callable[..., AsyncSession]) -> None:
    """It is judged as a server's answer, and its fault says as much."""

    async def answers(request: Request, handler: Any) -> Response:
        return Response(200, body=b'{"warnings":[]}')

    assert "report" in told(await failure(session_at("http://127.0.0.1:1", middlewares=[answers])))


async def test_no_connection(session_at: Callable[..., AsyncSession], unused_tcp_port: int) -> None:
    """Refused, and a host that does not resolve."""
    error = await failure(session_at(f"http://127.0.0.1:{unused_tcp_port}", retry=ONCE))
    assert "check base_url and the network" in told(error)
    for kind in (ConnectionResetError("reset"), OSError("gone"), EOFError(), ValueError("odd")):
        told(_finished(mapped(kind)))
    told(_finished(mapped(ssl.SSLCertVerificationError("certificate verify failed"))))
    told(_finished(mapped(ssl.SSLError("wrong version number"))))


def _finished(error: CapillaryError) -> CapillaryError:
    error.args = (with_next_step(error),)
    return error


async def test_time(session_at: Callable[..., AsyncSession]) -> None:
    """Of an attempt, of the call, and in the session's own queue."""
    async with RawServer(Answer(b"", "stall")) as server:
        for timeouts in (Timeouts(read=0.1), Timeouts(attempt=0.1), Timeouts(call=0.1)):
            error = await failure(session_at(server.url), retry=ONCE, timeouts=timeouts)
            assert isinstance(error, RequestTimeoutError | DeadlineExceededError)
            assert "raise" in told(error)
        busy = session_at(server.url, limits=Limits(concurrency=1, concurrency_start=1))
        first = asyncio.ensure_future(busy.loyalty_events.list(5).collect())
        await asyncio.sleep(0.05)
        error = await failure(busy, timeouts=Timeouts(call=0.1))
        assert error.attempts == 0
        assert "raise Timeouts.call" in told(error)
        first.cancel()
        await asyncio.wait([first])


async def test_the_quota(session_at: Callable[..., AsyncSession]) -> None:
    """An outage used it up."""
    async with RawServer(body("{}", 500)) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=5, quota=14, backoff=0, throttle_backoff=0))
        error = await failure(session)
    assert error.quota_exhausted
    assert "the service seems to be down; try again later" in told(error)


async def test_paging() -> None:
    """Loops, conflicts, drift, and ends that are contradicted."""
    with pytest.raises(PageLoopError) as loop:
        await FakePages(rows(10), rows(10), rows(10)).pager().collect()
    told(loop.value)
    with pytest.raises(RecordConflictError) as conflict:
        await FakePages([*rows(10)], [Row(1, "other"), *rows(9, 11)], []).pager().collect()
    told(conflict.value)
    with pytest.raises(PagingError) as contradicted:
        await FakePages(rows(10), rows(10, 11), rows(5, 21), rows(10, 31), []).pager().collect()
    told(contradicted.value)
    moving = FakeList(rows(30))
    moving.before = lambda number: moving.rows.append(Row(1000 + len(moving.asked)))
    with pytest.raises(PageDriftError) as drift:
        await moving.pager().collect(verify=True)
    told(drift.value)


async def test_a_double_of_aiohttp_says_what_it_misses() -> None:
    """A mock without the query: its words, and why."""
    with aioresponses() as mocked:
        mocked.get("https://eu.api.capillarytech.com/v2/customers/5/loyaltyEvents", payload={"data": []})
        async with AsyncSession("https://eu.api.capillarytech.com", auth=BasicAuth("t", password="p")) as session:
            error = await failure(session, retry=ONCE)
    assert "Connection refused: GET https://eu.api.capillarytech.com/v2/customers/5/loyaltyEvents" in told(error)
    assert "no mock has this URL with its query" in str(error)
    assert "no mock" not in str(mapped(aiohttp.ServerDisconnectedError()))


@pytest.mark.parametrize(("status", "word"), [(429, "HTTP 429"), (503, "HTTP 503"), (500, "HTTP 500")])
async def test_a_retry_names_the_status(
    session_at: Callable[..., AsyncSession], caplog: pytest.LogCaptureFixture, status: int, word: str
) -> None:
    """429 and 503 ask for different things of who reads the log."""
    async with RawServer(body("{}", status), body('{"data":[],"warnings":[],"errors":[]}')) as server:
        with caplog.at_level(logging.INFO, "capillary_async"):
            await session_at(server.url).loyalty_events.list(5).collect()
    assert [record.getMessage() for record in caplog.records if word in record.getMessage()]


@pytest.mark.parametrize(
    ("answer", "word"),
    [(body(refusal(500)), "code 500 under HTTP 200"), (body("<html>"), "not-json under HTTP 200")],
)
async def test_a_retry_of_an_answer_under_http_200(
    session_at: Callable[..., AsyncSession], caplog: pytest.LogCaptureFixture, answer: Answer, word: str
) -> None:
    """What was wrong with it, since the status says nothing."""
    async with RawServer(answer, body('{"data":[],"warnings":[],"errors":[]}')) as server:
        with caplog.at_level(logging.INFO, "capillary_async"):
            await session_at(server.url).loyalty_events.list(5).collect()
    assert [record.getMessage() for record in caplog.records if word in record.getMessage()]


def test_arguments_and_sizes() -> None:
    """What is due instead; what to ask for less of."""
    session = AsyncSession("http://127.0.0.1:1", auth=BasicAuth("till", password="x"))
    with pytest.raises(InvalidRequestError) as caught:
        session.loyalty_events.list("x")
    told(caught.value)
    with pytest.raises(ResponseTooLargeError) as large:
        check_size(10**9)
    told(large.value)


def test_each_class_was_seen(request: pytest.FixtureRequest) -> None:
    """The tests above ran before it: no class of the tree is left out but those that are only bases."""
    run = {getattr(item, "function", None) for item in request.session.items}
    if not {value for name, value in globals().items() if name.startswith("test_")} <= run:
        pytest.skip("only some of the tests above ran")
    bases = {"CapillaryError", "OriginalError"}
    classes = {name for name in errors.__all__ if name.endswith("Error")} - bases
    assert classes - SEEN == set()
