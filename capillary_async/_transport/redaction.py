"""Secrets hidden: `Redactor` takes them out of errors, where a server echoed them; `SecretStr` has no readable repr.

Invariant: every text of an error is cleaned of each secret, in each form in which it may come back, also where the text
was cut within it. Called by `credentials.py` and `oauth.py` for every error that leaves them.
"""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING, Any, SupportsIndex, overload
from urllib.parse import quote, quote_plus

from attrs import evolve

from capillary_async.errors import APIError, CapillaryError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Redactor", "SecretBytes", "SecretStr"]

_SHORTEST = 6  # replacing a shorter text would garble every message
_CUT = "..."


class SecretStr(str):
    """A text whose repr hides it, since frames of aiohttp hold headers and tracebacks may show locals.

    A slice of it is a `SecretStr` too: rich and others cut a long text before they take its repr.
    """

    __slots__ = ()

    def __getitem__(self, key: SupportsIndex | slice) -> SecretStr:
        return SecretStr(super().__getitem__(key))

    def __repr__(self) -> str:
        return "'***'"


class SecretBytes(bytes):
    """The bytes of the token request, whose repr hides them."""

    __slots__ = ()

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> SecretBytes: ...
    def __getitem__(self, key: SupportsIndex | slice) -> int | SecretBytes:
        found = super().__getitem__(key)
        return found if isinstance(found, int) else SecretBytes(found)

    def __repr__(self) -> str:
        return "b'***'"


class Redactor:
    """Cleans errors of the secrets it was made with."""

    def __init__(self, *secrets: str) -> None:
        known = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
        forms = sorted(known, key=len, reverse=True)
        # A closure, as in `capillary_async.auth`: no attribute dump and no repr finds the texts.
        self._forms: Callable[[], list[str]] = lambda: forms

    def __call__(self, error: CapillaryError) -> CapillaryError:
        """The same error with `***` for each secret."""
        error.args = self._each(error.args, error)
        for name, value in list(vars(error).items()):
            if isinstance(value, str):
                setattr(error, name, self._clean(value, error))
            elif name in ("faults", "paths"):
                setattr(error, name, self._each(value, error))
        if isinstance(error, APIError):
            error.errors = tuple(evolve(entry, message=self._clean(entry.message, error)) for entry in error.errors)
        if error.__cause__ is not None:
            error.__cause__.args = self._each(error.__cause__.args, error)
        # The frames beneath hold the body as it came, with all that it echoed; and an error kept would keep them.
        error.__context__ = None
        return error.with_traceback(None)

    def text(self, text: str) -> str:
        """The same text with `***` for each secret."""
        for form in self._forms():
            text = text.replace(form, "***")
        return text

    def _each(self, values: tuple[Any, ...], error: CapillaryError) -> tuple[Any, ...]:
        return tuple(self._clean(value, error) if isinstance(value, str) else value for value in values)

    def _clean(self, text: str, error: CapillaryError) -> str:
        forms = self._forms()
        for form in forms:
            text = text.replace(form, "***")
        # Looking for beginnings of secrets is slow, so only where texts are cut: extracts of bodies, and long messages.
        if _CUT in text or isinstance(error, DecodeError):
            text = _CUT.join(_without_beginning(piece, forms) for piece in text.split(_CUT))
        return text


def _without_beginning(text: str, forms: list[str]) -> str:
    """The text without the beginning of a secret at its end."""
    for form in forms:
        for length in range(min(len(form) - 1, len(text)), _SHORTEST - 1, -1):
            if text.endswith(form[:length]):
                return f"{text[:-length]}***"
    return text


def _forms(secret: str) -> Iterator[str]:
    """How a server may write it: plain, base64, in a URL, in JSON, in HTML, in upper case; and as Python shows it."""
    coded = base64.b64encode(secret.encode("utf-8", "surrogatepass")).decode()
    for form in (secret, coded):
        octets = form.encode("utf-8", "surrogatepass")
        yield from (form, quote(octets, safe=""), quote(octets), quote_plus(octets), html.escape(form))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], secret.upper())
    yield from (repr(secret)[1:-1], repr(secret + "'\"")[1:-4])
