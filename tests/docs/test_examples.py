"""The examples: each command of `docs/examples/README.md` runs; the scripts are those of the page on schedules."""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from support.pages import blocks, page, path_with_scripts, run_line
from support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = ROOT / "docs" / "examples"
TEXT = (EXAMPLES / "README.md").read_text("utf-8")
COMMANDS = re.findall(r"\| `([^`]*docs/[^`]*)` \|$", TEXT, re.MULTILINE)
NIGHTLY = [command for command in COMMANDS if "docs/examples/nightly/" in command]
QUERY = "program_id=2282&point_category_id=17383"
(SERVICE,) = [command for command in COMMANDS if "docs/examples/service" in command]


def test_every_example_is_in_the_table() -> None:
    """Folders of `docs/examples` with a command each; notebooks have a test of their own."""
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {name for name in folders if any(f"docs/examples/{name}" in command for command in COMMANDS)}


@pytest.mark.parametrize(("language", "name"), [("bash", "nightly.sh"), ("python", "nightly.py")])
def test_the_scripts_are_those_of_the_page(language: str, name: str) -> None:
    assert (EXAMPLES / "nightly" / name).read_text("utf-8") in blocks(language, page("how_to/schedule.md"))


@pytest.mark.long
@pytest.mark.parametrize("command", NIGHTLY, ids=["shell", "python"])
def test_a_night(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the ids to the report, and all is equal."""
    monkeypatch.setenv("PATH", path_with_scripts())
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    code, said = run_line(command.replace("sandbox", "sandbox --customers 20", 1), tmp_path)
    assert code == 0, said
    assert len(list(tmp_path.glob("report-*.html"))) == 1


@pytest.mark.long
def test_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ready when the sandbox answers, streams a customer's points, and ends with its sandbox."""
    pytest.importorskip("uvicorn")
    monkeypatch.setenv("PATH", path_with_scripts())
    command = [*SERVICE.replace("sandbox", "sandbox --customers 5", 1).split(), "--port", "8757"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ) as process:
        try:
            assert _read("http://127.0.0.1:8757/ready")
            rows = _read(f"http://127.0.0.1:8757/customers/600000001/points?{QUERY}").splitlines()
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert len(rows) > 1


def _read(url: str) -> bytes:
    end = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
                return bytes(answer.read())
        except OSError as error:  # it does not listen yet, or is not ready
            if time.monotonic() > end or getattr(error, "code", 503) != 503:
                raise
            time.sleep(0.1)
