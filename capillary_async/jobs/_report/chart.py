"""Points by month of expiry, drawn as SVG for the report.

Invariant: drawn by matplotlib without a display or a state of its own; text stays text, so that it can be searched and
read aloud; the same numbers give the same bytes. Called by `_report/html.py`.
"""

from __future__ import annotations

import importlib
import io
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

__all__ = ["MONTHS", "every_month", "months_chart"]

_INK, _SOFT, _BAR, _PAST = "#1c2733", "#5b6875", "#2f6690", "#b0643c"
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SIZES = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_STEPS = [1, 2, 2.5, 5, 10]
_MOST = 60  # months without points between others are drawn up to here; beyond it only those with points
_settings: Any = importlib.import_module("matplotlib").rc_context  # its own types are not whole, as those of axes
_NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}


def every_month(months: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """The months in order, with those between that have no points, if that stays readable."""
    if not months:
        return {}
    names = sorted(months)
    first, last = (int(name[:4]) * 12 + int(name[5:7]) - 1 for name in (names[0], names[-1]))
    if last - first >= _MOST:
        return {name: months[name] for name in names}
    zero = months[names[0]] * 0
    between = [f"{month // 12}-{month % 12 + 1:02}" for month in range(first, last + 1)]
    return {name: months.get(name, zero) for name in between}


def months_chart(months: Mapping[str, Decimal], *, now: str, narrow: bool) -> str:
    """The chart as an SVG element.

    Args:
        months: Points by month, e.g. `2026-01`, in order.
        now: The month that is now; those before it have another colour.
        narrow: Bars beside each other for wide screens and paper, or below each other for phones.
    """
    # Marks are named by a hash with this salt, and both charts are on one page.
    with _settings(_STYLE | {"svg.hashsalt": f"narrow {narrow}"}):
        return _svg(_narrow(months, now) if narrow else _wide(months, now))


def _colours(months: Mapping[str, Decimal], now: str) -> list[str]:
    return [_PAST if month < now else _BAR for month in months]


def _wide(months: Mapping[str, Decimal], now: str) -> Figure:
    figure = Figure(figsize=(8.6, 2.9), layout="constrained")
    axes: Any = figure.add_subplot()
    places = range(len(months))
    axes.bar(places, [float(points) for points in months.values()], width=0.72, color=_colours(months, now))
    names, step = list(months), max(1, -(-len(months) // 24))
    shown = list(places)[::step]
    labels = _labels([names[place] for place in shown])
    axes.set_xticks(shown, labels)
    axes.yaxis.set_major_formatter(FuncFormatter(_in_words))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.set_ylabel("points left to use")
    axes.set_xlabel("month in which they expire")
    axes.grid(axis="y", color="#e3e7eb", linewidth=0.8)
    axes.margins(x=0.01)
    _bare(axes, "left")
    return figure


def _narrow(months: Mapping[str, Decimal], now: str) -> Figure:
    figure = Figure(figsize=(3.6, 0.7 + 0.21 * len(months)), layout="constrained")
    axes: Any = figure.add_subplot()
    places = range(len(months))
    axes.barh(places, [float(points) for points in months.values()], height=0.72, color=_colours(months, now))
    axes.set_yticks(places, [f"{MONTHS[int(name[5:7]) - 1]} {name[:4]}" for name in months])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(_in_words))
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=_STEPS))
    axes.set_xlabel("points left to use")
    axes.grid(axis="x", color="#e3e7eb", linewidth=0.8)
    axes.margins(y=0.02)
    _bare(axes, "bottom")
    return figure


def _labels(names: Sequence[str]) -> list[str]:
    """The month, and the year below its first month."""
    changes = [True, *(before[:4] != after[:4] for before, after in pairwise(names))]
    return [
        f"{MONTHS[int(name[5:7]) - 1]}{chr(10) + name[:4] if new else ''}"
        for name, new in zip(names, changes, strict=True)
    ]


def _bare(axes: Any, hidden: str) -> None:
    """Only the line below the bars."""
    for side in ("top", "right", hidden):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _in_words(value: float, _: int) -> str:
    for size, word in _SIZES:
        if abs(value) >= size:
            return f"{value / size:,g} {word}"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _svg(figure: Figure) -> str:
    """The element alone, hidden from screen readers: the table beside it says the same."""
    text = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(text, metadata=_NOTHING)
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    # Its sizes are the page's business, its style would be everyone's.
    element = re.sub(r'<svg ([^>]*?)width="[^"]*"([^>]*?)height="[^"]*"', r"<svg \1\2", element, count=1)
    element = re.sub(r'<style type="text/css">.*?</style>', "", element, flags=re.DOTALL)
    return element.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
