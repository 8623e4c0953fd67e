"""kill -9 while an export keeps an archive: what comes of it is whole, and the same."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.job_server import Customers
from support.killing import RECOVERED, Runner

from capillary_async import jobs
from capillary_async.jobs._common.kill_points import ARCHIVE_POINTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork as POSIX has them"),
]
KILLED = -9


@pytest.fixture(scope="module")
def server() -> Iterator[Customers]:
    with Customers(latency=0.002) as customers:
        yield customers


@pytest.fixture(scope="module")
def runner(server: Customers) -> Iterator[Runner]:
    runner = Runner(server.url)
    yield runner
    assert runner.close() == ""


def files(out: Path) -> dict[str, bytes]:
    found = [out / "manifest.json", out / "failures.jsonl", *sorted((out / "shards").iterdir())]
    return {path.name: path.read_bytes() for path in found}


def same(path: Path) -> None:
    """The archive has what the export has, and no file more."""
    result = asyncio.run(jobs.replay(path / "archive", path / "again"))
    assert result.identical
    assert files(path / "again") == files(path / "out")
    assert not [each.name for each in (path / "archive").iterdir() if each.name.endswith(".part")]


@pytest.mark.parametrize(
    "point", [*ARCHIVE_POINTS, "pack-renamed:9", "shard-withdrawn", "shard-committed:4", "manifest-written"]
)
def test_killed_at(point: str, server: Customers, runner: Runner, tmp_path: Path) -> None:
    """At each moment between two steps."""
    server.failing.update(dict.fromkeys(RECOVERED, 1))
    options: dict[str, Any] = {"archive": str(tmp_path / "archive")}
    assert runner.run(tmp_path / "out", die_at=point, **options) in (KILLED, 2)
    assert runner.run(tmp_path / "out", **options) == 2
    same(tmp_path)


def test_random_kills(server: Customers, runner: Runner, tmp_path: Path) -> None:
    """Six kills of exports at moments drawn over a run."""
    drawn = random.Random(11)
    began = time.monotonic()
    runner.run(tmp_path / "whole" / "out", archive=str(tmp_path / "whole" / "archive"))
    seconds = time.monotonic() - began
    kills = folders = 0
    while kills < 6:
        path, folders = tmp_path / str(folders), folders + 1
        server.failing.update(dict.fromkeys(RECOVERED, 1))
        for _ in range(3):
            kills += runner.killed(path / "out", drawn.uniform(0, seconds), archive=str(path / "archive")) == KILLED
        assert runner.run(path / "out", archive=str(path / "archive")) == 2
        same(path)
