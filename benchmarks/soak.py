"""`python -m benchmarks.soak`: many pages through many faults, an outage in the middle, and nothing lost.

Invariant: three sets are compared page by page (expected, delivered, served whole), with `--misdirected` record by
record, and every bound that is kept or missed is printed; the exit code is 0 only where all are kept.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from benchmarks.processes import BenchmarkError, Children
from benchmarks.soak_leg import Leg
from benchmarks.soak_misdirected import MisdirectedLeg
from benchmarks.soak_world import PER_PAGE
from capillary_async import CapillaryError, __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["Bound", "bounds", "main"]

_INTERRUPTED = 130
_MEMORY = 16.0  # MiB that the allocator may wander
_LOAD = 1.05
_RECOVERY = 10.0
_OUTAGE = 30.0  # seconds
_FAULTS = 0.1
_MISDIRECTED = 0.01
_LEAST = 2500  # pages of an outage's own leg: the retries that notice it are the same 100 or so, however many there are


@frozen
class Bound:
    """A figure and what it has to be."""

    text: str
    value: float
    most: float

    @property
    def kept(self) -> bool:
        """Whether the figure is within it."""
        return self.value <= self.most


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="Read many pages through faults and an outage; compare what was served, delivered and expected.",
    )
    parser.add_argument(
        "--misdirected",
        action="store_true",
        help="instead read through a proxy that gives wrong ends, others' answers and parts of answers",
    )
    parser.add_argument("--pages", type=_whole, default=200_000, help="of the leg with faults (200000)")
    parser.add_argument(
        "--outage", type=_seconds, help=f"seconds that the server is down in the middle of each leg ({_OUTAGE:g})"
    )
    parser.add_argument(
        "--faults",
        type=_share,
        help=f"share of requests that meet a fault ({_FAULTS:g}; {_MISDIRECTED:g} of answers with --misdirected)",
    )
    parser.add_argument("--concurrency", type=_whole, default=32, help="requests at once at most (32)")
    parser.add_argument("--seed", type=int, default=1, help="of the server's dice (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures and samples there")
    return parser


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number of at least 1, got {text}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 120:
        raise argparse.ArgumentTypeError(f"takes 0 to 120 seconds, less than Timeouts.call, got {text}")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 0.5:
        raise argparse.ArgumentTypeError(f"takes a share from 0 to below 0.5, got {text}")
    return number


def _legs(given: argparse.Namespace) -> list[Leg]:
    """Faults with an outage among them; then an outage alone, where each request too many is the outage's."""
    common = {"seed": given.seed, "concurrency": given.concurrency, "say": _say}
    if given.misdirected:
        share = _MISDIRECTED if given.faults is None else given.faults
        return [MisdirectedLeg("misdirected", given.pages, share, 0.0, prefetch=4, **common)]
    common["outage"] = outage = _OUTAGE if given.outage is None else given.outage
    legs = [Leg("faults", given.pages, _FAULTS if given.faults is None else given.faults, **common)]
    if outage:
        legs.append(Leg("outage", max(_LEAST, given.pages // 4), 0.0, prefetch=0, **common))
    return legs


def bounds(leg: Leg) -> list[Bound]:
    """What a leg has to keep."""
    figures = leg.figures
    found = [Bound(f"{leg.unit} {word}", figures[word], 0) for word in leg.wrongs]
    found += [
        Bound("MiB grown from the second quarter to the last", round(leg.growth("rss"), 1), _MEMORY),
        Bound("descriptors beyond one a connection", leg.descriptors - leg.concurrency, leg.closing),
        Bound("tasks grown", leg.growth("tasks"), leg.concurrency),
        Bound("tasks left behind", figures["tasks_left"], 0),
    ]
    if not leg.outage:
        return found
    behind = figures["up_after"]
    found.append(Bound("seconds from the end of the outage to the next request", _or_never(behind), _RECOVERY))
    if leg.share:
        found.append(Bound("requests a page while down", _ratio(figures["down_requests"], leg), _LOAD - 1))
    else:
        found.append(Bound("requests a page, outage included", _ratio(figures["requests"], leg), _LOAD))
        found.append(Bound("keys failed by the outage", sum(figures["told_and_asked_again"].values()), 0))
    return found


def _or_never(seconds: float | None) -> float:
    return float("inf") if seconds is None else round(seconds, 1)


def _ratio(requests: int, leg: Leg) -> float:
    """Requests as a share of those that the pages take without faults."""
    return round(requests / (leg.figures["expected"] * PER_PAGE), 4)


def _say(line: str) -> None:
    print(line, flush=True)


def _show(leg: Leg) -> bool:
    figures = leg.figures
    _say(
        f"  {figures['delivered']:,} of {figures['expected']:,} {leg.unit} delivered, {figures['served_whole']:,} "
        f"served whole; {figures['requests']:,} requests, {figures['retries']:,} retries in {figures['seconds']} s "
        f"({figures[f'{leg.unit}_a_second']:,} {leg.unit}/s)"
    )
    if figures["faults"]:
        _say(f"  faults met: {', '.join(f'{name} {count:,}' for name, count in sorted(figures['faults'].items()))}")
    again = figures["told_and_asked_again"]
    if again:
        _say(f"  told as an error, asked again: {', '.join(f'{count} {word}' for word, count in again.items())}")
    kept = bounds(leg)
    for bound in kept:
        _say(f"  {'ok  ' if bound.kept else 'FAIL'} {bound.text}: {bound.value:g} (at most {bound.most:g})")
    return all(bound.kept for bound in kept)


def _as_json(given: argparse.Namespace, legs: list[Leg]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "version": __version__,
        "seed": given.seed,
        "legs": [
            {
                "name": leg.name,
                "pages": leg.pages,
                "share": leg.share,
                "outage": leg.outage,
                "figures": leg.figures,
                "bounds": [
                    {"text": one.text, "value": one.value, "most": one.most, "kept": one.kept} for one in bounds(leg)
                ],
                "samples": [[one.at, one.pages, one.rss, one.fds, one.tasks] for one in leg.samples],
            }
            for leg in legs
        ],
    }


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal's signature
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.json is not None and not given.json.absolute().parent.is_dir():
        parser.error(f"no folder for {given.json}")
    if given.misdirected and given.outage is not None:
        parser.error("--misdirected has no outage")
    legs = _legs(given)
    signal.signal(signal.SIGTERM, _interrupt)
    right = True
    try:
        with Children() as children:
            for leg in legs:
                _say(f"{leg.name}: {leg.pages:,} pages, {leg.share:.0%} faults, outage of {leg.outage:g} s")
                leg.run(children)
                right = _show(leg) and right
    except (BenchmarkError, CapillaryError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsoak: interrupted; its server is stopped", file=sys.stderr)
        return _INTERRUPTED
    if given.json is not None:
        given.json.write_text(json.dumps(_as_json(given, legs), indent=1) + "\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
