"""Digests of the contents of records, by which a record that comes again is compared with one that is no longer kept.

Invariant: equal records have equal digests, whether they are records or raw rows, and a -1 in place of a -2 makes
another. Called by `Seen` and `DuplicateFilter`.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import astuple, fields_dict, has
from msgspec.structs import astuple as values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["content_of", "digests_of", "loose_digest", "stable_digest"]

_MINUS_ONE: Final = "-1"  # in its place: Python's hash of -1 equals that of -2


def digests_of(items: Sequence[Any], *, signed: bool = True) -> list[int]:
    """The digest of each record, for this process.

    Args:
        items: The records, or raw rows.
        signed: Whether one may have a negative number.
    """
    columns, amounts = _columns_of(items)
    if columns is None:
        return _one_by_one(items, signed=signed)
    hashed = [_with_hashes(column) if place in amounts else column for place, column in enumerate(columns)]
    if signed:
        hashed = [_with_signs(column) for column in hashed]
    return list(map(hash, zip(*hashed, strict=True)))


def _columns_of(items: Sequence[Any]) -> tuple[Sequence[Sequence[Any]] | None, frozenset[int]]:
    """The values of each field, and the places of the fields whose amounts may be digits; None of nested records."""
    kinds = set(map(type, items))
    get, amounts = _form_of(kinds.pop()) if len(kinds) == 1 else (None, frozenset[int]())
    if get is None:
        return None, amounts
    return getattr(items, "columns", None) or tuple(zip(*map(get, items), strict=True)), amounts


@lru_cache(maxsize=64)
def _form_of(kind: Any) -> tuple[Callable[[Any], tuple[Any, ...]] | None, frozenset[int]]:
    """What gives the values of a raw row, or of a record of a model that has raw rows; None for every other."""
    if hasattr(kind, "__struct_fields__"):
        return values_of, frozenset(map(kind.__struct_fields__.index, kind.amounts))
    flat = has(kind) and getattr(kind, "WIRE_CASE", None) == "snake"
    return attrgetter(*fields_dict(kind)) if flat else None, frozenset()


def _with_hashes(column: Sequence[Any]) -> Sequence[Any]:
    """A column whose digits are replaced by the hash of their Decimal, which is slow to make."""
    distinct = set(column)
    if bytes not in set(map(type, distinct)):
        return column
    hashes = {one: _hash_of(one) if type(one) is bytes else one for one in distinct}
    return [hashes[one] for one in column]


@lru_cache(maxsize=8_192)
def _hash_of(digits: bytes) -> Any:
    amount = Decimal(digits.decode())
    return _MINUS_ONE if amount == -1 else hash(amount)


def _with_signs(column: Sequence[Any]) -> Sequence[Any]:
    if -1 not in column:
        return column
    return [_MINUS_ONE if one == -1 else one for one in column]


def _one_by_one(items: Iterable[Any], *, signed: bool) -> list[int]:
    try:
        return list(map(loose_digest if signed else hash, items))  # by `hash` three times as fast
    except TypeError:
        return list(map(loose_digest, items))


def loose_digest(item: Any) -> int:
    """A digest of a record without a key, for this process: the record's own hash, where it has one.

    The places of each -1 count too.
    """
    item = _record_of(item)
    try:
        digest = hash(item)
    except TypeError:
        return hash(content_of(item))
    ones = tuple(_minus_ones(item, 0))
    return hash((digest, ones)) if ones else digest


def _minus_ones(value: Any, place: int) -> Iterator[int]:
    """The places of each -1 in a record, one number for each."""
    if has(cast("type[Any]", type(value))):
        value = astuple(value, recurse=False)
    if isinstance(value, tuple):
        for number, one in enumerate(cast("tuple[Any, ...]", value), 1):
            yield from _minus_ones(one, place * 1_000 + number)
    elif value == -1:
        yield place


def content_of(item: Any) -> str:
    """The whole content of a record as text, the same in every process. The repr of a record is cut."""
    item = _record_of(item)
    return repr(astuple(item)) if has(cast("type[Any]", type(item))) else repr(item)


def _record_of(item: Any) -> Any:
    """The record of a raw row; anything else as it is."""
    return item.record() if hasattr(item, "__struct_fields__") else item


def stable_digest(value: Any) -> int:
    """A digest of a key or record that is the same in every process."""
    text = content_of(value).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
