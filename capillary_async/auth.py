"""Credentials: what the user gives, kept so that it cannot leak.

Invariant: a secret lives in a closure-like holder with no repr, no pickle and no attribute dump; only the transport
opens it. `BasicAuth` and `OAuthClient` are all a user needs to know; `from_env` makes one of them for
`AsyncSession.from_env` and the command line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from capillary_async._repr import shown
from capillary_async.errors import InvalidRequestError

__all__ = ["BasicAuth", "OAuthClient", "from_env"]

_TILL = ("CAPILLARY_USERNAME", "CAPILLARY_PASSWORD", "CAPILLARY_PASSWORD_MD5")
_CLIENT = ("CAPILLARY_CLIENT_KEY", "CAPILLARY_CLIENT_SECRET")
_MD5_HEX = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)


class _Secret:
    """A text that is only shown when asked for by name."""

    __slots__ = ("_open",)

    def __init__(self, text: str) -> None:
        # A closure: `vars()`, `attrs.asdict`, `__dict__` dumps and repr of containers find a function, not the text.
        self._open: Callable[[], str] = lambda: text

    def reveal(self) -> str:
        """The text itself. For the transport only."""
        return self._open()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled: make the credentials again where they are needed")


class _Credentials:
    """What both kinds share: they are values that compare by identity, never show their secret, and do not pickle."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is not pickled, so that no secret is written anywhere: "
            "make it again in the other process, e.g. with AsyncSession.from_env()"
        )

    def __copy__(self) -> _Credentials:
        return self

    def __deepcopy__(self, memo: object) -> _Credentials:
        return self


