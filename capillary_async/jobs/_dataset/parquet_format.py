"""Shards as Parquet files.

Invariant: fixed compression and row groups, no times, whatever the pieces in which the rows come. Made by `formats.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
from typing import IO, TYPE_CHECKING, Any, cast

from capillary_async.jobs._common.digest import BETWEEN
from capillary_async.jobs._common.pyarrow_import import pa, pc, pq
from capillary_async.jobs._common.several import is_several
from capillary_async.jobs._dataset.columns import DERIVED, Columns
from capillary_async.jobs._dataset.shard_format import Batch, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from capillary_async.jobs._common.sources import Dataset
    from capillary_async.jobs._dataset.shard_format import ShardFile

__all__ = ["GROUP", "Parquet"]

GROUP = 8_192  # rows of a row group: maximum that a shard buffers
_READ = 8_192
_FIRST_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "version": "2.6"}
# Numbers and times that differ from row to row, or from customer to customer: a dictionary of them is larger than they.
_VARIED = {
    *("asked_key", "row", "id", "event_log_id", "points_source_id", "customer_id", "original_customer_id", "date"),
    *DERIVED,
    *DERIVED.values(),
}
_DERIVED_NAMES = frozenset(DERIVED.values())


class Parquet:
    """One Parquet file per shard.

    Args:
        source: What is exported.
        query: How.
        version: The schema version of the folder. A folder that was begun by an earlier release gets the same bytes as
            by that release.
    """

    ending = "parquet"

    def __init__(self, source: Dataset, query: Mapping[str, Any], version: int) -> None:
        self._source = source
        key_type = pa.string() if source.pairs else pa.int64()
        self._columns = Columns(source.model, key_type, several=is_several(query))
        self._metadata = {
            "capillary_async.source": source.name,
            "capillary_async.schema_version": str(version),
            "capillary_async.query": json.dumps(query, sort_keys=True),
        }
        self._options = _FIRST_OPTIONS if version == 1 else _options(self._columns.schema)

    def chunk(self, shard: int, entries: Sequence[tuple[Any, Sequence[Any]]]) -> Any:
        """An Arrow table; of several keys that do not fit together, each is tried alone by the caller."""
        return self._columns.table(shard, entries)

    def sums(self, chunk: Any, entries: Any = ()) -> Sums:  # noqa: ARG002 - the columns have all of it
        """What goes into the sums of the manifest."""
        parts = [chunk.column(name).cast(pa.string()) for name in ("asked_key", *self._source.key)]
        keys = pc.binary_join_element_wise(*parts, BETWEEN, null_handling="replace").cast(pa.binary()).to_pylist()
        return Sums(keys, self._source.totals(()) | _sums(chunk))

    def open(self, file: IO[bytes], shard: int) -> ShardFile:
        """A new shard."""
        return _ParquetFile(file, self._columns.schema.with_metadata(self._described(shard)), self._options)

    def _described(self, shard: int) -> dict[str, str]:
        return {**self._metadata, "capillary_async.shard": str(shard)}

    def described(self, path: Path, shard: int) -> dict[str, tuple[str | None, str]]:
        """Metadata of the file that differ from those of this shard: (found, expected) by name."""
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
        found = {name.decode(): value.decode() for name, value in metadata.items()}
        expected = self._described(shard)
        return {name: (found.get(name), said) for name, said in expected.items() if found.get(name) != said}

    def pieces(self, path: Path) -> Iterator[tuple[Any, Any]]:
        """The rows of a shard in order, as (asked key, table)."""
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_READ):
                table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                start = 0
                runs = pc.run_end_encode(table["asked_key"].combine_chunks())
                for key, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                    yield key, table.slice(start, end - start)
                    start = end

    def batches(self, path: Path) -> Iterator[Batch]:
        """The rows of a shard, for `verify`."""
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(self._columns.schema):
                raise ValueError("its columns are not those of this release")
            for batch in file.iter_batches(_READ):
                asked, shards, rows = (batch.column(place).to_pylist() for place in range(3))
                yield Batch(asked, shards, rows, self.sums(batch))

    def records(self, path: Path, keys: set[Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """The rows of some keys as plain values."""
        wanted = pa.array(sorted(keys), self._columns.schema.field("asked_key").type)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_READ):
                for row in _rows(batch.filter(pc.is_in(batch.column(0), wanted))):
                    yield row.pop("asked_key"), {name: row[name] for name in list(row)[2:]}

    def plain(self, key: Any, items: Sequence[Any]) -> list[Mapping[str, Any]]:
        """The records as rows."""
        rows = _rows(self.chunk(0, [(key, items)]))
        return [{name: row[name] for name in list(row)[3:]} for row in rows]


class _ParquetFile:
    def __init__(self, file: IO[bytes], schema: Any, options: dict[str, Any]) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema, **options)
        self._buffered: list[Any] = []
        self._rows = 0

    def add(self, chunk: Any) -> None:
        self._buffered.append(chunk)
        self._rows += chunk.num_rows
        while self._rows >= GROUP:
            self._group(GROUP)

    def _group(self, rows: int) -> None:
        """Write a row group. Its chunks are made one: pages would end where chunks do."""
        table = pa.concat_tables(self._buffered)
        left = table.slice(rows)
        group = table.slice(0, rows).combine_chunks().replace_schema_metadata(self._schema.metadata)
        self._buffered, self._rows = [left] if left.num_rows else [], left.num_rows
        self._writer.write_table(group, row_group_size=rows)

    def close(self) -> None:
        if self._rows:
            self._group(self._rows)
        self._writer.close()

    def abandon(self) -> None:
        with contextlib.suppress(Exception):  # a writer that is only dropped would complain that it was not closed
            self._writer.close()
        self._writer.is_open = False


def _options(schema: Any) -> dict[str, Any]:
    """How the columns are written: amounts as integers, varied numbers as differences and without a dictionary."""
    varied = [field.name for field in schema if field.name in _VARIED and not pa.types.is_string(field.type)]
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    described = pq.ParquetFile(file).schema
    leaves = [described.column(place).path for place in range(len(described))]
    return _FIRST_OPTIONS | {
        "store_decimal_as_integer": True,
        "use_dictionary": [leaf for leaf in leaves if leaf not in varied],
        "column_encoding": dict.fromkeys(varied, "DELTA_BINARY_PACKED"),
    }


def _rows(table: Any) -> list[dict[str, Any]]:
    """Plain values. Derived times are milliseconds: Python has none beyond the year 9999, older files may."""
    for place, name in enumerate(table.schema.names):
        if name in _DERIVED_NAMES:
            table = table.set_column(place, name, table.column(place).cast(pa.int64()))
    return cast("list[dict[str, Any]]", table.to_pylist(maps_as_pydicts="strict"))


def _sums(batch: Any) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        found.update(_sums_in(name, array))
    return found


def _sums_in(path: str, array: Any) -> dict[str, Decimal]:
    """The sum of a column of quantities, or of each quantity nested in it."""
    kind = array.type
    if pa.types.is_decimal(kind):
        total = pc.sum(array.cast(pa.decimal128(38, kind.scale))).as_py()
        return {path: total} if total is not None else {}
    if pa.types.is_struct(kind):
        members = (kind.field(place).name for place in range(kind.num_fields))
        parts = (_sums_in(f"{path}.{name}", pc.struct_field(array, name)) for name in members)
        return {name: total for part in parts for name, total in part.items()}
    return _sums_in(path, pc.list_flatten(array)) if pa.types.is_list(kind) else {}
