"""Fan-outs in outages, in virtual time: their calls wait at the gate, no key is lost, and none is read twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from support.fan_fakes import Shelf, batches_over, fan_over, until_raised
from support.gated_client import Client, gated, virtual_calls
from support.virtual_time import clock, run

from capillary_async import AuthenticationError, Position, RateLimitedError, ServerError


@pytest.fixture(autouse=True)
def _virtual_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual_calls(monkeypatch)


def down() -> ServerError:
    return ServerError("down", status=500)


class Outage:
    """A shelf behind a gate; `fails(key, number)` says what is not answered, for so many seconds."""

    def __init__(
        self,
        fails: Callable[[Any, int], bool],
        *,
        until: float = 1e9,
        rows: int | None = 1,
        client: Client | None = None,
    ) -> None:
        self.shelf, self.fails, self.until = Shelf(rows=rows), fails, until
        self.shelf.before = self.answer
        self.client = gated(self.shelf, client)
        self.refused: list[float] = []
        self.began: float | None = None
        self.at = 0.0  # when it was last asked

    @property
    def now(self) -> float:
        self.began = clock() if self.began is None else self.began
        return clock() - self.began

    async def answer(self, key: Any, number: int) -> None:
        await asyncio.sleep(0.001)
        self.at = self.now
        if self.now < self.until and self.fails(key, number):
            self.refused.append(round(self.now))
            raise down()


def _failed(outcomes: Any) -> list[Any]:
    return sorted(key for key, outcome in outcomes.items() if not outcome.ok)


def test_an_outage_does_not_burn_the_input() -> None:
    """Probes after 1, 2, 5 and 10 s; then every key is answered, and none was given up."""
    outage = Outage(lambda key, number: True, until=15)
    outcomes = run(lambda: fan_over(range(1, 201), outage.shelf, concurrency=4).collect())
    assert (len(outcomes), _failed(outcomes)) == (200, [])
    assert outage.refused == [0, 0, 0, 0, 1, 3, 8]


@pytest.mark.parametrize("mode", ["outcomes", "ordered", "pages", "items"])
def test_an_outage_in_the_middle_of_a_list_reads_no_page_twice(mode: str) -> None:
    """A key goes on at its page, whatever the loop wants."""
    outage = Outage(lambda key, number: number == 3 or bool(outage.refused), until=2, rows=None)
    rows = run(lambda: _rows(fan_over([10, 11], outage.shelf, concurrency=2), mode))
    assert sorted(rows) == [(key, index) for key in (10, 11) for index in range(key)]
    asked = [pair for pair in outage.shelf.asked if pair[1] != 3]
    assert len(asked) <= len(set(asked)) + 3  # an answered page is repeated


async def _rows(fan: Any, mode: str) -> list[Any]:
    if mode == "items":
        return [row async for row in fan.items()]
    if mode == "pages":
        return [row async for _, page in fan.pages() for row in page]
    outcomes = [outcome async for outcome in (fan.ordered() if mode == "ordered" else fan)]
    assert [outcome.pages for outcome in outcomes] == [4, 4]
    assert [len(outcome.warnings) for outcome in outcomes] == [4, 4]
    return [row for outcome in outcomes for row in outcome.unwrap()]


def test_an_outage_longer_than_the_calls_wait_is_raised() -> None:
    """As itself, with its key; keys without an outcome were not answered."""
    outage = Outage(lambda key, number: key > 5 or bool(outage.refused), client=Client(None, call=30.0))
    given, error = run(lambda: until_raised(ServerError, fan_over(range(1, 100), outage.shelf, concurrency=1)))
    assert [outcome.key for outcome in given] == [1, 2, 3, 4, 5]
    assert error.key == 6
    assert error.outage
    assert error.concerns_all_keys
    assert 30 <= outage.at <= 31
    assert error.attempts == [key for key, _ in outage.shelf.asked].count(6)


@pytest.mark.parametrize(("mode", "place"), [("outcomes", Position(1)), ("pages", Position(3, 0, 3))])
def test_an_outage_that_began_in_the_middle_of_a_list_names_the_beginning(mode: str, place: Position) -> None:
    """The outcome was not given, so going on after its pages would lose them; a loop over pages goes on there."""
    outage = Outage(lambda key, number: number == 3 or bool(outage.refused), rows=None)

    async def main() -> ServerError:
        fan = fan_over([10], outage.shelf)
        with pytest.raises(ServerError) as caught:
            [one async for one in (fan if mode == "outcomes" else fan.pages())]
        return caught.value

    error = run(main)
    assert (error.key, error.position) == (10, place)


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_a_key_that_always_fails_does_not_hold_up_the_others(concurrency: int) -> None:
    """Others are answered meanwhile, so it is no outage: it is sent four times and has its own error."""
    outage = Outage(lambda key, number: key == 13)
    outcomes = run(lambda: fan_over(range(1, 301), outage.shelf, concurrency=concurrency).collect())
    assert (len(outcomes), _failed(outcomes)) == (300, [13])
    error, asked = outcomes[13].error, [key for key, _ in outage.shelf.asked].count(13)
    assert isinstance(error, ServerError)
    assert (asked, error.attempts) == (4, 4)
    assert [attempt.number for attempt in error.history] == [1, 2, 3, 4]
    assert outage.at <= 10


def test_keys_of_a_batch_that_always_fail_have_each_an_error_of_their_own() -> None:
    """And the attempts of their batch."""
    shelf = Shelf()
    fan = batches_over(range(1, 41), shelf, batch=2)
    gated(shelf)

    async def fail(keys: Any, number: int) -> None:
        await asyncio.sleep(0.001)
        if 1 in keys:
            raise down()

    shelf.before = fail
    outcomes = run(fan.collect)
    assert _failed(outcomes) == [1, 2]
    first, second = outcomes[1].error, outcomes[2].error
    assert first is not second
    assert first is not None
    assert second is not None
    assert (first.key, second.key) == (1, 2)
    assert (type(first), first.args, first.attempts) == (type(second), second.args, second.attempts)


@pytest.mark.parametrize(
    ("concurrency", "bad"),
    [(1, range(10, 201, 10)), (4, range(10, 201, 10)), (32, range(10, 201, 10)), (32, range(181, 201))],
)
def test_keys_that_always_fail_are_no_outage(concurrency: int, bad: range) -> None:
    """Nor where they are all that is left: each has its error, soon, and the others are answered."""
    outage = Outage(lambda key, number: key in bad)
    outcomes = run(lambda: fan_over(range(1, 201), outage.shelf, concurrency=concurrency).collect())
    assert (len(outcomes), _failed(outcomes)) == (200, list(bad))
    assert outage.at <= 10
    assert len(outage.shelf.asked) <= 200 + 3 * 20 + 3 * 20


def test_bad_keys_at_the_end_are_known_by_repeating_what_was_answered() -> None:
    """One page of it shows that the service is up; nothing of it is given out twice."""
    outage = Outage(lambda key, number: key == 11, rows=None)

    async def main() -> list[Any]:
        return [(one.key, one.ok, len(one.items)) async for one in fan_over([10, 11], outage.shelf, concurrency=1)]

    assert run(main) == [(10, True, 10), (11, False, 0)]
    assert outage.shelf.asked.count((11, 1)) == 4
    assert outage.shelf.asked.count((10, 4)) == 1 + 3


def test_one_that_used_up_its_attempts_alone_costs_one_request_more() -> None:
    """The answered page is repeated once, and the error is its own."""
    shelf = Shelf(rows=1)
    client = gated(shelf, Client(None, attempts=2, quota=500))
    client.quota.left = 500

    async def fail(key: int, number: int) -> None:
        if key == 3:
            raise down()

    shelf.before = fail
    outcomes = run(lambda: fan_over([1, 2, 3], shelf, concurrency=1).collect())
    assert _failed(outcomes) == [3]
    assert [key for key, _ in shelf.asked] == [1, 2, 3, 3, 2]
    assert outcomes[3].error is not None
    assert outcomes[3].error.attempts == 2


@pytest.mark.parametrize("quota", [14, 500])
def test_an_outage_at_the_end_of_the_input_burns_no_key(quota: int) -> None:
    """The answered key is down as well, so the others wait; also where no call is refused its retry."""
    answered = 0

    def fails(key: int, number: int) -> bool:
        nonlocal answered
        answered += answered < 90
        return answered == 90

    outage = Outage(fails, until=100)
    if quota == 500:
        outage.client.quota.left = 10**6
    outcomes = run(lambda: fan_over(range(1, 101), outage.shelf, concurrency=8).collect())
    assert (len(outcomes), _failed(outcomes)) == (100, [])


def test_a_few_lone_keys_of_a_server_that_never_answered_have_their_errors() -> None:
    """It refused them with 500, which is an answer: nothing waits for minutes."""
    outage = Outage(lambda key, number: True)
    outage.client.quota.left = 10**6
    outcomes = run(lambda: fan_over([1, 2, 3], outage.shelf).collect())
    assert _failed(outcomes) == [1, 2, 3]
    assert outage.at < 10


def test_what_concerns_every_key_is_raised_from_a_probe_too() -> None:
    """The password is refused when the service is back."""
    outage = Outage(lambda key, number: True, until=1)
    answer = outage.answer

    async def refuse(key: int, number: int) -> None:
        await answer(key, number)
        raise AuthenticationError("refused", status=401)

    outage.shelf.before = refuse
    given, error = run(lambda: until_raised(AuthenticationError, fan_over(range(1, 100), outage.shelf)))
    assert (given, error.status) == ([], 401)
    assert len(outage.shelf.asked) <= 4 + 4 + 2


@pytest.mark.parametrize("mode", ["outcomes", "ordered", "pages"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_loop_ends_though_its_workers_are_cancelled_in_an_outage(mode: str, concurrency: int) -> None:
    """Where one of them was to send the probe."""
    outage = Outage(lambda key, number: True, until=1)
    answer = outage.answer

    async def cancel(key: int, number: int) -> None:
        await answer(key, number)
        if key % 3 == 0:
            raise asyncio.CancelledError

    outage.shelf.before = cancel

    async def main() -> tuple[list[Any], RuntimeError]:
        fan = fan_over(range(1, 1000), outage.shelf, concurrency=concurrency)
        ended = await until_raised(RuntimeError, fan if mode == "outcomes" else getattr(fan, mode)())
        assert len(asyncio.all_tasks()) == 1
        return ended

    given, error = run(main)
    assert "cancelled from elsewhere" in str(error)
    assert len(given) <= 2 * concurrency + 2


def test_a_key_that_comes_in_an_outage_waits_for_its_end() -> None:
    """It is sent as a probe or when the service is up; the last key of an input is not forgotten."""
    outage = Outage(lambda key, number: True, until=2)

    async def ids() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.5)
        yield 2

    outcomes = run(lambda: fan_over(ids(), outage.shelf, concurrency=3).collect())
    assert (len(outcomes), _failed(outcomes)) == (2, [])
    assert outage.refused == [0, 1]


def test_an_input_that_ends_in_an_outage_is_read_to_its_end() -> None:
    """Its last key waits with its worker."""
    outage = Outage(lambda key, number: True, until=2)

    def ids() -> Iterator[int]:
        yield 1

    outcomes = run(lambda: fan_over(ids(), outage.shelf, concurrency=8).collect())
    assert _failed(outcomes) == []


@pytest.mark.parametrize("seconds", [10, 30, 100])
def test_a_long_refusal_costs_no_key(seconds: float) -> None:
    """Attempts used up on 429 while no key is answered are no verdict on the key that made them."""
    outage = Outage(lambda key, number: False)

    async def refuse(key: int, number: int) -> None:
        await asyncio.sleep(0.001)
        if outage.now < seconds:
            error = RateLimitedError("later", status=429)
            error.retry_after = seconds - outage.now
            raise error

    outage.shelf.before = refuse
    outcomes = run(lambda: fan_over(range(1, 200), outage.shelf, concurrency=4).collect())
    assert (len(outcomes), _failed(outcomes)) == (199, [])


def test_a_lone_key_that_is_refused_gets_its_error_and_one_among_others_after_three_tries() -> None:
    """A refusal may be meant for the session; it is the key's own where others are answered."""

    def refusing(bad: set[int]) -> tuple[Shelf, Callable[[], Awaitable[Any]]]:
        shelf = Shelf(rows=1)
        gated(shelf, Client(None, attempts=1, throttle_backoff=0.0))

        async def refuse(key: int, number: int) -> None:
            await asyncio.sleep(0.001)
            if key in bad:
                raise RateLimitedError("later", status=429)

        shelf.before = refuse
        return shelf, fan_over(range(1, 50) if bad == {5} else sorted(bad), shelf).collect

    shelf, collect = refusing({5})
    outcomes = run(collect)
    assert _failed(outcomes) == [5]
    asked = [key for key, _ in shelf.asked].count(5)
    assert asked == outcomes[5].error.attempts == len(outcomes[5].error.history) == 4
    for keys in ({1}, {1, 2, 3}):
        _, collect = refusing(keys)
        outcomes = run(collect)
        assert [type(outcome.error) for outcome in outcomes.values()] == [RateLimitedError] * len(keys)
