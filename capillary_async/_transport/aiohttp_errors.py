"""The only mapping of errors of aiohttp, ssl and sockets to errors of this package.

Invariant: each becomes the most specific error of this package, without request, headers and frames of the original.
Pure functions, called by `Wire`.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from capillary_async._config import Timeouts
from capillary_async._transport.alerts import refusal_of
from capillary_async._transport.route import Route
from capillary_async.errors import (
    CapillaryError,
    ConnectError,
    DeadlineExceededError,
    InvalidRequestError,
    OriginalError,
    RequestTimeoutError,
    TLSError,
    TransportError,
)

if TYPE_CHECKING:
    from capillary_async._transport.attempt_timer import AttemptTimer
    from capillary_async._transport.messages import Request

__all__ = ["PROXY_AUTHENTICATION", "collected", "late", "mapped", "refused_by_proxy", "timed_out"]

PROXY_AUTHENTICATION = 407
_DIRECT = Route()
_SHOWN = 200
_REFUSED, _FAILED, _PASSING = 400, 500, frozenset({408, 425, 429})  # of a proxy
_E = TypeVar("_E", bound=TransportError)
_QUERY = re.compile(r"\?\S+")


def late(timer: AttemptTimer, request: Request) -> TransportError:
    """The error for an attempt that its timer ended."""
    timeouts = request.call.timeouts if request.call else Timeouts()
    if timer.stalled:
        return _stalled(timeouts)
    if timer.of_call:
        text = f"the {timeouts.call:g} s of Timeouts.call ran out before the answer was complete"
        return DeadlineExceededError(text, kind="deadline")
    text = f"no complete answer within the {timer.seconds:g} s of Timeouts.attempt; raise it or ask for less at a time"
    return RequestTimeoutError(text, kind="timeout")


def _stalled(timeouts: Timeouts) -> RequestTimeoutError:
    text = f"the server sent nothing for the {timeouts.read:g} s of Timeouts.read; raise it or ask for less"
    return RequestTimeoutError(text, kind="timeout")


def timed_out(error: TimeoutError, request: Request, route: Route = _DIRECT) -> TransportError:
    """The error for a timeout of aiohttp's or of the kernel's, which both are `TimeoutError`."""
    timeouts = request.call.timeouts if request.call else Timeouts()
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        text = f"no connection within the {timeouts.connect:g} s of Timeouts.connect; {route.hint}"
        return _caused(ConnectError(text, kind="connect-timeout"), error)
    if isinstance(error, aiohttp.SocketTimeoutError):
        return _caused(_stalled(timeouts), error)
    return _lost(error)


def mapped(error: Exception, route: Route = _DIRECT) -> CapillaryError:
    """Our error for one of aiohttp's, ssl's or the socket's, most specific first; never by `.status` or builtin bases.

    aiohttp calls a torn protocol a `ClientResponseError` with status 400, and a certificate failure a `ValueError` too.
    """
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):
        return InvalidRequestError("base_url and path make no URL that can be sent: check both", argument="base_url")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _caused(refused_by_proxy(error.status, error.message, route), error)
    if (alert := refusal_of(error)) is not None:
        return _not_connected(alert, route)
    if isinstance(error, aiohttp.ClientConnectorError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        return _not_connected(error, route)
    if isinstance(error, aiohttp.ClientPayloadError):
        return _caused(TransportError(f"the answer was cut in its body: {_text(error)}", kind="cut-body"), error)
    if isinstance(error, aiohttp.ClientResponseError):
        said = " ".join(_text(error).split())[:_SHOWN]
        return _caused(TransportError(f"the server spoke no valid HTTP: {said}", kind="protocol"), error)
    if isinstance(error, aiohttp.ClientConnectionError | OSError | EOFError):
        return _lost(error)
    return _caused(TransportError(f"the request failed: {_text(error)}", kind="other"), error)


def refused_by_proxy(status: int, reason: str | None, route: Route) -> ConnectError:
    """The error for a proxy that does not connect us: its refusals stay, its failures may go away."""
    name = "the proxy" if route.proxy is None else f"the proxy {route.proxy.url}"
    said = f"HTTP {status} {' '.join((reason or '').split())[:_SHOWN]}".rstrip()
    if status == PROXY_AUTHENTICATION:
        text = f"{name} wants a user name and password, or refused those given: {said}; give them in proxy="
        return ConnectError(text, kind="proxy")
    refused = _REFUSED <= status < _FAILED and status not in _PASSING
    text = f"{name} did not connect to the server: {said}; {route.hint}"
    return ConnectError(text, kind="proxy" if refused else "connect")


def _not_connected(error: Exception, route: Route) -> ConnectError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        text = f"the server's certificate was refused: {_text(error)}; check base_url"
        return _caused(TLSError(text, kind="tls"), error)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        own = " and the client certificate of ssl_context=" if refusal_of(error) else ""
        return _caused(TLSError(f"no TLS connection: {_text(error)}; check base_url{own}", kind="tls"), error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        text = f"the host does not resolve: {_text(error)}; {route.hint}"
        return _caused(ConnectError(text, kind="connect"), error)
    to = "" if route.proxy is None else f" through the proxy {route.proxy.url}"
    text = f"no connection{to}: {_text(error)}; {route.hint}"
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


def collected(error: RuntimeError) -> GeneratorExit | None:
    """The end of a call that the collector closes, where aiohttp's cleaning up for it failed: its loop is closed."""
    before = error.__context__
    while before is not None and not isinstance(before, GeneratorExit):
        before = before.__context__
    return before
