"""(d) Decoding alone: what the SDK's proofs cost over bare msgspec.

Run as a module it is the process that measures: all ways by turns in short blocks, so that a ratio of a few per
cent shows.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.pages import SIZE, list_id, list_page
from benchmarks.results import Row, Sample, Section, Target, paired

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measuring import Bench

__all__ = ["TITLE", "measure"]

TITLE = "decoding a full page alone"
BLOCKS = 40
PAGES_A_BLOCK = 50
_MICRO = 1e6
_NAMES = {
    "ours": "capillary-async's _decode.rows",
    "bare": "bare msgspec.json.Decoder(list[PointsAllocation])",
    "int": "the same with int or float points",
    "pydantic": "pydantic TypeAdapter.validate_json",
}


def measure(bench: Bench) -> Section:
    """In one process all ways by turns; a process for each run."""
    job = {"blocks": bench.size(BLOCKS, 4), "pages": PAGES_A_BLOCK}
    told = [bench.child("benchmarks.d_decode", job) for _ in range(bench.runs)]
    samples = {name: Sample(tuple({"cpu": run[name]} for run in told)) for name in told[0]}
    rows = tuple(
        Row(_NAMES[name], cpu=sample.median("cpu"), ratio=paired(sample, samples["bare"], "cpu"), runs=sample.runs)
        for name, sample in samples.items()
    )
    target = Target("(d) decoding at most 1.15x bare msgspec", rows[0].ratio, at_most=1.15)
    return Section("d", TITLE, "µs a record", "CPU by bare msgspec's", rows, (target,))


def _ways() -> dict[str, Callable[[bytes], Any]]:
    from benchmarks.clients.bare import int_model  # noqa: PLC0415
    from capillary_async._codec import decode as _decode  # noqa: PLC0415 - the measuring process alone needs it
    from capillary_async.models import PointsAllocation  # noqa: PLC0415

    ways: dict[str, Callable[[bytes], Any]] = {
        "ours": lambda body: _decode.rows(PointsAllocation, body),
        "bare": msgspec.json.Decoder(list[PointsAllocation]).decode,
        "int": msgspec.json.Decoder(list[int_model()]).decode,  # type: ignore[misc]
    }
    if find_spec("pydantic"):
        from pydantic import BaseModel, TypeAdapter  # noqa: PLC0415

        from benchmarks.clients._pydantic import allocation_model  # noqa: PLC0415

        rows: Any = list[allocation_model(BaseModel)]  # type: ignore[misc]
        ways["pydantic"] = TypeAdapter(rows).validate_json
    return ways


def main() -> int:
    """Measure; prints the median of the blocks, µs a record."""
    job = json.loads(sys.argv[1])
    bodies = [list_page(list_id(job["pages"]), number) for number in range(1, job["pages"] + 1)]
    ways = _ways()
    blocks: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(job["blocks"] + 1):
        for name, way in ways.items():
            began = time.process_time()
            for body in bodies:
                way(body)
            if number:  # the first block builds what is built once
                blocks[name].append(time.process_time() - began)
    print(json.dumps({name: median(times) / len(bodies) / SIZE * _MICRO for name, times in blocks.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
