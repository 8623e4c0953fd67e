"""`publish`: a finished export in an object store, or as a Delta table.

Invariant: whoever reads the URL finds the whole export or what was there before; nothing of another export is replaced
by a copy. Called by users and the command line.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from attrs import evolve

from capillary_async import InvalidRequestError
from capillary_async._files.threads import in_thread
from capillary_async.jobs._dataset.folder import local_path
from capillary_async.jobs._dataset.id_shard import expanded
from capillary_async.jobs._publishing.address import Destination, destination_of
from capillary_async.jobs._publishing.copy import publish_copy
from capillary_async.jobs._publishing.delta import DeltaTable
from capillary_async.jobs._publishing.finished import FinishedExport, finished_export
from capillary_async.jobs._publishing.result import PublishResult
from capillary_async.jobs._publishing.sending import PublishProgress, Sent
from capillary_async.jobs._publishing.store import Store
from capillary_async.jobs._publishing.together import ExportsTogether

__all__ = ["publish"]

PathLike = str | os.PathLike[str]

_READ_BACK = "size and SHA-256 of each file that was sent or resumed, of the bytes that the store gave back"
_SIZES = "the manifest's bytes, and the size of each file"
_LOG = "the log of the table has the export"
_PLAIN = re.compile(r"[A-Za-z0-9@:/._=-]*")


async def publish(
    folder: PathLike | Sequence[PathLike],
    url: str,
    table: Literal["delta"] | None = None,
    *,
    endpoint: str | None = None,
    on_progress: Callable[[PublishProgress], None] | None = None,
) -> PublishResult:
    """Send a complete, verified export to an object store, as a copy or as a Delta table.

    The export is verified first, as `verify` does. Each file is read back from the store and compared by size and
    SHA-256, since not every store has a checksum of its own. Publishing again continues: what is there with the right
    bytes is not sent again. A copy gets its manifest last; a Delta table changes by one commit, to the rows of this
    export. Of two processes that publish different exports at one URL, at most one goes on.

    Args:
        folder: The folder of the export; for a Delta table also several, the parts of one export, which become one
            commit, or one that has the folders of all shards (`shard-1-of-4`, ...).
        url: Where: `s3://bucket/folder`, `gs://bucket/folder`, `abfss://container@account.dfs.core.windows.net/folder`
            or `file:///folder`. Credentials come from the environment and the chain of the cloud (`AWS_*`,
            `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_*`), never from the URL.
        table: `delta` for a Delta table (extra `publish`); None for a copy of the export.
        endpoint: The URL of an S3-compatible server; None for `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, else AWS.
        on_progress: Called in another thread with a `PublishProgress` after each file.

    Raises:
        InvalidRequestError: `url`, `table`, `endpoint` or `folder` is invalid.
        JobError: The export is incomplete or damaged, another export is at the URL or is being published there, the
            table has another schema or other rows, shards are missing, or the store refuses. The message says what to
            do.
    """
    began = time.monotonic()
    folders = _folders(folder, table)
    if table not in (None, "delta"):
        raise InvalidRequestError(f"table takes 'delta' or None, got {table!r:.100}", argument="table")
    destination = destination_of(url, endpoint)
    _refuse_inside(destination, [*folders, *_parts(folders)], table)
    stop = threading.Event()
    try:
        result = await in_thread(partial(_publish, folders, destination, table, stop, on_progress))
    finally:
        stop.set()  # if this call is cancelled, the thread ends before the next file
    return evolve(result, elapsed=time.monotonic() - began)


def _folders(given: PathLike | Sequence[PathLike], table: str | None) -> tuple[Path, ...]:
    try:
        several = (given,) if isinstance(given, str | os.PathLike) else tuple(given)
    except TypeError:
        several = ()
    if not several:
        raise InvalidRequestError("folder takes the folder of an export, got none", argument="folder")
    paths = [local_path(each, "folder") for each in several]
    if table is None and len(_parts(paths)) > 1:
        raise InvalidRequestError(
            "folder takes one export for a copy, got several: publish each at its own URL, or all as one Delta table",
            argument="folder",
        )
    return tuple(paths)


def _parts(folders: Sequence[Path]) -> list[Path]:
    """The folders of exports, with those of shards in place of a folder that has them."""
    try:
        return expanded(folders)
    except OSError:
        return list(folders)  # reading the export names the cause


def _refuse_inside(destination: Destination, folders: Sequence[Path], table: str | None) -> None:
    """Check that the target is not in an export, whose files it would be among."""
    target = Path(os.path.realpath(destination.root))
    for folder in folders if destination.scheme == "file" else ():
        source = Path(os.path.realpath(folder))
        if source in target.parents or (table is not None and source == target):
            raise InvalidRequestError(
                f"url takes a folder outside the export; {destination} is in {folder}", argument="url"
            )


def _publish(
    folders: tuple[Path, ...],
    destination: Destination,
    table: str | None,
    stop: threading.Event,
    on_progress: Callable[[PublishProgress], None] | None,
) -> PublishResult:
    exports = tuple(finished_export(folder, stop) for folder in _parts(folders))
    if table is None:
        sent = publish_copy(Store(destination), exports[0], stop, on_progress)
        return _result(exports, destination, sent, exports[0].digest)
    together = ExportsTogether(exports)
    together.refuse_unfit()
    delta = DeltaTable(Store(destination), together)
    sent = delta.publish(stop, on_progress)
    result = _result(exports, destination, sent, together.digest)
    there = delta.was_there
    return evolve(
        result,
        table=table,
        version=delta.version,
        already_there=there,
        checked=_LOG if there else f"{_READ_BACK}; {_LOG}",
        notes=_notes(destination, delta),
    )


def _result(exports: tuple[FinishedExport, ...], destination: Destination, sent: Sent, digest: str) -> PublishResult:
    return PublishResult(
        folders=tuple(export.path for export in exports),
        url=str(destination),
        table=None,
        digest=digest,
        records=sum(export.manifest.records for export in exports),
        files=sent.files,
        sent=sent.sent,
        bytes_sent=sent.bytes_sent,
        already_there=sent.sent == 0,
        version=None,
        checked=_READ_BACK if sent.sent else _SIZES,
        notes=(),
        elapsed=0,
    )


def _notes(destination: Destination, delta: DeltaTable) -> tuple[str, ...]:
    notes: list[str] = []
    if delta.replaced is not None:
        notes.append(f"the rows of version {delta.replaced} were replaced; that version keeps them until VACUUM")
    if delta.is_replaced:
        notes.append("the table has a newer export now; this one is in an earlier version of it")
    if not _PLAIN.fullmatch(str(destination)):
        notes.append(
            "the URL has blanks or letters beyond ASCII, which some readers of Delta tables (Polars) do not find"
        )
    return tuple(notes)
