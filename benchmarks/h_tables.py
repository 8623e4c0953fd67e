"""(h) 200,000 records of one list into a table: CPU by that of reading the bodies alone, and the memory it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.clients import Peer
from benchmarks.pages import SIZE
from benchmarks.results import Row, Section, Target, paired

if TYPE_CHECKING:
    from benchmarks.measuring import Bench
    from benchmarks.results import Sample

__all__ = ["TITLE", "measure"]

TITLE = "200,000 records of one list into a table"
PAGES = 2_000
_MICRO = 1e6
_NEEDED = ("pandas", "polars", "pyarrow")
_INSTALL = "'capillary-async[pandas,polars]'"
_CLIENTS = tuple(
    Peer(name, title, f"tables:{where}", _NEEDED, _INSTALL)
    for name, title, where in (
        ("bodies", "bodies alone: aiohttp", "Bodies"),
        ("arrow", "capillary-async, to_arrow()", "Arrow"),
        ("polars", "capillary-async, to_polars()", "Polars"),
        ("pandas", "capillary-async, to_pandas()", "Pandas"),
        ("asdict-pandas", "records, attrs.asdict, pd.DataFrame", "AsdictPandas"),
        ("from-dicts", "records, attrs.asdict, pl.from_dicts", "FromDicts"),
    )
)


def measure(bench: Bench) -> Section:
    """The SDK's tables beside those that users make of records."""
    pages = bench.size(PAGES, 3)
    title = TITLE.replace("200,000", f"{pages * SIZE:,}")
    if any(peer.missing() for peer in _CLIENTS):
        rows = tuple(Row(peer.title, note=f"not installed: pip install {peer.install}") for peer in _CLIENTS)
        return Section("h", title, "µs a record", "CPU by the bodies'", rows)
    with bench.raw("h") as server:
        jobs = {peer.name: bench.job(peer, server, pages=pages, stream=True) for peer in _CLIENTS}
        samples = bench.alternate("h", jobs)
    rows = tuple(_row(peer, samples, pages * SIZE) for peer in _CLIENTS)
    return Section("h", title, "µs a record", "CPU by the bodies'", rows, tuple(_targets(samples)))


def _row(peer: Peer, samples: dict[str, Sample], records: int) -> Row:
    sample = samples[peer.name]
    cpu, wall, grown = sample.median("cpu"), sample.median("wall"), sample.most("grown_mib")
    return Row(
        peer.title,
        None if cpu is None else cpu / records * _MICRO,
        None if wall is None else wall / records * _MICRO,
        sample.median("peak_mib"),
        paired(sample, samples["bodies"], "cpu"),
        sample.fault or ("" if grown is None else f"{grown:,.0f} MiB more than before"),
        sample.runs,
    )


def _targets(samples: dict[str, Sample]) -> list[Target]:
    targets: list[Target] = []
    for name in ("arrow", "polars", "pandas"):
        ratio = paired(samples[name], samples["bodies"], "cpu")
        targets.append(Target(f"(h) to_{name}() at most 3.3x the bodies alone", ratio, at_most=3.3))
        grown = samples[name].most("grown_mib")
        targets.append(Target(f"(h) to_{name}() at most 150 MiB more than before", grown, at_most=150, unit=" MiB"))
    return targets
