"""A local Spark session for tests: two slots, four attempts of each task, an event log, and a UI on a free port.

Invariant: the secret that tests hunt for is in the environment of Spark's processes alone. Used by `tests/spark`, also
as a program: `python -m support.spark_session connect FOLDER URL IDS` is the Connect part, in a process group of its
own.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COMMON", "EXPIRY", "MARK", "start", "stop"]

MARK = "sandbox-password"
COMMON = {"username": "sandbox.till", "credential": "env:CAPILLARY_PASSWORD"}
EXPIRY: dict[str, str] = {
    **COMMON,
    "resource": "points_allocation.by_expiry",
    "programId": "2282",
    "pointCategoryId": "17383",
    "expiryDateStart": "2020-01-01",
    "expiryDateEnd": "2030-12-31",
}


def start(logs: Path, *, connect: bool = False) -> Any:
    """The session; its workers have this interpreter and this environment."""
    from pyspark.sql import SparkSession

    given = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "CAPILLARY_PASSWORD": MARK}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        return _started(SparkSession.builder, logs, connect)
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _started(builder: Any, logs: Path, connect: bool) -> Any:
    builder = builder.remote("local[2]") if connect else builder.master("local[2,4]")
    settings = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",  # it is searched
        "spark.eventLog.dir": logs.as_uri(),
        # The JVM compiles less and sooner: half of a test's time would be its compiler's.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.python.authenticate.socketTimeout": "120s",  # a busy machine starts workers slowly
        "spark.ui.port": "0",
        "spark.ui.enabled": str(not connect).lower(),
        "spark.sql.shuffle.partitions": "2",
        "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def stop(spark: Any) -> None:
    """End the session, and then its server."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    spark.stop()
    if gateway is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(30)


def connect(folder: str, url: str, ids: str) -> None:
    """What works on Connect: the data source, `read`, and errors; prints the counts."""
    from pathlib import Path

    from capillary_async.spark import read, register

    spark = start(Path(folder), connect=True)
    try:
        register(spark)
        options = {**EXPIRY, "baseUrl": url, "numPartitions": "2"}
        frame = spark.read.format("capillary").options(**options).option("ids", ids).load()
        customers = spark.createDataFrame([(int(each),) for each in ids.split(",")], "customer bigint")
        rows = read(customers, id_column="customer", **options)
        print("rows", frame.count(), rows.count())  # noqa: T201
        try:
            events = {**COMMON, "resource": "loyalty_events.list", "baseUrl": url, "ids": "999999999999"}
            spark.read.format("capillary").options(**events).load().count()
        except Exception as error:
            print("error", str(error).replace("\n", " "))  # noqa: T201
    finally:
        spark.stop()


if __name__ == "__main__":
    connect(*sys.argv[2:])
