"""Each Python block of the README and of the pages runs against the sandbox, as it is."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
from typing import TYPE_CHECKING

import pytest
from support.pages import PAGES, blocks, file_name, page, params, process, replaced

from capillary_async import AsyncSession
from capillary_async.sandbox import Sandbox, ServerFailure

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType

BLOCKS = params("python")
SCRIPTS = [block for block in BLOCKS if file_name(block.values[0]) is None]
# Blocks that are saved under a name, and run by a test that names it.
FILES = {name for block in BLOCKS if (name := file_name(block.values[0]))}
NAMED = {
    "app.py": "test_blocks.py",
    "conftest.py": "test_blocks.py",
    "test_report.py": "test_blocks.py",
    "test_with_aioresponses.py": "test_blocks.py",
    "test_first.py": "test_blocks.py",
    "nightly.py": "test_night.py",
    **dict.fromkeys(("before_aiohttp.py", "after_aiohttp.py", "before_generated.py"), "test_migration.py"),
    **dict.fromkeys(("spark_batch.py", "spark_table.py", "spark_stream.py"), "test_spark.py"),
    **dict.fromkeys(("before_dlt.py", "after_dlt.py"), "test_migration.py"),
}
# Blocks that send nothing.
SILENT = {"session = AsyncSession.from_env(ssl_context=context)", "limits = Limits(rate=Rate(200, per=1, shared="}


def files(text: str) -> dict[str, str]:
    """The named blocks of a page."""
    return {name: block for block in blocks("python", text) if (name := file_name(block))}


def test_every_block_is_run_by_one_of_the_tests() -> None:
    """Nothing is left out in silence: a script, or one of the files that have a test."""
    assert len(SCRIPTS) >= 20
    assert set(NAMED) == FILES
    assert sum(text.count("```python") for text in PAGES.values()) == len(BLOCKS)


@pytest.mark.parametrize("block", SCRIPTS)
def test_script(block: str, cluster: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole script runs as a process; one with `await` at its top runs as a notebook would."""
    source = replaced(block, cluster)
    try:
        compile(source, "page.md", "exec")
    except SyntaxError:
        code = compile(source, "page.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        asyncio.run(_as_in_a_notebook(code))
        out = capsys.readouterr().out
    else:
        (tmp_path / "script.py").write_text(source)
        ended = process(sys.executable, "script.py", cwd=tmp_path)
        assert ended.stderr == ""
        out = ended.stdout
    assert out.strip()
    assert "failed" not in out
    assert cluster.requests > 0 or any(each in block for each in SILENT)
    assert {exchange.status for exchange in cluster.journal} <= {200, 400}


async def _as_in_a_notebook(code: CodeType) -> None:
    # A code object with `await` at its top gives a coroutine.
    given = eval(code, {"__name__": "__main__"})  # noqa: S307 - the pages are ours
    assert inspect.isawaitable(given)
    await given


def test_errors_block_says_what_each_customer_is(cluster: Sandbox, tmp_path: Path) -> None:
    """The known, the merged and the unknown customer of the block are what it takes them for."""
    (block,) = [block for block in blocks("python", page("reference/errors.md")) if "does not exist" in block]
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

    (block,) = blocks("python", page("how_to/resume.md"))
    code = compile(replaced(block, cluster), "resume.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
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

    (tmp_path / "app.py").write_text(files(page("how_to/web_service.md"))["app.py"])
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
    given = {**files(page("how_to/test_your_code.md")), **files(page("tutorial/first_hour.md"))}
    for name, block in given.items():
        (tmp_path / name).write_text(block)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    ended = process(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "4 passed" in ended.stdout
