"""`Seen`: the keys and contents of the records that a reading read; `Past`: the part of them that a position carries.

Invariant: a key once seen is known however many pages lie between, and so is its content; the records themselves are
not kept. Called by `DuplicateFilter`; a `Position` has a `Past`, so that a reading that starts there knows the records
before it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import define, field, frozen

from capillary_async._paging.contents import digests_of, loose_digest, stable_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

__all__ = ["Past", "Seen", "Stored"]

T = TypeVar("T")

# Pages whose bodies are kept to compare contents, which costs memory (about 70 KB per page of 100) and no time. The
# contents of later records are kept as 8 bytes each, which takes as long as decoding them: a Decimal is slow to hash.
# Decoded records take ten times the memory of their body.
BODIES, DECODED = 128, 16
# Maximum digests in a pickled position, of 8 bytes each.
STORED_KEYS, STORED_CONTENTS = 4_096, 128


@frozen(eq=False)
class Stored:
    """Digests of keys, and of the contents of the last of these, as they are pickled; the newest are last."""

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


_NOTHING = Stored()


@define(eq=False)
class Past:
    """The first records of a `Seen`: those that were given before a position. Never changed.

    Attributes:
        seen: Shared with the reading that made the position, which continues to add to it.
        keys: Number of its keys, in order.
        loose: Number of its records without a key.
        stale: 1 where the page before had no new record.
    """

    seen: Seen[Any]
    keys: int
    loose: int
    stale: int = 0

    def after(self, items: Sequence[Any]) -> Past | None:
        """The past once these records are given too."""
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
        past: The records before this reading; None at the beginning of a list.
    """

    def __init__(self, key: Callable[[T], Hashable | None], past: Past | Stored | None = None) -> None:
        self.key = key
        self._known: set[Hashable] = set()
        self._order: list[Sequence[Hashable]] = []  # the same, page after page
        self._bodies: list[Callable[[], Sequence[T]]] = []
        self._firsts: list[int] = []  # the number of the first key of each of these pages
        self._near = 0  # number of their keys; the contents of later keys are in `_digests`
        self._digests = array("q")
        self._numbers: dict[Hashable, int] | None = None  # of all keys, once one is looked for
        self._loose: dict[int, None] = {}  # contents of records without a key
        self._stored = past if isinstance(past, Stored) else _NOTHING
        if isinstance(past, Past):
            self._continue(past)

    def _continue(self, past: Past) -> None:
        before = past.seen
        keys = list(before._first(past.keys))  # noqa: SLF001 - of this class
        self._known.update(keys)
        self._order.append(keys)
        self._near = min(past.keys, before._near)  # noqa: SLF001
        pages = bisect_left(before._firsts, self._near)  # noqa: SLF001
        self._bodies, self._firsts = before._bodies[:pages], before._firsts[:pages]  # noqa: SLF001
        self._digests = before._digests[: past.keys - self._near]  # noqa: SLF001
        self._loose = dict.fromkeys(islice(before._loose, past.loose))  # noqa: SLF001
        self._stored = before._stored  # noqa: SLF001

    def _first(self, count: int, start: int = 0) -> Iterator[Hashable]:
        """The first `count` keys, without the first `start` of them."""
        return islice(chain.from_iterable(self._order), start, count)

    def past(self, keys: int, loose: int, stale: int = 0) -> Past | None:
        """The first `keys` keys and `loose` records without a key; None where nothing is known."""
        return Past(self, keys, loose, stale) if keys or loose or stale or self._stored.known else None

    def now(self, *, skipped: int = 0) -> Past:
        """All that is known now; `skipped` keys of the next page count as given before it."""
        return Past(self, len(self._known) + skipped, len(self._loose))

    def given(self, stale: int = 0) -> Past | None:
        """The same, or None where nothing is known."""
        return self.past(len(self._known), len(self._loose), stale)

    def knows_any(self, keys: frozenset[Hashable]) -> bool:
        """Whether one of the keys was seen."""
        if not self._known.isdisjoint(keys):
            return True
        return bool(self._stored.known) and not self._stored.known.isdisjoint(map(stable_digest, keys))

    def knows(self, key: Hashable) -> bool:
        """Whether the key was seen."""
        return key in self._known or (bool(self._stored.known) and stable_digest(key) in self._stored.known)

    def knows_loose(self, items: Iterable[T]) -> bool:
        """Whether all of these records without a key were seen."""
        return all(loose_digest(item) in self._loose for item in items)

    def differing(self, records: Sequence[tuple[Hashable, T]]) -> Hashable | None:
        """The first key that was seen with other content; None where there is none."""
        if self._numbers is None:
            self._numbers = {key: number for number, key in enumerate(self._first(len(self._known)))}
        pages: dict[int, dict[Hashable | None, T]] = {}
        for key, item in records:
            number = self._numbers.get(key)
            if number is None:
                same = self._same_as_stored(key, item)
            elif number < self._near:
                same = self._kept(number, pages)[key] == item
            else:
                same = self._digests[number - self._near] == digests_of((item,))[0]
            if not same:
                return key
        return None

    def _kept(self, number: int, pages: dict[int, dict[Hashable | None, T]]) -> dict[Hashable | None, T]:
        """The records of the page that has a key, which is decoded once for all of `pages`."""
        page = bisect_right(self._firsts, number) - 1
        if page not in pages:
            pages[page] = {self.key(one): one for one in reversed(self._bodies[page]())}
        return pages[page]

    def _same_as_stored(self, key: Hashable, item: T) -> bool:
        known = self._stored.content(stable_digest(key)) if self._stored.known else None
        return known is None or known == stable_digest(item)

    def add(
        self,
        keys: Sequence[Hashable],
        items: Sequence[T],
        *,
        loose: Sequence[T],
        redecode: Callable[[], Sequence[T]],
        decoded: bool,
    ) -> None:
        """Remember a page.

        Args:
            keys: The keys that were not seen, each once, in order.
            items: Their records.
            loose: The records without a key.
            redecode: Decodes all records of the page again.
            decoded: Whether `redecode` keeps the records, and not their body.
        """
        if loose:
            self._loose.update(dict.fromkeys(map(loose_digest, loose)))
        if not keys:
            return
        if self._numbers is not None:
            self._numbers.update(zip(keys, count(len(self._known)), strict=False))
        if not self._digests and len(self._bodies) < (DECODED if decoded else BODIES):
            self._firsts.append(self._near)
            self._bodies.append(redecode)
            self._near += len(keys)
        else:
            self._digests.extend(digests_of(items, signed=getattr(redecode, "signed", True)))
        self._known.update(keys)
        self._order.append(keys)

    def stored(self, number: int, stale: int) -> Stored:
        """The last of the first `number` keys, as digests, and the contents of the last of these."""
        keys = list(self._first(number, max(number - STORED_KEYS, 0)))
        digests = array("Q", map(stable_digest, keys))
        room = STORED_KEYS - len(digests)
        older = array("Q", self._stored.keys)[-room:] if room else array("Q")
        contents = array("Q")
        if number <= self._near:  # contents after the kept bodies are digests of this process alone
            pages: dict[int, dict[Hashable | None, T]] = {}
            last = enumerate(keys[-STORED_CONTENTS:], max(number - STORED_CONTENTS, 0))
            contents.extend(stable_digest(self._kept(place, pages)[key]) for place, key in last)
        return Stored((older + digests).tobytes(), contents.tobytes(), stale)
