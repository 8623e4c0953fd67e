"""The folder of an export: its files, its lock, and how a file appears in it for good.

The rule kept here: a file gets its name only when its bytes are on the disk, and one process works in a folder at a
time; the lock is the system's, so that it ends with its process however that ends. Nothing is deleted that an export
did not make. Used by the export and by `verify`.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from capillary_async.jobs._errors import JobError
from capillary_async.jobs._points import reached

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Folder", "take_lock"]

_SHARD = re.compile(r"part-[0-9]{8}\.(?:parquet|jsonl)(?:\.part)?")


class Folder:
    """The files of one export. As a context it is locked.

    Raises:
        JobError: Another process works in it, or it cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.shards = self.path / "shards"
        self.state = self.path / "state.sqlite"
        self.manifest = self.path / "manifest.json"
        self.failures = self.path / "failures.jsonl"
        self._lock: IO[bytes] | None = None

    def shard(self, number: int, ending: str) -> Path:
        """The file of a shard; its name is a function of its number."""
        return self.shards / f"part-{number:08d}.{ending}"

    @staticmethod
    def part(path: Path) -> Path:
        """Where a file is written before it has its name."""
        return path.with_name(f"{path.name}.part")

    def listed(self) -> Iterator[Path]:
        """The files in `shards/` that an export may have made, unfinished ones included."""
        with contextlib.suppress(FileNotFoundError):
            yield from sorted(path for path in self.shards.iterdir() if _SHARD.fullmatch(path.name))

    # -- the lock

    def __enter__(self) -> Self:
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a+b")
            for folder in (self.path, self.path.absolute().parent):
                self.sync(folder)
        except OSError as error:
            raise JobError(f"cannot use {self.path} for an export: {error.strerror or error}") from error
        try:
            take_lock(self._lock)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read(20).decode(errors="replace").strip()
            self._lock.close()
            who = f"process {owner}" if owner.isdigit() else "another process"
            raise JobError(f"{who} works in {self.path}: wait for it, end it, or export into another folder") from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n".encode())
        self._lock.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()  # which gives the lock back
            self._lock = None

    # -- what is there for good

    def publish(self, path: Path) -> None:
        """Give a written and synced file its name, for good."""
        self.part(path).replace(path)
        reached("shard-renamed")
        self.sync(path.parent)

    def write(self, path: Path, data: bytes, *points: str) -> None:
        """Write a small file for good, or leave it as it was."""
        part = self.part(path)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if points:
            reached(points[0])
        part.replace(path)
        self.sync(path.parent)
        for point in points[1:]:
            reached(point)

    def remove(self, path: Path) -> None:
        """Remove a file for good, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            self.sync(path.parent)

    @staticmethod
    def sync(folder: Path) -> None:
        """Make the names in a folder durable, where the system can."""
        if os.name != "posix":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def take_lock(file: IO[bytes]) -> None:
    """Take the lock of a file, or fail at once; it ends when the file is closed or the process ends.

    Raises:
        OSError: Another process has it.
    """
    if os.name == "posix":
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt  # noqa: PLC0415 - on Windows alone

    file.seek(1 << 30)  # behind all text, which stays readable
    lock: Any = msvcrt  # its names are not known elsewhere
    lock.locking(file.fileno(), lock.LK_NBLCK, 1)
    file.seek(0)
