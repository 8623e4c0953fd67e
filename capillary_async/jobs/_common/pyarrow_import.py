"""pyarrow, which the extra `jobs` brings; the one place that imports it.

Invariant: without the extra, one clear sentence says what to install. It has no types of its own, so that it is `Any`
here. Used by all of `jobs` that touches Parquet.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["pa", "pc", "pq"]

try:
    pa: Any = importlib.import_module("pyarrow")
    pc: Any = importlib.import_module("pyarrow.compute")
    pq: Any = importlib.import_module("pyarrow.parquet")
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'jobs need the jobs extra ({error.name} is missing): pip install "capillary-async[jobs]"', name=error.name
    ) from error
