"""How a fan-out waits for the end of an outage: `Outage`, its probes, and errors judged by the answers of others.

Invariant: an outage does not use up the input: while it lasts, one unit at a time is sent, and each unit that failed in
it is retried. Called by `WorkerPool`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import evolve

from capillary_async._fanout.outcome import RETRIES_WHILE_UP
from capillary_async._paging.source import ALONE
from capillary_async.errors import (
    CapillaryError,
    RateLimitedError,
    ServerError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capillary_async._fanout.outcome import FanOutRun
    from capillary_async._fanout.outcome_builder import OutcomeBuilder
    from capillary_async._fanout.workers import WorkerPool
    from capillary_async._paging.page import Page

__all__ = ["Answered", "Control", "Outage", "asks_to_wait", "refused_unsent"]

PROBES = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds between the probes of an outage; the last one repeats
MAX_SUSPECTS = 64  # maximum keys whose errors wait for the answers of others
_NOTICED = 3.0  # maximum seconds from the last answer to the start of an outage that count into its first pauses
_LEAST = 0.5  # seconds between the end of a slow probe and the next one


class Outage:
    """Whether the service is down, as the workers of one fan-out see it.

    Attributes:
        answers: How many units were answered.
    """

    def __init__(self, plan: FanOutRun[Any, Any], pool: WorkerPool[Any, Any]) -> None:
        self._plan = plan
        self._pool = pool
        self.answers = 0
        self._answered_at = plan.clock()
        self._answered: tuple[Any, ...] = ()  # keys of the last answered unit: they distinguish a bad key
        self._suspects: deque[tuple[OutcomeBuilder, CapillaryError]] = deque()
        self._over = asyncio.Event()
        self._over.set()

    @property
    def active(self) -> bool:
        """Whether an outage lasts."""
        return not self._over.is_set()

    async def wait(self) -> None:
        """Wait until no outage lasts."""
        if not self._over.is_set():
            await self._over.wait()

    def suspects(self) -> list[OutcomeBuilder]:
        """The units whose errors wait for the answers of others."""
        return [builder for builder, _ in self._suspects]

    async def answered(self, keys: tuple[Any, ...]) -> None:
        """A unit of these keys was answered."""
        self._was_answered()
        self._answered = keys
        if self._suspects:
            await self.resolve_suspects()

    async def idle(self) -> None:
        """No unit is in flight: no answer will confirm_failure the errors that wait."""
        if self._suspects and self._over.is_set():
            await self.resolve_suspects()

    async def judge(self, builder: OutcomeBuilder, fault: CapillaryError, *, probe: bool) -> CapillaryError | None:
        """Give a failed unit its error, or return the error where the unit is to be retried.

        A unit is retried where the session's retry quota was empty or its gate shut, or where an outage began while the
        unit was in flight.
        """
        answered = not fault.lacks_answer
        noticed = not probe and not self._over.is_set()
        for_all = fault.concerns_all_keys
        if fault.quota_exhausted or refused_unsent(fault) or (noticed and not answered and not for_all):
            return fault
        if probe and asks_to_wait(fault) and builder.retries_while_up < RETRIES_WHILE_UP:
            builder.retries_while_up += 1  # the outage goes on, and says nothing about the key of the probe
            return fault
        if answered:
            self._was_answered()
        elif self._plan.whole and not probe and self._pool.running > 1 and not for_all:
            await self._suspect(builder, fault)
            return None
        await self._pool.confirm_failure(builder, fault)
        return None

    def _was_answered(self) -> None:
        self.answers += 1
        self._answered_at = self._plan.clock()

    async def _suspect(self, builder: OutcomeBuilder, fault: CapillaryError) -> None:
        """Keep an error that may be the first of an outage, until another unit is answered or the outage begins.

        A key may use up its attempts in the moment before the quota is empty.
        """
        self._suspects.append((builder, fault))
        if len(self._suspects) > MAX_SUSPECTS:
            await self._pool.confirm_failure(*self._suspects.popleft())

    async def resolve_suspects(self) -> None:
        """Confirm the errors that were kept: others were answered, or no unit is in flight.

        In the first case a unit that the server asked to wait is retried.
        """
        while self._suspects:  # others may be added and removed while this task waits for the loop
            builder, fault = self._suspects.popleft()
            others = asks_to_wait(fault) and self.answers > builder.seen
            builder.retries_while_up += others
            if others and builder.retries_while_up <= self._plan.retries_while_up:
                self._pool.retry_later(builder, fault)
            else:
                await self._pool.confirm_failure(builder, fault)

    async def postpone(self, builder: OutcomeBuilder, error: CapillaryError, worker: int) -> None:
        """Retry a unit that had no retries left: at once where others are answered, else when the outage is over."""
        others = self.answers > builder.seen
        builder.retries_while_up += others
        if builder.retries_while_up > RETRIES_WHILE_UP:
            # This is no outage, and a key that always fails must not be retried for ever.
            await self._pool.confirm_failure(builder, error)
            return
        self._pool.retry_later(builder, error)
        if not others and self._over.is_set():
            await self._outage(error, worker)

    async def _outage(self, error: CapillaryError, worker: int) -> None:
        """Probe with one unit at a time until the service answers. This worker probes, the others wait."""
        self._over.clear()
        while self._suspects:
            self._pool.retry_later(*self._suspects.popleft())
        try:
            await self._probes(error, worker)
        except asyncio.CancelledError:
            self._over.set()  # by another task: no other worker probes, and all would wait for ever
            raise
        self._over.set()

    async def _probes(self, error: CapillaryError, worker: int) -> None:
        before = self.answers
        for number, pause in enumerate(self._pauses()):
            await self._plan.sleep(pause)
            probe = self._probe(worker, fresh=number % 2 == 0)
            if probe is not None:
                error = await self._ask(probe) or error
            elif not self._pool.retries:
                break
            else:
                await self._ask_answered()
            if self.answers > before:
                break
        else:
            raise error

    async def _ask(self, probe: OutcomeBuilder) -> CapillaryError | None:
        fault = await self._pool.attempt(probe)
        if fault is not None:
            self._pool.retry_later(probe, fault)
        return fault

    async def _ask_answered(self) -> None:
        """Repeat the unit answered last: if it is answered again, this is no outage, and only bad keys are left."""
        paging = evolve(self._plan.options.paging, prefetch=0, verify=False)
        unit = self._plan.reader.unit(self._answered, paging, ALONE)
        try:
            await unit.run(Control())
        except Answered:
            self._was_answered()
        except CapillaryError as error:
            if not error.lacks_answer:
                self._was_answered()
        else:
            self._was_answered()
        finally:
            await unit.aclose()

    def _pauses(self) -> Iterator[float]:
        """Seconds before each probe, for `max_wait` seconds in all.

        The probes are due 1, 3, 8, 18, 38, ... seconds after the last answer: neither the time to notice the outage nor
        a slow probe delays the next.
        """
        clock = self._plan.clock
        ends = clock() + self._plan.max_wait
        due = max(self._answered_at, clock() - _NOTICED)
        number = 0
        while (left := ends - clock()) > 0:
            pause = PROBES[min(number, len(PROBES) - 1)]
            due += pause
            late = pause - (due - clock())
            yield min(max(pause - late, _LEAST) if late > _LEAST else pause, left)
            number += 1

    def _probe(self, worker: int, *, fresh: bool) -> OutcomeBuilder | None:
        """The unit of the next probe: new and failed units in turn, since the failed ones may be bad keys.

        None where no unit is left, or where the unit answered last is to be repeated, since there is no new one.
        """
        if (fresh or not self._pool.retries) and (drawn := self._pool.new_unit(worker)) is not None:
            return drawn
        if not self._pool.retries or (fresh and self._answered):
            return None
        return self._pool.retries.popleft()


def asks_to_wait(error: CapillaryError) -> bool:
    """Whether the server asked to wait, which may concern the whole session and not this key."""
    return isinstance(error, RateLimitedError) or (isinstance(error, ServerError) and error.retry_after is not None)


def refused_unsent(error: CapillaryError) -> bool:
    """Whether the session sent no request, since the server asks to wait too long: every key has this error."""
    return isinstance(error, ServerError | RateLimitedError) and not error.sent


class Answered(Exception):  # noqa: N818 - good news
    """The service answered: the rest of the unit is not needed."""


class Control:
    """Receives the pages of a unit only to see that the service answers."""

    async def page(self, key: Any, page: Page[Any]) -> None:  # noqa: ARG002
        """Stop the unit: the service is up."""
        raise Answered

    async def done(self, key: Any) -> None:
        """Do nothing: the unit ends by itself."""

    async def failed(self, key: Any, error: CapillaryError) -> None:  # noqa: ARG002
        """Stop the unit if the error is a definitive reply; else raise the error."""
        if not error.lacks_answer:
            raise Answered
        raise error
