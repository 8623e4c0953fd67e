"""`Seen`: what a reading remembers of the records it was given; `Past`: the part of it that a position carries.

Invariant: a key once seen is known however many pages lie between, and so is its content; the records themselves are
not kept. Used by the walk; positions hold a `Past`, so that a reading begun from one knows what was given before it.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import astuple, field, frozen, has

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

__all__ = ["Past", "Seen", "Stored", "content_of"]

T = TypeVar("T")

# Pages whose bodies are kept to compare contents, which costs memory (about 70 KB a page of 100) and no time. Contents
# of the records behind them are kept as 8 bytes each, which takes as long as decoding them: a Decimal is slow to hash.
# Decoded records take ten times the memory of their body.
BODIES, DECODED = 128, 16
# What a position takes along when it is pickled: 8 bytes a key, and 8 a content.
STORED_KEYS, STORED_CONTENTS = 4_096, 128


@frozen(eq=False)
class Stored:
    """Digests of keys, and of the contents of the last of them, as they are pickled. In order, the newest last."""

    keys: bytes = b""
    contents: bytes = b""
    stale: int = 0
    known: frozenset[int] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "known", frozenset(array("Q", self.keys)))

    def content(self, digest: int) -> int | None:
        """The digest of the content under a key's digest; None where only the key is known."""
        keys, contents = array("Q", self.keys), array("Q", self.contents)
        tail = keys[len(keys) - len(contents) :]
        return contents[tail.index(digest)] if digest in tail else None


@frozen(eq=False)
class Past:
    """The first records that a `Seen` came to know: those that were given before a position.

    Attributes:
        seen: Shared with the reading that made the position, which goes on adding to it.
        keys: How many of its keys, in order.
        loose: How many of its records without a key.
        stale: Whether the page before had nothing that was not seen earlier.
    """

    seen: Seen[Any]
    keys: int
    loose: int
    stale: int = 0

    def after(self, items: Sequence[Any]) -> Past | None:
        """What is known once these records were given too."""
        key = self.seen.key
        keyed = sum(key(item) is not None for item in items)
        return self.seen.past(self.keys + keyed, self.loose)

    def stored(self) -> Stored:
        """The part that is pickled: the keys given last."""
        return self.seen.stored(self.keys, self.stale)


