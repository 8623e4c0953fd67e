"""The table of deliberate faults in `docs/development/testing.md`: the tests that it names exist."""

import re

from support.paths import ROOT, TESTS

NAMED = sorted(
    set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs/development/testing.md").read_text("utf-8")))
)


def test_each_test_of_the_table_exists() -> None:
    """A renamed or deleted test leaves the table with it."""
    sources = {path.name: path.read_text("utf-8") for path in TESTS.rglob("test_*.py")}
    assert len(NAMED) > 40
    gone = [
        (file, name)
        for file, name in NAMED
        if not re.search(rf"^ *(?:async )?def {name}\(", sources.get(file, ""), re.MULTILINE)
    ]
    assert gone == []
