"""Names and values for a person: the nearest name to a wrong one, and texts with what is invisible made visible.

Invariant: nothing is replaced by what is near; it is only shown. Used wherever a column, table or sheet is named, and
for differences.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["near", "near_file", "shown_names", "visible"]

_MOST = 400  # characters of a list of names
_CLOSE = 0.6


def near(wanted: str, names: Iterable[str]) -> str:
    """`. Did you mean 'award_id'?`, to follow a message about a name that is not there; empty if none is near."""
    folded: dict[str, str] = {}
    for each in names:
        folded.setdefault(_folded(each), each)
    found = difflib.get_close_matches(_folded(wanted), folded, 1, _CLOSE)
    return f". Did you mean {folded[found[0]]!r}?" if found else ""


def near_file(path: str) -> str:
    """As `near`, for a file that is not there, among those in its folder."""
    with contextlib.suppress(OSError, ValueError):
        folder, name = os.path.split(path)
        return near(name, os.listdir(folder or "."))  # noqa: PTH208 - any text
    return ""


def shown_names(names: Iterable[str]) -> str:
    """The names in a line; those with outer blanks or invisible characters as Python writes them."""
    text = ", ".join(each if each.isprintable() and each == each.strip() else repr(each) for each in names)
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


def visible(text: str) -> str:
    """The text with a sign for each blank and an escape for each invisible character."""
    return "".join("\u2420" if each == " " else each if each.isprintable() else repr(each)[1:-1] for each in text)


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold() or name
