"""Writes shards to the disk while others are read: one task, with a thread for files and one for the database.

Invariant: temporary file, flush, fsync, hash, rename, fsync of the folder, one transaction, in this order; a shard that
is rewritten is withdrawn from the database before its file is replaced. A failing write ends the job at once. Called by
`ExportRun` in `_export.py`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from capillary_async._files.threads import Thread, join
from capillary_async.jobs._archive.pack import PackWriter
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._exporting.shard import ShardWriter, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capillary_async.jobs._archive.folder import ArchiveFolder
    from capillary_async.jobs._archive.pack import Body
    from capillary_async.jobs._common.sources import Dataset
    from capillary_async.jobs._dataset.folder import ExportFolder
    from capillary_async.jobs._dataset.shard_format import Format
    from capillary_async.jobs._dataset.state import Pack, Shard, State
    from capillary_async.jobs._exporting.shard import KeyRows, ShardTask

__all__ = ["Publisher"]

_AHEAD = 4  # pieces of rows in the queue


class Publisher:
    """Writes the rows that are handed over, in order.

    Args:
        counted: Returns the counts since its last call.
        read: Returns the times of the first and the last answer since its last call.
        done: Called after each shard, in the event loop.
    """

    def __init__(
        self, folder: ExportFolder, state: State, source: Dataset, format_: Format, *, database: Thread,
        counted: Callable[[], dict[str, int]], read: Callable[[], tuple[str, str] | None],
        done: Callable[[ShardTask, Shard | None], None], archive: ArchiveFolder | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._state, self._source, self._format = folder, state, source, format_
        self._files, self._database = Thread("capillary-async-files"), database
        self._counted, self._read, self._done = counted, read, done
        self._queue: asyncio.Queue[tuple[ShardTask, list[KeyRows], list[Body], bool]] = asyncio.Queue(_AHEAD)
        self._archive = archive
        self._writers: dict[int, ShardWriter] = {}
        self._packs: dict[int, PackWriter] = {}
        self._bases: dict[int, Shard] = {}
        self.error: BaseException | None = None
        self._failed = asyncio.Event()
        self._task = asyncio.ensure_future(self._work())

    def build_on(self, bases: dict[int, Shard]) -> None:
        """The shards that are there, for the later rounds."""
        self._bases = bases

    async def put(self, task: ShardTask, entries: list[KeyRows], *, last: bool) -> None:
        """Hand over rows, and whether the shard is complete with them.

        Raises:
            OSError, sqlite3.Error: What was handed over before could not be written.
        """
        if self.error is not None:
            raise self.error
        await self._queue.put((task, entries, task.take_bodies(), last))

    async def guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work to its end; a failing write cancels it at once.

        Raises:
            OSError, sqlite3.Error: A write failed.
        """
        working, failing = asyncio.ensure_future(work), asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait({working, failing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            failing.cancel()
            await join(working, failing)
        if self.error is not None:
            raise self.error
        working.result()

    async def flush(self) -> None:
        """Wait until all that was handed over is written."""
        await self._queue.join()
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        """End it, and drop shards that are not complete."""
        self._task.cancel()
        try:
            await join(self._task)
        finally:
            self._files.close()
            for writer in self._writers.values():
                writer.drop()
            for pack in self._packs.values():
                pack.drop()
            self._writers.clear()
            self._packs.clear()

    async def _work(self) -> None:
        while True:
            task, entries, bodies, last = await self._queue.get()
            try:
                if self.error is None:
                    await self._keep(task, bodies)
                    await self._handle(task, entries, last=last)
            except Exception as error:  # noqa: BLE001 - raised by `guard`, and by the next `put` or `flush`
                self.error = error
                self._failed.set()
            finally:
                self._queue.task_done()

    async def _keep(self, task: ShardTask, bodies: list[Body]) -> None:
        """Write answers into the pack of the shard."""
        if self._archive is None or not bodies:
            return
        pack = self._packs.get(task.number)
        if pack is None:
            nth = len(await self._database.call(self._state.packs, task.number)) if task.round else 0
            pack = await self._files.call(PackWriter, self._archive.pack(task.number, nth))
            self._packs[task.number] = pack
        await self._files.call(pack.add, bodies)

    async def _sealed_pack(self, task: ShardTask) -> Pack | None:
        pack = self._packs.pop(task.number, None)
        if pack is None:
            return None
        try:
            return await self._files.call(pack.seal, task.number)
        except BaseException:
            pack.drop()
            raise

    async def _handle(self, task: ShardTask, entries: list[KeyRows], *, last: bool) -> None:
        if entries:
            writer = await self._writer(task)
            refused = await self._files.call(writer.add, entries)
            task.failures.update((place, failure_of(place, error, task.round)) for place, error in refused)
        if last:
            shard = await self._seal(task)
            self._writers.pop(task.number, None)
            task.close()
            self._done(task, shard)

    async def _writer(self, task: ShardTask) -> ShardWriter:
        writer = self._writers.get(task.number)
        if writer is None:
            base = self._bases.get(task.number) if task.round else None
            places: dict[Any, int] = {}
            if base is not None:
                keys = await self._database.call(self._state.keys, task.first, task.first + base.keys - 1)
                places = {key: place for place, key in keys.items()}
            make = partial(ShardWriter, base=base, places=places)
            writer = await self._files.call(make, self._folder, self._format, self._source, task.number)
            self._writers[task.number] = writer
        return writer

    async def _seal(self, task: ShardTask) -> Shard | None:
        """Give the shard its name and commit it; None where a later round brought nothing."""
        asked: tuple[int, int] | list[int] = list(task.keys)
        shard: Shard | None = None
        if task.round == 0:
            asked = (task.first, task.first + len(task.keys) - 1)
        writer = await self._writer(task) if task.round == 0 else self._writers.get(task.number)
        if writer is not None and task.round and not writer.grew:
            await self._files.call(writer.drop)
            writer = None
        if writer is not None:
            base = self._bases.get(task.number) if task.round else None
            shard = await self._files.call(writer.seal, base.keys if base else len(task.keys))
            if base is not None:
                await self._database.call(self._state.withdraw, task.number)
                reached("shard-withdrawn")
                self._bases[task.number] = shard
            await self._files.call(self._folder.publish, writer.path)
            reached("folder-synced")
        pack = await self._sealed_pack(task)
        failures = list(task.failures.values())
        commit = partial(self._state.commit, not_found=task.not_found, pack=pack)
        await self._database.call(commit, shard, asked, failures, self._counted(), self._read())
        return shard
