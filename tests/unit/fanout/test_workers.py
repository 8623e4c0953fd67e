"""The workers of a fan-out: who gets which key, outages, keys that always fail, and what concerns every key."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support.fan_fakes import FakeTime, Shelf, batches_over, failure, fan_over, until_raised

from capillary_async import (
    AttemptRecord,
    AuthenticationError,
    DecodeError,
    NotFoundError,
    Position,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TLSError,
    TransportError,
)
from capillary_async._fanout.outage import Answered, Control

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Service:
    """Answers, or is down; counts what it was asked while it was down."""

    def __init__(self, shelf: Shelf, time: FakeTime, *, until: float, exhausted: bool = True) -> None:
        self.time = time
        self.until = until
        self.exhausted = exhausted
        self.refused: list[tuple[float, Any, int]] = []
        shelf.before = self.answer

    async def answer(self, key: Any, number: int) -> None:
        if self.time.now < self.until:
            self.refused.append((self.time.now, key, number))
            raise failure(exhausted=self.exhausted)


async def test_workers_share_the_keys_and_no_more_than_concurrency_run() -> None:
    """A hundred keys, four at a time, each asked once."""
    shelf = Shelf(rows=1)
    assert len(await fan_over(range(1, 101), shelf).collect()) == 100
    assert shelf.most == 4
    assert sorted(shelf.asked) == [(key, 1) for key in range(1, 101)]


async def test_there_are_no_more_workers_than_units() -> None:
    """Two keys do not start 32 tasks; nor do ten batches of ten."""
    before = len(asyncio.all_tasks())
    iterator = aiter(fan_over([1, 2], Shelf(), concurrency=32))
    await anext(iterator)
    assert len(asyncio.all_tasks()) - before <= 4
    await iterator.aclose()
    iterator = aiter(batches_over(range(1, 101), Shelf(), batch=10, concurrency=32))
    await anext(iterator)
    assert len(asyncio.all_tasks()) - before <= 12
    await iterator.aclose()


async def test_a_slow_loop_bounds_what_is_fetched() -> None:
    """What waits to be taken is a few outcomes, not the input."""
    shelf = Shelf(rows=1)
    iterator = aiter(fan_over(range(1, 10_000), shelf, concurrency=4))
    for taken in range(1, 6):
        await anext(iterator)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(shelf.keys_asked) <= taken + 8
    await iterator.aclose()


async def test_ordered_holds_back_at_most_twice_the_concurrency() -> None:
    """While the first key is slow, others go on as far as the window reaches."""
    shelf, release = Shelf(rows=1), asyncio.Event()

    async def wait(key: int, number: int) -> None:
        if key == 1:
            await release.wait()

    shelf.before = wait
    iterator = fan_over(range(1, 1000), shelf, concurrency=4).ordered()
    first = asyncio.ensure_future(anext(iterator))
    for _ in range(500):
        await asyncio.sleep(0)
    assert shelf.keys_asked == list(range(1, 9))
    assert len(iterator._buffered) <= 8
    release.set()
    assert (await first).key == 1
    assert [outcome.key async for outcome in iterator] == list(range(2, 1000))


async def test_a_slow_key_does_not_hold_up_the_others() -> None:
    """Outcomes come as they finish."""
    shelf, release = Shelf(), asyncio.Event()

    async def wait(key: int, number: int) -> None:
        if key == 1:
            await release.wait()

    shelf.before = wait
    iterator = aiter(fan_over(range(1, 21), shelf, concurrency=2))
    assert [(await anext(iterator)).key for _ in range(19)] == list(range(2, 21))
    release.set()
    assert (await anext(iterator)).key == 1
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


async def test_an_outage_does_not_burn_the_input() -> None:
    """Probes after 1, 2, 5 and 10 s; then every key is answered, and none was given up."""
    shelf, time = Shelf(rows=1), FakeTime()
    service = Service(shelf, time, until=15)
    collected = await fan_over(range(1, 201), shelf, concurrency=4, time=time).collect()
    assert all(outcome.ok for outcome in collected.values())
    assert len(collected) == 200
    assert time.slept == [1.0, 2.0, 5.0, 10.0]
    # The four under way when it began, and one probe each time.
    assert len(service.refused) == 4 + 3


async def test_neither_noticing_nor_slow_probes_put_off_the_next() -> None:
    """The outage was noticed 2 s after the last answer, and a probe took 3 s: the probes keep their times."""
    shelf, time = Shelf(rows=1), FakeTime()
    came: list[float] = []

    async def fail(key: int, number: int) -> None:
        if key == 1 or time.now > 30:
            return
        came.append(time.now)
        time.now += 2 if len(came) == 1 else 3 if len(came) == 3 else 0
        raise failure(exhausted=True)

    shelf.before = fail
    collected = await fan_over(range(1, 5), shelf, concurrency=1, time=time).collect()
    assert all(outcome.ok for outcome in collected.values())
    assert came == [0, 2.5, 3, 8, 18]
    assert time.slept == [0.5, 0.5, 2, 10, 20]


async def test_a_quick_notice_leaves_the_first_pause_whole() -> None:
    """Only what took longer than half a second counts as a part of the pause."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if time.now < 1:
            time.now += 0.25
            raise failure(exhausted=True)

    shelf.before = fail
    await fan_over(range(1, 5), shelf, concurrency=1, time=time).collect()
    assert time.slept == [1.0]


