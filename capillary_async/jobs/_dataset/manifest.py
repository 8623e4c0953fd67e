"""The manifest of an export: one class, by which `manifest.json` is written and read.

Invariant: a file is not trusted: each member that is used is checked first, and an error names the file and the member.
Written by `ExportRun` in `_export.py`; read by `_verifying/verification.py` and `_comparing/export_reader.py`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self, cast

import attrs
from attrs import field, frozen

from capillary_async import __version__
from capillary_async.jobs._common.digest import MultisetDigest, added, plain
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.sources import SOURCES
from capillary_async.jobs._dataset.drift import DriftCount, is_drift
from capillary_async.jobs._dataset.id_shard import IdShard
from capillary_async.jobs._dataset.members import (
    WrongMemberError,
    amount,
    an_object,
    as_class,
    by,
    count,
    dict_of,
    list_of,
    one_that,
    shown,
    text,
)
from capillary_async.jobs._dataset.state import SCHEMA_VERSION, SCHEMA_VERSIONS, Shard, State

__all__ = ["IdCounts", "Manifest", "ShardEntry", "read_of", "refuse_shards_elsewhere", "refuse_unowned"]

_ENDINGS = {"parquet": ".parquet", "jsonl": ".jsonl"}
_IF_KNOWN = frozenset({"server_timezone", "page_size", "not_found", "shard"})  # not written where they are None


# -- the members, in the order of the file

_COUNT = by(count(0, (1 << 53) - 1))
_TEXT = by(text())


@frozen(kw_only=True)
class ShardEntry:
    """A shard in the manifest: its file below the folder, what it holds and its bytes."""

    file: str = field(metadata=by(text("a file within shards/, once")))
    rows: int = field(default=0, metadata=_COUNT)
    keys: int = field(default=0, metadata=_COUNT)
    sha256: str = field(default="", metadata=_TEXT)
    bytes: int = field(default=0, metadata=_COUNT)


@frozen(kw_only=True)
class IdCounts:
    """The ids that were asked for: how many, what came of them, and their digest.

    Attributes:
        not_found: Keys whose list was answered with 404 and taken for empty; None where a 404 is an error.
    """

    asked: int = field(metadata=_COUNT)
    found: int = field(default=0, metadata=_COUNT)
    empty: int = field(default=0, metadata=_COUNT)
    failed: int = field(default=0, metadata=_COUNT)
    not_found: int | None = field(default=None, metadata=_COUNT)
    digest: str | None = field(default=None, metadata=_TEXT)


@frozen(kw_only=True)
class Manifest:
    """What an export says of itself. Members typed `Any` are only compared or shown, so that any value is read."""

    schema_version: int = SCHEMA_VERSION
    sdk_version: Any = None
    source: str = field(metadata=by(one_that(lambda each: each in list(SOURCES), f"not one of {', '.join(SOURCES)}")))
    query: dict[str, Any] = field(metadata=by(an_object))
    format: str = field(
        metadata=by(one_that(lambda each: each in list(_ENDINGS), f"and must be {' or '.join(_ENDINGS)}"))
    )
    shard_keys: int = field(default=1, metadata=by(count(1, (1 << 31) - 1)))
    cluster: Any = None
    server_timezone: Any = None
    page_size: Any = None
    consistency: Any = None
    shard: IdShard | None = field(default=None, metadata=by(as_class(IdShard)))
    ids: IdCounts = field(metadata=by(as_class(IdCounts)))
    records: int = field(metadata=_COUNT)
    requests: Any = None
    retries: Any = None
    throttles: Any = None
    duplicates: Any = None
    conflicts: Any = None
    warnings: Any = None
    totals: dict[str, str] = field(metadata=by(dict_of(amount)))
    keys_digest: str | None = field(default=None, metadata=_TEXT)
    drift: dict[str, Any] = field(
        factory=dict[str, Any],
        metadata=by(one_that(is_drift, "and must be counts by kind and name, each with an example")),
    )
    shards: tuple[ShardEntry, ...] = field(metadata=by(list_of(as_class(ShardEntry))))
    failures: Any = None
    read: Any = None
    started: Any = None
    finished: Any = None
    complete: bool = field(metadata=by(one_that(lambda each: isinstance(each, bool), "and must be true or false")))

    @classmethod
    def of(cls, state: State) -> Self:
        """The manifest of a database: a function of it alone, so that the same bytes can be written again."""
        shards, failed, get = state.done().values(), state.failed(), state.get
        found = sum(shard.found for shard in shards)
        keys, drift = MultisetDigest(), DriftCount()
        for shard in shards:
            keys.join(MultisetDigest(shard.digest))
            drift.join(shard.drift)
        return cls(
            schema_version=get("schema_version"),
            sdk_version=get("sdk_version", __version__),
            **{name: get(name) for name in ("source", "query", "format", "shard_keys", "cluster")},
            **{name: get(name) for name in ("server_timezone", "page_size", "read", "started", "finished")},
            consistency="verified" if get("verify") else "fast",
            shard=None if get("id_shard") is None else IdShard(**get("id_shard")),
            ids=IdCounts(
                asked=get("asked", 0),
                found=found,
                empty=sum(shard.keys for shard in shards) - found - failed,
                failed=failed,
                not_found=state.not_found(),
                digest=get("ids_digest"),
            ),
            records=sum(shard.rows for shard in shards),
            **cast("dict[str, Any]", state.counters()),
            totals={name: plain(total) for name, total in added(shard.totals for shard in shards).items()},
            keys_digest=str(keys),
            drift=drift.as_json(),
            shards=tuple(map(_entry, shards)),
            failures=failed,
            complete=failed == 0,
        )

    def encode(self) -> bytes:
        """The bytes of the file."""
        members = attrs.asdict(self, filter=lambda each, value: value is not None or each.name not in _IF_KNOWN)
        return json.dumps(members, indent=2, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            FileNotFoundError: It is not there.
            JobError: It cannot be read, another release wrote it, or a member is missing or wrong.
        """
        try:
            return as_class(cls)(_loaded(path), "")
        except WrongMemberError as error:
            raise _no_manifest(path, error) from None


