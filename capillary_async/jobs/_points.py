"""The moments at which a job may be killed, by name, so that tests can kill it there.

The rule kept here: a point does nothing, unless the environment names it when the process starts; then the process
kills itself there with SIGKILL, as a power cut would. Called between the steps that make a shard durable.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["POINTS", "reached"]

VARIABLE = "CAPILLARY_ASYNC_DIE_AT"  # `name`, or `name:3` for the third time
POINTS = (
    "ids-half-spooled",
    "ids-spooled",
    "shard-half-written",
    "shard-written",
    "shard-synced",
    "shard-hashed",
    "shard-withdrawn",
    "shard-renamed",
    "folder-synced",
    "shard-half-committed",
    "shard-committed",
    "manifest-removed",
    "failures-written",
    "manifest-written",
    "manifest-renamed",
)

_name, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = int(_count) if _count.isdigit() else 1


def _nothing(point: str) -> None:
    """Nobody asked to be killed."""


def _kill(point: str) -> None:
    global _left  # noqa: PLW0603 - counts down in a process that is to die
    if point == _name:
        _left -= 1
        if not _left:
            sys.stderr.flush()
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


reached = _kill if _name else _nothing
