"""From records to rows: what stands in a line of the output.

The rule kept here: quantities are text with the digits that came, times are ISO 8601, and a file has the same columns
whatever it holds. Used by `_read.py` and `_ledger.py`; written by `_write.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import attrs
import msgspec

from capillary_async.models import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ALLOCATION", "AWARDED", "EVENT", "LEDGER", "Row", "Table"]

Row = dict[str, Any]


@attrs.frozen
class Table:
    """One kind of row.

    Attributes:
        columns: In order.
        row: The values of a record; the columns before its own are the command's.
        lean: Whether JSON leaves out what is empty: ledger events mostly are.
    """

    columns: tuple[str, ...]
    row: Callable[[Any], Row]
    lean: bool = False


def _names(model: type[Any]) -> tuple[str, ...]:
    return tuple(attribute.name for attribute in attrs.fields(model))


def _flat(model: type[Any], *first: str, derived: tuple[str, ...] = ()) -> Table:
    names = _names(model)

    def row(record: Any) -> Row:
        plain = msgspec.to_builtins(record)
        values = {name: plain[name] for name in names}
        values.update((name, msgspec.to_builtins(_derived(record, name))) for name in derived)
        return values

    return Table((*first, *names, *derived), row)


def _derived(record: Any, name: str) -> Any:
    try:
        return getattr(record, name)
    except OverflowError:  # a time beyond the year 9999: its milliseconds stand in their own column
        return None


def lean(value: Any) -> Any:
    """The same without empty members."""
    if isinstance(value, dict):
        members = {str(name): lean(member) for name, member in cast("Mapping[Any, Any]", value).items()}
        return {name: member for name, member in members.items() if member not in (None, {}, [])}
    if isinstance(value, list | tuple):
        return [lean(member) for member in cast("Sequence[Any]", value)]
    return value


def _ledger_row(record: LedgerEvent) -> Row:
    members = lean(msgspec.to_builtins(record))
    return {name: members.get(name) for name in _names(LedgerEvent)}


ALLOCATION = _flat(PointsAllocation, "asked_id", derived=("awarded_at", "expires_at", "updated_at", "remaining"))
AWARDED = _flat(PointsAwarded, "asked_id", "asked_status")
EVENT = _flat(LoyaltyEvent, "asked_id")
LEDGER = Table(_names(LedgerEvent), _ledger_row, lean=True)
