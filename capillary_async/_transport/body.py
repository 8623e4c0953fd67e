"""Decompression of the body of an answer.

Invariant: a body is verified to its trailer and never larger than the cap, or it is an error; aiohttp accepts an
incomplete gzip body. Called by `Wire`.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from capillary_async._codec.faults import not_json, too_large
from capillary_async.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator


def _engine() -> Any:
    """The module that decompresses: isal, of the extra `speed`, where it is installed; else zlib.

    isal needs half of zlib's time, has its interface, and verifies lengths and checksums as zlib does. It ignores the
    reserved flags of a gzip header, which zlib refuses.
    """
    try:
        return import_module("isal.isal_zlib")
    except ImportError:
        return zlib


__all__ = ["MAX_BODY", "check_size", "decompressed"]

MAX_BODY = 64 * 1024 * 1024
_PIECE = 16 * 1024 * 1024
_MEMBERS = 1000  # each costs a copy of what is left: a body of empty ones would keep the event loop busy for hours
_GZIP = 16 + zlib.MAX_WBITS
_ENGINE = _engine()


def check_size(size: int) -> None:
    """Refuse a body that is larger than the cap."""
    if size > MAX_BODY:
        raise too_large(f"the answer is larger than {MAX_BODY // 1024**2} MiB")


def decompressed(raw: bytes, encoding: str) -> bytes:
    """The body behind its `Content-Encoding`, verified to its trailer: aiohttp takes a cut gzip body for whole."""
    name = encoding.strip().lower()
    if not raw or name in ("", "identity"):  # nothing has no trailer: what an empty body means, the status says
        return raw
    if name in ("gzip", "x-gzip"):
        return b"".join(_members(raw, _GZIP))
    if name == "deflate":
        return b"".join(_members(raw, zlib.MAX_WBITS if _zlib_wrapped(raw) else -zlib.MAX_WBITS))
    raise not_json(f"the answer came with Content-Encoding {encoding!r}, which was not asked for")


def _zlib_wrapped(raw: bytes) -> bool:
    """Whether deflate came with the zlib header that the standard asks for; some servers leave it out."""
    return len(raw) > 1 and raw[0] & 0x0F == zlib.DEFLATED and int.from_bytes(raw[:2], "big") % 31 == 0


def _members(raw: bytes, wbits: int) -> Iterator[bytes]:
    size = members = 0
    while raw:
        members += 1
        if members > _MEMBERS:
            raise too_large(f"the compressed body of the answer has more than {_MEMBERS} parts")
        member = _ENGINE.decompressobj(wbits)
        while not member.eof:
            # Piece by piece: what one call gives is held twice while it is made.
            try:
                piece: bytes = member.decompress(raw, min(MAX_BODY - size + 1, _PIECE))
            except _ENGINE.error as error:
                raise _torn(str(error)) from None
            size += len(piece)
            check_size(size)
            if not piece and not member.eof:
                raise _torn("it ends before its trailer")
            yield piece
            raw = member.unconsumed_tail
        raw = member.unused_data.lstrip(b"\0")  # members may be padded


def _torn(why: str) -> TransportError:
    return TransportError(f"the compressed body of the answer is damaged: {why}", kind="cut-body")
