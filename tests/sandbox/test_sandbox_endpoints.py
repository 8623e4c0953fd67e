"""The sandbox's five endpoints as values in, values out: parameters, filters, paging, and every documented refusal."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from capillary_async.sandbox import Sandbox
from capillary_async.sandbox._faults.schedule import Script
from capillary_async.sandbox._protocol.answers import Answer, Refused
from capillary_async.sandbox._server.routes import Setup, answer_to

SANDBOX = Sandbox(customers=60, whales=1, whale_rows=1600)
WORLD = SANDBOX._world
FIRST, SECOND = SANDBOX.customer_ids[:2]
RICH = next(each for each in SANDBOX.customer_ids if len(SANDBOX.allocations(each)) == 100)
WHALE = SANDBOX.whale_ids[0]
PAGED = "/x/neo/pointsAllocation/dateRange"
BY_EVENT = "/x/neo/pointsAllocation/event"
AWARDED = "/x/neo/pointsAwarded/paIds"
LEDGER = "/v2/pointsLedger/getLedgerExplodeInfo"
SCOPE = {"x-cap-neo-dag-scope": "global"}
SCOPED = {"program_id": SANDBOX.program_id, "point_category_id": SANDBOX.point_category_id}
RANGE = {"expiry_date_start": SANDBOX.expiry_date_start, "expiry_date_end": SANDBOX.expiry_date_end} | SCOPED
AWARDS = {
    "start_expiry_date": SANDBOX.expiry_date_start,
    "end_expiry_date": SANDBOX.expiry_date_end,
    "status": "AVAILABLE",
} | SCOPED
WHO = {"identifierName": "id", "identifierValue": FIRST, "source": "INSTORE"}


def answer(
    path: str, params: dict[str, Any], headers: Any = None, *, status: int = 400, unknown: Any = "error"
) -> Answer:
    texts = {name: str(value) for name, value in params.items()}
    setup, play = Setup(WORLD, status, unknown), Script().play(path, 1)
    try:
        return answer_to(setup, path, texts, SCOPE if headers is None else headers, play)
    except Refused as refused:
        return refused.answer


def read(path: str, params: dict[str, Any], **options: Any) -> Any:
    """What a good call is answered with, numbers exact."""
    good = answer(path, params, **options)
    assert good.status == 200, good.body
    return msgspec.json.Decoder(float_hook=Decimal).decode(good.body)


def refusal(path: str, params: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The one error of a refused call, and its HTTP status."""
    bad = answer(path, params, **options)
    (error,) = msgspec.json.decode(bad.body)["errors"]
    assert error["status"] is False
    return error | {"http": bad.status}


def without(params: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != name}


