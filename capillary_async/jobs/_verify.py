"""`verify`: prove an export from its files alone, and by reading a sample of it again.

Invariant: everything that the manifest says is recomputed from the bytes on the disk; each difference is
named. Nothing is changed. Called by users and the command line.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from attrs import field, frozen

from capillary_async import AsyncSession, CapillaryError, InvalidRequestError, TLSError
from capillary_async._repr import brief_repr
from capillary_async.jobs._common.digest import MultisetDigest, added, file_digest, plain
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.sources import SOURCES, Dataset
from capillary_async.jobs._dataset.drift import drift_of, is_drift
from capillary_async.jobs._dataset.folder import ExportFolder, is_own_file
from capillary_async.jobs._dataset.formats import Format, format_of
from capillary_async.jobs._dataset.manifest import load_manifest, read_of
from capillary_async.jobs._dataset.state import COUNTERS, State
from capillary_async.jobs._exporting.shard import is_answer
from capillary_async.jobs._exporting.writer import in_thread

__all__ = ["VerifyResult", "verify"]

_FILE = re.compile(r"shards/part-([0-9]{8})\.(?:parquet|jsonl)")
_SHOWN = 3


@frozen(kw_only=True)
class VerifyResult:
    """What the files say.

    Attributes:
        out: The folder.
        faults: Each difference from the manifest, or from the service, as a sentence.
        complete: Whether the export says that no key failed.
        asked, found, empty, failed: Keys: in all, with records, without any, failed.
        records: Records in the files.
        totals: The sum of each quantity.
        keys_digest: Of the keys of all records, whatever their order.
        sampled: Keys that were read again.
        unanswered: Why keys of the sample could not be read again: the service did not answer. Empty where all were.
        read: When the first and the last answer of the export came; None where its manifest does not say.
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

    @property
    def ok(self) -> bool:
        """Whether everything is as the manifest says, and as the service says where it was asked and answered all."""
        return not self.faults and not self.unanswered


async def verify(
    out: str | os.PathLike[str], *, session: AsyncSession | None = None, sample: int = 100, seed: int | None = None
) -> VerifyResult:
    """Recompute counts, totals and hashes of an export and check them against its manifest.

    With a session, a sample of its customers is read again and compared.

    Args:
        out: The folder.
        session: Read a sample with it and compare it record by record; None asks nothing.
        sample: Customers to read again at most.
        seed: The same seed draws the same sample; None draws another one each time.

    Raises:
        JobError: There is no manifest, since the export was not finished, or it is no manifest.
        InvalidRequestError: `sample` is invalid.
        CapillaryError: What concerns every key of the sample, e.g. wrong credentials. A service that does not answer is
            no error and no difference: see `VerifyResult.unanswered`.
    """
    if not isinstance(sample, int) or isinstance(sample, bool) or sample < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequestError(f"sample takes a whole number of at least 1, got {sample!r}", argument="sample")
    stop = threading.Event()
    try:
        proof = await in_thread(Verification.of, ExportFolder(out), stop)
    finally:
        stop.set()  # where it is cancelled, the thread ends at the next piece
    if session is not None:
        await proof.ask(session, sample, random.Random(seed))
    return proof.result()


def _manifest(folder: ExportFolder) -> dict[str, Any]:
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
    """Which members a manifest has, and of which types."""

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


class _Longest:
    """How long the longest list is, how many are as long, and the keys of the first few."""

    def __init__(self) -> None:
        self.length = self.lists = 0
        self.keys: list[Any] = []

    def add(self, length: int, lists: int, keys: Sequence[Any]) -> None:
        """Add lists of one length."""
        if length < self.length:
            return
        if length > self.length:
            self.length, self.lists, self.keys = length, 0, []
        self.lists += lists
        self.keys += keys[: _SHOWN - len(self.keys)]


@frozen(eq=False)
class ShardContents:
    """What one shard holds."""

    rows: int = 0
    found: int = 0
    totals: Mapping[str, Decimal] = field(factory=dict[str, Decimal])
    bag: MultisetDigest = field(factory=MultisetDigest)
    longest: _Longest = field(factory=_Longest)

    __repr__ = brief_repr


