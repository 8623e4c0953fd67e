"""Priorities of calls: single calls are interactive, the calls of fan-outs and jobs are bulk.

Invariant: a worker marks its task once as bulk work, and every task that it starts inherits that. Set by the workers of
fan-outs and jobs, read by `Retry` where a call begins.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Literal

__all__ = ["PRIORITIES", "Priority", "begin_bulk", "in_bulk"]

Priority = Literal["interactive", "bulk"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "bulk")

# Never reset: a task has a context of its own, which ends with it.
_bulk: ContextVar[bool] = ContextVar("capillary_async.bulk", default=False)


def begin_bulk() -> None:
    """Make bulk all calls of the current task, and of the tasks it starts from here on."""
    _bulk.set(True)


def in_bulk() -> bool:
    """Whether the current task does the work of a fan-out or a job."""
    return _bulk.get()
