"""`--processes N`: one export by N processes of this machine, each with a shard of the ids and a folder of its own.

Invariant: the processes have one rate and one concurrency together; they end with this one, however it ends. Called by
`export.py`; a child runs `child`.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import asdict, evolve, field, frozen

from capillary_async._files.status_file import StatusFile
from capillary_async.cli._io.id_input import STREAM
from capillary_async.cli._io.job_progress import JobReport
from capillary_async.cli._io.run import CANNOT_RUN, SOME_FAILED, TERMINATED, UnusableError, ending, jobs, run
from capillary_async.cli._io.words import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from capillary_async.cli._commands.export import ExportQuery
    from capillary_async.cli._io.options import ExportRequest
    from capillary_async.jobs import ExportProgress, ExportResult

__all__ = ["PipedReport", "child", "export_in_processes", "parts_of"]

MOST = 64
_CODE = "from capillary_async.cli._commands.export_processes import child; raise SystemExit(child())"
_LIMIT = 1 << 20  # bytes of a line
_KILLED_AFTER = 10.0  # seconds after they were ended at once
_ORDER = ("ids", "reading", "round", "done")
_SUMS = ("settled", "failed", "records", "shards", "requests", "retries", "throttles", "began_with")
_COUNTS = ("asked", "found", "empty", "failed", "records", "shards", "requests", "retries", "throttles")


def parts_of(asked: ExportRequest) -> list[ExportRequest]:
    """What each process is asked for: its shard, its folder, its part of rate and concurrency.

    Raises:
        UnusableError: It cannot be divided.
    """
    options, connection, number = asked.output, asked.connection, asked.output.processes
    _refuse(asked)
    permits, _, per = (connection.rate or "").partition("/")
    rate = int(permits) if permits.isdecimal() else 0  # what is no rate is refused by the processes
    is_shared = connection.shared_rate is not None or os.environ.get("CAPILLARY_SHARED_RATE")
    if permits.isdecimal() and rate < number and not is_shared:
        raise UnusableError(f"--rate {connection.rate} is less than one request for each of {number} processes")
    from capillary_async.jobs._dataset.id_shard import folder_name  # noqa: PLC0415 - the extra may be missing

    parts: list[ExportRequest] = []
    for index in range(number):
        part = f"{_share(rate, number, index)}/{per}" if rate and not is_shared else connection.rate
        concurrency = _share(connection.concurrency, number, index)
        name = folder_name(index + 1, number)
        out = evolve(
            options, processes=1, shard=f"{index + 1}/{number}", out=options.out / name, status_file=None,
            archive=None if options.archive is None else options.archive / name,
        )  # fmt: skip
        parts.append(evolve(asked, output=out, connection=evolve(connection, rate=part, concurrency=concurrency)))
    return parts


def _share(whole: int, number: int, index: int) -> int:
    return whole // number + (index < whole % number)


def _refuse(asked: ExportRequest) -> None:
    options, number = asked.output, asked.output.processes
    if not 1 <= number <= MOST:
        raise UnusableError(f"--processes takes a whole number from 1 to {MOST}, got {number}")
    if options.shard is not None:
        raise UnusableError("--processes goes without --shard: each process reads a shard of its own")
    if asked.ids.ids == STREAM:
        raise UnusableError("--processes takes --ids from a file: each process reads it, and stdin can be read once")
    if asked.connection.concurrency < number:
        raise UnusableError(
            f"--concurrency {asked.connection.concurrency} is less than one for each of {number} processes"
        )
    there = [path.name for path in options.out.glob("shard-*-of-*") if not path.name.endswith(f"-of-{number}")]
    if (options.out / "state.sqlite").exists():
        raise UnusableError(
            f"{options.out} has an export of one process: go on without --processes, or give another --out"
        )
    if there:
        raise UnusableError(
            f"{options.out} has {there[0]}, of another number of processes: give that number, or another --out"
        )


# --- the parent -------------------------------------------------------------------------------------------------------


@frozen
class _Part:
    """One process, and what it reported."""

    number: int
    process: asyncio.subprocess.Process
    said: dict[str, Any] = field(factory=dict[str, Any])  # the last report of each kind


async def export_in_processes(asked: ExportRequest, query: ExportQuery, status: StatusFile) -> int:
    """Export by several processes, and return the exit code.

    Raises:
        UnusableError: The options do not allow it.
    """
    from capillary_async.cli._commands.export import Stop  # noqa: PLC0415 - that module imports this one

    requests, stop = parts_of(asked), Stop()
    stop.listen()
    with JobReport(f"export {query.source}", quiet=asked.output.quiet) as report:
        parts: list[_Part] = []
        status.follow(lambda: _status_of(parts))
        stopping = asyncio.ensure_future(stop.event.wait())
        try:
            for number, request in enumerate(requests, 1):
                parts.append(_Part(number, await _started(request, query)))
            ended = asyncio.gather(*(_read(part, parts, report) for part in parts))
            first: set[asyncio.Future[Any]] = {stopping, ended}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                _signal(parts, signal.SIGTERM)
            await ended
        except asyncio.CancelledError:
            if not stop.ended:
                raise
            report.say(f"ended at once; what is complete stays in {asked.output.out}, the same command goes on")
            return stop.code
        finally:
            stopping.cancel()
            await _end(parts)
        return _concluded(asked.output.out, parts, report, stop.code)


async def _started(request: ExportRequest, query: ExportQuery) -> asyncio.subprocess.Process:
    """A process with its part of the work. Ctrl-C of a terminal does not reach it: this process passes it on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CODE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        start_new_session=True, limit=_LIMIT,
    )  # fmt: skip
    data = pickle.dumps((request, query))
    stdin = process.stdin
    if stdin is not None:  # it stays open: its end is the end of this process
        stdin.write(len(data).to_bytes(8, "big") + data)
        with suppress(ConnectionError):
            await stdin.drain()
    return process


