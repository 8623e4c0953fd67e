"""The servers of these tests as fixtures, one of each for all tests of a file.

A plugin and no conftest.py: the tests above import theirs by that name.
"""

from collections.abc import Iterator

import pytest
from servers import MISSED, prism_command, serving, wiremock_command


@pytest.fixture(scope="module")
def prism() -> Iterator[str]:
    """The URL of a Prism that gives the contract's examples."""
    with serving(prism_command, ready="/") as url:
        yield url


@pytest.fixture(scope="module")
def wiremock() -> Iterator[str]:
    """The URL of a WireMock without stubs."""
    with serving(wiremock_command, ready="/__admin/health") as url:
        yield url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped: pytest by itself shows an `s`."""
    for line in sorted(MISSED):
        terminalreporter.write_line(f"contract tests skipped: {line}")
