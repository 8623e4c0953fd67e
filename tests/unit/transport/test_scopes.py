"""Waits that something outside ends: the scopes of calls, which end with their session, and the time of one attempt."""

from __future__ import annotations

import asyncio

import pytest

from capillary_async import Timeouts
from capillary_async._interrupt import InFlightCalls
from capillary_async._transport.attempt_timer import AttemptTimer
from capillary_async._transport.messages import CallState

LIMITS = Timeouts(connect=1, read=2, attempt=10, call=20)


async def test_a_call_comes_out_as_it_is() -> None:
    """Its value, its error, and a timeout of its own."""
    calls = InFlightCalls()
    assert await calls.run(asyncio.sleep(0, "value")) == "value"

    async def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await calls.run(late())
    calls.end()


async def test_waiting_calls_end_with_the_session() -> None:
    """Also where it is ended twice, and when it has just ended by itself."""
    calls, done = InFlightCalls(), asyncio.Event()
    waiting = asyncio.ensure_future(calls.run(asyncio.Event().wait()))
    ending = asyncio.ensure_future(calls.run(done.wait()))
    await asyncio.sleep(0)
    done.set()
    await asyncio.sleep(0)
    calls.end()
    calls.end()
    with pytest.raises(RuntimeError, match="the AsyncSession was closed while a request was under way"):
        await waiting
    assert await ending
    again = asyncio.ensure_future(calls.run(asyncio.sleep(0, 5)))
    assert await again == 5


async def test_a_cancelled_call_is_cancelled() -> None:
    """Of the caller, not of the session."""
    calls = InFlightCalls()
    waiting = asyncio.ensure_future(calls.run(asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_calls_of_a_loop_that_is_gone() -> None:
    """No call is left to end."""
    calls, loop = InFlightCalls(), asyncio.new_event_loop()
    waiting = loop.create_task(calls.run(asyncio.Event().wait()))
    loop.run_until_complete(asyncio.sleep(0))
    entries = list(calls._scopes)
    waiting.cancel()
    loop.run_until_complete(asyncio.wait([waiting]))
    calls._scopes.update(entries)
    calls.end()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    calls.end()


async def cancelled(timer: AttemptTimer) -> float:
    """Wait until the timer cancels; gives the loop's time of that."""
    with timer:
        await asyncio.Event().wait()
    assert timer.cancelled_caught
    timer.stop()
    return asyncio.get_running_loop().time()


def scaled(read: float, attempt: float, call: float = 60.0) -> CallState:
    made = CallState(Timeouts(connect=1, read=read, attempt=attempt, call=call))
    made.start()
    return made


async def test_a_silence_counts_from_the_connection_on() -> None:
    """Connecting has limits of its own; it may take longer than a silence."""
    timer, loop = AttemptTimer(scaled(0.05, 5)), asyncio.get_running_loop()
    began = loop.time()
    loop.call_later(0.15, timer.connected, None)
    assert await cancelled(timer) - began >= 0.2
    assert timer.stalled


async def test_what_comes_puts_the_end_off() -> None:
    """Each part of the answer restarts the limit of silence."""
    timer, loop = AttemptTimer(scaled(0.1, 5)), asyncio.get_running_loop()
    timer.connected(None)
    began = loop.time()
    for n in range(1, 6):
        loop.call_later(0.05 * n, timer.moved)
    assert await cancelled(timer) - began >= 0.35
    assert timer.stalled


@pytest.mark.parametrize(("attempt", "call", "of_call"), [(0.1, 60.0, False), (5.0, 0.1, True)])
async def test_the_whole_ends_whatever_comes(attempt: float, call: float, of_call: bool) -> None:
    """By the attempt's limit, or by what the call has left."""
    timer, loop = AttemptTimer(scaled(0.08, attempt, call)), asyncio.get_running_loop()
    timer.connected(None)
    for n in range(1, 20):
        loop.call_later(0.01 * n, timer.moved)
    await cancelled(timer)
    assert not timer.stalled
    assert timer.of_call is of_call


async def test_nothing_happens_behind_its_end() -> None:
    """The timer is gone with the attempt, and a cancel after it does nothing."""
    timer = AttemptTimer(scaled(0.02, 0.03))
    with timer:
        await asyncio.sleep(0)
    timer.stop()
    timer.cancel()
    await asyncio.sleep(0.05)
    assert not timer.cancelled_caught
    assert not timer.stalled


async def test_its_timer_goes_with_the_attempt() -> None:
    """Thousands of answers in the time of one attempt would leave thousands of timers."""
    timer = AttemptTimer(scaled(20, 60))
    timer.stop()
    assert timer._handle.cancelled()


async def test_the_whole_ends_without_a_connection_too() -> None:
    """Also where it is shorter than a silence may be."""
    timer = AttemptTimer(scaled(50, 0.05))
    async with asyncio.timeout(10):
        await cancelled(timer)
    assert not timer.stalled


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    """Also in the moment in which the timer cancels."""
    timer = AttemptTimer(CallState(LIMITS))

    async def wait() -> None:
        with timer:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    timer._task = task
    await asyncio.sleep(0)
    timer.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    timer.stop()
