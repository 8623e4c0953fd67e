"""The claim of a copy: an object that says which export is being published at a URL.

Invariant: of two exports at most one is sent to a URL. Each publisher writes its claim, then lists the claims, then
reads the manifest; it goes on if it finds those of its own export alone. The manifest is there before a claim is
removed. So a store is enough whose listings have every object that was written before. Called by
`_publishing/copy.py`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._publishing.finished import label_of

if TYPE_CHECKING:
    from capillary_async.jobs._publishing.finished import FinishedExport
    from capillary_async.jobs._publishing.store import Store

__all__ = ["Claim"]

_PREFIX = "_publishing-"  # readers of folders leave out what begins with _


class Claim:
    """The claim of one publisher; those that killed publishers of the same export left do not matter.

    Raises:
        JobError: Another export has a claim, or the store refuses.
    """

    def __init__(self, store: Store, export: FinishedExport) -> None:
        self._store, self._export = store, export
        self._own = f"{_PREFIX}{export.digest[:32]}-"
        self._name = f"{self._own}{secrets.token_hex(4)}"
        self._is_used = False
        self._refuse_others()
        label = label_of(json.loads(export.encoded), export.digest)
        store.put_bytes(self._name, f"{label}\npublishing since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        reached("claim-sent")
        try:
            self._refuse_others()
        except JobError:
            self.withdraw()
            raise

    def _refuse_others(self) -> None:
        other = next((name for name in self._store.names(_PREFIX) if not name.startswith(self._own)), None)
        if other is None:
            return
        where = self._store.destination
        raise JobError(
            f"another export is being published at {where}, or was not published to its end: its claim is "
            f"{where}/{other}. {self._export.label} is not written beside it: publish at another URL, or publish that "
            f"export again; or, when no process publishes it any more, remove {where}/shards and each file "
            f"{where}/{other.rpartition('-')[0]}-*, and publish again"
        )

    def use(self) -> None:
        """Check before a file is sent that the claim is there, or the manifest of the same export by another publisher.

        Raises:
            JobError: Neither is.
        """
        if self._store.read(self._name) is None and self._store.read("manifest.json") != self._export.encoded:
            where = self._store.destination
            raise JobError(f"the claim {where}/{self._name} was removed meanwhile: look at {where}, and publish again")
        self._is_used = True

    def withdraw(self) -> None:
        """Remove it if no file was sent; one whose sending failed may still arrive."""
        if not self._is_used:
            with contextlib.suppress(JobError):  # the next publisher names it
                self._store.remove(self._name)

    def end(self) -> None:
        """Remove all claims of this export, when its manifest is there; with it they do no harm."""
        with contextlib.suppress(JobError):  # e.g. credentials that may not remove
            for name in self._store.names(self._own):
                self._store.remove(name)
