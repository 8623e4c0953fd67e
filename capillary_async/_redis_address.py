"""`RedisAddress`: the address of a Redis whose password cannot leak.

Invariant: the text, the repr, the attributes and the pickle of an address have no user name and no password; only the
transport reveals them. Called by `Rate` and by `RedisRate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from capillary_async._validation import address_of
from capillary_async.errors import InvalidRequestError

__all__ = ["RedisAddress"]

_TAKES = "Rate.shared takes the URL of a Redis such as redis://user:password@host:6379/0 or rediss://host:6379/0"
_PORT = 6379
_DATABASES = 2**31


class RedisAddress(str):
    """`redis://host:6379/0`, and what to connect with."""

    __slots__ = ("_open",)

    _open: Callable[[], dict[str, Any]]

    @classmethod
    def of(cls, value: Any) -> RedisAddress | InvalidRequestError | None:
        """The address that a URL names, None for None; or the refusal of what is no URL of a Redis, to be raised.

        No frame of the refusal may hold the URL, and its message does not show it.
        """
        if value is None or isinstance(value, cls):
            return value
        fault = _fault(value)
        if fault:
            return InvalidRequestError(f"{_TAKES}; {fault}", argument="shared")
        return cls._made(urlsplit(str(value)))

    @classmethod
    def _made(cls, parts: SplitResult) -> RedisAddress:
        host, port, number = parts.hostname or "", parts.port or _PORT, int(parts.path.strip("/") or 0)
        made = cls(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}/{number}")
        options = {
            "host": host,
            "port": port,
            "db": number,
            "ssl": parts.scheme == "rediss",
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
        }
        # A closure, as in `capillary_async.auth`: no attribute dump and no repr finds the password.
        made._open = lambda: options
        return made

    def options(self) -> dict[str, Any]:
        """What the client of Redis takes, the password too. For the transport only."""
        return self._open()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.options()["password"] is not None:
            raise TypeError(
                "a Rate whose Redis has a password is not pickled, so that it is written nowhere: make it again in the "
                "other process, e.g. from an environment variable"
            )
        return RedisAddress.of, (str(self),)

    def __copy__(self) -> RedisAddress:
        return self

    def __deepcopy__(self, memo: object) -> RedisAddress:
        return self


def _fault(value: Any) -> str:
    """What is wrong, said without the value; empty when nothing is."""
    parts = address_of(value)
    if isinstance(parts, str):
        return parts
    port, user, password = parts.port, unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or port == 0:
        return "got one without redis:// or rediss://, or without a host"
    if user and not password:
        return "got one with a user name and no password: a password alone is written as redis://:password@host"
    number = parts.path.removeprefix("/").removesuffix("/")
    if "?" in value or "#" in value or (number and not _is_database(number)):
        return "after the port comes the number of the database alone, e.g. /0; odd characters of a password are %XX"
    return ""


def _is_database(text: str) -> bool:
    return text.isdigit() and len(text) < len(str(_DATABASES)) and int(text) < _DATABASES
