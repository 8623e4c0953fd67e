"""`CallWatch`: makes the records of one logical call for the observers of the session.

Invariant: it changes nothing of the call but the headers that an observer adds, which replace none of the SDK's. Made
by `Retry` where a call begins and by `observed_probe`, if anything observes; called by `Retry` and `RequestLimiter`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from capillary_async import _validation as check
from capillary_async._transport.messages import Response
from capillary_async._transport.retry_decision import kind_of
from capillary_async.errors import APIError, CapillaryError, DecodeError
from capillary_async.telemetry._events import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Waited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, MutableMapping

    from capillary_async._transport.messages import Request
    from capillary_async.telemetry._observers import Observers

__all__ = ["CallWatch", "observed_probe"]

_ANSWERS = (Response, APIError, DecodeError)
_numbers = count(1)


class CallWatch:
    """The records of one call."""

    __slots__ = (
        *("_answered", "_attempts", "_began", "_call", "_came", "_headers", "_method", "_observers", "_path", "_sent"),
    )

    def __init__(
        self,
        observers: Observers,
        request: Request,
        *,
        bulk: bool,
        fan_out: bool,
        token: bool = False,
        probe: bool = False,
    ) -> None:
        self._observers = observers
        self._call = next(_numbers)
        self._method, self._path = request.method, request.path
        self._began = time.monotonic()
        self._sent: float | None = None
        self._headers: dict[str, str] = {}
        self._attempts = 0
        self._answered: tuple[object, tuple[int | None, str | None]] = (None, (None, None))
        self._came: tuple[Response | BaseException, float] | None = None
        priority = "bulk" if bulk else "interactive"
        base_url = observers.base_url
        observers.notify(CallStarted(self._call, self._method, self._path, base_url, priority, fan_out, token, probe))
        if request.fault is not None:
            self.came(request.fault)

    async def run(self, sending: Awaitable[Response]) -> Response:
        """Wait for the answer of the call, and report its end."""
        try:
            response = await sending
        except BaseException as error:
            self._end(error)
            raise
        self._end(response)
        return response

    def _end(self, came: Response | BaseException) -> None:
        self.decided(None)
        status, request_id = self._answer_of(came)
        size, error = (len(came.body), None) if isinstance(came, Response) else (0, type(came).__name__)
        seconds = time.monotonic() - self._began
        attempts = self._attempts
        ended = CallEnded(self._call, self._method, self._path, seconds, attempts, status, size, request_id, error)
        self._observers.notify(ended)

    @contextmanager
    def waiting(self, reason: str) -> Generator[None]:
        """The call waits for a permit."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._observers.notify(Waited(self._call, reason, time.monotonic() - began))

    def sends(self) -> None:
        """An attempt has its permit, and goes out."""
        self.decided(None)  # of an attempt whose token was refused
        self._attempts += 1
        self._sent = time.monotonic()
        self._headers = {}
        self._observers.notify(AttemptStarted(self._call, self._attempts, self._headers))

    def add_to(self, headers: MutableMapping[str, str]) -> None:
        """Add the headers that observers gave to the attempt; they replace none, and break nothing."""
        for name, value in self._headers.items():
            if check.may_be_added(name, value) and name not in headers:
                headers[name] = value

    def came(self, what: Response | BaseException) -> None:
        """The attempt ended so; one of an earlier call, whose answer could not be decoded, took no time."""
        if self._sent is None:
            self._attempts += 1
        self._came = (what, 0.0 if self._sent is None else time.monotonic() - self._sent)
        self._sent = None

    def decided(self, delay: float | None) -> None:
        """The call is retried after `delay` seconds, or not: that completes the record of the attempt."""
        if self._came is None:
            return
        came, seconds = self._came
        self._came = None
        status, request_id = self._answer_of(came)
        ended = AttemptEnded(
            self._call,
            self._attempts,
            self._method,
            self._path,
            _kind_of(came),
            seconds,
            status,
            came.code if isinstance(came, APIError) else None,
            request_id,
            delay is not None,
            delay or 0.0,
        )
        self._observers.notify(ended)

    def _answer_of(self, came: Response | BaseException) -> tuple[int | None, str | None]:
        """Status and request id, as far as there was an answer."""
        if came is self._answered[0]:  # the attempt's answer is the call's, nearly always
            return self._answered[1]
        if not isinstance(came, _ANSWERS):
            return None, None
        request_id = came.request_id
        found = came.status, None if request_id is None else self._observers.redact(request_id)
        self._answered = came, found
        return found


async def observed_probe(request: Request, observers: Observers | None, sending: Awaitable[Response]) -> Response:
    """The answer to a request of the session's own, with its records; `sending` begins when it is awaited."""
    call = request.call
    if call is None or observers is None or not observers.active:
        return await sending
    call.watch = CallWatch(observers, request, bulk=True, fan_out=True, probe=True)
    return await call.watch.run(sending)


def _kind_of(came: Response | BaseException) -> str:
    if isinstance(came, Response):
        return "ok"
    if isinstance(came, CapillaryError):
        return kind_of(came)
    return "cancelled" if isinstance(came, asyncio.CancelledError | GeneratorExit) else "other"
