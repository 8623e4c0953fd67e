"""How the converter structures objects, arrays, mappings and optional values, and writes models back.

Invariant: a hook is made once for each type, and does at each value only what that type needs, since a page has
thousands. Called by `converter.py`, which registers them; what a single value may be is in `forms.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import datetime
from functools import partial
from types import NoneType, UnionType
from typing import Any, Final, cast, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from capillary_async._codec import drift as _drift
from capillary_async._codec import forms as _forms
from capillary_async._codec.faults import mismatch, unbounded
from capillary_async._codec.wire_names import is_camel, is_ours, wire_fields
from capillary_async.models._record import is_snake_case

__all__ = [
    "Hook",
    "RecordConverter",
    "array_hook",
    "camel_to_wire",
    "is_array",
    "is_mapping",
    "is_object",
    "is_optional",
    "is_tuple",
    "mapping_hook",
    "object_hook",
    "optional_hook",
    "snake_to_wire",
]

Hook = Callable[[Any, Any], Any]

_ARRAYS: Final[Mapping[Any, Callable[[list[Any]], Any]]] = {
    list: list,
    tuple: tuple,
    Sequence: list,
    Iterable: list,
    set: set,
    frozenset: frozenset,
}


class RecordConverter(Converter):
    """A converter of records of the API, which reads every form of `forms.py`; the plain one is for users' classes."""


def is_object(kind: Any) -> bool:
    cls: Any = get_origin(kind) or kind
    return isinstance(cls, type) and (attrs.has(cls) or is_dataclass(cls))


def is_optional(kind: Any) -> bool:
    return isinstance(kind, UnionType) and len(get_args(kind)) == 2 and get_args(kind)[1] is NoneType  # noqa: PLR2004


def is_array(kind: Any) -> bool:
    """`list[X]`, `tuple[X, ...]` and the like, bare ones too: cattrs alone would split a text into letters."""
    return (get_origin(kind) or kind) in _ARRAYS and (get_origin(kind) is not tuple or get_args(kind)[1:] == (...,))


def is_tuple(kind: Any) -> bool:
    return (get_origin(kind) or kind) is tuple


