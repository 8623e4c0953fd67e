"""However and wherever a reading ends, nothing of it is left: a thousand random await points, over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support.paths import TESTS

pytestmark = pytest.mark.long

POINTS = {"items": 190, "pages": 190, "collect": 190, "first": 130, "page": 130, "verify": 190}
LOOPS = {"items", "pages"}


def rounds(kind: str, count: int, seed: int = 2282, plant: str = "") -> subprocess.CompletedProcess[str]:
    """The program, in development mode and with warnings as errors, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "support/ending_rounds.py", kind, str(count), str(seed), plant],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def test_there_are_a_thousand_points() -> None:
    """In all kinds of reading together."""
    assert sum(POINTS.values()) >= 1_000


@pytest.mark.parametrize("kind", POINTS)
def test_a_reading_that_is_ended_anywhere_leaves_nothing(kind: str) -> None:
    """No task, no request at the server, no connection but idle ones, no complaint, within a second of each round."""
    done = rounds(kind, POINTS[kind])
    assert not done.stderr, done.stderr
    assert done.returncode == 0
    told: dict[str, Any] = json.loads(done.stdout)
    ways = {"cancel", "timeout", "aclose", "session"} | ({"break", "raise"} if kind in LOOPS else set())
    assert sum(told["ends"].values()) == POINTS[kind]
    assert {way for way in ways if told["ends"].get(way, 0) < 3} == set()


@pytest.mark.parametrize(
    ("plant", "seen"),
    [
        ("task", "'tasks': [<Task pending"),
        ("request", "'open requests': 1"),
        ("connection", "'connections beyond the pool': 1"),
        ("unretrieved", "exception was never retrieved"),
        ("unclosed", "unclosed <socket"),
    ],
)
def test_what_is_left_is_seen(plant: str, seen: str) -> None:
    """A fault planted behind a round fails the program, by name: the check above can fail."""
    done = rounds("page", 3, plant=plant)
    assert done.returncode == 1
    assert seen in done.stderr
