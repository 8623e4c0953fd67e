"""The folder of an export: its files, its lock, and how a file durably gets its name in it.

Invariant: a file gets its name only when its bytes are on the disk, and one process works in a folder at a time; the
lock is the system's, so that it ends with its process however that ends. Nothing is opened through a symbolic link, and
nothing is deleted that an export did not make. Used by the export and by `verify`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from capillary_async._files.addresses import why_no_path
from capillary_async._files.durable import give_name, make_folder, open_own, sync_folder, take_lock
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["ExportFolder", "is_own_file", "local_path"]

_SHARD = re.compile(r"part-[0-9]{8}\.(?:parquet|jsonl)(?:\.part)?")
_LOCKED: set[tuple[int, int]] = set()  # of this process, which locks of POSIX alone do not keep from itself


def local_path(given: str | os.PathLike[str], argument: str) -> Path:
    """The path of a file or folder on a disk of this machine.

    Raises:
        JobError: It is a URL.
    """
    why = why_no_path(given)
    if why is not None:
        raise JobError(f"{argument}: {why}")
    return Path(given)


def is_own_file(path: Path) -> bool:
    """Whether it is a regular file itself, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


class ExportFolder:
    """The files of one export. As a context it is locked.

    Raises:
        JobError: Another process works in it, or it cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = local_path(path, "the folder")
        whole = self.path.absolute()  # SQLite and Arrow take `file:x` and `s3:x` for URLs
        self.shards = whole / "shards"
        self.state = whole / "state.sqlite"
        self.manifest = whole / "manifest.json"
        self.failures = whole / "failures.jsonl"
        self._lock: IO[bytes] | None = None
        self._locked: tuple[int, int] | None = None

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

    def open_part(self, path: Path) -> IO[bytes]:
        """The unfinished file of a path, empty, to be written and read.

        Raises:
            OSError: It cannot be opened, or is a symbolic link.
        """
        return os.fdopen(open_own(self.part(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC), "w+b")

    # -- the lock

    def __enter__(self) -> Self:
        lock = self.shards.parent / ".lock"
        try:
            make_folder(self.path.absolute())
            self.refuse_links()
            make_folder(self.shards)
            self._reserved(lock)
            self._lock = os.fdopen(open_own(lock, os.O_RDWR | os.O_CREAT), "r+b")
            sync_folder(self.shards.parent)
            take_lock(self._lock)
        except BlockingIOError:
            raise JobError(self._owner_message(), path=str(self.path)) from None
        except OSError as error:
            no_lock = self._lock is not None
            self._release()
            raise JobError(_unusable(self.path, error, no_lock=no_lock), path=str(self.path)) from None
        except BaseException:
            self._release()
            raise
        status = os.fstat(self._lock.fileno())
        self._locked = (status.st_dev, status.st_ino)
        _LOCKED.add(self._locked)
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n".encode())
        self._lock.flush()
        return self

    def refuse_links(self) -> None:
        """Refuse links, so that nothing that SQLite and others open by its name leads out of the folder.

        Raises:
            JobError: There is one.
        """
        beside = (self.state.with_name(f"{self.state.name}{end}") for end in ("", "-wal", "-shm", "-journal"))
        for path in (self.shards, *beside):
            if path.is_symlink() or (path != self.shards and path.exists() and not is_own_file(path)):
                raise JobError(
                    f"{path} is a symbolic link or no file, and an export follows none in its folder: remove it, or "
                    "export into another folder",
                    path=str(path),
                )

    def _reserved(self, lock: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            status = lock.lstat()
            if (status.st_dev, status.st_ino) in _LOCKED:
                raise BlockingIOError

    def _owner_message(self) -> str:
        owner = ""
        if self._lock is None:
            owner = str(os.getpid())
        else:
            self._lock.seek(0)
            owner = self._lock.read(20).decode(errors="replace").strip()
        self._release()
        who = f"process {owner}" if owner.isdigit() else "another process"
        return f"{who} works in {self.path}: wait for it, end it, or export into another folder"

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()  # which releases the lock
            self._lock = None
        if self._locked is not None:
            _LOCKED.discard(self._locked)
            self._locked = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    # -- what is there for good

    def publish(self, path: Path) -> None:
        """Give a written file its name, durably."""
        give_name(self.part(path), path)
        reached("shard-renamed")

    def write(self, path: Path, data: bytes, *points: str) -> None:
        """Write a small file durably, or leave it as it was."""
        with self.open_part(path) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if points:
            reached(points[0])
        give_name(self.part(path), path)
        for point in points[1:]:
            reached(point)

    def remove(self, path: Path) -> None:
        """Remove a file durably, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def sync(self) -> None:
        """Make the names of the shards durable."""
        sync_folder(self.shards)


def _unusable(folder: Path, error: OSError, *, no_lock: bool) -> str:
    if no_lock:
        return (
            f"cannot lock {folder} for an export: {error.strerror or error}. Its file system has no working locks, and "
            "without one two exports could write there at once: export to a local disk and copy the folder"
        )
    where = f" ({error.filename})" if error.filename and Path(error.filename) != folder.absolute() else ""
    return f"cannot use {folder} for an export: {error.strerror or error}{where}"
