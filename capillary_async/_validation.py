"""What may be given to a session, checked when it is made or asked.

Invariant: a refusal names the argument and never shows a password, a header's value or a secret; nor do the locals of
the frame that raises it, since tracebacks with locals end in log files. Pure functions, for a session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, tzinfo
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

from capillary_async._repr import shown
from capillary_async._transport.messages import Headers
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from capillary_async._transport.messages import Middleware

__all__ = [
    "check_base_url",
    "check_dag_scope",
    "check_headers",
    "check_middlewares",
    "check_path",
    "check_timezone",
    "encode_query",
    "expect",
    "merged",
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
# These say how the SDK itself talks to the server; another value would break it or leak.
_OURS = frozenset(
    {
        "accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie", "host",
        "transfer-encoding", "x-cap-api-oauth-token",
    }
)  # fmt: skip


def expect(name: str, value: object, kind: Any, allowed: str) -> None:
    """Refuse a value of another class; the text shows its class alone, since it may be a secret."""
    if not isinstance(value, kind):
        got = type(value).__name__
        del value
        raise InvalidRequestError(f"{name} takes {allowed}, got {got}", argument=name)


def check_base_url(value: Any) -> str:
    """The cluster's URL, without a slash at its end; the text of a refusal never shows a password in it."""
    fault = _base_url_fault(value)
    if fault:
        del value
        raise InvalidRequestError(
            f"base_url takes a URL such as https://eu.api.capillarytech.com; {fault}", argument="base_url"
        )
    return str(value).rstrip("/")


def _base_url_fault(value: Any) -> str:
    if not isinstance(value, str):
        return f"got {type(value).__name__}"
    if not value.isascii() or any(c <= " " or c in '\\"<>^`{|}\x7f' for c in value):
        return "got one with spaces or odd characters"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "got one with a broken host or port"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "got one without https:// or without a host"
    if "@" in parts.netloc:
        return "got one with a user name or password in it: give them as auth="
    if "?" in value or "#" in value:
        return "got one with a query or fragment"
    if any(segment in (".", "..") for segment in unquote(parts.path).split("/")):
        return "got one with dots for a path segment"
    if parts.scheme == "http" and not _loopback(parts.hostname):
        return "got one with http://, which would send the credentials in the open; only loopback may do without https"
    return ""


def _loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_headers(given: Any) -> Headers:
    """A user's headers; the text of a refusal never shows a value."""
    if given is None:
        return Headers()
    fault = _headers_fault(given)
    if fault:
        del given
        raise InvalidRequestError(fault, argument="headers")
    return Headers(cast("Mapping[str, str]", given))


def _headers_fault(given: Any) -> str:
    if not isinstance(given, Mapping):
        return f"headers takes a mapping of texts, got {type(given).__name__}"
    for name, value in cast("Mapping[Any, Any]", given).items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            return f"headers: {name!r} is no header name"
        if name.lower() in _OURS:
            return f"headers: {name} is set by the SDK itself"
        if not _sendable(value):
            return f"headers: the value of {name} takes printable ASCII text"
    return ""


def _sendable(value: Any) -> bool:
    return isinstance(value, str) and all(c == "\t" or " " <= c <= "~" for c in value)


def check_dag_scope(given: Any) -> str | None:
    """The scope of Neo calls."""
    if given is not None and (not _sendable(given) or not given.strip()):
        raise InvalidRequestError("dag_scope takes a printable ASCII text or None", argument="dag_scope")
    return cast("str | None", given)


def merged(base: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Both, the latter winning, whatever the case of their names."""
    named = {name.lower() for name in more}
    return {**{name: value for name, value in base.items() if name.lower() not in named}, **more}


def check_middlewares(given: Any) -> tuple[Middleware, ...]:
    """A user's middlewares, in order."""
    listed = tuple(cast("list[Any]", given)) if isinstance(given, list | tuple) else (given,)
    for one in listed:
        if not callable(one):
            raise InvalidRequestError(
                f"middlewares takes a sequence of async (request, handler) -> response, got {shown(one)}",
                argument="middlewares",
            )
    return listed


def check_timezone(given: Any) -> tzinfo | None:
    """The cluster's zone, by itself or by name."""
    if given is None or isinstance(given, tzinfo):
        return given
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - milliseconds of every import, for few

    try:
        return ZoneInfo(given)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        pass
    raise InvalidRequestError(
        f"server_timezone takes a tzinfo or a zone's name such as 'Asia/Kolkata', got {shown(given)}",
        argument="server_timezone",
    )


def check_path(given: Any) -> str:
    """A path below the base URL, quoted; it can reach no other host, and no segment of it climbs."""
    right = isinstance(given, str) and given.startswith("/") and not given.startswith("//") and given.isprintable()
    if not right or any(character in given for character in "?#\\"):
        raise InvalidRequestError(
            f"path takes a path such as /v2/customers/565039505, and the query goes to params; got {shown(given)}",
            argument="path",
        )
    if any(_climbs(unquote(segment)) for segment in str(given).split("/")):
        raise InvalidRequestError(
            f"path takes no segments of dots or with a coded slash or control character, got {shown(given)}",
            argument="path",
        )
    return quote(_STRAY_PERCENT.sub("%25", str(given)), safe="/%:@!$&'()*+,;=~")


def _climbs(segment: str) -> bool:
    return segment in (".", "..") or any(c in "/\\" or c < " " or c == "\x7f" for c in segment)


def encode_query(params: Any) -> str:
    """A query of `AsyncSession.request`; what is None is not sent."""
    if params is None:
        return ""
    if not isinstance(params, Mapping):
        raise InvalidRequestError(f"params takes a mapping, got {type(params).__name__}", argument="params")
    pairs = ((str(name), _param(str(name), value)) for name, value in cast("Mapping[Any, Any]", params).items())
    try:
        return "&".join(f"{quote(name, safe='')}={quote(text, safe=',')}" for name, text in pairs if text is not None)
    except UnicodeEncodeError:
        raise InvalidRequestError("params: a name or text holds half a character", argument="params") from None


def _param(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        parts = [_param(name, part) for part in cast("list[Any]", value)]
        return ",".join(part for part in parts if part is not None)
    if isinstance(value, int):
        return str(int(value))
    raise InvalidRequestError(
        f"params: {name} takes a text, an int, a bool, a date or a list of them, got {type(value).__name__}",
        argument="params",
    )
