"""(g) uvloop: what the `speed` extra is worth on the customers of (c)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benchmarks.c_customers import ALL, CONCURRENCY, needed
from benchmarks.results import Row, Section, paired, ratio

if TYPE_CHECKING:
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "uvloop on and off, on the customers of (c)"
_MICRO = 1e6


def measure(bench: Bench) -> Section:
    """Ours and the floor, each on both loops."""
    customers = bench.size(ALL, 40)
    loops = {"asyncio": False, "uvloop": True} if find_spec("uvloop") else {"asyncio": False}
    with bench.raw("g") as server:
        jobs: dict[str, dict[str, Any]] = {
            f"{peer.title}, {loop}": bench.job(peer, server, customers=customers, concurrency=CONCURRENCY, uvloop=on)
            for peer in bench.has("ours", "floor")
            for loop, on in loops.items()
        }
        samples = bench.alternate("g", jobs)
    rows = tuple(_row(name, sample, _plain(name, samples), needed(customers)) for name, sample in samples.items())
    if len(loops) == 1:
        rows = (*rows, Row("uvloop", note="not installed: pip install 'capillary-async[speed]'"))
    return Section("g", TITLE, "µs a request", "CPU by asyncio's", rows)


def _plain(name: str, samples: dict[str, Sample]) -> Sample:
    return samples[name.replace("uvloop", "asyncio")]


def _row(name: str, sample: Sample, plain: Sample, due: int) -> Row:
    cpu, wall = ratio(sample.median("cpu"), due), ratio(sample.median("wall"), due)
    return Row(
        name,
        None if cpu is None else cpu * _MICRO,
        None if wall is None else wall * _MICRO,
        sample.median("peak_mib"),
        paired(sample, plain, "cpu"),
        sample.fault or "",
        sample.runs,
    )
