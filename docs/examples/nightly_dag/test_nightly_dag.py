"""Tests of the night: its steps as functions, and the DAG by Airflow's own `dag.test()` where Airflow is there."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")

import points_steps

from capillary_async.cli._commands.sandbox_books import today_there, write_books_of
from capillary_async.sandbox import Sandbox, ServerFailure

DAY = "2026-01-15"
HERE = Path(__file__).parent
DAG_TEST = """
import json, os, pathlib, sys
from datetime import UTC, datetime
from airflow.utils.db import initdb
initdb()
import nightly_dag
def states(day):
    run = nightly_dag.dag_of_points.test(logical_date=datetime(2026, 1, day, tzinfo=UTC))
    return {task.task_id: [task.state, task.try_number] for task in run.get_task_instances()}
whole = states(15)
with open("books.csv", "a") as books:
    books.write(open("books.csv").read().splitlines()[1].replace(",", "9,", 1) + "\\n")
pathlib.Path("states.json").write_text(json.dumps([whole, states(16)]))
"""


@pytest.fixture
def capillary_sandbox_options() -> dict[str, Any]:
    return {"customers": 20, "whales": 0, "today": today_there()}


@pytest.fixture
def home(capillary_sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ids and books, whose cluster is the sandbox."""
    write_books_of(capillary_sandbox, tmp_path / "books.csv")
    monkeypatch.setenv("CAPILLARY_BASE_URL", capillary_sandbox.url)
    monkeypatch.setenv("CAPILLARY_USERNAME", capillary_sandbox.username)
    monkeypatch.setenv("CAPILLARY_PASSWORD", capillary_sandbox.password)
    monkeypatch.setenv("POINTS_HOME", str(tmp_path))
    return tmp_path


def night() -> str:
    points_steps.export(DAY)
    points_steps.verify(DAY)
    points_steps.reconcile(DAY)
    return points_steps.publish(DAY)


def test_a_night(home: Path, capillary_sandbox: Sandbox) -> None:
    """From the ids to the published export; a second time nothing is asked for but the sample, and nothing is sent."""
    url = night()
    assert url == (home / "lake" / "points" / DAY).as_uri()
    assert (home / "lake" / "points" / DAY / "manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in (home / "lake").rglob("*")}
    requests = capillary_sandbox.requests
    points_steps.export(DAY)
    assert capillary_sandbox.requests == requests
    assert night() == url
    assert {path: path.stat().st_mtime_ns for path in (home / "lake").rglob("*")} == before


def test_a_retry_goes_on(home: Path, capillary_sandbox: Sandbox) -> None:
    """A customer whose list fails is kept for the retry, which asks for no other; nothing incomplete is published."""
    capillary_sandbox.add_faults(ServerFailure(400, path="dateRange", after=3))
    with pytest.raises(points_steps.IncompleteError, match="1 customers failed"):
        points_steps.export(DAY)
    with pytest.raises(Exception, match="is not complete"):
        points_steps.publish(DAY)
    before = capillary_sandbox.requests
    points_steps.export(DAY)
    assert 0 < capillary_sandbox.requests - before < 5
    night()


def test_books_that_differ_are_for_a_person(home: Path) -> None:
    points_steps.export(DAY)
    lines = (home / "books.csv").read_text().splitlines()
    (home / "books.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(points_steps.DifferentError, match=r"report-2026-01-15\.html"):
        points_steps.reconcile(DAY)


@pytest.mark.long
@pytest.mark.skipif(find_spec("airflow") is None, reason="the DAG is not run by Airflow: pip install apache-airflow")
def test_the_dag_in_airflow(home: Path) -> None:
    """All tasks of a day succeed; with other books `reconcile` fails without a retry, and nothing is published."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(HERE),
    }
    command = [sys.executable, "-W", "ignore", "-c", DAG_TEST]
    ended = subprocess.run(  # noqa: S603 - Python with the lines above
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=220, check=False
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    whole, other = json.loads((home / "states.json").read_text())
    assert whole == {step: ["success", 1] for step in ("export", "verify", "reconcile", "publish")}
    assert other["reconcile"] == ["failed", 1]
    assert other["publish"][0] == "upstream_failed"
    assert [path.name for path in (home / "lake" / "points").iterdir()] == [DAY]
