"""The columns that Spark sees: `asked_key`, those of `capillary_async.tables.schema`, and `_error`.

Invariant: Spark's types are those of the tables, and a schema of the user's chooses among the columns and changes none.
Used by `_source.py`, `_stream.py`, `_doors.py` and `_task.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capillary_async._files import near
from capillary_async.errors import InvalidRequestError
from capillary_async.spark._options import Settings
from capillary_async.spark._pyspark import types
from capillary_async.tables._batches import ASKED_KEY
from capillary_async.tables._imports import pa
from capillary_async.tables._schema import kind_of, schema

__all__ = ["ERROR", "ERROR_FIELD", "arrow_schema", "check_schema", "spark_schema"]

ERROR = "_error"
ERROR_FIELD = pa.field(
    ERROR,
    pa.struct(
        [
            ("type", pa.string()),
            ("message", pa.string()),
            ("status", pa.int64()),
            ("page", pa.int64()),
            ("request_id", pa.string()),
        ]
    ),
)


def spark_schema(settings: Settings) -> Any:
    """All columns of a reading."""
    resource = settings.resource
    key = pa.field(ASKED_KEY, kind_of(resource.key)[0])
    errors = [ERROR_FIELD] if settings.permissive else []
    return types.from_arrow_schema(pa.schema([key, *schema(resource.model), *errors]))


def check_schema(given: Any, settings: Settings) -> None:
    """Refuse a schema that names a column that does not exist, or one under another type.

    Raises:
        InvalidRequestError: It does; the message names the column.
    """
    whole = spark_schema(settings)
    known = {field.name: field.dataType for field in whole.fields}
    for field in given.fields:
        if field.name not in known:
            raise InvalidRequestError(
                f"the schema has a column {field.name!r}, which {settings.name} has not{near(field.name, known)}. It "
                f"has {', '.join(known)}",
                argument="schema",
            )
        wanted, there = _plain(field.dataType), _plain(known[field.name])
        if wanted != there:
            raise InvalidRequestError(
                f"the schema has {field.name} as {wanted}, and it is {there}: read it as that and cast it, so that "
                "nothing is rounded on the way",
                argument="schema",
            )
    if settings.permissive and ERROR not in given.names:
        raise InvalidRequestError(
            "the schema lacks _error, which onError=permissive fills: without it a failed key would be a row of nulls",
            argument="schema",
        )


def _plain(kind: Any) -> str:
    text: str = kind.simpleString()
    return text


def arrow_schema(columns: Any) -> Any:
    """The Arrow schema that Spark expects of batches with these columns."""
    try:
        return types.to_arrow_schema(columns, timezone="UTC")
    except TypeError:  # before Spark 4.2 it is always UTC
        return types.to_arrow_schema(columns)


def of_model(names: Sequence[str]) -> list[str]:
    """The columns that a reading fills, without those around them."""
    return [name for name in names if name not in (ASKED_KEY, ERROR)]
