"""`export`: read the records of many customers into a folder, durably and exactly once.

Invariant: what the manifest names is on the disk, whole; started again after any end, the job reads what is
missing and makes the same bytes. It owns no session. Called by users and the command line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from capillary_async import AsyncSession, CapillaryError, InvalidRequestError, __version__
from capillary_async._files.status_file import INTERRUPTED, StatusFile
from capillary_async._files.threads import Thread, join
from capillary_async._validation import whole
from capillary_async.jobs._archive.folder import ArchiveFolder
from capillary_async.jobs._archive.recorder import Recorder
from capillary_async.jobs._archive.zone import zone_facts
from capillary_async.jobs._common.digest import file_digest
from capillary_async.jobs._common.errors import JobError, about
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._common.sources import SOURCES, Reading
from capillary_async.jobs._dataset.folder import ExportFolder, is_own_file
from capillary_async.jobs._dataset.formats import FormatName, format_of
from capillary_async.jobs._dataset.id_shard import IdList, IdShard
from capillary_async.jobs._dataset.manifest import Manifest, read_of, refuse_unowned
from capillary_async.jobs._dataset.shard_format import Format
from capillary_async.jobs._dataset.state import Shard, State
from capillary_async.jobs._exporting.customer_ids import read_ids
from capillary_async.jobs._exporting.progress import ExportProgress, ExportResult, ProgressCounter
from capillary_async.jobs._exporting.reading import ReadLoop
from capillary_async.jobs._exporting.shard import BufferBudget, ShardTask
from capillary_async.jobs._exporting.shard import BufferBudget as WaitingType
from capillary_async.jobs._exporting.writer import Publisher

__all__ = ["SourceName", "export"]

T = TypeVar("T")
SourceName = Literal["allocations", "awarded", "events", "ledger"]

SHARD_KEYS = 1_000
ROUNDS = 3
SOME_FAILED = 2  # the exit code of the command
PAUSES = (5.0, 10.0, 20.0)  # seconds before a later round, where the service may just have been busy


async def export(
    source: SourceName,
    ids: Iterable[Any] | AsyncIterable[Any] | None,
    out: str | os.PathLike[str],
    *,
    session: AsyncSession,
    format: FormatName = "parquet",  # noqa: A002 - what it is called everywhere
    shard: tuple[int, int] | None = None,
    shard_keys: int = SHARD_KEYS,
    verify: bool | None = None,
    rounds: int = ROUNDS,
    paranoid: bool = False,
    allow_empty: bool = False,
    stop: asyncio.Event | None = None,
    grace: float = 10.0,
    on_progress: Callable[[ExportProgress], object] | None = None,
    cluster: str | None = None,
    archive: str | os.PathLike[str] | None = None,
    status_file: str | os.PathLike[str] | StatusFile | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    **query: Any,
) -> ExportResult:
    """Read the records of many customers into a folder.

    Started again with the same arguments it goes on at what is missing, also after `kill -9`. All ids are read, and
    stored in the folder, before the first request. A customer that fails is written to `failures.jsonl` and retried in
    later rounds; an outage pauses the job for at most 15 minutes. Memory does not grow with the number of customers;
    the rows of each customer under way are buffered.

    Args:
        source: `allocations` (`points_allocation.by_expiry_many`), `awarded` (`points_awarded.ids`), `events`
            (`loyalty_events.list_many`), `ledger` (`points_ledger.explode` of many).
        ids: Customer ids, any iterable or async iterable; of a ledger pairs `(identifier, event id or ids)`. None goes
            on with those that are in the folder.
        out: The folder; it is made.
        session: The caller's; it is not closed.
        format: `parquet` or `jsonl`.
        shard: `(3, 16)` reads the third of 16 shards of the ids, by a hash of the id, for several processes or machines
            with a folder each and the same ids. `verify` and `reconcile` take the folders together, and say whether one
            is missing. None reads all.
        shard_keys: Customers per file.
        verify: Whether lists of several pages are read until two readings agree; None for the session's own.
        rounds: Number of retry rounds for customers that failed. Those that the service refused, and would again, are
            retried by the next run alone.
        paranoid: Hash all files that are there, instead of looking at their sizes.
        allow_empty: Whether no ids at all are an export, complete with no records; otherwise they are refused, since
            most often a filter or a file went wrong.
        stop: When it is set, shards under way are finished for at most `grace` seconds, and the job returns.
        grace: Seconds.
        on_progress: Called with an `ExportProgress` some times a second.
        cluster: What is read, where the session's `base_url` does not say it.
        archive: A folder for the raw bodies of the answers whose rows are in the files; see `jobs.replay` and
            `docs/how_to/night.md`. A new one, or that of this export; neither folder is inside the other.
        status_file: A JSON file that says how far the export is, replaced every 2 seconds and at the end, in neither of
            the two folders. Its members are in `docs/how_to/night.md`.
        sleep: How pauses wait, for tests.
        query: The arguments of the call beside the ids, e.g. `program_id=2282` or `not_found="empty"`. `program_id` and
            `point_category_id` of allocations and awarded ids may be several, e.g. `[17383, 17384]`: every pair of
            them is asked of every customer, and the files have `asked_program_id` and `asked_point_category_id`
            behind `row`. A record that comes under two pairs fails its customer, and counts in neither. Of a ledger
            `identifier` (its kind, `customer_id`), `identifier_source` (`INSTORE`), `include` (names of
            `LedgerInclude`), and the rest of `explode`'s.

    Returns:
        Counts of keys, records and requests, and whether the export is complete.

    Raises:
        InvalidRequestError: An argument is invalid; nothing was sent.
        JobError: The folder is another export's or another process's, it cannot be written, there are no ids, or the
            service did not answer for 15 minutes. The message says what to do.
        CapillaryError: An error that concerns every key, e.g. wrong credentials.
    """
    job = checked_run(
        source, out, session=session, query=query, format=format, shard_keys=shard_keys, verify=verify, rounds=rounds,
        paranoid=paranoid, on_progress=on_progress, shard=shard, archive=archive,
    )  # fmt: skip
    job.stop, job.grace, job.sleep = stop, grace, sleep
    job.allow_empty = allow_empty
    job.cluster = session.base_url if cluster is None else cluster
    async with _status(status_file, source, (out, archive)) as status:
        status.follow(job.progress.status)
        with job.folder:
            try:
                result = await job.run(ids)
            except (OSError, sqlite3.Error) as error:
                raise about(error, job.folder.path) from error
        status.ended(INTERRUPTED if result.interrupted else SOME_FAILED if result.failed else 0)
        return result


def checked_run(
    source: str, out: str | os.PathLike[str], *, session: AsyncSession, query: dict[str, Any],
    format: FormatName,  # noqa: A002 - as `export` calls it
    shard_keys: int, verify: bool | None, rounds: int = ROUNDS, paranoid: bool = False,
    on_progress: Callable[[ExportProgress], object] | None = None, shard: tuple[int, int] | None = None,
    archive: str | os.PathLike[str] | None = None, make: Callable[..., ExportRun] | None = None,
) -> ExportRun:  # fmt: skip
    """Check the arguments of an export, and make its run.

    Raises:
        InvalidRequestError: An argument is invalid.
        JobError: The folder is a URL or an archive, or it and the archive are not apart.
    """
    if source not in SOURCES:
        raise InvalidRequestError(f"source takes one of {', '.join(SOURCES)}, got {source!r}", argument="source")
    if format not in ("parquet", "jsonl"):
        raise InvalidRequestError(f"format takes 'parquet' or 'jsonl', got {format!r}", argument="format")
    whole("shard_keys", shard_keys, 1)
    whole("rounds", rounds, 0)
    of_ids = IdShard.checked(shard)
    folder, kept = ExportFolder(out), None if archive is None else ArchiveFolder(archive)
    _refuse_archive(folder.path, None if kept is None else kept.path)
    progress = ProgressCounter(session.stats, on_progress)
    recorder = None if archive is None else Recorder(source)
    if recorder is not None:
        session = session._through(recorder)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for the jobs
    reading = SOURCES[source].reading(session, query, verify=verify, raw=format == "parquet")
    job = (make or ExportRun)(
        reading, folder, progress, format=format, shard_keys=shard_keys, rounds=rounds,
        paranoid=paranoid, shard=of_ids,
    )  # fmt: skip
    job.recorder, job.archive = recorder, kept
    return job


def _status(
    given: str | os.PathLike[str] | StatusFile | None, source: str, others: Iterable[str | os.PathLike[str] | None]
) -> AbstractAsyncContextManager[StatusFile]:
    """The status file of an export; one that is a context already is its owner's to end."""
    return nullcontext(given) if isinstance(given, StatusFile) else StatusFile(given, f"export {source}", others)


