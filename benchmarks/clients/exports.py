"""Customers into Parquet files: by `jobs.export`, and as users write it."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.clients.bare import Floor
from benchmarks.clients.ours import Records
from benchmarks.pages import QUERY
from capillary_async import PointsAllocation, jobs
from capillary_async.tables import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Dicts", "Export", "Outcomes"]

GROUP = 65_536  # rows that a user would write at once


class Export(Records):
    """`jobs.export`: durable, resumable, with digests and totals."""

    async def read_customers(self, ids: Iterable[int], concurrency: int) -> int:  # noqa: ARG002 - the session's limit
        """Export many customers; gives the number of records."""
        with TemporaryDirectory(prefix="capillary-bench-") as folder:
            result = await jobs.export("allocations", ids, Path(folder, "out"), session=self._session, **QUERY)
        return result.records


class Outcomes(Records):
    """The SDK's records as dicts into one file."""

    async def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Write the records of many customers; gives their number."""
        fan = self._session.points_allocation.by_expiry_many(ids, **QUERY).options(concurrency=concurrency)
        with _one_file(pa.decimal128(18, 3)) as write:
            async for outcome in fan:
                write([{"asked_key": outcome.key, **attrs.asdict(record)} for record in outcome.unwrap()])
        return write.rows


class Dicts(Floor):
    """`json.loads` and `pa.Table.from_pylist`, as in a script: points are float, nothing is checked."""

    @staticmethod
    def decoder() -> Callable[[bytes], list[Any]]:
        """Bytes to dicts."""
        return json.loads

    async def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Write the rows of many customers; gives their number."""
        waiting = iter(ids)
        with _one_file(pa.float64()) as write:

            async def work() -> None:
                for entity_id in waiting:
                    write([{**row, "asked_key": entity_id} for row in await self.customer(entity_id)])

            await asyncio.gather(*(work() for _ in range(concurrency)))
        return write.rows


class _Writer:
    """Rows into a file, a group at a time."""

    def __init__(self, path: Path, schema: Any) -> None:
        self.rows = 0
        self.file = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        self.rows += len(rows)
        self._waiting += rows
        if len(self._waiting) >= GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self.file.write_table(pa.Table.from_pylist(self._waiting, self.file.schema))
        self._waiting = []


@contextmanager
def _one_file(points: Any) -> Iterator[_Writer]:
    columns = [(one.name, points if pa.types.is_decimal(one.type) else one.type) for one in schema(PointsAllocation)]
    wire = [("asked_key", pa.int64()), *(one for one in columns if not pa.types.is_timestamp(one[1]))]
    with TemporaryDirectory(prefix="capillary-bench-") as folder:
        writer = _Writer(Path(folder, "rows.parquet"), pa.schema(wire))
        yield writer
        writer.flush()
        writer.file.close()
