"""The progress of an export while it works, and its result at the end.

Invariant: values alone; each is counted, never estimated. Given to users' `on_progress`, shown by the command
line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from capillary_async import AsyncSession, Stats
from capillary_async._html import fields_card
from capillary_async._repr import brief_repr

__all__ = ["ExportProgress", "ExportResult", "ProgressCounter", "status_of"]

_EVERY = 0.2  # seconds between two tellings
_LOOK_EVERY = 0.25  # seconds between two looks for an outage
_TRAFFIC = ("requests", "retries", "throttles", "duplicates")


@frozen(kw_only=True)
class ExportProgress:
    """The progress of an export.

    Attributes:
        phase: `ids` (reading the input), `reading`, `round 1` to `round 3` (retrying the keys that failed), `paused`
            (the service does not answer, or `stop` is set), `done`.
        asked: Keys in all; None while the input is being read.
        settled: Keys answered or failed so far, those of earlier runs included.
        failed: Keys that failed and have not been recovered.
        records: Records of this run so far.
        shards: Shards on the disk.
        requests, retries, throttles: Of the session in this run.
        elapsed: Seconds of this run.
        began_with: Keys settled by earlier runs; a rate excludes them.
        note: Why it is paused; None while it is not.
        last_error: Of the key that failed last in this run, with the name of its class; None where none did.
    """

    phase: str
    asked: int | None
    settled: int
    failed: int
    records: int
    shards: int
    requests: int
    retries: int
    throttles: int
    elapsed: float
    began_with: int = 0
    note: str | None = None
    last_error: str | None = None

    __repr__ = brief_repr

    @property
    def rate(self) -> float:
        """Keys per second in this run."""
        return (self.settled - self.began_with) / self.elapsed if self.elapsed else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left at this rate; None while that is not known."""
        return None if self.asked is None or not self.rate else max(0.0, (self.asked - self.settled) / self.rate)


def status_of(now: ExportProgress) -> dict[str, Any]:
    """The members of a status file."""
    return {
        **asdict(now, filter=lambda each, _: each.name not in ("settled", "shards", "began_with")),
        "done": now.settled,
        "rate": round(now.rate, 3),
        "time_left": None if now.left is None else round(now.left, 1),
    }


@frozen(kw_only=True)
class ExportResult:
    """The result of an export.

    Attributes:
        out: The folder.
        complete: Whether every key was answered.
        interrupted: Whether it was stopped before its end: run it again to go on.
        asked, found, empty, failed: Keys: in all, with records, without any, failed. While it is interrupted, of the
            shards that are done.
        records: Records in the files.
        shards: Shards on the disk.
        requests, retries, throttles: Over all runs.
        elapsed: Seconds of this run.
        read: When the first and the last answer came, over all runs; None where nothing was asked yet.
        already_complete: Whether there was nothing left to ask, so that this run asked nothing.
        not_found: Keys whose list was answered with 404 and taken for empty; None where a 404 is an error.
        repaired: Files that were missing or not as they were written: shards were read again, `manifest.json` and
            `failures.jsonl` of an export with nothing left to do were written again.
    """

    out: Path
    complete: bool
    interrupted: bool
    asked: int
    found: int
    empty: int
    failed: int
    records: int
    shards: int
    requests: int
    retries: int
    throttles: int
    elapsed: float
    read: tuple[datetime, datetime] | None = None
    already_complete: bool = False
    not_found: int | None = None
    repaired: tuple[str, ...] = ()

    __repr__ = brief_repr
    _repr_html_ = fields_card


class ProgressCounter:
    """Counts while the job works, and reports at most five times a second."""

    def __init__(self, stats: Stats, receive: Callable[[ExportProgress], object] | None) -> None:
        self._stats, self._receive = stats, receive
        self._began = time.monotonic()
        self._reported_at = 0.0
        self._at_start = stats.snapshot()
        self._at_commit = dict(self._at_start)
        self._read: tuple[str, str] | None = None
        self.conflicts = self.warnings = 0
        self._conflicts_reported = self._warnings_reported = 0
        self.phase = "ids"
        self.note: str | None = None
        self.last_error: str | None = None
        self.asked: int | None = None
        self.began_with = self.done = self.failed = self.records = self.shards = 0

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def settled(self, records: int, *, failed: bool, again: bool) -> None:
        """Count one more key."""
        self.records += records
        self.done += not again
        self.failed += (0 if failed else -1) if again else failed
        self.report()

    def answered(self) -> None:
        """Record the time of an answer."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._read = (self._read[0] if self._read else now, now)

    def read(self) -> tuple[str, str] | None:
        """When the first and the last answer since the last call came, for the database."""
        read, self._read = self._read, None
        return read

    def enter(self, phase: str, note: str | None = None) -> None:
        """Begin another phase, reported at once."""
        self.phase, self.note = phase, note
        self.report(at_once=True)

    def noted(self, note: str | None) -> None:
        """Report what goes on beside, e.g. an outage; None when it is over."""
        self.note = note
        self.report(at_once=True)

    async def note_outages(self, session: AsyncSession) -> None:
        """Note each outage of the session, with each probe that was not answered; runs until it is cancelled."""
        noted: tuple[float, int] | None = None
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            outage = session._outage()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for the jobs
            probed = None if outage is None or not outage.probes else (outage.since, outage.probes)
            if probed == noted:
                continue
            noted = probed
            if probed is None or outage is None:
                self.noted(None)
            else:
                self.noted(
                    f"no answer{outage.of} for {outage.seconds:.0f} s ({type(outage.error).__name__}); "
                    f"retrying in {outage.retry_in:.0f} s"
                )

    def counted(self) -> dict[str, int]:
        """What was counted since the last call, for the database."""
        now = self._stats.snapshot()
        counted = {name: now[name] - self._at_commit[name] for name in _TRAFFIC}
        counted["conflicts"] = self.conflicts - self._conflicts_reported
        counted["warnings"] = self.warnings - self._warnings_reported
        self._at_commit, self._conflicts_reported, self._warnings_reported = now, self.conflicts, self.warnings
        return counted

    def report(self, *, at_once: bool = False) -> None:
        """Report, unless there was a report in the last 0.2 seconds."""
        now = time.monotonic()
        if self._receive is None or (now - self._reported_at < _EVERY and not at_once):
            return
        self._reported_at = now
        self._receive(self.snapshot())

    def status(self) -> dict[str, Any]:
        """The members of a status file."""
        return status_of(self.snapshot())

    def snapshot(self) -> ExportProgress:
        """The progress now."""
        traffic = self._stats.snapshot()
        requests, retries, throttles = (traffic[name] - self._at_start[name] for name in _TRAFFIC[:3])
        return ExportProgress(
            phase="paused" if self.note and self.phase != "ids" else self.phase,
            asked=self.asked,
            settled=self.began_with + self.done,
            failed=self.failed,
            records=self.records,
            shards=self.shards,
            requests=requests,
            retries=retries,
            throttles=throttles,
            elapsed=self.elapsed,
            began_with=self.began_with,
            note=self.note,
            last_error=self.last_error,
        )
