"""Record batches from pages: `BatchBuilder` collects rows, `BatchIterator` reads them from a list or a fan-out.

Invariant: every row that was read is in a batch before the error that ended the reading is raised, so that nothing is
lost for one who continues from the error's position. Made by `doors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from capillary_async.tables._columns import Columns
from capillary_async.tables._imports import pa
from capillary_async.tables._schema import Convert, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capillary_async.tables._doors import Part, Parts, TableSource

__all__ = ["ASKED_KEY", "BatchBuilder", "BatchIterator"]

ASKED_KEY = "asked_key"
_PIECE = 1_024  # rows made columns at once: their rows are still in the processor's cache


class _Rows(NamedTuple):
    """Rows of one key, the number of the first of them, and their page where that is known."""

    key: Any
    items: Sequence[Any]
    first: int
    page: int | None


class BatchBuilder:
    """Rows on their way into batches, those of a fan-out with the key they were asked for.

    Args:
        source: What is read.
        columns: Their names; None for all.
        rows: The rows of a batch.
    """

    def __init__(self, source: TableSource, columns: Sequence[str] | None, rows: int) -> None:
        self._columns = Columns(source.model, columns, advice="read the records instead, which keep all digits")
        kind: tuple[Any, Convert | None] = (None, None) if source.key is None else kind_of(source.key)
        self._key, self._convert = kind
        first = [] if self._key is None else [pa.field(ASKED_KEY, self._key)]
        self.schema = pa.schema([*first, *self._columns.schema])
        self._name = source.name
        self._most = rows
        self._piece = min(rows, _PIECE)
        self._packed = self._columns.packed()  # rows after those in `_pieces`; `_waiting` is empty meanwhile
        self._packed_keys: list[Any] = []
        self._waiting: list[_Rows] = []
        self._count = 0  # rows in `_waiting`
        self._pieces: list[Any] = []
        self._made = 0  # rows in `_pieces`
        self._next: dict[Any, int] = {}  # rows of each key so far, of keys that are being read

    @property
    def full(self) -> bool:
        """Whether there are rows for a whole batch."""
        return self._made + self._packed.rows >= self._most

    def add(self, part: Part) -> None:
        """Add rows of one key.

        Raises:
            UnfitError: A value does not fit its column.
        """
        first = self._next.get(part.key, 0)
        if part.last:
            self._next.pop(part.key, None)
        else:
            self._next[part.key] = first + len(part.items)
        if part.items and not self._pack(part):
            self._seal()
            self._waiting.append(_Rows(part.key, part.items, first, part.page))
            self._count += len(part.items)
        if self._count >= self._piece:
            self._make()

    def _pack(self, part: Part) -> bool:
        """Pack a page of raw rows by its columns; False where it has none, or a value that has to be looked at."""
        columns = getattr(part.items, "columns", None)
        if columns is None:
            return False
        self._make()
        if not self._packed.add(columns):
            return False
        if self._key is not None:
            self._packed_keys += [part.key] * len(part.items)
        return True

    def _seal(self) -> None:
        """Make a piece of the packed rows."""
        if self._packed.rows:
            keys, self._packed_keys = self._packed_keys, []
            self._add(keys, self._columns.whole(self._packed.take()))

    def _make(self) -> None:
        """Make a piece of the rows that wait."""
        if not self._waiting:
            return
        waiting, self._waiting, self._count = self._waiting, [], 0
        records = [record for rows in waiting for record in rows.items]
        arrays = self._columns.arrays(records, lambda number: _place(waiting, number, self._name))
        self._add([rows.key for rows in waiting for _ in rows.items], arrays)

    def _add(self, keys: list[Any], arrays: list[Any]) -> None:
        if self._key is not None:
            arrays.insert(0, pa.array(list(map(self._convert, keys)) if self._convert else keys, self._key))
        piece = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        self._pieces.append(piece)
        self._made += piece.num_rows

    def take(self) -> Any:
        """A batch of at most `rows` rows; None where there are none."""
        self._seal()
        if not self.full:
            self._make()
        if not self._made:
            return None
        whole = self._pieces[0] if len(self._pieces) == 1 else pa.concat_batches(self._pieces)
        batch, left = whole.slice(0, self._most), whole.slice(self._most)
        self._pieces, self._made = ([left] if left.num_rows else []), left.num_rows
        return batch


def _place(waiting: Sequence[_Rows], number: int, name: str) -> tuple[Any, object]:
    """The key of a row among those that wait, and its number among the rows of the key, with its page."""
    for rows in waiting:
        if number < len(rows.items):
            row, page = rows.first + number, "" if rows.page is None else f" (page {rows.page})"
            return name if rows.key is None else rows.key, f"{row}{page}"
        number -= len(rows.items)
    return name, number


class BatchIterator:
    """The `pyarrow.RecordBatch`es of a reading. `aclose()` ends it early; being dropped does too."""

    def __init__(self, parts: Parts, builder: BatchBuilder) -> None:
        self._parts = parts
        self._builder = builder
        self._refused: Exception | None = None  # raised once the rows before it are given
        self._closed = False

    @property
    def schema(self) -> Any:
        """The `pyarrow.Schema` of each batch."""
        return self._builder.schema

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while self._refused is None and not self._builder.full:
            try:
                self._builder.add(await anext(self._parts))
            except Exception as error:  # noqa: BLE001 - raised after the rows that came before it
                self._refused = error
        batch = None if self._closed else self._builder.take()
        if batch is not None:
            return batch
        refused, self._refused = self._refused, StopAsyncIteration()
        raise refused or StopAsyncIteration

    async def aclose(self) -> None:
        """End the reading; no request stays in flight. Closing twice is fine."""
        self._refused, self._closed = StopAsyncIteration(), True
        await self._parts.aclose()
