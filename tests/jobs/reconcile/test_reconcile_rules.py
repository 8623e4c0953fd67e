"""The rules: each is broken by the row that it is about, kept by all that the sandbox holds, and told to a person."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.export_folder import write_export

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
    own = {"id": 1, "source_table": "points_awarded", "customer_id": 7, "event_log_id": 5}
    return {**zeros, **own, "points_exclusive": "10", **more}


def event(**more: Any) -> dict[str, Any]:
    own = {"id": 1_603_616_021, "unique_id": "yFNq8FgavV", "customer_id": 7, "event_name": "TransactionAdd"}
    return {**own, "date": "2026-01-01T00:00:00Z", **more}


def entry(**more: Any) -> dict[str, Any]:
    return {"event_log_id": 5, "unique_id": "yFNq8FgavV", "event_name": "TransactionAdd", "asked_key": "7", **more}


def ledger_of(customer: int) -> list[dict[str, Any]]:
    """What the ledger has of the customer's events."""
    names = [(row["eventName"], row["uniqueId"]) for row in HELD.events(customer)]
    return [
        entry(event_log_id=log_id, event_name=name, unique_id=unique_id, asked_key=str(customer))
        for log_id, (name, unique_id) in zip(HELD.event_log_ids(customer), names, strict=True)
    ]


def broken(result: ReconcileResult) -> dict[str, tuple[int, str]]:
    """What was found, by rule: how often, and how heavy."""
    return {each.rule.name: (each.count, each.rule.severity) for each in result.broken}


async def test_the_sandbox_keeps_every_rule(tmp_path: Path) -> None:
    """Allocations, awards, events and ledger of the same customers, on the day of the sandbox's world."""
    allocations = write_export(tmp_path / "allocations", "allocations", [r for c in IDS for r in HELD.allocations(c)])
    awarded = write_export(tmp_path / "awarded", "awarded", [r for c in IDS for r in HELD.awarded(c)])
    events = write_export(tmp_path / "events", "events", [r for c in IDS for r in events_of(c)])
    ledger = write_export(tmp_path / "ledger", "ledger", [r for c in IDS for r in ledger_of(c)])
    others = {"with_awarded": awarded, "with_events": events, "with_ledger": ledger}
    result = await reconcile(allocations, as_of=TODAY, **others)
    assert result.equal
    assert broken(result) == {}
    assert len(result.findings) == 28
    assert len({each.rule.name for each in result.findings}) == 28
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
        ({"status": "RETURNED", "returned_exclusive_value": "9"}, "returned-or-converted-means-nothing-left", "note"),
        ({"status": "CONSUMED_BY_CONVERSION"}, "returned-or-converted-means-nothing-left", "note"),
        ({"status": "EXPIRED", "expired_exclusive_value": "10"}, "expired-after-its-date", "note"),
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
        ("points_awarded 1", "there 2 times"),
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


async def crossed(
    tmp_path: Path, awards: Any = None, events: Any = None, ledger: Any = None, **manifest: Any
) -> ReconcileResult:
    """Two allocations against awards, events and ledger entries."""
    export = write_export(
        tmp_path / "allocations", "allocations", [allocation(), allocation(id=2, points_exclusive="4")]
    )
    others = {}
    if awards is not None:
        others["with_awarded"] = write_export(tmp_path / "awarded", "awarded", awards, **manifest)
    if events is not None:
        others["with_events"] = write_export(tmp_path / "events", "events", events, **manifest)
    if ledger is not None:
        others["with_ledger"] = write_export(tmp_path / "ledger", "ledger", ledger)
    result = await reconcile(export, as_of=TODAY, **others)
    assert result.equal  # which id joins what is inferred: nothing between exports is an error
    return result


BOTH = [award(), award(id=2, points_exclusive="4")]
LINE_ITEM = award(id=9, source_table="points_awarded_bill_lineitems", points_exclusive="77", event_log_id=6)


@pytest.mark.parametrize(
    ("awards", "found"),
    [
        (BOTH, {}),
        ([*BOTH, LINE_ITEM], {}),
        ([award(), award(id=2, source_table="points_awarded_bill_lineitems", points_exclusive="4")],
         {"allocation-has-award": (1, "note")}),
        ([award(), award(id=2, points_exclusive="4", customer_id=9, asked_key=9)],
         {"award-as-its-allocation": (1, "note")}),
        ([award(), award(id=2, points_exclusive="4.001")], {"award-as-its-allocation": (1, "note")}),
        ([award(), award(id=2, points_exclusive="4", event_log_id=6)], {"award-as-its-allocation": (1, "note")}),
        ([*BOTH, award(id=5)], {"award-has-allocation": (1, "note")}),
        ([award()], {"allocation-has-award": (1, "note")}),
        ([*BOTH, award(id=None)], {}),
    ],
)  # fmt: skip
async def test_awarded_ids_against_allocations(tmp_path: Path, awards: Any, found: dict[str, Any]) -> None:
    """By id, for the table points_awarded alone; no allocation is due for a line item."""
    assert broken(await crossed(tmp_path, awards=awards)) == found


async def test_awarded_ids_of_one_status(tmp_path: Path) -> None:
    """Allocations of another status have no award in an export of one status, which is no finding."""
    result = await crossed(tmp_path, awards=[], query={"status": "EXPIRED"})
    assert broken(result) == {}
    for name, status in (("other", "AVAILABLE"), ("several", ["EXPIRED", "AVAILABLE"])):
        (tmp_path / name).mkdir()
        result = await crossed(tmp_path / name, awards=[], query={"status": status})
        assert broken(result) == {"allocation-has-award": (2, "note")}
    (tmp_path / "others").mkdir()
    result = await crossed(tmp_path / "others", awards=[], query={"status": ["EXPIRED", "REDEEMED"]})
    assert broken(result) == {}


