"""Exports of ledgers: pairs of customers and events, a few workers, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from capillary_async import (
    AsyncSession,
    AuthenticationError,
    BasicAuth,
    InvalidRequestError,
    LedgerInclude,
    RetryPolicy,
    jobs,
)
from capillary_async.jobs._common.ledger import LedgerKey, LedgerOutcomes, LedgerQuery
from capillary_async.sandbox import Sandbox, ServerFailure, SlowFirstByte

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(customers=30, whales=0) as sandbox:
        yield sandbox


@pytest.fixture
def session(sandbox: Sandbox, session_at: Callable[..., AsyncSession]) -> AsyncSession:
    return session_at(sandbox.url, auth=sandbox.auth)


def pairs(sandbox: Sandbox, events: int = 12) -> list[tuple[int, int]]:
    return [(owner, event) for owner in sandbox.customer_ids for event in sandbox.event_log_ids(owner)[:events]]


def keys(sandbox: Sandbox) -> list[LedgerKey]:
    held: dict[int, list[str]] = {}
    for customer, event in pairs(sandbox):
        held.setdefault(customer, []).append(str(event))
    return [LedgerKey(str(customer), events) for customer, events in held.items()]


async def test_pairs_in_any_order(sandbox: Sandbox, session: AsyncSession, tmp_path: Path) -> None:
    """Lines of one customer belong together wherever they stand; one that comes twice is asked once."""
    given = pairs(sandbox)
    mixed = [*given[::3], *given[1::3], *given[2::3], *given[:5]]
    result = await jobs.export("ledger", mixed, tmp_path / "out", session=session, include=LedgerInclude())
    assert result.complete
    assert result.asked == len({customer for customer, _ in given})
    assert result.records == len(given)
    together = {customer: [event for owner, event in mixed if owner == customer] for customer, _ in given}
    again = await jobs.export("ledger", list(together.items()), tmp_path / "two", session=session)
    assert again.records == len(given)
    said = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("out", "two")]
    assert said[0]["keys_digest"] == said[1]["keys_digest"]
    assert (await jobs.verify(tmp_path / "two", session=session)).ok


async def test_other_events_are_other_ids(sandbox: Sandbox, session: AsyncSession, tmp_path: Path) -> None:
    """The events of a customer are part of what was asked."""
    given = pairs(sandbox, 3)
    await jobs.export("ledger", given, tmp_path / "out", session=session)
    with pytest.raises(jobs.JobError, match="the first to differ is number 2, in shard 0"):
        await jobs.export("ledger", [given[0], *given[1:4], *given[5:]], tmp_path / "out", session=session)


async def test_a_refused_event(sandbox: Sandbox, session: AsyncSession, tmp_path: Path) -> None:
    """Its customer fails as a whole, named with the event; nothing half is written."""
    given = [*pairs(sandbox), (sandbox.customer_ids[0], 999_999_999)]
    result = await jobs.export("ledger", given, tmp_path / "out", session=session, rounds=0)
    assert result.failed == 1
    failed = json.loads((tmp_path / "out" / "failures.jsonl").read_text())
    assert (failed["key"], failed["error"]) == (str(sandbox.customer_ids[0]), "LedgerRequestError")
    assert "999999999" in failed["message"]
    assert result.records == len([customer for customer, _ in given if customer != sandbox.customer_ids[0]])


async def test_wrong_credentials(sandbox: Sandbox, session_at: Callable[..., AsyncSession], tmp_path: Path) -> None:
    """Raised as itself, after a handful of requests."""
    session = session_at(sandbox.url, auth=BasicAuth("till", password="wrong"))
    with pytest.raises(AuthenticationError):
        await jobs.export("ledger", pairs(sandbox), tmp_path / "out", session=session)
    assert sandbox.requests <= session.limits.concurrency


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"include": ["bills"]}, "include takes names of bill_details, .*, got bills"),
        ({"identifier": "phone"}, "identifier takes one of the kinds"),
        ({"identifier_source": ""}, "source takes a text"),
        ({"source_": 1}, "the query of ledger"),
    ],
)
async def test_bad_queries(
    *, query: dict[str, Any], text: str, sandbox: Sandbox, session: AsyncSession, tmp_path: Path
) -> None:
    """Refused before anything is sent."""
    with pytest.raises(InvalidRequestError, match=text):
        await jobs.export("ledger", [(1, 1)], tmp_path / "out", session=session, **query)
    assert sandbox.requests == 0


async def test_left_early(sandbox: Sandbox, session: AsyncSession) -> None:
    """No task and no request stays behind, whether the loop is left or cancelled."""
    sandbox.add_faults(SlowFirstByte(5, times=None, after=3))
    outcomes = LedgerOutcomes(session, keys(sandbox), LedgerQuery())
    async for outcome in outcomes:
        assert outcome.ok
        break
    await outcomes.aclose()
    assert [task for task in asyncio.all_tasks() if "LedgerOutcomes" in repr(task)] == []
    task = asyncio.ensure_future(anext(LedgerOutcomes(session, keys(sandbox), LedgerQuery())))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_input_that_breaks(sandbox: Sandbox, session: AsyncSession) -> None:
    """Its error is raised from the loop, not taken for the end."""

    async def broken() -> AsyncIterator[LedgerKey]:
        yield keys(sandbox)[0]
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        async for _ in LedgerOutcomes(session, broken(), LedgerQuery()):
            pass


async def test_an_outage_costs_no_customer(sandbox: Sandbox, session_at: Callable[..., AsyncSession]) -> None:
    """As in every fan-out: the workers wait until the service is back."""
    session = session_at(sandbox.url, auth=sandbox.auth, retry=RetryPolicy(backoff=0, quota=28))
    sandbox.add_faults(ServerFailure(503, times=13))
    outcomes = [outcome async for outcome in LedgerOutcomes(session, keys(sandbox), LedgerQuery())]
    assert [outcome.error for outcome in outcomes] == [None] * len(keys(sandbox))
    assert {outcome.key for outcome in outcomes} == set(keys(sandbox))
    assert sum(len(outcome.items) for outcome in outcomes) == len(pairs(sandbox))


async def test_a_key_that_makes_no_query_fails_alone(sandbox: Sandbox, session: AsyncSession) -> None:
    """Under its own key, wherever it is in the input."""
    good = keys(sandbox)[:3]
    given = [LedgerKey("0", ["1"]), *good, LedgerKey(good[0], ["x"])]
    outcomes = [outcome async for outcome in LedgerOutcomes(session, given, LedgerQuery())]
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert {(outcome.key, str(outcome.error).split()[0]) for outcome in failed} == {
        ("0", "identifier"),
        (good[0], "event_ids"),
    }
    assert len(outcomes) == len(given)
