"""The checks of a JSON object's members, by which a class reads itself from a file that is not trusted.

Invariant: a wrong member raises an error that names it. Used by `manifest.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
from attrs import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "WrongMemberError",
    "amount",
    "an_object",
    "as_class",
    "by",
    "count",
    "dict_of",
    "list_of",
    "one_that",
    "shown",
    "text",
]

T = TypeVar("T")
_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?(E[+-]?[0-9]{1,4})?", re.ASCII)


class WrongMemberError(Exception):
    """A member has a value that no export writes.

    Attributes:
        member: Its path, e.g. `shards[0].file`.
        reason: The value, and what is expected.
    """

    def __init__(self, member: str, value: object, expected: str) -> None:
        super().__init__(member)
        self.member, self.reason = member, f"{member} is {shown(value)}, {expected}"


def by(check: Callable[[Any, str], Any]) -> dict[str, Any]:
    """The metadata of a field: `check(value, member)` returns the value for the class, or raises."""
    return {"check": check}


def one_that(allowed: Callable[[Any], bool], expected: str) -> Callable[[Any, str], Any]:
    def check(value: Any, member: str) -> Any:
        if not allowed(value):
            raise WrongMemberError(member, value, expected)
        return value

    return check


def text(expected: str = "text") -> Callable[[Any, str], Any]:
    return one_that(lambda value: isinstance(value, str), f"and must be {expected}")


def count(least: int, most: int) -> Callable[[Any, str], Any]:
    return one_that(
        lambda value: type(value) is int and least <= value <= most,
        f"and must be a whole number from {least} to {most}",
    )


def amount(value: Any, member: str) -> str:
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise WrongMemberError(member, value, "and must be a decimal number as text")
    return value


def an_object(value: Any, member: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongMemberError(member, value, "and must be an object")
    return cast("dict[str, Any]", value)


def list_of(check: Callable[[Any, str], T]) -> Callable[[Any, str], tuple[T, ...]]:
    def check_list(value: Any, member: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise WrongMemberError(member, value, "and must be a list")
        return tuple(check(each, f"{member}[{nth}]") for nth, each in enumerate(cast("list[Any]", value)))

    return check_list


def dict_of(check: Callable[[Any, str], T]) -> Callable[[Any, str], dict[str, T]]:
    def check_dict(value: Any, member: str) -> dict[str, T]:
        return {name: check(each, f"{member}.{name}") for name, each in an_object(value, member).items()}

    return check_dict


def as_class(kind: type[T]) -> Callable[[Any, str], T]:
    """An object as a class: null is the same as absent, and both give the default where there is one."""

    def check_members(value: Any, member: str) -> T:
        members, prefix = an_object(value, member), f"{member}." if member else ""
        found: dict[str, Any] = {}
        for each in cast("tuple[attrs.Attribute[Any], ...]", attrs.fields(cast("Any", kind))):
            given = members.get(each.name)
            if given is not None or each.default is NOTHING:
                check = each.metadata.get("check")
                found[each.name] = check(given, f"{prefix}{each.name}") if check else given
        return kind(**found)

    return check_members


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's worth