def _entry(shard: Shard) -> ShardEntry:
    return ShardEntry(
        file=f"shards/{shard.file}", rows=shard.rows, keys=shard.keys, sha256=shard.sha256, bytes=shard.bytes
    )


def read_of(member: Any) -> tuple[datetime, datetime] | None:
    """When the first and the last answer of an export came, of the member `read`; None where it does not say."""
    members = _members(member)
    try:
        first, last = (datetime.fromisoformat(str(members[name])) for name in ("first", "last"))
    except (KeyError, ValueError):
        return None
    return None if first.tzinfo is None or last.tzinfo is None else (first.astimezone(UTC), last.astimezone(UTC))


# -- the file


def refuse_unowned(path: Path) -> None:
    """Check that a manifest that is there may be replaced: this release or a power cut made it what it is.

    Raises:
        JobError: Another release wrote it, or something that is no export.
    """
    if path.is_symlink():
        raise JobError(
            f"{path} is a symbolic link, and an export follows none in its folder: remove it, or export into another "
            "folder",
            path=str(path),
        )
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):  # none, or damaged: it is written again
        return
    version = _members(found).get("schema_version")
    if found == {} or _is_known(version):
        return
    whose = f"has schema version {shown(version)}" if version is not None else "is no manifest of an export"
    raise JobError(
        f"{path} {whose}, and this release writes {SCHEMA_VERSION}; it is left as it is: go on with the release that "
        "wrote it, or export into another folder",
        path=str(path),
    )


def refuse_shards_elsewhere(manifest: Manifest, path: Path) -> None:
    """Check that each shard is a file straight within `shards/`, with the ending of the format, named once.

    Raises:
        JobError: One is not. The message names it and `path`, the file of the manifest.
    """
    wrong = _shard_elsewhere([shard.file for shard in manifest.shards], _ENDINGS[manifest.format])
    if wrong is not None:
        raise _no_manifest(path, wrong)


def _shard_elsewhere(files: list[str], ending: str) -> WrongMemberError | None:
    for nth, file in enumerate(files):
        if not _is_in_shards(file, ending):
            return WrongMemberError(f"shards[{nth}].file", file, "and must be a file within shards/, once")
    if len(set(files)) == len(files):
        return None
    twice = next(file for file in files if files.count(file) > 1)
    return WrongMemberError("shards", twice, "and must be a list that names each file once")


def _is_in_shards(file: str, ending: str) -> bool:
    path = PurePosixPath(file)
    plain_name = path.name != ".." and path.suffix == ending and not {"\\", "\0"} & set(file)
    return plain_name and path.parts[:-1] == ("shards",)


def _loaded(path: Path) -> dict[str, Any]:
    """The members of a file of this release."""
    if path.exists() and not path.is_file():
        raise JobError(f"{path} is no file, and no manifest of an export", path=str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise JobError(f"{path} cannot be read: {error}", path=str(path)) from error
    if not isinstance(found, dict):
        raise JobError(f"{path} is no manifest of an export", path=str(path))
    members = _members(found)
    version = members.get("schema_version")
    if not _is_known(version):
        raise JobError(
            f"{path} has schema version {version!r}, and this release reads {' and '.join(map(str, SCHEMA_VERSIONS))}: "
            "read it with the release that wrote it, or export again",
            path=str(path),
        )
    return members


def _is_known(version: Any) -> bool:
    return type(version) is int and version in SCHEMA_VERSIONS


def _no_manifest(path: Path, error: WrongMemberError) -> JobError:
    return JobError(
        f"{path} is no manifest of an export: members are missing or wrong, the first at `$.{error.member}`: "
        f"{error.reason}. Take the file from a backup, or start the export again: it writes the manifest again",
        path=str(path),
    )


def _members(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")
