"""The workers behind a fan-out: `Outcome`, the readers that endpoints hand in, the input's feed, and the crew that draws from it.

The rule kept here: every key asked has exactly one outcome, or the run fails; workers draw from one input, so that memory does not grow
with it. Knows no HTTP; run by `_fanout.py` in a task of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from copy import copy
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import anyio
from attrs import define, field, frozen

from capillary_async._pager import Page
from capillary_async.errors import (
    ApiMessage,
    AuthenticationError,
    CapillaryError,
    InvalidRequestError,
    RateLimitedError,
    ServerError,
    TLSError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.streams.memory import MemoryObjectSendStream

    from capillary_async._config import Paging
    from capillary_async._pager import Pager

__all__ = ["BatchReader", "Crew", "FanOptions", "Keys", "Outcome", "PagedReader", "Plan", "Reader"]

K = TypeVar("K")
T = TypeVar("T")

AHEAD = 256  # keys read ahead of the workers at most
LINGER = 0.02  # seconds a batch waits for an input that is slower than the service
STRIKES = 3  # how often a key is asked again that keeps failing while others succeed
PROBES = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds between the probes of an outage; the last one repeats
# What one key learns of, every other key would too.
_CONCERNS_ALL = (AuthenticationError, TLSError)
_NO_ANSWER = (TransportError, ServerError, RateLimitedError)


@frozen
class Outcome(Generic[K, T]):
    """What came of one key.

    Attributes:
        key: The key asked, as the endpoint understands it (a decimal string became an int).
        items: The records; empty when `error` is set.
        error: Why there are none, else None.
        warnings: Of all its pages.
        pages: How many pages were read.
    """

    key: K
    items: tuple[T, ...] = ()
    error: CapillaryError | None = None
    warnings: tuple[ApiMessage, ...] = ()
    pages: int = 0

    @property
    def ok(self) -> bool:
        """Whether the key was answered."""
        return self.error is None

    def unwrap(self) -> tuple[T, ...]:
        """The items.

        Raises:
            CapillaryError: The error of this key, as itself.
        """
        if self.error is not None:
            raise self.error
        return self.items


class _Emit(Protocol):
    """Where a unit puts what it reads."""

    async def page(self, key: Any, page: Page[Any]) -> None: ...
    async def done(self, key: Any) -> None: ...
    async def failed(self, key: Any, error: CapillaryError) -> None: ...


class _Unit(Protocol):
    """Work for one worker. Run again after an error it goes on where it stood."""

    keys: tuple[Any, ...]

    async def run(self, emit: _Emit) -> None: ...
    async def aclose(self) -> None: ...


class Reader(Protocol[K, T]):
    """How an endpoint reads keys."""

    batch: int

    def check(self, key: Any) -> K:
        """The key as the endpoint understands it.

        Raises:
            InvalidRequestError: It is none.
        """
        ...

    def weigh(self, key: K) -> int:
        """The bytes that a key adds to a request."""
        ...

    def fits(self, count: int, weight: int) -> bool:
        """Whether so many keys of so many bytes are one batch."""
        ...

    def unit(self, keys: tuple[K, ...], paging: Paging) -> _Unit:
        """The work of reading these keys."""
        ...

    def check_paging(self, paging: Paging) -> None:
        """Refuse a page size that the endpoint does not take."""
        ...


@define(eq=False)
class _PagedUnit(Generic[K, T]):
    """One key, whose pager is walked; the walk is kept for a second run."""

    keys: tuple[K, ...]
    _pager: Pager[T]
    _walk: Any = field(default=None, init=False)

    async def run(self, emit: _Emit) -> None:
        key = self.keys[0]
        if self._walk is None:
            self._walk = self._pager.walk()
        while (page := await self._walk.next_page()) is not None:
            await emit.page(key, page)
        await emit.done(key)

    async def aclose(self) -> None:
        if self._walk is not None:
            await self._walk.aclose()


@frozen(eq=False)
class PagedReader(Generic[K, T]):
    """Reads each key with a pager of its own."""

    check: Callable[[Any], K]
    pager: Callable[[K, Paging], Pager[T]]
    check_paging: Callable[[Paging], None]
    batch: int = 1

    def weigh(self, key: K) -> int:  # noqa: ARG002 - one is all
        """One key a unit, whatever its length."""
        return 0

    def fits(self, count: int, weight: int) -> bool:  # noqa: ARG002
        """One key a unit."""
        return count <= 1

    def unit(self, keys: tuple[K, ...], paging: Paging) -> _Unit:
        """The walk over one key's pages."""
        return _PagedUnit(keys, self.pager(keys[0], paging))


