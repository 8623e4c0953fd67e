"""The workers of a fan-out: who gets which key, keys that always fail, and what concerns every key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.fan_fakes import Shelf, batches_over, failure, fan_over, until_raised

from capillary_async import (
    AuthenticationError,
    Position,
    TLSError,
)


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


async def test_failed_keys_have_each_their_outcome() -> None:
    """As they finish, and in order."""
    shelf = Shelf(rows=1)

    async def fail(key: int, number: int) -> None:
        if key % 3 == 0:
            raise failure()

    shelf.before = fail
    for fan in (fan_over(range(1, 100), shelf), fan_over(range(1, 100), shelf).ordered()):
        outcomes = [outcome async for outcome in fan]
        assert sorted(outcome.key for outcome in outcomes) == list(range(1, 100))
        assert sorted(outcome.key for outcome in outcomes if not outcome.ok) == list(range(3, 100, 3))


async def test_errors_are_each_given_once_to_a_slow_loop() -> None:
    """Several workers may have one at once, and each waits for the loop."""
    shelf = Shelf(rows=1)

    async def fail(key: int, number: int) -> None:
        await asyncio.sleep(0.0005 * (key % 7))
        if key % 4:
            raise failure()

    shelf.before = fail
    keys: list[int] = []
    async for outcome in fan_over(range(1, 300), shelf, concurrency=8):
        keys.append(outcome.key)
        await asyncio.sleep(0.001)
    assert sorted(keys) == list(range(1, 300))


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


async def test_what_concerns_every_key_is_raised_from_batches_too() -> None:
    """The key is one of the batch."""
    shelf = Shelf()

    async def fail(keys: Any, number: int) -> None:
        raise AuthenticationError("refused", status=401)

    fan = batches_over(range(1, 41), shelf, batch=10)
    shelf.before = fail
    with pytest.raises(AuthenticationError) as caught:
        await fan.collect()
    assert caught.value.key == 1


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
    """Where the last one goes with keys left, and where nothing can come in order."""
    shelf = Shelf(rows=1)

    async def fail(key: int, number: int) -> None:
        if key % 3 == 0:
            raise asyncio.CancelledError

    shelf.before = fail
    fan = fan_over(range(1, 1000), shelf, concurrency=concurrency)
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


async def _looping(form: str, shelf: Shelf, ended: list[Any]) -> None:
    """A loop of this form over a thousand keys; how it ended is appended."""
    fan = batches_over(range(1, 1000), shelf, batch=1) if form == "batches" else fan_over(range(1, 1000), shelf)
    try:
        if form == "collect":
            await fan.collect()
        else:
            async for _ in fan if form in {"outcomes", "batches"} else getattr(fan, form)():
                pass
        ended.append("the end of the input")
    except BaseException as error:
        ended.append(type(error))
        raise


@pytest.mark.parametrize("form", ["outcomes", "ordered", "pages", "items", "collect", "batches"])
@pytest.mark.parametrize("shutdown", [False, True], ids=["all tasks cancelled", "asyncio.run() ends"])
def test_a_run_whose_tasks_are_all_cancelled_reports_nothing_to_the_loop(
    form: str, shutdown: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """As `asyncio.run()` cancels them at its end; the loop over the fan-out never takes it for the end of the input."""
    reported: list[Any] = []
    ended: list[Any] = []
    reading = asyncio.Event()

    async def fetching(key: Any, number: int) -> None:
        if len(shelf.asked) > 10:
            if shelf.running > 1:
                reading.set()
            await asyncio.sleep(60)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        task = asyncio.create_task(_looping(form, shelf, ended))
        await reading.wait()
        if not shutdown:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for each in tasks:
                each.cancel()
            await asyncio.wait({task, *tasks}, timeout=5)

    shelf = Shelf(rows=1)
    shelf.before = fetching
    asyncio.run(main())
    assert ended == [asyncio.CancelledError]
    assert reported == []
    assert capfd.readouterr() == ("", "")


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


@pytest.mark.parametrize("count", [1, 100])
async def test_used_up_attempts_are_plain_errors(count: int) -> None:
    """Each key is asked once, and nothing waits."""
    shelf = Shelf(rows=1)

    async def fail(key: int, number: int) -> None:
        raise failure()

    shelf.before = fail
    collected = await fan_over(range(1, count + 1), shelf, concurrency=4).collect()
    assert len(shelf.asked) == len(collected) == count
    assert not any(outcome.ok for outcome in collected.values())
