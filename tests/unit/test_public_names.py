"""The public face: `__all__` is sorted and complete, everything in it is documented, errors have a page."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.util import find_spec

from support.paths import ROOT

import capillary_async
from capillary_async import errors, models

ERRORS = ROOT / "docs" / "reference" / "errors.md"


def _modules() -> list[str]:
    found = [info.name for info in pkgutil.walk_packages(capillary_async.__path__, "capillary_async.")]
    absent = ("capillary_async.spark.",) if find_spec("pyspark") is None else ()  # which a cluster supplies
    return [name for name in found if not name.endswith("__main__") and not name.startswith(absent)]


def test_all_is_true() -> None:
    """Every module's `__all__` is without repeats and names what is there; that it is sorted, ruff sees to."""
    for module in map(importlib.import_module, _modules()):
        names = getattr(module, "__all__", [])
        assert len(names) == len(set(names)), module.__name__
        assert not [public for public in names if not hasattr(module, public)], module.__name__


def test_the_package_face_is_sorted() -> None:
    """The one list that users read."""
    assert sorted(capillary_async.__all__) == capillary_async.__all__


def test_the_package_exports_every_error_and_record() -> None:
    """What a user may catch or be given can be imported from the top."""
    raised = {name for name in errors.__all__ if name != "OriginalError"}
    assert raised <= set(capillary_async.__all__)
    assert {"PointsAllocation", "PointsAwarded", "LoyaltyEvent", "LedgerEvent"} <= set(models.__all__)


def test_the_package_has_no_public_name_beyond_all() -> None:
    """No underscore means that users may import it, so nothing stands there by accident."""
    submodules = {info.name for info in pkgutil.iter_modules(capillary_async.__path__)}
    public = {name for name in {*vars(capillary_async), *dir(capillary_async)} if name[0].isalpha()} - submodules
    assert public == {name for name in capillary_async.__all__ if name[0].isalpha()}


def test_public_names_are_documented() -> None:
    """Every public class has a docstring, and so has each of its public methods."""
    undocumented = []
    for name in set(capillary_async.__all__) - {"__version__"}:
        value = getattr(capillary_async, name)
        members = inspect.getmembers(value, lambda member: inspect.isfunction(member) or isinstance(member, property))
        public = [(name, value), *((f"{name}.{own}", body) for own, body in members if not own.startswith("_"))]
        undocumented += [where for where, body in public if not inspect.getdoc(body)]
    assert undocumented == []


def test_the_readme_names_each_error() -> None:
    """The table of errors is complete."""
    names = [name for name in errors.__all__ if name.endswith("Error") and name != "OriginalError"]
    assert [name for name in names if name not in ERRORS.read_text()] == []
