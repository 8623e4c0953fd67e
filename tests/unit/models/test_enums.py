"""The words and numbers of the pages, held against the pages' own lists."""

import pickle
import re
from enum import Enum

import pytest

from capillary_async.models import EventName, EventType, PointsStatus, SourceTable

EVENT_NAMES = """
NewBill TransactionAdd GroupTransactionAdd LineItemsPointsPromotionImport BillPointsPromotionImport
CustomerPromotionImport GenericEvent CustomerRegistration CustomerUpdate AllocateGoodwillPoints PointsTransfer
PointsRedemption ReturnBill TargetCompleted ManualPointsAdjustment VoucherRedemption
"""


def upper_snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


def test_event_names_are_those_of_the_ledger_page():
    assert [one.value for one in EventName] == EVENT_NAMES.split()
    assert all(one.name == upper_snake(one.value) for one in EventName)


def test_event_types_are_the_89_of_the_page_and_equal_plain_numbers():
    assert [one.value for one in EventType] == list(range(1, 90))
    assert EventType.NEW_BILL == 1
    assert EventType(25) is EventType.TARGET_COMPLETED
    assert {25: "x"}[EventType.TARGET_COMPLETED] == "x"
    assert f"{EventType.TIER_RENEW_EVENT}" == "89"


def test_event_types_know_their_name_on_the_page():
    assert EventType.TRANSACTION_MLP_IMPORT.event_name == "TransactionMLPImport"
    assert EventType.PARTNER_PROGRAM_DE_LINKING.event_name == "PartnerProgramDeLinking"
    assert EventType.USER_GROUP2_CREATE.event_name == "UserGroup2Create"
    assert all(one.name == upper_snake(one.event_name) for one in EventType)


def test_every_event_name_is_an_event_type():
    assert {one.value for one in EventName} <= {one.event_name for one in EventType}


def test_statuses_and_tables_equal_the_text_on_the_wire():
    assert PointsStatus.CONSUMED_BY_CONVERSION == "CONSUMED_BY_CONVERSION"
    assert all(one == one.name for one in PointsStatus)
    assert len(PointsStatus) == 8
    assert SourceTable.POINTS_AWARDED_BILL_LINEITEMS == "points_awarded_bill_lineitems"
    assert [*SourceTable] == ["points_awarded", "points_awarded_bill_lineitems"]


@pytest.mark.parametrize("kind", [EventName, EventType, PointsStatus, SourceTable])
def test_members_survive_a_pickle(kind: type[Enum]):
    assert pickle.loads(pickle.dumps(list(kind))) == list(kind)  # noqa: S301


def test_an_event_type_is_found_by_its_name_exactly():
    assert all(EventType.named(one.event_name) is one for one in EventType)
    assert EventType.named(EventName.TRANSACTION_ADD) is EventType.TRANSACTION_ADD
    for name in ("transactionadd", "TRANSACTION_ADD", " TransactionAdd", "", "x" * 10_000):
        with pytest.raises(ValueError, match="no EventType is named") as caught:
            EventType.named(name)
        assert len(str(caught.value)) < 500


def test_a_name_that_is_nearly_right_names_the_right_one():
    with pytest.raises(ValueError, match=r"\(near: TransactionAdd"):
        EventType.named("Transactionadd")
