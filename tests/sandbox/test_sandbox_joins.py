"""Which id joins what in the sandbox, and which sums count twice: as far as is known of the real service."""

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from capillary_async import AsyncSession, EventType, Identifier, LedgerInclude, PointsAwarded, jobs
from capillary_async.models import PointsDeduction
from capillary_async.sandbox import Sandbox
from capillary_async.sandbox._world.records import REF_TYPES, Award, Customer, Event

WORLD = Sandbox(customers=300, seed=7)
TABLE, LINES = "points_awarded", "points_awarded_bill_lineitems"
DEDUCTED = ("redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")


def customers() -> list[Customer]:
    """All of the world, those of the pages' samples left out."""
    return [found for each in WORLD.customer_ids if (found := WORLD._world.customer(each)) is not None]


def events() -> list[Event]:
    return [event for customer in customers() for event in customer.events]


def awards(*categories: int) -> list[Award]:
    return [each for customer in customers() for each in customer.awards if each.point_category_id in categories]


def remaining(award: Award) -> Decimal:
    """What is left of an award, by the columns that its table has."""
    names = DEDUCTED if "points_exclusive" in award.row else ("redeemed_value", "returned_value", "expired_value")
    return Decimal(award.points) - sum(Decimal(award.row[name]) for name in names)


class TestSeries:
    def test_ids_of_different_series_never_collide(self) -> None:
        """A join by the wrong id finds nothing, rather than something."""
        large = Sandbox(customers=100_000, whales=0)
        for world in (WORLD, large):
            people = [*world.customer_ids[:40], *world.customer_ids[-40:], *world.whale_ids]
            found = [event for each in people if (one := world._world.customer(each)) for event in one.events]
            log_ids, loyalty = [event.log_id for event in found], [event.row["id"] for event in found]
            bills = {int(each.reference) for each in found if each.event_type_id in (1, 15, 18)}
            assert len(set(log_ids)) == len(log_ids)
            assert len(set(loyalty)) == len(loyalty)
            assert all(630_000_000 < each < 670_000_000 for each in log_ids)
            assert all(1_600_000_000 < each < 1_650_000_000 for each in loyalty)
            assert all(880_000_000 < each < 940_000_000 for each in bills)

    def test_ids_of_whales_are_apart_from_all_others(self) -> None:
        world = Sandbox(customers=12, whales=6, whale_rows=400)
        found = [event for each in world.customer_ids if (one := world._world.customer(each)) for event in one.events]
        rows = [row for each in world.customer_ids for row in world.awarded(each)]
        assert len({event.log_id for event in found}) == len(found)
        assert len({(row["source_table"], row["id"]) for row in rows}) == len(rows)

    def test_both_sides_have_the_same_unique_id_of_ten_letters(self) -> None:
        unique_ids = [event.row["uniqueId"] for event in events()]
        assert len(set(unique_ids)) == len(unique_ids)
        assert all(re.fullmatch("[A-Za-z0-9]{10}", each) for each in unique_ids)

    def test_one_request_has_several_event_log_ids(self) -> None:
        counts = Counter(
            (event.row["customerId"], event.name, event.reference) for event in events() if event.is_referred
        )
        assert any(count > 1 and name == "GenericEvent" for (_, name, _), count in counts.items())

    def test_newer_rows_may_have_no_event_log_id(self) -> None:
        without = [award for award in awards(WORLD.point_category_id) if award.row["event_log_id"] == -1]
        assert {award.table for award in without} == set(REF_TYPES)
        assert all(a.allocation["awarded_date"] >= 1_751_328_000_000 for a in without if a.allocation is not None)


class TestSource:
    def test_the_source_of_a_transaction_is_its_reference(self) -> None:
        for event in events():
            for row in event.allocations:
                transactional = row["event_type_id"] in (1, 15, 16, 18)
                assert (str(row["points_source_id"]) == event.reference) is transactional
                assert row["event_type_id"] == event.event_type_id

    def test_allocations_are_rows_of_one_table_and_awarded_ids_of_two(self) -> None:
        for customer in customers():
            for award in customer.awards:
                assert (award.allocation is not None) is (award.table == TABLE)
        shown = {row["source_table"] for each in WORLD.customer_ids for row in WORLD.awarded(each)}
        assert shown == {TABLE, LINES}

    def test_promotion_tables_have_inclusive_columns_alone(self) -> None:
        rows = [row for each in WORLD.customer_ids for row in WORLD.promotions(each)]
        assert {row["source_table"] for row in rows} == set(REF_TYPES) - {TABLE, LINES}
        for row in rows:
            assert {name for name in row if name.endswith("_value")} == {
                *("points_value", "redeemed_value", "returned_value", "expired_value"),
            }

    def test_exclusive_points_may_stand_beside_value_0(self) -> None:
        rows = [row for each in WORLD.customer_ids[:50] for row in WORLD.allocations(each)]
        assert any(not row["points_value"] and row["points_exclusive"] for row in rows)


