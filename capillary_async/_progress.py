"""Progress bars of pagers and fan-outs, drawn by tqdm: what `options(progress=True)` shows.

Invariant: tqdm is loaded only when a bar is asked for, and a bar is drawn only in a terminal or a notebook. Called by
`Pager`, `FanOut` and their iterators.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any, cast

from capillary_async._validation import flag

__all__ = ["Bar", "asked_bar"]


def _bar_class() -> Any:
    """The class of tqdm's bars for the place where the code runs.

    Raises:
        ModuleNotFoundError: tqdm is not installed; the message names the pip command.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a notebook without ipywidgets, where the bar is text
            kind: Any = importlib.import_module("tqdm.auto").tqdm
    except ModuleNotFoundError as error:
        text = 'progress=True needs the extra notebook (tqdm is missing): pip install "capillary-async[notebook]"'
        raise ModuleNotFoundError(text, name=error.name) from error
    return type("tqdm", (kind,), {"monitor_interval": 0})  # no thread beside the bar


def asked_bar(progress: object) -> bool | None:
    """The option `progress`, checked; a missing tqdm raises at once."""
    if progress is not None and flag("progress", progress):
        _bar_class()
    return cast("bool | None", progress)


class Bar:
    """The bar of one reading.

    Args:
        name: What is read.
        unit: What is counted.
        total: How many there are; None where that is unknown.
    """

    def __init__(self, name: str, unit: str, total: int | None = None) -> None:
        self._options: dict[str, Any] = {"desc": name, "unit": f" {unit}", "total": total}
        self._bar: Any = None
        self._failed = 0

    def show(self) -> None:
        """Draw it, once the reading begins."""
        if self._bar is None:
            # None: not drawn where stderr is no terminal. A notebook's stderr is none, and shows the bar all the same.
            disable = False if _in_notebook() else None
            self._bar = _bar_class()(**self._options, disable=disable)

    def add(self, count: int, failed: int = 0) -> None:
        """Count what was read; what failed is shown beside it."""
        if failed:
            self._failed += failed
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """Draw it a last time. Closing twice is fine."""
        if self._bar is not None:
            self._bar.close()


def _in_notebook() -> bool:
    """Whether the code runs in a kernel of Jupyter."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
