"""Digests and totals: what proves that two datasets hold the same.

Invariant: nothing depends on the order of records, on shards or on times; sums are exact. Used by the export, and by
`verify`, which recomputes them from the files.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, cast

from capillary_async.models.exact import EXACT, exact_sum

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["BETWEEN", "MultisetDigest", "add", "added", "file_digest", "key_text", "plain"]

_SIZE = 1 << 256
BETWEEN = "\x1f"  # the parts of a key's text


class MultisetDigest:
    """A digest of a bag of keys: the sum of their SHA-256 digests modulo 2^256.

    Unlike a XOR it sees a key that is there twice.
    """

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def put(self, keys: Iterable[tuple[object, ...]]) -> None:
        """Put keys in; a part that is None counts as empty."""
        self.put_texts(map(key_text, keys))

    def put_texts(self, texts: Iterable[bytes]) -> None:
        """Put keys in, each as its text; see `key_text`."""
        digest, number = hashlib.sha256, int.from_bytes
        self.value += sum([number(digest(text).digest(), "big") for text in texts])
        self.value %= _SIZE

    def join(self, other: MultisetDigest) -> None:
        """Put in what another bag holds."""
        self.value = (self.value + other.value) % _SIZE

    def __str__(self) -> str:
        return f"{self.value:064x}"

    @classmethod
    def of(cls, text: str) -> MultisetDigest:
        """From its text."""
        return cls(int(text, 16))


def key_text(key: Iterable[object]) -> bytes:
    """The text of a key that the digest is made of; a part that is None counts as empty."""
    return BETWEEN.join(["" if part is None else str(part) for part in key]).encode()


def add(values: Sequence[Decimal | str]) -> Decimal:
    """The exact sum of quantities, or of their texts."""
    if values and isinstance(values[0], str):
        return exact_sum(map(Decimal, values))
    return exact_sum(cast("Sequence[Decimal]", values))


def added(sums: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    """Sums by column, of several parts."""
    total: dict[str, Decimal] = {}
    for part in sums:
        for column, value in part.items():
            total[column] = EXACT.add(total.get(column, Decimal(0)), value)
    return total


def plain(value: Decimal) -> str:
    """The digits, never as a power of ten."""
    return format(value, "f")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
