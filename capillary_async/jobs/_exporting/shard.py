"""A shard in work: outcomes come in any order, rows are written in the order of the ids.

Invariant: a key's rows are in the file whole or not at all; what has to wait for an earlier key waits in memory up to a
bound and on the disk beyond it; a shard is done when its bytes are on the disk under its name. Used by
`_exporting/reading.py` in the event loop and by `_exporting/writer.py` in a thread.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from capillary_async import CapillaryError, InvalidRequestError
from capillary_async.jobs._common.digest import MultisetDigest, added, file_digest
from capillary_async.jobs._common.errors import UnfitError
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._common.pyarrow_import import pa
from capillary_async.jobs._dataset.drift import DriftCount
from capillary_async.jobs._dataset.state import ASKED_ENOUGH, Failure, Shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from capillary_async.jobs._archive.pack import Body
    from capillary_async.jobs._common.sources import Dataset
    from capillary_async.jobs._dataset.folder import ExportFolder
    from capillary_async.jobs._dataset.shard_format import Format, ShardFile

__all__ = ["BufferBudget", "KeyRows", "ShardTask", "ShardWriter", "failure_of"]

WAITING = 20_000  # records that may wait for an earlier key in memory, over all shards
_LONGEST = 1_000  # characters of a message that are kept


class KeyRows(NamedTuple):
    """A key whose rows are next."""

    place: int
    key: Any
    items: Sequence[Any]
    new: Sequence[tuple[str, int, str]] = ()  # members that no page documents


class Spilled(NamedTuple):
    """The place of buffered rows on the disk."""

    offset: int
    length: int


class BufferBudget:
    """The number of records buffered in memory, over all shards."""

    def __init__(self) -> None:
        self.records = 0


def failure_of(place: int, error: CapillaryError, round_: int) -> Failure:
    """The stored form of an error."""
    text = str(error)
    return Failure(
        place=place,
        error=type(error).__name__,
        message=text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...",
        request_id=getattr(error, "request_id", None),
        attempts=error.attempts,
        final=isinstance(error, InvalidRequestError | UnfitError),
        transient=error.lacks_answer,
        round=ASKED_ENOUGH if error.is_definitive else round_,
    )


class ShardTask:
    """The keys of one shard to read, and their rows so far. Used in the event loop.

    Args:
        number: Of the shard.
        first: The place of its first key, asked or not.
        keys: The keys to ask, by place, in order.
        round_: 0 for the first reading, else which of the later rounds.

    Attributes:
        not_found: Keys so far whose list, or one of them, was answered with 404 and taken for empty.
        body_bytes: Of the bodies that were added since `take_bodies`.
    """

    def __init__(
        self, number: int, first: int, keys: dict[int, Any], *, round_: int, waiting: BufferBudget, folder: Path
    ) -> None:
        self.number = number
        self.first = first
        self.keys = keys
        self.round = round_
        self.left = len(keys)
        self.not_found = 0
        self.failures: dict[int, Failure] = {}
        self.body_bytes = 0
        self._bodies: dict[int, Body] = {}
        self._order = iter(keys.items())
        self._next: tuple[int, Any] | None = next(self._order, None)
        self._buffered: dict[int, Any] = {}
        self._new: dict[int, Sequence[tuple[str, int, str]]] = {}
        self._ready: list[KeyRows] = []
        self._records = 0
        self._waiting = waiting
        self._folder = folder
        self._spill: IO[bytes] | None = None

    def complete_key(self, place: int, items: Sequence[Any], new: Sequence[tuple[str, int, str]] = ()) -> None:
        """Add the records of a key; none if it failed.

        Args:
            place: Of the key.
            items: Its records.
            new: Their members that no page documents; see `members_of`.
        """
        self.left -= 1
        if new:
            self._new[place] = new
        if place != self._due:
            self._hold(place, items)
            return
        self._put(items)
        while self._due in self._buffered:
            self._put(self._released(self._due))

    @property
    def _due(self) -> int:
        """The place of the key whose rows come next; 0 behind the last."""
        return 0 if self._next is None else self._next[0]

    def _put(self, items: Sequence[Any]) -> None:
        if self._next is not None and items:
            self._ready.append(KeyRows(*self._next, items, self._new.pop(self._next[0], ())))
            self._records += len(items)
        self._next = next(self._order, None)

    def _hold(self, place: int, items: Sequence[Any]) -> None:
        if not items:
            self._buffered[place] = ()
        elif self._waiting.records + len(items) <= WAITING:
            self._waiting.records += len(items)
            self._buffered[place] = items
        else:
            self._buffered[place] = self._spill_rows(pickle.dumps(items, protocol=pickle.HIGHEST_PROTOCOL))

    def _spill_rows(self, data: bytes) -> Spilled:
        if self._spill is None:
            # Nameless, so that nothing of it is left however this ends.
            self._spill = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the shard
        offset = self._spill.seek(0, os.SEEK_END)
        self._spill.write(data)
        return Spilled(offset, len(data))

    def _released(self, place: int) -> Sequence[Any]:
        rows = self._buffered.pop(place)
        if isinstance(rows, Spilled) and self._spill is not None:
            self._spill.seek(rows.offset)
            return cast("Sequence[Any]", pickle.loads(self._spill.read(rows.length)))  # noqa: S301 - our nameless file
        self._waiting.records -= len(rows)
        return cast("Sequence[Any]", rows)

    @property
    def records(self) -> int:
        """How many records are ready to be written."""
        return self._records

    def take(self) -> list[KeyRows]:
        """Take the rows that are ready to be written."""
        ready, self._ready, self._records = self._ready, [], 0
        return ready

    def add_bodies(self, bodies: Sequence[Body]) -> None:
        """Add the answers of a key for the archive; one of several keys that was added lately is not added again."""
        for body in bodies:
            if id(body) not in self._bodies:
                self._bodies[id(body)] = body
                self.body_bytes += len(body.body)

    def take_bodies(self) -> list[Body]:
        """Take the answers that are ready to be written."""
        bodies, self._bodies, self.body_bytes = list(self._bodies.values()), {}, 0
        return bodies

    def close(self) -> None:
        """Release its buffered rows."""
        self._waiting.records -= sum(len(rows) for rows in self._buffered.values() if not isinstance(rows, Spilled))
        self._buffered.clear()
        if self._spill is not None:
            self._spill.close()
            self._spill = None


class ShardWriter:
    """The file of a shard, from its first row to its name. Used in a thread.

    Args:
        base: What is there already, where later rounds add the rows of keys that failed before.
        places: The place of every key of the shard.
    """

    def __init__(
        self,
        folder: ExportFolder,
        format_: Format,
        source: Dataset,
        number: int,
        *,
        base: Shard | None,
        places: dict[Any, int],
    ) -> None:
        self.path = folder.shard(number, format_.ending)
        self._folder, self._format, self._source, self._number = folder, format_, source, number
        self._base, self._places = base, places
        self._file: IO[bytes] = folder.open_part(self.path)
        self._shard: ShardFile = format_.open(self._file, number)
        self._old: Iterator[tuple[Any, Any]] = iter(()) if base is None else format_.pieces(self.path)
        self._next_old = next(self._old, None)
        self._rows = self._found = 0
        self._totals: list[Mapping[str, Decimal]] = []
        self._bag = MultisetDigest()
        self._drift = DriftCount(None if base is None else base.drift)

    def add(self, entries: list[KeyRows]) -> list[tuple[int, UnfitError]]:
        """Write keys in order; gives those whose rows do not fit, of which nothing is written."""
        try:
            chunk = self._format.chunk(self._number, [(entry.key, entry.items) for entry in entries])
        except (pa.ArrowException, OverflowError, UnfitError):
            refused: list[tuple[int, UnfitError]] = []
            for entry in entries:
                try:
                    self._write([entry], self._format.chunk(self._number, [(entry.key, entry.items)]))
                except UnfitError as error:
                    refused.append((entry.place, error))
            return refused
        if self._base is None:
            self._write(entries, chunk)
        else:
            for entry in entries:
                self._write([entry], self._format.chunk(self._number, [(entry.key, entry.items)]))
        reached("shard-half-written")
        return []

    def _write(self, entries: list[KeyRows], chunk: Any) -> None:
        if self._base is not None:
            self._copy_before(entries[0].place)
        self._shard.add(chunk)
        keys = [(entry.key, entry.items) for entry in entries]
        sums = self._format.sums(chunk, keys)
        self._rows += len(sums.keys)
        self._found += len(entries)
        self._totals.append(sums.totals)
        self._bag.put_texts(sums.keys)
        self._drift.add_records(self._source.name, keys, self._source.identity)
        for entry in entries:
            for name, count, example in entry.new:
                self._drift.add("members", name, count, example)

    def _copy_before(self, place: int | None) -> None:
        """Copy what is there already of keys before that place; all the rest for None."""
        while self._next_old is not None:
            key, chunk = self._next_old
            if place is not None and self._places[key] > place:
                return
            self._shard.add(chunk)
            self._next_old = next(self._old, None)

    @property
    def grew(self) -> bool:
        """Whether any row was written."""
        return self._found > 0

    def seal(self, keys: int) -> Shard:
        """Make the bytes durable, and say what they are; the file has no name yet."""
        self._copy_before(None)
        self._shard.close()
        self._file.flush()
        reached("shard-written")
        os.fsync(self._file.fileno())
        reached("shard-synced")
        self._file.close()
        part = self._folder.part(self.path)
        sha256 = file_digest(part)
        reached("shard-hashed")
        base = self._base or Shard(self._number, "", 0, 0, 0)
        self._bag.join(MultisetDigest(base.digest))
        return Shard(
            number=self._number,
            file=self.path.name,
            rows=base.rows + self._rows,
            keys=keys,
            found=base.found + self._found,
            sha256=sha256,
            bytes=part.stat().st_size,
            totals=added((base.totals, *self._totals)),
            digest=self._bag.value,
            drift=self._drift.as_json(),
        )

    def drop(self) -> None:
        """Remove the unfinished file."""
        self._shard.abandon()
        with contextlib.suppress(OSError):  # where the disk is full, closing fails too
            self._file.close()
        self._folder.part(self.path).unlink(missing_ok=True)