class Verification:
    """What was computed, and what differs."""

    def __init__(self, folder: ExportFolder, manifest: dict[str, Any], stop: threading.Event) -> None:
        self.folder, self.manifest = folder, manifest
        self.source: Dataset = SOURCES[manifest["source"]]
        self.format: Format = format_of(manifest["format"], self.source, manifest["query"])
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.unanswered: list[str] = []
        self._stop = stop
        self.seen: list[ShardContents] = []
        self.sampled = 0

    @classmethod
    def of(cls, folder: ExportFolder, stop: threading.Event) -> Verification:
        """Everything that the files alone prove."""
        proof = cls(folder, _manifest(folder), stop)
        state = proof._state()
        try:
            proof._shards(state)
            proof._sums()
            proof._caps()
            proof._failures(state)
            if state is not None:
                proof._known(state)
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            # A database that SQLite finds sound, with values in it that no export wrote.
            proof.faults.append(f"state.sqlite cannot be read: {type(error).__name__}: {error}")
        finally:
            if state is not None:
                state.close()
        return proof

    def _state(self) -> State | None:
        """The database, where it is there and can be read."""
        if not self.folder.state.exists():
            self.notes.append(
                "state.sqlite is not there: the ids that were asked for are not checked, nor whether query, cluster "
                "and counters in manifest.json and the keys in failures.jsonl are those of the export"
            )
            return None
        state: State | None = None
        try:
            state = State.read_only(self.folder.state)
            wrong = state.damage()
            if wrong is None and state.get("source") is None:
                wrong = "it knows of no export"
        except (sqlite3.Error, ValueError) as error:
            wrong = str(error)
        if wrong is not None:
            self.faults.append(f"state.sqlite cannot be read: {wrong}")
            if state is not None:
                state.close()
            return None
        return state

    def _shards(self, state: State | None) -> None:
        named = {entry["file"] for entry in self.manifest["shards"]}
        for path in self.folder.listed():
            if f"shards/{path.name}" not in named:
                self.faults.append(f"shards/{path.name}: the manifest does not name it")
        expected, told = -(-self.manifest["ids"]["asked"] // self.manifest["shard_keys"]), len(self.manifest["shards"])
        if told != expected:
            self.faults.append(f"manifest.json names {told} shards, its ids make {expected}")
        if len(named) != told:
            self.faults.append("manifest.json names a shard twice")
        for entry in self.manifest["shards"]:
            if self._stop.is_set():
                raise JobError("interrupted")
            self.seen.append(self._shard(entry, state))

    def _shard(self, entry: dict[str, Any], state: State | None) -> ShardContents:
        name = _FILE.fullmatch(entry["file"])
        if name is None:
            self.faults.append(f"{entry['file']!r} is no name of a shard")
            return ShardContents()
        path = self.folder.shards / name[0].removeprefix("shards/")
        if path.is_symlink() or (path.exists() and not is_own_file(path)):
            self.faults.append(f"{entry['file']} is a symbolic link or no file, and an export makes neither")
            return ShardContents()
        try:
            size, digest = path.stat().st_size, file_digest(path)
        except OSError as error:
            self.faults.append(f"{entry['file']}: {error.strerror or error}")
            return ShardContents()
        self._same(entry["file"], "bytes", size, entry["bytes"])
        self._same(entry["file"], "sha256", digest, entry["sha256"])
        try:
            for what, (held, said) in self.format.described(path, int(name[1])).items():
                self._same(entry["file"], f"{what} in its metadata", held, said)
            seen = self._rows(path, int(name[1]), entry, state)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
            self.faults.append(f"{entry['file']} cannot be read: {str(error).partition(chr(10))[0]}")
            return ShardContents()
        self._same(entry["file"], "rows", seen.rows, entry["rows"])
        return seen

    def _rows(self, path: Path, number: int, entry: dict[str, Any], state: State | None) -> ShardContents:
        """Read a shard: whose rows, in which order, how much."""
        places = self._places(number, entry, state)
        bag, totals, rows, keys, last = MultisetDigest(), list[Any](), 0, 0, 0
        current: tuple[Any, int] = (None, -1)
        longest = _Longest()
        for batch in self.format.batches(path):
            for asked, shard, row in zip(batch.asked, batch.shards, batch.rows, strict=True):
                rows += 1
                begins = asked != current[0]
                if begins:
                    keys += 1
                    longest.add(current[1] + 1, 1, (current[0],))
                current = (asked, 0 if begins else current[1] + 1)
                place = places.get(asked, 0) if places is not None else last + begins
                if shard != number or row != current[1] or place < last or (begins and place == last):
                    raise ValueError(f"row {rows} (key {asked}) is not where it belongs")
                last = place
            bag.put((asked, *one) for asked, one in zip(batch.asked, batch.identities, strict=True))
            totals.append(batch.totals)
        longest.add(current[1] + 1, 1, (current[0],))
        return ShardContents(rows, keys, added(totals), bag, longest)

    def _places(self, number: int, entry: dict[str, Any], state: State | None) -> dict[Any, int] | None:
        if state is None:
            return None
        first = number * self.manifest["shard_keys"] + 1
        keys = state.keys(first, first + self.manifest["shard_keys"] - 1)
        self._same(entry["file"], "keys", len(keys), entry["keys"])
        return {key: place for place, key in keys.items()}

    def _same(self, where: str, what: str, computed: Any, said: Any) -> None:
        if computed != said:
            self.faults.append(f"{where}: {what} is {computed}, the manifest says {said}")

    # -- all shards together

    @property
    def records(self) -> int:
        """In all shards."""
        return sum(seen.rows for seen in self.seen)

    @property
    def totals(self) -> dict[str, Decimal]:
        """Over all shards."""
        found = added(seen.totals for seen in self.seen)
        return {name: found.get(name, Decimal(0)) for name in {**self.manifest["totals"], **found}}

    @property
    def keys_digest(self) -> str:
        """Over all shards."""
        bag = MultisetDigest()
        for seen in self.seen:
            bag.join(seen.bag)
        return str(bag)

    def _sums(self) -> None:
        said = self.manifest
        self._same("the shards", "the number of records", self.records, said["records"])
        self._same("the shards", "the digest of keys", self.keys_digest, said["keys_digest"])
        for name, total in self.totals.items():
            if total != Decimal(said["totals"].get(name, 0)):
                self._same("the shards", f"the total of {name}", plain(total), said["totals"].get(name))
        ids = said["ids"]
        self._same("the shards", "the number of keys found", sum(seen.found for seen in self.seen), ids["found"])
        self._same("the shards", "found + empty + failed", ids["found"] + ids["empty"] + ids["failed"], ids["asked"])
        keys = sum(entry["keys"] for entry in said["shards"])
        self._same("the shards", "the number of keys asked", keys, ids["asked"])
        self._same("manifest.json", "failures", said["failures"], ids["failed"])
        self._same("manifest.json", "complete", said.get("complete"), ids["failed"] == 0)

    def _caps(self) -> None:
        """Note the lists that a server may have cut: several are as long as the longest, below the page size."""
        size, longest = self.manifest.get("page_size"), _Longest()
        if type(size) is not int:
            return
        for seen in self.seen:
            longest.add(seen.longest.length, seen.longest.lists, seen.longest.keys)
        if 0 < longest.length < size and longest.lists > 1:
            more, plural = longest.lists - len(longest.keys), "records" if longest.length > 1 else "record"
            self.notes.append(
                f"{longest.lists} customers have exactly {longest.length} {plural}, no customer has more, and pages of "
                f"{size} were asked for: the server may have cut their lists there. The export looked behind the first "
                "lists of that length and found nothing. Check one of these customers in another way: "
                f"{', '.join(map(str, longest.keys))}{f' and {more} more' if more else ''}"
            )

    def _failures(self, state: State | None) -> None:
        """The lines of failures.jsonl, one by one where the database says what they should be."""
        known = None if state is None else state.failure_lines()
        number, differing = 0, 0
        if not self.folder.failures.exists() and not self.manifest["ids"]["failed"]:
            return  # it is there where some failed
        try:
            with self.folder.failures.open("rb") as file:
                for number, line in enumerate(file, 1):
                    held: Any = json.loads(line)
                    said = None if known is None else next(known, None)
                    if not isinstance(held, dict) or "key" not in held:
                        raise ValueError(f"line {number} names no key")  # noqa: TRY301 - told with those of the reader
                    if known is not None and held != said:
                        differing += 1
                        if differing <= _SHOWN:
                            self.faults.append(_differing(number, cast("dict[str, Any]", held), said))
        except (OSError, ValueError, RecursionError) as error:
            self.faults.append(f"failures.jsonl cannot be read: {error}")
            return
        if differing > _SHOWN:
            self.faults.append(f"failures.jsonl: {differing - _SHOWN} more lines are not what state.sqlite says")
        self._same("failures.jsonl", "the number of lines", number, self.manifest["ids"]["failed"])

    def _known(self, state: State) -> None:
        """What the database says, member by member."""
        said, known = self.manifest, state.summary()
        self._same("state.sqlite", "the digest of ids", state.ids_digest(), said["ids"]["digest"])
        members = (
            "schema_version",
            "source",
            "query",
            "format",
            "shard_keys",
            "cluster",
            "server_timezone",
            "page_size",
            "read",
            "started",
            "finished",
        )
        for name in members:
            self._same("state.sqlite", name, state.get(name), said.get(name))
        self._same(
            "state.sqlite", "consistency", "verified" if state.get("verify") else "fast", said.get("consistency")
        )
        for name in ("records", "totals", "keys_digest", "failures", *COUNTERS):
            self._same("state.sqlite", name, known[name], said.get(name))
        self._same("state.sqlite", "drift", known["drift"], drift_of(said))
        for name, value in known["ids"].items():
            self._same("state.sqlite", f"ids.{name}", value, said["ids"].get(name))
        shards = {shard["file"]: shard for shard in known["shards"]}
        if list(shards) != [entry["file"] for entry in said["shards"]]:
            self.faults.append(f"state.sqlite knows {len(shards)} shards, and not those that the manifest names")
        for entry in said["shards"]:
            for name, value in shards.get(entry["file"], {}).items():
                self._same(f"state.sqlite, {entry['file']}", name, value, entry[name])

    # -- the service

    async def ask(self, session: AsyncSession, sample: int, dice: random.Random) -> None:
        """Read some customers again, and compare them record by record."""
        try:
            await self._ask(session, sample, dice)
        except CapillaryError as error:
            if not _is_answer(error):
                self.unanswered.append(f"the sample could not be read again: {error}")
            elif self.faults:
                self.faults.append(f"the sample could not be read again: {error}")  # what was found stays
            else:
                raise

    async def _ask(self, session: AsyncSession, sample: int, dice: random.Random) -> None:
        reading = self.source.reading(
            session, self.manifest["query"], verify=self.manifest.get("consistency") == "verified"
        )
        drawn = await in_thread(self._drawn, sample, dice)
        held = await in_thread(self._held, drawn)
        outcomes = reading.outcomes(list(drawn))
        try:
            async for outcome in outcomes:
                if outcome.error is not None and not _is_answer(outcome.error):
                    self.unanswered.append(f"key {outcome.key} could not be read again: {outcome.error}")
                    continue
                self.sampled += 1
                self._compare(outcome.key, held.get(outcome.key, []), outcome)
        finally:
            await outcomes.aclose()

    def _drawn(self, sample: int, dice: random.Random) -> dict[Any, int]:
        """Some keys that were answered, each with its shard."""
        if not self.folder.state.exists():
            raise JobError(f"{self.folder.path} has no state.sqlite, so that there are no ids to draw a sample from")
        try:
            state = State.read_only(self.folder.state)
            try:
                asked, failed, drawn = state.get("asked"), state.failed_places(), dict[Any, int]()
                places = dice.sample(range(1, asked + 1), min(asked, sample + len(failed)))
                for place in sorted([place for place in places if place not in failed][:sample]):
                    (key,) = state.keys(place, place).values()
                    drawn[key] = (place - 1) // state.get("shard_keys")
            finally:
                state.close()
        except (sqlite3.Error, ValueError, TypeError, ArithmeticError) as error:
            raise JobError(f"no sample can be drawn: state.sqlite cannot be read: {error}") from None
        return drawn

    def _held(self, drawn: dict[Any, int]) -> dict[Any, list[Mapping[str, Any]]]:
        """Their rows in the files. A key whose shard cannot be read is not asked."""
        held: dict[Any, list[Mapping[str, Any]]] = {}
        for number in sorted(set(drawn.values())):
            keys = {key for key, shard in drawn.items() if shard == number}
            path = self.folder.shard(number, self.format.ending)
            try:
                rows = list(self.format.records(path, keys))
            except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
                text = str(error).partition("\n")[0]
                self.faults.append(
                    f"shards/{path.name} cannot be read: {text}; {len(keys)} keys of the sample were not read again"
                )
                for key in keys:
                    del drawn[key]
                continue
            for key, row in rows:
                held.setdefault(key, []).append(row)
        return held

    def _compare(self, key: Any, held: Sequence[Mapping[str, Any]], outcome: Any) -> None:
        if outcome.error is not None:
            self.faults.append(f"key {key}: the service refuses it now: {outcome.error}")
            return
        try:
            now = self.format.plain(key, outcome.items) if outcome.items else []
        except CapillaryError as error:
            self.faults.append(str(error))
            return
        if sorted(map(repr, now)) == sorted(map(repr, held)):
            return
        text = f"key {key}: the files hold {len(held)} records, the service has {len(now)}"
        before, after = ({repr(self._identity(row)): row for row in rows} for rows in (held, now))
        parts = {
            "gone": [one for one in before if one not in after],
            "new": [one for one in after if one not in before],
            "changed": [one for one in after if one in before and repr(after[one]) != repr(before[one])],
        }
        told = ", ".join(f"{word}: {_some(ones)}" for word, ones in parts.items() if ones)
        self.faults.append(f"{text} ({told or 'some come more than once'}); it may have changed since the export")

    def _identity(self, row: Mapping[str, Any]) -> Any:
        parts = tuple(row[name] for name in self.source.key)
        return parts[0] if len(parts) == 1 else parts

    def result(self) -> VerifyResult:
        """All of it."""
        ids = self.manifest["ids"]
        return VerifyResult(
            out=self.folder.path,
            faults=tuple(self.faults),
            complete=bool(self.manifest.get("complete")),
            asked=ids["asked"],
            found=sum(seen.found for seen in self.seen),
            empty=ids["empty"],
            failed=ids["failed"],
            records=self.records,
            totals=self.totals,
            keys_digest=self.keys_digest,
            sampled=self.sampled,
            notes=tuple(self.notes),
            unanswered=tuple(self.unanswered),
            read=read_of(self.manifest.get("read")),
            drift=drift_of(self.manifest),
        )


def _is_answer(error: CapillaryError) -> bool:
    """Whether the service answered; what concerns all calls, as wrong credentials do, is an answer too."""
    return is_answer(error) or isinstance(error, TLSError)


def _differing(number: int, held: dict[str, Any], said: dict[str, Any] | None) -> str:
    if said is None:
        return f"failures.jsonl: line {number}: state.sqlite knows of no failure of key {held['key']!r:.80}"
    names = [name for name in {**said, **held} if held.get(name) != said.get(name)] or ["the line"]
    parts = (f"{name} is {held.get(name)!r:.80}, state.sqlite says {said.get(name)!r:.80}" for name in names)
    return f"failures.jsonl: line {number}: {'; '.join(parts)}"


def _some(ones: list[str]) -> str:
    return ", ".join(ones[:_SHOWN]) + (f" and {len(ones) - _SHOWN} more" if len(ones) > _SHOWN else "")
