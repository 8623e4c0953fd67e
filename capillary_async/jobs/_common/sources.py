"""The four sources of an export: which call they read, what identifies a record, and which columns are quantities.

Invariant: a source is built on the public calls of the session alone; its query is checked before anything is asked,
and is kept as JSON without secrets. Used by the export and by `verify`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import attrs
from attrs import evolve, field, frozen

from capillary_async import (
    Identifier,
    InvalidRequestError,
    LedgerEvent,
    LedgerInclude,
    LoyaltyEvent,
    PointsAllocation,
    PointsAwarded,
)
from capillary_async.endpoints.points_ledger import IDS_A_CALL
from capillary_async.jobs._common.digest import add, added
from capillary_async.jobs._common.ledger import LedgerOutcomes, LedgerQuery
from capillary_async.jobs._common.several import SCOPED, Scope, SeveralOutcomes, is_several, scopes_of, several_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from capillary_async import AsyncSession, FanOut

__all__ = ["SOURCES", "Dataset", "Reading"]

# Ids handed to a call only to have the rest of its arguments checked.
_NONE: tuple[int, ...] = ()
_DEFAULTS = {"not_found": "error"}  # not kept: an export that was begun before there was a choice is the same


@frozen(eq=False)
class Dataset:
    """What can be exported.

    Attributes:
        name: As on the command line.
        model: The class of its records.
        key: The parts that identify a record.
        fan: The call, as `fan(session, keys, query)`.
        pairs: Whether its input is pairs of an identifier and an event id: the ledger.
        paged: Whether each customer's records are a list of pages.
        scoped: Whether it is asked by program and category, of which there may be several.
    """

    name: str
    model: type[Any]
    key: tuple[str, ...]
    fan: Callable[[AsyncSession, Any, Mapping[str, Any]], Any]
    pairs: bool = False
    paged: bool = False
    scoped: bool = False
    _sums: Callable[[Sequence[Any]], dict[str, Decimal]] = field(init=False)
    _sums_of_rows: Callable[[Sequence[Any]], dict[str, Decimal]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_sums", _totals(self.model, attrgetter))
        object.__setattr__(self, "_sums_of_rows", _totals(self.model, _member))

    def identity(self, record: Any) -> Any:
        """What identifies a record among those of its key."""
        return attrgetter(*self.key)(record)

    def keys_of(self, key: Any, items: Iterable[Any]) -> Iterable[tuple[object, ...]]:
        """What the digest of keys is made of: the asked key and the record's own."""
        identity = attrgetter(*self.key)
        if len(self.key) == 1:
            return ((key, identity(record)) for record in items)
        return ((key, *identity(record)) for record in items)

    def totals(self, records: Sequence[Any]) -> dict[str, Decimal]:
        """The exact sum of each quantity, nested ones by their path."""
        return self._sums(records)

    def totals_of_rows(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Decimal]:
        """The same of rows of JSON, whose quantities are text."""
        return self._sums_of_rows(rows)

    def reading(
        self, session: AsyncSession, query: Mapping[str, Any], *, verify: bool | None = None, raw: bool = False
    ) -> Reading:
        """How to read it, checked; see `Reading` for the arguments.

        Raises:
            InvalidRequestError: An argument of the call is missing, unknown or invalid.
        """
        given = {name: several_of(name, value) if name in SCOPED else value for name, value in query.items()}
        asked = _described(given if self.scoped else query)
        reading = Reading(self, session, asked, session.paging.verify if verify is None else verify, raw)
        reading.check()
        return reading


