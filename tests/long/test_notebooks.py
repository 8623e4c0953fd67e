"""The notebooks of the documentation: each runs against the sandbox without an error, and is stored without outputs."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
CUSTOMERS = ["many_customers", "one_customer", "reconciliation"]
pytestmark = pytest.mark.long


def test_they_are_all_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == CUSTOMERS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=CUSTOMERS)
def test_it_is_stored_without_outputs(path: Path) -> None:
    """And each cell of code has a line before it that says what it does."""
    cells = json.loads(path.read_text())["cells"]
    for before, cell in pairwise(cells):
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            assert before["cell_type"] == "markdown"


def executed(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run it in a kernel whose warnings are errors; all its outputs as text."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)
    monkeypatch.delenv("PYTHONASYNCIODEBUG", raising=False)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    return "\n".join(json.dumps(output) for cell in notebook.cells for output in cell.get("outputs", ()))


EXPECTED = {
    "one_customer": [r"<strong>AsyncSession</strong>", r"Decimal\('\d+\.\d+'\)", "records", "CustomerNotFoundError"],
    "many_customers": [r"200/200", "image/png", r"shape: \(\d+, 3\)"],
    "reconciliation": [r"<strong>ExportResult</strong>", "<strong>VerifyResult", "DIFFERENT: 2 of", r"shape: \(2, "],
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=CUSTOMERS)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first to its last cell, with the results that its text promises and nothing on stderr but a bar."""
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    shown = executed(notebook, tmp_path, monkeypatch)
    assert [expected for expected in EXPECTED[path.stem] if not re.search(expected, shown)] == []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.get("name") != "stderr" or re.fullmatch(r"\s*|.*/200 .*", output["text"], re.DOTALL), output


def test_bars_are_shown_in_the_cell_that_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a blocking session, whose thread an earlier cell began."""
    cells = [
        "from capillary_async import blocking; from capillary_async.sandbox import Sandbox",
        "box = Sandbox(customers=9, whales=0).__enter__(); session = blocking.Session(box.url, auth=box.auth)",
        "session.loyalty_events.list(box.customer_ids[0]).first()",
        "fan = session.loyalty_events.list_many(box.customer_ids).options(progress=True)",
        "print(len(list(fan)))",
        "session.close(); box.__exit__(None, None, None)",
    ]
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    executed(notebook, tmp_path, monkeypatch)
    assert [" 9/9 " in json.dumps(cell["outputs"]) for cell in notebook.cells] == [False] * 4 + [True, False]
