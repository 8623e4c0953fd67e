"""The adapter: one `Request` out, one whole `Response` in. The only file that knows aiohttp.

Invariant: one attempt is one request on the wire, its body is read and verified to the last byte inside the attempt,
and every failure of aiohttp, ssl or the socket becomes the most specific error of ours, by `_mapped` alone. The last
step of the chain.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import time
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from attrs import define, field
from yarl import URL

from capillary_async._config import Timeouts
from capillary_async._loops import bury, renew_in_child
from capillary_async._transport.attempt_timer import AttemptTimer
from capillary_async._transport.body import check_size, decompressed
from capillary_async._transport.copies import Copies
from capillary_async._transport.messages import Response, came_over
from capillary_async._transport.passage import Passage
from capillary_async._transport.stats import count
from capillary_async.errors import (
    CapillaryError,
    ConnectError,
    DeadlineExceededError,
    DecodeError,
    InvalidRequestError,
    OriginalError,
    RequestTimeoutError,
    TLSError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from capillary_async._config import Limits
    from capillary_async._transport.messages import Request
    from capillary_async._transport.stats import Stats

__all__ = ["ClientSession", "Pools", "Wire"]

ClientSession = aiohttp.ClientSession

CLOSED = "the AsyncSession is closed: make a new one"
_KEEPALIVE = 30
_SHOWN = 200
_PATIENCE = 5  # seconds for the loop of another thread to close its pool
_LOOKS = 50  # how often it is looked meanwhile whether that loop has ended
_E = TypeVar("_E", bound=TransportError)
_QUERY = re.compile(r"\?\S+")


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
        """Let go of a pool whose loop is closed already: there is nobody left to await in."""
        self._end_passages()
        connector = self.client.connector
        if self.owned and connector is not None and not connector.closed:
            connector._close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self.client.detach()

    def _end_passages(self) -> None:
        for passage in list(self.passages):
            passage.end()

    def disown(self) -> None:
        """Leave a pool to the parent process: no finalizer of it may close a connection of the parent's.

        That would take it out of the parent's selector too, which both share.
        """
        connector = self.client.connector
        if self.owned and connector is not None:
            bury(connector)
            connector._closed = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self.client.detach()


_watch: ContextVar[AttemptTimer | None] = ContextVar("capillary_async.watch", default=None)


def _forget(token: Token[AttemptTimer | None]) -> None:
    """Leave no watch behind, where there is anything to leave: a finalizer may close a call in another context."""
    try:  # noqa: SIM105 - `suppress` takes five times as long, for each request
        _watch.reset(token)
    except ValueError:
        pass


class _Connector(aiohttp.TCPConnector):
    """Hands out no kept connection on which something came unasked, and tells the attempt's watch when it is there.

    What came unasked would be taken for the next answer: aiohttp looks at that when a connection comes back, and not
    again when it goes out. Nor has it a cheap way to tell when a request got its connection.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        watch = _watch.get()
        if watch is not None:
            watch.connected(connection.transport)
        return connection

    async def _get(self, key: Any, traces: Any) -> Any:
        watch = _watch.get()
        if watch is not None and watch.fresh:
            return None
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None


