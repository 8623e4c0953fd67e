"""The kinds of exports: the columns of their rows, with the types that DuckDB has for them.

Invariant: the columns are those of the record's class; what is nested or mixed is JSON. Used by
`_comparing/export_reader.py` and `_comparing/json_lines.py`.
"""

from __future__ import annotations

import types
import typing
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs

from capillary_async.jobs._common.several import ASKED
from capillary_async.models import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SOURCES", "ExportSource"]


@attrs.frozen
class ExportSource:
    """One kind of export.

    Attributes:
        model: The record's class.
        key: Columns that identify a record.
        derived: Columns that are not the model's own: aware times.
        group: The column by which totals are shown.
        asked: DuckDB's type of the key that was asked for.
        several: Whether several programs or categories were asked for, with a column each.
    """

    model: type[Any]
    key: tuple[str, ...]
    group: str
    derived: tuple[str, ...] = ()
    asked: str = "BIGINT"
    several: bool = False

    def types(self) -> dict[str, str]:
        """DuckDB's type of every column, by name."""
        hints = typing.get_type_hints(self.model)
        own = {field.name: _sql_type(hints[field.name]) for field in attrs.fields(self.model)}
        times = dict.fromkeys(self.derived, "TIMESTAMP WITH TIME ZONE")
        scope = dict.fromkeys(ASKED, "BIGINT") if self.several else {}
        return {"asked_key": self.asked, "shard": "INTEGER", "row": "INTEGER"} | scope | own | times


SOURCES: Mapping[str, ExportSource] = {
    "allocations": ExportSource(
        PointsAllocation, ("id",), "status", derived=("awarded_at", "expires_at", "updated_at")
    ),
    "awarded": ExportSource(PointsAwarded, ("source_table", "id"), "source_table"),
    "events": ExportSource(LoyaltyEvent, ("id",), "event_name"),
    "ledger": ExportSource(LedgerEvent, ("event_log_id", "unique_id"), "event_name", asked="VARCHAR"),
}


_PLAIN: Mapping[Any, str] = {
    int: "BIGINT",
    str: "VARCHAR",
    Decimal: "DECIMAL(18,3)",
    bool: "BOOLEAN",
    datetime: "TIMESTAMP WITH TIME ZONE",
}


def _sql_type(hint: Any) -> str:
    """The column type of a field; what is nested or mixed is JSON."""
    members = [each for each in typing.get_args(hint) if each is not type(None)]
    alone = members[0] if isinstance(hint, types.UnionType) and len(members) == 1 else hint
    return _PLAIN.get(alone, "JSON")
