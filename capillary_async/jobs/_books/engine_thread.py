"""DuckDB's work in a thread beside the event loop.

Invariant: a cancelled job interrupts its engine and has ended before the cancellation goes on. Used by `reconcile` and
the reports.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, TypeVar

from capillary_async.jobs._exporting.writer import in_thread

__all__ = ["Interruptible", "run_in_thread"]

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Interruptible(Protocol[R_co]):
    """Work that a thread runs and another one may end."""

    def run(self) -> R_co:
        """Do all of it."""
        ...

    def interrupt(self) -> None:
        """End what runs now."""
        ...


async def run_in_thread(job: Interruptible[R]) -> R:
    """Run it to its end; being cancelled ends it first."""
    work = asyncio.ensure_future(in_thread(job.run))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            job.interrupt()  # between two statements there is nothing to interrupt: so again
            await asyncio.wait([work], timeout=0.1)
        with contextlib.suppress(Exception):
            work.result()
        raise
