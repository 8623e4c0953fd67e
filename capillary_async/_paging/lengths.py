"""`Lengths`: the lengths of pages of each endpoint, which show a page that a server's cap shortened.

Invariant: rows are looked for after a page 1 of a length until three looks found nothing, a page is longer, or rows
were found; never more often, however many readings run at once. Belongs to the session; called by `ListReader`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Literal

from capillary_async._loops import call_in

__all__ = ["LOOKS", "Lengths", "Verdict"]

LOOKS = 3  # looks that found nothing at a length, after which it is no cap
_RECHECK = 1.0  # seconds after which a reading that waits for another's look checks whether that still runs

Verdict = Literal["end", "cap", "look"]


class _Known:
    """What is known of one endpoint at one page size requested."""

    def __init__(self) -> None:
        self.longest = 0
        self.full = False
        self.cap: int | None = None
        self.nothing: Counter[int] = Counter()  # looks that found nothing, by length
        self.looking: list[tuple[int, asyncio.AbstractEventLoop]] = []
        self.waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def under_way(self, length: int) -> int:
        """Number of looks at this length in flight; those of a loop that no longer runs do not end."""
        return sum(length == at and loop.is_running() for at, loop in self.looking)

    def verdict(self, received: int) -> Verdict:
        """What a page 1 of this length is, as far as is known."""
        if self.full or received < self.longest:
            return "end"
        if self.cap == received:
            return "cap"
        return "look" if self.nothing[received] < LOOKS else "end"


class Lengths:
    """The lengths of pages, by endpoint and page size requested. Shared by views, threads and loops.

    Attributes:
        learns: Whether earlier looks count. False in a replay, which looks after each short page 1: whether the
            original session did depends on the order of its answers.
    """

    learns = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], _Known] = {}

    def note(self, endpoint: str, asked: int, received: int) -> None:
        """Record the length of a page."""
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

    def ends(self, endpoint: str, asked: int, received: int, *, careful: bool) -> bool:
        """Whether a page 1 of this length is the end; if `careful`, only where nothing is left to be looked at."""
        with self._lock:
            verdict = self._of(endpoint, asked).verdict(received) if self.learns else "look"
        return verdict == "end" or (verdict == "look" and not careful)

    async def verdict(self, endpoint: str, asked: int, received: int) -> Verdict:
        """Whether a page 1 of this length is the end, a cap, or to be looked at; a look ends with a call of `looked`.

        Waits while other readings look at this length and their looks may be enough.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                known = self._of(endpoint, asked)
                if self.learns and (verdict := known.verdict(received)) != "look":
                    return verdict
                if not self.learns or known.under_way(received) < LOOKS - known.nothing[received]:
                    known.looking.append((received, loop))
                    return "look"
                ended = loop.create_future()
                known.waiting.append((loop, ended))
            await asyncio.wait([ended], timeout=_RECHECK)

    def begin(self, endpoint: str, asked: int, received: int) -> None:
        """Record a look without a verdict: the answer itself reports that there are more rows."""
        with self._lock:
            self._of(endpoint, asked).looking.append((received, asyncio.get_running_loop()))

    def looked(self, endpoint: str, asked: int, received: int, *, found: bool | None) -> None:
        """Record that a look ended: it found rows, or none, or it failed (None)."""
        loop = asyncio.get_running_loop()
        with self._lock:
            known = self._of(endpoint, asked)
            known.looking.remove((received, loop))
            if found:
                known.cap = received
            elif found is not None:
                known.nothing[received] += 1
            waiting, known.waiting = known.waiting, []
        for owner, ended in waiting:
            call_in(owner, _release, ended)


def _release(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
