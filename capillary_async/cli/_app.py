"""The commands: names, options and help. What a command does is in its file in `_commands` or `_demo`.

Invariant: the function of a command only collects its options. Called by `main`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import CycloptsError, MissingArgumentError
from rich.console import Console

from capillary_async._files.addresses import without_secrets
from capillary_async._version import __version__
from capillary_async.cli._commands import ledger as _ledger
from capillary_async.cli._commands import read as _read
from capillary_async.cli._commands.publish import publish as run_publish
from capillary_async.cli._commands.reconcile import WithBooks
from capillary_async.cli._commands.reconcile import reconcile as run_reconcile
from capillary_async.cli._commands.replay import replay as run_replay
from capillary_async.cli._commands.sandbox import SandboxOptions, latency_of, rate_of, serve
from capillary_async.cli._commands.verify import Checked
from capillary_async.cli._commands.verify import verify as run_verify
from capillary_async.cli._demo.demo import DemoOptions
from capillary_async.cli._demo.demo import demo as run_demo
from capillary_async.cli._help import COMPARED, READING, SOME, STOPPED, command_group, epilogue
from capillary_async.cli._io.id_input import STREAM
from capillary_async.cli._io.options import FLAG, Connection, GivenIds, ReadRequest, SandboxOf
from capillary_async.cli._io.record_options import (
    Awarded,
    EventOf,
    Events,
    Expiry,
    LedgerIncludes,
    LedgerOf,
    LedgerWith,
    NotFound,
)
from capillary_async.cli._io.run import UnusableError, ending
from capillary_async.cli._io.run import run as run_coroutine
from capillary_async.cli._subcommands import exports, reports

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]

# The defaults of the groups of options.
_READ, _CONNECTION, _SANDBOX, _BOOKS = ReadRequest(), Connection(), SandboxOf(), WithBooks()
_EXPIRY, _EVENT, _NOT_FOUND, _AWARDED, _EVENTS = Expiry(), EventOf(), NotFound(), Awarded(), Events()
_WHOSE, _WHAT, _INCLUDES = LedgerOf(), LedgerWith(), LedgerIncludes()

app = command_group(
    "capillary-async",
    "Read loyalty points from Capillary's API, or try every command on a local sandbox.",
    epilogue(f"{SOME}, 3 differences found, {STOPPED}; each command's --help has its own", "demo"),
)
app.version = __version__
app.suppress_keyboard_interrupt = False
app.command(exports)
app.command(reports)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    tokens = [STREAM if argument == "-" else argument for argument in arguments]
    return ending(lambda: _dispatched(tokens))


def _dispatched(tokens: list[str]) -> int:
    try:
        # A console of its own: cyclopts keeps the first one, with the width that the terminal had then.
        code: Any = app(tokens, console=Console(), result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.name == "*":
            error.argument = next(one for one in error.argument.children if one.required)  # not the group of options
        text = without_secrets(str(error).replace(STREAM, "-"))  # it repeats what was given, addresses too
        raise UnusableError(f"{text} (--help says more)") from None
    return code if isinstance(code, int) else 0  # help and version give nothing


# --- sandboxes --------------------------------------------------------------------------------------------------------


@app.command(
    help_epilogue=epilogue(f"0 all answered and agreed, 1 not so, or could not run, {STOPPED}", "demo --customers 500")
)
def demo(
    *,
    customers: int = 100,
    seed: int = 7,
    latency: float = 0.01,
    faults: bool = True,
    disturb: Annotated[bool, FLAG] = False,
    out: Path | None = None,
    quiet: Annotated[bool, FLAG] = False,
) -> int:
    """Start a sandbox, read all its customers from four endpoints at once, and check that the four agree.

    Then export them, kill the export, start it again, verify it, and reconcile it with books that have planted
    differences. The exit code is 0 only if all answers agree and exactly the planted differences are found.

    Args:
        customers: Number of customers of the sandbox.
        seed: The same seed gives the same customers and points.
        latency: Seconds before each answer of the sandbox.
        faults: Let some requests fail, so that retries are seen.
        disturb: Let rows vanish while they are read: the check must find it; exit code 1, without the jobs.
        out: A new or empty folder for export, books and report; it is kept. Default: a new temporary folder.
        quiet: No progress bar.
    """
    options = DemoOptions(
        customers=customers, seed=seed, latency=latency, faults=faults, disturb=disturb, out=out, quiet=quiet
    )
    return run_coroutine(run_demo(options))


@app.command(
    help_epilogue=epilogue(
        "0 stopped by Ctrl-C or SIGTERM, 1 could not run; those of the command",
        "sandbox --books books.csv -- sh nightly.sh",
    )
)
def sandbox(
    *command: str,
    host: str = "127.0.0.1",
    port: int | None = None,
    customers: int = 500,
    seed: int = 7,
    latency: str = "0",
    rate: str | None = None,
    books: Path | None = None,
) -> int:
    """Serve a sandbox until Ctrl-C, and print how to use it from curl, a shell and Python; or run one command with it.

    Args:
        command: After --: runs with the sandbox as its cluster, which ends with it.
        host: The address to listen on.
        port: The port; 0 for any free one. Default: 8080, or any with a command.
        customers: Number of customers.
        seed: The same seed gives the same customers and points.
        latency: Seconds before each answer, or a range: 0.02-0.2.
        rate: Maximum requests per seconds, e.g. 100/60; more are answered 429. Default: no limit.
        books: Write books of its allocations there, and ids.csv beside it; its day is today.
    """
    options = SandboxOptions(
        host=host,
        port=port,
        customers=customers,
        seed=seed,
        latency=latency_of(latency),
        rate=rate_of(rate),
        books=books,
        command=command,
    )
    return run_coroutine(serve(options, lambda text: print(text, flush=True)))  # noqa: T201


# --- reading ----------------------------------------------------------------------------------------------------------


@app.command(help_epilogue=epilogue(READING, "allocations --sandbox --customers 20 --format csv --out points.csv"))
def allocations(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds,
    expiry: Expiry = _EXPIRY,
    event: EventOf = _EVENT,
    missing: NotFound = _NOT_FOUND,
    asked: ReadRequest = _READ,
) -> int:
    """Read the points allocations of customers that expire within two dates, or those of one event.

    Rows are of one of five award tables, so sums are no balances. Usable: remaining of AVAILABLE rows.

    Args:
        given: Customer ids; - reads them from stdin.
    """
    return run_coroutine(_read.read(given, asked, _read.allocations(expiry, event, missing)))


@app.command(help_epilogue=epilogue(READING, "awarded --sandbox --customers 20 --status REDEEMED"))
def awarded(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds,
    expiry: Expiry = _EXPIRY,
    of: Awarded = _AWARDED,
    asked: ReadRequest = _READ,
) -> int:
    """Read the ids of the points awarded to customers or user groups.

    Args:
        given: Customer or user group ids; - reads them from stdin.
    """
    return run_coroutine(_read.read(given, asked, _read.awarded(expiry, of)))


@app.command(help_epilogue=epilogue(READING, "events 98662653 --from-date 2026-01-01 --event-type EARN"))
def events(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds, of: Events = _EVENTS, asked: ReadRequest = _READ
) -> int:
    """Read the loyalty events of customers.

    Args:
        given: Customer ids; - reads them from stdin.
    """
    return run_coroutine(_read.read(given, asked, _read.events(of)))


@app.command(help_epilogue=epilogue(READING, "ledger --mobile 919886100000 5001 5002 --bill-details"))
def ledger(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds,
    whose: LedgerOf = _WHOSE,
    what: LedgerWith = _WHAT,
    include: LedgerIncludes = _INCLUDES,
    asked: ReadRequest = _READ,
) -> int:
    """Read the details of events of one customer's points ledger.

    In CSV, nested values are JSON text in their cell.

    Args:
        given: Event log ids, or references with --event-name; - reads them from stdin.
    """
    return run_coroutine(_ledger.ledger(given, asked, whose, what, include))


# --- what is done with exports ------------------------------------------------------------------------------


@app.command(
    help_epilogue=epilogue(
        "0 all is as the manifest says, 1 could not run or the service did not answer the sample, 2 as 0, and some "
        f"customers of the export failed, 3 differences found, {STOPPED}",
        "verify points/ --against-api --sample 200",
    )
)
def verify(  # noqa: D417 - the groups of options describe themselves
    out: Path,
    /,
    *more: Path,
    against_api: Annotated[bool, FLAG] = False,
    sample: int = 100,
    seed: int | None = None,
    status_file: Path | None = None,
    quiet: Annotated[bool, FLAG] = False,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Recompute counts, totals and hashes of an export and check them against its manifest.

    Args:
        out: The folder of the export.
        more: Folders of other exports, e.g. of the other shards.
        against_api: Also read a sample of customers again, over the connection, and compare each record.
        sample: Number of customers in the sample.
        seed: The same seed selects the same sample. Default: random.
        status_file: JSON file of the state, replaced every 2 s.
        quiet: Print only what differs.
    """
    return run_coroutine(
        run_verify(Checked((out, *more), against_api, sample, seed, quiet, status_file), connection, sandbox_of)
    )


