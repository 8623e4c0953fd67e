"""Books that have types: what all of them have in common, and Parquet files.

Invariant: a column's type must fit, whatever its values; nothing is cast but amounts to a wider amount. Made by
`_books/open.py`; `_books/duckdb_tables.py` has another kind.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from capillary_async.jobs._books.columns import fit, has_nanoseconds, kind_of, names_of, pick
from capillary_async.jobs._books.duckdb_engine import file_literal, name
from capillary_async.jobs._books.partitions import Partitions
from capillary_async.jobs._books.where import refuse_nothing, typed_conditions
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.pyarrow_import import pa, pq

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.options import BooksOptions

__all__ = ["ParquetBooks", "TypedBooks", "both", "wide"]

_WIDEST, _WHOLE, _DECIMALS = 38, 15, 3
_ROWS = 1 << 40  # more than a file has


def wide(sql_type: str) -> str:
    """The type in which amounts of this type are compared: at least DECIMAL(18,3), so that both sides fit it."""
    found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", sql_type)
    width, scale = (int(found[1]), int(found[2])) if found else (_WIDEST - _DECIMALS, 0)
    if not found and sql_type not in ("HUGEINT", "UHUGEINT", "UBIGINT", "BIGINT"):
        width = 10
    decimals = max(scale, _DECIMALS)
    return f"DECIMAL({min(_WIDEST, decimals + max(width - scale, _WHOLE))},{decimals})"


def both(one: str, other: str) -> str:
    """The DECIMAL that fits every amount of the two; if 38 digits are too few, the decimals are kept."""
    sizes = [tuple(map(int, re.findall(r"\d+", each))) for each in (one, other)]
    decimals = max(scale for _, scale in sizes)
    return f"DECIMAL({min(_WIDEST, decimals + max(width - scale for width, scale in sizes))},{decimals})"


class TypedBooks:
    """What both have in common: a relation with columns of certain types and a row number."""

    label: str
    digest: str | None = None
    digest_of = "the file"
    _path: Path
    _options: BooksOptions
    _counts = "true"
    _hidden: tuple[str, ...] = ()  # columns that are not the books' own
    _also: Sequence[str] = ()  # columns that are there, and only read where they are wanted

    def _check_files(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """See that a relation of several files is one table."""

    def _declared(self, column: str) -> str | None:
        """The type that the file declares, where DuckDB reads it as another; None otherwise."""

    def _relation(self, engine: Engine, wanted: Sequence[Wanted]) -> str:
        raise NotImplementedError

    def _row(self) -> str:
        raise NotImplementedError

    def place(self, row: int, key: Sequence[str]) -> str:  # noqa: ARG002 - tables without row numbers need the key
        """The place of a row, for a person."""
        return f"row {row}"

    def stage(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Make the table `books`.

        Raises:
            JobError: It cannot be read, is empty, or a column is missing or does not fit.
        """
        relation = self._relation(engine, wanted)
        columns = {
            each: kind for each, kind in engine.columns(relation, about=self.label).items() if each not in self._hidden
        }
        also = [each for each in self._also if each not in columns]
        pick(names_of(wanted, self._options.where), [*columns, *also], self.label)
        self._check_files(engine, wanted)
        if not engine.row(f"SELECT count(*) FROM {relation}", about=self.label)[0]:
            raise JobError(f"{self.label}: it has no rows: was it not filled yet?", path=self.label)
        self._counts = self._condition(engine, relation, columns)
        for each in wanted:
            kind = kind_of(columns[each.theirs])
            if kind == "float" and (declared := self._declared(each.theirs)) is not None:
                raise JobError(
                    f"{self.label}: column {each.theirs!r} is {declared}, and amounts of at most 38 digits are "
                    f"compared. Cast it where the books are made: CAST({each.theirs} AS DECIMAL(38,3))",
                    path=self.label,
                )
            if kind in ("float", "text") and kind != each.kind:
                fit(each, kind, columns[each.theirs], self.label, self._example(engine, relation, each))
            fit(each, kind, columns[each.theirs], self.label)
        self._check_times(engine, relation, wanted, columns)
        slots = ", ".join(_cast(each, columns[each.theirs]) for each in wanted)
        try:
            engine.run(
                f"CREATE TABLE books AS SELECT 0 AS shard, {self._row()} + 1 AS row, {slots} FROM {relation} "
                f"WHERE {self._counts}",
                about=self.label,
            )
        except JobError:
            self._refuse_beyond(engine, relation, wanted, columns)
            raise

    def _condition(self, engine: Engine, relation: str, columns: Mapping[str, str]) -> str:
        """The SQL condition of the rows that count."""
        where = self._options.where
        if not where:
            return "true"
        parts = typed_conditions(engine, columns, where, self.label)
        refuse_nothing(engine, relation, parts, {column: name(column) for column in parts}, where, self.label)
        return " AND ".join(parts.values())

    def _check_times(self, engine: Engine, relation: str, wanted: Sequence[Wanted], columns: Mapping[str, str]) -> None:
        """See that no time has nanoseconds of its own, which would be cut."""
        for each in wanted:
            if each.kind == "time" and has_nanoseconds(columns[each.theirs]):
                cell = name(each.theirs)
                found = engine.rows(
                    f"SELECT {self._row()} + 1, CAST({cell} AS VARCHAR) FROM {relation} "
                    f"WHERE epoch_ns({cell}) % 1000 <> 0 AND {self._counts} ORDER BY 1 LIMIT 1",
                    about=self.label,
                )
                if found:
                    raise JobError(
                        f"{self.label}: column {each.theirs!r}, {self.place(found[0][0], ())}: {found[0][1]} has "
                        "nanoseconds, and times are compared in microseconds. Round it where the books are made: "
                        f"CAST({each.theirs} AS TIMESTAMP WITH TIME ZONE)",
                        path=self.label,
                    )

    def _refuse_beyond(
        self, engine: Engine, relation: str, wanted: Sequence[Wanted], columns: Mapping[str, str]
    ) -> None:
        """Raise with the first number that is larger than what it is compared as, if that is the fault."""
        for each in wanted:
            if each.kind not in ("amount", "integer"):
                continue
            cell, kind = name(each.theirs), _kind(each, columns[each.theirs])
            found = engine.rows(
                f"SELECT {self._row()} + 1, CAST({cell} AS VARCHAR) FROM {relation} "
                f"WHERE {cell} IS NOT NULL AND TRY_CAST({cell} AS {kind}) IS NULL AND {self._counts} "
                "ORDER BY 1 LIMIT 1",
                about=self.label,
            )
            if found:
                raise JobError(
                    f"{self.label}: column {each.theirs!r}, {self.place(found[0][0], ())}: {found[0][1]} is beyond "
                    f"what {each.ours} is compared as, {kind}",
                    path=self.label,
                )

    def _example(self, engine: Engine, relation: str, each: Wanted) -> str:
        """A value of a column that does not fit: a text that is no number, if there is one, and the first otherwise."""
        cell = f"CAST({name(each.theirs)} AS VARCHAR)"
        plain = f"regexp_full_match({cell}, '-?\\d+(\\.\\d+)?')"
        found = engine.rows(
            f"SELECT {self._row()} + 1, {cell} FROM {relation} WHERE {name(each.theirs)} IS NOT NULL "
            f"ORDER BY {plain}, 1 LIMIT 1",
            about=self.label,
        )
        return f" ({self.place(found[0][0], ())}: {found[0][1]!r})" if found else ""


