"""The options of the commands, in groups; each group is one frozen value.

Invariant: options are named as the SDK's arguments are, and no option takes a secret: those come from the environment
or a file. Read by the command line parser (`_app.py`), used by all commands.
"""

# The parser reads the annotations when it runs, so their imports cannot be for type checkers alone.
from pathlib import Path
from typing import Annotated, Literal

from attrs import field, frozen
from cyclopts import Group, Parameter

__all__ = [
    "FLAG", "Awarded", "Connection", "EventOf", "Events", "Expiry", "ExportOf", "ExportRequest", "GivenIds",
    "IdSource", "LedgerIncludes", "LedgerOf", "LedgerPairs", "LedgerWith", "NotFound", "Output", "ReadRequest",
    "SandboxOf",
]  # fmt: skip

FLAG = Parameter(negative="", show_default=False)
_IDS, _RECORDS, _LEDGER = Group("Ids", sort_key=1), Group("Records", sort_key=2), Group("Ledger", sort_key=2)
_DETAILS, _OUTPUT = Group("Details", sort_key=3), Group("Output", sort_key=4)
_CONNECTION, _SANDBOX = Group("Connection", sort_key=5), Group("Sandbox", sort_key=6)

GivenIds = Annotated[str, Parameter(name="ids", group=_IDS)]


# --- where from, where to ---------------------------------------------------------------------------------------------


@Parameter(name="*", group=_IDS)
@frozen(kw_only=True)
class IdSource:
    """The source of the ids.

    Attributes:
        ids: A file of ids, one per line; - for stdin.
        ids_column: The column to read of a CSV or Parquet file.
    """

    ids: str | None = None
    ids_column: str | None = None


@Parameter(name="*", group=_OUTPUT)
@frozen(kw_only=True)
class Output:
    """The output: its place and form.

    Attributes:
        out: The file to write, complete or not at all; - for stdout.
        format: JSON Lines or CSV.
        ordered: Keep the order of the ids (default: the order of the answers).
        quiet: No progress and no closing line on stderr; failures are still reported.
    """

    out: str = "-"
    format: Literal["jsonl", "csv"] = "jsonl"
    ordered: Annotated[bool, FLAG] = False
    quiet: Annotated[bool, FLAG] = False


@Parameter(name="*", group=_OUTPUT)
@frozen(kw_only=True)
class ExportOf:
    """The output of an export: its place and form.

    Attributes:
        out: The folder; it is created.
        format: Parquet or JSON Lines.
        shard_keys: Customers per file.
        rounds: Maximum retries of failed customers; the next run retries all.
        paranoid: Check files that exist by hash, not by size.
        allow_empty: An empty list of ids is an export, not an error.
        grace: Seconds to finish files when the command is interrupted.
        quiet: No progress and no closing line on stderr.
    """

    out: Path
    format: Literal["parquet", "jsonl"] = "parquet"
    shard_keys: int = 1_000
    rounds: int = 3
    paranoid: Annotated[bool, FLAG] = False
    allow_empty: Annotated[bool, FLAG] = False
    grace: float = 10.0
    quiet: Annotated[bool, FLAG] = False


@Parameter(name="*", group=_CONNECTION)
@frozen(kw_only=True)
class Connection:
    """The server, the credentials and the pace.

    Attributes:
        base_url: The cluster's URL (default: CAPILLARY_BASE_URL).
        username: Till id (default: CAPILLARY_USERNAME).
        password_file: Its password (default: CAPILLARY_PASSWORD, CAPILLARY_PASSWORD_MD5).
        client_key: OAuth key (default: CAPILLARY_CLIENT_KEY).
        client_secret_file: Its secret (default: CAPILLARY_CLIENT_SECRET).
        server_timezone: Zone of times without an offset, e.g. Asia/Kolkata.
        dag_scope: The x-cap-neo-dag-scope of Neo calls.
        concurrency: Maximum requests at once.
        rate: Maximum requests per seconds, e.g. 100/60 (default: no limit).
        attempts: Maximum attempts per call, the first included.
        page_size: Records per page.
        verify: Read each list of several pages twice and compare.
    """

    base_url: str | None = None
    username: str | None = None
    password_file: Path | None = None
    client_key: str | None = None
    client_secret_file: Path | None = None
    server_timezone: str | None = None
    dag_scope: str = "global"
    concurrency: int = 32
    rate: str | None = None
    attempts: int = 5
    page_size: int = 100
    verify: Annotated[bool, FLAG] = False


@Parameter(name="*", group=_SANDBOX)
@frozen(kw_only=True)
class SandboxOf:
    """A sandbox in this process instead of a server.

    Attributes:
        sandbox: Use a sandbox in this process; it has defaults for ids, program and dates.
        customers: Number of customers of the sandbox.
        seed: The same seed gives the same customers.
    """

    sandbox: Annotated[bool, FLAG] = False
    customers: int = 500
    seed: int = 7


@Parameter(name="*")
@frozen(kw_only=True)
class ReadRequest:
    """What all reading commands take beside the records that they read."""

    ids: IdSource = field(factory=IdSource)
    output: Output = field(factory=Output)
    connection: Connection = field(factory=Connection)
    sandbox: SandboxOf = field(factory=SandboxOf)


@Parameter(name="*")
@frozen(kw_only=True)
class ExportRequest:
    """What all exports take beside the records that they read."""

    ids: IdSource = field(factory=IdSource)
    output: ExportOf
    connection: Connection = field(factory=Connection)
    sandbox: SandboxOf = field(factory=SandboxOf)


# --- which records ----------------------------------------------------------------------------------------------------


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


# --- ledgers ----------------------------------------------------------------------------------------------------------


@Parameter(name="*", group=Group("Ledger of (one of these)", sort_key=2))
@frozen(kw_only=True)
class LedgerOf:
    """The customer whose ledger is read.

    Attributes:
        mobile: The customer's mobile number with its country code.
        email: The customer's e-mail address.
        external_id: The brand's own id of the customer.
        customer_id: Capillary's id of the customer.
        id: Capillary's id of a customer or user group.
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
        bill_details: Bill number, amount, discount, line items.
        points_earned_breakup: Points by category, allocation and expiry strategy.
        custom_fields: The brand's custom fields.
        extended_fields: The brand's extended fields.
        max_conversion_details: The latest conversion date of delayed accruals.
        payment_modes: How the bill was paid.
        alternate_currencies: All alternate currencies.
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
        account_id: The account, for sources with several.
        type: CUSTOMER or USERGROUP2.
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
        identifier_column: The column of the identifiers.
        event_column: The column of the event log ids, one per line; empty and -1 are left out.
        identifier: Their kind: customer_id, mobile, email, external_id, id, primary_user_id.
        source: Source of the identifiers, e.g. INSTORE, WECHAT, ALL.
        account_id: The account, for sources with several.
        type: CUSTOMER or USERGROUP2.
    """

    identifier_column: str = "customer_id"
    event_column: str = "event_log_id"
    identifier: str = "customer_id"
    source: str = "INSTORE"
    account_id: str | None = None
    type: str | None = None
