"""(b) The same list from a server that takes 50 ms: what reading ahead is worth, and what it asks too much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.clients import OURS
from benchmarks.pages import CUSTOMERS
from benchmarks.results import Row, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "the same list, 50 ms latency: prefetch=8 beside sequential readers"
PAGES = 100
LATENCY = 0.05
PREFETCH = 8
ONE_PAGE = CUSTOMERS + 2  # 37 records: no length at which servers cap a page
_RUNS = 3  # waiting varies little


def measure(bench: Bench) -> Section:
    """Ours reads ahead, the others page by page; the order is checked, the server counts what goes beyond the end."""
    pages = bench.size(PAGES, 10)
    peers = [peer for peer in bench.has() if peer.name != "pages"]
    ahead = {"options": {"prefetch": PREFETCH}}
    with bench.raw("b", LATENCY) as server:
        jobs = {peer.name: bench.job(peer, server, pages=pages, **(ahead if peer is OURS else {})) for peer in peers}
        if OURS in peers:
            jobs["one page"] = bench.job(OURS, server, entity_id=ONE_PAGE, **ahead)
        samples = bench.alternate("b", jobs, runs=min(bench.runs, _RUNS))
    titles = {peer.name: peer.title for peer in peers}
    titles |= {"ours": f"{OURS.title}, prefetch={PREFETCH}", "one page": f"{OURS.title}, a list of one page"}
    by_ours = {
        name: paired(sample, samples.get("ours"), "wall") for name, sample in samples.items() if name != "one page"
    }
    rows = tuple(_row(titles[name], sample, by_ours.get(name)) for name, sample in samples.items())
    return Section("b", TITLE, "s", "wall by ours", rows, _targets(samples, by_ours))


def _row(title: str, sample: Sample, by_ours: float | None) -> Row:
    note = f"{sample.median('requests') or 0:g} requests, {sample.most('beyond') or 0:g} beyond the last page"
    cpu, wall, memory = (sample.median(name) for name in ("cpu", "wall", "peak_mib"))
    return Row(title, cpu, wall, memory, by_ours, sample.fault or note, sample.runs)


def _targets(samples: dict[str, Sample], by_ours: dict[str, float | None]) -> tuple[Target, ...]:
    ours, one = samples.get("ours"), samples.get("one page")
    others = [value for name, value in by_ours.items() if name != "ours" and value is not None]
    faster = "(b) at least 6x faster than the fastest sequential reader, in order"
    beyond = "(b) at most 8 requests beyond the last page"
    return (
        Target(faster, min(others, default=None), at_least=6),
        Target(beyond, ours.most("beyond") if ours else None, at_most=8, unit=""),
        Target("(b) one request for a list of one page", one.most("requests") if one else None, at_most=1, unit=""),
    )
