"""What README and pages say of the package is so: commands, tables, links, and the tests that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import where_is_what
from support.pages import PAGES, blocks, page
from support.paths import ROOT

from capillary_async.errors import __all__ as errors

README = PAGES["README.md"]
LINKS = [(name, link) for name, text in PAGES.items() for link in re.findall(r"\]\(([^)#][^)]*)\)", text)]


def test_the_front_page_is_short() -> None:
    """One screen or three, not an evening."""
    assert len(README.splitlines()) <= 150


def test_both_commands_are_whole() -> None:
    """One line each, from nothing to the demo and to the tests, with the extras that exist."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    lines = [line for block in blocks("sh", README) for line in block.splitlines() if "python3 -m venv" in line]
    assert len(lines) == 2
    assert lines[0].endswith(".venv/bin/capillary-async demo")
    assert lines[1].endswith(".venv/bin/python -m pytest")
    for text in PAGES.values():
        for extras in re.findall(r"'\.\[([\w,]+)\]'", text):
            assert all(re.search(rf"^{extra} = \[", pyproject, re.MULTILINE) for extra in extras.split(","))
    assert '\ncapillary-async = "capillary_async.cli:main"\n' in pyproject


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_a_link_leads_somewhere(name: str, link: str) -> None:
    """To a file of the repository, or to a site by https."""
    if link.startswith("https://"):
        return
    target = (ROOT / name).parent / link.partition("#")[0]
    assert target.exists(), link
    _, _, anchor = link.partition("#")
    if anchor:
        heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_tests_that_pages_name_exist() -> None:
    """Files, folders, and single tests."""
    named = {found for text in PAGES.values() for found in re.findall(r"`(tests/[\w/.]+(?:::\w+)?)`", text)}
    assert len(named) > 20
    for each in named:
        path, _, test = each.partition("::")
        assert (ROOT / path).exists(), each
        assert not test or f"def {test}(" in (ROOT / path).read_text("utf-8"), each


def test_every_page_is_reached_from_the_index() -> None:
    """No page that only its author knows."""
    listed = set(re.findall(r"^((?:\w+/)?\w+)$", "\n".join(blocks(r"\{toctree\}", page("index.md"))), re.MULTILINE))
    pages = {Path(name).relative_to("docs").with_suffix("").as_posix() for name in PAGES if name.startswith("docs/")}
    assert listed == pages - {"index"} | {"reference/cli"}  # which is reStructuredText


def test_the_table_of_errors_is_the_tree() -> None:
    """One row for each class, in the order of the tree's parents."""
    rows = re.findall(r"^\| `(\w+Error)`", page("reference/errors.md"), re.MULTILINE)
    assert sorted(rows) == sorted(name for name in errors if name.endswith("Error") and name != "OriginalError")
    assert rows[0] == "CapillaryError"


def test_the_codes_of_the_ledger_are_those_of_the_sdk() -> None:
    """Every code for which the SDK has advice is named."""
    from capillary_async._transport.api_errors import ADVICE

    text = page("reference/errors.md")
    named = re.findall(r"\b\d{4,5}\b", text[text.index("The codes of the ledger:") :].partition("\n\n")[0])
    assert set(map(int, named)) == {code for code in ADVICE if code not in (8015, 8069, 320001)}


def test_where_is_what() -> None:
    """The table of files is the heads of the files: `python tests/support/where_is_what.py` writes it."""
    assert where_is_what.TABLE.read_text() == where_is_what.table()
