"""`FanOut` as users loop over it: outcomes, order, items, pages, options; and that nothing outlives a loop."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.fan_fakes import Owner, Shelf, batches_over, fan_over, until_raised
from support.gated_client import gated

from capillary_async import BadRequestError, FanOut, InvalidRequestError, Outcome, Paging, Position, ServerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


async def settle(rounds: int = 30) -> None:
    """Let the loop run on without waiting for anything."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    """Tasks beside the test's own."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def failing(shelf: Shelf, *keys: int, page: int = 1) -> Shelf:
    """The shelf, with keys that always fail."""

    async def fail(key: Any, number: int) -> None:
        if key in keys and number == page:
            raise BadRequestError(f"not {key}", status=400)

    shelf.before = fail
    return shelf


async def test_one_outcome_a_key() -> None:
    """Items as a tuple, pages counted, warnings of all pages, and a failed key stops nothing."""
    outcomes = {outcome.key: outcome async for outcome in fan_over(range(1, 9), failing(Shelf(), 4))}
    assert sorted(outcomes) == list(range(1, 9))
    assert outcomes[7] == Outcome(7, tuple((7, n) for n in range(7)), None, outcomes[7].warnings, 3)
    assert [warning.message for warning in outcomes[7].warnings] == ["page 1", "page 2", "page 3"]
    assert outcomes[7].ok
    assert outcomes[7].unwrap() == outcomes[7].items
    assert not outcomes[4].ok
    assert outcomes[4].items == ()
    with pytest.raises(BadRequestError) as caught:
        outcomes[4].unwrap()
    assert caught.value is outcomes[4].error
    assert caught.value.key == 4
    assert caught.value.position == Position(1)


async def test_outcomes_travel_between_processes() -> None:
    """Pickled and unpickled, error included."""
    for outcome in (await fan_over([2, 4], failing(Shelf(), 4)).collect()).values():
        again = pickle.loads(pickle.dumps(outcome))  # noqa: S301 - its own
        assert (again.key, again.items, again.warnings, again.pages) == (
            outcome.key, outcome.items, outcome.warnings, outcome.pages,
        )  # fmt: skip
        assert str(again.error) == str(outcome.error)


async def test_ordered_keeps_the_order_of_the_input() -> None:
    """However long each key takes, failed ones in their places."""
    shelf = Shelf()
    dice = random.Random(7)

    async def dawdle(key: int, number: int) -> None:
        for _ in range(dice.randrange(20)):
            await asyncio.sleep(0)
        if key % 10 == 0:
            raise BadRequestError("none", status=400)

    shelf.before = dawdle
    outcomes = [outcome async for outcome in fan_over(range(60, 0, -1), shelf, concurrency=5).ordered()]
    assert [outcome.key for outcome in outcomes] == list(range(60, 0, -1))
    assert [outcome.key for outcome in outcomes if not outcome.ok] == [60, 50, 40, 30, 20, 10]


async def test_items_flattens() -> None:
    """Every record of every key, each once."""
    rows = [row async for row in fan_over(range(1, 30), Shelf()).items()]
    assert sorted(rows) == [(key, n) for key in range(1, 30) for n in range(key)]


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_pages_come_with_their_key_and_the_last_says_so(prefetch: int) -> None:
    """Also where the end shows only behind a full page: then an empty one says it."""
    seen: dict[int, list[tuple[int, int, bool]]] = {}
    async for key, page in fan_over([2, 3, 6, 7, 1000], Shelf(), prefetch=prefetch).pages():
        seen.setdefault(key, []).append((page.number, len(page), page.last))
    assert seen[2] == [(1, 2, True)]
    assert seen[3] == [(1, 3, False), (2, 0, True)]
    assert seen[6] == [(1, 3, False), (2, 3, False), (3, 0, True)]
    assert seen[7] == [(1, 3, False), (2, 3, False), (3, 1, True)]
    assert len(seen[1000]) == 334
    assert [last for _, _, last in seen[1000]] == [False] * 333 + [True]


