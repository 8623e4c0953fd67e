"""What an export asks, beside the ids: customers that may be unknown, and several programs and categories at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from job_server import QUERY, Customers

from capillary_async import AsyncSession, RetryPolicy, jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IDS = list(range(1, 25))


@pytest.fixture
def server() -> Iterator[Customers]:
    with Customers() as customers:
        yield customers


@pytest.fixture
def session(server: Customers, session_at: Callable[..., AsyncSession]) -> AsyncSession:
    return session_at(server.url, retry=RetryPolicy(attempts=1))


async def at_once(seconds: float) -> None:
    """Pauses are not waited for."""


async def export(session: AsyncSession, out: Path, ids: Any = IDS, **options: Any) -> jobs.ExportResult:
    given: dict[str, Any] = {"shard_keys": 10, "sleep": at_once, "format": "jsonl", **QUERY, **options}
    return await jobs.export("allocations", ids, out, session=session, **given)


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def rows(out: Path) -> list[dict[str, Any]]:
    files = sorted((out / "shards").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


# -- customers that may be unknown


async def test_a_404_is_a_failure_unless_it_may_be_empty(
    server: Customers, session: AsyncSession, tmp_path: Path
) -> None:
    """Then the customer is empty, the manifest says so and how many there were, and the rest is the same."""
    server.missing = {3, 17}
    result = await export(session, tmp_path / "error")
    assert (result.failed, result.not_found) == (2, None)
    assert "not_found" not in json.dumps(manifest(tmp_path / "error"))
    result = await export(session, tmp_path / "empty", not_found="empty")
    assert (result.complete, result.failed, result.empty, result.not_found) == (True, 0, 4, 2)
    said = manifest(tmp_path / "empty")
    assert said["query"]["not_found"] == "empty"
    assert (said["ids"]["empty"], said["ids"]["not_found"], said["warnings"]) == (4, 2, 2)
    assert rows(tmp_path / "empty") == rows(tmp_path / "error")
    verified = await jobs.verify(tmp_path / "empty", session=session, sample=24)
    assert (verified.ok, verified.sampled) == (True, 24)


async def test_unknown_customers_are_counted_once(server: Customers, session: AsyncSession, tmp_path: Path) -> None:
    """Also those that are answered in a later round or run, and those of a shard that is read again."""
    out = tmp_path / "out"
    server.missing = {3, 4, 17}
    server.failing.update({3: 1, 4: 10, 17: 2})
    result = await export(session, out, not_found="empty", rounds=2)
    assert (result.failed, result.not_found) == (1, 2)
    server.failing.clear()
    assert (await export(session, out, None, not_found="empty")).not_found == 3
    (out / "shards" / "part-00000000.jsonl").unlink()
    again = await export(session, out, None, not_found="empty")
    assert (again.repaired, again.not_found) == (("shards/part-00000000.jsonl",), 3)
    assert manifest(out)["ids"]["not_found"] == 3
    assert (await jobs.verify(out)).ok
    said = manifest(out)
    said["ids"]["not_found"] = 2
    (out / "manifest.json").write_text(json.dumps(said))
    assert (await jobs.verify(out)).faults == ("state.sqlite: ids.not_found is 3, the manifest says 2",)


async def test_another_meaning_of_404_is_another_export(session: AsyncSession, tmp_path: Path) -> None:
    """Like every other setting; the default is the same said or unsaid."""
    await export(session, tmp_path / "one", not_found="error")
    assert (await export(session, tmp_path / "one")).already_complete
    with pytest.raises(jobs.JobError, match=r"begun with another query.*not_found"):
        await export(session, tmp_path / "one", not_found="empty")
    await export(session, tmp_path / "two", not_found="empty")
    with pytest.raises(jobs.JobError, match=r"begun with another query.*not_found"):
        await export(session, tmp_path / "two")