class Pools:
    """One connection pool per event loop, opened on first use."""

    def __init__(self, limits: Limits, client_session: aiohttp.ClientSession | None = None) -> None:
        self._limits = limits
        self._given = client_session
        self._lock = threading.Lock()
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._closed = False
        self.copies = Copies()
        renew_in_child(self, Pools.renew)

    def renew(self) -> None:
        """In a forked child: the parent's sockets are neither used nor closed."""
        inherited, self._pools = self._pools, {}
        self._lock = threading.Lock()
        bury(inherited)
        for pool in inherited.values():
            pool.disown()

    async def client(self) -> aiohttp.ClientSession:
        """The pool of the running loop.

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
            connector=_Connector(limit=self._limits.concurrency, keepalive_timeout=_KEEPALIVE),
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
        """Suspended for as long as its loop lives; `shutdown_asyncgens` then closes the pool with it."""
        try:
            yield
        finally:
            pool.keeper = None
            with self._lock:
                if self._pools.get(pool.loop) is pool:
                    del self._pools[pool.loop]
            await pool.close()

    def passage(self, watch: AttemptTimer) -> Passage | None:
        """The way of a request that was sent and not answered, where a rate has to count it until it has arrived."""
        pool = self._pools.get(watch.loop)
        if self._limits.rate is None or pool is None or not pool.owned or self._closed or not _runs_here(watch.loop):
            return None
        passage = Passage.of(watch.transport, pool.passages.discard)
        if passage is not None:
            pool.passages.add(passage)
        return passage

    async def aclose(self) -> None:
        """Close the pool of every loop, each in its own loop. Closing twice is fine."""
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

    @property
    def foreign(self) -> bool:
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
    except RuntimeError:  # it was closed in this moment
        coroutine.close()
        pool.drop()
        return
    wrapped = [asyncio.wrap_future(closing)]
    for _ in range(_LOOKS):
        done, _ = await asyncio.wait(wrapped, timeout=_PATIENCE / _LOOKS)
        if done:
            return
        if not pool.loop.is_running():  # it ended meanwhile, before it came to that
            pool.drop()
            return
    # A loop too busy for that closes its pool later, by this or at its own end.


class Wire:
    """The last step: sends a request through the pool of the running loop."""

    def __init__(self, base_url: str, pools: Pools, stats: Stats, headers: Mapping[str, str]) -> None:
        self._base = base_url
        self._pools = pools
        self._stats = stats
        self._headers = dict(headers)
        self._timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}

    async def __call__(self, request: Request) -> Response:
        """One attempt.

        Raises:
            TransportError: Or one of its subclasses; no complete answer came.
            DecodeError: The body's compression is broken, unknown, or it is too large.
        """
        client = await self._pools.client()
        count(self._stats, requests=1)
        watch = AttemptTimer(request.call, fresh=request.fresh)
        token = _watch.set(watch)
        try:
            with watch:
                return await self._exchange(client, request, watch)
            fault: CapillaryError = _late(watch, request)
        except asyncio.CancelledError as error:
            # Without aiohttp's frames: their locals hold the headers, and they tell nothing of a cancellation.
            raise error.with_traceback(None) from None
        except RuntimeError as error:
            if (end := _collected(error)) is not None:
                raise end from None
            raise
        except CapillaryError as error:
            fault = error
        except TimeoutError as error:
            fault = _timed_out(error, request)
        except (aiohttp.ClientError, OSError, EOFError, UnicodeError) as error:
            fault = _mapped(error)
        finally:
            watch.stop()
            _forget(token)
            if watch.transport is not None and request.call is not None:
                request.call.passage = self._pools.passage(watch)
        if self._pools.closed:
            raise RuntimeError("the AsyncSession was closed while a request was under way")
        # Raised outside the handlers: no context, so no frame of aiohttp with our headers hangs on the error.
        raise fault

    async def _exchange(self, client: aiohttp.ClientSession, request: Request, watch: AttemptTimer) -> Response:
        began = time.monotonic()
        query = f"?{request.query}" if request.query else ""
        headers = {**self._headers, **request.headers}
        async with client.request(
            request.method,
            URL(f"{self._base}{request.path}{query}", encoded=True),
            headers=headers,
            data=request.body,
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
            timeout=self._timeout(request),
        ) as answer:
            watch.moved()
            try:
                raw = await _read(answer, watch)
                count(self._stats, bytes=len(raw))
                body = decompressed(raw, answer.headers.get("Content-Encoding", ""))
            except DecodeError as error:
                error.status, error.request_id = answer.status, Response(answer.status, answer.headers).request_id
                raise
            response = Response(answer.status, answer.headers, body, time.monotonic() - began)
            protocol = getattr(answer, "_protocol", None)
            copy = self._pools.copies.has(protocol, f"{request.path}{query}", headers, answer, raw)
            return came_over(response, partial(_discard, client.connector, protocol), copy=copy)

    def _timeout(self, request: Request) -> aiohttp.ClientTimeout:
        if request.call is None:
            return aiohttp.ClientTimeout(total=None)
        timeouts = request.call.timeouts
        known = self._timeouts.get(timeouts)
        if known is None:
            # In a pool that is not ours, `connect` would count the wait for one of its connections too, and nobody
            # tells us when the connection is there.
            foreign = self._pools.foreign
            known = aiohttp.ClientTimeout(
                total=None,
                connect=None if foreign else timeouts.connect,
                sock_connect=timeouts.connect,
                sock_read=timeouts.read if foreign else None,
            )
            self._timeouts[timeouts] = known
        return known


def _discard(connector: aiohttp.BaseConnector | None, protocol: Any) -> None:
    """Close a connection that has given another's answer: at once where it is idle, else when its request is over."""
    if protocol is None:  # of a double, which has no connection
        return
    protocol.force_close()
    if connector is None or protocol not in connector._acquired:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        protocol.close()


def _collected(error: RuntimeError) -> GeneratorExit | None:
    """The end of a call that the collector closes, where aiohttp's cleaning up for it failed: its loop is closed."""
    before = error.__context__
    while before is not None and not isinstance(before, GeneratorExit):
        before = before.__context__
    return before


