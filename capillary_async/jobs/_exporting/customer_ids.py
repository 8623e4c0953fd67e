"""The input of an export: ids from any iterable or Parquet files, read once and kept in the folder.

Invariant: memory does not grow with the input; a repeated id is requested once; an invalid id is kept as it is, so that
the service's own check refuses it by name. Used by `_export.py` and the command line.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from capillary_async import InvalidRequestError
from capillary_async._files import is_number, near, why_no_id
from capillary_async.jobs._common.errors import JobError, one_line
from capillary_async.jobs._common.pyarrow_import import pa, pq
from capillary_async.jobs._dataset.parquet_files import parquet_files

__all__ = ["ids_in_parquet", "read_ids"]

_PIECE = 5_000
_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_LARGEST = 2**63 - 1


def key_of(raw: Any) -> int | str:
    """An id as it is stored: an integer if it is a whole number, else its text."""
    if isinstance(raw, str):
        text = raw.strip()
        number = int(text) if _DIGITS.fullmatch(text) else 0
        # A lone surrogate is no text that could be stored or sent: it is kept as its escape, and refused as no id.
        return number if 0 < number <= _LARGEST else text.encode(errors="backslashreplace").decode()
    if isinstance(raw, bool):
        return repr(raw)
    try:
        number = operator.index(raw)
    except TypeError:
        return repr(raw)
    return number if -_LARGEST <= number <= _LARGEST else str(number)


def pair_of(raw: Any) -> tuple[str, list[str]]:
    """An identifier and its events.

    Raises:
        InvalidRequestError: It is no pair.
    """
    if isinstance(raw, str | bytes) or not isinstance(raw, Iterable):
        raise _no_pair(raw)
    pair = list(cast("Iterable[Any]", raw))
    if len(pair) != 2 or pair[0] is None or pair[1] is None:  # noqa: PLR2004 - a pair
        raise _no_pair(raw)
    owner, events = pair
    several: list[Any] = [events] if isinstance(events, str | int) else list(events)
    names = [str(event).strip() for event in several]
    owner = str(owner).strip()
    if (
        not owner
        or not _is_text(owner)
        or not names
        or not all(_DIGITS.fullmatch(name) and int(name) for name in names)
    ):
        raise _no_pair(raw)
    return owner, names


def _is_no_event(value: Any) -> bool:
    """Whether a row has no event log id: newer tables of the service have -1 there, exports null."""
    return value is None or str(value).strip() in {"", "-1"}


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _no_pair(raw: Any) -> InvalidRequestError:
    return InvalidRequestError(
        f"the ids of a ledger are pairs of an identifier and an event id (or several), got {raw!r:.80}", argument="ids"
    )


async def read_ids(ids: Iterable[Any] | AsyncIterable[Any], keep: Callable[[list[Any]], Any], *, pairs: bool) -> None:
    """Read all ids and hand them to `keep` in lists of 5,000.

    Raises:
        InvalidRequestError: They are no iterable, or no pairs where pairs are due.
    """
    if isinstance(ids, str | bytes) or not isinstance(cast("object", ids), Iterable | AsyncIterable):
        raise InvalidRequestError(
            f"ids takes an iterable or async iterable of ids, e.g. a list, got {type(ids).__name__}", argument="ids"
        )
    as_kept = pair_of if pairs else key_of
    piece: list[Any] = []
    if isinstance(ids, AsyncIterable):
        async for raw in ids:
            piece.append(as_kept(raw))
            if len(piece) >= _PIECE:
                await keep(piece)
                piece = []
    else:
        for raw in ids:
            piece.append(as_kept(raw))
            if len(piece) >= _PIECE:
                await keep(piece)
                piece = []
    await keep(piece)


def ids_in_parquet(path: str | os.PathLike[str], *columns: str) -> Iterator[Any]:
    """The ids in a column of a Parquet file, read as they are needed; pairs of two columns for a ledger.

    The ledger is asked by event log ids: `ids_in_parquet(shard, "customer_id", "event_log_id")` of an export of
    allocations or awarded ids. Rows that have none (null or -1) give no pair, and a pair that comes again is asked
    once. The `id` of a loyalty event is no event log id.

    Args:
        path: The file, a folder of Parquet files, or a glob of them; several are read in the order of their names.
        columns: The names; none where the file has one column.

    Raises:
        JobError: A file cannot be read, has no such column, the column holds no integers, whole decimals or texts, or a
            row has no id. The message names file and row.
    """
    files = parquet_files(path)
    wanted = _wanted(files[0], columns)
    for file in files[1:]:
        _wanted(file, tuple(wanted))
    return (key for file in files for key in _rows(file, wanted))


def _opened(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise JobError(f"cannot read ids from {path}: {one_line(error)}", path=str(path)) from None


def _wanted(path: Path, columns: Sequence[str]) -> list[str]:
    """The columns to read, which are there and of a type that ids have."""
    with _opened(path) as file:
        schema = file.schema_arrow
    names: list[str] = schema.names
    wanted = list(columns) or names
    if missing := [name for name in wanted if name not in names]:
        raise JobError(
            f"{path} has no column {missing[0]!r}; it has {', '.join(names)}{near(missing[0], names)}", path=str(path)
        )
    if double := [name for name in wanted if names.count(name) > 1]:
        raise JobError(f"{path} has {names.count(double[0])} columns named {double[0]!r}; rename all but one")
    if not columns and len(names) != 1:
        raise JobError(f"{path} has the columns {', '.join(names)}: say which one holds the ids", path=str(path))
    for name in wanted:
        _check_type(path, name, schema.field(name).type)
    return wanted


def _check_type(path: Path, name: str, kind: Any) -> None:
    types = pa.types
    inner = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_floating(inner):
        raise JobError(
            f"column {name!r} of {path} holds {kind}: a float is no exact id; pandas makes floats of ids where "
            "one is missing. Cast the column to a 64-bit integer where the file is made, e.g. astype('Int64')",
            path=str(path),
        )
    texts = types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)
    if not (texts or types.is_integer(inner) or types.is_decimal(inner)):
        raise JobError(f"column {name!r} of {path} holds {kind}: ids are integers or texts", path=str(path))


def _rows(path: Path, wanted: list[str]) -> Iterator[Any]:
    row = 0
    with _opened(path) as file:
        batches = file.iter_batches(_PIECE, columns=wanted)
        while (batch := _next(path, batches)) is not None:
            columns = [batch.column(name).to_pylist() for name in wanted]
            for values in zip(*columns, strict=True):
                row += 1
                if len(values) > 1 and None not in values[:-1] and _is_no_event(values[-1]):
                    continue
                if None in values:
                    raise JobError(
                        f"row {row} of {path} has no id in column {wanted[values.index(None)]!r}", path=str(path)
                    )
                # Of a pair, the first is an identifier, which may be any text.
                first = values[0] if len(values) > 1 and isinstance(values[0], str) else None
                ids = [
                    _id(path, row, name, value)
                    for name, value in zip(wanted, values, strict=True)
                    if value is not first
                ]
                yield ids[0] if len(values) == 1 else tuple(ids if first is None else (first, *ids))


def _next(path: Path, batches: Iterator[Any]) -> Any:
    try:
        return next(batches, None)
    except (OSError, pa.ArrowException) as error:
        raise JobError(f"cannot read ids from {path}: {one_line(error)}", path=str(path)) from None


def _id(path: Path, row: int, name: str, value: Any) -> Any:
    """The value as an id; a text that is no number is left to the SDK, which names it."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    text = str(value).strip()
    why = None if isinstance(value, str) and not is_number(text) else why_no_id(text)
    if why is not None:
        raise JobError(f"row {row} of {path}, column {name!r}: {text:.80} {why}", path=str(path))
    return value
