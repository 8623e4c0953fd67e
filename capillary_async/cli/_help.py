"""The form of `--help`: titles and one line per option, without boxes, so that a command fits a screen.

Invariant: a text is wrapped only at the width of the terminal. Used by `_app.py` and `_subcommands.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cyclopts import App
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
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

_PROGRAM = "capillary-async"


def epilogue(codes: str, example: str) -> str:
    """Return the end of a command's help: its exit codes and an example."""
    return f"Exit codes: {codes}.\nExample: {_PROGRAM} {example}"


class CompactHelp:
    """A formatter of cyclopts."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:  # noqa: ARG002
        """Print a group: its title, and its options in two columns."""
        if not panel.entries:
            return
        console.print(Text(f"{panel.title}:", "bold"))
        rows = Table.grid(padding=(0, 2, 0, 0))
        for entry in panel.entries:
            rows.add_row(Text(_names(entry), "cyan", no_wrap=True), Text(_description(entry)))
        console.print(Padding(rows, (0, 0, 0, 2)))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:  # noqa: ARG002
        """Print the usage."""
        console.print(Text(f"Usage: {_plain(usage).removeprefix('Usage: ')}", "bold"))

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:  # noqa: ARG002
        """Print each paragraph, without empty lines between them."""
        for paragraph in _plain(description).split("\n\n"):
            console.print(Text(_joined(paragraph)))


def _names(entry: HelpEntry) -> str:
    """Return the option with its value; its description has the aliases."""
    label = getattr(entry, "positional_label", None)  # cyclopts 4 has it among the names
    if label:
        return str(label)
    names = f"{entry.positive_names[0]} {getattr(entry, 'metavar', None) or ''}".rstrip()
    return " ".join((names, *entry.negative_names))


def _description(entry: HelpEntry) -> str:
    parts = [_joined(_plain(entry.description))]
    if entry.choices:
        parts.append(f"[{'|'.join(entry.choices)}]")
    if entry.default is not None:
        parts.append(f"[default: {entry.default}]")
    if entry.required:
        parts.append("[required]")
    return " ".join(parts)


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
