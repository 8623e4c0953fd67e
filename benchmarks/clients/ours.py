"""`capillary_async` as its README tells users to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from benchmarks.pages import PASSWORD_MD5, QUERY, USERNAME
from capillary_async import AsyncSession, BasicAuth, Paging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capillary_async import Pager, PointsAllocation

__all__ = ["Pages", "Records"]


class Records:
    """Record by record, and outcome by outcome."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._unique: bool = options.get("unique", True)
        self._paging = Paging(prefetch=options["prefetch"]) if "prefetch" in options else Paging()

    async def __aenter__(self) -> Self:
        auth = BasicAuth(USERNAME, password_md5=PASSWORD_MD5)
        self._session = AsyncSession(self._url, auth=auth, paging=self._paging)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.aclose()

    def _pager(self, entity_id: int) -> Pager[PointsAllocation]:
        return self._session.points_allocation.by_expiry(entity_id=entity_id, **QUERY)

    async def read_list(self, entity_id: int, take: Callable[[int | None], object]) -> None:
        """Read a list to its end and use each record."""
        async for record in self._pager(entity_id):
            take(record.id)

    async def read_customers(self, ids: Iterable[int], concurrency: int) -> int:
        """Read many customers; gives the number of records."""
        records = 0
        fan = self._session.points_allocation.by_expiry_many(ids, **QUERY)
        async for outcome in fan.options(concurrency=concurrency, unique=self._unique):
            records += len(outcome.unwrap())
        return records


class Pages(Records):
    """Page by page."""

    async def read_list(self, entity_id: int, take: Callable[[int | None], object]) -> None:
        """Read a list to its end and use each record."""
        async for page in self._pager(entity_id).pages():
            for record in page:
                take(record.id)
