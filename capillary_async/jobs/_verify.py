"""`verify`: prove an export from its files alone, and by reading a sample of it again.

Invariant: everything that the manifest says is recomputed from the bytes on the disk; each difference is
named. Nothing is changed. Called by users and the command line.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from capillary_async import AsyncSession, InvalidRequestError
from capillary_async._files.threads import in_thread
from capillary_async._html import fields_card
from capillary_async._repr import brief_repr
from capillary_async._validation import whole
from capillary_async.jobs._common.digest import MultisetDigest, added
from capillary_async.jobs._dataset.drift import DriftCount
from capillary_async.jobs._dataset.folder import ExportFolder
from capillary_async.jobs._dataset.id_shard import expanded, faults_together
from capillary_async.jobs._dataset.manifest import Manifest, read_of
from capillary_async.jobs._verifying.sample import Sample
from capillary_async.jobs._verifying.verification import Verification

__all__ = ["VerifyResult", "verify"]

_COUNTS = ("asked", "found", "empty", "failed", "records", "sampled")


@frozen(kw_only=True)
class VerifyResult:
    """What was computed from the files of an export, and each difference.

    Attributes:
        out: The folder; of several exports, the one that they are in.
        folders: The folders of several exports; empty of one.
        faults: Each difference from the manifest, or from the service, as a sentence.
        complete: Whether the export says that no key failed.
        asked, found, empty, failed: Keys: in all, with records, without any, failed.
        records: Records in the files.
        totals: The sum of each quantity.
        keys_digest: The digest of the keys of all records, whatever their order.
        sampled: Keys that were read again.
        unanswered: Why keys of the sample could not be read again: the service did not answer. Empty if all were.
        read: Times of the first and the last answer of the export; None if its manifest does not say.
        notes: What could not be checked, and why; and lists that end at the longest length, below the page size: a
            server may have cut them.
        drift: Names that the documentation does not know, by `members`, `status`, `event_name` and `source_table`, each
            with `count` (of records) and `example`. No fault by itself.
    """

    out: Path
    faults: tuple[str, ...]
    complete: bool
    asked: int
    found: int
    empty: int
    failed: int
    records: int
    totals: Mapping[str, Decimal]
    keys_digest: str
    sampled: int = 0
    notes: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    read: tuple[datetime, datetime] | None = None
    drift: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(factory=dict[str, Any])
    folders: tuple[Path, ...] = ()

    __repr__ = brief_repr
    _repr_html_ = fields_card

    @property
    def ok(self) -> bool:
        """True if all is as the manifest says and, with a session, the service answered and has the same."""
        return not self.faults and not self.unanswered


async def verify(
    out: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    session: AsyncSession | None = None,
    sample: int = 100,
    seed: int | None = None,
) -> VerifyResult:
    """Recompute counts, totals and hashes of an export and check them against its manifest.

    With a session, a sample of its customers is read again and compared. Several exports are checked one by one; where
    they are shards of one list of ids, it is checked that they are disjoint and whole, and missing ones are named.

    Args:
        out: The folder, or several; or one that has the folders of shards (`shard-1-of-4`, ...).
        session: Reads the sample, which is compared record by record; None sends no request.
        sample: Maximum number of customers to read again.
        seed: The same seed draws the same sample; None draws another one each time.

    Raises:
        JobError: There is no manifest, since the export was not finished, or it is no manifest.
        InvalidRequestError: `sample` is invalid.
        CapillaryError: What concerns every key of the sample, e.g. wrong credentials. A service that does not answer is
            no error and no difference: see `VerifyResult.unanswered`.
    """
    whole("sample", sample, 1)
    given = [Path(out)] if isinstance(out, str | os.PathLike) else [Path(one) for one in out]
    folders = expanded(given)
    if not folders:
        raise InvalidRequestError("out takes the folder of an export, or several; got none", argument="out")
    draw, each = random.Random(seed), -(-sample // len(folders))
    found = [await _verified(folder, session, each, draw) for folder in folders]
    if len(found) == 1 and folders == given:
        return _alone(*found[0])
    return _together(found)


async def _verified(
    folder: Path, session: AsyncSession | None, sample: int, draw: random.Random
) -> tuple[VerifyResult, Manifest]:
    """Verify one folder."""
    stop = threading.Event()
    try:
        verification = await in_thread(Verification.of, ExportFolder(folder), stop)
    finally:
        stop.set()  # if this call is cancelled, the thread ends before the next shard
    again = Sample(verification)
    if session is not None:
        await again.check(session, sample, draw)
    return _result(verification, again.size), verification.manifest


def _alone(result: VerifyResult, manifest: Manifest) -> VerifyResult:
    """The result of one folder; with a note where it is a shard."""
    if manifest.shard is None:
        return result
    note = f"it is {manifest.shard}: verify the folders of all shards together to see that they are whole"
    return evolve(result, notes=(*result.notes, note))


def _together(found: Sequence[tuple[VerifyResult, Manifest]]) -> VerifyResult:
    """The result of several folders: sums, and what each of them said."""
    results = [result for result, _ in found]
    reads = [result.read for result in results if result.read is not None]
    keys, drift = MultisetDigest(), DriftCount()
    for result in results:
        keys.join(MultisetDigest.of(result.keys_digest))
        drift.join(result.drift)
    apart = faults_together([(result.out, manifest) for result, manifest in found])
    return VerifyResult(
        out=Path(os.path.commonpath([result.out.absolute() for result in results])),
        folders=tuple(result.out for result in results),
        faults=(*_named(results, "faults"), *apart),
        complete=all(result.complete for result in results),
        **{name: sum(getattr(result, name) for result in results) for name in _COUNTS},
        totals=added(result.totals for result in results),
        keys_digest=str(keys),
        notes=_named(results, "notes"),
        unanswered=_named(results, "unanswered"),
        read=(min(first for first, _ in reads), max(last for _, last in reads)) if reads else None,
        drift=drift.as_json(),
    )


def _named(results: Sequence[VerifyResult], attribute: str) -> tuple[str, ...]:
    """The sentences of all folders, each with its folder."""
    return tuple(f"{result.out.name}: {text}" for result in results for text in getattr(result, attribute))


def _result(verification: Verification, sampled: int) -> VerifyResult:
    manifest, findings = verification.manifest, verification.findings
    ids = manifest.ids
    return VerifyResult(
        out=verification.folder.path,
        faults=tuple(findings.faults),
        complete=manifest.complete,
        asked=ids.asked,
        found=verification.found,
        empty=ids.empty,
        failed=ids.failed,
        records=verification.records,
        totals=verification.totals,
        keys_digest=verification.keys_digest,
        sampled=sampled,
        notes=tuple(findings.notes),
        unanswered=tuple(findings.unanswered),
        read=read_of(manifest.read),
        drift=manifest.drift,
    )
