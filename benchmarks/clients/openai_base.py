"""The runtime of a generated SDK: openai's base client, with a page class as its generator writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from openai import BaseModel
from openai._base_client import AsyncAPIClient, BaseAsyncPage, BasePage, PageInfo
from typing_extensions import override

from benchmarks.clients._loops import AsyncLoop
from benchmarks.clients._pydantic import allocation_model
from benchmarks.pages import AUTHORIZATION, PATH, QUERY, SCOPE, SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Reader"]

T = TypeVar("T")
_ALLOCATION: Any = allocation_model(BaseModel)


class AllocationPage(BaseAsyncPage[T], BasePage[T], Generic[T]):
    """A bare array, page after page by number until a short one."""

    items: list[T]

    @classmethod
    def build(cls, *, response: Any, data: object) -> AllocationPage[T]:  # noqa: ARG003 - the runtime's signature
        """Wrap the array, since a page is an object to the runtime."""
        return cast("AllocationPage[T]", cast("Any", cls).construct(None, items=data))

    @override
    def _get_page_items(self) -> list[T]:
        return self.items

    @override
    def next_page_info(self) -> PageInfo | None:
        if len(self.items) < SIZE:
            return None
        params = cast("dict[str, Any]", self._options.params)
        return PageInfo(params={"page": params["page"] + 1})


class Reader(AsyncLoop):
    """`get_api_list`, looped over record by record."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options

    async def __aenter__(self) -> Self:
        self._client = AsyncAPIClient(
            version="1", base_url=self._url, _strict_response_validation=False,
            custom_headers={"Authorization": AUTHORIZATION, **SCOPE},
        )  # fmt: skip
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()

    def _list(self, entity_id: int) -> Any:
        params = {**QUERY, "entity_id": entity_id, "page": 1, "count": SIZE}
        page: Any = AllocationPage[_ALLOCATION]
        return self._client.get_api_list(PATH, page=page, model=_ALLOCATION, options={"params": params})

    async def page(self, entity_id: int, number: int) -> Sequence[Any]:
        """Not needed: the runtime pages by itself."""
        raise NotImplementedError

    @override
    async def read_list(self, entity_id: int, take: Callable[[int], object]) -> None:
        async for record in self._list(entity_id):
            take(record.id)

    @override
    async def customer(self, entity_id: int) -> list[Any]:
        return [record async for record in self._list(entity_id)]
