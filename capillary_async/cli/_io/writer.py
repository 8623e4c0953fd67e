"""Writing rows as JSON Lines or CSV, to a file that appears when it is whole, or to stdout.

Invariant: rows are written as they come and never gathered; a file that is there was written to its end, and is on the
disk. Used by `_commands/read.py` and `_commands/ledger.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from capillary_async._files.addresses import why_no_path
from capillary_async._files.durable import PartFile
from capillary_async.cli._io.id_input import STREAM
from capillary_async.cli._io.io_thread import IOThread
from capillary_async.cli._io.run import UnusableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from capillary_async.cli._io.options import Output
    from capillary_async.cli._io.rows import Row, Table

__all__ = ["Writer", "csv_line"]

_TO_QUOTE = re.compile(r'[",\r\n]')
_PIECE = 65_536  # bytes that may wait while others are being written


class Writer:
    """The output of one command: `async with Writer(...) as writer: await writer.write(rows)`.

    Behind an error, a file is as it was before.

    Raises:
        UnusableError: The file cannot be written.
    """

    def __init__(self, output: Output, table: Table) -> None:
        self._text = _Csv(table) if output.format == "csv" else _JsonLines(table)
        self._target = None if output.out in ("-", STREAM) else _target_of(output.out)
        self._buffer = bytearray()
        self._descriptor, self._part = _opened(self._target)
        self._blocking = IOThread()
        self._flight: asyncio.Task[None] | None = None

    async def write(self, rows: Iterable[Row]) -> None:
        """Write rows: at once where nothing else is being written, else behind that.

        Raises:
            OSError: What was written before did not arrive.
        """
        for row in rows:
            self._buffer += self._text.line(row)
        self._send()
        await self._until_less_than(_PIECE)

    def _send(self) -> None:
        if self._flight is None and self._buffer:
            piece, self._buffer = bytes(self._buffer), bytearray()
            self._flight = asyncio.ensure_future(self._blocking.call(_write_all, self._descriptor, piece))
            self._flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        """Send what waited; a flight that failed stays, so that the next write finds it."""
        if not flight.cancelled() and flight.exception() is None:
            self._flight = None
            self._send()

    async def _until_less_than(self, waiting: int) -> None:
        while self._flight is not None and len(self._buffer) >= waiting:
            flight = self._flight
            await asyncio.wait([flight])
            flight.result()

    async def __aenter__(self) -> Self:
        self._buffer += self._text.head()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._send()
                await self._until_less_than(0)
                if self._part is not None:
                    await self._blocking.call(self._part.publish)
        finally:
            if self._part is not None:
                self._part.unlink()  # the process may end before the thread does
            self._blocking.end(self._close)

    def _close(self) -> None:
        if self._part is not None:
            self._part.drop()
        elif self._target is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)


def _target_of(given: str) -> Path:
    """The file that the path leads to: a link stays a link, and its target is replaced.

    Raises:
        UnusableError: It is a URL.
    """
    why = why_no_path(given)
    if why is not None:
        raise UnusableError(f"--out: {why}")
    return Path(os.path.realpath(given))


def _opened(target: Path | None) -> tuple[int, PartFile | None]:
    """Where to write, and the unfinished file beside the target; devices and pipes are written as they are."""
    try:
        if target is None:
            sys.stdout.flush()
            return sys.stdout.fileno(), None
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            return os.open(target, os.O_WRONLY | getattr(os, "O_BINARY", 0)), None
        part = PartFile(target, mode=mode)
    except OSError as error:
        raise UnusableError(f"cannot write {target or 'stdout'}: {error.strerror or error}") from error
    return part.descriptor, part


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


class _JsonLines:
    def __init__(self, table: Table) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._lean = table.lean

    def head(self) -> bytes:
        return b""

    def line(self, row: Row) -> bytes:
        kept = {name: value for name, value in row.items() if value is not None} if self._lean else row
        return self._encode(kept) + b"\n"


class _Csv:
    """Nested values are JSON text in their cell; nothing is an empty cell."""

    def __init__(self, table: Table) -> None:
        self._columns = table.columns

    def head(self) -> bytes:
        return csv_line(self._columns)

    def line(self, row: Row) -> bytes:
        return csv_line([_cell(row[name]) for name in self._columns])


def csv_line(cells: Sequence[Any]) -> bytes:
    """A line of CSV that every reader takes apart as it was put together.

    Unlike the `csv` module of Python 3.11 and 3.12, it puts a text with a lone CR in quotation marks.
    """
    texts = ["" if cell is None else str(cell) for cell in cells]
    if texts == [""]:
        return b'""\n'  # an empty line is no record
    return (",".join(_quoted(text) if _TO_QUOTE.search(text) else text for text in texts) + "\n").encode()


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value
