"""One connection pool per event loop, opened on first use.

Invariant: a connection is used only in its own loop, and never while it has unread data; every pool is closed in its
own loop, with the session or with the loop. Called by `Wire`; made by `chain.py`.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import define, field

from capillary_async._loops import bury, renew_in_child
from capillary_async._transport.alerts import UnreadAlert
from capillary_async._transport.copies import Copies
from capillary_async._transport.passage import Passage
from capillary_async._transport.route import Route
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from ssl import SSLContext

    from aiohttp.client_proto import ResponseHandler

    from capillary_async._config import Limits
    from capillary_async._transport.attempt_timer import AttemptTimer
    from capillary_async._transport.route import Proxy

__all__ = ["ClientSession", "Pools", "current_timer", "reset_timer"]

ClientSession = aiohttp.ClientSession

CLOSED = "the AsyncSession is closed: make a new one"
_KEEPALIVE = 30
_CLOSE_WAIT = 5  # seconds for the loop of another thread to close its pool
_CHECKS = 50  # how often it is checked meanwhile whether that loop has ended


@define(eq=False)
class _Pool:
    """The `ClientSession` of one loop, and the suspended generator that closes it when the loop shuts down."""

    loop: asyncio.AbstractEventLoop
    client: aiohttp.ClientSession
    owned: bool
    keeper: AsyncGenerator[None, None] | None = None
    passages: set[Passage] = field(factory=set[Passage])

    async def close(self) -> None:
        self._end_passages()
        if self.owned and not self.client.closed:
            await self.client.close()
        if self.keeper is not None:
            await self.keeper.aclose()

    def drop(self) -> None:
        """Close the sockets of a pool whose loop is closed: no task can await their end."""
        self._end_passages()
        connector = self.client.connector
        if self.owned and connector is not None and not connector.closed:
            connector._close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self.client.detach()

    def _end_passages(self) -> None:
        for passage in list(self.passages):
            passage.end()

    def disown(self) -> None:
        """Leave the pool to the parent process: no finalizer may close a connection of the parent.

        That would remove it from the parent's selector too, which both processes share.
        """
        connector = self.client.connector
        if self.owned and connector is not None:
            bury(connector)
            connector._closed = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self.client.detach()


current_timer: ContextVar[AttemptTimer | None] = ContextVar("capillary_async.attempt_timer", default=None)


def reset_timer(token: Token[AttemptTimer | None]) -> None:
    """Reset the timer of this context, unless a finalizer closes the call in another one."""
    try:  # noqa: SIM105 - `suppress` takes five times as long, for each request
        current_timer.reset(token)
    except ValueError:
        pass


class _Connector(aiohttp.TCPConnector):
    """Never reuses a connection with unread data, and reports each connection to the timer of the attempt.

    Unread data would be read as the next answer: aiohttp checks for it when a connection is returned, not when it is
    reused. It has no cheap hook for the moment when a request gets its connection.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        timer = current_timer.get()
        if timer is not None:
            timer.connected(connection.transport)
        return connection

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        timer = current_timer.get()
        if timer is not None:
            timer.alert = UnreadAlert.of(protocol.transport)
        return protocol

    async def _get(self, key: Any, traces: Any) -> Any:
        timer = current_timer.get()
        if timer is not None and timer.fresh:
            return None
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None


