"""The messages of a reading command on stderr: its progress and its end.

Invariant: stdout belongs to the rows; each customer that failed is named once. Used by `_commands/read.py` and
`_commands/ledger.py`.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from capillary_async.cli._io.run import SOME_FAILED
from capillary_async.cli._io.words import count, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from capillary_async import ApiMessage, CapillaryError, Stats

__all__ = ["Report", "Screen", "bar"]

_LONGEST_ID = 80


class Screen(Console):
    """A console whose reader may go away; the command then ends as it does for every other output."""

    def on_broken_pipe(self) -> None:
        """Raise for `ending`; rich would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def bar(console: Console, *, shown: bool = True) -> Progress:
    """Return a progress bar that counts, and disappears at its end."""
    count = TextColumn("{task.fields[records]:,} records")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), count)
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not shown)


class Report:
    """Counts and shows successes and failures.

    Args:
        what: The command.
        quiet: Say nothing but failures.
        total: How many there are, None where that is not known.
        shared: Whether the rows go to the same terminal, where a bar would get between them.
    """

    def __init__(self, what: str, *, quiet: bool, total: int | None, shared: bool) -> None:
        self._what, self._quiet = what, quiet
        self._console = Screen(file=sys.stderr, markup=False, highlight=False, soft_wrap=True)
        self._progress = bar(self._console, shown=self._console.is_terminal and not quiet and not shared)
        self._task = self._progress.add_task(what, total=total, records=0)
        self._began = time.monotonic()
        self._records = self._answered = self.failed = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def answered(self, records: int, *, keys: int = 1) -> None:
        """Count a success."""
        self._answered += keys
        self._records += records
        self._progress.update(self._task, advance=keys, records=self._records)

    def refused(self, key: Any, error: CapillaryError) -> None:
        """Show and count a failure."""
        self.failed += 1
        self._progress.update(self._task, advance=1)
        self._console.print(f"failed {_short(key)}: {type(error).__name__}: {one_line(str(error))}")

    def warned(self, key: Any, warnings: Iterable[ApiMessage]) -> None:
        """Show the warnings of an answer."""
        for warning in warnings:
            self._console.print(f"warning {_short(key)}: {one_line(warning.message)}")

    def stalled(self, text: str) -> None:
        """Show that no answer comes."""
        if not self._quiet:
            self._console.print(f"{self._what}: {one_line(text)}")

    def close(self, stats: Stats) -> int:
        """Show the totals, and return the exit code."""
        if not self._quiet:
            counted = f"{self._answered:,} answered, {self.failed:,} failed, {count(self._records, 'record')}"
            work = f"{count(stats.requests, 'request')}, {count(stats.retries, 'retry', 'retries')}"
            elapsed = time.monotonic() - self._began
            self._console.print(f"{self._what}: {counted}; {work}, {elapsed:.1f} s")
        return SOME_FAILED if self.failed else 0


def _short(key: Any) -> str:
    """Return an id as it came, cut if it is long."""
    text = one_line(str(key))
    return text if len(text) <= _LONGEST_ID else f"{text[: _LONGEST_ID - 3]}..."
