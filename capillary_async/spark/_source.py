"""The data source: `spark.read.format("capillary")`, its two batch readers, and the way to the stream reader.

Invariant: a reader that is pickled into tasks holds settings and no ids and no secret. Spark makes one where it plans.
Registered by `_doors.py`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from capillary_async.spark._columns import check_schema, spark_schema
from capillary_async.spark._ids import ids_of
from capillary_async.spark._options import IdSource, Settings, settings_of
from capillary_async.spark._pyspark import DataSource, DataSourceReader, InputPartition, filters
from capillary_async.spark._task import read_keys
from capillary_async.tables._batches import ASKED_KEY

__all__ = ["CapillarySource", "partitions_of"]

NAME = "capillary"


class CapillarySource(DataSource):  # type: ignore[misc] # pyright: ignore[reportUntypedBaseClass]
    """The format `capillary`."""

    partitions: int | None = None  # where no option says it; `register` sets the slots of the session

    def __init__(self, options: Any) -> None:
        super().__init__(options)  # pyright: ignore[reportUnknownMemberType]
        self._settings, self._ids = settings_of(dict(options), partitions=self.partitions)

    @classmethod
    def name(cls) -> str:
        """The name of the format."""
        return NAME

    def schema(self) -> Any:
        """All columns, where the user gives no schema."""
        return spark_schema(self._settings)

    def reader(self, schema: Any) -> Any:
        """A reader of these columns."""
        check_schema(schema, self._settings)
        kind = PushdownReader if self._settings.pushdown else BatchReader
        return kind(schema, self._settings, self._ids)

    def streamReader(self, schema: Any) -> Any:  # noqa: N802 - Spark's name
        """A reader of these columns in micro-batches."""
        from capillary_async.spark._stream import StreamReader  # noqa: PLC0415 - most readings are batches

        check_schema(schema, self._settings)
        return StreamReader(schema, self._settings, self._ids)


class BatchReader(DataSourceReader):  # type: ignore[misc] # pyright: ignore[reportUntypedBaseClass]
    """Reads all ids once."""

    def __init__(self, schema: Any, settings: Settings, ids: IdSource) -> None:
        self._schema, self._settings = schema, settings
        self._ids: IdSource | None = ids

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ids": None}  # a task has those of its partition

    def partitions(self) -> Sequence[Any]:
        """The ids in about as many parts as there are slots."""
        return partitions_of(self._keys(), self._settings.partitions)

    def _keys(self) -> list[Any]:
        assert self._ids is not None  # noqa: S101 - Spark plans with the reader itself
        return ids_of(self._ids, self._settings.resource)

    def read(self, partition: Any) -> Iterator[Any]:
        """The rows of one part of the ids."""
        return read_keys(partition.value or (), self._schema, self._settings)


class PushdownReader(BatchReader):
    """Reads only the ids that a filter on `asked_key` leaves. Spark refuses it unless its own setting allows it."""

    _only: frozenset[Any] | None = None

    def pushFilters(self, given: Iterable[Any]) -> Iterable[Any]:  # noqa: N802 - Spark's name
        """Note the ids that can match; Spark applies all filters to the rows again."""
        equal, among = filters()
        for each in given:
            if isinstance(each, equal | among) and tuple(each.attribute) == (ASKED_KEY,):
                values = each.value if isinstance(each, among) else [each.value]
                self._only = frozenset(values) if self._only is None else self._only & frozenset(values)
            yield each

    def _keys(self) -> list[Any]:
        keys = super()._keys()
        if self._only is None or self._settings.resource.key is not int:
            return keys
        return [key for key in keys if key in self._only]


def partitions_of(keys: Sequence[Any], count: int) -> list[Any]:
    """The keys in at most `count` parts of the same length, in their order."""
    count = min(count, len(keys))
    ends = [number * len(keys) // count for number in range(count + 1)] if count else []
    return [InputPartition(_packed(keys[start:end])) for start, end in pairwise(ends)]


def _packed(keys: Sequence[Any]) -> Sequence[Any]:
    """Numbers in eight bytes each."""
    return array("q", keys) if isinstance(keys[0], int) else tuple(keys)
