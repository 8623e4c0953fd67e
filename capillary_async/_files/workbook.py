"""Sheets of Excel workbooks (.xlsx): rows of cells, exact or refused.

Invariant: a number has the 15 digits that Excel keeps, or its cell is refused; a cell with an error, or with a formula
that was never computed, is refused and no empty cell. Used for ids and books; python-calamine is the extra `excel`.
"""

from __future__ import annotations

import datetime as dt
import importlib
import os
import re
import zipfile
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from capillary_async._files.decoding import SourceError
from capillary_async._files.names import near

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Sheet", "cell_text", "is_workbook"]

_DIGITS = 15
_LARGEST = 10**_DIGITS
_PIECE = 1 << 20
_BOOK, _RELATIONS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
_CELL = re.compile(rb"<(?:\w+:)?c(\s[^>]*?)?(?:/>|>(.*?)</(?:\w+:)?c>)", re.DOTALL)
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s/>]")
_PLACE, _VALUE = re.compile(rb'\sr="([A-Z]+)([0-9]+)"'), re.compile(rb"<(?:\w+:)?v[^>]*>([^<]+)<")


def is_workbook(path: str) -> bool:
    """Whether a file is a workbook, whatever its name; a pipe or a descriptor is none, and stays unread."""
    if not os.path.isfile(path) or path.startswith(("/dev/", "/proc/")):  # noqa: PTH113 - any text
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _BOOK in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def cell_text(value: Any, *, text: bool) -> str | None:
    """The text of a cell as a CSV would have it; None for an empty one.

    Args:
        value: The cell.
        text: Whether its column is one of text, where a number may have lost its zeros.

    Raises:
        ValueError: It is not exact, or not what its column needs; the message says why.
    """
    if isinstance(value, str):
        return value or None
    if text or isinstance(value, dt.date | dt.time | dt.timedelta):
        kind = "a truth value" if isinstance(value, bool) else "a number" if _is_number(value) else "a date or time"
        raise ValueError(
            f"{_shown(value)} is {kind} of Excel; store it as text" + ("" if text else ", with its offset")
        )
    if isinstance(value, bool):
        return str(value).lower()
    number = Decimal(repr(value)).normalize()
    if abs(number) >= _LARGEST or len(number.as_tuple().digits) > _DIGITS:
        raise ValueError(
            f"{number:f} has more than the {_DIGITS} digits that Excel keeps; round it or store it as text"
        )
    return f"{number:f}" if number else "0"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _shown(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


class Sheet:
    """A sheet with a header in its first row.

    Args:
        path: The workbook.
        name: The sheet; None where there is only one.

    Attributes:
        name: The sheet.
        header: The texts of the first row.

    Raises:
        SourceError: The library is missing, it cannot be read, or the sheet is not there or not named.
    """

    def __init__(self, path: str, name: str | None) -> None:
        calamine = _library()
        try:
            book: Any = calamine.load_workbook(path)
            self.name = _chosen(list(book.sheet_names), name)
            self._rows = book.get_sheet_by_name(self.name).to_python(skip_empty_area=False)
        except calamine.CalamineError as error:
            raise SourceError(f"it cannot be read as a workbook: {error}; save it again as .xlsx") from error
        first = next((nth for nth, row in enumerate(self._rows, 1) if any(map(_is_there, row))), None)
        if first is None:
            raise SourceError(f"sheet {self.name!r} is empty; it needs a header and rows")
        if first > 1:
            raise SourceError(
                f"sheet {self.name!r}: row 1 is empty, and the header is in row {first}: remove what is above it"
            )
        self.header = [f"{cell:g}" if isinstance(cell, float) else _shown(cell) for cell in self._rows[0]]
        self._faults = dict(_faults(path, self.name))

    def rows(self) -> Iterator[tuple[int, list[Any]]]:
        """The rows below the header that are not empty, each with its number; the header is row 1."""
        at = {row for row, _ in self._faults}
        for number, row in enumerate(self._rows[1:], 2):
            if number in at or any(map(_is_there, row)):
                yield number, row

    def cell(self, number: int, row: list[Any], column: int, *, text: bool) -> str | None:
        """The text of a cell of a row.

        Raises:
            ValueError: As `cell_text`, or it has an error or a formula without a value.
        """
        fault = self._faults.get((number, column))
        if fault is not None:
            raise ValueError(fault)
        return cell_text(row[column], text=text)


def _library() -> Any:
    try:
        return importlib.import_module("python_calamine")
    except ImportError:
        raise SourceError(
            'it is a workbook, which needs the extra excel: pip install "capillary-async[cli,jobs,excel]"; or save the '
            "sheet as CSV, UTF-8"
        ) from None


def _is_there(cell: Any) -> bool:
    return not isinstance(cell, str) or bool(cell.strip())


def _chosen(names: list[str], wanted: str | None) -> str:
    listed = ", ".join(map(repr, names))
    if wanted is None and len(names) != 1:
        raise SourceError(f"it has several sheets, {listed}: say which (sheet, --sheet)")
    if wanted is not None and wanted not in names:
        raise SourceError(f"there is no sheet {wanted!r}. It has: {listed}{near(wanted, names)}")
    return names[0] if wanted is None else wanted


def _faults(path: str, sheet: str) -> Iterator[tuple[tuple[int, int], str]]:
    """The cells of a sheet with an error or without a value, which the library gives as empty ones."""
    with zipfile.ZipFile(path) as archive, archive.open(_part_of(archive, sheet)) as part:
        for attributes, content in _cells(part):
            is_error = b't="e"' in attributes
            value = _VALUE.search(content)
            if not is_error and (value or not _FORMULA.search(content) or b't="str"' in attributes):
                continue
            place = _PLACE.search(attributes)
            if place is None:
                raise SourceError(f"sheet {sheet!r} has cells with errors, and does not say where; save it with Excel")
            column = 0
            for letter in place[1]:
                column = column * 26 + letter - 64
            said = f"the error {value[1].decode()}" if is_error and value else "a formula that was never computed"
            yield (int(place[2]), column - 1), f"the cell has {said}; save the workbook with Excel, with a value there"


def _cells(part: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The cells with errors and formulas; others may be among them."""
    kept = b""
    while piece := part.read(_PIECE):
        kept += piece
        end = max(kept.rfind(b"</c>"), kept.rfind(b":c>")) + 1  # of a cell that is whole, or 0
        whole, kept = kept[: end + 3] if end else b"", kept[end + 3 :] if end else kept
        if b't="e"' in whole or _FORMULA.search(whole):
            yield from ((found[1] or b"", found[2] or b"") for found in _CELL.finditer(whole))


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str:
    book, relations = (ET.fromstring(archive.read(name)) for name in (_BOOK, _RELATIONS))  # noqa: S314 - expat's limits
    ids = [
        value
        for each in book.iter()
        if each.tag.endswith("}sheet") and each.get("name") == sheet
        for name, value in each.attrib.items()
        if name.endswith("}id")
    ]
    targets = {each.get("Id"): str(each.get("Target")) for each in relations}
    target = targets[ids[0]]
    return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
