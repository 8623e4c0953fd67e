"""One leg of the soak: every customer asked through the SDK, and the process watched meanwhile.

Invariant: what is printed is what was counted. A key that used up its attempts is told as an error and asked again in a
later round, as a job would do; it is lost only if it never comes.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import time
import zlib
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from attrs import define, field

from benchmarks.processes import BenchmarkError
from benchmarks.soak_server import REPORT
from benchmarks.soak_world import FIRST, QUERY, SIZE, Account, customers_for
from capillary_async import AsyncSession, BasicAuth, CapillaryError, Limits, Paging, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.processes import Children

__all__ = ["Ledger", "Leg", "Sample", "word"]

TIMEOUTS = Timeouts(connect=5, read=5, attempt=10)
ROUNDS = 4
_SAMPLES = 200  # kept of a leg, so that watching takes no memory that grows


@define
class Sample:
    """The process at one moment.

    Attributes:
        at: Seconds since the leg began.
        pages: Delivered by then, or records where these are counted.
        rss: MiB of memory; 0 where /proc is missing.
        fds: Open file descriptors; 0 where /proc is missing.
        tasks: Of the loop.
    """

    at: float
    pages: int
    rss: float
    fds: int
    tasks: int


class Ledger(Protocol):
    """What is written down of each record or page."""

    @property
    def total(self) -> int:
        """All that have to come."""
        ...

    @property
    def delivered(self) -> int:
        """Those that came."""
        ...

    def note(self, customer: int, items: Sequence[Any]) -> None:
        """Take the records of one customer."""
        ...

    def close(self, served: bytes) -> dict[str, int]:
        """Compare with what was served."""
        ...


@define
class Leg:
    """What is asked of the server, and what came of it.

    Attributes:
        name: In the report.
        pages, share, outage, seed: The server's.
        concurrency: Of the session.
        prefetch: Of its pagers; 0 where requests are counted against pages.
        say: Where progress goes.
    """

    name: str
    pages: int
    share: float
    outage: float
    seed: int
    concurrency: int = 32
    prefetch: int = 2
    say: Callable[[str], None] = print
    samples: list[Sample] = field(factory=list, init=False)
    figures: dict[str, Any] = field(factory=dict, init=False)

    unit: ClassVar[str] = "pages"
    """What is counted."""
    wrongs: ClassVar[tuple[str, ...]] = ("lost", "duplicated", "unexpected", "misordered")
    """The figures that have to be 0."""
    closing: ClassVar[int] = 8
    """Connections that may be closing while others open."""
    page_size: ClassVar[int] = SIZE
    """Rows asked for on a page."""

    def run(self, children: Children) -> None:
        """Start a server, ask, compare.

        Raises:
            BenchmarkError: The server did not start.
            CapillaryError: The run as a whole came to an end, e.g. by an outage longer than `Timeouts.call`.
        """
        child = children.python(*self._server())
        try:
            line = child.stdout.readline() if child.stdout is not None else ""
            told = json.loads(line or "{}")
            if "port" not in told:
                raise BenchmarkError(f"no server: {told.get('error') or 'it did not start'}")
            asyncio.run(self._haul(told["port"]))
        finally:
            children.end(child)

    def _server(self) -> tuple[str, ...]:
        """Module and arguments of the server."""
        return (
            "benchmarks.soak_server", "--pages", str(self.pages), "--share", str(self.share),
            "--outage", str(self.outage), "--seed", str(self.seed),
        )  # fmt: skip

    def _account(self) -> Ledger:
        return Account(customers_for(self.pages))

    async def _haul(self, port: int) -> None:
        account = self._account()
        failed: Counter[str] = Counter()
        began = time.monotonic()
        async with AsyncSession(
            f"http://127.0.0.1:{port}",
            auth=BasicAuth("till.1", password="soak"),
            timeouts=TIMEOUTS,
            limits=Limits(concurrency=self.concurrency),
            paging=Paging(page_size=self.page_size, prefetch=self.prefetch),
        ) as session:
            watch = asyncio.get_running_loop().create_task(self._watch(account, began))
            try:
                await self._rounds(session, account, failed)
            finally:
                watch.cancel()
                await asyncio.wait([watch])
            stats = session.stats.snapshot()
        took = time.monotonic() - began
        self._take(account, began)
        told = _report(port)
        self.figures = {
            **account.close(zlib.decompress(base64.b64decode(told["served"]))),
            "seconds": round(took, 1),
            f"{self.unit}_a_second": round(account.delivered / took),
            "requests": told["requests"],
            "retries": stats["retries"],
            "faults": told["faults"],
            "told_and_asked_again": dict(failed),
            "down_requests": told.get("down_requests", 0),
            "up_after": told.get("up_after"),
            "tasks_left": len(asyncio.all_tasks()) - 1,
        }

    async def _rounds(self, session: AsyncSession, account: Ledger, failed: Counter[str]) -> None:
        keys: Iterable[int] = range(FIRST, FIRST + customers_for(self.pages))
        for _ in range(ROUNDS):
            again: list[int] = []
            fan = session.points_allocation.by_expiry_many(iter(keys), **QUERY).options(unique=False)
            async for outcome in fan:
                if outcome.error is None:
                    account.note(outcome.key, outcome.items)
                else:
                    failed[word(outcome.error)] += 1
                    again.append(outcome.key)
            if not again:
                return
            keys = again

    async def _watch(self, account: Ledger, began: float) -> None:
        """Sample every half second, and tell every twentieth of the way."""
        told = 0
        while True:
            sample = self._take(account, began)
            twentieth = sample.pages * 20 // max(1, account.total)
            if twentieth > told:
                told = twentieth
                self.say(
                    f"  {twentieth * 5:3d} %  {sample.at:6.1f} s  {sample.pages:9,d} {self.unit}  "
                    f"{sample.rss:6.1f} MiB  {sample.fds:3d} descriptors  {sample.tasks:3d} tasks"
                )
            await asyncio.sleep(0.5)

    def _take(self, account: Ledger, began: float) -> Sample:
        rss, fds = _of_process()
        sample = Sample(time.monotonic() - began, account.delivered, rss, fds, len(asyncio.all_tasks()))
        if len(self.samples) >= _SAMPLES:
            del self.samples[1::2]
        self.samples.append(sample)
        return sample

    @property
    def descriptors(self) -> int:
        """The most that were open at once, beyond those of the beginning."""
        return max(one.fds for one in self.samples) - self.samples[0].fds

    def growth(self, name: str) -> float:
        """How much more there is of it in the last quarter of the way than in the second, by the median."""
        end = self.samples[-1].pages or 1
        early = [getattr(one, name) for one in self.samples if 0.25 <= one.pages / end < 0.5]
        late = [getattr(one, name) for one in self.samples if one.pages / end >= 0.75]
        return median(late) - median(early) if early and late else 0.0


def word(error: CapillaryError) -> str:
    """How the error is counted."""
    return f"{type(error).__name__} after {error.attempts} attempts"


def _of_process() -> tuple[float, int]:
    """MiB of memory and open descriptors of this process."""
    statm, listed = Path("/proc/self/statm"), Path("/proc/self/fd")
    if not statm.exists():
        return 0.0, 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, sum(1 for _ in listed.iterdir()) - 1


def _report(port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", REPORT)
        return dict(json.loads(connection.getresponse().read()))
    finally:
        connection.close()
