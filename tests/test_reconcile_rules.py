"""The rules: each is broken by the row that it is about, kept by all that the sandbox holds, and told to a person."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from export_folder import write_export

from capillary_async.jobs import JobError, ReconcileResult, reconcile
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

HELD = Sandbox(customers=20)
IDS = list(HELD.customer_ids)
TODAY = date(2026, 1, 15)
NOW = datetime(2026, 1, 15, tzinfo=UTC)
DAY = 86_400_000
MILLISECONDS = int(NOW.timestamp()) * 1000


def events_of(customer: int) -> list[dict[str, Any]]:
    names = {"customerId": "customer_id", "eventName": "event_name", "orgId": "org_id", "uniqueId": "unique_id"}
    return [{names.get(name, name): value for name, value in row.items()} for row in HELD.events(customer)]


def allocation(**more: Any) -> dict[str, Any]:
    """An allocation that breaks no rule."""
    zeros = dict.fromkeys(("redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value"), "0")
    own = {"id": 1, "customer_id": 7, "original_customer_id": 7, "event_log_id": 5, "status": "AVAILABLE"}
    dates = {"awarded_date": MILLISECONDS - 90 * DAY, "expiry_date": MILLISECONDS + 90 * DAY}
    return {**zeros, **own, **dates, "points_exclusive": "10", **more}


def award(**more: Any) -> dict[str, Any]:
    zeros = dict.fromkeys(("redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value"), "0")
    own = {"id": 3, "source_table": "points_awarded", "customer_id": 7, "event_log_id": 5}
    return {**zeros, **own, "points_exclusive": "10", **more}


def event(**more: Any) -> dict[str, Any]:
    return {"id": 5, "customer_id": 7, "date": "2026-01-01T00:00:00Z", "event_name": "TransactionAdd", **more}


def broken(result: ReconcileResult) -> dict[str, tuple[int, str]]:
    """What was found, by rule: how often, and how heavy."""
    return {each.rule.name: (each.count, each.rule.severity) for each in result.broken}


async def test_the_sandbox_keeps_every_rule(tmp_path: Path) -> None:
    """Allocations, awards and events of the same customers, on the day on which the sandbox's world stands."""
    allocations = write_export(tmp_path / "allocations", "allocations", [r for c in IDS for r in HELD.allocations(c)])
    awarded = write_export(tmp_path / "awarded", "awarded", [r for c in IDS for r in HELD.awarded(c)])
    events = write_export(tmp_path / "events", "events", [r for c in IDS for r in events_of(c)])
    result = await reconcile(allocations, with_awarded=awarded, with_events=events, as_of=TODAY)
    assert result.equal
    assert broken(result) == {}
    assert len(result.findings) == 23
    assert len({each.rule.name for each in result.findings}) == 23
    for other in (awarded, events):
        assert broken(await reconcile(other)) == {}


@pytest.mark.parametrize(
    ("row", "rule", "severity"),
    [
        ({"redeemed_exclusive_value": "10.001"}, "deductions-within-points", "error"),
        ({"redeemed_exclusive_value": "-1"}, "no-negative-quantity", "error"),
        ({"points_value": "-0.001"}, "no-negative-quantity", "error"),
        ({"expired_exclusive_value": None}, "quantities-there", "note"),
        (
            {"status": "EXPIRED", "expiry_date": MILLISECONDS - DAY, "expired_exclusive_value": "9"},
            "gone-means-nothing-left",
            "error",
        ),
        ({"status": "CONSUMED"}, "gone-means-nothing-left", "error"),
        ({"status": "EXPIRED", "expired_exclusive_value": "10"}, "expired-after-its-date", "error"),
        ({"status": "REDEEMED", "returned_exclusive_value": "10"}, "status-has-its-quantity", "note"),
        ({"returned_exclusive_value": "10"}, "available-has-points", "note"),
        ({"expiry_date": MILLISECONDS - 3 * DAY}, "available-before-its-date", "note"),
        ({"awarded_date": MILLISECONDS + 91 * DAY}, "expires-after-award", "note"),
        (
            {"points_value": "5", "redeemed_value": "3", "returned_value": "2", "expired_value": "1"},
            "inclusive-deductions-within-value",
            "note",
        ),
        ({"asked_key": 8}, "row-of-asked-customer", "error"),
        ({"id": None}, "record-has-key", "error"),
    ],
)
async def test_a_row_that_breaks_a_rule(tmp_path: Path, row: dict[str, Any], rule: str, severity: str) -> None:
    """That rule finds it, and names the record; a good row beside it is not found."""
    rows = [allocation(id=2), allocation(**row)]
    export = write_export(tmp_path / "export", "allocations", rows)
    result = await reconcile(export, as_of=TODAY)
    assert broken(result)[rule] == (1, severity)
    assert result.equal == all(each.rule.severity == "note" for each in result.broken)
    (finding,) = [each for each in result.broken if each.rule.name == rule]
    assert finding.examples[0].record == ("nothing" if rule == "record-has-key" else "1")
    assert finding.examples[0].asked_key == str(row.get("asked_key", 7))
    assert finding.examples[0].detail
    assert finding.rule.meaning.endswith(".")


