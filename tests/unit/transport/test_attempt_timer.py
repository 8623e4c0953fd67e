"""The time of one attempt: one timer for the whole of it and for its silences."""

from __future__ import annotations

import asyncio

import pytest

from capillary_async import Timeouts
from capillary_async._transport.attempt_timer import AttemptTimer
from capillary_async._transport.messages import CallState

LIMITS = Timeouts(connect=1, read=2, attempt=10, call=20)


async def struck(watch: AttemptTimer) -> float:
    """Wait until it breaks off; gives the loop's time of that."""
    with watch:
        await asyncio.Event().wait()
    assert watch.broken
    watch.stop()
    return asyncio.get_running_loop().time()


def scaled(read: float, attempt: float, call: float = 60.0) -> CallState:
    made = CallState(Timeouts(connect=1, read=read, attempt=attempt, call=call))
    made.start()
    return made


async def test_a_silence_counts_from_the_connection_on() -> None:
    """Connecting has limits of its own; it may take longer than a silence."""
    watch, loop = AttemptTimer(scaled(0.05, 5)), asyncio.get_running_loop()
    began = loop.time()
    loop.call_later(0.15, watch.connected, None)
    assert await struck(watch) - began >= 0.2
    assert watch.silent


async def test_what_comes_puts_the_end_off() -> None:
    """Each part of the answer starts the silence anew."""
    watch, loop = AttemptTimer(scaled(0.1, 5)), asyncio.get_running_loop()
    watch.connected(None)
    began = loop.time()
    for n in range(1, 6):
        loop.call_later(0.05 * n, watch.moved)
    assert await struck(watch) - began >= 0.35
    assert watch.silent


@pytest.mark.parametrize(("attempt", "call", "of_call"), [(0.1, 60.0, False), (5.0, 0.1, True)])
async def test_the_whole_ends_whatever_comes(attempt: float, call: float, of_call: bool) -> None:
    """By the attempt's limit, or by what the call has left."""
    watch, loop = AttemptTimer(scaled(0.08, attempt, call)), asyncio.get_running_loop()
    watch.connected(None)
    for n in range(1, 20):
        loop.call_later(0.01 * n, watch.moved)
    await struck(watch)
    assert not watch.silent
    assert watch.of_call is of_call


async def test_nothing_happens_behind_its_end() -> None:
    """The timer is gone with the attempt, and a late strike hits nobody."""
    watch = AttemptTimer(scaled(0.02, 0.03))
    with watch:
        await asyncio.sleep(0)
    watch.stop()
    watch.strike()
    await asyncio.sleep(0.05)
    assert not watch.broken
    assert not watch.silent


async def test_its_timer_goes_with_the_attempt() -> None:
    """Thousands of answers in the time of one attempt would leave thousands of timers."""
    watch = AttemptTimer(scaled(20, 60))
    watch.stop()
    assert watch._handle.cancelled()


async def test_the_whole_ends_without_a_connection_too() -> None:
    """Also where it is shorter than a silence may be."""
    watch = AttemptTimer(scaled(50, 0.05))
    async with asyncio.timeout(10):
        await struck(watch)
    assert not watch.silent


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    """Also in the moment in which the watch strikes."""
    watch = AttemptTimer(CallState(LIMITS))

    async def wait() -> None:
        with watch:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    watch._task = task
    await asyncio.sleep(0)
    watch.strike()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.stop()
