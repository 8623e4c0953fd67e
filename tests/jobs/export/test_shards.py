"""`export(shard=)`: disjoint parts of one list of ids in folders of their own, proved to be whole together."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.job_server import QUERY, Customers, rows_of

from capillary_async import AsyncSession, InvalidRequestError, RetryPolicy, jobs
from capillary_async.cli import main
from capillary_async.jobs import JobError
from capillary_async.jobs._dataset.id_shard import IdShard, folder_name, shards_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IDS = [*range(1, 60), 7, 7, "8", "no id", 9_001]  # two ids come again, one of them as a text


@pytest.fixture(scope="module")
def server() -> Iterator[Customers]:
    with Customers() as customers:
        yield customers


@pytest.fixture
def session(server: Customers, session_at: Callable[..., AsyncSession]) -> AsyncSession:
    return session_at(server.url, retry=RetryPolicy(attempts=1))


async def export(session: AsyncSession, out: Path, number: int, of: int, ids: Any = IDS, **more: Any) -> Any:
    """Export a shard into its folder below `out`."""
    folder = out / folder_name(number, of)
    given = {"shard_keys": 10, "rounds": 0, **QUERY, **more}
    return await jobs.export("allocations", ids, folder, session=session, shard=(number, of), **given)


@pytest.fixture
async def shards(session: AsyncSession, tmp_path: Path) -> Path:
    """A folder with the three shards of a list."""
    for number in (1, 2, 3):
        await export(session, tmp_path / "all", number, 3)
    return tmp_path / "all"


def change_manifest(folder: Path, **members: Any) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**said, **members}))


def test_the_shard_of_an_id_never_changes() -> None:
    """It is the first eight bytes of the SHA-256 of its text, modulo the number of shards, from 1."""
    found = [next(n for n in range(1, 17) if IdShard(number=n, of=16).has(key)) for key in (1, 2, 383474113, "x", "é")]
    assert found == [2, 15, 3, 5, 4]
    assert IdShard(number=2, of=16).has("1")
    spread = [sum(IdShard(number=n, of=16).has(key) for key in range(8_000)) for n in range(1, 17)]
    assert sum(spread) == 8_000
    assert min(spread) > 400


@pytest.mark.parametrize(
    "value",
    [(17, 16), (0, 16), (3, 0), (-1, 4), (1, 2, 3), (1.0, 2), (True, True), "3/16", 3, (1,), (1, 1 << 30), {}, ()],
)
async def test_what_is_no_shard_is_refused(value: Any, session: AsyncSession, tmp_path: Path) -> None:
    """By name, and nothing is made."""
    with pytest.raises(InvalidRequestError, match=r"shard takes two whole numbers") as caught:
        await jobs.export("allocations", IDS, tmp_path / "out", session=session, shard=value, **QUERY)
    assert caught.value.argument == "shard"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["17/16", "0/16", "3/0", "a/b", "3", "1/2/3", "", "1/9999999", "\u0661/\u0662"])
def test_the_option_is_refused(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With an example."""
    assert main(["export", "allocations", "--sandbox", f"--shard={text}", "--out", str(tmp_path / "out")]) == 1
    assert "--shard takes a number of how many, from 1/N to N/N, e.g. 3/16" in capfd.readouterr().err


async def test_shards_have_every_id_once(shards: Path, session: AsyncSession) -> None:
    """Verified together they are whole; one alone has a note that it is a shard."""
    result = await jobs.verify(shards)
    held = [row for customer in range(1, 60) for row in rows_of(customer)]
    assert result.ok, result.faults
    assert (result.asked, result.failed, result.records) == (61, 2, len(held))
    assert result.totals["points_value"] == sum(Decimal(str(row["points_value"])) for row in held)
    assert [folder.name for folder in result.folders] == ["shard-1-of-3", "shard-2-of-3", "shard-3-of-3"]
    assert result.out == shards
    said = [json.loads((folder / "manifest.json").read_text())["shard"] for folder in result.folders]
    assert [(one["number"], one["of"], one["ids"]) for one in said] == [(1, 3, 64), (2, 3, 64), (3, 3, 64)]
    assert sum(one["repeated"] for one in said) == 3
    alone = await jobs.verify(result.folders[0])
    assert alone.ok
    assert "it is shard 1 of 3" in alone.notes[-1]
    sampled = await jobs.verify(result.folders, session=session, sample=9, seed=1)
    assert sampled.ok
    assert sampled.sampled == 9
    whole = shards.parent / "whole"
    await jobs.export("allocations", IDS, whole, session=session, rounds=0, **QUERY)
    assert (await jobs.verify(whole)).keys_digest == result.keys_digest


async def test_the_order_of_the_list_does_not_matter(session: AsyncSession, tmp_path: Path) -> None:
    """Each pod may read it from a database; one id in place of another does."""
    await export(session, tmp_path, 1, 2)
    await export(session, tmp_path, 2, 2, ids=IDS[::-1])
    assert (await jobs.verify(tmp_path)).ok
    other = tmp_path / "other"
    await export(session, other, 1, 2)
    await export(session, other, 2, 2, ids=[*IDS[:-1], 9_002])
    (fault,) = (await jobs.verify(other)).faults
    assert "are of different lists of ids" in fault


