"""The processes of a run: servers and clients, each tied to this one.

Invariant: none outlives the run, however it ends. Each has a process group of its own that is killed at the end; on
Linux the kernel kills it when this process dies without a word; the raw server also ends with its standard input.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

__all__ = ["ROOT", "BenchmarkError", "Children"]

ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG = 1
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


class BenchmarkError(Exception):
    """Something that the user of the benchmarks has to know, in one line."""


def _tie(mask: set[Any]) -> None:
    """Between fork and exec: die with the parent, and take the signals that it took."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _uninterrupted() -> Iterator[Callable[[], None] | None]:
    """Signals wait until a process that was started is known; gives what the process begins with, None for nothing."""
    if _PRCTL is None:
        yield None
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield lambda: _tie(before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Children:
    """The processes under way; a context that leaves none behind."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in list(self._running):
            self.end(child)

    def start(self, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a process in a group of its own, with all three streams as pipes."""
        with _uninterrupted() as first:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=first,  # noqa: PLW1509 - this process has one thread
            )
            self._running.append(child)
        return child

    def python(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a module of the benchmarks with this interpreter."""
        return self.start(sys.executable, "-m", module, *arguments)

    def end(self, child: subprocess.Popen[str]) -> None:
        """Kill a process with its whole group, and wait for it."""
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()
        if child in self._running:
            self._running.remove(child)

    def said(self, child: subprocess.Popen[str]) -> Any:
        """The JSON of a process's last line, when it has ended.

        Raises:
            BenchmarkError: It failed; with the last line of its complaint.
        """
        try:
            out, err = child.communicate()
        finally:
            self.end(child)
        if child.returncode:
            complaint = (err.strip() or out.strip() or f"it ended with {child.returncode}").splitlines()[-1]
            raise BenchmarkError(complaint)
        return json.loads(out.strip().splitlines()[-1])
