"""Names of a package that are loaded when they are first asked for (PEP 562).

Invariant: an import costs what is used. The package lists where its names come from; who touches one loads that module,
once, under the import system's own locks. Used by the public face and by `models`; imports nothing of ours.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["lazily"]


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
