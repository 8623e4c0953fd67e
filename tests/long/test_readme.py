"""The README and the pages of docs: each Python block and command runs against the sandbox, and no file is left out."""

from __future__ import annotations

import ast
import asyncio
import csv
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from support import where_is_what
from support.environment import name_cluster
from support.kubernetes_cronjob import CRON_JOB
from support.paths import ROOT

from capillary_async import AsyncSession
from capillary_async.errors import __all__ as errors
from capillary_async.sandbox import ErrorEnvelope, Sandbox, ServerFailure

if TYPE_CHECKING:
    from types import CodeType

TEXT = (ROOT / "README.md").read_text()
BASH = shutil.which("bash") or "bash"
# What is replaced in a block, and nothing else.
HOST = '"https://eu.api.capillarytech.com"'
BASIC = 'BasicAuth("till.id", password="...")'
OAUTH = 'OAuthClient("key", "secret")'


def fenced(language: str, text: str = TEXT, page: str = "") -> list[Any]:
    """The blocks of one language, each named by the line where it begins."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [pytest.param(match[1], id=f"{page}line{text[: match.start()].count(chr(10)) + 1}") for match in found]


def file_name(block: str) -> str | None:
    """The name that a block is to be saved under."""
    named = re.match(r"# (\w+\.py)\n", block)
    return named[1] if named else None


BLOCKS = fenced("python")
SCRIPTS = [block for block in BLOCKS if file_name(block.values[0]) is None]
PAGES = [
    block
    for page in sorted((ROOT / "docs").glob("*.md"))
    for block in fenced("python", page.read_text(), f"{page.stem}-")
]
FILES = {file_name(block.values[0]): block.values[0] for block in BLOCKS if file_name(block.values[0])}


@pytest.fixture
def capillary_sandbox_options() -> dict[str, Any]:
    return {"customers": 20, "whales": 0}


@pytest.fixture
def cluster(capillary_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """What `AsyncSession.from_env()` of the blocks finds."""
    name_cluster(monkeypatch, capillary_sandbox.url, capillary_sandbox.username, capillary_sandbox.password)
    return capillary_sandbox


def replaced(block: str, sandbox: Sandbox) -> str:
    """The block with the sandbox's host and credentials."""
    text = block.replace(HOST, f'"{sandbox.url}"')
    text = text.replace(BASIC, f'BasicAuth("{sandbox.username}", password="{sandbox.password}")')
    return text.replace(OAUTH, f'OAuthClient("{sandbox.key}", "{sandbox.secret}")')


