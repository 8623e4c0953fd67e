"""The OAuth token of a session: fetched on first use, renewed before it expires, replaced when it is refused.

Invariant: a session has one token, fetched by one request however many calls wait for it; no call has a permit while
it waits for a token; every error that passes here leaves without a secret in it. Called by `credentials.py`.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from copy import copy
from typing import TYPE_CHECKING, Any, cast

import msgspec
from attrs import define, frozen

from capillary_async._codec.faults import no_token
from capillary_async._loops import bury, call_in, renew_in_child
from capillary_async._transport.messages import Headers, Request, ResponseSpec, decoded_of
from capillary_async._transport.redaction import Redactor, SecretBytes, SecretStr
from capillary_async.errors import (
    APIError,
    AuthenticationError,
    CapillaryError,
    DeadlineExceededError,
    DecodeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capillary_async._transport.messages import CallState, Handler, Middleware, Response
    from capillary_async.auth import OAuthClient

__all__ = ["OAuthCredentials"]

TOKEN_PATH = "/v3/oauth/token/generate"  # noqa: S105 - a path
TOKEN_HEADER = "X-CAP-API-OAUTH-TOKEN"  # noqa: S105 - a header's name
TOKEN_LIFE = 300.0  # seconds, as in the samples, for an answer without `ttlSeconds`
EARLY_SECONDS = 60.0
EARLY_SHARE = 0.1
EARLY_WAIT = 2.0  # seconds a call waits for a new token while the old one is still valid
EARLY_PAUSE = 10.0  # seconds after a failed early refresh before the next
_CHECK_INTERVAL = 1.0  # seconds between a waiter's checks that the fetch still runs


@frozen(repr=False, eq=False)
class _Token:
    text: str
    early: float
    end: float
    scrub: Redactor


@define(eq=False)
class _Fetch:
    """A fetch of the token, in the loop of the caller that started it.

    Attributes:
        loop: The loop of its task.
        task: None until it is made.
    """

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it will end by itself: its loop runs, and its task has not ended."""
        return self.loop.is_running() and self.task is not None and not self.task.done()


