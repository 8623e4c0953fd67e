"""The words and numbers that the API uses for statuses, tables and events.

Invariant: a member equals the plain value on the wire, and no model demands one, so a value unknown to this release
passes through. For users' comparisons and arguments; imports nothing of ours.
"""

from difflib import get_close_matches
from enum import IntEnum, StrEnum
from typing import Self

__all__ = ["EventName", "EventType", "PointsStatus", "SourceTable"]


class PointsStatus(StrEnum):
    """The `status` of an award or allocation: those of the page "Get points awarded ID" and one more."""

    AVAILABLE = "AVAILABLE"
    REDEEMED = "REDEEMED"
    EXPIRED = "EXPIRED"
    CONSUMED = "CONSUMED"
    RETURNED = "RETURNED"
    CONSUMED_BY_CONVERSION = "CONSUMED_BY_CONVERSION"
    INACTIVE = "INACTIVE"
    POINT_CATEGORY_CHANGED = "POINT_CATEGORY_CHANGED"


class SourceTable(StrEnum):
    """The `source_table` of an award: the two that the page "Get points awarded ID" shows; others exist."""

    POINTS_AWARDED = "points_awarded"
    POINTS_AWARDED_BILL_LINEITEMS = "points_awarded_bill_lineitems"


class EventName(StrEnum):
    """The `event_name` of a ledger event: the values of the page "Get Points Ledger Explode Info"."""

    NEW_BILL = "NewBill"
    TRANSACTION_ADD = "TransactionAdd"
    GROUP_TRANSACTION_ADD = "GroupTransactionAdd"
    LINE_ITEMS_POINTS_PROMOTION_IMPORT = "LineItemsPointsPromotionImport"
    BILL_POINTS_PROMOTION_IMPORT = "BillPointsPromotionImport"
    CUSTOMER_PROMOTION_IMPORT = "CustomerPromotionImport"
    GENERIC_EVENT = "GenericEvent"
    CUSTOMER_REGISTRATION = "CustomerRegistration"
    CUSTOMER_UPDATE = "CustomerUpdate"
    ALLOCATE_GOODWILL_POINTS = "AllocateGoodwillPoints"
    POINTS_TRANSFER = "PointsTransfer"
    POINTS_REDEMPTION = "PointsRedemption"
    RETURN_BILL = "ReturnBill"
    TARGET_COMPLETED = "TargetCompleted"
    MANUAL_POINTS_ADJUSTMENT = "ManualPointsAdjustment"
    VOUCHER_REDEMPTION = "VoucherRedemption"


