"""The options that select records: awards, allocations, events and ledgers; each group is one frozen value.

Invariant: options are named as the SDK's arguments are. Read by the command line parser (`_app.py`, `_subcommands.py`),
used by the commands that read and export.
"""

# The parser reads the annotations when it runs, so their imports cannot be for type checkers alone.
from typing import Annotated, Literal

from attrs import frozen
from cyclopts import Group, Parameter

from capillary_async.cli._io.options import FLAG

__all__ = [
    "Awarded",
    "EventOf",
    "Events",
    "Expiry",
    "LedgerIncludes",
    "LedgerOf",
    "LedgerPairs",
    "LedgerWith",
    "NotFound",
]

_RECORDS, _LEDGER, _DETAILS = Group("Records", sort_key=2), Group("Ledger", sort_key=2), Group("Details", sort_key=3)


@Parameter(name="*", group=_RECORDS)
@frozen(kw_only=True)
class Expiry:
    """The program, category and expiry dates of points.

    Attributes:
        program_id: The loyalty program; for an export of several, repeat it.
        point_category_id: The category of points; for an export of several, repeat it.
        expiry_date_start: First day of expiry, YYYY-MM-DD (also --start-expiry-date).
        expiry_date_end: Last day, in the server's time zone (also --end-expiry-date).
    """

    program_id: Annotated[tuple[int, ...], FLAG] = ()
    point_category_id: Annotated[tuple[int, ...], FLAG] = ()
    expiry_date_start: Annotated[str | None, Parameter(name=("--expiry-date-start", "--start-expiry-date"))] = None
    expiry_date_end: Annotated[str | None, Parameter(name=("--expiry-date-end", "--end-expiry-date"))] = None


@Parameter(name="*", group=_RECORDS)
@frozen(kw_only=True)
class EventOf:
    """Allocations of one event instead of an expiry range.

    Attributes:
        event_id: Instead of these: one event, by the API's entity_id (no event log id).
        event_type_id: Its type, e.g. 15 for TransactionAdd.
    """

    event_id: str | None = None
    event_type_id: int | None = None


@Parameter(name="*", group=_RECORDS)
@frozen(kw_only=True)
class NotFound:
    """The meaning of a 404 for a customer.

    Attributes:
        not_found: Meaning of a 404 for a customer.
    """

    not_found: Literal["error", "empty"] = "error"


@Parameter(name="*", group=_RECORDS)
@frozen(kw_only=True)
class Awarded:
    """The awards of which the ids are read.

    Attributes:
        status: AVAILABLE, REDEEMED, EXPIRED, CONSUMED, RETURNED, INACTIVE, ...
        org_id: The organisation.
        batch_size: Maximum ids per request; user groups need 1.
    """

    status: str | None = None
    org_id: int | None = None
    batch_size: int = 50


@Parameter(name="*", group=_RECORDS)
@frozen(kw_only=True)
class Events:
    """The type and the days of loyalty events.

    Attributes:
        event_type: Only events of this type, e.g. EARN, REDEEM, EXPIRE, TRANSFER.
        from_date: First day, YYYY-MM-DD, in the server's time zone.
        to_date: Last day.
    """

    event_type: str | None = None
    from_date: str | None = None
    to_date: str | None = None


@Parameter(name="*", group=Group("Ledger of (one of these)", sort_key=2))
@frozen(kw_only=True)
class LedgerOf:
    """The customer whose ledger is read.

    Attributes:
        mobile: Mobile number with country code, e-mail, the brand's own id.
        email: With --mobile.
        external_id: With --mobile.
        customer_id: Capillary's id of the customer; of a customer or user group.
        id: With --customer-id.
        primary_user_id: The id of a group's primary member.
    """

    mobile: str | None = None
    email: str | None = None
    external_id: str | None = None
    customer_id: str | None = None
    id: str | None = None
    primary_user_id: str | None = None


@Parameter(name="*", group=_DETAILS)
@frozen(kw_only=True)
class LedgerIncludes:
    """The details of ledger events.

    Attributes:
        bill_details: Bill and its lines; points by category and strategy.
        points_earned_breakup: With --bill-details.
        custom_fields: The brand's fields; how the bill was paid.
        extended_fields: With --custom-fields.
        max_conversion_details: Latest conversion of delayed accruals; all.
        payment_modes: With --custom-fields.
        alternate_currencies: With --max-conversion-details.
    """

    bill_details: Annotated[bool, FLAG] = False
    points_earned_breakup: Annotated[bool, FLAG] = False
    custom_fields: Annotated[bool, FLAG] = False
    extended_fields: Annotated[bool, FLAG] = False
    max_conversion_details: Annotated[bool, FLAG] = False
    payment_modes: Annotated[bool, FLAG] = False
    alternate_currencies: Annotated[bool, FLAG] = False


@Parameter(name="*", group=_DETAILS)
@frozen(kw_only=True)
class LedgerWith:
    """The entries of the ledger.

    Attributes:
        source: Source of the identifier, e.g. INSTORE, WECHAT, ALL.
        event_name: The ids are references (transaction or request ids) of events of this name.
        account_id: The account, for sources with several; CUSTOMER or USERGROUP2.
        type: With --account-id.
        is_primary_user: For groups: the primary member's entries, or not.
        alternate_currency_name: Only this alternate currency; may be repeated.
    """

    source: str = "INSTORE"
    event_name: str | None = None
    account_id: str | None = None
    type: str | None = None
    is_primary_user: bool | None = None
    alternate_currency_name: Annotated[tuple[str, ...], FLAG] = ()


@Parameter(name="*", group=_LEDGER)
@frozen(kw_only=True)
class LedgerPairs:
    """The columns of --ids, a CSV or Parquet file: identifiers and event log ids.

    Attributes:
        identifier_column: Columns of --ids, an event log id per line; empty and -1 are left out.
        event_column: With --identifier-column.
        identifier: Or mobile, email, external_id, id, primary_user_id.
        source: Source of the identifiers, e.g. INSTORE, WECHAT, ALL.
        account_id: The account, for sources with several; CUSTOMER or USERGROUP2.
        type: With --account-id.
    """

    identifier_column: str = "customer_id"
    event_column: str = "event_log_id"
    identifier: str = "customer_id"
    source: str = "INSTORE"
    account_id: str | None = None
    type: str | None = None
