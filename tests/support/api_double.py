"""The API as endpoint tests see it: aioresponses answers for one host with a function, and remembers what was asked."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aioresponses import CallbackResult, aioresponses
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from yarl import URL

HOST = "https://eu.api.capillarytech.com"
# MD5 hex of the password in conftest, and the header it makes: written out, so that a change is seen.
BASIC = "Basic dGlsbC5pZDoxYzY2N2M4MTZlMGQzNTYzZmQ1NTFiZmFkYjE4ZGQ2NA=="


@frozen(eq=False)
class Seen:
    """One request as it came."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    url: str


def refused(status: int, code: int | None = None, message: str = "refused") -> CallbackResult:
    """An answer that is none."""
    entry = {"status": False, "code": code or status, "message": message}
    return CallbackResult(status=status, payload={"errors": [entry]})


def ids_of(seen: Seen, name: str = "entity_id") -> list[int]:
    """The ids that a request asked for."""
    return [int(text) for text in seen.query[name].split(",")]


@contextmanager
def serving(answer: Callable[[Seen], Any] | list[Any] | dict[str, Any]) -> Iterator[list[Seen]]:
    """Every GET of the host is answered: by a function of the request, or always with the same JSON."""
    seen: list[Seen] = []

    def reply(url: URL, **request: Any) -> CallbackResult:
        headers = {name.lower(): value for name, value in request["headers"].items()}
        seen.append(Seen(url.path, dict(url.query), headers, str(url)))
        assert len(seen[-1].query) == len(url.query), "a parameter was sent twice"
        told = answer(seen[-1]) if callable(answer) else answer
        return told if isinstance(told, CallbackResult) else CallbackResult(payload=told)

    with aioresponses() as mocked:
        mocked.get(re.compile(re.escape(HOST)), callback=reply, repeat=True)
        yield seen