class EventType(IntEnum):
    """The `event_type_id` of an allocation: the table of the page "Get Point Allocation Details by Event ID".

    A member is its number: `EventType.TARGET_COMPLETED == 25`, and `EventType(25)` finds it. Names split the API's own
    at each capital.

    Attributes:
        event_name: The API's name of the event type, e.g. `TargetCompleted`.
    """

    event_name: str

    def __new__(cls, number: int, event_name: str) -> Self:
        """Make the member that equals `number` and knows its name on the page."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.event_name = event_name
        return member

    @classmethod
    def named(cls, event_name: str) -> Self:
        """Return the member with the API's name of the event type, as loyalty and ledger events carry it.

        Upper and lower case count. An `EventName` is a name too.

        Raises:
            ValueError: No member has this name; the message names the nearest ones.

        Example:
            >>> EventType.named("TransactionAdd")
            <EventType.TRANSACTION_ADD: 15>
        """
        found = next((member for member in cls if member.event_name == event_name), None)
        if found is None:
            near = get_close_matches(str(event_name), [member.event_name for member in cls], 3, 0.5)
            hint = f" (near: {', '.join(near)})" if near else ""
            raise ValueError(
                f"no EventType is named {str(event_name)[:100]!r}{hint}; a type that this release does not know is "
                "given by its number"
            )
        return found

    NEW_BILL = 1, "NewBill"
    CUSTOMER_REGISTRATION = 2, "CustomerRegistration"
    POINTS_REDEMPTION = 3, "PointsRedemption"
    VOUCHER_REDEMPTION = 4, "VoucherRedemption"
    RETURN_BILL = 5, "ReturnBill"
    TRACKER_CONDITION_SUCCESS = 6, "TrackerConditionSuccess"
    SOCIAL_CONNECT = 7, "SocialConnect"
    NEW_BILL_DVS = 8, "NewBillDVS"
    TRANSACTION_FINISHED = 9, "TransactionFinished"
    REFERRAL_POST_PROCESSING = 10, "ReferralPostProcessing"
    TRANSACTION_UPDATE = 11, "TransactionUpdate"
    CUSTOMER_UPDATE = 12, "CustomerUpdate"
    EMAIL_OPEN = 13, "EmailOpen"
    EMAIL_CLICK = 14, "EmailClick"
    TRANSACTION_ADD = 15, "TransactionAdd"
    DELAYED_ACCRUAL = 16, "DelayedAccrual"
    SCAN = 17, "Scan"
    GROUP_TRANSACTION_ADD = 18, "GroupTransactionAdd"
    GROUP_TRANSACTION_UPDATE = 19, "GroupTransactionUpdate"
    GROUP_RETURN_BILL = 20, "GroupReturnBill"
    GROUP_MEMBER_JOIN = 21, "GroupMemberJoin"
    GROUP_MEMBER_LEAVE = 22, "GroupMemberLeave"
    GENERIC_EVENT = 23, "GenericEvent"
    POINTS_TRANSFER = 24, "PointsTransfer"
    TARGET_COMPLETED = 25, "TargetCompleted"
    POINTS_REDEMPTION_REVERSAL = 26, "PointsRedemptionReversal"
    PARTNER_PROGRAM_DE_LINKING = 27, "PartnerProgramDeLinking"
    PARTNER_PROGRAM_LINKING = 28, "PartnerProgramLinking"
    PARTNER_PROGRAM_TIER_UPDATE = 29, "PartnerProgramTierUpdate"
    TIER_REASSESSMENT = 30, "TierReassessment"
    POINTS_CONTRIBUTION_TO_GROUP = 31, "PointsContributionToGroup"
    ALLOCATE_GOODWILL_POINTS = 32, "AllocateGoodwillPoints"
    ALLOCATE_PROMOTION_POINTS = 33, "AllocatePromotionPoints"
    POINTS_EXPIRY = 34, "PointsExpiry"
    POINTS_EXPIRY_REMINDER = 35, "PointsExpiryReminder"
    TIER_DOWNGRADE = 36, "TierDowngrade"
    TIER_DOWNGRADE_REMINDER = 37, "TierDowngradeReminder"
    TIER_DOWNGRADE_ON_RETURN = 38, "TierDowngradeOnReturn"
    PROMOTION_POINTS_EXPIRY_ADJUSTMENT = 39, "PromotionPointsExpiryAdjustment"
    PARTNER_PROGRAM_EXPIRY_REMINDER = 40, "PartnerProgramExpiryReminder"
    MERGE_CUSTOMER = 41, "MergeCustomer"
    BULK_ALLOCATE_POINTS = 42, "BulkAllocatePoints"
    TRACKER_DATA_IMPORT = 43, "TrackerDataImport"
    TRACKER_RETURNS_DATA_IMPORT = 44, "TrackerReturnsDataImport"
    CUSTOMER_PROGRAM_ENROLLMENT_IMPORT = 45, "CustomerProgramEnrollmentImport"
    CUSTOMER_PROMOTION_IMPORT = 46, "CustomerPromotionImport"
    BILL_POINTS_PROMOTION_IMPORT = 47, "BillPointsPromotionImport"
    EXPIRE_BILL_PROMOTION_IMPORT = 48, "ExpireBillPromotionImport"
    EXPIRE_CUSTOMER_PROMOTION_IMPORT = 49, "ExpireCustomerPromotionImport"
    LINE_ITEMS_POINTS_PROMOTION_IMPORT = 50, "LineItemsPointsPromotionImport"
    REDEMPTIONS_IMPORT = 51, "RedemptionsImport"
    TRANSACTION_DEDUCTION_IMPORT = 52, "TransactionDeductionImport"
    TRANSACTION_MLP_IMPORT = 53, "TransactionMLPImport"
    PARTNER_PROGRAM_LINKING_IMPORT = 54, "PartnerProgramLinkingImport"
    PARTNER_PROGRAM_DE_LINKING_IMPORT = 55, "PartnerProgramDeLinkingImport"
    PARTNER_PROGRAM_TIER_RENEW_IMPORT = 56, "PartnerProgramTierRenewImport"
    SUPP_PARTNER_PROGRAM_LINKING_IMPORT = 57, "SuppPartnerProgramLinkingImport"
    SUPP_PARTNER_PROGRAM_DELINKING_IMPORT = 58, "SuppPartnerProgramDelinkingImport"
    SUPP_PARTNER_PROGRAM_UPDATE_IMPORT = 59, "SuppPartnerProgramUpdateImport"
    WAREHOUSE_BASED_SLAB_IMPORT = 60, "WarehouseBasedSlabImport"
    LOYALTY_BENEFITS_IMPORT = 61, "LoyaltyBenefitsImport"
    BILL_IMPORT = 62, "BillImport"
    BILL_LINE_ITEMS_IMPORT = 63, "BillLineItemsImport"
    CUSTOMER_IMPORT = 64, "CustomerImport"
    HISTORICAL_POINTS_IMPORT = 65, "HistoricalPointsImport"
    PARTNER_PROGRAM_TIER_UPDATE_IMPORT = 66, "PartnerProgramTierUpdateImport"
    POINTS_EXPIRY_UPDATE_BY_REF_TYPE_AND_ID_IMPORT = 67, "PointsExpiryUpdateByRefTypeAndIdImport"
    UPDATE_PROMOTIONS_POINTS_EXPIRY_DATE_IMPORT = 68, "UpdatePromotionsPointsExpiryDateImport"
    POINTS_LEDGER_BULK_JOB = 69, "PointsLedgerBulkJob"
    UPDATE_POINTS_EXPIRY_IN_DATE_RANGE_IMPORT = 70, "UpdatePointsExpiryInDateRangeImport"
    USER_GROUP2_CREATE = 71, "UserGroup2Create"
    LOYALTY_SLAB_EARLY_EXPIRY = 72, "LoyaltySlabEarlyExpiry"
    TRANSACTION_CLEANUP_IMPORT = 73, "TransactionCleanupImport"
    OUTLIER_STATUS_IMPORT = 74, "OutlierStatusImport"
    MANUAL_POINTS_ADJUSTMENT = 75, "ManualPointsAdjustment"
    MANUAL_POINTS_ADJUSTMENT_IMPORT = 76, "ManualPointsAdjustmentImport"
    MANUAL_POINTS_CONVERSION = 77, "ManualPointsConversion"
    RETURN_TARGET_COMPLETED_EVENT = 78, "ReturnTargetCompletedEvent"
    ISSUE_PROMOTION_FOR_ENTITY_EVENT = 79, "IssuePromotionForEntityEvent"
    POINTS_LEDGER_RECREATION = 80, "PointsLedgerRecreation"
    CONVERT_POINTS_TO_REWARD = 81, "ConvertPointsToReward"
    EARN_PROMOTION_FOR_ENTITY_EVENT = 82, "EarnPromotionForEntityEvent"
    REVOKE_ISSUE_PROMOTION_EVENT = 83, "RevokeIssuePromotionEvent"
    REVOKE_EARN_PROMOTION_EVENT = 84, "RevokeEarnPromotionEvent"
    MANUAL_SLAB_ADJUSTMENT = 85, "ManualSlabAdjustment"
    MANUAL_CURRENCY_ALLOCATION = 86, "ManualCurrencyAllocation"
    TIER_AGNOSTIC_PARTNER_PROGRAM_EXPIRY = 87, "TierAgnosticPartnerProgramExpiry"
    TIER_DOWNGRADE_EVENT = 88, "TierDowngradeEvent"
    TIER_RENEW_EVENT = 89, "TierRenewEvent"
