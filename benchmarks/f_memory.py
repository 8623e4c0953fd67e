"""(f) Memory: does it grow with the number of customers, or with the length of a list that is streamed?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.clients import OURS
from benchmarks.results import Row, Section, Target

if TYPE_CHECKING:
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "peak memory: customers through the fan-out, one long list streamed"
CONCURRENCY = 32
CUSTOMERS = (1_000, 10_000, 100_000)
PAGES = (100, 10_000)
_RUNS = 2  # memory varies little


def measure(bench: Bench) -> Section:
    """Only the SDK: customers from a generator, remembered or not; and lists, record by record."""
    few, some, many = (bench.size(count, 40 * step) for step, count in enumerate(CUSTOMERS, 1))
    short, long = (bench.size(pages, 3 * step) for step, pages in enumerate(PAGES, 1))
    apart: dict[str, Any] = {"options": {"unique": False}}
    with bench.raw("f") as server:
        kinds: dict[str, dict[str, Any]] = {
            f"{few:,} customers": {"customers": few},
            f"{some:,} customers": {"customers": some},
            f"{many:,} customers": {"customers": many},
            f"{few:,} customers, unique=False": {"customers": few, **apart},
            f"{many:,} customers, unique=False": {"customers": many, **apart},
            f"a list of {short * 100:,} records": {"pages": short},
            f"a list of {long * 100:,} records": {"pages": long},
        }
        jobs = {
            name: bench.job(OURS, server, stream=True, concurrency=CONCURRENCY, **kind) for name, kind in kinds.items()
        }
        samples = bench.alternate("f", jobs, runs=min(bench.runs, _RUNS))
    names = list(samples)
    bases = dict(zip(names, (names[0], names[0], names[0], names[3], names[3], names[5], names[5]), strict=True))
    rows = tuple(_row(name, sample, samples[bases[name]]) for name, sample in samples.items())
    return Section("f", TITLE, "s", "more MiB than the smallest", rows, _targets(samples, names))


def _row(name: str, sample: Sample, base: Sample) -> Row:
    return Row(
        f"{OURS.title}: {name}", sample.median("cpu"), sample.median("wall"), sample.median("peak_mib"),
        _growth(sample, base), sample.fault or "", sample.runs,
    )  # fmt: skip


def _growth(sample: Sample, base: Sample) -> float | None:
    most, least = sample.median("peak_mib"), base.median("peak_mib")
    return None if most is None or least is None else most - least


def _targets(samples: dict[str, Sample], names: list[str]) -> tuple[Target, ...]:
    def grown(many: int, few: int) -> float | None:
        return _growth(samples[names[many]], samples[names[few]])

    return (
        Target(f"(f) {names[2]} within 16 MiB of {names[0]}", grown(2, 0), at_most=16, unit=" MiB"),
        Target(f"(f) {names[4]} within 6 MiB of {names[3]}", grown(4, 3), at_most=6, unit=" MiB"),
        Target(f"(f) {names[6]} within 80 MiB of {names[5]}", grown(6, 5), at_most=80, unit=" MiB"),
    )