class TestByExpiry:
    def test_pages_make_the_whole(self) -> None:
        pages = [read(PAGED, RANGE | {"entity_id": RICH, "page": n, "count": 30}) for n in range(1, 6)]
        assert [len(page) for page in pages] == [30, 30, 30, 10, 0]
        assert [row for page in pages for row in page] == SANDBOX.allocations(RICH)

    def test_ten_rows_from_page_one_are_the_default(self) -> None:
        assert read(PAGED, RANGE | {"entity_id": RICH}) == SANDBOX.allocations(RICH)[:10]

    def test_a_full_last_page_is_followed_by_an_empty_one(self) -> None:
        params = RANGE | {"entity_id": RICH, "count": 100}
        assert len(read(PAGED, params)) == 100
        assert read(PAGED, params | {"page": 2}) == []

    def test_both_days_of_the_span_count(self) -> None:
        row = SANDBOX.allocations(RICH)[0]
        day = datetime.fromtimestamp(row["expiry_date"] / 1000, UTC).date()
        found = read(PAGED, RANGE | {"entity_id": RICH, "expiry_date_start": day, "expiry_date_end": day, "count": 100})
        assert row in found
        assert {each["expiry_date"] for each in found} == {row["expiry_date"]}

    @pytest.mark.parametrize("other", [{"program_id": 1}, {"point_category_id": 1}, {"entity_id": SANDBOX.unknown_id}])
    def test_others_have_no_rows(self, other: dict[str, int]) -> None:
        assert read(PAGED, RANGE | {"entity_id": RICH} | other) == []

    @pytest.mark.parametrize("each", [SANDBOX.merged_ids[0], SANDBOX.group_ids[0]])
    def test_merged_customers_and_groups_have_no_rows(self, each: int) -> None:
        assert read(PAGED, RANGE | {"entity_id": each}) == []

    @pytest.mark.parametrize("name", [*RANGE, "entity_id"])
    def test_a_missing_parameter_is_named(self, name: str) -> None:
        error = refusal(PAGED, without(RANGE | {"entity_id": RICH}, name))
        assert (error["code"], error["http"]) == (400, 400)
        assert error["message"] == f"Required parameter is missing: {name}"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("page", "0"),
            ("page", "x"),
            ("count", "0"),
            ("count", "101"),
            ("count", "-1"),
            ("count", ""),
            ("entity_id", "12x"),
            ("entity_id", "0"),
            ("entity_id", "\u0661"),
            ("expiry_date_start", "2025-6-1"),
            ("expiry_date_start", "2025-02-30"),
            ("expiry_date_start", "20250601"),
        ],
    )
    def test_a_malformed_parameter_is_named(self, name: str, value: str) -> None:
        error = refusal(PAGED, RANGE | {"entity_id": RICH} | {name: value})
        assert (error["code"], error["http"]) == (400, 400)
        assert error["message"].startswith(f"Invalid value for parameter {name}: {value!r}")

    def test_swapped_days_are_refused(self) -> None:
        error = refusal(PAGED, RANGE | {"entity_id": RICH, "expiry_date_end": "2019-01-01"})
        assert error["message"] == "expiry_date_start 2020-01-01 is after expiry_date_end 2019-01-01"

    @pytest.mark.parametrize("headers", [{}, {"x-cap-neo-dag-scope": "org"}])
    @pytest.mark.parametrize("path", [PAGED, BY_EVENT, AWARDED])
    def test_the_scope_header_is_needed(self, path: str, headers: dict[str, str]) -> None:
        assert "x-cap-neo-dag-scope must be global" in refusal(path, RANGE, headers=headers)["message"]


class TestByEvent:
    @staticmethod
    def events(customer_id: int) -> list[Any]:
        customer = WORLD.customer(customer_id)
        assert customer is not None
        return list(customer.events)

    def params(self, entity_id: object, event: Any) -> dict[str, Any]:
        return {"entity_id": entity_id, "customer_id": event.row["customerId"], "event_type_id": event.event_type_id}

    def test_an_event_is_found_by_each_of_its_names(self) -> None:
        for event in self.events(RICH):
            assert list(event.allocations) == read(BY_EVENT, self.params(event.row["uniqueId"], event) | {"count": 100})
            same = [each for each in self.events(RICH) if (each.reference, each.name) == (event.reference, event.name)]
            rows = [row for each in same for row in each.allocations]
            found = read(BY_EVENT, self.params(event.reference, event) | {"count": 100})
            assert found == ([] if event.reference == "-1" else rows)

    def test_other_ids_of_an_event_find_nothing(self) -> None:
        """The id of a loyalty event is of another series, and that an event log id is taken is doubtful."""
        for event in self.events(RICH):
            for entity_id in (event.log_id, event.row["id"]):
                assert read(BY_EVENT, self.params(entity_id, event)) == []

    def test_a_large_event_has_pages(self) -> None:
        event = max(self.events(WHALE), key=lambda each: len(each.allocations))
        asked = self.params(event.row["uniqueId"], event)
        pages = [read(BY_EVENT, asked | {"count": 100, "page": n}) for n in (1, 2, 3)]
        assert [len(page) for page in pages] == [100, len(event.allocations) - 100, 0]
        assert [row for page in pages for row in page] == list(event.allocations)

    def test_the_type_and_the_customer_must_be_right(self) -> None:
        event = next(each for each in self.events(RICH) if each.allocations)
        params = self.params(event.row["uniqueId"], event)
        assert read(BY_EVENT, params)
        assert read(BY_EVENT, params | {"event_type_id": 88}) == []
        assert read(BY_EVENT, params | {"customer_id": FIRST}) == []
        assert read(BY_EVENT, params | {"customer_id": SANDBOX.unknown_id}) == []

    @pytest.mark.parametrize("name", ["entity_id", "customer_id", "event_type_id"])
    def test_a_missing_parameter_is_named(self, name: str) -> None:
        params = {"entity_id": "x", "customer_id": 1, "event_type_id": 15}
        assert refusal(BY_EVENT, without(params, name))["message"].endswith(name)


