"""Which pages of a fan-out are taken for whole lists: only those of which a reader would find the same."""

from __future__ import annotations

from typing import Any

import pytest
from support.fake_list import FakeOwner, Row, fault, fetched, rows

from capillary_async import Paging
from capillary_async._config import CarefulPaging
from capillary_async._paging.pager import FetchedPage, ListSource
from capillary_async._paging.reader import ListReader, is_whole_list
from capillary_async._paging.source import PagerOptions

SIZE = 100
PAGES = {
    "empty": (fetched([], "a"), True),
    "short": (fetched(rows(3), "a"), True),
    "of a null entry": (fetched([Row(1), None, Row(2)], "a"), True),
    "of one record without a key": (fetched([Row(1), Row(None)], "a"), True),
    "of records without a key": (fetched([Row(None), Row(None)], "a"), False),
    "with a record twice": (fetched([Row(1), Row(2), Row(1)], "a"), False),
    "as long as a cap": (fetched(rows(20), "a"), False),
    "full": (fetched(rows(SIZE), "a"), False),
    "with its total": (FetchedPage(rows(3), 3, total=3), True),
    "with a larger total": (FetchedPage(rows(3), 3, total=4), False),
    "with a part refused": (FetchedPage(rows(3), 3, error=fault()), False),
}


def list_of(page: FetchedPage[Any]) -> tuple[ListSource[Any], list[int]]:
    """A list that begins with this page and has one more row; and the pages asked for."""
    asked: list[int] = []

    async def fetch(number: int, size: int) -> FetchedPage[Any]:
        asked.append(number)
        return page if number == 1 else fetched(rows(1, first=1000) if number == 2 else [], "b")

    return ListSource("fake.list()", fetch, lambda row: row.id), asked


@pytest.mark.parametrize("name", PAGES)
async def test_a_reader_finds_the_same(name: str) -> None:
    """It needs no other page, and gives the same records."""
    page, whole = PAGES[name]
    source, asked = list_of(page)
    assert is_whole_list(page, source, Paging(page_size=SIZE), FakeOwner()) is whole
    if whole:
        reader: ListReader[Any] = ListReader(source, Paging(page_size=SIZE), PagerOptions(), FakeOwner())
        read = await reader.next_page()
        assert read is not None
        assert (read.items, read.warnings, read.last) == (tuple(page.items), page.warnings, True)
        assert await reader.next_page() is None
        assert asked == [1]


def test_a_length_that_is_known_to_be_a_cap_ends_no_list() -> None:
    """Nor does any in an export, which looks further."""
    page, _ = PAGES["short"]
    source, _ = list_of(page)
    assert not is_whole_list(page, source, CarefulPaging(page_size=SIZE), FakeOwner())
    owner = FakeOwner()
    owner.lengths.note("fake.list", SIZE, 3)
    owner.lengths._of("fake.list", SIZE).cap = 3
    assert not is_whole_list(page, source, Paging(page_size=SIZE), owner)
    assert is_whole_list(fetched(rows(2), "a"), source, Paging(page_size=SIZE), owner)
    assert is_whole_list(fetched(rows(2), "a"), source, CarefulPaging(page_size=SIZE), owner)
