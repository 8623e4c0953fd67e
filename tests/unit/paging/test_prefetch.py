"""`PrefetchQueue`: results in order, and no task that outlives its owner."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from support.fake_list import quiet, ticks

from capillary_async._paging.prefetch import PrefetchQueue


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Every test here leaves no task and no complaint of the loop."""
    async with quiet():
        yield


class Work:
    """Coroutines that wait for their event, and say how they ended."""

    def __init__(self) -> None:
        self.free = [asyncio.Event() for _ in range(4)]
        self.ended: list[str] = []

    async def run(self, number: int) -> int:
        try:
            await self.free[number].wait()
        except asyncio.CancelledError:
            self.ended.append(f"{number} cancelled")
            raise
        self.ended.append(f"{number} done")
        return number

    def ahead(self, count: int = 3) -> PrefetchQueue[int]:
        """So many of them under way."""
        ahead: PrefetchQueue[int] = PrefetchQueue()
        for number in range(count):
            ahead.start(self.run(number))
        return ahead


async def failed() -> int:
    raise ValueError("nobody may ask for me")


async def test_results_come_in_the_order_of_starting() -> None:
    """Whatever order they finish in."""
    work = Work()
    ahead = work.ahead()
    for number in (2, 0, 1):
        work.free[number].set()
        await ticks(3)
    assert work.ended == ["2 done", "0 done", "1 done"]
    assert [await ahead.take() for _ in range(3)] == [0, 1, 2]


async def test_length_counts_what_flies_and_what_waits() -> None:
    """Taken is no longer ahead."""
    work = Work()
    ahead = work.ahead()
    work.free[0].set()
    await ticks(3)
    assert len(ahead) == 3
    await ahead.take()
    assert len(ahead) == 2
    await ahead.aclose()
    assert len(ahead) == 0


async def test_closing_waits_until_all_are_gone() -> None:
    """A request cancelled still has its connection to give back."""
    work = Work()
    ahead = work.ahead()
    await ticks(3)
    await ahead.aclose()
    assert work.ended == ["0 cancelled", "1 cancelled", "2 cancelled"]
    await ahead.aclose()


async def test_nothing_of_what_was_cancelled_is_kept_behind_the_end() -> None:
    """An iterator that is held on to after its end does not hold the pages it dropped."""
    work = Work()
    ahead = work.ahead()
    tasks = [weakref.ref(task) for task in ahead._tasks]
    await ticks(3)
    await ahead.aclose()
    await ticks(3)
    gc.collect()
    assert [task() for task in tasks] == [None, None, None]
    assert len(ahead) == 0


async def test_cancel_needs_no_await() -> None:
    """And what was cancelled can still be waited for."""
    work = Work()
    ahead = work.ahead()
    await ticks(3)
    ahead.cancel()
    assert work.ended == []
    await ahead.aclose()
    assert len(work.ended) == 3


async def test_nothing_is_cancelled_twice() -> None:
    """A second cancellation would break into the clean-up that the first one began, e.g. that of a middleware."""
    ended: list[str] = []

    async def careful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await ticks(9)
            ended.append("tidied up")

    ahead: PrefetchQueue[None] = PrefetchQueue()
    ahead.start(careful())
    await ticks(3)
    ahead.cancel()
    await ticks(1)
    ahead.cancel()
    closing = asyncio.create_task(ahead.aclose())
    await ticks(1)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    assert ended == []
    await ahead.aclose()
    assert ended == ["tidied up"]


async def test_cancelling_the_taker_cancels_what_it_takes() -> None:
    """The page in hand is no longer in the queue, and must not stay behind."""
    work = Work()
    ahead = work.ahead(1)
    taker = asyncio.create_task(ahead.take())
    await ticks(3)
    taker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taker
    assert work.ended == ["0 cancelled"]


async def test_a_failure_is_raised_where_it_is_taken() -> None:
    """As itself."""
    ahead: PrefetchQueue[int] = PrefetchQueue()
    ahead.start(failed())
    with pytest.raises(ValueError, match="nobody"):
        await ahead.take()


