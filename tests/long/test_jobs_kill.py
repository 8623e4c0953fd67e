"""kill -9: whatever the moment, an export that is started again comes to the bytes of one that was never disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.job_server import Customers
from support.killing import RECOVERED, Runner, contents

from capillary_async.jobs._common.kill_points import POINTS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork as POSIX has them"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Customers]:
    with Customers(latency=0.002) as customers:
        yield customers


@pytest.fixture(scope="module")
def runner(server: Customers) -> Iterator[Runner]:
    runner = Runner(server.url)
    yield runner
    assert runner.close() == ""


@pytest.fixture(scope="module")
def undisturbed(server: Customers, runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    fail_at_first(server)
    assert runner.run(out) == 2
    held = contents(out)
    fail_at_first(server)
    began = time.monotonic()
    assert runner.run(out.with_name("again")) == 2
    held_seconds[0] = time.monotonic() - began
    assert contents(out.with_name("again")) == held
    assert [line["key"] for line in held["failures.jsonl"]] == [9001, "no id", 9002]
    assert json.loads(held["manifest.json"])["ids"]["failed"] == 3
    return held


held_seconds = [0.0]  # of one run from beginning to end


def fail_at_first(server: Customers, times: dict[int, int] | None = None) -> None:
    server.failing.clear()
    server.failing.update(times or dict.fromkeys(RECOVERED, 1))


def same(out: Path, undisturbed: dict[str, Any]) -> bool:
    return contents(out) == undisturbed


@pytest.mark.parametrize("campaign", range(5))
def test_random_kills(
    campaign: int, server: Customers, runner: Runner, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Ten kills at moments drawn over the whole of a run, one while shards are written; each folder comes through."""
    dice = random.Random(campaign)
    kills = folders = 0
    while kills < 10:
        out = tmp_path / str(folders)
        folders += 1
        fail_at_first(server)
        while kills < 10:
            code = runner.killed(out, dice.uniform(0.0, held_seconds[0]))
            assert code in (-signal.SIGKILL, 2)
            if code == 2:
                break
            kills += 1
        assert runner.run(out) == 2
        assert same(out, undisturbed)
    out = tmp_path / "at work"  # seen, not timed: the machine may be busier than when a run was timed
    fail_at_first(server)
    assert runner.killed_at_work(out) == -signal.SIGKILL
    assert any((out / "shards").glob("*"))
    assert runner.run(out) == 2
    assert same(out, undisturbed)


@pytest.mark.parametrize(
    ("point", "time_"), [(point, 1) for point in POINTS] + [(point, 4) for point in POINTS if "shard" in point]
)
def test_each_point(
    *, point: str, time_: int, server: Customers, runner: Runner, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Killed exactly there, the first time and, of what is done for each shard, a later one."""
    out = tmp_path / "out"
    fail_at_first(server)
    code = runner.run(out, die_at=f"{point}:{time_}")
    assert code == (2 if (point, time_) == ("shard-withdrawn", 4) else -signal.SIGKILL), "three shards are made anew"
    assert runner.run(out) == 2
    assert same(out, undisturbed)


@pytest.mark.parametrize("time_", range(9, 17))
def test_later_rounds(
    *, time_: int, server: Customers, runner: Runner, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Customers that recover in the second and third round do so as well behind a kill between or in the rounds."""
    out = tmp_path / "out"
    fail_at_first(server, {5: 1, 66: 2, 67: 3, 89: 3})  # nine shards, then rounds of three, two and two
    assert runner.run(out, die_at=f"shard-committed:{time_}") == -signal.SIGKILL
    assert runner.run(out) == 2
    assert same(out, undisturbed)


@pytest.mark.parametrize(
    ("broken", "point"),
    [("commit-before-rename", "shard-committed:3"), ("order-of-arrival", ""), ("after-the-last", "shard-committed:4")],
)
def test_the_comparison_sees_a_fault(
    *, broken: str, point: str, server: Customers, runner: Runner, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """The negative control: three ways to get it wrong, each of which is noticed."""
    server.slow[3] = 1.0  # the first shard comes last, and its rows out of order
    try:
        out = tmp_path / "out"
        fail_at_first(server)
        runner.run(out, die_at=point, broken=broken)
        if point:
            runner.run(out, broken=broken)
        assert not same(out, undisturbed)
    finally:
        server.slow.clear()
