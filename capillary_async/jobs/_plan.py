"""`plan_export`: the requests and the time that an export takes at least, without sending one.

Invariant: the folder is only read and nothing is sent, no token either; ids are read, refused and counted as an export
does it. Called by users and the command line.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import field, frozen

from capillary_async import AsyncSession, InvalidRequestError, OAuthClient, Rate
from capillary_async._files.threads import in_thread
from capillary_async._repr import brief_repr
from capillary_async.endpoints.points_awarded import statuses_of
from capillary_async.jobs._common.errors import about
from capillary_async.jobs._common.several import scopes_of
from capillary_async.jobs._dataset.folder import ExportFolder, is_own_file
from capillary_async.jobs._dataset.formats import FormatName
from capillary_async.jobs._dataset.state import State
from capillary_async.jobs._export import ROUNDS, SHARD_KEYS, ExportRun, SourceName, checked_run

__all__ = ["ExportPlan", "plan_export"]

_BATCH = 50  # ids per request of awarded ids, by default
_NAMED = 5  # ids that are named
_ANSWER = 0.1  # seconds of one answer, for a guess of the time


@frozen(kw_only=True)
class ExportPlan:
    """What an export takes at least.

    Attributes:
        source: What is read.
        asked: Different keys in all.
        done: Keys that earlier runs settled.
        left: Keys to read, those that failed before included.
        refused: Keys that the call refuses: they fail without a request. The first of them are in `refused_ids`.
        requests: The number of requests at least: one page per customer, program and category, of awarded ids per batch
            and status; no retry; the request of an OAuth token included.
        seconds: The time that `rate` leaves at least; 0 without a rate.
        rate: The rate of the session.
        concurrency: Maximum requests at once.
    """

    source: str
    asked: int
    done: int
    left: int
    refused: int
    requests: int
    seconds: float
    rate: Rate | None
    concurrency: int
    refused_ids: tuple[str, ...] = field(default=())

    __repr__ = brief_repr

    def lines(self) -> list[str]:
        """The plan as a few lines of text."""
        before = f", {self.done:,} done before" if self.done else ""
        lines = [f"{self.asked:,} keys{before}, {self.left:,} to read"]
        if self.refused:
            more = ", ..." if self.refused > len(self.refused_ids) else ""
            lines.append(f"{self.refused:,} are no ids and fail unsent: {', '.join(self.refused_ids)}{more}")
        lines.append(f"at least {self.requests:,} requests: more pages, confirmed ends and retries come on top")
        if self.rate is not None:
            lines.append(
                f"at least {_span(self.seconds)} by the rate of {self.rate.permits:,} requests in {self.rate.per:g} s"
            )
        guess = self.requests * _ANSWER / self.concurrency
        lines.append(f"{_span(guess)} if each answer takes {_ANSWER:g} s, {self.concurrency} at once")
        return [*lines, "nothing was sent"]


async def plan_export(
    source: SourceName,
    ids: Iterable[Any] | AsyncIterable[Any] | None,
    out: str | os.PathLike[str],
    *,
    session: AsyncSession,
    format: FormatName = "parquet",  # noqa: A002 - as `export` calls it
    shard: tuple[int, int] | None = None,
    shard_keys: int = SHARD_KEYS,
    verify: bool | None = None,
    rounds: int = ROUNDS,
    allow_empty: bool = False,
    cluster: str | None = None,
    archive: str | os.PathLike[str] | None = None,
    **query: Any,
) -> ExportPlan:
    """Count what `export` with the same arguments has to ask, and send nothing.

    All ids are read. What the folder has already is subtracted; the folder is not changed, and not made.

    Args:
        source: As for `export`.
        ids: As for `export`; None takes those that are in the folder.
        out: The folder.
        session: Its rate, concurrency and credentials count; nothing is sent.
        format: As for `export`.
        shard: As for `export`.
        shard_keys: As for `export`.
        verify: As for `export`.
        rounds: As for `export`: without any, customers that failed are not asked for.
        allow_empty: As for `export`.
        cluster: As for `export`.
        archive: As for `export`: shards whose raw answers are missing there are read again.
        query: The arguments of the call.

    Raises:
        InvalidRequestError: An argument is invalid.
        JobError: `export` would refuse the ids or the folder.
    """
    job = checked_run(
        source, out, session=session, query=query, format=format, shard_keys=shard_keys, verify=verify, rounds=rounds,
        shard=shard, archive=archive,
    )  # fmt: skip
    job.allow_empty = allow_empty
    job.cluster = session.base_url if cluster is None else cluster
    job.folder.refuse_links()
    try:
        with tempfile.TemporaryDirectory(prefix="capillary-async-plan-") as scratch:
            path = Path(scratch) / "state.sqlite"
            await in_thread(_copy, job.folder, path)
            return await job.look(ids, path, _plan)
    except (OSError, sqlite3.Error) as error:
        raise about(error, job.folder.path) from error


def _copy(folder: ExportFolder, target: Path) -> None:
    """Copy the database of the folder, where there is one, as its last transaction left it."""
    if not is_own_file(folder.state):
        return
    if not folder.state.with_name(f"{folder.state.name}-wal").exists():  # no other file has a part of it
        shutil.copyfile(folder.state, target)
        return
    with closing(State.read_only(folder.state)) as state:
        state.back_up(target)


def _plan(job: ExportRun) -> ExportPlan:
    reading = job.reading
    session, query = reading.session, reading.query
    unread = _Unread(job)
    several = len(scopes_of(query)) if reading.source.scoped else 1
    calls = unread.calls
    if reading.source.name == "awarded":
        calls = -(-calls // query.get("batch_size", _BATCH)) * len(statuses_of("status", query["status"]))
    requests = calls * several
    if requests and isinstance(session._auth, OAuthClient):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        requests += 1
    rate = session.limits.rate
    seconds = 0.0 if rate is None or not requests else _least_seconds(rate, requests)
    return ExportPlan(
        source=reading.source.name,
        asked=job.asked,
        done=job.asked - unread.keys,
        left=unread.keys,
        refused=unread.refused,
        refused_ids=tuple(unread.refused_ids),
        requests=requests,
        seconds=seconds,
        rate=rate,
        concurrency=session.limits.concurrency,
    )


def _least_seconds(rate: Rate, requests: int) -> float:
    """A permit is free again `per` seconds after an answer; turns of a shared rate are evenly apart."""
    if rate.shared is not None:
        return (requests - 1) * rate.per / rate.permits
    return (requests - 1) // rate.permits * rate.per


class _Unread:
    """What a run of the export would read.

    Attributes:
        keys: Keys of shards that are not there, and keys that failed before.
        calls: Calls for them at least, in one program and category; of awarded ids keys that are asked together.
        refused: All keys that the call refuses, and the first of them.
    """

    def __init__(self, job: ExportRun) -> None:
        self._calls_of = job.reading.calls_of()
        self.keys = self.calls = self.refused = 0
        self.refused_ids: list[str] = []
        there = _shards_there(job)
        failed = _failed(job)
        for number in range(job.shards):
            first = number * job.shard_keys + 1
            for place, key in job.state.keys(first, first + job.shard_keys - 1).items():
                self._add(key, is_unread=number not in there or place in failed)

    def _add(self, key: Any, *, is_unread: bool) -> None:
        self.keys += is_unread
        try:
            calls = self._calls_of(key)
        except InvalidRequestError:
            self.refused += 1
            self.refused_ids += [str(key)] if self.refused <= _NAMED else []
        else:
            self.calls += calls if is_unread else 0


def _shards_there(job: ExportRun) -> set[int]:
    """The shards that a run would not read again."""
    there = {shard.number for shard in job.state.done().values() if job.is_there(shard)}
    if job.archive is None:
        return there
    is_whole = job.archive._is_whole  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the check of a run
    return there - {pack.number for pack in job.state.packs() if not is_whole(pack, paranoid=False)}


def _failed(job: ExportRun) -> set[int]:
    """The places of failed keys that a run would retry: in all rounds after a run that finished, else in those left."""
    if not job.rounds:
        return set()
    return set(job.state.open_failures(1 << 30 if job.state.get("finished") else job.rounds)[0])


def _span(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004
