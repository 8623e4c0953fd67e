"""httpx and pydantic v2, as in a careful script: bytes validated straight into models, points as Decimal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import httpx
from pydantic import BaseModel, TypeAdapter

from benchmarks.clients._loops import AsyncLoop
from benchmarks.clients._pydantic import allocation_model
from benchmarks.pages import AUTHORIZATION, PATH, QUERY, SCOPE, SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Reader"]


class Reader(AsyncLoop):
    """One `httpx.AsyncClient`, one `TypeAdapter`."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options
        rows: Any = list[allocation_model(BaseModel)]  # type: ignore[misc]
        self._rows: TypeAdapter[list[Any]] = TypeAdapter(rows)

    async def __aenter__(self) -> Self:
        headers = {"Authorization": AUTHORIZATION, **SCOPE}
        self._client = httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=False)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def page(self, entity_id: int, number: int) -> Sequence[Any]:
        """One page."""
        params = {**QUERY, "entity_id": entity_id, "page": number, "count": SIZE}
        answer = await self._client.get(PATH, params=params)
        return self._rows.validate_json(answer.content)
