"""One plot of a run, as SVG: the questions (a), (b) and (c) beside each other, a bar for each client."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.results import Row, Section

__all__ = ["draw", "require"]

_DRAWN = "abc"
_OURS, _OTHERS = "#1b6ca8", "#b8c4ce"
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "capillary-async",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def require(letters: str) -> None:
    """See that a plot can be drawn, before anything is measured.

    Raises:
        BenchmarkError: It cannot.
    """
    if not set(letters) & set(_DRAWN):
        raise BenchmarkError("--svg draws questions a, b and c: choose one of them")
    if find_spec("matplotlib") is None:
        raise BenchmarkError("--svg needs matplotlib: pip install matplotlib, or 'capillary-async[dev]'")


def draw(path: Path, sections: Sequence[Section], caption: str) -> None:
    """Write the plot; the same figures give the same bytes."""
    import matplotlib as mpl  # noqa: PLC0415 - only for a plot

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    drawn = [section for section in sections if section.letter in _DRAWN]
    with mpl.rc_context(cast("Any", _SETTINGS)):
        height = 1.3 + 0.3 * max(len(section.rows) for section in drawn)
        figure, axes = plt.subplots(
            1, len(drawn), figsize=(4.6 * len(drawn), height), squeeze=False, layout="constrained"
        )
        for axis, section in zip(axes[0], drawn, strict=True):
            _panel(axis, section)
        figure.text(0.995, 0.005, caption, ha="right", va="bottom", fontsize=7, color="#555555")
        layout: Any = figure.get_layout_engine()
        layout.set(rect=(0, 0.05, 1, 0.95))
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def _value(section: Section, row: Row) -> float | None:
    return row.wall if section.letter == "b" else row.cpu


def _panel(axis: Any, section: Section) -> None:
    known = [(row.client, value) for row in section.rows if (value := _value(section, row)) is not None]
    clients = [client for client, _ in known]
    values = [value for _, value in known]
    colours = [_OURS if client.startswith("capillary-async") else _OTHERS for client in clients]
    bars = axis.barh(range(len(known)), values, color=colours)
    axis.bar_label(bars, labels=[f"{value:,.3g}" for value in values], padding=2, fontsize=8)
    axis.set_yticks(range(len(known)), clients)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    what = "seconds" if section.letter == "b" else f"CPU, {section.unit}"
    axis.set_xlabel(what)
    axis.set_title(f"({section.letter}) {section.title}", fontsize=9, loc="left", wrap=True)
