"""Batches to a Parquet file, in bounded memory.

Invariant: the file has its name only once it is whole and on the disk; a reading that ended early leaves nothing of it.
Called by `Tabular.to_parquet`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from capillary_async._files.durable import PartFile
from capillary_async._files.threads import Thread, in_thread, join
from capillary_async.tables._imports import needed

if TYPE_CHECKING:
    from io import BufferedWriter
    from pathlib import Path

    from capillary_async.tables._doors import Batches

__all__ = ["write"]

_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "version": "2.6"}


async def write(batches: Batches, path: Path) -> int:
    """Write all batches to a file; returns the number of rows.

    Raises:
        OSError: The file cannot be written; the file that was there is as it was.
    """
    sink = _Sink(needed("pyarrow.parquet", "arrow"), path, batches.schema)
    thread = Thread("capillary_async.tables")
    rows = 0
    try:
        await thread.call(sink.open)
        async for batch in batches:
            await thread.call(sink.write, batch)
            rows += batch.num_rows
        await thread.call(sink.publish)
    finally:
        await join(asyncio.ensure_future(in_thread(_end, thread, sink)), asyncio.ensure_future(batches.aclose()))
    return rows


def _end(thread: Thread, sink: _Sink) -> None:
    """Wait for the call that runs, and leave no unfinished file."""
    thread.close()
    sink.drop()


class _Sink:
    """A Parquet file that is being written; its calls block, and are made one at a time."""

    def __init__(self, parquet: Any, path: Path, schema: Any) -> None:
        self._parquet, self._path, self._schema = parquet, path, schema
        self._part: PartFile | None = None
        self._file: BufferedWriter | None = None
        self._writer: Any = None

    def open(self) -> None:
        self._part = PartFile(self._path)
        self._file = os.fdopen(os.dup(self._part.descriptor), "wb")
        self._writer = self._parquet.ParquetWriter(self._file, self._schema, **_OPTIONS)

    def write(self, batch: Any) -> None:
        self._writer.write_batch(batch)

    def publish(self) -> None:
        """Finish the file and give it its name."""
        self._writer.close()
        if self._file is not None:
            self._file.close()
        if self._part is not None:
            self._part.publish()

    def drop(self) -> None:
        """Leave nothing of an unfinished file; of a published one nothing is left to drop."""
        for open_one in (self._writer, self._file):
            with contextlib.suppress(OSError):  # the error that ended the writing is already raised
                if open_one is not None:
                    open_one.close()
        if self._part is not None:
            self._part.drop()
