"""Types of the public face as a user's checker sees them. Never run: mypy --strict and pyright read it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, assert_type

from capillary_async import (
    AsyncSession,
    AttemptRecord,
    BasicAuth,
    CapillaryError,
    EventQuery,
    EventType,
    FanOut,
    Identifier,
    LedgerEvent,
    LedgerInclude,
    LedgerQuery,
    LoyaltyEvent,
    OAuthClient,
    Outcome,
    Page,
    Pager,
    Paging,
    PointsAllocation,
    PointsAwarded,
    PointsStatus,
    Position,
    Request,
    Response,
    RetryPolicy,
    Stats,
    Timeouts,
    blocking,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def middleware(request: Request, handler: Any) -> Response:
    """A user's own step."""
    response: Response = await handler(request)
    return response


class BrandSession(AsyncSession):
    """A user's own session."""


async def sessions() -> None:
    """Sessions and views."""
    async with AsyncSession(
        "https://eu.api.capillarytech.com", auth=BasicAuth("till", password="x"), middlewares=[middleware]
    ) as one:
        assert_type(one, AsyncSession)
        assert_type(one.stats, Stats)
        assert_type(one.with_options(retry=RetryPolicy(attempts=1), timeouts=Timeouts(call=5)), AsyncSession)
    assert_type(AsyncSession.from_env(auth=OAuthClient("key", "secret")), AsyncSession)
    assert_type(BrandSession.from_env(), BrandSession)
    assert_type(BrandSession.from_env().with_options(timeouts=Timeouts(call=5)), BrandSession)
    async with BrandSession.from_env() as own:
        assert_type(own, BrandSession)


async def total(pager: Pager[object], fan: FanOut[object, object]) -> int:
    """What works for any records takes pagers and fan-outs of each."""
    pages: Page[object] = await pager.page(1)
    return len(pages) + len(await pager.collect()) + len(await fan.collect())


async def covariance(
    pager: Pager[PointsAllocation], fan: FanOut[int, PointsAllocation], outcome: Outcome[int, LoyaltyEvent]
) -> None:
    """A pager of allocations is a pager of allocations or awards."""
    either: Pager[PointsAllocation | PointsAwarded] = pager
    outcomes: Outcome[int | str, LoyaltyEvent | LedgerEvent] = outcome
    page: Page[PointsAllocation | PointsAwarded] = await pager.page(1)
    many: FanOut[int | str, PointsAllocation | PointsAwarded] = fan
    iterators: AsyncIterator[PointsAllocation | PointsAwarded] = aiter(pager)
    await total(either, many)
    await total(pager, fan)
    print(outcomes.ok, len(page), iterators)  # noqa: T201


async def pagers(session: AsyncSession) -> None:
    """Records, pages and positions."""
    pager = session.points_allocation.by_expiry(
        entity_id=1, program_id=2, point_category_id=3, expiry_date_start=date(2025, 6, 1), expiry_date_end="2027-06-01"
    )
    assert_type(pager, Pager[PointsAllocation])
    async for allocation in pager:
        assert_type(allocation, PointsAllocation)
        assert_type(allocation.points_exclusive, Decimal | None)
        assert_type(allocation.expires_at, datetime | None)
        assert_type(allocation.id, int | None)
    async for page in pager.pages():
        assert_type(page, Page[PointsAllocation])
        assert_type(page.items, tuple[PointsAllocation, ...])
        assert_type(page.position, Position | None)
    assert_type(await pager.collect(verify=True), list[PointsAllocation])
    assert_type(await pager.first(), PointsAllocation | None)
    assert_type(await pager.options(page_size=50, max_items=15).page(1), Page[PointsAllocation])
    assert_type(
        session.points_allocation.by_event(entity_id="x", customer_id=1, event_type_id=EventType.SCAN),
        Pager[PointsAllocation],
    )
    assert_type(session.loyalty_events.list(1, event_type="EARN"), Pager[LoyaltyEvent])
    assert_type(
        session.points_ledger.explode(
            identifier=Identifier.mobile("918088369835"),
            source="INSTORE",
            event_ids=[1],
            include=LedgerInclude(bill_details=True),
        ),
        Pager[LedgerEvent],
    )


