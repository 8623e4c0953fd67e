"""`Keys`: what a user may give a fan-out to ask for.

Invariant: an input with a length is checked whole before anything is asked; an iterator is read once. Made by `FanOut`,
read by the feed.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import fields, has

from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Keys", "compact"]

K = TypeVar("K")


class Keys(Generic[K]):
    """The input: checked whole where it has a length, key by key where it has none."""

    def __init__(self, source: Any, check: Callable[[Any], K], name: str) -> None:
        self._check = check
        self._name = name
        self._spent = False
        self._checked = False
        self._source: Any = self._accepted(source)
        self.length = len(self._source) if self._checked else None
        self.distinct = isinstance(self._source, range)

    def _accepted(self, source: Any) -> Any:
        if isinstance(source, str | bytes | bytearray) or not isinstance(source, Iterable | AsyncIterable):
            raise self._refused(source)
        if isinstance(source, range):
            # A range may be too long to look at one by one, and its ends say all.
            for end in (source[0], source[-1]) if source else ():
                self._check(end)
            self._checked = True
            return source
        if isinstance(source, Sized) and not isinstance(source, AsyncIterable | Iterator):
            self._checked = True
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
            InvalidRequestError: It is none.
        """
        return cast("K", key) if self._checked else self._check(key)


def compact(key: Any) -> Any:
    """What is remembered of a key to know it again: itself where it is small, else a digest of 16 bytes.

    Of two keys with the same digest one would not be asked; among 10^12 keys that is less likely than 10^-14.
    """
    if not has(cast("type[Any]", type(key))):
        return key
    return blake2b(_spelt(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _spelt(value: Any) -> str:
    """A text that equal values share, and no others: by the fields that count in `==`, as they count there."""
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
    """Whether a generator ran to its end; of other iterators that cannot be known."""
    if inspect.isgenerator(iterator):
        return iterator.gi_frame is None
    return inspect.isasyncgen(iterator) and iterator.ag_frame is None
