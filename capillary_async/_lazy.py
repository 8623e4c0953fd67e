"""The names that users import: loaded when first used (PEP 562), and with the `__module__` they are imported from.

Invariant: an import costs what is used. The package lists where its names come from; the first use of one loads that
module, once, under the import system's own locks. A public class or function names no private file in pickles, reprs
and tracebacks. Used by the `__init__.py` of the public packages; imports nothing of ours.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any, ForwardRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["adopt", "lazily"]


def lazily(package: str, sources: Mapping[str, Iterable[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    Args:
        package: Its `__name__`.
        sources: The modules below it, and the names that it shows of each. Modules without an underscore are shown too.
    """
    modules = {name: f"{package}.{module}" for module, names in sources.items() for name in names}
    shown = {module for module in sources if not any(part.startswith("_") for part in module.split("."))}

    def __getattr__(name: str) -> Any:  # noqa: N807 - becomes the package's own
        if name in modules:
            value: Any = getattr(import_module(modules[name]), name)
            adopt(package, _loaded(modules))
        elif name in shown:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        setattr(sys.modules[package], name, value)  # the next look finds it without coming here
        return value

    def __dir__() -> list[str]:  # noqa: N807 - becomes the package's own
        here = (name for name in vars(sys.modules[package]) if name.startswith("_"))
        return sorted({*here, *modules, *shown})

    return __getattr__, __dir__


def _loaded(modules: Mapping[str, str]) -> list[Any]:
    """The values of the names whose modules are loaded: users get instances of classes that they never named."""
    # `import_module` waits for another thread that is still loading the module.
    return [vars(import_module(module)).get(name) for name, module in modules.items() if module in sys.modules]


def adopt(package: str, values: Iterable[Any]) -> None:
    """Make `package` the `__module__` of its public classes and functions; those of another package stay there.

    `inspect.getsource` finds a class by this name, so it raises `OSError` for a public class; it finds its methods.
    """
    for value in values:
        if isinstance(value, type | FunctionType) and not hasattr(sys.modules.get(value.__module__), "__path__"):
            if isinstance(value, type):
                _keep_hints(value)
                if "__firstlineno__" in vars(value):  # Python 3.13: a line of the private file
                    del value.__firstlineno__  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            value.__module__ = package


def _keep_hints(kind: type) -> None:
    """Have the annotations of a class evaluated among the names of its own file, as before; nothing is loaded."""
    own: dict[str, Any] = vars(kind).get("__annotations__", {})
    kind.__annotations__ = {
        name: ForwardRef(hint, module=kind.__module__, is_class=True) if isinstance(hint, str) else hint
        for name, hint in own.items()
    }