async def test_what_was_never_sent_does_not_burn_the_input() -> None:
    """The server told the session to wait for longer than a call may: no key is given up for that."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if time.now < 15:
            error = RateLimitedError("not sent: the server asks for a wait", status=429, retry_after=3600 - time.now)
            error.sent = False
            raise error

    shelf.before = fail
    collected = await fan_over(range(1, 201), shelf, concurrency=4, time=time).collect()
    assert len(collected) == 200
    assert all(outcome.ok for outcome in collected.values())
    assert time.slept == [1.0, 2.0, 5.0, 10.0]


async def test_a_key_that_used_up_its_attempts_just_before_an_outage_was_noticed_is_asked_again() -> None:
    """Its error is held back until an answer of others shows that there is no outage, or an outage that there is."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if time.now >= 2:
            return
        if key == 1 and not time.now:
            raise failure()  # all attempts, while the quota lasted
        await asyncio.sleep(0)
        raise failure(exhausted=True)

    shelf.before = fail
    collected = await fan_over(range(1, 50), shelf, concurrency=4, time=time).collect()
    assert len(collected) == 49
    assert all(outcome.ok for outcome in collected.values())


async def test_an_error_held_back_is_told_with_the_next_answer() -> None:
    """It waits for no more than that, also in order and in a slow input."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if key % 3 == 0:
            raise failure()

    shelf.before = fail
    for fan in (fan_over(range(1, 100), shelf, time=time), fan_over(range(1, 100), shelf, time=time).ordered()):
        outcomes = [outcome async for outcome in fan]
        assert sorted(outcome.key for outcome in outcomes) == list(range(1, 100))
        assert sorted(outcome.key for outcome in outcomes if not outcome.ok) == list(range(3, 100, 3))
    assert time.slept == []


async def test_probes_settle_at_twenty_seconds() -> None:
    """After 1, 2, 5, 10 and 20 s every further one waits 20 s."""
    shelf, time = Shelf(rows=1), FakeTime()
    Service(shelf, time, until=100)
    collected = await fan_over([1, 2, 3], shelf, concurrency=1, time=time).collect()
    assert all(outcome.ok for outcome in collected.values())
    assert time.slept == [1.0, 2.0, 5.0, 10.0, 20.0, 20.0, 20.0, 20.0, 20.0]


@pytest.mark.parametrize("mode", ["outcomes", "ordered", "pages", "items"])
async def test_an_outage_in_the_middle_of_a_list_reads_no_page_twice(mode: str) -> None:
    """A key goes on from its position, whatever the loop wants."""
    shelf, time = Shelf(), FakeTime()
    down = True

    async def fail(key: int, number: int) -> None:
        nonlocal down
        if number == 3 and time.now < 2:
            raise failure(exhausted=True)

    shelf.before = fail
    fan = fan_over([10, 11], shelf, concurrency=2, time=time)
    rows = await _rows(fan, mode)
    assert sorted(rows) == [(key, index) for key in (10, 11) for index in range(key)]
    asked = [pair for pair in shelf.asked if pair[1] != 3]
    assert len(asked) == len(set(asked))
    assert down


async def _rows(fan: Any, mode: str) -> list[Any]:
    if mode == "items":
        return [row async for row in fan.items()]
    if mode == "pages":
        return [row async for _, page in fan.pages() for row in page]
    outcomes = [outcome async for outcome in (fan.ordered() if mode == "ordered" else fan)]
    assert [outcome.pages for outcome in outcomes] == [4, 4]
    assert [len(outcome.warnings) for outcome in outcomes] == [4, 4]
    return [row for outcome in outcomes for row in outcome.unwrap()]


async def test_an_outage_longer_than_the_patience_is_raised() -> None:
    """As itself, with the key asked last; keys without an outcome were not answered."""
    shelf, time = Shelf(rows=1), FakeTime()
    service = Service(shelf, time, until=1000)

    async def fail_later(key: int, number: int) -> None:
        if key > 5:
            await service.answer(key, number)

    shelf.before = fail_later
    fan = fan_over(range(1, 100), shelf, concurrency=1, max_wait=30, time=time)
    given, error = await until_raised(ServerError, fan)
    assert [outcome.key for outcome in given] == [1, 2, 3, 4, 5]
    assert time.slept == [1.0, 2.0, 5.0, 10.0, 12.0]
    assert error.key in range(6, 100)
    assert error.quota_exhausted


async def test_an_outage_that_began_in_the_middle_of_a_list_names_the_beginning() -> None:
    """The outcome was not given, so going on behind its pages would lose them; a loop over pages goes on there."""
    for mode, place in (("outcomes", Position(1)), ("pages", Position(3, 0, 3))):
        shelf, time = Shelf(), FakeTime()

        async def fail(key: int, number: int) -> None:
            if number == 3:
                raise failure(exhausted=True)

        shelf.before = fail
        fan = fan_over([10], shelf, time=time, max_wait=5)
        with pytest.raises(ServerError) as caught:
            [one async for one in (fan if mode == "outcomes" else fan.pages())]
        assert caught.value.key == 10
        assert caught.value.position == place


@pytest.mark.parametrize("concurrency", [1, 2, 8])
async def test_a_key_that_always_fails_does_not_hold_up_the_others(concurrency: int) -> None:
    """Others are answered meanwhile, so it is no outage: the key is asked a few times, then told as failed."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if key == 13:
            raise failure(exhausted=True)

    shelf.before = fail
    collected = await fan_over(range(1, 301), shelf, concurrency=concurrency, time=time).collect()
    assert len(collected) == 300
    assert [key for key, outcome in collected.items() if not outcome.ok] == [13]
    assert isinstance(collected[13].error, ServerError)
    assert 4 <= [key for key, _ in shelf.asked].count(13) <= 10
    assert sum(time.slept) <= 10


