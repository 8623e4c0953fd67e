"""The allocations of one or more exports in one table, for the reports.

Invariant: every allocation is there once; what the exports do not show is part of the notes. Used by
`_report/expiry.py` and `_report/liability.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from capillary_async.jobs._books.duckdb_engine import name
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.export_reader import ExportReader, open_folder, whole_exports
from capillary_async.jobs._comparing.rule_catalog import REMAINING
from capillary_async.jobs._comparing.summary import read_time
from capillary_async.jobs._dataset.local_days import QUARTER, ServerZone, server_zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo
    from pathlib import Path

    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["EXPIRY_QUARTER", "ROWS", "Allocations", "count_rows", "open_allocations"]

ROWS = "report_rows"  # the table
EXPIRY_QUARTER = f"(expiry_date - 1) // {QUARTER}"
_COLUMNS = (
    "id", "customer_id", "status", "expiry_date", "program_id", "point_category_id", "points_exclusive",
    "redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value",
)  # fmt: skip
_ONE_TABLE = (
    "the allocation endpoints show one of five award tables, in the categories that were exported: line-item points, "
    "promotion points and other categories are not in these figures"
)
_NOTED = (
    (
        f"{REMAINING} IS NULL",
        "allocations without one of the four columns that the rest is computed from, counted as 0",
    ),
    ("status = 'AVAILABLE' AND expiry_date IS NULL", "AVAILABLE allocations without an expiry date"),
    ("status IS NULL", "allocations without a status, not counted as AVAILABLE"),
)


@frozen
class Allocations:
    """The exports whose allocations are in the table.

    Attributes:
        exports: The exports.
        zone: The server's zone, whose days and months count.
        notes: What the figures do not show, as sentences.
    """

    exports: tuple[ExportReader, ...]
    zone: ServerZone
    notes: tuple[str, ...]

    @property
    def failed(self) -> int:
        """Customers that failed, whose points are missing."""
        return sum(export.manifest.ids.failed for export in self.exports)

    @property
    def read(self) -> tuple[str, ...]:
        """When each export was read."""
        return tuple(f"{export.path}: {read_time(export):%Y-%m-%d %H:%M} UTC" for export in self.exports)


def open_allocations(engine: Engine, folders: Sequence[Path], timezone: tzinfo | str | None) -> Allocations:
    """Open the exports and read their rows into the table.

    Raises:
        JobError: A folder is no finished export of allocations, or an allocation is in two of them.
    """
    exports = tuple(open_folder(engine, path, f"export_{nth}") for nth, path in enumerate(whole_exports(folders)))
    for export in exports:
        if export.source_name != "allocations":
            raise JobError(
                f"{export.path} is an export of {export.source_name}; these reports are made of exports of allocations",
                path=str(export.path),
            )
    parts = (
        f"SELECT {nth} AS export, asked_key, {_selected(each)} FROM {name(each.relation)}"
        for nth, each in enumerate(exports)
    )
    engine.run(f"CREATE TABLE {ROWS} AS {' UNION ALL '.join(parts)}")  # the files are read once
    _refuse_shared(engine, exports)
    notes = tuple(_notes(engine, exports))
    return Allocations(exports, server_zone(timezone, [export.manifest for export in exports]), notes)


def count_rows(engine: Engine, condition: str) -> int:
    """How many allocations meet a condition."""
    return int(engine.row(f"SELECT count(*) FROM {ROWS} WHERE {condition}")[0])


def _selected(export: ExportReader) -> str:
    """The columns that count; if a row has no program or category, the one it was asked under, if there is one."""
    asked = {column: f"asked_{column}" for column in _COLUMNS if f"asked_{column}" in export.columns}
    return ", ".join(f"coalesce({one}, {asked[one]}) AS {one}" if one in asked else one for one in _COLUMNS)


def _refuse_shared(engine: Engine, exports: Sequence[ExportReader]) -> None:
    """Refuse exports that have the same allocation: it would count twice."""
    if len(exports) == 1:
        return
    shared = engine.rows(
        f"SELECT id, min(export), max(export) FROM {ROWS} WHERE id IS NOT NULL GROUP BY id "
        "HAVING min(export) <> max(export) ORDER BY id LIMIT 1"
    )
    for number, first, second in shared:
        paths = [str(exports[int(nth)].path) for nth in (first, second)]
        raise JobError(
            f"allocation {number} is in {paths[0]} and in {paths[1]}, and would count "
            "twice: give exports of different customers, programs, categories or expiry dates"
        )


def _notes(engine: Engine, exports: Sequence[ExportReader]) -> list[str]:
    notes = [_ONE_TABLE]
    repeated = _drop_repeated(engine)
    if repeated:
        notes.append(f"allocations in the lists of two customers, e.g. after a merge, counted once: {repeated:,}")
    for condition, words in _NOTED:
        number = count_rows(engine, condition)
        if number:
            notes.append(f"{words}: {number:,}")
    for export in exports:
        failed = export.manifest.ids.failed
        if failed:
            notes.append(f"customers of {export.path} that failed, whose points are missing here: {failed:,}")
    return notes


def _drop_repeated(engine: Engine) -> int:
    """Keep an allocation that is in the lists of several customers once, with its owner; return how many went."""
    gone: tuple[Any, ...] = engine.row(
        f"DELETE FROM {ROWS} WHERE rowid IN (SELECT rowid FROM {ROWS} WHERE id IS NOT NULL QUALIFY row_number() "
        "OVER (PARTITION BY id ORDER BY (customer_id = asked_key) DESC NULLS LAST, asked_key) > 1)"
    )
    return int(gone[0])
