"""How a question is measured: clients by turns, each in a process of its own, against one server.

Invariant: A B C, B C A, C A B, so that whatever else the machine does falls on all alike, and so does what the one
before left of caches and memory; medians, and ratios within one run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import deque
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field

from benchmarks.clients import PEERS, Peer
from benchmarks.processes import BenchmarkError, Children
from benchmarks.results import Sample
from benchmarks.serving import Server, raw_server, recorded_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Bench"]


@define
class Bench:
    """The settings of a run, and the ways of questions to measure.

    Attributes:
        children: The processes of the run.
        runs: How often each client works.
        scale: Of all sizes; 1 is what the issue asks.
        peers: The clients chosen and installed, in the order of the table.
        nginx: Whether nginx serves where it can.
        port: Of the servers; 0 for free ones.
        quiet: Whether progress is kept to itself.
        before: A checkout of an earlier commit, which is measured beside this one; None for none.
    """

    children: Children
    runs: int = 5
    scale: float = 1.0
    peers: tuple[Peer, ...] = tuple(PEERS.values())
    nginx: bool = True
    port: int = 0
    quiet: bool = False
    before: Path | None = None
    servers: dict[str, str] = field(factory=dict, init=False)
    _generated: str | None = field(default=None, init=False)
    _stack: ExitStack = field(factory=ExitStack, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def size(self, full: int, least: int = 1) -> int:
        """A size at this run's scale."""
        return max(least, round(full * self.scale))

    def has(self, *names: str) -> list[Peer]:
        """The peers of these names that take part; all for none."""
        return [peer for peer in self.peers if not names or peer.name in names]

    @contextmanager
    def recorded(self, letter: str, pages: int) -> Iterator[Server]:
        """The fastest server there is, without latency, over one list."""
        with recorded_server(self.children, pages, nginx=self.nginx, port=self.port) as server:
            self.servers[letter] = server.name
            yield server

    @contextmanager
    def raw(self, letter: str, latency: float = 0.0) -> Iterator[Server]:
        """The raw server, which can wait, count what is asked beyond the end, and write each customer's own pages."""
        with raw_server(self.children, latency=latency, port=self.port) as server:
            self.servers[letter] = server.name
            yield server

    def alternate(
        self, letter: str, jobs: Mapping[str, dict[str, Any]], *, runs: int | None = None
    ) -> dict[str, Sample]:
        """Every job by turns, `runs` times; a client that fails keeps its fault and is not asked again."""
        times = self.runs if runs is None else runs
        gathered: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
        faults: dict[str, str] = {}
        names = deque(jobs)
        for number in range(times):
            for name in tuple(names):
                if name in faults:
                    continue
                self._tell(f"{letter}: run {number + 1} of {times}: {name}")
                try:
                    result = self.child("benchmarks.runner", jobs[name])
                except BenchmarkError as error:
                    faults[name] = f"failed: {error}"
                    continue
                gathered[name].append(result)
                if result["fault"]:
                    faults[name] = result["fault"]
            names.rotate(-1)
        self._tell("")
        return {name: Sample(tuple(runs), faults.get(name)) for name, runs in gathered.items()}

    def child(self, module: str, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run a module on a job and read what it prints."""
        told: dict[str, Any] = self.children.said(self.children.python(module, json.dumps(job)))
        return told

    def job(self, peer: Peer, server: Server, **more: Any) -> dict[str, Any]:
        """The job of a peer; its own options, such as where its generated code stands, are added."""
        options: dict[str, Any] = dict(more.pop("options", {}))
        if peer.name == "generated":
            options["generated"] = self._generated_client()
        return {"where": peer.where, "url": server.url, "options": options, **more}

    def _generated_client(self) -> str:
        if self._generated is None:
            from benchmarks.clients.generated import generate  # noqa: PLC0415 - only where it takes part

            self._tell("generating a client of openapi.yaml")
            self._generated = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="capillary-bench-"))
            generate(self.children, Path(self._generated))
        return self._generated

    def _tell(self, text: str) -> None:
        """Progress on a terminal, over itself."""
        if not self.quiet and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
