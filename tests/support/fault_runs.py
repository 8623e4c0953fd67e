"""What each fault of an answer is put through: it stays, it goes, it stands in the middle of a paged list.

Invariant: the server is a real socket, a fault is made out of the true answer at an exact byte, and what the server saw
is counted. The tables stand in `test_faults_wire.py` and `test_faults_body.py`.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from capillary_async import AsyncSession, Pager, PointsAllocation, Position, RetryPolicy, Timeouts
from capillary_async.errors import CapillaryError
from support.raw_server import Answer, RawServer, http

ATTEMPTS = 3
THRICE = RetryPolicy(attempts=ATTEMPTS, backoff=0, throttle_backoff=0)
CALM = Timeouts(connect=5, read=5, attempt=10, call=20)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ROWS, SIZE, PAGES = 14, 3, 5
TORN_PAGE = 3
Make = Callable[..., AsyncSession]


@dataclass(frozen=True)
class Fault:
    """One way in which an answer goes wrong, and what must come of it.

    Attributes:
        make: The answer, out of the JSON that should have come.
        error: The class that is raised, exactly.
        kind: The word in the attempt history.
        attempts: Requests that the server must see of a call that may make three.
        keeps: Whether the connection is used again; else each attempt opens one of its own.
        status: The HTTP status in the attempt history.
        says: What the text of the error must tell.
        timeouts: Of the session.
    """

    make: Callable[[bytes], Answer]
    error: type[CapillaryError]
    kind: str
    attempts: int = ATTEMPTS
    keeps: bool = False
    status: int | None = None
    says: str = ""
    timeouts: Timeouts = CALM

    @property
    def connections(self) -> int:
        """What the server must see of a call that fails for good."""
        return 1 if self.keeps else self.attempts


def page_ids(number: int) -> list[int]:
    """The ids of the rows on a page of the list, which has 14 rows on 5 pages of 3."""
    return [37195406289 + row for row in range((number - 1) * SIZE, min(number * SIZE, ROWS))]


def page_json(number: int) -> bytes:
    """A page of the list as it should come."""
    return json.dumps([{"id": one, "points_value": 20.125, "status": "ACTIVE"} for one in page_ids(number)]).encode()


def whole(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    """The bytes of an answer, with a Content-Length that may be a lie."""
    stated = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return HEAD + b"".join(line + b"\r\n" for line in headers) + stated + b"\r\n" + body


def packed(body: bytes, encoding: str = "gzip") -> Answer:
    """A compressed body with the right length, whatever is in it."""
    return http(body, headers={"Content-Encoding": encoding})


def zipped(body: bytes, damage: Callable[[bytes], bytes] = bytes) -> Answer:
    """The body as gzip, damaged."""
    return packed(damage(gzip.compress(body)))


class PagedServer(RawServer):
    """The list of 14 rows; each page gives its faulty answers first."""

    def __init__(self, faults: dict[int, list[Answer]]) -> None:
        super().__init__()
        self._faults = {number: list(answers) for number, answers in faults.items()}

    def answer_to(self, target: str) -> Answer:
        """By the number of the page."""
        number = page_of(target)
        faults = self._faults.get(number)
        return faults.pop(0) if faults else http(page_json(number))

    @property
    def pages(self) -> list[int]:
        """The pages asked for, in order."""
        return [page_of(one.target) for one in self.seen]


def page_of(target: str) -> int:
    """The number of the page that a request asks for."""
    return int(parse_qs(urlsplit(target).query)["page"][0])


def rows_at(session: AsyncSession, **options: Any) -> Pager[PointsAllocation]:
    """The list of the server."""
    pager = session.points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
    return pager.options(page_size=SIZE, **options)


async def ids_of(pager: Pager[PointsAllocation]) -> list[int | None]:
    """The records' ids, in order."""
    return [row.id async for row in pager]


async def ids_until(pager: Pager[PointsAllocation], kind: type[CapillaryError]) -> tuple[list[int | None], Any]:
    """The ids given before the error that must come, and the error."""
    given: list[int | None] = []
    try:
        async for row in pager:
            given.append(row.id)  # noqa: PERF401 - the error must not take them along
    except kind as error:
        return given, error
    pytest.fail(f"the list ended with {given} as if that were all")


async def stays(make: Make, fault: Fault) -> None:
    """The fault is there at every attempt: the error, its story, and so many requests and connections, no more."""
    async with RawServer(fault.make(page_json(1))) as server:
        session = make(server.url, retry=THRICE, timeouts=fault.timeouts)
        given, error = await ids_until(rows_at(session), fault.error)
        assert given == []
        assert (server.hits, server.connections) == (fault.attempts, fault.connections)
    assert type(error) is fault.error
    story = [(one.number, one.kind, one.status) for one in error.history]
    assert story == [(number, fault.kind, fault.status) for number in range(1, fault.attempts + 1)]
    assert error.attempts == fault.attempts == session.stats.requests == session.stats.retries + 1
    assert str(error).startswith("GET /x/neo/pointsAllocation/event: ")
    assert fault.says in str(error)
    assert "\n" not in str(error)
    assert error.position == Position(1)
    assert error.__context__ is None
    assert session.stats.records == 0


async def goes(make: Make, fault: Fault) -> None:
    """The next answer is good: the same records, of one request more; or of the next call, where none is made."""
    async with RawServer(fault.make(page_json(1)), http(page_json(PAGES))) as server:
        session = make(server.url, retry=THRICE, timeouts=fault.timeouts)
        if fault.attempts == 1:
            with pytest.raises(fault.error):
                await ids_of(rows_at(session))
        assert await ids_of(rows_at(session)) == page_ids(PAGES)
        assert (server.hits, server.connections) == (2, 1 if fault.keeps else 2)
        assert (session.stats.records, session.stats.retries) == (2, int(fault.attempts > 1))


async def tears_a_page(make: Make, fault: Fault, prefetch: int) -> None:
    """Page 3 of 5 fails for good: what is before it is given, nothing of it, and its position gives the exact rest."""
    torn = [fault.make(page_json(TORN_PAGE))] * fault.attempts
    async with PagedServer({TORN_PAGE: torn}) as server:
        session = make(server.url, retry=THRICE, timeouts=fault.timeouts)
        given, error = await ids_until(rows_at(session, prefetch=prefetch), fault.error)
        assert given == page_ids(1) + page_ids(2)
        assert error.position == Position(TORN_PAGE, 0, SIZE)
        assert server.pages.count(TORN_PAGE) == fault.attempts
        rest = await ids_of(rows_at(session, prefetch=prefetch, start=error.position))
        assert rest == page_ids(3) + page_ids(4) + page_ids(5)


async def heals_in_a_page(make: Make, answer: Answer, attempts: int = 1) -> None:
    """Page 3 of 5 comes as `answer` first: the list is whole, and was asked for in so many requests more."""
    async with PagedServer({TORN_PAGE: [answer]}) as server:
        session = make(server.url, retry=THRICE)
        assert await ids_of(rows_at(session, prefetch=0)) == [one for page in range(1, 6) for one in page_ids(page)]
        assert server.pages == [1, 2, *[TORN_PAGE] * attempts, 4, 5]
