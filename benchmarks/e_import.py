"""(e) Import time: the package, and a session of it, beside aiohttp alone, in fresh processes by turns.

The package alone loads what is used of it, so that its session is measured too: what most programs pay.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.results import Row, Sample, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.measuring import Bench

__all__ = ["TITLE", "measure"]

TITLE = "import in a fresh process"
STATEMENTS = ("import capillary_async", "from capillary_async import AsyncSession", "import aiohttp")
TIMES = 6  # fresh processes for each run
_MILLI = 1e3
_CODE = """
import json, time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print(json.dumps({{"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}}))
"""


def measure(bench: Bench) -> Section:
    """All by turns, after a first import that writes what byte code is missing; then none is written."""
    runs: dict[str, list[dict[str, Any]]] = {statement: [] for statement in STATEMENTS}
    for number in range(max(3, bench.size(TIMES * bench.runs)) + 1):
        for statement in STATEMENTS:
            cost = _import(bench, statement, write=not number)
            if number:
                runs[statement].append(cost)
    samples = {statement: Sample(tuple(runs[statement])) for statement in STATEMENTS}
    rows = tuple(
        Row(
            statement,
            _milli(sample, "cpu"),
            _milli(sample, "wall"),
            ratio=paired(sample, samples["import aiohttp"], "cpu"),
            runs=sample.runs,
        )
        for statement, sample in samples.items()
    )
    target = Target("(e) importing at most 1.25x aiohttp", rows[0].ratio, at_most=1.25)
    return Section("e", TITLE, "ms", "CPU by aiohttp's", rows, (target,))


def _import(bench: Bench, statement: str, *, write: bool) -> dict[str, Any]:
    env = {"PYTHONDONTWRITEBYTECODE": "" if write else "1"}
    command = [sys.executable, "-c", _CODE.format(statement=statement)]
    told: dict[str, Any] = bench.children.said(bench.children.start(*command, env=env))
    return told


def _milli(sample: Sample, name: str) -> float | None:
    value = sample.median(name)
    return None if value is None else value * _MILLI
