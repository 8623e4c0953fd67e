"""Under `asyncio.eager_task_factory` a task may have ended before its handle is kept: nothing waits for it then."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.raw_server import RawServer, http, said

from capillary_async import AsyncSession, BasicAuth, OAuthClient, RateLimitedError, Response

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")

TOKEN = said({"data": {"accessToken": "token", "ttlSeconds": 3000}, "errors": None})
EXPIRY: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2026-01-01",
    "expiry_date_end": "2026-12-31",
}


def eagerly(work: Callable[[], Awaitable[None]]) -> None:
    """Run with eager tasks, within five seconds."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        async with asyncio.timeout(5):
            await work()

    asyncio.run(main())


def test_a_token_refused_for_too_long_is_fetched_when_the_service_is_well_again():
    """The gate is shut beyond `retry_after_max`: the next fetch ends before its handle is kept, and none stays."""

    async def work() -> None:
        refused = http(b"{}", 429, {"Retry-After": "100000"})
        async with RawServer(http(b"[]"), **{"v3/oauth/token/generate": [refused, TOKEN]}) as server:
            session = AsyncSession(server.url, auth=OAuthClient("key", "secret"))
            for _ in range(3):
                with pytest.raises(RateLimitedError):
                    await session.request("GET", "/path")
            session._shared.throttle._pace.gate.state = None  # well again
            assert await session.request("GET", "/path") == []
            await session.aclose()

    eagerly(work)


def test_lists_and_fan_outs_whose_answers_are_there_at_once():
    """A middleware gives them: each task of pages and workers ends in its first step."""
    bodies = {page: f"[{','.join(row(page * 2 + k) for k in range(2))}]" if page < 9 else "[]" for page in range(1, 30)}

    async def cached(request: Any, _: Any) -> Response:
        page = next(int(part.partition("=")[2]) for part in request.query.split("&") if part.startswith("page="))
        return Response(200, {}, bodies[page].encode())

    async def work() -> None:
        session = AsyncSession("https://example.test", auth=BasicAuth("u", password="p"), middlewares=[cached])
        pager = session.points_allocation.by_expiry(entity_id=1, **EXPIRY).options(page_size=2)
        assert len(await pager.collect()) == 16
        async for _ in pager:
            break
        fan = session.points_allocation.by_expiry_many(range(1, 101), **EXPIRY)
        assert sum([outcome.ok async for outcome in fan]) == 100
        async for _ in fan:
            break
        assert sum([outcome.ok async for outcome in fan.ordered()]) == 100
        await session.aclose()
        assert len(asyncio.all_tasks()) == 1

    eagerly(work)


def row(number: int) -> str:
    return f'{{"id": {number}}}'


def test_lists_fan_outs_and_tokens_over_a_server():
    """And closing with a fetch under way."""

    async def work() -> None:
        async with RawServer(http(b"[]"), **{"v3/oauth/token/generate": [TOKEN]}) as server:
            async with AsyncSession(server.url, auth=OAuthClient("key", "secret")) as session:
                assert await session.points_allocation.by_expiry(entity_id=1, **EXPIRY).collect() == []
                fan = session.points_allocation.by_expiry_many(range(1, 101), **EXPIRY)
                assert len(await fan.collect()) == 100
            async with AsyncSession(server.url, auth=OAuthClient("key", "secret")) as session:
                call = asyncio.ensure_future(session.request("GET", "/path"))
                await asyncio.sleep(0)
            with pytest.raises((RuntimeError, asyncio.CancelledError)):
                await call

    eagerly(work)
