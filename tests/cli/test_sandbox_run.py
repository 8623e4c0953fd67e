"""`sandbox -- COMMAND`: one command with a sandbox for its cluster, and the end of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.processes import processes_of

from capillary_async.cli import main

if TYPE_CHECKING:
    from pathlib import Path

SANDBOX = [sys.executable, "-m", "capillary_async.cli", "sandbox", "--customers", "3"]


def test_the_command_has_the_sandbox_and_its_code_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever cluster the environment names; the installed commands are found; stdout is the command's alone."""
    monkeypatch.setenv("CAPILLARY_CLIENT_KEY", "mine")
    monkeypatch.setenv("PATH", os.defpath)
    line = "capillary-async events 600000001 --quiet | head -n 1; env | grep -c ^CAPILLARY_; wc -l < ids.csv; exit 5"
    command = [*SANDBOX, "--books", "books.csv", "--", "sh", "-c", line]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 5, ended.stderr
    first, variables, ids = ended.stdout.splitlines()
    assert '"customer_id":600000001' in first
    assert (variables, ids) == ("3", "4")
    assert ended.stderr == ""


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--customers", "2", "--", "no-such-command"]) == 1
    assert "no-such-command cannot be started: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both(number: signal.Signals, tmp_path: Path) -> None:
    mark = f"SANDBOX_RUN={tmp_path}"
    started = tmp_path / "started"
    command = [*SANDBOX, "--", "sh", "-c", f"touch {started}; exec sleep 60"]
    environment = {**os.environ, "SANDBOX_RUN": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, said  # what the command ended with
    assert processes_of(mark) == []
