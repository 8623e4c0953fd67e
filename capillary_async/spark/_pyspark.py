"""pyspark, which the cluster supplies; the one place that imports it.

Invariant: without it, one sentence says what to install. It is `Any` here, so that types are checked alike with and
without it. Used by the files of this package that need Spark; imports nothing of ours.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

__all__ = [
    "AvailableNow",
    "DataSource",
    "DataSourceReader",
    "DataSourceStreamReader",
    "InputPartition",
    "filters",
    "read_limit",
    "types",
]

try:
    importlib.import_module("pyarrow")
    _source: Any = importlib.import_module("pyspark.sql.datasource")
    types: Any = importlib.import_module("pyspark.sql.pandas.types")
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"capillary_async.spark needs pyspark 4 and pyarrow, which a Spark cluster has ({error.name} is missing): at a "
        'desk, pip install "capillary-async[spark]" "pyspark[connect]>=4"',
        name=error.name,
    ) from error

DataSource: Any = _source.DataSource
DataSourceReader: Any = _source.DataSourceReader
DataSourceStreamReader: Any = _source.DataSourceStreamReader
InputPartition: Any = _source.InputPartition

# From Spark 4.2 on; a stream that is not of this class reads all that is available as one micro-batch.
AvailableNow: Any = object
with suppress(ModuleNotFoundError):
    AvailableNow = importlib.import_module("pyspark.sql.streaming.datasource").SupportsTriggerAvailableNow


def filters() -> tuple[Any, Any]:
    """The classes of `=` and `IN`, which Spark 4.0 has not."""
    return _source.EqualTo, _source.In


def read_limit(rows: int) -> Any:
    """The limit of a micro-batch, from Spark 4.2 on."""
    return importlib.import_module("pyspark.sql.streaming.datasource").ReadMaxRows(rows)
