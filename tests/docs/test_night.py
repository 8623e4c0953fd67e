"""The nightly commands, scripts and schedules of the README and the pages, run against the sandbox."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from support.kubernetes_cronjob import CRON_JOB
from support.pages import PAGES, blocks, file_name, page, path_with_scripts, run_line

from capillary_async.sandbox import ErrorEnvelope, Sandbox

if TYPE_CHECKING:
    from pathlib import Path

NIGHT = page("how_to/nightly_reconciliation.md")
SCHEDULE = page("how_to/schedule.md")
FIVE = blocks("bash", NIGHT)[0]


@pytest.fixture
def night(cluster: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ids and with books that agree, and the installed command in the path."""
    monkeypatch.setenv("PATH", path_with_scripts())
    ids = list(cluster.customer_ids)
    (tmp_path / "ids.csv").write_text("customer_id\n" + "".join(f"{id_}\n" for id_ in ids))
    rows = [row for id_ in ids for row in cluster.allocations(id_) if _within(row["expiry_date"])]
    lines = [f"{row['id']},{_left(row)},{row['status']}" for row in rows]
    (tmp_path / "books.csv").write_text("\n".join(["award_id,points,status", *lines, ""]))
    return tmp_path


def _left(row: dict[str, Any]) -> Decimal:
    """What is still owed of the award: what finance books."""
    gone = ("redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")
    return Decimal(row["points_exclusive"]) - sum(Decimal(row[each]) for each in gone)


def _within(milliseconds: int) -> bool:
    """Whether it is in the dates of the section's commands, which the sandbox reads in its own zone."""
    zone = timezone(timedelta(hours=5, minutes=30))
    return date(2025, 6, 1) <= datetime.fromtimestamp(milliseconds / 1000, zone).date() <= date(2027, 6, 1)


def _fewer(books: Path) -> None:
    """Leave the last row out."""
    books.write_text("\n".join([*books.read_text().splitlines()[:-1], ""]))


def test_the_five_commands_of_the_readme_are_those_of_the_page() -> None:
    """One text, twice."""
    assert FIVE in PAGES["README.md"]
    assert file_name(blocks("python", SCHEDULE)[0]) == "nightly.py"


@pytest.mark.long
def test_five_commands_of_a_night(night: Path) -> None:
    """Each does what the table of exit codes says; the second asks nothing, and 3 tells of a row too few."""
    five = FIVE.splitlines()
    assert len(five) == 5
    export, again, verify, reconcile, look = five
    assert run_line(export, night)[0] == 0
    stood = (night / "points" / "manifest.json").stat().st_mtime_ns
    assert run_line(again, night)[0] == 0
    assert (night / "points" / "manifest.json").stat().st_mtime_ns == stood
    assert run_line(verify, night)[0] == 0
    code, told = run_line(reconcile, night)
    # Rules hold against the day of this run, on which some of the sandbox's points have lapsed.
    assert code in (0, 3), told
    assert "missing in books 0, missing in Capillary 0" in told
    _fewer(night / "books.csv")
    code, told = run_line(reconcile, night)
    assert code == 3
    assert "missing in books 1, missing in Capillary 0" in told
    assert (night / look.split()[-1]).exists()