class TestLife:
    def test_promised_points_become_points_of_another_event(self) -> None:
        """What was issued counts twice over categories; what remains of AVAILABLE rows does not."""
        converted = [
            (event, taken) for event in events() for taken in event.deductions if taken.kind == "REDEEMED_BY_CONVERSION"
        ]
        assert converted
        promised = {award.row["id"]: award for award in awards(WORLD.promised_category_id)}
        for event, taken in converted:
            before, after = promised[taken.award_id], event.awards[0]
            assert event.event_type_id == EventType.DELAYED_ACCRUAL
            assert before.status == "CONSUMED_BY_CONVERSION"
            assert Decimal(before.points) == Decimal(after.points) == taken.points
            assert before.row["event_log_id"] != event.log_id
            assert remaining(before) == 0
        assert any(award.status == "AVAILABLE" for award in promised.values())

    def test_a_changed_category_leaves_a_row_with_points_behind(self) -> None:
        """They remain in a row that is not AVAILABLE, and once more in the row of the other category."""
        changed = [
            award
            for award in awards(WORLD.point_category_id)
            if award.status == "POINT_CATEGORY_CHANGED" and award.table == TABLE
        ]
        others = awards(WORLD.changed_category_id)
        assert len(changed) == len(others) > 0
        assert [Decimal(a.points) for a in changed] == [Decimal(a.points) for a in others]
        assert all(remaining(award) == Decimal(award.points) for award in changed)

    def test_a_reversal_gives_back_what_a_redemption_took(self) -> None:
        count = 0
        for customer in customers():
            rows = {(award.table, award.row["id"]): award for award in customer.awards}
            for before, event in zip(customer.events, customer.events[1:], strict=False):
                if event.event_type_id == EventType.POINTS_REDEMPTION_REVERSAL:
                    count += 1
                    assert before.name == "PointsRedemption"
                    keys = [(each.table, each.award_id, each.points) for each in event.deductions]
                    assert keys == [(each.table, each.award_id, each.points) for each in before.deductions]
                    assert all(rows[each[:2]].status == "AVAILABLE" for each in keys)
                    assert all(remaining(rows[each[:2]]) >= each[2] for each in keys)
        assert count

    def test_a_transfer_gives_a_promotion_row_to_the_receiver(self) -> None:
        count = 0
        for sender, receiver in zip(customers(), customers()[1:], strict=False):
            sent = [each for event in sender.events for each in event.deductions if "TRANSFER" in each.kind]
            for taken in sent:
                gifts = [e.awards[0] for e in receiver.events if e.name == "PointsTransfer" and e.awards]
                assert [Decimal(each.points) for each in gifts] == [taken.points]
                assert gifts[0].table == "points_awarded_customer_promotions"
                count += 1
        assert count > 10

    def test_a_bill_that_came_back_after_its_points_were_spent(self) -> None:
        rows = [row for each in WORLD.customer_ids for row in WORLD.promotions(each) if not row["points_value"]]
        assert rows
        assert all(row["redeemed_value"] > 0 for row in rows)

    def test_deductions_name_awards_and_stay_within_what_was_taken(self) -> None:
        """Per award, redemptions that were not reversed are no more than its redeemed points, returns likewise."""
        for customer in customers():
            rows = {(award.table, award.row["id"]): award for award in customer.awards}
            taken: Counter[tuple[str, int, str]] = Counter()
            reversed_ = {
                id(before)
                for before, event in zip(customer.events, customer.events[1:], strict=False)
                if event.event_type_id == EventType.POINTS_REDEMPTION_REVERSAL
            }
            for event in customer.events:
                for each in event.deductions if id(event) not in reversed_ else ():
                    if each.kind != "REDEMPTION_REVERSAL":
                        column = "returned" if each.kind == "RETURN" else "redeemed"
                        taken[each.table, each.award_id, column] += int(each.points * 1000)
            for (table, award_id, column), thousandths in taken.items():
                row = rows[table, award_id].row
                whole = row.get(f"{column}_exclusive_value", row.get(f"{column}_value"))
                assert thousandths <= whole * 1000

    def test_what_the_endpoints_show_understates_a_balance(self) -> None:
        everything = sum(remaining(award) for award in awards(WORLD.point_category_id) if award.status == "AVAILABLE")
        allocations = sum(WORLD.totals().left_by_month.values())
        shown = sum(
            remaining(award)
            for award in awards(WORLD.point_category_id)
            if award.status == "AVAILABLE" and award.table in (TABLE, LINES)
        )
        assert 0 < allocations < shown < everything


