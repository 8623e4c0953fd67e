"""`Record`: the base of all records, with their repr, their plain values and their JSON.

Invariant: output is exact: quantities and times as they are, or as text with the digits that came; derived values are
in it. Base of the classes of this package; the command line writes its rows through `row_of`.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Literal, cast, get_type_hints

from attrs import fields

from capillary_async._repr import record_repr

__all__ = ["LeanRecord", "Record", "columns_of", "is_snake_case", "row_of"]


class Record:
    """A record of the API.

    Its repr is at most 500 characters long; where it would be longer, fields that are None are left out.

    Attributes:
        WIRE_CASE: How the API writes the names of the members: `camel` (`eventLogId`), or `snake`, as the fields.
    """

    __slots__ = ()

    WIRE_CASE: ClassVar[Literal["camel", "snake"]] = "camel"
    _derived: ClassVar[tuple[str, ...]] = ()
    _lean: ClassVar[bool] = False

    __repr__ = record_repr

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values by the names of its fields, with its derived values.

        `Decimal` and aware `datetime` objects stay as they are, enumerations become their values, records within become
        dicts, and tuples become lists. A derived time outside the years 1 to 9999 is None.
        """
        names = [one.name for one in fields(cast("Any", type(self)))]
        values = {name: _plain(getattr(self, name)) for name in names}
        values.update((name, _plain(_derived(self, name))) for name in self._derived)
        return values

    def to_json(self) -> bytes:
        """Return the record as one JSON object in UTF-8, as the command line writes it.

        Amounts are text, times ISO 8601, and derived values are included. Records of the ledger are mostly empty: their
        members that are None or empty are left out, and so are their derived values.
        """
        import msgspec  # noqa: PLC0415 - loaded with the first answer anyway, and not with the names of errors

        row = row_of(self)
        return msgspec.json.encode(_without_none(row) if self._lean else row)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """For pydantic and FastAPI: amounts leave as text, exactly, and derived values with them."""
        from capillary_async._pydantic import record_schema  # noqa: PLC0415 - loaded only when pydantic asks

        return record_schema(cls, {} if cls._lean else _hints_of(cls), row_of, handler)


class LeanRecord(Record):
    """A record of the ledger, in JSON without its empty members."""

    __slots__ = ()

    _lean: ClassVar[bool] = True


def is_snake_case(kind: Any) -> bool:
    """Whether `kind` is a model that sets `WIRE_CASE` to `snake`; a user's subclass of one does not set it."""
    return isinstance(kind, type) and vars(kind).get("WIRE_CASE") == "snake"


def columns_of(model: type[Record]) -> tuple[str, ...]:
    """The names in a row of this model, in order."""
    derived = () if model._lean else model._derived  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
    return (*(one.name for one in fields(cast("Any", model))), *derived)


def row_of(record: Record) -> dict[str, Any]:
    """The record as JSON values: quantities as text with the digits that came, times as ISO 8601."""
    import msgspec  # noqa: PLC0415 - see `to_json`

    names = columns_of(type(record))
    plain = msgspec.to_builtins(record)
    if record._lean:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        members = _lean(plain)
        return {name: members.get(name) for name in names}
    return {name: plain[name] if name in plain else msgspec.to_builtins(_derived(record, name)) for name in names}


def _hints_of(model: type[Record]) -> dict[str, Any]:
    """The type hint of each derived value."""
    return {name: get_type_hints(getattr(model, name).fget)["return"] for name in model._derived}  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module


def _derived(record: Any, name: str) -> Any:
    try:
        return getattr(record, name)
    except OverflowError:  # a time beyond the year 9999: its milliseconds are in their own column
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in cast("list[Any]", value)]
    return value


def _lean(value: Any) -> Any:
    """The value without its empty members."""
    if isinstance(value, dict):
        members = {str(name): _lean(member) for name, member in cast("Mapping[Any, Any]", value).items()}
        return {name: member for name, member in members.items() if member not in (None, {}, [])}
    if isinstance(value, list | tuple):
        return [_lean(member) for member in cast("list[Any]", value)]
    return value


def _without_none(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
