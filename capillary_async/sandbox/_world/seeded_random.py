"""Random numbers that are the same on every Python for the same seed.

Invariant: only `Random.random()` is used, seeded with a text; the other methods of `random` may change between
versions. `_world/generate.py` and `_world/world.py` throw them.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SeededRandom"]

_T = TypeVar("_T")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class SeededRandom:
    """A random sequence; the same seed gives the same sequence."""

    def __init__(self, seed: str) -> None:
        self._throw = Random(seed).random

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self._throw() * n)

    def between(self, least: int, most: int) -> int:
        """A whole number from least to most."""
        return least + self.below(most - least + 1)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._throw() < probability

    def pick(self, choices: Sequence[_T]) -> _T:
        """Return one of the values."""
        return choices[self.below(len(choices))]

    def text(self, length: int) -> str:
        """Return a text of letters and digits."""
        return "".join(self.pick(_LETTERS) for _ in range(length))
