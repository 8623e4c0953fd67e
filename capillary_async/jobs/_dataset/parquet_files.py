"""Which Parquet files a path names: one file, a folder of parts, or a glob of them.

Invariant: hidden files and those that begin with `_` are no parts, as for whoever wrote the folder; a table format,
whose files hold removed rows too, is refused. Used for ids and books.
"""

from __future__ import annotations

import glob
import itertools
import os
from pathlib import Path
from urllib.parse import unquote

from capillary_async._files import PARQUET, inner_suffix
from capillary_async.jobs._common.errors import JobError

__all__ = ["parquet_files", "partitions_of"]

_SHOWN = 3
_NULL = "__HIVE_DEFAULT_PARTITION__"
_TABLES = {"_delta_log": "Delta", ".hoodie": "Hudi", "metadata": "Iceberg"}


def parquet_files(given: str | os.PathLike[str]) -> list[Path]:
    """The files, in the order of their names.

    Raises:
        JobError: There are none.
    """
    path = Path(given)
    if path.is_dir():
        found = _parts(path)
        if not found:
            raise JobError(f"{path} is a folder without Parquet files (*.parquet){_instead(path)}", path=str(path))
        return found
    if not path.exists() and glob.has_magic(str(path)):
        found = [
            part
            for each in sorted(glob.glob(str(path)))  # noqa: PTH207 - a pattern may be absolute
            for part in _named(Path(each))
        ]
        if not found:
            raise JobError(f"{path}: no Parquet file matches this pattern", path=str(path))
        return found
    return [path]


def partitions_of(given: str | os.PathLike[str], file: Path) -> dict[str, str | None]:
    """The columns in the names of the folders between a folder or glob and one of its files: `program_id=2282`.

    Only what the folder contains or the pattern matches counts, so that a folder above never becomes a column.
    """
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), Path(given).parts))
    folders = file.parts[len(fixed) : -1]
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    return {unquote(name): None if value == _NULL else unquote(value) for name, _, value in pairs}


def _instead(folder: Path) -> str:
    """What a folder without parts has, of files that are read one by one."""
    others = sorted(each.name for each in folder.iterdir() if inner_suffix(each) in (".csv", ".tsv", ".txt", ".xlsx"))
    return f". It has {', '.join(others[:_SHOWN])}: give one of them" if others else ""


def _named(path: Path) -> list[Path]:
    if path.is_dir():
        return _parts(path)
    if path.suffix.lower() not in PARQUET:
        raise JobError(
            f"{path}: a glob names Parquet files (*.parquet), and this is another; give one file of text, or a pipe: "
            "/dev/stdin",
            path=str(path),
        )
    return [path]


def _parts(folder: Path) -> list[Path]:
    """The parts in a folder and in the folders of its partitions."""
    for inner, kind in _TABLES.items():
        if (folder / inner).is_dir() and (kind != "Iceberg" or any((folder / inner).glob("*.metadata.json"))):
            raise JobError(
                f"{folder} is a {kind} table, whose files hold removed rows too: write the current rows as plain "
                "Parquet first",
                path=str(folder),
            )
    found: list[Path] = []
    for above, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(("_", "."))]
        found += [
            Path(above, each) for each in files if each.lower().endswith(PARQUET) and not each.startswith(("_", "."))
        ]
    return sorted(found)
