"""The manifest of an export, read strictly.

Invariant: what stands in the file is not trusted. Every member that is used is looked at first, and whatever is wrong
is told with the file and the member. Used by `_comparing/export_reader.py` and `_verifying/`.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.drift import is_drift
from capillary_async.jobs._dataset.state import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["load_manifest", "read_manifest", "read_of", "refuse_foreign"]

_AMOUNT = re.compile(r"-?\d+(\.\d+)?(E[+-]?\d{1,4})?")
_ENDINGS = {"parquet": ".parquet", "jsonl": ".jsonl"}


def load_manifest(path: Path) -> dict[str, Any]:
    """The members of a manifest of this release, whatever they are.

    Raises:
        FileNotFoundError: It is not there.
        JobError: It cannot be read, or another release wrote it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise JobError(f"{path} cannot be read: {error}", path=str(path)) from error
    members = _members(found)
    if members is None:
        raise JobError(f"{path} is no manifest of an export", path=str(path))
    version = members.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise JobError(
            f"{path} has schema version {version!r}, and this release reads {SCHEMA_VERSION}: read it with the release "
            "that wrote it, or export again",
            path=str(path),
        )
    return members


def refuse_foreign(path: Path) -> None:
    """See that a manifest that is there may be replaced: this release or a power cut made it what it is.

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
    if found == {} or (_members(found) or {}).get("schema_version") == SCHEMA_VERSION:
        return
    version = (_members(found) or {}).get("schema_version")
    whose = f"has schema version {_shown(version)}" if version is not None else "is no manifest of an export"
    raise JobError(
        f"{path} {whose}, and this release writes {SCHEMA_VERSION}; it is left as it is: go on with the release that "
        "wrote it, or export into another folder",
        path=str(path),
    )


def read_of(member: Any) -> tuple[datetime, datetime] | None:
    """When the first and the last answer of an export came, of the member `read`; None where it does not say."""
    members = _members(member) or {}
    try:
        first, last = (datetime.fromisoformat(str(members[name])) for name in ("first", "last"))
    except (KeyError, ValueError):
        return None
    return None if first.tzinfo is None or last.tzinfo is None else (first.astimezone(UTC), last.astimezone(UTC))


def read_manifest(path: Path, sources: Iterable[str]) -> dict[str, Any]:
    """The members of a manifest, every one of the type it must have.

    Args:
        path: The file.
        sources: What may have been exported.

    Raises:
        FileNotFoundError: It is not there.
        JobError: It cannot be read, another release wrote it, or a member is not what it must be.
    """
    members = load_manifest(path)
    known = tuple(sources)
    if members.get("source") not in known:
        raise JobError(f"{path}: source is {members.get('source')!r}, not one of {', '.join(known)}", path=str(path))
    for member, value, allowed, expected in _checks(members):
        if not allowed(value):
            raise JobError(
                f"{path}: {member} is {_shown(value)}, and must be {expected}. The file was changed or is damaged: "
                "take it from a backup, or export again",
                path=str(path),
            )
    return members


def _checks(members: Mapping[str, Any]) -> Iterable[tuple[str, Any, Callable[[Any], bool], str]]:
    """Each member with its value, whether it may be that, and what it must be."""
    yield "format", members.get("format"), lambda each: each in _ENDINGS, " or ".join(_ENDINGS)
    yield "records", members.get("records"), _is_count, "a whole number from 0 on"
    yield "complete", members.get("complete"), lambda each: isinstance(each, bool), "true or false"
    for member in ("query", "ids", "totals"):
        yield member, members.get(member), lambda each: isinstance(each, dict), "an object"
    counts = _members(members.get("ids")) or {}
    for member in ("asked", "found", "empty", "failed", "not_found"):
        yield f"ids.{member}", counts.get(member, 0), _is_count, "a whole number from 0 on"
    yield from _digests(members, counts)
    for column, total in (_members(members.get("totals")) or {}).items():
        yield f"totals.{column}", total, _is_amount, "a decimal number as text"
    yield "drift", members.get("drift"), is_drift, "counts by kind and name, each with an example"
    shards = members.get("shards")
    yield "shards", shards, lambda each: isinstance(each, list), "a list"
    listed = cast("list[Any]", shards)
    for nth, shard in enumerate(listed):
        yield f"shards[{nth}]", shard, lambda each: isinstance(each, dict), "an object"
        yield f"shards[{nth}].file", shard.get("file"), _is_file(members["format"]), "a file within shards/, once"
    files = [shard["file"] for shard in listed]
    twice = next((file for file in files if files.count(file) > 1), None) if len(set(files)) < len(files) else None
    yield "shards", twice, lambda each: each is None, "a list that names each file once"


def _digests(
    members: Mapping[str, Any], ids: Mapping[str, Any]
) -> Iterable[tuple[str, Any, Callable[[Any], bool], str]]:
    for member, value in zip(
        ("ids.digest", "keys_digest"), (ids.get("digest"), members.get("keys_digest")), strict=True
    ):
        yield member, value, lambda each: each is None or isinstance(each, str), "text"


def _members(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_amount(value: Any) -> bool:
    return isinstance(value, str) and _AMOUNT.fullmatch(value) is not None


def _is_file(format_: str) -> Callable[[Any], bool]:
    """Whether it names a shard: straight within `shards/`, with the ending of the format."""

    def is_file(value: Any) -> bool:
        if not isinstance(value, str) or "\\" in value or "\0" in value:
            return False
        path = PurePosixPath(value)
        return path.parts[:-1] == ("shards",) and path.name != ".." and path.suffix == _ENDINGS[format_]

    return is_file


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's worth
