"""One input, opened once and read once: a file, a pipe, a named FIFO, stdin; plain or compressed.

Invariant: every byte comes from one descriptor in order, and nothing is opened again or seeked. What it is, is taken
from its first bytes alone where they leave no doubt. All calls may block. Used for ids and books.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import importlib
import io
import os
import re
import select
import threading
import zlib
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

from capillary_async._files.decoding import SourceError, recoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Source", "SourceError"]

_PIECE = 1 << 16
_BOM, _GZIP, _ZSTD = b"\xef\xbb\xbf", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BZIP2 = tuple(b"BZh%d%b" % (level, kind) for level in range(1, 10) for kind in (b"1AY&SY", b"\x17rE8P\x90"))
_WIDE = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_PARQUET = b"PAR1\x15"  # and the first byte of a page or a footer: a header cell may begin with PAR1
_REFUSED = {
    **{
        mark: f"it is {name}; save it as UTF-8, or: iconv -f {name.lower()} -t utf-8, or give its encoding (encoding, "
        f"--encoding): {name.lower()}"
        for mark, name in _WIDE.items()
    },
    b"PK\x03\x04": "it is a workbook (xlsx) or another ZIP archive, no CSV; save the sheet as CSV, UTF-8",
    b"\xd0\xcf\x11\xe0": "it is an old Excel workbook (xls), no CSV; save the sheet as CSV, UTF-8, or the "
    "workbook as .xlsx",
    b"\xfd7zXZ\x00": "it is compressed with xz; unpack it, or compress it with gzip, bzip2 or zstd",
}
_MARKS = (_BOM, _GZIP, _ZSTD, *_BZIP2, _PARQUET, *_REFUSED)


class Source:
    """An input.

    Args:
        path: The file; or the number of a descriptor, which is closed at the end.
        size: The largest piece.
        hashed: Whether to compute `digest`.
        encoding: The encoding of its text; pieces are UTF-8 whatever it is.

    Attributes:
        kind: `text`, `gzip`, `bzip2`, `zstd` or `parquet`, known once it is open.
        digest: The SHA-256 of the bytes as they are in the file, once all are read.
    """

    def __init__(self, path: str | int, *, size: int = _PIECE, hashed: bool = False, encoding: str = "utf-8") -> None:
        self._path, self._size, self._encoding = path, size, encoding
        self._descriptor: int | None = None
        self._read: Callable[[int], bytes] | None = None
        self._hash = hashlib.sha256() if hashed else None
        self._raw: _Raw | None = None
        self.kind = "text"

    @property
    def digest(self) -> str | None:
        """The SHA-256 of what was read so far."""
        return self._hash.hexdigest() if self._hash else None

    def open(self) -> None:
        """Open it and look at its first bytes.

        Raises:
            SourceError: It cannot be opened, or is something that is not read.
        """
        if self._read is not None:
            return
        try:
            self._descriptor = _opened(self._path)
            raw = self._raw = _Raw(self._descriptor, self._hash)
            head = raw.peek(_begins)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror or error}") from error
        if head.startswith(_PARQUET):
            self.kind = "parquet"
        elif head.startswith(_GZIP):
            self.kind = "gzip"
            self._read = self._text(gzip.GzipFile(fileobj=io.BufferedReader(raw, self._size), mode="rb").read1)
        elif head.startswith(_BZIP2):
            self.kind = "bzip2"
            self._read = self._text(bz2.BZ2File(io.BufferedReader(raw, self._size)).read1)
        elif head.startswith(_ZSTD):
            self.kind = "zstd"
            self._read = self._text(_unzstd(raw))
        else:
            self._read = self._text(raw.some)

    def _text(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        return _text(read) if self._encoding == "utf-8" else recoded(read, self._encoding)

    def piece(self) -> bytes:
        """The next piece of text without a BOM, as soon as some of it is there; empty at the end.

        Raises:
            SourceError: It cannot be read, its compressed data are damaged or cut off, or it is no text.
        """
        self.open()
        if self._read is None:
            raise SourceError("it is a Parquet file: that is read from a file only, not from a pipe and not as text")
        try:
            return self._read(self._size)
        except EOFError:
            raise SourceError(f"its {self.kind} data are cut off; make or fetch the file again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"its {self.kind} data are damaged: {error}") from error
        except OSError as error:
            if self.kind in ("zstd", "bzip2"):
                raise SourceError(f"its {self.kind} data are cut off or damaged: {error}") from error
            raise SourceError(f"cannot be read: {error.strerror or error}") from error

    def pieces(self, check: Callable[[], object]) -> Iterator[bytes]:
        """All pieces, read in a thread of their own, which does not keep the process from ending.

        Args:
            check: Called at least every 0.1 s while nothing arrives; what it raises ends the reading.

        Raises:
            SourceError: As `piece`.
        """
        arrived: Queue[bytes | BaseException] = Queue(2)
        ended = threading.Event()
        thread = threading.Thread(
            target=self._put_all, args=(arrived, ended), name="capillary-async-input", daemon=True
        )
        thread.start()
        try:
            while True:
                check()
                try:
                    piece = arrived.get(timeout=0.1)
                except Empty:
                    continue
                if isinstance(piece, BaseException):
                    raise piece
                if not piece:
                    return
                yield piece
        finally:
            ended.set()

    def _put_all(self, arrived: Queue[bytes | BaseException], ended: threading.Event) -> None:
        piece: bytes | BaseException = b"more"
        while piece and not isinstance(piece, BaseException) and not ended.is_set():
            try:
                piece = self.piece()
            except Exception as error:  # noqa: BLE001 - raised where the pieces are taken
                piece = error
            while not ended.is_set():
                with contextlib.suppress(Full):
                    arrived.put(piece, timeout=0.1)
                    break
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _opened(path: str | int) -> int:
    if isinstance(path, int):
        return path
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        number = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)|/dev/stdin", path)
        if error.errno != errno.ENXIO or number is None:
            raise
        return os.dup(int(number[1] or 0))  # a socket, which has no name to open


def _begins(head: bytes) -> bool:
    """Whether more bytes could make it one of the marks."""
    return any(len(head) < len(mark) and mark.startswith(head) for mark in _MARKS)


class _Raw(io.RawIOBase):
    """The bytes of a descriptor, the first of which can be looked at."""

    def __init__(self, descriptor: int, digest: Any) -> None:
        super().__init__()
        self._descriptor, self._digest, self._head = descriptor, digest, b""

    def readable(self) -> bool:
        return True

    def peek(self, more: Callable[[bytes], bool]) -> bytes:
        """The first bytes, as many as are wanted; they are read again."""
        while more(self._head) and (piece := self._from_descriptor(_PIECE)):
            self._head += piece
        return self._head

    def some(self, size: int) -> bytes:
        """What is there, at most so much."""
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._from_descriptor(size)

    def readinto(self, buffer: Any) -> int:
        piece = self.some(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _from_descriptor(self, size: int) -> bytes:
        while True:
            try:
                piece = os.read(self._descriptor, size)
            except BlockingIOError:  # whoever shares it made it non-blocking
                select.select([self._descriptor], [], [])
                continue
            if self._digest is not None:
                self._digest.update(piece)
            return piece


def _text(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The pieces of text without their BOM.

    Raises:
        SourceError: The first bytes say that it is no text.
    """
    head: bytes | None = b""

    def piece(size: int) -> bytes:
        nonlocal head
        if head is None:
            return read(size)
        ended = False
        while not ended and _begins(head):
            more = read(size)
            ended, head = not more, head + more
        for mark, said in _REFUSED.items():
            if head.startswith(mark):
                raise SourceError(said)
        if head.startswith((_PARQUET, _GZIP, _ZSTD, *_BZIP2)):
            raise SourceError("it is compressed twice, or holds a compressed Parquet file; unpack it once")
        found, head = head.removeprefix(_BOM), None
        return found if found or ended else read(size)

    return piece


def _unzstd(raw: _Raw) -> Callable[[int], bytes]:
    try:
        arrow: Any = importlib.import_module("pyarrow")
    except ModuleNotFoundError:
        raise SourceError(
            'zstd needs the jobs extra: pip install "capillary-async[cli,jobs]"; or compress it with gzip'
        ) from None
    stream = arrow.CompressedInputStream(arrow.PythonFile(raw, mode="r"), "zstd")
    return stream.read  # type: ignore[no-any-return]
