"""(c) 20,000 customers, 32 at a time: what a request costs the client's CPU.

Two kinds of customers: a mixture of one to three pages, and those of one page of three records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.clients import FLOOR, KEPT, OURS
from benchmarks.pages import CUSTOMERS, pages_of
from benchmarks.results import Row, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["ALL", "CONCURRENCY", "TITLE", "measure", "needed"]

TITLE = "20,000 customers of one to three pages, 32 at a time"
ALL = 20_000
CONCURRENCY = 32
SHORT = "short-"  # jobs of customers of one page of three records
_MICRO = 1e6


def needed(customers: int) -> int:
    """The requests that reading so many customers takes; what a client asks beyond counts as its own cost."""
    return sum(pages_of(CUSTOMERS + number) for number in range(customers))


def measure(bench: Bench) -> Section:
    """Every client reads its customers with as many workers; slow ones read a part of them."""
    peers = [peer for peer in bench.has() if peer.name != "pages"]
    short = [peer for peer in peers if peer in (OURS, FLOOR, KEPT)]
    counts = {peer.name: bench.size(round(ALL * peer.share), 40) for peer in peers}
    due = {name: needed(count) for name, count in counts.items()} | {
        SHORT + peer.name: counts[peer.name] for peer in short
    }
    with bench.raw("c") as server:
        jobs: dict[str, dict[str, Any]] = {
            peer.name: bench.job(peer, server, customers=counts[peer.name], concurrency=CONCURRENCY) for peer in peers
        }
        jobs |= {SHORT + peer.name: {**jobs[peer.name], "short": True} for peer in short}
        samples = bench.alternate("c", jobs)
    rows = [_row(peer.title, samples[peer.name], due[peer.name], _ratio(samples, due, peer.name)) for peer in peers]
    rows += [
        _row(f"{peer.title}, 3 records", samples[name], due[name], _ratio(samples, due, name, SHORT))
        for peer in short
        for name in (SHORT + peer.name,)
    ]
    title = TITLE.replace("20,000", f"{bench.size(ALL, 40):,}")
    return Section("c", title, "µs a request", "CPU by the floor's", tuple(rows), _targets(samples, due))


def _targets(samples: dict[str, Sample], due: dict[str, int]) -> tuple[Target, ...]:
    return (
        Target("(c) CPU a request at most 1.35x the floor's (aim: 1.2)", _ratio(samples, due, "ours"), at_most=1.35),
        Target(
            "(c) one page of 3 records at most 1.6x the floor's (aim: 1.45)",
            _ratio(samples, due, SHORT + "ours", SHORT),
            at_most=1.6,
        ),
    )


def _ratio(samples: dict[str, Sample], due: dict[str, int], name: str, kind: str = "") -> float | None:
    """CPU per request needed, by the floor's on customers of the same kind."""
    floor = samples.get(kind + "floor")
    if floor is None or name not in samples:
        return None
    return paired(samples[name], floor, "cpu", due[kind + "floor"] / due[name])


def _row(title: str, sample: Sample, due: int, by_floor: float | None) -> Row:
    cpu, wall, requests = sample.median("cpu"), sample.median("wall"), sample.median("requests")
    parts = [f"{due:,} requests needed"]
    if requests is not None and requests != due:
        parts.append(f"{requests:,.0f} sent")
    return Row(
        title,
        None if cpu is None else cpu / due * _MICRO,
        None if wall is None else wall / due * _MICRO,
        sample.median("peak_mib"),
        by_floor,
        sample.fault or ", ".join(parts),
        sample.runs,
    )
