"""Putting an answer on the wire with aiohttp: whole, compressed, cut, or not at all.

Invariant: a cut answer is cut on purpose and for certain; the connection is closed after it. `Sandbox` calls `send`.
"""

from __future__ import annotations

import gzip
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from capillary_async.sandbox._protocol.answers import Answer

__all__ = ["send"]

_COMPRESS_FROM = 256  # bytes: below that gzip makes a body longer
_LINGER_NOT = struct.pack("ii", 1, 0)


async def send(request: web.BaseRequest, answer: Answer, request_id: str, *, compress: bool) -> web.StreamResponse:
    """Send the answer; give the response for aiohttp to finish."""
    headers = {"Content-Type": answer.content_type, "X-CAP-REQUEST-ID": request_id, **answer.headers}
    body = answer.body
    if compress and len(body) >= _COMPRESS_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    if answer.send == "reset":
        return _reset(request)
    if answer.send in {"whole", "content"}:
        sent = body if answer.send == "whole" else _part(body, answer.keep)
        return web.Response(body=sent, headers=headers, status=answer.status)
    return await _cut(request, answer, body, headers)


def _part(body: bytes, keep: float) -> bytes:
    return body[: min(int(len(body) * keep), max(len(body) - 1, 0))]


async def _cut(request: web.BaseRequest, answer: Answer, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=headers)
    if answer.send == "chunked":
        response.enable_chunked_encoding()
    else:
        response.content_length = len(body)
    await response.prepare(request)
    part = _part(body, answer.keep)
    # An empty write would send the headers late or not at all.
    await response.write(part or b"")
    if request.transport is not None:
        request.transport.close()  # what is written so far still goes out
    return response


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection so that the client sees a reset; the response given is never sent."""
    transport = request.transport
    if transport is not None:
        line = transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    return web.Response()
