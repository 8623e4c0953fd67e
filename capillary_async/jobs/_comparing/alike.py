"""Warnings about two exports that did not ask for the same: what differs looks like missing records.

Invariant: a comparison of exports with other windows, programs or customers never passes without a word. Used by
`_comparing/sides.py` and `_comparing/checks.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capillary_async.jobs._comparing.export_reader import ExportReader

__all__ = ["unlike"]

# Two calls name the same things in two ways.
_SAME = {"start_expiry_date": "expiry_date_start", "end_expiry_date": "expiry_date_end"}
_OF_THE_CALL = frozenset({"batch_size", "not_found"})  # say how it is asked, not what
_SHARED = frozenset({"program_id", "point_category_id", "expiry_date_start", "expiry_date_end", "org_id"})


def unlike(folder: ExportReader, other: ExportReader) -> list[str]:
    """List what the two exports asked for differently, each as a warning."""
    found = [*_queries(folder, other)]
    one, two = folder.manifest.cluster, other.manifest.cluster
    if one and two and one != two:
        found.append(f"the exports are of different clusters: {one} and, in {other.path}, {two}")
    if folder.source_name == other.source_name:
        found += _customers(folder, other)
    return found


def _queries(folder: ExportReader, other: ExportReader) -> Iterator[str]:
    mine, theirs = _asked(folder), _asked(other)
    names = dict.fromkeys((*mine, *theirs))
    if folder.source_name != other.source_name:
        names = {name: None for name in names if name in _SHARED and name in mine and name in theirs}
    parts = [f"{name} {_shown(mine.get(name))} and {_shown(theirs.get(name))}" for name in names
             if mine.get(name) != theirs.get(name)]  # fmt: skip
    if parts:
        yield (
            f"the exports {folder.path} and {other.path} asked for different records: {'; '.join(parts)}. What only "
            "one of them asked for shows as missing in the other"
        )


def _asked(folder: ExportReader) -> dict[str, Any]:
    query = folder.manifest.query
    return {_SAME.get(name, name): value for name, value in query.items() if name not in _OF_THE_CALL}


def _customers(folder: ExportReader, other: ExportReader) -> Iterator[str]:
    digests = [each.manifest.ids.digest for each in (folder, other)]
    if None not in digests and digests[0] != digests[1]:
        counts = [f"{each.manifest.ids.asked:,}" for each in (folder, other)]
        yield (
            f"the exports {folder.path} and {other.path} asked for different customers, {counts[0]} and {counts[1]}. "
            "Records of those that only one of them asked for show as missing in the other"
        )
    for each in (folder, other):
        failed = each.manifest.ids.failed
        if failed:
            yield f"{failed:,} customers of {each.path} failed: their records show as missing in it"


def _shown(value: Any) -> str:
    return "not given" if value in (None, "", []) else str(value)
