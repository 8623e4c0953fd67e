"""How the workers of a fan-out that have nothing to do help those who read long lists.

Invariant: a page is asked for ahead only with a permit that no key wants just then, and those are shared evenly among
the lists under way: no more pages are begun than there are workers. Asked by walks through the crew.
"""

from __future__ import annotations

__all__ = ["Spare"]


class Spare:
    """Which workers, by number, have nothing to do; those that were never needed included."""

    def __init__(self, workers: int, concurrency: int) -> None:
        self._idle = set(range(workers, concurrency))
        self._all = concurrency

    def __bool__(self) -> bool:
        """Whether anyone is idle."""
        return bool(self._idle)

    def rests(self, worker: int) -> None:
        """It has nothing to do, or has ended."""
        self._idle.add(worker)

    def works(self, worker: int) -> None:
        """It goes on."""
        self._idle.discard(worker)

    def share(self, worker: int) -> int:
        """Pages that a busy worker may have under way ahead: its own and its part of the idle ones' permits.

        0 where there is no part for it: then it asks for page after page. What cannot be shared evenly goes to the
        workers of the lowest numbers, so that it is not claimed twice.
        """
        share, more = divmod(len(self._idle), max(self._all - len(self._idle), 1))
        share += sum(other not in self._idle for other in range(worker)) < more
        return share and 1 + share