@pytest.mark.parametrize(
    "row",
    [
        {"expiry_date": MILLISECONDS - DAY},  # servers expire some hours late
        {"status": "EXPIRED", "expiry_date": MILLISECONDS - 1000, "expired_exclusive_value": "10"},
        {"status": "INACTIVE"},
        {"status": "SOMETHING_NEW"},
        {"status": None, "points_exclusive": None, "redeemed_exclusive_value": None},
        {"original_customer_id": 8, "asked_key": 8},  # merged
        {"points_value": "0", "original_points": "0", "returned_exclusive_value": "5"},  # the page's own sample
    ],
)
async def test_rows_that_are_as_they_may_be(tmp_path: Path, row: dict[str, Any]) -> None:
    export = write_export(tmp_path / "export", "allocations", [allocation(**row)])
    assert set(broken(await reconcile(export, as_of=TODAY))) <= {"quantities-there"}


async def test_awards_have_the_rules_of_quantities(tmp_path: Path) -> None:
    """User groups are asked for by an id that is no customer's: a note."""
    rows = [award(redeemed_exclusive_value="11"), award(id=4, asked_key=99), award(id=4, source_table=None)]
    found = broken(await reconcile(write_export(tmp_path / "export", "awarded", rows)))
    assert found == {
        "deductions-within-points": (1, "error"),
        "row-of-asked-customer": (1, "note"),
        "record-has-key": (1, "error"),
    }


async def test_too_much_taken_is_seen_beside_a_quantity_that_is_left_out(tmp_path: Path) -> None:
    """What is known to be taken is more than there was; a deduction that is left out can only make it worse."""
    rows = [
        award(redeemed_exclusive_value="11", returned_exclusive_value=None),
        award(id=4, redeemed_exclusive_value="10", expired_exclusive_value=None),
        award(id=5, redeemed_exclusive_value="10", points_exclusive=None),
    ]
    found = broken(await reconcile(write_export(tmp_path / "export", "awarded", rows)))
    assert found == {"deductions-within-points": (1, "error"), "quantities-there": (3, "note")}


async def test_a_record_that_is_there_twice(tmp_path: Path) -> None:
    """Awards with one id in two tables are two."""
    rows = [award(), award(source_table="points_awarded_bill_lineitems")]
    assert broken(await reconcile(write_export(tmp_path / "good", "awarded", rows))) == {}
    result = await reconcile(write_export(tmp_path / "bad", "awarded", [*rows, award(), award(id=9), award(id=9)]))
    assert broken(result) == {"record-once": (2, "error")}
    assert [(each.record, each.detail) for each in result.broken[0].examples] == [
        ("points_awarded 3", "there 2 times"),
        ("points_awarded 9", "there 2 times"),
    ]


async def test_the_first_hundred_of_many(tmp_path: Path) -> None:
    """All are counted, a hundred are told, in the order of their keys."""
    rows = [allocation(id=n, status="CONSUMED") for n in range(150, 0, -1)]
    result = await reconcile(write_export(tmp_path / "export", "allocations", rows), as_of=TODAY)
    (finding,) = result.broken
    assert finding.count == 150
    assert [each.record for each in finding.examples] == [str(n) for n in range(1, 101)]


# -- the manifest


async def test_files_that_do_not_add_up_to_the_manifest(tmp_path: Path) -> None:
    """Records and each total."""
    export = write_export(
        tmp_path / "export", "allocations", [allocation()], records=2, totals={"points_exclusive": "10.001"}
    )
    result = await reconcile(export, as_of=TODAY)
    assert broken(result) == {"manifest-totals": (2, "error")}
    assert [each.detail for each in result.broken[0].examples] == [
        "records: the manifest says 2, the files 1",
        "points_exclusive: the manifest says 10.001, the files 10.000",
    ]


@pytest.mark.parametrize(
    ("manifest", "count", "said"),
    [
        ({"ids": {"asked": 9, "found": 1, "empty": 1, "failed": 7}, "complete": False}, 7, "7 of 9 customers failed"),
        ({"complete": False}, 1, "the manifest says incomplete"),
    ],
)
async def test_an_export_with_failed_customers_is_no_proof(
    tmp_path: Path, manifest: dict[str, Any], count: int, said: str
) -> None:
    """Even where what came is equal."""
    export = write_export(tmp_path / "export", "allocations", [allocation()], **manifest)
    result = await reconcile(export, export, as_of=TODAY)
    assert not result.equal
    assert broken(result) == {"export-complete": (count, "error")}
    assert result.broken[0].examples[0].detail == said


