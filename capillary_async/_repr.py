"""How values show themselves: reprs of bounded length.

Invariant: no repr is longer than 500 characters or costs more than that, whatever the value holds, since reprs end in
log lines. Used by the records, errors, settings and results; imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from attrs import fields

__all__ = ["LONGEST", "brief", "brief_repr", "cut", "error_repr", "printable", "record_repr", "shown"]

LONGEST = 480  # characters; the rest up to 500 is for what a log line puts around it
_BRACKETS: dict[type[Any], tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
}
_MORE = "..."
_LEAST = 12  # characters of a value that say something


def cut(text: str, room: int = LONGEST) -> str:
    """The text, or its beginning and `...`, at most `room` characters."""
    return text if len(text) <= room else text[: max(room - len(_MORE), 0)] + _MORE


def brief(value: Any, room: int = LONGEST) -> str:
    """The repr of a value, or its beginning and `...`, at most `room` characters.

    Of a long text or collection only what is shown is looked at.
    """
    kind = cast("type[Any]", type(value))
    if isinstance(value, str | bytes) and len(value) > room:
        return cut(repr(value[:room]), room)
    if kind in _BRACKETS:
        return _collection(value, *_BRACKETS[kind], room)
    if kind is dict:
        return _mapping(cast("Mapping[Any, Any]", value), room)
    try:
        return cut(repr(value), room)
    except Exception:  # noqa: BLE001 - a user's own repr, or an integer of more digits than Python writes
        return cut(object.__repr__(value), room)


def printable(text: str) -> str:
    """The text with control characters, those that turn its direction included, as escapes."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def shown(value: Any) -> str:
    """An argument as a message shows it: a line's worth of its repr."""
    return brief(value, 100)


def _collection(values: Any, opening: str, closing: str, room: int) -> str:
    if not values:
        return repr(values)
    if len(values) == 1 and opening == "(":
        closing = ",)"
    inside = _joined((brief(value, room) for value in values), room - 2, len(values))
    shown = f"{opening}{inside}{closing}"
    return cut(f"frozenset({shown})" if isinstance(values, frozenset) else shown, room)


def _mapping(members: Mapping[Any, Any], room: int) -> str:
    pairs = (f"{brief(name, room)}: {brief(value, room)}" for name, value in members.items())
    return cut("{" + _joined(pairs, room - 2, len(members)) + "}", room)


def _joined(parts: Iterable[str], room: int, count: int) -> str:
    """Parts as far as they fit, and how many there are where not all do."""
    shown: list[str] = []
    length = 0
    end = f"{_MORE} {count} in all"
    for number, part in enumerate(parts, 1):
        spare = room if number == count else room - len(end) - 2
        length += len(part) + 2
        if length - 2 > spare:
            return ", ".join([*(shown or [cut(part, max(spare, 0))]), end])
        shown.append(part)
    return ", ".join(shown)


def error_repr(self: BaseException) -> str:
    """The `__repr__` of an error, at most 480 characters."""
    return cut(f"{type(self).__name__}({', '.join(brief(one) for one in self.args)})")


def brief_repr(self: Any) -> str:
    """The `__repr__` of an attrs class: what attrs would write, at most 480 characters."""
    return _written(self, _shown(self))


def record_repr(self: Any) -> str:
    """The same of a record: where not all of it fits, the fields that are None are left out."""
    text = brief_repr(self)
    if _MORE not in text:
        return text
    return _written(self, ((name, value) for name, value in _shown(self) if value is not None))


def _shown(self: Any) -> Iterator[tuple[str, Any]]:
    """The fields that a repr shows, with their values, also of an object that is half made."""
    for one in fields(cast("Any", type(self))):
        if one.repr is not False:
            yield one.name, getattr(self, one.name, None)


def _written(self: Any, members: Iterable[tuple[str, Any]]) -> str:
    """Members as far as they fit, the last of them may be cut; `...` replaces the others."""
    name = type(self).__qualname__.rpartition(">.")[2]
    room = LONGEST - len(f"{name}(, {_MORE})")
    shown: list[str] = []
    for member, value in members:
        left = room - len(f"{member}=")
        if left < _LEAST:
            shown.append(_MORE)
            break
        shown.append(f"{member}={brief(value, left)}")
        room -= len(shown[-1]) + 2
    return f"{name}({', '.join(shown)})"
