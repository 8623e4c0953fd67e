"""The site that Sphinx builds of `docs`: no warning, and a search that works without a server."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from support.pages import process
from support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("sphinx") is None, reason="the extra `docs` is not installed"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "-n", "--keep-going", "-q", "-b", "html", "-d", str(folder / "cache")]
    process(
        sys.executable,
        "-m",
        "sphinx",
        *options,
        str(ROOT / "docs"),
        str(folder / "html"),
        cwd=ROOT,
        warn=True,
        seconds=220,
    )
    return folder / "html"


def test_public_names_are_on_the_pages(site: Path) -> None:
    """All that users import has its entry."""
    import capillary_async

    text = "".join(path.read_text("utf-8") for path in (site / "reference").glob("*.html"))
    anchors = set(re.findall(r'id="([\w.]+)"', text))
    named = {each.rpartition(".")[2] for each in anchors}
    assert [name for name in capillary_async.__all__ if name not in named and name != "__version__"] == []


def test_the_commands_are_on_their_page(site: Path) -> None:
    """Each command with its options, as `--help` has them."""
    text = (site / "reference" / "cli.html").read_text("utf-8")
    assert all(f"--{option}" in text for option in ("expiry-date-start", "against-api", "tolerance", "books"))
    assert "sphinx" not in re.sub(r"<[^>]+>", "", text).partition("Made with")[0].lower()


def test_the_search_needs_no_server(site: Path) -> None:
    """Its index is a script, which a page opened from a file may load; it knows the words of the pages."""
    index = (site / "searchindex.js").read_text("utf-8")
    found = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", index, re.DOTALL)[1])  # type: ignore[index]
    assert {"reconcil", "outag", "decim"} <= set(found["terms"])
