"""(c) 20,000 customers of one to three pages, 32 at a time: what a request costs the client's CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.pages import CUSTOMERS, pages_of
from benchmarks.results import Row, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.clients import Peer
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["ALL", "CONCURRENCY", "TITLE", "measure", "needed"]

TITLE = "20,000 customers of one to three pages, 32 at a time"
ALL = 20_000
CONCURRENCY = 32
_MICRO = 1e6


def needed(customers: int) -> int:
    """The requests that reading so many customers takes; what a client asks beyond counts as its own cost."""
    return sum(pages_of(CUSTOMERS + number) for number in range(customers))


def measure(bench: Bench) -> Section:
    """Every client reads its customers with as many workers; slow ones read a part of them."""
    peers = [peer for peer in bench.has() if peer.name != "pages"]
    counts = {peer.name: bench.size(round(ALL * peer.share), 40) for peer in peers}
    with bench.raw("c") as server:
        jobs: dict[str, dict[str, Any]] = {
            peer.name: bench.job(peer, server, customers=counts[peer.name], concurrency=CONCURRENCY) for peer in peers
        }
        samples = bench.alternate("c", jobs)
    due = {name: needed(count) for name, count in counts.items()}
    ratios = {name: _by_floor(samples, due, name) for name in samples}
    rows = tuple(_row(peer, samples[peer.name], counts[peer.name], ratios[peer.name]) for peer in peers)
    target = Target("(c) CPU a request at most 1.3x the floor's", ratios.get("ours"), at_most=1.3)
    title = TITLE.replace("20,000", f"{bench.size(ALL, 40):,}")
    return Section("c", title, "µs a request", "CPU by the floor's", rows, (target,))


def _by_floor(samples: dict[str, Sample], due: dict[str, int], name: str) -> float | None:
    """CPU a request needed, by the floor's."""
    floor = samples.get("floor")
    return None if floor is None else paired(samples[name], floor, "cpu", due["floor"] / due[name])


def _row(peer: Peer, sample: Sample, customers: int, by_floor: float | None) -> Row:
    due = needed(customers)
    cpu, wall, requests = sample.median("cpu"), sample.median("wall"), sample.median("requests")
    parts = [f"{customers:,} customers", f"{due:,} requests needed"]
    if requests is not None and requests != due:
        parts.append(f"{requests:,.0f} sent")
    return Row(
        peer.title,
        None if cpu is None else cpu / due * _MICRO,
        None if wall is None else wall / due * _MICRO,
        sample.median("peak_mib"),
        by_floor,
        sample.fault or ", ".join(parts),
        sample.runs,
    )
