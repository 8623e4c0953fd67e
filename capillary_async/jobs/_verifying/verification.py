"""The checks of an export's files: each shard, and all of them together, against the manifest.

Invariant: everything that the manifest says is recomputed from the bytes on the disk. Called by `_verify.py`.
"""

from __future__ import annotations

import re
import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from capillary_async.jobs._common.digest import MultisetDigest, added, file_digest, plain
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.sources import SOURCES, Dataset
from capillary_async.jobs._dataset.folder import ExportFolder, is_own_file
from capillary_async.jobs._dataset.formats import format_of
from capillary_async.jobs._dataset.manifest import Manifest, ShardEntry
from capillary_async.jobs._dataset.shard_format import Format
from capillary_async.jobs._verifying.findings import Findings
from capillary_async.jobs._verifying.shard_contents import LongestLists, ShardContents, read_shard
from capillary_async.jobs._verifying.state_checks import check_failures, check_members, open_state

if TYPE_CHECKING:
    import threading

    from capillary_async.jobs._dataset.state import State

__all__ = ["Verification"]

_FILE = re.compile(r"shards/part-([0-9]{8})\.(?:parquet|jsonl)")


class Verification:
    """The verification of one folder.

    Attributes:
        folder: The folder.
        manifest: Its manifest.
        source: The kind of export.
        format: The format of its shards.
        findings: What was found so far.
        shards: The contents of each shard.

    Raises:
        JobError: The folder has no manifest of a finished export.
    """

    def __init__(self, folder: ExportFolder) -> None:
        self.folder = folder
        self.manifest = _manifest_of(folder)
        self.source: Dataset = SOURCES[self.manifest.source]
        version = self.manifest.schema_version
        self.format: Format = format_of(self.manifest.format, self.source, self.manifest.query, version)
        self.findings = Findings()
        self.shards: list[ShardContents] = []

    @classmethod
    def of(cls, folder: ExportFolder, stop: threading.Event) -> Verification:
        """Check the files; a set `stop` ends it before the next shard.

        Raises:
            JobError: The folder has no manifest of a finished export, or `stop` was set.
        """
        verification = cls(folder)
        state = open_state(folder, verification.findings)
        try:
            verification._check(state, stop)
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            # A database that SQLite finds sound, with values in it that no export wrote.
            verification.findings.faults.append(f"state.sqlite cannot be read: {type(error).__name__}: {error}")
        finally:
            if state is not None:
                state.close()
        return verification

    def _check(self, state: State | None, stop: threading.Event) -> None:
        self._check_names()
        for entry in self.manifest.shards:
            if stop.is_set():
                raise JobError("interrupted")
            self.shards.append(self._shard(entry, state))
        self._check_sums()
        self._check_counts()
        self._note_caps()
        check_failures(self.folder, self.manifest, state, self.findings)
        if state is not None:
            check_members(self.manifest, state, self.findings)

    def _check_names(self) -> None:
        """Check that the files are those that the manifest names, and as many as its ids make."""
        entries = self.manifest.shards
        named = {entry.file for entry in entries}
        if self.folder.shards.is_symlink():
            self.findings.faults.append("shards is a symbolic link, and an export makes none")
        for path in self.folder.listed():
            if f"shards/{path.name}" not in named:
                self.findings.faults.append(f"shards/{path.name}: the manifest does not name it")
        expected = -(-self.manifest.ids.asked // self.manifest.shard_keys)
        if len(entries) != expected:
            self.findings.faults.append(f"manifest.json names {len(entries)} shards, its ids make {expected}")
        if len(named) != len(entries):
            self.findings.faults.append("manifest.json names a shard twice")

    # -- one shard

    def _shard(self, entry: ShardEntry, state: State | None) -> ShardContents:
        """Check the file of a shard; what it contains, nothing if it cannot be read."""
        file, faults = entry.file, self.findings.faults
        name = _FILE.fullmatch(file)
        if name is None:
            faults.append(f"{file!r} is no name of a shard")
            return ShardContents()
        path = self.folder.shards / name[0].removeprefix("shards/")
        if path.is_symlink() or (path.exists() and not is_own_file(path)):
            faults.append(f"{file} is a symbolic link or no file, and an export makes neither")
            return ShardContents()
        try:
            size, digest = path.stat().st_size, file_digest(path)
        except OSError as error:
            faults.append(f"{file}: {error.strerror or error}")
            return ShardContents()
        self.findings.compare(file, "bytes", size, entry.bytes)
        self.findings.compare(file, "sha256", digest, entry.sha256)
        try:
            for each, (found, said) in self.format.described(path, int(name[1])).items():
                self.findings.compare(file, f"{each} in its metadata", found, said)
            contents = read_shard(self.format, path, int(name[1]), self._places(int(name[1]), entry, state))
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
            faults.append(f"{file} cannot be read: {str(error).partition(chr(10))[0]}")
            return ShardContents()
        self.findings.compare(file, "rows", contents.rows, entry.rows)
        return contents

    def _places(self, number: int, entry: ShardEntry, state: State | None) -> dict[Any, int] | None:
        """Each key of a shard with its place among the ids; None without the database."""
        if state is None:
            return None
        first = number * self.manifest.shard_keys + 1
        keys = state.keys(first, first + self.manifest.shard_keys - 1)
        self.findings.compare(entry.file, "keys", len(keys), entry.keys)
        shard = self.manifest.shard
        if shard is not None and (others := [key for key in keys.values() if not shard.has(key)]):
            text = f"{entry.file}: {len(others):,} keys do not belong to {shard}, the first is {others[0]!r:.80}"
            self.findings.faults.append(text)
        return {key: place for place, key in keys.items()}

    # -- all shards together

    @property
    def records(self) -> int:
        """Records in all shards."""
        return sum(contents.rows for contents in self.shards)

    @property
    def found(self) -> int:
        """Keys with records in all shards."""
        return sum(contents.found for contents in self.shards)

    @property
    def totals(self) -> dict[str, Decimal]:
        """The sum of each quantity over all shards."""
        found = added(contents.totals for contents in self.shards)
        return {name: found.get(name, Decimal(0)) for name in {**self.manifest.totals, **found}}

    @property
    def keys_digest(self) -> str:
        """The digest of the keys of all records."""
        digest = MultisetDigest()
        for contents in self.shards:
            digest.join(contents.digest)
        return str(digest)

    def _check_sums(self) -> None:
        said, compare = self.manifest, self.findings.compare
        compare("the shards", "the number of records", self.records, said.records)
        compare("the shards", "the digest of keys", self.keys_digest, said.keys_digest)
        for name, total in self.totals.items():
            if total != Decimal(said.totals.get(name, 0)):
                compare("the shards", f"the total of {name}", plain(total), said.totals.get(name))

    def _check_counts(self) -> None:
        said, ids, compare = self.manifest, self.manifest.ids, self.findings.compare
        compare("the shards", "the number of keys found", self.found, ids.found)
        compare("the shards", "found + empty + failed", ids.found + ids.empty + ids.failed, ids.asked)
        keys = sum(entry.keys for entry in said.shards)
        compare("the shards", "the number of keys asked", keys, ids.asked)
        compare("manifest.json", "failures", said.failures, ids.failed)
        compare("manifest.json", "complete", said.complete, ids.failed == 0)

    def _note_caps(self) -> None:
        """Note the lists that a server may have cut: several are as long as the longest, below the page size."""
        size, longest = self.manifest.page_size, LongestLists()
        if type(size) is not int:
            return
        for contents in self.shards:
            longest.join(contents.longest)
        if 0 < longest.length < size and longest.lists > 1:
            more, records = longest.lists - len(longest.keys), "records" if longest.length > 1 else "record"
            self.findings.notes.append(
                f"{longest.lists} customers have exactly {longest.length} {records}, no customer has more, and pages "
                f"of {size} were asked for: the server may have cut their lists there. The export asked for a "
                "page after the first lists of that length and found none. Check one of these customers in another "
                "way: "
                f"{', '.join(map(str, longest.keys))}{f' and {more} more' if more else ''}"
            )


def _manifest_of(folder: ExportFolder) -> Manifest:
    try:
        return Manifest.load(folder.manifest)
    except FileNotFoundError:
        raise JobError(
            f"{folder.path} has no manifest.json: no export is there, or it was not finished: start it again"
        ) from None