async def _read(answer: aiohttp.ClientResponse, watch: AttemptTimer) -> bytes:
    """The whole body as it came, never more than the cap."""
    pieces: list[bytes] = []
    size = 0
    content = answer.content
    while piece := await content.readany():
        watch.moved()
        size += len(piece)
        check_size(size)  # where that raises, aiohttp closes the connection, with the rest still on its way
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _late(watch: AttemptTimer, request: Request) -> TransportError:
    """The error for an attempt that its watch ended."""
    timeouts = request.call.timeouts if request.call else Timeouts()
    if watch.silent:
        return _silent(timeouts)
    if watch.of_call:
        text = f"the {timeouts.call:g} s of Timeouts.call ran out before the answer was complete"
        return DeadlineExceededError(text, kind="deadline")
    text = f"no complete answer within the {watch.seconds:g} s of Timeouts.attempt; raise it or ask for less at a time"
    return RequestTimeoutError(text, kind="timeout")


def _silent(timeouts: Timeouts) -> RequestTimeoutError:
    text = f"the server sent nothing for the {timeouts.read:g} s of Timeouts.read; raise it or ask for less"
    return RequestTimeoutError(text, kind="timeout")


def _timed_out(error: TimeoutError, request: Request) -> TransportError:
    """The error for a timeout of aiohttp's or of the kernel's, which both are `TimeoutError`."""
    timeouts = request.call.timeouts if request.call else Timeouts()
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        text = f"no connection within the {timeouts.connect:g} s of Timeouts.connect; check base_url and the network"
        return _caused(ConnectError(text, kind="connect-timeout"), error)
    if isinstance(error, aiohttp.SocketTimeoutError):
        return _caused(_silent(timeouts), error)
    return _lost(error)


def _mapped(error: Exception) -> CapillaryError:
    """Our error for one of aiohttp's, ssl's or the socket's, most specific first; never by `.status` or builtin bases.

    aiohttp calls a torn protocol a `ClientResponseError` with status 400, and a certificate failure a `ValueError` too.
    """
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):
        return InvalidRequestError("base_url and path make no URL that can be sent: check both", argument="base_url")
    if isinstance(error, aiohttp.ClientConnectorError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        return _not_connected(error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return _caused(TransportError(f"the answer was cut in its body: {_text(error)}", kind="cut-body"), error)
    if isinstance(error, aiohttp.ClientResponseError):
        said = " ".join(_text(error).split())[:_SHOWN]
        return _caused(TransportError(f"the server spoke no valid HTTP: {said}", kind="protocol"), error)
    if isinstance(error, aiohttp.ClientConnectionError | OSError | EOFError):
        return _lost(error)
    return _caused(TransportError(f"the request failed: {_text(error)}", kind="other"), error)


def _not_connected(error: Exception) -> ConnectError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        text = f"the server's certificate was refused: {_text(error)}; check base_url"
        return _caused(TLSError(text, kind="tls"), error)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        return _caused(TLSError(f"no TLS connection: {_text(error)}; check base_url", kind="tls"), error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        text = f"the host does not resolve: {_text(error)}; check base_url and the network"
        return _caused(ConnectError(text, kind="connect"), error)
    text = f"no connection: {_text(error)}; check base_url and the network"
    return _caused(ConnectError(text, kind="connect"), error)


def _lost(error: Exception) -> TransportError:
    # aiohttp itself raises subclasses. A double of it that has no answer for a URL raises the class itself.
    double = "; in tests, no mock has this URL with its query" if type(error) is aiohttp.ClientConnectionError else ""
    return _caused(TransportError(f"the connection was lost: {_text(error)}{double}", kind="disconnected"), error)


def _text(error: BaseException) -> str:
    """What it says, without queries: aiohttp's words hold URLs, and ours hold customers' numbers and addresses."""
    said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    if isinstance(error, aiohttp.ClientConnectorError) and error.strerror is None:  # e.g. reset within the handshake
        said = said.replace("[None]", f"[{type(error.os_error).__name__}]")
    return _QUERY.sub("", said) or type(error).__name__


def _caused(ours: _E, theirs: BaseException) -> _E:
    """Chain what happened beneath, as text and errno only: the original holds requests, headers and frames."""
    ours.__cause__ = _scrubbed(theirs)
    ours.__suppress_context__ = True
    return ours


def _scrubbed(error: BaseException) -> BaseException:
    inner: Any = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(inner, OSError) and type(inner).__module__ == "builtins" and inner.errno is not None:
        return OSError(inner.errno, inner.strerror)
    name = f"{type(inner).__module__}.{type(inner).__qualname__}"
    return OriginalError(_text(inner), type_name=name)
