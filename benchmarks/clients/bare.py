"""Bare aiohttp, as in a script: no retries, no checks, no limits, nothing read ahead. The floor and its siblings."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import attrs
import msgspec

from benchmarks.clients._loops import AsyncLoop, by_member
from benchmarks.pages import AUTHORIZATION, PATH, QUERY, SCOPE, SIZE
from capillary_async.models import PointsAllocation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Floor", "IntFloor", "KeptFloor", "Orjson", "int_model"]


def int_model() -> Any:
    """`PointsAllocation` with points as JSON numbers come: int, or float that is not exact."""
    number: Any = int | float | None
    fields: dict[str, Any] = {
        one.name: attrs.field(default=None, type=number if one.type == Decimal | None else one.type)
        for one in attrs.fields(PointsAllocation)
    }
    return attrs.make_class("IntAllocation", fields, frozen=True, slots=True, kw_only=True)


class _Bare(AsyncLoop):
    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url + PATH
        self._decode = self.decoder()
        self._options = options

    @staticmethod
    def decoder() -> Callable[[bytes], list[Any]]:
        """Bytes to rows."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers={"Authorization": AUTHORIZATION, **SCOPE})
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def page(self, entity_id: int, number: int) -> Sequence[Any]:
        """One page, its URL built from parameters as aiohttp's documentation shows."""
        params = {**QUERY, "entity_id": entity_id, "page": number, "count": SIZE}
        async with self._session.get(self._url, params=params) as answer:
            return self._decode(await answer.read())


class Floor(_Bare):
    """msgspec straight into the SDK's own model, points as Decimal."""

    @staticmethod
    def decoder() -> Callable[[bytes], list[Any]]:
        """Bytes to models."""
        return msgspec.json.Decoder(list[PointsAllocation]).decode


class KeptFloor(Floor):
    """The floor in a process that freed a large block once, after which the allocator keeps the buffers of reads.

    A program that has done other work before is in that state; `capillary_async` brings its process into it.
    """

    async def __aenter__(self) -> Self:
        bytes(1024 * 1024)
        return await super().__aenter__()


class IntFloor(_Bare):
    """The same without Decimals."""

    @staticmethod
    def decoder() -> Callable[[bytes], list[Any]]:
        """Bytes to models."""
        return msgspec.json.Decoder(list[int_model()]).decode  # type: ignore[misc]


@by_member
class Orjson(_Bare):
    """Dicts, points as int or float."""

    @staticmethod
    def decoder() -> Callable[[bytes], list[Any]]:
        """Bytes to dicts."""
        from orjson import loads  # noqa: PLC0415 - the floor does without it

        return loads
