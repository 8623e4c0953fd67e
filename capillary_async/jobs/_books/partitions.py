"""Columns of Parquet books that are in the names of their folders, as Hive and Spark write them: `program_id=2282/`.

Invariant: a name of a folder is a column only where it is asked for, every file has it, and no file has a column of
that name; its text is read as strictly as a cell of a CSV. Made by `_books/duckdb_parquet.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from capillary_async._files.identifiers import LARGEST
from capillary_async.jobs._books.duckdb_engine import literal, name
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.parquet_files import partitions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine

__all__ = ["Partitions"]

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)


class Partitions:
    """The names of the folders of some files.

    Args:
        path: The folder or glob that was given.
        files: Its files.
        label: How messages name the books.
    """

    def __init__(self, path: Path, files: Sequence[Path], label: str) -> None:
        self._files, self._label = files, label
        self._values = [partitions_of(path, file) for file in files]
        self._names: list[str] = []

    @property
    def known(self) -> list[str]:
        """The names that all files have, in alphabetical order."""
        return sorted(name for name in self._values[0] if all(name in each for each in self._values))

    def read(self, wanted: Iterable[str], columns: Sequence[str]) -> list[str]:
        """The wanted columns that are in the names of folders.

        Raises:
            JobError: One is in the files too, or some file is in no such folder.
        """
        for each in wanted:
            lacking = [file for file, values in zip(self._files, self._values, strict=True) if each not in values]
            if len(lacking) == len(self._files):
                continue
            if each in columns:
                raise self._refused(
                    f"column {each!r} is in the files and in the names of their folders; rename one of the two"
                )
            if lacking:
                raise self._refused(f"column {each!r} is the name of a folder, and {lacking[0]} is in none")
            self._names.append(each)
        return self._names

    def joined(self, engine: Engine, reading: str, wanted: Sequence[Wanted]) -> str:
        """The relation of the files, with these columns."""
        whole = {each.theirs for each in wanted if each.kind == "integer"}
        kinds = ["BIGINT" if each in whole else "VARCHAR" for each in self._names]
        columns = ", ".join(f"{name(each)} {kind}" for each, kind in zip(self._names, kinds, strict=True))
        engine.run(f"CREATE TABLE folders (folder BIGINT, {columns})")
        for nth in range(len(self._files)):
            values = ", ".join(self._value(nth, each, whole=each in whole) for each in self._names)
            engine.run(f"INSERT INTO folders VALUES ({nth}, {values})")
        picked = ", ".join(f"p.{name(each)}" for each in self._names)
        return f"(SELECT f.*, f.file_index, {picked} FROM {reading} f JOIN folders p ON p.folder = f.file_index)"

    def _value(self, nth: int, column: str, *, whole: bool) -> str:
        value = self._values[nth][column]
        if value is not None and whole and (not _WHOLE.fullmatch(value) or abs(int(value)) > LARGEST):
            raise self._refused(f"column {column!r}, the folder of {self._files[nth]}: {value!r} is no whole number")
        return "NULL" if value is None else literal(value)

    def _refused(self, text: str) -> JobError:
        return JobError(f"{self._label}: {text}", path=self._label)
