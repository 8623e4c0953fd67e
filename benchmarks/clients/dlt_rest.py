"""dlt's REST client: dicts, points as int or float."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any

from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator

from benchmarks.clients._loops import ThreadLoop
from benchmarks.pages import AUTHORIZATION, PATH, QUERY, SCOPE, SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Reader"]


class _UntilShort(PageNumberPaginator):
    """Page after page until a short one; dlt's own stops at an empty one, which costs a request more."""

    def __init__(self) -> None:
        super().__init__(base_page=1, page_param="page", total_path=None, stop_after_empty_page=True)

    def update_state(self, response: Any, data: list[Any] | None = None) -> None:
        """See whether this was the last."""
        super().update_state(response, data)
        if len(data or ()) < SIZE:
            self._has_next_page = False


class Reader(ThreadLoop):
    """`RESTClient.paginate`, a client for each thread."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options
        self._of_thread = local()

    def _pages(self, entity_id: int) -> Iterator[list[dict[str, Any]]]:
        client = getattr(self._of_thread, "client", None)
        if client is None:
            headers = {"Authorization": AUTHORIZATION, **SCOPE}
            client = self._of_thread.client = RESTClient(self._url, headers=headers, data_selector="$")
            client.session.trust_env = False
        params = {**QUERY, "entity_id": entity_id, "count": SIZE}
        return client.paginate(PATH, params=params, paginator=_UntilShort())

    def read_list(self, entity_id: int, take: Callable[[int], object]) -> None:
        """Read a list to its end and use each record."""
        for page in self._pages(entity_id):
            for row in page:
                take(row["id"])

    def customer(self, entity_id: int) -> list[Any]:
        """All records of a customer."""
        return [row for page in self._pages(entity_id) for row in page]
