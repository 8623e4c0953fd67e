"""Priorities of calls: single calls are interactive, the calls of fan-outs and jobs are bulk.

Invariant: a worker marks its task once as bulk work, and every task that it starts inherits that. Set by `WorkerPool`,
read by `Retry` where a call begins.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Literal

from attrs import frozen

__all__ = ["BULK_WORK", "PRIORITIES", "TRIES", "BulkWork", "Priority", "begin_bulk", "bulk_work"]

Priority = Literal["interactive", "bulk"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "bulk")
TRIES = 3  # how often a call begins again that keeps failing while others are answered


@frozen
class BulkWork:
    """How the calls of a fan-out or a job wait.

    Attributes:
        max_wait: Seconds that they wait for a service that is down; None for `Timeouts.call`.
        throttled_tries: How often a call begins again that used up its attempts on 429 while others were answered.
    """

    max_wait: float | None = None
    throttled_tries: int = TRIES


BULK_WORK = BulkWork()
# Never reset: a task has a context of its own, which ends with it.
_work: ContextVar[BulkWork | None] = ContextVar("capillary_async.bulk", default=None)


def begin_bulk(work: BulkWork = BULK_WORK) -> None:
    """Make bulk all calls of the current task, and of the tasks it starts from here on."""
    _work.set(work)


def bulk_work() -> BulkWork | None:
    """The work that the current task does for a fan-out or a job; None where it does none."""
    return _work.get()