def is_mapping(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (dict, Mapping)


def optional_hook(kind: Any, converter: Converter) -> Hook:
    """Structures `X | None`; cattrs' own looks for the hook of X at each value, which is a third of a page's time."""
    inner: Any = get_args(kind)[0]
    hook = converter.get_structure_hook(inner)
    if not isinstance(converter, RecordConverter):
        return lambda value, _: None if value is None else hook(value, inner)
    if inner is str:
        return lambda value, _: value if value is None or type(value) is str else hook(value, inner)
    if inner is int or inner is bool:  # nearly every value is one
        return lambda value, _: value if value is None or type(value) is inner else _unless_empty(value, hook, inner)
    if is_object(inner) or is_mapping(inner):
        nothing = _forms.is_no_object
        return lambda value, _: None if value is None or (not value and nothing(value)) else hook(value, inner)
    return lambda value, _: None if value is None or (type(value) is str and not value) else hook(value, inner)


def _unless_empty(value: Any, hook: Hook, inner: Any) -> Any:
    return None if _forms.is_nothing(value) else hook(value, inner)


def object_hook(kind: Any, converter: Converter) -> Hook:
    """Structures an object by cattrs' generated function under the names of the wire, with its twins and `extra`."""
    fields = wire_fields(get_origin(kind) or kind)
    overrides = _overrides(kind, fields, converter)
    fill = cast("Hook", make_dict_structure_fn(kind, converter, **overrides))
    twins = {wire: one.metadata["twin"] for wire, one in fields.items() if "twin" in one.metadata}
    known = frozenset(fields) if "extra" in overrides else None
    bare = next((wire for wire, one in fields.items() if "bare" in one.metadata), None)

    def to_object(value: Any, _: Any) -> Any:
        if bare is not None and not isinstance(value, dict):
            value = {bare: value}
        if not isinstance(value, dict):
            raise mismatch("an object", value)
        members = cast("dict[str, Any]", value)
        record = fill(_with_twins(members, twins) if twins else members, kind)
        if known is None or members.keys() <= known:
            return record
        return attrs.evolve(record, extra=_to_extra(members, known))

    return to_object


def _to_extra(members: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The members that no field takes; the bounds of amounts hold for the numbers in them too."""
    _drift.noticed.extras = True
    extra = {name: one for name, one in members.items() if name not in known}
    for name, one in extra.items():
        if _forms.unbounded_in(one):
            fault = unbounded()
            fault.add_note(AttributeValidationNote(f"member {name}", name, Any))
            raise ClassValidationError("object", [fault], dict)  # pyright: ignore[reportCallIssue]
    return extra


def _with_twins(members: dict[str, Any], twins: Mapping[str, str]) -> dict[str, Any]:
    """The members with the text of each twin, which is exact, in the place of the number."""
    exact = {number: members[text] for number, text in twins.items() if not _forms.is_nothing(members.get(text))}
    return {**members, **exact}


def _overrides(kind: Any, fields: Mapping[str, "attrs.Attribute[Any]"], converter: Converter) -> dict[str, Any]:
    """The override of each field of a model of ours, for reading and writing."""
    if is_snake_case(kind):
        read = partial(_forms.to_milliseconds, converter.get_structure_hook(datetime))
        return {one.name: override(struct_hook=read) for one in attrs.fields(kind) if "epoch" in one.metadata}
    if not is_camel(kind):
        return {}
    of_fields = {one.name: _override(wire, one, converter) for wire, one in fields.items()}
    return {**of_fields, "extra": override(omit=True)} if "extra" in attrs.fields_dict(kind) else of_fields


def _override(wire: str, one: "attrs.Attribute[Any]", converter: Converter) -> Any:
    structured: Hook | None = None
    if "lone" in one.metadata:
        structured = _lone_hook(get_args(one.type)[0], converter)
    elif "either" in one.metadata:
        structured = _either_hook(get_args(one.type)[0], converter)
    elif "bare" in one.metadata:
        structured = _forms.to_any_text
    written = _forms.from_decimal_text if "text" in one.metadata else None
    return override(rename=wire, struct_hook=structured, unstruct_hook=written)


def _lone_hook(many: Any, converter: Converter) -> Hook:
    """An array of `many`, or one entry of it alone, or null."""
    hook = converter.get_structure_hook(many)
    nothing = _forms.is_nothing
    return lambda value, _: None if nothing(value) else hook(value if isinstance(value, list) else [value], many)


def _either_hook(one: Any, converter: Converter) -> Hook:
    """An object of class `one`, or an array of them, or null."""
    single, several = converter.get_structure_hook(one), converter.get_structure_hook(tuple[one, ...])

    def to_either(value: Any, _: Any) -> Any:
        if _forms.is_nothing(value):
            return None
        return several(value, tuple[one, ...]) if isinstance(value, list) else single(value, one)

    return to_either


def array_hook(kind: Any, converter: Converter) -> Hook:
    """Structures an array; null entries where our own models are due are left out, as everywhere."""
    build = _ARRAYS[get_origin(kind) or kind]
    entry: Any = (get_args(kind) or (Any,))[0]
    hook = converter.get_structure_hook(entry)
    each = _each_in_detail if converter.detailed_validation else _each
    skip_nulls = is_ours(entry)
    lone = isinstance(converter, RecordConverter) and skip_nulls

    def to_array(value: Any, _: Any) -> Any:
        if lone and isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            raise mismatch("an array", value)
        values: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        return build(each(hook, entry, values, skip_nulls=skip_nulls))  # pyright: ignore[reportUnknownVariableType]

    return to_array


def _each(hook: Hook, entry: Any, values: list[Any], *, skip_nulls: bool) -> list[Any]:
    return [hook(value, entry) for value in values if value is not None or not skip_nulls]


def _each_in_detail(hook: Hook, entry: Any, values: list[Any], *, skip_nulls: bool) -> list[Any]:
    """The same, with every fault collected under its index."""
    built: list[Any] = []
    faults: list[Exception] = []
    for index, value in enumerate(values):
        if value is None and skip_nulls:
            continue
        try:
            built.append(hook(value, entry))
        except Exception as error:  # noqa: BLE001 - collected, and raised below
            error.add_note(IterableValidationNote(f"entry {index}", index, entry))
            faults.append(error)
    if faults:
        raise IterableValidationError("array", faults, list)  # pyright: ignore[reportCallIssue]
    return built


def mapping_hook(kind: Any, converter: Converter) -> Hook:
    """Structures an object with names not known beforehand."""
    key, entry = get_args(kind) or (Any, Any)
    key_hook, hook = converter.get_structure_hook(key), converter.get_structure_hook(entry)

    def to_mapping(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise mismatch("an object", value)
        members = cast("dict[str, Any]", value)
        return {key_hook(name, key): _member(hook, entry, name, one) for name, one in members.items()}

    return to_mapping


def _member(hook: Hook, entry: Any, name: str, value: Any) -> Any:
    try:
        return hook(value, entry)
    except Exception as error:  # noqa: BLE001 - raised again, under the member's name
        error.add_note(AttributeValidationNote(f"member {name}", name, entry))
        raise ClassValidationError("object", [error], dict) from None  # pyright: ignore[reportCallIssue]


def snake_to_wire(cls: type, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    return make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True)


def camel_to_wire(cls: type, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    """Writes a record by cattrs' generated function, with the members of its `extra`."""
    overrides = _overrides(cls, wire_fields(cls), converter)
    write: Callable[[Any], dict[str, Any]] = make_dict_unstructure_fn(
        cls, converter, _cattrs_omit_if_default=True, **overrides
    )
    return (lambda record: {**record.extra, **write(record)}) if "extra" in overrides else write
