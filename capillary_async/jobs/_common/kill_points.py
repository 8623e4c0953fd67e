"""The moments at which a job may be killed, by name, so that tests can kill it there.

Invariant: a point does nothing unless it was armed, by the environment when the process starts or by a test; then the
process kills itself there with SIGKILL, as a power cut would. Called between the steps that make a shard durable, and
between the files of a publication.
"""

from __future__ import annotations

import os
import signal

__all__ = ["ARCHIVE_POINTS", "POINTS", "PUBLISH_POINTS", "VARIABLE", "arm", "reached"]

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
PUBLISH_POINTS = ("claim-sent", "file-sent", "file-checked", "manifest-sent", "table-committed")
# Of an export with an archive.
ARCHIVE_POINTS = ("pack-half-written", "pack-written", "pack-renamed", "archive-finished")


class _Armed:
    """Which point, and how often it is still passed."""

    name = ""
    left = 0


def arm(text: str) -> None:
    """Kill this process at that point."""
    name, _, count = text.partition(":")
    _Armed.name, _Armed.left = name, int(count or 1)


def reached(point: str) -> None:
    """The job is at that point."""
    if point != _Armed.name:
        return
    _Armed.left -= 1
    if not _Armed.left:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


if VARIABLE in os.environ:
    arm(os.environ[VARIABLE])