async def test_pages_of_an_empty_list_and_of_batches() -> None:
    """One page that is the last, be it empty."""
    pages = [(key, len(page), page.last) async for key, page in fan_over([1], Shelf(rows=0)).pages()]
    assert pages == [(1, 0, True)]
    pages = [(key, len(page), page.last) async for key, page in batches_over([1000, 2], Shelf(), batch=5).pages()]
    assert pages == [(1000, 0, True), (2, 2, True)]


@pytest.mark.parametrize("mode", ["items", "pages"])
async def test_items_and_pages_raise_the_first_error_as_itself(mode: str) -> None:
    """With its key, and the position behind what was given of that key."""
    fan = fan_over([8], failing(Shelf(), 8, page=3))
    given, error = await until_raised(BadRequestError, getattr(fan, mode)())
    assert error.key == 8
    assert error.position == Position(3, 0, 3)
    assert len(given) == (6 if mode == "items" else 2)
    assert not others()


@pytest.mark.parametrize("mode", ["items", "pages"])
async def test_items_and_pages_raise_for_a_bad_key_too(mode: str) -> None:
    """Of an iterator; what stands before it is given."""
    fan = fan_over(iter([1, "12x"]), Shelf(), concurrency=1)
    given, error = await until_raised(InvalidRequestError, getattr(fan, mode)())
    assert error.key == "12x"
    assert len(given) == 1


async def test_the_key_of_an_error_in_a_batch_is_the_one_that_failed() -> None:
    """Not the first of its batch."""
    fan = batches_over([1, 2, 3], Shelf(), batch=5)
    reader = fan._plan.reader

    async def ask(keys: tuple[int, ...]) -> dict[int, Any]:
        return {1: (await reader_ask(keys))[1], 2: BadRequestError("no 2", status=400), 3: (await reader_ask(keys))[3]}

    reader_ask = reader.ask
    object.__setattr__(reader, "ask", ask)
    collected = await fan.collect()
    assert [outcome.ok for outcome in collected.values()] == [True, False, True]
    with pytest.raises(BadRequestError) as caught:
        [row async for row in fan.items()]
    assert caught.value.key == 2


async def test_collect_gives_a_dict_with_errors_in_it() -> None:
    """By key."""
    collected = await fan_over(["1", 2, 3], failing(Shelf(), 2)).collect()
    assert {key: outcome.ok for key, outcome in collected.items()} == {1: True, 2: False, 3: True}


async def test_looping_twice_asks_twice() -> None:
    """A fan-out is a recipe; two loops at once do not disturb each other."""
    shelf = Shelf(rows=1)
    fan = fan_over(range(1, 20), shelf)
    first, second = await asyncio.gather(fan.collect(), fan.collect())
    assert first.keys() == second.keys()
    assert len(shelf.asked) == 38


def test_options_give_a_copy() -> None:
    """What is not given stays; the fan-out itself does not change."""
    fan = fan_over([1], Shelf())
    other = fan.options(concurrency=9).options(paging=Paging(page_size=7)).options(unique=False)
    assert isinstance(other, FanOut)
    assert (other._plan.options.concurrency, other._plan.options.paging, other._plan.options.unique) == (
        9, Paging(page_size=7), False,
    )  # fmt: skip
    assert fan._plan.options.concurrency == 4
    assert fan._plan.options.unique


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", 2.0),
        ("concurrency", "3"),
        ("paging", 50),
        ("unique", 1),
    ],
)
def test_options_that_cannot_be(option: str, value: object) -> None:
    """Refused by name, with what came."""
    with pytest.raises(InvalidRequestError, match=f"{option} takes .* got {value!r}") as caught:
        fan_over([1], Shelf()).options(**{option: value})
    assert caught.value.argument == option


