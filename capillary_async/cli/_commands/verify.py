"""`verify`: check an export from its files, and a sample of it with the service.

Invariant: nothing is changed, and each difference is a line on stdout. Called by `_app.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from capillary_async import CapillaryError, InvalidRequestError
from capillary_async._files.status_file import StatusFile
from capillary_async.cli._io.run import CANNOT_RUN, DIFFERENT, SOME_FAILED, jobs
from capillary_async.cli._io.session import connected
from capillary_async.cli._io.stall_notice import StallMonitor
from capillary_async.cli._io.words import count, one_line, span

if TYPE_CHECKING:
    from pathlib import Path

    from capillary_async.cli._io.options import Connection, SandboxOf
    from capillary_async.jobs import VerifyResult

__all__ = ["Checked", "verify"]

_SHOWN = 100


@frozen
class Checked:
    """The options of `verify`.

    Attributes:
        out: The folders.
        against_api: Whether a sample is read again.
        sample: How many customers.
        seed: The same seed draws the same sample.
        quiet: Say only what differs.
        status_file: A JSON file of the state, replaced every 2 seconds.
    """

    out: tuple[Path, ...]
    against_api: bool
    sample: int
    seed: int | None
    quiet: bool
    status_file: Path | None = None


async def verify(checked: Checked, connection: Connection, sandbox_of: SandboxOf) -> int:
    """Verify the export and return the exit code.

    Raises:
        UnusableError: The command cannot run like this.
        CapillaryError: There is no finished export.
    """
    jobs()
    async with StatusFile(checked.status_file, "verify", checked.out) as status:
        status.enter("files and sample" if checked.against_api else "files")
        return status.ended(await _verify(checked, connection, sandbox_of))


async def _verify(checked: Checked, connection: Connection, sandbox_of: SandboxOf) -> int:
    package = jobs()
    if not checked.against_api:
        return _printed(await package.verify(_folders(checked)), checked)
    try:
        async with connected(connection, sandbox_of, StallMonitor()) as (session, _):
            result = await package.verify(_folders(checked), session=session, sample=checked.sample, seed=checked.seed)
    except CapillaryError as error:
        if isinstance(error, package.JobError | InvalidRequestError):
            raise
        # The service refuses all: report what the files show all the same.
        proof = await package.verify(_folders(checked))
        result = evolve(proof, unanswered=(f"the sample could not be read again: {error}",))
    return _printed(result, checked)


def _folders(checked: Checked) -> Path | tuple[Path, ...]:
    return checked.out[0] if len(checked.out) == 1 else checked.out


def _printed(result: VerifyResult, checked: Checked) -> int:
    lines = [*result.faults[:_SHOWN]]
    if len(result.faults) > _SHOWN:
        lines.append(f"... and {len(result.faults) - _SHOWN:,} more")
    lines += [f"not checked: {each}" for each in result.unanswered[:_SHOWN]]
    if len(result.unanswered) > _SHOWN:
        lines.append(f"... and {len(result.unanswered) - _SHOWN:,} more")
    if not checked.quiet:
        lines += [f"not checked: {note}" for note in result.notes]
        lines += _new_in(result)
        lines += [f"read {span(*result.read)}"] if result.read else []
        lines += [f"total {name}: {total:,f}" for name, total in result.totals.items() if total]
        keys = f"{result.asked:,} asked, {result.found:,} found, {result.empty:,} empty, {result.failed:,} failed"
        lines.append(f"{count(result.records, 'record')}, keys digest {result.keys_digest}; {keys}")
        lines.append(_verdict(result))
    for line in lines:
        print(one_line(line))  # noqa: T201
    if result.faults or result.unanswered:
        return DIFFERENT if result.faults else CANNOT_RUN
    return SOME_FAILED if result.failed else 0


def _new_in(result: VerifyResult) -> list[str]:
    from capillary_async.jobs._dataset.drift import lines_of  # noqa: PLC0415 - the extra may be missing

    return list(lines_of(result.drift))


def _verdict(result: VerifyResult) -> str:
    if result.faults:
        return f"DIFFERENT: {count(len(result.faults), 'difference')} in {result.out}"
    sampled = f", and {count(result.sampled, 'customer')} read again have the same records" if result.sampled else ""
    missing = f"; {count(result.failed, 'key')} failed and are in failures.jsonl" if result.failed else ""
    where = f"the files of {result.out} are what its manifest says"
    if result.folders:
        where = f"the files of {len(result.folders)} exports in {result.out} are what their manifests say"
    verified = f"VERIFIED: {where}{sampled}{missing}"
    again = "; the service was not compared: run it again when it answers"
    return f"{verified}{again}" if result.unanswered else verified
