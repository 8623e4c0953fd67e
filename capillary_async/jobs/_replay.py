"""`replay`: the export of an archive again, without the service.

Invariant: the same job reads the same bodies, and what comes of it is compared with what the archive says: it is the
same export, or there is an error. Called by users and the command line.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Any

from attrs import frozen

from capillary_async import AsyncSession, BasicAuth, Limits, Paging, __version__
from capillary_async._files.threads import in_thread
from capillary_async._html import fields_card
from capillary_async._repr import brief_repr
from capillary_async.jobs._archive.answers import Answers
from capillary_async.jobs._archive.folder import ArchiveFolder
from capillary_async.jobs._archive.pack import PackReader
from capillary_async.jobs._archive.zone import zone_of
from capillary_async.jobs._common.errors import JobError, about
from capillary_async.jobs._dataset.folder import is_own_file
from capillary_async.jobs._dataset.manifest import Manifest
from capillary_async.jobs._dataset.state import State
from capillary_async.jobs._export import ExportRun, checked_run
from capillary_async.jobs._exporting.progress import ExportProgress, ExportResult

__all__ = ["ReplayResult", "body_of", "replay"]

_NOWHERE = "http://127.0.0.1:9"  # of a session that sends nothing


@frozen(kw_only=True)
class ReplayResult:
    """The result of a replay.

    Attributes:
        export: As of the export.
        identical: Whether every shard has the bytes that it had. Another release of pyarrow or of the SDK writes other
            bytes for the same rows.
        bodies: The bodies of the archive.
    """

    export: ExportResult
    identical: bool
    bodies: int

    __repr__ = brief_repr
    _repr_html_ = fields_card


async def replay(
    archive: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    on_progress: Callable[[ExportProgress], object] | None = None,
) -> ReplayResult:
    """Make the export of an archive again from its bodies; nothing is sent.

    The folder is a whole export, with the failures, counters and times of the original: it is verified and reconciled
    as that one. Started again after any end, it goes on.

    Args:
        archive: The folder that `export(archive=...)` filled, of a finished export.
        out: A new folder.
        on_progress: As for `export`.

    Raises:
        JobError: The archive is not finished, a body is missing, damaged or one too many, or what comes of it is not
            what the export was; the message names it.
    """
    folder = ArchiveFolder(archive)
    state = await in_thread(_opened, folder)
    with closing(state):
        try:
            return await _replayed(folder, state, out, on_progress)
        except sqlite3.Error as error:
            raise JobError(f"{folder.state} is damaged: {error}", path=str(folder.state)) from error


async def _replayed(
    folder: ArchiveFolder, state: State, out: str | os.PathLike[str],
    on_progress: Callable[[ExportProgress], object] | None,
) -> ReplayResult:  # fmt: skip
    faults: list[JobError] = []
    stop = asyncio.Event()

    def on_fault(fault: JobError) -> None:
        faults.append(fault)
        stop.set()

    with closing(Answers(folder, state, on_fault)) as answers:
        async with _session(state, answers) as session:
            job = checked_run(
                state.get("source"), out, session=session, query=state.get("query"), format=state.get("format"),
                shard_keys=state.get("shard_keys"), verify=state.get("verify"), rounds=0, on_progress=on_progress,
                shard=_shard_of(state), make=partial(ReplayRun, state, faults),
            )  # fmt: skip
            job.cluster, job.allow_empty, job.stop = state.get("cluster"), True, stop
            with job.folder:
                try:
                    result = await job.run(state.ids())
                except (OSError, sqlite3.Error) as error:
                    raise about(error, job.folder.path) from error
    if faults:
        raise faults[0]
    made = {shard.file: shard.sha256 for shard in Manifest.load(job.folder.manifest).shards}
    said = {shard.file: shard.sha256 for shard in Manifest.of(state).shards}
    return ReplayResult(export=result, identical=made == said, bodies=sum(pack.bodies for pack in state.packs()))


class ReplayRun(ExportRun):
    """The run of an export whose answers are those of an archive."""

    def __init__(self, original: State, faults: list[JobError], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._original, self._faults = original, faults
        self.server_timezone = original.get("server_timezone")

    def _join_archive(self) -> None:
        """Refuse a folder that is no replay of this archive."""
        mine, there = self._original.get("archive_id"), self.state.get("replay_of")
        if there is None and self.state.get("asked") is None:
            self.state.put(replay_of=mine)
        elif there != mine:
            raise JobError(f"{self.folder.path} is no replay of this archive: name a new folder")

    async def _take_ids(self, ids: Iterable[Any] | AsyncIterable[Any] | None) -> None:
        """Take those of the archive; a replay that goes on has them."""
        begun = await self.database.call(self.state.get, "asked") is not None
        await super()._take_ids(None if begun else ids)

    def _finish(self) -> None:
        """Take over what no answer says, once all that they do say is as it was."""
        if self._faults:
            raise self._faults[0]
        failed = self.state.failed_places() - self._original.failed_places()
        if failed:
            key, failure = next(each for each in self.state.failures() if each[1].place in failed)
            raise JobError(f"key {key} did not fail when the archive was made, and does now: {failure.message}")
        self._compare()
        self.state.take_outcome(self._original)
        self._write_failures()
        self.folder.write(self.folder.manifest, self._manifest())

    def _compare(self) -> None:
        """Refuse other rows than those of the original."""
        made, said = self.state.done(), self._original.done()
        for number, shard in said.items():
            one = made[number]
            for name in ("rows", "keys", "found", "digest", "totals", "drift"):
                if getattr(one, name) != getattr(shard, name):
                    raise JobError(
                        f"shard {number} of the replay is not that of the export: {name} {getattr(one, name)!r:.200}, "
                        f"due {getattr(shard, name)!r:.200}. {_advice(self._original.get('sdk_version'))}"
                    )


def _advice(release: str) -> str:
    """What to do where the rows differ."""
    if release == __version__:
        return f"Both are of SDK {release}: export again, and report it with the archive"
    return f"Replay it with the release that made it: SDK {release}"


def _shard_of(state: State) -> tuple[int, int] | None:
    """The part of a list of ids that the export is of."""
    found = state.get("id_shard")
    return None if found is None else (found["number"], found["of"])


def _session(state: State, answers: Answers) -> AsyncSession:
    size = state.get("page_size")
    session = AsyncSession(
        _NOWHERE,
        auth=BasicAuth("replay", password="replay"),  # noqa: S106 - sent nowhere
        limits=Limits(),
        paging=Paging(prefetch=0) if size is None else Paging(page_size=size, prefetch=0),
        server_timezone=zone_of(state),
        middlewares=[answers],
    )
    session._shared.lengths.learns = False  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for the jobs
    return session


def _opened(folder: ArchiveFolder) -> State:
    """The copy of the database of a finished export, whose packs are there, and no others."""
    if folder.identity() is None:
        raise JobError(f"{folder.path} is no archive of an export: it has no archive.json", path=str(folder.path))
    if not is_own_file(folder.state):
        raise JobError(
            f"{folder.path} has no state.sqlite: its export has not finished: run the same export command again",
            path=str(folder.path),
        )
    try:
        state = State.read_only(folder.state)
    except sqlite3.Error as error:
        raise JobError(f"{folder.state} cannot be read: {error}", path=str(folder.state)) from error
    try:
        _check_names(folder, state)
    except BaseException:
        state.close()
        raise
    return state


def _check_names(folder: ArchiveFolder, state: State) -> None:
    if folder.identity() != state.get("archive_id"):
        raise JobError(f"{folder.path} has the archive.json and the state.sqlite of two exports", path=str(folder.path))
    named = {pack.file for pack in state.packs()}
    there = {path.name for path in folder.listed()}
    for word, files in (("missing", named - there), ("one too many", there - named)):
        for file in sorted(files):
            path = folder.path / file
            raise JobError(
                f"{path} is {word}. The archive is not complete: take it from a backup, or export again", path=str(path)
            )


def body_of(archive: str | os.PathLike[str], request_id: str) -> list[bytes]:
    """The bodies that came with a request id; each pack's index is looked through.

    Raises:
        JobError: There is no such archive, or a pack is damaged.
    """
    folder = ArchiveFolder(archive)
    found: list[bytes] = []
    with closing(_opened(folder)) as state:
        for pack in state.packs():
            with closing(PackReader(folder.path, pack)) as reader:
                found += [reader.body(line) for line in reader.index() if line["request_id"] == request_id]
    return list(dict.fromkeys(found))
