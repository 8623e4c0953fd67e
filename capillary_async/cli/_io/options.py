"""The options that commands share: ids, output, connection, sandbox; each group is one frozen value.

Invariant: options are named as the SDK's arguments are, and no option takes a secret: those come from the environment
or a file. Read by the command line parser (`_app.py`), used by all commands.
"""

# The parser reads the annotations when it runs, so their imports cannot be for type checkers alone.
from pathlib import Path
from typing import Annotated, Literal

from attrs import field, frozen
from cyclopts import Group, Parameter

__all__ = [
    "FLAG",
    "Connection",
    "ExportOf",
    "ExportRequest",
    "GivenIds",
    "IdSource",
    "Output",
    "ReadRequest",
    "SandboxOf",
]

FLAG = Parameter(negative="", show_default=False)
_IDS, _OUTPUT = Group("Ids", sort_key=1), Group("Output", sort_key=4)
_CONNECTION, _SANDBOX = Group("Connection", sort_key=5), Group("Sandbox", sort_key=6)

GivenIds = Annotated[str, Parameter(name="ids", group=_IDS)]


@Parameter(name="*", group=_IDS)
@frozen(kw_only=True)
class IdSource:
    """The source of the ids.

    Attributes:
        ids: A file of ids, one per line; - for stdin.
        ids_column: The column to read of a CSV, Parquet or Excel file.
        sheet: The sheet of an Excel file of ids that has several.
        delimiter: Between the cells of a CSV of ids (default: a comma; a tab in .tsv).
        encoding: Encoding of ids, e.g. cp1252 (default: UTF-8).
    """

    ids: str | None = None
    ids_column: str | None = None
    sheet: str | None = None
    delimiter: str | None = None
    encoding: str | None = None


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
        shard: One of N parts of the ids, e.g. 3/16, for a folder of its own.
        shard_keys: Customers per file.
        rounds: Maximum retries of failed customers; the next run retries all.
        paranoid: Check files that exist by hash, not by size.
        allow_empty: An empty list of ids is an export, not an error.
        grace: Seconds to finish files when the command is interrupted.
        archive: Folder for the raw answers; see replay.
        status_file: JSON file of the progress, replaced every 2 s.
        plan: Send nothing; print the requests and the time at least.
        quiet: No progress and no closing line on stderr.
    """

    out: Path
    format: Literal["parquet", "jsonl"] = "parquet"
    shard: str | None = None
    shard_keys: int = 1_000
    rounds: int = 3
    paranoid: Annotated[bool, FLAG] = False
    allow_empty: Annotated[bool, FLAG] = False
    grace: float = 10.0
    archive: Path | None = None
    status_file: Path | None = None
    plan: Annotated[bool, FLAG] = False
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
        proxy: URL of an HTTP proxy (default: CAPILLARY_PROXY).
        ca_file: CAs to trust, in PEM (default: those of the system).
        client_cert: Client certificate and its key, in PEM.
        server_timezone: Zone of times without an offset, e.g. Asia/Kolkata.
        dag_scope: The x-cap-neo-dag-scope of Neo calls.
        concurrency: Maximum requests at once.
        rate: Maximum requests per seconds, e.g. 100/60 (default: no limit).
        shared_rate: Redis of the rate (default: CAPILLARY_SHARED_RATE).
        attempts: Maximum attempts per call, the first included.
        page_size: Records per page.
        verify: Read each list of several pages twice and compare.
    """

    base_url: str | None = None
    username: str | None = None
    password_file: Path | None = None
    client_key: str | None = None
    client_secret_file: Path | None = None
    proxy: str | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    server_timezone: str | None = None
    dag_scope: str = "global"
    concurrency: int = 32
    rate: str | None = None
    shared_rate: str | None = None
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
