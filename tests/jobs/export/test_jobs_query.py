"""What an export asks, beside the ids: customers that may be unknown, and several programs and categories at once."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq
from support.api_double import HOST, Seen, ids_of, serving
from support.job_server import QUERY, Customers, at_once
from support.killing import Runner, contents

from capillary_async import AsyncSession, InvalidRequestError, Outcome, RetryPolicy, ServerError, jobs
from capillary_async._transport import outage as _outage
from capillary_async.cli import main
from capillary_async.jobs._common.several import AHEAD, Scope, SeveralOutcomes
from capillary_async.jobs._exporting import shard as _shards

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

IDS = list(range(1, 21))


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
    verified = await jobs.verify(tmp_path / "empty", session=session, sample=20)
    assert (verified.ok, verified.sampled) == (True, 20)


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


# -- several programs and categories


SCOPES = [(program, category) for program in (2282, 3000) for category in (17, 18)]
SEVERAL: dict[str, Any] = {"program_id": [2282, 3000], "point_category_id": [17, 18]}


def under(customer: int, program: int, category: int, *, own: bool = True) -> list[dict[str, Any]]:
    """What a customer has in a program and category: of some pairs nothing, of others two pages."""
    place = SCOPES.index((program, category))
    count = (0, 1, 2, 104)[(customer + place) % 4]
    said = {"program_id": program, "point_category_id": category} if own else {}
    amounts = {"points_exclusive": f"{place}.125", "points_value": 3}
    return [{"id": (customer * 4 + place) * 1000 + n, "customer_id": customer, **said, **amounts} for n in range(count)]


def nameless(customer: int, program: int, category: int) -> list[dict[str, Any]]:
    return under(customer, program, category, own=False)


def due(ids: list[int]) -> list[tuple[int, int, int, int, int]]:
    """Asked key, row, asked program and category, and id of every row, in order."""
    found: list[tuple[int, int, int, int, int]] = []
    for key in ids:
        each = [(*scope, row["id"]) for scope in SCOPES for row in under(key, *scope)]
        found += [(key, number, *one) for number, one in enumerate(each)]
    return found


def held(out: Path) -> list[tuple[Any, ...]]:
    names = ("asked_key", "row", "asked_program_id", "asked_point_category_id", "id")
    files = sorted((out / "shards").glob("*.parquet"))
    found = [row for file in files for row in pq.read_table(file).to_pylist()] or rows(out)
    return [tuple(row[name] for name in names) for row in found]


@pytest.mark.parametrize(("form", "rows_under"), [("parquet", nameless), ("jsonl", under)])
async def test_every_pair_is_asked_once_and_told_apart(
    rows_under: Any, form: Any, server: Customers, session: AsyncSession, tmp_path: Path
) -> None:
    """Also where the rows themselves say nothing; sums, digest, verify and reconcile know all of them."""
    server.rows_under = rows_under
    out = tmp_path / "out"
    result = await export(session, out, format=form, **SEVERAL)
    assert held(out) == due(IDS)
    assert server.asked_under == {(key, *scope): 1 for key in IDS for scope in SCOPES}
    assert (result.complete, result.asked, result.records) == (True, 20, len(due(IDS)))
    said = manifest(out)
    assert (said["query"]["program_id"], said["query"]["point_category_id"]) == ([2282, 3000], [17, 18])
    assert Decimal(said["totals"]["points_value"]) == 3 * len(due(IDS))
    again = await export(session, out, None, format=form, point_category_id=(18, "17", 18), program_id={3000, 2282})
    assert again.already_complete
    verified = await jobs.verify(out, session=session, sample=20, seed=1)
    assert (verified.faults, verified.sampled) == ((), 20)
    other = await export(session, tmp_path / "other", IDS[::-1], format=form, **SEVERAL)
    assert manifest(other.out)["keys_digest"] == said["keys_digest"]
    reconciled = await jobs.reconcile(out, other.out)
    assert reconciled.comparison is not None
    assert (reconciled.equal, reconciled.comparison.equal) == (True, True)


async def test_a_list_of_one_has_the_columns_and_is_another_query(
    server: Customers, session: AsyncSession, tmp_path: Path
) -> None:
    """So that the files of a list look alike, however long it is; what is one id looks as it always did."""
    server.rows_under = under
    await export(session, tmp_path / "list", program_id=3000, point_category_id=[18])
    assert held(tmp_path / "list") == [
        (key, row["id"] % 1000, 3000, 18, row["id"]) for key in IDS for row in under(key, 3000, 18)
    ]
    await export(session, tmp_path / "one", program_id=3000, point_category_id=18)
    own = [
        {name: each for name, each in row.items() if not name.startswith("asked_p")} for row in rows(tmp_path / "list")
    ]
    assert rows(tmp_path / "one") == own
    for out, asked in (("list", 18), ("list", [17, 18]), ("one", [18])):
        with pytest.raises(jobs.JobError, match="begun with another query"):
            await export(session, tmp_path / out, program_id=3000, point_category_id=asked)


@pytest.mark.parametrize("asked", [[], [17, 0], [17, "x"], [17, None], "17,18", [True]])
async def test_what_is_no_id_is_refused(asked: Any, server: Customers, session: AsyncSession, tmp_path: Path) -> None:
    """Before anything is sent, by the name of the argument."""
    with pytest.raises(InvalidRequestError, match="point_category_id"):
        await export(session, tmp_path / "out", point_category_id=asked)
    assert not server.requests


@pytest.mark.parametrize(
    ("rows_under", "error"),
    [
        (lambda customer, program, _: under(customer, program, 17), "DecodeError"),
        (lambda customer, program, _: nameless(customer, program, 17), "RecordConflictError"),
        (lambda customer, *_: [{"customer_id": customer, "points_value": 5}], "RecordConflictError"),
    ],
    ids=["says another category", "same id", "no id"],
)
async def test_a_server_that_ignores_the_category_is_found(
    rows_under: Any, error: str, server: Customers, session: AsyncSession, tmp_path: Path
) -> None:
    """No row counts twice: a customer with rows fails, with the reason; one without has none either way."""
    server.rows_under = rows_under
    out = tmp_path / "out"
    result = await export(session, out, [1, 2, 3], program_id=2282, point_category_id=[17, 18], rounds=0)
    assert (result.failed, result.records) == (3, 0)
    lines = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert {line["error"] for line in lines} == {error}
    assert all("point_category_id" in line["message"] for line in lines)


async def test_a_pair_that_fails_fails_its_customer(server: Customers, session: AsyncSession, tmp_path: Path) -> None:
    """Whose rows are given whole, once, in a later round; the message names the pair that failed."""
    server.rows_under = under
    server.failing.update({3: 1, 5: 2, 12: 100})
    out = tmp_path / "out"
    result = await export(session, out, rounds=1, **SEVERAL)
    lines = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert [(line["key"], line["error"]) for line in lines] == [(12, "ServerError")]
    assert lines[0]["message"].startswith("program_id 2282, point_category_id 17: GET /x/neo/pointsAllocation/")
    assert lines[0]["attempts"] == 8  # of four lists, in two rounds
    assert (result.failed, held(out)) == (1, due([key for key in IDS if key != 12]))
    server.failing.clear()
    assert (await export(session, out, None, **SEVERAL)).complete
    assert held(out) == due(IDS)
    assert (await jobs.verify(out)).ok


async def test_unknown_customers_count_once(server: Customers, session: AsyncSession, tmp_path: Path) -> None:
    """Not once per pair."""
    server.rows_under, server.missing = under, {3, 4}
    assert (await export(session, tmp_path / "out", not_found="empty", **SEVERAL)).not_found == 2


async def test_an_outage_loses_nothing(
    server: Customers, session_at: Callable[..., AsyncSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of which some pairs were read are read whole."""
    monkeypatch.setattr(_outage, "PROBES", (0.05, 0.1, 0.3))
    server.rows_under, server.down_from = under, 40

    def told(progress: jobs.ExportProgress) -> None:
        if progress.phase == "paused":
            server.down_from = None

    session = session_at(server.url, retry=RetryPolicy(attempts=2, backoff=0.001, throttle_backoff=0.001, quota=20))
    result = await export(session, tmp_path / "out", on_progress=told, **SEVERAL)
    assert (result.complete, held(tmp_path / "out"), server.down_from) == (True, due(IDS), None)


