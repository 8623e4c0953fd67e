"""The records that the API gives, and the words it uses.

Invariant: data only, no session, no I/O; frozen attrs classes under the wire's names in snake_case. Filled by
`_codec`, given out by every endpoint; imports nothing of ours but its own files.
"""

from typing import TYPE_CHECKING

from capillary_async._lazy import lazily

if TYPE_CHECKING:
    from capillary_async.models.enums import EventName, EventType, PointsStatus, SourceTable
    from capillary_async.models.loyalty_events import LoyaltyEvent
    from capillary_async.models.points_allocation import PointsAllocation
    from capillary_async.models.points_awarded import PointsAwarded
    from capillary_async.models.points_ledger import (
        AlternateCurrencyEarned,
        AlternateCurrencyEarnedBreakup,
        BehavioralEventMetadata,
        BehavioralField,
        BehavioralFieldAttribute,
        BillDetails,
        CustomField,
        EarnedPoints,
        EarnedPointsBreakup,
        EventDetails,
        LedgerEvent,
        LineItem,
        ManualPointsAdjustment,
        PointInTimeSlab,
        PointsDeduction,
        PointsEarned,
        PointsEarnedBreakup,
        RedemptionDetails,
        TargetCompleted,
    )

__all__ = [
    "AlternateCurrencyEarned",
    "AlternateCurrencyEarnedBreakup",
    "BehavioralEventMetadata",
    "BehavioralField",
    "BehavioralFieldAttribute",
    "BillDetails",
    "CustomField",
    "EarnedPoints",
    "EarnedPointsBreakup",
    "EventDetails",
    "EventName",
    "EventType",
    "LedgerEvent",
    "LineItem",
    "LoyaltyEvent",
    "ManualPointsAdjustment",
    "PointInTimeSlab",
    "PointsAllocation",
    "PointsAwarded",
    "PointsDeduction",
    "PointsEarned",
    "PointsEarnedBreakup",
    "PointsStatus",
    "RedemptionDetails",
    "SourceTable",
    "TargetCompleted",
]

if not TYPE_CHECKING:  # type checkers read the imports above, and refuse a name that is not among them
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "enums": ("EventName", "EventType", "PointsStatus", "SourceTable"),
            "loyalty_events": ("LoyaltyEvent",),
            "points_allocation": ("PointsAllocation",),
            "points_awarded": ("PointsAwarded",),
            "points_ledger": (
                "AlternateCurrencyEarned",
                "AlternateCurrencyEarnedBreakup",
                "BehavioralEventMetadata",
                "BehavioralField",
                "BehavioralFieldAttribute",
                "BillDetails",
                "CustomField",
                "EarnedPoints",
                "EarnedPointsBreakup",
                "EventDetails",
                "LedgerEvent",
                "LineItem",
                "ManualPointsAdjustment",
                "PointInTimeSlab",
                "PointsDeduction",
                "PointsEarned",
                "PointsEarnedBreakup",
                "RedemptionDetails",
                "TargetCompleted",
            ),
        },
    )
    del TYPE_CHECKING, lazily  # no names of this package's
