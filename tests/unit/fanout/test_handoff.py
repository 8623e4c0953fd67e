"""The channel between the workers of a fan-out and the loop over it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from capillary_async._fanout.handoff import Handoff


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def taken(channel: Handoff[Any]) -> list[Any]:
    """Everything that comes, to the end."""
    values = []
    while await channel.wait():
        values.append(channel.take())
    return values


async def test_values_come_in_the_order_of_sending() -> None:
    """Also those of senders that had to wait."""
    channel: Handoff[int] = Handoff(2)
    senders = [asyncio.ensure_future(channel.send(number)) for number in range(10)]
    await settle()
    assert len(channel) == 2
    assert sum(sender.done() for sender in senders) == 2
    reading = asyncio.ensure_future(taken(channel))
    await asyncio.wait(senders)
    channel.end()
    assert await reading == list(range(10))


async def test_there_is_never_more_than_the_size() -> None:
    """A value taken makes room for one sender, the first; nobody gets in between."""
    channel: Handoff[str] = Handoff(1)
    assert channel.offer("a")
    waiting = asyncio.ensure_future(channel.send("b"))
    await settle()
    assert channel.take() == "a"
    assert not channel.offer("c")
    assert len(channel) == 1
    await waiting
    assert channel.take() == "b"
    assert channel.offer("c")


async def test_an_offer_wakes_who_waits() -> None:
    """The receiver sleeps until something is there, and once more behind it."""
    channel: Handoff[int] = Handoff(1)
    reading = asyncio.ensure_future(taken(channel))
    for number in range(3):
        await settle()
        assert channel.offer(number)
    await settle()
    assert not reading.done()
    channel.end()
    assert await reading == [0, 1, 2]


async def test_what_was_sent_before_the_end_is_taken() -> None:
    """Values that wait, and those of senders that wait; what is sent behind the end is dropped."""
    channel: Handoff[int] = Handoff(1)
    first, second = (asyncio.ensure_future(channel.send(number)) for number in (1, 2))
    await settle()
    channel.end()
    assert channel.offer(3)
    assert await taken(channel) == [1, 2]
    await asyncio.gather(first, second)
    assert not await channel.wait()


async def test_closing_drops_what_nobody_takes() -> None:
    """And wakes the receiver."""
    channel: Handoff[int] = Handoff(1)
    assert channel.offer(1)
    channel.close()
    assert await taken(channel) == []
    waiting: Handoff[int] = Handoff(1)
    reading = asyncio.ensure_future(taken(waiting))
    await settle()
    waiting.close()
    assert await reading == []


@pytest.mark.parametrize("moment", ["waiting", "noticed too late", "moved up"])
async def test_a_cancelled_sender(moment: str) -> None:
    """Its value is sent once or not at all, and those behind it have their turn."""
    channel: Handoff[str] = Handoff(1)
    assert channel.offer("a")
    first, second = (asyncio.ensure_future(channel.send(value)) for value in "bc")
    await settle()
    if moment == "moved up":
        assert channel.take() == "a"
        first.cancel()
        expected = ["b", "c"]
    else:
        first.cancel()
        if moment == "waiting":
            await settle()
        assert channel.take() == "a"
        expected = ["c"]
    reading = asyncio.ensure_future(taken(channel))
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    channel.end()
    assert await reading == expected


async def test_a_cancelled_receiver_loses_nothing() -> None:
    """What was sent in the same moment is there for the next."""
    channel: Handoff[int] = Handoff(1)
    waiting = asyncio.ensure_future(channel.wait())
    await settle()
    assert channel.offer(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    channel.end()
    assert await taken(channel) == [1]


async def test_turns_come_one_at_a_time() -> None:
    """The next only when what was sent is taken, or when the one before sent nothing; in the order of asking."""
    channel: Handoff[int] = Handoff(4)
    order: list[int] = []

    async def work(number: int, *, sends: bool) -> None:
        await channel.turn()
        order.append(number)
        if sends:
            assert channel.offer(number)

    plan = [True, True, False, False, True]
    tasks = [asyncio.ensure_future(work(number, sends=sends)) for number, sends in enumerate(plan)]
    await settle()
    assert order == [0]
    assert channel.take() == 0
    await settle()
    assert order == [0, 1]
    assert channel.take() == 1
    await settle()
    assert order == [0, 1, 2, 3, 4]
    assert channel.take() == 4
    await asyncio.gather(*tasks)
    await channel.turn()


async def test_a_cancelled_turn_is_the_next_ones() -> None:
    """Before it came, and in the moment in which it came."""
    channel: Handoff[int] = Handoff(4)
    assert channel.offer(1)
    first, second, third = (asyncio.ensure_future(channel.turn()) for _ in range(3))
    await settle()
    second.cancel()
    assert channel.take() == 1
    first.cancel()
    await asyncio.wait_for(third, 1)
    assert (first.cancelled(), second.cancelled()) == (True, True)
