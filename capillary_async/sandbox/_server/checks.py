"""What may be given to a sandbox, checked when it is made.

Invariant: a refusal is a ValueError that names the argument and what came. `Sandbox` asks before it builds anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

from capillary_async.sandbox._faults.faults import Fault

__all__ = ["faults_of", "latency_of", "rate_of", "seconds", "whole"]


def whole(name: str, value: Any) -> int:
    """An int that is no bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} takes a whole number, got {value!r}")
    return value


def seconds(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    if not _number(value) or value < 0:
        raise ValueError(f"{name} takes seconds of at least 0, got {value!r}")
    return cast("float", value)


def latency_of(value: Any) -> tuple[float, float]:
    """The least and the most, out of one number or two in order."""
    bounds = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value, value)
    if len(bounds) != 2:  # noqa: PLR2004 - two bounds
        raise ValueError(f"latency takes seconds, or the least and the most, got {value!r}")
    low, high = (seconds("latency", bound) for bound in bounds)
    if low > high:
        raise ValueError(f"latency takes the least and then the most, got {value!r}")
    return low, high


def rate_of(value: Any) -> tuple[float, float, float | None] | None:
    """Permits, seconds, and what Retry-After says."""
    if value is None:
        return None
    named: tuple[Any, ...] = (getattr(value, "permits", None), getattr(value, "per", None))
    parts = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else named
    if len(parts) not in {2, 3} or not all(map(_number, parts[:2])):
        raise ValueError(f"rate takes a Rate, (permits, per) or (permits, per, retry_after), got {value!r}")
    permits, per = parts[:2]
    if permits < 1 or per <= 0:
        raise ValueError(f"rate takes at least one permit per more than 0 seconds, got {permits} per {per}")
    return permits, per, None if parts[2:] in {(), (None,)} else seconds("rate's retry_after", parts[2])


def faults_of(value: Any) -> list[Fault]:
    """Any iterable of faults."""
    given: list[Any] = list(cast("Iterable[Any]", value)) if isinstance(value, Iterable) else [None]
    if not all(isinstance(fault, Fault) for fault in given):
        raise ValueError(f"faults takes a list of faults, e.g. [Throttle(times=2)], got {value!r}")
    return given


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
