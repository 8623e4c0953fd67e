"""`publish`: send a finished export to an object store, or make it the content of a Delta table.

Invariant: 0 means that the whole export is at the URL, now or before; 1 that it is not. Called by `_app.py`; the work
is that of `capillary_async.jobs`.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from capillary_async.cli._io.run import jobs
from capillary_async.cli._io.words import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capillary_async.jobs import PublishProgress, PublishResult

__all__ = ["publish"]

_EVERY = 10.0  # seconds between two lines


async def publish(places: Sequence[str], table: Any, endpoint: str | None, *, quiet: bool) -> int:
    """Publish, print what is there, and return the exit code.

    Args:
        places: Folders, then the URL.
        table: `delta`, or None.
        endpoint: The URL of an S3-compatible server.
        quiet: Print nothing.

    Raises:
        UnusableError: The extra is missing.
        CapillaryError: It could not be published.
    """
    *folders, url = places
    progress = None if quiet else _lines()
    given = folders if len(folders) > 1 else folders[0]
    result: PublishResult = await jobs("publish").publish(given, url, table, endpoint=endpoint, on_progress=progress)
    for line in [] if quiet else result.lines():
        print(one_line(line))  # noqa: T201
    return 0


def _lines() -> Callable[[PublishProgress], None]:
    """Return what prints the progress on stderr, a line per ten seconds."""
    last = time.monotonic()

    def show(state: PublishProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            text = f"publish: {state.done:,} of {state.files:,} files, {state.bytes_sent:,} bytes sent"
            print(text, file=sys.stderr)  # noqa: T201

    return show