class TestPublicDerivations:
    @pytest.mark.parametrize("table", [TABLE, LINES, "points_awarded_customer_promotions", None])
    def test_remaining_of_awards(self, table: str | None) -> None:
        four = [Decimal(each) for each in ("10", "1.5", "2", "0.001")]
        names = ("points_exclusive", *DEDUCTED)
        record = PointsAwarded(source_table=table, **dict(zip(names, four, strict=True)))
        assert record.remaining == Decimal("6.499")
        for name in names:
            values = dict(zip(names, four, strict=True)) | {name: None}
            assert PointsAwarded(source_table=table, **values).remaining is None

    def test_remaining_is_never_rounded(self) -> None:
        """Also beyond the 28 digits of the ambient context."""
        zeros = dict.fromkeys(DEDUCTED, Decimal("0.001"))
        record = PointsAwarded(points_exclusive=Decimal("1" + "0" * 40), **zeros)
        assert str(record.remaining) == "9" * 40 + ".997"

    def test_a_deduction_names_its_award(self) -> None:
        for table, kind in REF_TYPES.items():
            assert PointsDeduction(point_awarded_ref_type=kind, point_awarded_ref_id=7).award_key == (table, 7)
        assert PointsDeduction(point_awarded_ref_type="NEW_KIND", point_awarded_ref_id=7).award_key is None
        assert PointsDeduction(point_awarded_ref_type="POINT_AWARDED").award_key is None


async def test_the_joins_through_the_sdk(session_at: Any) -> None:
    """Allocation to ledger by event log id, ledger to loyalty event by unique id, loyalty event to allocations."""
    async with Sandbox(customers=12) as sandbox:
        session: AsyncSession = session_at(sandbox.url, auth=sandbox.auth)
        customer = sandbox.customer_ids[0]
        allocations = await session.points_allocation.by_expiry(
            entity_id=customer,
            program_id=sandbox.program_id,
            point_category_id=sandbox.point_category_id,
            expiry_date_start=sandbox.expiry_date_start,
            expiry_date_end=sandbox.expiry_date_end,
        ).collect()
        loyalty = {event.unique_id: event for event in await session.loyalty_events.list(customer).collect()}
        log_ids = {row.event_log_id for row in allocations} - {None, -1}
        entries = await session.points_ledger.explode(
            identifier=Identifier.customer_id(customer), source="INSTORE", event_ids=sorted(log_ids)
        ).collect()
        assert {entry.event_log_id for entry in entries} == log_ids
        assert not log_ids & {event.id for event in loyalty.values()}
        for entry in entries:
            event = loyalty[entry.unique_id]
            assert event.event_name == entry.event_name
            own = [row for row in allocations if row.event_log_id == entry.event_log_id]
            found = await session.points_allocation.by_event(
                entity_id=event.unique_id, customer_id=customer, event_type_id=own[0].event_type_id
            ).collect()
            assert {row.id for row in own} <= {row.id for row in found}


async def test_the_history_of_a_customer_joins(session_at: Any) -> None:
    """Allocations, awards, ledger entries and loyalty events find each other; what has no partner is named."""
    async with Sandbox(customers=12) as sandbox:
        session: AsyncSession = session_at(sandbox.url, auth=sandbox.auth)
        customer = sandbox.customer_ids[0]
        history = await session.history(
            customer,
            program_id=sandbox.program_id,
            point_category_id=sandbox.point_category_id,
            expiry_date_start=sandbox.expiry_date_start,
            expiry_date_end=sandbox.expiry_date_end,
        )
        named = [entry for entry in history if entry.event_log_id is not None]
        assert {entry.event_log_id for entry in named} == {
            row["event_log_id"] for row in sandbox.awarded(customer) if row["event_log_id"] != -1
        }
        assert all(len(entry.loyalty_events) == 1 for entry in named)
        assert all({a.id for a in entry.allocations} <= {w.id for w in entry.awards} for entry in named)
        assert sum(len(entry.allocations) for entry in history) == len(sandbox.allocations(customer))


async def test_members_of_promised_points_are_read(session_at: Any) -> None:
    """`conversionDate`, `isTransferable` and the `maxConversionDate` of the event's details, which no page shows."""
    async with Sandbox(customers=40) as sandbox:
        session: AsyncSession = session_at(sandbox.url, auth=sandbox.auth)
        owner, event = next(
            (each, event)
            for each in sandbox.customer_ids
            if (found := sandbox._world.customer(each)) is not None
            for event in found.events
            if any(award.point_category_id == sandbox.promised_category_id for award in event.awards)
        )
        (entry,) = await session.points_ledger.explode(
            identifier=Identifier.customer_id(owner),
            source="INSTORE",
            event_ids=[event.log_id],
            include=LedgerInclude(bill_details=True, max_conversion_details=True),
        ).collect()
        (promised,) = entry.bill_details.points_earned.promised
        assert promised.conversion_date
        assert promised.is_transferable is False
        assert entry.event_details.max_conversion_date