async def ids() -> AsyncIterator[int]:
    """An input that comes piece by piece."""
    yield 1


async def fans(session: AsyncSession) -> None:
    """Outcomes, pages and records of many keys."""
    fan = session.points_awarded.ids(
        ids(), program_id=1, point_category_id=2, start_expiry_date="2025-01-01", end_expiry_date="2026-01-01",
        status=PointsStatus.AVAILABLE,
    )  # fmt: skip
    assert_type(fan, FanOut[int, PointsAwarded])
    async for outcome in fan:
        assert_type(outcome, Outcome[int, PointsAwarded])
        assert_type(outcome.error, CapillaryError | None)
        assert_type(outcome.unwrap(), tuple[PointsAwarded, ...])
    async for key, page in fan.pages():
        assert_type(key, int)
        assert_type(page, Page[PointsAwarded])
    async for record in fan.items():
        assert_type(record, PointsAwarded)
    async for outcome in fan.ordered():
        assert_type(outcome.key, int)
    assert_type(await fan.collect(), dict[int, Outcome[int, PointsAwarded]])
    assert_type(fan.options(concurrency=4, paging=Paging(verify=True), unique=False), FanOut[int, PointsAwarded])
    events = session.points_allocation.by_event_many([EventQuery("x", 1, EventType.SCAN)])
    assert_type(events, FanOut[EventQuery, PointsAllocation])
    ledgers = session.points_ledger.explode_many(
        [LedgerQuery(identifier=Identifier.mobile("91"), source="INSTORE", event_ids=[1])]
    )
    assert_type(ledgers, FanOut[LedgerQuery, LedgerEvent])


def failures(error: CapillaryError) -> None:
    """What every error carries."""
    assert_type(error.history, tuple[AttemptRecord, ...])
    assert_type(error.attempts, int)
    assert_type(error.elapsed, float)
    assert_type(error.path, str | None)


class BrandPlainSession(blocking.Session):
    """A user's own session for code without a loop."""


def without_a_loop(pager: blocking.Pager[PointsAllocation], fan: blocking.FanOut[int, LoyaltyEvent]) -> None:
    """The blocking session has the signatures of the asynchronous one."""
    auth = BasicAuth("till", password="x")
    with BrandPlainSession("https://eu.api.capillarytech.com", auth=auth, paging=Paging()) as session:
        assert_type(session, BrandPlainSession)
    blocking.Session(auth=auth)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] - no URL
    assert_type(BrandPlainSession.from_env(), BrandPlainSession)
    assert_type(session.with_options(timeouts=Timeouts(call=5)), BrandPlainSession)
    session.with_options(timeout=5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert_type(session.stats, Stats)
    assert_type(session.base_url, str)
    assert_type(session.loyalty_events.list(5), blocking.Pager[LoyaltyEvent])
    session.loyalty_events.list(customer=5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert_type(session.loyalty_events.list_many([5]), blocking.FanOut[int, LoyaltyEvent])
    assert_type(pager.options(max_items=2), blocking.Pager[PointsAllocation])
    assert_type(pager.page(1), Page[PointsAllocation])
    assert_type(pager.pages(), Iterator[Page[PointsAllocation]])
    assert_type(pager.first(), PointsAllocation | None)
    assert_type(pager.collect(verify=True), list[PointsAllocation])
    assert_type([record for record in pager], list[PointsAllocation])  # noqa: C416 - what a `for` gives
    assert_type([outcome for outcome in fan], list[Outcome[int, LoyaltyEvent]])  # noqa: C416
    assert_type(fan.ordered(), Iterator[Outcome[int, LoyaltyEvent]])
    assert_type(fan.items(), Iterator[LoyaltyEvent])
    assert_type(fan.pages(), Iterator[tuple[int, Page[LoyaltyEvent]]])
    assert_type(fan.collect(), dict[int, Outcome[int, LoyaltyEvent]])
    assert_type(fan.options(concurrency=2), blocking.FanOut[int, LoyaltyEvent])
    either: list[blocking.Pager[PointsAllocation | PointsAwarded]] = [pager]
    assert_type(either[0].first(), PointsAllocation | PointsAwarded | None)
