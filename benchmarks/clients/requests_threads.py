"""requests in a thread pool: dicts, points with a fraction as Decimal."""

from __future__ import annotations

import json
from decimal import Decimal
from threading import local
from typing import TYPE_CHECKING, Any

import requests

from benchmarks.clients._loops import ThreadLoop
from benchmarks.pages import AUTHORIZATION, PATH, QUERY, SCOPE, SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Reader"]


class Reader(ThreadLoop):
    """A `requests.Session` for each thread."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url + PATH
        self._options = options
        self._of_thread = local()
        self._sessions: list[requests.Session] = []

    def __exit__(self, *exc: object) -> None:
        """Close the connections."""
        super().__exit__(*exc)
        for session in self._sessions:
            session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = self._of_thread.session = requests.Session()
            session.trust_env = False
            session.headers.update({"Authorization": AUTHORIZATION, **SCOPE})
            self._sessions.append(session)
        return session

    def _pages(self, entity_id: int) -> Iterator[list[dict[str, Any]]]:
        session, number = self._session(), 1
        while True:
            params: dict[str, Any] = {**QUERY, "entity_id": entity_id, "page": number, "count": SIZE}
            rows = json.loads(session.get(self._url, params=params, timeout=60).content, parse_float=Decimal)
            yield rows
            if len(rows) < SIZE:
                return
            number += 1

    def read_list(self, entity_id: int, take: Callable[[int], object]) -> None:
        """Read a list to its end and use each record."""
        for page in self._pages(entity_id):
            for row in page:
                take(row["id"])

    def customer(self, entity_id: int) -> list[Any]:
        """All records of a customer."""
        return [row for page in self._pages(entity_id) for row in page]