def process(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that must end well, warnings being errors."""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    environment["TMPDIR"] = str(cwd)  # where the demo leaves its files
    environment.pop("PYTHONDEVMODE", None)  # it writes to stderr what asyncio thinks slow
    ended = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=50, check=False, input=""
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def test_every_block_is_run_by_one_of_the_tests_below() -> None:
    """Nothing is left out in silence: a script, or one of the files that have a test here."""
    assert len(SCRIPTS) >= 8
    assert set(FILES) == {"app.py", "conftest.py", "nightly.py", "test_report.py", "test_with_aioresponses.py"}
    assert len(SCRIPTS) + len(FILES) == len(BLOCKS)
    assert TEXT.count("```python") == len(BLOCKS)


@pytest.mark.parametrize("block", [*SCRIPTS, *PAGES])
def test_script(block: str, cluster: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole script runs as a process; one with `await` at its top runs as a notebook would."""
    source = replaced(block, cluster)
    try:
        compile(source, "README.md", "exec")
    except SyntaxError:
        code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        asyncio.run(_as_in_a_notebook(code))
        out = capsys.readouterr().out
    else:
        (tmp_path / "script.py").write_text(source)
        ended = process(sys.executable, "script.py", cwd=tmp_path)
        assert ended.stderr == ""
        out = ended.stdout
    assert out.strip()
    assert "failed" not in out
    assert cluster.requests > 0
    assert {exchange.status for exchange in cluster.journal} <= {200, 400}


async def _as_in_a_notebook(code: CodeType) -> None:
    # A code object with `await` at its top gives a coroutine.
    given = eval(code, {"__name__": "__main__"})  # noqa: S307 - the README is ours
    assert inspect.isawaitable(given)
    await given


def test_errors_block_says_what_each_customer_is(cluster: Sandbox, tmp_path: Path) -> None:
    """The known, the merged and the unknown customer of the block are what it takes them for."""
    (block,) = [block.values[0] for block in SCRIPTS if "does not exist" in block.values[0]]
    (tmp_path / "script.py").write_text(replaced(block, cluster))
    lines = process(sys.executable, "script.py", cwd=tmp_path).stdout.splitlines()
    assert re.fullmatch(r"600000001 \d+", lines[0])
    assert lines[1] == "590000001 was merged: Merged customer found, survivor 600000001"
    assert lines[2] == "999999999 does not exist"


def test_going_on_block_goes_on(
    cluster: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every event is printed once though a page in the middle fails beyond all retries; a first page is raised."""
    from capillary_async import Paging, RetryPolicy, ServerError

    (block,) = [block.values[0] for block in SCRIPTS if "options(start=position)" in block.values[0]]
    code = compile(replaced(block, cluster), "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    from_env = AsyncSession.from_env
    options = {"retry": RetryPolicy(attempts=2, backoff=0), "paging": Paging(page_size=5, prefetch=0)}
    monkeypatch.setattr(AsyncSession, "from_env", lambda: from_env(**options))
    cluster.add_faults(ServerFailure(500, page=2, times=2))
    asyncio.run(_as_in_a_notebook(code))
    printed = capsys.readouterr().out.split()
    assert printed == [str(event["id"]) for event in cluster.events(600000001)]
    cluster.add_faults(ServerFailure(500, times=None))
    with pytest.raises(ServerError):
        asyncio.run(_as_in_a_notebook(code))


async def test_web_service(cluster: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lifespan opens and closes the session; both ways out of the handler."""
    import httpx

    (tmp_path / "app.py").write_text(FILES["app.py"])
    monkeypatch.syspath_prepend(tmp_path)
    import app as module  # type: ignore[import-not-found]

    transport = httpx.ASGITransport(app=module.app)
    async with (
        module.app.router.lifespan_context(module.app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        found = await client.get("/customers/600000001/events")
        missing = await client.get("/customers/999999999/events")
        session = module.app.state.capillary
        assert not session.closed
    assert session.closed
    held = cluster.events(600000001)[:20]
    assert [event["id"] for event in found.json()] == [event["id"] for event in held]
    assert (missing.status_code, missing.json()) == (404, {"detail": "no such customer"})


@pytest.mark.long
def test_tests_of_users(tmp_path: Path) -> None:
    """The plugin's fixtures and the shim, in a run of pytest of their own."""
    for name in ("conftest.py", "test_report.py", "test_with_aioresponses.py"):
        (tmp_path / name).write_text(FILES[name])
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    ended = process(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "3 passed" in ended.stdout


@pytest.fixture
def night(cluster: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ids and with books that agree, and the installed command in the path."""
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", os.pathsep.join((scripts, os.environ["PATH"])))
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


def _run(line: str, cwd: Path) -> tuple[int, str]:
    ended = subprocess.run(
        [BASH, "-c", line], cwd=cwd, capture_output=True, text=True, timeout=50, check=False, input=""
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.long
def test_five_commands_of_a_night(night: Path) -> None:
    """Each does what the table of exit codes says; the second asks nothing, and 3 tells of a row too few."""
    five = fenced("bash")[0].values[0].splitlines()
    assert len(five) == 5
    export, again, verify, reconcile, look = five
    assert _run(export, night)[0] == 0
    stood = (night / "points" / "manifest.json").stat().st_mtime_ns
    assert _run(again, night)[0] == 0
    assert (night / "points" / "manifest.json").stat().st_mtime_ns == stood
    assert _run(verify, night)[0] == 0
    code, told = _run(reconcile, night)
    # Rules hold against the day of this run, on which some of the sandbox's points have lapsed.
    assert code in (0, 3), told
    assert "missing in books 0, missing in Capillary 0" in told
    _fewer(night / "books.csv")
    code, told = _run(reconcile, night)
    assert code == 3
    assert "missing in books 1, missing in Capillary 0" in told
    assert (night / look.split()[-1]).exists()


@pytest.mark.long
def test_five_commands_with_the_sandbox_s_own_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sandbox --books books.csv`, then the five commands as they are: all is equal, on any day."""
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", os.pathsep.join((scripts, os.environ["PATH"])))
    line = ["capillary-async", "sandbox", "--port", "0", "--customers", "20", "--books", "books.csv"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        exported = next(each for each in served.stdout if each.startswith("export CAPILLARY_BASE_URL="))
        for each in shlex.split(exported)[1:]:
            monkeypatch.setenv(*each.partition("=")[::2])
        *commands, _ = fenced("bash")[0].values[0].splitlines()
        try:
            for command in commands:
                code, said = _run(command, tmp_path)
                assert code == 0, said
        finally:
            served.terminate()
            served.communicate(timeout=20)
    assert said.startswith("EQUAL: ")
    assert "-its-date" not in said  # the rules that hold against the day of this run


@pytest.mark.long
def test_commands_of_the_page_on_the_night(night: Path) -> None:
    """Each line ends with 0, one after the other in one folder."""
    page = (ROOT / "docs" / "night.md").read_text()
    lines = [line for block in fenced("bash", page) for line in block.values[0].splitlines()]
    assert len(lines) >= 3
    for line in lines:
        code, said = _run(line, night)
        assert code == 0, line + said


@pytest.mark.long
def test_reports_of_an_export(night: Path) -> None:
    """What the two files come to is what the sandbox has left of AVAILABLE rows; nobody is asked for it."""
    export = fenced("bash")[0].values[0].splitlines()[0]
    assert _run(export, night)[0] == 0
    (block,) = [each.values[0] for each in fenced("bash") if "report liability" in each.values[0]]
    for line in block.splitlines():
        code, said = _run(line, night)
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
    (night / "nightly.sh").write_text(fenced("bash")[1].values[0])
    cluster.add_faults(ErrorEnvelope(400, "no", path="dateRange", after=15, times=None))
    code, told = _run("sh nightly.sh 2026-01-15", night)
    assert code == 2, told
    assert not (night / "report-2026-01-15.html").exists()
    cluster.clear_faults()
    _fewer(night / "books.csv")
    code, told = _run("sh nightly.sh 2026-01-15", night)
    assert code == 3
    assert "missing in books 1, missing in Capillary 0" in told
    assert (night / "report-2026-01-15.html").exists()


@pytest.mark.long
def test_python_of_a_night(night: Path) -> None:
    """The same as a function of a scheduler: it raises what a person has to look at."""
    (night / "nightly.py").write_text(FILES["nightly.py"])
    _fewer(night / "books.csv")
    code, told = _run(f'"{sys.executable}" nightly.py 2026-01-15', night)
    assert code == 1
    assert "DifferentError: DIFFERENT: 1 of " in told.splitlines()[-1]
    assert "missing in books 1, missing in Capillary 0" in told
    assert (night / "report-2026-01-15.html").exists()


def test_schedules_heed_the_exit_codes() -> None:
    """What Kubernetes reads is YAML, and what ends a job for good is 1 and 3, as in systemd."""
    (manifest,) = [yaml.safe_load(block.values[0]) for block in fenced("yaml")]
    jsonschema.validate(manifest, CRON_JOB)
    job = manifest["spec"]["jobTemplate"]["spec"]
    assert job["podFailurePolicy"]["rules"][0] == {
        "action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 3]}}  # fmt: skip
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a podFailurePolicy wants it
    (unit,) = [block.values[0] for block in fenced("ini")]
    assert "RestartPreventExitStatus=1 3\n" in unit


@pytest.mark.parametrize("value", ["True", None, True])
def test_the_schema_refuses_what_clusters_refuse(value: object) -> None:
    """A pod condition without its status, or with a boolean for it."""
    (manifest,) = [yaml.safe_load(block.values[0]) for block in fenced("yaml")]
    (condition,) = manifest["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][1]["onPodConditions"]
    condition |= {"status": value}
    if value is None:
        del condition["status"]
    assert jsonschema.Draft202012Validator(CRON_JOB).is_valid(manifest) == (value == "True")


@pytest.mark.parametrize(("codes", "runs", "sleeps"), [("0", 1, 0), ("2 0", 2, 1), ("2 2 2 0", 3, 2), ("3", 1, 0)])
def test_the_line_of_cron(codes: str, runs: int, sleeps: int, tmp_path: Path) -> None:
    """Three runs in all, a pause between two of them and none after the last; what it ended with is printed."""
    (block,) = [each.values[0] for each in fenced("crontab")]
    line = block.splitlines()[1].split(" ", 5)[5].replace("/srv/points", str(tmp_path))
    (tmp_path / "capillary.env").touch()
    (tmp_path / "nightly.sh").write_text(
        f"#!/bin/sh\necho run >> log\nset -- {codes}\nshift $(($(grep -c run log) - 1))\nexit $1\n"
    )
    (tmp_path / "nightly.sh").chmod(0o755)
    _, told = _run(f"sleep() {{ echo sleep >> log; }}; {line}", tmp_path)
    log = (tmp_path / "log").read_text().split()
    assert (log.count("run"), log.count("sleep"), log[-1]) == (runs, sleeps, "run")
    last = codes.split()[runs - 1]
    assert told == ("" if last == "0" else f"nightly.sh ended with {last}\n")


def commands() -> list[str]:
    """The lines that call the command in the blocks for a shell, and those in the text that end by themselves."""
    lines = [line for block in fenced("sh") for line in block.values[0].splitlines() if "python3 -m venv" not in line]
    return [*lines, *(f"{line} --customers 20" for line in re.findall(r"`(capillary-async demo[^`]*)`", TEXT))]


@pytest.mark.long
@pytest.mark.parametrize("line", commands())
def test_command(line: str, cluster: Sandbox, tmp_path: Path) -> None:
    """Each command of the README writes what it should; the disturbed demo ends with 1."""
    line = line.replace("capillary-async", f'"{sysconfig.get_path("scripts")}/capillary-async"')
    line = line.replace("--sandbox", "--sandbox --customers 20")
    disturbed = "--disturb" in line
    ended = process(BASH, "-c", f"! {line}" if disturbed else line, cwd=tmp_path)
    written = ended.stdout or (tmp_path / "allocations.csv").read_text()
    assert written.strip()
    if "events" in line:
        assert {json.loads(row)["asked_id"] for row in written.splitlines()} <= {600000001, 600000008}
    assert ("DISAGREE" in written) == disturbed


def test_both_commands_are_whole() -> None:
    """One line each, from nothing to the demo and to the tests, with the extras that exist."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    lines = [line for block in fenced("sh") for line in block.values[0].splitlines() if "python3 -m venv" in line]
    assert len(lines) == 2
    assert lines[0].endswith(".venv/bin/capillary-async demo")
    assert lines[1].endswith(".venv/bin/python -m pytest")
    for line in lines:
        (extras,) = re.findall(r"'\.\[([\w,]+)\]'", line)
        assert all(re.search(rf"^{extra} = \[", pyproject, re.MULTILINE) for extra in extras.split(","))
    assert '\ncapillary-async = "capillary_async.cli:main"\n' in pyproject


def test_the_table_of_errors_is_the_tree() -> None:
    """One row for each class, in the order of the tree's parents."""
    rows = re.findall(r"^\| `(\w+Error)`", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(name for name in errors if name.endswith("Error") and name != "OriginalError")
    assert rows[0] == "CapillaryError"


def test_the_codes_of_the_ledger_are_those_of_the_sdk() -> None:
    """Every code for which the SDK has advice is told."""
    from capillary_async._transport.api_errors import ADVICE

    told = set(
        map(int, re.findall(r"\b\d{4,5}\b", TEXT[TEXT.index("The codes of the ledger:") :].partition("\n\n")[0]))
    )
    assert told == {code for code in ADVICE if code not in (8015, 8069, 320001)}


def test_where_is_what() -> None:
    """The table of files is the heads of the files: `python tests/support/where_is_what.py` writes it anew."""
    assert where_is_what.TABLE.read_text() == where_is_what.table()
