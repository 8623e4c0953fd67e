"""The SDK's rows on Apache Spark: a data source for batches and streams, and a reader for ids that are in a table.

Invariant: importing this package loads neither pyspark nor pyarrow, which the cluster supplies; no secret is part of a
plan, since credentials are references that each task resolves. Nothing here ran on a cluster of several nodes.

    register(spark)
    frame = spark.read.format("capillary").option("resource", "points_allocation.by_expiry")...load()
    frame = read(ids_df, id_column="customer_id", resource="points_allocation.by_expiry", ...)
"""

from typing import TYPE_CHECKING

from capillary_async._lazy import lazily

if TYPE_CHECKING:
    from capillary_async.spark._doors import read, register

__all__ = ["read", "register"]

__getattr__, __dir__ = lazily(__name__, {"_doors": ("read", "register")})
