"""The total of a list as an answer states it: beside the rows, in an object of paging, or in a header.

Invariant: a total is only compared, never relied on; one that is no whole number is ignored. Pure functions, called by
`classify.py` and the endpoints.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["total_in", "total_of"]

# Without case, underscores and hyphens: `total`, `totalCount`, `total_elements`.
_TOTALS = frozenset({"total", *(f"total{one}" for one in ("count", "elements", "items", "records", "results", "rows"))})
_HOLDERS = frozenset({"meta", "metadata", "page", "pagedetails", "pageinfo", "pagination", "paging"})
_HEADERS = ("X-Total-Count", "X-Total", "Total-Count")
_DEEPEST = 2
_LONGEST = 18


def total_of(envelope: Mapping[str, Any], depth: int = _DEEPEST) -> int | None:
    """The rows of the whole list, as an envelope says; None where it does not."""
    for name, value in envelope.items():
        if _plain(name) in _TOTALS and (number := _whole(value)) is not None:
            return number
    if not depth:
        return None
    holders = [value for name, value in envelope.items() if _plain(name) in _HOLDERS]
    totals = (total_of(cast("dict[str, Any]", one), depth - 1) for one in holders if isinstance(one, dict))
    return next((total for total in totals if total is not None), None)


def total_in(headers: Mapping[str, str]) -> int | None:
    """The rows of the whole list, as a header says; None where none does."""
    for name in _HEADERS:
        if name in headers and (number := _whole(headers[name])) is not None:
            return number
    return None


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _whole(value: Any) -> int | None:
    """A whole number, as text and as an integral decimal too; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    text = str(value).strip().removesuffix(".0") if not isinstance(value, int) or value < 10**_LONGEST else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST else None
