"""The HTML of values in notebooks: whole, small, escaped, without secrets, and in the reader's own colours."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from support.notebook_values import SECRET, notebook_values

from capillary_async import Page
from capillary_async._html import card

NASTY = {
    "script": "<script>alert('x')</script>",
    "quotes": '"\'><img src=x onerror="alert(1)"> & </td></table>',
    "entities": "&lt;b&gt; &#60;script&#62; &amp;",
    "long": "<&\"'" * 5_000,
    "emoji": "\N{SNOWMAN}\N{GRINNING FACE}" * 3_000,
    "control": "a\x00b\x1b[31m\u202egnp.exe\ud800\n\t",
    "empty": "",
}
TAGS = {"div", "strong", "table", "tr", "td", "th"}


class Seen(HTMLParser):
    """The tags, attributes and text of a page, whose tags are closed in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_values_are_escaped_and_small(text: str) -> None:
    """Only our own tags and attributes, under 20 kB, nothing that a terminal or an encoder stumbles over."""
    for name, value in notebook_values(text).items():
        html = value._repr_html_()
        assert len(html.encode()) < 20_000, name
        seen = Seen(html)
        assert set(seen.tags) <= TAGS, name
        assert seen.attributes <= {"style"}, name
        assert SECRET not in html
        assert not re.search(r"[\x00-\x1f\u202e\ud800]", html), name


def test_thousands_of_rows_are_cut() -> None:
    """And the page says so."""
    values = notebook_values("x" * 30, rows=5_000)
    for value in values.values():
        assert len(value._repr_html_().encode()) < 20_000
    for name in ("page", "outcome"):
        html = values[name]._repr_html_()
        assert "10 of 5,000 records and 10 of " in html
        assert html.count("<tr>") < 30


def test_the_colours_are_those_of_the_page() -> None:
    """No background, no colour of our own but lines of half-transparent grey."""
    for value in notebook_values("x").values():
        styles = " ".join(re.findall(r'style="([^"]*)"', value._repr_html_()))
        assert set(re.findall(r"(?<![-\w])(?:background|color)[-\w]*:([^;\"]*)", styles)) <= {"none", "inherit"}
        assert "#" not in styles


def test_what_is_shown() -> None:
    """What a reader looks for, and amounts with all their digits."""
    shown = {name: Seen(value._repr_html_()).text for name, value in notebook_values("a name").items()}
    assert "https://eu.api.capillarytech.com" in shown["session"]
    assert "password='***'" in shown["session"]
    assert "open" in shown["session"]
    assert "bulk" in shown["view"]
    assert "12,345" in shown["stats"]
    assert "loyalty_events.list(5)" in shown["pager"]
    assert "Position(page=3, index=2, page_size=50)" in shown["pager with options"]
    assert "an iterator" in shown["fan-out over an iterator"]
    assert "12345678901234.567" in shown["page"]
    assert "ServerError: GET /v2/x: a name" in shown["failed outcome"]
    assert "DIFFERENT" in shown["reconcile"] or "NO FAULT" in shown["reconcile"]


def test_columns_that_no_record_fills_are_left_out() -> None:
    assert "(value)" in Page((1, 2), 1)._repr_html_()

    class Odd:
        """Its repr fails."""

        def __repr__(self) -> str:
            raise ValueError

    html = card("odd", {"huge": 10**5000, "odd": Odd(), "none": None})
    assert "Odd object at" in html
    assert "none" not in Seen(html).text


def test_a_closed_session_says_so() -> None:
    import asyncio

    session: Any = notebook_values("x")["session"]
    asyncio.run(session.aclose())
    assert "closed" in session._repr_html_()