def _kind(each: Wanted, sql_type: str) -> str:
    """The type in which a number is compared."""
    return wide(sql_type) if each.kind == "amount" else "BIGINT"


def _cast(each: Wanted, sql_type: str) -> str:
    cell = name(each.theirs)
    if each.kind == "time" and has_nanoseconds(sql_type):  # exact: those with nanoseconds were refused
        cell = f"CAST(make_timestamp(epoch_ns({cell}) // 1000) AS TIMESTAMP WITH TIME ZONE)"
    numeric = each.kind in ("amount", "integer")
    return f"CAST({cell} AS {_kind(each, sql_type)}) AS {each.slot}" if numeric else f"{cell} AS {each.slot}"


class ParquetBooks(TypedBooks):
    """A Parquet file, or several that are one table; the names of their folders may be columns."""

    _hidden = ("file_row_number", "file_index")
    _folders: Sequence[str] = ()

    def __init__(self, path: Path, files: Sequence[Path], options: BooksOptions) -> None:
        self._path, self._files, self._options = path, files, options
        self.label = str(path)
        for file in files:
            if not file.stat().st_size:
                raise JobError(f"{file}: the file is empty; it needs rows", path=str(file))
        if len(files) > 1:
            self.digest_of = f"the list of the {len(files):,} files with their SHA-256"

    def place(self, row: int, key: Sequence[str]) -> str:
        """The place of a row, for a person: the row of its file."""
        if len(self._files) == 1:
            return super().place(row, key)
        nth, row = divmod(row - 1, _ROWS)
        path = self._files[nth]
        return f"row {row + 1} of {path.relative_to(self._path) if self._path.is_dir() else path}"

    def _relation(self, engine: Engine, wanted: Sequence[Wanted]) -> str:
        digests: list[str] = []
        for path in self._files:
            engine.go_on()
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        lines = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, self._files, strict=True))
        self.digest = digests[0] if len(digests) == 1 else hashlib.sha256(lines.encode()).hexdigest()
        partitions = Partitions(self._path, self._files, self.label)
        self._also = partitions.known
        self._folders = partitions.read(names_of(wanted, self._options.where), self._first_columns(engine))
        return (
            partitions.joined(engine, self._reading(self._files), wanted)
            if self._folders
            else self._reading(self._files)
        )

    def _first_columns(self, engine: Engine) -> list[str]:
        return list(engine.columns(self._reading(self._files[:1]), about=str(self._files[0])))

    @staticmethod
    def _reading(files: Sequence[Path]) -> str:
        listed = ", ".join(map(file_literal, files))
        return (
            f"read_parquet([{listed}], file_row_number = true, hive_partitioning = false, "
            f"union_by_name = {str(len(files) > 1).lower()})"
        )

    def _row(self) -> str:
        return "file_row_number" if len(self._files) == 1 else f"(file_index::BIGINT * {_ROWS} + file_row_number)"

    def _check_files(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """DuckDB casts the columns of the other files to those of the first, with rounding, and reports nothing."""
        if len(self._files) == 1:
            return
        first: dict[str, str] = {}
        for path in self._files:
            engine.go_on()
            columns = engine.columns(self._reading([path]), about=str(path))
            own = [each for each in names_of(wanted, self._options.where) if each not in self._folders]
            pick(own, [each for each in columns if each not in self._hidden], str(path))
            first = first or columns
            for each in (each for each in wanted if each.theirs not in self._folders):
                here, there = columns[each.theirs], first[each.theirs]
                if here != there:
                    raise JobError(
                        f"{self.label}: column {each.theirs!r} is {there} in {self._files[0].name} and {here} in "
                        f"{path.name}; write all files with one type",
                        path=str(path),
                    )

    def _declared(self, column: str) -> str | None:
        for path in self._files if column not in self._folders else ():
            kind = pq.read_schema(path).field(column).type
            if pa.types.is_decimal(kind):
                return f"DECIMAL({kind.precision},{kind.scale})"
        return None
