"""The README of the tests: the tests that it says kill a fault exist."""

import re

import pytest
from support.paths import TESTS

NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", (TESTS / "README.md").read_text("utf-8"))))


def test_it_names_some():
    """A README read wrongly would make the next test pass for nothing."""
    assert len(NAMED) > 40


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_named_there_exists(file: str, name: str):
    """Renamed or deleted: then the table says something that is no longer so."""
    assert re.search(rf"^ *(?:async )?def {name}\(", next(TESTS.rglob(file)).read_text("utf-8"), re.MULTILINE)