class TestAwarded:
    def test_statuses_together_are_everything(self) -> None:
        statuses = {row["status"] for row in SANDBOX.allocations(RICH)}
        rows = [row for each in statuses for row in read(AWARDED, AWARDS | {"entity_id": RICH, "status": each})]
        key = lambda row: (row["source_table"], row["id"])  # noqa: E731
        assert sorted(rows, key=key) == sorted(SANDBOX.awarded(RICH), key=key)

    @pytest.mark.parametrize("separator", [",", ", ", " , "])
    def test_several_customers_at_once(self, separator: str) -> None:
        ids = [RICH, FIRST, SANDBOX.unknown_id, FIRST]
        rows = read(AWARDED, AWARDS | {"entity_id": separator.join(map(str, ids))})
        expected = [row for each in (FIRST, RICH) for row in SANDBOX.awarded(each, "AVAILABLE")]
        assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in expected)
        assert rows == sorted(rows, key=lambda row: (row["source_table"], row["customer_id"]))

    def test_a_group_gives_the_rows_of_its_members_once(self) -> None:
        group = SANDBOX.group_ids[1]
        members = SANDBOX.members(group)
        rows = read(AWARDED, AWARDS | {"entity_id": f"{group},{members[0]}"})
        expected = [row for each in members for row in SANDBOX.awarded(each, "AVAILABLE")]
        assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in expected)
        assert {row["customer_id"] for row in rows} <= set(members)

    @pytest.mark.parametrize(
        ("other", "there"),
        [({"org_id": SANDBOX.org_id}, True), ({"org_id": 1}, False), ({"program_id": 1}, False), ({}, True)],
    )
    def test_other_organisations_and_programs_have_no_rows(self, other: dict[str, int], there: bool) -> None:
        assert bool(read(AWARDED, AWARDS | {"entity_id": RICH} | other)) is there

    def test_the_span_bounds_the_rows(self) -> None:
        params = AWARDS | {"entity_id": RICH, "start_expiry_date": "2020-01-01", "end_expiry_date": "2020-12-31"}
        assert read(AWARDED, params) == []

    @pytest.mark.parametrize("name", [*AWARDS, "entity_id"])
    def test_a_missing_parameter_is_named(self, name: str) -> None:
        assert refusal(AWARDED, without(AWARDS | {"entity_id": 1}, name))["message"].endswith(name)

    @pytest.mark.parametrize(("name", "value"), [("entity_id", "1,x"), ("entity_id", "1,,2"), ("status", "SPENT")])
    def test_a_malformed_parameter_is_named(self, name: str, value: str) -> None:
        error = refusal(AWARDED, AWARDS | {"entity_id": 1} | {name: value})
        assert error["message"].startswith(f"Invalid value for parameter {name}")


