"""Customers into record batches: in one asyncio process, and by the data source on a local Spark of two slots."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Self

from benchmarks.clients.ours import Records
from benchmarks.pages import PASSWORD_MD5, QUERY, USERNAME
from capillary_async.spark._options import camel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Batches", "Local"]


class Batches(Records):
    """`FanOut.batches()`: what a task does, without Spark."""

    async def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Read many customers; gives the number of records."""
        fan = self._session.points_allocation.by_expiry_many(ids, **QUERY).options(concurrency=concurrency)
        return sum([batch.num_rows async for batch in fan.batches()])


class Local:
    """`spark.read.format("capillary")`, counted; its CPU is that of other processes, and not measured."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        del options
        self._url = url

    def __enter__(self) -> Self:
        os.environ.update(
            CAPILLARY_BASE_URL=self._url,
            CAPILLARY_USERNAME=USERNAME,
            CAPILLARY_PASSWORD_MD5=PASSWORD_MD5,
            PYSPARK_PYTHON=sys.executable,
            SPARK_LOCAL_IP="127.0.0.1",
        )
        from pyspark.sql import SparkSession  # noqa: PLC0415 - after the environment of its processes

        from capillary_async.spark import register  # noqa: PLC0415 - the same

        builder: Any = SparkSession.builder
        settings = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
        for name, value in settings.items():
            builder = builder.config(name, value)
        self._spark = builder.master("local[2]").getOrCreate()
        register(self._spark)
        return self

    def __exit__(self, *exc: object) -> None:
        self._spark.stop()

    def read_list(self, entity_id: int, take: Callable[[int], object]) -> None:
        """Customers alone are measured."""
        raise NotImplementedError

    def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Read many customers; gives the number of records."""
        reader = self._spark.read.format("capillary").option("resource", "points_allocation.by_expiry")
        reader = reader.options(**{camel(name): str(value) for name, value in QUERY.items()})
        reader = reader.option("concurrency", concurrency // 2).option("ids", ",".join(map(str, ids)))
        return int(reader.load().count())
