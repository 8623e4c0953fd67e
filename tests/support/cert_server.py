"""A TLS server of blocking sockets that demands a client certificate, and sends its alert where there is none.

In TLS 1.3 the alert comes after the client's handshake; asyncio's own server closes the connection without it.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import trustme

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n" + b'{"a": 1}'


@dataclass
class CertServer:
    """One connection at a time; `drains` reads the client out before it closes, as patient servers do."""

    port: int
    authority: trustme.CA
    clients: trustme.CA
    drains: bool
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def trusting(self) -> ssl.SSLContext:
        """A client's context without a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context

    def serve(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """Until the socket is closed."""
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                self.connections += 1
                with connection, suppress(OSError):
                    self._one(connection, context)

    def _one(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        kept = connection.dup() if self.drains else None
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                while head := tls.recv(65536):
                    self.heads.append(head)
                    tls.sendall(ANSWER)
        except ssl.SSLError:
            if kept is None:
                return
            kept.shutdown(socket.SHUT_WR)
            while kept.recv(4096):
                pass
        finally:
            if kept is not None:
                kept.close()


@contextmanager
def demanding(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, drains: bool = False) -> Iterator[CertServer]:
    """The server, in a thread of its own."""
    authority, clients = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    clients.configure_trust(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = CertServer(listening.getsockname()[1], authority, clients, drains)
        thread = threading.Thread(target=server.serve, args=(listening, context), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            thread.join(5)