class Seen(Generic[T]):
    """Keys and contents of the records of one list, in the order in which they came.

    Args:
        key: The identity of a record; None where a part of it is null.
        past: What was seen before this reading; None at a list's beginning.
    """

    def __init__(self, key: Callable[[T], Hashable | None], past: Past | Stored | None = None) -> None:
        self.key = key
        self._near: dict[Hashable, int] = {}  # the page in `_bodies` that has the record
        self._bodies: list[Callable[[], Sequence[T]]] = []
        self._far: dict[Hashable, None] = {}
        self._digests = array("q")  # of the contents of `_far`
        self._index: dict[Hashable, int] | None = None  # both together, once one is looked for
        self._loose: dict[int, None] = {}  # contents of records without a key
        self._stored = past if isinstance(past, Stored) else Stored()
        if isinstance(past, Past):
            self._go_on(past)

    def _go_on(self, past: Past) -> None:
        before = past.seen
        self._near = dict(islice(before._near.items(), past.keys))  # noqa: SLF001 - of this class
        self._bodies = list(before._bodies)  # noqa: SLF001
        far = past.keys - len(self._near)
        self._far = dict.fromkeys(islice(before._far, far))  # noqa: SLF001
        self._digests = before._digests[:far]  # noqa: SLF001
        self._loose = dict.fromkeys(islice(before._loose, past.loose))  # noqa: SLF001
        self._stored = before._stored  # noqa: SLF001

    def past(self, keys: int, loose: int, stale: int = 0) -> Past | None:
        """The first so many keys and records without one; None where nothing is known."""
        return Past(self, keys, loose, stale) if keys or loose or stale or self._stored.known else None

    @property
    def keys(self) -> int:
        """How many there are."""
        return len(self._near) + len(self._far)

    @property
    def loose(self) -> int:
        """How many different records without a key there are."""
        return len(self._loose)

    def knows_any(self, keys: set[Hashable]) -> bool:
        """Whether one of the keys was seen."""
        if not self._near.keys().isdisjoint(keys) or (self._far and not self._far.keys().isdisjoint(keys)):
            return True
        return bool(self._stored.known) and not self._stored.known.isdisjoint(map(_digest, keys))

    def knows(self, key: Hashable) -> bool:
        """Whether the key was seen."""
        return (
            key in self._near or key in self._far or (bool(self._stored.known) and _digest(key) in self._stored.known)
        )

    def knows_loose(self, items: Iterable[T]) -> bool:
        """Whether all of these records without a key were seen."""
        return all(_content(item) in self._loose for item in items)

    def differing(self, records: Sequence[tuple[Hashable, T]]) -> Hashable | None:
        """The first key that was seen with other content; None where there is none."""
        pages: dict[int, dict[Hashable | None, T]] = {}
        for key, item in records:
            place = self._near.get(key)
            if place is not None and place not in pages:
                pages[place] = {self.key(one): one for one in reversed(self._bodies[place]())}
            same = pages[place][key] == item if place is not None else self._same(key, item)
            if not same:
                return key
        return None

    def _same(self, key: Hashable, item: T) -> bool:
        if key in self._far:
            if self._index is None:
                self._index = dict(zip(self._far, self._digests, strict=True))
            return self._index[key] == _content(item)
        known = self._stored.content(_digest(key)) if self._stored.known else None
        return known is None or known == _digest(item)

    def add(
        self,
        keys: Sequence[Hashable],
        items: Sequence[T],
        *,
        loose: Sequence[T],
        again: Callable[[], Sequence[T]],
        decoded: bool,
    ) -> None:
        """Remember a page.

        Args:
            keys: Those that were not seen, each once, in order.
            items: Their records.
            loose: The records without a key.
            again: Gives all records of the page once more.
            decoded: Whether it holds them decoded, and not their body.
        """
        if not self._far and len(self._bodies) < (DECODED if decoded else BODIES):
            self._near.update(dict.fromkeys(keys, len(self._bodies)))
            self._bodies.append(again)
        else:
            digests = _contents_of(items)
            self._far.update(dict.fromkeys(keys))
            self._digests.extend(digests)
            if self._index is not None:
                self._index.update(zip(keys, digests, strict=True))
        if loose:
            self._loose.update(dict.fromkeys(map(_content, loose)))

    def stored(self, count: int, stale: int) -> Stored:
        """The last of the first `count` keys, as digests, and the contents of the last of these."""
        near, far = min(count, len(self._near)), max(count - len(self._near), 0)
        first = max(count - STORED_KEYS, 0)
        keys = [*islice(self._near, first, near), *islice(self._far, max(first - near, 0), far)]
        digests = array("Q", map(_digest, keys))
        room = STORED_KEYS - len(digests)
        older = array("Q", self._stored.keys)[-room:] if room else array("Q")
        contents = array("Q")
        if not far:  # contents behind the bodies are known by a digest of this process alone
            contents = self._contents(keys[-STORED_CONTENTS:])
        return Stored((older + digests).tobytes(), contents.tobytes(), stale)

    def _contents(self, keys: Sequence[Hashable]) -> array[int]:
        pages = {place: {self.key(one): one for one in reversed(self._bodies[place]())}
                 for place in {self._near[key] for key in keys}}  # fmt: skip
        return array("Q", [_digest(pages[self._near[key]][key]) for key in keys])


def _content(item: Any) -> int:
    """A digest of a record for this process: the record's own hash, where it has one."""
    try:
        return hash(item)
    except TypeError:
        return hash(content_of(item))


def _contents_of(items: Sequence[Any]) -> list[int]:
    try:
        return list(map(hash, items))  # three times as fast as one by one
    except TypeError:
        return list(map(_content, items))


def content_of(item: Any) -> str:
    """The whole content of a record as text, the same in every process. Its repr is cut, so it is not that."""
    return repr(astuple(item)) if has(cast("type[Any]", type(item))) else repr(item)


def _digest(value: Any) -> int:
    """A digest of a key or record that is the same in every process."""
    text = content_of(value).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
