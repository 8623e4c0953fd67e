"""Checks of the arguments of a `Sandbox`: latency, rate and faults.

Invariant: a refusal is a ValueError that names the argument and the value. Called by `Sandbox` when it is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

from capillary_async._validation import seconds
from capillary_async.sandbox._faults.faults import Fault

__all__ = ["faults_of", "latency_of", "rate_of"]


def latency_of(value: Any) -> tuple[float, float]:
    """Return the least and the most seconds from one number or two in order."""
    bounds = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value, value)
    if len(bounds) != 2:  # noqa: PLR2004 - two bounds
        raise ValueError(f"latency takes seconds, or the least and the most, got {value!r}")
    low, high = (seconds("latency", bound, zero=True) for bound in bounds)
    if low > high:
        raise ValueError(f"latency takes the least and then the most, got {value!r}")
    return low, high


def rate_of(value: Any) -> tuple[float, float, float | None] | None:
    """Return permits, seconds and the value of Retry-After; None means no limit."""
    if value is None:
        return None
    named: tuple[Any, ...] = (getattr(value, "permits", None), getattr(value, "per", None))
    parts = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else named
    if len(parts) not in {2, 3} or not all(map(_is_number, parts[:2])):
        raise ValueError(f"rate takes a Rate, (permits, per) or (permits, per, retry_after), got {value!r}")
    permits, per = parts[:2]
    if permits < 1 or per <= 0:
        raise ValueError(f"rate takes at least one permit per more than 0 seconds, got {permits} per {per}")
    return permits, per, None if parts[2:] in {(), (None,)} else seconds("rate's retry_after", parts[2], zero=True)


def faults_of(value: Any) -> list[Fault]:
    """Return the faults of any iterable as a list."""
    given: list[Any] = list(cast("Iterable[Any]", value)) if isinstance(value, Iterable) else [None]
    if not all(isinstance(fault, Fault) for fault in given):
        raise ValueError(f"faults takes a list of faults, e.g. [Throttle(times=2)], got {value!r}")
    return given


def _is_number(value: Any) -> bool:
    """Return whether the value is a finite int or float and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
