"""How the books are read: their table or sheet, the form of their text, and which of their rows count.

Invariant: an option that does not fit the books is refused, never ignored. Made by `_reconcile.py`, used by
`_books/open.py` and every reader of books.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from attrs import frozen

from capillary_async._files import TextForm, text_form
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BooksOptions", "Conditions", "books_options", "conditions_of"]

Conditions: TypeAlias = Mapping[str, str] | Iterable[str] | str
_TEXT = ("delimiter", "decimal", "encoding")


@frozen(kw_only=True)
class BooksOptions:
    """The options of the books, as they were given; None where they were not.

    Attributes:
        table: The table of a database.
        sheet: The sheet of a workbook.
        delimiter, decimal, encoding: The form of text.
        where: Columns and the texts of the values that they must have, in the order given.
    """

    table: str | None = None
    sheet: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    where: tuple[tuple[str, str], ...] = ()

    def form(self, path: Path) -> TextForm:
        """The form of a text file."""
        return _form(self.delimiter, self.decimal, self.encoding).at(path, self.delimiter)

    def allow(self, label: str, kind: str, *names: str) -> None:
        """See that no other option of a form is given than these.

        Raises:
            JobError: One is.
        """
        for name in ("table", "sheet", *_TEXT):
            if name not in names and getattr(self, name) is not None:
                raise JobError(f"{label} is {kind}, and {_GOES_WITH[name]}", path=label)


_GOES_WITH = {
    "table": "a table goes with duckdb:// and postgresql://",
    "sheet": "a sheet goes with a workbook (.xlsx)",
    "delimiter": "a delimiter goes with text (.csv, .tsv, .txt)",
    "decimal": "a decimal mark goes with text (.csv, .tsv, .txt) and workbooks (.xlsx)",
    "encoding": "an encoding goes with text (.csv, .tsv, .txt)",
}


def books_options(
    *,
    table: str | None,
    sheet: str | None,
    delimiter: str | None,
    decimal: str | None,
    encoding: str | None,
    where: Conditions,
) -> BooksOptions:
    """Check the options.

    Raises:
        JobError: One is invalid; the message names it and what is valid.
    """
    _form(delimiter, decimal, encoding)
    return BooksOptions(
        table=table, sheet=sheet, delimiter=delimiter, decimal=decimal, encoding=encoding, where=conditions_of(where)
    )


def _form(delimiter: str | None, decimal: str | None, encoding: str | None) -> TextForm:
    try:
        return text_form(delimiter, "." if decimal is None else decimal, encoding)
    except ValueError as error:
        raise JobError(str(error)) from None


def conditions_of(given: Conditions) -> tuple[tuple[str, str], ...]:
    """The columns and values of `column=value`; a value may have commas and equals signs.

    Raises:
        JobError: One has another form.
    """
    if isinstance(given, Mapping):
        return tuple((column, str(value)) for column, value in cast("Mapping[str, object]", given).items())
    found: list[tuple[str, str]] = []
    for each in [given] if isinstance(given, str) else given:
        column, sign, value = each.partition("=")
        if not column.strip() or not sign:
            raise JobError(f"books_where takes column=value, e.g. program_id=2282, got {each!r}")
        found.append((column.strip(" \t"), value))
    return tuple(found)
