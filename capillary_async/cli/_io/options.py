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
        sheet: Its sheet; separator (comma, .tsv: tab); encoding (UTF-8).
        delimiter: With --sheet.
        encoding: With --sheet.
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
        ordered: Keep the order of the ids; no progress on stderr, only failures.
        quiet: With --ordered.
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
        format: Form; customers per file.
        shard: One of N parts of the ids, e.g. 3/16; processes for all parts.
        processes: With --shard.
        shard_keys: With --format.
        rounds: Retries of failed customers; seconds to stop in.
        paranoid: Check existing files by hash; an empty list of ids is no error.
        allow_empty: With --paranoid.
        grace: With --rounds.
        archive: Folder of raw answers, see replay; JSON of the progress.
        status_file: With --archive.
        plan: Send nothing, print requests and time at least; no progress.
        quiet: With --plan.
    """

    out: Path
    format: Literal["parquet", "jsonl"] = "parquet"
    shard: str | None = None
    processes: int = 1
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
        base_url: Cluster, HTTP proxy (default: CAPILLARY_BASE_URL, CAPILLARY_PROXY).
        username: Till id (default: CAPILLARY_USERNAME, _PASSWORD, _PASSWORD_MD5).
        password_file: With --username.
        client_key: OAuth client (default: CAPILLARY_CLIENT_KEY, _CLIENT_SECRET).
        client_secret_file: With --client-key.
        proxy: With --base-url.
        ca_file: CAs to trust (default: the system's); client certificate, key; PEM.
        client_cert: With --ca-file.
        server_timezone: Zone of times without one; x-cap-neo-dag-scope.
        dag_scope: With --server-timezone.
        concurrency: Maximum requests at once; attempts per call.
        rate: Maximum requests per seconds, e.g. 100/60; Redis to share it.
        shared_rate: With --rate.
        attempts: With --concurrency.
        page_size: Records per page; read lists of several pages twice.
        verify: With --page-size.
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
        sandbox: Use a local sandbox with its own ids.
        customers: With --sandbox.
        seed: With --sandbox.
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
