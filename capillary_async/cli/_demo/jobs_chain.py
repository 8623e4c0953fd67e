"""The demo's second half: export, a kill, the same command again, verify, and a reconciliation with books.

Invariant: the export is a process of its own that is really killed, no process outlives this one's work, and it ends
well only when exactly the planted differences were found. Called by `_demo/demo.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from capillary_async._files.addresses import why_no_path
from capillary_async._files.durable import write_file
from capillary_async.cli._demo.planted_books import COMPARE, KEY, Planting, disagreements, write_books
from capillary_async.cli._io.run import UnusableError, jobs
from capillary_async.cli._io.words import count, one_line
from capillary_async.sandbox import CutBody, ServerFailure, SlowFirstByte

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from capillary_async import AsyncSession
    from capillary_async.jobs import ReconcileResult
    from capillary_async.sandbox import Sandbox

__all__ = ["Chain", "empty_folder", "left_out"]

_NEEDED = ("duckdb", "jinja2", "matplotlib", "pyarrow")
_SHARDS = 20  # about so many files
_ENOUGH = 5  # one in so many is on the disk when the export is killed
_LEAST = 2  # customers: one file is on the disk, one is not
_DELAY = 20.0  # seconds that the sandbox holds answers back, so that the kill comes in the middle
_LOOK = 0.05  # seconds between two looks at the folder
_SAMPLE = 20  # customers read again by verify
_HINT = "list-below-longest"  # the rule that goes by the lengths of lists alone


def left_out(sandbox: Sandbox) -> str | None:
    """Return why the jobs do not run, in one line; None if they run."""
    missing = next((name for name in _NEEDED if importlib.util.find_spec(name) is None), None)
    if missing is not None:
        why = f'since {missing} is missing: pip install "capillary-async[cli,jobs]"'
    elif len(sandbox.customer_ids) < _LEAST:
        why = f"since they want at least {_LEAST} customers"
    else:
        return None
    return f"export, verify and reconcile are left out, {why}"


def empty_folder(out: Path | None) -> Path:
    """Create the folder of the demo.

    Raises:
        UnusableError: It holds something.
    """
    if out is None:
        return Path(tempfile.mkdtemp(prefix="capillary-demo-"))
    if (why := why_no_path(out)) is not None:
        raise UnusableError(f"--out: {why}")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UnusableError(f"--out takes a new or an empty folder, and {out} holds something")
    return out


@frozen
class Chain:
    """One run over one sandbox.

    Attributes:
        folder: Where all files go.
        seed: Chooses the planted differences.
        faults: Whether some requests of the export fail, so that it has to retry.
        say: Takes a line of the summary.
    """

    _sandbox: Sandbox
    _session: AsyncSession
    folder: Path
    seed: int
    faults: bool
    say: Callable[[str], object]
    _jobs: Any = field(factory=jobs, init=False)

    async def run(self) -> Planting:
        """Run the jobs, and compare what they found with what was planted.

        Raises:
            UnusableError: A child process ended as it should not.
            JobError: A job could not be done.
        """
        await self._export_killed()
        await self._export_events()
        await self._verify()
        return await self._reconcile()

    @property
    def _out(self) -> Path:
        return self.folder / "allocations"

    # -- the export, killed and started again

    async def _export_killed(self) -> None:
        sandbox, shards = self._sandbox, self._shards_in_all
        lines = ["customer_id", *map(str, sandbox.customer_ids), ""]
        write_file(self.folder / "ids.csv", "\n".join(lines).encode())
        # The later half of the answers waits until the export is dead: it is always killed in the middle.
        sandbox.clear_faults()
        sandbox.add_faults(SlowFirstByte(_DELAY, times=None, path="dateRange", after=len(sandbox.customer_ids) // 2))
        there = await self._kill()
        sandbox.clear_faults()
        if self.faults:
            sandbox.add_faults(ServerFailure(503, times=2, after=1), CutBody(times=1, after=4))
        with self._child() as child:
            code = await _ended(child)
        if code:
            raise UnusableError(f"the export that was started again ended with {code}: {self._last_words()}")
        now = self._published()
        kept = sum(now.get(name) == mark for name, mark in there.items())
        self.say(
            "export     stopped in the middle by kill -9; the same command again kept the "
            f"{count(kept, 'finished file')} and read the other {len(now) - kept} of {shards}"
        )

    async def _kill(self) -> dict[str, tuple[int, int]]:
        """Start the export, kill it when some files exist, and return those."""
        enough = max(1, self._shards_in_all // _ENOUGH)
        with self._child() as child:
            while len(self._published()) < enough and child.poll() is None:  # noqa: ASYNC110 - another process's files
                await asyncio.sleep(_LOOK)
            child.kill()  # nothing, if it has ended
            code = await _ended(child)
        if code >= 0 and os.name == "posix":
            raise UnusableError(f"the export ended with {code} before it could be killed: {self._last_words()}")
        return self._published()

    @contextlib.contextmanager
    def _child(self) -> Generator[subprocess.Popen[bytes]]:
        """A process that exports; it has ended when the context is left.

        No subprocess of asyncio: what is cancelled while one is being started may leave it behind.
        """
        with (
            (self.folder / "export.log").open("ab") as log,
            subprocess.Popen(  # noqa: S603 - our own command
                self._command(), env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ) as child,
        ):
            try:
                yield child
            finally:
                child.kill()

    def _command(self) -> list[str]:
        sandbox = self._sandbox
        options = {
            "--base-url": sandbox.url,
            "--ids": self.folder / "ids.csv",
            "--ids-column": "customer_id",
            "--program-id": sandbox.program_id,
            "--point-category-id": sandbox.point_category_id,
            "--expiry-date-start": sandbox.expiry_date_start,
            "--expiry-date-end": sandbox.expiry_date_end,
            "--shard-keys": self._shard_keys,
            "--out": self._out,
        }
        words = [str(word) for option in options.items() for word in option]
        return [sys.executable, "-m", "capillary_async.cli", "export", "allocations", *words]

    def _environment(self) -> dict[str, str]:
        """Return the environment with the sandbox's credentials instead of the user's."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("CAPILLARY_")}
        return {**others, "CAPILLARY_USERNAME": self._sandbox.username, "CAPILLARY_PASSWORD": self._sandbox.password}

    @property
    def _shard_keys(self) -> int:
        return max(1, len(self._sandbox.customer_ids) // _SHARDS)

    @property
    def _shards_in_all(self) -> int:
        return -(-len(self._sandbox.customer_ids) // self._shard_keys)

    def _published(self) -> dict[str, tuple[int, int]]:
        """Return the complete files, each with a value that changes when it is written again."""
        found: dict[str, tuple[int, int]] = {}
        for path in sorted((self._out / "shards").glob("part-*.parquet")):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found[path.name] = (state.st_ino, state.st_mtime_ns)
        return found

    def _last_words(self) -> str:
        """Return the last line that the export printed."""
        path = self.folder / "export.log"
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{one_line(said)} (all of it: {path})"

    # -- the other jobs, in this process

    async def _export_events(self) -> None:
        ids, out = list(self._sandbox.customer_ids), self.folder / "events"
        result = await self._jobs.export("events", ids, out, session=self._session)
        if not result.complete:
            raise UnusableError(
                f"the export of events: {count(result.failed, 'customer')} failed, see {out / 'failures.jsonl'}"
            )
        entries = await self._jobs.export("ledger", self._log_ids(), self.folder / "ledger", session=self._session)
        if not entries.complete:
            raise UnusableError(
                f"the export of the ledger: {count(entries.failed, 'customer')} failed, see "
                f"{self.folder / 'ledger' / 'failures.jsonl'}"
            )
        self.say(
            f"events     {count(result.records, 'loyalty event')} and the ledger entries of "
            f"{count(entries.records, 'event')} exported too, to check the allocations against"
        )

    def _log_ids(self) -> Iterator[tuple[int, int]]:
        """Return the event log ids of the allocations, from their shards."""
        for shard in sorted((self._out / "shards").glob("part-*.parquet")):
            yield from self._jobs.ids_in_parquet(shard, "customer_id", "event_log_id")

    async def _verify(self) -> None:
        verified: list[str] = []
        sampled = 0
        for folder in (self._out, self.folder / "events", self.folder / "ledger"):
            result = await self._jobs.verify(folder, session=self._session, sample=_SAMPLE, seed=self.seed)
            if not result.ok:
                more = f" (and {len(result.faults) - 1} more)" if len(result.faults) > 1 else ""
                raise UnusableError(f"verify {folder}: {result.faults[0]}{more}")
            verified.append(f"{count(result.records, 'record')} of {folder.name}")
            sampled += result.sampled
        self.say(
            f"verify     {', '.join(verified)}: hashes, totals and digests are as the manifests say; "
            f"{sampled} lists of customers read again are the same"
        )

    async def _reconcile(self) -> Planting:
        books, differences = self.folder / "books.csv", self.folder / "differences.parquet"
        planted = write_books(books, self._sandbox, self.seed)
        self.say(f"books      made with differences: {planted.described()}")
        result: ReconcileResult = await self._jobs.reconcile(
            self._out,
            books,
            key=KEY,
            compare=COMPARE,
            out=differences,
            report=self.folder / "report.html",
            with_events=self.folder / "events",
            with_ledger=self.folder / "ledger",
            as_of=self._sandbox.today,
        )
        # The folder is named above; what was compared with what is the report's.
        named = {f"{each.role}: {each.label}" for each in result.subjects}
        named |= {f"differences: {result.differences}", f"report: {result.report}"}
        for line in result.lines():
            if line not in named:
                self.say(f"reconcile  {one_line(line)}")
        wrong = disagreements(planted, differences)
        # The notes too: in the sandbox, what the service's pages leave open is known. A length is a hint all the same.
        wrong += [
            f"rule {each.rule.name} broken by {count(each.count, 'record')}"
            for each in result.broken
            if each.is_error or each.rule.name != _HINT
        ]
        return Planting(len(planted.differences), tuple(wrong))


async def _ended(child: subprocess.Popen[bytes]) -> int:
    """Wait for the process, and return its exit code."""
    while (code := child.poll()) is None:  # noqa: ASYNC110 - another process
        await asyncio.sleep(_LOOK)
    return code