class Pools:
    """One connection pool per event loop, opened on first use."""

    def __init__(
        self,
        limits: Limits,
        client_session: aiohttp.ClientSession | None = None,
        *,
        proxy: Proxy | None = None,
        ssl_context: SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._given = client_session
        self._proxy = proxy
        self._ssl: SSLContext | bool = ssl_context or True
        self._lock = threading.Lock()
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._closed = False
        self.copies = Copies()
        renew_in_child(self, Pools.renew)

    def renew(self) -> None:
        """In a forked child: sockets of the parent are neither used nor closed."""
        inherited, self._pools = self._pools, {}
        self._lock = threading.Lock()
        bury(inherited)
        for pool in inherited.values():
            pool.disown()

    async def client(self) -> aiohttp.ClientSession:
        """Return the `ClientSession` of the running loop, after opening it on first use.

        Raises:
            RuntimeError: The session is closed, or the caller's `client_session` belongs to another loop or is closed.
        """
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if self._closed:
            raise RuntimeError(CLOSED)
        if pool is not None and not pool.client.closed:
            return pool.client
        return (await self._open(loop)).client

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        with self._lock:
            if self._closed:  # meanwhile, by another thread
                raise RuntimeError(CLOSED)
            pool = self._adopt(loop, self._given) if self._given is not None else self._make(loop)
            dead = [known for known in self._pools if known.is_closed()]
            dropped = [self._pools.pop(known) for known in dead]
            self._pools[loop] = pool
        for gone in dropped:
            gone.drop()
        if pool.owned:
            pool.keeper = self._keep(pool)
            await anext(pool.keeper)
        return pool

    @staticmethod
    def _adopt(loop: asyncio.AbstractEventLoop, client: aiohttp.ClientSession) -> _Pool:
        if client.closed:
            raise RuntimeError("the client_session given to AsyncSession is closed")
        if client._loop is not loop:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            raise RuntimeError(
                "the client_session given to AsyncSession belongs to another event loop, and serves that alone"
            )
        if client.auth is not None:  # aiohttp refuses it beside our own header, with an error that is none of ours
            raise InvalidRequestError(
                "client_session takes a client without auth= of its own: the credentials are the session's",
                argument="client_session",
            )
        return _Pool(loop, client, owned=False)

    def _make(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        _keep_buffers()
        client = aiohttp.ClientSession(
            connector=_Connector(limit=self._limits.concurrency, keepalive_timeout=_KEEPALIVE, ssl=self._ssl),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            raise_for_status=False,
            requote_redirect_url=False,
        )
        # aiohttp sends a GET again by itself when a kept connection was lost: one attempt would be two requests.
        client._retry_connection = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return _Pool(loop, client, owned=True)

    async def _keep(self, pool: _Pool) -> AsyncGenerator[None, None]:
        """Stay suspended while the loop lives; its `shutdown_asyncgens` then closes the pool."""
        try:
            yield
        finally:
            pool.keeper = None
            with self._lock:
                if self._pools.get(pool.loop) is pool:
                    del self._pools[pool.loop]
            await pool.close()

    def passage(self, timer: AttemptTimer) -> Passage | None:
        """Return the passage of a request that was sent and not answered, if a rate counts it until it arrives."""
        pool = self._pools.get(timer.loop)
        if self._limits.rate is None or pool is None or not pool.owned or self._closed or not _runs_here(timer.loop):
            return None
        passage = Passage.of(timer.transport, pool.passages.discard)
        if passage is not None:
            pool.passages.add(passage)
        return passage

    async def aclose(self) -> None:
        """Close every pool in its own loop. Closing twice does nothing."""
        self._closed = True
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        here = asyncio.get_running_loop()
        for pool in pools:
            if pool.loop is here:
                await pool.close()
            else:
                await _close_elsewhere(pool)

    def route(self, base_url: str) -> Route:
        """Return the way to a server."""
        if self._given is not None:
            return Route.of_client(base_url, self._given)
        return Route(base_url, self._proxy)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts of the proxy's password, which no message may show."""
        return () if self._proxy is None else self._proxy.secrets

    @property
    def unowned(self) -> bool:
        """Whether the pool is the caller's own `client_session`."""
        return self._given is not None

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # a finalizer, where no loop runs
        return False


def _keep_buffers() -> None:
    """Let the allocator keep the buffer of a socket read.

    asyncio reads into 256 KiB at a time, for which glibc maps new memory at every read, and pays for each of its pages,
    until the program has freed a larger block once.
    """
    bytes(1024 * 1024)


async def _close_elsewhere(pool: _Pool) -> None:
    if not pool.loop.is_running():
        pool.drop()
        return
    coroutine = pool.close()
    try:
        closing = asyncio.run_coroutine_threadsafe(coroutine, pool.loop)
    except RuntimeError:  # it was closed at this moment
        coroutine.close()
        pool.drop()
        return
    wrapped = [asyncio.wrap_future(closing)]
    for _ in range(_CHECKS):
        done, _ = await asyncio.wait(wrapped, timeout=_CLOSE_WAIT / _CHECKS)
        if done:
            return
        if not pool.loop.is_running():  # it ended before it closed the pool
            pool.drop()
            return
    # A loop that is too busy closes its pool later, by this task or at its own end.
