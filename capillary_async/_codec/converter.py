"""JSON values to models and back: the one cattrs converter, in a quick and in a detailed form.

Invariant: nothing is lost and nothing is guessed. In records of the API a value is read in every form of `forms.py`
that keeps all of it; in users' classes only in its own form. Any other value is a fault with its path. Called by
`decode.py` when an answer first needs it, which a plain page of a model in snake_case never does.
"""

from datetime import datetime, tzinfo
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import attrs
from cattrs import Converter
from cattrs.errors import StructureHandlerNotFoundError

from capillary_async._codec import drift as _drift
from capillary_async._codec import forms as _forms
from capillary_async._codec import hooks as _hooks
from capillary_async._codec.fault_paths import faults_of
from capillary_async._codec.faults import wrong_shape
from capillary_async._codec.wire_names import (
    documented,
    is_camel,
    is_ours,
    refuse_undocumented,
    wire_name,
)
from capillary_async.models._record import is_snake_case

__all__ = ["drift_of", "entries", "to_value", "to_wire"]

T = TypeVar("T")


def entries(model: type[T], received: list[Any], path: str, timezone: tzinfo | None, body: bytes) -> tuple[T, ...]:
    """Structure the entries of an array as records, without null ones.

    Raises:
        DecodeError: With a path for each fault; indexes count null entries too.
    """
    hook, known = _hook(model, timezone, detailed=False), documented(cast("Any", model))
    try:
        own = known - {"status"}  # errors have one too
        if not known or all(value is None or not own.isdisjoint(value) for value in received):
            return tuple([hook(value, model) for value in received if value is not None])
    except StructureHandlerNotFoundError:
        raise
    except Exception:  # noqa: BLE001, S110 - the detailed form names every fault
        pass
    return _rows_in_detail(model, received, path, timezone, body)


def drift_of(model: Any, items: tuple[Any, ...], received: list[Any]) -> "_drift.Drift | None":
    """The undocumented members of the records just made; None if there are none, and for users' classes."""
    noticed, _drift.noticed.extras = _drift.noticed.extras, False
    if not is_ours(model):
        return None
    if "extra" in attrs.fields_dict(model):
        return _drift.of_extras(items, wire_name) if noticed else None
    return _drift.of_rows(items, [row for row in received if row is not None], documented(model))


def to_value(model: Any, value: Any, path: str, timezone: tzinfo | None, body: bytes) -> Any:
    """Structure a value as `model`.

    Raises:
        DecodeError: With a path for each fault, from `path` on.
        cattrs.StructureHandlerNotFoundError: `model` holds a type that cattrs does not know.
    """
    try:
        return _hook(model, timezone, detailed=False)(value, model)
    except StructureHandlerNotFoundError:
        raise
    except Exception:  # noqa: BLE001, S110 - the detailed form names every fault
        pass
    return _in_detail(model, value, path, timezone, body)


def to_wire(record: Any) -> dict[str, Any]:
    """Write a record in the shape of the wire."""
    return cast("dict[str, Any]", _converter(None, detailed=False).unstructure(record))


@lru_cache(maxsize=64)
def _converter(timezone: tzinfo | None, *, detailed: bool, ours: bool = False) -> Converter:
    """The converter in its quick or its detailed form, for our records or for users' classes; made once for each."""
    converter = (_hooks.RecordConverter if ours else Converter)(detailed_validation=detailed)
    for kind, hook in (_forms.of_records if ours else _forms.of_users)(timezone).items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_factory(_hooks.is_optional, _hooks.optional_hook)
    either = _forms.to_integer_or_text if ours else _forms.to_int_or_str
    converter.register_structure_hook_func(lambda kind: kind == int | str | None, either)
    converter.register_structure_hook_factory(_hooks.is_object, _hooks.object_hook)
    converter.register_structure_hook_factory(_hooks.is_array, _hooks.array_hook)
    converter.register_structure_hook_factory(_hooks.is_mapping, _hooks.mapping_hook)
    if not ours:
        records = partial(_converter, timezone, detailed=detailed, ours=True)

        def as_record(kind: Any) -> _hooks.Hook:
            return records().get_structure_hook(kind)

        converter.register_structure_hook_factory(is_ours, as_record)
    converter.register_unstructure_hook(datetime, _forms.from_time)
    converter.register_unstructure_hook_func(
        _hooks.is_tuple, lambda values: [converter.unstructure(one) for one in values]
    )
    converter.register_unstructure_hook_factory(is_camel, _hooks.camel_to_wire)
    converter.register_unstructure_hook_factory(is_snake_case, _hooks.snake_to_wire)
    return converter


def _hook(model: Any, timezone: tzinfo | None, *, detailed: bool) -> _hooks.Hook:
    """The function that structures a `model`."""
    return _converter(timezone, detailed=detailed).get_structure_hook(model)


def _in_detail(model: Any, value: Any, path: str, timezone: tzinfo | None, body: bytes) -> Any:
    """Structure one value in the detailed form, which collects every fault.

    Gives the value where it has none, since a fault of the quick form may be none here.
    """
    try:
        return _hook(model, timezone, detailed=True)(value, model)
    except Exception as error:  # noqa: BLE001 - users' classes raise what they like
        refusal = wrong_shape(list(faults_of(error, path)), body)
    raise refusal


def _rows_in_detail(
    model: type[T], received: list[Any], path: str, timezone: tzinfo | None, body: bytes
) -> tuple[T, ...]:
    """Structure rows in the detailed form; the indexes in paths count null entries too."""
    hook, known = _hook(model, timezone, detailed=True), documented(cast("Any", model))
    items: list[T] = []
    faults: list[tuple[str, str]] = []
    for index, value in enumerate(received):
        try:
            if value is not None:
                refuse_undocumented(value, known)
                items.append(hook(value, model))
        except Exception as error:  # noqa: BLE001 - users' classes raise what they like
            faults += faults_of(error, f"{path}[{index}]")
    if faults:
        raise wrong_shape(faults, body)
    return tuple(items)
