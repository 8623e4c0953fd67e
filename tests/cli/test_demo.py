"""The demo: it ends well only when three readings agree with each other and with what the sandbox holds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from capillary_async import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded
from capillary_async.cli import main
from capillary_async.cli._demo import demo as _demo
from capillary_async.cli._demo.agreement import Agreement
from capillary_async.cli._demo.demo import DemoOptions, faults_of
from capillary_async.cli._demo.summary import verdict
from capillary_async.sandbox import Answer, ErrorEnvelope, Fault, RowsChanged, Sandbox, Totals

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from pathlib import Path

ALLOCATION = PointsAllocation(
    id=1,
    customer_id=5,
    event_log_id=9,
    status="AVAILABLE",
    expiry_date=1_790_000_000_000,
    points_exclusive=Decimal("12.345"),
    redeemed_exclusive_value=Decimal("2.3"),
    returned_exclusive_value=Decimal(0),
    expired_exclusive_value=Decimal(0),
)
AWARD = PointsAwarded(
    id=1,
    customer_id=5,
    event_log_id=9,
    source_table="points_awarded",
    points_exclusive=Decimal("12.345"),
    redeemed_exclusive_value=Decimal("2.3"),
    returned_exclusive_value=Decimal(0),
    expired_exclusive_value=Decimal(0),
)
ENTRY = LedgerEvent(event_log_id=9, unique_id="yFNq8FgavV")
EVENT = LoyaltyEvent(id=1_603_616_021, customer_id=5, unique_id="yFNq8FgavV")
LINE = evolve(AWARD, source_table="points_awarded_bill_lineitems", id=7)
SUMS = {
    "points_exclusive": Decimal("12.345"),
    "redeemed_exclusive_value": Decimal("2.300"),
    "returned_exclusive_value": Decimal(0),
    "expired_exclusive_value": Decimal(0),
}
HELD = Totals(
    customers=1,
    allocations=1,
    awarded=1,
    events=1,
    points=SUMS,
    awarded_points=SUMS,
    by_status={"AVAILABLE": Decimal("12.345")},
    left_by_month={(2026, 9): Decimal("10.045")},
    awarded_by_status={"AVAILABLE": Decimal("12.345")},
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a demo leaves its files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def agreement(
    allocations: list[PointsAllocation] | None = None,
    awards: list[PointsAwarded] | None = None,
    events: list[LoyaltyEvent] | None = None,
    entries: list[LedgerEvent] | None = None,
) -> Agreement:
    """Four readings of customer 5, compared with HELD."""
    made = Agreement(readings=4)
    made.allocations(5, [ALLOCATION] if allocations is None else allocations, tuple(SUMS))
    made.awarded(5, [AWARD] if awards is None else awards, "AVAILABLE")
    made.events(5, [EVENT] if events is None else events)
    made.ledger(5, [9], [ENTRY] if entries is None else entries)
    made.compare(HELD)
    return made


def test_what_agrees() -> None:
    """No fault; the sums are those of the records, the points left stand in their month."""
    made = agreement()
    assert made.faults == []
    assert made.points == SUMS
    assert made.by_month == {(2026, 9): Decimal("10.045")}


@pytest.mark.parametrize(
    ("readings", "fault"),
    [
        ({"awards": []}, "customer 5: 1 allocation without their award"),
        ({"allocations": []}, "customer 5: 1 award without their allocation"),
        ({"allocations": [ALLOCATION, ALLOCATION]}, "allocations: rows: read 2, the sandbox holds 1"),
        (
            {"awards": [evolve(AWARD, points_exclusive=Decimal("12.346"))]},
            "awarded: points_exclusive: read 12.346, the sandbox holds 12.345",
        ),
        ({"awards": [evolve(AWARD, event_log_id=8)]}, "customer 5: 1 allocation without their award"),
        ({"awards": [evolve(AWARD, id=2)]}, "customer 5: 1 award without their allocation"),
        ({"awards": [AWARD, LINE]}, "awarded: rows: read 2, the sandbox holds 1"),
        ({"events": []}, "customer 5: 1 unique id of ledger entries not among the loyalty events"),
        (
            {"events": [evolve(EVENT, id=9, unique_id="x")]},
            "customer 5: 1 unique id of ledger entries not among the loyalty events",
        ),
        ({"entries": []}, "customer 5: 1 event_log_id of allocations without a ledger entry"),
        ({"events": [evolve(EVENT, customer_id=6)]}, "customer 5: 1 row of other customers"),
        ({"allocations": [evolve(ALLOCATION, customer_id=6)]}, "customer 5: 1 row of other customers"),
        (
            {"allocations": [evolve(ALLOCATION, status="EXPIRED")]},
            "allocations by status: AVAILABLE: read 0, the sandbox holds 12.345",
        ),
        (
            {"allocations": [evolve(ALLOCATION, expiry_date=1_792_592_000_000)]},
            "left to use: 2026-10: read 10.045, the sandbox holds 0",
        ),
        (
            {"allocations": [evolve(ALLOCATION, points_exclusive=None)]},
            "allocations: points_exclusive: read 0, the sandbox holds 12.345",
        ),
    ],
)
def test_what_disagrees_is_named(readings: dict[str, Any], fault: str) -> None:
    """A missing, doubled, changed or misplaced row of any of the three, to the last decimal."""
    assert fault in agreement(**readings).faults


def test_awards_of_other_tables_have_no_allocation() -> None:
    """A line item's award is counted, and no allocation is missed for it."""
    made = Agreement(readings=2)
    made.allocations(5, [ALLOCATION], tuple(SUMS))
    made.awarded(5, [AWARD, LINE], "AVAILABLE")
    assert made.faults == []
    assert made.counts["awarded"] == 2


