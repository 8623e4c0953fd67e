"""The export that is published: verified from its files, with what identifies it and what is sent of it.

Invariant: only a complete export whose files are what its manifest says is published. Called by `_publish.py`.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.folder import ExportFolder
from capillary_async.jobs._dataset.manifest import Manifest, read_of
from capillary_async.jobs._verifying.verification import Verification

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

__all__ = ["FinishedExport", "Piece", "finished_export", "label_of"]

_SHOWN = 3  # faults in a message


@frozen(kw_only=True)
class Piece:
    """A file to send.

    Attributes:
        path: The file on this disk.
        name: Its name in the store, below the URL.
        bytes: Its size.
        sha256: Its SHA-256, in hex.
        rows: Its records.
    """

    path: Path
    name: str
    bytes: int
    sha256: str
    rows: int


@frozen(kw_only=True)
class FinishedExport:
    """A complete export.

    Attributes:
        path: The folder.
        manifest: Its manifest.
        encoded: The bytes of the manifest.
        digest: The SHA-256 of these bytes, which name the SHA-256 of each shard: it identifies the export.
    """

    path: Path
    manifest: Manifest
    encoded: bytes
    digest: str

    @property
    def label(self) -> str:
        """The export for a person: folder, kind, time of reading and digest."""
        return f"{self.path} ({label_of(json.loads(self.encoded), self.digest)})"

    @property
    def read(self) -> datetime:
        """When its last answer came, or, without customers, when it finished."""
        span = read_of(self.manifest.read)
        if span is not None:
            return span[1]
        try:
            finished = datetime.fromisoformat(str(self.manifest.finished))
        except ValueError:
            return datetime.fromtimestamp(0, UTC)
        return finished.astimezone(UTC) if finished.tzinfo else finished.replace(tzinfo=UTC)

    def pieces(self, below: str) -> list[Piece]:
        """Its shards, named below a folder of the store, `shards` for a copy of the export."""
        return [
            Piece(
                path=self.path.absolute() / each.file,
                name=f"{below}/{each.file.removeprefix('shards/')}",
                bytes=each.bytes,
                sha256=each.sha256,
                rows=each.rows,
            )
            for each in self.manifest.shards
        ]


def label_of(members: Mapping[str, Any], digest: str) -> str:
    """The export of a manifest for a person."""
    span = read_of(members.get("read"))
    when = f", read {span[1]:%Y-%m-%d %H:%M} UTC" if span else ""
    source, records = (str(members.get(name))[:20] for name in ("source", "records"))  # of any file of that name
    return f"{source}, {records} records{when}, manifest SHA-256 {digest[:16]}"


def finished_export(path: Path, stop: threading.Event) -> FinishedExport:
    """Verify an export from its files.

    Raises:
        JobError: It is not finished, customers failed, or a file is not what the manifest says.
    """
    folder = ExportFolder(path)
    if not path.is_dir():
        raise JobError(f"{path} is no folder: give the folder of an export (capillary-async export)", path=str(path))
    encoded = _encoded(folder)
    verification = Verification.of(folder, stop)
    manifest, faults = verification.manifest, verification.findings.faults
    if not manifest.complete or manifest.ids.failed:
        number = manifest.ids.failed
        raise JobError(
            f"{path} is not complete: {number:,} customer{'s' if number != 1 else ''} failed, see failures.jsonl; run "
            "the same export command again, it retries them, and publish then",
            path=str(path),
        )
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise JobError(
            f"{path} is damaged, nothing was sent: {'; '.join(faults[:_SHOWN])}{more}. Run the same export command "
            "again, with --paranoid: it repairs what it can; then publish",
            path=str(path),
        )
    if encoded != _encoded(folder):
        raise JobError(f"{path} changed while it was verified: publish it when its export has ended", path=str(path))
    return FinishedExport(path=path, manifest=manifest, encoded=encoded, digest=hashlib.sha256(encoded).hexdigest())


def _encoded(folder: ExportFolder) -> bytes:
    try:
        return folder.manifest.read_bytes()
    except FileNotFoundError:
        raise JobError(
            f"{folder.path} has no manifest.json: the export has not finished. Run the same export command again, with "
            "the same --out: it goes on where it stopped",
            path=str(folder.path),
        ) from None
    except OSError as error:
        raise JobError(f"{folder.manifest} cannot be read: {error.strerror or error}", path=str(folder.path)) from None
