"""Records as rows: the values of a line of the output.

Invariant: quantities are text with the digits that came, times are ISO 8601, and a file has the same columns whatever
it holds. Used by `_commands/read.py` and `_commands/ledger.py`; written by `_io/writer.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from capillary_async.models import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded
from capillary_async.models._record import Record, columns_of, row_of

__all__ = ["ALLOCATION", "AWARDED", "EVENT", "LEDGER", "Row", "Table"]

Row = dict[str, Any]


@attrs.frozen
class Table:
    """The columns of one kind of record.

    Attributes:
        columns: In order.
        row: The values of a record; the columns before its own are the command's.
        lean: Whether JSON leaves out what is empty: ledger events mostly are.
    """

    columns: tuple[str, ...]
    row: Callable[[Any], Row]
    lean: bool = False


def _of(model: type[Record], *first: str, lean: bool = False) -> Table:
    return Table((*first, *columns_of(model)), row_of, lean)


ALLOCATION = _of(PointsAllocation, "asked_id")
AWARDED = _of(PointsAwarded, "asked_id", "asked_status")
EVENT = _of(LoyaltyEvent, "asked_id")
LEDGER = _of(LedgerEvent, lean=True)