# -- against other exports


async def crossed(tmp_path: Path, awards: Any = None, events: Any = None, **manifest: Any) -> ReconcileResult:
    """One allocation against awards and events."""
    export = write_export(
        tmp_path / "allocations", "allocations", [allocation(), allocation(id=2, points_exclusive="4")]
    )
    others = {}
    if awards is not None:
        others["with_awarded"] = write_export(tmp_path / "awarded", "awarded", awards, **manifest)
    if events is not None:
        others["with_events"] = write_export(tmp_path / "events", "events", events, **manifest)
    return await reconcile(export, as_of=TODAY, **others)


OTHER = {"award-has-allocation": (1, "error")}
BOTH = [award(), award(id=4, points_exclusive="4")]


@pytest.mark.parametrize(
    ("awards", "found"),
    [
        (BOTH, {}),
        (
            [award(), award(id=4, points_exclusive="4", customer_id=9, asked_key=9)],
            {"award-has-allocation": (1, "error")},
        ),
        (
            [award(), award(id=4, points_exclusive="4.001")],
            {"award-has-allocation": (1, "error"), "allocation-has-award": (1, "note")},
        ),
        ([*BOTH, award(id=5)], {"award-has-allocation": (1, "error")}),
        ([*BOTH, award(id=5, event_log_id=6)], {"award-has-event-in-allocations": (1, "error")}),
        ([award()], {"allocation-has-award": (1, "note")}),
        ([*BOTH, award(id=5, event_log_id=None)], {}),
    ],
)
async def test_awarded_ids_against_allocations(tmp_path: Path, awards: Any, found: dict[str, Any]) -> None:
    """By customer, event and quantities, each as often as the other."""
    assert broken(await crossed(tmp_path, awards=awards)) == found


async def test_awarded_ids_of_one_status(tmp_path: Path) -> None:
    """Allocations of another status have no award in an export of one status, which is no finding."""
    result = await crossed(tmp_path, awards=[], query={"status": "EXPIRED"})
    assert broken(result) == {}
    (tmp_path / "other").mkdir()
    result = await crossed(tmp_path / "other", awards=[], query={"status": "AVAILABLE"})
    assert broken(result) == {"allocation-has-award": (2, "note")}


async def test_events_against_allocations_and_awards(tmp_path: Path) -> None:
    """By the event's id; a filtered export of events cannot prove that one is missing."""
    for nth, (events, manifest, found) in enumerate(
        (
            ([event()], {}, {}),
            ([event(id=6)], {}, {"allocation-has-event": (2, "error"), "awarded-has-event": (2, "error")}),
            (
                [event(id=6)],
                {"query": {"event_type": "EARN"}},
                {"allocation-has-event": (2, "note"), "awarded-has-event": (2, "note")},
            ),
            (
                [event(customer_id=9)],
                {},
                {"allocation-event-of-same-customer": (2, "error"), "awarded-event-of-same-customer": (2, "error")},
            ),
        )
    ):
        path = tmp_path / str(nth)
        path.mkdir()
        assert broken(await crossed(path, awards=BOTH, events=events, **manifest)) == found


async def test_an_event_of_the_customer_before_a_merge(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", "allocations", [allocation(original_customer_id=9)])
    events = write_export(tmp_path / "events", "events", [event(customer_id=9)])
    awards = write_export(tmp_path / "awards", "awarded", [award(customer_id=9)])
    assert broken(await reconcile(export, with_events=events, with_awarded=awards, as_of=TODAY)) == {}


async def test_exports_of_other_customers(tmp_path: Path) -> None:
    """Told, since what one did not ask for looks as if it were missing."""
    result = await crossed(tmp_path, awards=BOTH, ids={"asked": 3, "failed": 0, "digest": "others"})
    assert broken(result) == {"exports-of-same-customers": (1, "note")}
    assert "1, are not those asked for here, 3" in str(result.broken[0].examples[0].detail)


async def test_exports_that_do_not_go_together(tmp_path: Path) -> None:
    export = write_export(tmp_path / "allocations", "allocations", [allocation()])
    events = write_export(tmp_path / "events", "events", [event()])
    with pytest.raises(JobError, match=r"is an export of events, not of awarded"):
        await reconcile(export, with_awarded=events)
    with pytest.raises(JobError, match=r"with_awarded goes with an export of allocations, and .* is one of events"):
        await reconcile(events, with_awarded=export)
