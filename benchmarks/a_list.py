"""(a) One list of 100 full pages, no latency: what a record costs the client's CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.clients import PEERS
from benchmarks.pages import SIZE
from benchmarks.results import Row, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.clients import Peer
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "one list of 100 pages of 100 records, no latency"
PAGES = 100
TIMES = 20  # reads of the list in one process, so that the work is long against the clock; fewer by slow clients
_MICRO = 1e6


def measure(bench: Bench) -> Section:
    """Every client reads the same list, record by record."""
    pages = bench.size(PAGES, 3)
    with bench.recorded("a", pages) as server:
        jobs = {peer.name: bench.job(peer, server, pages=pages, repeat=_times(peer)) for peer in bench.has()}
        samples = bench.alternate("a", jobs)
    ratios = {peer.name: _ratio(samples, peer.name, "floor") for peer in bench.has()}
    rows = tuple(_row(peer, samples[peer.name], pages, ratios[peer.name]) for peer in bench.has())
    title = TITLE.replace("100 pages", f"{pages} pages")
    return Section("a", title, "µs a record", "CPU by the floor's", rows, _targets(samples))


def _times(peer: Peer) -> int:
    return max(1, round(TIMES * peer.share))


def _ratio(samples: dict[str, Sample], one: str, other: str) -> float | None:
    """CPU a record of one client by another's."""
    scale = _times(PEERS[other]) / _times(PEERS[one])
    return paired(samples.get(one), samples.get(other), "cpu", scale)


def _row(peer: Peer, sample: Sample, pages: int, by_floor: float | None) -> Row:
    times = _times(peer)
    cpu, wall, requests = sample.median("cpu"), sample.median("wall"), sample.median("requests")
    asked = "" if requests is None else f"{requests / times:g} requests"
    return Row(
        peer.title,
        None if cpu is None else cpu / (pages * SIZE * times) * _MICRO,
        None if wall is None else wall / (pages * SIZE * times) * _MICRO,
        sample.median("peak_mib"),
        by_floor,
        sample.fault or ", ".join(part for part in (asked, "" if peer.typed else "no Decimal") if part),
        sample.runs,
    )


def _targets(samples: dict[str, Sample]) -> tuple[Target, ...]:
    return (
        Target("(a) CPU a record at most 1.10x the floor's (aim: 1)", _ratio(samples, "ours", "floor"), at_most=1.10),
        Target("(a) at most 1.20x the floor's with kept buffers", _ratio(samples, "ours", "kept-floor"), at_most=1.20),
        Target("(a) httpx + pydantic at least 2.7x ours (aim: 3)", _ratio(samples, "httpx", "ours"), at_least=2.7),
        Target("(a) dlt at least 4x ours", _ratio(samples, "dlt", "ours"), at_least=4),
        Target("(a) the generated SDK's runtime at least 12x ours", _ratio(samples, "openai", "ours"), at_least=12),
    )
