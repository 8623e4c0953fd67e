"""Several programs and categories in one export: a list for each pair of them, one outcome per customer.

Invariant: an outcome has the rows of all pairs, in the order of the pairs, or an error; a row that came under two
pairs, or is of another program or category than the one asked for, is never given. Made by `_common/sources.py`.
"""

from __future__ import annotations

import asyncio
import operator
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple, Self, cast

from capillary_async import CapillaryError, DecodeError, InvalidRequestError, Outcome, RecordConflictError

__all__ = ["ASKED", "SCOPED", "Scope", "SeveralOutcomes", "asked_of", "is_several", "scopes_of", "several_of"]

SCOPED = ("program_id", "point_category_id")
ASKED = ("asked_program_id", "asked_point_category_id")  # the columns in the files
_DIGITS = 19  # of the largest id
AHEAD = 256  # keys: the rows of those that only some pairs were asked for are in memory


class Scope(NamedTuple):
    """One program and one category."""

    program_id: Any
    point_category_id: Any

    def __str__(self) -> str:
        return f"program_id {self.program_id}, point_category_id {self.point_category_id}"


class _Rows(tuple[Any, ...]):  # noqa: SLOT001 - a tuple takes no slots of ours
    """The records of one customer, and how many of them came under each pair, in this order."""

    counts: tuple[tuple[Scope, int], ...]

    def __new__(cls, records: Iterable[Any], counts: tuple[tuple[Scope, int], ...]) -> Self:
        rows = super().__new__(cls, records)
        rows.counts = counts
        return rows

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.counts


def asked_of(records: Sequence[Any]) -> list[Scope]:
    """The pair under which each record of a customer came."""
    counts = cast("_Rows", records).counts
    return [scope for scope, count in counts for _ in range(count)]


