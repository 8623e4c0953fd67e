"""The checks of arguments: one function for each kind of value, for settings, calls, jobs and the sandbox alike.

Invariant: a refusal is an `InvalidRequestError` (a ValueError) that names the argument, what it takes and what came. It
never shows what may be a secret, and no frame that raises holds one, since tracebacks with locals end in log files.
Called by `_config.py`, the pager, the fan-out, the endpoints, the session, the jobs and the sandbox.
"""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, tzinfo
from inspect import iscoroutinefunction
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

from capillary_async._repr import shown
from capillary_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = [
    "base_url",
    "choice",
    "dag_scope",
    "flag",
    "headers",
    "kind",
    "may_be_added",
    "middlewares",
    "observers",
    "path",
    "proxy",
    "query",
    "refuse",
    "seconds",
    "ssl_context",
    "timezone",
    "validator",
    "whole",
]

T = TypeVar("T")

_LARGEST = 2**63 - 1
_ENDLESS = sys.float_info.max  # a whole number may be larger than any float
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
# These say how the SDK itself talks to the server; another value would break it or leak.
_OURS = frozenset(
    {
        "accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie", "host",
        "proxy-authorization", "transfer-encoding", "x-cap-api-oauth-token",
    }
)  # fmt: skip


def refuse(name: str, takes: str, value: object) -> InvalidRequestError:
    """The error for an invalid argument; of `Limits.rate` the argument is `rate`."""
    return InvalidRequestError(f"{name} takes {takes}, got {shown(value)}", argument=name.rpartition(".")[2])


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """A whole number within bounds; True is none."""
    right = isinstance(value, int) and not isinstance(value, bool)
    if not right or (least is not None and value < least) or (most is not None and value > most):
        span = "" if least is None else f" of at least {least}" if most is None else f" from {least} to {most}"
        raise refuse(name, f"a whole number{span}", value)
    return cast("int", value)


def seconds(name: str, value: Any, *, zero: bool = False) -> float:
    """A finite number above zero, or of at least zero; True is none."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _ENDLESS
    if not right or (value == 0 and not zero):
        raise refuse(name, f"a finite number of seconds, {'zero or more' if zero else 'more than zero'}", value)
    return cast("float", value)


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that is merely true."""
    if not isinstance(value, bool):
        raise refuse(name, "True or False", value)
    return value


def choice(name: str, value: Any, allowed: Sequence[T]) -> T:
    """One of a few texts."""
    for one in allowed:
        if isinstance(value, str) and value == one:
            return one
    raise refuse(name, " or ".join(map(repr, allowed)), value)


def kind(name: str, value: object, classes: Any, takes: str) -> None:
    """Refuse a value of another class; the message shows only its class, since it may be a secret."""
    if not isinstance(value, classes):
        got = type(value).__name__
        del value
        raise InvalidRequestError(f"{name} takes {takes}, got {got}", argument=name.rpartition(".")[2])


def validator(check: Callable[..., object], *bounds: Any, **more: Any) -> Callable[[Any, Attribute[Any], Any], None]:
    """A check as the validator of an attrs field, which it names as `Limits.rate`."""

    def checked(owner: Any, attribute: Attribute[Any], value: Any) -> None:
        check(f"{type(owner).__name__}.{attribute.name}", value, *bounds, **more)

    return checked


def base_url(value: Any) -> str:
    """The URL of the cluster without a slash at its end; a refusal never shows a password in it."""
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


def proxy(value: Any) -> str | None:
    """The URL of a proxy, or None; a refusal never shows a password in it."""
    fault = "" if value is None else _proxy_fault(value)
    if fault:
        del value
        raise InvalidRequestError(
            f"proxy takes a URL such as http://user:password@host:3128; {fault}", argument="proxy"
        )
    return cast("str | None", value)


def address_of(value: Any) -> SplitResult | str:
    """The parts of a URL that may have a user and a password; or what is wrong with it, said without the value."""
    if not isinstance(value, str):
        return f"got {type(value).__name__}"
    if not value.isascii() or any(c <= " " or c == "\x7f" for c in value):
        return "got one with spaces or odd characters: those of a password are written as %XX"
    try:
        parts = urlsplit(value)
        _ = parts.port, unquote(parts.username or "", errors="strict"), unquote(parts.password or "", errors="strict")
    except ValueError:
        return "got one with a broken host, port or password: odd characters of a password are written as %XX"
    return parts


def _proxy_fault(value: Any) -> str:
    parts = address_of(value)
    if isinstance(parts, str):
        return parts
    port, user = parts.port, unquote(parts.username or "")
    if parts.scheme != "http" or not parts.hostname or port == 0:
        return "got one without http:// or without a host; a proxy of another kind takes a client_session of your own"
    if ":" in user or (parts.password and not user):
        return "got one whose user name is empty or has a colon"
    odd = "got one with a path, query or fragment; odd characters of a password are written as %XX"
    return odd if parts.path.strip("/") or "?" in value or "#" in value else ""


