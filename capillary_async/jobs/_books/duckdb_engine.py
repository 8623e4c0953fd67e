"""The DuckDB that compares, within a memory limit and with a scratch folder of its own.

Invariant: what does not fit in memory goes to the scratch folder, which is removed when the work ends, or, if its
process was killed, when the next work begins there; DuckDB loads nothing from the network. Made by
`_books/engine_thread.py`; everything that runs SQL gets it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import duckdb

from capillary_async._files.durable import open_own, take_lock
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Engine", "file_literal", "literal", "name"]

_PREFIX, _LOCK = ".reconcile-", "lock"
_FETCHED = 10_000  # rows
_BEYOND = "a value is beyond what can be compared: amounts of 38 digits, decimals included; times to the year 294246"
_HINTS = {
    duckdb.OutOfMemoryException: "give more memory (memory_limit, --memory-limit) or fewer threads",
    duckdb.IOException: "see that the files are readable and the disk has room",
    duckdb.ConversionException: _BEYOND,
    duckdb.OutOfRangeException: _BEYOND,
}


def name(identifier: str) -> str:
    """The identifier, quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str | os.PathLike[str]) -> str:
    """The text as a SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def file_literal(path: str | os.PathLike[str]) -> str:
    """The path of one file as a SQL literal for a reader of files, in which `*`, `?` and `[` stand for themselves."""
    return literal(re.sub(r"[*?\[]", r"[\g<0>]", os.path.abspath(path)))  # noqa: PTH100 - a link stays a link


class Engine:
    """One DuckDB database in a scratch folder: `with Engine(...) as engine: engine.rows("SELECT 1")`.

    Args:
        beside: The folder of the scratch folder, on a disk with room; None for the system's.
        memory_limit: As DuckDB writes it: `1GiB`, `512MiB`.
        threads: Threads; None for one per core.

    Raises:
        JobError: The folder cannot be written, or a setting is none.
    """

    def __init__(self, beside: Path | None, *, memory_limit: str, threads: int | None) -> None:
        self._stopped = False
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        try:
            _sweep(beside or Path(tempfile.gettempdir()))
            self.scratch, self._lock_file = _scratch(beside)
        except OSError as error:
            raise JobError(f"cannot write to {beside}: {error.strerror or error}", path=str(beside)) from error
        try:
            self._connection = self._opened(memory_limit, threads)
        except BaseException:
            self.close()
            raise

    def _opened(self, memory_limit: str, threads: int | None) -> duckdb.DuckDBPyConnection:
        # Each setting for itself: what DuckDB says of a wrong one names neither the option nor its value.
        settings: dict[str, Any] = {
            "memory_limit": memory_limit,
            "threads": threads,
            "temp_directory": str(self.scratch / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "TimeZone": "UTC",
        }
        connection = duckdb.connect(str(self.scratch / "work.duckdb"))
        # In a notebook without ipywidgets the bar is off, and DuckDB refuses each change of it, to off too.
        if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
            settings["enable_progress_bar"] = False
        for setting, value in settings.items():
            if value is None:
                continue
            try:
                connection.execute(f"SET {setting} = {literal(str(value))}")
            except duckdb.Error as error:
                connection.close()
                raise JobError(f"{setting} takes no {value!r}: {_first_line(error)}") from error
        return connection

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The open connection."""
        if self._connection is None:
            raise RuntimeError("the engine is closed")
        return self._connection

    def run(self, sql: str, *, about: str = "the comparison") -> None:
        """Run a statement.

        Raises:
            JobError: DuckDB could not; the text begins with what it was about.
        """
        self.rows(sql, about=about)

    def rows(self, sql: str, *, about: str = "the comparison") -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            JobError: DuckDB could not; the text begins with what it was about.
        """
        return list(self.stream(sql, about=about))

    def stream(self, sql: str, *, about: str = "the comparison") -> Iterator[tuple[Any, ...]]:
        """The rows of a query, fetched as they are read; no other query may run meanwhile.

        Raises:
            JobError: DuckDB could not; the text begins with what it was about.
        """
        try:
            found = self.connection.execute(sql)
            while piece := found.fetchmany(_FETCHED):
                yield from piece
        except duckdb.Error as error:
            hint = next((f": {text}" for kind, text in _HINTS.items() if isinstance(error, kind)), "")
            raise JobError(f"{about}: {_first_line(error)}{hint}", path=about) from error

    def row(self, sql: str, *, about: str = "the comparison") -> tuple[Any, ...]:
        """The first row of a query that has one."""
        return self.rows(sql, about=about)[0]

    def columns(self, relation: str, *, about: str = "the comparison") -> dict[str, str]:
        """The columns of a relation, by name, with DuckDB's name of their type."""
        return {row[0]: row[1] for row in self.rows(f"DESCRIBE SELECT * FROM {relation}", about=about)}

    def interrupt(self) -> None:
        """End what runs, from another thread; nothing is run from then on."""
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.interrupt()

    def go_on(self) -> None:
        """End the work between two steps if it was interrupted.

        Raises:
            JobError: It was.
        """
        if self._stopped:
            raise JobError("interrupted")

    def close(self) -> None:
        """Close the database and remove the scratch folder."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        self._lock_file.close()  # Windows removes no open file
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _scratch(beside: Path | None) -> tuple[Path, IO[bytes]]:
    """A new folder, and the lock that says that its process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=beside))
        lock_file = (folder / _LOCK).open("wb")
        try:
            take_lock(lock_file)
        except BlockingIOError:  # another process is sweeping, and came between the two lines
            lock_file.close()
            continue
        except OSError:  # a disk without locks: no process sweeps there either
            return folder, lock_file
        if (folder / _LOCK).exists():
            return folder, lock_file
        lock_file.close()  # swept before it was locked


def _sweep(folder: Path) -> None:
    """Remove the scratch folders of processes that were killed."""
    for left in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), os.fdopen(open_own(left / _LOCK, os.O_RDWR), "r+b") as lock_file:
            take_lock(lock_file)  # fails if its process lives
            shutil.rmtree(left, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
