"""Each command line of the README and the pages runs against the sandbox."""

from __future__ import annotations

import json
import re
import sysconfig
from typing import TYPE_CHECKING

import pytest
from support.pages import BASH, PAGES, blocks, process

from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "\n".join(PAGES.values())


def commands() -> list[str]:
    """The lines that call the command in the blocks for a shell, and those in the text that end by themselves."""
    lines = [line for block in blocks("sh", TEXT) for line in block.splitlines() if "python3 -m venv" not in line]
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
