"""(e) Import time: the whole package beside aiohttp alone, in fresh processes by turns."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.results import Row, Sample, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.measuring import Bench

__all__ = ["TITLE", "measure"]

TITLE = "import in a fresh process"
TIMES = 6  # fresh processes for each run
_MILLI = 1e3
_CODE = """
import json, time
wall, cpu = time.perf_counter(), time.process_time()
import {module}
print(json.dumps({{"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}}))
"""


def measure(bench: Bench) -> Section:
    """Both by turns, after a first import that writes what byte code is missing; then none is written."""
    modules = ("capillary_async", "aiohttp")
    runs: dict[str, list[dict[str, Any]]] = {module: [] for module in modules}
    for number in range(max(3, bench.size(TIMES * bench.runs)) + 1):
        for module in modules:
            cost = _import(bench, module, write=not number)
            if number:
                runs[module].append(cost)
    samples = {module: Sample(tuple(runs[module])) for module in modules}
    rows = tuple(
        Row(
            f"import {module}",
            _milli(sample, "cpu"),
            _milli(sample, "wall"),
            ratio=paired(sample, samples["aiohttp"], "cpu"),
            runs=sample.runs,
        )
        for module, sample in samples.items()
    )
    target = Target("(e) importing at most 1.25x aiohttp", rows[0].ratio, at_most=1.25)
    return Section("e", TITLE, "ms", "CPU by aiohttp's", rows, (target,))


def _import(bench: Bench, module: str, *, write: bool) -> dict[str, Any]:
    env = {"PYTHONDONTWRITEBYTECODE": "" if write else "1"}
    command = [sys.executable, "-c", _CODE.format(module=module)]
    told: dict[str, Any] = bench.children.said(bench.children.start(*command, env=env))
    return told


def _milli(sample: Sample, name: str) -> float | None:
    value = sample.median(name)
    return None if value is None else value * _MILLI