class TestLoyaltyEvents:
    @staticmethod
    def path(customer_id: object) -> str:
        return f"/v2/customers/{customer_id}/loyaltyEvents"

    def rows(self, customer_id: int, **params: Any) -> Any:
        body = read(self.path(customer_id), params)
        assert (body["warnings"], body["errors"]) == ([], [])
        return body["data"]

    def test_pages_make_the_whole(self) -> None:
        whole = SANDBOX.events(RICH)
        pages = [self.rows(RICH, limit=20, page=n, offset=20 * (n - 1)) for n in range(1, len(whole) // 20 + 3)]
        assert list(itertools.chain(*pages)) == whole
        assert pages[-1] == []

    def test_page_overrides_offset(self) -> None:
        whole = SANDBOX.events(RICH)
        assert self.rows(RICH) == whole[:10]
        assert self.rows(RICH, offset=3, limit=4) == whole[3:7]
        assert self.rows(RICH, offset=3, limit=4, page=2) == whole[4:8]

    def test_filters_by_day(self) -> None:
        whole = SANDBOX.events(RICH)
        day = whole[5]["date"][:10]
        expected = [row for row in whole if row["date"][:10] == day]
        assert self.rows(RICH, fromDate=day, toDate=day, limit=1000) == expected
        assert self.rows(RICH, fromDate=day, limit=1000) == [row for row in whole if row["date"][:10] >= day]

    def test_filters_by_kind(self) -> None:
        whole = SANDBOX.events(WHALE)
        for kind, names in (
            ("CustomerUpdate", {"CustomerUpdate"}),
            ("REDEEM", {"PointsRedemption", "VoucherRedemption"}),
            ("EXPIRE", {"PointsExpiry"}),
            ("TRANSFER", {"PointsTransfer"}),
        ):
            found = self.rows(WHALE, eventType=kind, limit=9999)
            assert found == [row for row in whole if row["eventName"] in names]
        customer = WORLD.customer(WHALE)
        assert customer is not None
        earned = [event.row for event in customer.events if event.awards]
        assert self.rows(WHALE, eventType="EARN", limit=9999) == earned
        assert self.rows(WHALE, eventType="Unheard") == []

    @pytest.mark.parametrize("status", [400, 200])
    @pytest.mark.parametrize("customer_id", [SANDBOX.unknown_id, "12x", SANDBOX.group_ids[0]])
    def test_an_unknown_customer_is_8015(self, customer_id: object, status: int) -> None:
        error = refusal(self.path(customer_id), {}, status=status)
        assert (error["code"], error["http"]) == (8015, status)

    def test_a_merged_customer_is_8069(self) -> None:
        error = refusal(self.path(SANDBOX.merged_ids[0]), {})
        assert (error["code"], error["message"]) == (8069, f"Merged customer found, survivor {FIRST}")
        assert Sandbox(customers=0)._world.survivor(SANDBOX.merged_ids[0]) is None

    @pytest.mark.parametrize(("name", "value"), [("limit", 0), ("page", 0), ("offset", -1), ("fromDate", "1.1.2025")])
    def test_a_malformed_parameter_is_named(self, name: str, value: object) -> None:
        error = refusal(self.path(FIRST), {name: value})
        assert (error["code"], error["http"]) == (400, 400)
        assert name in error["message"]


class TestLedgerWho:
    @pytest.mark.parametrize("name", ["mobile", "MOBILE", "email", "EXTERNALID", "id", "ID", "CustomerID"])
    def test_a_customer_is_found_by_each_identifier(self, name: str) -> None:
        known = {key.lower(): value for key, value in SANDBOX.identifiers(FIRST).items()}
        event = SANDBOX.event_log_ids(FIRST)[0]
        who = {"identifierName": name, "identifierValue": known[name.lower()], "source": "instore", "eventIds": event}
        assert read(LEDGER, who)["events"][0]["eventLogId"] == event

    def test_a_group_has_the_events_of_its_members(self) -> None:
        group = SANDBOX.group_ids[0]
        members = SANDBOX.members(group)
        ids = [SANDBOX.event_log_ids(member)[0] for member in members]
        params = {"source": "ALL", "eventIds": ",".join(map(str, ids))}
        by_group = {"identifierName": "id", "identifierValue": group, "type": "USERGROUP2"}
        by_primary = {"identifierName": "primaryUserId", "identifierValue": members[0], "isPrimaryUser": "true"}
        for who in (by_group, by_primary):
            assert [event["eventLogId"] for event in read(LEDGER, params | who)["events"]] == ids

    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"identifierName": ""}, 11013),
            ({"identifierValue": " "}, 11013),
            ({"source": ""}, 11013),
            ({"identifierName": "passport"}, 8013),
            ({"identifierValue": "12x"}, 11012),
            ({"source": "PIGEON"}, 11019),
            ({"type": "CROWD"}, 9003),
            ({"identifierName": "primaryUserId"}, 1632),
            ({"type": "USERGROUP2"}, 1632),
            ({"identifierValue": SANDBOX.unknown_id}, 8015),
            ({"identifierName": "email", "identifierValue": "nobody@example.com"}, 8015),
            ({"identifierName": "EXTERNALID", "identifierValue": "EXT-x"}, 8015),
            ({"identifierValue": SANDBOX.merged_ids[1]}, 8069),
        ],
    )
    @pytest.mark.parametrize("status", [400, 200])
    def test_refusals(self, changed: dict[str, Any], code: int, status: int) -> None:
        value = {"identifierValue": 5} if changed.get("identifierName") == "primaryUserId" else {}
        error = refusal(LEDGER, WHO | value | {"eventIds": 1} | changed, status=status)
        assert (error["code"], error["http"]) == (code, status)


