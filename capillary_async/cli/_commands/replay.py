"""`replay`: an export again, from the raw answers in its archive.

Invariant: nothing is sent. Called by `_app.py`; the work is that of `capillary_async.jobs`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from capillary_async._files.threads import in_thread
from capillary_async.cli._io.job_progress import JobReport
from capillary_async.cli._io.run import SOME_FAILED, UnusableError, jobs
from capillary_async.cli._io.words import count, one_line

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["replay"]


async def replay(archive: Path, out: Path | None, body: str | None, *, quiet: bool) -> int:
    """Make the export again, or print one body, and return the exit code.

    Raises:
        UnusableError: Neither or both were asked for, or there is no such body.
        JobError: The archive is damaged, or gives another export.
    """
    package = jobs("replay")
    if (out is None) == (body is None):
        raise UnusableError("give --out, a new folder for the export, or --body, a request id")
    if body is not None:
        return await _print_body(archive, body)
    with JobReport("replay", quiet=quiet) as report:
        result = await package.replay(archive, out, on_progress=report.progress)
        report.exported(result.export)
    if not quiet:
        alike = "byte for byte" if result.identical else "with the same rows; another release wrote its files"
        line = f"REPLAYED: {result.export.out} is the export, {alike}; {count(result.bodies, 'body', 'bodies')}"
        print(one_line(line))  # noqa: T201
    return SOME_FAILED if result.export.failed else 0


async def _print_body(archive: Path, request_id: str) -> int:
    from capillary_async.jobs._replay import body_of  # noqa: PLC0415 - the extra may be missing

    found = await in_thread(body_of, archive, request_id)
    if not found:
        raise UnusableError(f"{archive} has no body with the request id {request_id!r}")
    for body in found:
        sys.stdout.buffer.write(body + b"\n")
    return 0
