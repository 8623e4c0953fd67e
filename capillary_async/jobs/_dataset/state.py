"""The database of an export, in SQLite: the ids, the shards that are done, the keys that failed, the counters.

Invariant: every change is one transaction that survives a power cut; a file that the tables do not name does not
count. Called from one thread at a time. Used by the export and by `verify`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from capillary_async.jobs._common.digest import MultisetDigest, plain
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._common.ledger import LedgerKey

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["ASKED_ENOUGH", "COUNTERS", "SCHEMA_VERSION", "SCHEMA_VERSIONS", "Failure", "Pack", "Shard", "State"]

SCHEMA_VERSION = 2  # of a new folder: files, columns, tables
SCHEMA_VERSIONS = (1, SCHEMA_VERSION)  # those that are read, and continued as they were begun
ASKED_ENOUGH = (1 << 30) - 1  # a round beyond any: retried by the next run alone
_OURS = {"meta", "keys", "events", "shards", "failures"}
COUNTERS = ("requests", "retries", "throttles", "duplicates", "conflicts", "warnings")
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE keys (place INTEGER PRIMARY KEY, key NOT NULL UNIQUE);
CREATE TABLE events (place INTEGER NOT NULL, event TEXT NOT NULL, UNIQUE (place, event));
CREATE TABLE shards (
  number INTEGER PRIMARY KEY, file TEXT NOT NULL, rows INTEGER NOT NULL, keys INTEGER NOT NULL, found INTEGER NOT NULL,
  sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, totals TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE failures (
  place INTEGER PRIMARY KEY, error TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT, attempts INTEGER NOT NULL,
  final INTEGER NOT NULL, transient INTEGER NOT NULL, round INTEGER NOT NULL);
"""
# By shard, where there is any; databases of before it was counted get it.
_DRIFT = "CREATE TABLE IF NOT EXISTS drift (number INTEGER PRIMARY KEY, counts TEXT NOT NULL)"
_PACKS = (
    "CREATE TABLE IF NOT EXISTS packs (file TEXT PRIMARY KEY, number INTEGER NOT NULL, sha256 TEXT NOT NULL, "
    "bytes INTEGER NOT NULL, bodies INTEGER NOT NULL)"
)
_NOT_FOUND = "CREATE TABLE IF NOT EXISTS not_found (number INTEGER PRIMARY KEY, keys INTEGER NOT NULL)"


@frozen
class Failure:
    """Why a key has no rows.

    Attributes:
        attempts: Requests sent for it that failed: of one round when it is committed, of all rounds and runs when read.
        final: Whether a retry is useless, since nothing was sent or the answer does not fit.
        transient: Whether the service may answer another time.
        round: The last round in which it was asked; 0 for the first reading, `ASKED_ENOUGH` where no round of this run
            asks for it again.
    """

    place: int
    error: str
    message: str
    request_id: str | None
    attempts: int
    final: bool
    transient: bool
    round: int = 0


@frozen
class Shard:
    """A shard that is done.

    Attributes:
        keys: How many keys it was asked for.
        found: How many of them have rows.
        totals: The exact sum of each quantity.
        digest: Of the keys of its records.
        drift: What was new in its records; see `_dataset/drift.py`.
    """

    number: int
    file: str
    rows: int
    keys: int
    found: int
    sha256: str = ""
    bytes: int = 0
    totals: Mapping[str, Decimal] = field(factory=dict[str, Decimal])
    digest: int = 0
    drift: Mapping[str, Any] = field(factory=dict[str, Any])


@frozen
class Pack:
    """A file of an archive: the bodies whose rows are in one shard.

    Attributes:
        number: Of the shard.
        bodies: How many there are.
    """

    number: int
    file: str
    sha256: str
    bytes: int
    bodies: int


