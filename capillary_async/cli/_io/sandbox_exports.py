"""Exports from a sandbox in this process: the name of its cluster, and the day that their points are of.

Invariant: the world of such a sandbox is that of one day, so an export of it is checked as of that day, whenever it is
read. Used by `_commands/export.py` and `_commands/reconcile.py`.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capillary_async.cli._io.options import SandboxOf

__all__ = ["cluster_of", "day_of"]

_NAME = re.compile(r"sandbox of [0-9]+, seed -?[0-9]+")


def cluster_of(sandbox: SandboxOf) -> str | None:
    """Return the name of the sandbox, since it listens at another port each time; None for a server."""
    return f"sandbox of {sandbox.customers}, seed {sandbox.seed}" if sandbox.sandbox else None


def day_of(folders: Iterable[str]) -> datetime | None:
    """Return the sandbox's day if all exports are of such a sandbox; None otherwise."""
    if all(_NAME.fullmatch(_cluster(folder)) for folder in folders):
        return datetime.combine(Sandbox.today, time(), UTC)
    return None


def _cluster(folder: str) -> str:
    own = Path(folder)
    of_shard = None if (own / "manifest.json").exists() else next(own.glob("shard-*-of-*"), None)
    try:
        manifest: Any = json.loads(((of_shard or own) / "manifest.json").read_bytes())
        return str(manifest["cluster"])
    except (OSError, ValueError, TypeError, LookupError):  # whoever reads it says what is wrong with it
        return ""
