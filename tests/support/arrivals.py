"""How fast requests came."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def most_in_a_window(came: list[float], per: float) -> int:
    """The most arrivals in any window of `per` seconds that begins with one; `came` is sorted."""

    def windows() -> Iterator[int]:
        end = 0
        for start, at in enumerate(came):
            while end < len(came) and came[end] < at + per:
                end += 1
            yield end - start

    return max(windows())
