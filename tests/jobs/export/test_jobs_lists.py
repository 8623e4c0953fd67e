"""Lists that a server cuts short or gives in circles, in the jobs: no row is lost, no customer blocks the others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from support.job_server import QUERY, Customers, at_once

from capillary_async import AsyncSession, Limits, jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def held(server: Customers, lengths: dict[int, int]) -> int:
    """Give customers lists of these lengths; the number of records in all."""
    for customer, length in lengths.items():
        server.rows[customer] = [{"id": customer * 1_000 + row, "customer_id": customer} for row in range(length)]
    return sum(lengths.values())


async def export(session: AsyncSession, out: Path, ids: Any, **options: Any) -> jobs.ExportResult:
    return await jobs.export("allocations", ids, out, session=session, sleep=at_once, **QUERY, **options)


@pytest.mark.parametrize("cap", [1, 5, 7, 15, 30, 37, 40, 60, 75, 80, 90, 99])
async def test_an_export_from_a_capping_server_loses_no_row(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path, cap: int
) -> None:
    """Many customers at once, some of whom end exactly at the cap; a sample of them is the same when read again."""
    server.cap = cap
    records = held(server, {customer: (cap, 2 * cap + 3, 1, cap + 1, 130)[customer % 5] for customer in range(1, 26)})
    session = session_at(server.url)
    result = await export(session, tmp_path / "out", range(1, 26))
    assert (result.records, result.failed) == (records, 0)
    assert (await jobs.verify(tmp_path / "out", session=session_at(server.url), sample=25)).faults == ()


async def test_one_row_customers_cost_three_requests_more(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path
) -> None:
    """In all, however many are read at once."""
    held(server, dict.fromkeys(range(1, 301), 1))
    session = session_at(server.url, limits=Limits(concurrency=32, concurrency_start=32))
    assert (await export(session, tmp_path / "out", range(1, 301))).records == 300
    assert server.requests == 303


async def test_a_customer_in_circles_is_one_failure(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path
) -> None:
    """The others are exported."""
    records = held(server, {customer: 120 if customer == 7 else 100 for customer in range(1, 21)})
    server.circles = {7}
    result = await export(session_at(server.url), tmp_path / "out", range(1, 21), rounds=1)
    assert (result.failed, result.records) == (1, records - 120)
    assert "PageLoopError" in (tmp_path / "out" / "failures.jsonl").read_text()


@pytest.mark.parametrize(
    ("lengths", "named"),
    [
        ({1: 37, 2: 5, 3: 37, 4: 36}, "2 customers have exactly 37 records, .*: 1, 3$"),
        (dict.fromkeys(range(1, 13), 1), "12 customers have exactly 1 record, .*: 1, 2, 3 and 9 more$"),
        ({1: 37, 2: 5}, ""),  # one is the longest anyway
        ({1: 100, 2: 100}, ""),
        ({1: 130, 2: 37, 3: 37}, ""),
        ({1: 0, 2: 0}, ""),
    ],
)
async def test_verify_notes_lists_that_end_at_the_longest_length(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path, lengths: dict[int, int], named: str
) -> None:
    """Over all shards; it is a note, and no fault."""
    held(server, lengths)
    await export(session_at(server.url), tmp_path / "out", sorted(lengths), shard_keys=2)
    result = await jobs.verify(tmp_path / "out")
    assert result.ok
    assert len(result.notes) == bool(named)
    assert not named or re.search(named, result.notes[0])


async def test_reconcile_names_lists_that_end_at_the_longest_length(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path
) -> None:
    """A note, below the size asked alone."""
    held(server, {1: 37, 2: 37, 3: 5, 4: 37, 5: 36})
    await export(session_at(server.url), tmp_path / "out", range(1, 6))
    result = await jobs.reconcile(tmp_path / "out")
    [finding] = [each for each in result.broken if each.rule.name == "list-below-longest"]
    assert [example.asked_key for example in finding.examples] == ["1", "2", "4"]
    assert "37 records" in str(finding.examples[0].detail)
    assert not finding.is_error
    held(server, {6: 130})
    await export(session_at(server.url), tmp_path / "more", range(1, 7))
    assert "list-below-longest" not in {each.rule.name for each in (await jobs.reconcile(tmp_path / "more")).broken}
