"""The calls under way that wait in outages, and whether one of them that gave up begins again.

Invariant: no key gets an error that is the outage's: a call that gave up waits until another one is answered, an outage
begins, or none is under way; then the request answered last shows whether the service answers. Called by `Retry`; the
rules are in `Outages`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from capillary_async._loops import bury, call_in
from capillary_async._transport.permit import Permit, permit_here
from capillary_async.errors import CapillaryError

if TYPE_CHECKING:
    import threading
    from collections.abc import Awaitable, Callable

    from capillary_async._transport.gate import Gate
    from capillary_async._transport.messages import CallState, Request

__all__ = ["PatientCalls"]

_LOOK_AGAIN = 1.0  # seconds: calls of loops that end are noticed


class PatientCalls:
    """The calls of fan-outs and jobs that are under way, over all loops.

    Args:
        lock: The limiter's.
        gate: The session's.
        noticed: Called, without the lock, after an outage has begun.
    """

    def __init__(self, lock: threading.RLock, gate: Gate, noticed: Callable[[], None]) -> None:
        self._lock = lock
        self._gate = gate
        self._noticed = noticed
        self._running: set[Permit] = set()
        self._gave_up: dict[Permit, asyncio.Future[None]] = {}

    def bury(self) -> None:
        """Forget the calls of the parent, in a forked child."""
        bury(self._running, self._gave_up)

    def __len__(self) -> int:
        return len(self._running)

    def begins(self) -> Permit:
        """A call begins; gives what identifies it, of its task and loop."""
        permit = permit_here(bulk=True)
        with self._lock:
            self._running.add(permit)
        return permit

    def ended(self, permit: Permit) -> None:
        """A call has ended."""
        with self._lock:
            self._running.discard(permit)
        self.review()

    async def begins_again(
        self, call: CallState, error: CapillaryError, permit: Permit | None, reason: str,
        repeat: Callable[[Request], Awaitable[object]],
    ) -> bool:  # fmt: skip
        """Whether a call that gave up begins again; waits until that is known.

        Args:
            call: The call.
            error: The error of its last attempt.
            permit: Of `begins`; None for a call that others of the session wait for, i.e. the token's.
            reason: Why it gave up, as in `RetryDecision`.
            repeat: Sends the request that was answered last.
        """
        outages = self._gate.outages
        answers = outages.answers
        while True:
            with self._lock:
                before = outages.present
                alone = permit is None or self._alone(permit)
                again = outages.begins_again(
                    call, error, answers, reason=reason, alone=alone, others=bool(self._gave_up)
                )
                control = outages.control if alone else None
                woken = asyncio.get_running_loop().create_future()
                if again is None and control is None and permit is not None:
                    self._gave_up[permit] = woken
            if outages.present is not before:
                self._noticed()
            if again is not None:
                return again
            if control is not None:
                await self._check(control, error, repeat)
            else:
                await self._wait(permit, woken)

    async def _check(
        self, control: Request, error: CapillaryError, repeat: Callable[[Request], Awaitable[object]]
    ) -> None:
        """Send the request that was answered last: where it is not answered now, an outage begins."""
        outages = self._gate.outages
        answers = outages.answers
        with suppress(CapillaryError):
            await repeat(control)
        with self._lock:
            if outages.answers == answers:
                outages.begin(error, confirmed=True)
        self._noticed()

    async def _wait(self, permit: Permit | None, woken: asyncio.Future[None]) -> None:
        try:
            await asyncio.wait([woken], timeout=_LOOK_AGAIN)
        finally:
            if permit is not None:
                with self._lock:
                    self._gave_up.pop(permit, None)

    def _alone(self, permit: Permit) -> bool:
        """Whether no other call is under way that may be answered. Under the lock."""
        others = (other for other in self._running if other is not permit and other not in self._gave_up)
        return not any(other.runs and not other.gone for other in others)

    def review(self) -> None:
        """Let the calls that gave up look again whether they begin again."""
        if self._gave_up:
            with self._lock:
                gave_up = list(self._gave_up.items())
            for permit, woken in gave_up:
                call_in(permit.loop, _set_result, woken)


def _set_result(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