@app.command(
    help_epilogue=epilogue(
        f"0 the same export, 1 not so, or could not run, 2 the same, and some customers failed in it, {STOPPED}",
        "replay archive/ --out again/",
    )
)
def replay(
    archive: Path, /, *, out: Path | None = None, body: str | None = None, quiet: Annotated[bool, FLAG] = False
) -> int:
    """Make an export again from the raw answers in its archive, without the service, and check that it is the same.

    Args:
        archive: The folder that export --archive filled.
        out: A new folder.
        body: Print the answer with this request id instead.
        quiet: No progress and no closing line.
    """
    return run_coroutine(run_replay(archive, out, body, quiet=quiet))


@app.command(
    help_epilogue=epilogue(
        f"0 equal and no rule broken, {COMPARED}",
        "reconcile points/ --books books.csv --key id --compare remaining=points",
    )
)
def reconcile(folder: str, *more: str, with_books: WithBooks = _BOOKS) -> int:  # noqa: D417 - the group describes itself
    """Compare an export with your own books, record by record, and check it by its own rules.

    Args:
        folder: The folder of a finished export.
        more: Folders of exports of the same kind, compared with it as one.
    """
    return run_coroutine(run_reconcile((folder, *more), with_books))


@app.command(
    help_epilogue=epilogue(
        f"0 the whole export is at the URL, 1 could not run or was refused, {STOPPED}",
        "publish points/ s3://lake/points/2026-06-01",
    )
)
def publish(
    folder: str,
    url: str,
    /,
    *more: str,
    table: Literal["delta"] | None = None,
    endpoint: str | None = None,
    quiet: Annotated[bool, FLAG] = False,
) -> int:
    """Send a complete export to an object store, verified, its manifest last; or make it a Delta table.

    URLs: s3://bucket/folder, gs://bucket/folder, abfss://container@account.dfs.core.windows.net/folder,
    file:///folder. Credentials come from the environment. The same command again continues.

    Args:
        folder: The folder of the export; with --table delta also several, before the URL.
        url: Where to.
        more: With several folders, the URL is the last one.
        table: Replace the rows of a Delta table, in one commit.
        endpoint: URL of an S3-compatible server (default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL).
        quiet: Print nothing.
    """
    return run_coroutine(run_publish((folder, url, *more), table, endpoint, quiet=quiet))
