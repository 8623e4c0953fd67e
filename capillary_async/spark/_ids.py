"""The ids of a reading: from an option, a file or the folder of an export, checked, each once, in their order.

Invariant: nothing is turned into an id that is none, and what is wrong is named with its place. Runs where Spark plans,
never in a task. Used by `_source.py` and `_stream.py`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from capillary_async._files import (
    Fault,
    Layout,
    Source,
    SourceError,
    columns_of,
    lines,
    near,
    near_file,
    records,
    shown_names,
    why_no_id,
)
from capillary_async._files.addresses import why_no_path
from capillary_async.errors import InvalidRequestError
from capillary_async.spark._options import ID_OPTIONS, IdSource, camel
from capillary_async.spark._resources import Resource

__all__ = ["ids_of", "is_no_event", "key_of", "merged"]

_NO_EVENT = frozenset({"", "-1", "None"})
_PIECE = 10_000


def ids_of(source: IdSource, resource: Resource) -> list[Any]:
    """The keys of a reading.

    Raises:
        InvalidRequestError: They are given in no way or in two, cannot be read, or one is invalid.
    """
    given = [source.ids is not None, source.path is not None, source.manifest is not None]
    if sum(given) != 1:
        came = "none of them is given" if not any(given) else "several are given"
        raise InvalidRequestError(f"give one of {', '.join(map(camel, ID_OPTIONS))}; {came}", argument="ids")
    keys = list(merged(_rows(source, resource), resource))
    if not keys:
        raise InvalidRequestError("there are no ids: most often a filter or a file went wrong", argument="ids")
    return keys


def _rows(source: IdSource, resource: Resource) -> Iterable[Any]:
    if source.path is not None:
        return _in_file(source.path, source.columns, resource)
    if source.manifest is not None:
        return _in_export(source.manifest, resource)
    return _in_option(source.ids, resource)


def merged(rows: Iterable[Any], resource: Resource) -> Iterator[Any]:
    """The keys of rows, each once; the events of one ledger are one key, at the place of the first."""
    if resource.key is not str:
        yield from dict.fromkeys(rows)
        return
    events: dict[str, dict[str, None]] = {}
    for owner, event in rows:
        events.setdefault(owner, {})[event] = None
    yield from ((owner, tuple(each)) for owner, each in events.items())


def key_of(values: Sequence[Any], resource: Resource, place: str) -> Any:
    """The key of one row: a number, or the parts of a compound id.

    Args:
        values: One for each part of the resource's ids.
        resource: What is read.
        place: Where the row is, for errors.

    Raises:
        InvalidRequestError: A part is no id.
    """
    parts: list[Any] = []
    for name, value in zip(resource.parts, values, strict=True):
        text = "" if value is None else str(value).strip()
        free = resource.is_text(name)
        why = why_no_id(text) if not free else None if text else "is empty"
        if why is not None:
            raise InvalidRequestError(f"{place}: {name} {text!r:.80} {why}", argument=name)
        parts.append(text if free or resource.key is str else int(text))
    return parts[0] if len(parts) == 1 else tuple(parts)


def is_no_event(values: Sequence[Any], resource: Resource) -> bool:
    """Whether a row has no event log id, null or -1, as awards without an event: the ledger has nothing of it."""
    return resource.key is str and values[0] is not None and str(values[-1]).strip() in _NO_EVENT


def _in_option(given: Any, resource: Resource) -> Iterator[Any]:
    rows: Iterable[Any] = filter(str.strip, re.split(r"[,\n]", given)) if isinstance(given, str) else given
    for number, row in enumerate(rows, 1):
        parts = row.split(":") if isinstance(row, str) else [row]
        if len(parts) != len(resource.parts):
            raise InvalidRequestError(
                f"ids, entry {number}: {row!r:.80} is no {':'.join(resource.parts)}, which {resource.name} reads",
                argument="ids",
            )
        yield key_of(parts, resource, f"ids, entry {number}")


def _in_file(path: str, columns: tuple[str, ...], resource: Resource) -> Iterator[Any]:
    if (why := why_no_path(path)) is not None:
        raise InvalidRequestError(f"idsPath: {why}", argument="idsPath")
    if not Path(path).exists() and not set("*?[") & set(path):
        raise InvalidRequestError(
            f"idsPath: there is no file {path} where Spark plans, on the driver{near_file(path)}", argument="idsPath"
        )
    source = None if not Path(path).is_file() else Source(path)
    try:
        if source is not None:
            source.open()
        if source is None or source.kind == "parquet":
            yield from _in_parquet(path, columns, resource)
        else:
            for line, values in _in_text(source, path, columns, resource):
                yield key_of(values, resource, f"idsPath: {path}, line {line}")
    except SourceError as error:
        raise InvalidRequestError(f"idsPath: {path}: {error}", argument="idsPath") from None
    except Fault as fault:
        raise InvalidRequestError(f"idsPath: {path}, line {fault.line}{fault.reason}", argument="idsPath") from None
    finally:
        if source is not None:
            source.close()


def _in_parquet(path: str, columns: tuple[str, ...], resource: Resource) -> Iterator[Any]:
    from capillary_async.jobs import JobError, ids_in_parquet  # noqa: PLC0415 - loads pyarrow

    names = columns or (resource.parts if len(resource.parts) > 1 else ())
    try:
        for row, values in enumerate(ids_in_parquet(path, *names), 1):
            yield key_of(cast("Any", values if len(names) > 1 else (values,)), resource, f"idsPath: {path}, id {row}")
    except JobError as error:
        raise InvalidRequestError(f"idsPath: {error}", argument="idsPath") from None


def _in_text(
    source: Source, path: str, columns: tuple[str, ...], resource: Resource
) -> Iterator[tuple[int, Sequence[str]]]:
    """The lines of a file of ids alone, or the columns of a CSV, each row with its line."""
    if not columns and len(resource.parts) == 1:
        for block in Layout(quoted=False).blocks(iter(source.piece, b"")):
            yield from ((line, [each]) for line, each in lines(block) if each.strip())
        return
    places: list[int] = []
    for block in Layout(padded=True).blocks(iter(source.piece, b"")):
        for line, cells in records(block):
            if not places:
                places = _places(cells, columns or resource.parts, path)
            elif len(cells) <= max(places):
                raise InvalidRequestError(
                    f"idsPath: {path}, line {line} has too few cells: {cells!r:.80}", argument="idsPath"
                )
            elif not is_no_event(values := [cells[place] for place in places], resource):
                yield line, values


def _places(header: list[str], names: Sequence[str], path: str) -> list[int]:
    try:
        return columns_of(header, names)
    except LookupError as error:
        name, count = error.args
        what = f"has {count} columns named {name!r}" if count else f"has no column {name!r}{near(name, header)}"
        raise InvalidRequestError(
            f"idsPath: {path} {what}. It has {shown_names(header)}; name others with idsColumn", argument="idsColumn"
        ) from None


def _in_export(given: str, resource: Resource) -> Iterator[Any]:
    """The ids of an export, from the folder or its manifest."""
    if (why := why_no_path(given)) is not None:
        raise InvalidRequestError(f"idsManifest: {why}", argument="idsManifest")
    path = Path(given)
    file = (path if path.is_dir() else path.parent) / "state.sqlite"
    if not file.exists():
        raise InvalidRequestError(
            f"idsManifest: {given} is no export: {file} does not exist where Spark plans, on the driver",
            argument="idsManifest",
        )
    from capillary_async.jobs import JobError  # noqa: PLC0415 - loads pyarrow
    from capillary_async.jobs._dataset.state import State  # noqa: PLC0415 - the same

    try:
        state = State.read_only(file)
        try:
            yield from _kept(state, resource)
        finally:
            state.close()
    except (sqlite3.Error, JobError) as error:
        raise InvalidRequestError(f"idsManifest: {file}: {error}", argument="idsManifest") from None


def _kept(state: Any, resource: Resource) -> Iterator[Any]:
    asked = state.get("asked")
    if asked is None:
        raise InvalidRequestError("idsManifest: the export has not read all of its ids yet", argument="idsManifest")
    if len(resource.parts) > 1 and (resource.key is not str or state.get("source") != "ledger"):
        raise InvalidRequestError(
            f"idsManifest: the ids of this export are no {':'.join(resource.parts)}, which {resource.name} reads",
            argument="idsManifest",
        )
    for first in range(1, asked + 1, _PIECE):
        for place, key in state.keys(first, first + _PIECE - 1).items():
            for values in [(key, event) for event in key.events] if resource.key is str else [(key,)]:
                yield key_of(values, resource, f"idsManifest: id {place}")
