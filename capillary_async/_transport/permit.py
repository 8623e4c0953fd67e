"""A permit, and whether its holder can still give it back.

Invariant: a permit belongs to one task in one run of one loop; each of them can be seen to have ended. Made and kept by
`RequestLimiter`.
"""

from __future__ import annotations

import asyncio
import weakref

from attrs import define

__all__ = ["Permit", "permit_here"]


@define(eq=False)
class Permit:
    """The right to one request.

    Attributes:
        loop: Of the request.
        task: Of the request, where it has one. Weak, so that a task without an owner can be collected.
        bulk: Whether it is for the work of a fan-out or a job.
        probe: Whether it is the one request that looks whether a shut gate may open.
    """

    loop: asyncio.AbstractEventLoop
    task: weakref.ref[asyncio.Task[object]] | None
    bulk: bool
    probe: bool = False

    @property
    def gone(self) -> bool:
        """Whether the request never goes on: its loop is closed, or its task has ended or was collected."""
        if self.loop.is_closed():
            return True
        if self.task is None:
            return False
        task = self.task()
        return task is None or task.done()

    @property
    def runs(self) -> bool:
        """Whether its loop runs; one that is stopped may never run again."""
        return self.loop.is_running()


def permit_here(*, bulk: bool) -> Permit:
    """A permit for the current task, not taken yet."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    return Permit(loop, None if task is None else weakref.ref(task), bulk)
