"""Opens the books, the user's own table, and reads them into one table of keys and fields.

Invariant: books that cannot be trusted to say what they mean are refused, naming file, column and row: a key that is
empty or there twice, a column that is missing or of another type. Called by `_comparing/sides.py`.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from capillary_async._files import PACKED, PARQUET, Source, SourceError, inner_suffix, near_file
from capillary_async._files.workbook import is_workbook
from capillary_async.jobs._books.address import without_password
from capillary_async.jobs._books.csv import CsvBooks
from capillary_async.jobs._books.duckdb_parquet import ParquetBooks
from capillary_async.jobs._books.duckdb_tables import DuckDBBooks
from capillary_async.jobs._books.postgres import PostgresBooks
from capillary_async.jobs._books.workbook import WorkbookBooks
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.parquet_files import parquet_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capillary_async.jobs._books.address import Address
    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._books.options import BooksOptions

__all__ = ["Books", "is_export", "open_books", "stage_books"]

_FORMS = (
    "books.csv, books.parquet (or .xlsx, .tsv, .txt, .csv.gz, .csv.bz2, .csv.zst, a folder or glob of Parquet files), "
    "the folder of another export, duckdb://file.db or postgresql://..."
)
_TEXTS = (".csv", ".tsv", ".txt")


class Books(Protocol):
    """What every reader of books is.

    Attributes:
        label: How messages and reports name them, without a password.
        digest: The SHA-256 of the file once it was read, None for a table.
        digest_of: What the digest is of.
    """

    digest_of: str

    @property
    def label(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def stage(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Make the table `books`: `shard`, `row`, and a column for each slot."""
        ...

    def place(self, row: int, key: Sequence[str]) -> str:
        """The place of a row, for a person."""
        ...


def open_books(address: Address, options: BooksOptions) -> Books:
    """The reader for what the user named; nothing but a header is read yet.

    Raises:
        JobError: There is no such file, nothing reads it, or an option does not fit it.
    """
    if address.scheme == "postgresql":
        options.allow(str(address), "a database", "table")
        return PostgresBooks(address, options)
    if not address.is_file:
        raise JobError(f"books: {str(address)!r} is none of {_FORMS}{f'; {address.hint}' if address.hint else ''}")
    path = Path(address.reveal().removeprefix("duckdb://"))
    try:
        several = address.scheme is None and (path.is_dir() or (not path.exists() and glob.has_magic(str(path))))
        if not several and not path.exists():
            raise _no_file(path, address)
        if address.scheme:
            options.allow(str(address), "a database", "table")
            return DuckDBBooks(path, options)
        if options.table is not None:
            raise JobError(f"{path} has no tables: a table goes with duckdb:// and postgresql://", path=str(path))
        if several:
            options.allow(str(path), "Parquet")
            return ParquetBooks(path, parquet_files(path), options)
        return _file(path, options) if path.is_file() else _text(path, options)
    except OSError as error:  # whose own text has the address as it came
        raise JobError(
            f"{address} cannot be read: {error.strerror or type(error).__name__}", path=str(address)
        ) from None


def _no_file(path: Path, address: Address) -> JobError:
    """The error for a file that is not there, with the nearest name in its folder."""
    folder, also = path.parent, near_file(str(path))
    name, query, _ = path.name.partition("?")
    if query and (folder / name).exists():
        also = f". Give {without_password(str(folder / name))} alone, and the table with table, --table"
    return JobError(f"books: there is no file {without_password(str(path))}; give {_FORMS}{also}", path=str(address))


def _text(path: Path, options: BooksOptions) -> Books:
    options.allow(str(path), "text", "delimiter", "decimal", "encoding")
    return CsvBooks(path, options)


def _file(path: Path, options: BooksOptions) -> Books:
    if is_workbook(str(path)):
        options.allow(str(path), "a workbook", "sheet", "decimal")
        return WorkbookBooks(path, options)
    source = Source(str(path))
    try:
        source.open()
    except SourceError as error:
        raise JobError(f"{path}: {error}", path=str(path)) from error
    finally:
        source.close()
    suffix, last = inner_suffix(path), path.suffix.lower()
    if source.kind == "parquet" or suffix in PARQUET:
        options.allow(str(path), "Parquet")
        return ParquetBooks(path, [path], options)
    if suffix in _TEXTS or (last in PACKED and not suffix) or options.delimiter is not None:
        return _text(path, options)
    raise JobError(f"books: {path} is none of {_FORMS}{_hint(path)}", path=str(path))


def _hint(path: Path) -> str:
    """What to do with a file of another kind, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:12] == b"DUCK":
        return f". It is a DuckDB database: give duckdb://{path} and its table (table, --table)"
    if head.startswith(b"SQLite format 3"):
        return ". It is an SQLite database: write the table to a Parquet or CSV file, and give that"
    if path.suffix.lower() in (".xlsx", ".xlsm"):
        return ". It is no workbook: save it again as .xlsx"
    return ". If it is text with a header line, give its delimiter (delimiter, --delimiter)"


def is_export(folder: Path) -> bool:
    """Whether a folder is an export, finished or not, and not a folder of Parquet files."""
    if (folder / "state.sqlite").exists() or (folder / "shards").is_dir():
        return True
    return (folder / "manifest.json").exists() and not any(folder.glob("*.parquet"))


def stage_books(engine: Engine, books: Books, wanted: Sequence[Wanted]) -> None:
    """Make the table `books` and see that its key is one.

    Raises:
        JobError: It cannot be read, or a key is empty or there twice.
    """
    books.stage(engine, wanted)
    keys = [each for each in wanted if each.is_key]
    for each in keys:
        many, row = engine.row(f"SELECT count(*), min(row) FROM books WHERE {each.slot} IS NULL")
        if many:
            raise JobError(
                f"{books.label}: column {each.theirs!r}, {books.place(row, _key(engine, keys, row))}: it is empty and "
                f"part of the key{_more(many)}",
                path=books.label,
            )
    slots = ", ".join(each.slot for each in keys)
    # The rows are looked up for the first alone: lists of rows for millions of keys would not fit in memory.
    found = engine.rows(
        f"SELECT min(row), any_value(many) FROM (SELECT min(row) AS row, count(*) OVER () AS many FROM books "
        f"GROUP BY {slots} HAVING count(*) > 1) HAVING count(*) > 0"
    )
    if found:
        row, many = found[0]
        same = " AND ".join(f"b.{each.slot} = f.{each.slot}" for each in keys)
        rows = engine.rows(f"SELECT b.row FROM books b, books f WHERE f.row = {row} AND {same} ORDER BY 1 LIMIT 2")
        key = _key(engine, keys, row)
        named = ", ".join(f"{each.theirs} {value}" for each, value in zip(keys, key, strict=True))
        places = " and ".join(dict.fromkeys(books.place(each[0], key) for each in rows))
        others = f"; {many:,} keys do" if many > 1 else ""
        raise JobError(
            f"{books.label}: {named} is there more than once, {places}{others}. A key names one row: "
            "sum them first, or name more columns in the key",
            path=books.label,
        )


def _key(engine: Engine, keys: Sequence[Wanted], row: int) -> list[str]:
    texts = ", ".join(f"coalesce(CAST({each.slot} AS VARCHAR), 'nothing')" for each in keys)
    return list(engine.row(f"SELECT {texts} FROM books WHERE row = {row}"))


def _more(many: int) -> str:
    return f" ({many:,} such rows)" if many > 1 else ""
