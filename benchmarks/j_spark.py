"""(j) Customers on a local Spark: rows a second beside one asyncio process and `jobs.export`, on one raw server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.clients import Peer
from benchmarks.pages import CUSTOMERS, rows_of
from benchmarks.results import Row, Section, Target

if TYPE_CHECKING:
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "customers on Spark local[2], 32 at a time"
MANY = 2_000
CONCURRENCY = 32
_MICRO = 1e6
_SPARK = ("pyspark", "pyarrow")
_CLIENTS = (
    Peer("batches", "one asyncio process, batches()", "spark:Batches", ("pyarrow",), "'capillary-async[arrow]'"),
    Peer("export", "jobs.export", "exports:Export", ("pyarrow", "duckdb"), "'capillary-async[jobs]'"),
    Peer("spark", "Spark local[2], data source", "spark:Local", _SPARK, "'capillary-async[spark]' pyspark"),
)


def measure(bench: Bench) -> Section:
    """The same customers, started and warm: what starts Spark is not measured."""
    count = bench.size(MANY, 40)
    peers = [peer for peer in _CLIENTS if not peer.missing()]
    with bench.raw("j") as server:
        jobs = {peer.name: bench.job(peer, server, customers=count, concurrency=CONCURRENCY) for peer in peers}
        samples = bench.alternate("j", jobs)
    records = sum(rows_of(CUSTOMERS + number) for number in range(count))
    rows = [_row(peer, samples[peer.name], records) for peer in peers]
    rows += [Row(peer.title, note=f"not installed: pip install {peer.install}") for peer in _CLIENTS if peer.missing()]
    return Section("j", TITLE, "µs a record", "-", tuple(rows), _targets(samples))


def _row(peer: Peer, sample: Sample, records: int) -> Row:
    cpu, wall = sample.median("cpu"), sample.median("wall")
    return Row(
        peer.title,
        None if cpu is None or peer.name == "spark" else cpu / records * _MICRO,
        None if wall is None else wall / records * _MICRO,
        None if peer.name == "spark" else sample.median("peak_mib"),
        None,
        sample.fault or ("" if wall is None else f"{records / wall:,.0f} records a second"),
        sample.runs,
    )


def _targets(samples: dict[str, Sample]) -> tuple[Target, ...]:
    walls = {name: sample.median("wall") for name, sample in samples.items()}
    one, spark = walls.get("batches"), walls.get("spark")
    ratio = None if one is None or spark is None else spark / one
    return (Target("(j) Spark local[2] takes at most as long as one process", ratio, at_most=1.0),)
