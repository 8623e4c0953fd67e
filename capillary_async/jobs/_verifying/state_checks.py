"""The checks against the database of an export, `state.sqlite`, and the lines of `failures.jsonl`.

Invariant: nothing is written, and a database that cannot be read is a fault. Called by `_verifying/verification.py`.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any, cast

from attrs import asdict, fields

from capillary_async.jobs._dataset.folder import is_own_file
from capillary_async.jobs._dataset.manifest import Manifest
from capillary_async.jobs._dataset.state import State
from capillary_async.jobs._verifying.findings import SHOWN

if TYPE_CHECKING:
    from capillary_async.jobs._dataset.folder import ExportFolder
    from capillary_async.jobs._verifying.findings import Findings

__all__ = ["check_failures", "check_members", "open_state"]

# Members that the database has, but for those of ids and shards, which are compared one by one.
_FACTS = tuple(each.name for each in fields(Manifest) if each.name not in {"sdk_version", "ids", "shards", "complete"})


def open_state(folder: ExportFolder, findings: Findings) -> State | None:
    """Open the database; None, with a note or a fault, if it is missing or cannot be read."""
    if not folder.state.exists():
        findings.notes.append(
            "state.sqlite is not there: the ids that were asked for are not checked, nor whether query, cluster "
            "and counters in manifest.json and the keys in failures.jsonl are those of the export"
        )
        return None
    if not is_own_file(folder.state):
        findings.faults.append("state.sqlite is a symbolic link or no file, and an export makes neither")
        return None
    state: State | None = None
    try:
        state = State.read_only(folder.state)
        wrong = state.damage()
        if wrong is None and state.get("source") is None:
            wrong = "it knows of no export"
    except (sqlite3.Error, ValueError) as error:
        wrong = str(error)
    if wrong is not None:
        findings.faults.append(f"state.sqlite cannot be read: {wrong}")
        if state is not None:
            state.close()
        return None
    return state


def check_failures(folder: ExportFolder, manifest: Manifest, state: State | None, findings: Findings) -> None:
    """Count the lines of `failures.jsonl`, and compare each with the database if it is there."""
    expected = None if state is None else state.failure_lines()
    failed = manifest.ids.failed
    number = differing = 0
    if not folder.failures.exists() and not failed:
        return  # an export without failures has no such file
    if folder.failures.exists() and not is_own_file(folder.failures):
        findings.faults.append("failures.jsonl is a symbolic link or no file, and an export makes neither")
        return
    try:
        with folder.failures.open("rb") as file:
            for number, line in enumerate(file, 1):
                found = _failure(number, line)
                said = None if expected is None else next(expected, None)
                if expected is not None and found != said:
                    differing += 1
                    if differing <= SHOWN:
                        findings.faults.append(_difference(number, found, said))
    except (OSError, ValueError, RecursionError) as error:
        findings.faults.append(f"failures.jsonl cannot be read: {error}")
        return
    if differing > SHOWN:
        findings.faults.append(f"failures.jsonl: {differing - SHOWN} more lines are not what state.sqlite says")
    findings.compare("failures.jsonl", "the number of lines", number, failed)


def _failure(number: int, line: bytes) -> dict[str, Any]:
    """The members of a line."""
    found: Any = json.loads(line)
    if not isinstance(found, dict) or "key" not in found:
        raise ValueError(f"line {number} names no key")
    return cast("dict[str, Any]", found)


def _difference(number: int, found: dict[str, Any], said: dict[str, Any] | None) -> str:
    if said is None:
        return f"failures.jsonl: line {number}: state.sqlite knows of no failure of key {found['key']!r:.80}"
    names = [name for name in {**said, **found} if found.get(name) != said.get(name)] or ["the line"]
    parts = (f"{name} is {found.get(name)!r:.80}, state.sqlite says {said.get(name)!r:.80}" for name in names)
    return f"failures.jsonl: line {number}: {'; '.join(parts)}"


def check_members(manifest: Manifest, state: State, findings: Findings) -> None:
    """Compare each member of the manifest with the database."""
    known, compare = Manifest.of(state), findings.compare
    compare("state.sqlite", "the digest of ids", state.ids_digest(), manifest.ids.digest)
    for name in _FACTS:
        compare("state.sqlite", name, getattr(known, name), getattr(manifest, name))
    for name, value in asdict(known.ids).items():
        compare("state.sqlite", f"ids.{name}", value, getattr(manifest.ids, name))
    shards = {shard.file: shard for shard in known.shards}
    if list(shards) != [entry.file for entry in manifest.shards]:
        findings.faults.append(f"state.sqlite knows {len(shards)} shards, and not those that the manifest names")
    for entry in manifest.shards:
        for name, value in asdict(shards.get(entry.file, entry)).items():
            compare(f"state.sqlite, {entry.file}", name, value, getattr(entry, name))
