"""`python -m benchmarks`: measures the questions chosen, prints one table, and tells which targets are met."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import (
    a_list,
    b_latency,
    c_customers,
    d_decode,
    e_import,
    f_memory,
    g_uvloop,
    h_tables,
    i_export,
    j_spark,
    plot,
    table,
)
from benchmarks.clients import PEERS, find, left_out
from benchmarks.measuring import Bench
from benchmarks.processes import BenchmarkError, Children
from benchmarks.serving import nginx_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from benchmarks.results import Section

__all__ = ["main"]

QUESTIONS = {
    "a": a_list,
    "b": b_latency,
    "c": c_customers,
    "d": d_decode,
    "e": e_import,
    "f": f_memory,
    "g": g_uvloop,
    "h": h_tables,
    "i": i_export,
    "j": j_spark,
}
PACKAGES = (
    "capillary-async", "aiohttp", "msgspec", "attrs", "uvloop", "orjson", "httpx", "pydantic", "openai", "dlt",
    "requests", "openapi-python-client", "pyarrow", "polars", "pandas",
)  # fmt: skip
_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    asked = "\n".join(f"  {letter}  {question.TITLE}" for letter, question in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"The SDK beside what users would pick instead. Questions:\n{asked}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "questions", nargs="*", metavar="question", help=f"one or more of {' '.join(QUESTIONS)}; all by default"
    )
    parser.add_argument("--runs", type=_whole, default=5, help="how often each client works (5)")
    parser.add_argument("--scale", type=_share, default=1.0, help="of all sizes, e.g. 0.01 for a look (1)")
    parser.add_argument("--clients", help=f"some of {','.join(PEERS)}, joined by commas; all by default")
    parser.add_argument("--server", choices=("nginx", "raw"), help="of question a: nginx if installed, by default")
    parser.add_argument(
        "--port", type=int, default=0, help="of the loopback interface for the servers; a free one by default"
    )
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="a checkout of an earlier commit, whose export is measured in i"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, each run included")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw a, b and c there; needs matplotlib")
    return parser


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    chosen = parser.parse_args(given)
    wrong = [letter for letter in chosen.questions if letter not in QUESTIONS]
    if wrong:
        parser.error(f"no question {wrong[0]!r}: choose of {' '.join(QUESTIONS)}")
    names = chosen.clients.split(",") if chosen.clients else list(PEERS)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        parser.error(f"no client {unknown[0]!r}: choose of {','.join(PEERS)}")
    for path in (chosen.json, chosen.svg):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"no folder for {path}")
    if chosen.before is not None and not (chosen.before / "capillary_async").is_dir():
        parser.error(f"no capillary_async in {chosen.before}")
    chosen.clients = names
    chosen.questions = [letter for letter in QUESTIONS if not chosen.questions or letter in chosen.questions]
    return chosen


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number of at least 1, got {text}")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 10:
        raise argparse.ArgumentTypeError(f"takes a number above 0 and up to 10, got {text}")
    return number


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    """System, processor and how many of them this process may use."""
    model = platform.machine()
    told = Path("/proc/cpuinfo")
    if told.exists():
        lines = told.read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {model}, {cores} cores"


def _measure(chosen: argparse.Namespace) -> tuple[list[Section], dict[str, str], list[str]]:
    """The sections, the server of each, and what was left out."""
    peers = find(chosen.clients)
    notes = left_out(peers)
    for line in notes:
        print(line, file=sys.stderr)
    if chosen.server == "nginx" and nginx_version() is None:
        raise BenchmarkError("nginx is not installed: install it (apt-get install nginx-light), or use --server raw")
    if chosen.server is None and nginx_version() is None and set(chosen.questions) & {"a"}:
        notes = [*notes, "nginx is not installed (apt-get install nginx-light): the raw asyncio server serves instead"]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 4:
        notes = [*notes, f"the machine was busy at the start (load {load:.1f} on {cores} cores): expect noise"]
    installed = tuple(peer for peer in peers if not peer.missing())
    with (
        Children() as children,
        Bench(
            children,
            chosen.runs,
            chosen.scale,
            installed,
            nginx=chosen.server != "raw",
            port=chosen.port,
            before=chosen.before,
        ) as bench,
    ):
        sections = [QUESTIONS[letter].measure(bench) for letter in chosen.questions]
        return sections, bench.servers, notes


def _heads(chosen: argparse.Namespace, told: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    servers = ", ".join(sorted(set(told["servers"].values()))) or "none"
    sizes = f"medians of {chosen.runs} runs by turns, scale {chosen.scale:g}"
    return [
        f"{told['date']}, {told['machine']}, Python {told['python']}",
        versions,
        f"server: {servers}, bodies not compressed; plain asyncio loop but in (g); {sizes}",
    ]


def _told(
    chosen: argparse.Namespace, sections: list[Section], servers: dict[str, str], notes: list[str]
) -> dict[str, Any]:
    """Everything of a run, as JSON has it."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": _machine(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "versions": _versions(),
        "servers": servers,
        "runs": chosen.runs,
        "scale": chosen.scale,
        "notes": notes,
        "questions": [section.as_json() for section in sections],
    }


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take the signals that ask a process to end for what Ctrl-C is."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal's signature
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(getattr(signal, name), interrupt) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(getattr(signal, name), handler)


def main(given: Sequence[str] | None = None) -> int:
    """Run the command."""
    chosen = _arguments(given)
    try:
        if chosen.svg:
            plot.require("".join(chosen.questions))
        with _interruptible():
            sections, servers, notes = _measure(chosen)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; its servers and clients are stopped", file=sys.stderr)
        return _INTERRUPTED
    told = _told(chosen, sections, servers, notes)
    table.show(_heads(chosen, told), sections, notes)
    if chosen.json:
        chosen.json.write_text(json.dumps(told, indent=1) + "\n")
    if chosen.svg:
        plot.draw(chosen.svg, sections, f"{told['date']}, {told['machine']}, Python {told['python']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
