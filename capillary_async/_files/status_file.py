"""`StatusFile`: one JSON object that says how far a job is, for monitoring.

Invariant: a reader finds a whole object at any time, also after `kill -9`; a place that cannot be written is refused
before the job begins, and a write that fails later never stops the job. It counts nothing itself. Used by `jobs` and
the command line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from capillary_async._files.addresses import why_no_path
from capillary_async._files.durable import write_file
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

__all__ = ["EVERY", "StatusFile"]

EVERY = 2.0  # seconds between two writes
_COUNTS = ("asked", "done", "failed", "records", "requests", "retries", "throttles", "rate", "time_left")
INTERRUPTED, TERMINATED = 130, 143  # 128 and the signal's number, as shells say it
_LONGEST = 500  # characters of a text
_logger = logging.getLogger("capillary_async.jobs")


class StatusFile:
    """Writes the state of a job every two seconds, and at its end. It is a context around the job.

    Args:
        path: The file; None writes nothing.
        job: The name of the job, e.g. `export allocations`.
        others: The files and folders that the job reads and writes; None is skipped.

    Raises:
        InvalidRequestError: On entering: the file cannot be written, is no status file, or is one of `others` or inside
            one.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, job: str, others: Iterable[str | os.PathLike[str] | None] = ()
    ) -> None:
        self._given, self._others = path, [other for other in others if other is not None]
        self._path: Path | None = None
        self._job, self._phase = job, "starting"
        self._look: Callable[[], Mapping[str, Any]] = dict
        self._began, self._started = time.monotonic(), _now()
        self._code: int | None = None
        self._lock = threading.Lock()
        self._closed = self._failing = False
        self._task: asyncio.Task[None] | None = None

    def follow(self, look: Callable[[], Mapping[str, Any]]) -> None:
        """Call `look` for phase, counts and last error, each time that the file is written."""
        self._look = look

    def enter(self, phase: str) -> None:
        """Note the phase of a job that counts nothing."""
        self._phase = phase

    def ended(self, code: int) -> int:
        """Note the exit code of the job, and return it."""
        self._code = code
        return code

    async def __aenter__(self) -> Self:
        if self._given is not None:
            self._path = self._first_written(self._given)
            self._task = asyncio.ensure_future(self._keep(self._path))
        return self

    def _first_written(self, given: str | os.PathLike[str]) -> Path:
        why = why_no_path(given)
        if why is not None:
            raise InvalidRequestError(f"status_file takes a path: {why}", argument="status_file")
        path = Path(given).absolute()
        try:
            _refuse_shared(path, self._others)
            _refuse_other(path)
            write_file(path, self._encoded("running"))
        except OSError as error:
            raise InvalidRequestError(
                f"status_file takes a file in a folder that is there and can be written; cannot write {path}: "
                f"{error.strerror or error}",
                argument="status_file",
            ) from None
        return path

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is None or self._path is None:
            return
        self._task.cancel()
        code = self._code_of(error)
        state = "interrupted" if code in (INTERRUPTED, TERMINATED) else "failed" if code == 1 else "finished"
        # In this thread, since the task may be cancelled: a few hundred bytes.
        self._write(self._path, self._encoded(state, code, error), last=True)

    def _code_of(self, error: BaseException | None) -> int:
        if isinstance(error, asyncio.CancelledError):
            return self._code or (TERMINATED if "SIGTERM" in error.args else INTERRUPTED)
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        return 1 if error is not None else self._code or 0

    async def _keep(self, path: Path) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await asyncio.to_thread(self._write, path, self._encoded("running"))

    def _write(self, path: Path, data: bytes, *, last: bool = False) -> None:
        """Write the file. Where that fails, the job goes on, and the log says so once."""
        with self._lock:  # the last write waits for one in the thread, and no other follows it
            if self._closed:
                return
            self._closed = last
            try:
                write_file(path, data)
            except OSError as error:
                if not self._failing:
                    _logger.warning("the status file cannot be written, the job goes on: %s", error)
                self._failing = True
            else:
                self._failing = False

    def _encoded(self, state: str, code: int | None = None, error: BaseException | None = None) -> bytes:
        counted = self._look()
        own = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else None
        members = {
            "job": self._job,
            "state": state,
            "exit_code": code,
            "phase": counted.get("phase", self._phase),
            **{name: counted.get(name) for name in _COUNTS},
            "elapsed": round(time.monotonic() - self._began, 1),
            "last_error": _short(own or counted.get("last_error")),
            "note": _short(counted.get("note")),
            "started": self._started,
            "updated": _now(),
            "pid": os.getpid(),
        }
        return json.dumps(members, indent=2, ensure_ascii=False).encode(errors="replace") + b"\n"


def _refuse_shared(path: Path, others: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse a file that the job reads or writes itself, and one inside a folder of the job."""
    # A link is replaced, so both its own place and the file that it leads to count.
    places = {Path(os.path.realpath(path.parent), path.name), Path(os.path.realpath(path))}
    for other in others:
        whole = Path(os.path.realpath(other))
        inside = any(whole in place.parents for place in places)
        if inside or whole in places or _is_same_file(path, whole):
            where = f"{'inside ' if inside else ''}{os.fspath(other)}"
            raise InvalidRequestError(
                f"status_file takes a file of its own; {path} is {where}, which the job reads or writes: name another",
                argument="status_file",
            )


def _is_same_file(path: Path, other: Path) -> bool:
    with suppress(OSError):
        return path.samefile(other)
    return False


def _refuse_other(path: Path) -> None:
    """Refuse to replace a file that has other contents: most often two options were mixed up."""
    if not path.is_file():  # where there is something else, writing names the reason; a pipe would wait for ever
        return
    with path.open("rb") as file:
        beginning = file.read(1 << 16)
    try:
        found = json.loads(beginning) if beginning.strip() else {"job": "", "state": ""}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"job", "state"} <= found.keys():
        raise InvalidRequestError(
            f"status_file takes a new name or the status file of an earlier run; {path} is another file, and was not "
            "changed",
            argument="status_file",
        )


def _short(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())[:_LONGEST]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
