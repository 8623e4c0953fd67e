"""The columns of an export: those of the model, after the asked key, the shard and the row.

Invariant: nothing is rounded, cut or coerced. What does not fit is an error that names key, row and field.
Called by the Parquet format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capillary_async.jobs._common.pyarrow_import import pa
from capillary_async.jobs._common.several import ASKED, asked_of
from capillary_async.tables._columns import Columns as ModelColumns
from capillary_async.tables._schema import DERIVED

__all__ = ["DERIVED", "Columns"]


class Columns:
    """The columns of one model, with those in front: the asked key, the shard, the row.

    Args:
        model: The class of the records.
        key_type: The type of the asked key.
        several: Whether there are several programs or categories, with a column each for the one asked for.
    """

    def __init__(self, model: type[Any], key_type: Any, *, several: bool = False) -> None:
        self._model = ModelColumns(model, advice="export as jsonl, which keeps all digits")
        self._several = several
        first = [("asked_key", key_type), ("shard", pa.int32()), ("row", pa.int32())]
        first += [(name, pa.int64()) for name in ASKED] if several else []
        self.schema = pa.schema([*(pa.field(name, kind) for name, kind in first), *self._model.schema])

    def table(self, shard: int, entries: Sequence[tuple[Any, Sequence[Any]]]) -> Any:
        """A table of the records of several keys.

        Raises:
            UnfitError: A value does not fit its column.
        """
        records = [record for _, items in entries for record in items]
        rows = [row for _, items in entries for row in range(len(items))]
        keys = [key for key, items in entries for _ in items]
        arrays = [
            pa.array(keys, self.schema.field("asked_key").type),
            pa.array([shard] * len(records), pa.int32()),
            pa.array(rows, pa.int32()),
        ]
        if self._several:
            scopes = [scope for _, items in entries for scope in asked_of(items)]
            arrays += [pa.array([int(scope[place]) for scope in scopes], pa.int64()) for place in range(len(ASKED))]
        arrays += self._model.arrays(records, lambda number: (keys[number], rows[number]))
        return pa.Table.from_arrays(arrays, schema=self.schema)