@define(eq=False)
class _BatchUnit(Generic[K, T]):
    """Several keys in one request; each of them comes to one page or one error."""

    keys: tuple[K, ...]
    _ask: Callable[[tuple[K, ...]], Awaitable[dict[K, Page[T] | CapillaryError]]]

    async def run(self, emit: _Emit) -> None:
        answers = await self._ask(self.keys)
        for key in self.keys:
            answer = answers[key]
            if isinstance(answer, CapillaryError):
                await emit.failed(key, answer)
                continue
            await emit.page(key, answer)
            await emit.done(key)

    async def aclose(self) -> None:
        """Nothing is kept between two runs."""


@frozen(eq=False)
class BatchReader(Generic[K, T]):
    """Reads keys in batches, bounded by their number and by the length of the request."""

    check: Callable[[Any], K]
    ask: Callable[[tuple[K, ...]], Awaitable[dict[K, Page[T] | CapillaryError]]]
    batch: int
    room: int
    weigh: Callable[[K], int]

    def fits(self, count: int, weight: int) -> bool:
        """Whether the batch stays within number and length; a single key always does."""
        return count <= 1 or (count <= self.batch and weight <= self.room)

    def unit(self, keys: tuple[K, ...], paging: Paging) -> _Unit:  # noqa: ARG002 - batches have no pages
        """One request for these keys."""
        return _BatchUnit(keys, self.ask)

    def check_paging(self, paging: Paging) -> None:
        """Batches have no pages."""


class Keys(Generic[K]):
    """The input: checked whole where it has a length, key by key where it has none."""

    def __init__(self, source: Any, check: Callable[[Any], K], name: str) -> None:
        self._check = check
        self._name = name
        self._spent = False
        self.checked = False
        self.source = self._accepted(source)
        self.length = len(self.source) if isinstance(self.source, Sized) else None

    def _accepted(self, source: Any) -> Any:
        if isinstance(source, str | bytes | bytearray) or not isinstance(source, Iterable | AsyncIterable):
            raise self._refused(source)
        if isinstance(source, range):
            # A range may be too long to look at one by one, and its ends say all.
            for end in (source[0], source[-1]) if source else ():
                self._check(end)
            self.checked = True
            return source
        if isinstance(source, Sized) and not isinstance(source, AsyncIterable):
            self.checked = True
            return tuple(self._check(key) for key in cast("Iterable[Any]", source))
        return source

    def _refused(self, source: Any) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._name} takes an iterable or async iterable of keys, e.g. a list, got {type(source).__name__}",
            argument=self._name,
        )

    def open(self) -> tuple[Iterator[Any] | None, AsyncIterator[Any] | None]:
        """An iterator over the input.

        Raises:
            RuntimeError: The input is an iterator that was read before.
        """
        if isinstance(self.source, AsyncIterable):
            stream = aiter(cast("AsyncIterable[Any]", self.source))
            self._spend(stream)
            return None, stream
        iterator = iter(self.source)
        self._spend(iterator)
        return iterator, None

    def _spend(self, iterator: object) -> None:
        if iterator is not self.source:
            return
        if self._spent:
            raise RuntimeError(f"{self._name} is an iterator, and this fan-out has read it: give a list to loop twice")
        self._spent = True

    def check(self, key: Any) -> K:
        """The key as the endpoint understands it."""
        return cast("K", key) if self.checked else self._check(key)


@frozen
class FanOptions:
    """What `FanOut.options` sets."""

    concurrency: int
    paging: Paging
    unique: bool = True


@define(eq=False)
class _Gathered:
    """What was read of one key so far."""

    items: list[Any] = field(factory=list)
    warnings: list[ApiMessage] = field(factory=list)
    pages: int = 0
    ended: bool = False


@define(eq=False)
class _Pending:
    """A unit, the places of its keys in the input, what was read of them, and how often it struck out."""

    unit: _Unit
    places: dict[Any, int]
    gathered: dict[Any, _Gathered] = field(factory=dict)
    strikes: int = 0
    began: int = 0

    def of(self, key: Any) -> _Gathered:
        """What was read of a key; kept over a second run, so that a key asked again keeps its pages."""
        return self.gathered.setdefault(key, _Gathered())


