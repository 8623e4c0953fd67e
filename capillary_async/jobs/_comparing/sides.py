"""The two sides of a comparison: an export, and books or another export of the same kind.

Invariant: each column that is compared exists on both sides. Called by `_reconcile.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from capillary_async.jobs._books.columns import Pair, Wanted, kind_of
from capillary_async.jobs._books.open import is_export, open_books, stage_books
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.alike import unlike
from capillary_async.jobs._comparing.compare import compare
from capillary_async.jobs._comparing.export_reader import ExportReader, open_folders
from capillary_async.jobs._comparing.invisible import invisible_differences
from capillary_async.jobs._comparing.rule_catalog import EXCLUSIVE
from capillary_async.jobs._comparing.staging import stage_export
from capillary_async.jobs._comparing.summary import books_subject, no_column, subject_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capillary_async.jobs._books.address import Address
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.options import BooksOptions
    from capillary_async.jobs._comparing.arguments import Arguments
    from capillary_async.jobs._comparing.comparison import Comparison
    from capillary_async.jobs._comparing.result import Subject

__all__ = ["Compared", "compare_sides"]

_POSITIONS = ("shard", "row")  # where a record is in the files
_NOT_COMPARED = ("asked_key", *_POSITIONS)


@frozen
class Compared:
    """A comparison, what it was made with, and warnings about it."""

    comparison: Comparison
    other: Subject
    warnings: tuple[str, ...] = ()


def compare_sides(engine: Engine, arguments: Arguments, books: Address, export: ExportReader) -> Compared:
    """Compare an export with the books, which may be another export.

    Raises:
        JobError: The books or a column cannot be read or are not there, or the two sides are of different kinds.
    """
    if books.is_file and books.scheme is None and is_export(Path(books.reveal())):
        return _with_export(engine, arguments, export, Path(books.reveal()))
    return _with_books(engine, arguments, export, books)


def _with_books(engine: Engine, arguments: Arguments, export: ExportReader, books: Address) -> Compared:
    reader = open_books(books, arguments.options)
    if not arguments.key:
        raise JobError(
            "key takes the columns that identify a record, the export's first, e.g. id=award_id; none was given"
        )
    wanted = _wanted(export, arguments.key, arguments.compare)
    stage_books(engine, reader, wanted)
    engine.go_on()
    repeated = stage_export(engine, export, wanted, "capillary", other="books")
    engine.go_on()
    comparison = compare(engine, wanted, arguments.tolerance, repeated, arguments.by)
    other = books_subject(engine, reader, arguments.options.where)
    warnings = (*_in_several(export, repeated), *invisible_differences(engine, wanted))
    return Compared(comparison, other, warnings)


def _in_several(export: ExportReader, repeated: int) -> tuple[str, ...]:
    """A warning about records that came more than once where there are several exports."""
    if not export.parts or not repeated:
        return ()
    said = (
        f"{repeated:,} record{'' if repeated == 1 else 's'} came more than once in {export.path}: each is compared once"
    )
    return (f"{said}, and totals of groups count all",)


def _with_export(engine: Engine, arguments: Arguments, export: ExportReader, path: Path) -> Compared:
    _refuse_options(arguments.options, path)
    other = open_folders(engine, [path], "other_export")
    if other.source_name != export.source_name:
        raise JobError(
            f"{path} is an export of {other.source_name}, and {export.path} one of {export.source_name}",
            path=str(path),
        )
    key = arguments.key or tuple(Pair(column, column) for column in export.source.key)
    wanted = _wanted(export, key, arguments.compare or _documented(export, key))
    for each in wanted:
        if each.theirs not in other.columns:
            raise no_column(other, each.theirs)
    stage_export(engine, other, wanted, "books", other=None)
    repeated = stage_export(engine, export, wanted, "capillary", other="books")
    engine.go_on()
    subject = evolve(subject_of("Books", other), label=f"{path}, another export")
    comparison = compare(engine, wanted, arguments.tolerance, repeated, arguments.by)
    asked = () if export.parts else unlike(export, other)
    warnings = (*asked, *_in_several(export, repeated), *invisible_differences(engine, wanted))
    return Compared(comparison, subject, warnings)


def _refuse_options(options: BooksOptions, path: Path) -> None:
    """See that no option of books is given with another export.

    Raises:
        JobError: One is.
    """
    options.allow(str(path), "another export")
    if options.where:
        raise JobError(
            f"{path} is another export, and books_where goes with other books: give {path / 'shards'} to read its "
            "Parquet files as books",
            path=str(path),
        )


def _documented(export: ExportReader, key: Sequence[Pair]) -> tuple[Pair, ...]:
    """Every documented column of an export beside its key, amounts first."""
    left_out = {*(pair.ours for pair in key), *export.source.derived, *_NOT_COMPARED}
    first = [column for column in EXCLUSIVE if column in export.columns]  # what a person looks for
    documented = dict.fromkeys((*first, *export.source.types()))
    return tuple(Pair(column, column) for column in documented if column not in left_out)


def _wanted(export: ExportReader, key: Sequence[Pair], fields: Sequence[Pair]) -> list[Wanted]:
    """The columns that are compared; each column of the export once."""
    slots = [(f"k{nth}", pair) for nth, pair in enumerate(key)]
    slots += [(f"f{nth}", pair) for nth, pair in enumerate(fields)]
    wanted: list[Wanted] = []
    for slot, pair in slots:
        if pair.ours not in export.columns or pair.ours in _POSITIONS:
            raise no_column(export, pair.ours)
        if pair.ours in {each.ours for each in wanted}:
            raise JobError(f"the column {pair.ours} is named twice in key and compare")
        wanted.append(Wanted(slot, pair.ours, pair.theirs, kind_of(export.columns[pair.ours])))
    return wanted
