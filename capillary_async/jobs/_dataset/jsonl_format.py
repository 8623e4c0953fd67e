"""Shards as JSON Lines.

Invariant: one line per record, with all digits of its amounts. Made by `formats.py`.
"""

from __future__ import annotations

from itertools import repeat
from typing import IO, TYPE_CHECKING, Any

import attrs
import msgspec

from capillary_async.jobs._common.digest import key_text
from capillary_async.jobs._common.several import ASKED, asked_of
from capillary_async.jobs._dataset.columns import DERIVED
from capillary_async.jobs._dataset.shard_format import Batch, Sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from capillary_async.jobs._common.sources import Dataset
    from capillary_async.jobs._dataset.shard_format import ShardFile

__all__ = ["Jsonl"]

_PIECE = 512  # lines


class Jsonl:
    """A file of JSON Lines a shard: quantities are text with the digits that came, times ISO 8601."""

    ending = "jsonl"

    def __init__(self, source: Dataset, *, several: bool = False) -> None:
        self._source, self._several = source, several
        self._names = tuple(attribute.name for attribute in attrs.fields(source.model))
        self._encode = msgspec.json.Encoder().encode

    def chunk(self, shard: int, entries: Sequence[tuple[Any, Sequence[Any]]]) -> Any:
        """The lines."""
        encode = self._encode
        return b"".join(
            encode(
                {
                    "asked_key": key if isinstance(key, int) else str(key),
                    "shard": shard,
                    "row": row,
                    **asked,
                    **self._row(record),
                }
            )
            + b"\n"
            for key, items in entries
            for row, (record, asked) in enumerate(zip(items, self._asked(items), strict=True))
        )

    def _asked(self, items: Sequence[Any]) -> Iterable[dict[str, int]]:
        """The program and category under which each record came, where there are several."""
        if not self._several:
            return repeat({}, len(items))
        return (dict(zip(ASKED, map(int, scope), strict=True)) for scope in asked_of(items))

    def _row(self, record: Any) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name in self._names:
            row[name] = getattr(record, name)
            if name in DERIVED:
                row[DERIVED[name]] = _derived(record, DERIVED[name])
        return row

    def sums(self, chunk: Any, entries: Sequence[tuple[Any, Sequence[Any]]]) -> Sums:  # noqa: ARG002 - lines are read slower
        """What goes into the sums of the manifest."""
        keys = [key_text(each) for key, items in entries for each in self._source.keys_of(key, items)]
        return Sums(keys, self._source.totals([record for _, items in entries for record in items]))

    def open(self, file: IO[bytes], shard: int) -> ShardFile:  # noqa: ARG002 - each line names it
        """A new shard."""
        return _JsonlFile(file)

    def pieces(self, path: Path) -> Iterator[tuple[Any, Any]]:
        """The lines in order, as (asked key, line)."""
        with path.open("rb") as file:
            for line in file:
                yield msgspec.json.decode(line)["asked_key"], line

    def batches(self, path: Path) -> Iterator[Batch]:
        """The rows of a shard, for `verify`."""
        rows: list[dict[str, Any]] = []
        with path.open("rb") as file:
            for line in file:
                rows.append(msgspec.json.decode(line))
                if len(rows) == _PIECE:
                    yield self._batch(rows)
                    rows = []
        yield self._batch(rows)

    def _batch(self, rows: list[dict[str, Any]]) -> Batch:
        return Batch(
            [row["asked_key"] for row in rows],
            [row["shard"] for row in rows],
            [row["row"] for row in rows],
            Sums(
                [key_text([row["asked_key"], *(row[name] for name in self._source.key)]) for row in rows],
                self._source.totals_of_rows(rows),
            ),
        )

    def described(self, path: Path, shard: int) -> dict[str, tuple[str | None, str]]:  # noqa: ARG002 - the same for all
        """Lines say nothing of the query."""
        return {}

    def records(self, path: Path, keys: set[Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """The rows of some keys as plain values."""
        with path.open("rb") as file:
            for line in file:
                row = msgspec.json.decode(line)
                key = row.pop("asked_key")
                if key in keys:
                    yield key, {name: row[name] for name in list(row)[2:]}

    def plain(self, key: Any, items: Sequence[Any]) -> list[Mapping[str, Any]]:
        """The records as rows."""
        rows = [msgspec.json.decode(line) for line in self.chunk(0, [(key, items)]).splitlines()]
        return [{name: row[name] for name in list(row)[3:]} for row in rows]


class _JsonlFile:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, chunk: Any) -> None:
        self._file.write(chunk)

    def close(self) -> None:
        """Lines have no end to write."""

    def abandon(self) -> None:
        """Lines are not buffered."""


def _derived(record: Any, name: str) -> Any:
    try:
        return getattr(record, name)
    except OverflowError:  # a time beyond the year 9999: its milliseconds are in their own column
        return None