class _Feed(Generic[K]):
    """Keys on their way from the input to the workers: read and closed by one task, a few hundred ahead."""

    def __init__(self, keys: Keys[K], *, unique: bool) -> None:
        self._keys = keys
        self._seen: set[Any] | None = set() if unique else None
        self._queue: deque[tuple[int, K]] = deque()
        self._place = 0
        self._wanted = asyncio.Event()
        self._ready = asyncio.Event()
        self.ended = False
        self.error: BaseException | None = None

    async def run(self, refuse: Callable[[int, Any, InvalidRequestError], Awaitable[None]]) -> None:
        """Read the input to its end; a key that is none goes to `refuse`."""
        plain, stream = self._keys.open()
        try:
            if plain is not None:
                for raw in plain:
                    await self._put(raw, refuse)
            elif stream is not None:
                async for raw in stream:
                    await self._put(raw, refuse)
        except Exception as error:  # noqa: BLE001 - the input's own error, raised behind the outcomes in flight
            self.error = error
        finally:
            self.ended = True
            self._ready.set()
            await _close_input(plain, stream)

    async def _put(self, raw: Any, refuse: Callable[[int, Any, InvalidRequestError], Awaitable[None]]) -> None:
        try:
            key = self._keys.check(raw)
        except InvalidRequestError as error:
            self._place += 1
            await refuse(self._place - 1, raw, error)
            return
        if self._seen is not None:
            if key in self._seen:
                return
            self._seen.add(key)
        while len(self._queue) >= AHEAD:
            self._wanted.clear()
            await self._wanted.wait()
        self._queue.append((self._place, key))
        self._place += 1
        self._ready.set()

    def next_place(self) -> int:
        """The place of the next key to be taken."""
        return self._queue[0][0] if self._queue else self._place

    async def wait(self, batch: int) -> bool:
        """Wait until there is work: a whole batch, or what there is of a slow input. False at the end."""
        while not self._queue:
            if self.ended:
                return False
            self._ready.clear()
            await self._ready.wait()
        if batch > 1 and len(self._queue) < batch and not self.ended:
            await asyncio.sleep(0)
            if len(self._queue) < batch and not self.ended:
                await asyncio.sleep(LINGER)
        return True

    def take(self, reader: Reader[K, Any], until: int | None) -> dict[K, int]:
        """Keys for one unit, with their places; none where another worker was quicker."""
        places: dict[K, int] = {}
        weight = 0
        while self._queue and (until is None or self._queue[0][0] < until):
            place, key = self._queue[0]
            weight += reader.weigh(key)
            if key in places or not reader.fits(len(places) + 1, weight):
                break
            self._queue.popleft()
            places[key] = place
        if len(self._queue) <= AHEAD // 2:
            self._wanted.set()
        return places


async def _close_input(plain: Iterator[Any] | None, stream: AsyncIterator[Any] | None) -> None:
    """Close a generator that was not read to its end; a file or a cursor is the caller's to close."""
    if inspect.isgenerator(plain):
        plain.close()
    if inspect.isasyncgen(stream):
        with anyio.CancelScope(shield=True):
            await stream.aclose()


@frozen(eq=False)
class Plan(Generic[K, T]):
    """What a run works by.

    Attributes:
        keys: The input.
        reader: How an endpoint reads keys.
        options: Workers, paging, and whether repeated keys are asked once.
        patience: Seconds an outage may last.
        mode: `outcomes`, `ordered`, `pages` or `items`: what the loop wants.
    """

    keys: Keys[K]
    reader: Reader[K, T]
    options: FanOptions
    patience: float
    mode: str = "outcomes"