async def test_a_failure_nobody_asks_for_is_not_complained_of() -> None:
    """It lay beyond the end: `clean` would see 'never retrieved'."""
    ahead: PrefetchQueue[int] = PrefetchQueue()
    ahead.start(failed())
    await ticks(3)
    await ahead.aclose()


async def stubborn() -> int:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ValueError("the connection broke as it was closed") from None
    return 0


async def test_a_failure_of_the_cancellation_itself_is_not_complained_of() -> None:
    """A request may end otherwise than it was told to."""
    for end in (PrefetchQueue[int].aclose, None):
        ahead: PrefetchQueue[int] = PrefetchQueue()
        ahead.start(stubborn())
        await ticks(3)
        if end is not None:
            await end(ahead)
        del ahead


async def test_a_failed_page_is_freed_at_once() -> None:
    """No cycle of a task, its error and the frames that raised it is left to the garbage collector."""
    ahead: PrefetchQueue[int] = PrefetchQueue()
    ahead.start(failed())
    task = weakref.ref(ahead._tasks[0])
    gc.disable()
    try:
        with suppress(ValueError):
            await ahead.take()
        await ticks(3)
        assert task() is None
    finally:
        gc.enable()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_an_eager_page_that_failed_in_its_first_step_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error has our own frame behind it; asyncio's, which keeps the task in early releases, is left out."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_task", partial(asyncio.Task, loop=loop, eager_start=True))
    await test_a_failed_page_is_freed_at_once()


async def test_dropping_the_owner_cancels() -> None:
    """As `break` does: nobody calls `aclose`."""
    work = Work()
    ahead = work.ahead()
    await ticks(3)
    del ahead
    await ticks(3)
    assert len(work.ended) == 3


async def test_a_list_of_any_length_has_one_guard() -> None:
    """One more for each page would be memory that grows for as long as the list is read."""
    ahead: PrefetchQueue[int] = PrefetchQueue()
    for number in range(100):
        ahead.start(asyncio.sleep(0, number))
        assert await ahead.take() == number
    assert weakref.getweakrefcount(ahead) == 1


async def test_dropping_in_another_thread_cancels_in_the_loop() -> None:
    """The garbage collector runs in whatever thread it comes to."""
    work = Work()
    owners = [work.ahead()]
    await ticks(3)
    thread = threading.Thread(target=owners.clear)
    thread.start()
    await asyncio.to_thread(thread.join)
    await ticks(5)
    assert len(work.ended) == 3


async def test_dropping_from_another_loop_cancels_in_the_own_one() -> None:
    """A thread with a loop of its own may hold the last reference."""
    work = Work()
    owners = [work.ahead()]
    await ticks(3)

    async def drop() -> None:
        owners.clear()

    await asyncio.to_thread(lambda: asyncio.run(drop()))
    await ticks(5)
    assert len(work.ended) == 3


async def test_dropping_with_nothing_under_way_does_nothing() -> None:
    """Neither does dropping what never started."""
    work = Work()
    work.free[0].set()
    ahead = work.ahead(1)
    assert await ahead.take() == 0
    del ahead
    PrefetchQueue[int]()


def test_dropping_behind_its_loop_is_quiet() -> None:
    """`asyncio.run` has cancelled the tasks by then."""
    owners: list[PrefetchQueue[int]] = []

    async def main() -> None:
        owners.append(Work().ahead())
        await ticks(3)

    asyncio.run(main())
    owners.clear()


def test_a_loop_that_closes_meanwhile_is_quiet() -> None:
    """Another thread may close it between the look and the call."""

    class Closing(asyncio.SelectorEventLoop):
        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("Event loop is closed")

    loop = Closing()
    work = Work()
    owners = [loop.run_until_complete(started(work))]
    del owners[0]
    assert work.ended == []
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(ticks(3))
    del Closing.is_closed
    loop.close()


async def started(work: Work) -> PrefetchQueue[int]:
    ahead = work.ahead()
    await ticks(3)
    return ahead
