"""Reading an export: what its manifest says, and its rows as a relation of DuckDB.

Invariant: only files that the manifest names count; a row's columns have the same types whether the shards are Parquet
or JSON Lines. Used for either side of a comparison, for cross checks and for the reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from capillary_async.jobs._books.duckdb_engine import file_literal, literal, name
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.several import is_several
from capillary_async.jobs._comparing.export_kinds import SOURCES, ExportSource
from capillary_async.jobs._comparing.json_lines import FILE, WHOLE_NUMBERS, is_amount, typed_lines
from capillary_async.jobs._dataset.id_shard import expanded, faults_together
from capillary_async.jobs._dataset.manifest import Manifest, refuse_shards_elsewhere

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["ExportReader", "open_folder", "open_folders", "whole_exports"]

# What the records derive: it is what finance books of an award.
_REMAINING = "points_exclusive - redeemed_exclusive_value - returned_exclusive_value - expired_exclusive_value"
_SHARDS = 1 << 32  # more than an export has
_QUANTITIES = set(_REMAINING.split(" - "))
_AS_THEY_ARE = "hive_partitioning = false, union_by_name = false"  # no columns are made of names of folders


@attrs.frozen
class ExportReader:
    """A finished export, or several of one kind as one.

    Attributes:
        path: The folder.
        source_name: `allocations`, `awarded`, `events` or `ledger`.
        manifest: Its manifest.
        files: The shards that the manifest names.
        relation: The name of the view of its rows.
        columns: The types of its columns, by name.
        parts: The exports, where there are several.
    """

    path: Path
    source_name: str
    manifest: Manifest
    files: tuple[Path, ...]
    relation: str
    columns: Mapping[str, str]
    parts: tuple[ExportReader, ...] = ()

    @property
    def exports(self) -> tuple[ExportReader, ...]:
        """Each export with its own folder and manifest."""
        return self.parts or (self,)

    @property
    def source(self) -> ExportSource:
        """What kind of export it is."""
        return SOURCES[self.source_name]


def open_folders(engine: Engine, paths: Sequence[Path], relation: str) -> ExportReader:
    """Open one export, or several of one kind whose rows are read as one.

    Raises:
        JobError: As `open_folder`, they are of different kinds, or shards of one list of which some are missing.
    """
    paths = whole_exports(paths)
    if len(paths) == 1:
        return open_folder(engine, paths[0], relation)
    parts = tuple(open_folder(engine, path, f"{relation}_{nth}") for nth, path in enumerate(paths))
    first = parts[0]
    for other in parts[1:]:
        if other.source_name != first.source_name:
            raise JobError(
                f"{other.path} is an export of {other.source_name}, and {first.path} one of {first.source_name}: give "
                "exports of one kind",
                path=str(other.path),
            )
    rows = " UNION ALL BY NAME ".join(
        f"SELECT * REPLACE (CAST(shard AS BIGINT) + {nth * _SHARDS} AS shard) FROM {name(part.relation)}"
        for nth, part in enumerate(parts)
    )
    label = ", ".join(str(part.path) for part in parts)
    engine.run(f"CREATE VIEW {name(relation)} AS {rows}", about=label)
    # Lists of one customer in several exports are no longer than a page together.
    manifest = attrs.evolve(first.manifest, page_size=None)
    files = tuple(file for part in parts for file in part.files)
    columns = engine.columns(name(relation), about=label)
    return ExportReader(Path(label), first.source_name, manifest, files, relation, columns, parts)


def open_folder(engine: Engine, path: str | Path, relation: str) -> ExportReader:
    """Read the manifest and make the view of the rows.

    Raises:
        JobError: It is no export, not finished, or a shard is missing or of another shape.
    """
    root = Path(path)
    manifest = _manifest(root)
    files = _files(root, manifest)
    source = attrs.evolve(SOURCES[manifest.source], several=is_several(manifest.query))
    select = _select(source, files)
    if files and manifest.format == "jsonl":
        select = typed_lines(engine, source, _reader(source, files), _reader(source, files, "VARCHAR"), about=str(root))
    if not _QUANTITIES - set(SOURCES[manifest.source].types()):
        select = f"SELECT *, {_REMAINING} AS remaining FROM ({select})"
    engine.run(f"CREATE VIEW {name(relation)} AS {select}", about=str(root))
    columns = engine.columns(name(relation), about=str(root))
    missing = [column for column in source.types() if column not in columns]
    if missing:
        raise JobError(
            f"{root}: the shards have no column {', '.join(missing)}: another release wrote them; export again",
            path=str(root),
        )
    return ExportReader(root, manifest.source, manifest, files, relation, columns)


def whole_exports(folders: Sequence[Path]) -> list[Path]:
    """The folders of exports, and of all shards where a folder has those of one list.

    Raises:
        JobError: Some are shards of one list, and not all of them are there.
    """
    paths = expanded(folders)
    faults = faults_together([(path, _manifest(path)) for path in paths])
    if faults:
        raise JobError(f"these exports are not the shards of one list: {faults[0]}", path=str(paths[0]))
    return paths


def _manifest(root: Path) -> Manifest:
    path = root / "manifest.json"
    if not root.is_dir():
        also = "; books are given with books, --books" if root.is_file() else ""
        text = f"{root} is no folder: give the folder of an export (capillary-async export){also}"
        raise JobError(text, path=str(root))
    try:
        manifest = Manifest.load(path)
    except FileNotFoundError:
        raise JobError(
            f"{root} has no manifest.json: the export has not finished. Run the same export command again, with the "
            "same --out: it goes on where it stopped",
            path=str(root),
        ) from None
    refuse_shards_elsewhere(manifest, path)
    return manifest


def _files(root: Path, manifest: Manifest) -> tuple[Path, ...]:
    files = tuple(root / shard.file for shard in manifest.shards)
    for file in files:
        if file.is_symlink():
            raise JobError(f"{file} is a symbolic link, and an export makes none: put the file there", path=str(file))
        if not file.is_file():
            raise JobError(
                f"{file} is missing, and the manifest names it: run the same export command again", path=str(file)
            )
    return files


def _select(source: ExportSource, files: tuple[Path, ...]) -> str:
    """The rows of the files; of none, no rows with the same columns."""
    if not files:
        nothing = ", ".join(f"NULL::{kind} AS {name(column)}" for column, kind in source.types().items())
        return f"SELECT {nothing} WHERE false"
    return f"SELECT * FROM read_parquet({_listed(files)}, {_AS_THEY_ARE})"


def _reader(source: ExportSource, files: tuple[Path, ...], whole: str | None = None) -> str:
    """The rows of JSON Lines as a relation; amounts are JSON still."""
    members = {column: "JSON" if is_amount(kind) else kind for column, kind in source.types().items()}
    members |= {column: whole for column, kind in members.items() if whole and kind in WHOLE_NUMBERS}
    columns = ", ".join(f"{literal(column)}: {literal(kind)}" for column, kind in members.items())
    return (
        f"read_json({_listed(files)}, format = 'newline_delimited', columns = {{{columns}}}, "
        f"filename = {literal(FILE)}, {_AS_THEY_ARE})"
    )


def _listed(files: tuple[Path, ...]) -> str:
    return f"[{', '.join(file_literal(file) for file in files)}]"
