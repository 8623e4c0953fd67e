"""One ledger event written out, with the members that its kind and the include flags call for.

The rule kept here: quantities are those of the event's allocations, as Decimals or as text with three decimals, as the
page Get Points Ledger Explode Info shows them. `_ledger.py` calls `exploded`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from capillary_async.sandbox._records import IST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.sandbox._records import Event, Row

__all__ = ["CURRENCY", "exploded"]

CURRENCY = "SandboxStars"
_PROGRAM_NAME = "SandboxDefaultProgram"
_BILLED = frozenset(
    {
        *("NewBill", "TransactionAdd", "GroupTransactionAdd"),
        *("LineItemsPointsPromotionImport", "BillPointsPromotionImport", "ReturnBill"),
    }
)
_LISTS = {
    "getCustomFields": ("customFields", {"name": "card_number", "value": "123456"}),
    "getExtendedFields": ("extendedFields", {"name": "channel", "value": "store"}),
    "getPaymentModes": ("paymentModes", {"name": "UPI", "value": Decimal("200.00")}),
}


def exploded(event: Event, params: Mapping[str, str]) -> dict[str, Any]:
    """The event as the ledger answers it."""
    flags = frozenset(name for name, value in params.items() if value.lower() == "true")
    named = params.get("alternateCurrencyNames", "").split(",")
    if CURRENCY in (name.strip() for name in named):
        flags |= {"includeAlternateCurrencies"}
    entry: dict[str, Any] = {
        "eventLogId": event.id,
        "eventName": event.row["eventName"],
        "eventDetails": _details(event),
        **_earned_parts(event, flags),
        **_KINDS.get(event.row["eventName"], _nothing)(event),
        **{member: [example] for flag, (member, example) in _LISTS.items() if flag in flags},
    }
    if "getMaxConversionDetails" in flags:
        entry["maxConversionDate"] = _legacy(_moment(event))
    return entry | {"eventReferenceId": event.reference, "uniqueId": event.row["uniqueId"]}


def _details(event: Event) -> dict[str, Any]:
    details = {"eventTime": _legacy(_moment(event)), "eventTimeISO": event.row["date"], "tillId": event.till_id}
    if event.row["eventName"] == "PointsRedemption":
        details["redemptionDetails"] = {
            "pointsRedeemed": "20.000",
            "redemptionPurpose": "",
            "transactionNumber": f"txn-{event.reference}",
            "redemptionId": event.row["uniqueId"][:6],
            "notes": "",
            "groupRedemption": False,
        }
    return details


def _earned_parts(event: Event, flags: frozenset[str]) -> dict[str, Any]:
    """What the event earned: inside the bill where there is one and it is asked for, else beside it."""
    breakup = {"pointsEarnedBreakup": _breakup(event)} if "getPointsEarnedBreakup" in flags else {}
    currency = {"alternateCurrencyValueEarned": _currency()} if "includeAlternateCurrencies" in flags else {}
    name = event.row["eventName"]
    if name not in _BILLED:
        # A completed target tells its points within its own details.
        beside = bool(event.allocations) and name != "TargetCompleted"
        return {"pointsEarned": _earned(event), **breakup} if beside else breakup
    if "getBillDetails" not in flags:
        return breakup | currency
    return {"billDetails": {**_bill(event), "pointsEarned": _earned(event), **breakup, **currency}}


def _earned(event: Event) -> dict[str, Any]:
    rows = [_points(row) for row in event.allocations]
    if event.row["eventName"] in _BILLED:
        return {"regular": rows, "promo": [], "promised": []}
    promo = [{"promotionId": 1133595541, "promotionName": "Sandbox promotion", **row} for row in rows]
    return {"regular": [], "promo": promo, "promised": []}


def _points(row: Row) -> dict[str, Any]:
    moment = datetime.fromtimestamp(row["expiry_date"] // 1000, IST)
    return {
        "value": row["points_exclusive"],
        "expiresOn": _legacy(moment),
        "expiresOnISO": moment.isoformat(),
        "programId": row["program_id"],
        "programName": _PROGRAM_NAME,
        "expiryType": "fixed",
    }


def _breakup(event: Event) -> dict[str, Any]:
    moment = _moment(event)
    regular = [
        _points(row)
        | {"awardedOn": _legacy(moment), "awardedOnISO": event.row["date"], "sourceValue": row["points_exclusive"]}
        | {"allocationStrategyId": row["allocation_strategy_id"], "allocationStrategyName": "10x fixed"}
        | {"pointsCategoryId": row["point_category_id"], "pointsCategoryName": "Main"}
        | {"expiryStrategyId": row["expiry_strategy_id"], "expiryStrategyName": "NUM_MONTHS_END12"}
        for row in event.allocations
    ]
    return {"regular": regular, "promised": []}


def _currency() -> list[dict[str, Any]]:
    names = {"alternateCurrencyName": CURRENCY, "alternateCurrencyIdentifier": "P7d8Br"}
    return [{"regular": [], "promo": [], "promised": [], **names}]


def _bill(event: Event) -> dict[str, Any]:
    price = {"grossAmount": Decimal("30.0"), "discount": Decimal("5.0"), "amount": Decimal("25.0")}
    items = [
        {"id": row["points_source_id"], "itemCode": f"sku_{row['id']}", "source": "instore", **price}
        | {"rate": Decimal("30.0"), "qty": Decimal("1.0")}
        for row in event.allocations
    ]
    moment = _moment(event)
    return {
        "type": "loyalty",
        "billNumber": f"num{event.reference}",
        "grossAmount": Decimal("30.0") * len(items),
        "discount": Decimal("5.0") * len(items),
        "billAmount": Decimal("25.0") * len(items),
        "note": "",
        "source": "instore",
        "billDate": _legacy(moment),
        "billDateISO": event.row["date"],
        "lineItems": items,
    }


def _nothing(_: Event) -> dict[str, Any]:
    return {}


def _redemption(_: Event) -> dict[str, Any]:
    return {"pointsBreakup": []}


def _behaviour(_: Event) -> dict[str, Any]:
    attribute = {"isRequired": {"valueType": "BOOLEAN", "value": "true"}}
    field = {"fieldName": "stepsWalked", "fieldType": "double", "attributes": attribute}
    return {"behavioralEventMetadata": {"label": "Walk5Kms", "fields": [field]}}


def _target(event: Event) -> dict[str, Any]:
    group = {"targetGroupID": 46750, "targetGroupName": "Sandbox targets", "targetId": 76041, "targetName": "Visits"}
    period = {"targetPeriodID": 66277, "targetPeriodName": "Cycle_4", "sourceId": 78104, "sourceType": "MILESTONE"}
    values = {"targetValue": "1000.000", "achievedValue": "1200.000", "pointsEarned": _earned(event)}
    return {"targetCompletedDetails": {**group, **period, **values}}


def _adjustment(event: Event) -> dict[str, Any]:
    moment = _moment(event)
    part = {
        "customerId": event.row["customerId"],
        "deductionType": "MANUAL_ADJUSTMENT",
        "pointsDeducted": Decimal("100.0"),
        "pointsDeductedStr": "100.000",
        "pointsDeductedOn": _legacy(moment),
        "pointsDeductedOnISO": event.row["date"],
    }
    details = {
        "orgId": event.row["orgId"],
        "customerId": event.row["customerId"],
        "totalPointsDeducted": "100.000",
        "createdOn": f"{moment:%Y-%m-%d %H:%M:%S}",
        "createdOnISO": event.row["date"],
        "reason": "sandbox",
        "pointsDeductionBreakUpDetails": [part],
    }
    return {"manualPointsAdjustmentDetails": details}


_KINDS = {
    "PointsRedemption": _redemption,
    "GenericEvent": _behaviour,
    "TargetCompleted": _target,
    "ManualPointsAdjustment": _adjustment,
}


def _moment(event: Event) -> datetime:
    return datetime.fromisoformat(event.row["date"]).astimezone(UTC)


def _legacy(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.0"
