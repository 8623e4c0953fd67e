"""The messages of a job on stderr: a progress bar on a terminal, plain lines elsewhere, and how it ended.

Invariant: what is shown was counted; `--quiet` keeps back all but how to go on after an interruption. Used by
`_commands/export.py` and `_commands/verify.py`.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from capillary_async.cli._io.progress import Screen
from capillary_async.cli._io.words import count, one_line, span

if TYPE_CHECKING:
    from types import TracebackType

    from capillary_async.jobs import ExportProgress, ExportResult

__all__ = ["JobReport"]

_EVERY = 10.0  # seconds between two plain lines
_MINUTE, _HOUR = 60, 3600


class JobReport:
    """Shows the progress and the end of a job.

    Args:
        what: The command.
        quiet: Say nothing while it works.
    """

    def __init__(self, what: str, *, quiet: bool) -> None:
        self._what, self._quiet = what, quiet
        self._console = Screen(file=sys.stderr, markup=False, highlight=False, soft_wrap=True)
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[message]}"), console=self._console, transient=True,
            disable=quiet or not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(what, total=None, message="")
        self._shown = time.monotonic()
        self._phase = ""
        self._note: str | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def progress(self, state: ExportProgress) -> None:
        """Show the progress of a job: for `on_progress`."""
        if self._quiet:
            return
        if state.note is not None and state.note != self._note:
            self.note(state.note)
        self._note = state.note
        self._bar.update(
            self._task,
            description=f"{self._what}, {state.phase}",
            total=state.asked,
            completed=state.settled,
            message=message(state),
        )
        now = time.monotonic()
        plain = not self._console.is_terminal and state.phase not in ("ids", "paused", "done")
        if plain and (state.phase != self._phase or now - self._shown >= _EVERY):
            self._shown = now
            self._line(f"{state.phase}: {state.settled:,} of {state.asked or 0:,} keys, {message(state)}")
        self._phase = state.phase

    def note(self, text: str) -> None:
        """Show a message while the job runs."""
        if not self._quiet:
            self._line(one_line(text))

    def exported(self, result: ExportResult) -> None:
        """Show how an export ended."""
        for name in result.repaired:
            self._line(f"{name} was missing or not as it was written: repaired")
        if result.interrupted:
            self._line(
                f"stopped with {result.shards:,} shards complete ({count(result.records, 'record')}) in {result.out}; "
                "give the same command again to go on, the ids are kept there"
                if result.asked
                else f"stopped before all ids were read; give the same command again to begin again in {result.out}"
            )
            return
        if result.failed:
            self._line(f"{count(result.failed, 'key')} failed, see {result.out / 'failures.jsonl'}; the same command "
                       "asks for them again")  # fmt: skip
        if self._quiet:
            return
        if result.already_complete:
            when = f"read {span(*result.read)}" if result.read else "with no customers to ask for"
            self._line(f"{result.out} is already complete, {when}; nothing was asked")
        missing = f" ({result.not_found:,} not found)" if result.not_found else ""
        keys = f"{result.asked:,} asked, {result.found:,} found, {result.empty:,} empty{missing}"
        keys += f", {result.failed:,} failed"
        work = f"{count(result.requests, 'request')}, {count(result.retries, 'retry', 'retries')}"
        shards = f"{count(result.records, 'record')} in {count(result.shards, 'shard')}"
        self._line(f"{keys}; {shards}; {work}, {result.elapsed:.1f} s; {result.out / 'manifest.json'}")

    def say(self, text: str) -> None:
        """Print a line, also with `quiet`."""
        self._line(one_line(text))

    def _line(self, text: str) -> None:
        self._console.print(f"{self._what}: {text}")


def message(state: ExportProgress) -> str:
    """Return the rate, failures, throttles and the time left as text."""
    parts = [f"{state.records:,} records", f"{state.rate:,.0f}/s", f"{state.failed:,} failed"]
    parts.append(f"{state.throttles:,} throttled")
    if state.left is not None and state.phase == "reading":
        parts.append(f"{_span(state.left)} left")
    return ", ".join(parts)


def _span(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
