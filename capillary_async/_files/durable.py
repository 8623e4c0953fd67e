"""Files that get their name when their bytes are on the disk, and locks that end with their process.

Invariant: write, fsync, rename, fsync of the folder, in this order, for everything that is reported as done; no file of
a folder of ours is opened through a symbolic link; what a killed process left is removed by the next one, and nothing
that a living process writes. Used by `jobs` and `cli`; imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["PartFile", "give_name", "make_folder", "open_own", "sweep", "sync_folder", "take_lock", "write_file"]

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF})
# What file systems say that cannot fsync a folder: there a rename is as durable as they make it.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS, errno.EISDIR})
_OPENING = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_TRIES = 100
_LIVE: set[Path] = set()  # unfinished files of this process, which locks of POSIX alone do not keep from itself


def open_own(path: Path, flags: int, mode: int = 0o666) -> int:
    """A descriptor of a file in a folder of ours.

    Raises:
        OSError: It cannot be opened, or is a symbolic link or no regular file; then nothing was changed.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise _not_ours(path)
    truncate, flags = flags & os.O_TRUNC, flags & ~os.O_TRUNC  # not before it is known to be a file
    try:
        descriptor = os.open(path, flags | _OPENING | getattr(os, "O_NONBLOCK", 0), mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO) or path.is_symlink():
            raise _not_ours(path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_ours(path)  # noqa: TRY301 - closed by the same clause as any other failure
        if truncate:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _not_ours(path: Path) -> OSError:
    kind = "a symbolic link" if path.is_symlink() else "no regular file"
    return OSError(errno.ELOOP, f"it is {kind}, which is never followed here: remove it", str(path))


def give_name(part: Path, target: Path) -> None:
    """Make the bytes of a written file durable, and give it its name for good; a link at the target is replaced.

    Raises:
        OSError: It could not be; the target is as it was, unless the last step failed.
    """
    descriptor = open_own(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system and its file system can.

    Raises:
        OSError: They can, and it failed.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably.

    Raises:
        OSError: It could not be made.
    """
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.absolute().parent)


def take_lock(file: Any) -> None:
    """Take the lock of an open file, or fail at once; it ends when the file is closed or the process ends.

    Args:
        file: A descriptor, or a file that has one.

    Raises:
        BlockingIOError: Another process has it.
        OSError: The file system has no locks.
    """
    descriptor: int = file if isinstance(file, int) else file.fileno()
    try:
        _lock_at_once(descriptor)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, getattr(errno, "EDEADLOCK", errno.EAGAIN)):
            raise BlockingIOError(error.errno, error.strerror) from None
        raise


def _lock_at_once(descriptor: int) -> None:
    if os.name == "posix":
        import fcntl  # noqa: PLC0415 - not on Windows

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # Some file systems have the locks of POSIX alone, which hold between processes.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt  # noqa: PLC0415 - on Windows alone

    lock: Any = msvcrt  # its names are not known elsewhere
    os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # after all text, which stays readable
    lock.locking(descriptor, lock.LK_NBLCK, 1)
    os.lseek(descriptor, 0, os.SEEK_SET)


class PartFile:
    """A file beside its target that takes the target's name when it is whole; as a context it is dropped otherwise.

    Its lock says that its process lives. Files that killed processes left for the same target are removed first.

    Attributes:
        descriptor: Where to write.
        path: The unfinished file.

    Raises:
        OSError: It cannot be written there.
    """

    def __init__(self, target: Path, *, mode: int | None = None) -> None:
        self._target = target
        _refuse_what_is_no_file(target)
        sweep(target)
        self.path, self.descriptor = _new_part(target)
        self._open = True
        _LIVE.add(self.path)
        if mode is not None:
            os.chmod(self.descriptor if os.chmod in os.supports_fd else self.path, stat.S_IMODE(mode))  # noqa: PTH101

    def publish(self) -> None:
        """Give it its name, for good.

        Raises:
            OSError: It could not be; it is dropped.
        """
        try:
            os.fsync(self.descriptor)
            if not _is_same(self.descriptor, self.path):
                raise OSError(errno.ESTALE, "another process removed its part", str(self.path))  # noqa: TRY301 - dropped
            self._close_on_windows()
            self.path.replace(self._target)
        except BaseException:
            self.drop()
            raise
        self._close()
        sync_folder(self._target.parent)

    def drop(self) -> None:
        """Leave nothing of it; the target is as it was."""
        if self._open:
            with contextlib.suppress(OSError):
                if _is_same(self.descriptor, self.path):
                    self._close_on_windows()
                    self.path.unlink()
            self._close()

    def unlink(self) -> None:
        """Remove the file at once, while another thread may still write to it; on Windows only `drop` can."""
        with contextlib.suppress(OSError):
            if os.name == "posix" and self._open and _is_same(self.descriptor, self.path):
                self.path.unlink()

    def _close_on_windows(self) -> None:
        if os.name != "posix":  # which neither renames nor removes an open file
            self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            _LIVE.discard(self.path)
            with contextlib.suppress(OSError):
                os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


def _refuse_what_is_no_file(target: Path) -> None:
    """Refuse a folder, and a pipe, a socket or a device, whose place would be taken by a file."""
    with contextlib.suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, and only a file can be replaced", str(target))


def write_file(target: Path, data: bytes) -> None:
    """Write a whole file, for good, or leave the target as it was.

    Raises:
        OSError: It could not be written.
    """
    with PartFile(target) as part:
        left = memoryview(data)
        while left:
            left = left[os.write(part.descriptor, left) :]
        part.publish()


def sweep(target: Path) -> None:
    """Remove the unfinished files of this target whose processes were killed.

    A lock says whether a process lives: its number may be in use again, or be that of another machine's. Where there
    are no locks, nothing is removed.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9]+(?:-[0-9a-f]+)?\.part")
    with contextlib.suppress(OSError):
        for left in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name) and path not in _LIVE]:
            with contextlib.suppress(OSError):
                _sweep_one(left)


def _sweep_one(left: Path) -> None:
    descriptor = open_own(left, os.O_RDWR)
    try:
        take_lock(descriptor)
        if _is_same(descriptor, left) and os.name == "posix":
            left.unlink()
    finally:
        os.close(descriptor)
    if os.name != "posix":
        left.unlink()


def _new_part(target: Path) -> tuple[Path, int]:
    """A new file with its lock. One that another process swept before it was locked is made again."""
    for number in range(_TRIES):
        suffix = f"-{secrets.token_hex(4)}" if number else ""
        path = target.with_name(f".{target.name}.{os.getpid()}{suffix}.part")
        try:
            descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:  # of a process with the same number on another machine, or no file at all
            continue
        try:
            take_lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            continue
        except OSError:  # a disk without locks: no other process removes files there either
            return path, descriptor
        if _is_same(descriptor, path):
            return path, descriptor
        os.close(descriptor)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
