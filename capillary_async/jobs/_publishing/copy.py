"""An export as a copy in a store: a claim, its shards, its manifest.

Invariant: the manifest is written last, so that a folder with a manifest is a whole export; no file of another export
is replaced. Called by `_publish.py`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

import attrs

from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._publishing.claim import Claim
from capillary_async.jobs._publishing.finished import FinishedExport, label_of
from capillary_async.jobs._publishing.sending import PublishProgress, Sent, refuse_other, send

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from capillary_async.jobs._publishing.finished import Piece
    from capillary_async.jobs._publishing.store import Store

__all__ = ["publish_copy"]

_MANIFEST = "manifest.json"


def publish_copy(
    store: Store, export: FinishedExport, stop: threading.Event, on_progress: Callable[[PublishProgress], None] | None
) -> Sent:
    """Send an export; nothing if it is there.

    Raises:
        JobError: Another export or files of something else are there, or the store refuses.
    """
    claim = None if _published(store, export) else Claim(store, export)
    try:
        sent = _sent(store, export, claim, stop, on_progress)
    except JobError:
        if claim is not None:
            claim.withdraw()
        raise
    if claim is not None:
        claim.end()
    return sent


def _sent(
    store: Store,
    export: FinishedExport,
    claim: Claim | None,
    stop: threading.Event,
    on_progress: Callable[[PublishProgress], None] | None,
) -> Sent:
    published = claim is None or _published(store, export)  # again: one may have ended before the claim
    sizes, pieces = store.sizes("shards"), export.pieces("shards")
    refuse_other(store, sizes, pieces)
    if claim is None or published:
        return _completed(store, pieces, sizes, stop, on_progress)
    sent = send(store, pieces, sizes, stop, on_progress, replace=False, before=claim.use)
    return _with_manifest(store, export, sent, claim, stop)


def _completed(
    store: Store,
    pieces: Sequence[Piece],
    sizes: Mapping[str, int],
    stop: threading.Event,
    on_progress: Callable[[PublishProgress], None] | None,
) -> Sent:
    """Send what a copy with a manifest lost; nothing if it has all."""
    if _has_all(sizes, pieces):
        return Sent(files=len(pieces) + 1)
    sent = send(store, pieces, sizes, stop, on_progress, replace=True)
    if stop.is_set():
        raise JobError("interrupted")
    return attrs.evolve(sent, files=sent.files + 1)


def _with_manifest(store: Store, export: FinishedExport, sent: Sent, claim: Claim, stop: threading.Event) -> Sent:
    """Write the manifest, when all else is there."""
    if stop.is_set():
        raise JobError("interrupted")
    sizes, pieces = store.sizes("shards"), export.pieces("shards")
    refuse_other(store, sizes, pieces)
    if not _has_all(sizes, pieces):
        raise JobError(f"another process published at {store.destination} meanwhile: look there, and publish again")
    claim.use()
    if _published(store, export):  # by another process, meanwhile
        return attrs.evolve(sent, files=sent.files + 1)
    store.put_bytes(_MANIFEST, export.encoded)
    reached("manifest-sent")
    if store.read(_MANIFEST) != export.encoded:
        raise JobError(f"{store.destination}/{_MANIFEST} was sent and came back otherwise: publish again")
    return Sent(files=sent.files + 1, sent=sent.sent + 1, bytes_sent=sent.bytes_sent + len(export.encoded))


def _has_all(sizes: Mapping[str, int], pieces: Sequence[Piece]) -> bool:
    return all(sizes.get(each.name) == each.bytes for each in pieces)


def _published(store: Store, export: FinishedExport) -> bool:
    """Whether the manifest of this export is there."""
    there = store.read(_MANIFEST)
    if there is None or there == export.encoded:
        return there is not None
    members = _members(there)
    if "source" not in members:
        raise JobError(f"{store.destination}/{_MANIFEST} is no manifest of an export: publish at another URL")
    raise JobError(
        f"another export is at {store.destination} ({label_of(members, hashlib.sha256(there).hexdigest())}), and "
        f"{export.label} is not written over it: publish at another URL, e.g. one with the day in its name"
    )


def _members(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
