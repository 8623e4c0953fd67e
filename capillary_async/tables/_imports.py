"""pyarrow, polars and pandas, which extras bring.

Invariant: without the extra, one sentence says what to install. They are `Any` here, since pyarrow has no types of its
own. Imported by the modules of `tables` that make columns.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["needed", "pa", "pc"]


def needed(module: str, extra: str) -> Any:
    """The module, imported.

    Raises:
        ModuleNotFoundError: It is not installed; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'this needs the extra {extra} ({error.name} is missing): pip install "capillary-async[{extra}]"',
            name=error.name,
        ) from error


pa: Any = needed("pyarrow", "arrow")
pc: Any = needed("pyarrow.compute", "arrow")
