"""`plan_export` and `--plan`: what an export takes at least, with nothing sent and the folder as it was."""

from __future__ import annotations

import math
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.environment import name_cluster
from support.job_server import QUERY, UNKNOWN, Customers, at_once

from capillary_async import AsyncSession, InvalidRequestError, Limits, OAuthClient, Rate, jobs
from capillary_async.cli import main
from capillary_async.jobs._dataset.state import State
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POINTS = ("--program-id", "2282", "--point-category-id", "17383", "--expiry-date-start", "2025-06-01",
          "--expiry-date-end", "2027-06-01")  # fmt: skip


async def plan(session: AsyncSession, out: Any, ids: Any, **options: Any) -> jobs.ExportPlan:
    return await jobs.plan_export("allocations", ids, out, session=session, **{"shard_keys": 10, **QUERY, **options})


async def export(session: AsyncSession, out: Any, ids: Any, **options: Any) -> jobs.ExportResult:
    given = {"shard_keys": 10, "sleep": at_once, "rounds": 0, **QUERY, **options}
    return await jobs.export("allocations", ids, out, session=session, **given)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}


async def test_a_new_folder(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """Repeated ids count once, what is no id fails unsent, and the folder is not made."""
    found = await plan(session, tmp_path / "out", [*range(1, 26), 7, "x1", "no id"])
    assert (found.asked, found.done, found.left, found.refused, found.requests) == (27, 0, 27, 2, 25)
    assert found.refused_ids == ("x1", "no id")
    assert found.seconds == 0
    assert found.lines()[-1] == "nothing was sent"
    assert server.requests == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("permits", [1, 7, 24, 25, 26])
async def test_the_rate(session_at: Callable[..., AsyncSession], tmp_path: Path, permits: int) -> None:
    """The permits of the last request are free only after so many windows."""
    session = session_at("http://127.0.0.1:9", limits=Limits(rate=Rate(permits, per=60), concurrency=4))
    found = await plan(session, tmp_path / "out", range(1, 26))
    assert found.seconds == 60 * (math.ceil(25 / permits) - 1)
    assert found.concurrency == 4


async def test_a_folder_that_is_continued(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """What is done is subtracted; failed customers and shards that are gone count; no byte is changed."""
    ids = [*range(1, 28), UNKNOWN + 1]
    server.failing.update({3: 1, 14: 1})
    out = tmp_path / "out"
    assert (await export(session, out, ids)).failed == 3
    before, asked = files(out), server.requests
    found = await plan(session, out, None)
    assert (found.asked, found.done, found.left, found.requests) == (28, 25, 3, 3)
    assert await plan(session, out, ids) == found
    assert (await plan(session, out, None, rounds=0)).requests == 0
    assert files(out) == before
    shutil.move(out / "shards" / "part-00000001.parquet", tmp_path)
    found = await plan(session, out, ids)
    assert (found.done, found.left, found.requests) == (16, 12, 12)
    assert server.requests == asked
    result = await export(session, out, None, rounds=1)
    assert result.failed == 1
    assert server.requests - asked >= found.requests
    left = await plan(session, out, None)
    assert (left.left, left.requests) == (1, 1)


async def test_what_an_export_refuses(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """With the same words: other ids, another query, no ids, an argument."""
    out = tmp_path / "out"
    await export(session, out, range(1, 20))
    asked = server.requests
    for wrong in ({"ids": range(1, 21)}, {"ids": None, "program_id": 1}, {"ids": None, "shard_keys": 3}):
        options = dict(wrong)
        ids = options.pop("ids")
        with pytest.raises(jobs.JobError) as planned:
            await plan(session, out, ids, **options)
        with pytest.raises(jobs.JobError) as run:
            await export(session, out, ids, **options)
        assert str(planned.value) == str(run.value)
    with pytest.raises(jobs.JobError, match="no ids: the input is empty"):
        await plan(session, tmp_path / "new", [])
    assert (await plan(session, tmp_path / "new", [], allow_empty=True)).requests == 0
    with pytest.raises(InvalidRequestError, match="no ids: "):
        await plan(session, tmp_path / "new", None)
    with pytest.raises(InvalidRequestError, match="shard_keys"):
        await plan(session, tmp_path / "new", [1], shard_keys=0)
    assert not (tmp_path / "new").exists()
    assert (await plan(session, out, None)).requests == 0
    assert server.requests == asked


async def test_the_other_sources(tmp_path: Path) -> None:
    """Batches, pairs of programs and categories, ten events a call, and the token."""
    async with AsyncSession("http://127.0.0.1:9", auth=OAuthClient("key", "secret")) as session:
        dates = {"start_expiry_date": "2025-06-01", "end_expiry_date": "2027-06-01", "status": "AVAILABLE"}
        query = {"program_id": 2282, "point_category_id": [1, 2], **dates}
        awarded = await jobs.plan_export("awarded", range(1, 102), tmp_path / "a", session=session, **query)
        assert awarded.requests == 3 * 2 + 1
        pairs = [(7, event) for event in range(1, 22)] + [(8, 1)]
        ledger = await jobs.plan_export("ledger", pairs, tmp_path / "l", session=session)
        assert (ledger.asked, ledger.requests) == (2, 3 + 1 + 1)
        events = await jobs.plan_export("events", [1, 2], tmp_path / "e", session=session)
        assert events.requests == 3
        several = await plan(session, tmp_path / "s", [1, 2], program_id=[1, 2], point_category_id=[3, 4, 5])
        assert several.requests == 2 * 6 + 1
        assert session.stats.requests == 0


async def test_it_is_at_least(tmp_path: Path) -> None:
    """No export of the sandbox takes fewer requests."""
    async with Sandbox(customers=20) as sandbox, AsyncSession(sandbox.url, auth=sandbox.auth) as session:
        found = await plan(session, tmp_path / "out", sandbox.customer_ids)
        assert sandbox.requests == 0
        result = await export(session, tmp_path / "out", sandbox.customer_ids)
        assert 20 == found.requests <= result.requests


@pytest.mark.parametrize("source", ["allocations", "awarded", "events", "ledger"])
async def test_it_is_what_is_sent(tmp_path: Path, source: Any) -> None:
    """Of lists of one page without faults, for random ids and queries: new, continued and finished."""
    async with (
        Sandbox(customers=60) as sandbox,
        AsyncSession(sandbox.url, auth=sandbox.auth) as session,
    ):
        plain = await with_one_page(session, sandbox)
        for seed in range(3):
            drawn = random.Random(f"{source} {seed}")
            ids, query = drawn_ids(drawn, sandbox, plain, source), drawn_query(drawn, source)
            given = {"session": session, "shard_keys": drawn.choice([3, 10, 100]), **query}
            out, archive = tmp_path / f"out-{seed}", drawn.choice([None, tmp_path / f"archive-{seed}"])
            for remove in ("nothing", "a shard", "a pack", "nothing"):
                for path in [*(out / "shards").glob("part-*")] if remove == "a shard" else []:
                    if drawn.random() < 0.5:
                        path.unlink()
                for path in [*archive.glob("part-*")] if archive and remove == "a pack" else []:
                    if drawn.random() < 0.5:
                        path.unlink()
                found = await jobs.plan_export(source, ids, out, archive=archive, **given)
                before = sandbox.requests
                result = await jobs.export(source, ids, out, archive=archive, sleep=at_once, **given)
                sent = sandbox.requests - before
                assert (found.asked, found.refused) == (result.asked, result.failed)
                assert found.requests <= sent
                # A batch is sent as it is where it meets a refused id, or waits for the keys of the next shard.
                if query.get("batch_size", 1) == 1 or (given["shard_keys"] == 100 and not found.refused):
                    assert found.requests == sent, (seed, remove, query, ids)


async def with_one_page(session: AsyncSession, sandbox: Sandbox) -> list[int]:
    """The customers whose lists are one request, and whose batches are not halved."""
    found = set(sandbox.customer_ids)
    scope = {"program_id": 2282, "point_category_id": 17383}
    first, last = "2020-01-01", "2035-12-31"
    points = session.points_allocation
    await points.by_expiry_many(found, **scope, expiry_date_start=first, expiry_date_end=last).collect()
    await session.loyalty_events.list_many(found).collect()
    more = " ".join(f"{one.path} {one.query_string}" for one in sandbox.journal if one.page == 2)
    alone = session.points_awarded.ids(
        found.copy(), **scope, start_expiry_date=first, end_expiry_date=last, status=["AVAILABLE", "EXPIRED"],
        batch_size=1,
    )  # fmt: skip
    async for one in alone:
        if str(one.key) in more or {record.customer_id for record in one.items} - {one.key}:
            found.remove(one.key)
    return sorted(found)


def drawn_ids(drawn: random.Random, sandbox: Sandbox, plain: list[int], source: str) -> list[Any]:
    """Ids of the sandbox, some twice, and some that no call takes."""
    known: list[Any] = drawn.choices(plain, k=drawn.randrange(1, 60))
    if source == "ledger":
        pairs: list[Any] = [(key, drawn.sample(events, min(len(events), 13))) for key in known
                            if (events := sandbox.event_log_ids(key))]  # fmt: skip
        wrong = [("x", 1), (0, 1), (known[0], [7, "07", 2**63]), (-1, 5)]
        both = pairs + drawn.sample(wrong, drawn.randrange(1, 4))
    else:
        again = [str(key) for key in known[:3]]
        both = known + again + drawn.sample(["x", 0, -1, 2**63, " ", "1.0"], drawn.randrange(6))
    drawn.shuffle(both)
    return both


def drawn_query(drawn: random.Random, source: str) -> dict[str, Any]:
    """Several programs, categories and statuses, some named twice."""
    scopes = {"program_id": drawn.choice([2282, [2282, 5, 5]]), "point_category_id": drawn.choice([17383, [1, 17383]])}
    if source == "allocations":
        return {**scopes, "expiry_date_start": "2020-01-01", "expiry_date_end": "2035-12-31"}
    if source != "awarded":
        return {}
    dates = {"start_expiry_date": "2020-01-01", "end_expiry_date": "2035-12-31"}
    status = drawn.choice(["AVAILABLE", ["AVAILABLE"], ["EXPIRED", "AVAILABLE", "EXPIRED"]])
    return {**scopes, **dates, "status": status, "batch_size": drawn.choice([1, 4, 50])}


async def test_a_run_that_did_not_finish(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """A customer that was retried in all rounds of it is retried by the run after the next alone."""
    server.failing.update({3: 1000})
    out = tmp_path / "out"
    assert (await export(session, out, range(1, 21), rounds=1)).failed == 1
    state = State(out / "state.sqlite")
    state.put(finished=None)
    state.close()
    for rounds, least in ((1, 0), (1, 1)):
        found, before = await plan(session, out, None, rounds=rounds), server.requests
        await export(session, out, None, rounds=rounds)
        assert found.requests == least <= server.requests - before
        assert least or server.requests == before


async def test_an_archive(session: AsyncSession, server: Customers, tmp_path: Path) -> None:
    """A pack that is gone is read again; what a run refuses about it is refused."""
    out, archive = tmp_path / "out", tmp_path / "archive"
    await export(session, out, range(1, 21), archive=archive)
    assert (await plan(session, out, None, archive=archive)).requests == 0
    (archive / "part-00000001-000.zip").unlink()
    before, asked = files(tmp_path), server.requests
    assert (await plan(session, out, None, archive=archive)).requests == 10
    for wrong in ({"out": out}, {"out": out, "archive": tmp_path / "a"}, {"out": tmp_path / "new", "archive": archive}):
        options: dict[str, Any] = {"ids": range(1, 21), **wrong}
        with pytest.raises(jobs.JobError):
            await plan(session, **options)
    assert files(tmp_path) == before
    assert server.requests == asked


def test_the_command(
    server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines on stdout; an id that the export refuses is named with its line."""
    name_cluster(monkeypatch, server.url)
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n2\n2\n")
    command = ["export", "allocations", *POINTS, "--out", str(tmp_path / "out"), "--ids", str(ids), "--plan"]
    assert main([*command, "--rate", "1/60"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "2 keys, 2 to read",
        "at least 2 requests: more pages, confirmed ends and retries come on top",
        "at least 60 s by the rate of 1 requests in 60 s",
    ]
    ids.write_text("1\nx\n")
    assert main(command) == 1
    assert "line 2" in capsys.readouterr().err
    assert server.requests == 0
    assert not (tmp_path / "out").exists()
