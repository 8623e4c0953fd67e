"""Customers into Parquet files by dlt: its REST client, a pipeline, and its destination `filesystem`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")

import dlt

from benchmarks.clients.dlt_rest import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Pipeline"]


class Pipeline(Reader):
    """`pipeline.run(..., loader_file_format="parquet")`."""

    def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Load the rows of many customers; gives their number."""
        records = 0
        pool = self._pool = self._pool or ThreadPoolExecutor(concurrency)

        def rows() -> Iterator[list[Any]]:
            nonlocal records
            for page in pool.map(self.customer, ids):
                records += len(page)
                yield page

        with TemporaryDirectory(prefix="capillary-bench-") as folder:
            pipeline = dlt.pipeline(
                "benchmark",
                destination=dlt.destinations.filesystem(Path(folder, "out").as_uri()),
                dataset_name="points",
                pipelines_dir=folder,
            )
            pipeline.run(dlt.resource(rows, name="allocations"), loader_file_format="parquet")
        return records
