"""What one shard contains, read from its file.

Invariant: each row is checked for its place: the keys in the order of the ids, the rows of a key numbered from 0.
Called by `_verifying/verification.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from capillary_async._repr import brief_repr
from capillary_async.jobs._common.digest import MultisetDigest, added
from capillary_async.jobs._verifying.findings import SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from capillary_async.jobs._dataset.shard_format import Batch, Format

__all__ = ["LongestLists", "ShardContents", "read_shard"]


_NO_KEY = object()  # unlike null, which a damaged file may have


class LongestLists:
    """The length of the longest lists, how many lists have it, and the keys of the first few."""

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
        self.keys += keys[: SHOWN - len(self.keys)]

    def join(self, other: LongestLists) -> None:
        """Add the longest lists of another shard."""
        self.add(other.length, other.lists, other.keys)


@frozen(eq=False)
class ShardContents:
    """The contents of one shard.

    Attributes:
        rows: Records.
        found: Keys with records.
        totals: The sum of each quantity.
        digest: Of the records' own keys, whatever their order.
        longest: The longest lists.
    """

    rows: int = 0
    found: int = 0
    totals: Mapping[str, Decimal] = field(factory=dict[str, "Decimal"])
    digest: MultisetDigest = field(factory=MultisetDigest)
    longest: LongestLists = field(factory=LongestLists)

    __repr__ = brief_repr


def read_shard(format_: Format, path: Path, number: int, places: Mapping[Any, int] | None) -> ShardContents:
    """Read a shard and check the place of each row.

    Args:
        format_: The format of the file.
        path: The file.
        number: The number of the shard, which each row repeats.
        places: Each key of the shard with its place among the ids; None if the ids are not known.

    Raises:
        ValueError: A row is not where it belongs.
    """
    order, digest, totals = _RowOrder(number, places), MultisetDigest(), list[Any]()
    for batch in format_.batches(path):
        order.check(batch)
        digest.put_texts(batch.sums.keys)
        totals.append(batch.sums.totals)
    order.end_list()
    return ShardContents(order.rows, order.keys, added(totals), digest, order.longest)


class _RowOrder:
    """The check of the rows' places; `_row` and `_place` are those of the row before."""

    def __init__(self, shard: int, places: Mapping[Any, int] | None) -> None:
        self.rows = self.keys = 0
        self.longest = LongestLists()
        self._shard, self._places = shard, places
        self._key: Any = _NO_KEY
        self._row, self._place = -1, 0

    def check(self, batch: Batch) -> None:
        """Check the next rows."""
        for key, shard, row in zip(batch.asked, batch.shards, batch.rows, strict=True):
            self.rows += 1
            begins = key != self._key
            if begins:
                self.end_list()
                self.keys, self._key, self._row = self.keys + 1, key, -1
            self._row += 1
            place = self._place + begins if self._places is None else self._places.get(key, 0)
            in_order = place > self._place if begins else place == self._place
            if shard != self._shard or row != self._row or not in_order:
                raise ValueError(f"row {self.rows} (key {key}) is not where it belongs")
            self._place = place

    def end_list(self) -> None:
        """Count the list of the current key."""
        self.longest.add(self._row + 1, 1, (self._key,))
