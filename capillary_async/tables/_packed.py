"""`PackedColumns`: the columns of raw rows as packed whole numbers, which become Arrow arrays without a call per value.

Invariant: exact, or refused. An amount is packed as its thousandths only where that keeps its value; a page with any
value that does not fit is left to `Columns`, which reports it. Called by `batches` and `columns`.
"""

from __future__ import annotations

from itertools import chain
from struct import Struct, error
from typing import TYPE_CHECKING, Any, Final

from capillary_async.tables._imports import pa
from capillary_async.tables._schema import QUANTITY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["PackedColumns", "amounts_of", "numbers_of"]

_INT64 = pa.int64()
_TEXT = pa.string()
_BEYOND: Final = 10**18  # thousandths: the first amount beyond decimal128(18, 3)
_PLACES: Final = 3
_MOST: Final = 50_000  # amounts that are remembered


class _Thousandths(dict[Any, int]):
    """Thousandths by amount: an int, or the bytes of digits without an exponent. Amounts repeat."""

    def __missing__(self, amount: Any) -> int:
        """Compute the thousandths.

        Raises:
            KeyError: It is no amount, or it does not fit.
        """
        if type(amount) is int:
            found = amount * 1_000
        elif type(amount) is bytes:
            whole, _, part = amount.partition(b".")
            part = part.rstrip(b"0")
            if len(part) > _PLACES:
                raise KeyError(amount)
            try:
                found = int(whole + part.ljust(_PLACES, b"0"))
            except ValueError:  # an exponent
                raise KeyError(amount) from None
        else:
            raise KeyError(amount)
        if abs(found) >= _BEYOND:
            raise KeyError(amount)
        if len(self) >= _MOST:
            self.clear()
        self[amount] = found
        return found


_thousandths: Callable[[Any], int] = _Thousandths().__getitem__
_CONVERT: Final = {_INT64: None, _TEXT: None, QUANTITY: _thousandths}
_structs: dict[int, Struct] = {}


def _pack(values: Sequence[int]) -> bytes:
    """Whole numbers as int64.

    Raises:
        struct.error: One of them is none, or does not fit.
    """
    count = len(values)
    struct = _structs.get(count)
    if struct is None:
        struct = Struct(f"{count}q")
        if count <= 1_000:  # noqa: PLR2004 - pages; few lengths, which come again
            _structs[count] = struct
    return struct.pack(*values)


def _packed(values: Sequence[Any], convert: Callable[[Any], int] | None) -> tuple[bytes, Sequence[int]]:
    """Values as int64, with the places of those that are null.

    Raises:
        KeyError, struct.error: A value does not fit.
    """
    try:
        return _pack(values if convert is None else list(map(convert, values))), ()
    except (KeyError, error):
        if None not in values:
            raise
    nulls = [place for place, value in enumerate(values) if value is None]
    numbers = [0 if value is None else value if convert is None else convert(value) for value in values]
    return _pack(numbers), nulls


def _array(data: bytes, count: int, nulls: Sequence[int], kind: Any) -> Any:
    """An array of packed numbers, whose memory it shares; of thousandths as the decimals that they are."""
    valid = None
    if nulls:
        bits = bytearray(b"\xff" * ((count + 7) // 8))
        for place in nulls:
            bits[place >> 3] &= ~(1 << (place & 7))
        valid = pa.py_buffer(bits)
    numbers = pa.Array.from_buffers(_INT64, count, [valid, pa.py_buffer(data)], len(nulls))
    return numbers if kind == _INT64 else numbers.cast(pa.decimal128(19)).view(QUANTITY)


def numbers_of(values: Sequence[Any]) -> Any:
    """Whole numbers and nulls as an array of int64.

    Raises:
        struct.error: A value does not fit.
    """
    data, nulls = _packed(values, None)
    return _array(data, len(values), nulls, _INT64)


def amounts_of(values: Sequence[Any]) -> Any:
    """Amounts of raw rows and nulls as an array of decimals.

    Raises:
        KeyError: A value is another, or does not fit.
    """
    data, nulls = _packed(values, _thousandths)
    return _array(data, len(values), nulls, QUANTITY)


class PackedColumns:
    """Columns of raw rows, page after page, until they become arrays.

    Args:
        fields: The Arrow type of each field of the model, in its order.
        wanted: The fields that fill columns.

    Attributes:
        rows: The rows that were added.
    """

    def __init__(self, fields: Mapping[str, Any], wanted: Sequence[str]) -> None:
        places = {name: place for place, name in enumerate(fields)}
        self._kinds = [(name, fields[name], places[name], _CONVERT.get(fields[name])) for name in wanted]
        self._usable = all(kind in _CONVERT for _, kind, *_ in self._kinds)
        self._clear()

    def _clear(self) -> None:
        self.rows = 0
        self._data: list[list[Any]] = [[] for _ in self._kinds]
        self._nulls: list[list[int]] = [[] for _ in self._kinds]

    def add(self, columns: Sequence[Sequence[Any]]) -> bool:
        """Add the columns of a page; False, and nothing of it is added, where a value does not fit."""
        if not self._usable:
            return False
        try:
            made = [
                (columns[place], ()) if kind == _TEXT else _packed(columns[place], convert)
                for _, kind, place, convert in self._kinds
            ]
        except (KeyError, error):
            return False
        for data, nulls, (more, places) in zip(self._data, self._nulls, made, strict=True):
            data.append(more)
            nulls.extend(self.rows + place for place in places)
        self.rows += len(columns[0])
        return True

    def take(self) -> dict[str, Any]:
        """The array of each field; nothing is left."""
        arrays = {
            name: pa.array(list(chain.from_iterable(data)), _TEXT)
            if kind == _TEXT
            else _array(b"".join(data), self.rows, nulls, kind)
            for (name, kind, *_), data, nulls in zip(self._kinds, self._data, self._nulls, strict=True)
        }
        self._clear()
        return arrays
