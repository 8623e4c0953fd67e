"""Which members an API page documents for a record, and which field each of them fills.

Invariant: the names come from the fields of the models alone. Called by the converter.
"""

from functools import lru_cache
from typing import Any, Final, cast

import attrs

from capillary_async import models
from capillary_async.models._record import is_snake_case

__all__ = [
    "documented",
    "is_camel",
    "is_ours",
    "is_record",
    "name_at",
    "refuse_undocumented",
    "wire_fields",
    "wire_name",
]

# Members of the API's error messages, beside `status`.
_OF_ERRORS: Final = frozenset(
    {
        "code",
        "detail",
        "err",
        "error",
        "error_description",
        "errors",
        "message",
        "path",
        "success",
        "timestamp",
        "title",
    }
)


def is_ours(kind: Any) -> bool:
    """Whether a class is a model; known from its module, so that the question does not load the models."""
    return isinstance(kind, type) and f"{kind.__module__}.".startswith(f"{models.__name__}.") and attrs.has(kind)


def is_camel(kind: Any) -> bool:
    """Whether a class is a model whose names on the wire are in camelCase."""
    return is_ours(kind) and not is_snake_case(kind)


def wire_fields(cls: type) -> dict[str, "attrs.Attribute[Any]"]:
    """The fields of a model in camelCase by their names on the wire, without `extra`; empty for other classes."""
    if not is_camel(cls):
        return {}
    return {wire_name(one): one for one in attrs.fields(cls) if one.name != "extra"}


def wire_name(one: "attrs.Attribute[Any]") -> str:
    """`expires_on_iso` is `expiresOnISO` on the wire, unless the field says otherwise."""
    first, *others = one.name.split("_")
    camel = first + "".join("ISO" if word == "iso" else word.capitalize() for word in others)
    return cast("str", one.metadata.get("wire", camel))


@lru_cache(maxsize=32)
def documented(model: Any) -> frozenset[str]:
    """The members that the API's page documents for a record; none for users' classes."""
    if not is_ours(model):
        return frozenset()
    return frozenset(wire_fields(model) if is_camel(model) else attrs.fields_dict(model))


def is_record(model: Any, value: Any) -> bool:
    """Whether a value is a record: an object with a documented member that errors do not have too."""
    return isinstance(value, dict) and not (documented(model) - _OF_ERRORS - {"status"}).isdisjoint(
        cast("dict[str, Any]", value)
    )


def refuse_undocumented(row: Any, known: frozenset[str]) -> None:
    """Raise ValueError for an object that is no record, e.g. an error in the place of one."""
    if not known or not isinstance(row, dict):
        return
    names = cast("dict[str, Any]", row).keys()
    if known.isdisjoint(names):
        raise ValueError("expected a record, got an object without a single documented member")
    if names & known == {"status"} and names & _OF_ERRORS:
        raise ValueError("expected a record, got an error: no documented member but its status")


def name_at(cls: type, name: str) -> str:
    """The name on the wire of a field of a class."""
    return wire_name(attrs.fields_dict(cls)[name]) if is_camel(cls) else name
