"""The report in a real browser: nothing on the console, nothing wider than the screen, and it prints."""

from __future__ import annotations

import csv
import shutil
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright
from support.export_folder import write_export
from support.notebook_values import notebook_values

from capillary_async.jobs import reconcile
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]
HELD = Sandbox(customers=40)
ROWS = [row for customer in HELD.customer_ids for row in HELD.allocations(customer)]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section, with long names and long numbers."""
    path = tmp_path_factory.mktemp("report")
    rows = [*ROWS, ROWS[0] | {"id": 3, "points_exclusive": "999999999999999.999", "status": "A_STATUS_" + "X" * 60}]
    query = {"program_id": 2282, "expiry_date_start": "2025-06-01", "expiry_date_end": "2027-06-01"}
    read = {"first": "2026-05-31T21:15:03+00:00", "last": "2026-05-31T23:40:59+00:00"}
    export = write_export(path / ("a-folder-with-a-long-name-" * 4), "allocations", rows, query=query, read=read)
    with (path / "books.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "points", "state"])
        for nth, row in enumerate(rows[150:]):
            writer.writerow([row["id"], Decimal(row["points_exclusive"]) + nth % 2, row["status"]])
        writer.writerows([nth, 123456789, "AVAILABLE"] for nth in range(10, 140))
    awarded = write_export(path / "awarded", "awarded", [r for c in HELD.customer_ids[1:] for r in HELD.awarded(c)])
    page = path / "report.html"
    await reconcile(
        export,
        path / "books.csv",
        key="id",
        compare="points_exclusive=points,status=state",
        report=page,
        with_awarded=awarded,
        as_of=date(2026, 6, 1),
    )
    return page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """A headless Chromium, one for all tests here."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def opened(browser: Any, report: Path) -> AsyncIterator[Any]:
    """Opens the report at a width; gives the page, and what it complained of or asked for."""
    contexts: list[Any] = []

    async def at(width: int, **options: Any) -> tuple[Any, list[str], list[str]]:
        context = await browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = await context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(report.as_uri())
        return page, said, asked

    yield at
    for context in contexts:
        await context.close()


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
async def test_nothing_is_wider_than_the_screen(opened: Any, report: Path, width: int) -> None:
    """Wide tables scroll within themselves; nothing is said on the console, nothing else is asked for."""
    page, said, asked = await opened(width)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    reach = """[...document.querySelectorAll('body *')]
        .filter(one => !one.closest('.scroll') && !one.closest('svg'))
        .filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"""
    assert await page.evaluate(reach) == []
    assert said == []
    assert asked == [report.as_uri()]


@pytest.mark.parametrize(("width", "shown", "hidden"), [(390, "narrow", "wide"), (1280, "wide", "narrow")])
async def test_the_chart_fits_the_screen(opened: Any, width: int, shown: str, hidden: str) -> None:
    """One of two drawings, with letters that can be read."""
    page, _, _ = await opened(width)
    assert await page.locator(f".chart .{shown} svg").is_visible()
    assert not await page.locator(f".chart .{hidden} svg").is_visible()
    sizes = await page.evaluate(
        f"[...document.querySelectorAll('.chart .{shown} text')].map(one => one.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 9
    box = await page.locator(f".chart .{shown} svg").bounding_box()
    assert box["width"] > 0.7 * min(width, 416)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
async def test_the_first_screen_has_the_answer(opened: Any, width: int, height: int) -> None:
    """The verdict, what was compared and when it was read, and the differences need no scrolling."""
    page, _, _ = await opened(width)
    for part in (".verdict", ".opening .facts", ".opening .counts"):
        box = await page.locator(part).bounding_box()
        assert box["y"] + box["height"] <= height
    text = await page.locator("header").inner_text()
    for said in ("DIFFERENT", "program 2282", "expiring 2025-06-01 to 2027-06-01", "2026-05-31 21:15", "books.csv"):
        assert said in text
    assert await page.locator("details").count() >= 2
    assert not await page.get_by_text("Digest of the keys").first.is_visible()
    assert not await page.locator(".rules").is_visible()


async def test_it_can_be_used_by_keyboard_and_read_aloud(opened: Any) -> None:
    """Headings in order, every table's columns named, every scrolling region named and reachable."""
    page, _, _ = await opened(390)
    levels = await page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert await page.locator("thead th:not([scope])").count() == 0
    assert await page.locator(".scroll:not([tabindex='0'])").count() == 0
    assert await page.locator(".scroll[aria-label='']").count() == 0
    verdict = page.locator(".verdict")
    assert (await verdict.bounding_box())["y"] < 200
    assert "DIFFERENT" in await verdict.inner_text()


async def test_words_stand_out_from_their_ground(opened: Any) -> None:
    """A contrast of 4.5 to 1 at least, as WCAG AA asks."""
    page, _, _ = await opened(1280)
    ratios = await page.evaluate(
        """() => {
        const light = c => { const [r, g, b] = c.map(v => { v /= 255;
            return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b };
        const rgb = text => text.match(/[\\d.]+/g).map(Number);
        const ground = one => { while (one) { const c = rgb(getComputedStyle(one).backgroundColor);
            if (c.length === 3 || c[3] > 0) return c.slice(0, 3); one = one.parentElement } return [255, 255, 255] };
        return [...document.querySelectorAll('main *, header *, footer *')]
            .filter(one => !one.closest('svg') && [...one.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
            .map(one => { const [a, b] = [light(rgb(getComputedStyle(one).color).slice(0, 3)), light(ground(one))];
                return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) }) }"""
    )
    assert len(ratios) > 100
    assert min(ratios) >= 4.5


async def test_it_is_light_where_the_system_is_dark(opened: Any) -> None:
    page, _, _ = await opened(1280, color_scheme="dark")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


async def test_it_prints(opened: Any) -> None:
    """On A4, with nothing cut off: tables do not scroll on paper."""
    page, said, _ = await opened(1280)
    await page.emulate_media(media="print")
    await page.set_viewport_size({"width": 703, "height": 1000})  # A4 less its margins, at 96 dpi
    wide = """[...document.querySelectorAll('table')].filter(one => one.getBoundingClientRect().right > innerWidth + 1)
        .map(one => one.innerText.slice(0, 60))"""
    assert await page.evaluate(wide) == []
    assert not await page.locator("nav").is_visible()
    folded = "[...document.querySelectorAll('details > :not(summary)')].filter(one => !one.checkVisibility())"
    assert await page.evaluate(f"{folded}.length") == 0  # opened on paper
    printed = await page.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert b"/MediaBox [0 0 594" in printed or b"/MediaBox [0 0 595" in printed
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_values_in_notebooks_have_the_colours_of_the_page(browser: Any, scheme: str) -> None:
    """Text in the colour of the page on its background, nothing run and nothing asked for."""
    cards = "".join(value._repr_html_() for value in notebook_values("<img src=x onerror=alert(1)>").values())
    context = await browser.new_context(color_scheme=scheme)
    page = await context.new_page()
    said: list[str] = []
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: said.append(request.url))
    await page.set_content(f'<meta name="color-scheme" content="light dark"><body>{cards}')
    colours = """[...new Set([...document.querySelectorAll('td, th, strong')]
        .map(one => getComputedStyle(one)).map(one => one.color + one.backgroundColor))]"""
    body = await page.evaluate("getComputedStyle(document.body).color")
    assert await page.evaluate(colours) == [f"{body}rgba(0, 0, 0, 0)"]
    assert body == {"light": "rgb(0, 0, 0)", "dark": "rgb(255, 255, 255)"}[scheme]
    assert said == []
    await context.close()
