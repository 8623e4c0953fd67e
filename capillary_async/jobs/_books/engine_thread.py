"""DuckDB's work in a thread beside the event loop.

Invariant: a cancelled call interrupts its engine, and the thread has ended before the cancellation goes on. Used by
`_reconcile.py` and `_report/point_reports.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

from capillary_async._files.threads import in_thread, join
from capillary_async.jobs._books.duckdb_engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["run_in_thread", "run_with_engine"]

R = TypeVar("R")


async def run_with_engine(
    work: Callable[[Engine], R], *, beside: Path | None, memory_limit: str, threads: int | None
) -> R:
    """Run work in a thread with an engine of its own; being cancelled ends it first."""
    engines: list[Engine] = []

    def run() -> R:
        with Engine(beside, memory_limit=memory_limit, threads=threads) as engine:
            engines.append(engine)
            return work(engine)

    def interrupt() -> None:
        for engine in engines:
            engine.interrupt()

    return await run_in_thread(run, interrupt)


async def run_in_thread(work: Callable[[], R], interrupt: Callable[[], None] = lambda: None) -> R:
    """Run work in a thread to its end; being cancelled interrupts it and waits for its end."""
    call = asyncio.ensure_future(in_thread(work))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await join(call, meanwhile=interrupt)  # again and again: between two statements there is nothing to interrupt
        with contextlib.suppress(Exception):
            call.result()
        raise