async def test_concurrency_is_heeded() -> None:
    """So many at once, and no more."""
    shelf = Shelf(rows=1)
    await fan_over(range(1, 50), shelf).options(concurrency=7).collect()
    assert shelf.most == 7


def test_a_fan_out_shows_what_it_is() -> None:
    """Its name and how long its input is, never the ids."""
    assert repr(fan_over([1, 2], Shelf())) == "<FanOut shelf over 2 keys>"
    assert repr(fan_over(iter([1, 2]), Shelf())) == "<FanOut shelf over an iterator>"


async def test_an_iterator_ends_for_good() -> None:
    """After the end it stays ended; so after `aclose`, which may be called twice and before the start."""
    iterator = aiter(fan_over([1], Shelf()))
    assert aiter(iterator) is iterator
    assert [outcome.key async for outcome in iterator] == [1]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)
        await iterator.aclose()
    fresh = aiter(fan_over([1], Shelf()))
    await fresh.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(fresh)


async def test_an_iterator_never_takes_a_failure_for_the_end() -> None:
    """After an error, and after a cancellation, asking on is an error too."""
    iterator = fan_over([8], failing(Shelf(), 8)).items()
    with pytest.raises(BadRequestError):
        await anext(iterator)
    with pytest.raises(RuntimeError, match="this iterator ended with BadRequestError; loop over the fan-out again"):
        await anext(iterator)
    iterator = stuck()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(iterator)
    with pytest.raises(RuntimeError, match="was cancelled while it waited"):
        await anext(iterator)
    assert not others()


def stuck(shelf: Shelf | None = None) -> Any:
    """An iterator whose first outcome never comes."""
    shelf = shelf or Shelf()

    async def wait(key: int, number: int) -> None:
        await asyncio.Event().wait()

    shelf.before = wait
    return aiter(fan_over(range(1, 100), shelf))


async def test_one_iterator_is_for_one_task() -> None:
    """A second waiter is told so; the first goes on."""
    iterator = stuck()
    first = asyncio.ensure_future(anext(iterator))
    await settle()
    with pytest.raises(RuntimeError, match="already waiting in another task"):
        await anext(iterator)
    await iterator.aclose()
    with pytest.raises(RuntimeError, match="was closed while it waited"):
        await first
    assert not others()


async def test_a_session_ends_its_iterators() -> None:
    """The one who waits is told why, and so is who asks later."""
    owner = Owner()
    waiting = stuck()
    first = asyncio.ensure_future(anext(waiting))
    await settle()
    await waiting._end("was closed with its session")
    with pytest.raises(RuntimeError, match="was closed with its session"):
        await first
    idle = aiter(fan_over(range(1, 100), Shelf(), owner=owner))
    await anext(idle)
    assert list(owner.tracked) == [idle]
    await idle._end("was closed with its session")
    with pytest.raises(RuntimeError, match="was closed with its session"):
        await anext(idle)
    assert not others()


async def test_a_session_ends_an_iterator_of_another_thread() -> None:
    """Its tasks are cancelled in their own loop."""
    ready, told = threading.Event(), []
    iterators: list[Any] = []

    async def main() -> None:
        iterators.append(stuck())
        waiting = asyncio.ensure_future(anext(iterators[0]))
        await settle()
        ready.set()
        try:
            await waiting
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    await asyncio.to_thread(ready.wait)
    await iterators[0]._end("was closed with its session")
    await asyncio.to_thread(thread.join)
    assert told == ["this iterator was closed with its session; loop over the fan-out again"]
    # Its loop is closed now; ending again, and what was never started, is fine.
    await iterators[0]._end("again")


async def test_ending_what_never_started_in_a_loop_that_is_gone() -> None:
    """Nothing to cancel, nobody to tell."""

    async def make() -> Any:
        return aiter(fan_over([1], Shelf()))

    iterator = await asyncio.to_thread(lambda: asyncio.run(make()))
    await iterator._end("was closed with its session")
    with pytest.raises(RuntimeError, match="was closed with its session"):
        await anext(iterator)