def ssl_context(value: Any) -> ssl.SSLContext | None:
    """The TLS settings of a user, or None; they verify the server and its name."""
    if value is None:
        return None
    kind("ssl_context", value, ssl.SSLContext, "an ssl.SSLContext, e.g. ssl.create_default_context(cafile=...)")
    if value.verify_mode != ssl.CERT_REQUIRED or not value.check_hostname:
        raise InvalidRequestError(
            "ssl_context takes a context that verifies the certificate and the name of the server, such as "
            "ssl.create_default_context(cafile=...); got one that does not",
            argument="ssl_context",
        )
    return cast("ssl.SSLContext", value)


def headers(given: Any) -> dict[str, str]:
    """The headers of a user, or none; a refusal never shows a value."""
    if given is None:
        return {}
    fault = _headers_fault(given)
    if fault:
        del given
        raise InvalidRequestError(fault, argument="headers")
    return dict(cast("Mapping[str, str]", given))


def may_be_added(name: Any, value: Any) -> bool:
    """Whether an observer may add this header to a request."""
    named = isinstance(name, str) and _TOKEN.fullmatch(name) is not None
    return named and name.lower() not in _OURS and _sendable(value)


def _headers_fault(given: Any) -> str:
    if not isinstance(given, Mapping):
        return f"headers takes a mapping of texts, got {type(given).__name__}"
    for name, value in cast("Mapping[Any, Any]", given).items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            return f"headers: {shown(name)} is no header name"
        if name.lower() in _OURS:
            return f"headers: {name} is set by the SDK itself"
        if not _sendable(value):
            return f"headers: the value of {name} takes printable ASCII text"
    return ""


def _sendable(value: Any) -> bool:
    return isinstance(value, str) and all(c == "\t" or " " <= c <= "~" for c in value)


def dag_scope(given: Any) -> str | None:
    """The `x-cap-neo-dag-scope` of Neo calls, or None."""
    if given is not None and (not _sendable(given) or not given.strip()):
        raise InvalidRequestError("dag_scope takes a printable ASCII text or None", argument="dag_scope")
    return cast("str | None", given)


def middlewares(given: Any) -> tuple[Any, ...]:
    """The middlewares of a user, in order: a list or tuple of them, or one."""
    listed = tuple(cast("list[Any]", given)) if isinstance(given, list | tuple) else (given,)
    for one in listed:
        if not callable(one):
            raise InvalidRequestError(
                f"middlewares takes a sequence of async (request, handler) -> response, got {shown(one)}",
                argument="middlewares",
            )
    return listed


def observers(given: Any) -> tuple[Any, ...]:
    """The observers of a user: a list or tuple of them, or one."""
    listed = tuple(cast("list[Any]", given)) if isinstance(given, list | tuple) else (given,)
    for one in listed:
        if not callable(one) or iscoroutinefunction(one) or iscoroutinefunction(getattr(one, "__call__", None)):  # noqa: B004
            raise InvalidRequestError(
                f"observers takes a sequence of plain callables that take one record, got {shown(one)}",
                argument="observers",
            )
    return listed


def timezone(given: Any) -> tzinfo | None:
    """The time zone of the cluster: a tzinfo, or one by its name."""
    if given is None or isinstance(given, tzinfo):
        return given
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - milliseconds of every import, for few

    if isinstance(given, str):
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo(given)
    raise InvalidRequestError(
        f"server_timezone takes a tzinfo or a zone's name such as 'Asia/Kolkata', got {shown(given)}",
        argument="server_timezone",
    )


def path(given: Any) -> str:
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


def query(params: Any) -> str:
    """The parameters of `AsyncSession.request` as an encoded query; those that are None are not sent."""
    if params is None:
        return ""
    if not isinstance(params, Mapping):
        raise InvalidRequestError(f"params takes a mapping, got {type(params).__name__}", argument="params")
    pairs = ((_param_name(name), _param(str(name), value)) for name, value in cast("Mapping[Any, Any]", params).items())
    try:
        return "&".join(f"{quote(name, safe='')}={quote(text, safe=',')}" for name, text in pairs if text is not None)
    except UnicodeEncodeError:
        raise InvalidRequestError("params: a name or text holds half a character", argument="params") from None


def _param_name(name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidRequestError(f"params: a name takes a text, got {shown(name)}", argument="params")
    return name


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
    if isinstance(value, int) and abs(value) <= _LARGEST:
        return str(int(value))
    raise InvalidRequestError(
        f"params: {name} takes a text, an int of 64 bits, a bool, a date or a list of them, got {type(value).__name__}",
        argument="params",
    )
