"""One ledger event written out, with the members that its kind and the include flags call for.

Invariant: quantities are those of the event's awards and deductions, as Decimals or as text with three decimals, as the
page Get Points Ledger Explode Info shows them. Events of kinds that the page does not show have the common members
alone. `_endpoints/ledger.py` calls `exploded`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from capillary_async.sandbox._world.records import (
    IST,
    POINT_CATEGORY_ID,
    PROGRAM_ID,
    PROMISED_CATEGORY_ID,
    REF_TYPES,
    SHOWN_TABLES,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.sandbox._world.records import Award, Deduction, Event

__all__ = ["CURRENCY", "exploded"]

CURRENCY = "SandboxStars"
_PROGRAM_NAME = "SandboxDefaultProgram"
_LINE_ITEMS = 2_158_986_000  # as in the page's sample of a bill
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
        "eventLogId": event.log_id,
        "eventName": event.name,
        "eventDetails": _details(event),
        **_earned_parts(event, flags),
        **_KINDS.get(event.name, _nothing)(event),
        **{member: [example] for flag, (member, example) in _LISTS.items() if flag in flags},
    }
    if "getMaxConversionDetails" in flags:
        entry["eventDetails"]["maxConversionDate"] = _legacy(_moment(event))
    return entry | {"eventReferenceId": event.reference, "uniqueId": event.row["uniqueId"]}


def _details(event: Event) -> dict[str, Any]:
    details = {"eventTime": _legacy(_moment(event)), "eventTimeISO": event.row["date"], "tillId": event.till_id}
    if event.name == "PointsRedemption":
        details["redemptionDetails"] = {
            "pointsRedeemed": _text(_taken(event)),
            "redemptionPurpose": "",
            "transactionNumber": f"txn-{event.log_id}",
            "redemptionId": event.row["uniqueId"][:6],
            "notes": "",
            "groupRedemption": False,
        }
    return details


def _earned_parts(event: Event, flags: frozenset[str]) -> dict[str, Any]:
    """What the event earned: inside the bill where there is one and it is asked for, else beside it."""
    breakup = {"pointsEarnedBreakup": _breakup(event)} if "getPointsEarnedBreakup" in flags else {}
    currency = {"alternateCurrencyValueEarned": _currency()} if "includeAlternateCurrencies" in flags else {}
    name = event.name
    if name not in _BILLED:
        # A completed target shows its points within its own details.
        beside = bool(event.awards) and name != "TargetCompleted"
        return {"pointsEarned": _earned(event), **breakup} if beside else breakup
    if "getBillDetails" not in flags:
        return breakup | currency
    return {"billDetails": {**_bill(event), "pointsEarned": _earned(event), **breakup, **currency}}


def _regular(event: Event) -> list[Award]:
    """The awards of the program itself, promised ones left out."""
    return [
        award for award in event.awards if award.table in SHOWN_TABLES and award.point_category_id == POINT_CATEGORY_ID
    ]


def _promised(event: Event) -> list[Award]:
    return [award for award in event.awards if award.point_category_id == PROMISED_CATEGORY_ID]


def _earned(event: Event) -> dict[str, Any]:
    named = {"promotionId": 1133595541, "promotionName": "Sandbox promotion"}
    return {
        "regular": [_points(award) for award in _regular(event)],
        "promo": [named | _points(award) for award in event.awards if award.table not in SHOWN_TABLES],
        "promised": [
            _points(award) | {"conversionDate": _legacy(_moment(event)), "isTransferable": False}
            for award in _promised(event)
        ],
    }


def _points(award: Award) -> dict[str, Any]:
    moment = datetime.fromtimestamp(award.expiry_date // 1000, IST)
    return {
        "value": award.points,
        "expiresOn": _legacy(moment),
        "expiresOnISO": moment.isoformat(),
        "programId": award.program_id,
        "programName": _PROGRAM_NAME,
        "expiryType": "fixed",
    }


def _breakup(event: Event) -> dict[str, Any]:
    return {
        "regular": [_sourced(event, award, "Main") for award in _regular(event)],
        "promised": [_sourced(event, award, "Promised") for award in _promised(event)],
    }


def _sourced(event: Event, award: Award, category: str) -> dict[str, Any]:
    row = award.allocation or {}
    return (
        _points(award)
        | {"awardedOn": _legacy(_moment(event)), "awardedOnISO": event.row["date"], "sourceValue": award.points}
        | {"allocationStrategyId": row.get("allocation_strategy_id", 111526), "allocationStrategyName": "10x fixed"}
        | {"pointsCategoryId": award.point_category_id, "pointsCategoryName": category}
        | {"expiryStrategyId": row.get("expiry_strategy_id", 109281), "expiryStrategyName": "NUM_MONTHS_END12"}
    )


def _currency() -> list[dict[str, Any]]:
    names = {"alternateCurrencyName": CURRENCY, "alternateCurrencyIdentifier": "P7d8Br"}
    return [{"regular": [], "promo": [], "promised": [], **names}]


def _bill(event: Event) -> dict[str, Any]:
    price = {"grossAmount": Decimal("30.0"), "discount": Decimal("5.0"), "amount": Decimal("25.0")}
    items = [
        {
            "id": _LINE_ITEMS + award.row["id"] % 10**6,
            "itemCode": f"sku_{award.row['id']}",
            "source": "instore",
            **price,
        }
        | {"rate": Decimal("30.0"), "qty": Decimal("1.0")}
        for award in event.awards
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
    details = {
        "orgId": event.row["orgId"],
        "customerId": event.row["customerId"],
        "totalPointsDeducted": _text(_taken(event)),
        "createdOn": f"{_moment(event):%Y-%m-%d %H:%M:%S}",
        "createdOnISO": event.row["date"],
        "reason": "sandbox",
        "pointsDeductionBreakUpDetails": [_deducted(event, taken) for taken in event.deductions],
    }
    return {"manualPointsAdjustmentDetails": details}


def _deducted(event: Event, taken: Deduction) -> dict[str, Any]:
    return {
        "customerId": event.row["customerId"],
        "loyaltyId": event.row["customerId"],
        "programId": PROGRAM_ID,
        "programName": _PROGRAM_NAME,
        "pointAwardedRefType": REF_TYPES[taken.table],
        "pointAwardedRefId": taken.award_id,
        "deductionType": taken.kind,
        "pointsDeducted": taken.points,
        "pointsDeductedStr": _text(taken.points),
        "pointsDeductedOn": _legacy(_moment(event)),
        "pointsDeductedOnISO": event.row["date"],
    }


def _taken(event: Event) -> Decimal:
    return sum((taken.points for taken in event.deductions), Decimal(0))


def _text(points: Decimal) -> str:
    return f"{points:.3f}"


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