@pytest.mark.parametrize("mode", ["outcomes", "ordered", "items", "pages"])
async def test_a_break_leaves_nothing(mode: str) -> None:
    """No task, no request; dropping the iterator is enough."""
    shelf = Shelf()
    fan = fan_over(range(1, 1000), shelf, prefetch=4)
    async for _ in fan if mode == "outcomes" else getattr(fan, mode)():
        break
    await settle()
    assert not others()
    assert shelf.running == 0


async def test_an_exception_in_the_loop_leaves_nothing() -> None:
    """The traceback holds the iterator for as long as the handler; then all is gone."""
    shelf = Shelf()
    with suppress(ZeroDivisionError):
        async for outcome in fan_over(range(1, 1000), shelf, prefetch=4):
            1 / (outcome.key - outcome.key)
    await settle()
    assert not others()
    assert shelf.running == 0


async def test_closing_waits_until_nothing_runs() -> None:
    """After `aclose` not one more step of the loop is needed, pages read ahead included."""
    shelf = Shelf(rows=100_000)
    iterator = fan_over(range(1, 1000), shelf, prefetch=4).pages()
    for _ in range(50):
        await anext(iterator)
    await iterator.aclose()
    assert not others()
    assert shelf.running == 0


async def test_cancelling_the_task_that_waits_leaves_nothing() -> None:
    """By asyncio and by an anyio scope, which cancels again and again."""
    shelf = Shelf()
    task = asyncio.ensure_future(anext(stuck(shelf)))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not others()
    with anyio.move_on_after(0.01):
        await anext(stuck(shelf))
    await settle()
    assert not others()
    assert shelf.running == 0


async def test_an_iterator_dropped_before_its_first_step_leaves_nothing() -> None:
    """Cancelled before the workers began."""
    shelf = Shelf()
    waiting = asyncio.ensure_future(anext(aiter(fan_over([1, 2], shelf))))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await settle()
    assert not others()
    assert shelf.running == 0


async def test_an_iterator_in_a_cycle_is_ended_by_the_collector() -> None:
    """As in frames that hold their own exception."""
    shelf = Shelf()
    iterator = aiter(fan_over(range(1, 1000), shelf))
    await anext(iterator)
    cycle: list[Any] = [iterator]
    cycle.append(cycle)
    del iterator, cycle
    gc.collect()
    await settle()
    assert not others()


async def test_an_iterator_dropped_in_another_thread_is_ended_in_its_own() -> None:
    """The collector runs where it likes."""
    held = [aiter(fan_over(range(1, 1000), Shelf()))]
    await anext(held[0])
    await asyncio.to_thread(held.clear)
    await settle()
    assert not others()


