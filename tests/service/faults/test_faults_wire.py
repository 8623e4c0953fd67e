"""Connections and HTTP that go wrong at an exact byte: what each becomes, and how often the server is asked.

Columns: the answer, the class, the word in the history. Where nothing else is said, three attempts are three requests
on three connections.
"""

import asyncio
import gzip

import pytest
from support.fault_runs import (
    HEAD,
    Fault,
    Make,
    PagedServer,
    goes,
    heals_in_a_page,
    ids_of,
    page_ids,
    page_json,
    rows_at,
    stays,
    tears_a_page,
    whole,
)
from support.raw_server import MOMENT, Answer, RawServer, chunked, http

from capillary_async import Paging, Position, RetryPolicy, Timeouts
from capillary_async.errors import RequestTimeoutError, TransportError

IMPATIENT = Timeouts(connect=5, read=0.15, attempt=5, call=10)
SHORT = Timeouts(connect=5, read=5, attempt=0.2, call=10)
LONG_HEADER = b"X-Long: " + b"x" * 20_000


def cut(at: int, then: str) -> Fault:
    """The whole answer up to a byte of its body, and the end of the connection there."""
    return Fault(lambda body: Answer(whole(body)[: at - len(body) or None], then), TransportError, "cut-body")


def torn(make: bytes | None = None, kind: str = "protocol", **options: str) -> Fault:
    """A head that is no HTTP, in front of a body that is right."""
    return Fault(lambda body: Answer((make or b"") + body, **options), TransportError, kind)


FAULTS = {
    "closed before the headers": Fault(lambda _: Answer(b"", "close"), TransportError, "disconnected"),
    "reset before the headers": Fault(lambda _: Answer(b"", "reset"), TransportError, "disconnected"),
    "closed in the status line": Fault(lambda _: Answer(HEAD[:11], "close"), TransportError, "disconnected"),
    "closed in the headers": Fault(lambda _: Answer(HEAD, "close"), TransportError, "disconnected"),
    "reset in the headers": Fault(lambda _: Answer(HEAD, "reset"), TransportError, "disconnected"),
    "closed behind the headers": cut(0, "close"),
    "reset behind the headers": cut(0, "reset"),
    "closed in the body": cut(40, "close"),
    "reset in the body": cut(40, "reset"),
    "Content-Length one too long": Fault(
        lambda body: Answer(whole(body, length=len(body) + 1), "close"), TransportError, "cut-body"
    ),
    "Content-Length too short": Fault(
        lambda body: Answer(whole(body, length=len(body) - 4)), TransportError, "protocol"
    ),
    "Content-Length negative": torn(HEAD + b"Content-Length: -1\r\n\r\n"),
    "Content-Length no number": torn(HEAD + b"Content-Length: 1e2\r\n\r\n"),
    "two Content-Lengths": torn(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    "Content-Length beside chunks": torn(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "closed in a chunk": Fault(
        lambda body: chunked(body[:20], end=b"40\r\n" + body[20:50], then="close"), TransportError, "cut-body"
    ),
    "last chunk missing": Fault(lambda body: chunked(body, end=b"", then="close"), TransportError, "cut-body"),
    "end of the last chunk missing": Fault(
        lambda body: chunked(body, end=b"0\r\n", then="close"), TransportError, "cut-body"
    ),
    "chunk size no number": Fault(lambda body: chunked(body, end=b"zz\r\nx\r\n"), TransportError, "protocol"),
    "chunk size too small": Fault(
        lambda body: Answer(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + body + b"\r\n0\r\n\r\n"),
        TransportError, "protocol",
    ),
    "bad chunk size in a packet of its own": Fault(
        lambda body: chunked(body, end=b"zz\r\nx\r\n", then="stall", pause=len(chunked(body, end=b"").data)),
        RequestTimeoutError, "timeout", timeouts=IMPATIENT, says="Timeouts.read",
    ),
    "no HTTP at all": torn(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", then="close"),
    "bad status line": torn(b"HTTP/1.1 2OO OK\r\nContent-Length: 2\r\n\r\n"),
    "header of 20 kB": torn(HEAD + LONG_HEADER + b"\r\nContent-Length: 2\r\n\r\n"),
    "300 headers": torn(HEAD + b"X-Many: a\r\n" * 300 + b"\r\n"),
    "NUL in a header": torn(HEAD + b"X-Odd: a\0b\r\nContent-Length: 2\r\n\r\n"),
    "silence before the headers": Fault(
        lambda _: Answer(b"", "stall"),
        RequestTimeoutError, "timeout", timeouts=IMPATIENT, says="0.15 s of Timeouts.read",
    ),
    "silence in the headers": Fault(
        lambda _: Answer(HEAD, "stall"), RequestTimeoutError, "timeout", timeouts=IMPATIENT, says="Timeouts.read"
    ),
    "silence in the body": Fault(
        lambda body: Answer(whole(body)[:-20], "stall"),
        RequestTimeoutError, "timeout", timeouts=IMPATIENT, says="Timeouts.read",
    ),
    "a byte at a time": Fault(
        lambda body: Answer(whole(body), every=0.02),
        RequestTimeoutError, "timeout", timeouts=SHORT, says="0.2 s of Timeouts.attempt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_that_stays_is_an_error_with_its_story(session_at: Make, name: str):
    await stays(session_at, FAULTS[name])


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_that_goes_is_healed_by_the_next_attempt(session_at: Make, name: str):
    await goes(session_at, FAULTS[name])


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize("name", FAULTS)
async def test_no_record_of_a_torn_page_is_given_and_none_is_lost(session_at: Make, name: str, prefetch: int):
    await tears_a_page(session_at, FAULTS[name], prefetch)


ODD_BUT_WHOLE = {
    "Connection: close": lambda body: Answer(whole(body, b"Connection: close"), "close"),
    "no length, ended by closing": lambda body: Answer(HEAD + b"\r\n" + body, "close"),
    "HTTP/1.0": lambda body: Answer(b"HTTP/1.0 200 OK\r\n\r\n" + body, "close"),
    "100 Continue before": lambda body: Answer(b"HTTP/1.1 100 Continue\r\n\r\n" + whole(body)),
    "103 Early Hints before": lambda body: Answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + whole(body)),
    "in two packets": lambda body: Answer(whole(body), pause=len(whole(body)) - 20),
    "headers and body in a packet each": lambda body: Answer(whole(body), pause=len(whole(body)) - len(body)),
    "chunks of one byte": lambda body: chunked(*[bytes([octet]) for octet in body]),
    "chunk extensions and trailers": lambda body: Answer(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%s\r\n0\r\nX-T: 1\r\n\r\n" % (len(body), body)
    ),
    "reset behind the last byte": lambda body: Answer(whole(body), "reset"),
    "slow, within its time": lambda body: Answer(whole(body), every=0.0002),
}


@pytest.mark.parametrize("name", ODD_BUT_WHOLE)
async def test_what_is_odd_and_whole_is_no_fault(session_at: Make, name: str):
    """One request: nothing is asked for twice that came once."""
    await heals_in_a_page(session_at, ODD_BUT_WHOLE[name](page_json(3)))


BODIES = {
    "with a length": whole(page_json(1)),
    "in chunks": chunked(page_json(1)[:50], page_json(1)[50:]).data,
    "as gzip": whole(gzip.compress(page_json(1)), b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("name", BODIES)
async def test_cut_at_any_byte_it_is_asked_for_once_more(session_at: Make, name: str, then: str):
    """Every byte of the answer, one after the other: two requests, the same three records, nothing else."""
    data = BODIES[name]
    answers = [one for at in range(len(data)) for one in (Answer(data[:at], then), Answer(data))]
    async with RawServer(*answers) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=2, backoff=0, quota=len(data) * 14))
        for at in range(len(data)):
            assert await ids_of(rows_at(session, max_items=3)) == page_ids(1), at
            assert server.hits == 2 * at + 2
        assert session.stats.records == 3 * len(data)


async def test_what_was_left_over_of_an_answer_never_gets_into_another(session_at: Make):
    """A length that is too short cuts the JSON; its end comes later, perhaps into the next attempt's answer."""
    body = page_json(1)
    short = Answer(whole(body, length=len(body) - 4), pause=len(whole(body)) - 4)
    async with RawServer(short, http(body)) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=3, backoff=0))
        assert await ids_of(rows_at(session, max_items=3)) == page_ids(1)
        assert server.hits in (2, 3)
        assert session.stats.records == 3


async def test_a_page_torn_for_good_is_one_failed_customer_of_many(session_at: Make):
    """The others are whole; the failed one has an error, and not a short list."""
    async with PagedServer({3: [Answer(b"", "close")] * 3}) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=3, backoff=0))
        queries = session.points_allocation.by_expiry_many(
            [1, 2], program_id=1, point_category_id=1, expiry_date_start="2026-01-01", expiry_date_end="2026-12-31"
        )
        fan = queries.options(concurrency=1, paging=Paging(page_size=3, prefetch=0))
        first, second = [one async for one in fan]
        assert (first.key, first.ok, first.items, first.pages) == (1, False, (), 2)
        assert first.error is not None
        assert first.error.position == Position(1)  # since nothing of it was given
        assert (second.key, second.ok, len(second.items), second.pages) == (2, True, 14, 5)


