"""Docstring examples: each one of the package is run as a doctest, `await` at its top included."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import re
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from typing import TYPE_CHECKING, Any

import pytest
from support.paths import ROOT

import capillary_async
from capillary_async import sandbox

if TYPE_CHECKING:
    from types import ModuleType

PROMPT = re.compile(r"^\s*>>> ", re.MULTILINE)
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): len(PROMPT.findall(text))
    for path in sorted((ROOT / "capillary_async").rglob("*.py"))
    if PROMPT.search(text := path.read_text())
}


def public_names() -> dict[str, Any]:
    """What a reader of `help()` has imported: every name of the package and of the sandbox."""
    return {name: getattr(module, name) for module in (capillary_async, sandbox) for name in module.__all__}


class Finder(doctest.DocTestFinder):
    """Takes a class or function whose statement is in the file, though its `__module__` is the public one."""

    def _from_module(self, module: ModuleType, object: Any) -> bool:  # noqa: A002 - as in its base
        if inspect.isclass(object):
            return re.search(rf"^class {object.__name__}\b", inspect.getsource(module), re.MULTILINE) is not None
        if inspect.isfunction(object):
            return object.__globals__ is vars(module)
        return bool(super()._from_module(module, object))  # type: ignore[misc]


def examples_of(name: str) -> list[doctest.DocTest]:
    """The examples of a module, those of private classes and functions included."""
    module = importlib.import_module(name)
    found = Finder(exclude_empty=True).find(module, name, extraglobs=public_names())
    return [one for one in found if one.examples]


def run(found: doctest.DocTest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the examples of one docstring, in a loop of their own; gives doctest's report of what differed."""
    with asyncio.Runner() as loop:

        def execute(code: Any, names: dict[str, Any]) -> None:
            # A statement that awaits gives a coroutine.
            given = eval(code, names)  # noqa: S307 - the examples are ours
            if inspect.iscoroutine(given):
                loop.run(given)

        monkeypatch.setattr(doctest, "exec", execute, raising=False)  # doctest's own does not await
        said: list[str] = []
        doctest.DocTestRunner(verbose=False).run(found, compileflags=PyCF_ALLOW_TOP_LEVEL_AWAIT, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("name", SOURCES)
def test_examples_show_what_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `>>>` of the source is in a docstring that `help()` shows, and prints the output below it."""
    found = examples_of(name)
    assert sum(len(one.examples) for one in found) == SOURCES[name]
    assert "".join(run(one, monkeypatch) for one in found) == ""


def test_examples_are_found_in_public_and_private_modules() -> None:
    assert {
        "capillary_async.auth",
        "capillary_async._config",
        "capillary_async.sandbox._faults.faults",
    } <= SOURCES.keys()
    assert sum(SOURCES.values()) > 25


@pytest.mark.parametrize(
    ("example", "due"),
    [
        (">>> 1 + 1\n3", "Expected:\n    3\nGot:\n    2"),
        (">>> import asyncio\n>>> await asyncio.sleep(0, 'came')\n'went'", "Got:\n    'came'"),
        (">>> async with Sandbox() as sandbox:\n...     assert not sandbox.url", "AssertionError"),
        (">>> Throttle(retry_after=1)", "Expected nothing"),
    ],
    ids=["value", "await", "async with", "repr without output"],
)
def test_an_untrue_example_is_seen(example: str, due: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctest.DocTestParser().get_doctest(example, public_names(), "example", None, 0)
    assert due in run(found, monkeypatch)
