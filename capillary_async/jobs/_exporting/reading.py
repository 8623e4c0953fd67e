"""One pass over keys that are to be asked: reads them and settles outcomes with their shards.

Invariant: every key handed to the reading is settled once or handed out again; what is under way is bounded, and no
straggler keeps other shards from going on before the bound. Used by `_export.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from capillary_async import CapillaryError, RecordConflictError
from capillary_async.endpoints.points_allocation import ListNotFound
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.drift import members_of
from capillary_async.jobs._exporting.shard import failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capillary_async import Outcome
    from capillary_async.jobs._archive.recorder import Recorder
    from capillary_async.jobs._common.sources import Reading
    from capillary_async.jobs._exporting.progress import ProgressCounter
    from capillary_async.jobs._exporting.shard import ShardTask
    from capillary_async.jobs._exporting.writer import Publisher

__all__ = ["ReadLoop", "Tasks"]

BODIES = 8 << 20  # bytes of answers that are handed over together, for the archive
PIECE = 2_000  # records that are handed to the publisher together
OPEN = 8  # shards under way at most, where they are large
KEYS = 2_048  # keys under way at least
MAX_WAIT = 900.0  # seconds that a job waits for a service that is down


class Tasks(Protocol):
    """The shards to ask for, made when they are wanted."""

    async def next(self) -> ShardTask | None:
        """The next, None at the end. Cancelled while it waits, it gives the same one again."""
        ...


class ReadLoop:
    """Asks for the keys of many shards at once."""

    def __init__(
        self, reading: Reading, publisher: Publisher, progress: ProgressCounter, *, shard_keys: int, rounds: int,
        recorder: Recorder | None = None,
    ) -> None:  # fmt: skip
        self._reading, self._publisher, self._progress = reading, publisher, progress
        self._window = max(OPEN * shard_keys, KEYS)
        self._asked: dict[Any, tuple[ShardTask, int]] = {}
        self._rounds, self._recorder = rounds, recorder
        self._under_way = 0  # keys of shards that are not on the disk yet
        self._room = asyncio.Event()
        self._tasks: Tasks | None = None
        self._current: list[tuple[ShardTask, int, Any]] = []
        self.stopping = False

    def stop(self) -> None:
        """Begin no more shards."""
        self.stopping = True
        self._room.set()

    def done(self, task: ShardTask) -> None:
        """A shard is on the disk."""
        self._under_way -= len(task.keys)
        self._room.set()

    async def run(self, tasks: Tasks) -> None:
        """Ask for all of them.

        Raises:
            JobError: The service did not answer for a quarter of an hour.
            CapillaryError: What concerns every key.
            OSError, sqlite3.Error: What came could not be written.
        """
        self._tasks = tasks
        # A customer answered with 429 is read again in the next round, after its pause; at once where none follows.
        outcomes = self._reading.outcomes(
            self._unread_keys(), max_wait=MAX_WAIT, throttled_tries=0 if self._rounds else 1
        )
        try:
            async for outcome in outcomes:
                if outcome.error is None or not outcome.error.lacks_answer:
                    self._progress.answered()
                await self._complete(outcome)
        except CapillaryError as error:
            if error.outage:
                raise _not_answered(error) from error
            raise
        finally:
            await outcomes.aclose()

    async def _unread_keys(self) -> AsyncIterator[Any]:
        """The keys of the shards."""
        while True:
            while self._current:
                task, place, key = self._current.pop()
                self._asked[key] = (task, place)
                if self._recorder is not None:
                    self._recorder.begin(key)
                yield key
            following = await self._next_task()
            if following is None:
                return
            self._current = [(following, place, key) for place, key in reversed(following.keys.items())]

    async def _next_task(self) -> ShardTask | None:
        while self._under_way >= self._window and not self.stopping:
            self._room.clear()
            await self._room.wait()
        if self.stopping or self._tasks is None:
            return None
        task = await self._tasks.next()
        if task is not None:
            self._under_way += len(task.keys)
        return task

    async def _complete(self, outcome: Outcome[Any, Any]) -> None:
        task, place = self._asked.pop(outcome.key)
        error = outcome.error
        if error is not None:
            failure = task.failures[place] = failure_of(place, error, task.round)
            self._progress.last_error = f"{failure.error}: {failure.message}"
            self._progress.conflicts += isinstance(error, RecordConflictError)
        self._progress.warnings += len(outcome.warnings)
        task.not_found += any(isinstance(warning, ListNotFound) for warning in outcome.warnings)
        self._progress.settled(len(outcome.items), failed=error is not None, again=task.round > 0)
        task.complete_key(place, outcome.items, members_of(outcome))
        if self._recorder is not None:
            task.add_bodies(self._recorder.take(outcome.key, used=error is None))
        last = not task.left
        if last or task.records >= PIECE or task.body_bytes >= BODIES:
            await self._publisher.put(task, task.take(), last=last)


def _not_answered(error: CapillaryError) -> JobError:
    return JobError(
        f"the service did not answer for {MAX_WAIT / 60:.0f} minutes; what is complete stays: give the same command "
        f"again when it is back, and it goes on. Last: {error}"
    )
