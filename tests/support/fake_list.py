"""A list as a server would hold it, without HTTP: what the tests of paging read, gate, break and count."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from capillary_async import Paging
from capillary_async._paging.lengths import Lengths
from capillary_async._paging.pager import FetchedPage, ListSource, Page, Pager, Position
from capillary_async.errors import CapillaryError, DecodeError, NotFoundError, ServerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence


@frozen
class Row:
    """A record: its key, None for a null part, and its content."""

    id: int | None
    text: str = ""


def rows(count: int, first: int = 1) -> list[Row | None]:
    """So many different rows."""
    return [Row(number) for number in range(first, first + count)]


def given(held: Sequence[Row | None]) -> list[Row]:
    """What a sequential read of these rows gives: no nulls, no key twice."""
    seen: set[int] = set()
    records: list[Row] = []
    for row in held:
        if row is None or row.id in seen:
            continue
        if row.id is not None:
            seen.add(row.id)
        records.append(row)
    return records


class FakeOwner:
    """A session as far as a pager knows it."""

    def __init__(self) -> None:
        self.duplicates = 0
        self.lengths = Lengths()
        self.observers: Any = None
        self.live: weakref.WeakSet[Any] = weakref.WeakSet()

    def track(self, iterator: Any) -> None:
        """Remember it weakly."""
        self.live.add(iterator)

    def count_duplicates(self, number: int) -> None:
        """Count."""
        self.duplicates += number


class FakeList:
    """A list that answers pages and remembers what it was asked.

    Attributes:
        rows: What it holds; None for null entries. Tests change it while it is read.
        cap: The largest page it gives.
        past_end: `empty`, `404` or `html`: its answer behind the end.
        gates: Events that hold back pages by number.
        faults: Errors by page number, raised once each.
        delay: Seconds for each page number.
        late: Which pages come undecoded where they are read ahead: what cannot be decoded shows only later then.
        before: Called with the number before a page is answered.
        slow_to_go: Turns of the loop that a request takes to end, also where it was cancelled.
        asked: Each page asked, with its size.
    """

    def __init__(self, held: Sequence[Row | None], *, cap: int | None = None, past_end: str = "empty") -> None:
        self.rows = list(held)
        self.cap = cap
        self.past_end = past_end
        self.gates: dict[int, asyncio.Event] = {}
        self.faults: dict[int, list[BaseException]] = {}
        self.delay: Callable[[int], float] | None = None
        self.late: Callable[[int], bool] = lambda _: False
        self.before: Callable[[int], None] | None = None
        self.asked: list[tuple[int, int]] = []
        self.flying = 0
        self.most_flying = 0
        self.slow_to_go = 0
        self.owner = FakeOwner()

    async def fetch(self, number: int, size: int) -> FetchedPage[Row]:
        """One page."""
        self.asked.append((number, size))
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await self._wait(number)
            return self._answer(number, size)
        finally:
            await self._go()

    async def ahead(self, number: int, size: int) -> FetchedPage[Row]:
        """One page that will wait, whole or as a body."""
        late = self.late(number)
        try:
            page = await self.fetch(number, size)
        except DecodeError as error:
            if not late:
                raise
            return FetchedPage((), 0, decode=partial(self._read, number, error))
        return FetchedPage((), 0, decode=partial(self._read, number, page)) if late else page

    async def _read(self, number: int, came: FetchedPage[Row] | DecodeError) -> FetchedPage[Row]:
        """Decode a page that waited; asking for it once more, as a session does, takes its time too."""
        self.flying += 1
        try:
            await self._wait(number)
        finally:
            await self._go()
        if isinstance(came, DecodeError):
            raise came
        return came

    async def _go(self) -> None:
        try:
            await ticks(self.slow_to_go)
        finally:
            self.flying -= 1

    async def _wait(self, number: int) -> None:
        await asyncio.sleep(self.delay(number) if self.delay else 0)
        if number in self.gates:
            await self.gates[number].wait()

    def _answer(self, number: int, size: int) -> FetchedPage[Row]:
        if self.before is not None:
            self.before(number)
        if self.faults.get(number):
            raise self.faults[number].pop(0)
        size = min(size, self.cap or size)
        page = self.rows[(number - 1) * size : number * size]
        if not page and self.past_end != "empty":
            raise NotFoundError(f"no page {number}", status=404, html=self.past_end == "html")
        return fetched(page, f"request-{number}")

    def source(self, **options: Any) -> ListSource[Row]:
        """How it is read."""
        return ListSource("fake.list()", self.fetch, lambda row: row.id, **options)

    def pager(self, page_size: int = 10, *, prefetch: int = 4, verify: bool = False, **options: Any) -> Pager[Row]:
        """A pager over it."""
        pager = Pager(self.source(), Paging(page_size=page_size, prefetch=prefetch, verify=verify), self.owner)
        return pager.options(**options) if options else pager

    @property
    def numbers(self) -> list[int]:
        """The pages asked, without their sizes."""
        return [number for number, _ in self.asked]


class FakePages(FakeList):
    """Pages scripted one by one: lists of rows, or errors to be raised each time."""

    def __init__(self, *pages: Sequence[Row | None] | CapillaryError) -> None:
        super().__init__(())
        self.pages = list(pages)

    def _answer(self, number: int, size: int) -> FetchedPage[Row]:
        page = self.pages[number - 1] if number <= len(self.pages) else ()
        if isinstance(page, CapillaryError):
            raise page
        return fetched(page, f"request-{number}")


class FakeIds(FakePages):
    """A walk over ids: as many pages as there are, whatever stands on them; `refusals` by page come behind its rows."""

    refusals: dict[int, CapillaryError]

    def __init__(self, *pages: Sequence[Row | None] | CapillaryError) -> None:
        super().__init__(*pages)
        self.refusals = {}

    def _answer(self, number: int, size: int) -> FetchedPage[Row]:
        return evolve(super()._answer(number, size), error=self.refusals.get(number))

    def source(self, **options: Any) -> ListSource[Row]:
        """How it is read."""
        return super().source(pages=len(self.pages), **options)


def fetched(page: Sequence[Row | None], request_id: str | None = None) -> FetchedPage[Row]:
    """Rows as received, as a page."""
    nulls = tuple(index for index, row in enumerate(page) if row is None)
    return FetchedPage([row for row in page if row is not None], len(page), request_id, nulls=nulls)


def fault(text: str = "down") -> ServerError:
    """What a page may fail with."""
    return ServerError(text, status=500)


async def ticks(count: int = 20) -> None:
    """Let everything happen that needs no time."""
    for _ in range(count):
        await asyncio.sleep(0)


async def all_pages(pager: Pager[Row]) -> list[Page[Row]]:
    """Every page."""
    return [page async for page in pager.pages()]


async def failing(work: Awaitable[Any], kind: type[BaseException]) -> Any:
    """The error that a work ends with."""
    try:
        await work
    except kind as error:
        # Without its frames, which would keep alive what the test drops.
        return error.with_traceback(None)
    raise AssertionError(f"no {kind.__name__} was raised")


async def resumed(fake: FakeList, position: Position, page_size: int = 10) -> list[Row]:
    """What a new walk gives from a position on."""
    return await fake.pager(page_size, start=position).collect()


@asynccontextmanager
async def quiet() -> AsyncIterator[None]:
    """A stretch after which no task is left, but for those of test servers, and the loop has complained of nothing."""
    loop = asyncio.get_running_loop()
    before, complaints = asyncio.all_tasks(), list[Any]()
    loop.set_debug(True)
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    gc.freeze()  # what is older than the test is none of its garbage, and slow to look through
    try:
        yield
        await ticks(10)
        gc.collect()
        await ticks(10)
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        assert not [task for task in left if "RequestHandler" not in repr(task.get_coro())]
        assert not complaints
    finally:
        gc.unfreeze()
        loop.set_exception_handler(None)
