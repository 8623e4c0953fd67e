"""`verify`: prove an export from its files alone, and by reading a sample of it again.

Invariant: everything that the manifest says is recomputed from the bytes on the disk; each difference is
named. Nothing is changed. Called by users and the command line.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import field, frozen

from capillary_async import AsyncSession
from capillary_async._files.threads import in_thread
from capillary_async._html import fields_card
from capillary_async._repr import brief_repr
from capillary_async._validation import whole
from capillary_async.jobs._dataset.folder import ExportFolder
from capillary_async.jobs._dataset.manifest import read_of
from capillary_async.jobs._verifying.sample import Sample
from capillary_async.jobs._verifying.verification import Verification

__all__ = ["VerifyResult", "verify"]


@frozen(kw_only=True)
class VerifyResult:
    """What was computed from the files of an export, and each difference.

    Attributes:
        out: The folder.
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

    __repr__ = brief_repr
    _repr_html_ = fields_card

    @property
    def ok(self) -> bool:
        """True if all is as the manifest says and, with a session, the service answered and has the same."""
        return not self.faults and not self.unanswered


async def verify(
    out: str | os.PathLike[str], *, session: AsyncSession | None = None, sample: int = 100, seed: int | None = None
) -> VerifyResult:
    """Recompute counts, totals and hashes of an export and check them against its manifest.

    With a session, a sample of its customers is read again and compared.

    Args:
        out: The folder.
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
    stop = threading.Event()
    try:
        verification = await in_thread(Verification.of, ExportFolder(out), stop)
    finally:
        stop.set()  # if this call is cancelled, the thread ends before the next shard
    again = Sample(verification)
    if session is not None:
        await again.check(session, sample, random.Random(seed))
    return _result(verification, again.size)


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