async def _read(part: _Part, parts: Sequence[_Part], report: JobReport) -> None:
    """Take in what a process reports, until it has ended."""
    stdout = part.process.stdout
    if stdout is None:
        return
    async for line in stdout:
        with suppress(ValueError):
            part.said.update(json.loads(line))
        if (note := part.said.pop("note", None)) is not None:
            report.note(f"process {part.number}: {note}")
        if (text := part.said.pop("say", None)) is not None:
            report.say(f"process {part.number}: {text}")
        if (progress := _progress_of(parts)) is not None:
            report.progress(progress)
    await part.process.wait()


def _progress_of(parts: Sequence[_Part]) -> ExportProgress | None:
    """The progress of all processes as one; None before any of them reported."""
    states: list[Mapping[str, Any]] = [part.said["progress"] for part in parts if "progress" in part.said]
    if not states:
        return None
    asked = [state["asked"] for state in states]
    phases = [state["phase"] for state in states if state["phase"] != "done"] or ["done"]
    known = len(states) == len(parts) and None not in asked
    return jobs().ExportProgress(  # type: ignore[no-any-return]
        phase=min(phases, key=lambda one: _ORDER.index(one.split()[0]) if one.split()[0] in _ORDER else 1),
        asked=sum(asked) if known else None,
        **{name: sum(state[name] for state in states) for name in _SUMS},
        elapsed=max(state["elapsed"] for state in states),
        note=next((state["note"] for state in states if state["note"]), None),
        last_error=next((state["last_error"] for state in states if state["last_error"]), None),
    )


def _status_of(parts: Sequence[_Part]) -> dict[str, Any]:
    from capillary_async.jobs._exporting.progress import status_of  # noqa: PLC0415 - the extra may be missing

    progress = _progress_of(parts)
    return {} if progress is None else status_of(progress)


def _signal(parts: Sequence[_Part], number: int) -> None:
    for part in parts:
        if part.process.returncode is None:
            with suppress(ProcessLookupError):
                part.process.send_signal(number)


async def _end(parts: Sequence[_Part]) -> None:
    """End the processes that still run: at once, since they were asked before where there was time."""
    left = [part for part in parts if part.process.returncode is None]
    for number in (signal.SIGTERM, signal.SIGTERM):  # the second ends a process at once
        _signal(left, number)
        await asyncio.sleep(0.05 if left else 0)
    waits: list[asyncio.Task[int]] = [asyncio.create_task(part.process.wait()) for part in left]
    if waits:
        await asyncio.wait(waits, timeout=_KILLED_AFTER)
        _signal(left, getattr(signal, "SIGKILL", signal.SIGTERM))
        await asyncio.wait(waits, timeout=_KILLED_AFTER)