@pytest.mark.parametrize("started", [False, True])
def test_an_iterator_that_outlives_its_loop(started: bool) -> None:
    """`asyncio.run` cancels the workers; the drop afterwards closes the rest without a warning."""
    held: list[Any] = []

    async def main() -> None:
        held.append(aiter(fan_over(range(1, 1000), Shelf())))
        if started:
            await anext(held[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        held.clear()
        gc.collect()


def test_an_iterator_dropped_between_two_runs_of_its_loop() -> None:
    """As in notebooks and in code that runs a loop by hand."""
    loop = asyncio.new_event_loop()
    held: list[Any] = []

    async def start() -> None:
        held.append(aiter(fan_over(range(1, 1000), Shelf())))
        await anext(held[0])

    loop.run_until_complete(start())
    held.clear()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(settle())
    assert not asyncio.all_tasks(loop)
    loop.close()


async def _ends(kind: int, fan: Any, steps: int, dice: random.Random) -> None:
    """Leave a loop after so many steps, in one of the ways that users do."""
    iterator = [aiter(fan), fan.ordered(), fan.items(), fan.pages()][kind % 4]
    if kind % 5 == 0:
        async for _ in iterator:
            steps -= 1
            if steps <= 0:
                return
    elif kind % 5 == 1:
        with suppress(ZeroDivisionError):
            async for _ in iterator:
                steps -= 1
                1 / max(steps, 0)
    elif kind % 5 == 2:
        with suppress(TimeoutError):
            async with asyncio.timeout(dice.random() / 200):
                async for _ in iterator:
                    pass
    elif kind % 5 == 3:
        await _cancelled(iterator, steps)
    else:
        for _ in range(steps):
            await anext(iterator, None)
        await iterator.aclose()


async def _cancelled(iterator: Any, steps: int) -> None:
    async def read() -> None:
        async for _ in iterator:
            pass

    task = asyncio.ensure_future(read())
    for _ in range(steps * 3):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.long
def test_two_hundred_random_ends_leave_nothing() -> None:
    """Breaks, errors, timeouts, cancellations and closings at random points, in debug mode, warnings as errors."""
    problems: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        asyncio.get_running_loop().slow_callback_duration = 60
        dice = random.Random(11)
        for round_ in range(200):
            shelf = failing(Shelf(rows=4), 17) if round_ % 3 else Shelf(rows=4)
            source: Any = range(1, 20) if round_ % 2 else _slow_ids(dice)
            fan = fan_over(source, shelf, concurrency=dice.randrange(1, 8), prefetch=dice.randrange(5))
            with suppress(BadRequestError):
                await _ends(round_, fan, dice.randrange(1, 40), dice)
            await settle(10)
            assert not others(), round_
            assert shelf.running == 0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main(), debug=True)
        gc.collect()
    assert problems == []


async def _slow_ids(dice: random.Random) -> AsyncIterator[int]:
    for key in range(1, 20):
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        yield key


async def test_lone_errors_are_never_groups() -> None:
    """Neither of the service, of the input, nor of two workers at once."""
    shelf = Shelf()

    async def fail(key: int, number: int) -> None:
        raise ZeroDivisionError(str(key))

    shelf.before = fail
    with pytest.raises(ZeroDivisionError):
        await fan_over(range(1, 100), shelf).collect()

    def ids() -> Iterator[int]:
        raise OSError("no such file")
        yield 1

    with pytest.raises(OSError, match="no such file"):
        await fan_over(ids(), Shelf()).collect()


@pytest.mark.parametrize("ordered", [False, True])
async def test_memory_does_not_grow_with_the_input(ordered: bool) -> None:
    """All the way through two thousand keys there are as few tasks, and outcomes in memory, as at the start."""
    shelf = Shelf(rows=1)
    fan = fan_over(iter(range(1, 2_001)), shelf, concurrency=8)
    iterator = fan.ordered() if ordered else aiter(fan)
    most = 0
    async for outcome in iterator:
        if outcome.key % 100 == 0:
            most = max(most, len(others()))
            assert len(iterator._run.handoff) <= 8
            assert len(getattr(iterator, "_buffered", ())) <= 16
    assert most <= 8 + 2 + 8


async def test_an_outage_is_over_when_its_loop_is_left() -> None:
    """Nobody goes on probing."""
    shelf = Shelf()
    client = gated(shelf)

    async def fail(key: int, number: int) -> None:
        raise ServerError("down", status=500)

    shelf.before = fail
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await fan_over(range(1, 100), shelf).collect()
    assert not others()
    assert client.idle


async def test_the_first_failure_is_the_one_raised() -> None:
    """What the others meet while they are cancelled is not."""
    shelf = Shelf()

    async def fail(key: int, number: int) -> None:
        if key == 2:
            raise ServerError("first", status=500)
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("second")

    shelf.before = fail
    with pytest.raises(ServerError, match="first"):
        [row async for row in fan_over([1, 2, 3], shelf).items()]
    assert not others()
