"""The TLS alerts by which a server refuses a client after its handshake, e.g. for want of a certificate.

Invariant: such a refusal is found even where it was not read. In TLS 1.3 the alert follows the handshake, and a server
that closes its socket at once makes our first write fail before asyncio reads. Called by `Wire` and `pools.py`.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Any

__all__ = ["UnreadAlert", "refusal_of"]

_LONGEST = 4096
# Alerts about this client; others, such as `internal error`, may not come another time.
_REFUSALS = re.compile(r"ALERT.*(?:CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY)")


def refusal_of(error: BaseException | None) -> ssl.SSLError | None:
    """The alert among an error and its causes that refuses this client, None if there is none."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and _REFUSALS.search(getattr(error, "reason", "") or ""):
            return error
        error = error.__cause__
    return None


class UnreadAlert:
    """A second handle of the socket of a fresh TLS connection, which outlives the transport's."""

    def __init__(self, transport: Any, handle: int) -> None:
        self._transport = transport
        self._handle: int | None = handle

    @classmethod
    def of(cls, transport: Any) -> UnreadAlert | None:
        """The handle of a transport; None without TLS, or where the socket is closed."""
        if transport is None or transport.get_extra_info("ssl_object") is None:
            return None
        try:
            return cls(transport, os.dup(transport.get_extra_info("socket").fileno()))
        except (OSError, AttributeError):
            return None

    def read(self) -> ssl.SSLError | None:
        """The refusal that is in the socket unread, None if there is none; asyncio's own loops only."""
        protocol = getattr(self._transport, "_ssl_protocol", None)
        incoming, session = getattr(protocol, "_incoming", None), getattr(protocol, "_sslobj", None)
        if self._handle is None or incoming is None or session is None:
            return None
        try:
            incoming.write(self._received(self._handle))
            session.read(_LONGEST)
        except OSError as error:  # what SSLError is
            return refusal_of(error)
        return None

    def _received(self, handle: int) -> bytes:
        self._handle = None
        with socket.socket(fileno=handle) as unread:
            unread.settimeout(0)
            return unread.recv(_LONGEST)

    def close(self) -> None:
        """Close the handle."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