class OAuthCredentials:
    """The step that adds the token; a refused token is renewed, and the request sent again, once."""

    def __init__(
        self,
        auth: OAuthClient,
        retry: Middleware,
        secrets: Iterable[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._auth = auth
        # A closure, as in `capillary_async.auth`: no attribute dump finds the texts.
        self._redactor: Callable[..., Redactor] = lambda *more: Redactor(*auth._secrets(), *secrets, *more)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        self._scrub = self._redactor()
        self._retry = retry
        self._clock = clock
        # Reentrant: the collector may end the fetch of a dead loop while the lock is held.
        self._lock = threading.RLock()
        self._closed = False
        self._token: _Token | None = None
        self._pause_until = 0.0
        self._fetch: _Fetch | None = None
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[Exception | None]]] = []
        renew_in_child(self, OAuthCredentials.renew)

    def renew(self) -> None:
        """In a forked child: the token is valid there too; a fetch in flight is the parent's."""
        bury(self._fetch, self._waiters)
        self._lock = threading.RLock()
        self._fetch, self._waiters = None, []

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """Send with a valid token; if the server refuses it, send once more with a new one."""
        token = await self._valid(request.call, handler)
        fault = await _attempt(request, handler, token)
        if isinstance(fault, AuthenticationError):
            token = await self._after(token, request.call, handler)
            fault = await _attempt(request, handler, token)
        if isinstance(fault, CapillaryError):
            raise token.scrub(fault)
        return fault

    async def _valid(self, call: CallState | None, handler: Handler) -> _Token:
        """Return the token, renewed if it expires soon; a failed early renewal keeps the one that is still valid."""
        token, now = self._token, self._clock()
        if token is None or now >= token.end:
            return await self._after(token, call, handler)
        if now >= token.early and now >= self._pause_until:
            await self._renew(token, handler, EARLY_WAIT)
        return self._token or token

    async def _after(self, refused: _Token | None, call: CallState | None, handler: Handler) -> _Token:
        """Return a token other than `refused`, within the time that the call has left."""
        limit = call.remaining() if call is not None and call.clocked else None
        fetched = False
        while True:
            token = self._token
            # One just fetched is used whatever its life: else a life shorter than its way here would fetch for ever.
            if token is not None and token is not refused and (fetched or self._clock() < token.end):
                return token
            error = await self._renew(token, handler, limit)
            if error is not None:
                raise error
            fetched = True

    async def _renew(self, known: _Token | None, handler: Handler, max_wait: float | None) -> Exception | None:
        """Wait for the fetch, after starting it if none is running. Return the error that it ended with."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Exception | None] = loop.create_future()
        with self._lock:
            if self._closed:
                return RuntimeError("the AsyncSession was closed while a request waited for a token")
            if self._token is not known:
                return None
            self._waiters.append((loop, done))
            self._start(loop, handler)
        ends = math.inf if max_wait is None else loop.time() + max_wait
        while not done.done():
            left = ends - loop.time()
            if left <= 0:
                return _too_late()
            await asyncio.wait([done], timeout=min(left, _CHECK_INTERVAL))
            with self._lock:
                if not done.done() and not self._closed:
                    self._start(loop, handler)
        error = done.result()
        # A copy per call: callers set their key and position on it.
        return copy(error) if isinstance(error, CapillaryError) else error

    def _start(self, loop: asyncio.AbstractEventLoop, handler: Handler) -> None:
        """Start a fetch unless one is running. Called with the lock."""
        if self._fetch is not None and self._fetch.is_running:
            return
        fetch = self._fetch = _Fetch(loop)
        # A task of its own: when the caller that started it is cancelled, the others still get their token.
        task = loop.create_task(self._run(fetch, handler))
        if self._fetch is fetch:  # an eager task may have ended by now
            fetch.task = task

    async def _run(self, fetch: _Fetch, handler: Handler) -> None:
        # Stays None when this task is cancelled with its loop: others then fetch in theirs.
        error: Exception | None = None
        token: _Token | None = None
        try:
            token = await self._ask(handler)
        except CapillaryError as fault:
            error = _without_body(self._scrub(fault))
        except Exception as fault:  # noqa: BLE001 - e.g. a closed session: the waiters have to see it
            error = fault
        finally:
            self._end(fetch, token, error)

    def _end(self, fetch: _Fetch, token: _Token | None, error: Exception | None) -> None:
        """Give the result to the waiters, unless the loop was stopped meanwhile and another fetch replaced this one."""
        with self._lock:
            if self._fetch is not fetch:
                return
            self._fetch = None
            if token is not None:
                self._token = token
            elif isinstance(error, CapillaryError):
                self._pause_until = self._clock() + EARLY_PAUSE
            waiters, self._waiters = self._waiters, []
        for loop, done in waiters:
            _report(loop, done, error)

    async def _ask(self, handler: Handler) -> _Token:
        asked = self._clock()
        response = await self._retry(self._request(), handler)
        found = _token_in(response)
        if found is None:
            raise _no_token(response)
        text, life = found
        # Counted from before the request: the server counts from later, so the token expires no earlier than we expect.
        early = min(max(EARLY_SECONDS, life * EARLY_SHARE), life / 2)
        return _Token(text, asked + life - early, asked + life, self._redactor(text))

    def _request(self) -> Request:
        # Made here, so that no local of a frame that may raise holds the secret.
        body = SecretBytes(msgspec.json.encode({"key": self._auth.key, "secret": self._auth._wire_secret()}))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        headers = Headers({"Content-Type": "application/json"})
        return Request("POST", TOKEN_PATH, headers=headers, body=body, shape=ResponseSpec(free=True))

    def scrub(self, fault: CapillaryError) -> CapillaryError:
        """Take the secrets out of an error that did not pass this step."""
        token = self._token
        return self._scrub(fault) if token is None else token.scrub(fault)

    def redact(self, text: str) -> str:
        """Take the secrets out of a text that a server sent."""
        token = self._token
        return (self._scrub if token is None else token.scrub).text(text)

    async def aclose(self) -> None:
        """Cancel the fetch, if it runs in this loop."""
        with self._lock:
            self._closed = True
            fetch = self._fetch
        if fetch is not None and fetch.task is not None and fetch.loop is asyncio.get_running_loop():
            fetch.task.cancel()
            await asyncio.wait([fetch.task])


def _too_late() -> DeadlineExceededError:
    text = "Timeouts.call ran out while waiting for a token; the request itself was not sent"
    return DeadlineExceededError(text, kind="queue")


async def _attempt(request: Request, handler: Handler, token: _Token) -> Response | CapillaryError:
    try:
        return await handler(request.with_header(TOKEN_HEADER, token.text))
    except CapillaryError as error:
        return error


def _report(loop: asyncio.AbstractEventLoop, done: asyncio.Future[Exception | None], error: Exception | None) -> None:
    def set_result() -> None:
        if not done.done():
            done.set_result(error)

    call_in(loop, set_result)


def _token_in(response: Response) -> tuple[str, float] | None:
    """Return token and life in seconds of `{"data": {"accessToken", "ttlSeconds"}}`; None if there is no token."""
    answer = decoded_of(response)
    data = cast("dict[str, Any]", answer).get("data") if isinstance(answer, dict) else None
    fields = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    text = fields.get("accessToken")
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable():
        return None
    try:
        life = float(fields.get("ttlSeconds") or TOKEN_LIFE)
    except (TypeError, ValueError, OverflowError):
        return None
    return SecretStr(text), life if 0 < life < math.inf else TOKEN_LIFE


def _no_token(response: Response) -> DecodeError:
    error = no_token(f"POST {TOKEN_PATH}")
    error.method, error.path, error.attempts = "POST", TOKEN_PATH, 1
    error.status, error.request_id = response.status, response.request_id
    return error


def _without_body(error: CapillaryError) -> CapillaryError:
    """Remove the body of an error: an answer to the token request may have a token in it, even an incomplete one."""
    if isinstance(error, APIError | DecodeError):
        error.body = ""
    return error
