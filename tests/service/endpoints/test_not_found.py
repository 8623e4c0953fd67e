"""404 of a customer's list: an error, or an empty list where the caller says so and the API itself answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from aioresponses import CallbackResult
from support.api_double import HOST, Seen, refused, serving

from capillary_async import EventQuery, InvalidRequestError, NotFoundError, Paging, PagingError
from capillary_async.endpoints.points_allocation import ListNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import AsyncSession

    Sessions = Callable[..., AsyncSession]

EXPIRY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}
OWN = {
    "errors": lambda: refused(404, message="customer not found"),
    "code": lambda: CallbackResult(status=404, payload={"code": 404, "message": "no data", "err": None}),
    "8015": lambda: refused(404, 8015),
    "without a code": lambda: CallbackResult(status=404, payload={"errors": [{"status": False, "message": "none"}]}),
}
FOREIGN = {
    "html": lambda: CallbackResult(status=404, body="<html>404</html>", content_type="text/html"),
    "empty": lambda: CallbackResult(status=404, body=b""),
    "go": lambda: CallbackResult(status=404, body="404 page not found", content_type="text/plain"),
    "ingress": lambda: CallbackResult(status=404, body="default backend - 404", content_type="text/plain"),
    "kong": lambda: CallbackResult(status=404, payload={"message": "no Route matched with those values"}),
    "spring": lambda: CallbackResult(
        status=404, payload={"timestamp": 1, "status": 404, "error": "Not Found", "path": "/x/neo/pointsAllocation"}
    ),
}


def row(number: int) -> dict[str, Any]:
    return {"id": number, "points_exclusive": 1.5}


@pytest.mark.parametrize("form", OWN)
async def test_a_404_of_the_api_is_an_empty_list(form: str, session_at: Sessions) -> None:
    """In every form of the API's own, in one request, with a warning; in both calls and their fan-outs."""
    with serving(lambda seen: [row(1)] if seen.query["entity_id"] == "1" else OWN[form]()) as seen:
        allocations = session_at(HOST).points_allocation
        pages = [page async for page in allocations.by_expiry(entity_id=2, not_found="empty", **EXPIRY).pages()]
        assert [page.items for page in pages] == [()]
        (warning,) = pages[0].warnings
        assert isinstance(warning, ListNotFound)
        assert "entity_id=2" in warning.message
        assert len(seen) == 1
        event = allocations.by_event(entity_id="U", customer_id=2, event_type_id=15, not_found="empty")
        assert await event.collect() == []
        fan = await allocations.by_expiry_many([1, 2], not_found="empty", **EXPIRY).collect()
        assert {key: (outcome.ok, len(outcome.items)) for key, outcome in fan.items()} == {1: (True, 1), 2: (True, 0)}
        queries = [EventQuery(2, 2, 15)]
        assert (await allocations.by_event_many(queries, not_found="empty").collect())[queries[0]].ok


@pytest.mark.parametrize("not_found", ["error", "empty"])
@pytest.mark.parametrize("form", FOREIGN)
async def test_a_404_of_something_else_is_an_error(
    form: str, not_found: Literal["error", "empty"], session_at: Sessions
) -> None:
    """A gateway, or a base path that is wrong, says nothing of a customer."""
    with serving(lambda _: FOREIGN[form]()), pytest.raises(NotFoundError):
        await session_at(HOST).points_allocation.by_expiry(entity_id=2, not_found=not_found, **EXPIRY).collect()


@pytest.mark.parametrize("form", OWN)
async def test_the_default_is_an_error(form: str, session_at: Sessions) -> None:
    """Nothing is taken for empty unless it was asked for."""
    with serving(lambda _: OWN[form]()), pytest.raises(NotFoundError):
        await session_at(HOST).points_allocation.by_expiry(entity_id=2, **EXPIRY).collect()


@pytest.mark.parametrize("busy", [1, 2])
async def test_a_404_under_http_200_is_retried_once(busy: int, session_at: Sessions) -> None:
    """A busy service says so too; what it says twice is believed."""
    asked: list[Seen] = []

    def answer(seen: Seen) -> Any:
        asked.append(seen)
        return {"errors": [{"code": 404, "message": "busy"}]} if len(asked) <= busy else [row(1)]

    with serving(answer):
        found = await session_at(HOST).points_allocation.by_expiry(entity_id=2, not_found="empty", **EXPIRY).collect()
    assert len(found) == 2 - busy
    assert len(asked) == 2


async def test_later_pages_keep_their_own_rules(session_at: Sessions) -> None:
    """A 404 that a page behind it contradicts is no end of a list, whatever was said of customers without one."""

    def answer(seen: Seen) -> Any:
        page = int(seen.query["page"])
        return refused(404) if page == 2 else [row(page * 100 + number) for number in range(100 if page == 1 else 5)]

    capillary = session_at(HOST, paging=Paging(prefetch=4))
    pager = capillary.points_allocation.by_expiry(entity_id=2, not_found="empty", **EXPIRY)
    with serving(answer), pytest.raises(PagingError):
        await pager.collect()
    with serving(answer), pytest.raises(NotFoundError):
        await pager.page(2)


@pytest.mark.parametrize("value", ["", "Empty", None, True, []])
def test_other_words_are_refused(value: Any, session_at: Sessions) -> None:
    """Before anything is sent."""
    allocations = session_at(HOST).points_allocation
    for call in (
        lambda: allocations.by_expiry(entity_id=1, not_found=value, **EXPIRY),
        lambda: allocations.by_expiry_many([1], not_found=value, **EXPIRY),
        lambda: allocations.by_event(entity_id=1, customer_id=1, event_type_id=15, not_found=value),
        lambda: allocations.by_event_many([], not_found=value),
    ):
        with pytest.raises(InvalidRequestError, match="not_found"):
            call()