@frozen(eq=False)
class Reading:
    """A source, the session it is read with, and the query.

    Attributes:
        query: The arguments of the call beside the ids, as JSON holds them.
        verify: Whether lists of several pages are read until two readings agree.
        raw: Whether raw rows may take the place of records, for columns.
    """

    source: Dataset
    session: AsyncSession
    query: Mapping[str, Any]
    verify: bool
    raw: bool = False

    @property
    def page_size(self) -> int | None:
        """Records asked for per page; None where there are no pages."""
        return self.session.paging.page_size if self.source.paged else None

    def calls_of(self) -> Callable[[Any], int]:
        """A function that counts the requests for a key at least, in one program and category.

        Of awarded ids it is the one request for all keys of a batch. It raises `InvalidRequestError` where the call
        refuses the key, and sends nothing for it.
        """
        if not self.source.pairs:
            return _one_call
        query = LedgerQuery(**self.query)
        return lambda key: -(-len(query.of(key).event_ids or ()) // IDS_A_CALL)

    def check(self) -> None:
        """Have the call look at its arguments, without ids."""
        try:
            for scope in scopes_of(self.query) if self._several else (None,):
                self.source.fan(self.session, _NONE, self._under(scope))
        except TypeError as error:  # a missing or unknown argument
            text = str(error).partition("() ")[2] or str(error)
            raise InvalidRequestError(f"the query of {self.source.name}: {text}") from None

    def outcomes(
        self,
        keys: Iterable[Any] | AsyncIterable[Any],
        *,
        max_wait: float | None = None,
        throttled_tries: int = 1,
    ) -> Any:
        """One outcome per key, as they finish; keys must be distinct.

        Args:
            keys: The keys to read.
            max_wait: Seconds that a call waits for a service that is down; None for `Timeouts.call`.
            throttled_tries: Maximum retries of a key that gets 429 while others succeed.
        """
        read = partial(self._outcomes, max_wait, throttled_tries)
        if not self._several:
            return read(None, keys)
        return SeveralOutcomes(keys, scopes_of(self.query), read, self.source.identity)

    @property
    def _several(self) -> bool:
        return self.source.scoped and is_several(self.query)

    def _under(self, scope: Scope | None) -> Mapping[str, Any]:
        """The query, of one program and category where there are several."""
        return self.query if scope is None else {**self.query, **scope._asdict()}

    def _outcomes(
        self,
        max_wait: float | None,
        throttled_tries: int,
        scope: Scope | None,
        keys: Iterable[Any] | AsyncIterable[Any],
    ) -> Any:
        fan: FanOut[Any, Any] | LedgerOutcomes = self.source.fan(self.session, keys, self._under(scope))
        if isinstance(fan, LedgerOutcomes):
            return fan.waiting(max_wait, throttled_tries)
        fan = fan.options(unique=False, paging=evolve(self.session.paging, verify=self.verify))
        if self.raw:
            fan = fan._raw_rows()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for the jobs
        return aiter(fan._careful()._waiting(max_wait, throttled_tries))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def _one_call(key: Any) -> int:
    Identifier.customer_id(key)  # the check of every id
    return 1


def _described(query: Mapping[str, Any]) -> dict[str, Any]:
    """The query as JSON holds it: what is None or a default is not said, dates are text, enums their values."""
    said = {name: _plain(value) for name, value in sorted(query.items()) if value is not None}
    return {name: value for name, value in said.items() if _DEFAULTS.get(name) != value}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, LedgerInclude):
        return sorted(name for name, wanted in attrs.asdict(value).items() if wanted)
    return sorted(value) if isinstance(value, list | tuple | set | frozenset) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


# --- totals -----------------------------------------------------------------------------------------------------------


def _totals(
    model: type[Any], getter: Callable[[str], Callable[[Any], Any]]
) -> Callable[[Sequence[Any]], dict[str, Decimal]]:
    """A function that sums the quantities of records, column by column."""
    sums: list[tuple[str, Callable[[Any], Any]]] = []
    parts: list[tuple[str, Callable[[Any], Any], Callable[[Sequence[Any]], dict[str, Decimal]]]] = []
    hints = get_type_hints(model)
    for attribute in attrs.fields(model):
        name, inner = attribute.name, _inner(hints[attribute.name])
        if inner is Decimal:
            sums.append((name, getter(name)))
        elif inner is not None:
            parts.append((name, getter(name), _totals(inner, getter)))

    def totals(records: Sequence[Any]) -> dict[str, Decimal]:
        found = {name: add([value for value in map(get, records) if value is not None]) for name, get in sums}
        for name, get, within in parts:
            nested = within([one for record in records for one in _each(get(record))])
            found = added((found, {f"{name}.{path}": total for path, total in nested.items()}))
        return found

    return totals


def _member(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda row: row.get(name)


def _inner(hint: Any) -> Any:
    """`Decimal`, or the model that is in a field alone, in a tuple or in a mapping; else None."""
    if hint is Decimal or (isinstance(hint, type) and attrs.has(hint)):
        return hint
    if get_origin(hint) in (Union, types.UnionType, tuple, Mapping):
        return next((found for found in map(_inner, get_args(hint)) if found is not None), None)
    return None


def _each(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return (
        (one for one in cast("Sequence[Any]", value) if one is not None)
        if isinstance(value, tuple | list)
        else (value,)
    )


# --- the four ---------------------------------------------------------------------------------------------------------


def _allocations(session: AsyncSession, keys: Any, query: Mapping[str, Any]) -> FanOut[int, PointsAllocation]:
    return session.points_allocation.by_expiry_many(keys, **query)


def _awarded(session: AsyncSession, keys: Any, query: Mapping[str, Any]) -> FanOut[int, PointsAwarded]:
    return session.points_awarded.ids(keys, **query)


def _events(session: AsyncSession, keys: Any, query: Mapping[str, Any]) -> FanOut[int, LoyaltyEvent]:
    return session.loyalty_events.list_many(keys, **query)


def _ledger(session: AsyncSession, keys: Any, query: Mapping[str, Any]) -> LedgerOutcomes:
    return LedgerOutcomes(session, keys, LedgerQuery(**query))


SOURCES = {
    source.name: source
    for source in (
        Dataset("allocations", PointsAllocation, ("id",), _allocations, paged=True, scoped=True),
        Dataset("awarded", PointsAwarded, ("source_table", "id"), _awarded, scoped=True),
        Dataset("events", LoyaltyEvent, ("id",), _events, paged=True),
        Dataset("ledger", LedgerEvent, ("event_log_id", "unique_id"), _ledger, pairs=True),
    )
}
