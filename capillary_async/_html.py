"""How values show themselves in notebooks: HTML of bounded size, for `_repr_html_`.

Invariant: no HTML is longer than 20 kB, whatever the value holds; every text is escaped; colours are inherited, so that
it is read in light and in dark themes. Used by session, pager, page, fan-out, outcome, stats and the jobs' results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from html import escape
from itertools import islice
from pathlib import PurePath
from typing import Any, cast

from attrs import fields, has

from capillary_async._repr import brief, cut, printable

__all__ = ["card", "fields_card", "lines_card"]

_ROOM = 9_000  # bytes of the rows of a table; a card has two tables at most
_ROWS = _COLUMNS = 10
_VALUE = "(value)"  # the column of what has no fields
_TEXT, _CELL = 200, 40  # characters
_LINE = "border-bottom:1px solid rgba(128,128,128,.4)"
_TABLE = '<table style="border-collapse:collapse;background:none;color:inherit;font-size:90%;margin:.3em 0">'
_PADDING = "padding:.15em .7em .15em 0;background:none"


def card(title: str, facts: Mapping[str, Any], records: Sequence[Any] | None = None) -> str:
    """A title, named facts, and the first records as a table.

    Args:
        title: What it is.
        facts: Values by name; those that are None or empty are left out.
        records: Records of one model, or other values.
    """
    named = ((name, value) for name, value in facts.items() if value not in (None, (), {}))
    rows = [_fact(name, value) for name, value in named]
    table = "" if not records else _records(records)
    return f"<div><strong>{_escaped(title, _TEXT)}</strong>{_table(rows)}{table}</div>"


def fields_card(self: Any) -> str:
    """The `_repr_html_` of an attrs class: its fields by name."""
    kind = cast("type[Any]", type(self))
    return card(
        kind.__name__, {one.name.replace("_", " "): getattr(self, one.name) for one in fields(kind) if one.repr}
    )


def lines_card(self: Any) -> str:
    """The `_repr_html_` of a result with a summary: the lines that a terminal shows."""
    lines = "".join(_fitting(f"<div>{_escaped(line, _TEXT)}</div>" for line in self.lines()))
    return f"<div><strong>{type(self).__name__}</strong>{lines}</div>"


def _fact(name: str, value: Any) -> str:
    dim, plain = f"{_PADDING};text-align:left;opacity:.7", f"{_PADDING};text-align:left"
    return f'<tr><td style="{dim}">{_escaped(name, _TEXT)}</td><td style="{plain}">{_escaped(value, _TEXT)}</td></tr>'


def _records(records: Sequence[Any]) -> str:
    """The first records, in the columns that they fill, and how many there are in all."""
    first = list(islice(records, _ROWS))
    columns = _columns(first)
    names = columns[:_COLUMNS]
    head = "".join(f'<th style="{_PADDING};{_LINE};text-align:left">{_escaped(name, _CELL)}</th>' for name in names)
    fitting = _fitting(_record(one, names) for one in first)
    parts = [f"{len(fitting):,} of {len(records):,} records"] if len(fitting) < len(records) else []
    parts += [f"{_COLUMNS} of {len(columns)} columns"] if len(columns) > _COLUMNS else []
    note = f'<div style="opacity:.7;font-size:90%">{" and ".join(parts)} are shown</div>' if parts else ""
    return f"{_TABLE}<tr>{head}</tr>{''.join(fitting)}</table>{note}"


def _columns(records: list[Any]) -> list[str]:
    """The fields that at least one of the records has; none for values that are no records."""
    kind = cast("type[Any]", type(records[0]))
    if not has(kind):
        return [_VALUE]
    names = [one.name for one in fields(kind) if one.repr]
    return [name for name in names if any(getattr(record, name, None) is not None for record in records)]


def _record(record: Any, columns: list[str]) -> str:
    values = [record if name == _VALUE else getattr(record, name, None) for name in columns]
    return f"<tr>{''.join(map(_cell, values))}</tr>"


def _cell(value: Any) -> str:
    align = "right" if isinstance(value, int | Decimal) else "left"
    return f'<td style="{_PADDING};text-align:{align}">{"" if value is None else _escaped(value, _CELL)}</td>'


def _table(rows: list[str]) -> str:
    fitting = _fitting(rows)
    more = "" if len(fitting) == len(rows) else f"<tr><td>{len(rows) - len(fitting)} more are not shown</td></tr>"
    return f"{_TABLE}{''.join(fitting)}{more}</table>"


def _fitting(rows: Iterable[str]) -> list[str]:
    """The first rows that have room."""
    shown: list[str] = []
    room = _ROOM
    for row in rows:
        room -= len(row.encode())
        if room < 0:
            break
        shown.append(row)
    return shown


def _escaped(value: Any, longest: int) -> str:
    """A value as text without markup, at most `longest` characters before they are escaped."""
    return escape(cut(printable(_text(value, longest)), longest))


def _text(value: Any, longest: int) -> str:
    if isinstance(value, str | Decimal | date | PurePath):
        return str(value)[: longest + 1]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        pairs = islice(cast("Mapping[Any, Any]", value).items(), longest)
        return ", ".join(f"{_text(name, longest)}: {_text(one, longest)}" for name, one in pairs)
    if type(value) in (tuple, list):
        return ", ".join(_text(one, longest) for one in islice(cast("Iterable[Any]", value), longest))
    return brief(value, longest)