@pytest.mark.long
@pytest.mark.parametrize("block", [FIVE, *blocks("bash", page("tutorial/first_hour.md"))], ids=["five", "tutorial"])
def test_commands_with_the_sandbox_s_own_books(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sandbox --books books.csv`, then the commands as they are: all is equal, on any day."""
    monkeypatch.setenv("PATH", path_with_scripts())
    line = ["capillary-async", "sandbox", "--port", "0", "--customers", "20", "--books", "books.csv"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        exported = next(each for each in served.stdout if each.startswith("export CAPILLARY_BASE_URL="))
        for each in shlex.split(exported)[1:]:
            monkeypatch.setenv(*each.partition("=")[::2])
        commands = [command for command in block.splitlines() if "webbrowser" not in command]
        try:
            for command in commands:
                code, said = run_line(command, tmp_path)
                assert code == 0, said
        finally:
            served.terminate()
            served.communicate(timeout=20)
    assert said.startswith("EQUAL: ")
    assert "-its-date" not in said  # the rules that hold against the day of this run


# Those whose lines end with other codes have tests of their own.
OWN = {"README.md", *(f"docs/{name}.md" for name in ("tutorial/first_hour", "how_to/nightly_reconciliation"))}
OWN |= {f"docs/how_to/{name}.md" for name in ("schedule", "point_reports")}
LINES = {name: blocks("bash", text) for name, text in PAGES.items() if name not in OWN and blocks("bash", text)}


@pytest.mark.long
@pytest.mark.parametrize("name", LINES)
def test_the_command_lines_of_a_page(name: str, night: Path) -> None:
    """Each ends with 0, one after the other in one folder."""
    for line in "".join(LINES[name]).splitlines():
        code, said = run_line(line, night)
        assert code == 0, line + said


@pytest.mark.long
def test_reports_of_an_export(night: Path) -> None:
    """What the two files come to is what the sandbox has left of AVAILABLE rows; nobody is asked for it."""
    export = FIVE.splitlines()[0]
    assert run_line(export, night)[0] == 0
    (block,) = blocks("bash", page("how_to/point_reports.md"))
    for line in block.splitlines():
        code, said = run_line(line, night)
        assert code == 0, said
        assert "days and months: Asia/Kolkata" in said
        assert "one of five award tables" in said
        assert "in the categories that were exported" in said
    owed = list(csv.DictReader((night / "owed.csv").read_text().splitlines()))
    available = [row for row in owed if row["status"] == "AVAILABLE"]
    books = list(csv.DictReader((night / "books.csv").read_text().splitlines()))
    held = sum(Decimal(row["points"]) for row in books if row["status"] == "AVAILABLE")
    assert sum(Decimal(row["points_remaining"]) for row in available) == held > 0
    assert sum(Decimal(row["value"]) for row in available) == held / 4
    assert {row["value"] for row in owed if row["status"] != "AVAILABLE"} == {""}
    lost = list(csv.DictReader((night / "expiring.csv").read_text().splitlines()))
    assert all(row["last_day"] <= "2026-12-31" for row in lost)


@pytest.mark.long
def test_script_of_a_night(night: Path, cluster: Sandbox) -> None:
    """Its exit code is that of the step that failed: 2 for a customer, 3 for the books; run again it goes on."""
    (night / "nightly.sh").write_text(blocks("bash", SCHEDULE)[0])
    cluster.add_faults(ErrorEnvelope(400, "no", path="dateRange", after=15, times=None))
    code, told = run_line("sh nightly.sh 2026-01-15", night)
    assert code == 2, told
    assert not (night / "report-2026-01-15.html").exists()
    cluster.clear_faults()
    _fewer(night / "books.csv")
    code, told = run_line("sh nightly.sh 2026-01-15", night)
    assert code == 3
    assert "missing in books 1, missing in Capillary 0" in told
    assert (night / "report-2026-01-15.html").exists()


@pytest.mark.long
def test_python_of_a_night(night: Path) -> None:
    """The same as a function of a scheduler: it raises what a person has to look at."""
    (night / "nightly.py").write_text(blocks("python", SCHEDULE)[0])
    _fewer(night / "books.csv")
    code, told = run_line(f'"{sys.executable}" nightly.py 2026-01-15', night)
    assert code == 1
    assert "DifferentError: DIFFERENT: 1 of " in told.splitlines()[-1]
    assert "missing in books 1, missing in Capillary 0" in told
    assert (night / "report-2026-01-15.html").exists()


def test_schedules_heed_the_exit_codes() -> None:
    """What Kubernetes reads is YAML, and what ends a job for good is 1 and 3, as in systemd."""
    (manifest,) = [yaml.safe_load(block) for block in blocks("yaml", SCHEDULE)]
    jsonschema.validate(manifest, CRON_JOB)
    job = manifest["spec"]["jobTemplate"]["spec"]
    assert job["podFailurePolicy"]["rules"][0] == {
        "action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 3]}}  # fmt: skip
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a podFailurePolicy wants it
    (unit,) = blocks("ini", SCHEDULE)
    assert "RestartPreventExitStatus=1 3\n" in unit


@pytest.mark.parametrize("value", ["True", None, True])
def test_the_schema_refuses_what_clusters_refuse(value: object) -> None:
    """A pod condition without its status, or with a boolean for it."""
    (manifest,) = [yaml.safe_load(block) for block in blocks("yaml", SCHEDULE)]
    (condition,) = manifest["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][1]["onPodConditions"]
    condition |= {"status": value}
    if value is None:
        del condition["status"]
    assert jsonschema.Draft202012Validator(CRON_JOB).is_valid(manifest) == (value == "True")


@pytest.mark.parametrize(("codes", "runs", "sleeps"), [("0", 1, 0), ("2 0", 2, 1), ("2 2 2 0", 3, 2), ("3", 1, 0)])
def test_the_line_of_cron(codes: str, runs: int, sleeps: int, tmp_path: Path) -> None:
    """Three runs in all, a pause between two of them and none after the last; what it ended with is printed."""
    (block,) = blocks("crontab", SCHEDULE)
    line = block.splitlines()[1].split(" ", 5)[5].replace("/srv/points", str(tmp_path))
    (tmp_path / "capillary.env").touch()
    (tmp_path / "nightly.sh").write_text(
        f"#!/bin/sh\necho run >> log\nset -- {codes}\nshift $(($(grep -c run log) - 1))\nexit $1\n"
    )
    (tmp_path / "nightly.sh").chmod(0o755)
    _, told = run_line(f"sleep() {{ echo sleep >> log; }}; {line}", tmp_path)
    log = (tmp_path / "log").read_text().split()
    assert (log.count("run"), log.count("sleep"), log[-1]) == (runs, sleeps, "run")
    last = codes.split()[runs - 1]
    assert told == ("" if last == "0" else f"nightly.sh ended with {last}\n")