class TestLedgerWhich:
    IDS = tuple(SANDBOX.event_log_ids(RICH))
    RICH = WHO | {"identifierValue": RICH}

    def test_events_come_in_the_order_asked(self) -> None:
        asked = [self.IDS[3], self.IDS[1], self.IDS[3], self.IDS[2]]
        body = read(LEDGER, self.RICH | {"eventIds": ", ".join(map(str, asked))})
        assert [event["eventLogId"] for event in body["events"]] == [self.IDS[3], self.IDS[1], self.IDS[2]]
        assert body["warnings"] == []

    def test_by_name_and_references(self) -> None:
        customer = WORLD.customer(RICH)
        assert customer is not None
        bills = [event for event in customer.events if event.row["eventName"] == "TransactionAdd"][:2]
        references = f"{bills[1].reference},{bills[0].reference},77"
        body = read(LEDGER, self.RICH | {"eventName": "TransactionAdd", "eventReferenceIds": references})
        assert [event["eventLogId"] for event in body["events"]] == [bills[1].log_id, bills[0].log_id]

    def test_one_id_may_have_two_entries(self) -> None:
        """The page shows a registration twice, and neither has a unique id."""
        body = read(LEDGER, WHO | {"identifierValue": 565039506, "eventIds": 27909380})
        assert [event["eventReferenceIds"] for event in body["events"]] == ["RefId1", "RefId2"]

    def test_an_unknown_id_fails_the_call_or_gives_null(self) -> None:
        params = self.RICH | {"eventIds": f"{self.IDS[0]},5,{self.IDS[1]}"}
        assert refusal(LEDGER, params)["code"] == 9021
        entries = read(LEDGER, params, unknown="null")["events"]
        assert [entry and entry["eventLogId"] for entry in entries] == [self.IDS[0], None, self.IDS[1]]

    @pytest.mark.parametrize(
        ("params", "code"),
        [
            ({"eventIds": IDS[0], "eventName": "TransactionAdd", "eventReferenceIds": 1}, 11021),
            ({"eventIds": IDS[0], "eventReferenceIds": 1}, 11021),
            ({"eventIds": ""}, 11023),
            ({}, 11023),
            ({"eventName": "TransactionAdd"}, 11023),
            ({"eventReferenceIds": 1}, 11023),
            ({"eventIds": "1,x"}, 11017),
            ({"eventIds": ",".join(map(str, range(1, 12)))}, 11016),
            ({"eventIds": 1}, 9021),
            ({"eventName": "Unheard", "eventReferenceIds": 1}, 11014),
            ({"eventName": "TransactionAdd", "eventReferenceIds": "1,2"}, 9022),
            ({"eventName": "AllocateGoodwillPoints", "eventReferenceIds": "-1"}, 9022),
            ({"eventName": "TransactionAdd", "eventReferenceIds": ",".join(map(str, range(11)))}, 11016),
            ({"eventIds": IDS[0], "alternateCurrencyNames": " ,"}, 9005),
        ],
    )
    def test_refusals(self, params: dict[str, Any], code: int) -> None:
        assert refusal(LEDGER, self.RICH | params)["code"] == code

    def test_unknown_currencies_are_warned_of(self) -> None:
        params = self.RICH | {"eventIds": self.IDS[0], "alternateCurrencyNames": "dummy,SandboxStars"}
        text = "alternate currency with given name not found for org, name: dummy"
        assert read(LEDGER, params)["warnings"] == [{"code": 9018, "message": text, "status": False}]

    def test_a_warning_is_given_once(self) -> None:
        params = WHO | {"identifierValue": 565039506, "eventIds": "24732968", "alternateCurrencyNames": "dummy"}
        assert len(read(LEDGER, params)["warnings"]) == 1


