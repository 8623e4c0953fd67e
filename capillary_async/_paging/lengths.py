"""`Lengths`: how long the pages of each endpoint come, so that a page that a server cut short is not taken for the end.

Invariant: a length is looked behind until three looks found nothing, no page is longer, or rows were found; never more
than that, however many readings ask at once. Belongs to the session; asked by walks of `verify` and of the jobs.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Literal

from capillary_async._loops import call_in

__all__ = ["LOOKS", "Lengths", "Verdict"]

LOOKS = 3  # that found nothing at a length, and it is no cap
_RECHECK = 1.0  # seconds after which one who waits for another's look sees whether that still runs

Verdict = Literal["end", "cap", "look"]


class _Known:
    """What is known of one endpoint at one size asked."""

    def __init__(self) -> None:
        self.longest = 0
        self.full = False
        self.cap: int | None = None
        self.nothing: Counter[int] = Counter()  # looks that found nothing, by length
        self.looking: list[tuple[int, asyncio.AbstractEventLoop]] = []
        self.waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def under_way(self, length: int) -> int:
        """Looks at this length; those of a loop that no longer runs will come to nothing."""
        return sum(length == at and loop.is_running() for at, loop in self.looking)


class Lengths:
    """The lengths of pages, by endpoint and size asked. Shared by views, threads and loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], _Known] = {}

    def note(self, endpoint: str, asked: int, received: int) -> None:
        """A page came."""
        known = self._known.get((endpoint, asked))
        # Without the lock: both only grow, and nearly every page brings nothing new.
        if known is not None and received <= known.longest and (known.full or received < asked):
            return
        with self._lock:
            known = self._of(endpoint, asked)
            known.full = known.full or received >= asked
            if received > known.longest:
                known.longest, known.cap = received, None

    def _of(self, endpoint: str, asked: int) -> _Known:
        known = self._known.get((endpoint, asked))
        if known is None:
            known = self._known[endpoint, asked] = _Known()
        return known

    def is_cap(self, endpoint: str, asked: int, received: int) -> bool:
        """Whether rows were found behind a page 1 of this length."""
        known = self._known.get((endpoint, asked))
        return known is not None and not known.full and known.cap == received

    async def verdict(self, endpoint: str, asked: int, received: int) -> Verdict:
        """What a page 1 of this length is. Who is told to look says with `looked` what was found.

        Waits where others look at this length just now and their looks may be enough.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                known = self._of(endpoint, asked)
                if known.full or received < known.longest:
                    return "end"
                if known.cap == received:
                    return "cap"
                left = LOOKS - known.nothing[received]
                if left <= 0:
                    return "end"
                if known.under_way(received) < left:
                    known.looking.append((received, loop))
                    return "look"
                told = loop.create_future()
                known.waiting.append((loop, told))
            await asyncio.wait([told], timeout=_RECHECK)

    def begin(self, endpoint: str, asked: int, received: int) -> None:
        """A look begins that no verdict was asked for: the answer itself says that there is more."""
        with self._lock:
            self._of(endpoint, asked).looking.append((received, asyncio.get_running_loop()))

    def looked(self, endpoint: str, asked: int, received: int, *, found: bool | None) -> None:
        """A look ended: rows were found, or none, or it failed (None)."""
        loop = asyncio.get_running_loop()
        with self._lock:
            known = self._of(endpoint, asked)
            known.looking.remove((received, loop))
            if found:
                known.cap = received
            elif found is not None:
                known.nothing[received] += 1
            waiting, known.waiting = known.waiting, []
        for owner, told in waiting:
            call_in(owner, _tell, told)


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
