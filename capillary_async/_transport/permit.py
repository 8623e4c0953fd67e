"""Permits: whether the holder of each can still give it back, and what is taken back where it cannot.

Invariant: a permit belongs to one task in one run of one loop; each of them can be seen to have ended, and then keeps
no permit. Made and kept by `RequestLimiter`, under its lock.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from typing import TYPE_CHECKING

from attrs import define

from capillary_async._loops import running_loop

if TYPE_CHECKING:
    from capillary_async._transport.adaptive_limit import AdaptiveLimit

__all__ = ["Permit", "Permits", "permit_here"]

_LOOK_EVERY = 0.1  # seconds between two looks, from the same loop, whether holders have ended


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


class Permits:
    """The permits that are taken, over all loops.

    What a stopped loop holds is taken back as soon as another loop looks, since it may never run again. If it does run
    again, its requests go on and are counted again until they end; new ones wait meanwhile.

    Args:
        pace: The numbers of the session.
    """

    def __init__(self, pace: AdaptiveLimit) -> None:
        self._pace = pace
        self.lapsed: set[Permit] = set()  # taken back from a loop that was stopped and may run again
        self._looked: tuple[asyncio.AbstractEventLoop | None, float] = (None, -math.inf)

    def give(self, permit: Permit) -> bool:
        """Take a permit back; False where that was done before."""
        if permit in self._pace.held:
            self._pace.held.discard(permit)
            return True
        if permit in self.lapsed:  # of a loop that ran again: what was sent then counts from now
            self.lapsed.discard(permit)
            self._pace.lost(1)
        return False

    def blocked(self) -> float | None:
        """None if a permit is free; else the seconds until one may be (0.0: when a request ends)."""
        if self.lapsed:
            self._restore()
        blocked = self._pace.wait()
        return self._pace.wait() if blocked is not None and self._reclaim() else blocked

    def _reclaim(self) -> bool:
        """Take back what never comes back by itself."""
        here, now = running_loop(), time.monotonic()
        if self._looked[0] is here and now - self._looked[1] < _LOOK_EVERY:
            return False
        self._looked = (here, now)
        pace = self._pace
        lost = [permit for permit in list(pace.held) if not permit.runs or permit.gone]
        lost += [permit for permit in list(pace.on_its_way) if not permit.runs]
        for permit in lost:
            if permit in pace.held and not permit.gone:
                self.lapsed.add(permit)
            pace.held.discard(permit)
            pace.on_its_way.discard(permit)
            pace.lost(1)  # it may have been sent
            pace.gate.probe_dropped(permit)
        return bool(lost)

    def _restore(self) -> None:
        """Count the requests of loops that run again."""
        for permit in list(self.lapsed):
            if permit.gone:
                self.lapsed.discard(permit)
            elif permit.runs:
                self.lapsed.discard(permit)
                self._pace.held.add(permit)
