"""(i) Customers into Parquet files: `jobs.export` beside what users write, and beside reading alone.

Two kinds of customers, as in (c): a mixture of one to three pages, and those of one page of three records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.clients import Peer
from benchmarks.pages import CUSTOMERS, KINDS, rows_of
from benchmarks.results import Row, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "customers into Parquet files, 32 at a time"
MIXED, SHORT = 2_000, 10_000  # customers
CONCURRENCY = 32
_MICRO = 1e6
_ARROW = ("pyarrow", "duckdb")
_CLIENTS = (
    Peer("reading", "reading alone: by_expiry_many", "ours:Records"),
    Peer("export", "capillary-async, jobs.export", "exports:Export", _ARROW, "'capillary-async[jobs]'"),
    Peer("outcomes", "records, attrs.asdict, pyarrow", "exports:Outcomes", _ARROW, "'capillary-async[jobs]'"),
    Peer("dicts", "aiohttp, json, pyarrow", "exports:Dicts", _ARROW, "'capillary-async[jobs]'", typed=False),
    Peer("dlt", "dlt pipeline", "exports_dlt:Pipeline", ("dlt", "pyarrow"), "'dlt[parquet]'", share=0.1, typed=False),
)
_BEFORE = Peer("before", "jobs.export of the commit before", "exports:Export", _ARROW, "'capillary-async[jobs]'")
_KINDS = {"": "1 to 3 pages", "short-": "3 records"}


def measure(bench: Bench) -> Section:
    """Every client writes the same customers; slow ones a part of them."""
    peers = [peer for peer in (*_CLIENTS, *((_BEFORE,) if bench.before else ())) if not peer.missing()]
    counts = {
        kind + peer.name: bench.size(round((SHORT if kind else MIXED) * peer.share), 40)
        for kind in _KINDS
        for peer in peers
    }
    with bench.raw("i") as server:
        jobs: dict[str, dict[str, Any]] = {
            kind + peer.name: bench.job(
                peer,
                server,
                customers=counts[kind + peer.name],
                concurrency=CONCURRENCY,
                short=bool(kind),
                **({"package": str(bench.before.absolute())} if bench.before and peer is _BEFORE else {}),
            )
            for kind in _KINDS
            for peer in peers
        }
        samples = bench.alternate("i", jobs)
    records = {name: _records(name, count) for name, count in counts.items()}
    rows = [
        _row(f"{peer.title}, {_KINDS[kind]}", kind + peer.name, samples, records) for kind in _KINDS for peer in peers
    ]
    rows += [Row(peer.title, note=f"not installed: pip install {peer.install}") for peer in _CLIENTS if peer.missing()]
    targets = _targets(samples, records) + (_by_the_one_before(samples, records) if bench.before else ())
    return Section("i", TITLE, "µs a record", "CPU by reading alone", tuple(rows), targets)


def _records(name: str, customers: int) -> int:
    """What so many customers have."""
    step = len(KINDS) if name.startswith("short-") else 1
    return sum(rows_of(CUSTOMERS + step * number) for number in range(customers))


def _ratio(samples: dict[str, Sample], records: dict[str, int], one: str, other: str) -> float | None:
    """CPU a record of one client by another's."""
    if one not in samples or other not in samples:
        return None
    return paired(samples[one], samples[other], "cpu", records[other] / records[one])


def _row(title: str, name: str, samples: dict[str, Sample], records: dict[str, int]) -> Row:
    sample, kind = samples[name], "short-" if name.startswith("short-") else ""
    cpu, wall = sample.median("cpu"), sample.median("wall")
    return Row(
        title,
        None if cpu is None else cpu / records[name] * _MICRO,
        None if wall is None else wall / records[name] * _MICRO,
        sample.median("peak_mib"),
        _ratio(samples, records, name, f"{kind}reading"),
        sample.fault or f"{records[name]:,} records",
        sample.runs,
    )


def _targets(samples: dict[str, Sample], records: dict[str, int]) -> tuple[Target, ...]:
    mixed, short = (_ratio(samples, records, f"{kind}export", f"{kind}reading") for kind in _KINDS)
    return (
        Target("(i) an export at most 1.3x reading alone", mixed, at_most=1.3),
        Target("(i) the same of customers of 3 records", short, at_most=1.2),
        Target("(i) dlt at least 4x an export", _ratio(samples, records, "dlt", "export"), at_least=4),
    )


def _by_the_one_before(samples: dict[str, Sample], records: dict[str, int]) -> tuple[Target, ...]:
    """What columns from bytes are to save, against a checkout of the commit before them."""
    mixed, short = (_ratio(samples, records, f"{kind}export", f"{kind}before") for kind in _KINDS)
    return (
        Target("(i) an export at most 0.65x that of the commit before", mixed, at_most=0.65),
        Target("(i) the same of customers of 3 records", short, at_most=0.55),
    )