async def test_what_is_missing_is_named(shards: Path, session: AsyncSession) -> None:
    """By `verify`, `reconcile` and the reports, in folders named one by one or by the one that they are in."""
    one, two, three = shards_below(shards)
    (fault,) = (await jobs.verify([one, three])).faults
    assert fault.startswith("shard 2 of 3 is missing")
    (fault,) = (await jobs.verify([one, two, three, one])).faults
    assert "shard 1 of 3 is there twice" in fault
    with pytest.raises(JobError, match=r"shards 1, 3 of 3 are missing"):
        await jobs.reconcile(two)
    with pytest.raises(JobError, match=r"shard 2 of 3 is missing"):
        await jobs.liability_report([one, three], shards / "owed.csv")
    whole = shards.parent / "whole"
    await jobs.export("allocations", IDS, whole, session=session, rounds=0, **QUERY)
    (fault, *_) = (await jobs.verify([one, whole])).faults
    assert "is no shard, and" in fault
    await export(session, shards.parent, 2, 4)
    (fault,) = (await jobs.verify([one, shards.parent / "shard-2-of-4"])).faults
    assert "different numbers of shards" in fault
    assert (await jobs.reconcile(shards)).records == sum(len(rows_of(customer)) for customer in range(1, 60))


async def test_what_was_changed_is_found(shards: Path) -> None:
    """An id of another shard, and a list that has more ids than the shards."""
    one, two, _ = shards_below(shards)
    said = json.loads((one / "manifest.json").read_text())["shard"]
    change_manifest(one, shard={**said, "repeated": said["repeated"] + 1})
    faults = (await jobs.verify(shards)).faults
    assert any("the shards together have 65 ids, and their list has 64" in fault for fault in faults)
    with sqlite3.connect(two / "state.sqlite") as database:
        database.execute("UPDATE keys SET key = 123456 WHERE place = 1")
    database.close()
    faults = (await jobs.verify(two)).faults
    shard = next(n for n in (1, 2, 3) if IdShard(number=n, of=3).has(123456))
    assert any("do not belong to shard 2 of 3" in fault for fault in faults) is (shard != 2)
    for wrong in ({"number": 0, "of": 3}, {"number": "1", "of": 3}, [1, 3], 5):
        change_manifest(one, shard=wrong)
        with pytest.raises(JobError, match=r"shard"):
            await jobs.verify(shards)


async def test_a_shard_goes_on(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """With the same list and shard; another of either is refused, also where the ids of the shard are the same."""
    await export(session, tmp_path, 2, 3)
    assert (await export(session, tmp_path, 2, 3)).asked == (await export(session, tmp_path, 2, 3, ids=None)).asked
    folder = tmp_path / "shard-2-of-3"
    with pytest.raises(JobError, match=r"begun with another shard"):
        await jobs.export("allocations", IDS, folder, session=session, shard=(1, 3), shard_keys=10, **QUERY)
    with pytest.raises(JobError, match=r"begun with another shard"):
        await jobs.export("allocations", IDS, folder, session=session, shard_keys=10, **QUERY)
    elsewhere = next(key for key in range(10_000, 11_000) if not IdShard(number=2, of=3).has(key))
    with pytest.raises(JobError, match=r"those of shard 2 of 3 are the same, and the list has others"):
        await export(session, tmp_path, 2, 3, ids=[*IDS, elsewhere])


async def test_a_shard_without_ids_is_complete(session: AsyncSession, tmp_path: Path) -> None:
    """Where the list has some; an empty list is refused as ever."""
    for number in range(1, 9):
        result = await export(session, tmp_path, number, 8, ids=[5])
        assert result.complete
    result = await jobs.verify(tmp_path)
    assert (result.ok, result.asked) == (True, 1)
    with pytest.raises(JobError, match=r"the input is empty"):
        await export(session, tmp_path / "empty", 1, 2, ids=[])


async def test_the_pairs_of_a_ledger_stay_together(session: AsyncSession, tmp_path: Path) -> None:
    """All events of a customer are in one shard."""
    pairs = [(customer, event) for event in range(1, 4) for customer in range(1, 20)]
    plans = [
        await jobs.plan_export("ledger", pairs, tmp_path / str(n), session=session, shard=(n, 3)) for n in (1, 2, 3)
    ]
    assert sum(plan.asked for plan in plans) == 19
    assert sum(plan.requests for plan in plans) == 19


async def test_a_folder_without_a_shard_says_nothing_of_it(session: AsyncSession, tmp_path: Path) -> None:
    """Its manifest is as before."""
    await jobs.export("allocations", [1], tmp_path / "out", session=session, **QUERY)
    assert "shard" not in json.loads((tmp_path / "out" / "manifest.json").read_text())
