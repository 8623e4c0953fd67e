"""The ledgers of many customers, with the events of each: what a job reads through `points_ledger.explode_many`.

Invariant: one outcome per key; a customer whose answer lacks an event that was asked for is a failure. Made by
`sources.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Self, cast

import attrs
from attrs import field, frozen

from capillary_async import (
    CapillaryError,
    DecodeError,
    Identifier,
    InvalidRequestError,
    LedgerEvent,
    LedgerInclude,
    Outcome,
)
from capillary_async import LedgerQuery as ExplodeQuery
from capillary_async.endpoints.points_ledger import MissingEvent

if TYPE_CHECKING:
    from capillary_async import AsyncSession

__all__ = ["LedgerKey", "LedgerOutcomes", "LedgerQuery", "incomplete"]

_SHOWN = 5  # event ids that a text names


def _include(value: Any) -> tuple[str, ...]:
    names = tuple(sorted(value))
    try:
        LedgerInclude(**dict.fromkeys(names, True))
    except TypeError:
        known = ", ".join(attribute.name for attribute in attrs.fields(LedgerInclude))
        raise InvalidRequestError(f"include takes names of {known}, got {', '.join(names)}") from None
    return names


def _kind(value: Any) -> str:
    return Identifier(value, "1").kind


class LedgerKey(str):
    """An identifier's value, with the events to ask for."""

    __slots__ = ("events",)
    events: tuple[str, ...]

    def __new__(cls, value: str, events: Iterable[str] = ()) -> Self:
        """A text that knows its events."""
        key = super().__new__(cls, value)
        key.events = tuple(events)
        return key


@frozen(kw_only=True)
class LedgerQuery:
    """What is asked of each ledger; see `session.points_ledger.explode`.

    Attributes:
        identifier: The kind of the identifiers: `customer_id`, `mobile`, `email`, `external_id`, `id`,
            `primary_user_id`.
        identifier_source: Where they are known, e.g. `INSTORE`.
        include: Names of `LedgerInclude`'s fields.
    """

    identifier: str = field(default="customer_id", converter=_kind)
    identifier_source: str = "INSTORE"
    include: tuple[str, ...] = field(default=(), converter=_include)
    account_id: str | int | None = None
    type: str | None = None
    is_primary_user: bool | None = None
    alternate_currency_names: tuple[str, ...] | None = None

    def of(self, key: LedgerKey) -> ExplodeQuery:
        """The call for one key.

        Raises:
            InvalidRequestError: The key is invalid.
        """
        return ExplodeQuery(
            identifier=Identifier(self.identifier, str(key)),
            source=self.identifier_source,
            event_ids=key.events,
            account_id=self.account_id,
            include=LedgerInclude(**dict.fromkeys(self.include, True)),
            type=self.type,
            is_primary_user=self.is_primary_user,
            alternate_currency_names=self.alternate_currency_names,
        )


class LedgerOutcomes:
    """One outcome per key, as they finish: those of `explode_many`, under the keys of the job."""

    def __init__(
        self, session: AsyncSession, keys: Iterable[LedgerKey] | AsyncIterable[LedgerKey], query: LedgerQuery
    ) -> None:
        self._query = query
        self._input = self._asked(keys)
        self._keys: dict[ExplodeQuery, list[LedgerKey]] = {}  # of the queries without an outcome
        self._refused: deque[Outcome[Any, LedgerEvent]] = deque()
        query.of(LedgerKey("1", ("1",)))  # the query is checked before anything is sent
        self._fan = session.points_ledger.explode_many(self._input).options(unique=False)
        self._outcomes: Any = None

    def waiting(self, max_wait: float | None, throttled_tries: int) -> Self:
        """The same, with calls that wait otherwise for a service that is down."""
        self._fan = self._fan._waiting(max_wait, throttled_tries)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for the jobs
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[str, LedgerEvent]:
        if self._refused:
            return self._refused.popleft()
        if self._outcomes is None:
            self._outcomes = aiter(self._fan)
        try:
            outcome = await anext(self._outcomes)
        except StopAsyncIteration:
            if self._refused:
                return self._refused.popleft()
            raise
        except CapillaryError as error:
            if error.key in self._keys:
                error.key = self._keys[error.key][0]
            raise
        return self._finished(outcome)

    async def aclose(self) -> None:
        """End it early; no request stays under way."""
        if self._outcomes is not None:
            await self._outcomes.aclose()
        await self._input.aclose()

    async def _asked(self, keys: Iterable[LedgerKey] | AsyncIterable[LedgerKey]) -> AsyncGenerator[ExplodeQuery]:
        """The queries of the keys. A key that makes none is an outcome at once."""
        source = aiter(keys) if isinstance(keys, AsyncIterable) else _aiter(keys)
        try:
            async for key in source:
                try:
                    query = self._query.of(key)
                except InvalidRequestError as error:
                    error.key = key
                    self._refused.append(Outcome(key, error=error))
                else:
                    self._keys.setdefault(query, []).append(key)
                    yield query
        finally:
            close = getattr(source, "aclose", None)  # of a generator
            if close is not None:
                await close()

    def _finished(self, outcome: Outcome[ExplodeQuery, LedgerEvent]) -> Outcome[Any, LedgerEvent]:
        keys = self._keys[outcome.key]
        key = keys.pop(0)
        if not keys:
            del self._keys[outcome.key]
        missing = [warning.event_id for warning in outcome.warnings if isinstance(warning, MissingEvent)]
        if outcome.error is not None:
            outcome.error.key, outcome.error.position = key, None
        elif missing:
            return Outcome(key, error=incomplete(key, missing), warnings=outcome.warnings, pages=outcome.pages)
        return attrs.evolve(cast("Outcome[Any, LedgerEvent]", outcome), key=key)


def incomplete(key: LedgerKey, missing: list[str]) -> DecodeError:
    """An export has every event that was asked for, or says that the ledger failed."""
    shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
    error = DecodeError(
        f"of {len(key.events)} events asked for, {len(missing)} came neither as a record nor as null: {shown}. Run the "
        "same command again; what does not come then, report to Capillary"
    )
    error.key = key
    return error


async def _aiter(keys: Iterable[LedgerKey]) -> AsyncIterator[LedgerKey]:
    for key in keys:
        yield key
