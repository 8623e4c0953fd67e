"""The input of a fan-out: `KeySource`, checked, and `KeyQueue`, read a few hundred keys ahead of the workers.

Invariant: an input with a length is checked whole before the first request; an iterator is read once, by one task,
which closes it however the run ends; each key read has one place in the input, an invalid one too.
Called by `FanOut` (`KeySource`) and `WorkerPool` (`KeyQueue`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from attrs import fields, has

from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from capillary_async._fanout.work import Reader

__all__ = ["READ_BY", "KeyQueue", "KeySource", "QueuedKey", "compact"]

K = TypeVar("K")

# How the plain iterator of a run is read, where its caller has no loop; None to read it in the event loop.
READ_BY: ContextVar[Callable[[Iterator[Any]], AsyncIterator[Any]] | None] = ContextVar("READ_BY", default=None)

AHEAD = 256  # maximum keys read ahead of the workers; a worker that waits for a larger batch has it filled
LINGER = 0.02  # seconds a batch waits for an input that is slower than the service


class KeySource(Generic[K]):
    """The input: checked whole where it has a length, key by key where it has none."""

    def __init__(self, source: Any, check: Callable[[Any], K], name: str) -> None:
        self._check = check
        self._name = name
        self._spent = False
        self.checked = False
        self._source: Any = self._accepted(source)
        self.length = len(self._source) if self.checked else None
        self.distinct = isinstance(self._source, range)

    def _accepted(self, source: Any) -> Any:
        if isinstance(source, str | bytes | bytearray) or not isinstance(source, Iterable | AsyncIterable):
            raise self._refused(source)
        if isinstance(source, range):
            # A range may be too long to check key by key, and its two ends are enough.
            for end in (source[0], source[-1]) if source else ():
                self._check(end)
            self.checked = True
            return source
        if isinstance(source, Sized) and not isinstance(source, AsyncIterable | Iterator):
            self.checked = True
            return tuple(self._check(key) for key in cast("Iterable[Any]", source))
        return cast("Any", source)

    def _refused(self, source: Any) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._name} takes an iterable or async iterable of keys, e.g. a list, got {type(source).__name__}",
            argument=self._name,
        )

    def open(self) -> Iterator[Any] | AsyncIterator[Any]:
        """An iterator over the input, plain or async.

        Raises:
            RuntimeError: The input is an iterator that was read before.
        """
        source = self._source
        iterator: Iterator[Any] | AsyncIterator[Any] = aiter(source) if hasattr(source, "__aiter__") else iter(source)
        self._spend(iterator)
        return iterator

    def _spend(self, iterator: object) -> None:
        if iterator is not self._source:
            return
        if self._spent or _finished(iterator):
            raise RuntimeError(f"{self._name} is an iterator that was read before: give a list to loop twice")
        self._spent = True

    def is_own(self, iterator: object) -> bool:
        """Whether the iterator was made here, and not given by the caller."""
        return iterator is not self._source

    def check(self, key: Any) -> K:
        """The key as the endpoint understands it.

        Raises:
            InvalidRequestError: The key is invalid.
        """
        return cast("K", key) if self.checked else self._check(key)


class QueuedKey(NamedTuple):
    """A key in the queue, with its place in the input; `fault` is set where the key is invalid."""

    place: int
    key: Any
    fault: InvalidRequestError | None


class KeyQueue(Generic[K]):
    """The keys of one run, buffered between the input and the workers."""

    def __init__(self, source: KeySource[K], reader: Reader[K], *, unique: bool) -> None:
        self._source = source
        self._reader = reader
        self._seen: set[Any] | None = set() if unique and not source.distinct else None
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
        """Read the input to its end; its own error is kept until the keys before it are done."""
        iterator: Iterator[Any] | AsyncIterator[Any] = iter(())
        try:
            iterator = self._source.open()
            read_by = READ_BY.get()
            if read_by is not None and isinstance(iterator, Iterator) and not self._source.checked:
                iterator = read_by(iterator)
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
        """Close a generator that was not read to its end; the caller closes a file or a cursor."""
        if inspect.isgenerator(iterator):
            iterator.close()
        elif inspect.isasyncgen(iterator) or (self._source.is_own(iterator) and hasattr(iterator, "aclose")):
            await iterator.aclose()

    def _put(self, raw: Any) -> bool:
        """Queue a key; True where the reading has to pause."""
        self._read += 1
        entry = self._entry(raw)
        if entry is not None:
            self._queue.append(entry)
            self._weight += self._weigh(entry)
            self._place += 1
            self._ready.set()
        # An input of repeated keys must not block the event loop.
        return self._full or self._read % AHEAD == 0

    def _weigh(self, entry: QueuedKey) -> int:
        return 0 if self._reader.batch == 1 or entry.fault is not None else self._reader.weigh(entry.key)

    @property
    def _full(self) -> bool:
        return len(self._queue) >= AHEAD and (self._whole or not self._filling)

    @property
    def _whole(self) -> bool:
        """Whether the queue has the keys of one whole unit, by number or by weight."""
        count = len(self._queue)
        return count >= self._reader.batch or not self._reader.fits(count, self._weight)

    async def _pause(self) -> None:
        await asyncio.sleep(0)
        while self._full:
            self._wanted.clear()
            await self._wanted.wait()

    def _entry(self, raw: Any) -> QueuedKey | None:
        """The key with its place; None for a repeated key."""
        fault: InvalidRequestError | None = None
        key = mark = raw
        try:
            key = self._source.check(raw)
            mark = key if self._seen is None else compact(key)
        except InvalidRequestError as error:
            # By its text: an invalid key may equal a valid one, as True equals 1, or have no hash.
            mark, fault = (cast("object", type(raw)), repr(raw)), error
        if self._seen is not None:
            if mark in self._seen:
                return None
            self._seen.add(mark)
        return QueuedKey(self._place, key, fault)

    @property
    def waiting(self) -> bool:
        """Whether the queue has keys."""
        return bool(self._queue)

    @property
    def ready(self) -> bool:
        """Whether a unit can be taken without awaiting `wait`."""
        return bool(self._queue) and (self._ended or self._whole)

    def has(self, until: int | None) -> bool:
        """Whether the next key has a place below `until`."""
        return self._head(until) is not None

    async def wait(self) -> bool:
        """Wait for a whole batch, or for at least one key of a slow input. False at the end."""
        while not self._queue:
            if self._ended:
                return False
            self._ready.clear()
            await self._ready.wait()
        if self._reader.batch > 1:
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
        """The next entry, if its key is invalid."""
        head = self._head(until)
        return None if head is None or head.fault is None else self._pop()

    def take(self, until: int | None) -> dict[K, int]:
        """Keys for one unit, with their places below `until`; empty where another worker took them first."""
        if self._reader.batch == 1:
            head = self._head(until)
            return {} if head is None or head.fault is not None else {head.key: self._pop().place}
        places: dict[K, int] = {}
        weight = 0
        while (head := self._head(until)) is not None:
            if head.fault is not None or head.key in places:
                break
            weight += self._reader.weigh(head.key)
            if not self._reader.fits(len(places) + 1, weight):
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


def compact(key: Any) -> Any:
    """A value that identifies a repeated key: the key itself where it is small, else a digest of 16 bytes.

    Of two keys with the same digest only one would be read; among 10^12 keys the probability is below 10^-14.
    """
    if isinstance(key, int) or not has(cast("type[Any]", type(key))):
        return key
    return blake2b(_spelt(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _spelt(value: Any) -> str:
    """A text that is the same for equal values only: it has the fields that `==` compares, in the form it compares."""
    kind = cast("Any", type(value))
    if has(kind):
        own = [one for one in fields(kind) if one.eq]
        parts = [getattr(value, one.name) for one in own]
        spelt = [_spelt(one.eq_key(part) if one.eq_key else part) for one, part in zip(own, parts, strict=True)]
        return f"{kind.__qualname__}({', '.join(spelt)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_spelt, cast('tuple[Any, ...]', value)))},)"
    # The repr of an enumeration's member has its name, and the member equals its number or text.
    if isinstance(value, int):
        return repr(int(value))
    return repr(str.__str__(value)) if isinstance(value, str) else repr(value)


def _finished(iterator: object) -> bool:
    """Whether a generator ran to its end; False for other iterators, which do not show it."""
    if inspect.isgenerator(iterator):
        return iterator.gi_frame is None
    return inspect.isasyncgen(iterator) and iterator.ag_frame is None
