"""The report as text: it says what the result says, escapes what came from outside, and needs nothing beside itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from support.export_folder import write_export

from capillary_async.jobs import reconcile
from capillary_async.jobs._report.chart import _in_words, every_month, months_chart
from capillary_async.jobs._report.html import _amount, _signed
from capillary_async.jobs._report.opening import compared
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

HELD = Sandbox(customers=20)
ROWS = [row for customer in HELD.customer_ids for row in HELD.allocations(customer)]
TODAY = date(2026, 1, 15)
VOID = {"meta", "br", "hr", "img", "link", "input"}
OWN = {"path", "use", "rect", "circle", "line", "polyline", "polygon"}  # SVG's, closed in themselves


class Outline(HTMLParser):
    """The text of a page, its ids and links, and whether its elements close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(value) for name, value in attrs if name in {"href", "src", "xlink:href", "srcset", "action"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


async def report(tmp_path: Path, rows: Any = ROWS, books: str | None = None, **options: Any) -> tuple[Any, str]:
    export = write_export(tmp_path / "export", "allocations", rows)
    given: dict[str, Any] = {}
    if books is not None:
        (tmp_path / "books.csv").write_text(books)
        given = {"books": tmp_path / "books.csv", "key": "id", "compare": "points_exclusive=points"}
    result = await reconcile(export, report=tmp_path / "r.html", as_of=TODAY, **given, **options)
    return result, (tmp_path / "r.html").read_text(encoding="utf-8")


def books_of(rows: Any) -> str:
    return "id,points\n" + "".join(f"{row['id']},{row['points_exclusive']}\n" for row in rows)


async def test_it_says_what_the_result_says(tmp_path: Path) -> None:
    """Verdict, totals, classes, each difference, totals by status and by month, every rule, the command."""
    planted = [*ROWS[3:], {"id": 1, "points_exclusive": "1234567.125"}]
    planted[0] = {"id": ROWS[3]["id"], "points_exclusive": Decimal(ROWS[3]["points_exclusive"]) + 2}
    result, page = await report(tmp_path, books=books_of(planted))
    text = Outline(page).text
    assert result.verdict in text
    (totals,) = result.comparison.totals
    for value in (
        totals.capillary,
        totals.books,
        *(row.delta for rows in result.comparison.first.values() for row in rows),
    ):
        assert f"{abs(value):,f}" in text
    for said in ("Missing in books: 3 records", "Missing in Capillary: 1 record", "Changed: 1 record", "1,234,567.125"):
        assert said in text
    assert "\N{MINUS SIGN}1,234,567.125" in text
    for group in result.groups:
        assert f"{group.value} {group.records:,} {group.points['points_exclusive']:,f}" in text
    for finding in result.findings:
        assert finding.rule.name in text
        assert finding.rule.meaning in text
    for year in {month[:4] for month in result.months}:
        assert f"{sum(points for month, points in result.months.items() if month[:4] == year):,f}" in text
    assert result.command in text
    assert f"{sum(result.months.values()):,f} points in all" in text


async def test_it_needs_nothing_beside_itself(tmp_path: Path) -> None:
    """No address but of its own parts, no script; every id once, every link with its target, every element closed."""
    _, page = await report(tmp_path, books=books_of(ROWS[1:]))
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.links
    for link in outline.links:
        assert link.startswith("#")
        assert link[1:] in outline.ids
    assert "<script" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert page.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in page


async def test_what_came_from_outside_is_escaped(tmp_path: Path) -> None:
    """Statuses, file names and the manifest's query."""
    evil = '<script>alert("x")</script>&<b>'
    rows = [ROWS[0] | {"status": evil}]
    export = write_export(tmp_path / "<i>export", "allocations", rows, query={evil: evil})
    await reconcile(export, export, report=tmp_path / "r.html", as_of=TODAY)
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert evil in Outline(page).text


async def test_control_characters_from_outside_are_shown_as_escapes(tmp_path: Path) -> None:
    """Those that move the cursor, and those that turn the direction of a text."""
    await report(tmp_path, [ROWS[0] | {"status": "A\x1b[2J\x85\u202eB"}])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert r"A\x1b[2J\x85\u202eB" in page
    assert not [one for one in page if not one.isprintable() and one != "\n"]


async def test_without_books_and_without_points(tmp_path: Path) -> None:
    """The sections that make no sense are left out."""
    _, page = await report(tmp_path)
    text = Outline(page).text
    assert "NO FAULT FOUND" in text
    assert "Control totals" not in text
    assert "Points expiring by month" in text
    event = {"id": 5, "customer_id": 7, "date": "2026-01-01T00:00:00Z", "event_name": "TransactionAdd"}
    events = write_export(tmp_path / "events", "events", [event])
    await reconcile(events, report=tmp_path / "e.html")
    text = Outline((tmp_path / "e.html").read_text()).text
    assert "TransactionAdd 1" in text
    assert "Points expiring by month" not in text


async def test_the_opening_says_what_was_compared_and_when(tmp_path: Path) -> None:
    """Folders, programs, period, books and the times of the first and the last answer of all exports."""
    exports: list[Path] = []
    for nth in range(5):
        query = {"program_id": 2282 + nth, "point_category_id": 17383, "expiry_date_start": "2026-01-01"}
        times = {"first": f"2026-01-0{nth + 1}T01:02:03+00:00", "last": f"2026-01-0{nth + 1}T02:00:00+00:00"}
        given = {"query": query, **({"read": times} if nth else {})}
        exports.append(write_export(tmp_path / f"p{nth}", "allocations", ROWS[nth::5], **given))
    (tmp_path / "books.csv").write_text(books_of(ROWS))
    books: dict[str, Any] = {"books": tmp_path / "books.csv", "key": "id", "compare": "points_exclusive=points"}
    result = await reconcile(exports, as_of=TODAY, report=tmp_path / "r.html", **books)
    facts = compared(result)
    assert facts | {"Compared": ""} == {
        "Capillary": f"p0, p1, p2 and 2 more: {len(ROWS)} allocations",
        "Records of": "program 2282, 2283, 2284 and 2 more; category 17383; expiring from 2026-01-01",
        "Read": "2026-01-02 01:02 to 2026-01-05 02:00 UTC (first and last answer); 1 of 5 exports do not say when",
        "Books": f"books.csv; {len(ROWS)} rows",
        "Compared": "",
    }
    text = Outline((tmp_path / "r.html").read_text()).text
    opening = text[: text.index("What was compared")]
    for fact in facts.values():
        assert fact in opening


async def test_the_customer_has_one_name(tmp_path: Path) -> None:
    """The column `asked_key` of the files is the Customer everywhere in the report and in the terminal."""
    rows = [ROWS[0], ROWS[1] | {"customer_id": 5, "original_customer_id": None, "asked_key": 6}]
    export = write_export(tmp_path / "export", "allocations", rows)
    (tmp_path / "books.csv").write_text("id,who,points\n1,2,3\n")
    books: dict[str, Any] = {"key": "id,asked_key=who", "compare": "points_exclusive=points", "by": "asked_key"}
    result = await reconcile(export, tmp_path / "books.csv", as_of=TODAY, report=tmp_path / "r.html", **books)
    assert any(line.startswith("Customer 6: 1 record") for line in result.lines())
    text = Outline((tmp_path / "r.html").read_text()).text
    assert text.count("asked_key") - result.command.count("asked_key") == 1  # where it says what it is in files
    assert "id Customer Capillary Books Difference" in text
    assert "Capillary's totals by Customer" in text


async def test_blanks_in_a_row_are_shown_as_they_are(tmp_path: Path) -> None:
    """Keys that differ in the number of their blanks alone, which a page would show alike."""
    rows = [{"id": 1, "customer_id": 7, "event_name": "Buy", "unique_id": "u2 x"}]
    export = write_export(tmp_path / "export", "events", rows)
    (tmp_path / "books.csv").write_text("uid\nu2  x\n")
    await reconcile(export, tmp_path / "books.csv", key="unique_id=uid", report=tmp_path / "r.html")
    text = Outline((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "u2\u2420\u2420x" in text[text.index("Missing in Capillary: 1 record") :]


async def test_a_hundred_of_each_class(tmp_path: Path) -> None:
    """The largest come first; the page says that there are more, and where."""
    result, page = await report(tmp_path, books="id,points\n" + "".join(f"{n},{n}\n" for n in range(1, 151)))
    first = result.comparison.first
    assert [row.books for row in first["missing_in_capillary"]] == [f"{n}.000" for n in range(150, 50, -1)]
    text = Outline(page).text
    assert "Missing in Capillary: 150 records" in text
    assert "The first hundred; --out writes every one to a file" in text
    sizes = [size for size in result.comparison.sizes if size.kind == "missing_in_capillary"]
    assert [(size.label, size.count) for size in sizes] == [("1 to 10", 9), ("10 to 100", 90), ("100 to 1,000", 51)]


async def test_the_same_numbers_give_the_same_page(tmp_path: Path) -> None:
    """But for the time it was made and took."""
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _, page = await report(tmp_path / name)
        page = page.replace(str(tmp_path / name), "")
        pages.append(re.sub(r"Made .*? s(?=[,.])", "", page))
    assert pages[0] == pages[1]


def test_amounts_are_shown_to_the_last_digit() -> None:
    assert _amount(Decimal("-1234567.100")) == "\N{MINUS SIGN}1,234,567.100"
    assert _amount(Decimal("99999999999999999999999999999999.001")) == "99,999,999,999,999,999,999,999,999,999,999.001"
    assert _amount(None) == ""
    assert _signed(Decimal("0.000")) == "0.000"
    assert _signed(Decimal("0.001")) == "+0.001"


def test_months_without_points_stand_between() -> None:
    """Unless they would be too many to see."""
    months = {"2026-11": Decimal(1), "2027-02": Decimal(2)}
    assert list(every_month(months)) == ["2026-11", "2026-12", "2027-01", "2027-02"]
    assert every_month({"2020-01": Decimal(1), "2099-01": Decimal(2)}) == {"2020-01": Decimal(1), "2099-01": Decimal(2)}
    assert every_month({}) == {}


@pytest.mark.parametrize("narrow", [True, False])
def test_the_chart_has_a_bar_a_month(narrow: bool) -> None:
    """Past months have another colour; the words are text."""
    months = {f"2026-{month:02}": Decimal(month * 1000) for month in range(1, 13)}
    drawn = months_chart(months, now="2026-03", narrow=narrow)
    assert drawn == months_chart(months, now="2026-03", narrow=narrow)
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    assert "width" not in root.attrib
    assert root.attrib["aria-hidden"] == "true"
    assert drawn.count("fill: #b0643c") == 2
    assert drawn.count("fill: #2f6690") == 10
    assert "Jan" in "".join(root.itertext())
    text = "".join(root.itertext())
    assert "10,000" in text
    for word in ("points left to use", *(() if narrow else ("month in which they expire",))):
        assert word in text


def test_amounts_of_the_axis_are_in_words() -> None:
    assert [_in_words(value, 0) for value in (0, 0.5, 10_000, 250_000, 2_500_000, 4e9, 1e15, -3e6)] == [
        *("0", "0.5", "10,000", "250,000", "2.5 million", "4 billion", "1,000 trillion", "-3 million"),
    ]
