"""One client at work, in a process of its own: takes a job as JSON on its command line, prints what it cost as JSON.

Invariant: only the work is measured, not the start: connections are open and decoders built by a first small read. What
was read is checked behind the clock, so that no client is fast by leaving something out.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pages import CUSTOMERS, KINDS, list_id, list_ids, rows_of
from benchmarks.serving import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Meter", "peak_mib"]

WARM_PAGES = 3
WARM_CUSTOMERS = 64


class Meter:
    """CPU seconds of this process, user and system, seconds on the wall, and requests as the server counts them.

    `grown_mib` is how much more memory it held at most than before the work.
    """

    def __init__(self, url: str) -> None:
        self._server = Server(url, "")
        self._requests: int | None = 0
        self._beyond = 0
        self._began = (0.0, 0.0)
        self._held = 0.0

    def start(self) -> None:
        """Begin with a clean heap."""
        self._requests, self._beyond = self._server.requests(), self._server.beyond
        gc.collect()
        self._held = peak_mib()
        self._began = (_cpu(), time.perf_counter())

    def stop(self) -> dict[str, Any]:
        """What it cost since."""
        cpu, wall = _cpu() - self._began[0], time.perf_counter() - self._began[1]
        now = self._server.requests()
        requests = None if now is None or self._requests is None else now - self._requests
        return {
            "cpu": cpu,
            "wall": wall,
            "requests": requests,
            "beyond": self._server.beyond - self._beyond,
            "grown_mib": peak_mib() - self._held,
        }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib() -> float:
    """The most memory this process held, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent held before exec, too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class _Task:
    """The work of a job, for any client."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self.ids: list[int] = []
        self.records = 0

    def warm(self) -> tuple[tuple[int, Callable[[int], object]], tuple[Iterable[int], int]]:
        """The arguments of a first small read of the same kind."""
        pages = min(WARM_PAGES, self._job.get("pages", WARM_PAGES))
        return (list_id(pages), _drop), (range(CUSTOMERS, CUSTOMERS + WARM_CUSTOMERS), self._job.get("concurrency", 1))

    def of_list(self) -> tuple[int, Callable[[int], object]]:
        """The list to read, and what to do with each id: keep it for the check, or count it where memory is asked."""
        entity_id = self._job.get("entity_id") or list_id(self._job["pages"])
        return entity_id, self._count if self._job.get("stream") else self.ids.append

    def _count(self, identity: int) -> None:  # noqa: ARG002 - ids are not kept
        self.records += 1

    def of_customers(self) -> tuple[Iterable[int], int]:
        """The customers to read, from a list or, where memory is asked, from a generator; and how many at once."""
        ids = self._customers()
        return (iter(ids) if self._job.get("stream") else list(ids)), self._job["concurrency"]

    def _customers(self) -> range:
        """Customers of one to three pages, or with `short` those of one page of three records."""
        step = len(KINDS) if self._job.get("short") else 1
        return range(CUSTOMERS, CUSTOMERS + step * self._job["customers"], step)

    def fault(self) -> str | None:
        """What is wrong with what was read."""
        if "customers" in self._job:
            due = sum(map(rows_of, self._customers()))
            return None if self.records == due else f"gave {self.records} of {due} records"
        repeat, entity_id = self._job.get("repeat", 1), self._job.get("entity_id")
        due = repeat * rows_of(entity_id or list_id(self._job["pages"]))
        if self._job.get("stream") or entity_id:
            got = self.records or len(self.ids)
            return None if got == due else f"gave {got} of {due} records"
        right = list_ids(self._job["pages"]) * repeat
        if self.ids == right:
            return None
        return "gave records out of order" if sorted(self.ids) == sorted(right) else "gave other records"


def _drop(identity: int) -> None:
    """Use a record of the first read."""


async def _work_async(client: Any, job: dict[str, Any], task: _Task, meter: Meter) -> dict[str, Any]:
    async with client:
        first_list, first_customers = task.warm()
        if "customers" in job:
            await client.read_customers(*first_customers)
            customers = task.of_customers()
            meter.start()
            task.records = await client.read_customers(*customers)
            return meter.stop()
        await client.read_list(*first_list)
        meter.start()
        for _ in range(job.get("repeat", 1)):
            await client.read_list(*task.of_list())
        return meter.stop()


def _work(client: Any, job: dict[str, Any], task: _Task, meter: Meter) -> dict[str, Any]:
    with client:
        first_list, first_customers = task.warm()
        if "customers" in job:
            client.read_customers(*first_customers)
            customers = task.of_customers()
            meter.start()
            task.records = client.read_customers(*customers)
            return meter.stop()
        client.read_list(*first_list)
        meter.start()
        for _ in range(job.get("repeat", 1)):
            client.read_list(*task.of_list())
        return meter.stop()


def main() -> int:
    """Do the job."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    if "package" in job:
        sys.path.insert(0, job["package"])  # nothing of the package is imported so far
    module, name = job["where"].split(":")
    client = getattr(import_module(f"benchmarks.clients.{module}"), name)(job["url"], job.get("options", {}))
    task, meter = _Task(job), Meter(job["url"])
    if iscoroutinefunction(client.read_list):
        with asyncio.Runner(loop_factory=_loop_factory(uvloop=job.get("uvloop", False))) as runner:
            cost = runner.run(_work_async(client, job, task, meter))
    else:
        cost = _work(client, job, task, meter)
    print(json.dumps({**cost, "peak_mib": peak_mib(), "fault": task.fault()}))
    return 0


def _loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    if not uvloop:
        return asyncio.new_event_loop
    from uvloop import new_event_loop  # noqa: PLC0415 - one of two loops

    return new_event_loop


if __name__ == "__main__":
    sys.exit(main())
