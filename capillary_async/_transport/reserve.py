"""The part of a rate that bulk calls leave free for single calls.

Invariant: pure arithmetic on times handed in; alone, the bulk gets the whole rate. Called by
`AdaptiveLimit` before each bulk request.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capillary_async._config import Rate

__all__ = ["Reserve"]

_LEAST = 1e-6  # seconds: a shorter wait is rounding


class Reserve:
    """The permits of a rate by the time they come back, as if every answer came at once.

    Whoever spends all permits of `Rate(100, per=60)` in three seconds makes the next caller wait for 57. So the bulk
    takes a permit only where single calls could go on at half of the rate with what is left and what comes back: at
    the beginning it takes half of the permits at once and the others evenly over `per`. From then on they come back as
    evenly as they were taken, and alone it uses all of them.
    """

    def __init__(self, rate: Rate) -> None:
        self._permits = rate.permits
        self._per = rate.per
        self._turn = 2 * rate.per / rate.permits  # between two permits at half of the rate
        self._back: deque[float] = deque()

    def took(self, now: float) -> None:
        """Count a permit, whoever took it."""
        self._back.append(now + self._per)

    def wait(self, now: float) -> float:
        """Seconds until the bulk may take a permit.

        It looks at the next permit to come back and at the 2nd, 4th, 8th ... after it, so that it costs the same for a
        rate of ten thousand.
        """
        back = self._back
        while back and back[0] <= now:
            back.popleft()
        free = self._permits - len(back)
        longest, number = 0.0, 0
        while number < len(back):
            longest = max(longest, back[number] - now - (free + number) * self._turn)
            number = 2 * number + 1
        return longest if longest > _LEAST else 0.0
