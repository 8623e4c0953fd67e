"""The types that the members of a manifest must have for `verify`.

Invariant: a member of another type raises an error that names it. Called by `_verifying/verification.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.drift import is_drift
from capillary_async.jobs._dataset.manifest import load_manifest

if TYPE_CHECKING:
    from capillary_async.jobs._dataset.folder import ExportFolder

__all__ = ["typed_manifest"]


_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class _ManifestShard(msgspec.Struct):
    file: str
    rows: _Count
    keys: _Count
    sha256: str
    bytes: _Count


class _ManifestIds(msgspec.Struct):
    asked: _Count
    found: _Count
    empty: _Count
    failed: _Count
    digest: str


class _Manifest(msgspec.Struct):
    """The members of a manifest."""

    source: Literal["allocations", "awarded", "events", "ledger"]
    query: dict[str, Any]
    format: Literal["parquet", "jsonl"]
    shard_keys: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
    ids: _ManifestIds
    records: _Count
    totals: dict[str, Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?$")]]
    keys_digest: str
    shards: list[_ManifestShard]
    failures: _Count


def typed_manifest(folder: ExportFolder) -> dict[str, Any]:
    """Read the manifest of a folder.

    Raises:
        JobError: There is none, or a member is missing or of another type.
    """
    try:
        members = load_manifest(folder.manifest)
    except FileNotFoundError:
        raise JobError(
            f"{folder.path} has no manifest.json: no export is there, or it was not finished: start it again"
        ) from None
    try:
        msgspec.convert(members, _Manifest)
    except msgspec.ValidationError as error:
        raise JobError(
            f"{folder.manifest} is no manifest of an export: members are missing or are not what they should be: "
            f"{error}. Start the export again: it rewrites the manifest"
        ) from None
    if not is_drift(members.get("drift")):
        raise JobError(
            f"{folder.manifest} is no manifest of an export: drift is not counts by kind and name. Start the export "
            "again: it writes the manifest again"
        )
    return members
