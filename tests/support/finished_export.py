"""Finished exports for tests of what is done with them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from capillary_async import AsyncSession, BasicAuth, RetryPolicy, jobs
from support.job_server import QUERY, at_once

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def export_to(out: Path, url: str, ids: Iterable[Any], **options: Any) -> Path:
    """Export allocations of customers into a folder, from a server of `job_server`."""

    async def export() -> None:
        async with AsyncSession(url, auth=BasicAuth("till", password="p"), retry=RetryPolicy(attempts=1)) as session:
            given: dict[str, Any] = {"shard_keys": 12, "sleep": at_once, **QUERY, **options}
            await jobs.export("allocations", list(ids), out, session=session, **given)

    asyncio.run(export())
    return out