def _concluded(out: Path, parts: Sequence[_Part], report: JobReport, stopped: int) -> int:
    """Show how it ended; gives the exit code, which is `stopped` where a signal interrupted it."""
    errors = {part.said["error"] for part in parts if "error" in part.said}
    for text in sorted(errors):
        report.say(text)
    for part in parts:
        if "result" not in part.said and "error" not in part.said:
            report.say(f"process {part.number} {_ended(part.process.returncode)}; the same command goes on")
    if not all("result" in part.said for part in parts):
        return stopped or CANNOT_RUN
    result = _result_of(out, parts)
    report.exported(result)
    if result.interrupted:
        return stopped or CANNOT_RUN
    faults = _faults_of(out, len(parts))
    for fault in faults:
        report.say(fault)
    return CANNOT_RUN if faults else SOME_FAILED if result.failed else 0


def _ended(code: int | None) -> str:
    return f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"


def _faults_of(out: Path, number: int) -> list[str]:
    """Why the folders are not whole together: the list of ids changed while the processes read it."""
    from capillary_async.jobs._dataset.id_shard import faults_together, folder_name  # noqa: PLC0415 - an extra
    from capillary_async.jobs._dataset.manifest import Manifest  # noqa: PLC0415 - an extra

    folders = [out / folder_name(each, number) for each in range(1, number + 1)]
    return faults_together([(folder, Manifest.load(folder / "manifest.json")) for folder in folders])


def _result_of(out: Path, parts: Sequence[_Part]) -> ExportResult:
    found: list[Mapping[str, Any]] = [part.said["result"] for part in parts]
    reads = [tuple(map(datetime.fromisoformat, one["read"])) for one in found if one["read"]]
    missing = [one["not_found"] for one in found]
    return jobs().ExportResult(  # type: ignore[no-any-return]
        out=out / f"shard-*-of-{len(parts)}",
        complete=all(one["complete"] for one in found),
        interrupted=any(one["interrupted"] for one in found),
        **{name: sum(one[name] for one in found) for name in _COUNTS},
        elapsed=max(one["elapsed"] for one in found),
        read=(min(first for first, _ in reads), max(last for _, last in reads)) if reads else None,
        already_complete=all(one["already_complete"] for one in found),
        not_found=None if None in missing else sum(missing),
        repaired=tuple(f"{Path(one['out']).name}/{name}" for one in found for name in one["repaired"]),
    )


# --- a child ----------------------------------------------------------------------------------------------------------


class PipedReport:
    """Reports to the parent, a line of JSON each."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def progress(self, state: ExportProgress) -> None:
        """Report the progress: for `on_progress`."""
        self.send(progress=asdict(state))

    def note(self, text: str) -> None:
        """Report a message while the job runs."""
        self.send(note=text)

    def say(self, text: str) -> None:
        """Report a message."""
        self.send(say=text)

    def exported(self, result: ExportResult) -> None:
        """Report the end."""
        read = None if result.read is None else [one.isoformat() for one in result.read]
        self.send(result={**asdict(result), "out": str(result.out), "read": read})

    def send(self, **values: Any) -> None:
        """Report values by name."""
        sys.stdout.write(f"{json.dumps(values)}\n")
        sys.stdout.flush()


def child() -> int:
    """Do what the parent asks for on stdin; it ends with the parent."""
    asked, query = pickle.loads(_received(int.from_bytes(_received(8), "big")))  # noqa: S301 - of our parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    report = PipedReport()
    code = ending(lambda: run(_exported(asked, query, report)))
    sys.stdout.flush()
    return code


def _received(size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := os.read(0, size - len(data))):
        data += piece
    return data


def _end_with_parent() -> None:
    """Wait for the end of stdin. Not by `sys.stdin`, whose lock the end of the interpreter wants."""
    while os.read(0, 1):
        pass
    os._exit(TERMINATED)


async def _exported(asked: ExportRequest, query: ExportQuery, report: PipedReport) -> int:
    from capillary_async import CapillaryError  # noqa: PLC0415 - for a child alone
    from capillary_async.cli._commands.export import export_here  # noqa: PLC0415 - that module imports this one

    try:
        return await export_here(asked, query, StatusFile(None, ""), report)
    except (UnusableError, CapillaryError, OSError) as error:
        report.send(error=one_line(str(error)))
        return CANNOT_RUN
