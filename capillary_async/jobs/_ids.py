"""The input of an export: ids from any iterable or a Parquet file, read once and kept in the folder.

The rule kept here: memory does not grow with the input; a repeated id is asked once; what is no id is kept as it came,
so that the service's own check refuses it by name. Used by `_export.py` and the command line.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any, cast

from capillary_async import InvalidRequestError
from capillary_async.jobs._arrow import pa, pq
from capillary_async.jobs._errors import JobError

__all__ = ["ids_in_parquet", "spool"]

_PIECE = 5_000
_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_LARGEST = 2**63 - 1


def key_of(raw: Any) -> int | str:
    """An id as it is kept: a whole number where it is one, else its text."""
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


async def spool(ids: Iterable[Any] | AsyncIterable[Any], keep: Callable[[list[Any]], Any], *, pairs: bool) -> None:
    """Hand all ids to `keep`, some thousand at a time.

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

    Args:
        path: The file.
        columns: The names; none where the file has one column.

    Raises:
        JobError: The file cannot be read, has no such column, or the column holds no ids: neither integers nor texts,
            or nulls.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise JobError(f"cannot read ids from {path}: {error}") from None
    names: list[str] = file.schema_arrow.names
    wanted = list(columns) or names
    if missing := [name for name in wanted if name not in names]:
        file.close()
        raise JobError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}")
    if not columns and len(names) != 1:
        file.close()
        raise JobError(f"{path} has the columns {', '.join(names)}: say which one holds the ids")
    for name in wanted:
        kind = file.schema_arrow.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            file.close()
            raise JobError(f"column {name!r} of {path} holds {kind}: ids are integers or texts")
    return _rows(file, path, wanted)


def _rows(file: Any, path: Any, wanted: list[str]) -> Iterator[Any]:
    row = 0
    with file:
        for batch in file.iter_batches(_PIECE, columns=wanted):
            columns = [batch.column(name).to_pylist() for name in wanted]
            for values in zip(*columns, strict=True):
                row += 1
                if None in values:
                    raise JobError(f"row {row} of {path} has no id in column {wanted[values.index(None)]!r}")
                yield values[0] if len(values) == 1 else values
