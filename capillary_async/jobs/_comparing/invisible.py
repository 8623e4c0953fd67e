"""Differences that cannot be seen: texts that differ in blanks or invisible characters alone.

Invariant: they stay differences; what is shown of them has signs for what is invisible, and the file of differences has
the values as they are. Used by `_comparing/compare.py` and `_comparing/sides.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from capillary_async._files import visible
from capillary_async.jobs._comparing.comparison import CHANGED, MISSING_IN_BOOKS, MISSING_IN_CAPILLARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capillary_async.jobs._books.columns import Wanted
    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._comparing.comparison import Difference

__all__ = ["invisible_differences", "made_visible"]


def made_visible(difference: Difference) -> Difference:
    """The difference as it is shown: with signs where blanks or invisible characters matter."""
    ours, theirs = difference.capillary, difference.books
    if ours is not None and theirs is not None and _squeezed(ours) == _squeezed(theirs):
        return evolve(
            difference, capillary=visible(ours), books=visible(theirs), key=tuple(map(_shown, difference.key))
        )
    return evolve(
        difference,
        capillary=None if ours is None else _shown(ours),
        books=None if theirs is None else _shown(theirs),
        key=tuple(map(_shown, difference.key)),
    )


def _squeezed(text: str) -> str:
    return "".join(each for each in text if each.isprintable() and not each.isspace())


def _shown(text: str) -> str:
    """A text as it is, unless a page would not show it so: HTML runs blanks in a row together."""
    return text if text.isprintable() and text == " ".join(text.split()) else visible(text)


def invisible_differences(engine: Engine, wanted: Sequence[Wanted]) -> Iterator[str]:
    """A warning for each column whose differences cannot be seen."""
    for each in wanted:
        if each.kind == "text" and not each.is_key:
            ours, theirs = f"c_{each.slot}", f"b_{each.slot}"
            query = (
                f"SELECT count(*), min({ours}), arg_min({theirs}, {ours}) FROM found WHERE class = '{CHANGED}' "
                f"AND d_{each.slot} AND {_squeezing(ours)} = {_squeezing(theirs)}"
            )
            yield from _warned(engine, query, f"{each.ours} of changed records")
    keys = [each for each in wanted if each.is_key]
    texts = [each.slot for each in keys if each.kind == "text"]
    if texts:
        same = " AND ".join(
            f"{_squeezing(f'o.{each.slot}')} = {_squeezing(f't.{each.slot}')}"
            if each.slot in texts
            else f"o.{each.slot} = t.{each.slot}"
            for each in keys
        )
        shown = f"min(o.{texts[0]}), arg_min(t.{texts[0]}, o.{texts[0]})"
        query = (
            f"SELECT count(*), {shown} FROM found o JOIN found t ON {same} "
            f"WHERE o.class = '{MISSING_IN_BOOKS}' AND t.class = '{MISSING_IN_CAPILLARY}'"
        )
        yield from _warned(engine, query, "keys of missing records")


def _squeezing(slot: str) -> str:
    return f"regexp_replace({slot}, '[\\s\\p{{Z}}\\p{{C}}]', '', 'g')"


def _warned(engine: Engine, query: str, what: str) -> Iterator[str]:
    many, ours, theirs = engine.row(query)
    if many:
        yield (
            f"{many:,} {what} differ in blanks or invisible characters alone, e.g. '{visible(ours)}' in Capillary and "
            f"'{visible(theirs)}' in the books"
        )