# --- kept connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_kept_connection_closed_between_two_calls_costs_one_more_and_nothing_else(session_at: Make, then: str):
    """The server said keep-alive and left: no attempt is lost, no request is sent twice."""
    async with RawServer(http(b"[]", then=then), http(b"[]")) as server:
        session = session_at(server.url)
        for calls in (1, 2):
            await session.request("GET", "/path")
            await server.until_sent(calls)
            await gone()
        assert (server.hits, server.connections, session.stats.retries) == (2, 2, 0)


async def gone() -> None:
    """What the server did reaches the client: a turn of the loop is enough."""
    await asyncio.sleep(MOMENT)


EXTRA = {
    "another answer": whole(b'{"whose": "of nobody"}'),
    "half of another answer": whole(b'{"whose": "of nobody"}')[:-5],
    "a 408 on leaving": b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"so long, and thanks for all the fish\r\n",
    "blank lines": b"\r\n\r\n",
}


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("name", EXTRA)
async def test_what_comes_unasked_is_never_the_answer_to_the_next_request(session_at: Make, name: str, apart: bool):
    """Behind an answer, in its packet or in one of its own: the next call gets its own records, and no other's."""
    head = whole(b'{"whose": "the first"}')
    both = Answer(head + EXTRA[name], pause=len(head) if apart else None)
    torn_at_once = name == "no HTTP" and not apart  # the parser refuses the packet, so that the answer is torn too
    async with RawServer(first=[both, Answer(head)], second=[http(b'{"whose": "mine"}')]) as server:
        session = session_at(server.url)
        assert await session.request("GET", "/first") == {"whose": "the first"}
        await server.until_sent(1)
        await gone()
        assert await session.request("GET", "/second") == {"whose": "mine"}
        assert server.hits == (3 if torn_at_once else 2)
        assert server.connections == (1 if name == "blank lines" else 2)
