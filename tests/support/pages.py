"""The README and the pages of `docs`: their blocks, by language, and how they are run against the sandbox.

Invariant: of a block only the host and the credentials are replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest

from support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from capillary_async.sandbox import Sandbox

__all__ = [
    "BASH",
    "PAGES",
    "blocks",
    "file_name",
    "page",
    "params",
    "path_with_scripts",
    "process",
    "replaced",
    "run_line",
]

BASH = shutil.which("bash") or "bash"
# Development pages speak of the sources; the folder of a build has copies.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if not {"_build", "examples"} & set(path.parts)
}
_HOST = '"https://eu.api.capillarytech.com"'
_BASIC = 'BasicAuth("till.id", password="...")'
_OAUTH = 'OAuthClient("key", "secret")'


def page(name: str) -> str:
    """The text of a page, named below `docs`."""
    return PAGES[f"docs/{name}"]


def blocks(language: str, text: str) -> list[str]:
    """The blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def params(language: str) -> list[Any]:
    """The blocks of one language on all pages, each named by its page and line."""
    return [
        pytest.param(match[1], id=f"{name}-line{text[: match.start()].count(chr(10)) + 1}")
        for name, text in PAGES.items()
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def file_name(block: str) -> str | None:
    """The name that a block is to be saved under."""
    named = re.match(r"# (\w+\.(?:py|sh))\n", block)
    return named[1] if named else None


def replaced(block: str, sandbox: Sandbox) -> str:
    """The block with the sandbox's host and credentials."""
    text = block.replace(_HOST, f'"{sandbox.url}"')
    text = text.replace(_BASIC, f'BasicAuth("{sandbox.username}", password="{sandbox.password}")')
    return text.replace(_OAUTH, f'OAuthClient("{sandbox.key}", "{sandbox.secret}")')


def process(*command: str, cwd: Path, warn: bool = False, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command that must end well, warnings being errors unless `warn`."""
    environment = {**os.environ, "TMPDIR": str(cwd)}  # where the demo leaves its files
    environment.pop("PYTHONDEVMODE", None)  # it writes to stderr what asyncio thinks slow
    if not warn:
        environment["PYTHONWARNINGS"] = "error"
    ended = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds, check=False, input=""
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def run_line(line: str, cwd: Path) -> tuple[int, str]:
    """Run a line of a shell: its exit code, and what it printed."""
    ended = subprocess.run(
        [BASH, "-c", line], cwd=cwd, capture_output=True, text=True, timeout=50, check=False, input=""
    )
    return ended.returncode, ended.stdout + ended.stderr


def path_with_scripts() -> str:
    """A `PATH` with the installed commands."""
    return os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
