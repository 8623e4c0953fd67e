"""`register` and `read`: the two ways from a Spark session to the SDK's rows.

Invariant: both read through `_task.py`, on Spark Connect too; without pyspark, one sentence says what is missing.
Called by users.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any, cast

from capillary_async._files import near
from capillary_async.errors import InvalidRequestError

__all__ = ["read", "register"]

_WHOLE = frozenset({"tinyint", "smallint", "int", "bigint"})


def register(spark: Any) -> None:
    """Make `spark.read.format("capillary")` known to a session, classic or Connect.

    A reading has as many partitions as a classic session has slots now; of Connect, which does not say them, 8. The
    option `numPartitions` says otherwise.

    Args:
        spark: The `SparkSession`.

    Raises:
        ModuleNotFoundError: pyspark or pyarrow is not installed.
    """
    from capillary_async.spark._source import CapillarySource  # noqa: PLC0415 - loads pyspark

    kind: Any = type("CapillarySource", (CapillarySource,), {"partitions": _slots(spark)})
    spark.dataSource.register(kind)


def read(ids: Any, *, id_column: str | Sequence[str], **options: Any) -> Any:
    """Read the rows of ids that are in a DataFrame.

    The ids are distributed by their value, so that a repeated id is read once, and sorted in each task; rows of the API
    are not shuffled. Works on Spark Connect.

    Args:
        ids: The DataFrame; other columns than those of the ids are not read.
        id_column: The column of the ids. Several for compound ones: `entity_id, customer_id, event_type_id` of
            `points_allocation.by_event`, `customer_id, event_log_id` of `points_ledger.explode`.
        options: Those of the data source but for `ids...` and `pushdown`, in snake_case: `resource`, `program_id`,
            `credential`, `num_partitions`, ...

    Returns:
        A DataFrame: `asked_key`, and the columns of `capillary_async.tables.schema(model)`.

    Raises:
        InvalidRequestError: An option or column is unknown, missing or invalid. Nothing is sent.
        ModuleNotFoundError: pyspark or pyarrow is not installed.

    Example:
        >>> read(customers, id_column="customer_id", resource="loyalty_events.list")  # doctest: +SKIP
    """
    from capillary_async.spark._columns import spark_schema  # noqa: PLC0415 - loads pyspark
    from capillary_async.spark._options import settings_of  # noqa: PLC0415 - the same

    for name in options:
        if name.startswith("ids") or name == "pushdown":
            raise InvalidRequestError(
                f"{name} is an option of the data source, not of read(): the ids are in the DataFrame"
            )
    settings, _ = settings_of(options, partitions=_slots(ids.sparkSession))
    columns = (id_column,) if isinstance(id_column, str) else tuple(id_column)
    parts = ids.selectExpr(*_parts(ids.schema, columns, settings.resource))
    names = settings.resource.parts
    spread = parts.repartition(settings.partitions, names[0]).sortWithinPartitions(*names)
    schema = spark_schema(settings)
    return spread.mapInArrow(partial(_read_batches, schema, settings), schema)


def _parts(schema: Any, columns: Sequence[str], resource: Any) -> list[str]:
    """The expressions of the parts of an id."""
    if len(columns) != len(resource.parts):
        raise InvalidRequestError(
            f"id_column takes {len(resource.parts)} names for {resource.name}: those of {', '.join(resource.parts)}",
            argument="id_column",
        )
    kinds = {field.name: field.dataType.simpleString() for field in schema.fields}
    for name in columns:
        if name not in kinds:
            raise InvalidRequestError(
                f"id_column: the DataFrame has no column {name!r}{near(name, kinds)}. It has {', '.join(kinds)}",
                argument="id_column",
            )
    return [
        _part(name, kinds[name], part, text=resource.is_text(part))
        for name, part in zip(columns, resource.parts, strict=True)
    ]


def _part(name: str, kind: str, part: str, *, text: bool) -> str:
    """Texts without outer blanks: equal ids are equal values, and so go to one task."""
    if kind not in _WHOLE and not (text and kind == "string"):
        what = "a whole number or a text" if text else "a whole number"
        raise InvalidRequestError(
            f"id_column: {name} is {kind}, and {part} is {what}: cast it to bigint", argument="id_column"
        )
    column = f"trim({quoted(name)})" if kind == "string" else quoted(name)
    return f"{column} AS {part}"


def quoted(name: str) -> str:
    """The name of a column, in SQL."""
    return "`" + name.replace("`", "``") + "`"


def _read_batches(schema: Any, settings: Any, batches: Iterable[Any]) -> Iterator[Any]:
    """In a task: the rows of the ids in sorted batches."""
    from capillary_async.spark._task import read_keys  # noqa: PLC0415 - loads pyspark

    return read_keys(_keys(batches, settings.resource), schema, settings)


def _keys(batches: Iterable[Any], resource: Any) -> Iterator[Any]:
    """Sorted keys, each once; the events of a ledger together."""
    from capillary_async.spark._ids import is_no_event, key_of, merged  # noqa: PLC0415 - loads pyspark

    rows = (
        key_of(row, resource, "a row of the ids")
        for batch in batches
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        if not is_no_event(row, resource)
    )
    for _, same in groupby(rows, key=_first):
        yield from merged(same, resource)


def _first(key: Any) -> Any:
    """What the ids are distributed by."""
    return cast("tuple[Any, ...]", key)[0] if isinstance(key, tuple) else key


def _slots(spark: Any) -> int | None:
    """The slots of a classic session; None for Connect, which has no such thing."""
    with suppress(Exception):
        return max(int(spark.sparkContext.defaultParallelism), 1)
    return None
