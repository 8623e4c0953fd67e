"""The sandbox's world: the same for the same seed, coherent in itself, and large without cost."""

import hashlib
import time
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from capillary_async.models import PointsStatus, SourceTable
from capillary_async.sandbox import Sandbox
from capillary_async.sandbox._world.records import TODAY

IST = timezone(timedelta(hours=5, minutes=30))
SHARED = (
    *("points_exclusive", "redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value"),
    "customer_id",
)
EXCLUSIVE = ("redeemed_exclusive_value", "returned_exclusive_value", "expired_exclusive_value")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(customers=300, seed=7)


def everything(sandbox: Sandbox) -> bytes:
    rows = [
        (sandbox.allocations(each), sandbox.awarded(each), sandbox.events(each)) for each in sandbox.customer_ids[:40]
    ]
    return msgspec.json.Encoder(decimal_format="number").encode(rows)


class TestSeed:
    def test_the_same_seed_gives_the_same_rows(self) -> None:
        assert everything(Sandbox(seed=3)) == everything(Sandbox(seed=3)) != everything(Sandbox(seed=4))

    def test_the_rows_are_the_same_on_every_python(self) -> None:
        """A change here changes what users' tests saw: say so in the changelog."""
        assert hashlib.sha256(everything(Sandbox(seed=7))).hexdigest() == PINNED

    def test_a_customer_is_the_same_whoever_stands_beside(self) -> None:
        """Growing on demand, in any order, changes nothing."""
        small, large = Sandbox(customers=20, whales=0), Sandbox(customers=5000, whales=0)
        large.totals(large.customer_ids[100:120])
        assert small.allocations(small.customer_ids[9]) == large.allocations(large.customer_ids[9])

    def test_a_hundred_thousand_start_at_once(self) -> None:
        began = time.process_time()
        sandbox = Sandbox(customers=100_000)
        assert len(sandbox.customer_ids) == 100_000
        assert sandbox.allocations(sandbox.customer_ids[-1])
        assert time.process_time() - began < 1


