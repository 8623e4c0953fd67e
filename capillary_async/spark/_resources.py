"""The five resources that Spark reads: the call of each, the parts of its ids, and its options.

Invariant: each resource is a public call of the session, which checks its arguments before anything is sent.
Used by `_options.py`, `_ids.py` and `_task.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from attrs import field, frozen

from capillary_async import (
    AsyncSession,
    BasicAuth,
    EventQuery,
    Identifier,
    InvalidRequestError,
    LedgerEvent,
    LedgerInclude,
    LedgerQuery,
    LoyaltyEvent,
    Outcome,
    PointsAllocation,
    PointsAwarded,
)
from capillary_async.endpoints.points_ledger import MissingEvent
from capillary_async.jobs._common.ledger import LedgerKey, incomplete
from capillary_async.tables._doors import TableSource

__all__ = ["RESOURCES", "Resource"]

_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
_NO_IDS: tuple[Any, ...] = ()


def number(name: str, value: Any) -> int:
    """The whole number of an option."""
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):  # noqa: PLR2004 - 64 bits
        raise InvalidRequestError(f"option {name} takes a whole number, got {value!r:.100}", argument=name)
    return int(text)


def flag(name: str, value: Any) -> bool:
    """The truth of an option."""
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise InvalidRequestError(f"option {name} takes true or false, got {value!r:.100}", argument=name)
    return text in _TRUE


def text(name: str, value: Any) -> str:
    """The text of an option, which is not empty."""
    found = str(value).strip()
    if not found:
        raise InvalidRequestError(f"option {name} is empty", argument=name)
    return found


def several(name: str, value: Any) -> tuple[str, ...]:
    """The parts of an option: a list, or a text with commas."""
    given: Iterable[Any] = value.split(",") if isinstance(value, str) else value
    return tuple(text(name, each) for each in given)


@frozen(eq=False)
class Resource:
    """What can be read.

    Attributes:
        name: The call of the session that reads it.
        model: The class of its records.
        key: The type of `asked_key`.
        parts: The parts of an id, which are also the columns of an ids file.
        options: The arguments of the call beside the ids, and how the value of each is read.
        needed: Those that have no default.
    """

    name: str
    model: type[Any]
    key: type[Any]
    parts: tuple[str, ...]
    options: Mapping[str, Callable[[str, Any], Any]]
    needed: tuple[str, ...]
    _fan: Callable[[AsyncSession, Iterable[Any], Mapping[str, Any]], Any]
    _input: Callable[[Any, Mapping[str, Any]], Any] = field(default=lambda key, _: key)
    _asked: Callable[[Any], Any] = field(default=lambda key: key)

    @property
    def table(self) -> TableSource:
        """What its table is made of."""
        return TableSource(self.name, self.model, self.key)

    def is_text(self, part: str) -> bool:
        """Whether this part of an id is any text, and no number."""
        return part == "entity_id" or (self.key is str and part == self.parts[0])

    def outcomes(self, session: AsyncSession, keys: Iterable[Any], query: Mapping[str, Any], *, max_wait: float) -> Any:
        """One outcome of raw rows per key, in the order of the keys, which are distinct.

        Short first pages are read past, as by an export.
        """
        fan = self._fan(session, (self._input(key, query) for key in keys), query).options(unique=False)
        return fan._careful()._waiting(max_wait, 1)._raw_rows().ordered()  # noqa: SLF001 - of this package

    def finished(self, outcome: Outcome[Any, Any]) -> Outcome[Any, Any]:
        """The outcome under the key that `asked_key` shows; a ledger that lacks an event is a failure."""
        key = self._asked(outcome.key)
        missing = [warning.event_id for warning in outcome.warnings if isinstance(warning, MissingEvent)]
        if outcome.error is None and missing:
            return Outcome(key, error=incomplete(LedgerKey(key, map(str, outcome.key.event_ids)), missing))
        return Outcome(key, outcome.items, outcome.error)

    def check(self, query: Mapping[str, Any]) -> None:
        """Have the call check its arguments, without ids.

        Raises:
            InvalidRequestError: One is invalid.
        """
        session = AsyncSession("https://localhost", auth=BasicAuth("till", password="unused"))  # noqa: S106 - never sent
        self._fan(session, _NO_IDS, query)
        if self.key is str:
            self._input(("1", ("1",)), query)


def _expiring(session: AsyncSession, keys: Iterable[Any], query: Mapping[str, Any]) -> Any:
    return session.points_allocation.by_expiry_many(keys, **query)


def _of_events(session: AsyncSession, keys: Iterable[Any], query: Mapping[str, Any]) -> Any:
    return session.points_allocation.by_event_many(keys, **query)


def _awarded(session: AsyncSession, keys: Iterable[Any], query: Mapping[str, Any]) -> Any:
    return session.points_awarded.ids(keys, **query)


def _events(session: AsyncSession, keys: Iterable[Any], query: Mapping[str, Any]) -> Any:
    return session.loyalty_events.list_many(keys, **query)


def _ledgers(session: AsyncSession, keys: Iterable[Any], query: Mapping[str, Any]) -> Any:
    del query  # a part of each key
    return session.points_ledger.explode_many(keys)


def _ledger_query(key: tuple[str, tuple[str, ...]], query: Mapping[str, Any]) -> LedgerQuery:
    given = dict(query)
    identifier = Identifier(given.pop("identifier_kind", "customer_id"), key[0])
    source = given.pop("identifier_source", "INSTORE")
    include = _include(given.pop("include", ()))
    return LedgerQuery(identifier=identifier, source=source, event_ids=key[1], include=include, **given)


def _include(names: tuple[str, ...]) -> LedgerInclude:
    try:
        return LedgerInclude(**dict.fromkeys(names, True))
    except TypeError:
        raise InvalidRequestError(
            f"option include takes names of LedgerInclude, got {', '.join(names):.100}", argument="include"
        ) from None


_PROGRAM: dict[str, Any] = {"program_id": number, "point_category_id": number}
_EVENT = ("entity_id", "customer_id", "event_type_id")
RESOURCES = {
    each.name: each
    for each in (
        Resource(
            "points_allocation.by_expiry",
            PointsAllocation,
            int,
            ("customer_id",),
            {**_PROGRAM, "expiry_date_start": text, "expiry_date_end": text, "not_found": text},
            (*_PROGRAM, "expiry_date_start", "expiry_date_end"),
            _expiring,
        ),
        Resource(
            "points_allocation.by_event",
            PointsAllocation,
            EventQuery,
            _EVENT,
            {"not_found": text},
            (),
            _of_events,
            lambda key, _: EventQuery(*key),
        ),
        Resource(
            "points_awarded.ids",
            PointsAwarded,
            int,
            ("customer_id",),
            {
                **_PROGRAM,
                "start_expiry_date": text,
                "end_expiry_date": text,
                "status": several,
                "org_id": number,
                "batch_size": number,
            },
            (*_PROGRAM, "start_expiry_date", "end_expiry_date", "status"),
            _awarded,
        ),
        Resource(
            "loyalty_events.list",
            LoyaltyEvent,
            int,
            ("customer_id",),
            {"event_type": text, "from_date": text, "to_date": text},
            (),
            _events,
        ),
        Resource(
            "points_ledger.explode",
            LedgerEvent,
            str,
            ("customer_id", "event_log_id"),
            {
                "identifier_kind": text,
                "identifier_source": text,
                "include": several,
                "account_id": text,
                "type": text,
                "is_primary_user": flag,
                "alternate_currency_names": several,
            },
            (),
            _ledgers,
            _ledger_query,
            lambda key: cast("LedgerQuery", key).identifier.value,
        ),
    )
}
