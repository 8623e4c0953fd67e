"""The import direction, read from the sources, in nine rows: a row imports only rows above it in this list."""

from __future__ import annotations

import ast
import functools
import re
from typing import TYPE_CHECKING

from support.paths import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Lowest first. A list is of small files, in the order in which they may import each other; a set is of packages that
# do not. The name of a package means all its modules, which may import each other; "" is the package's own `__init__`.
ROWS: list[list[str] | set[str]] = [
    [
        "_lazy",
        "_loops",
        "_priority",
        "_repr",
        "_html",
        "_version",
        "_interrupt",
        "errors",
        "_files",
        "_pydantic",
        "auth",
    ],
    ["telemetry", "models", "_validation", "_redis_address", "_progress", "_config", "tables"],
    {"_codec", "_paging"},
    {"_fanout", "_transport"},
    {"endpoints"},
    {"_session"},
    {""},
    {"blocking", "jobs", "sandbox"},
    {"spark"},
    {"cli"},
]
RANK = {
    name: (row, place if isinstance(names, list) else 0)
    for row, names in enumerate(ROWS)
    for place, name in enumerate(names)
}
AIOHTTP = {f"_transport.{name}" for name in ("aiohttp_errors", "pools", "wire")}


def unit_of(module: str) -> str:
    """The entry of ROWS that a dotted name below the package belongs to: "" for the package and its public names."""
    return next((name for name in RANK if module == name or module.startswith(f"{name}.")), "")


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


def dotted(path: Path) -> str:
    """A file's name below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


def source_of(file: str) -> str:
    """The text of a file, by its name below the package, without its class statements."""
    path = PACKAGE / file.replace(".", "/")
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    return re.sub(r"^class .*$", "", text, flags=re.MULTILINE)


@functools.cache
def imports() -> dict[str, list[tuple[str, int]]]:
    """Of every file of the package, by its name below the package."""
    return {dotted(path): imports_of(path) for path in sorted(PACKAGE.rglob("*.py"))}


def ours() -> Iterator[tuple[str, str, int]]:
    """Each import of ours: the file, what it imports below the package, and the line."""
    for file, found in imports().items():
        for name, line in found:
            if name.split(".")[0] == "capillary_async":
                yield file, name.removeprefix("capillary_async").removeprefix("."), line


def test_every_module_has_its_row() -> None:
    """Each file belongs to a row."""
    assert len(imports()) > 100
    assert [file for file in imports() if file and not unit_of(file)] == []


def test_imports_point_downwards() -> None:
    """A lower row never imports a higher one, and packages of one row do not import each other."""
    wrong = []
    for file, name, line in ours():
        unit, other = unit_of(file), unit_of(name)
        if other != unit and RANK[other] >= RANK[unit]:
            wrong.append(f"{file}:{line} imports {name}, which is in no lower row")
    assert wrong == []


def test_aiohttp_stays_in_wire_and_sandbox() -> None:
    """One package adapts aiohttp; the sandbox is a server of its own."""
    users = {file for file, found in imports().items() for name, _ in found if name.split(".")[0] == "aiohttp"}
    assert [file for file in users if file not in AIOHTTP and not file.startswith("sandbox")] == []


def test_decode_errors_are_built_in_one_file() -> None:
    """The SDK's own, so that they have one wording; the jobs, which use the public names only, build theirs."""
    makers = {file for file in imports() if re.search(r"\b(?:DecodeError|ResponseTooLargeError)\(\S", source_of(file))}
    assert {file for file in makers if not file.startswith("jobs.")} == {"_codec.faults"}


def test_jobs_stand_on_the_public_face() -> None:
    """They import what users may import: nothing of ours that begins with an underscore, but for their own files.

    And but for what knows nothing of the SDK: files and texts that the command line shares, checks, columns, names.
    """
    leaves = ("jobs.", "_files.", "_lazy.", "_repr.", "_html.", "_validation.", "tables.")
    wrong = []
    for file, name, line in ours():
        private = any(part.startswith("_") for part in name.split(".")) and name != "__version__"
        if file.split(".")[0] == "jobs" and private and not name.startswith(leaves):
            wrong.append(f"{file}:{line} imports {name}")
    assert wrong == []


def test_the_heads_of_files_name_files_that_exist() -> None:
    """Each file that a head names is in its own room, in its package, or below the top; so a move renames them."""
    stale: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        head = ast.get_docstring(ast.parse(path.read_text())) or ""
        package = PACKAGE / path.relative_to(PACKAGE).parts[0]
        folders = (path.parent, package, PACKAGE, PACKAGE / "_transport")
        named = re.findall(r"`([\w/]+\.py)`", head)
        stale += [f"{path}: {name}" for name in named if not any((folder / name).exists() for folder in folders)]
    assert stale == []


def test_the_path_of_one_call_names_files_that_exist() -> None:
    """In the docstring of the package, in the order in which the call passes them."""
    steps = (ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text())) or "").splitlines()
    named = re.findall(r"`([\w/]+\.py)`", "\n".join(steps))
    assert len(named) > 10
    assert [name for name in named if not [*PACKAGE.glob(name), *PACKAGE.glob(f"_transport/{name}")]] == []
    chain = next(line for line in steps if "→" in line)
    handlers = re.findall(r"`(\w+)`", chain.partition("middlewares")[2])
    assert [name for name in handlers if not (PACKAGE / "_transport" / f"{name}.py").exists()] == []
