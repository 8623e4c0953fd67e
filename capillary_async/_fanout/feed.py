"""`Feed`: the input of a fan-out on its way to the workers, read a few hundred keys ahead of them.

Invariant: one task reads the input and closes it, however the run ends; every key read has one place, one that cannot
be too. Knows nothing of pages and requests; run by the crew.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

from capillary_async._fanout.keys import compact
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from capillary_async._fanout.keys import Keys

__all__ = ["Feed", "Measure", "QueuedKey"]

K = TypeVar("K")
K_contra = TypeVar("K_contra", contravariant=True)

AHEAD = 256  # maximum keys read ahead of the workers; a worker that waits for a larger batch has it filled
LINGER = 0.02  # seconds a batch waits for an input that is slower than the service


class QueuedKey(NamedTuple):
    """A key on its way to the workers: its place in the input, and why it is none."""

    place: int
    key: Any
    fault: InvalidRequestError | None


class Measure(Protocol[K_contra]):
    """How many keys make one unit of work."""

    @property
    def batch(self) -> int:
        """Keys a unit at most."""
        ...

    def weigh(self, key: K_contra) -> int:
        """The bytes that a key adds to a request."""
        ...

    def fits(self, count: int, weight: int) -> bool:
        """Whether so many keys of so many bytes are one unit."""
        ...


class Feed(Generic[K]):
    """Keys on their way from the input to the workers."""

    def __init__(self, keys: Keys[K], measure: Measure[K], *, unique: bool) -> None:
        self._keys = keys
        self._measure = measure
        self._seen: set[Any] | None = set() if unique and not keys.distinct else None
        self._queue: deque[QueuedKey] = deque()
        self._weight = 0
        self._filling = 0  # workers that wait for a whole batch
        self._read = 0
        self._place = 0
        self._wanted = asyncio.Event()
        self._ready = asyncio.Event()
        self._ended = False
        self.error: BaseException | None = None

    async def run(self) -> None:
        """Read the input to its end, or to an error of its own, which is kept until the keys before it are answered."""
        iterator: Iterator[Any] | AsyncIterator[Any] = iter(())
        try:
            iterator = self._keys.open()
            if isinstance(iterator, AsyncIterator):
                async for raw in iterator:
                    if self._put(raw):
                        await self._pause()
            else:
                for raw in iterator:
                    if self._put(raw):
                        await self._pause()
        except Exception as error:  # noqa: BLE001 - whatever the input raises is the caller's to see
            self.error = error
        finally:
            self._ended = True
            self._ready.set()
            await self._close(iterator)

    async def _close(self, iterator: Any) -> None:
        """Close a generator that was not read to its end; a file or a cursor is the caller's to close."""
        if inspect.isgenerator(iterator):
            iterator.close()
        elif inspect.isasyncgen(iterator) or (self._keys.is_own(iterator) and hasattr(iterator, "aclose")):
            await iterator.aclose()

    def _put(self, raw: Any) -> bool:
        """Take a key in; True where the reading has to pause."""
        self._read += 1
        entry = self._entry(raw)
        if entry is not None:
            self._queue.append(entry)
            self._weight += self._weigh(entry)
            self._place += 1
            self._ready.set()
        # An input of repeated keys must not hold up the loop.
        return self._full or self._read % AHEAD == 0

    def _weigh(self, entry: QueuedKey) -> int:
        return 0 if entry.fault is not None else self._measure.weigh(entry.key)

    @property
    def _full(self) -> bool:
        return len(self._queue) >= AHEAD and (self._whole or not self._filling)

    @property
    def _whole(self) -> bool:
        """Whether as many keys wait as one unit takes, by number or by weight."""
        count = len(self._queue)
        return count >= self._measure.batch or not self._measure.fits(count, self._weight)

    async def _pause(self) -> None:
        await asyncio.sleep(0)
        while self._full:
            self._wanted.clear()
            await self._wanted.wait()

    def _entry(self, raw: Any) -> QueuedKey | None:
        """The key with its place; None for one that was read before."""
        fault: InvalidRequestError | None = None
        key = mark = raw
        try:
            key = self._keys.check(raw)
            mark = key if self._seen is None else compact(key)
        except InvalidRequestError as error:
            # By its text: what is no key may equal a good one, as True does 1, or have no hash.
            mark, fault = (cast("object", type(raw)), repr(raw)), error
        if self._seen is not None:
            if mark in self._seen:
                return None
            self._seen.add(mark)
        return QueuedKey(self._place, key, fault)

    @property
    def waiting(self) -> bool:
        """Whether keys wait to be taken."""
        return bool(self._queue)

    @property
    def ready(self) -> bool:
        """Whether there is a whole unit, so that `wait` need not be awaited."""
        return bool(self._queue) and (self._ended or self._whole)

    def has(self, until: int | None) -> bool:
        """Whether a key waits whose place is below `until`."""
        return self._head(until) is not None

    async def wait(self) -> bool:
        """Wait until there is work: a whole batch, or what there is of a slow input. False at the end."""
        while not self._queue:
            if self._ended:
                return False
            self._ready.clear()
            await self._ready.wait()
        if self._measure.batch > 1:
            await self._fill()
        return True

    async def _fill(self) -> None:
        self._filling += 1
        self._wanted.set()
        try:
            while not (self._ended or self._whole):
                before = self._read
                await asyncio.sleep(0)
                if self._read == before:
                    await asyncio.sleep(LINGER)
                    return
        finally:
            self._filling -= 1

    def take_refused(self, until: int | None) -> QueuedKey | None:
        """The next entry, if it is no key."""
        head = self._head(until)
        return None if head is None or head.fault is None else self._pop()

    def take(self, until: int | None) -> dict[K, int]:
        """Keys for one unit, with their places below `until`; none where another worker was quicker."""
        if self._measure.batch == 1:
            head = self._head(until)
            return {} if head is None or head.fault is not None else {head.key: self._pop().place}
        places: dict[K, int] = {}
        weight = 0
        while (head := self._head(until)) is not None:
            if head.fault is not None or head.key in places:
                break
            weight += self._measure.weigh(head.key)
            if not self._measure.fits(len(places) + 1, weight):
                break
            places[head.key] = self._pop().place
        return places

    def _head(self, until: int | None) -> QueuedKey | None:
        if not self._queue or (until is not None and self._queue[0].place >= until):
            return None
        return self._queue[0]

    def _pop(self) -> QueuedKey:
        entry = self._queue.popleft()
        self._weight -= self._weigh(entry)
        if len(self._queue) <= AHEAD // 2:
            self._wanted.set()
        return entry
