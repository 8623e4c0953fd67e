"""The Arrow schema of a model, read from its fields, and how the values of each field become ready for it.

Invariant: one schema per model, for tables and exports. What is typed in the model is a struct or a list, what is
free-form is JSON text with the digits that came. Called by `columns` and the export.
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

from capillary_async._repr import shown
from capillary_async.tables._imports import pa

__all__ = ["DERIVED", "QUANTITY", "Convert", "fields_of", "kind_of", "schema"]

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
_JSON = msgspec.json.Encoder(decimal_format="number")

Convert = Callable[[Any], Any]


def schema(model: type[Any]) -> Any:
    """The Arrow schema of a model, a `pyarrow.Schema`: one column per field, in the order of the model.

    Amounts are decimal128(18, 3); ids are int64; epoch milliseconds are int64 and are followed by a column of the same
    time as timestamp[ms, UTC], e.g. `awarded_date` by `awarded_at`; nested records are structs and lists.

    Args:
        model: `PointsAllocation`, `PointsAwarded`, `LoyaltyEvent` or `LedgerEvent`.

    Raises:
        TypeError: It is no model of this package.

    Example:
        >>> from capillary_async.models import PointsAllocation
        >>> schema(PointsAllocation).field("points_exclusive").type
        Decimal128Type(decimal128(18, 3))
    """
    if not (isinstance(cast("object", model), type) and attrs.has(model)):
        raise TypeError(f"schema takes a model, e.g. PointsAllocation, got {shown(model)}")
    described: list[tuple[str, Any]] = []
    for name, (kind, _) in fields_of(model).items():
        described.append((name, kind))
        if name in DERIVED:
            described.append((DERIVED[name], pa.timestamp("ms", "UTC")))
    return pa.schema(described)


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
    fields = fields_of(model)
    kind = pa.struct([(name, type_) for name, (type_, _) in fields.items()])
    converters = [(name, attrgetter(name), convert) for name, (_, convert) in fields.items()]

    def struct(value: Any) -> Any:
        if value is None:
            return None
        return {name: convert(get(value)) if convert else get(value) for name, get, convert in converters}

    return kind, struct


def fields_of(model: type[Any]) -> dict[str, tuple[Any, Convert | None]]:
    """The Arrow type of each field, and how its values are made ready for it; None where they are."""
    hints = get_type_hints(model)
    return {attribute.name: kind_of(hints[attribute.name]) for attribute in attrs.fields(model)}


def kind_of(hint: Any) -> tuple[Any, Convert | None]:
    """The Arrow type of a type hint, and how its values become ready for it; None where they are."""
    alternatives = _alternatives(hint)
    if len(alternatives) > 1:
        several = [one for one in alternatives if get_origin(one) is tuple]
        return kind_of(several[0]) if several else (pa.string(), _text)
    (one,) = alternatives
    if one in _PLAIN:
        return _PLAIN[one], None
    if attrs.has(one):
        return _struct(one)
    inner = [each for argument in get_args(one)[-1 if get_origin(one) is Mapping else 0 :]
             for each in _alternatives(argument) if each is not Ellipsis]  # fmt: skip
    if inner and inner[0] is not Any:
        kind, convert = kind_of(inner[0])
        if get_origin(one) is tuple:
            return pa.list_(kind), _listed(convert)
        if convert is not None:
            return pa.map_(pa.string(), kind), _mapped(convert)
    return pa.string(), _free


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [one for one in get_args(hint) if one is not type(None)]
    return [hint]
