"""Where the books stand, as the user named it: a path or a URL, whose password is for the driver alone.

The rule kept here: whatever shows an address, a message, a report or a traceback with locals, shows stars for its
password. Made by `_reconcile.py`, read by `_books.py`.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

__all__ = ["Address", "without_password"]

_IN_QUERY = re.compile(r"(?i)([?&](?:ssl)?password=)([^&#]*)")


def without_password(url: str) -> str:
    """The URL with stars for its password, wherever it stands."""
    return _IN_QUERY.sub(r"\1***", re.sub(r"^(\w+://[^/?#@:]*):[^/?#]*@", r"\1:***@", url))


class Address:
    """A path or URL that shows no password: `str(Address("postgresql://u:secret@h/d"))` has stars."""

    __slots__ = ("_given",)

    def __init__(self, given: str) -> None:
        self._given = given

    def __str__(self) -> str:
        return without_password(self._given)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    @property
    def scheme(self) -> str | None:
        """What stands before `://`; None for a path."""
        found = re.match(r"(\w+)://", self._given)
        return found[1] if found else None

    def reveal(self) -> str:
        """All of it, for the driver; to be kept in no variable."""
        return self._given

    def scrubbed(self, text: str) -> str:
        """The text with stars where it has the password, as it stands in the URL or as it is meant."""
        found = [match[2] for match in _IN_QUERY.finditer(self._given)]
        found.append(urlsplit(self._given).password or "")
        for secret in sorted({form for each in found for form in (each, unquote(each)) if form}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text
