"""The stream reader: a list of ids read in micro-batches, each exactly once, resumed where a checkpoint ends.

Invariant: an offset is a position in the list and a digest of the ids before it, so that a checkpoint is never resumed
with another list: ids may be appended, and nothing else. The API does not list changes, so there is no other honest
offset. Made by `_source.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from capillary_async.errors import InvalidRequestError
from capillary_async.spark._ids import ids_of
from capillary_async.spark._options import IdSource, Settings
from capillary_async.spark._pyspark import AvailableNow, DataSourceStreamReader, read_limit
from capillary_async.spark._source import partitions_of
from capillary_async.spark._task import read_keys

__all__ = ["StreamReader"]


class StreamReader(DataSourceStreamReader, AvailableNow):  # type: ignore[misc] # pyright: ignore[reportUntypedBaseClass]
    """Reads the ids of the option, file or export, `idsPerBatch` in each micro-batch from Spark 4.2 on."""

    def __init__(self, schema: Any, settings: Settings, ids: IdSource) -> None:
        self._schema, self._settings = schema, settings
        self._ids: IdSource | None = ids
        self._keys: list[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ids": None, "_keys": None}  # a task has those of its partition

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """The beginning of the list."""
        return self._offset(0)

    def getDefaultReadLimit(self) -> Any:  # noqa: N802 - Spark's name
        """The ids of a micro-batch."""
        return read_limit(self._settings.ids_per_batch)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's name
        """The list is read once, so it does not grow while a query runs."""
        self._list()

    def latestOffset(self, start: Mapping[str, Any] | None = None, limit: Any = None) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """The end of the next micro-batch. Before Spark 4.2, which gives no start, it is the end of the list."""
        count, most = len(self._list()), getattr(limit, "max_rows", None)
        if start is None or most is None:
            return self._offset(count)
        return self._offset(min(self._place(start) + most, count))

    def partitions(self, start: Mapping[str, Any], end: Mapping[str, Any]) -> Sequence[Any]:
        """The ids of a micro-batch, in about as many parts as there are slots."""
        return partitions_of(self._list()[self._place(start) : self._place(end)], self._settings.partitions)

    def read(self, partition: Any) -> Iterator[Any]:
        """The rows of one part of the ids."""
        return read_keys(partition.value or (), self._schema, self._settings)

    def commit(self, end: Mapping[str, Any]) -> None:
        """Nothing is kept here: the checkpoint has the offset."""

    def stop(self) -> None:
        """Nothing is open here."""

    def _list(self) -> list[Any]:
        if self._keys is None:
            assert self._ids is not None  # noqa: S101 - Spark plans with the reader itself
            self._keys = ids_of(self._ids, self._settings.resource)
        return self._keys

    def _offset(self, place: int) -> dict[str, Any]:
        return {"ids": place, "sha256": _digest(self._list()[:place])}

    def _place(self, offset: Mapping[str, Any]) -> int:
        place = int(offset["ids"])
        if _digest(self._list()[:place]) != offset["sha256"]:
            raise InvalidRequestError(
                f"the first {place} ids are not those that the checkpoint was made with: give the same list, to which "
                "ids may be appended, or another checkpointLocation",
                argument="ids",
            )
        return place


def _digest(keys: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for key in keys:
        digest.update(f"{key}\n".encode())
    return digest.hexdigest()
