"""`Sandbox`: the five endpoints and the token endpoint on a loopback port, for the demo, the docs and users' own tests.

Invariant: a request is journalled, delayed, faulted, paced, authorised and only then answered, in that order. What is
answered is decided by the pure files beside this one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import date
from random import Random
from types import TracebackType
from typing import Literal, Protocol, Self

from aiohttp import web
from anyio.from_thread import start_blocking_portal

from capillary_async._validation import seconds
from capillary_async.auth import BasicAuth, OAuthClient
from capillary_async.sandbox._faults.faults import Fault
from capillary_async.sandbox._faults.schedule import FaultPlan, Script
from capillary_async.sandbox._protocol.answers import Answer, Refused
from capillary_async.sandbox._protocol.query import whole_number
from capillary_async.sandbox._protocol.send import send
from capillary_async.sandbox._server.checks import faults_of, latency_of, rate_of
from capillary_async.sandbox._server.credentials import Access, RateLimit
from capillary_async.sandbox._server.journal import Exchange, Journal
from capillary_async.sandbox._server.listener import Listener
from capillary_async.sandbox._server.routes import TOKEN_PATH, Setup, answer_to, check_method
from capillary_async.sandbox._world.contents import Contents
from capillary_async.sandbox._world.world import World

__all__ = ["RateLike", "Sandbox"]

_USERNAME, _PASSWORD = "sandbox.till", "sandbox-password"
_KEY, _SECRET = "sandbox-key", "sandbox-secret"


class RateLike(Protocol):
    """A rate; `capillary_async.Rate` is one."""

    @property
    def permits(self) -> float:
        """Number of requests."""
        ...

    @property
    def per(self) -> float:
        """Length of the window in seconds."""
        ...


class Sandbox(Contents):
    """A local server that answers like Capillary's API, with customers of its own.

    Use it with `async with`, in the event loop that is running; or with a plain `with`, in a thread of its own, from
    code without an event loop. Methods that are no coroutines may be called from anywhere.

    Args:
        customers: Number of customers. They are generated on demand: a hundred thousand start as fast as ten.
        seed: The same seed gives the same customers and awards, on every Python.
        latency: Seconds before each answer, or their minimum and maximum.
        rate: Maximum requests; more are answered 429: `Rate(permits, per)`, `(permits, per)` or
            `(permits, per, retry_after)`, in seconds.
        faults: The faults, in order; see `capillary_async.sandbox.Fault`.
        host: The address to listen on.
        port: The port; 0 for any free one. It stays the same over `aclose` and another `start`.
        token_ttl: Lifetime of an OAuth token in seconds.
        expired_status: The HTTP status of an expired token; the body says 498 in any case.
        v2_error_status: The HTTP status of refusals with a code of the v2 pages (8015, 8069, 9003 ...), 200 included.
        unknown_event_ids: The effect of an unknown event id on a ledger call: `error` refuses it with 9021, `null`
            gives a null entry.
        whales: Number of customers with thousands of rows; None for one in a hundred, at most three.
        whale_rows: Number of rows of each of these; None for 2,000 to 4,000.
        today: The day of the world: what expired before it is not AVAILABLE. None for 2026-01-15, after the last event.
        compress: Compress bodies with gzip for clients that accept it.
        journal_limit: Minimum number of requests that `journal` keeps, the newest.

    Raises:
        ValueError: An argument is of the wrong kind or out of its range.

    Example:
        >>> async with Sandbox(customers=20, faults=[Throttle(retry_after=1)]) as sandbox:
        ...     async with AsyncSession(sandbox.url, auth=sandbox.auth) as capillary:
        ...         events = await capillary.loyalty_events.list(sandbox.customer_ids[0]).collect()
        ...     assert [seen.status for seen in sandbox.journal] == [429, 200]
    """

    username, password = _USERNAME, _PASSWORD
    key, secret = _KEY, _SECRET

    def __init__(
        self,
        *,
        customers: int = 500,
        seed: int = 7,
        latency: float | tuple[float, float] = 0.0,
        rate: RateLike | tuple[float, float] | tuple[float, float, float | None] | None = None,
        faults: Iterable[Fault] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        token_ttl: float = 300,
        expired_status: int = 401,
        v2_error_status: int = 400,
        unknown_event_ids: Literal["error", "null"] = "error",
        whales: int | None = None,
        whale_rows: int | None = None,
        today: date | None = None,
        compress: bool = True,
        journal_limit: int = 100_000,
    ) -> None:
        world = World(customers, seed, whales, whale_rows, today)
        super().__init__(world)
        self._setup = Setup(world, v2_error_status, unknown_event_ids)
        self._latency = latency_of(latency)
        self._drawn = Random(seed)
        allowed = rate_of(rate)
        self._pace = None if allowed is None else RateLimit(*allowed)
        self._script = Script(faults_of(faults))
        seconds("token_ttl", token_ttl, zero=True)
        self._access = Access(_USERNAME, _PASSWORD, _KEY, _SECRET, token_ttl=token_ttl, expired_status=expired_status)
        self._journal = Journal(journal_limit)
        self._compress = compress
        self._listener = Listener(self._handle, host, port)
        self._thread = ExitStack()
        self.auth = BasicAuth(_USERNAME, password=_PASSWORD)
        self.oauth = OAuthClient(_KEY, _SECRET)

    def __repr__(self) -> str:
        return f"<Sandbox customers={len(self.customer_ids)} requests={self.requests}>"

    # -- starting and stopping

    async def start(self) -> Self:
        """Begin to listen, in this event loop; `async with` does it for you.

        Raises:
            OSError: The port is taken, or the host is none of this machine.
            RuntimeError: It listens already.
        """
        await self._listener.start()
        return self

    async def aclose(self) -> None:
        """Stop listening; open requests are dropped. Closing twice is fine.

        Raises:
            RuntimeError: It was started in another event loop.
        """
        await self._listener.stop()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        with ExitStack() as thread:
            portal = thread.enter_context(start_blocking_portal())
            portal.call(self._listener.start)
            thread.callback(portal.call, self._listener.stop)
            self._thread = thread.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.close()

    # -- where it is, and what it saw

    @property
    def url(self) -> str:
        """The base URL, e.g. of port 8080 on 127.0.0.1.

        Raises:
            RuntimeError: It was never started.
        """
        return self._listener.url

    @property
    def journal(self) -> list[Exchange]:
        """Every request seen, in the order of arrival; a test may `clear()` it."""
        return self._journal.exchanges

    @property
    def requests(self) -> int:
        """Number of requests since the start."""
        return self._journal.requests

    @property
    def in_flight(self) -> int:
        """Number of requests that are open now."""
        return self._journal.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most requests that were open at once."""
        return self._journal.peak_in_flight

    # -- what goes wrong

    def add_faults(self, *faults: Fault) -> None:
        """Add faults, after those that exist."""
        self._script.add(faults_of(faults))

    def clear_faults(self) -> None:
        """Remove all faults, and undo changes of lists."""
        self._script.clear()

    async def revoke_tokens(self) -> None:
        """Expire every OAuth token that was issued."""
        self._access.revoke()

    # -- answering

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = self._arrive(request)
        try:
            play = self._script.play(exchange.path, _page(exchange.params))
            exchange.faults = play.faults
            answer = play.spoil(await self._answer(request, play))
            exchange.status = None if answer.send == "reset" else answer.status
            exchange.finished = time.monotonic()
            return await send(request, answer, exchange.request_id, compress=self._compress)
        finally:
            self._journal.leave()

    def _arrive(self, request: web.BaseRequest) -> Exchange:
        number, in_flight = self._journal.arrive()
        request_id = request.headers.get("X-CAP-REQUEST-ID") or f"sandbox-{number:06d}"
        exchange = Exchange(
            number=number,
            method=request.method,
            path=request.path,
            query_string=request.rel_url.raw_query_string,
            params=request.query,
            headers=request.headers,
            in_flight=in_flight,
            request_id=request_id,
        )
        self._journal.write(exchange)
        return exchange

    async def _answer(self, request: web.BaseRequest, play: FaultPlan) -> Answer:
        low, high = self._latency
        if not await self._listener.pause(low + (high - low) * self._drawn.random() + play.delay):
            return Answer(b"", send="reset")
        instead = play.instead(request.path)
        if instead is not None:
            return instead
        body = await request.read()
        try:
            return self._decide(request, body, play)
        except Refused as refused:
            return refused.answer

    def _decide(self, request: web.BaseRequest, body: bytes, play: FaultPlan) -> Answer:
        path = request.path
        if self._pace is not None:
            self._pace.check(path)
        check_method(request.method, path)
        if path == TOKEN_PATH:
            return self._access.issue(body)
        self._access.check(request.headers)
        return answer_to(self._setup, path, request.query, request.headers, play)


def _page(params: Mapping[str, str]) -> int:
    """Return the page of a request, for faults that concern one; also where only limit and offset are sent."""
    page, offset, limit = (whole_number(params.get(name, "")) for name in ("page", "offset", "limit"))
    if page is not None:
        return page
    return 1 if offset is None or limit is None else 1 + offset // max(1, limit)
