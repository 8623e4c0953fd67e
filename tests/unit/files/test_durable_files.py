"""Durable files: the order of fsync and rename, what killed processes left, symbolic links, and disks without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from capillary_async._files import durable as _durable_files
from capillary_async._files.durable import PartFile, give_name, open_own, sweep, sync_folder, take_lock, write_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and locks as POSIX has them")


def refusing(number: int) -> Any:
    def call(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made durable, in order."""
    seen: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        seen.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        seen.append(f"rename {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of descriptors")
def test_the_order(tmp_path: Path, steps: list[str]) -> None:
    """Bytes, name, folder."""
    write_file(tmp_path / "x", b"1")
    assert steps == [f"fsync .x.{os.getpid()}.part", "rename x", f"fsync {tmp_path.name}"]
    steps.clear()
    (tmp_path / "part").write_bytes(b"2")
    give_name(tmp_path / "part", tmp_path / "x")
    assert steps == ["fsync part", "rename x", f"fsync {tmp_path.name}"]
    assert (tmp_path / "x").read_bytes() == b"2"


def test_a_part_that_is_dropped(tmp_path: Path) -> None:
    """The target is as it was, and nothing is beside it."""
    (tmp_path / "x").write_text("old")
    with PartFile(tmp_path / "x") as part:
        os.write(part.descriptor, b"new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "old"}


KILLED = """
import os, sys, time
from pathlib import Path
from capillary_async._files.durable import PartFile
part = PartFile(Path(sys.argv[1]))
print(part.path.name, flush=True)
time.sleep(60)
"""


def test_what_a_kill_left_goes_and_what_lives_stays(tmp_path: Path) -> None:
    """A lock says whether a process lives, not its number."""
    target = tmp_path / "all.jsonl"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        name = process.stdout.readline().strip()
        assert name == f".all.jsonl.{process.pid}.part"
        write_file(target, b"1")
        assert (tmp_path / name).exists()
        process.send_signal(signal.SIGKILL)
    foreign = [".all.jsonl.part", ".all.jsonl.x.part", ".other.jsonl.1.part", ".all.jsonl.12.part.bak"]
    for each in foreign:
        (tmp_path / each).touch()
    (tmp_path / f".all.jsonl.{os.getppid()}.part").touch()  # the number is in use again
    (tmp_path / ".all.jsonl.7.part").symlink_to(target)
    write_file(target, b"2")
    assert sorted(os.listdir(tmp_path)) == sorted(["all.jsonl", ".all.jsonl.7.part", *foreign])
    assert target.read_bytes() == b"2"


def test_a_part_of_another_machine(tmp_path: Path) -> None:
    """A process there may have this one's number; its file is neither written nor removed."""
    there = tmp_path / f".x.{os.getpid()}.part"
    with there.open("wb") as file:
        take_lock(file)
        write_file(tmp_path / "x", b"1")
        assert there.exists()
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_part_that_was_removed_meanwhile(tmp_path: Path) -> None:
    """It is told, and the target stays."""
    (tmp_path / "x").write_text("old")
    part = PartFile(tmp_path / "x")
    part.path.unlink()
    with pytest.raises(OSError, match="another process removed"):
        part.publish()
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_nothing_is_opened_through_a_link(tmp_path: Path, kind: str, flags: int) -> None:
    """Nor is a pipe waited for; what is there stays as it is."""
    path, other = tmp_path / "own", tmp_path / "other"
    other.write_text("kept")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    began = time.monotonic()
    with pytest.raises(OSError, match=r"symbolic link|no regular file|[Dd]irectory"):
        open_own(path, flags)
    assert time.monotonic() - began < 5
    assert other.read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_folder_that_cannot_be_synced(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on old CIFS and some FUSE disks: files are synced all the same."""
    fsync = os.fsync

    def files_alone(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - a link of the system
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_alone)
    write_file(tmp_path / "x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_flock(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks of POSIX do it; where there are none either, files are written and none are swept."""
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with (tmp_path / "lock").open("w+b") as file:
        take_lock(file)
        code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        tried = subprocess.run([sys.executable, "-c", code, file.name], capture_output=True, check=False)
        assert b"BlockingIOError" in tried.stderr
    with PartFile(tmp_path / "x") as part:
        sweep(tmp_path / "x")
        assert part.path.exists()
    monkeypatch.setattr(fcntl, "lockf", refusing(number))
    with (tmp_path / "lock").open("w+b") as file, pytest.raises(OSError, match=os.strerror(number)) as caught:
        take_lock(file)
    assert not isinstance(caught.value, BlockingIOError)
    (tmp_path / ".x.1.part").touch()
    write_file(tmp_path / "x", b"1")
    assert sorted(os.listdir(tmp_path)) == [".x.1.part", "lock", "x"]


def test_a_part_swept_before_it_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is made, whether the lock was taken or the file is gone."""
    tried: list[int] = []

    def late(descriptor: int) -> None:
        tried.append(descriptor)
        if len(tried) == 1:
            raise BlockingIOError
        if len(tried) == 2:
            next(tmp_path.glob(".x.*-*.part")).unlink()

    monkeypatch.setattr(_durable_files, "take_lock", late)
    with PartFile(tmp_path / "x") as part:
        os.write(part.descriptor, b"1")
        part.publish()
    assert len(tried) == 3
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """A file in its place would take the data of whoever reads it; a device would be gone for all."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="only a file can be replaced"):
        PartFile(pipe)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
