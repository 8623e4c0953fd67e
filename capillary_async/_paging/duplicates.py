"""Which records of a page are new: `DuplicateFilter`, which also refuses conflicts and page loops.

Invariant: a record that comes twice is given once; one that comes again with other content, or a page that brings
nothing new twice in a row, is an error. A page that is refused changes nothing.
Called by `ListReader` for each page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from capillary_async._paging.contents import content_of
from capillary_async._paging.seen import Past, Seen, Stored
from capillary_async.errors import CapillaryError, PageLoopError, RecordConflictError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from capillary_async._paging.cursor import Cursor
    from capillary_async._paging.source import FetchedPage, ListSource

__all__ = ["DuplicateFilter", "FreshRecords"]

T = TypeVar("T")

STALE = 2  # full pages in a row without a new record, which are a loop
_NONE: frozenset[Any] = frozenset()


class FreshRecords(NamedTuple, Generic[T]):
    """The records of a page that were not given before, with their rows as received.

    Attributes:
        keys: Keys not seen before, each once, those of skipped rows included.
        records: The records with these keys.
        loose: Records without a key.
        duplicates: Records that came twice.
        skipped: How many of the keys are of rows before the position at which the reading began.
    """

    rows: Sequence[int]
    items: Sequence[T]
    keys: Sequence[Hashable]
    records: Sequence[T]
    loose: Sequence[T] = ()
    duplicates: int = 0
    skipped: int = 0

    def first(self, count: int | None) -> tuple[Sequence[T], int | None]:
        """At most so many of the records, and the row of the first one beyond; None where none is."""
        if count is None or count >= len(self.items):
            return self.items, None
        return self.items[:count], self.rows[count]


class DuplicateFilter(Generic[T]):
    """The records that one reading has seen.

    Attributes:
        past: The records before the reading's position; None where nothing is known.
    """

    def __init__(self, source: ListSource[T], past: Past | Stored | None) -> None:
        self._source = source
        self._seen: Seen[T] = Seen(source.key, past)
        self.past = self._seen.given()
        self._stale = 0 if past is None else past.stale
        self._digests: set[int] = set()  # of the full pages
        # Records given before this reading may come again where rows moved: only those that it met itself show a loop,
        # unless the reading before ended in one.
        self._met: set[Hashable] | None = set() if self.past is not None and not self._stale else None

    def filter(self, fetched: FetchedPage[T], cursor: Cursor) -> FreshRecords[T]:
        """The records of a page that were not given before.

        Raises:
            RecordConflictError: A record came again with other content.
            PageLoopError: A full page came again, or the second in a row without a new record.
        """
        keys = list(map(self._source.key, fetched.items))
        page = frozenset(keys)
        if cursor.skip or None in page or len(page) < len(keys) or self._seen.knows_any(page):
            fresh = self._by_row(fetched, keys, cursor)
        else:
            fresh = FreshRecords(fetched.rows, fetched.items, cast("list[Hashable]", keys), fetched.items)
        if self._source.pages is None and fetched.received and fetched.received >= cursor.full:
            self._check_loop(fetched, page, fresh, cursor)
        return fresh

    def remember(self, fetched: FetchedPage[T], fresh: FreshRecords[T]) -> Past:
        """Remember the records of a page; returns what was known before them."""
        before = self._seen.now(skipped=fresh.skipped)
        if fresh.keys or fresh.loose:
            redecode, decoded = fetched.redecoder(), fetched.redecode is None
            self._seen.add(fresh.keys, fresh.records, loose=fresh.loose, redecode=redecode, decoded=decoded)
        self.past = self._seen.given()
        return before

    async def has_more(self, page: FetchedPage[T] | None, following: FetchedPage[T]) -> bool:
        """Whether a later page has records that were not seen; a page that cannot be decoded is no evidence.

        A server that repeats its last page has nothing more.
        """
        try:
            following = following if following.decode is None else await following.decode()
        except CapillaryError:
            return False
        here = set(map(self._token, page.items if page else ()))
        return bool(following.nulls) or any(self._is_new(item, here) for item in following.items)

    def _is_new(self, item: T, here: set[Hashable]) -> bool:
        """Whether a record was neither seen nor is among the tokens `here`."""
        if self._token(item) in here:
            return False
        key = self._source.key(item)
        return not (self._seen.knows_loose((item,)) if key is None else self._seen.knows(key))

    def _token(self, item: T) -> Hashable:
        """What identifies a record: its key, or its content where it has none."""
        key = self._source.key(item)
        return content_of(item) if key is None else (key,)

    def _by_row(self, fetched: FetchedPage[T], keys: list[Hashable | None], cursor: Cursor) -> FreshRecords[T]:
        """Compare row by row."""
        page: dict[Hashable, T] = {}
        fresh: list[tuple[int, T]] = []
        loose: list[T] = []
        known: list[tuple[Hashable, T]] = []
        duplicates = skipped = 0
        for row, key, item in zip(fetched.rows, keys, fetched.items, strict=True):
            if key is None:
                loose.append(item)
                twice = False
            elif key in page:
                twice = True
                self._refuse_conflict(key if page[key] != item else None, cursor)
            else:
                page[key] = item
                twice = self._seen.knows(key)
                known += [(key, item)] if twice else ()
            if row < cursor.skip:  # given and counted before
                skipped += key is not None and not twice
                continue
            duplicates += twice
            if not twice:
                fresh.append((row, item))
        if known:
            self._refuse_conflict(self._seen.differing(known), cursor)
            for key, _ in known:
                del page[key]
        rows, items = [row for row, _ in fresh], [item for _, item in fresh]
        return FreshRecords(rows, items, list(page), list(page.values()), loose, duplicates, skipped)

    def _refuse_conflict(self, key: Hashable | None, cursor: Cursor) -> None:
        if key is not None:
            raise RecordConflictError(
                f"{self._source.name}: record {key!r} came twice with other content by page {cursor.number}: "
                "it changed while the list was being read; read the list again"
            )

    def _check_loop(
        self, fetched: FetchedPage[T], keys: frozenset[Hashable | None], fresh: FreshRecords[T], cursor: Cursor
    ) -> None:
        """Refuse a full page that was given before, in whatever order, and the second in a row without a new record.

        Digests are kept, not pages.
        """
        contents = frozenset(map(content_of, fresh.loose)) if fresh.loose else _NONE
        digest = hash((keys, contents, len(fetched.nulls), fetched.received))
        if self._met is None:
            new = bool(fresh.keys) or not self._seen.knows_loose(fresh.loose)
        else:
            new = not self._met.issuperset(here := (keys - {None}) | contents)
            self._met |= here
        stale = 0 if new else self._stale + 1
        if digest not in self._digests and stale < STALE:
            self._digests.add(digest)
            self._stale = stale
            return
        # A reading that continues from here raises at once, and not after one more page.
        self.past = self._seen.given(STALE - 1)
        raise PageLoopError(
            f"{self._source.name}: page {cursor.number} has no record that was not on earlier pages: the server "
            "does not seem to honour the page parameters, or the list moved by whole pages; nothing of this page was "
            "given. Ask for dates that fit one page, and report it to Capillary"
        )
