"""The pairs of `docs/how_to/migrate.md`: what is written by hand and what replaces it come to the same."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from support.pages import blocks, file_name, page, process
from support.paths import ROOT

from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

FILES = {file_name(block): block for block in blocks("python", page("how_to/migrate.md"))}


def ran(name: str, folder: Path) -> str:
    (folder / name).write_text(FILES[name])
    return process(sys.executable, name, cwd=folder, warn=True).stdout.strip().splitlines()[-1]


def test_the_loop_and_ours(cluster: Sandbox, tmp_path: Path) -> None:
    """The sum of a hand-written loop, of which the sandbox meets no fault, is ours."""
    mine = ran("after_aiohttp.py", tmp_path)
    assert ran("before_aiohttp.py", tmp_path) == mine
    assert float(mine) > 0
    assert cluster.requests > 0


@pytest.mark.long
@pytest.mark.skipif(find_spec("openapi_python_client") is None, reason="openapi-python-client is not installed")
@pytest.mark.usefixtures("cluster")
def test_the_generated_client_and_ours(tmp_path: Path) -> None:
    """The client is generated from the description that the benchmarks have."""
    (tmp_path / "generator.yaml").write_text("post_hooks: []\n")
    generate = "from openapi_python_client.cli import app; app()"
    options = ["--config", "generator.yaml", "--meta", "none", "--output-path", "generated_capillary"]
    description = str(ROOT / "benchmarks" / "openapi.yaml")
    process(sys.executable, "-c", generate, "generate", "--path", description, *options, cwd=tmp_path, warn=True)
    assert ran("before_generated.py", tmp_path) == ran("after_aiohttp.py", tmp_path)


@pytest.mark.long
@pytest.mark.skipif(find_spec("dlt") is None, reason="dlt is not installed")
@pytest.mark.usefixtures("cluster")
def test_dlt_and_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows in the files of both."""
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    rows = ran("after_dlt.py", tmp_path)
    assert ran("before_dlt.py", tmp_path) == rows
    assert int(rows) > 0
