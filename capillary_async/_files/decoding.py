"""Text of another encoding as UTF-8, piece by piece.

Invariant: bytes that are not of the encoding are refused with their line. Called by `_files/source.py`.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SourceError", "recoded"]


class SourceError(Exception):
    """The input cannot be read; the message says why and what to do."""


def recoded(read: Callable[[int], bytes], encoding: str) -> Callable[[int], bytes]:
    """The pieces of text of another encoding, as UTF-8 without a BOM.

    Raises:
        SourceError: Some bytes are none of it; the message has the line.
    """
    decoder, head, line, first = codecs.getincrementaldecoder(encoding)(), b"", 1, True

    def piece(size: int) -> bytes:
        nonlocal head, line, first
        ended = False
        while not ended:
            data = read(size)
            ended = not data
            if len(head) < len(codecs.BOM_UTF8):
                head += data
                if head.startswith(codecs.BOM_UTF8):
                    raise SourceError(f"it begins as UTF-8 does, and not as {encoding}: leave the encoding out")
            found = _decoded(decoder, data, encoding, line)
            line += found.count("\n")
            text = found.removeprefix("\ufeff") if first else found
            first = first and not found
            if text:
                return text.encode()
        return b""

    return piece


def _decoded(decoder: codecs.IncrementalDecoder, data: bytes, encoding: str, line: int) -> str:
    try:
        return decoder.decode(data, final=not data)
    except UnicodeDecodeError as error:
        line += error.object[: error.start].decode(encoding, "replace").count("\n")
        raise SourceError(
            f"line {line} is not {encoding}: it has the byte 0x{error.object[error.start]:02x}; give its true encoding"
        ) from None