async def test_the_samples_of_all_five_pages_reconcile(session_at: Any, tmp_path: Path) -> None:
    """Put together into one sandbox, exported and compared with each other: no rule is broken as an error."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    ids = [383474113, 374819205, 566135941, 388034468, 387993857, 565039505, 565039506]
    async with Sandbox(customers=0) as sandbox:
        session: AsyncSession = session_at(sandbox.url, auth=sandbox.auth)
        days = {"expiry_date_start": sandbox.expiry_date_start, "expiry_date_end": sandbox.expiry_date_end}
        span = {f"{name.partition('_date_')[2]}_expiry_date": value for name, value in days.items()}
        scopes = {"a": (2282, 17383), "b": (3379, 40022)}
        for name, (program, category) in scopes.items():
            scope: dict[str, Any] = {"program_id": program, "point_category_id": category}
            out = tmp_path / f"allocations-{name}"
            await jobs.export("allocations", ids, out, session=session, **scope, **days)
            awarded = tmp_path / f"awarded-{name}"
            await jobs.export("awarded", ids, awarded, session=session, status="AVAILABLE", **scope, **span)
            pairs = [
                pair
                for folder in (out, awarded)
                for shard in (folder / "shards").glob("*.parquet")
                for pair in jobs.ids_in_parquet(shard, "customer_id", "event_log_id")
            ]
            events_out, ledger = tmp_path / f"events-{name}", tmp_path / f"ledger-{name}"
            assert (await jobs.export("events", ids, events_out, session=session)).complete
            assert (await jobs.export("ledger", pairs, ledger, session=session)).complete
            others = {"with_awarded": awarded, "with_events": events_out, "with_ledger": ledger}
            result = await jobs.reconcile(out, **others)
            assert result.records
            assert result.equal, [each.rule.name for each in result.broken]
            assert not {each.rule.name for each in result.broken} & {
                *("award-has-allocation", "allocation-has-event", "allocation-has-ledger-entry"),
            }
            for folder in others.values():
                assert (await jobs.reconcile(folder)).equal
        whole = [(565039506, log_id) for log_id in sandbox.event_log_ids(565039506)]
        assert (await jobs.export("ledger", whole, tmp_path / "whole", session=session)).complete
        assert (await jobs.reconcile(tmp_path / "whole")).equal


@pytest.mark.parametrize("format_name", ["parquet", "jsonl"])
async def test_deductions_of_the_ledger_find_their_awards(session_at: Any, tmp_path: Path, format_name: Any) -> None:
    """Nested as an export writes them: all awards are there, and one that an export lacks is named in a note."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    async with Sandbox(customers=12) as sandbox:
        session: AsyncSession = session_at(sandbox.url, auth=sandbox.auth)
        taken = {
            (customer.id, each.award_id)
            for one in sandbox.customer_ids
            if (customer := sandbox._world.customer(one)) is not None
            for event in customer.events
            for each in event.deductions
            if each.table == TABLE and each.kind == "MANUAL_ADJUSTMENT"
        }
        scope: dict[str, Any] = {
            "program_id": sandbox.program_id,
            "point_category_id": sandbox.point_category_id,
            "expiry_date_start": sandbox.expiry_date_start,
            "expiry_date_end": sandbox.expiry_date_end,
        }
        pairs = [(one, log_id) for one in sandbox.customer_ids for log_id in sandbox.event_log_ids(one)]
        await jobs.export("ledger", pairs, tmp_path / "ledger", session=session, format=format_name)
        others = sorted(set(sandbox.customer_ids) - {min(taken)[0]})
        for name, ids in (("whole", list(sandbox.customer_ids)), ("part", others)):
            await jobs.export("allocations", ids, tmp_path / name, session=session, **scope)
        rule = "deduction-has-allocation"
        whole = await jobs.reconcile(tmp_path / "whole", with_ledger=tmp_path / "ledger")
        assert rule in {each.rule.name for each in whole.findings}
        assert rule not in {each.rule.name for each in whole.broken}
        part = await jobs.reconcile(tmp_path / "part", with_ledger=tmp_path / "ledger")
        (found,) = (each for each in part.broken if each.rule.name == rule)
        missing = {
            f"points were taken from {TABLE} {award}, which is no row" for one, award in taken if one not in others
        }
        assert {example.detail for example in found.examples} == missing
        assert not found.is_error
