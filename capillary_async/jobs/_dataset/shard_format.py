"""The interface of a shard's format: how rows are written, and read again for `verify`.

Invariant: the bytes of a shard are a function of its rows alone. Implemented by `parquet_format.py` and
`jsonl_format.py`; used by `_exporting/shard.py` and `_verifying/shard_contents.py`.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

__all__ = ["Batch", "Format", "ShardFile", "Sums"]


@frozen
class Sums:
    """What of rows goes into the sums of a manifest.

    Attributes:
        keys: The text of each record's key, for the digest.
        totals: The sum of each quantity.
    """

    keys: Sequence[bytes]
    totals: Mapping[str, Decimal]


@frozen
class Batch:
    """Some rows of a shard, read again.

    Attributes:
        asked, shards, rows: The first three columns.
        sums: What goes into the sums of the manifest.
    """

    asked: Sequence[Any]
    shards: Sequence[int]
    rows: Sequence[int]
    sums: Sums


class ShardFile(Protocol):
    """A shard being written."""

    def add(self, chunk: Any) -> None:
        """Append rows."""

    def close(self) -> None:
        """Write what is left and the end of the file, which stays open."""

    def abandon(self) -> None:
        """End it without writing what is buffered."""


class Format(Protocol):
    """How rows are written and read."""

    @property
    def ending(self) -> str:
        """Of the file's name."""
        ...

    def chunk(self, shard: int, entries: Sequence[tuple[Any, Sequence[Any]]]) -> Any:
        """The rows of some keys, whole; raises `UnfitError` where it is one key and its rows do not fit."""

    def sums(self, chunk: Any, entries: Sequence[tuple[Any, Sequence[Any]]]) -> Sums:
        """What goes into the sums of the manifest, of a chunk or of the keys that it was made of."""
        ...

    def open(self, file: IO[bytes], shard: int) -> ShardFile:
        """A new shard."""
        ...

    def pieces(self, path: Path) -> Iterator[tuple[Any, Any]]:
        """The rows of a shard in order, as (asked key, chunk)."""
        ...

    def batches(self, path: Path) -> Iterator[Batch]:
        """The rows of a shard, for `verify`."""
        ...

    def described(self, path: Path, shard: int) -> dict[str, tuple[str | None, str]]:
        """Metadata of the file that differ from those of this shard of this query: (found, expected) by name."""
        ...

    def records(self, path: Path, keys: set[Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """The rows of some keys as plain values, without the first three columns: (asked key, row)."""
        ...

    def plain(self, key: Any, items: Sequence[Any]) -> list[Mapping[str, Any]]:
        """The rows that `records` would give of these records."""
        ...
