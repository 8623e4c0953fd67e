"""Floors: each declared range begins with a version, and `.ci/floors` sees an environment that is not at them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from support.paths import ROOT

if TYPE_CHECKING:
    from types import ModuleType

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture
def floors() -> ModuleType:
    """`.ci/floors` as a module."""
    loader = importlib.machinery.SourceFileLoader("ci_floors", str(ROOT / ".ci" / "floors"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_each_range_has_a_floor(extra: str | None, floors: ModuleType) -> None:
    declared = PROJECT["dependencies"] if extra is None else EXTRAS[extra]
    for text in declared:
        requirement = Requirement(text)
        assert requirement.name == floors.PACKAGE or floors.floor(requirement) is not None, text


def versions(floors: ModuleType, **other: str) -> Any:
    """What is installed, in the place of the environment's own: every floor but these."""
    lowest = {each.name: str(floors.floor(each)) for each in floors.direct(EXTRAS)}
    return {**lowest, **{name.replace("_", "-"): number for name, number in other.items()}}.__getitem__


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({}, ""),
        ({"msgspec": "0.22.0"}, "msgspec 0.22.0 is installed, the floor is 0.21\n"),
        ({"rich": "14.3.0", "duckdb": "1.9"}, "duckdb 1.9 is installed, the floor is 2.0\n"),
        ({"adbc_driver_postgresql": "1.8.1"}, "adbc-driver-postgresql 1.8.1 is installed, the floor is 1.8\n"),
    ],
    ids=["all at their floors", "above", "below; 14.3.0 is 14.3", "of an extra of an extra"],
)
def test_what_is_not_at_its_floor_is_named(
    installed: dict[str, str],
    said: str,
    floors: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(floors, "version", versions(floors, **installed))
    assert floors.main(["dev", "speed"]) == bool(said)
    assert capsys.readouterr().out == said


def test_the_core_alone_has_no_extras(floors: ModuleType) -> None:
    names = {each.name for each in floors.direct([])}
    assert names == {Requirement(text).name for text in PROJECT["dependencies"]}
    assert {"pyarrow", "rich", "adbc-driver-postgresql", "pytest"} <= {each.name for each in floors.direct(["dev"])}
