"""A process that sends requests as fast as its shared rate allows, for so many seconds, by so many workers.

    python rate_client.py URL REDIS PERMITS SECONDS WORKERS

It writes a line when its first request was answered, and ends with 0 if none failed.
"""

from __future__ import annotations

import asyncio
import sys
import time

from capillary_async import AsyncSession, BasicAuth, Limits, Rate


async def main(url: str, redis: str, permits: int, seconds: float, workers: int) -> None:
    """Send."""
    limits = Limits(rate=Rate(permits, per=1, shared=redis))
    async with AsyncSession(url, auth=BasicAuth("till", password="pass"), limits=limits) as session:
        await session.request("GET", "/path")
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        ends = time.monotonic() + seconds

        async def work() -> None:
            while time.monotonic() < ends:
                await session.request("GET", "/path")

        await asyncio.gather(*(work() for _ in range(workers)))


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(main(given[0], given[1], int(given[2]), float(given[3]), int(given[4])))
