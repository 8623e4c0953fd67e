"""`Stats`: the counters and gauges of a session.

Invariant: counting is locked, since threads share a session; reading is not, since ints are read whole. Called by the
chain and the pagers, which count, and by users as `session.stats`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from capillary_async._html import card
from capillary_async._loops import renew_in_child

__all__ = ["Gauges", "Stats", "count", "measure"]


class Gauges(NamedTuple):
    """What there is at one moment; the attributes of `Stats` explain it."""

    in_flight: int = 0
    queued: int = 0
    limit: int = 0
    gate: str = "open"


class Stats:
    """Counters of a session and all its views, which only grow, and gauges of the present moment.

    Attributes:
        requests: HTTP requests begun, tokens and retries included, and those for which there was no connection.
        retries: Attempts beyond the first of their call.
        throttles: Answers 429 and 503.
        bytes: Bytes of whole bodies as they came over the wire, before decompression; cut bodies are left out.
        records: Records decoded, those of batches that were retried in halves included.
        duplicates: Records seen twice in one list or batch and dropped once, also of batches retried in halves.
    """

    __slots__ = (
        "__weakref__",
        "_gauges",
        "_lock",
        "bytes",
        "duplicates",
        "records",
        "requests",
        "retries",
        "throttles",
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gauges: Callable[[], Gauges] = Gauges
        renew_in_child(self, _renew)
        self.requests = 0
        self.retries = 0
        self.throttles = 0
        self.bytes = 0
        self.records = 0
        self.duplicates = 0

    @property
    def in_flight(self) -> int:
        """Requests that were sent and are not answered."""
        return self._gauges().in_flight

    @property
    def queued(self) -> int:
        """Requests that wait for a permit, because of the concurrency, the rate or the gate."""
        return self._gauges().queued

    @property
    def limit(self) -> int:
        """How many requests may be in flight now; it adapts between 1 and `Limits.concurrency`."""
        return self._gauges().limit

    @property
    def gate(self) -> str:
        """`open`, `shut` after refusals or in an outage, `half-open` while one request probes the service."""
        return self._gauges().gate

    def snapshot(self) -> dict[str, int]:
        """All counters at one moment."""
        with self._lock:
            return {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}

    def _repr_html_(self) -> str:
        counted = {name: f"{value:,}" for name, value in self.snapshot().items()}
        return card("Stats", {**counted, **self._gauges()._asdict()})

    def __repr__(self) -> str:
        shown = {**self.snapshot(), **self._gauges()._asdict()}
        counted = ", ".join(f"{name}={value}" for name, value in shown.items())
        return f"Stats({counted})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("Stats is live: pickle stats.snapshot() instead")


def _renew(stats: Stats) -> None:
    """In a forked child: the lock may be held by a thread that is not there."""
    stats._lock = threading.Lock()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module


def measure(stats: Stats, gauges: Callable[[], Gauges]) -> None:
    """Take the gauges from there; no method, since users only read."""
    stats._gauges = gauges  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module


def count(
    stats: Stats,
    *,
    requests: int = 0,
    retries: int = 0,
    throttles: int = 0,
    bytes: int = 0,  # noqa: A002 - the counter's name
    records: int = 0,
    duplicates: int = 0,
) -> None:
    """Count; no method, since users only read."""
    with stats._lock:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        stats.requests += requests
        stats.retries += retries
        stats.throttles += throttles
        stats.bytes += bytes
        stats.records += records
        stats.duplicates += duplicates
