"""Single calls beside a fan-out, and a fan-out alone: `python -m benchmarks.beside`.

A loopback server answers each request after 20 ms. For each of three limits a fan-out over 100,000 keys runs, single
calls come at uneven moments, and their seconds are taken; then a fan-out runs alone for a while, and its requests are
counted. The rate of 100 a minute is scaled to 100 in 6 s, so that its times are ten times those measured, and an answer
of 20 ms stands for one of 200.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from aiohttp import web

from capillary_async import AsyncSession, BasicAuth, Limits, Rate, Timeouts

ANSWER = 0.02  # seconds
BESIDE = 18.0  # seconds: three windows of the slowest rate
ALONE = 18.0
SCALE = 10.0
LIMITS = {
    "Rate(50, per=1)": (Limits(rate=Rate(50, per=1)), 1.0),
    "Rate(100, per=60)": (Limits(rate=Rate(100, per=60 / SCALE)), SCALE),
    "no rate, concurrency 32": (Limits(), 1.0),
}
QUERY: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2026-01-01",
    "expiry_date_end": "2026-12-31",
}


async def _answer(_: web.Request) -> web.Response:
    await asyncio.sleep(ANSWER)
    return web.json_response([])


async def _read(session: AsyncSession) -> None:
    async for _ in session.points_allocation.by_expiry_many(range(1, 100_001), **QUERY):
        pass


async def _calls(session: AsyncSession, pause: float) -> list[float]:
    """Seconds of single calls at uneven moments."""
    dice, waited = random.Random(9), []
    ends = time.monotonic() + BESIDE
    while time.monotonic() < ends:
        await asyncio.sleep(dice.uniform(0, 2 * pause))
        began = time.monotonic()
        await session.request("GET", "/single")
        waited.append(time.monotonic() - began)
    return sorted(waited)


async def _measure(url: str, name: str) -> str:
    limits, scale = LIMITS[name]
    options: dict[str, Any] = {
        "auth": BasicAuth("till", password="x"),
        "limits": limits,
        "timeouts": Timeouts(call=180),
    }
    async with AsyncSession(url, **options) as session:
        reading = asyncio.ensure_future(_read(session))
        waited = await _calls(session, 0.04 * scale)
        reading.cancel()
        await asyncio.wait([reading])
    async with AsyncSession(url, **options) as session:
        reading = asyncio.ensure_future(_read(session))
        await asyncio.sleep(ALONE)
        alone = session.stats.requests
        reading.cancel()
        await asyncio.wait([reading])
    p50, p99 = (waited[int(len(waited) * share)] * scale * 1000 for share in (0.5, 0.99))
    per = f"{alone / ALONE / scale:.2f} requests a second alone"
    return f"{name:26} p50 {p50:8.0f} ms   p99 {p99:8.0f} ms   of {len(waited):3} calls; {per}"


async def _main() -> None:
    app = web.Application()
    app.router.add_get("/{path:.*}", _answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    for name in LIMITS:
        print(await _measure(f"http://{host}:{port}", name), flush=True)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_main())
