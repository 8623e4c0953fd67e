"""What a column of the books must be to be compared with a column of the export.

Invariant: nothing is coerced in silence. A typed source must have a fitting type; a source of text is read strictly,
cell by cell. Used by every reader of books.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from capillary_async._files import near, shown_names
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Kind", "Pair", "Wanted", "fit", "has_nanoseconds", "kind_of", "names_of", "pick"]

Kind = Literal["amount", "integer", "text", "time", "boolean", "nested", "float", "other"]

_TZ_NS = ("TIMESTAMPTZ_NS", "TIMESTAMP_NS WITH TIME ZONE")
_INTEGERS = {
    "UHUGEINT",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
}
_OTHERS: Mapping[str, Kind] = {
    "VARCHAR": "text",
    "BOOLEAN": "boolean",
    "TIMESTAMP WITH TIME ZONE": "time",
    "FLOAT": "float",
    "DOUBLE": "float",
    "JSON": "nested",
}
_NEEDS: Mapping[str, str] = {
    "amount": "a DECIMAL or an integer type",
    "integer": "an integer type",
    "text": "text (VARCHAR)",
    "time": "a time with its zone (TIMESTAMP WITH TIME ZONE)",
    "boolean": "BOOLEAN",
    "nested": "the same nested type, as another export has it",
}
_CASTS: Mapping[str, str] = {
    "amount": "DECIMAL(18,3)",
    "integer": "BIGINT",
    "text": "VARCHAR",
    "time": "TIMESTAMP WITH TIME ZONE",
    "boolean": "BOOLEAN",
}
_WHY: Mapping[tuple[str, str], str] = {
    ("amount", "float"): ": a float cannot hold 0.1, so its amounts are rounded already",
    ("amount", "text"): ": a text can be anything",
}


def kind_of(sql_type: str) -> Kind:
    """What kind of column DuckDB's type is."""
    if sql_type in _INTEGERS:
        return "integer"
    if sql_type.startswith("DECIMAL"):
        return "integer" if sql_type.endswith(",0)") else "amount"
    if sql_type in _TZ_NS:
        return "time"
    if sql_type.startswith(("STRUCT", "MAP", "LIST")) or sql_type.endswith("]"):
        return "nested"
    return _OTHERS.get(sql_type, "other")


def has_nanoseconds(sql_type: str) -> bool:
    """Whether it is DuckDB's type of times with a zone and nanoseconds."""
    return sql_type in _TZ_NS


@frozen
class Pair:
    """A column of the export and that of the books which says the same."""

    ours: str
    theirs: str


@frozen
class Wanted:
    """A pair, with what is needed to compare it.

    Attributes:
        slot: The column's name while it is compared: `k0`, `k1`, ... are the key, `f0`, ... the fields.
        ours: The column of the export.
        theirs: The column of the books.
        kind: What kind of column the export has there.
    """

    slot: str
    ours: str
    theirs: str
    kind: Kind

    @property
    def is_key(self) -> bool:
        """Whether it is part of the key."""
        return self.slot.startswith("k")


def pick(names: Iterable[str], columns: Sequence[str], label: str) -> None:
    """See that the books have the columns.

    Raises:
        JobError: One is missing or is there twice.
    """
    for each in names:
        if each not in columns:
            raise JobError(
                f"{label}: there is no column {each!r}. It has: {shown_names(columns)}{near(each, columns)}",
                path=label,
            )
        if columns.count(each) > 1:
            raise JobError(f"{label}: two columns are named {each!r}; rename one", path=label)


def names_of(wanted: Iterable[Wanted], where: Iterable[tuple[str, str]]) -> list[str]:
    """The columns of the books that are read: those that are compared, and those that say which rows count."""
    return list(dict.fromkeys((*(each.theirs for each in wanted), *(column for column, _ in where))))


def fit(wanted: Wanted, kind: Kind, type_name: str, label: str, example: str = "") -> None:
    """See that a typed column of the books fits that of the export.

    Args:
        wanted: The pair.
        kind: What kind the books have.
        type_name: How the books call the type.
        label: The books.
        example: A value of it and its row.

    Raises:
        JobError: It does not.
    """
    if kind == wanted.kind or (wanted.kind == "amount" and kind == "integer"):
        return
    cast = _CASTS.get(wanted.kind)
    why = _WHY.get((wanted.kind, kind), "")
    if wanted.kind == "time" and type_name.upper().startswith(("TIMESTAMP", "DATE")):
        why = ": a time without its zone may be any of 24"
    advice = f". Cast it where the books are made: CAST({wanted.theirs} AS {cast})" if cast else ""
    raise JobError(
        f"{label}: column {wanted.theirs!r} is {type_name}{example}, and {wanted.ours} needs "
        f"{_NEEDS.get(wanted.kind, 'another type')}{why}{advice}",
        path=label,
    )