class TestRows:
    def test_exclusive_points_add_up_and_agree_with_the_status(self, sandbox: Sandbox) -> None:
        for customer_id in sandbox.customer_ids:
            for row in sandbox.allocations(customer_id):
                redeemed, returned, expired = (row[column] for column in EXCLUSIVE)
                exclusive = row["points_exclusive"]
                left = exclusive - redeemed - returned - expired
                assert min(redeemed, returned, expired, left) >= 0
                assert exclusive > 0
                alive = row["expiry_date"] > TODAY.timestamp() * 1000
                assert AGREES[row["status"]](exclusive, redeemed, returned, expired, left, alive), row

    def test_amounts_are_exact_with_three_decimals_at_most(self, sandbox: Sandbox) -> None:
        kinds = set()
        for customer_id in sandbox.customer_ids[:100]:
            for row in sandbox.allocations(customer_id):
                amount = row["points_exclusive"]
                kinds.add(type(amount))
                assert isinstance(amount, int) or -3 <= int(amount.as_tuple().exponent) < 0
        assert kinds == {int, Decimal}

    def test_expiry_is_the_last_second_of_a_day_in_india(self, sandbox: Sandbox) -> None:
        for customer_id in sandbox.customer_ids[:50]:
            for row in sandbox.allocations(customer_id):
                expiry = datetime.fromtimestamp(row["expiry_date"] / 1000, IST)
                assert (expiry.hour, expiry.minute, expiry.second) == (23, 59, 59)
                assert sandbox.expiry_date_start < expiry.astimezone(UTC).date() < sandbox.expiry_date_end
                assert row["awarded_date"] < row["expiry_date"]

    def test_each_allocation_is_an_award_of_its_table_and_has_its_event(self, sandbox: Sandbox) -> None:
        for customer_id in sandbox.customer_ids[:100]:
            what = ("id", "event_log_id", *SHARED)
            awards = [row for row in sandbox.awarded(customer_id) if row["source_table"] == "points_awarded"]
            rows = sandbox.allocations(customer_id)
            assert [[row[each] for each in what] for row in rows] == [[row[each] for each in what] for row in awards]
            assert {row["event_log_id"] for row in rows} <= {*sandbox.event_log_ids(customer_id), -1}
            assert all(row["customerId"] == customer_id for row in sandbox.events(customer_id))

    def test_ids_are_unique_except_between_tables(self, sandbox: Sandbox) -> None:
        people = sandbox.customer_ids
        for rows in (sandbox.allocations, sandbox.events):
            ids = [row["id"] for each in people for row in rows(each)]
            assert len(ids) == len(set(ids))
        keys = [(row["source_table"], row["id"]) for each in people for row in sandbox.awarded(each)]
        assert len(keys) == len(set(keys))
        assert len({key[1] for key in keys}) < len(keys)
        assert {key[0] for key in keys} == set(SourceTable)
        assert max(key[1] for key in keys) > 2**32

    def test_every_status_occurs(self, sandbox: Sandbox) -> None:
        assert set(sandbox.totals().by_status) == set(PointsStatus)
        assert sandbox.awarded(sandbox.customer_ids[0], "NONE") == []

    def test_there_are_customers_with_no_row_a_page_and_full_pages(self, sandbox: Sandbox) -> None:
        sizes = [len(sandbox.allocations(each)) for each in sandbox.customer_ids]
        assert {0, 1, 10, 100} <= set(sizes)
        assert sum(size > 100 for size in sizes) == len(sandbox.whale_ids) == 3
        assert all(2000 <= len(sandbox.allocations(each)) <= 4000 for each in sandbox.whale_ids)
        assert any(not sandbox.events(each) for each in sandbox.customer_ids)

    def test_events_come_in_order_of_time(self, sandbox: Sandbox) -> None:
        for customer_id in sandbox.customer_ids[:60]:
            events = [(row["date"], row["id"]) for row in sandbox.events(customer_id)]
            assert events == sorted(events)

    def test_a_survivor_holds_rows_of_the_merged_customer(self, sandbox: Sandbox) -> None:
        rows = [row for each in sandbox.customer_ids[:3] for row in sandbox.allocations(each)]
        assert {row["original_customer_id"] for row in rows} & set(sandbox.merged_ids)

    def test_what_is_given_is_a_copy(self, sandbox: Sandbox) -> None:
        first = sandbox.customer_ids[0]
        sandbox.allocations(first)[0]["id"] = 0
        assert sandbox.allocations(first)[0]["id"] != 0