async def test_two_keys_that_always_fail_are_told_too() -> None:
    """Each is probed in turn with others."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if key in (1, 2):
            raise failure(exhausted=True)

    shelf.before = fail
    collected = await fan_over(range(1, 50), shelf, concurrency=2, time=time).collect()
    assert {key for key, outcome in collected.items() if not outcome.ok} == {1, 2}
    assert len(collected) == 49


async def test_a_batch_refused_its_retries_is_asked_again_and_then_each_key_is_told() -> None:
    """Every key of it has an error of its own."""
    shelf, time = Shelf(), FakeTime()

    async def fail(keys: Any, number: int) -> None:
        if 1 in keys:
            raise failure(exhausted=True)

    fan = batches_over(range(1, 41), shelf, batch=2, time=time)
    shelf.before = fail
    collected = await fan.collect()
    assert [key for key, outcome in collected.items() if not outcome.ok] == [1, 2]
    first, second = collected[1].error, collected[2].error
    assert first is not second
    assert first is not None
    assert second is not None
    assert (first.key, second.key) == (1, 2)
    assert (type(first), first.args, first.attempts) == (type(second), second.args, second.attempts)


async def test_a_probe_that_fails_for_another_reason_ends_the_outage_where_it_is_an_answer() -> None:
    """A 404 shows that the service answers; the key has its error."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if key == 1 and time.now == 0:
            raise failure(exhausted=True)
        if key <= 2:
            raise NotFoundError("no such resource", status=404)

    shelf.before = fail
    collected = await fan_over([1, 2, 3], shelf, concurrency=1, time=time).collect()
    assert time.slept == [1.0]
    assert {key: outcome.ok for key, outcome in collected.items()} == {1: False, 2: False, 3: True}


