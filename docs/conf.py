"""Sphinx' configuration: `python -m sphinx -W -n -b html docs docs/_build` writes the site.

Invariant: the same pages are built where no other project's inventory can be fetched; their names are then no links.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from pygments.lexers.shell import BashLexer

from capillary_async import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

sys.argv[0] = "capillary-async"  # where cyclopts finds the name of the program for its usage lines

project = "capillary_async"
author = "the authors of capillary_async"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "cyclopts.ext.sphinx",
]
exclude_patterns = ["_build", "examples", "notebooks"]
nitpicky = True
smartquotes = False  # it makes a dash of the hyphens of an option

html_theme = "furo"
html_title = f"capillary_async {__version__}"
html_static_path: list[str] = []
html_show_copyright = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"  # a name in single backticks, as the docstrings have it
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

_INVENTORIES = {
    "python": "https://docs.python.org/3",
    "aiohttp": "https://docs.aiohttp.org/en/stable",
    "attrs": "https://www.attrs.org/en/stable",
    "pyarrow": "https://arrow.apache.org/docs",
    "pandas": "https://pandas.pydata.org/docs",
    "polars": "https://docs.pola.rs/api/python/stable",
    "pyspark": "https://spark.apache.org/docs/latest/api/python",
}


def _reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/objects.inv", timeout=3) as answer:  # noqa: S310 - https, of the list above
            return bool(answer.status == 200)  # noqa: PLR2004
    except OSError:
        return False


_online = _reachable(_INVENTORIES["python"])
intersphinx_mapping: dict[str, Any] = {name: (url, None) for name, url in _INVENTORIES.items()} if _online else {}
intersphinx_timeout = 10

_OTHERS = "abc|asyncio|collections|datetime|decimal|enum|os|pathlib|ssl|types|typing"
nitpick_ignore = [("py:exc", "UnfitError")]  # of `capillary_async.tables`, named in docstrings of other modules
nitpick_ignore_regex = [
    (r"py:.*", r"capillary_async\.(\w+\.)*_.*"),  # private names that signatures have
    (r"py:.*", r"(\w+\.)*[KTPRS](_co)?"),  # type variables
    (
        r"py:.*",
        r"(aiohttp|msgspec|multidict|opentelemetry|pandas|polars|pyarrow|pyspark)\..*",
    ),  # names by which no inventory knows them
    *([] if _online else [(r"py:.*", rf"({_OTHERS})\..*")]),
]


def _as_sphinx_reads_it(*given: Any) -> None:
    """Write `a, b: text` of arguments and attributes once per name."""
    lines: list[str] = given[-1]
    for number, line in reversed(list(enumerate(lines))):
        found = re.fullmatch(r"( +)((?:\w+, )+\w+): (.*)", line)
        if found:
            lines[number : number + 1] = [f"{found[1]}{name}: {found[3]}" for name in found[2].split(", ")]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_sphinx_reads_it, priority=100)  # before napoleon
    app.add_lexer("crontab", BashLexer)
