"""A fan-out against a real server that goes down and comes back, or refuses the password: no key burnt, no storm."""

import asyncio
import time
from collections.abc import Callable

import pytest
from support.raw_server import Answer, RawServer, http

from capillary_async import AsyncSession, AuthenticationError, RetryPolicy, ServerError, Timeouts

Make = Callable[..., AsyncSession]
EXPIRY = {
    "program_id": 1, "point_category_id": 2, "expiry_date_start": "2025-06-01", "expiry_date_end": "2027-06-01",
}  # fmt: skip


class Down(RawServer):
    """Answers, and behind so many requests is down for a time: resets for half of it, then a proxy's 503."""

    def __init__(self, behind: int, seconds: float) -> None:
        super().__init__()
        self._behind, self._seconds = behind, seconds
        self._began: float | None = None
        self.asked_while_down = 0

    def answer_to(self, target: str) -> Answer:
        now = time.monotonic()
        if self._began is None and self.hits > self._behind:
            self._began = now
        if self._began is None or now - self._began >= self._seconds:
            return http(b"[]")
        self.asked_while_down += 1
        return Answer(b"", "reset") if now - self._began < self._seconds / 2 else http(b"<html>down", 503)


async def test_an_outage_in_the_middle_of_a_fan_out_loses_no_key(session_at: Make):
    """3,000 keys and 0.8 s: each is answered, for a few requests more than there are keys."""
    async with Down(1500, 0.8) as server:
        # More attempts than the quota has for a call: none can be used up before it is empty.
        session = session_at(server.url, retry=RetryPolicy(attempts=40))
        outcomes = await session.points_allocation.by_expiry_many(range(1, 3001), **EXPIRY).collect()
        assert len(outcomes) == 3000
        assert all(outcome.ok for outcome in outcomes.values())
        assert server.asked_while_down < 150
        assert server.hits == 3000 + server.asked_while_down + 1  # an answered request was repeated


async def test_a_wrong_password_ends_a_fan_out_over_a_million_keys_after_a_handful_of_requests(session_at: Make):
    """None of the keys has an outcome, and hardly any was drawn."""
    drawn = 0

    def keys():
        nonlocal drawn
        for key in range(1, 1_000_001):
            drawn = key
            yield key

    async with RawServer(http(b'{"errors":[{"code":401,"message":"no"}]}', 401)) as server:
        session = session_at(server.url)
        fan = session.points_allocation.by_expiry_many(keys(), **EXPIRY)
        with pytest.raises(AuthenticationError):
            await anext(aiter(fan))
        assert server.hits <= 32
        assert drawn < 1000


async def test_a_dead_server_costs_many_fan_outs_no_more_requests_than_one(session_at: Make):
    """300 tasks, each with a fan-out of its own, against a server that refuses everything."""
    sent: list[int] = []
    for tasks in (1, 300):
        async with RawServer(http(b"<html>down", 503)) as server:
            session = session_at(
                server.url, retry=RetryPolicy(quota=50, throttle_backoff=0.01), timeouts=Timeouts(call=4)
            )
            fans = [
                session.points_allocation.by_expiry_many(range(1, 301) if tasks == 1 else [key], **EXPIRY)
                for key in range(1, tasks + 1)
            ]
            ends = await asyncio.gather(*(fan.collect() for fan in fans), return_exceptions=True)
            assert all(isinstance(end, ServerError) and end.outage for end in ends)
            sent.append(server.hits)
    assert sent[1] <= sent[0] + 10
    assert sent[1] <= 60


async def test_an_outage_costs_at_most_one_request_in_fifty(session_at: Make):
    """Of 1 s in 2,000 keys, from which every key comes back."""
    async with Down(1000, 1.0) as server:
        session = session_at(server.url, retry=RetryPolicy(quota=50))
        outcomes = await session.points_allocation.by_expiry_many(range(1, 2001), **EXPIRY).collect()
        assert all(outcome.ok for outcome in outcomes.values())
        assert len(outcomes) == 2000
        assert server.hits <= 2000 * 1.02 + 10
        assert server.hits == 2000 + server.asked_while_down + 1  # an answered request was repeated


async def test_single_calls_of_a_session_in_an_outage_are_refused_unsent(session_at: Make):
    """One goes and fails; the next say when another may go."""
    async with RawServer(http(b"{}", 500)) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=2, quota=14, backoff=0))
        errors: list[ServerError] = []
        for _ in range(6):
            with pytest.raises(ServerError) as caught:
                await session.request("GET", "/path")
            errors.append(caught.value)
        assert [error.sent for error in errors] == [True, True, True, False, False, False]
        assert server.hits == 4
        assert all(0 < (error.retry_after or 0) <= 1 for error in errors[3:])
