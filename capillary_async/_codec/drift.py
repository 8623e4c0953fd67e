"""Members of records that the API's pages do not document, noticed while answers are decoded.

Invariant: each unknown member belongs to one record, so that it is counted as often as its record is given. Names and
examples are of bounded length. Called by `decode.py` and the endpoints; the jobs count what it finds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import attrs

from capillary_async._repr import brief, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Drift", "carried", "joined", "noticed", "of_extras", "of_rows"]

Drift = tuple[tuple[Any, Mapping[str, str]], ...]
"""Records, each with its unknown members: the path of each and an example of its value."""

_NAME = 100  # characters of a name that are kept
_VALUE = 60
_MOST = 50  # members of a record that are kept by name
_REST = "(others)"


class _Noticed(threading.local):
    """Whether a record with unknown members was made in this thread since `drift_of` last looked."""

    extras = False


noticed = _Noticed()


def carried(one: Any) -> Drift:
    """The drift that an answer, a page or an outcome carries beside its records, in its private `_drift`."""
    return getattr(one, "_drift", None) or ()


def joined(parts: Iterable[Any]) -> Drift | None:
    """The drift that several pages or answers carry, as one; None where there is none."""
    return tuple(one for part in parts for one in carried(part)) or None


def of_rows(
    items: Sequence[Any], rows: Sequence[Any], known: frozenset[str], value_of: Callable[[Any], Any] | None = None
) -> Drift | None:
    """The unknown members of records that keep none of them, from the objects they were made of.

    Args:
        items: The records.
        rows: The parsed object of each.
        known: The documented members.
        value_of: Reads a value that is not parsed yet; None where all are.
    """
    found: list[tuple[Any, Mapping[str, str]]] = []
    for item, row in zip(items, rows, strict=True):
        if not row.keys() <= known:
            new = {name: value_of(one) if value_of else one for name, one in row.items() if name not in known}
            found.append((item, _bounded((f"{_prefix(item)}.{name}", one) for name, one in new.items())))
    return tuple(found) or None


def of_extras(items: Sequence[Any], wire: Callable[[Any], str]) -> Drift | None:
    """The unknown members of records that keep them in `extra`, at every level.

    Args:
        items: The records.
        wire: The name of a field in the answer.
    """
    found = ((item, _bounded(_extras(item, f"{_prefix(item)}[]", wire))) for item in items)
    return tuple((item, members) for item, members in found if members) or None


def _prefix(record: Any) -> str:
    kind = cast("Any", type(record))
    name = getattr(kind, "model", kind).__name__  # of a raw row its model's
    return "events" if name == "LedgerEvent" else name[:1].lower() + name[1:]


def _extras(value: Any, path: str, wire: Callable[[Any], str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple):
        for one in cast("tuple[Any, ...]", value):
            yield from _extras(one, f"{path}[]", wire)
    elif isinstance(value, Mapping):
        for one in cast("Mapping[str, Any]", value).values():
            yield from _extras(one, f"{path}{{}}", wire)
    elif attrs.has(cast("Any", type(value))):
        for name, one in getattr(value, "extra", {}).items():
            yield f"{path}.{name}", one
        for field in attrs.fields(cast("Any", type(value))):
            if field.name != "extra":
                yield from _extras(getattr(value, field.name), f"{path}.{wire(field)}", wire)


def _bounded(members: Iterator[tuple[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, value in members:
        name = cut(path, _NAME)
        if name not in found:
            found[name if len(found) < _MOST else _REST] = _example(value)
    return found


def _example(value: Any) -> str:
    return cut(str(value), _VALUE) if isinstance(value, Decimal) else brief(value, _VALUE)