def several_of(name: str, value: Any) -> Any:
    """Several ids, each once and in order; what is one id stays as it is.

    Raises:
        InvalidRequestError: There are none, or one of them is no id.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return value
    found = sorted({_number(name, one) for one in cast("Iterable[Any]", value)})
    if not found:
        raise InvalidRequestError(f"{name} takes one id or several, got none", argument=name)
    return found


def _number(name: str, value: Any) -> int:
    """An id of several as a number; whether it is one that the call takes is for the call to say."""
    with suppress(TypeError, ValueError):
        if isinstance(value, str):
            return int(value[: _DIGITS + 1])  # a longer one is larger than any id
        if not isinstance(value, bool):
            return operator.index(value)
    raise InvalidRequestError(f"{name} takes positive whole numbers, got {value!r:.100}", argument=name)


def is_several(query: Mapping[str, Any]) -> bool:
    """Whether a query, as the manifest has it, asks for several programs or categories."""
    return any(isinstance(query.get(name), list) for name in SCOPED)


def scopes_of(query: Mapping[str, Any]) -> list[Scope]:
    """Every pair that a query asks for, in the order of their rows."""
    ids = (query.get(name) for name in SCOPED)
    each = (cast("list[Any]", value) if isinstance(value, list) else [value] for value in ids)
    return [Scope(*pair) for pair in product(*each)]


class SeveralOutcomes:
    """One outcome a key, as they finish: of the fan-outs of all pairs over the same keys. `aclose()` ends it early.

    Args:
        keys: The keys, read once.
        scopes: The pairs.
        read: Gives the outcomes of one pair: an iterator with `aclose`.
        identity: What identifies a record.
    """

    def __init__(
        self,
        keys: Iterable[Any] | AsyncIterable[Any],
        scopes: Sequence[Scope],
        read: Callable[[Scope, AsyncIterator[Any]], Any],
        identity: Callable[[Any], Any],
    ) -> None:
        self._scopes, self._identity = scopes, identity
        self._keys = _Shared(keys, len(scopes))
        self._lists = [read(scope, self._keys.keys_for(place)) for place, scope in enumerate(scopes)]
        # A key that is read under all pairs, an error that ended a list, or neither at the end of a list.
        self._come: asyncio.Queue[tuple[Any, Exception | None] | None] = asyncio.Queue(len(scopes))
        self._pumps: list[asyncio.Task[None]] = []
        self._parts: dict[Any, dict[int, Outcome[Any, Any]]] = {}
        self._left = len(scopes)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[Any, Any]:
        """The next key of which all pairs are read.

        Raises:
            CapillaryError: What concerns every key; keys without an outcome were not answered.
        """
        if not self._pumps:
            self._pumps = [asyncio.ensure_future(self._pump(place)) for place in range(len(self._lists))]
        while self._left:
            come = await self._come.get()
            if come is None:
                self._left -= 1
                continue
            key, error = come
            if error is not None:
                await self.aclose()
                raise error
            parts = self._parts.pop(key)
            return self._joined(key, [parts[place] for place in range(len(parts))])
        await self.aclose()
        if self._parts:
            raise RuntimeError(f"{len(self._parts)} keys were not read under every program and category")
        raise StopAsyncIteration

    async def _pump(self, place: int) -> None:
        try:
            async for outcome in self._lists[place]:
                parts = self._parts.setdefault(outcome.key, {})
                parts[place] = outcome
                if len(parts) == len(self._scopes):
                    await self._come.put((outcome.key, None))
        except Exception as error:  # noqa: BLE001 - raised from the loop over the outcomes
            await self._come.put((None, error))
        else:
            await self._come.put(None)

    async def aclose(self) -> None:
        """End it; no request stays under way."""
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        for each in self._lists:
            await each.aclose()
        await self._keys.aclose()

    def _joined(self, key: Any, parts: Sequence[Outcome[Any, Any]]) -> Outcome[Any, Any]:
        """The outcomes of all pairs as one."""
        error = self._error(parts) or self._fault(key, parts)
        warnings = tuple(warning for part in parts for warning in part.warnings)
        pages = sum(part.pages for part in parts)
        if error is not None:
            error.key = key
            return Outcome(key, (), error, warnings, pages)
        counts = tuple((scope, len(part.items)) for scope, part in zip(self._scopes, parts, strict=True))
        rows = _Rows((record for part in parts for record in part.items), counts)
        drift = tuple(one for part in parts for one in part._drift or ())  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - for the jobs
        return Outcome(key, rows, None, warnings, pages, drift or None)

    def _error(self, parts: Sequence[Outcome[Any, Any]]) -> CapillaryError | None:
        """Why one of the lists could not be read; one for good first, since the others do not help then."""
        failed = [(scope, part.error) for scope, part in zip(self._scopes, parts, strict=True) if part.error]
        if not failed:
            return None
        scope, error = next((each for each in failed if each[1].is_definitive), failed[0])
        if not isinstance(error, InvalidRequestError):  # which is about the key
            error.args = (f"{scope}: {error.message}",)
            error.attempts = sum(each.attempts for _, each in failed)
        return error

    def _fault(self, key: Any, parts: Sequence[Outcome[Any, Any]]) -> CapillaryError | None:
        """Whether a record is not of its pair, or of two."""
        met: dict[Any, Scope] = {}
        for scope, part in zip(self._scopes, parts, strict=True):
            for record in part.items:
                found = _other(scope, record)
                if found is not None:
                    return _misplaced(key, self._identity(record), scope, found)
            for token in {self._token(record) for record in part.items}:
                if token in met:
                    return _given_twice(key, token, met[token], scope)
                met[token] = scope
        return None

    def _token(self, record: Any) -> Any:
        """What identifies a record: its key, or its content where a part of that is null."""
        identity = self._identity(record)
        parts = cast("tuple[Any, ...]", identity) if isinstance(identity, tuple) else (identity,)
        return record.to_json() if None in parts else parts


def _other(scope: Scope, record: Any) -> str | None:
    """The program or category that a record says it is of, where that is not the one asked for."""
    for name, asked in zip(SCOPED, scope, strict=True):
        own = getattr(record, name, None)
        if own is not None and own != int(asked):
            return f"{name} {own}"
    return None


def _misplaced(key: Any, identity: Any, scope: Scope, found: str) -> DecodeError:
    text = (
        f"key {key}: asked for {scope}, record {identity} came, which is of {found}: the server does not seem to "
        "honour the parameter, and the record would count under two. Export one category at a time, and report it to "
        "Capillary"
    )
    return DecodeError(text, faults=(f"$: record {identity} is of {found}",), paths=("$",), kind="misdirected")


def _given_twice(key: Any, token: Any, first: Scope, second: Scope) -> RecordConflictError:
    shown = " ".join(map(str, cast("tuple[Any, ...]", token))) if isinstance(token, tuple) else str(token)
    return RecordConflictError(
        f"key {key}: record {shown:.80} came under {first} and under {second}, and would count twice: it changed its "
        "category while it was read, or the server does not honour the parameter. Read it again; if it comes again, "
        "export one category at a time, and report it to Capillary"
    )


class _Shared:
    """Keys that several fan-outs read: each gets every key, in order, at most `AHEAD` keys before the slowest."""

    def __init__(self, keys: Iterable[Any] | AsyncIterable[Any], readers: int) -> None:
        self._source = aiter(keys) if isinstance(keys, AsyncIterable) else _async(keys)
        self._waiting = [deque[Any]() for _ in range(readers)]
        self._lock = asyncio.Lock()
        self._room = asyncio.Event()
        self._ended = False

    async def keys_for(self, place: int) -> AsyncIterator[Any]:
        """The keys for one of the readers."""
        mine = self._waiting[place]
        while True:
            if not mine:
                async with self._lock:
                    if not mine and not self._ended:
                        await self._read()
            if not mine:
                return
            key = mine.popleft()
            self._room.set()
            yield key

    async def _read(self) -> None:
        while max(map(len, self._waiting)) >= AHEAD:
            self._room.clear()
            await self._room.wait()
        try:
            key = await anext(self._source)
        except StopAsyncIteration:
            self._ended = True
            return
        for waiting in self._waiting:
            waiting.append(key)

    async def aclose(self) -> None:
        """Close the input, where it is a generator."""
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()


async def _async(keys: Iterable[Any]) -> AsyncIterator[Any]:
    for key in keys:
        yield key
