"""One attempt with aiohttp: one `Request` out, one whole `Response` in.

Invariant: one attempt is one request on the wire, its body is read and verified to the last byte inside the attempt,
and every failure leaves as an error of ours. The last step of the chain.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from capillary_async._transport.aiohttp_errors import (
    PROXY_AUTHENTICATION,
    collected,
    late,
    mapped,
    refused_by_proxy,
    timed_out,
)
from capillary_async._transport.attempt_timer import AttemptTimer
from capillary_async._transport.body import check_size, decompressed
from capillary_async._transport.messages import Response, came_over
from capillary_async._transport.pools import current_timer, reset_timer
from capillary_async._transport.stats import count
from capillary_async.errors import CapillaryError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async._config import Timeouts
    from capillary_async._transport.messages import Request
    from capillary_async._transport.pools import Pools
    from capillary_async._transport.stats import Stats

__all__ = ["Wire"]


class Wire:
    """The last step: sends a request through the pool of the running loop."""

    def __init__(self, base_url: str, pools: Pools, stats: Stats, headers: Mapping[str, str]) -> None:
        self._base = URL(base_url, encoded=True)
        self._pools = pools
        self._stats = stats
        self._route = pools.route(base_url)
        self._headers = CIMultiDict({**headers, **self._route.headers})
        self._options = self._route.options
        # The last settings in their form for aiohttp, in one tuple, since threads share it.
        self._timeouts: tuple[Timeouts | None, aiohttp.ClientTimeout] = None, aiohttp.ClientTimeout(total=None)

    async def __call__(self, request: Request) -> Response:
        """One attempt.

        Raises:
            TransportError: Or one of its subclasses; no complete answer came.
            DecodeError: The body's compression is broken, unknown, or it is too large.
        """
        client = await self._pools.client()
        count(self._stats, requests=1)
        timer = AttemptTimer(request.call, fresh=request.fresh)
        token = current_timer.set(timer)
        try:
            with timer:
                return await self._exchange(client, request, timer)
            fault: CapillaryError = late(timer, request)
        except asyncio.CancelledError as error:
            # Without aiohttp's frames: their locals have the headers, and they are of no use for a cancellation.
            raise error.with_traceback(None) from None
        except RuntimeError as error:
            if (end := collected(error)) is not None:
                raise end from None
            raise
        except CapillaryError as error:
            fault = error
        except TimeoutError as error:
            fault = timed_out(error, request, self._route)
        except (aiohttp.ClientError, OSError, EOFError, UnicodeError) as error:
            unread = None if timer.alert is None else timer.alert.read()
            fault = mapped(unread or error, self._route)
        finally:
            timer.stop()
            reset_timer(token)
            if timer.transport is not None and request.call is not None:
                request.call.passage = self._pools.passage(timer)
        if self._pools.closed:
            raise RuntimeError("the AsyncSession was closed while a request was under way")
        # Raised outside the handlers: no context, so no frame of aiohttp with our headers hangs on the error.
        raise fault

    async def _exchange(self, client: aiohttp.ClientSession, request: Request, timer: AttemptTimer) -> Response:
        began = time.monotonic()
        headers = self._headers.copy()
        headers.update(request.headers)
        if request.call is not None and request.call.watch is not None:
            request.call.watch.add_to(headers)
        async with client.request(
            request.method,
            self._url(request),
            headers=headers,
            data=request.body,
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
            timeout=self._timeout(request),
            **self._options,
        ) as answer:
            timer.moved()
            if answer.status == PROXY_AUTHENTICATION and self._route.proxy is not None:
                raise refused_by_proxy(answer.status, answer.reason, self._route)
            try:
                raw = await _read(answer, timer)
                count(self._stats, bytes=len(raw))
                body = decompressed(raw, answer.headers.get("Content-Encoding", ""))
            except DecodeError as error:
                error.status, error.request_id = answer.status, Response(answer.status, answer.headers).request_id
                raise
            response = Response(answer.status, answer.headers, body, time.monotonic() - began)
            protocol = getattr(answer, "_protocol", None)
            copy = self._pools.copies.has(protocol, f"{request.path}?{request.query}", headers, answer, raw)
            return came_over(response, partial(_discard, client.connector, protocol), copy=copy)

    def _url(self, request: Request) -> URL:
        """The URL of a request, made of its parts: to parse it whole takes three times as long."""
        base = self._base
        path = request.path if base.raw_path == "/" else base.raw_path + request.path
        return URL.build(
            scheme=base.scheme, authority=base.raw_authority, path=path, query_string=request.query, encoded=True
        )

    def _timeout(self, request: Request) -> aiohttp.ClientTimeout:
        if request.call is None:
            return aiohttp.ClientTimeout(total=None)
        timeouts = request.call.timeouts
        known, limits = self._timeouts
        if known is not timeouts:
            # In a pool that is not ours, `connect` would count the wait for one of its connections too, and
            # nothing reports when the connection is there.
            unowned = self._pools.unowned
            limits = aiohttp.ClientTimeout(
                total=None,
                connect=None if unowned else timeouts.connect,
                sock_connect=timeouts.connect,
                sock_read=timeouts.read if unowned else None,
            )
            self._timeouts = timeouts, limits
        return limits


def _discard(connector: aiohttp.BaseConnector | None, protocol: Any) -> None:
    """Close a connection that has given another's answer: at once where it is idle, else when its request is over."""
    if protocol is None:  # of a double, which has no connection
        return
    protocol.force_close()
    if connector is None or protocol not in connector._acquired:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        protocol.close()


async def _read(answer: aiohttp.ClientResponse, timer: AttemptTimer) -> bytes:
    """The whole body as it came, never more than the cap."""
    pieces: list[bytes] = []
    size = 0
    content = answer.content
    while piece := await content.readany():
        timer.moved()
        size += len(piece)
        check_size(size)  # where that raises, aiohttp closes the connection, with the rest still on its way
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
