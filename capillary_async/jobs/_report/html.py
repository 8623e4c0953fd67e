"""The report: one HTML file for a person, made of a result.

Invariant: every number is the result's, to the last digit; the file loads nothing else and runs nothing;
what came from outside is escaped. The words and the layout are in `templates/`. Called by `_reconcile.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from capillary_async import __version__
from capillary_async._repr import printable
from capillary_async.jobs._comparing.comparison import CHANGED, EQUAL, MISSING_IN_BOOKS, MISSING_IN_CAPILLARY
from capillary_async.jobs._comparing.result import title_of
from capillary_async.jobs._report.chart import MONTHS, every_month, months_chart
from capillary_async.jobs._report.opening import TITLES, compared, lines
from capillary_async.models.exact import exact_sum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.jobs._comparing.comparison import Comparison
    from capillary_async.jobs._comparing.result import ReconcileResult

__all__ = ["render"]

_MEANINGS = {
    MISSING_IN_BOOKS: "Capillary has the record, the books have no row with its key.",
    MISSING_IN_CAPILLARY: "The books have a row, Capillary has no record with its key.",
    CHANGED: "Both have it, and at least one compared column says something else.",
    EQUAL: "Both have it, and every compared column says the same.",
}
# What the API does not show, by the kind of the export; beside every sum, since a reader may see that one alone.
_UNDERSTATES = {
    "allocations": "Allocations are rows of one of five award tables, in the one category that was asked for: line "
    "items and the points of promotions are not among them, so no sum here is a balance.",
    "awarded": "Awarded ids are rows of two of five award tables, in the one category and status that were asked "
    "for: the points of promotions are not among them, so no sum here is a balance.",
}


def render(result: ReconcileResult) -> str:
    """The report as one HTML text."""
    environment = Environment(
        loader=PackageLoader("capillary_async.jobs._report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"amount": _amount, "amount_text": _amount_text, "signed": _signed, "count": _count}
    months = every_month(result.months)
    now = result.month
    points = list(result.groups[0].points) if result.groups else []
    comparison = result.comparison
    keys = [each.ours for each in comparison.wanted if each.is_key] if comparison else []
    page = environment.get_template("report.html").render(
        result=result,
        comparison=comparison,
        asked_is_key="asked_key" in keys,
        first_amount=comparison.totals[0] if comparison and comparison.totals else None,
        differing=sum(number for kind, number in comparison.counts.items() if kind != EQUAL) if comparison else 0,
        titles=TITLES,
        compared=compared(result),
        lines=lines(result),
        title_of=title_of,
        grouped_by=title_of(result.grouped_by),
        errors=[each for each in result.broken if each.is_error],
        meanings=_MEANINGS,
        amounts={each.ours for each in comparison.wanted if each.kind == "amount"} if comparison else (),
        sizes=_sizes(comparison) if comparison else {},
        months=months,
        understates=_UNDERSTATES.get(result.source, ""),
        now=now,
        charts={kind: _chart(months, now, narrow=kind == "narrow") for kind in ("wide", "narrow")} if months else {},
        points=points,
        sums={column: exact_sum(group.points[column] for group in result.groups) for column in points},
        months_sum=exact_sum(months.values()),
        calendar=_calendar(months),
        years=_years(months),
        version=__version__,
        duckdb_version=duckdb.__version__,
    )
    return page.lstrip()


def _printable(value: Any) -> Any:
    """What came from outside without control characters; markup of the template's own as it is."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def _chart(months: Mapping[str, Decimal], now: str, *, narrow: bool) -> Markup:
    return Markup(months_chart(months, now=now, narrow=narrow))  # noqa: S704 - drawn here from numbers


def _calendar(months: Mapping[str, Decimal]) -> dict[str, dict[str, Decimal]]:
    """A row a month of the year, a column a year: three years are twelve lines."""
    rows: dict[str, dict[str, Decimal]] = {}
    for nth, month in enumerate(MONTHS, start=1):
        found = {each[:4]: points for each, points in months.items() if each[5:7] == f"{nth:02}"}
        if found:
            rows[month] = found
    return rows


def _years(months: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """The sum of each year."""
    years = dict.fromkeys((each[:4] for each in months), Decimal(0))
    return {year: exact_sum(points for each, points in months.items() if each[:4] == year) for year in years}


def _sizes(comparison: Comparison) -> dict[str, dict[str, list[Any]]]:
    """The sizes by class and field, for tables with one row a size."""
    tables: dict[str, dict[str, list[Any]]] = {}
    for size in comparison.sizes:
        tables.setdefault(size.kind, {}).setdefault(size.field, []).append(size)
    return tables


def _amount(value: Decimal | None) -> str:
    """With thousands separators and every digit; a real minus sign."""
    return "" if value is None else f"{value:,f}".replace("-", "\N{MINUS SIGN}")


def _amount_text(value: str) -> str:
    return _amount(Decimal(value))


def _signed(value: Decimal | None) -> str:
    """The same, with a plus if it is positive."""
    return f"+{value:,f}" if value is not None and value > 0 else _amount(value)


def _count(number: int) -> str:
    return f"{number:,}"
