"""Reading ahead changes when pages are asked for and nothing else: any list and interleaving, against a plain read.

Invariant: what is right is said by `plain_reading`, page after page; time is virtual.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen
from hypothesis import HealthCheck, example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from support import virtual_time
from support.fake_list import FakeList, Row, fault, fetched, given, ticks
from support.plain_reading import Answer, Given, Reading, read_plainly

from capillary_async import Paging
from capillary_async._paging.pager import FetchedPage, ListSource, Pager, Position
from capillary_async.errors import (
    CapillaryError,
    CustomerNotFoundError,
    DecodeError,
    LedgerRequestError,
    NotFoundError,
    PageDriftError,
    PageLoopError,
    RecordConflictError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TROUBLES: dict[str, Callable[[], BaseException]] = {
    "server": fault,
    "decode": lambda: DecodeError("half a page"),
    "404": lambda: NotFoundError("no such page", status=404),
    "html": lambda: NotFoundError("no such host", status=404, html=True),
    "customer": lambda: CustomerNotFoundError("gone", status=404, code=8015),
    "cancelled": asyncio.CancelledError,  # its task is ended by something else, e.g. a middleware
}


@frozen
class World:
    """A list and its server.

    Attributes:
        rows: What the list holds.
        cap: The largest page it gives.
        past_end: Its answer behind the end.
        troubles: What pages fail with, by number.
        echoes: Pages that are answered as another one, by number.
        seed: Of delays, and of which pages read ahead come undecoded.
        ids: For a walk over ids: its pages; the other attributes of the list mean nothing then.
    """

    rows: list[Row | None] = field(factory=list)
    cap: int | None = None
    past_end: str = "empty"
    troubles: dict[int, str] = field(factory=dict)
    echoes: dict[int, int] = field(factory=dict)
    seed: int = 0
    ids: list[list[Row | None]] | None = None

    def ask(self, number: int, size: int) -> Answer:
        """What it answers."""
        trouble = self.troubles.get(number)
        if trouble not in {None, "refused"}:
            return Answer(error=TROUBLES[trouble]())
        if self.ids is not None:
            refusal = LedgerRequestError("id 5 refused", code=9021, status=400) if trouble else None
            return Answer(self.ids[number - 1], refusal=refusal)
        size = min(size, self.cap or size)
        shown = self.echoes.get(number, number)
        page = self.rows[(shown - 1) * size : shown * size]
        if not page and self.past_end != "empty":
            return Answer(error=NotFoundError("no page", status=404, html=self.past_end == "html"))
        return Answer(page)

    def read(self, size: int, **options: Any) -> Reading:
        """How it is read plainly."""
        return read_plainly(self.ask, size, pages=self.pages, **options)

    @property
    def pages(self) -> int | None:
        """Of a walk over ids."""
        return None if self.ids is None else len(self.ids)


class Served(FakeList):
    """The world as a source: slow and fast pages, whole or undecoded ones, and what it was asked meanwhile."""

    def __init__(self, world: World, *, prefetch: int = 4) -> None:
        super().__init__(())
        self.world = world
        self.prefetch = prefetch
        chance = random.Random(world.seed)
        waits = [chance.choice([0.0, 0.0, chance.random(), 3 * chance.random()]) for _ in range(97)]
        late = [chance.random() < 0.5 for _ in range(89)]
        self.delay = lambda number: waits[number % 97]
        self.late = lambda number: late[number % 89]
        self.slow_to_go = chance.choice([0, 0, 3])

    def _answer(self, number: int, size: int) -> FetchedPage[Row]:
        said = self.world.ask(number, size)
        if said.error is not None:
            raise said.error
        page = evolve(fetched(said.rows, f"request-{number}"), error=said.refusal)
        # A page may be kept as what it was read from.
        return evolve(page, redecode=lambda: [evolve(item) for item in page.items]) if number % 2 else page

    def source(self, **options: Any) -> ListSource[Row]:
        """With pages read ahead that may come undecoded."""
        return super().source(pages=self.world.pages, ahead=self.ahead, **options)

    def pager(self, page_size: int = 10, *, prefetch: int | None = None, verify: bool = False, **options: Any) -> Any:
        """A pager over it."""
        prefetch = self.prefetch if prefetch is None else prefetch
        paging = Paging(page_size=page_size, prefetch=prefetch, verify=verify)
        return Pager(self.source(), paging, self.owner).options(**options)


# What there is to read.

KINDS = (*["row"] * 12, "null", "null", "keyless", "again", "far")


def held(count: int, seed: int, *, changes: bool = True) -> list[Row | None]:
    """Rows, some of them null entries, without a key, repeated near and far, or repeated with other content."""
    chance = random.Random(seed)
    kinds = chance.choice([("row",), KINDS, KINDS, (*KINDS, "changed")]) if changes else KINDS
    rows: list[Row | None] = []
    named: list[Row] = []
    for number in range(1, count + 1):
        kind = chance.choice(kinds)
        row: Row | None = Row(number)
        if kind == "null":
            row = None
        elif kind == "keyless":
            row = Row(None, str(number))
        elif named and kind == "again":
            row = named[-1]
        elif named and kind == "far":
            row = chance.choice(named)
        elif named and kind == "changed":
            row = Row(chance.choice(named).id, "changed")
        rows.append(row)
        if row is not None and row.id is not None:
            named.append(row)
    return rows


NUMBERS = st.integers(1, 14)
COUNTS = st.one_of(st.integers(0, 30), st.integers(0, 90))
SEEDS = st.integers(0, 99_999)


@st.composite
def worlds(draw: st.DrawFn, troubles: tuple[str, ...] = tuple(TROUBLES), *, changes: bool = True) -> World:
    """Any list."""
    return World(
        held(draw(COUNTS), draw(SEEDS), changes=changes),
        draw(st.sampled_from([None, None, 10, 7])),
        draw(st.sampled_from(["empty", "empty", "404", "html"] if "html" in troubles else ["empty", "404"])),
        draw(st.dictionaries(st.integers(1, 8), st.sampled_from(troubles), max_size=2)),
        draw(st.dictionaries(NUMBERS, NUMBERS, max_size=1)) if changes else {},
        draw(SEEDS),
    )


@st.composite
def walks_over_ids(draw: st.DrawFn) -> World:
    """Any pages, empty and equal ones too, some with a refusal behind their rows."""
    rows, chance = held(draw(COUNTS), draw(SEEDS)), random.Random(draw(SEEDS))
    pages: list[list[Row | None]] = []
    while rows:
        size = chance.randrange(6)
        pages.append(rows[:size])
        rows = rows[size:]
    troubles = draw(st.dictionaries(NUMBERS, st.sampled_from(["refused", "server", "404", "cancelled"]), max_size=2))
    return World(ids=pages, troubles=troubles, seed=draw(SEEDS))


SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 10, 12, 25, 100])
WINDOWS = st.integers(0, 8)
WANTED = st.one_of(st.none(), st.integers(0, 60))
STARTS = st.one_of(
    st.none(),
    st.builds(Position, NUMBERS, st.integers(0, 9), st.one_of(st.none(), st.integers(1, 12))),
)
THOROUGH = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


# The same at every window.


async def read_pages(fake: Served, size: int, options: dict[str, Any]) -> Reading:
    """A loop over pages."""
    pages = fake.pager(size, **options).pages()
    reading = Reading()
    try:
        async for page in pages:
            assert page.status == 404 or page.request_id == f"request-{page.number}"
            reading.pages.append(Given(page.number, page.items, page.position, page.last))
            await asyncio.sleep(fake.delay(page.number + 5) if fake.delay else 0)
    except (CapillaryError, asyncio.CancelledError) as error:
        reading.error = type(error)
        if isinstance(error, CapillaryError):
            assert error.position == pages.position  # noqa: PT017 - most readings go well
    reading.position, reading.duplicates = pages.position, fake.owner.duplicates
    await pages.aclose()
    assert fake.flying == 0
    return reading


async def read_records(fake: Served, size: int, options: dict[str, Any]) -> tuple[list[Row], Any, Position]:
    """A loop over records: what it gave, how it ended and where it stands."""
    records = aiter(fake.pager(size, **options))
    got: list[Row] = []
    kind = None
    try:
        async for row in records:
            got.append(row)  # noqa: PERF401 - what came before an error counts
    except (CapillaryError, asyncio.CancelledError) as error:
        kind = type(error)
    assert fake.flying == 0
    return got, kind, records.position


def check_every_way(world: World, size: int, prefetch: int, most: int | None, start: Position | None) -> None:
    """Pages, records and a whole list: items, page borders, ends, errors, positions and counts."""
    options = {name: value for name, value in (("max_items", most), ("start", start)) if value is not None}
    plain = world.read(size, **options)

    async def main() -> None:
        # Pages that were asked for already may contradict an end that nothing else does.
        ways = [plain, plain.otherwise] if prefetch and plain.otherwise else [plain]
        read = await read_pages(Served(world, prefetch=prefetch), size, options)
        assert read in ways
        read_again = await read_records(Served(world, prefetch=prefetch), size, options)
        assert read_again in [(way.items, way.error, way.position) for way in ways]
        if plain.error is None and len(ways) == 1:
            assert await Served(world, prefetch=prefetch).pager(size, **options).collect() == plain.items
            first = await Served(world, prefetch=prefetch).pager(size, **options).first()
            assert first == (plain.items[0] if plain.items else None)

    virtual_time.run(main)


@settings(THOROUGH, max_examples=400)
@drawn(world=worlds(), size=SIZES, prefetch=WINDOWS, most=WANTED, start=STARTS)
@example(World([Row(1)] * 20, seed=1), 10, 8, None, None)
@example(World([Row(n) for n in range(40)], echoes={4: 1}, seed=1), 10, 8, None, None)
@example(World([Row(1), Row(None, "2")], echoes={3: 1}), 2, 2, None, None)
@example(World([Row(n) for n in range(10)], cap=10, past_end="404", seed=2), 100, 8, None, None)
def test_a_list_reads_the_same_at_every_window(
    world: World, size: int, prefetch: int, most: int | None, start: Position | None
) -> None:
    """Whatever comes slow, fast, broken, undecoded or not at all: the plain reading."""
    check_every_way(world, size, prefetch, most, start)


@settings(THOROUGH, max_examples=150)
@drawn(world=walks_over_ids(), prefetch=WINDOWS, most=WANTED, start=st.one_of(st.none(), st.builds(Position, NUMBERS)))
def test_ids_read_the_same_at_every_window(
    world: World, prefetch: int, most: int | None, start: Position | None
) -> None:
    """Refusals behind rows included."""
    check_every_way(world, 100, prefetch, most, start)


def test_the_worlds_are_various() -> None:
    """The lists drawn above do come to every end there is: else the comparison would prove little."""
    ends: Counter[Any] = Counter()

    @settings(max_examples=300, database=None, derandomize=True)
    @drawn(world=worlds(), size=SIZES)
    def count(world: World, size: int) -> None:
        reading = world.read(size)
        ends[reading.error] += 1
        ends["several pages"] += len(reading.pages) > 2
        ends["duplicates"] += reading.duplicates > 0

    count()
    wanted = {None, RecordConflictError, PageLoopError, "several pages", "duplicates"}
    wanted |= {type(make()) for make in TROUBLES.values()}
    assert {end for end in wanted if ends[end] < 3} == set()


@settings(THOROUGH, max_examples=100)
@drawn(
    world=worlds(("server", "decode"), changes=False),
    size=SIZES,
    prefetch=WINDOWS,
    moves=st.integers(0, 3),
)
def test_verified_lists_are_the_same_at_every_window(world: World, size: int, prefetch: int, moves: int) -> None:
    """Passes, their sizes and errors: as without reading ahead. A list that moves between passes is refused alike."""

    async def outcome(window: int) -> tuple[Any, ...]:
        fake = Served(world, prefetch=window)
        firsts = 0

        def moving(number: int) -> None:
            nonlocal firsts
            firsts += number == 1
            if number == 1 and 1 < firsts <= 1 + moves:
                fake.world = evolve(fake.world, rows=[*fake.world.rows, Row(1_000 + firsts)])

        fake.before = moving
        try:
            rows = await fake.pager(size, verify=True).collect()
        except CapillaryError as error:
            assert error.position == Position(1)  # noqa: PT017 - most readings go well
            return (type(error),)
        finally:
            assert fake.flying == 0
        return (rows, [asked for asked in fake.asked if asked[0] == 1])

    async def main() -> None:
        plain = await outcome(0)
        assert await outcome(prefetch) == plain
        assert moves or plain[0] is not PageDriftError

    virtual_time.run(main)


# Going on.


class Reader:
    """Reads a list in pieces: each ends in another way, and the next one goes on at its position.

    Checked behind each piece: what it gave and where it stands are the plain reading's, and nothing is under way.
    """

    def __init__(self, world: World, size: int, chance: random.Random) -> None:
        self.world = world
        self.size = size
        self.chance = chance
        self.position = Position(1)
        self.got: list[Row] = []
        self.ends: Counter[str] = Counter()

    async def whole(self) -> list[Row]:
        """To the end, through everything."""
        while not await self._piece():
            assert sum(self.ends.values()) < 1_000
        return self.got

    async def _piece(self) -> bool:
        fake = Served(self.world, prefetch=self.chance.randrange(9))
        # The pager's own size is of no account any more once a position names one.
        plain = self.world.read(self.size, start=self.position, before=self.got)
        records = aiter(fake.pager(self.size, start=self.position))
        got: list[Row] = []
        way = self.chance.choice([self._break, self._cancel, self._time_out, self._close, self._read])
        end = await way(records, got)
        self.ends[end] += 1
        await records.aclose()
        assert fake.flying == 0
        assert got == plain.items[: len(got)]
        if end in {"end", "error", "ended elsewhere"}:
            assert (got, records.position) == (plain.items, plain.position)
            self._repair(fake)
        # A page without items may have been passed as well.
        behind = plain.position_behind(len(got), self.position)
        places = [behind, *(page.position for page in plain.pages if not page.items)]
        assert records.position in places or records.position == plain.position
        self.got += got
        self.position = records.position
        return end == "end"

    def _repair(self, fake: Served) -> None:
        """The page that failed works again."""
        number = fake.world.read(self.size, start=self.position, before=self.got).position.page
        self.world = evolve(
            self.world, troubles={page: it for page, it in self.world.troubles.items() if page > number}
        )

    @staticmethod
    async def _read(records: Any, got: list[Row]) -> str:
        try:
            async for row in records:
                got.append(row)  # noqa: PERF401 - what came before an error counts
        except CapillaryError as error:
            assert error.position == records.position  # noqa: PT017 - most pieces end otherwise
            return "error"
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            return "ended elsewhere"
        return "end"

    async def _break(self, records: Any, got: list[Row]) -> str:
        stop = self.chance.randrange(1, 25)

        class Enough(Exception):  # noqa: N818 - no error
            pass

        class Some(list[Row]):
            def append(self, row: Row) -> None:
                got.append(row)
                if len(got) == stop:
                    raise Enough

        try:
            return await self._read(records, Some())
        except Enough:
            return "break"

    async def _time_out(self, records: Any, got: list[Row]) -> str:
        try:
            async with asyncio.timeout(3 * self.chance.random()):
                return await self._read(records, got)
        except TimeoutError:
            return "timeout"

    async def _cancel(self, records: Any, got: list[Row]) -> str:
        task = asyncio.create_task(self._read(records, got))
        await self._moment()
        task.cancel()
        await asyncio.wait([task])
        return "cancelled" if task.cancelled() else task.result()

    async def _close(self, records: Any, got: list[Row]) -> str:
        task = asyncio.create_task(self._read(records, got))
        await self._moment()
        done = task.done()
        await records.aclose()
        await asyncio.wait([task])
        if done:
            return task.result()
        if task.exception() is not None:
            assert "was closed while it waited" in str(task.exception())
        # Between two records a closed iterator just ends, as a generator does.
        return "closed"

    async def _moment(self) -> None:
        if self.chance.random() < 0.5:
            await asyncio.sleep(3 * self.chance.random())
        for _ in range(self.chance.randrange(40)):
            await asyncio.sleep(0)


@settings(THOROUGH, max_examples=250)
@drawn(
    world=worlds(("server", "decode", "cancelled"), changes=False).filter(lambda world: world.past_end != "html"),
    size=SIZES,
    seed=SEEDS,
)
def test_pieces_join_to_the_list(world: World, size: int, seed: int) -> None:
    """Broken off, raised, cancelled, timed out and closed anywhere, at other windows each time: nothing is lost."""
    healthy = evolve(world, troubles={})
    whole = healthy.read(size)
    if whole.error is not None:  # no list, or one that repeats a page
        return
    if whole.items != given(world.rows):  # a cap of 7 is taken for an end, and going on there finds what lies behind
        return

    async def main() -> None:
        got = await Reader(world, size, random.Random(seed)).whole()
        assert got == whole.items

    virtual_time.run(main)


@settings(THOROUGH, max_examples=150)
@drawn(
    world=worlds(("server", "decode"), changes=False),
    size=SIZES,
    prefetch=WINDOWS,
    seed=SEEDS,
    times=st.integers(1, 3),
)
def test_a_walk_asked_again_goes_on(world: World, size: int, prefetch: int, seed: int, times: int) -> None:
    """After errors and time-outs, as a fan-out asks it: the pages of the plain reading, with its duplicates known."""
    plain = evolve(world, troubles={}).read(size)

    async def main() -> None:
        chance = random.Random(seed)
        fake = Served(evolve(world, troubles={}), prefetch=prefetch)
        fake.faults = {page: [TROUBLES[kind]() for _ in range(times)] for page, kind in world.troubles.items()}

        def fails(number: int) -> None:
            if fake.faults.get(number):
                raise fake.faults[number].pop()

        fake.before = fails
        walk = fake.pager(size)._reader()
        pages: list[Given] = []
        kind = None
        while kind is None:
            try:
                async with asyncio.timeout(chance.choice([None, None, 0.0, 2 * chance.random()])):
                    page = await walk.next_page()
            except TimeoutError:
                continue
            except CapillaryError as error:
                assert error.position == walk.position  # noqa: PT017 - most readings go well
                if type(error) in {fault().__class__, DecodeError}:
                    continue
                kind = type(error)
                break
            if page is None:
                break
            pages.append(Given(page.number, page.items, page.position or Position(1), page.last))
        assert (pages, kind, walk.position) == (plain.pages, plain.error, plain.position)
        assert fake.owner.duplicates == plain.duplicates
        await ticks(10)  # a time-out may have broken off the wait for requests that were already told to go
        assert fake.flying == 0

    virtual_time.run(main)


# What is asked.


@settings(THOROUGH, max_examples=200)
@drawn(world=worlds(("server", "decode", "404")), size=SIZES, prefetch=WINDOWS, most=WANTED, seed=SEEDS)
def test_a_slow_consumer_bounds_what_is_fetched(
    world: World, size: int, prefetch: int, most: int | None, seed: int
) -> None:
    """Never more than was given and `prefetch` pages; each page once, in order, and none that cannot be needed."""
    options = {} if most is None else {"max_items": most}
    plain = world.read(size, **options)

    async def main() -> None:
        chance = random.Random(seed)
        fake = Served(world, prefetch=prefetch)
        pages = fake.pager(size, **options).pages()
        given_pages = given_items = asked = 0
        try:
            async for page in pages:
                assert fake.most_flying <= max(prefetch, 1)
                given_pages, given_items = given_pages + 1, given_items + len(page)
                await asyncio.sleep(chance.choice([0, chance.random(), 20]))
                assert len(fake.asked) <= given_pages + prefetch
                if most is not None:
                    # Each of the pages asked for since may be as full as was asked: with one less it would not do.
                    step = fake.asked[-1][1]
                    extra = len(fake.asked) - given_pages
                    assert extra == 0 or (extra - 1) * step < most - given_items
                asked = len(fake.asked)
        except (CapillaryError, asyncio.CancelledError):
            pass
        # What was asked behind the last page given: the window, the page waited for, and the page that ended the list
        # once more.
        again = [number for number, times in Counter(fake.numbers).items() if times > 1]
        once = list(dict.fromkeys(fake.numbers))
        assert len(again) == len(fake.asked) - len(once) <= 1
        assert not again or again[0] > given_pages
        assert len(once) <= max(asked, given_pages + max(prefetch, 1))
        assert all(later == former + 1 for former, later in pairwise(once))
        assert len(once) <= len(plain.pages) + max(prefetch, 1)
        assert fake.flying == 0

    virtual_time.run(main)


@settings(THOROUGH, max_examples=100)
@drawn(count=st.integers(0, 120), size=st.integers(1, 9), seed=SEEDS)
def test_one_page_lists_cost_one_request(count: int, size: int, seed: int) -> None:
    """And others no request more than the largest window beyond their last page, and an empty page that ends it twice.

    Sizes below 10: a page 1 of ten rows where more were asked may be a server's cap, and costs one look.
    """

    async def main() -> None:
        world = World([Row(number) for number in range(count)], seed=seed)
        whole = count // size + 1  # the page that shows the end included
        for prefetch in range(9):
            fake = Served(world, prefetch=prefetch)
            await fake.pager(size).collect()
            twice = count > 0 and count % size == 0
            assert fake.numbers.count(whole) == 1 + twice
            assert whole <= len(fake.asked) - twice <= (1 if whole == 1 else whole + max(prefetch - 1, 0))

    virtual_time.run(main)


@settings(THOROUGH, max_examples=100)
@drawn(size=st.integers(1, 12), prefetch=WINDOWS, most=st.integers(0, 60), whole=st.booleans(), seed=SEEDS)
def test_max_items_costs_the_pages_that_hold_them(size: int, prefetch: int, most: int, whole: bool, seed: int) -> None:
    """At every window: not one more, also where the last of them is filled to its end."""
    most = most // size * size if whole else most

    async def main() -> None:
        fake = Served(World([Row(number) for number in range(90)], seed=seed), prefetch=prefetch)
        assert len(await fake.pager(size, max_items=most).collect()) == most
        assert fake.asked == [(page, size) for page in range(1, -(-most // size) + 1)]

    virtual_time.run(main)
