"""The throttle against real servers that count by their own clock: a bucket that refuses, and rates never passed."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.arrivals import most_in_a_window
from support.raw_server import Answer, RawServer, http

from capillary_async import AsyncSession, DeadlineExceededError, Limits, Rate, RetryPolicy, Timeouts

EXPIRY: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2026-01-01",
    "expiry_date_end": "2026-12-31",
}
Make = Callable[..., AsyncSession]


class Bucket(RawServer):
    """A token bucket: what finds it empty is refused, with a time or without."""

    def __init__(self, rate: float, burst: int, after: str | None) -> None:
        super().__init__()
        self._rate, self._burst, self._left = rate, float(burst), float(burst)
        self._last = time.monotonic()
        self._headers = {} if after is None else {"Retry-After": after}
        self.refused = 0

    def answer_to(self, target: str) -> Answer:
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._last) * self._rate)
        self._last = now
        if self._left < 1:
            self.refused += 1
            return http(b"{}", 429, self._headers)
        self._left -= 1
        return http(b"[1]")


class Slow(RawServer):
    """Each answer takes 20 ms."""

    async def _send(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.02)
        return await super()._send(answer, reader, writer)


@pytest.mark.long
@pytest.mark.parametrize("after", ["1", None])
async def test_150_reads_at_once_against_50_a_second(session_at: Make, after: str | None):
    """None fails, few are refused, and most of what the server allows is used: 100 of them take 2 s of its bucket.

    With a time told, and where the session has to find its own.
    """
    async with Bucket(50, 50, after) as server:
        session = session_at(server.url, retry=RetryPolicy())
        began = time.monotonic()
        assert await asyncio.gather(*(session.request("GET", "/path") for _ in range(150))) == [[1]] * 150
        took = time.monotonic() - began
        assert server.hits == 150 + server.refused
        assert server.refused < 60
        assert session.stats.throttles == server.refused
        assert 1.9 <= took < 12


@pytest.mark.long
@pytest.mark.parametrize(
    ("rate", "number"),
    [(Rate(50, per=0.5), 150), (Rate(50, per=1), 101), (Rate(100, per=0.1), 300), (Rate(1000, per=1), 1100)],
    ids=["50 in half a second", "50 a second", "1000 a second in tenths", "1000 a second"],
)
async def test_a_rate_is_never_passed_by_the_servers_own_clock(session_at: Make, rate: Rate, number: int):
    """At concurrency 32, in any window; and it is used: no window more than need be."""
    async with RawServer(http(b"[]")) as server:
        session = session_at(server.url, limits=Limits(rate=rate, concurrency_start=32))
        await asyncio.gather(*(session.request("GET", "/path") for _ in range(number)))
        came = sorted(seen.at for seen in server.seen)
    assert len(came) == number
    assert most_in_a_window(came, rate.per) <= rate.permits
    windows = (number - 1) // rate.permits
    assert windows * rate.per <= came[-1] - came[0] < windows * rate.per + 8


async def test_the_queue_counts_against_no_timeout_of_a_fan_out(session_at: Make):
    """Sixty keys, one at a time, 20 ms each: the last waits for longer than any timeout, and none of them fails."""
    async with Slow(http(b"[]")) as server:
        session = session_at(
            server.url,
            limits=Limits(concurrency=1, concurrency_start=1),
            timeouts=Timeouts(connect=0.8, read=0.8, attempt=0.8, call=0.8),
        )
        began = time.monotonic()
        fan = session.points_allocation.by_expiry_many(range(1, 61), **EXPIRY).options(concurrency=60)
        assert {str(outcome.error) async for outcome in fan} == {"None"}
        assert time.monotonic() - began > 1
        assert server.hits == 60
        assert session.stats.retries == 0
        assert session._shared.throttle._pace.limit == 1


async def test_a_single_call_is_bounded_from_its_beginning(session_at: Make):
    """Its waits in the queue of the session count: for a permit of `concurrency`, and of `rate`, known or not."""
    async with Slow(http(b"[]")) as server:
        timeouts = Timeouts(connect=0.5, read=0.5, attempt=0.5, call=0.5)
        session = session_at(server.url, limits=Limits(concurrency=1, concurrency_start=1), timeouts=timeouts)
        began = time.monotonic()
        calls = [session.request("GET", "/path") for _ in range(60)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 0.9
        late = [error for error in ended if isinstance(error, DeadlineExceededError)]
        assert len(late) + ended.count([]) == 60
        assert server.hits < 60
        unsent = [error for error in late if not error.attempts]
        assert unsent
        assert all("not sent: Timeouts.call ran out" in str(error) and error.kind == "queue" for error in unsent)


@pytest.mark.parametrize("how", ["request", "page", "first", "for"])
async def test_a_busy_session_ends_a_single_call_within_its_time(session_at: Make, how: str):
    """All permits of the rate are used, in bulk or by single calls: the wait for one would pass the call's time."""
    async with RawServer(http(b"[]")) as server:
        session = session_at(server.url, limits=Limits(rate=Rate(20, per=12), concurrency_start=32))
        await asyncio.gather(*(session.request("GET", "/path") for _ in range(20)))
        view = session.with_options(timeouts=Timeouts(call=0.3))
        pager = view.points_allocation.by_expiry(entity_id=1, **EXPIRY)
        calls: dict[str, Callable[[], Any]] = {
            "request": lambda: view.request("GET", "/path"),
            "page": lambda: pager.page(2),
            "first": pager.first,
            "for": pager.collect,
        }
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="not sent") as caught:
            await calls[how]()
        assert time.monotonic() - began < 0.8
        assert caught.value.attempts == 0
        assert server.hits == 20


async def test_the_limit_grows_under_load_and_timeouts_cut_it(session_at: Make):
    """Never more than eight at once in the beginning; and after a stall it is less than before."""
    async with Slow(http(b"[]")) as server:
        session = session_at(server.url)
        await asyncio.gather(*(session.request("GET", "/path") for _ in range(8 * 2)))
        assert server.peak <= 9
        await asyncio.gather(*(session.request("GET", "/path") for _ in range(400)))
        assert 9 < server.peak <= 32
    pace = session._shared.throttle._pace
    before = pace.limit
    async with RawServer(Answer(b"", "stall"), http(b"[]")) as server:
        stalled = session_at(server.url, timeouts=Timeouts(read=0.05))
        assert await stalled.request("GET", "/path") == []
        assert stalled._shared.throttle._pace.limit == 5
    assert before > 8