class State:
    """The database of one folder.

    Raises:
        JobError: The file is another schema version's.
        sqlite3.Error: It cannot be used.
    """

    def __init__(self, path: Path) -> None:
        # The job calls from one thread of its own, which is not the one that opens and closes.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._refuse_unowned(path)  # before anything of the file is changed
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA temp_store=FILE")
            self._db.execute("PRAGMA cache_size=-16000")  # KiB
            with self._transaction():
                if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                    for statement in _TABLES.split(";"):
                        self._db.execute(statement)
                    self._set(schema_version=SCHEMA_VERSION)
            self._check_version(path)
            self._db.execute(_DRIFT)
            self._db.execute(_NOT_FOUND)
            self._db.execute(_PACKS)
        except BaseException:
            self._db.close()
            raise

    def _refuse_unowned(self, path: Path) -> None:
        """A database that has tables, and not ours, is another application's."""
        there = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if there and not there >= _OURS:
            raise JobError(
                f"{path} is no database of an export: it holds the tables {', '.join(sorted(there)):.200}. Nothing of "
                "it was changed: export into another folder",
                path=str(path),
            )

    def _check_version(self, path: Path) -> None:
        version = self.get("schema_version")
        if version not in SCHEMA_VERSIONS:
            raise JobError(
                f"{path.parent} was made with schema version {version}, this release writes {SCHEMA_VERSION}: go on "
                "with the release that made it, or export into another folder"
            )

    @classmethod
    def read_only(cls, path: Path) -> State:
        """Open an existing database for reading only."""
        state = object.__new__(cls)
        state._db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            state.get("source")
        except BaseException:
            state.close()
            raise
        return state

    def close(self) -> None:
        """Close it; SQLite removes its files beside it."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- facts by name

    def get(self, name: str, otherwise: Any = None) -> Any:
        """A fact by its name; `otherwise` if it is not known."""
        found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return otherwise if found is None else json.loads(found[0])

    def put(self, **facts: Any) -> None:
        """Store facts by name."""
        with self._transaction():
            self._set(**facts)

    def _set(self, **facts: Any) -> None:
        rows = [(name, json.dumps(value, sort_keys=True)) for name, value in facts.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    # -- the ids

    def forget_ids(self) -> None:
        """Drop the ids that an interrupted reading of the input left."""
        with self._transaction():
            self._db.execute("DELETE FROM keys")
            self._db.execute("DELETE FROM events")

    def add_ids(self, ids: Sequence[Any], table: str = "", *, pairs: bool = False) -> None:
        """Add ids in their order; a repeated one is skipped."""
        with self._transaction():
            if not pairs:
                self._db.executemany(f"INSERT OR IGNORE INTO {table}keys (key) VALUES (?)", ((key,) for key in ids))
                return
            for key, events in ids:
                self._db.execute(f"INSERT OR IGNORE INTO {table}keys (key) VALUES (?)", (key,))
                (place,) = self._db.execute(f"SELECT place FROM {table}keys WHERE key = ?", (key,)).fetchone()
                rows = [(place, event) for event in events]
                self._db.executemany(f"INSERT OR IGNORE INTO {table}events VALUES (?, ?)", rows)

    def count_ids(self) -> int:
        """The number of ids so far."""
        return self._count("keys")

    def finish_ids(self) -> None:
        """Record that all ids are added: their number and digest."""
        reached("ids-half-spooled")
        self.put(asked=self._count("keys"), ids_digest=self.ids_digest())
        reached("ids-spooled")

    def _count(self, table: str) -> int:
        (count,) = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)

    def ids_digest(self) -> str:
        """The SHA-256 of all ids in their order."""
        digest = hashlib.sha256()
        for key in self._lines(""):
            digest.update(key.encode())
        return digest.hexdigest()

    def _lines(self, table: str) -> Generator[str]:
        """The ids in their order, each with its type and its events: `i600000001`."""
        with_events = self._db.execute(f"SELECT 1 FROM {table}events LIMIT 1").fetchone()
        for place, key in self._db.execute(f"SELECT place, key FROM {table}keys ORDER BY place"):
            events = self._events(place, table) if with_events else ()
            yield "\x1f".join((f"{'i' if isinstance(key, int) else 't'}{key}", *events)) + "\n"

    def _events(self, place: int, table: str = "") -> list[str]:
        query = f"SELECT event FROM {table}events WHERE place = ? ORDER BY rowid"
        return [event for (event,) in self._db.execute(query, (place,))]

    def begin_compare(self) -> None:
        """Make tables for another input, to compare it."""
        self._db.execute("CREATE TEMP TABLE other_keys (place INTEGER PRIMARY KEY, key NOT NULL UNIQUE)")
        self._db.execute(
            "CREATE TEMP TABLE other_events (place INTEGER NOT NULL, event TEXT NOT NULL, UNIQUE (place, event))"
        )

    def first_difference(self) -> int | None:
        """The first place at which the other input differs from the ids that are here; None where it is the same."""
        mine, other = self._lines(""), self._lines("other_")
        place = 0
        difference = None
        while difference is None:
            place += 1
            one, two = next(mine, None), next(other, None)
            if one != two:
                difference = place
            elif one is None:
                break
        for lines in (mine, other):
            lines.close()
        self._db.execute("DROP TABLE other_keys")
        self._db.execute("DROP TABLE other_events")
        return difference

    def keys(self, first: int, last: int) -> dict[int, Any]:
        """The ids at these places, both included, in order."""
        query = "SELECT place, key FROM keys WHERE place BETWEEN ? AND ? ORDER BY place"
        return self._with_events(self._db.execute(query, (first, last)).fetchall())

    def _with_events(self, found: list[tuple[int, Any]]) -> dict[int, Any]:
        if self.get("source") != "ledger":
            return dict(found)
        return {place: LedgerKey(key, self._events(place)) for place, key in found}

    # -- shards and failures

    def done(self) -> dict[int, Shard]:
        """The shards that are done, by number."""
        query = "SELECT number, file, rows, keys, found, sha256, bytes, totals, digest FROM shards ORDER BY number"
        drift = self._drift()
        shards = (_shard(row, drift) for row in self._db.execute(query))
        return {shard.number: shard for shard in shards}

    def _drift(self) -> dict[int, Any]:
        """What was new, by shard."""
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'drift'").fetchone():
            return {}  # looked at alone, and made before it was counted
        return {number: json.loads(text) for number, text in self._db.execute("SELECT number, counts FROM drift")}

    def withdraw(self, number: int) -> None:
        """Mark a shard as not done, whatever file there is."""
        with self._transaction():
            self._db.execute("DELETE FROM shards WHERE number = ?", (number,))
            self._db.execute("DELETE FROM drift WHERE number = ?", (number,))

    def commit(
        self, shard: Shard | None, asked: tuple[int, int] | list[int], failures: Iterable[Failure],
        counters: Mapping[str, int], read: tuple[str, str] | None = None, *, not_found: int = 0,
        pack: Pack | None = None,
    ) -> None:  # fmt: skip
        """Mark a shard as done: its row, its failures and the counters, in one transaction.

        Args:
            shard: None where no key of it was recovered, so that its file stays as it is.
            asked: The places that were asked: all from first to last, or a list.
            failures: Which of them failed.
            counters: What was counted since the last commit.
            read: When the first and the last answer since the last commit came.
            not_found: Keys among those asked whose list was answered with 404 and taken for empty.
            pack: The bodies of the rows that were added, where there is an archive.
        """
        with self._transaction():
            self._put_pack(shard, pack, whole=isinstance(asked, tuple))
            if shard is not None:
                totals = json.dumps({name: plain(value) for name, value in shard.totals.items()})
                row = (shard.number, shard.file, shard.rows, shard.keys, shard.found, shard.sha256, shard.bytes)
                self._db.execute(
                    "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, totals, str(MultisetDigest(shard.digest))),
                )
                if shard.drift:
                    self._db.execute("INSERT INTO drift VALUES (?, ?)", (shard.number, json.dumps(shard.drift)))
            rows = [
                (one.place, one.error, one.message, one.request_id, self._attempts(one.place) + one.attempts, one.final,
                 one.transient, one.round)
                for one in failures
            ]  # fmt: skip
            self._count_not_found(shard, asked, not_found)
            if isinstance(asked, tuple):
                self._db.execute("DELETE FROM failures WHERE place BETWEEN ? AND ?", asked)
            else:
                self._db.executemany("DELETE FROM failures WHERE place = ?", ((place,) for place in asked))
            reached("shard-half-committed")
            self._db.executemany("INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            known = self.counters()
            self._set(counters={name: known[name] + counters.get(name, 0) for name in COUNTERS})
            if read is not None:
                before: dict[str, str] = self.get("read") or {}
                self._set(read={"first": before.get("first", read[0]), "last": read[1]})
        reached("shard-committed")

    def _put_pack(self, shard: Shard | None, pack: Pack | None, *, whole: bool) -> None:
        """Store a pack; where the whole shard was read, those of before count no more."""
        if whole and shard is not None:
            self._db.execute("DELETE FROM packs WHERE number = ?", (shard.number,))
        if pack is not None:
            row = (pack.file, pack.number, pack.sha256, pack.bytes, pack.bodies)
            self._db.execute("INSERT INTO packs VALUES (?, ?, ?, ?, ?)", row)

    def packs(self, number: int | None = None) -> list[Pack]:
        """The packs of the shards that are done, or of one of them, in the order in which they were written."""
        query = "SELECT number, file, sha256, bytes, bodies FROM packs WHERE number IN (SELECT number FROM shards)"
        query += " AND number = ?" if number is not None else ""
        rows = self._db.execute(f"{query} ORDER BY rowid", () if number is None else (number,))
        return [Pack(*row) for row in rows]

    def place_of(self, key: Any) -> int | None:
        """The place of a key."""
        found = self._db.execute("SELECT place FROM keys WHERE key = ?", (key,)).fetchone()
        return None if found is None else int(found[0])

    def has_failed(self, place: int) -> bool:
        """Whether the key at a place failed."""
        return self._db.execute("SELECT 1 FROM failures WHERE place = ?", (place,)).fetchone() is not None

    def ids(self) -> Iterator[Any]:
        """All ids in their order; of a ledger pairs of an identifier and its events."""
        pairs = self.get("source") == "ledger"
        for place, key in self._db.execute("SELECT place, key FROM keys ORDER BY place"):
            yield (key, self._events(place)) if pairs else key

    def take_outcome(self, other: State) -> None:
        """Take the failures, counters and times of another export over."""
        rows = other._db.execute("SELECT * FROM failures").fetchall()
        with self._transaction():
            self._db.execute("DELETE FROM failures")
            self._db.executemany("INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            names = ("counters", "read", "started", "finished", "sdk_version", "id_shard")
            facts = {name: other.get(name) for name in names}
            self._set(**{name: value for name, value in facts.items() if value is not None})

    def _count_not_found(self, shard: Shard | None, asked: tuple[int, int] | list[int], count: int) -> None:
        """Set the count of a whole shard; add that of keys that were retried."""
        if isinstance(asked, tuple) and shard is not None:
            self._db.execute("INSERT OR REPLACE INTO not_found VALUES (?, ?)", (shard.number, count))
        elif isinstance(asked, list) and count:
            number = (asked[0] - 1) // self.get("shard_keys")
            self._db.execute("INSERT OR IGNORE INTO not_found VALUES (?, 0)", (number,))
            self._db.execute("UPDATE not_found SET keys = keys + ? WHERE number = ?", (count, number))

    def not_found(self) -> int | None:
        """Keys whose list was answered with 404 and taken for empty; None where a 404 is an error."""
        asked: dict[str, Any] = self.get("query") or {}
        if asked.get("not_found") != "empty":
            return None
        query = "SELECT coalesce(sum(keys), 0) FROM not_found WHERE number IN (SELECT number FROM shards)"
        (count,) = self._db.execute(query).fetchone()
        return int(count)

    def counters(self) -> dict[str, int]:
        """The counters over all runs."""
        known: dict[str, int] = self.get("counters", {})
        return dict.fromkeys(COUNTERS, 0) | known

    def _attempts(self, place: int) -> int:
        """The attempts of the rounds and runs before, for a key that failed in them."""
        found = self._db.execute("SELECT attempts FROM failures WHERE place = ?", (place,)).fetchone()
        return 0 if found is None else int(found[0])

    def failed_places(self) -> set[int]:
        """The places of the keys that failed."""
        return {place for (place,) in self._db.execute("SELECT place FROM failures")}

    def failed(self) -> int:
        """How many keys failed, of the shards that are done: all keys of a withdrawn shard are read again."""
        query = "SELECT count(*) FROM failures WHERE (place - 1) / ? IN (SELECT number FROM shards)"
        (count,) = self._db.execute(query, (self.get("shard_keys", 1),)).fetchone()
        return int(count)

    def failures(self) -> Iterator[tuple[Any, Failure]]:
        """The failures with their keys, in the order of the ids."""
        query = (
            "SELECT key, failures.place, error, message, request_id, attempts, final, transient, round "
            "FROM failures JOIN keys ON keys.place = failures.place ORDER BY failures.place"
        )
        for key, place, error, message, request_id, attempts, final, transient, round_ in self._db.execute(query):
            failure = Failure(place, error, message, request_id, attempts, bool(final), bool(transient), round_)
            yield key, failure

    def failure_lines(self) -> Iterator[dict[str, Any]]:
        """The lines of `failures.jsonl`."""
        shard_keys = self.get("shard_keys")
        for key, one in self.failures():
            yield {
                "key": key,
                "error": one.error,
                "message": one.message,
                "request_id": one.request_id,
                "attempts": one.attempts,
                "shard": (one.place - 1) // shard_keys,
            }

    def to_ask_again(self, round_: int, first: int, last: int) -> dict[int, Any]:
        """The keys between two places that failed and were not asked in this round yet."""
        query = (
            "SELECT keys.place, key FROM failures JOIN keys ON keys.place = failures.place "
            "WHERE NOT final AND round < ? AND keys.place BETWEEN ? AND ? ORDER BY keys.place"
        )
        return self._with_events(self._db.execute(query, (round_, first, last)).fetchall())

    def open_failures(self, round_: int) -> tuple[list[int], bool]:
        """The places still to be asked in a round, and whether the service may just have been busy."""
        query = "SELECT place, transient FROM failures WHERE NOT final AND round < ? ORDER BY place"
        found = self._db.execute(query, (round_,)).fetchall()
        return [place for place, _ in found], any(transient for _, transient in found)

    def reopen(self) -> None:
        """Begin a new run: keys that failed may be retried in all rounds."""
        with self._transaction():
            self._db.execute("UPDATE failures SET round = 0")
            self._set(finished=None)

    def back_up(self, target: Path) -> None:
        """Copy the database as its last transaction left it."""
        copy = sqlite3.connect(target)
        try:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, which can be read where nothing can be written
        finally:
            copy.close()

    def damage(self) -> str | None:
        """The first fault that SQLite finds in the file; None if it is sound."""
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        return None if found == "ok" else str(found)


def _shard(row: tuple[Any, ...], drift: Mapping[int, Any]) -> Shard:
    *plain_ones, totals, digest = row
    shard = Shard(*plain_ones)
    sums = {name: Decimal(text) for name, text in json.loads(totals).items()}
    return evolve(shard, totals=sums, digest=int(digest, 16), drift=drift.get(shard.number, {}))
