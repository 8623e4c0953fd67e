"""The ledger of many customers: a few workers over one input, since the API has a call for one customer alone.

Invariant: as with a fan-out, one outcome a key, nothing left running behind, and what concerns every key is raised.
Made by `_sources.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Self, cast

import attrs
from attrs import field, frozen

from capillary_async import (
    AuthenticationError,
    CapillaryError,
    DecodeError,
    Identifier,
    InvalidRequestError,
    LedgerEvent,
    LedgerInclude,
    Outcome,
    TLSError,
)
from capillary_async._priority import begin_bulk
from capillary_async.endpoints.points_ledger import MissingEvent

if TYPE_CHECKING:
    from capillary_async import ApiMessage, AsyncSession

__all__ = ["LedgerKey", "LedgerOutcomes", "LedgerQuery"]

_END = object()
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


class LedgerKey(str):
    """An identifier's value, with the events to ask for."""

    __slots__ = ("events",)
    events: tuple[str, ...]

    def __new__(cls, value: str, events: Iterable[str] = ()) -> Self:
        """A text that knows its events."""
        key = super().__new__(cls, value)
        key.events = tuple(events)
        return key


class LedgerOutcomes:
    """One outcome a key, as they finish. `aclose()` ends it early."""

    def __init__(
        self, session: AsyncSession, keys: Iterable[LedgerKey] | AsyncIterable[LedgerKey], query: LedgerQuery
    ) -> None:
        self._session = session
        self._query = query
        self._keys = keys
        self._source: AsyncIterator[LedgerKey] | None = None
        self._done: asyncio.Queue[Any] = asyncio.Queue(session.limits.concurrency)
        self._lock = asyncio.Lock()
        self._crew: asyncio.Task[None] | None = None
        self._failed: dict[LedgerKey, int] = {}
        self._ask("1", ("1",))  # checked before anything is sent

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[str, LedgerEvent]:
        if self._crew is None:
            self._source = aiter(self._keys) if isinstance(self._keys, AsyncIterable) else _aiter(self._keys)
            self._crew = asyncio.ensure_future(self._run())
        come = await self._done.get()
        if isinstance(come, Outcome):
            return cast("Outcome[str, LedgerEvent]", come)
        await self.aclose()
        if come is _END:
            raise StopAsyncIteration
        raise come

    async def aclose(self) -> None:
        """End it; no request stays under way."""
        if self._crew is not None:
            self._crew.cancel()
            await asyncio.wait([self._crew])
        close = getattr(self._source, "aclose", None)  # of a generator
        if close is not None:
            await close()

    def _unsettled(self) -> dict[LedgerKey, int]:
        """The keys that failed and have no outcome, with the attempts of their calls."""
        return self._failed

    async def _run(self) -> None:
        workers = [asyncio.ensure_future(self._work()) for _ in range(self._session.limits.concurrency)]
        try:
            ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            failed = next((error for worker in ended if (error := worker.exception())), None)
            await self._done.put(failed or _END)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)

    async def _work(self) -> None:
        begin_bulk()
        while True:
            async with self._lock:
                key = None if self._source is None else await anext(self._source, None)
            if key is None:
                return
            await self._done.put(await self._read(key))

    async def _read(self, key: LedgerKey) -> Outcome[Any, LedgerEvent]:
        items: list[LedgerEvent] = []
        warnings: list[ApiMessage] = []
        drift: list[Any] = []
        number = 0
        try:
            pages = self._ask(key, key.events).pages()
            try:
                async for page in pages:
                    number += 1
                    items.extend(page.items)
                    warnings.extend(page.warnings)
                    drift += page._drift or ()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for the jobs
            finally:
                await pages.aclose()
        except CapillaryError as error:
            error.key, error.position = key, None
            if error.quota_exhausted or isinstance(error, AuthenticationError | TLSError):
                self._failed[key] = error.attempts
                raise
            return Outcome(key, error=error, warnings=tuple(warnings), pages=number)
        missing = [warning.event_id for warning in warnings if isinstance(warning, MissingEvent)]
        if missing:
            return Outcome(key, error=_incomplete(key, missing), warnings=tuple(warnings), pages=number)
        return Outcome(key, tuple(items), None, tuple(warnings), number, tuple(drift) or None)

    def _ask(self, value: str, events: Iterable[str]) -> Any:
        query = self._query
        return self._session.points_ledger.explode(
            identifier=Identifier(query.identifier, str(value)),
            source=query.identifier_source,
            event_ids=events,
            account_id=query.account_id,
            include=LedgerInclude(**dict.fromkeys(query.include, True)),
            type=query.type,
            is_primary_user=query.is_primary_user,
            alternate_currency_names=query.alternate_currency_names,
        )


def _incomplete(key: LedgerKey, missing: list[str]) -> DecodeError:
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
