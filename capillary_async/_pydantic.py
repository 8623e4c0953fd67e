"""The pydantic schemas of records, pages and outcomes: how pydantic and FastAPI validate, describe and serialise them.

Invariant: amounts are exact. They leave as text with their own digits, and come as text, whole numbers or Decimals:
a float has been rounded by whoever made it, and is refused. pydantic is loaded by pydantic alone.
Called by the hooks `__get_pydantic_core_schema__` of `Record`, `Page` and `Outcome`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, cast, get_args, get_type_hints

import attrs

from capillary_async.errors import ApiMessage

__all__ = ["record_schema", "values_schema"]

Handler = Any  # pydantic.GetCoreSchemaHandler

_AMOUNT = {"anyOf": [{"type": "string", "pattern": r"^-?\d+(\.\d+)?([eE][-+]?\d+)?$"}, {"type": "integer"}]}


def record_schema(model: type[Any], derived: Mapping[str, Any], row_of: Callable[[Any], Any], handler: Handler) -> Any:
    """The schema of a record: an instance, or an object of its fields; in JSON the row that `row_of` gives.

    Args:
        model: The class.
        derived: The hint of each property that leaves with the fields.
        row_of: Gives the JSON values of a record.
        handler: pydantic's.
    """
    from pydantic_core import core_schema as cs  # noqa: PLC0415 - pydantic asks, so it is there

    hints = get_type_hints(model)
    members = {
        name: cs.typed_dict_field(_field(hints[name], handler), required=False) for name in attrs.fields_dict(model)
    }
    from_object = cs.no_info_after_validator_function(
        lambda values: model(**{name: value for name, value in values.items() if value is not None}),
        cs.typed_dict_schema(members),
    )
    described = {**members, **{name: cs.typed_dict_field(_field(hint, handler)) for name, hint in derived.items()}}

    def leave(record: Any, info: Any) -> Any:
        return row_of(record) if info.mode == "json" else record.to_dict()

    def describe(_schema: Any, handler: Any) -> Any:
        which = described if handler.mode == "serialization" else members
        shown = handler(cs.typed_dict_schema(which))
        return {**shown, "title": model.__name__}

    return cs.json_or_python_schema(
        json_schema=from_object,
        python_schema=cs.union_schema([cs.is_instance_schema(model), from_object], mode="left_to_right"),
        ref=f"{model.__module__}.{model.__qualname__}",
        serialization=cs.plain_serializer_function_ser_schema(leave, info_arg=True),
        metadata={"pydantic_js_functions": [describe]},
    )


def _field(hint: Any, handler: Handler) -> Any:
    """The schema of a field, which may be null; of an amount one that refuses floats."""
    from pydantic_core import core_schema as cs  # noqa: PLC0415 - pydantic asks, so it is there

    if Decimal not in (hint, *get_args(hint)):
        return cs.nullable_schema(handler.generate_schema(hint))

    amount = cs.no_info_before_validator_function(
        _no_float, cs.decimal_schema(), metadata={"pydantic_js_functions": [_describe_amount]}
    )
    return cs.nullable_schema(amount)


def _describe_amount(_schema: Any, _handler: Any) -> dict[str, Any]:
    return dict(_AMOUNT)


def _no_float(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError("an amount is text, a whole number or a Decimal; a float may have been rounded")
    return value


def values_schema(kind: type[Any], source: Any, hints: Mapping[str, Any], handler: Handler) -> Any:
    """The schema of a page or an outcome: an instance, which leaves as an object of the values named in `hints`.

    Args:
        kind: The class.
        source: The hint as written, e.g. `Page[LoyaltyEvent]`, whose arguments replace the type variables.
        hints: What leaves, by name.
        handler: pydantic's.
    """
    from pydantic_core import core_schema as cs  # noqa: PLC0415 - pydantic asks, so it is there

    variables = getattr(kind, "__parameters__", ())
    known = dict(zip(variables, get_args(source) or (Any,) * len(variables), strict=True))
    members = {name: cs.typed_dict_field(handler.generate_schema(_filled(hint, known))) for name, hint in hints.items()}
    leaving = cs.typed_dict_schema(members)

    def leave(value: Any) -> dict[str, Any]:
        return {name: _plain(getattr(value, name)) for name in hints}

    def describe(_schema: Any, handler: Any) -> Any:
        return {**handler(leaving), "title": kind.__name__}

    return cs.is_instance_schema(
        kind,
        serialization=cs.plain_serializer_function_ser_schema(leave, return_schema=leaving),
        metadata={"pydantic_js_functions": [describe]},
    )


def _plain(value: Any) -> Any:
    """Warnings and errors as objects; anything else as it is."""
    if isinstance(value, Exception):
        return {"type": type(value).__name__, "message": str(value)}
    if isinstance(value, tuple) and value and isinstance(value[0], ApiMessage):
        messages = cast("tuple[ApiMessage, ...]", value)
        return tuple({"code": one.code, "message": one.message} for one in messages)
    return cast("Any", value)


def _filled(hint: Any, known: Mapping[Any, Any]) -> Any:
    """A hint with its type variables replaced."""
    if hint in known:
        return known[hint]
    arguments = get_args(hint)
    if not arguments or not hasattr(hint, "__parameters__"):
        return hint
    parameters = hint.__parameters__
    return hint[tuple(known[one] for one in parameters)] if parameters else hint
