"""Checks of the numbers that a sandbox takes as arguments.

Invariant: a refusal is a ValueError that names the argument and the value. Called by `_world/world.py` and
`_server/checks.py`.
"""

from __future__ import annotations

import math
from typing import Any, cast

__all__ = ["is_number", "seconds", "whole"]


def whole(name: str, value: Any) -> int:
    """Return the value if it is an int and no bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} takes a whole number, got {value!r}")
    return value


def seconds(name: str, value: Any) -> float:
    """Return the value if it is a finite number of at least 0."""
    if not is_number(value) or value < 0:
        raise ValueError(f"{name} takes seconds of at least 0, got {value!r}")
    return cast("float", value)


def is_number(value: Any) -> bool:
    """Return whether the value is a finite int or float and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