class Crew(Generic[K, T]):
    """One run of a fan-out: feed, workers, and what they must know of each other."""

    def __init__(self, plan: Plan[K, T], send: MemoryObjectSendStream[Any]) -> None:
        self._reader = plan.reader
        self._options = plan.options
        self._patience = plan.patience
        self.mode = plan.mode
        self._send = send
        self._length = plan.keys.length
        self._feed = _Feed(plan.keys, unique=plan.options.unique)
        self._again: deque[_Pending] = deque()
        self._successes = 0
        self._open = asyncio.Event()
        self._open.set()
        self._scope: anyio.CancelScope | None = None
        self._window = asyncio.Event()
        self._yielded = 0
        self.failure: BaseException | None = None

    async def run(self) -> None:
        """Work until every key has its outcome, or something concerns them all."""
        try:
            async with self._send, anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                group.start_soon(self._guarded, self._feed.run, self._refuse)
                for _ in range(self._size()):
                    group.start_soon(self._guarded, self._work)
        finally:
            if self.failure is None:
                self.failure = self._feed.error

    def _size(self) -> int:
        if self._length is None:
            return self._options.concurrency
        units = -(-self._length // self._reader.batch)
        return min(self._options.concurrency, units)

    async def _guarded(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run a task of the group so that a lone error comes out as itself, not as a group."""
        try:
            await function(*args)
        except Exception as error:  # noqa: BLE001 - handed to the loop over the fan-out
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
        if self._scope is not None:
            self._scope.cancel()

    async def _work(self) -> None:
        while (pending := await self._next()) is not None:
            await self._try(pending)

    async def _next(self) -> _Pending | None:
        """The next unit; waits while the service is down. None when nothing is left."""
        while True:
            if not self._open.is_set():
                await self._open.wait()
            if self._again:
                return self._again.popleft()
            if not await self._feed.wait(self._reader.batch):
                if self._again or not self._open.is_set():
                    continue
                return None
            if not self._open.is_set():
                continue
            pending = self._draw()
            if pending is not None:
                return pending
            await self._moved()

    def _draw(self) -> _Pending | None:
        until = self._yielded + self._held() if self.mode == "ordered" else None
        places = self._feed.take(self._reader, until)
        if not places:
            return None
        return _Pending(self._reader.unit(tuple(places), self._options.paging), places)

    def _held(self) -> int:
        return 2 * self._options.concurrency * self._reader.batch

    async def _moved(self) -> None:
        """Wait until the loop took an outcome, or another worker's key comes free."""
        if self.mode != "ordered" or self._feed.next_place() < self._yielded + self._held():
            await asyncio.sleep(0)
            return
        self._window.clear()
        await self._window.wait()

    def advance(self) -> None:
        """The loop gave one more outcome in order."""
        self._yielded += 1
        self._window.set()

    async def _try(self, pending: _Pending) -> None:
        """Run a unit; what was refused its retries is asked again."""
        error = await self._attempt(pending)
        if error is None:
            return
        if self._successes > pending.began:
            # Others are answered meanwhile: this is no outage, and a key that fails for ever must not be asked for ever.
            pending.strikes += 1
            if pending.strikes > STRIKES:
                await self._settle(pending, error)
                return
            self._again.append(pending)
            return
        self._again.append(pending)
        if self._open.is_set():
            self._open.clear()
            await self._outage(error)

    async def _attempt(self, pending: _Pending) -> CapillaryError | None:
        """Run a unit to its outcomes; gives the error where the session's retry quota was empty, so that it can be asked again."""
        pending.began = self._successes
        try:
            await pending.unit.run(_Emitter(self, pending))
        except CapillaryError as error:
            if error.quota_exhausted:
                return error
            fault = error
        except BaseException:
            await pending.unit.aclose()
            raise
        else:
            self._successes += 1
            return None
        self._successes += not isinstance(fault, _NO_ANSWER)
        await self._settle(pending, fault)
        return None

    async def _outage(self, error: CapillaryError) -> None:
        """Probe with one unit at a time until the service answers. The worker that noticed does it, the others wait."""
        began, answered, round_ = time.monotonic(), self._successes, 0
        while self._successes == answered:
            left = began + self._patience - time.monotonic()
            if left <= 0:
                raise error
            await asyncio.sleep(min(PROBES[min(round_, len(PROBES) - 1)], left))
            round_ += 1
            pending = self._again.popleft() if self._again else self._draw()
            if pending is None:
                break
            fault = await self._attempt(pending)
            if fault is not None:
                error = fault
                error.key = pending.unit.keys[0]
                self._again.append(pending)
        self._open.set()

    async def _settle(self, pending: _Pending, error: CapillaryError) -> None:
        """The unit failed for good: an error of each of its keys, or of all keys."""
        await pending.unit.aclose()
        error.key = pending.unit.keys[0]
        if isinstance(error, _CONCERNS_ALL):
            raise error
        emitter = _Emitter(self, pending)
        for key in pending.unit.keys:
            await emitter.failed(key, error if key == error.key else copy(error))

    async def _refuse(self, place: int, raw: Any, error: InvalidRequestError) -> None:
        error.key = raw
        if self.mode in ("pages", "items"):
            raise error
        await self.put((place, Outcome[Any, Any](raw, error=error)))

    async def put(self, item: Any) -> None:
        """Hand something to the loop; waits while the loop is slower than the service."""
        await self._send.send(item)


class _Emitter:
    """Puts what a unit reads where the mode of the loop wants it."""

    def __init__(self, crew: Crew[Any, Any], pending: _Pending) -> None:
        self._crew = crew
        self._pending = pending
        self._whole = crew.mode in ("outcomes", "ordered")

    async def page(self, key: Any, page: Page[Any]) -> None:
        """One more page of a key."""
        gathered = self._pending.of(key)
        gathered.pages += 1
        gathered.ended = page.last
        if self._whole:
            gathered.items.extend(page.items)
            gathered.warnings.extend(page.warnings)
        else:
            await self._crew.put((key, page))

    async def done(self, key: Any) -> None:
        """The key was read to its end."""
        gathered = self._pending.of(key)
        if self._whole:
            outcome = Outcome[Any, Any](key, tuple(gathered.items), None, tuple(gathered.warnings), gathered.pages)
            await self._crew.put((self._pending.places[key], outcome))
        elif not gathered.ended:
            # The end showed only behind the last full page: an empty page says so.
            await self._crew.put((key, Page[Any]((), gathered.pages + 1, last=True)))

    async def failed(self, key: Any, error: CapillaryError) -> None:
        """The key has no answer."""
        error.key = key
        if not self._whole:
            raise error
        await self._crew.put((self._pending.places[key], Outcome[Any, Any](key, error=error)))