@pytest.mark.parametrize(
    ("events", "ledger", "manifest", "found"),
    [
        ([event()], [entry()], {}, ()),
        # The id of a loyalty event that happens to equal the event log id joins nothing.
        ([event(id=5, unique_id="other")], [entry()], {}, ("{}-has-event",)),
        ([event(unique_id="other")], [entry()], {"query": {"event_type": "EARN"}}, ("{}-has-event",)),
        ([event(customer_id=9)], [entry()], {}, ("{}-event-of-same-customer",)),
        ([event()], [entry(event_log_id=6)], {}, ("{}-has-ledger-entry",)),
        (None, [entry(event_log_id=6)], {}, ("{}-has-ledger-entry",)),
        (None, [entry(), entry(unique_id="second")], {}, ()),
    ],
)
async def test_events_against_allocations_and_awards(
    tmp_path: Path, events: Any, ledger: Any, manifest: dict[str, Any], found: tuple[str, ...]
) -> None:
    """Through the ledger, by unique id; each finding is a note."""
    result = await crossed(tmp_path, awards=BOTH, events=events, ledger=ledger, **manifest)
    expected = {rule.format(one): (2, "note") for rule in found for one in ("allocation", "awarded")}
    assert broken(result) == expected


def taken(*deductions: tuple[str, int | None], kind: str = "REDEEMED") -> dict[str, Any]:
    """A ledger entry that took points from these awards."""
    details = [
        {"point_awarded_ref_type": table, "point_awarded_ref_id": award_id, "deduction_type": kind}
        for table, award_id in deductions
    ]
    return entry(manual_points_adjustment_details=json.dumps({"points_deduction_break_up_details": details}))


@pytest.mark.parametrize(
    ("deducted", "found"),
    [
        (taken(("POINT_AWARDED", 1), ("POINT_AWARDED", 2), ("POINT_AWARDED_LINEITEM", 9)), {}),
        (
            taken(("POINT_AWARDED", 1), ("POINT_AWARDED", 9)),
            {"deduction-has-allocation": (1, "note"), "deduction-has-awarded": (1, "note")},
        ),
        # An id is that of its own table.
        (taken(("POINT_AWARDED_LINEITEM", 1)), {"deduction-has-awarded": (1, "note")}),
        # No endpoint shows promotion tables, and promised points are rows of another category.
        (taken(("POINT_AWARDED_CUSTOMER_PROMOTION", 9), ("POINT_AWARDED_NEW", 9), ("POINT_AWARDED", None)), {}),
        (taken(("POINT_AWARDED", 9), kind="REDEEMED_BY_CONVERSION"), {}),
    ],
)
async def test_deductions_against_their_awards(tmp_path: Path, deducted: Any, found: dict[str, Any]) -> None:
    """By table and id; each finding is a note."""
    rows = [*BOTH, award(id=9, source_table="points_awarded_bill_lineitems")]
    assert broken(await crossed(tmp_path, awards=rows, ledger=[deducted])) == found


async def test_events_without_the_ledger(tmp_path: Path) -> None:
    """They are not compared, and the result says so."""
    result = await crossed(tmp_path, events=[event(unique_id="other", id=5)])
    assert broken(result) == {"events-compared-through-the-ledger": (1, "note")}
    assert "--with-ledger" in result.broken[0].rule.meaning


async def test_rows_without_an_event_log_id(tmp_path: Path) -> None:
    """-1 and nothing are no event log ids: no ledger entry is missed for them."""
    rows = [allocation(event_log_id=-1), allocation(id=2, event_log_id=None)]
    export = write_export(tmp_path / "export", "allocations", rows)
    ledger = write_export(tmp_path / "ledger", "ledger", [entry()])
    assert broken(await reconcile(export, with_ledger=ledger, as_of=TODAY)) == {}


async def test_a_promotion_that_was_spent_before_its_bill_came_back(tmp_path: Path) -> None:
    """Value 0 and redeemed points are legitimate in a promotion table, and nowhere else."""
    promotion = award(source_table="points_awarded_bill_promotions", points_exclusive="0", redeemed_exclusive_value="5")
    result = await reconcile(write_export(tmp_path / "one", "awarded", [promotion]))
    assert result.equal
    assert broken(result) == {"promotion-spent-before-its-return": (1, "note")}
    other = {**promotion, "source_table": "points_awarded"}
    result = await reconcile(write_export(tmp_path / "other", "awarded", [other]))
    assert broken(result) == {"deductions-within-points": (1, "error")}


async def test_what_remains_can_be_compared_with_books(tmp_path: Path) -> None:
    """What finance books is what remains, not what was issued."""
    export = write_export(tmp_path / "export", "allocations", [allocation(redeemed_exclusive_value="2.5")])
    books = tmp_path / "books.csv"
    for points, equal in (("7.5", True), ("10", False)):
        books.write_text(f"award_id,points\n1,{points}\n")
        result = await reconcile(export, books, key="id=award_id", compare="remaining=points", as_of=TODAY)
        assert result.equal is equal


async def test_an_event_of_the_customer_before_a_merge(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", "allocations", [allocation(original_customer_id=9)])
    others = {
        "with_events": write_export(tmp_path / "events", "events", [event(customer_id=9)]),
        "with_awarded": write_export(tmp_path / "awards", "awarded", [award(customer_id=9)]),
        "with_ledger": write_export(tmp_path / "ledger", "ledger", [entry()]),
    }
    assert broken(await reconcile(export, as_of=TODAY, **others)) == {}


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
