"""A pack: a ZIP file of the bodies whose rows are in one shard, with an index.

Invariant: a pack gets its name when its bytes are on the disk, and its hash is kept with its shard; each body is read
back with its own hash. Written by `Publisher` in a thread, read by `answers.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
import zlib
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from attrs import frozen

from capillary_async._files.durable import open_own, sync_folder
from capillary_async.jobs._common.digest import file_digest
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._dataset.state import Pack

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

__all__ = ["Body", "PackReader", "PackWriter"]

INDEX = "index.jsonl"
_LEVEL = 1  # of compression
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80  # characters of a request id in a name
_DATE = (1980, 1, 1, 0, 0, 0)


@frozen(eq=False)
class Body:
    """One answer.

    Attributes:
        received: When it came, in UTC.
    """

    path: str
    query: str
    status: int
    request_id: str | None
    received: str
    body: bytes


class PackWriter:
    """Writes one pack. Used in a thread."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f"{path.name}.part")
        self._file: IO[bytes] = os.fdopen(open_own(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC), "w+b")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._index: list[bytes] = []

    def add(self, bodies: Sequence[Body]) -> None:
        """Write bodies."""
        with _naming(self._part):
            for one in bodies:
                self._add(one)
        reached("pack-half-written")

    def _add(self, one: Body) -> None:
        said = _UNSAFE.sub("_", one.request_id or "no-id")[:_LONGEST]
        name = f"{len(self._index):07d}-{said}.json"
        self._zip.writestr(_member(name), one.body, compresslevel=_LEVEL)
        line = {
            "request_id": one.request_id,
            "request": f"{one.path}?{one.query}",
            "status": one.status,
            "received": one.received,
            "sha256": hashlib.sha256(one.body).hexdigest(),
            "file": name,
        }
        self._index.append(json.dumps(line).encode() + b"\n")

    def seal(self, number: int) -> Pack:
        """Make it durable under its name."""
        with _naming(self._part):
            self._zip.writestr(_member(INDEX), b"".join(self._index), compresslevel=_LEVEL)
            self._zip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        sha256, size = file_digest(self._part), self._part.stat().st_size
        reached("pack-written")
        self._part.replace(self._path)
        sync_folder(self._path.parent)
        reached("pack-renamed")
        return Pack(number, self._path.name, sha256, size, len(self._index))

    def drop(self) -> None:
        """Remove the unfinished file."""
        with suppress(OSError, ValueError):
            self._zip.close()
        with suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Name the file in the error of a write: those of an open file have no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


class PackReader:
    """Reads a pack, and says what is wrong with one.

    Raises:
        JobError: It is not there or damaged; the message names the pack and the body.
    """

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._path, self._pack = folder / pack.file, pack
        try:
            whole = self._path.stat().st_size == pack.bytes and file_digest(self._path) == pack.sha256
        except OSError as error:
            raise self._fault(error.strerror or str(error)) from None
        if not whole:
            raise self._fault(self._damage())
        self._zip = zipfile.ZipFile(self._path)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def index(self) -> Iterator[dict[str, Any]]:
        """The lines of the index, in the order in which the bodies came."""
        for line in self._zip.read(INDEX).splitlines():
            yield json.loads(line)

    def body(self, line: dict[str, Any]) -> bytes:
        """The body of a line of the index."""
        return self._zip.read(line["file"])

    def _damage(self) -> str:
        """The first body that is missing, damaged or too much."""
        try:
            with zipfile.ZipFile(self._path) as packed:
                lines = {line["file"]: line for line in map(json.loads, packed.read(INDEX).splitlines())}
                there = packed.namelist()
                for name, line in lines.items():
                    if name not in there:
                        return f"the body {_named(line)} is missing"
                    if not _is_whole(packed, name, line["sha256"]):
                        return f"the body {_named(line)} is damaged"
                for name in there:
                    if name != INDEX and (name not in lines or there.count(name) > 1):
                        return f"the body {name!r} is one too many"
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            return f"it cannot be read: {' '.join(str(error).split()):.200}"
        return "it is not as it was written"

    def _fault(self, what: str) -> JobError:
        return JobError(
            f"{self._path}: {what}. The archive is not complete: take the file from a backup, or export again",
            path=str(self._path),
        )


def _named(line: dict[str, Any]) -> str:
    return f"of request {line['request_id']} ({line['file']})"


def _is_whole(packed: zipfile.ZipFile, name: str, sha256: str) -> bool:
    try:
        return hashlib.sha256(packed.read(name)).hexdigest() == sha256
    except (OSError, zipfile.BadZipFile, zlib.error):
        return False
