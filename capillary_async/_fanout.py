"""The same question for many keys: `FanOut`, and the iterator that a loop over it holds.

The rule kept here: no task outlives the loop over it, however the loop ends; a fan-out holds no place, so that looping twice asks twice.
Knows no HTTP; made by the endpoints, looped over by users.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import anyio
from attrs import evolve

from capillary_async._crew import BatchReader, Crew, FanOptions, Keys, Outcome, PagedReader, Plan, Reader
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from capillary_async._config import Paging
    from capillary_async._pager import Owner, Page

__all__ = ["BatchReader", "FanOut", "FanOutIterator", "Outcome", "PagedReader"]

K = TypeVar("K")
T = TypeVar("T")


class FanOutIterator(Generic[T]):
    """One loop over a fan-out. `aclose()` ends it early; being dropped does too."""

    def __init__(self, plan: Plan[Any, Any]) -> None:
        self._plan = plan
        self._mode = plan.mode
        self._loop = asyncio.get_running_loop()
        self._crew: Crew[Any, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._receive: MemoryObjectReceiveStream[Any] | None = None
        self._held: dict[int, Any] = {}
        self._place = 0
        self._items: Iterator[Any] = iter(())
        self._busy = False
        self._ended: str | None = None

    def __aiter__(self) -> FanOutIterator[T]:
        return self

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it belongs to."""
        return self._loop

    async def __anext__(self) -> T:
        self._enter()
        try:
            return cast("T", await self._next())
        except StopAsyncIteration:
            self._ended = self._ended or "end"
            raise
        except asyncio.CancelledError:
            await self._stop("was cancelled while it waited")
            raise
        except BaseException as error:
            await self._stop(f"ended with {type(error).__name__}")
            raise
        finally:
            self._busy = False

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError(
                "this iterator is already waiting in another task; give each task an iterator of its own"
            )
        if self._ended == "end":
            raise StopAsyncIteration
        if self._ended is not None:
            raise RuntimeError(f"this iterator {self._ended}; loop over the fan-out again")
        self._busy = True

    async def _next(self) -> Any:
        if self._mode == "outcomes":
            return (await self._received())[1]
        if self._mode == "pages":
            return await self._received()
        if self._mode == "ordered":
            return await self._in_order()
        while True:
            for item in self._items:
                return item
            _, page = await self._received()
            self._items = iter(page.items)

    async def _in_order(self) -> Any:
        while self._place not in self._held:
            place, outcome = await self._received()
            self._held[place] = outcome
        outcome = self._held.pop(self._place)
        self._place += 1
        if self._crew is not None:
            self._crew.advance()
        return outcome

    async def _received(self) -> Any:
        """What the workers sent next.

        Raises:
            StopAsyncIteration: All is done.
            CapillaryError: What ended the run, as itself; the input's own error likewise.
        """
        receive = self._receive or self._start()
        try:
            return await receive.receive()
        except anyio.EndOfStream:
            pass
        receive.close()
        if self._task is not None:
            await asyncio.wait([self._task])
        failure = self._crew.failure if self._crew is not None else None
        if failure is not None:
            raise failure
        if self._ended not in (None, "end"):
            raise RuntimeError(f"this iterator {self._ended}; loop over the fan-out again")
        raise StopAsyncIteration

    def _start(self) -> MemoryObjectReceiveStream[Any]:
        send, receive = anyio.create_memory_object_stream[Any](self._plan.options.concurrency)
        self._receive = receive
        self._crew = Crew(self._plan, send)
        # The task holds the crew and nothing of this iterator, so that dropping the iterator ends it.
        self._task = self._loop.create_task(self._crew.run())
        weakref.finalize(self, _drop, self._task, send, receive, self._loop).atexit = False
        return receive

    async def _stop(self, why: str) -> None:
        self._ended = self._ended or why
        if self._task is not None and self._receive is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._receive.close()

    async def aclose(self) -> None:
        """End the loop early; no request stays under way. Closing twice is fine."""
        await self._stop("end")

    async def end(self, why: str) -> None:
        """End it for the session."""
        if asyncio.get_running_loop() is self._loop:
            await self._stop(why)
            return
        self._ended = self._ended or why
        if self._task is not None:
            _call_in(self._loop, self._task.cancel)


def _drop(
    task: asyncio.Task[None],
    send: MemoryObjectSendStream[Any],
    receive: MemoryObjectReceiveStream[Any],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Cancel the workers of an iterator that nobody holds any more."""

    def stop() -> None:
        if not task.done():
            task.cancel()
        send.close()
        receive.close()

    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here or loop.is_closed():
        if loop.is_closed():
            send.close()
            receive.close()
            return
        stop()
        return
    _call_in(loop, stop)


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # closed, and its tasks with it
        return


class FanOut(Generic[K, T]):
    """The same question for many keys, asked concurrently: `async for outcome in fan` gives one `Outcome` a key, as they finish.

    A failed key does not stop the rest. An outage does not burn the input: while the session's retry quota is empty no new key is taken,
    and keys that failed for want of retries are asked again. Raised from the loop is what concerns every key: `AuthenticationError`,
    `TLSError`, and an outage longer than `Timeouts.call`; keys without an outcome were not answered.

    The input is any iterable or async iterable, read by one task at most a few hundred keys ahead; its own error is raised behind the
    outcomes in flight.
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
        reader: Reader[K, T],
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
            InvalidRequestError: A concurrency that is no positive whole number, or a page size the endpoint does not take.
        """
        if concurrency is not None and (
            not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1
        ):
            raise InvalidRequestError(
                f"concurrency takes a whole number of at least 1, got {concurrency!r}", argument="concurrency"
            )
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
        """One outcome a key, in the order of the input; at most 2 x concurrency are held back (times the batch size for batches)."""
        return self._iterate("ordered")

    def items(self) -> FanOutIterator[T]:
        """The records of all keys, as they come.

        Raises (while looping):
            CapillaryError: The first error of a key, as itself, with `.key`.
        """
        return self._iterate("items")

    def pages(self) -> FanOutIterator[tuple[K, Page[T]]]:
        """`(key, page)` as they come, for customers too big to hold; the last page of a key has `.last` true and may be empty.

        Raises (while looping):
            CapillaryError: The first error of a key, as itself, with `.key`.
        """
        return self._iterate("pages")

    async def collect(self) -> dict[K, Outcome[K, T]]:
        """All outcomes by key, errors included."""
        outcomes: dict[K, Outcome[K, T]] = {}
        iterator = aiter(self)
        try:
            async for outcome in iterator:
                outcomes[outcome.key] = outcome
        finally:
            await iterator.aclose()
        return outcomes

    def __repr__(self) -> str:
        length = self._plan.keys.length
        return f"<FanOut {self._name} over {'an iterator' if length is None else f'{length} keys'}>"
