"""Calls that end with their session."""

from __future__ import annotations

import asyncio

import pytest

from capillary_async._underway import InFlightCalls


async def test_a_call_comes_out_as_it_is() -> None:
    """Its value, its error, and a timeout of its own."""
    calls = InFlightCalls()
    assert await calls.run(asyncio.sleep(0, "value")) == "value"

    async def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await calls.run(late())
    calls.end()


async def test_what_waits_is_told() -> None:
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


async def test_a_cancellation_is_a_cancellation() -> None:
    """Of the caller, not of the session."""
    calls = InFlightCalls()
    waiting = asyncio.ensure_future(calls.run(asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_calls_of_a_loop_that_is_gone() -> None:
    """Nobody is left to be told."""
    calls, loop = InFlightCalls(), asyncio.new_event_loop()
    waiting = loop.create_task(calls.run(asyncio.Event().wait()))
    loop.run_until_complete(asyncio.sleep(0))
    entries = list(calls._waits)
    waiting.cancel()
    loop.run_until_complete(asyncio.wait([waiting]))
    calls._waits.update(entries)
    calls.end()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    calls.end()
