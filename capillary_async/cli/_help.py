"""The form of `--help`: titles and a line per option, without boxes, so that a command fits a screen of 40 lines.

Options that belong together share a line: the text of the first describes them all, and that of each other one is
`With --first.`

Invariant: a text is wrapped only at the width of the terminal. Used by `_app.py` and `_subcommands.py`.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

from attrs import define, field
from cyclopts import App
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = [
    "COMPARED", "EXPORTING", "READING", "REPORTED", "SOME", "STOPPED", "CompactHelp", "command_group", "epilogue",
]  # fmt: skip

# Exit codes.
STOPPED = "130 SIGINT, 143 SIGTERM"
SOME = "0 all answered, 1 could not run, 2 some failed"
READING = f"{SOME}, {STOPPED}, 141 SIGPIPE"
EXPORTING = f"{SOME}, {STOPPED}"
REPORTED = f"0 all customers are in it, 1 could not run, 2 some failed, {STOPPED}"
COMPARED = f"1 could not run, 3 differences found, {STOPPED}"

_WITH = re.compile(r"With (--[\w-]+)\.")
_ALIGNED = 27  # characters; longer names do not move the texts of the others
_LEAST = 40  # characters that a column of texts takes
_PROGRAM = "capillary-async"


def epilogue(codes: str, example: str) -> str:
    """Return the end of a command's help: its exit codes and an example."""
    return f"Exit codes: {codes}.\nExample: {_PROGRAM} {example}"


class CompactHelp:
    """A formatter of cyclopts."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a group: its title, and its options in two columns."""
        if not panel.entries:
            return
        console.print(Text(f"{panel.title}:", "bold"))
        rows = _rows(panel.entries)
        width = max((len(row.names) for row in rows if len(row.names) <= _ALIGNED), default=0)
        width = width if options.max_width >= width + _LEAST else 0  # no columns on a narrow terminal
        for row in rows:
            console.print(row.shown(width, options.max_width))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:  # noqa: ARG002
        """Print the usage."""
        console.print(Text(f"Usage: {_plain(usage).removeprefix('Usage: ')}", "bold"))

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:  # noqa: ARG002
        """Print each paragraph, without empty lines between them."""
        for paragraph in _plain(description).split("\n\n"):
            console.print(Text(_joined(paragraph)))


@define
class _Row:
    """A line: an option, or those that share it, whose values are not shown."""

    options: list[HelpEntry]
    text: str
    choices: tuple[str, ...]
    required: bool
    defaults: list[str] = field(factory=list[str])

    @property
    def names(self) -> str:
        if len(self.options) == 1:
            return _names(self.options[0])
        return ", ".join(each.positive_names[0] for each in self.options)

    def shown(self, width: int, terminal: int) -> Text:
        """Return the names, and the text in a column; where the names are too long for theirs, the text follows."""
        parts = [self.text]
        parts += [f"[{'|'.join(self.choices)}]"] if self.choices else []
        parts += [f"[default: {', '.join(self.defaults)}]"] if self.defaults else []
        parts += ["[required]"] if self.required else []
        lines = textwrap.wrap(
            " ".join(parts),
            max(terminal, _LEAST // 2),
            initial_indent=f"  {self.names:{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        text = Text("\n".join(lines or [f"  {self.names}"]))
        text.stylize("cyan", 2, 2 + len(self.names))
        return text


def _rows(entries: Iterable[HelpEntry]) -> list[_Row]:
    """Return a row per option, those that share one together."""
    rows: dict[str, _Row] = {}
    for entry in entries:
        text = _joined(_plain(entry.description))
        found = _WITH.fullmatch(text)
        row = rows.get(found[1]) if found else None
        if row is None:
            key = entry.positive_names[0] if entry.positive_names else ""
            row = rows[key] = _Row([], text, tuple(entry.choices or ()), entry.required)
        row.options.append(entry)
        row.defaults += [] if entry.default is None else [str(entry.default)]
    return list(rows.values())


def _names(entry: HelpEntry) -> str:
    """Return the option with its value; its description has the aliases."""
    label = getattr(entry, "positional_label", None)  # cyclopts 4 has it among the names
    if label:
        return str(label)
    names = f"{entry.positive_names[0]} {getattr(entry, 'metavar', None) or ''}".rstrip()
    return " ".join((names, *entry.negative_names))


def _plain(text: Any) -> str:
    """Return the text inside a renderable of cyclopts."""
    inner = getattr(text, "primary_renderable", text)
    return str(getattr(inner, "plain", inner or "")).strip()


def _joined(text: str) -> str:
    """Return the lines of a docstring as one."""
    return " ".join(text.split())


def command_group(name: str, text: str, end: str) -> App:
    """Return an application of cyclopts with this help."""
    return App(name=name, help=text, help_epilogue=end, help_format="plaintext", help_formatter=CompactHelp())