class TestLedgerParts:
    FLAGS = (
        "getBillDetails",
        "getPointsEarnedBreakup",
        "getCustomFields",
        "getExtendedFields",
        "getMaxConversionDetails",
        "getPaymentModes",
        "includeAlternateCurrencies",
    )

    def exploded(self, name: str, **flags: str) -> Any:
        """An event of that name of the whale, which has every kind."""
        customer = WORLD.customer(WHALE)
        assert customer is not None
        event = next(each for each in customer.events if each.name == name and (name != "GenericEvent" or each.awards))
        body = read(LEDGER, WHO | {"identifierValue": WHALE, "eventIds": event.log_id} | flags)
        return event, body["events"][0]

    def test_without_flags_only_the_event_is_told(self) -> None:
        event, entry = self.exploded("TransactionAdd", getBillDetails="false")
        assert set(entry) == {"eventLogId", "eventName", "eventDetails", "eventReferenceId", "uniqueId"}
        assert entry["eventDetails"]["eventTimeISO"] == event.row["date"]
        assert entry["eventDetails"]["eventTime"] == event.row["date"].replace("T", " ").replace("Z", ".0")

    def test_every_flag_adds_its_part(self) -> None:
        event, entry = self.exploded("TransactionAdd", **dict.fromkeys(self.FLAGS, "true"))
        bill = entry["billDetails"]
        assert {"customFields", "extendedFields", "paymentModes"} <= set(entry)
        assert "maxConversionDate" in entry["eventDetails"]
        assert {"pointsEarnedBreakup", "alternateCurrencyValueEarned", "lineItems"} <= set(bill)
        earned = [award.points for award in event.awards if award.point_category_id == SANDBOX.point_category_id]
        promoted = [award.points for award in event.awards if "promotion" in award.table]
        assert [part["value"] for part in bill["pointsEarned"]["promo"]] == promoted
        earned = [points for points in earned if points not in promoted]
        assert [part["value"] for part in bill["pointsEarned"]["regular"]] == earned
        assert [part["value"] for part in bill["pointsEarnedBreakup"]["regular"]] == earned
        assert bill["pointsEarned"]["regular"][0]["expiresOnISO"].endswith("T23:59:59+05:30")

    def test_parts_of_a_bill_that_is_not_asked_for_stand_beside_it(self) -> None:
        _, entry = self.exploded("TransactionAdd", getPointsEarnedBreakup="true", alternateCurrencyNames="SandboxStars")
        assert {"pointsEarnedBreakup", "alternateCurrencyValueEarned"} <= set(entry)
        assert "billDetails" not in entry

    @pytest.mark.parametrize(
        ("name", "members"),
        [
            ("PointsRedemption", {"pointsBreakup"}),
            ("GenericEvent", {"behavioralEventMetadata", "pointsEarned"}),
            ("TargetCompleted", {"targetCompletedDetails"}),
            ("ManualPointsAdjustment", {"manualPointsAdjustmentDetails"}),
            ("AllocateGoodwillPoints", {"pointsEarned"}),
            ("CustomerUpdate", set()),
        ],
    )
    def test_kinds_have_members_of_their_own(self, name: str, members: set[str]) -> None:
        event, entry = self.exploded(name)
        common = {"eventLogId", "eventName", "eventDetails", "eventReferenceId", "uniqueId"}
        assert set(entry) == common | members
        assert entry["uniqueId"] == event.row["uniqueId"]


def test_an_unknown_path_is_404_in_the_shape_of_its_api() -> None:
    for path in ("/x/neo/nothing", "/v2/nothing", "/"):
        assert refusal(path, {})["http"] == 404
