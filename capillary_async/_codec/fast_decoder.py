"""`FastDecoder`: a plain page of a model in snake_case, read by msgspec straight into attrs.

Invariant: a page is given only if it is proved free of odd decimals and of rows that are no records; every other page
is left to the converter, which checks each value. Called by `decode.rows`.
"""

import decimal
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import attrs
import msgspec
from attrs import field, frozen

from capillary_async._codec.raw_rows import PlainReader, plain_reader, raw_decoder
from capillary_async.models import PointsAllocation, PointsAwarded
from capillary_async.models.exact import MOST_DIGITS, bounded

__all__ = ["FastDecoder", "fast_decoder"]

T = TypeVar("T")

# Of each model in snake_case the text of each record, None where it has none: written out, since `attrgetter` takes
# three times as long.
_TEXTS: Final[Mapping[type, Callable[[list[Any]], list[str | None]]]] = {
    PointsAllocation: lambda records: [one.status for one in records],
    PointsAwarded: lambda records: [one.source_table for one in records],
}

# Everything but quotes, colons, backslashes, braces that close, and the e of an exponent. Without the e's, what is left
# of a page shows each member as `"":`, then `""` where it is text; a backslash fits nowhere.
_NOT_SKELETON: Final = bytes(byte for byte in range(256) if byte not in b'":\\}eE')
# The same with the letters of names, which identify the members of a row. Digits, which fill the values, are left out:
# so a variant of a documented name with digits, in its place, is not noticed.
_LETTERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NOT_NAMED: Final = bytes(byte for byte in _NOT_SKELETON if byte not in _LETTERS)
_NAMES: Final = re.compile(rb'"([^"]*)":')
_EXPONENTS: Final = bytes.maketrans(b"E", b"e")
_SKELETON_MEMBERS: Final = re.compile(rb'(?:"":(?:"")?)*')
_LONGEST_ROW: Final = 2_000  # bytes of a row's skeleton that are remembered; with names, ours have about 650 and 250
_MOST_KINDS: Final = 32  # of rows in a page; ours have one for each status and set of members
_DIGITS: Final = bytes.maketrans(b"123456789.", b"0" * 10)
_STEP: Final = 12
_RAW: Final = frozenset({int, bytes, type(None)})  # of an amount in a raw row
_LONG_NUMBER: Final = b"0" * (MOST_DIGITS // _STEP)


class _Kinds(dict[str | None, bytes]):
    """The skeletons of plain rows without null and exponents, by their text; an empty one for texts not seen yet."""

    def __missing__(self, text: str | None) -> bytes:
        return b""


@frozen
class FastDecoder(Generic[T]):
    """Reads a page by msgspec alone, and proves that each row is a record and each decimal an amount.

    msgspec takes any text that `Decimal()` takes: "NaN", "1_000", " 1 ", other scripts' digits; and numbers out of the
    bounds of amounts. Such a page, and every other without the proof, is left to the converter.
    """

    decode: Callable[[bytes], list[T]]
    numbers: Callable[[bytes], object]
    texts: Callable[[list[T]], list[str | None]]
    members: frozenset[str]
    amounts: tuple[Callable[[T], Any], ...]
    raw: PlainReader | None = None
    kinds: _Kinds = field(factory=_Kinds, init=False)

    def read(self, body: bytes) -> tuple[Sequence[T], bool] | None:
        """The records, and whether all their members are surely documented; None if the proof fails."""
        if not decimal.getcontext().traps[decimal.InvalidOperation]:
            return None  # Decimal("1e9999999999999999999") would be NaN instead of an error
        if self.raw is not None and (rows := self._plain(self.raw, body)) is not None:
            return rows, True
        try:
            records = self.decode(body)
            if not records:
                return records, True
            if [None for one in records if one.id is None]:  # type: ignore[attr-defined]
                return None  # an error in a record's place has none, nor has a row of nothing
            texts, named = self.texts(records), body.translate(None, _NOT_NAMED)
            known = b"".join(map(self.kinds.__getitem__, texts))
            if known == named or known == (named := named.replace(b":null", b":")):
                short, plain = _are_short(body), True
                # Without another bracket there are numbers and nulls alone, but for the texts that are known.
                exact = (short and body.count(b"[") == 1) or self._exact(records, short=short)
            else:
                rows = named.split(b"}")
                found, short, plain = _looked_at(body, self.members, rows)
                plain = plain and len(rows) == len(records) + 1  # else a brace within a row parts its members
                exact = self._exact(records, short=short)
                if found != len(texts) - texts.count(None):
                    self.numbers(body)
                elif short and plain and exact:
                    self._remember(texts, rows)
        except (ValueError, RecursionError):  # every error of msgspec is a ValueError
            return None
        return (records, plain) if exact else None

    @staticmethod
    def _plain(raw: PlainReader, body: bytes) -> Sequence[Any] | None:
        """The raw rows of a page whose rows all have each member once; None for every other."""
        try:
            rows = raw.read(body)
            return rows if rows is not None and _are_short(body) else None
        except (ValueError, RecursionError):
            return None

    def _remember(self, texts: list[str | None], rows: list[bytes]) -> None:
        """Remember the plain rows of a page by their texts: most pages are made of the rows of the pages before."""
        if len(self.kinds) > _MOST_KINDS:
            self.kinds.clear()
        for text, row in dict(zip(texts, rows, strict=False)).items():
            if _texts_in(row) == (text is not None, False):  # else an object within a row has put them out of step
                self.kinds[text] = row + b"}"

    def _exact(self, records: list[T], *, short: bool) -> bool:
        """Whether each amount is one: of raw rows an int or digits that columns can take, of records within bounds."""
        if self.raw is not None:
            return short and all(_RAW.issuperset(map(type, map(amount, records))) for amount in self.amounts)
        return short or all(bounded(one) for amount in self.amounts for one in map(amount, records) if one is not None)


def _looked_at(body: bytes, members: frozenset[str], rows: list[bytes] | None = None) -> tuple[int, bool, bool]:
    """How a page looks: its text members, its numbers and its names.

    Gives how many text members it has (-1 where that is not plain), whether each number of it is surely an amount, and
    whether each member is surely documented.

    All is decided by the skeleton, whatever the white space. Without backslashes a decimal's text holds no quote and no
    colon, so it shows as `""` after its colon, an exponent as `e`; texts or names with colons of their own do not fit
    the pattern. The rows of a page have few skeletons, so that only those are looked at. A number of more than 100
    digits has eight in a row wherever each twelfth byte is looked at.
    """
    rows = rows or body.translate(None, _NOT_NAMED).split(b"}")
    kinds = set(rows) - {b""}
    plain = _few(kinds)
    if not plain:  # texts of every kind make each row another
        rows = body.translate(_EXPONENTS, _NOT_SKELETON).split(b"}")
        kinds = set(rows) - {b""}
        if not _few(kinds):
            return -1, False, False
    seen = {one: _texts_in(one) for one in kinds}
    plain = plain and all(_names_in(one) <= members for one in kinds)
    if any(found < 0 for found, _ in seen.values()):
        return -1, False, plain
    exponents = any(exponent for _, exponent in seen.values())
    texts = sum(found * rows.count(one) for one, (found, _) in seen.items() if found)
    return texts, not exponents and _are_short(body), plain


def _are_short(body: bytes) -> bool:
    """Whether no number of a page has more than 100 digits."""
    return _LONG_NUMBER not in body[::_STEP].translate(_DIGITS)


def _few(kinds: set[bytes]) -> bool:
    return len(kinds) <= _MOST_KINDS and max(map(len, kinds), default=0) <= _LONGEST_ROW


@lru_cache(maxsize=64)
def _names_in(row: bytes) -> frozenset[str]:
    """The names of a row's members, an empty one where a name is there twice: both may be variants with digits."""
    names = [name.decode() for name in _NAMES.findall(row)]
    return frozenset(names if len(set(names)) == len(names) else [*names, ""])


@lru_cache(maxsize=64)
def _texts_in(row: bytes) -> tuple[int, bool]:
    """The text members that a row's skeleton shows, and whether a number may have an exponent.

    -1 where it is no skeleton of plain members. A page repeats its rows.
    """
    row = row.translate(_EXPONENTS, _NOT_SKELETON)
    plain = row.replace(b"e", b"")
    texts = (len(plain) - 3 * plain.count(b":")) // 2 if _SKELETON_MEMBERS.fullmatch(plain) else -1
    return texts, b":e" in row


@lru_cache(maxsize=64)
def fast_decoder(model: Any, *, raw: bool = False) -> FastDecoder[Any]:
    """The fast decoder of a model in snake_case, made when it is first needed.

    Args:
        model: The class of the records.
        raw: Whether it gives `RawRow`s in place of records. They are given only where no amount has an exponent or
            more than 100 digits.
    """
    fields = attrs.fields_dict(model)
    numbers = [(name, int | float | None, None) for name, one in fields.items() if one.type == Decimal | None]
    only_numbers = msgspec.defstruct(f"{model.__name__}Numbers", numbers, gc=False)
    return FastDecoder(
        decode=(raw_decoder(model) if raw else msgspec.json.Decoder(list[model])).decode,
        numbers=msgspec.json.Decoder(list[only_numbers]).decode,  # type: ignore[valid-type]
        texts=_TEXTS[model],
        members=frozenset(fields),
        amounts=tuple(attrgetter(name) for name, *_ in numbers),
        raw=plain_reader(model) if raw else None,
    )
