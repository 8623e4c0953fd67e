"""Descriptions and sums of an export, for a person.

Invariant: counts are the manifest's, sums are the files'. Used by `_reconcile.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from capillary_async._files import near
from capillary_async.jobs._books.columns import kind_of
from capillary_async.jobs._books.duckdb_engine import name
from capillary_async.jobs._books.where import by_column
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.result import Group, Subject
from capillary_async.jobs._comparing.rule_catalog import EXCLUSIVE, REMAINING
from capillary_async.jobs._dataset.local_days import QUARTER, ServerZone
from capillary_async.jobs._dataset.manifest import read_of
from capillary_async.models.exact import EXACT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.open import Books
    from capillary_async.jobs._comparing.export_reader import ExportReader

__all__ = ["books_subject", "group_column", "groups_of", "months_of", "no_column", "read_time", "subject_of"]


def subject_of(role: str, folder: ExportReader) -> Subject:
    """Describe an export."""
    said = folder.manifest
    counted = {each: getattr(said.ids, each) for each in ("asked", "found", "empty", "failed")}
    facts = {
        "What": f"export of {folder.source_name}",
        "Asked with": ", ".join(f"{each} {value}" for each, value in said.query.items() if value not in (None, "")),
        "Customers": ", ".join(f"{value:,} {each}" for each, value in counted.items()),
        "Records": f"{said.records:,}",
        "Read": _span(said.read),
        "How it was read": _CONSISTENCY.get(str(said.consistency), ""),
        "Digest of the keys": said.keys_digest or "",
    }
    known = {each: value for each, value in facts.items() if value}
    return Subject(role, str(folder.path), known, dict(said.query), read_of(said.read))


def _span(member: Any) -> str:
    read = read_of(member)
    return "" if read is None else f"{read[0]:%Y-%m-%d %H:%M} to {read[1]:%Y-%m-%d %H:%M} UTC"


_CONSISTENCY = {
    "fast": "fast: each list once. What changed while it was being read may show as a difference",
    "verified": "verified: each list of several pages again until two readings agreed",
}


_GROUPS = 1_000


def books_subject(engine: Engine, reader: Books, where: Sequence[tuple[str, str]]) -> Subject:
    """Describe the books."""
    rows = engine.row("SELECT count(*) FROM books")[0]
    facts = {
        "Rows": f"{rows:,}",
        "Rows where": ", ".join(f"{column}={' or '.join(values)}" for column, values in by_column(where).items()),
        f"SHA-256 of {reader.digest_of}": reader.digest or "",
    }
    return Subject("Books", reader.label, {each: value for each, value in facts.items() if value})


def group_column(folder: ExportReader, by: str | None) -> str:
    """The column whose values group the totals: the one that was named, else the status or the like.

    Raises:
        JobError: There is no such column, or its values are no groups.
    """
    if by is None:
        return folder.source.group
    if by not in folder.columns:
        raise no_column(folder, by, "by: ")
    if kind_of(folder.columns[by]) not in ("integer", "text", "boolean"):
        raise JobError(f"by takes a column of whole numbers or texts, and {by} is {folder.columns[by]}", path=by)
    return by


def groups_of(engine: Engine, folder: ExportReader, group: str) -> tuple[int, tuple[Group, ...]]:
    """How many records there are, and the totals by the values of a column.

    Raises:
        JobError: The column has too many values to be groups.
    """
    points = EXCLUSIVE if EXCLUSIVE[0] in folder.columns else ()
    sums = "".join(f", coalesce(sum({each}), 0)" for each in points)
    if points:
        sums += f", coalesce(sum({REMAINING}), 0)"
    rows = engine.rows(
        f"SELECT CAST({name(group)} AS VARCHAR), count(*){sums} FROM {name(folder.relation)} GROUP BY {name(group)} "
        f"ORDER BY {name(group)} NULLS LAST LIMIT {_GROUPS + 1}",
        about=str(folder.path),
    )
    if len(rows) > _GROUPS:
        raise JobError(f"by: {group} has more than {_GROUPS:,} values, which are no groups", path=group)
    names = (*points, "remaining") if points else ()
    groups = [Group(row[0], row[1], dict(zip(names, map(Decimal, row[2:]), strict=True))) for row in rows]
    return sum(each.records for each in groups), tuple(groups)


def months_of(engine: Engine, folder: ExportReader, zone: ServerZone) -> dict[str, Decimal]:
    """Points left of AVAILABLE allocations by the local month of their expiry."""
    if folder.source_name != "allocations":
        return {}
    rows = engine.rows(
        f"SELECT (expiry_date - 1) // {QUARTER}, sum({REMAINING}) FROM {name(folder.relation)} "
        "WHERE status = 'AVAILABLE' AND expiry_date IS NOT NULL GROUP BY 1 ORDER BY 1",
        about=str(folder.path),
    )
    months: dict[str, Decimal] = {}
    for quarter, points in rows:
        month = zone.month_of((quarter + 1) * QUARTER)
        months[month] = EXACT.add(months.get(month, Decimal(0)), Decimal(points or 0))
    return {month: points for month, points in months.items() if points}


def read_time(folder: ExportReader) -> datetime:
    """When an export was read: its last answer, else when it was finished, else now; of several exports, the last."""
    return max(map(_read_time, folder.exports))


def _read_time(folder: ExportReader) -> datetime:
    read = read_of(folder.manifest.read)
    if read is not None:
        return read[1]
    try:
        finished = datetime.fromisoformat(str(folder.manifest.finished))
    except ValueError:
        return datetime.now(UTC)
    return finished.astimezone(UTC) if finished.tzinfo else finished.replace(tzinfo=UTC)


def no_column(export: ExportReader, column: str, about: str = "") -> JobError:
    """The error for a column that an export has not, with the nearest one."""
    known = [each for each in export.columns if each not in ("shard", "row")]
    return JobError(
        f"{about}{export.path}: an export of {export.source_name} has no column {column!r}. It has: {', '.join(known)}"
        f"{near(column, known)}",
        path=str(export.path),
    )
