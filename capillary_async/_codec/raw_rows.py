"""`RawRow`: a row of a page whose amounts are still the digits of the body, for columns without records.

Invariant: a raw row equals another one, or a record, exactly where all fields are equal as values. All members of a row
are read, also where a table has some of the columns: the rules of paging compare whole records.
Made by `fast_decoder`; called by the rules of paging, as records are, and by `tables`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, ClassVar, Final, cast

import attrs
import msgspec
from attrs import frozen
from msgspec.structs import astuple

from capillary_async.models.exact import PARSING

__all__ = ["RawRow", "RawRows", "plain_reader", "raw_decoder"]


_SMALL: Final = 20_000  # bytes: a page of about 30 rows, whose columns cost more than they save
_RAW: Final = frozenset({int, bytes, type(None)})  # of an amount


class RawRow(msgspec.Struct, gc=False, eq=False):
    """A row: whole numbers and texts as the model has them, amounts as int or as the bytes of their digits."""

    model: ClassVar[Any]
    amounts: ClassVar[frozenset[str]]

    def record(self) -> Any:
        """The row as a record of its model."""
        values = {name: _value(getattr(self, name)) for name in self.__struct_fields__}
        values.update((name, Decimal(values[name])) for name in self.amounts if values[name] is not None)
        return self.model(**values)

    def to_json(self) -> bytes:
        """The record as JSON."""
        return cast("bytes", self.record().to_json())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RawRow | self.model):
            return NotImplemented
        return all(_value(getattr(self, name)) == _value(getattr(other, name)) for name in self.__struct_fields__)

    def __ne__(self, other: object) -> bool:  # that of `Struct` compares otherwise
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        row = self
        for name in self.amounts:
            value = getattr(self, name)
            if type(value) is bytes:
                row = copy(self) if row is self else row
                setattr(row, name, _hash_of(value))
        return cast("int", self.model.__hash__(row))  # the record's, which looks at nothing but its fields

    def __reduce__(self) -> tuple[Any, ...]:
        names = self.__struct_fields__
        return _unpickled, (self.model, tuple(getattr(self, name) for name in names))


class RawRows(tuple[Any, ...]):  # noqa: SLOT001 - a tuple has no slots, and the columns need room
    """The raw rows of a page, and their values by column; a copy or a pickle of it is a plain tuple.

    Attributes:
        columns: The values of each field, in the order of the model.
    """

    columns: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, rows: list[Any]) -> RawRows:
        """The rows with their columns."""
        made = cls(rows)
        made.columns = tuple(zip(*map(astuple, rows), strict=True))
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


@frozen
class PlainReader:
    """Reads a page each of whose rows has every member of the model once, and no other.

    Without a colon in a text a page has one for each member, so that with as many as the rows have fields no member
    came twice.
    """

    decode: Callable[[bytes], list[Any]]
    width: int
    key: int
    amounts: Callable[[Any], tuple[tuple[Any, ...], ...]]

    def read(self, body: bytes) -> RawRows | None:
        """The rows; None where the page is small, a row is another, or an amount is no number written out.

        Raises:
            ValueError: The page is no array of such rows.
        """
        if len(body) < _SMALL:
            return None
        rows = self.decode(body)
        if not rows or body.count(b":") != self.width * len(rows) or b"\\" in body:
            return None
        made = RawRows.of(rows)
        amounts = self.amounts(made.columns)
        if None in made.columns[self.key] or not _RAW.issuperset(map(type, chain.from_iterable(amounts))):
            return None
        distinct = set[Any]().union(*amounts)
        digits = b" ".join([one for one in distinct if type(one) is bytes])
        return None if b"e" in digits or b"E" in digits else made


def _value(value: Any) -> Any:
    """A value as a record has it, but for whole amounts, which are ints here and equal their Decimals."""
    return Decimal(value.decode(), PARSING) if isinstance(value, bytes) else value


@lru_cache(maxsize=8_192)
def _hash_of(digits: bytes) -> int:
    """The hash of an amount, which takes its place: a Decimal is slow to make and to hash."""
    return hash(Decimal(digits.decode(), PARSING))


def _unpickled(model: Any, values: tuple[Any, ...]) -> RawRow:
    return cast("RawRow", _row_of(model)(*values))


@lru_cache(maxsize=64)
def _row_of(model: Any, *, whole: bool = False) -> Any:
    """The class of the raw rows of a model; see `raw_decoder`, or `plain_reader` of whole ones."""
    fields = attrs.fields_dict(model)
    amounts = frozenset(name for name, one in fields.items() if one.type == Decimal | None)
    # In the order of the model, which is that of the wire: msgspec finds a member first where it comes next.
    kinds = [(name, Any if name in amounts else fields[name].type) for name in fields]
    described: list[Any] = kinds if whole else [(name, kind, None) for name, kind in kinds]
    return msgspec.defstruct(
        f"{model.__name__}Row",
        described,
        bases=(RawRow,),
        namespace={"model": model, "amounts": amounts},
        eq=False,
        forbid_unknown_fields=whole,
    )


@lru_cache(maxsize=64)
def raw_decoder(model: Any) -> Any:
    """The msgspec decoder of a page of a model in snake_case into raw rows."""
    row = _row_of(model)
    return msgspec.json.Decoder(list[row], float_hook=str.encode)  # type: ignore[valid-type]


@lru_cache(maxsize=64)
def plain_reader(model: Any) -> PlainReader:
    """The reader of pages of a model in snake_case whose rows have all members."""
    row = _row_of(model, whole=True)
    names = row.__struct_fields__
    return PlainReader(
        msgspec.json.Decoder(list[row], float_hook=str.encode).decode,  # type: ignore[valid-type]
        width=len(names),
        key=names.index("id"),
        amounts=itemgetter(*(place for place, name in enumerate(names) if name in row.amounts)),
    )
