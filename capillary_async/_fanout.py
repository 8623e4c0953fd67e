"""The same question for many keys: `FanOut`, and the iterator that a loop over it holds.

The rule kept here: no task outlives the loop over it, however the loop ends; a fan-out holds no place, so that looping
twice asks twice. Knows no HTTP; made by the endpoints, looped over by users.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

import anyio
from attrs import evolve

from capillary_async._config import Paging
from capillary_async._crew import Crew
from capillary_async._feed import Keys
from capillary_async._plan import FanOptions, Outcome, Plan
from capillary_async._units import BatchReader, PagedReader, Reader
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from capillary_async._pager import Owner, Page

__all__ = ["BatchReader", "FanOut", "FanOutIterator", "Outcome", "PagedReader"]

K = TypeVar("K")
T = TypeVar("T")

_END = "end"


class _Run(NamedTuple):
    """What stands behind one loop: the crew, its task, and what it sends."""

    crew: Crew[Any, Any]
    task: asyncio.Task[None]
    receive: MemoryObjectReceiveStream[Any]


class FanOutIterator(Generic[T]):
    """One loop over a fan-out. `aclose()` ends it early; being dropped does too."""

    def __init__(self, plan: Plan[Any, Any]) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._run: _Run | None = None
        self._held: dict[int, Any] = {}
        self._place = 0
        self._items: Iterator[Any] = iter(())
        self._busy = False
        self._ended: str | None = None  # `_END`, or why nothing more can come

    def __aiter__(self) -> FanOutIterator[T]:
        return self

    async def __anext__(self) -> T:
        self._enter()
        try:
            return cast("T", await self._next())
        except BaseException as error:
            await self._stop(_reason(error))
            raise
        finally:
            self._busy = False

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError(
                "this iterator is already waiting in another task; give each task an iterator of its own"
            )
        if self._ended == _END:
            raise StopAsyncIteration
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; loop over the fan-out again")
        self._busy = True

    async def _next(self) -> Any:
        run = self._run or self._start()
        if self._plan.mode == "outcomes":
            return (await self._received(run))[1]
        if self._plan.mode == "pages":
            return await self._received(run)
        if self._plan.mode == "ordered":
            return await self._in_order(run)
        while True:
            for item in self._items:
                return item
            _, page = await self._received(run)
            self._items = iter(page.items)

    async def _in_order(self, run: _Run) -> Any:
        while self._place not in self._held:
            place, outcome = await self._received(run)
            self._held[place] = outcome
        outcome = self._held.pop(self._place)
        self._place += 1
        run.crew.advance()
        return outcome

    async def _received(self, run: _Run) -> Any:
        """What the workers sent next.

        Raises:
            StopAsyncIteration: All is done.
            CapillaryError: What ended the run, as itself; the input's own error likewise.
        """
        try:
            return await run.receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            pass
        # Outside the handler, so that what is raised has no context of the stream's.
        await asyncio.wait([run.task])
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; loop over the fan-out again")
        if run.crew.failure is not None:
            raise run.crew.failure
        raise StopAsyncIteration

    def _start(self) -> _Run:
        send, receive = anyio.create_memory_object_stream[Any](self._plan.options.concurrency)
        crew: Crew[Any, Any] = Crew(self._plan, send)
        # The task holds the crew and nothing of this iterator, so that dropping the iterator ends it.
        task = self._loop.create_task(crew.run())
        weakref.finalize(self, _drop, task, send, receive, self._loop).atexit = False
        self._run = _Run(crew, task, receive)
        return self._run

    async def _stop(self, why: str) -> None:
        """Cancel the workers and wait until they are gone. Stopping twice is fine."""
        first, self._ended = self._ended is None, self._ended or why
        if self._run is None:
            return
        if first:
            self._run.task.cancel()
        self._run.receive.close()
        await asyncio.wait([self._run.task])

    async def aclose(self) -> None:
        """End the loop early; no request stays under way. Closing twice is fine."""
        await self._stop("was closed while it waited" if self._busy else _END)

    async def end(self, why: str) -> None:
        """End it for the session."""
        if asyncio.get_running_loop() is self._loop:
            await self._stop(why)
            return
        self._ended = self._ended or why
        if self._run is not None:
            _call_in(self._loop, self._run.task.cancel)


def _reason(error: BaseException) -> str:
    if isinstance(error, StopAsyncIteration):
        return _END
    if isinstance(error, asyncio.CancelledError):
        return "was cancelled while it waited"
    return f"ended with {type(error).__name__}"


def _drop(
    task: asyncio.Task[None],
    send: MemoryObjectSendStream[Any],
    receive: MemoryObjectReceiveStream[Any],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Cancel the workers of an iterator that nobody holds any more, wherever that is noticed."""

    def stop() -> None:
        if not loop.is_closed():
            task.cancel()
        send.close()
        receive.close()

    if loop.is_closed() or _running_loop() is loop:
        stop()
    else:
        _call_in(loop, stop)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # closed, and its tasks with it
        return