class TestIds:
    def test_special_ids_are_nobodys(self, sandbox: Sandbox) -> None:
        for each in (*sandbox.merged_ids, *sandbox.group_ids, sandbox.unknown_id):
            assert each not in sandbox.customer_ids
            assert sandbox.allocations(each) == sandbox.awarded(each) == sandbox.events(each) == []

    def test_whales_and_members_are_ordinary_customers(self, sandbox: Sandbox) -> None:
        assert set(sandbox.whale_ids) <= set(sandbox.customer_ids)
        members = [member for group in sandbox.group_ids for member in sandbox.members(group)]
        assert len(members) == len(set(members)) == 15
        assert set(members) <= set(sandbox.customer_ids)
        with pytest.raises(ValueError, match="not in range"):
            sandbox.members(sandbox.customer_ids[0])

    def test_whales_as_asked(self) -> None:
        sandbox = Sandbox(customers=2, whales=1, whale_rows=1501)
        assert len(sandbox.allocations(sandbox.whale_ids[0])) == 1501

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"customers": -1}, "customers takes"),
            ({"customers": 2, "whales": 3}, "whales takes 0 to 2"),
            ({"customers": 2, "whale_rows": 50_001}, "whale_rows takes 0 to 50000"),
        ],
    )
    def test_numbers_that_cannot_be_are_refused(self, options: dict[str, int], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            Sandbox(**options)

    def test_a_world_without_customers(self) -> None:
        sandbox = Sandbox(customers=0)
        assert (len(sandbox.customer_ids), len(sandbox.group_ids), sandbox.whale_ids) == (0, 0, ())
        assert sandbox.totals().allocations == 0


class TestTotals:
    def test_they_are_the_sums_of_the_rows(self, sandbox: Sandbox) -> None:
        people = sandbox.customer_ids[:30]
        totals = sandbox.totals([*people, people[0]])
        rows = [row for each in people for row in sandbox.allocations(each)]
        assert (totals.customers, totals.allocations) == (30, len(rows))
        assert totals.events == sum(len(sandbox.events(each)) for each in people)
        for column, total in totals.points.items():
            assert total == sum(Decimal(row[column]) for row in rows)

    def test_awards_and_allocations_agree(self, sandbox: Sandbox) -> None:
        totals = sandbox.totals()
        lines = [
            row
            for each in sandbox.customer_ids
            for row in sandbox.awarded(each)
            if row["source_table"] == "points_awarded_bill_lineitems"
        ]
        assert totals.awarded == totals.allocations + len(lines)
        for column, total in totals.awarded_points.items():
            assert total == totals.points[column] + sum(Decimal(row[column]) for row in lines)
        assert sum(totals.by_status.values()) == totals.points["points_exclusive"]
        assert sum(totals.awarded_by_status.values()) == totals.awarded_points["points_exclusive"]

    def test_ids_without_rows_count_for_nothing(self, sandbox: Sandbox) -> None:
        totals = sandbox.totals([sandbox.unknown_id])
        assert (totals.customers, totals.allocations, totals.events) == (1, 0, 0)


AGREES = {
    "AVAILABLE": lambda e, r, t, x, left, alive: alive and left > 0 and x == 0,
    "EXPIRED": lambda e, r, t, x, left, alive: not alive and x == e,
    "REDEEMED": lambda e, r, t, x, left, alive: r == e,
    "CONSUMED_BY_CONVERSION": lambda e, r, t, x, left, alive: r == e,
    "CONSUMED": lambda e, r, t, x, left, alive: not alive and r > 0 and x > 0 and r + x == e,
    "RETURNED": lambda e, r, t, x, left, alive: t == e,
    "INACTIVE": lambda e, r, t, x, left, alive: left == e,
    "POINT_CATEGORY_CHANGED": lambda e, r, t, x, left, alive: left == e,
}
PINNED = "40f0d1675c429c32c94ceb92a856f2401185fa9327a8b619ba1074e05ce99970"


class TestToday:
    """The day of the world."""

    @pytest.mark.parametrize("day", [date(2026, 1, 15), date(2026, 11, 26), date(2027, 2, 28)])
    def test_what_expired_is_not_available(self, day: date) -> None:
        """On any day; and some that is left has not expired."""
        sandbox = Sandbox(customers=12, today=day)
        assert sandbox.today == day
        rows = [row for customer in sandbox.customer_ids for row in sandbox.allocations(customer)]
        alive = [row for row in rows if row["status"] == "AVAILABLE"]
        assert alive
        assert min(row["expiry_date"] for row in alive) > datetime.combine(day, clock(), UTC).timestamp() * 1000
        assert (day == date(2026, 1, 15)) == (rows == _rows(Sandbox(customers=12)))

    @pytest.mark.parametrize(
        "day", [date(2026, 1, 14), date(2031, 1, 1), "2026-02-01", datetime(2026, 2, 1, tzinfo=UTC)]
    )
    def test_days_that_are_none(self, day: Any) -> None:
        with pytest.raises(ValueError, match="today takes a date from 2026-01-15 to 2030-12-31, got "):
            Sandbox(today=day)


def _rows(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [row for customer in sandbox.customer_ids for row in sandbox.allocations(customer)]
