"""The import direction, read from the sources: a lower row never imports a higher one, nor siblings each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.paths import PACKAGE

# Lowest first. The name of a package means all its modules, which may import each other.
ROWS: list[set[str]] = [
    {"_files", "_interrupt", "_lazy", "_loops", "_priority", "_repr", "_version"},
    {"_config", "auth", "errors", "models"},
    {"_codec", "_paging", "_underway"},
    {"_transport"},
    {"_fanout", "_validation"},
    {"endpoints"},
    {"_session"},
    {"jobs", "sandbox"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(ROWS) for name in names}
FACE = len(ROWS) - 2.5  # the package's own __init__: above the session, below sandbox and jobs


def unit_of(module: str) -> str | None:
    """The entry of ROWS that a dotted name below the package belongs to; None for the package itself."""
    return next((name for name in RANK if module == name or module.startswith(f"{name}.")), None)


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Every import of a file, those for type checking included, as absolute names."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            found += [(f"{module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def modules() -> list[Path]:
    """All files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """A file's name below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_module_has_its_row(path: Path) -> None:
    """Each file belongs to a row."""
    assert dotted(path) == "" or unit_of(dotted(path)) is not None


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_point_downwards(path: Path) -> None:
    """A lower row never imports a higher one, and siblings do not import each other."""
    unit = unit_of(dotted(path))
    rank = FACE if unit is None else RANK[unit]
    for name, line in imports_of(path):
        if not name.startswith("capillary_async"):
            continue
        other = unit_of(name.removeprefix("capillary_async").removeprefix("."))
        known = FACE if other is None else RANK[other]
        assert other == unit or known < rank, f"{path.name}:{line} imports {name}, which is in no lower row"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_aiohttp_stays_in_wire_and_sandbox(path: Path) -> None:
    """One file adapts aiohttp; the sandbox is a server of its own."""
    if dotted(path) == "_transport.wire" or dotted(path).startswith("sandbox"):
        return
    assert not [line for name, line in imports_of(path) if name.split(".")[0] == "aiohttp"]


@pytest.mark.parametrize("path", [path for path in modules() if dotted(path).startswith("jobs")], ids=dotted)
def test_jobs_stand_on_the_public_face(path: Path) -> None:
    """They import what users may import: nothing of ours that begins with an underscore, but for their own files.

    And but for the lowest row, which knows nothing of the SDK and is shared with the command line.
    """
    ours = [name for name, _ in imports_of(path) if name.startswith("capillary_async")]
    private = [name for name in ours if any(part.startswith("_") for part in name.split(".")[1:])]
    leaves = tuple(f"capillary_async.{name}" for name in ("jobs.", "_files.", "_priority.", "_repr."))
    own = [name for name in private if name.startswith(leaves)]
    assert [name for name in private if name not in own and name != "capillary_async.__version__"] == []
