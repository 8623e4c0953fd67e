"""Columns of records: arrays of a model's fields, from records or from the raw rows of pages.

Invariant: nothing is rounded, cut or coerced. A value that does not fit is an error that names key, row and field.
Called by `batches` and by the Parquet format of the export.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from operator import attrgetter
from typing import Any, cast

from msgspec.structs import astuple

from capillary_async._repr import cut
from capillary_async.models.exact import EXACT
from capillary_async.tables._errors import UnfitError
from capillary_async.tables._imports import pa, pc
from capillary_async.tables._packed import PackedColumns, amounts_of, numbers_of
from capillary_async.tables._schema import DERIVED, QUANTITY, Convert, fields_of, schema

__all__ = ["Columns"]

_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999  # milliseconds: the first of year 1, the last of year 9999
_NULL = type(None)
_SHOWN = 80  # characters of a value in an error
_INT64 = pa.int64()
_THOUSANDTH = Decimal("0.001")


class Columns:
    """The columns of a model, or some of them.

    Args:
        model: The class of the records.
        names: The columns, in their order; None for all of `schema(model)`.
        advice: The end of an error's text: what to do where a value does not fit.
    """

    def __init__(self, model: type[Any], names: Sequence[str] | None = None, *, advice: str) -> None:
        whole = schema(model)
        self.schema = whole if names is None else pa.schema([whole.field(name) for name in names])
        self._fields = fields_of(model)
        self._names: list[str] = self.schema.names
        self._source: dict[str, str] = {derived: name for name, derived in DERIVED.items() if derived in whole.names}
        self._getters = {name: attrgetter(name) for name in self._fields}
        self._advice = advice

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the model that fill the columns."""
        return tuple(dict.fromkeys(self._source.get(name, name) for name in self._names))

    def arrays(self, records: Sequence[Any], place: Callable[[int], tuple[Any, object]]) -> list[Any]:
        """An array per column, of records or raw rows.

        Args:
            records: What fills the columns; records and raw rows may be mixed.
            place: Gives of the number of a record its key and its row there, for an error.

        Raises:
            UnfitError: A value does not fit its column.
        """
        values = self._values(records)
        return self.whole({name: self._array(name, values[name], place) for name in self.fields})

    def packed(self) -> PackedColumns:
        """Collects raw rows page after page; `whole` makes the columns of its arrays."""
        return PackedColumns({name: kind for name, (kind, _) in self._fields.items()}, self.fields)

    def whole(self, made: Mapping[str, Any]) -> list[Any]:
        """An array per column, of the arrays of the fields."""
        return [made[name] if name in made else _times(made[self._source[name]]) for name in self._names]

    def _values(self, records: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
        """The values of each field; those of raw rows in one go, in half the time."""
        kinds = set(map(type, records))
        names: Sequence[str] | None = getattr(kinds.pop(), "__struct_fields__", None) if len(kinds) == 1 else None
        if names is not None:
            return dict(zip(names, zip(*map(astuple, records), strict=True), strict=True))
        return {name: list(map(self._getters[name], records)) for name in self.fields}

    def _array(self, name: str, values: Sequence[Any], place: Callable[[int], tuple[Any, object]]) -> Any:
        kind, convert = self._fields[name]
        try:
            return _amounts(values) if kind is QUANTITY else _of(values, kind, convert)
        except (pa.ArrowException, OverflowError):
            values = _decimals(values) if kind is QUANTITY else list(map(convert, values)) if convert else values
            exact = list(map(_without_zeros, values))
            number = next((number for number, value in enumerate(exact) if _refusal(value, kind)), None)
            if number is None:
                return pa.array(exact, kind)
            key, row = place(number)
            field, what, inner = _described(name, values[number], kind)
            advice = self._advice if pa.types.is_decimal(inner) else "report it"
            reason = _refusal(values[number], kind)
            text = f"key {key}: {what} of row {row} does not fit {inner}, and nothing is rounded ({reason}); {advice}"
            raise UnfitError(text, field=field) from None


def _of(values: Sequence[Any], kind: Any, convert: Convert | None) -> Any:
    if kind == _INT64:
        with suppress(struct.error):  # one does not fit
            return numbers_of(values)
    return pa.array(list(map(convert, values)) if convert else values, kind)


def _amounts(values: Sequence[Any]) -> Any:
    """An array of amounts: ints, the bytes of digits, or Decimals.

    Arrow reads digits faster than it takes Decimals, and refuses what does not fit. An exponent is never among the
    digits: Arrow ends the process on some.
    """
    kinds = set(map(type, values))
    if not kinds <= {int, bytes, _NULL}:
        return pa.array(_decimals(values), QUANTITY)
    with suppress(KeyError):  # one does not fit
        return amounts_of(values)
    return _of_digits(values, kinds)


def _of_digits(values: Sequence[Any], kinds: set[type[Any]]) -> Any:
    texts = [b"%d" % value if type(value) is int else value for value in values] if int in kinds else values
    return pa.array(texts, pa.binary()).cast(pa.string()).cast(QUANTITY)


def _decimals(values: Iterable[Any]) -> list[Decimal | None]:
    return [
        value
        if value is None or isinstance(value, Decimal)
        else Decimal(value.decode() if isinstance(value, bytes) else value)
        for value in values
    ]


def _times(numbers: Any) -> Any:
    """Milliseconds as times; null where no date of the years 1 to 9999 is meant, which readers could not show."""
    ends = pc.min_max(numbers).as_py()
    if ends["min"] is None or (ends["min"] >= _FIRST and ends["max"] <= _LAST):
        return numbers.cast(pa.timestamp("ms", "UTC"))
    known = pc.and_(pc.greater_equal(numbers, _FIRST), pc.less_equal(numbers, _LAST))
    return pc.if_else(known, numbers, pa.scalar(None, pa.int64())).cast(pa.timestamp("ms", "UTC"))


def _without_zeros(value: Any) -> Any:
    """A value whose amounts have no zeros after their third decimal: however many there are, Arrow refuses or takes."""
    if isinstance(value, dict):
        return {name: _without_zeros(one) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return list(map(_without_zeros, cast("list[Any]", value)))
    if isinstance(value, Decimal):
        with suppress(ArithmeticError):  # another digit follows there, which is reported
            return value.quantize(_THOUSANDTH, context=EXACT)
    return value


def _described(name: str, value: Any, kind: Any) -> tuple[str, str, Any]:
    """The field that does not fit, nested ones by their path, the same with its value, and its type."""
    field, value, inner = _culprit(name, value, kind)
    shown = str(value) if isinstance(value, Decimal | int | str) else type(value).__name__
    return field, f"{field} {cut(shown, _SHOWN)}", inner


def _refusal(value: Any, kind: Any) -> str:
    """Why a value does not fit, in Arrow's words; empty where it does."""
    try:
        pa.array([value], kind)
    except (pa.ArrowException, OverflowError) as error:
        return str(error).partition("\n")[0]
    return ""


def _culprit(path: str, value: Any, kind: Any) -> tuple[str, Any, Any]:
    """The innermost value that does not fit, with its path and its type."""
    parts: list[tuple[str, Any, Any]] = []
    if pa.types.is_struct(kind):
        parts = [(f"{path}.{field.name}", value[field.name], field.type) for field in kind]
    elif pa.types.is_list(kind):
        parts = [(path, entry, kind.value_type) for entry in value]
    wrong = [part for part in parts if part[1] is not None and _refusal(part[1], part[2])]
    return _culprit(*wrong[0]) if wrong else (path, value, kind)
