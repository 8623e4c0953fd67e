"""One pass over keys that are to be asked: reads them, settles outcomes with their shards, pauses in an outage.

Invariant: every key handed to the reading is settled once or handed out again; what is under way is bounded, and no
straggler keeps other shards from going on before the bound. Used by `_export.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve

from capillary_async import CapillaryError, RecordConflictError, RetryPolicy
from capillary_async.endpoints.points_allocation import ListNotFound
from capillary_async.jobs._dataset.drift import members_of
from capillary_async.jobs._exporting.shard import failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capillary_async import Outcome
    from capillary_async.jobs._common.sources import Reading
    from capillary_async.jobs._dataset.state import Failure
    from capillary_async.jobs._exporting.outage import Outage
    from capillary_async.jobs._exporting.progress import ProgressCounter
    from capillary_async.jobs._exporting.shard import ShardTask
    from capillary_async.jobs._exporting.writer import Publisher

__all__ = ["ReadLoop", "Tasks"]

PIECE = 1_024  # records that are handed to the publisher together
OPEN = 8  # shards under way at most, where they are large
KEYS = 2_048  # keys under way at least
STRIKES = 3  # how often a key may end a reading that others survive


class Tasks(Protocol):
    """The shards to ask for, made when they are wanted."""

    async def next(self) -> ShardTask | None:
        """The next, None at the end. Cancelled while it waits, it gives the same one again."""
        ...


class ReadLoop:
    """Asks for the keys of many shards at once."""

    def __init__(
        self, reading: Reading, publisher: Publisher, tally: ProgressCounter, *, shard_keys: int, rounds: int
    ) -> None:
        self._reading, self._publisher, self._tally = reading, publisher, tally
        self._window = max(OPEN * shard_keys, KEYS)
        self._asked: dict[Any, tuple[ShardTask, int]] = {}
        self._rounds = rounds
        self._strikes: dict[Any, int] = {}
        self._attempts: dict[Any, int] = {}  # of calls that failed and settled nothing
        self._answered: Any = None  # the key that was answered last
        self._probes = 0
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

    async def run(self, tasks: Tasks, outage: Outage) -> None:
        """Ask for all of them.

        Raises:
            CapillaryError: What concerns every key.
            OSError, sqlite3.Error: What came could not be written.
        """
        self._tasks = tasks
        while True:
            try:
                await self._read(outage)
            except CapillaryError as error:
                if not error.lacks_answer or error.concerns_all_keys:
                    raise
                await self._strike(error, outage)
            else:
                return

    async def _read(self, outage: Outage) -> None:
        """One reading, to its end or to an outage that it does not survive."""
        # A customer answered with 429 is asked again in the next round, behind its pause; at once where none follows.
        outcomes = self._reading.outcomes(self._feed(), strikes=0 if self._rounds else 1)
        try:
            async for outcome in outcomes:
                if outcome.error is None or not outcome.error.lacks_answer:
                    self._answered = outcome.key
                    outage.answered()
                    self._tally.answered()
                await self._settle(outcome)
        finally:
            await outcomes.aclose()
            self._count(outcomes)

    def _count(self, outcomes: Any) -> None:
        """Keep the attempts of the keys that a reading, now ended, left without an outcome."""
        for key, attempts in outcomes._unsettled().items():  # noqa: SLF001 - for the jobs
            self._add(key, attempts)

    def _add(self, key: Any, attempts: int) -> None:
        if key in self._asked:
            self._attempts[key] = self._attempts.get(key, 0) + attempts

    async def _feed(self) -> AsyncIterator[Any]:
        """The keys: first those that were handed out and not answered, then the shards not begun yet."""
        for key in list(self._asked):
            yield key
        while True:
            while self._current:
                task, place, key = self._current.pop()
                self._asked[key] = (task, place)
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

    async def _settle(self, outcome: Outcome[Any, Any]) -> None:
        task, place = self._asked.pop(outcome.key)
        error = outcome.error
        if error is not None:
            task.failures[place] = self._failure(place, error, outcome.key, task.round, error.attempts)
            self._tally.conflicts += isinstance(error, RecordConflictError)
        else:
            self._attempts.pop(outcome.key, None)
        self._tally.warnings += len(outcome.warnings)
        task.not_found += any(isinstance(warning, ListNotFound) for warning in outcome.warnings)
        self._tally.settled(len(outcome.items), failed=error is not None, again=task.round > 0)
        task.settle(place, outcome.items, members_of(outcome))
        last = not task.left
        if last or task.records >= PIECE:
            await self._publisher.put(task, task.take(), last=last)

    def _failure(self, place: int, error: CapillaryError, key: Any, round_: int, attempts: int = 0) -> Failure:
        """What is kept of a key that failed, with the attempts of all calls for it in this round."""
        failure = failure_of(place, error, round_)
        return evolve(failure, attempts=self._attempts.pop(key, 0) + attempts)

    async def _strike(self, error: CapillaryError, outage: Outage) -> None:
        """Wait for the service. A key that ends a reading again and again, while others are answered, has failed.

        Its strikes are calls like those of the later rounds, and count as rounds.
        """
        strikes = self._strikes[error.key] = self._strikes.get(error.key, 0) + 1
        await outage.wait(error)
        if error.key not in self._asked:
            return
        task, place = self._asked[error.key]
        # One more call at least: it may be that the service as a whole did not answer.
        if strikes >= min(STRIKES, max(2, 1 + self._rounds - task.round)):
            del self._asked[error.key]
            # The attempts of this error are among those of its reading.
            task.failures[place] = self._failure(place, error, error.key, max(task.round, strikes - 1))
            self._tally.settled(0, failed=True, again=task.round > 0)
            task.settle(place, ())
            if not task.left:
                await self._publisher.put(task, task.take(), last=True)

    async def probe(self) -> bool:
        """Ask for one key, once: whether the service answers.

        Another key each time, and in turn one that was answered before: it may be that some keys always fail.
        """
        keys = list(self._asked)
        if not keys:
            return True
        turn, again = divmod(self._probes, 2)
        self._probes += 1
        key = self._answered if again and self._answered is not None else keys[turn % len(keys)]
        view = self._reading.session.with_options(retry=RetryPolicy(attempts=1))
        outcomes = self._reading.outcomes([key], session=view)
        try:
            async for outcome in outcomes:
                if outcome.error is None:
                    return True
                self._add(key, outcome.error.attempts)
                return not outcome.error.lacks_answer
        except CapillaryError as error:
            if error.concerns_all_keys:
                raise
            return not error.lacks_answer
        finally:
            await outcomes.aclose()
            self._count(outcomes)
        return True
