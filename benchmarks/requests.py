"""Requests that lists cost, by their length: `python -m benchmarks.requests` prints the table of `performance.md`.

Invariant: counted by the list's own server, nothing is computed. A row for each length; the columns are a plain reading
with and without reading ahead, one with verify, and the first and the fifth customer of a job.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from capillary_async import AsyncSession, BasicAuth, Paging

LENGTHS = (0, 1, 9, 10, 20, 37, 50, 99, 100, 101, 150, 199, 200, 250, 300, 450, 500, 999, 1000)
QUERY: dict[str, Any] = {
    "program_id": 1, "point_category_id": 1, "expiry_date_start": "2025-01-01", "expiry_date_end": "2026-01-01",
}  # fmt: skip


class Lists:
    """A server whose customer n has n allocations, and which counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, request: web.Request) -> web.Response:
        """Answer one page."""
        self.asked += 1
        page, size = int(request.query["page"]), int(request.query["count"])
        customer = int(request.query["entity_id"])
        held = range(customer % 10_000)[(page - 1) * size : page * size]
        return web.json_response([{"id": number + 1, "customer_id": customer} for number in held])


async def cost(url: str, lists: Lists, length: int, paging: Paging) -> int:
    """The requests of one list, in a session of its own."""
    async with AsyncSession(url, auth=BasicAuth("till", password="x"), paging=paging) as session:
        before = lists.asked
        records = await session.points_allocation.by_expiry(entity_id=10_000 + length, **QUERY).collect()
    if len(records) != length:
        raise RuntimeError(f"{len(records)} records of {length}")
    return lists.asked - before


async def main() -> None:
    """Serve, read, print."""
    lists = Lists()
    app = web.Application()
    app.router.add_get("/x/neo/pointsAllocation/dateRange", lists)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print("| records | `prefetch=0` | `prefetch=4` | `verify` |")
    print("|---|---|---|---|")
    kinds = (Paging(prefetch=0), Paging(), Paging(verify=True, prefetch=0))
    for length in LENGTHS:
        counted = [await cost(url, lists, length, paging) for paging in kinds]
        print(f"| {length:,} | {' | '.join(map(str, counted))} |")
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
