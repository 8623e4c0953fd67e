"""Batches to a Parquet file, in bounded memory.

Invariant: the file has its name only once it is whole and on the disk; what ended early leaves nothing of it.
Called by `Tabular.to_parquet`.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from capillary_async._files.durable import PartFile
from capillary_async.tables._imports import needed

if TYPE_CHECKING:
    from pathlib import Path

    from capillary_async.tables._batches import BatchIterator

__all__ = ["write"]

_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "version": "2.6"}


async def write(batches: BatchIterator, path: Path) -> int:
    """Write all batches to a file; returns the number of rows.

    Raises:
        OSError: The file cannot be written; the file that was there is as it was.
    """
    parquet = needed("pyarrow.parquet", "arrow")
    try:
        part = await asyncio.to_thread(PartFile, path)
        try:
            return await _write(parquet, batches, part)
        finally:
            part.drop()  # of a published one nothing is left to drop
    finally:
        await batches.aclose()


async def _write(parquet: Any, batches: BatchIterator, part: PartFile) -> int:
    rows = 0
    with os.fdopen(os.dup(part.descriptor), "wb") as file:
        writer = parquet.ParquetWriter(file, batches.schema, **_OPTIONS)
        try:
            async for batch in batches:
                await asyncio.shield(asyncio.to_thread(writer.write_batch, batch))
                rows += batch.num_rows
        finally:
            await asyncio.shield(asyncio.to_thread(writer.close))
    await asyncio.to_thread(part.publish)
    return rows