class FanOut(Generic[K, T]):
    """The same question for many keys, asked concurrently.

    `async for outcome in fan` gives one `Outcome` a key, as they finish.

    A failed key does not stop the rest. An outage does not burn the input: while the session's retry quota is empty no
    new key is taken, and keys that failed for want of retries are asked again. Raised from the loop is what concerns
    every key: `AuthenticationError`, `TLSError`, and an outage longer than `Timeouts.call`; keys without an outcome
    were not answered.

    The input is any iterable or async iterable, read by one task at most a few hundred keys ahead; its own error is
    raised behind the outcomes in flight.
    """

    __slots__ = ("__weakref__", "_name", "_owner", "_plan")

    def __init__(self, plan: Plan[K, T], name: str, owner: Owner) -> None:
        self._plan = plan
        self._name = name
        self._owner = owner

    @classmethod
    def over(
        cls,
        source: Any,
        reader: Reader[K],
        *,
        argument: str,
        name: str,
        concurrency: int,
        paging: Paging,
        patience: float,
        owner: Owner,
    ) -> FanOut[K, T]:
        """A fan-out over an input, which is checked here where it has a length. For the endpoints."""
        keys = Keys(source, reader.check, argument)
        return cls(Plan(keys, reader, FanOptions(concurrency, paging), patience), name, owner)

    def options(
        self, *, concurrency: int | None = None, paging: Paging | None = None, unique: bool | None = None
    ) -> FanOut[K, T]:
        """A copy that works otherwise; what is not given stays.

        Args:
            concurrency: Workers at most; the session's `Limits.concurrency` bounds their requests all the same.
            paging: How each key's list is read.
            unique: False to ask repeated keys again and save the memory of remembering them (about 70 bytes a key).

        Raises:
            InvalidRequestError: A value that cannot be, or a page size the endpoint does not take.
        """
        whole = isinstance(concurrency, int) and not isinstance(concurrency, bool) and concurrency >= 1
        _refuse_unless(concurrency is None or whole, "concurrency", "a whole number of at least 1", concurrency)
        _refuse_unless(paging is None or isinstance(cast("object", paging), Paging), "paging", "a Paging", paging)
        _refuse_unless(unique is None or isinstance(cast("object", unique), bool), "unique", "True or False", unique)
        given = {"concurrency": concurrency, "paging": paging, "unique": unique}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        options = evolve(self._plan.options, **changed)
        self._plan.reader.check_paging(options.paging)
        return FanOut(evolve(self._plan, options=options), self._name, self._owner)

    def _iterate(self, mode: str) -> FanOutIterator[Any]:
        iterator: FanOutIterator[Any] = FanOutIterator(evolve(self._plan, mode=mode))
        self._owner.track(iterator)
        return iterator

    def __aiter__(self) -> FanOutIterator[Outcome[K, T]]:
        """One outcome a key, as they finish."""
        return self._iterate("outcomes")

    def ordered(self) -> FanOutIterator[Outcome[K, T]]:
        """One outcome a key, in the order of the input.

        At most 2 x concurrency units are held back: that many outcomes, or batches of outcomes.
        """
        return self._iterate("ordered")

    def items(self) -> FanOutIterator[T]:
        """The records of all keys, as they come.

        Raises (while looping):
            CapillaryError: The first error of a key, as itself, with `.key`.
        """
        return self._iterate("items")

    def pages(self) -> FanOutIterator[tuple[K, Page[T]]]:
        """`(key, page)` as they come, for customers too big to hold.

        The last page of a key has `.last` true and may be empty.

        Raises (while looping):
            CapillaryError: The first error of a key, as itself, with `.key`.
        """
        return self._iterate("pages")

    async def collect(self) -> dict[K, Outcome[K, T]]:
        """All outcomes by key, errors included.

        What is no key stands under itself, or under its `repr` where it has no hash or equals a key, as `True` does 1.
        """
        outcomes: dict[Any, Outcome[K, T]] = {}
        refused: list[Outcome[K, T]] = []
        iterator = aiter(self)
        try:
            async for outcome in iterator:
                if isinstance(outcome.error, InvalidRequestError):
                    refused.append(outcome)
                else:
                    outcomes[outcome.key] = outcome
        finally:
            await iterator.aclose()
        for outcome in refused:
            outcomes[_name_beside(outcomes, outcome.key)] = outcome
        return outcomes

    def __repr__(self) -> str:
        length = self._plan.keys.length
        return f"<FanOut {self._name} over {'an iterator' if length is None else f'{length} keys'}>"


def _refuse_unless(right: bool, name: str, allowed: str, came: object) -> None:  # noqa: FBT001
    if not right:
        raise InvalidRequestError(f"{name} takes {allowed}, got {came!r}", argument=name)


def _name_beside(outcomes: dict[Any, Any], key: Any) -> Any:
    """What stands for a refused key among others."""
    try:
        return repr(key) if key in outcomes else key
    except TypeError:  # it has no hash
        return repr(key)
