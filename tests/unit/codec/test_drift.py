"""Drift: what the documentation does not know is counted per export, each record once, and is never a fault."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from capillary_async._codec import decode as _decode
from capillary_async.models import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("pyarrow")

from support.api_double import HOST, Seen, ids_of, serving
from support.job_server import QUERY, Customers, rows_of
from support.killing import Runner

from capillary_async import AsyncSession, BasicAuth, Paging, RetryPolicy, jobs
from capillary_async.cli import main
from capillary_async.jobs._common.kill_points import POINTS
from capillary_async.jobs._dataset.drift import MOST, REST, DriftCount, is_drift, lines_of

HOSTILE = ['<script>"x"</script>', "a\\b\n\x1b[31m", "n" * 10_000, "", "é", "}", '":', "id "]


def members(model: type[Any], body: bytes) -> list[dict[str, str]]:
    """The unknown members of each record that has some."""
    drift = _decode.rows(model, body)._drift
    return [dict(found) for _, found in drift or ()]


# --- members, as they are decoded


@pytest.mark.parametrize("value", [1, 1.5, "text", None, True, [1, 2], {"inner": 1}, "e", "2e5"])
@pytest.mark.parametrize("model", [PointsAllocation, PointsAwarded])
def test_an_unknown_member_is_found_among_plain_rows(model: type[Any], value: Any) -> None:
    """Whatever its value, wherever it is, also where it is in the place of a documented one."""
    rows: list[dict[str, Any]] = [{"id": row, "customer_id": 5, "points_exclusive": 2.5} for row in range(20)]
    assert _decode.rows(model, json.dumps(rows).encode())._drift is None
    rows[7]["new_member"] = value
    del rows[7]["points_exclusive"]
    name = f"{model.__name__[0].lower()}{model.__name__[1:]}.new_member"
    for indent in (None, 1):
        decoded = _decode.rows(model, json.dumps(rows, indent=indent).encode())
        ((record, found),) = decoded._drift
        assert record is decoded.items[7]
        assert list(found) == [name]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_found_and_bounded(name: str) -> None:
    """Escapes, quotes, braces, controls, 10 kB."""
    rows = [{"id": 1, "customer_id": 5}, {"id": 2, "customer_id": 5, name: "v" * 10_000}]
    (found,) = members(PointsAllocation, json.dumps(rows).encode())
    ((path, example),) = found.items()
    assert path.startswith(f"pointsAllocation.{name[:50]}")
    assert len(path) <= 100
    assert len(example) <= 60


def test_a_name_with_digits_beside_its_like_is_found() -> None:
    """`points_value2` has the letters of `points_value`."""
    (found,) = members(PointsAllocation, b'[{"id": 1, "points_value": 2, "points_value2": 3.25}]')
    assert found == {"pointsAllocation.points_value2": "3.25"}


def test_values_beyond_any_decimal_are_examples_all_the_same() -> None:
    """What no field takes is no error; it is shown as it came."""
    (found,) = members(PointsAllocation, b'[{"id": 1, "new": 1e9999999999999999999999}]')
    assert "1e99999999" in found["pointsAllocation.new"]


def test_texts_of_every_kind_are_no_drift() -> None:
    """More kinds of rows than are looked at: the names are counted by reading them."""
    rows = [{"id": row, "status": "AB"[row % 2] * (row + 1)} for row in range(200)]
    assert members(PointsAllocation, json.dumps(rows).encode()) == []


def test_a_record_of_many_members_is_bounded() -> None:
    """50 by name, the rest together."""
    row = {"id": 1, **{f"new_{chr(97 + n // 26)}{chr(97 + n % 26)}": n for n in range(300)}}
    (found,) = members(PointsAllocation, json.dumps([row]).encode())
    assert len(found) == 51
    assert "(others)" in found


def test_loyalty_events_and_the_careful_way() -> None:
    """Rows that are parsed first: with a null entry, the record is still the right one."""
    decoded = _decode.structure_rows(LoyaltyEvent, [None, {"id": 1}, {"id": 2, "newMember": Decimal("1.50")}])
    ((record, found),) = decoded._drift
    assert record.id == 2
    assert found == {"loyaltyEvent.newMember": "1.50"}
    assert _decode.structure_rows(LoyaltyEvent, [{"id": 1, "eventName": "X"}])._drift is None
    (other,) = members(PointsAllocation, b'[null, {"id": 3, "new": "x"}]')
    assert other == {"pointsAllocation.new": "'x'"}


def test_members_of_the_ledger_at_every_level() -> None:
    """Each has its path; pages without any are not walked."""
    line = {"itemCode": "x", "deep": True}
    rows = [
        {"eventLogId": 1, "eventName": "NewBill"},
        {"eventLogId": 2, "top": 1, "billDetails": {"new": "y", "lineItems": [line, line]}},
    ]
    decoded = _decode.structure_rows(LedgerEvent, rows)
    ((record, found),) = decoded._drift
    assert record is decoded.items[1]
    assert found.keys() == {"events[].top", "events[].billDetails.new", "events[].billDetails.lineItems[].deep"}
    assert _decode.structure_rows(LedgerEvent, rows[:1])._drift is None


# --- counts


def test_counts_are_bounded_and_keep_the_sum() -> None:
    """At most 50 names of a kind; the rest is one entry, also where counts are joined."""
    one, two = DriftCount(), DriftCount()
    for number in range(200):
        one.add("status", f"S{number}", 2, "x")
        two.add("status", f"T{number}", 1, "x")
    one.join(two.as_json())
    counted = one.as_json()["status"]
    assert len(counted) == MOST + 1
    assert counted[REST]["count"] + sum(known["count"] for name, known in counted.items() if name != REST) == 600


@pytest.mark.parametrize(
    "value",
    [[], 1, {"other": {}}, {"status": []}, {"status": {"X": 1}}, {"status": {"X": {"count": -1, "example": ""}}},
     {"status": {"X": {"count": True, "example": ""}}}, {"status": {"X": {"count": 1, "example": 5}}},
     {"status": {"X": {"count": 1}}}, {"status": {"X" * 300: {"count": 1, "example": ""}}}],
)  # fmt: skip
def test_a_manifest_is_read_strictly(value: Any) -> None:
    """What is not counts is refused; absent is nothing."""
    assert not is_drift(value)
    assert is_drift(None)
    assert is_drift({})


def test_lines_steer_no_terminal() -> None:
    """Controls are escaped."""
    (line,) = lines_of({"members": {"a\x1b[31m\n": {"count": 1, "example": "\x07\u202e"}}})
    assert line.isascii()
    assert line.isprintable()


# --- exports


def _new_rows(customer: int) -> list[dict[str, Any]]:
    return [
        {**row, **({"new_member": "first"} if row["id"] % 3 == 0 else {}), **({"status": "BRAND_NEW"} if row["id"] % 4 == 0 else {})}  # noqa: E501
        for row in rows_of(customer)
    ]  # fmt: skip


IDS = list(range(1, 41))


def _expected(rows: list[dict[str, Any]]) -> tuple[int, int]:
    return sum("new_member" in row for row in rows), sum(row["status"] == "BRAND_NEW" for row in rows)


def _counts(out: Path) -> tuple[int, int]:
    drift = json.loads((out / "manifest.json").read_text())["drift"]
    assert drift.keys() <= {"members", "status"}
    assert drift["members"].keys() == {"pointsAllocation.new_member"}
    assert drift["status"].keys() == {"BRAND_NEW"}
    return drift["members"]["pointsAllocation.new_member"]["count"], drift["status"]["BRAND_NEW"]["count"]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
@pytest.mark.parametrize("verify", [False, True])
async def test_an_export_counts_each_record_once(tmp_path: Path, format_: Any, verify: bool) -> None:
    """Rows that come twice and lists that are read twice, a key that is recovered later; and `verify` says it."""
    rows = {customer: _new_rows(customer) for customer in IDS}
    expected = _expected([row for each in rows.values() for row in each])
    assert min(expected) > 100
    out = tmp_path / "out"
    with Customers() as server:
        for customer, own in rows.items():
            server.rows[customer] = [*own, *own[:3]] if len(own) > 100 and not verify else own
        server.failing[14] = server.failing[19] = 1
        async with AsyncSession(
            server.url, auth=BasicAuth("t", password="p"), retry=RetryPolicy(attempts=1), paging=Paging(verify=verify)
        ) as session:
            result = await jobs.export(
                "allocations", IDS, out, session=session, shard_keys=7, format=format_, sleep=_at_once, **QUERY
            )
    assert result.complete
    assert _counts(out) == expected
    proof = await jobs.verify(out)
    assert proof.ok
    assert proof.drift == json.loads((out / "manifest.json").read_text())["drift"]
    assert proof.drift["members"]["pointsAllocation.new_member"]["example"] == "'first'"


async def _at_once(seconds: float) -> None:
    """Pauses are not waited for."""


async def test_an_export_without_drift_says_so(tmp_path: Path) -> None:
    """An empty object, and no line."""
    with Customers() as server:
        async with AsyncSession(server.url, auth=BasicAuth("t", password="p")) as session:
            await jobs.export("allocations", IDS, tmp_path / "out", session=session, **QUERY)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["drift"] == {}
    assert (await jobs.verify(tmp_path / "out")).drift == {}
    result = await jobs.reconcile(tmp_path / "out")
    assert "documented-values-only" not in [each.rule.name for each in result.findings]


@pytest.mark.long
@pytest.mark.parametrize("point", sorted({point for point in POINTS if point.startswith("shard-")}))
def test_counts_survive_kill_9(tmp_path: Path, point: str) -> None:
    """Killed at each moment of a shard and started again, each record is counted once."""
    rows = {customer: _new_rows(customer) for customer in IDS}
    expected = _expected([row for each in rows.values() for row in each])
    with Customers() as server:
        server.rows.update(rows)
        server.failing[19] = 1
        runner = Runner(server.url)
        try:
            runner.run(tmp_path / "out", ids=IDS, die_at=f"{point}:3" if ":" not in point else point)
            assert runner.run(tmp_path / "out", ids=IDS) == 0
        finally:
            runner.close()
    assert _counts(tmp_path / "out") == expected


def test_a_hostile_export_is_told_and_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the manifest, on the terminal and in the report; the verdict is untouched."""
    out = tmp_path / "out"
    new = dict.fromkeys(HOSTILE, "<i>")

    async def export() -> None:
        with Customers() as server:
            server.rows[1] = [{"id": 1, "customer_id": 1, "status": "<b>NEW</b>", **new}]
            async with AsyncSession(server.url, auth=BasicAuth("t", password="p")) as session:
                await jobs.export("allocations", [1], out, session=session, **QUERY)

    asyncio.run(export())
    drift = json.loads((out / "manifest.json").read_text())["drift"]
    assert len(drift["members"]) == len(HOSTILE)
    assert drift["status"] == {"<b>NEW</b>": {"count": 1, "example": "key 1, record 1"}}
    assert (out / "manifest.json").stat().st_size < 10_000
    assert main(["verify", str(out)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not documented: ")]
    assert len(told) == len(HOSTILE) + 1
    assert all(line.isascii() and line.isprintable() for line in told)
    assert "not documented: status '<b>NEW</b>' in 1 record, e.g. key 1, record 1" in told
    result = asyncio.run(jobs.reconcile(out, report=tmp_path / "report.html"))
    assert result.equal
    (found,) = [each for each in result.broken if each.rule.name == "documented-values-only"]
    assert not found.is_error
    assert found.count == len(HOSTILE) + 1
    text = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "\x1b" not in text


def test_a_changed_drift_is_a_difference(tmp_path: Path) -> None:
    """The manifest says what the database counted, and is refused where it is no counts at all."""
    out = tmp_path / "out"

    async def export() -> None:
        with Customers() as server:
            async with AsyncSession(server.url, auth=BasicAuth("t", password="p")) as session:
                await jobs.export("allocations", IDS, out, session=session, **QUERY)

    asyncio.run(export())
    said = json.loads((out / "manifest.json").read_text())
    said["drift"] = {"status": {"X": {"count": 1, "example": "y"}}}
    (out / "manifest.json").write_text(json.dumps(said))
    assert any("drift" in fault for fault in asyncio.run(jobs.verify(out)).faults)
    said["drift"] = {"status": {"X": 1}}
    (out / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(jobs.JobError, match="drift"):
        asyncio.run(jobs.verify(out))
    with pytest.raises(jobs.JobError, match="drift"):
        asyncio.run(jobs.reconcile(out))


def _awards(seen: Seen) -> list[dict[str, Any]]:
    """Two awards a customer, the second new in table and member, and once more."""
    rows: list[dict[str, Any]] = []
    for one in ids_of(seen):
        new = {"id": one * 10, "customer_id": one, "source_table": "points_new", "new": one}
        rows += [{"id": one * 10 + 1, "customer_id": one, "source_table": "points_awarded"}, new, new]
    return rows


def _events(seen: Seen) -> dict[str, Any]:
    customer = int(seen.path.split("/")[-2])
    event = {"id": customer, "customerId": customer, "eventName": "BrandNew", "newMember": {"a": 1}}
    return {"data": [event, {**event, "id": customer + 1_000, "eventName": "PointsExpiry"}]}


EXPORTS: list[tuple[Any, Any, dict[str, Any], dict[str, dict[str, int]]]] = [
    (
        "awarded",
        _awards,
        {"program_id": 1, "point_category_id": 2, "start_expiry_date": "2025-06-30", "end_expiry_date": "2026-08-31",
         "status": ["AVAILABLE", "EXPIRED"]},
        {"members": {"pointsAwarded.new": 9}, "source_table": {"points_new": 9}},
    ),
    ("events", _events, {}, {"members": {"loyaltyEvent.newMember": 18}, "event_name": {"BrandNew": 9}}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "answer", "query", "expected"), EXPORTS, ids=["awarded", "events"])
async def test_each_source(tmp_path: Path, source: Any, answer: Any, query: dict[str, Any], expected: Any) -> None:
    """Batches, several statuses and envelopes; a name that another page documents is no drift."""
    async with AsyncSession(HOST, auth=BasicAuth("t", password="p")) as session:
        with serving(answer):
            await jobs.export(source, range(1, 10), tmp_path / "out", session=session, shard_keys=2, **query)
    drift = json.loads((tmp_path / "out" / "manifest.json").read_text())["drift"]
    assert {kind: {name: one["count"] for name, one in names.items()} for kind, names in drift.items()} == expected


async def test_the_ledger(tmp_path: Path) -> None:
    """A customer's events, with a name and a member that are new."""
    event = {"eventLogId": 5, "uniqueId": "u", "eventName": "BrandNew", "billDetails": {"new": 1}}

    def answer(seen: Seen) -> dict[str, Any]:
        return {"events": [event], "warnings": []}

    async with AsyncSession(HOST, auth=BasicAuth("t", password="p")) as session:
        with serving(answer):
            await jobs.export("ledger", [(1, 5), (2, 5)], tmp_path / "out", session=session)
    drift = json.loads((tmp_path / "out" / "manifest.json").read_text())["drift"]
    assert drift == {
        "members": {"events[].billDetails.new": {"count": 2, "example": "1"}},
        "event_name": {"BrandNew": {"count": 2, "example": "key 1, record (5, 'u')"}},
    }
