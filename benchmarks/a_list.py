"""(a) One list of 100 full pages, no latency: what a record costs the client's CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.pages import SIZE
from benchmarks.results import Row, Section, Target, ratio

if TYPE_CHECKING:
    from benchmarks.clients import Peer
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "one list of 100 pages of 100 records, no latency"
PAGES = 100
TIMES = 5  # reads of the list in one process, so that the work is long against the clock
_MICRO = 1e6


def measure(bench: Bench) -> Section:
    """Every client reads the same list, record by record."""
    pages = bench.size(PAGES, 3)
    with bench.recorded("a", pages) as server:
        jobs = {peer.name: bench.job(peer, server, pages=pages, repeat=TIMES) for peer in bench.has()}
        samples = bench.alternate("a", jobs)
    records = pages * SIZE * TIMES
    floor = samples["floor"].median("cpu") if "floor" in samples else None
    rows = tuple(_row(peer, samples[peer.name], records, floor) for peer in bench.has())
    return Section(
        "a", TITLE.replace("100 pages", f"{pages} pages"), "µs a record", "CPU by the floor's", rows, _targets(samples)
    )


def _row(peer: Peer, sample: Sample, records: int, floor: float | None) -> Row:
    cpu, wall, requests = sample.median("cpu"), sample.median("wall"), sample.median("requests")
    asked = "" if requests is None else f"{requests / TIMES:g} requests"
    return Row(
        peer.title,
        None if cpu is None else cpu / records * _MICRO,
        None if wall is None else wall / records * _MICRO,
        sample.median("peak_mib"),
        ratio(cpu, floor),
        sample.fault or ", ".join(part for part in (asked, "" if peer.typed else "no Decimal") if part),
        sample.runs,
    )


def _targets(samples: dict[str, Sample]) -> tuple[Target, ...]:
    cpu = {name: sample.median("cpu") for name, sample in samples.items()}
    ours = cpu.get("ours")
    return (
        Target(
            "(a) CPU a record at most 1.10x the floor's (aim: below 1)", ratio(ours, cpu.get("floor")), at_most=1.10
        ),
        Target("(a) httpx + pydantic at least 2.7x ours (aim: 3)", ratio(cpu.get("httpx"), ours), at_least=2.7),
        Target("(a) dlt at least 4x ours", ratio(cpu.get("dlt"), ours), at_least=4),
        Target("(a) the generated SDK's runtime at least 12x ours", ratio(cpu.get("openai"), ours), at_least=12),
    )
