"""A list into a table: by the SDK's own columns, and as users write it from records; and its bodies alone."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

import attrs
import pandas as pd
import polars as pl
import pyarrow  # noqa: F401, ICN001 - each client's memory is measured with the same imports

from benchmarks.clients.bare import Floor
from benchmarks.clients.ours import Records

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Arrow", "AsdictPandas", "Bodies", "FromDicts", "Pandas", "Polars"]


class Bodies(Floor):
    """The bodies of the pages, read and dropped."""

    @staticmethod
    def decoder() -> Callable[[bytes], Any]:
        """As many rows as the body seems to have."""
        return lambda body: range(body.count(b'"id":'))

    async def read_list(self, entity_id: int, take: Callable[[int], object]) -> None:
        """Read a list to its end."""
        number = 1
        while rows := await self.page(entity_id, number):
            for row in rows:
                take(row)
            number += 1


class _Table(Records):
    async def table(self, entity_id: int) -> Any:
        """The list as a table."""
        raise NotImplementedError

    async def read_list(self, entity_id: int, take: Callable[[int | None], object]) -> None:
        """Read a list into a table; its rows are counted alone."""
        table = await self.table(entity_id)
        for _ in repeat(None, len(table)):
            take(None)


class Arrow(_Table):
    """`to_arrow()`."""

    async def table(self, entity_id: int) -> Any:
        """The list as a table."""
        return await self._pager(entity_id).to_arrow()


class Polars(_Table):
    """`to_polars()`."""

    async def table(self, entity_id: int) -> Any:
        """The list as a data frame."""
        return await self._pager(entity_id).to_polars()


class Pandas(_Table):
    """`to_pandas()`."""

    async def table(self, entity_id: int) -> Any:
        """The list as a data frame."""
        return await self._pager(entity_id).to_pandas()


class AsdictPandas(_Table):
    """`pd.DataFrame` of each record as a dict."""

    async def table(self, entity_id: int) -> Any:
        """The list as a data frame of objects."""
        return pd.DataFrame([attrs.asdict(record) async for record in self._pager(entity_id)])


class FromDicts(_Table):
    """`pl.from_dicts` of the same."""

    async def table(self, entity_id: int) -> Any:
        """The list as a data frame."""
        return pl.from_dicts([attrs.asdict(record) async for record in self._pager(entity_id)])
