"""`Tabular`: how a list or a fan-out becomes a table: Arrow, polars, pandas, Parquet.

Invariant: a table has every row that the same reading gives as records, with the same values, or an error is raised.
Base of `Pager` and `FanOut`; pyarrow, polars and pandas are loaded when a table is asked for.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, cast

from attrs import frozen

from capillary_async._files.addresses import why_no_path
from capillary_async._repr import shown
from capillary_async._validation import whole
from capillary_async.errors import CapillaryError, InvalidRequestError

__all__ = ["ROWS", "Batches", "Part", "Parts", "TableSource", "Tabular", "table_of"]

ROWS = 65_536


class Part(NamedTuple):
    """Some rows of one key.

    Attributes:
        key: The key; None in a list.
        items: Records, or raw rows.
        last: Whether they are the last of the key.
        page: Their page; None where the pages of a key came together.
    """

    key: Any
    items: Sequence[Any]
    last: bool
    page: int | None = None


class Parts(Protocol):
    """A reading, part after part."""

    def __anext__(self) -> Any: ...

    async def aclose(self) -> None: ...


class Batches(Protocol):
    """The rows of a reading, batch after batch."""

    @property
    def schema(self) -> Any:
        """Their `pyarrow.Schema`."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Any: ...

    async def aclose(self) -> None: ...


@frozen(eq=False)
class TableSource:
    """What becomes a table.

    Attributes:
        name: For messages.
        model: The class of its records.
        key: The type of the keys of a fan-out; None for a list.
    """

    name: str
    model: Any
    key: Any = None


class Tabular:
    """Tables of what is read."""

    __slots__ = ()

    @abstractmethod
    def _table_source(self) -> TableSource | None:
        """What is read; None where it has no records of the API."""

    @abstractmethod
    def _parts(self, *, ordered: bool, failures: dict[Any, CapillaryError] | None) -> Parts:
        """A new reading.

        Args:
            ordered: Whether the keys come in the order of the input.
            failures: Takes the error of each failed key; None to raise it.
        """

    def batches(self, rows: int = ROWS, *, columns: Iterable[str] | None = None) -> AsyncIterator[Any]:
        """The rows as `pyarrow.RecordBatch`es in bounded memory: `async for batch in pager.batches()`.

        Of a fan-out the first column is `asked_key`, the rows of several keys come in turns, and the first error of a
        key is raised. Needs the extra `arrow`.

        Args:
            rows: The rows of each batch; the last one has fewer.
            columns: The columns, of `capillary_async.tables.schema(model)`; None for all. Fewer are faster.

        Raises:
            InvalidRequestError: An argument is invalid. Nothing is sent.
            ModuleNotFoundError: pyarrow is not installed.
            UnfitError: While looping, a value does not fit its column.
            CapillaryError: While looping, as of the records; the rows read before it are given first.
        """
        return self._batches(rows, columns)

    def _batches(
        self,
        rows: int,
        columns: Iterable[str] | None,
        *,
        ordered: bool = False,
        failures: dict[Any, CapillaryError] | None = None,
    ) -> Batches:
        from capillary_async.tables._batches import BatchBuilder, BatchIterator  # noqa: PLC0415 - loads pyarrow

        whole("rows", rows, 1)
        source = self._table_source()
        if source is None or source.model is None:
            raise InvalidRequestError("a table needs a list of records of the API; this one has none")
        builder = BatchBuilder(source, None if columns is None else _known(columns, source.model), rows)
        return BatchIterator(self._parts(ordered=ordered, failures=failures), builder)

    async def to_arrow(self, columns: Iterable[str] | None = None) -> Any:
        """All rows as a `pyarrow.Table` with the schema `capillary_async.tables.schema(model)`.

        Amounts are decimal128(18, 3) and never rounded. Of a fan-out the first column is `asked_key`, and the keys are
        in the order of the input. Needs the extra `arrow`.

        Args:
            columns: The columns, in this order; None for all. Fewer are faster.

        Raises:
            InvalidRequestError: A column does not exist. Nothing is sent.
            ModuleNotFoundError: pyarrow is not installed.
            UnfitError: A value does not fit its column; the message names key, row and field.
            CapillaryError: As of the records.
        """
        return await table_of(self._batches(ROWS, columns, ordered=True))

    async def to_polars(self, columns: Iterable[str] | None = None) -> Any:
        """All rows as a `polars.DataFrame`, amounts as `Decimal(18, 3)`; see `to_arrow`. Needs the extra `polars`."""
        from capillary_async.tables._imports import needed  # noqa: PLC0415 - loads pyarrow

        polars = needed("polars", "polars")
        return polars.from_arrow(await self.to_arrow(columns))

    async def to_pandas(self, columns: Iterable[str] | None = None) -> Any:
        """All rows as a `pandas.DataFrame` with Arrow-backed columns; see `to_arrow`. Needs the extra `pandas`."""
        from capillary_async.tables._imports import needed  # noqa: PLC0415 - loads pyarrow

        pandas = needed("pandas", "pandas")
        table = await self.to_arrow(columns)
        return table.to_pandas(types_mapper=pandas.ArrowDtype)

    async def to_parquet(self, path: str | PathLike[str], *, columns: Iterable[str] | None = None) -> int:
        """Write all rows to a Parquet file, in bounded memory, and return how many there were.

        The file appears under its name only when it is whole: an error, a cancellation or a killed process leaves the
        file that was there before. Of a fan-out the rows of several keys come in turns. Needs the extra `arrow`.

        Args:
            path: The file.
            columns: The columns; None for all.

        Raises:
            InvalidRequestError: An argument is invalid, e.g. a URL in place of a path. Nothing is sent.
            ModuleNotFoundError: pyarrow is not installed.
            OSError: The file cannot be written.
            CapillaryError: As of the records.
        """
        from capillary_async.tables._parquet import write  # noqa: PLC0415 - loads pyarrow

        return await write(self._batches(ROWS, columns), _path(path))


def _path(given: Any) -> Path:
    """The path of a local file."""
    path = cast("str | PathLike[str]", given) if isinstance(given, str | PathLike) else ""
    if not os.fspath(path):
        raise InvalidRequestError(f"path takes the path of a file, got {shown(given)}", argument="path")
    if (why := why_no_path(path)) is not None:
        raise InvalidRequestError(f"path: {why}", argument="path")
    return Path(path)


async def table_of(batches: Batches) -> Any:
    """All batches as one table."""
    from capillary_async.tables._imports import pa  # noqa: PLC0415 - loads pyarrow

    try:
        return pa.Table.from_batches([batch async for batch in batches], schema=batches.schema)
    finally:
        await batches.aclose()


def _known(columns: Any, model: Any) -> tuple[str, ...]:
    """The names of columns, each of which exists and is there once."""
    from capillary_async.tables._schema import schema  # noqa: PLC0415 - loads pyarrow

    if isinstance(columns, str) or not isinstance(columns, Iterable):
        raise InvalidRequestError(f"columns takes several names, got {shown(columns)}", argument="columns")
    names = tuple(cast("Iterable[Any]", columns))
    known: list[str] = schema(model).names
    for name in names:
        if name not in known:
            close = get_close_matches(str(name), known, 1)
            hint = f"; {close[0]!r} exists" if close else ""
            text = f"columns takes names of capillary_async.tables.schema({model.__name__}), got {shown(name)}{hint}"
            raise InvalidRequestError(text, argument="columns")
    if not names or len(set(names)) < len(names):
        raise InvalidRequestError(f"columns takes at least one name, each once, got {shown(names)}", argument="columns")
    return names
