"""A cancelled job: however often and by whom it is cancelled, no task, thread or unfinished file of it is left."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

pytest.importorskip("pyarrow")

from support.job_server import QUERY, Customers
from support.paths import PACKAGE

from capillary_async import AsyncSession, BasicAuth, jobs
from capillary_async._files.threads import join
from capillary_async.jobs._exporting.shard import ShardWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

IDS = range(1, 60)


@pytest.fixture(scope="module")
def server() -> Iterator[Customers]:
    """A service with customers."""
    with Customers() as customers:
        yield customers


@pytest.fixture
async def session(server: Customers) -> AsyncIterator[AsyncSession]:
    """A session with it."""
    async with AsyncSession(server.url, auth=BasicAuth("t", password="p")) as made:
        yield made


@pytest.fixture
def slow_writing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the first rows are being written, which takes a while."""
    writing, add = threading.Event(), ShardWriter.add

    def slow(writer: ShardWriter, entries: Any) -> Any:
        writing.set()
        time.sleep(0.1)
        return add(writer, entries)

    monkeypatch.setattr(ShardWriter, "add", slow)
    return writing


OWN_THREADS = ("capillary-async-files", "capillary-async-state")


def left_of_it(out: Path) -> list[object]:
    """Threads, tasks and unfinished files of an export; threads of inputs of other tests may wait for a pipe."""
    threads = [each.name for each in threading.enumerate() if each.name.startswith(OWN_THREADS)]
    tasks = [task for task in asyncio.all_tasks() if str(PACKAGE) in task.get_coro().cr_code.co_filename]  # type: ignore[union-attr]
    return [*threads, *tasks, *out.glob("shards/*.part")]


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_twice(
    session: AsyncSession, tmp_path: Path, slow_writing: threading.Event, turns: int
) -> None:
    """The second time while it is closing, some turns of the event loop later."""
    out = tmp_path / "out"
    task = asyncio.ensure_future(jobs.export("allocations", IDS, out, session=session, shard_keys=20, **QUERY))
    assert await asyncio.to_thread(slow_writing.wait, 20)
    task.cancel()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_of_it(out) == []


async def test_in_a_scope_of_anyio(session: AsyncSession, tmp_path: Path, slow_writing: threading.Event) -> None:
    """Which cancels again at each await."""
    out = tmp_path / "out"
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().run_in_executor(None, slow_writing.wait, 20).add_done_callback(
            lambda _: scope.cancel()
        )
        await jobs.export("allocations", IDS, out, session=session, shard_keys=20, **QUERY)
    assert scope.cancelled_caught
    assert left_of_it(out) == []


async def test_join_waits_through_cancellations() -> None:
    """And raises the last one when all have ended."""
    gate, steps = asyncio.Event(), list[str]()
    work = asyncio.ensure_future(gate.wait())
    waiting = asyncio.ensure_future(join(work, meanwhile=lambda: steps.append("meanwhile")))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0.25)
    assert not waiting.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.done()
    assert steps


INTERRUPTED = """
import asyncio
from capillary_async._files.threads import Thread, in_thread

async def main():
    await Thread("capillary-async-state").call(int)
    await in_thread(int)
    asyncio.get_running_loop().call_soon(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    await asyncio.sleep(60)

loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(main())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupted_loop_does_not_keep_the_process() -> None:
    """The threads of a loop that runs no more end with the process; those of anyio would wait for ever."""
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert "interrupted" in ended.stdout
    assert ended.returncode == 0
