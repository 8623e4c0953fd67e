"""`verify`: prove an export from its files, and a sample of it from the service.

The rule kept here: nothing is changed, and each difference is a line on stdout. Called by `_app.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from capillary_async.cli._connect import connected
from capillary_async.cli._run import DIFFERENT, jobs
from capillary_async.cli._silence import Silence
from capillary_async.cli._words import count, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from capillary_async.cli._options import Connection, SandboxOf
    from capillary_async.jobs import VerifyResult

__all__ = ["Checked", "verify"]

_SHOWN = 100


@frozen
class Checked:
    """What is to be proven.

    Attributes:
        out: The folder.
        against_api: Whether a sample is read again.
        sample: How many customers.
        seed: The same seed draws the same sample.
        quiet: Say only what differs.
    """

    out: Path
    against_api: bool
    sample: int
    seed: int | None
    quiet: bool


async def verify(checked: Checked, connection: Connection, sandbox_of: SandboxOf) -> int:
    """Prove it; gives the exit code.

    Raises:
        UnusableError: The command cannot run like this.
        CapillaryError: There is no finished export, or the service refuses all.
    """
    package = jobs()
    if not checked.against_api:
        return _told(await package.verify(checked.out), checked)
    async with connected(connection, sandbox_of, Silence()) as (session, _):
        result = await package.verify(checked.out, session=session, sample=checked.sample, seed=checked.seed)
    return _told(result, checked)


def _told(result: VerifyResult, checked: Checked) -> int:
    lines = [*result.faults[:_SHOWN]]
    if len(result.faults) > _SHOWN:
        lines.append(f"... and {len(result.faults) - _SHOWN:,} more")
    if not checked.quiet:
        lines += [f"not checked: {note}" for note in result.notes]
        lines += [f"total {name}: {total:,f}" for name, total in result.totals.items() if total]
        keys = f"{result.asked:,} asked, {result.found:,} found, {result.empty:,} empty, {result.failed:,} failed"
        lines.append(f"{count(result.records, 'record')}, keys digest {result.keys_digest}; {keys}")
        lines.append(_verdict(result))
    for line in lines:
        print(one_line(line))  # noqa: T201
    return 0 if result.ok else DIFFERENT


def _verdict(result: VerifyResult) -> str:
    if not result.ok:
        return f"DIFFERENT: {count(len(result.faults), 'difference')} in {result.out}"
    sampled = f", and {count(result.sampled, 'customer')} read again hold the same" if result.sampled else ""
    missing = f"; {count(result.failed, 'key')} failed and stand in failures.jsonl" if result.failed else ""
    return f"PROVEN: the files of {result.out} are what its manifest says{sampled}{missing}"
