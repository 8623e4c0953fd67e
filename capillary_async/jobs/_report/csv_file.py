"""The CSV file of a report.

Invariant: the file appears when it is whole; amounts have every digit and no exponent. Used by `_report/expiry.py` and
`_report/liability.py`.
"""

from __future__ import annotations

import csv
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from capillary_async._files.durable import PartFile
from capillary_async._repr import printable
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["CsvFile"]


class CsvFile:
    """A CSV file that appears when it is whole: `with CsvFile(path, columns) as file: file.line(...)`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.rows = 0
        self._path = path
        with self._named():
            self._part = PartFile(path)
        self._file = open(self._part.descriptor, "w", encoding="utf-8", newline="", closefd=False)  # noqa: SIM115
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(columns)

    def line(self, *values: object) -> None:
        """Write one line; amounts with every digit and no exponent."""
        with self._named():
            self._writer.writerow(list(map(_cell, values)))
        self.rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._part, self._named():
            self._file.close()
            if error is None:
                self._part.publish()

    @contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise JobError(f"cannot write {self._path}: {error.strerror or error}", path=str(self._path)) from error


def _cell(value: Any) -> Any:
    """A value as the CSV has it: amounts without exponents, texts without control characters, which part rows."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return printable(value) if isinstance(value, str) else value