def _refuse_archive(out: Path, archive: Path | None) -> None:
    """Refuse to export into an archive, and an archive that shares its folder with the export."""
    place = Path(os.path.realpath(out))
    if os.path.lexists(place / "archive.json"):
        raise JobError(f"{out} is an archive of raw answers: export into another folder", path=str(out))
    if archive is None:
        return
    kept = Path(os.path.realpath(archive))
    if place == kept or place in kept.parents or kept in place.parents:
        raise JobError(
            f"the archive {archive} and the folder {out} are one, or one is inside the other: name two folders apart",
            path=str(out),
        )


class ExportRun:
    """One run over one folder."""

    def __init__(
        self,
        reading: Reading,
        folder: ExportFolder,
        progress: ProgressCounter,
        *,
        format: FormatName,  # noqa: A002
        shard_keys: int,
        rounds: int,
        paranoid: bool,
        shard: IdShard | None = None,
    ) -> None:
        self.shard = shard
        self.reading, self.folder, self.progress = reading, folder, progress
        self.format_name, self.shard_keys, self.rounds, self.paranoid = format, shard_keys, rounds, paranoid
        self.cluster = ""
        zone = reading.session.server_timezone
        self.server_timezone = None if zone is None else str(zone)
        self.allow_empty = False
        self.stop: asyncio.Event | None = None
        self.grace = 0.0
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.repaired: list[str] = []
        self.database = Thread("capillary-async-state")
        self.state: Any = None
        self.recorder: Recorder | None = None
        self.archive: ArchiveFolder | None = None
        self.asked = 0
        self.asks = True
        self.interrupted = False

    async def run(self, ids: Iterable[Any] | AsyncIterable[Any] | None) -> ExportResult:
        """All of it."""
        self._refuse_unowned()
        try:
            self.state = await self.database.call(State, self.folder.state)
            await self._identify()
            await self.database.call(self._join_archive)
            await self._until_stopped(self._take_ids(ids))
            if not self.interrupted:
                await self._until_stopped(self.database.call(self._repair))
            if not self.interrupted:
                self.asks = await self._anything_to_do()
                if self.asks:
                    await self._work()
            return await self._result()
        finally:
            with suppress(RuntimeError):
                self.database.close()
            if self.state is not None:
                self.state.close()

    async def look(self, ids: Iterable[Any] | AsyncIterable[Any] | None, state: Path, say: Callable[[Self], T]) -> T:
        """Do all that comes before the work with a copy of the database, and call `say`; the folder is only read."""
        self._refuse_unowned()
        try:
            self.state = await self.database.call(State, state)
            await self._identify()
            await self.database.call(self._look_at_archive)
            await self._take_ids(ids)
            return await self.database.call(say, self)
        finally:
            self.database.close()
            if self.state is not None:
                self.state.close()

    # -- what the folder is

    def _refuse_unowned(self) -> None:
        """Refuse a folder whose files are not ours, or of another release."""
        refuse_unowned(self.folder.manifest)
        if not self.folder.state.exists() and self._has_outputs:
            raise JobError(
                f"{self.folder.path} holds shards or a manifest.json and no state.sqlite, so that nothing is known of "
                "them: export into another folder"
            )

    @property
    def _has_outputs(self) -> bool:
        return self.folder.manifest.exists() or any(self.folder.listed())

    async def _identify(self) -> None:
        """Refuse to mix two queries in one folder."""
        mine = {
            "source": self.reading.source.name,
            "query": dict(self.reading.query),
            "format": self.format_name,
            "shard_keys": self.shard_keys,
            "verify": self.reading.verify,
            "cluster": self.cluster,
            "server_timezone": self.server_timezone,
            "shard": None if self.shard is None else self.shard.identity,
        }
        known = await self.database.call(self.state.get, "source")
        ids = await self.database.call(self.state.get, "asked")
        if (known is None or ids is None) and self._has_outputs:  # nothing is written before both are there
            raise JobError(
                f"{self.folder.path} holds shards or a manifest.json, and its state.sqlite knows of no export: it is "
                "empty or was cut. Put back the one that belongs there, or export into another folder; nothing was "
                "deleted"
            )
        if known is None:
            asked = {} if self.reading.page_size is None else {"page_size": self.reading.page_size}
            if self.archive is not None:
                asked |= zone_facts(self.reading.session.server_timezone)
            await self.database.call(lambda: self.state.put(**mine, **asked, started=_now()))
            return
        for name, value in mine.items():
            there = await self.database.call(self.state.get, name)
            if there != value:
                raise JobError(
                    f"{self.folder.path} was begun with another {name}: {_shown(there)}, now it is {_shown(value)}. "
                    "Give what it was begun with, or export into another folder"
                )

    def _join_archive(self) -> None:
        """Refuse an archive of another export, and an export that has one and is to go on without."""
        if self.archive is not None:
            facts = {name: self.state.get(name) for name in ("source", "query", "cluster", "started")}
            self.archive.join(self.state, {**facts, "sdk_version": __version__})
        elif self.state.get("archive_id") is not None:
            raise JobError(f"{self.folder.path} was begun with an archive: give it (--archive)")

    def _look_at_archive(self) -> None:
        """Refuse what `_join_archive` refuses, where joining writes nothing."""
        begun_without = self.state.get("archive_id") is None and self.state.get("asked") is not None
        if self.archive is None or begun_without or self.state.packs() or self.archive.identity() is not None:
            self._join_archive()

    # -- the ids

    async def _take_ids(self, ids: Iterable[Any] | AsyncIterable[Any] | None) -> None:
        call = self.database.call
        self.progress.enter("ids")
        asked = await call(self.state.get, "asked")
        if asked is None:
            if ids is None:
                raise InvalidRequestError(
                    f"no ids: {self.folder.path} holds none to go on with: give them (--ids)", argument="ids"
                )
            await call(self.state.forget_ids)
            found = await self._store_ids(ids)
            number = await call(self.state.count_ids)
            if not self.allow_empty and not (number if found is None else found.ids):
                raise JobError(
                    "no ids: the input is empty, so that nothing would be exported. Look at where the ids come from; "
                    "if it is meant, say allow_empty (--allow-empty)"
                )
            if self.shard is not None and found is not None:
                facts = self.shard.of_list(found.ids, found.own - number, str(found.digest)).as_facts()
                await call(lambda: self.state.put(id_shard=facts))
            await call(self.state.finish_ids)
        elif ids is not None:
            await call(self.state.begin_compare)
            found = await self._store_ids(ids, "other_")
            place = await call(self.state.first_difference)
            await self._refuse_other_list(found, place)
            if place is not None:
                raise JobError(
                    f"the ids are not those that {self.folder.path} was begun with: the first to differ is number "
                    f"{place:,}, in shard {(place - 1) // self.shard_keys}. The folder keeps its ids: run the same "
                    "without ids (no --ids) to go on with those, or export into another folder for the new ones"
                )
        self.asked = await call(self.state.get, "asked")
        self.progress.asked = self.asked

    async def _refuse_other_list(self, found: IdList | None, place: int | None) -> None:
        """Refuse a list whose ids of this shard are the same, and those of other shards are not."""
        known = await self.database.call(self.state.get, "id_shard")
        if found is None or place is not None or (known["ids"], known["digest"]) == (found.ids, str(found.digest)):
            return
        raise JobError(
            f"the ids are not those that {self.folder.path} was begun with: those of {self.shard} are the same, and "
            f"the list has others ({found.ids:,} ids, then {known['ids']:,}). All shards are of one list: run the same "
            "without ids (no --ids) to go on with those of the folder, or export into another folder"
        )

    async def _store_ids(self, ids: Iterable[Any] | AsyncIterable[Any], table: str = "") -> IdList | None:
        """Store the ids, of a shard its own; gives what was counted of the whole list then."""
        pairs = self.reading.source.pairs
        add = partial(self.database.call, self.state.add_ids, table=table, pairs=pairs)
        whole_list = None if self.shard is None else IdList(self.shard, add)
        try:
            await read_ids(ids, add if whole_list is None else whole_list.keep, pairs=pairs)
        except OSError as error:
            raise JobError(f"cannot read the ids: {error}") from error
        return whole_list

    # -- what is there

    def _repair(self) -> None:
        """Make files and database agree: a shard that only one of them has is read again."""
        done = self.state.done()
        named = {shard.file: shard for shard in done.values()}
        there = {path.name: path for path in self.folder.listed()}
        for name, path in there.items():
            if name not in named:
                path.unlink()
        for name, shard in named.items():
            path = self.folder.shards / name
            if self.stop is not None and self.stop.is_set():
                return
            if self.is_there(shard) and not (self.paranoid and file_digest(path) != shard.sha256):
                continue
            self.folder.remove(self.folder.manifest)
            self.state.withdraw(shard.number)
            path.unlink(missing_ok=True)
            self.repaired.append(f"shards/{name}")
        if self.archive is not None:
            self._repair_archive(self.archive)
        for path in (self.folder.manifest, self.folder.failures):
            self.folder.part(path).unlink(missing_ok=True)
        self.folder.sync()

    def _repair_archive(self, archive: ArchiveFolder) -> None:
        """Read shards again whose bodies are not there as they were written."""
        for number in sorted(archive.repair(self.state.packs(), paranoid=self.paranoid)):
            shard = self.state.done()[number]
            self.folder.remove(self.folder.manifest)
            self.state.withdraw(number)
            (self.folder.shards / shard.file).unlink(missing_ok=True)
            self.repaired.append(f"the archive of shards/{shard.file}")

    def is_there(self, shard: Shard) -> bool:
        """Whether the file of a shard that is done has its size."""
        path = self.folder.shards / shard.file
        return is_own_file(path) and path.stat().st_size == shard.bytes

    async def _anything_to_do(self) -> bool:
        call = self.database.call
        finished = await call(self.state.get, "finished")
        whole = len(await call(self.state.done)) == self.shards
        if finished and whole and not (await call(self.state.open_failures, 1 << 30))[0]:
            await call(self._repair_outputs)
            return False
        await call(self.folder.remove, self.folder.manifest)
        reached("manifest-removed")
        if self.archive is not None:
            await call(self.archive.reopen)
        if finished:
            await call(self.state.reopen)
        return True

    def _repair_outputs(self) -> None:
        """Write failures and manifest again where they are not what the database says, the manifest last."""
        if self.archive is not None and not self.archive.is_finished(self.state.get("finished")):
            self.archive.finish(self.state)
            self.repaired.append(self.archive.state.name)
        failures = self._failure_lines()
        if self._differs(self.folder.failures, failures):
            self._write_failures()
            self.repaired.append(self.folder.failures.name)
        if self._differs(self.folder.manifest, self._manifest()):
            self.folder.write(self.folder.manifest, self._manifest())
            self.repaired.append(self.folder.manifest.name)

    @staticmethod
    def _differs(path: Path, data: bytes) -> bool:
        """Whether the file has other bytes; one that is not there has none."""
        if not is_own_file(path):
            return bool(data) or path.is_symlink()
        return path.read_bytes() != data

    @property
    def shards(self) -> int:
        """The number of shards that the ids make."""
        return -(-self.asked // self.shard_keys)

    # -- the work

    async def _work(self) -> None:
        done = await self.database.call(self.state.done)
        self._count_done(done)
        self.progress.failed = await self.database.call(self.state.failed)
        publisher = Publisher(
            self.folder, self.state, self.reading.source, await self._format(), database=self.database,
            counted=self.progress.counted, read=self.progress.read, done=self._shard_done,
            archive=self.archive,
        )  # fmt: skip
        loop = self._loop = ReadLoop(
            self.reading,
            publisher,
            self.progress,
            shard_keys=self.shard_keys,
            rounds=self.rounds,
            recorder=self.recorder,
        )
        noting = asyncio.ensure_future(self.progress.note_outages(self.reading.session))
        try:
            work = publisher.guard(self._rounds(loop, publisher))
            await self._until_stopped(work, loop)
            if self.interrupted:
                await publisher.flush()
                await self.database.call(self._write_failures)
        except CapillaryError:
            with suppress(OSError, sqlite3.Error):  # that what is complete stays matters more than why it could not
                await publisher.flush()
                await self.database.call(self._write_failures)
            raise
        finally:
            noting.cancel()
            await publisher.aclose()
        if not self.interrupted:
            await self.database.call(self._finish)

    async def _format(self) -> Format:
        version = await self.database.call(self.state.get, "schema_version")
        return format_of(self.format_name, self.reading.source, self.reading.query, version)

    def _count_done(self, done: dict[int, Shard]) -> None:
        self.progress.began_with = sum(shard.keys for shard in done.values())
        self.progress.shards = len(done)

    def _shard_done(self, task: ShardTask, shard: Shard | None) -> None:
        self._loop.done(task)
        self.progress.shards += shard is not None and task.round == 0
        self.progress.report(at_once=True)

    async def _until_stopped(self, work: Any, loop: ReadLoop | None = None) -> None:
        """Work to the end; once `stop` is set, to the end of the shards under way, for at most `grace` seconds."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future((self.stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self.interrupted = True
                if loop is not None:
                    loop.stop()
                    self.progress.noted(f"stopping: shards under way are finished for at most {self.grace:g} s")
                    await asyncio.wait({working}, timeout=self.grace)
        finally:
            stopping.cancel()
            working.cancel()
            await join(working, stopping)
        if not working.cancelled():
            working.result()

    async def _rounds(self, loop: ReadLoop, publisher: Publisher) -> None:
        waiting = BufferBudget()
        call = self.database.call
        done = await call(self.state.done)
        missing = [number for number in range(self.shards) if number not in done]
        self.progress.enter("reading")
        await loop.run(_Tasks(self, missing, 0, waiting))
        for round_ in range(1, self.rounds + 1):
            await publisher.flush()
            if loop.stopping:
                break
            places, transient = await call(self.state.open_failures, round_)
            if not places:  # asked in this round by a run that was killed: later rounds may be due still
                continue
            await call(self._write_failures)
            self.progress.enter(f"round {round_}")
            if transient:
                await self.sleep(PAUSES[min(round_, len(PAUSES)) - 1])
            publisher.build_on(await call(self.state.done))
            numbers = sorted({(place - 1) // self.shard_keys for place in places})
            await loop.run(_Tasks(self, numbers, round_, waiting))
        await publisher.flush()
        if loop.stopping and len(await call(self.state.done)) == self.shards:
            # All was read when `stop` was set: what failed is retried by the next run.
            self.interrupted = bool((await call(self.state.open_failures, self.rounds))[0])

    # -- the end

    def _finish(self) -> None:
        """Failures and manifest, the manifest last."""
        self._write_failures()
        reached("failures-written")
        self.state.put(finished=_now(), sdk_version=__version__)
        if self.archive is not None:
            self.archive.finish(self.state)
            reached("archive-finished")
        self.folder.write(self.folder.manifest, self._manifest(), "manifest-written", "manifest-renamed")

    def _write_failures(self) -> None:
        """The keys that failed so far, in the order of the ids; no file where none did."""
        lines = self._failure_lines()
        if lines:
            self.folder.write(self.folder.failures, lines)
        else:
            self.folder.remove(self.folder.failures)

    def _failure_lines(self) -> bytes:
        return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in self.state.failure_lines()).encode()

    def _manifest(self) -> bytes:
        return Manifest.of(self.state).encode()

    async def _result(self) -> ExportResult:
        said, counted = await self.database.call(lambda: (Manifest.of(self.state), self.state.counters()))
        self.progress.enter("done")
        ids = said.ids
        return ExportResult(
            out=self.folder.path,
            complete=not self.interrupted and not ids.failed,
            interrupted=self.interrupted,
            asked=ids.asked,
            found=ids.found,
            empty=ids.empty,
            failed=ids.failed,
            records=said.records,
            shards=len(said.shards),
            requests=counted["requests"],
            retries=counted["retries"],
            throttles=counted["throttles"],
            elapsed=self.progress.elapsed,
            read=read_of(said.read),
            already_complete=not self.asks and not ids.failed,
            not_found=ids.not_found,
            repaired=tuple(self.repaired),
        )


class _Tasks:
    """The shards to ask for in one round, each with its keys, as they are wanted."""

    def __init__(self, job: ExportRun, numbers: list[int], round_: int, waiting: WaitingType) -> None:
        self._job, self._round, self._waiting = job, round_, waiting
        self._numbers = list(reversed(numbers))

    async def next(self) -> ShardTask | None:
        """The next; cancelled while it waits, it gives the same one again."""
        if not self._numbers:
            return None
        job, number = self._job, self._numbers[-1]
        first = number * job.shard_keys + 1
        last = first + job.shard_keys - 1
        if self._round:
            keys = await job.database.call(job.state.to_ask_again, self._round, first, last)
        else:
            keys = await job.database.call(job.state.keys, first, last)
        self._numbers.pop()
        return ShardTask(number, first, keys, round_=self._round, waiting=self._waiting, folder=job.folder.path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
