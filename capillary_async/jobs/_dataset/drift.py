"""What was new in an export: members, statuses, event names and source tables that the documentation does not know.

Invariant: each record counts once per kind and name; at most 50 names of a kind are kept, the rest is summed. Used by
the shard writer, the database, the manifest, `verify` and `reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

from capillary_async import EventName, EventType, PointsStatus, SourceTable
from capillary_async._repr import cut

__all__ = ["DriftCount", "is_drift", "lines_of", "members_of"]

MOST = 50  # names of a kind that are kept
REST = "(others)"
_NAME = 100  # characters of a name that are kept
_LONGEST = 200  # characters of a name or an example in a manifest that is read
_EVENT_NAMES = frozenset(EventName) | {one.event_name for one in EventType}
_KNOWN: Mapping[str, tuple[str, frozenset[str]]] = {
    "allocations": ("status", frozenset(PointsStatus)),
    "awarded": ("source_table", frozenset(SourceTable)),
    "events": ("event_name", _EVENT_NAMES),
    "ledger": ("event_name", _EVENT_NAMES),
}
_KINDS = {"members": "member", "status": "status", "event_name": "event name", "source_table": "source table"}

# Of one record or key: kind, name, how many records, an example.
Entry = tuple[str, str, int, str]


class DriftCount:
    """Counts of undocumented names by kind, each with the first example."""

    def __init__(self, counts: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None) -> None:
        self._counts: dict[str, dict[str, dict[str, Any]]] = {}
        self.join(counts or {})

    def add(self, kind: str, name: str, count: int, example: str) -> None:
        """Count records with something new."""
        names = self._counts.setdefault(kind, {})
        if name not in names and len(names.keys() - {REST}) >= MOST:
            name = REST
        known = names.setdefault(name, {"count": 0, "example": example})
        known["count"] += count

    def join(self, counts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Add what others counted."""
        for kind, names in counts.items():
            for name, known in names.items():
                self.add(kind, name, known["count"], known["example"])

    def add_records(
        self, source: str, keys: Sequence[tuple[Any, Sequence[Any]]], identity: Callable[[Any], Any]
    ) -> None:
        """Count the values of keys' records that the documentation does not know."""
        kind, known = _KNOWN[source]
        value_of = attrgetter(kind)
        if {value_of(record) for _, records in keys for record in records} <= known | {None}:
            return
        for key, records in keys:
            values = list(map(value_of, records))
            for value in dict.fromkeys(values):
                if value is not None and value not in known:
                    first = cut(f"key {key}, record {identity(records[values.index(value)])}", _NAME)
                    self.add(kind, cut(str(value), _NAME), values.count(value), first)

    def as_json(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The counts, as the manifest has them."""
        return {kind: self._counts[kind] for kind in _KINDS if kind in self._counts}


def members_of(outcome: Any) -> tuple[tuple[str, int, str], ...]:
    """The unknown members of an outcome's records: name, how many records, an example."""
    drift = outcome._drift  # noqa: SLF001 - for the jobs
    if not drift:
        return ()
    # Duplicates that were dropped have some, too: only what is given counts.
    given = set(map(id, outcome.items))
    found: dict[str, list[Any]] = {}
    for record, members in drift:
        if id(record) in given:
            for name, example in members.items():
                found.setdefault(name, [0, example])[0] += 1
    return tuple((name, count, example) for name, (count, example) in found.items())


def is_drift(value: Any) -> bool:
    """Whether the member `drift` of a manifest is what it must be; absent, it is nothing."""
    if value is None:
        return True
    if not isinstance(value, dict) or not cast("dict[str, Any]", value).keys() <= _KINDS.keys():
        return False
    kinds = cast("dict[str, Any]", value).values()
    return all(
        isinstance(names, dict) and all(map(_is_count, cast("dict[str, Any]", names).items())) for names in kinds
    )


def _is_count(item: tuple[str, Any]) -> bool:
    name, known = item
    if len(name) > _LONGEST or not isinstance(known, dict):
        return False
    members = cast("dict[str, Any]", known)
    count, example = members.get("count"), members.get("example")
    whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
    return whole and members.keys() == {"count", "example"} and isinstance(example, str) and len(example) <= _LONGEST


def lines_of(drift: Mapping[str, Any]) -> Iterable[str]:
    """A line per name, for a person: ascii alone, so that no text of an answer steers a terminal."""
    for kind, names in drift.items():
        for name, known in names.items():
            count = known["count"]
            records = f"{count:,} record{'' if count == 1 else 's'}"
            yield f"not documented: {_KINDS[kind]} {name!a} in {records}, e.g. {ascii(known['example'])[1:-1]}"