async def test_rows_that_wait_on_the_disk_know_their_pair(
    server: Customers, session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for an earlier customer is put aside and read again."""
    monkeypatch.setattr(_shards, "WAITING", 5)
    server.rows_under, server.slow = under, {1: 0.1}
    await export(session, tmp_path / "out", **SEVERAL)
    assert held(tmp_path / "out") == due(IDS)


@pytest.mark.long
def test_killed_anywhere_it_comes_to_the_same_bytes(server: Customers, tmp_path: Path) -> None:
    """As with one category."""
    server.rows_under = under
    runner = Runner(server.url)
    asked: dict[str, Any] = {"query": QUERY | SEVERAL, "ids": IDS, "shard_keys": 6}
    assert runner.run(tmp_path / "whole", **asked) == 0
    for nth, point in enumerate(("shard-half-written:2", "shard-committed:2")):
        out = tmp_path / str(nth)
        assert runner.run(out, die_at=point, **asked) == -signal.SIGKILL
        assert runner.run(out, **asked) == 0
        assert contents(out) == contents(tmp_path / "whole")
    assert runner.close() == ""


async def test_awarded_ids_of_several_categories(session_at: Callable[..., AsyncSession], tmp_path: Path) -> None:
    """Which do not say their category; in batches, of several statuses."""

    def answer(seen: Seen) -> list[dict[str, Any]]:
        category, status = int(seen.query["point_category_id"]), seen.query["status"]
        number = category * 10 + (status == "EXPIRED")
        return [{"id": key * 1000 + number, "source_table": "points_awarded", "customer_id": key, "event_log_id": 1,
                 "points_exclusive": 1.5} for key in ids_of(seen)]  # fmt: skip

    query = {"program_id": 1, "start_expiry_date": "2025-01-01", "end_expiry_date": "2027-01-01"}
    query |= {"status": ["AVAILABLE", "EXPIRED"], "point_category_id": [7, 6]}
    out = tmp_path / "out"
    with serving(answer) as seen:
        result = await jobs.export("awarded", [1, 2, 3], out, session=session_at(HOST), format="jsonl", **query)
    assert (result.complete, len(seen)) == (True, 4)
    assert [(row["asked_key"], row["asked_point_category_id"], row["id"]) for row in rows(out)] == [
        (key, category, key * 1000 + category * 10 + status)
        for key in (1, 2, 3)
        for category in (6, 7)
        for status in (0, 1)
    ]
    assert (await jobs.verify(out)).ok


async def test_reports_take_the_category_that_was_asked_for(
    server: Customers, session: AsyncSession, tmp_path: Path
) -> None:
    """Where the rows say none."""
    server.rows_under = nameless
    await export(session, tmp_path / "out", **SEVERAL)
    await jobs.liability_report(tmp_path / "out", tmp_path / "liability.csv")
    with (tmp_path / "liability.csv").open() as file:
        found = {
            (int(line["program_id"]), int(line["point_category_id"])): int(line["records"])
            for line in csv.DictReader(file)
        }
    assert found == Counter((program, category) for _, _, program, category, _ in due(IDS))


# -- the fan-outs of the pairs


class Listed:
    """The outcomes of one pair over its keys, each with its key as its row; `fail` ends it with an error."""

    def __init__(self, keys: AsyncIterator[int], gate: asyncio.Event | None = None, *, fail: bool = False) -> None:
        self._keys, self._gate, self._fail = keys, gate, fail
        self.closed = 0
        self.read: list[int] = []

    def __aiter__(self) -> Listed:
        return self

    async def __anext__(self) -> Outcome[int, int]:
        if self._gate is not None:
            await self._gate.wait()
        if self._fail and len(self.read) == 3:
            raise ServerError("down", status=503)
        self.read.append(await anext(self._keys))
        return Outcome(self.read[-1], (self.read[-1],))

    async def aclose(self) -> None:
        self.closed += 1


def several(keys: int, **of: dict[str, Any]) -> tuple[SeveralOutcomes, dict[str, Listed]]:
    lists: dict[str, Listed] = {}

    def read(scope: Scope, feed: AsyncIterator[int]) -> Listed:
        return lists.setdefault(scope.program_id, Listed(feed, **of[scope.program_id]))

    scopes = [Scope(name, 1) for name in of]
    ids = iter(range(10**9))
    return SeveralOutcomes(range(keys), scopes, read, lambda _: next(ids)), lists


async def test_no_pair_is_far_ahead_of_another() -> None:
    """So that memory does not grow with the input; the slow one has every key all the same."""
    gate = asyncio.Event()
    outcomes, lists = several(1000, one={}, two={"gate": gate})
    first = asyncio.ensure_future(anext(outcomes))
    for _ in range(2000):
        await asyncio.sleep(0)
    assert lists["one"].read == list(range(AHEAD))
    gate.set()
    found = [await first, *[outcome async for outcome in outcomes]]
    assert [outcome.key for outcome in found] == list(range(1000))
    assert {each.closed for each in lists.values()} == {1}


async def test_a_list_that_fails_is_never_the_end() -> None:
    """Its error is raised, whatever the others came to; and nothing is left running."""
    before = asyncio.all_tasks()
    outcomes, lists = several(5, one={}, two={"fail": True})
    found: list[int] = []

    async def read() -> None:
        async for outcome in outcomes:
            found.append(outcome.key)  # noqa: PERF401 - what came before the error

    with pytest.raises(ServerError, match="down"):
        await read()
    assert found == [0, 1, 2]
    assert all(each.closed for each in lists.values())
    assert asyncio.all_tasks() == before


# -- the command line


def test_on_the_command_line(
    server: Customers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options given more than once, and what a 404 is; a command that reads one says so."""
    server.rows_under, server.missing = under, {3}
    monkeypatch.setenv("CAPILLARY_USERNAME", "till")
    monkeypatch.setenv("CAPILLARY_PASSWORD", "p")
    (tmp_path / "ids").write_text("\n".join(map(str, IDS)))
    options = ["--ids", str(tmp_path / "ids"), "--base-url", server.url, "--expiry-date-start", "2025-06-01"]
    options += ["--expiry-date-end", "2027-06-01", "--program-id", "2282", "--point-category-id", "17"]
    more = ["--program-id", "3000", "--point-category-id", "18"]
    out = ["--out", str(tmp_path / "out")]
    assert main(["export", "allocations", *options, *more, *out, "--not-found", "empty"]) == 0
    assert "(1 not found)" in capsys.readouterr().err
    assert held(tmp_path / "out") == due([key for key in IDS if key != 3])
    assert main(["export", "allocations", *options, *more, *out]) == 1
    assert main(["allocations", *options, *more]) == 1
    assert "--program-id is given 2 times" in capsys.readouterr().err
    options += ["--quiet", "--out", str(tmp_path / "rows")]
    assert main(["allocations", *options]) == 2
    assert main(["allocations", *options, "--not-found", "empty"]) == 0
    assert "answered with 404" in capsys.readouterr().err
    assert len((tmp_path / "rows").read_text().splitlines()) == sum(
        len(under(key, 2282, 17)) for key in IDS if key != 3
    )