def _sendable(value: object) -> bool:
    """Whether it is a text that UTF-8 can carry: no empty one, and no half of a surrogate pair."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= character <= "\udfff" for character in value)


def _text(owner: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not _sendable(value):
        raise ValueError(f"{owner}: {name} takes a text that is not empty, got {type(value).__name__}")
    return value


class BasicAuth(_Credentials):
    """Till credentials, sent as HTTP Basic: the till id and the MD5 hex of the till password.

    Give exactly one of the two: a password of 32 hex digits looks like a digest.

    Args:
        username: The till id.
        password: The till password; its MD5 hex goes over the wire.
        password_md5: The MD5 hex of the till password, where only that is known.

    Raises:
        ValueError: Neither or both were given, a digest that is none, or a user name with a colon.

    Example:
        >>> BasicAuth("till.id", password="secret")
        BasicAuth(username='till.id', password='***')
    """

    __slots__ = ("_digest", "_password", "username")

    username: str

    def __init__(self, username: str, *, password: str | None = None, password_md5: str | None = None) -> None:
        fault = _basic_fault(username, password, password_md5)
        given = password if password is not None else password_md5
        hashed = password_md5 is not None
        # No local of a frame that raises may hold the secret: tracebacks with locals end in log files.
        del password, password_md5
        if fault or given is None:
            given = None
            raise ValueError(fault)
        self.username = username
        self._password = None if hashed else _Secret(given)
        self._digest = _Secret(given.lower() if hashed else _md5(given))

    def _wire_password(self) -> str:
        """The MD5 hex that goes over the wire. For the transport only."""
        return self._digest.reveal()

    def _secrets(self) -> tuple[str, ...]:
        """The texts that no message may show. For the transport only."""
        plain = () if self._password is None else (self._password.reveal(),)
        return (*plain, self._wire_password())

    def __repr__(self) -> str:
        username = getattr(self, "username", None)  # half-made in tracebacks
        return f"BasicAuth(username={shown(username)}, password='***')"


def _md5(password: str) -> str:
    return hashlib.md5(password.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _basic_fault(username: object, password: object, digest: object) -> str:
    """What is wrong, said without the secret; empty when nothing is."""
    if not isinstance(username, str) or not username or ":" in username or not username.isprintable():
        return "BasicAuth: username takes the till id, a printable text without a colon"
    if (password is None) == (digest is None):
        return "BasicAuth: give exactly one of password and password_md5"
    if password is not None and (not isinstance(password, str) or not password):
        return "BasicAuth: password takes a text that is not empty"
    if digest is not None and (not isinstance(digest, str) or not _MD5_HEX.fullmatch(digest)):
        return "BasicAuth: password_md5 takes the 32 hex digits of an MD5; give a plain password as password="
    return ""


class OAuthClient(_Credentials):
    """An OAuth client: key and secret are exchanged for a token that the session keeps fresh.

    Args:
        key: The client's key.
        secret: The client's secret.

    Raises:
        ValueError: One of them is empty or no text.

    Example:
        >>> OAuthClient("key", "secret")
        OAuthClient(key='key', secret='***')
    """

    __slots__ = ("_secret", "key")

    key: str

    def __init__(self, key: str, secret: str) -> None:
        kept = _Secret(secret) if _sendable(secret) else None
        del secret
        self.key = _text("OAuthClient", "key", key)
        if kept is None:
            raise ValueError("OAuthClient: secret takes a text that is not empty")
        self._secret = kept

    def _wire_secret(self) -> str:
        """The secret itself. For the transport only."""
        return self._secret.reveal()

    def _secrets(self) -> tuple[str, ...]:
        """The texts that no message may show. For the transport only."""
        return (self._wire_secret(),)

    def __repr__(self) -> str:
        return f"OAuthClient(key={shown(getattr(self, 'key', None))}, secret='***')"  # half-made in tracebacks


def from_env(overrides: Mapping[str, str | None] | None = None) -> BasicAuth | OAuthClient:
    """Make credentials from environment variables.

    An `OAuthClient` if only variables of it are set, `CAPILLARY_CLIENT_KEY` and `CAPILLARY_CLIENT_SECRET`; else a
    `BasicAuth` of `CAPILLARY_USERNAME` and `CAPILLARY_PASSWORD`, or `CAPILLARY_PASSWORD_MD5` if there is no password.

    Args:
        overrides: Values that replace variables, by the variables' names. Those of one kind of credentials select it.

    Raises:
        InvalidRequestError: A variable is missing; the message and `argument` name it.
        ValueError: A value is invalid, or overrides of both kinds are given.
    """
    read = _reader(overrides or {})
    given = frozenset(name for name, value in (overrides or {}).items() if value)
    del overrides  # no local of a frame that raises may hold a secret
    if given.intersection(_TILL) and given.intersection(_CLIENT):
        raise InvalidRequestError("give till credentials or an OAuth client, not both")
    named = given or frozenset(filter(read, (*_TILL, *_CLIENT)))
    if named.intersection(_CLIENT) and not named.intersection(_TILL):
        key = _needed(read, "CAPILLARY_CLIENT_KEY", "the OAuth client's key")
        return OAuthClient(key, _needed(read, "CAPILLARY_CLIENT_SECRET", "the OAuth client's secret"))
    username = _needed(
        read, "CAPILLARY_USERNAME", "the till id (or set CAPILLARY_CLIENT_KEY and CAPILLARY_CLIENT_SECRET)"
    )
    if read("CAPILLARY_PASSWORD_MD5") and not read("CAPILLARY_PASSWORD"):
        return BasicAuth(username, password_md5=read("CAPILLARY_PASSWORD_MD5"))
    password = "the till password (or set CAPILLARY_PASSWORD_MD5)"  # noqa: S105 - what the variable has
    return BasicAuth(username, password=_needed(read, "CAPILLARY_PASSWORD", password))


def _reader(overrides: Mapping[str, str | None]) -> Callable[[str], str]:
    """A function from a variable to its value, empty if there is none."""
    return lambda name: overrides.get(name) or os.environ.get(name, "")


def _needed(read: Callable[[str], str], name: str, what: str) -> str:
    if not read(name):
        raise InvalidRequestError(f"the environment variable {name} is missing: it holds {what}", argument=name)
    return read(name)