@pytest.mark.parametrize(
    "error",
    [
        TransportError("cut"),
        RequestTimeoutError("slow"),
        ServerError("down", status=503),
        DecodeError("an HTML page", malformed=True),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_probe_without_an_answer_does_not_end_the_outage(error: Any) -> None:
    """Its key is told as failed; where nothing else is left to ask, the outage is over."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if time.now == 0:
            raise failure(exhausted=True)
        raise error

    shelf.before = fail
    collected = await fan_over([1], shelf, time=time).collect()
    assert collected[1].error is error
    assert time.slept == [1.0, 2.0]


async def test_a_server_that_refuses_for_ever_is_raised() -> None:
    """The session's gate is shut for every key: none is given up for that, and the last refusal says why."""
    shelf, time = Shelf(rows=1), FakeTime()
    refusal = RateLimitedError("not sent: the server refuses this session's requests", status=429)
    refusal.sent = False

    async def fail(key: int, number: int) -> None:
        raise refusal

    shelf.before = fail
    given: list[Any] = []
    with pytest.raises(RateLimitedError) as caught:
        given.extend([outcome async for outcome in fan_over(range(1, 200), shelf, concurrency=2, time=time)])
    assert caught.value is refusal
    assert given == []
    assert time.now >= 180


@pytest.mark.parametrize("seconds", [10, 30, 100])
async def test_a_long_refusal_costs_no_key(seconds: float) -> None:
    """Attempts used up on 429 while nobody is answered are no verdict on the key that made them."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if time.now >= seconds:
            return
        error = RateLimitedError("later", status=429, retry_after=1)
        error.sent = key % 4 != 0  # the others waited behind the gate for too long
        await asyncio.sleep(0.001 if error.sent else 0.003)
        raise error

    shelf.before = fail
    collected = await fan_over(range(1, 200), shelf, concurrency=4, time=time).collect()
    assert [outcome.ok for outcome in collected.values()] == [True] * 199


async def test_errors_held_back_are_each_told_once_to_a_slow_loop() -> None:
    """Several workers may come to tell them at once, and each waits for the loop."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        await asyncio.sleep(0.0005 * (key % 7))
        if key % 4:
            raise failure()

    shelf.before = fail
    keys: list[int] = []
    async for outcome in fan_over(range(1, 300), shelf, concurrency=8, time=time):
        keys.append(outcome.key)
        await asyncio.sleep(0.001)
    assert sorted(keys) == list(range(1, 300))


async def test_a_lone_key_that_is_refused_gets_its_error() -> None:
    """Nobody else is asked who could tell an outage from a refusal of its own."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        raise RateLimitedError("later", status=429)

    shelf.before = fail
    for keys in ([1], [1, 2, 3]):
        collected = await fan_over(keys, shelf, time=time).collect()
        assert [type(outcome.error) for outcome in collected.values()] == [RateLimitedError] * len(keys)
    assert time.slept == []


async def test_a_key_that_is_refused_for_ever_among_others_gets_its_error() -> None:
    """It is asked again three times while others are answered, and not for ever."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if key == 5:
            raise RateLimitedError("later", status=429)

    shelf.before = fail
    collected = await fan_over(range(1, 50), shelf, concurrency=4, time=time).collect()
    assert [key for key, outcome in collected.items() if not outcome.ok] == [5]
    assert time.slept == []


async def test_what_ends_an_outage_is_an_answer_of_the_right_kind() -> None:
    """JSON of another shape came from the service: it is up."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if time.now == 0:
            raise failure(exhausted=True)
        if key == 2:
            raise DecodeError("another shape")

    shelf.before = fail
    collected = await fan_over([1, 2], shelf, concurrency=1, time=time).collect()
    assert time.slept == [1.0]
    assert collected[1].ok
    assert not collected[2].ok


async def test_an_answer_that_was_under_way_reopens_the_gate() -> None:
    """A slow success of another worker counts as well as a probe's."""
    shelf, time, slow = Shelf(rows=1), FakeTime(), asyncio.Event()

    async def answer(key: int, number: int) -> None:
        if key == 1:
            await slow.wait()
        elif time.now < 4:
            slow.set()
            raise failure(exhausted=True)

    shelf.before = answer
    collected = await fan_over([1, 2, 3, 4], shelf, concurrency=2, time=time).collect()
    assert all(outcome.ok for outcome in collected.values())


@pytest.mark.parametrize("error", [AuthenticationError("refused", status=401), TLSError("bad certificate")], ids=repr)
@pytest.mark.parametrize("mode", ["outcomes", "ordered", "pages", "items"])
async def test_what_concerns_every_key_is_raised_from_the_loop(error: Any, mode: str) -> None:
    """As itself, with the key that met it; the others are not asked any more."""
    shelf = Shelf(rows=1)

    async def fail(key: int, number: int) -> None:
        if key == 5:
            raise error

    shelf.before = fail
    fan = fan_over(range(1, 1000), shelf, concurrency=2)
    with pytest.raises(type(error)) as caught:
        [one async for one in (fan if mode == "outcomes" else getattr(fan, mode)())]
    assert caught.value is error
    assert caught.value.key == 5
    assert len(shelf.keys_asked) < 20
    assert len(asyncio.all_tasks()) == 1


async def test_what_concerns_every_key_is_raised_from_batches_and_probes_too() -> None:
    """The key is one of the batch."""
    shelf = Shelf()

    async def fail(keys: Any, number: int) -> None:
        raise AuthenticationError("refused", status=401)

    fan = batches_over(range(1, 41), shelf, batch=10)
    shelf.before = fail
    with pytest.raises(AuthenticationError) as caught:
        await fan.collect()
    assert caught.value.key == 1
    time = FakeTime()
    other = Shelf()

    async def fail_then_refuse(key: int, number: int) -> None:
        raise AuthenticationError("refused", status=401) if time.now else failure(exhausted=True)

    other.before = fail_then_refuse
    with pytest.raises(AuthenticationError):
        await fan_over([1, 2, 3], other, time=time).collect()


async def test_an_error_that_is_not_ours_is_raised_as_itself() -> None:
    """A bug in a middleware is told at once, not as the outcome of a key, and never as a group."""
    shelf = Shelf()

    async def fail(key: int, number: int) -> None:
        raise ZeroDivisionError("a bug")

    shelf.before = fail
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await fan_over(range(1, 100), shelf).collect()
    assert len(asyncio.all_tasks()) == 1


async def test_a_worker_that_is_cancelled_from_elsewhere_is_not_the_end() -> None:
    """Its key has no outcome, so the loop must not end as if all had."""
    shelf = Shelf()

    async def fail(key: int, number: int) -> None:
        if key == 3:
            raise asyncio.CancelledError

    shelf.before = fail
    given, error = await until_raised(RuntimeError, fan_over(range(1, 10), shelf))
    assert "cancelled from elsewhere" in str(error)
    assert sorted(outcome.key for outcome in given) == [1, 2, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("mode", ["outcomes", "ordered", "pages"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_loop_ends_though_its_workers_are_cancelled(mode: str, concurrency: int) -> None:
    """Where the last one goes with keys left, where nothing can come in order, and where one was to end an outage."""
    for outage in (False, True):
        shelf, time = Shelf(rows=1), FakeTime()

        async def fail(key: int, number: int, time: FakeTime = time, outage: bool = outage) -> None:
            if key % 3 == 0 and (time.now or not outage):
                raise asyncio.CancelledError
            if outage and not time.now:
                raise failure(exhausted=True)

        shelf.before = fail
        fan = fan_over(range(1, 1000), shelf, concurrency=concurrency, time=time)
        given, error = await until_raised(RuntimeError, fan if mode == "outcomes" else getattr(fan, mode)())
        assert "cancelled from elsewhere" in str(error)
        assert len(given) <= 2 * concurrency
        assert len(asyncio.all_tasks()) == 1


async def test_a_run_that_is_cancelled_from_elsewhere_is_not_the_end() -> None:
    """Somebody cancels all tasks but its own, as some frameworks do."""
    iterator = aiter(fan_over(range(1, 1000), Shelf()))
    await anext(iterator)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    _, error = await until_raised(RuntimeError, iterator)
    assert "cancelled from elsewhere" in str(error)


async def test_a_failed_key_tells_how_far_it_was_read() -> None:
    """Pages and warnings are counted, the items are not given, and the position is the beginning."""
    shelf = Shelf()

    async def fail(key: int, number: int) -> None:
        if number == 3:
            raise failure()

    shelf.before = fail
    outcome = (await fan_over([10], shelf).collect())[10]
    assert outcome.items == ()
    assert outcome.pages == 2
    assert [warning.message for warning in outcome.warnings] == ["page 1", "page 2"]
    assert outcome.error is not None
    assert outcome.error.position == Position(1)
    assert outcome.error.key == 10


async def test_each_failed_key_has_an_error_of_its_own() -> None:
    """Also where one answer was the fault of many."""
    shelf = Shelf()

    async def fail(keys: Any, number: int) -> None:
        raise failure()

    fan = batches_over(range(1, 11), shelf, batch=5)
    shelf.before = fail
    collected = await fan.collect()
    errors = [outcome.error for outcome in collected.values()]
    assert len({id(error) for error in errors}) == 10
    assert [error.key for error in errors if error] == list(collected)


async def test_the_input_ends_while_a_unit_is_asked_again() -> None:
    """The last key of an input that is down is not forgotten."""
    shelf, time = Shelf(), FakeTime()
    Service(shelf, time, until=2)

    def ids() -> Iterator[int]:
        yield 1

    collected = await fan_over(ids(), shelf, concurrency=8, time=time).collect()
    assert collected[1].ok


async def test_who_waits_for_the_input_waits_for_the_end_of_an_outage_too() -> None:
    """A key that comes while the service is down is not asked before it is up."""
    shelf, time, more = Shelf(rows=1), FakeTime(), asyncio.Event()

    async def ids() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    async def fail(key: int, number: int) -> None:
        more.set()
        if time.now < 3:
            raise failure(exhausted=True)

    shelf.before = fail
    collected = await fan_over(ids(), shelf, concurrency=3, time=time).collect()
    assert all(outcome.ok for outcome in collected.values())
    assert time.slept == [1.0, 2.0]


@pytest.mark.parametrize(
    ("concurrency", "bad"),
    [(1, range(10, 201, 10)), (4, range(10, 201, 10)), (32, range(10, 201, 10)), (32, range(181, 201))],
)
async def test_keys_that_always_fail_are_no_outage(concurrency: int, bad: range) -> None:
    """Nor where they are all that is left: each has its error, soon, and the others are answered."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        if key in bad:
            raise failure(exhausted=True)

    shelf.before = fail
    fan = fan_over(range(1, 201), shelf, concurrency=concurrency, max_wait=30, time=time)
    collected = await fan.collect()
    assert len(collected) == 200
    assert sorted(key for key, outcome in collected.items() if not outcome.ok) == list(bad)
    # A single worker meets them one by one.
    assert sum(time.slept) <= {1: 25, 4: 20}.get(concurrency, 10)


async def test_bad_keys_at_the_end_are_told_by_asking_an_answered_one_again() -> None:
    """One page of a key that was answered shows that the service is up; nothing of it is given out twice."""
    shelf, time = Shelf(), FakeTime()

    async def fail(key: int, number: int) -> None:
        if key == 11:
            raise failure(exhausted=True)

    shelf.before = fail
    outcomes = [outcome async for outcome in fan_over([10, 11], shelf, concurrency=1, time=time)]
    assert [(outcome.key, outcome.ok) for outcome in outcomes] == [(10, True), (11, False)]
    assert time.slept == [1.0] * 4
    assert shelf.asked.count((10, 1)) == 5
    assert shelf.asked.count((10, 2)) == 1


@pytest.mark.parametrize("failing", ["alone", "answered too"])
async def test_bad_keys_of_batches_at_the_end(failing: str) -> None:
    """A batch that was answered is asked again; where it fails now, it is an outage."""
    shelf, time = Shelf(), FakeTime()

    async def fail(keys: Any, number: int) -> None:
        if 4 in keys:
            shelf.size = 0
        if 4 in keys or (failing == "answered too" and not shelf.size):
            raise failure(exhausted=True)

    fan = batches_over(range(1, 5), shelf, batch=2, concurrency=1, time=time)
    shelf.before = fail
    if failing == "alone":
        assert [key for key, outcome in (await fan.collect()).items() if not outcome.ok] == [3, 4]
    else:
        given, error = await until_raised(ServerError, fan)
        assert [outcome.key for outcome in given] == [1, 2]
        assert error.key in (3, 4)


async def test_an_outage_at_the_end_of_the_input_burns_no_key() -> None:
    """The answered key is down as well, so the others are asked again when it is over."""
    shelf, time = Shelf(rows=1), FakeTime()
    answered = 0

    async def fail(key: int, number: int) -> None:
        nonlocal answered
        if time.now < 100 and answered == 90:
            raise failure(exhausted=True)
        answered += time.now == 0

    shelf.before = fail
    collected = await fan_over(range(1, 101), shelf, concurrency=8, time=time).collect()
    assert len(collected) == 100
    assert all(outcome.ok for outcome in collected.values())


async def test_an_outage_at_the_end_of_the_input_is_raised_when_patience_ends() -> None:
    """Keys without an outcome were not answered."""
    shelf, time = Shelf(rows=1), FakeTime()
    answered = 0

    async def fail(key: int, number: int) -> None:
        nonlocal answered
        if answered == 90:
            raise failure(exhausted=True)
        answered += 1

    shelf.before = fail
    given, error = await until_raised(
        ServerError, fan_over(range(1, 101), shelf, concurrency=8, max_wait=30, time=time)
    )
    assert len(given) == 90
    assert all(outcome.ok for outcome in given)
    assert error.key in range(1, 101)
    # What answers were under way when it was noticed may end the first pause.
    assert 30 <= sum(time.slept) <= 31


async def test_a_key_that_used_up_its_attempts_in_an_outage_is_asked_again() -> None:
    """It began before the outage was noticed, and ends in it."""
    shelf, time, slow = Shelf(rows=1), FakeTime(), asyncio.Event()

    async def fail(key: int, number: int) -> None:
        if time.now >= 2:
            return
        if key == 1 and not slow.is_set():
            await slow.wait()
            raise failure()
        if time.now:
            slow.set()
        raise failure(exhausted=True)

    shelf.before = fail
    collected = await fan_over(range(1, 50), shelf, concurrency=4, time=time).collect()
    assert len(collected) == 49
    assert all(outcome.ok for outcome in collected.values())


@pytest.mark.parametrize("count", [1, 100])
async def test_used_up_attempts_are_plain_errors_where_no_outage_was_noticed(count: int) -> None:
    """Each key is asked once, and nothing waits."""
    shelf, time = Shelf(rows=1), FakeTime()

    async def fail(key: int, number: int) -> None:
        raise failure()

    shelf.before = fail
    collected = await fan_over(range(1, count + 1), shelf, concurrency=4, time=time).collect()
    assert len(shelf.asked) == len(collected) == count
    assert not any(outcome.ok for outcome in collected.values())
    assert time.slept == []


async def test_what_a_refusal_says_of_the_service() -> None:
    """Asked again in an outage, a batch whose id is refused was answered; one that the server failed was not."""
    control = Control()
    with pytest.raises(Answered):
        await control.failed(1, NotFoundError("no such id", status=404))
    down = ServerError("down", status=503)
    with pytest.raises(ServerError) as caught:
        await control.failed(1, down)
    assert caught.value is down


async def test_an_error_has_the_attempts_of_all_calls_of_its_key() -> None:
    """Also of those after which the key was put off: count, history and text agree."""
    shelf, calls = Shelf(rows=1), Counter[int]()

    async def fail(key: int, number: int) -> None:
        await asyncio.sleep(0)
        calls[key] += 1
        if key == 3:
            error = RateLimitedError("later", status=429)
            error.attempts, error.elapsed = 2, 0.5
            error.history = (AttemptRecord(1, "status", 429, 0.1), AttemptRecord(2, "status", 429))
            raise error

    shelf.before = fail
    outcome = (await fan_over(range(1, 9), shelf, concurrency=4).collect())[3]
    assert outcome.error is not None
    assert calls[3] > 1
    assert outcome.error.attempts == 2 * calls[3]
    assert [one.number for one in outcome.error.history] == list(range(1, 2 * calls[3] + 1))
    assert outcome.error.elapsed == 0.5 * calls[3]
    assert f"({outcome.error.attempts} attempts in all" in str(outcome.error)
