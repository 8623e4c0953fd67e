"""A run as one table: by rich where it is installed, as plain text otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.results import Row, Section

__all__ = ["show"]

_HEADS = ("", "CPU", "wall", "peak MiB", "ratio", "")


def show(heads: Sequence[str], sections: Sequence[Section], notes: Sequence[str]) -> None:
    """Print heads, the table, what was left out, and each target."""
    for line in heads:
        print(line)
    try:
        from rich import box  # noqa: PLC0415 - where it is installed
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        _plain(sections)
    else:
        _rich(sections, Table(*_HEADS, box=box.SIMPLE), Console())
    for line in notes:
        print(line)
    for section in sections:
        for target in section.targets:
            print(target.told())


def _lines(sections: Sequence[Section]) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Each line of the table, and whether it opens a section."""
    for section in sections:
        opening = (f"({section.letter}) {section.title}", section.unit, section.unit, "", section.ratio, "")
        yield True, opening
        for row in section.rows:
            yield False, _cells(row)


def _cells(row: Row) -> tuple[str, ...]:
    memory = "" if row.memory is None else f"{row.memory:.1f}"
    by = "" if row.ratio is None else f"{row.ratio:.2f}"
    return row.client, _figure(row.cpu), _figure(row.wall), memory, by, row.note


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _rich(sections: Sequence[Section], table: Any, console: Any) -> None:
    for column in table.columns[1:5]:
        column.justify = "right"
    for opens, cells in _lines(sections):
        if opens and table.row_count:
            table.add_section()
        table.add_row(*(cell.replace("[", "\\[") for cell in cells), style="bold" if opens else None)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _plain(sections: Sequence[Section]) -> None:
    lines = [cells for _, cells in _lines(sections)]
    widths = [max(len(line[column]) for line in [_HEADS, *lines]) for column in range(len(_HEADS))]
    for line in [_HEADS, *lines]:
        first, *figures, note = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        aligned = (cell.strip().rjust(len(cell)) for cell in figures)
        print("  ".join([first, *aligned, note]).rstrip())
