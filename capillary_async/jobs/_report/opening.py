"""The first screen of the report: what was compared, when it was read, and how many records differ.

Invariant: every value is one of the result; it fits a phone, so names are short here and whole further below. Called by
`_report/html.py`.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from attrs import frozen

from capillary_async.jobs._comparing.comparison import CHANGED, EQUAL, MISSING_IN_BOOKS, MISSING_IN_CAPILLARY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from capillary_async.jobs._comparing.result import ReconcileResult, Subject

__all__ = ["TITLES", "Line", "compared", "lines"]

TITLES = {
    MISSING_IN_BOOKS: "Missing in books",
    MISSING_IN_CAPILLARY: "Missing in Capillary",
    CHANGED: "Changed",
    EQUAL: "Equal",
}
_RECORDS = {"awarded": "awarded ids", "events": "loyalty events", "ledger": "ledger events"}
_WORDS = {
    "program_id": "program",
    "point_category_id": "category",
    "status": "status",
    "event_type": "event type",
    "org_id": "organisation",
}
_PERIODS = (
    ("expiring", "expiry_date_start", "expiry_date_end"),
    ("expiring", "start_expiry_date", "end_expiry_date"),
    ("events", "from_date", "to_date"),
)
_SHOWN = 3  # names and values; how many more there are follows them
_LONGEST = 60  # characters of a name


@frozen
class Line:
    """A row of the table of differences.

    Attributes:
        title: The class of records or of rules.
        count: How many.
        delta: Its part of the first amount's difference; None where no amount was compared.
        link: The id of the section with each of them; empty where there is none.
    """

    title: str
    count: int
    delta: Decimal | None = None
    link: str = ""


def compared(result: ReconcileResult) -> dict[str, str]:
    """The facts that a person looks for first, by name."""
    exports = [each for each in result.subjects if each.role == "Capillary"]
    books = next((each for each in result.subjects if each.role == "Books"), None)
    others = [each for each in result.subjects if each.role not in ("Capillary", "Books")]
    records = f"{result.records:,} {_RECORDS.get(result.source, result.source)}"
    facts = {
        "Capillary": f"{_some(_name(each.label) for each in exports)}: {records}",
        "Records of": "; ".join(_scope([each.query for each in exports])),
        "Read": _read(exports),
        "Books": _books(books) if books else "",
        "Checked against": _some(_name(each.label) for each in others),
        "Compared" if books else "Checked": f"{result.began:%Y-%m-%d %H:%M} UTC",
    }
    return {name: fact for name, fact in facts.items() if fact}


def lines(result: ReconcileResult) -> list[Line]:
    """The table of differences; without books, that of the rules."""
    comparison = result.comparison
    if comparison is None:
        errors = sum(each.is_error for each in result.broken)
        return [
            Line("Errors: rules broken", errors, link="rules"),
            Line("Notes: rules to look at", len(result.broken) - errors, link="rules"),
            Line("Rules passed", len(result.kept), link="rules"),
        ]
    deltas = comparison.totals[0].deltas if comparison.totals else dict[str, Decimal]()
    return [
        Line(
            title, comparison.counts[kind], deltas.get(kind), kind if kind != EQUAL and comparison.counts[kind] else ""
        )
        for kind, title in TITLES.items()
    ]


def _books(books: Subject) -> str:
    rows = books.facts.get("Rows") or books.facts.get("Records")
    parts = [_name(books.label), f"{rows} rows" if rows else "", *_scope([books.query])]
    if "Rows where" in books.facts:
        parts.append(f"where {books.facts['Rows where']}")
    read = _read([books]) if books.read else ""
    return "; ".join(part for part in (*parts, read and f"read {read}") if part)


def _name(label: str) -> str:
    """The last part of a path; an address of a database as it is."""
    if "://" in label:
        return _cut(label)
    kind = PureWindowsPath if "\\" in label else PurePosixPath
    return _cut(kind(label).name or label)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _some(values: Iterable[str]) -> str:
    """The first values, and how many more there are."""
    distinct = list(dict.fromkeys(values))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more


def _scope(queries: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Programs, categories, periods and the like of all exports together."""
    for name, word in _WORDS.items():
        values = [one for query in queries for one in _values(query.get(name))]
        if values:
            yield f"{word} {_some(map(_cut, values))}"
    for word, start, end in _PERIODS:
        periods = [_period(query.get(start), query.get(end)) for query in queries]
        if any(periods):
            yield f"{word} {_some(each for each in periods if each)}"


def _values(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(one) for one in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return [] if value in (None, "") else [str(value)]


def _period(start: object, end: object) -> str:
    first, last = (None if each in (None, "") else _cut(str(each)) for each in (start, end))
    if first and last:
        return f"{first} to {last}"
    return f"from {first}" if first else f"to {last}" if last else ""


def _read(exports: Sequence[Subject]) -> str:
    """The first and the last answer of all exports."""
    known = [each.read for each in exports if each.read]
    if not known:
        return "the export does not say when"
    first, last = min(one for one, _ in known), max(one for _, one in known)
    days = "%H:%M" if first.date() == last.date() else "%Y-%m-%d %H:%M"
    unknown = len(exports) - len(known)
    note = f"; {unknown} of {len(exports)} exports do not say when" if unknown else ""
    if f"{first:%Y-%m-%d %H:%M}" == f"{last:%Y-%m-%d %H:%M}":
        return f"{first:%Y-%m-%d %H:%M} UTC{note}"
    return f"{first:%Y-%m-%d %H:%M} to {last.strftime(days)} UTC (first and last answer){note}"