def test_an_answer_that_never_came() -> None:
    """A customer of whom one reading is missing is no agreement."""
    made = Agreement(readings=3)
    made.allocations(5, [ALLOCATION], tuple(SUMS))
    made.awarded(5, [AWARD], "AVAILABLE")
    made.compare(evolve(HELD, events=0))
    assert made.faults == ["customer 5: 2 of 3 answers came"]


def test_sums_are_not_rounded() -> None:
    """Also beyond the 28 digits of the ambient context."""
    made = Agreement(readings=1)
    large = evolve(ALLOCATION, points_exclusive=Decimal(10) ** 40)
    made.allocations(5, [large, ALLOCATION], ("points_exclusive",))
    assert str(made.points["points_exclusive"]) == "1" + "0" * 38 + "12.345"


def test_demo_agrees(capfd: pytest.CaptureFixture[str]) -> None:
    """With the scripted faults, which show as retries; the summary has every part."""
    assert main(["demo", "--customers", "12", "--latency", "0"]) == 0
    out, err = capfd.readouterr()
    held = Sandbox(customers=12).totals()
    records = held.allocations + held.awarded + held.events
    assert "12, and 3 merged and 1 unknown, refused as they should be" in out
    for said in (f"{records:,}", "retries", "Points by status", "Points left to use", "records/s", "AGREE: "):
        assert said in out
    assert all(f"{points:,f}" in out for points in held.by_status.values())
    assert f"{sum(held.left_by_month.values()):,f} in all" in out
    assert "retries    0 " not in out
    assert "DISAGREE" not in out
    assert out.startswith("AGREE: ")
    assert err == ""


def test_demo_without_faults(capfd: pytest.CaptureFixture[str]) -> None:
    """No retry, and a sandbox without customers agrees too."""
    assert main(["demo", "--customers", "0", "--no-faults", "--quiet"]) == 0
    out = capfd.readouterr().out
    assert "0 (0 answers were 429 or 503)" in out
    assert "AGREE" in out


def test_disturbed_demo_finds_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Rows that vanish while they are read: exit code 1, with the customers and the sums."""
    assert main(["demo", "--customers", "12", "--no-faults", "--disturb", "--latency", "0"]) == 1
    out = capfd.readouterr().out
    assert out.startswith("DISAGREE: ")
    assert "customer 600000001: 1 award without their allocation" in out
    assert "allocations: rows: read " in out
    assert "DISAGREE: " in out


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (RowsChanged(1, page=1, path="600000001", times=1), None),
        (ErrorEnvelope(403, "not for you", path="/v2/customers/600000008/", times=None), "customer 600000008: loyalty"),
        (ErrorEnvelope(8015, "unknown", path="/v2/customers/590000001/", times=None), "customer 590000001: loyalty"),
    ],
)
def test_planted_faults(
    fault: Fault, said: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A customer refused, or refused in another way than it should be, is a disagreement; a new status is none."""
    monkeypatch.setattr(_demo, "faults_of", lambda options: [fault])
    assert main(["demo", "--customers", "3", "--latency", "0"]) == (1 if said else 0)
    assert (said or "AGREE") in capfd.readouterr().out


class Answered(Fault):
    """No events, where a refusal is due."""

    def instead(self, path: str) -> Answer:
        return Answer(b'{"data": [], "warnings": [], "errors": []}')


@pytest.mark.parametrize(
    ("customer_id", "said"),
    [
        (590000001, "merged customers, refused as such: read 2, the sandbox holds 3"),
        (999999999, "unknown customers, refused as such: read 0, the sandbox holds 1"),
    ],
)
def test_who_must_be_refused_and_is_not(
    customer_id: int, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An answer for a merged or unknown customer, empty as it is, is a disagreement."""
    fault = Answered(path=f"/v2/customers/{customer_id}/", times=None)
    monkeypatch.setattr(_demo, "faults_of", lambda options: [fault])
    assert main(["demo", "--customers", "3", "--latency", "0"]) == 1
    out = capfd.readouterr().out
    assert said in out
    assert "DISAGREE: 1 difference between" in out


def test_what_concerns_everybody_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, no traceback, no group of exceptions."""
    monkeypatch.setattr(_demo, "faults_of", lambda options: [ErrorEnvelope(401, "no", times=None)])
    assert main(["demo", "--customers", "3"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("capillary-async: ")
    assert err.count("\n") == 1


def test_many_differences_are_cut_short() -> None:
    """The first twenty are shown, the others counted."""
    made = agreement()
    made.faults.extend(f"fault {number}" for number in range(25))
    out = "\n".join(verdict(made))
    assert "fault 19" in out
    assert "fault 20" not in out
    assert "... and 5 more" in out


def test_the_default_demo_as_a_process(tmp_path: Path) -> None:
    """As the README runs it: all customers, all jobs. What takes two minutes hangs, however busy the machine is."""
    command = [sys.executable, "-m", "capillary_async.cli", "demo"]
    # Not measured: tracing makes the sandbox in it several times slower.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTHON"))}
    environment["TMPDIR"] = str(tmp_path)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "AGREE: " in ended.stdout
    assert "100, and 3 merged" in ended.stdout
    assert "FOUND: exactly the 9 planted differences, no more and no less" in ended.stdout
    (folder,) = tmp_path.iterdir()
    assert ended.stdout.splitlines()[2] == f"report     {folder / 'report.html'}"
    assert ended.stdout.count("\n") <= 30
    assert ended.stderr == ""
    assert len(faults_of(DemoOptions())) > 3
