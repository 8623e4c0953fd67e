"""A process that runs exports and publications in children of its own, which a test kills: `python job_runner.py`.

Invariant: a child is a whole process, forked from one that has imported everything, so that a hundred of them take no
time to start. A line of JSON on stdin starts one, an empty one waits for its end; each is answered by a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
import warnings
from typing import Any

from job_server import at_once

from capillary_async import AsyncSession, BasicAuth, RetryPolicy, jobs
from capillary_async.cli import main as main_of_cli
from capillary_async.jobs import _export
from capillary_async.jobs._common import kill_points as _points
from capillary_async.jobs._exporting import shard as _shards
from capillary_async.jobs._exporting import writer as _publish


async def export(asked: dict[str, Any]) -> int:
    async with AsyncSession(
        asked["url"], auth=BasicAuth("till", password="p"), retry=RetryPolicy(attempts=asked.get("attempts", 1))
    ) as session:
        result = await jobs.export(
            "allocations",
            asked["ids"],
            asked["out"],
            session=session,
            shard_keys=asked["shard_keys"],
            format=asked.get("format", "parquet"),
            archive=asked.get("archive"),
            sleep=at_once,
            **asked["query"],
        )
    return 2 if result.failed else 0


# --- faults of ours, which the comparison has to find


def commit_before_rename() -> None:
    """The database is told before the file has its name, and is believed when the job starts again."""
    seal, folder_publish = _publish.Publisher._seal, _export.ExportFolder.publish

    async def sealed(self: Any, task: Any) -> Any:
        late: list[Any] = []
        self._folder.publish = late.append
        shard = await seal(self, task)
        for path in late:
            folder_publish(self._folder, path)
        return shard

    def believe(self: Any) -> None:
        """Nothing is looked at."""

    _publish.Publisher._seal = sealed  # type: ignore[method-assign]
    _export.ExportRun._repair = believe  # type: ignore[method-assign]


def order_of_arrival() -> None:
    """Rows are written as they come."""

    def complete_key(self: Any, place: int, items: Any, new: Any = ()) -> None:
        self.left -= 1
        if items:
            self._ready.append(_shards.KeyRows(place, self.keys[place], items))
            self._records += len(items)

    _shards.ShardTask.complete_key = complete_key  # type: ignore[method-assign]


def after_the_last() -> None:
    """The job goes on behind the last shard that is done, as if none before it could be missing."""
    done = _export.State.done

    def believed(self: Any) -> Any:
        shards = done(self)
        return {number: shards.get(number) for number in range(max(shards, default=-1) + 1)}

    async def rounds(self: Any, reading: Any, publisher: Any) -> None:
        self.state.done = lambda: believed(self.state)
        try:
            await work(self, reading, publisher)
        finally:
            del self.state.done

    work = _export.ExportRun._rounds
    _export.ExportRun._rounds = rounds  # type: ignore[method-assign]


BROKEN = {"commit-before-rename": commit_before_rename, "order-of-arrival": order_of_arrival,
          "after-the-last": after_the_last}  # fmt: skip


def child(asked: dict[str, Any]) -> int:
    if asked.get("die_at"):
        _points.arm(asked["die_at"])
    if asked.get("broken"):
        BROKEN[asked["broken"]]()
    try:
        if "publish" in asked:
            return main_of_cli(["publish", *asked["publish"]])
        return asyncio.run(export(asked))
    except BaseException:
        traceback.print_exc()
        return 99


def say(**told: int) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main() -> None:
    # pyarrow has a thread of its own from its import on, which sleeps: it holds nothing that a child would wait for.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            code = child(json.loads(line))
            sys.stderr.flush()
            os._exit(code)
        say(pid=pid)
        sys.stdin.readline()  # until then its pid is nobody else's
        _, status = os.waitpid(pid, 0)
        say(code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
