"""What is looped over with `async for` says so where it is awaited or looped over plainly."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.fake_list import FakeList, quiet, rows
from support.fan_fakes import Shelf, fan_over

from capillary_async import Paging


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Every test here leaves no task and no complaint of the loop."""
    async with quiet():
        yield


def made() -> list[Any]:
    """One of each."""
    pager, over = FakeList(rows(3)).pager(), fan_over([1, 2], Shelf())
    return [pager, aiter(pager), pager.pages(), over, aiter(over), over.pages()]


@pytest.mark.parametrize("which", range(6))
async def test_the_message_names_both_right_ways(which: int) -> None:
    """In an await, a `for`, a `list()`, and in `asyncio.gather`."""
    used = made()[which]
    for misuse in (list, tuple, set, iter):
        with pytest.raises(TypeError, match=r"`async for .*`await (pager|fan)\.collect\(\)`"):
            misuse(used)
    with pytest.raises(TypeError, match=r"is not awaited: .*`async for .*`await (pager|fan)\.collect\(\)`"):
        await used
    with pytest.raises(TypeError, match="is not awaited"):
        await asyncio.gather(used)
    assert type(used).__name__ in _text(used)


def _text(used: Any) -> str:
    try:
        iter(used)
    except TypeError as error:
        return str(error)
    return ""


async def test_a_page_stays_a_plain_iterable() -> None:
    """Its records are there already."""
    pages = FakeList(rows(3)).pager(5).options(prefetch=Paging().prefetch).pages()
    assert list(await anext(pages)) == rows(3)
    await pages.aclose()
