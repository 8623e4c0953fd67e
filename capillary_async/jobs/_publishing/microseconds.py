"""Shards with times in microseconds, as the files of Delta tables have them.

Invariant: nothing but the unit of times changes, and a time that does not fit is an error. Called by
`_publishing/delta.py`.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from capillary_async.jobs._common.digest import file_digest
from capillary_async.jobs._common.errors import JobError, one_line
from capillary_async.jobs._common.pyarrow_import import pa, pq

if TYPE_CHECKING:
    from collections.abc import Generator

    from capillary_async.jobs._publishing.finished import Piece

__all__ = ["in_microseconds", "with_microseconds"]


def in_microseconds(schema: Any) -> Any:
    """The columns of a shard with times in microseconds, without metadata."""
    times = {field.name: pa.timestamp("us", field.type.tz) for field in schema if pa.types.is_timestamp(field.type)}
    return pa.schema([pa.field(field.name, times.get(field.name, field.type)) for field in schema])


@contextlib.contextmanager
def with_microseconds(piece: Piece) -> Generator[Piece]:
    """A file with the rows of a shard; the shard itself if its times are in microseconds.

    Raises:
        JobError: A time does not fit, or there is no room for a temporary file.
    """
    if pq.read_schema(piece.path).remove_metadata().equals(in_microseconds(pq.read_schema(piece.path))):
        yield piece
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="capillary-publish-")
    except OSError as error:
        raise JobError(f"no temporary file can be written: {error}; make room, or set TMPDIR") from None
    with folder as name:
        path = Path(name) / "part.parquet"
        _convert(piece, path)
        yield attrs.evolve(piece, path=path, bytes=path.stat().st_size, sha256=file_digest(path))


def _convert(piece: Piece, target: Path) -> None:
    """Write the rows, one row group at a time."""
    rows = 0
    try:
        with pq.ParquetFile(piece.path) as file:
            schema = in_microseconds(file.schema_arrow)
            with pq.ParquetWriter(target, schema, compression="zstd", store_decimal_as_integer=True) as writer:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group).replace_schema_metadata(None).cast(schema)
                    writer.write_table(table)
                    rows += table.num_rows
    except (OSError, pa.ArrowException) as error:
        raise JobError(
            f"{piece.path} cannot be written with times in microseconds: {one_line(error)}; publish it as a copy",
            path=str(piece.path),
        ) from None
    if rows != piece.rows:
        raise JobError(f"{piece.path} has {rows:,} rows, the manifest says {piece.rows:,}", path=str(piece.path))
