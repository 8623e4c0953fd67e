"""From models to columns: the Arrow schema of a model, read from its fields, and the values that fill it.

Invariant: nothing is rounded, cut or coerced. What does not fit is an error that names key and field. What is typed in
the model is a struct or a list, what is free-form is JSON text with the digits that came. Used by the Parquet format.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import attrs
import msgspec

from capillary_async.jobs._common.errors import UnfitError
from capillary_async.jobs._common.pyarrow_import import pa, pc
from capillary_async.jobs._common.several import ASKED, asked_of

__all__ = ["DERIVED", "Columns"]

# Epoch milliseconds, and the property of the model that says the same as an aware time.
DERIVED = {"awarded_date": "awarded_at", "expiry_date": "expires_at", "auto_update_time": "updated_at"}

# The published table schema has decimal(15,3) for every points column.
QUANTITY = pa.decimal128(18, 3)
_PLAIN: dict[Any, Any] = {
    int: pa.int64(),
    str: pa.string(),
    bool: pa.bool_(),
    Decimal: QUANTITY,
    datetime: pa.timestamp("us", "UTC"),
}
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999  # milliseconds: the first of year 1, the last of year 9999
_JSON = msgspec.json.Encoder(decimal_format="number")

Convert = Callable[[Any], Any]


def _free(value: Any) -> str | None:
    """JSON text; empty where there is nothing."""
    return None if value is None or value in ({}, ()) else _JSON.encode(value).decode()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _listed(convert: Convert | None) -> Convert:
    def listed(value: Any) -> Any:
        if value is None:
            return None
        several: Sequence[Any] = cast("Any", value) if isinstance(value, tuple) else (value,)
        return [None if entry is None else convert(entry) if convert else entry for entry in several]

    return listed


def _mapped(convert: Convert) -> Convert:
    def mapped(value: Mapping[str, Any] | None) -> Any:
        if value is None:
            return None
        return [(name, None if entry is None else convert(entry)) for name, entry in value.items()]

    return mapped


def _struct(model: type[Any]) -> tuple[Any, Convert]:
    fields = _fields(model)
    kind = pa.struct([(name, type_) for name, (type_, _) in fields.items()])
    converters = [(name, attrgetter(name), convert) for name, (_, convert) in fields.items()]

    def struct(value: Any) -> Any:
        if value is None:
            return None
        return {name: convert(get(value)) if convert else get(value) for name, get, convert in converters}

    return kind, struct


def _fields(model: type[Any]) -> dict[str, tuple[Any, Convert | None]]:
    hints = get_type_hints(model)
    return {attribute.name: _kind(hints[attribute.name]) for attribute in attrs.fields(model)}


def _kind(hint: Any) -> tuple[Any, Convert | None]:
    """The Arrow type of a field, and how its values are made ready for it."""
    alternatives = _alternatives(hint)
    if len(alternatives) > 1:
        several = [one for one in alternatives if get_origin(one) is tuple]
        return _kind(several[0]) if several else (pa.string(), _text)
    (one,) = alternatives
    if one in _PLAIN:
        return _PLAIN[one], None
    if attrs.has(one):
        return _struct(one)
    inner = [each for argument in get_args(one)[-1 if get_origin(one) is Mapping else 0 :]
             for each in _alternatives(argument) if each is not Ellipsis]  # fmt: skip
    if inner and inner[0] is not Any:
        kind, convert = _kind(inner[0])
        if get_origin(one) is tuple:
            return pa.list_(kind), _listed(convert)
        if convert is not None:
            return pa.map_(pa.string(), kind), _mapped(convert)
    return pa.string(), _free


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [one for one in get_args(hint) if one is not type(None)]
    return [hint]


class Columns:
    """The columns of one model, with those in front: the asked key, the shard, the row.

    Args:
        model: The class of the records.
        key_type: The type of the asked key.
        several: Whether there are several programs or categories, with a column each for the one asked for.
    """

    def __init__(self, model: type[Any], key_type: Any, *, several: bool = False) -> None:
        self._fields = _fields(model)
        self._several = several
        first = [("asked_key", key_type), ("shard", pa.int32()), ("row", pa.int32())]
        first += [(name, pa.int64()) for name in ASKED] if several else []
        described: list[tuple[str, Any]] = list(first)
        for name, (kind, _) in self._fields.items():
            described.append((name, kind))
            if name in DERIVED:
                described.append((DERIVED[name], pa.timestamp("ms", "UTC")))
        self.schema = pa.schema(described)
        self._getters = {name: attrgetter(name) for name in self._fields}

    def table(self, shard: int, entries: Sequence[tuple[Any, Sequence[Any]]]) -> Any:
        """A table of the records of several keys.

        Raises:
            UnfitError: A value does not fit its column; only where one key is asked for.
            pyarrow.ArrowException, OverflowError: The same, where there are several.
        """
        records = [record for _, items in entries for record in items]
        arrays = [
            pa.array([key for key, items in entries for _ in items], self.schema.field("asked_key").type),
            pa.array([shard] * len(records), pa.int32()),
            pa.array([row for _, items in entries for row in range(len(items))], pa.int32()),
        ]
        if self._several:
            scopes = [scope for _, items in entries for scope in asked_of(items)]
            arrays += [pa.array([int(scope[place]) for scope in scopes], pa.int64()) for place in range(len(ASKED))]
        for name, (kind, convert) in self._fields.items():
            array = self._array(name, kind, convert, records, entries[0][0] if len(entries) == 1 else None)
            arrays.append(array)
            if name in DERIVED:
                arrays.append(_times(array))
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _array(self, name: str, kind: Any, convert: Convert | None, records: list[Any], key: Any) -> Any:
        values: list[Any] = list(map(self._getters[name], records))
        if convert is not None:
            values = list(map(convert, values))
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, OverflowError) as error:
            if key is None:
                raise
            raise _unfit(name, kind, values, key, error) from None


def _times(array: Any) -> Any:
    """Milliseconds as times; null where no date of the years 1 to 9999 is meant, which readers could not show."""
    known = pc.and_(pc.greater_equal(array, _FIRST), pc.less_equal(array, _LAST))
    return pc.if_else(known, array, pa.scalar(None, pa.int64())).cast(pa.timestamp("ms", "UTC"))


def _unfit(name: str, kind: Any, values: list[Any], key: Any, error: Exception) -> UnfitError:
    row = next((row for row, value in enumerate(values) if not _fits(value, kind)), 0)
    field, value, inner = _culprit(name, values[row], kind)
    shown = str(value) if isinstance(value, Decimal | int | str) else type(value).__name__
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."  # noqa: PLR2004 - a line's worth
    advice = "export as jsonl, which keeps all digits" if pa.types.is_decimal(inner) else "report it"
    return UnfitError(
        f"key {key}: {field} {shown} of row {row} does not fit {inner}, and nothing is rounded "
        f"({str(error).partition(chr(10))[0]}); {advice}",
        field=field,
    )


def _fits(value: Any, kind: Any) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, OverflowError):
        return False
    return True


def _culprit(path: str, value: Any, kind: Any) -> tuple[str, Any, Any]:
    """The innermost value that does not fit, with its path and its type."""
    parts: list[tuple[str, Any, Any]] = []
    if pa.types.is_struct(kind):
        parts = [(f"{path}.{field.name}", value[field.name], field.type) for field in kind]
    elif pa.types.is_list(kind):
        parts = [(path, entry, kind.value_type) for entry in value]
    wrong = [part for part in parts if part[1] is not None and not _fits(part[1], part[2])]
    return _culprit(*wrong[0]) if wrong else (path, value, kind)
