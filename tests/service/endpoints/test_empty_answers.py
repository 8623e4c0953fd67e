"""Answers that hold nothing: after a full page they end a list as an empty array does, on page 1 they are errors."""

import json
import re
from typing import Any

import pytest
from aioresponses import aioresponses

from capillary_async import AsyncSession, BasicAuth, DecodeError, Paging, RetryPolicy

FORMS: list[dict[str, Any]] = [{"status": 204, "body": ""}, {"body": "null"}, {"body": "{}"}]
ROWS = [{"id": number, "customer_id": 5} for number in range(1, 131)]


def page(number: int) -> re.Pattern[str]:
    return re.compile(rf".*/pointsAllocation/dateRange\?.*page={number}(&.*)?$")


async def ids() -> list[int | None]:
    auth = BasicAuth("till", password="secret-of-the-till")
    paging, retry = Paging(prefetch=0), RetryPolicy(backoff=0)
    async with AsyncSession("https://eu.api.capillarytech.com", auth=auth, paging=paging, retry=retry) as session:
        found = session.points_allocation.by_expiry(
            entity_id=5, program_id=1, point_category_id=1, expiry_date_start="2025-01-01", expiry_date_end="2026-01-01"
        )
        return [one.id async for one in found]


@pytest.mark.parametrize("form", FORMS)
async def test_after_a_full_page_it_is_an_empty_page(form: dict[str, Any]):
    with aioresponses() as mocked:
        mocked.get(page(1), body=json.dumps(ROWS[:100]))
        mocked.get(page(2), repeat=True, **form)
        assert await ids() == list(range(1, 101))


@pytest.mark.parametrize("form", FORMS[1:])
async def test_where_it_does_not_come_again_the_list_goes_on(form: dict[str, Any]):
    with aioresponses() as mocked:
        mocked.get(page(1), body=json.dumps(ROWS[:100]))
        mocked.get(page(2), **form)
        mocked.get(page(2), body=json.dumps(ROWS[100:]))
        assert await ids() == list(range(1, 131))


@pytest.mark.parametrize("form", FORMS)
async def test_on_page_1_it_is_an_error(form: dict[str, Any]):
    with aioresponses() as mocked:
        mocked.get(page(1), repeat=True, **form)
        with pytest.raises(DecodeError):
            await ids()


async def test_another_shape_after_a_full_page_is_an_error():
    with aioresponses() as mocked:
        mocked.get(page(1), body=json.dumps(ROWS[:100]))
        mocked.get(page(2), repeat=True, body='{"rows": []}')
        with pytest.raises(DecodeError):
            await ids()
